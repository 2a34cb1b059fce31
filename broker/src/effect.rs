//! What happened, as it is journalled; and the keys of stored state.
//!
//! State is a map from key to value. An effect that is not a batch puts or deletes one key, so the same bytes serve the journal and
//! the checkpoint. The first byte of a key is its kind. Persisted: never reuse.
//!
//! ```text
//! 0x01                                  the node
//! 0x02  stream id 16                    a stream
//! 0x03  partition u32 (big endian)      a partition: offsets, producers, spans
//! 0x04  partition u32, producer i64     only ever deleted: the partition forgets the producer
//! 0x05  owner text                      settings kept for a protocol
//! 0x06  partition u32, base u64 (both big endian)  records of a batch that expire, see `removals`
//! 0x30  text of the subject             where the newest retained message lies, see `retained`
//! 0x31, 0x32                            last values of streams, see `lasts::state`; in checkpoints only
//! 0x10 to 0x1f                          groups and cursors, see `groups::state`
//! 0x20 to 0x2f                          queue cursors, see `cursors::state`
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::streams::{Policy, StreamInfo, TimeSource};
use firth_journal::entry::Entry;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, ProducerId, StreamId};
use firth_model::names::StreamName;
use firth_model::removed::RunSet;

use crate::cursors::state::CursorEffect;
use crate::groups::state::GroupEffect;
use crate::lasts::state::LastEffect;
use crate::layout::{Reader, StateDamage, Writer, begin_value, open_value, reserved_number, reserved_of_number};
use crate::removals::{self, Expiring, decode_expiring, encode_expiring};
use crate::replaced::{self, Replaced};

const NODE: u8 = 0x01;
const STREAM: u8 = 0x02;
pub const PARTITION: u8 = 0x03;
const PRODUCER: u8 = 0x04;
const KEPT: u8 = 0x05;
const EXPIRING: u8 = 0x06;
const RETAINED: u8 = 0x30;
const LASTS: std::ops::RangeInclusive<u8> = 0x31..=0x32;
const GROUPS: std::ops::RangeInclusive<u8> = 0x10..=0x1f;
const CURSORS: std::ops::RangeInclusive<u8> = 0x20..=0x2f;

/// Version byte of a stream's value; 1 and 2 are still read. What they lack has its defaults.
const STREAM_VERSION: u8 = 3;

/// Numbers that the node gives out. A restart continues behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    pub next_partition: u32,
    /// End of the durable block of producer ids.
    pub producer_block_end: i64,
}

/// Every change of state but an appended batch.
#[derive(Clone, Debug)]
pub enum Effect {
    PutNode(NodeRecord),
    PutStream(Arc<StreamInfo>),
    DropStream(StreamId),
    Trim {
        partition: PartitionId,
        log_start: Offset,
    },
    ForgetProducer {
        partition: PartitionId,
        producer: ProducerId,
    },
    /// Empty settings remove the owner.
    PutKept {
        owner: String,
        settings: BTreeMap<String, String>,
    },
    /// What lay in extents or segments lies in other segments now.
    Replace(Vec<Replaced>),
    /// Records that are gone for readers.
    Remove {
        partition: PartitionId,
        runs: RunSet,
    },
    /// Records of the batch at `base` that are to be removed at a time; none forgets the batch.
    Expire {
        partition: PartitionId,
        base: Offset,
        expiring: Expiring,
    },
    Group(GroupEffect),
    Cursor(CursorEffect),
    /// The newest retained message of a subject lies here in the retained stream; `None`: there is none any more.
    Retain {
        subject: Bytes,
        at: Option<Offset>,
    },
    /// Found by reading what is stored, so checkpoints alone hold it.
    Last(LastEffect),
}

/// An effect as one key and its value; `None` deletes. `Trim`, `Replace` and `Remove` have entry types of their own instead.
pub type KeyValue = (Bytes, Option<Bytes>);

impl Effect {
    pub fn key_value(&self) -> Option<KeyValue> {
        let pair = match self {
            Effect::PutNode(node) => {
                let value = begin_value().u32(node.next_partition).i64(node.producer_block_end).done();
                (Bytes::from_static(&[NODE]), Some(value))
            }
            Effect::PutStream(info) => (stream_key(info.id), Some(encode_stream(info))),
            Effect::DropStream(id) => (stream_key(*id), None),
            Effect::Trim { .. } | Effect::Replace(_) | Effect::Remove { .. } => return None,
            Effect::ForgetProducer { partition, producer } => {
                let key = Writer::default().u8(PRODUCER).raw(&partition.0.to_be_bytes()).i64(producer.0).done();
                (key, None)
            }
            Effect::PutKept { owner, settings } => {
                let key = Writer::default().u8(KEPT).raw(owner.as_bytes()).done();
                (key, (!settings.is_empty()).then(|| encode_settings(settings)))
            }
            Effect::Expire { partition, base, expiring } => {
                let key = Writer::default().u8(EXPIRING).raw(&partition.0.to_be_bytes()).raw(&base.0.to_be_bytes()).done();
                (key, (!expiring.is_empty()).then(|| encode_expiring(expiring)))
            }
            Effect::Group(effect) => effect.encode(),
            Effect::Cursor(effect) => effect.encode(),
            Effect::Last(effect) => effect.encode(),
            Effect::Retain { subject, at } => {
                let key = Writer::default().u8(RETAINED).raw(subject).done();
                (key, at.map(|at| begin_value().u64(at.0).done()))
            }
        };
        Some(pair)
    }

    /// Reads a key and its value as journal and checkpoint hold them. Partitions are not read here.
    pub fn decode(key: &[u8], value: Option<&Bytes>) -> Result<Effect, StateDamage> {
        let Some((kind, rest)) = key.split_first() else {
            return Err(StateDamage { what: "empty key" });
        };
        let mut key_reader = Reader::of(rest);
        match (*kind, value) {
            (NODE, Some(value)) => {
                let mut from = open_value(value)?;
                Ok(Effect::PutNode(NodeRecord { next_partition: from.u32()?, producer_block_end: from.i64()? }))
            }
            (STREAM, Some(value)) => decode_stream(stream_id(&mut key_reader)?, value).map(|info| Effect::PutStream(Arc::new(info))),
            (STREAM, None) => Ok(Effect::DropStream(stream_id(&mut key_reader)?)),
            (PRODUCER, None) => {
                let partition = PartitionId(key_reader.u32()?.swap_bytes());
                Ok(Effect::ForgetProducer { partition, producer: ProducerId(key_reader.i64()?) })
            }
            (KEPT, value) => {
                let owner = std::str::from_utf8(rest).map_err(|_| StateDamage { what: "owner is not UTF-8" })?.to_owned();
                let settings = value.map(decode_settings).transpose()?.unwrap_or_default();
                Ok(Effect::PutKept { owner, settings })
            }
            (EXPIRING, value) => {
                let (partition, base) = (PartitionId(key_reader.u32()?.swap_bytes()), Offset(key_reader.u64()?.swap_bytes()));
                let expiring = value.map(|value| decode_expiring(value)).transpose()?.unwrap_or_default();
                Ok(Effect::Expire { partition, base, expiring })
            }
            (RETAINED, value) => {
                let at = value.map(|value| open_value(value)?.u64().map(Offset)).transpose()?;
                Ok(Effect::Retain { subject: Bytes::copy_from_slice(rest), at })
            }
            (kind, value) if GROUPS.contains(&kind) => GroupEffect::decode(key, value).map(Effect::Group),
            (kind, value) if LASTS.contains(&kind) => LastEffect::decode(key, value).map(Effect::Last),
            (kind, value) if CURSORS.contains(&kind) => CursorEffect::decode(key, value).map(Effect::Cursor),
            _ => Err(StateDamage { what: "unknown kind of key" }),
        }
    }

    pub fn entry(&self) -> Entry {
        match (self, self.key_value()) {
            (Effect::Trim { partition, log_start }, _) => Entry::partition_trim(*partition, *log_start),
            (Effect::Replace(replaced), _) => replaced::entry(replaced),
            (Effect::Remove { partition, runs }, _) => removals::entry(*partition, runs),
            (_, Some((key, Some(value)))) => Entry::state_put(&key, value),
            (_, Some((key, None))) => Entry::state_delete(&key),
            (_, None) => unreachable!("trims, replacements and removals alone have no key"),
        }
    }
}

pub fn partition_key(id: PartitionId) -> Bytes {
    Writer::default().u8(PARTITION).raw(&id.0.to_be_bytes()).done()
}

pub fn partition_of_key(rest: &[u8]) -> Result<PartitionId, StateDamage> {
    Ok(PartitionId(Reader::of(rest).u32()?.swap_bytes()))
}

/// Checks the version byte of a stream's value, and gives it.
fn open_stream(value: &[u8]) -> Result<(u8, Reader<'_>), StateDamage> {
    let mut from = Reader::of(value);
    match from.u8()? {
        version @ 1..=STREAM_VERSION => Ok((version, from)),
        _ => Err(StateDamage { what: "stream of a newer version" }),
    }
}

fn stream_key(id: StreamId) -> Bytes {
    Writer::default().u8(STREAM).raw(id.0.as_bytes()).done()
}

fn stream_id(from: &mut Reader<'_>) -> Result<StreamId, StateDamage> {
    Ok(StreamId(uuid::Uuid::from_bytes(from.sixteen()?)))
}

/// Name, version u32, home u32 (shard, 0 today), policy (since version 2 with retention by records i64, delete retention u64, least
/// and largest compaction lag u64 and i64, dirty percent u8 behind the flags; since version 3 then captures of (text, rule u8)), settings,
/// and the ids of the partitions as runs of (first u32, count u32): they are given out one after the other, so there are few.
fn encode_stream(info: &StreamInfo) -> Bytes {
    const HOME: u32 = 0;
    let mut out = Writer::default();
    out.u8(STREAM_VERSION);
    out.text(info.name.as_str()).u32(info.version).u32(HOME);
    let policy = &info.policy;
    out.i64(limit(policy.retention_ms)).i64(limit(policy.retention_bytes)).u32(policy.batch_bytes_max);
    let flags = u8::from(policy.expires)
        | u8::from(policy.compacted) << 1
        | u8::from(policy.time == TimeSource::Log) << 2
        | u8::from(policy.hidden) << 3
        | u8::from(policy.offers_last) << 4;
    out.u8(flags).i64(limit(policy.retention_records)).u64(policy.delete_retention_ms).u64(policy.compaction_lag_min_ms);
    out.i64(limit(policy.compaction_lag_max_ms)).u8(policy.dirty_ratio_percent);
    out.count(policy.captures.len());
    for filter in &policy.captures {
        out.text(filter.as_str()).u8(reserved_number(filter.reserved()));
    }
    write_settings(&mut out, &info.settings);
    let runs = runs(&info.partitions);
    out.count(runs.len());
    for (first, count) in runs {
        out.u32(first).u32(count);
    }
    out.done()
}

fn limit(value: Option<u64>) -> i64 {
    value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX))
}

fn runs(partitions: &[PartitionId]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for id in partitions {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == id.0 => *count += 1,
            _ => runs.push((id.0, 1)),
        }
    }
    runs
}

fn decode_stream(id: StreamId, value: &[u8]) -> Result<StreamInfo, StateDamage> {
    let (layout, mut from) = open_stream(value)?;
    let name = StreamName::parse(from.text()?).map_err(|_| StateDamage { what: "stream name" })?;
    let version = from.u32()?;
    let _home = from.u32()?;
    let policy = read_policy(layout, &mut from)?;
    let settings = read_settings(&mut from)?;
    let mut partitions = Vec::new();
    for _ in 0..from.count(8)? {
        let (first, count) = (from.u32()?, from.u32()?);
        if count > firth_model::limits::STREAM_PARTITIONS_MAX || first.checked_add(count).is_none() {
            return Err(StateDamage { what: "run of partitions" });
        }
        partitions.extend((first..first + count).map(PartitionId));
    }
    from.end()?;
    Ok(StreamInfo { id, name, partitions, policy, settings, version })
}

fn read_policy(layout: u8, from: &mut Reader<'_>) -> Result<Policy, StateDamage> {
    let retention_ms = u64::try_from(from.i64()?).ok();
    let retention_bytes = u64::try_from(from.i64()?).ok();
    let batch_bytes_max = from.u32()?;
    let flags = from.u8()?;
    let time = if flags & 4 == 0 { TimeSource::Publisher } else { TimeSource::Log };
    let (expires, compacted) = (flags & 1 != 0, flags & 2 != 0);
    let mut policy = Policy { retention_ms, retention_bytes, expires, compacted, batch_bytes_max, time, ..Policy::default() };
    if layout >= 2 {
        policy.retention_records = u64::try_from(from.i64()?).ok();
        policy.delete_retention_ms = from.u64()?;
        policy.compaction_lag_min_ms = from.u64()?;
        policy.compaction_lag_max_ms = u64::try_from(from.i64()?).ok();
        policy.dirty_ratio_percent = from.u8()?;
    }
    if layout >= 3 {
        policy.hidden = flags & 8 != 0;
        policy.offers_last = flags & 16 != 0;
        for _ in 0..from.count(5)? {
            let filter = Filter::parse(from.text()?).map_err(|_| StateDamage { what: "filter of a capture" })?;
            policy.captures.push(filter.with_reserved(reserved_of_number(from.u8()?)?));
        }
    }
    Ok(policy)
}

fn encode_settings(settings: &BTreeMap<String, String>) -> Bytes {
    let mut out = begin_value();
    write_settings(&mut out, settings);
    out.done()
}

fn decode_settings(value: &Bytes) -> Result<BTreeMap<String, String>, StateDamage> {
    let mut from = open_value(value)?;
    read_settings(&mut from)
}

fn write_settings(out: &mut Writer, settings: &BTreeMap<String, String>) {
    out.count(settings.len());
    for (name, value) in settings {
        out.text(name).text(value);
    }
}

fn read_settings(from: &mut Reader<'_>) -> Result<BTreeMap<String, String>, StateDamage> {
    let mut settings = BTreeMap::new();
    for _ in 0..from.count(8)? {
        settings.insert(from.text()?.to_owned(), from.text()?.to_owned());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use firth_model::filter::Reserved;

    fn sample() -> StreamInfo {
        StreamInfo {
            id: StreamId(uuid::Uuid::from_u128(7)),
            name: StreamName::parse("orders.eu").expect("a name"),
            partitions: [3, 4, 5, 9].map(PartitionId).to_vec(),
            policy: Policy { retention_ms: None, compacted: true, time: TimeSource::Log, ..Policy::default() },
            settings: [("retention.ms".to_owned(), "-1".to_owned())].into(),
            version: 4,
        }
    }

    fn survives(effect: &Effect) {
        let (key, value) = effect.key_value().expect("has a key");
        let back = Effect::decode(&key, value.as_ref()).expect("own bytes");
        assert_eq!(format!("{back:?}"), format!("{effect:?}"));
        assert_eq!(back.key_value(), Some((key, value)));
    }

    #[test]
    fn effects_survive_their_bytes() {
        survives(&Effect::PutNode(NodeRecord { next_partition: 77, producer_block_end: 2000 }));
        survives(&Effect::PutStream(Arc::new(sample())));
        let mut capturing = sample();
        capturing.policy.captures = vec![Filter::parse("a/>").expect("a filter").with_reserved(Reserved::DollarHidden)];
        capturing.policy.hidden = true;
        survives(&Effect::PutStream(Arc::new(capturing)));
        let subject = Bytes::from_static(b"a/b");
        survives(&Effect::Retain { subject: subject.clone(), at: Some(Offset(9)) });
        survives(&Effect::Retain { subject, at: None });
        survives(&Effect::DropStream(sample().id));
        survives(&Effect::ForgetProducer { partition: PartitionId(258), producer: ProducerId(5) });
        let expiring = vec![(3, firth_model::time::Millis(9))];
        survives(&Effect::Expire { partition: PartitionId(258), base: Offset(70_000), expiring });
        survives(&Effect::Expire { partition: PartitionId(258), base: Offset(70_000), expiring: Vec::new() });
        survives(&Effect::PutKept { owner: "group/a".to_owned(), settings: sample().settings });
        survives(&Effect::PutKept { owner: "group/a".to_owned(), settings: BTreeMap::new() });
    }

    /// The bytes of `sample`, but for the version and what only version 2 has behind the flags.
    fn stored(version: &str, added: &str) -> String {
        [
            version,
            "090000006f72646572732e6575",
            "04000000",
            "00000000",
            "ffffffffffffffff",
            "ffffffffffffffff",
            "0c001000",
            "07",
            added,
            "01000000",
            "0c000000726574656e74696f6e2e6d73",
            "020000002d31",
            "02000000",
            "0300000003000000",
            "0900000001000000",
        ]
        .concat()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
    }

    /// These bytes are on the disks of users: a change here needs a new version byte and both readers.
    #[test]
    fn a_stream_keeps_its_bytes() {
        let mut stream = sample();
        stream.policy.retention_records = Some(1000);
        stream.policy.compaction_lag_min_ms = 3;
        let value = encode_stream(&stream);
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let added = concat!("e803000000000000", "005c260500000000", "0300000000000000", "ffffffffffffffff", "32");
        let captures = "00000000";
        assert_eq!(hex, stored("03", &format!("{added}{captures}")));
        assert_eq!(decode_stream(stream.id, &value).expect("own bytes"), stream);
        let of_version_2 = decode_stream(stream.id, &unhex(&stored("02", added)));
        assert_eq!(of_version_2.expect("bytes of the second release"), stream);
    }

    #[test]
    fn a_stream_of_version_1_is_read() {
        let stream = decode_stream(sample().id, &unhex(&stored("01", ""))).expect("bytes of the first release");
        assert_eq!(stream, sample());
        assert!(decode_stream(sample().id, &unhex(&stored("04", ""))).is_err());
    }

    #[test]
    fn cut_values_are_damage_not_panics() {
        let value = encode_stream(&sample());
        for cut in 0..value.len() {
            assert!(decode_stream(sample().id, &value[..cut]).is_err(), "cut at {cut}");
        }
    }
}
