//! Requests about streams, producers and settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use firth_gateway::answer::{Answer, ProducerReport};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Alter, Declare, Request};
use firth_gateway::streams::{Policy, StreamInfo};
use firth_journal::spares::Room;
use firth_model::filter::Filter;
use firth_model::ids::{Lsn, Offset, PartitionId, ProducerEpoch, ProducerId, StreamId};
use firth_model::limits::{CAPTURED_HASHES_MAX, PARTITIONS_MAX, PRODUCER_ID_BLOCK, STREAM_PARTITIONS_MAX};
use firth_model::names::StreamName;

use crate::effect::{Effect, NodeRecord};
use crate::shard::{Due, Shard};

/// An answer, and the effect it has to wait for.
type Outcome = Result<(Lsn, Answer), Refusal>;

/// Settings of one stream or owner: they are one entry of the journal, and read by everybody who looks at the stream.
const SETTINGS_BYTES_MAX: usize = 64 << 10;

fn bounded(settings: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let bytes: usize = settings.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes <= SETTINGS_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::InvalidSetting { what: format!("{bytes} bytes of settings are more than the {SETTINGS_BYTES_MAX} allowed") })
}

impl Shard {
    pub(crate) fn administer(&mut self, request: Request) -> Outcome {
        match request {
            Request::Declare(declare) => self.declare(*declare),
            Request::Alter(alter) => self.alter(*alter),
            Request::Grow { stream, partitions } => self.grow(stream, partitions),
            Request::Drop { stream } => self.drop_stream(stream),
            Request::Trim { partition, before } => self.trim(partition, before),
            Request::Producer { continues } => self.producer(continues),
            Request::Producers { partition } => self.producers(partition),
            Request::Keep { owner, settings } => self.keep(owner, settings),
            Request::Kept { owner } => {
                let settings = self.state.kept.get(&owner).cloned().unwrap_or_default();
                Ok((self.catalog_lsn, Answer::Kept(settings)))
            }
            Request::Publish(_) | Request::Store(_) | Request::Group(_) | Request::Cursor(_) | Request::Barrier => {
                unreachable!("the shard serves these itself")
            }
        }
    }

    fn declare(&mut self, declare: Declare) -> Outcome {
        bounded(&declare.settings)?;
        self.bounded_captures(None, &declare.policy)?;
        if self.state.catalog.by_name(declare.name.as_str()).is_some() {
            return Err(Refusal::Exists);
        }
        if declare.partitions == 0 {
            return Err(Refusal::InvalidPartitions { what: "a stream has at least one partition" });
        }
        let info = self.make_stream(declare.name, declare.partitions, declare.policy, declare.settings)?;
        Ok((self.catalog_lsn, Answer::Stream(info)))
    }

    /// A stream of a name that no stream has.
    pub(crate) fn make_stream(
        &mut self,
        name: StreamName,
        partitions: u32,
        policy: Policy,
        settings: BTreeMap<String, String>,
    ) -> Result<Arc<StreamInfo>, Refusal> {
        let partitions = self.more_partitions(0, partitions)?;
        let id = StreamId(uuid::Builder::from_random_bytes((self.dice)().to_le_bytes()).into_uuid());
        Ok(self.put_stream(StreamInfo { id, name, partitions, policy, settings, version: 0 }))
    }

    fn alter(&mut self, alter: Alter) -> Outcome {
        bounded(&alter.settings)?;
        let info = self.known(alter.stream)?;
        if info.version != alter.version {
            return Err(Refusal::Conflict);
        }
        self.bounded_captures(Some(alter.stream), &alter.policy)?;
        let changed = StreamInfo { policy: alter.policy, settings: alter.settings, version: info.version + 1, ..(*info).clone() };
        let info = self.put_stream(changed);
        Ok((self.catalog_lsn, Answer::Stream(info)))
    }

    fn grow(&mut self, stream: StreamId, partitions: u32) -> Outcome {
        let info = self.known(stream)?;
        let before = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
        if partitions <= before {
            return Err(Refusal::InvalidPartitions { what: "a stream only grows" });
        }
        let mut changed = (*info).clone();
        changed.partitions.extend(self.more_partitions(before, partitions)?);
        changed.version += 1;
        let info = self.put_stream(changed);
        Ok((self.catalog_lsn, Answer::Stream(info)))
    }

    /// Gives out numbers for the partitions from `before` to `wanted`.
    fn more_partitions(&mut self, before: u32, wanted: u32) -> Result<Vec<PartitionId>, Refusal> {
        if wanted > STREAM_PARTITIONS_MAX {
            return Err(Refusal::InvalidPartitions { what: "more partitions than a stream may have" });
        }
        let live = u32::try_from(self.state.partitions.len()).unwrap_or(u32::MAX);
        let first = self.state.node.next_partition;
        let count = wanted - before;
        let Some(next_partition) = first.checked_add(count).filter(|_| live.saturating_add(count) <= PARTITIONS_MAX) else {
            return Err(Refusal::InvalidPartitions { what: "more partitions than a node may have" });
        };
        if self.room != Room::Plenty {
            return Err(Refusal::StorageFull);
        }
        self.emit(&Effect::PutNode(NodeRecord { next_partition, ..self.state.node }));
        Ok((first..next_partition).map(PartitionId).collect())
    }

    fn put_stream(&mut self, info: StreamInfo) -> Arc<StreamInfo> {
        let info = Arc::new(info);
        self.catalog_lsn = self.emit(&Effect::PutStream(info.clone()));
        // At once: what is published from now on is appended behind this entry.
        self.view.routing.put(&info);
        self.due(self.catalog_lsn, Due::ShowStream(info.clone()));
        if !info.policy.hidden {
            self.catalog_changed();
        }
        info
    }

    pub(crate) fn drop_stream(&mut self, stream: StreamId) -> Outcome {
        let info = self.known(stream)?;
        self.catalog_lsn = self.emit(&Effect::DropStream(stream));
        self.view.routing.remove(stream);
        let dropped = self.state.take_dropped();
        let hidden = info.policy.hidden;
        self.due(self.catalog_lsn, Due::HideStream(info, dropped));
        if !hidden {
            self.catalog_changed();
        }
        Ok((self.catalog_lsn, Answer::Done))
    }

    fn trim(&mut self, partition: PartitionId, before: Option<Offset>) -> Outcome {
        let held = self.state.partitions.get(&partition).ok_or(Refusal::NotFound)?;
        let (log_start, end) = (held.log_start, held.view.durable_end());
        let before = before.unwrap_or(end);
        if before > end {
            return Err(Refusal::OffsetOutOfRange { log_start, end });
        }
        if before <= log_start {
            return Ok((held.last_lsn, Answer::Trimmed { log_start }));
        }
        let lsn = self.emit(&Effect::Trim { partition, log_start: before });
        self.due(lsn, Due::ShowStart(partition, before));
        Ok((lsn, Answer::Trimmed { log_start: before }))
    }

    /// A fresh id from a block that is durable before any of it is given out; or the next epoch of an id its owner names.
    fn producer(&mut self, continues: Option<(ProducerId, ProducerEpoch)>) -> Outcome {
        if let Some((id, epoch)) = continues
            && let Some(next) = epoch.0.checked_add(1).filter(|next| *next < i16::MAX)
            && (0..self.state.node.producer_block_end).contains(&id.0)
            && epoch.0 >= 0
        {
            return Ok((self.catalog_lsn, Answer::Producer { id, epoch: ProducerEpoch(next) }));
        }
        if self.producer_ids.is_empty() {
            let first = self.state.node.producer_block_end;
            let producer_block_end = first + PRODUCER_ID_BLOCK;
            self.catalog_lsn = self.emit(&Effect::PutNode(NodeRecord { producer_block_end, ..self.state.node }));
            self.producer_ids = first..producer_block_end;
        }
        let id = self.producer_ids.next().expect("the block was just filled");
        Ok((self.catalog_lsn, Answer::Producer { id: ProducerId(id), epoch: ProducerEpoch(0) }))
    }

    fn producers(&mut self, partition: PartitionId) -> Outcome {
        let held = self.state.partitions.get(&partition).ok_or(Refusal::NotFound)?;
        let report = |(id, state): (ProducerId, &crate::producers::ProducerState)| ProducerReport {
            id,
            epoch: state.epoch,
            last_sequence: state.last_sequence(),
            last_seen: state.last_seen,
        };
        let mut reports: Vec<_> = held.producers.iter().map(report).collect();
        reports.sort_unstable_by_key(|report| report.id);
        Ok((held.last_lsn, Answer::Producers(reports)))
    }

    fn keep(&mut self, owner: String, changes: BTreeMap<String, Option<String>>) -> Outcome {
        let mut settings = self.state.kept.get(&owner).cloned().unwrap_or_default();
        for (name, value) in changes {
            match value {
                Some(value) => settings.insert(name, value),
                None => settings.remove(&name),
            };
        }
        bounded(&settings)?;
        if owner.len() > SETTINGS_BYTES_MAX {
            return Err(Refusal::InvalidSetting { what: "the owner's name is too long".to_owned() });
        }
        self.catalog_lsn = self.emit(&Effect::PutKept { owner, settings: settings.clone() });
        Ok((self.catalog_lsn, Answer::Kept(settings)))
    }

    /// Whether the stream's captures leave matching as fast as it has to be.
    fn bounded_captures(&self, stream: Option<StreamId>, policy: &Policy) -> Result<(), Refusal> {
        let hashes = |policy: &Policy| policy.captures.iter().map(Filter::inner_hashes).sum::<usize>();
        let added = hashes(policy);
        // What was there before this bound may be changed, and made less.
        let before = stream.and_then(|id| self.state.catalog.by_id(id)).map_or(0, |info| hashes(&info.policy));
        let others = || self.state.catalog.all().filter(|info| Some(info.id) != stream).map(|info| hashes(&info.policy)).sum::<usize>();
        if added <= before || added + others() <= CAPTURED_HASHES_MAX {
            return Ok(());
        }
        Err(Refusal::InvalidSetting { what: format!("captures of all streams may have # before their end {CAPTURED_HASHES_MAX} times") })
    }

    fn known(&self, stream: StreamId) -> Result<Arc<StreamInfo>, Refusal> {
        self.state.catalog.by_id(stream).cloned().ok_or(Refusal::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::bench::Rig;

    /// Matching a subject costs a pass over its levels for each `#` before the end of a filter.
    #[test]
    fn captures_with_inner_hashes_are_few() {
        let mut rig = Rig::with_partitions(1);
        let policy = |hashes: usize| {
            let one = |at: usize| Filter::parse(&format!("a/#/b{at}/#")).expect("a filter");
            Policy { captures: (0..hashes).map(one).collect(), ..Policy::default() }
        };
        let declare = |rig: &mut Rig, name: &str, hashes| {
            let name = StreamName::parse(name).expect("a name");
            rig.ask(Request::Declare(Box::new(Declare { name, partitions: 1, policy: policy(hashes), settings: BTreeMap::new() })))
        };
        let Ok(Answer::Stream(first)) = declare(&mut rig, "first", CAPTURED_HASHES_MAX - 1) else { panic!("not made") };
        assert!(matches!(declare(&mut rig, "second", 2), Err(Refusal::InvalidSetting { .. })));
        assert!(declare(&mut rig, "second", 1).is_ok());
        let alter = |version, hashes| Alter { stream: first.id, version, policy: policy(hashes), settings: BTreeMap::new() };
        assert!(rig.ask(Request::Alter(Box::new(alter(first.version, CAPTURED_HASHES_MAX)))).is_err());
        assert!(rig.ask(Request::Alter(Box::new(alter(first.version, CAPTURED_HASHES_MAX - 1)))).is_ok(), "its own do not count twice");
    }
}
