//! Everything a shard remembers; only this changes it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::streams::StreamInfo;
use firth_journal::entry::{
    EntryKind, Selection, Target, read_batch, read_given_up, read_partition_trim, read_state_delete, read_state_put, shared_bytes,
};
use firth_journal::group::Located;
use firth_journal::options::Replayed;
use firth_model::batch::BatchHeader;
use firth_model::ids::{ExtentNumber, Lsn, Offset, PartitionId, ProducerId, SegmentId, StreamId};
use firth_model::time::Millis;

use crate::catalog::Catalog;
use crate::cursors::table::Cursors;
use crate::effect::{Effect, NodeRecord, PARTITION, partition_key, partition_of_key};
use crate::extents::Extents;
use crate::groups::machine::Groups;
use crate::index::{Place, Row};
use crate::lasts::table::OfStream;
use crate::layout::{StateDamage, Writer};
use crate::partition::Partition;
use crate::removals::{self, Expiries, write_runs};
use crate::replaced::{Replaced, read_entry, write_spans};
use crate::retained::Retained;

pub type Partitions = HashMap<PartitionId, Partition, foldhash::fast::RandomState>;

pub struct State {
    pub node: NodeRecord,
    pub catalog: Catalog,
    pub partitions: Partitions,
    pub groups: Groups,
    pub cursors: Cursors,
    pub kept: BTreeMap<String, BTreeMap<String, String>>,
    pub extents: Extents,
    pub expiries: Expiries,
    pub retained: Retained,
    /// As the checkpoint had them, until the shard is there.
    pub lasts: HashMap<StreamId, OfStream>,
    /// Over all partitions.
    pub producers: usize,
    dirty: Dirty,
    /// Partitions whose drop is applied but may not be durable: until it is, their extents must not be recycled.
    dropped: Vec<Partition>,
}

/// What changed since the last checkpoint: the newest value of each key, and the partitions, whose values are made when needed.
#[derive(Default)]
struct Dirty {
    values: HashMap<Bytes, Option<Bytes>, foldhash::fast::RandomState>,
    partitions: HashSet<PartitionId, foldhash::fast::RandomState>,
}

impl State {
    pub fn empty(groups: Groups, extent_bytes: u32) -> State {
        State {
            node: NodeRecord { next_partition: 0, producer_block_end: 0 },
            catalog: Catalog::default(),
            partitions: Partitions::default(),
            groups,
            cursors: Cursors::default(),
            kept: BTreeMap::new(),
            extents: Extents::of_size(extent_bytes),
            expiries: Expiries::default(),
            retained: Retained::default(),
            lasts: HashMap::new(),
            producers: 0,
            dirty: Dirty::default(),
            dropped: Vec::new(),
        }
    }

    /// Cannot refuse. Effects on what is gone change nothing.
    pub fn apply(&mut self, effect: &Effect, lsn: Lsn) {
        match effect {
            Effect::PutNode(node) => self.node = *node,
            Effect::PutStream(info) => self.put_stream(info),
            Effect::DropStream(id) => {
                if let Some(info) = self.catalog.remove(*id) {
                    self.drop_partitions(&info);
                }
            }
            Effect::Trim { partition, log_start } => {
                if let Some(held) = self.partitions.get_mut(partition) {
                    held.log_start = held.log_start.max(*log_start);
                    held.next = held.next.max(held.log_start);
                    held.last_lsn = lsn;
                    if !held.removed.is_empty() {
                        Arc::make_mut(&mut held.removed).trim_below(held.log_start.0);
                    }
                    self.dirty.partitions.insert(*partition);
                }
            }
            Effect::ForgetProducer { partition, producer } => self.forget(*partition, *producer),
            Effect::Replace(replaced) => {
                for part in replaced {
                    if let Some(held) = self.partitions.get_mut(&part.partition) {
                        held.replacing.push_back(part.clone());
                        held.cleaned_to = held.cleaned_to.max(part.cleaned_to);
                        self.dirty.partitions.insert(part.partition);
                    }
                }
            }
            Effect::PutKept { owner, settings } => {
                if settings.is_empty() {
                    self.kept.remove(owner);
                } else {
                    self.kept.insert(owner.clone(), settings.clone());
                }
            }
            Effect::Remove { partition, runs } => {
                if let Some(held) = self.partitions.get_mut(partition) {
                    let removed = Arc::make_mut(&mut held.removed);
                    runs.iter().for_each(|run| {
                        removed.insert(run.start.max(held.log_start.0)..run.end.min(held.next.0));
                    });
                    held.last_lsn = lsn;
                    self.dirty.partitions.insert(*partition);
                }
            }
            Effect::Expire { partition, base, expiring } => {
                if self.partitions.contains_key(partition) {
                    self.expiries.put(*partition, *base, expiring.clone());
                }
            }
            Effect::Group(effect) => self.groups.apply(effect),
            Effect::Cursor(effect) => {
                let mut gone = Vec::new();
                self.cursors.apply(effect, &mut gone);
                self.dirty.values.extend(gone.into_iter().map(|key| (key, None)));
            }
            Effect::Retain { subject, at } => self.retained.put(subject, *at),
            Effect::Last(effect) => self.lasts.entry(effect.stream).or_default().load(&effect.what),
        }
    }

    /// The batch whose header this is, appended at `base_offset`.
    pub fn apply_batch(&mut self, partition: PartitionId, header: &BatchHeader, base_offset: Offset, now: Millis, lsn: Lsn) {
        if let Some(held) = self.partitions.get_mut(&partition) {
            self.producers += usize::from(held.apply(header, base_offset, now, lsn));
            self.dirty.partitions.insert(partition);
        }
    }

    /// Remembers that a key changed, with the bytes that were journalled.
    pub fn touch(&mut self, key: Bytes, value: Option<Bytes>) {
        // A forgotten producer is part of its partition's value.
        if !matches!(key.first(), Some(0x04)) {
            self.dirty.values.insert(key, value);
        }
    }

    /// A durable batch lies here, for all partitions that have it.
    pub fn place(&mut self, shared: &[Located], appended: Millis) {
        for located in shared {
            let Some(held) = self.partitions.get(&located.row.partition) else { continue };
            let row = Row {
                base: located.row.base_offset,
                records: located.row.records,
                bytes: located.bytes,
                shared_bytes: shared_bytes(shared.len()),
                position: located.position,
                max_timestamp: located.row.max_timestamp,
                appended,
            };
            let extent = self.extents.extent_of(row.position);
            let mut index = held.view.index();
            if index.rows().back().is_none_or(|last| self.extents.extent_of(last.position) != extent) {
                self.extents.took_first(extent);
            }
            index.push(row);
        }
    }

    /// Shows the log start of a partition and frees what lies below it.
    pub fn trim_index(&mut self, partition: PartitionId, log_start: Offset) {
        let Some(held) = self.partitions.get(&partition) else { return };
        held.view.show_start(log_start);
        trim(&mut self.extents, held, log_start);
    }

    /// The oldest replacement that was decided for the partition is durable: shows it.
    pub fn replace_index(&mut self, partition: PartitionId) {
        let Some(held) = self.partitions.get_mut(&partition) else { return };
        let Some(replaced) = held.replacing.pop_front() else { return };
        let mut gone = Vec::new();
        let extents = &mut self.extents;
        let extent_of = |position| extents.extent_of(position);
        let mut index = held.view.index();
        index.replace((replaced.base, replaced.end), &replaced.spans, extent_of, |place, bytes| gone.push((place, bytes)));
        drop(index);
        replaced.spans.iter().for_each(|span| extents.took_span(span));
        gone.into_iter().for_each(|(place, bytes)| extents.lost(place, bytes));
        let log_start = held.view.log_start();
        trim(&mut self.extents, held, log_start);
    }

    /// Segments of replacements that are not durable yet.
    pub fn replacing(&self) -> impl Iterator<Item = SegmentId> {
        self.partitions.values().flat_map(|held| held.replacing.iter().flat_map(Replaced::segments))
    }

    /// The partitions dropped since the last call: `free` them when their drop is durable.
    pub fn take_dropped(&mut self) -> Vec<Partition> {
        std::mem::take(&mut self.dropped)
    }

    pub fn free(&mut self, dropped: &[Partition]) {
        for held in dropped {
            trim(&mut self.extents, held, Offset(u64::MAX));
        }
    }

    /// No more batches come into `extent`: rows become spans, which the next checkpoint must hold.
    pub fn seal(&mut self, extent: ExtentNumber) {
        self.extents.sealed(extent);
        for (id, held) in &self.partitions {
            let extents = &self.extents;
            if held.view.index().seal(extent, |position| extents.extent_of(position)) {
                self.dirty.partitions.insert(*id);
            }
        }
    }

    fn put_stream(&mut self, info: &Arc<StreamInfo>) {
        for id in &info.partitions {
            let bytes_max = info.policy.batch_bytes_max;
            let held = self.partitions.entry(*id).or_insert_with(|| Partition::empty(*id, info.id, bytes_max));
            held.batch_bytes_max = bytes_max;
        }
        self.catalog.put(info.clone());
    }

    fn drop_partitions(&mut self, info: &StreamInfo) {
        for id in &info.partitions {
            if let Some(held) = self.partitions.remove(id) {
                self.producers -= held.producers.len();
                self.dirty.partitions.remove(id);
                self.dirty.values.insert(partition_key(*id), None);
                for base in self.expiries.of(*id) {
                    self.expiries.put(*id, base, Vec::new());
                    let forgotten = Effect::Expire { partition: *id, base, expiring: Vec::new() };
                    self.dirty.values.extend(forgotten.key_value());
                }
                self.dropped.push(held);
            }
        }
    }

    fn forget(&mut self, partition: PartitionId, producer: ProducerId) {
        if let Some(held) = self.partitions.get_mut(&partition)
            && held.producers.forget(producer)
        {
            self.producers -= 1;
            self.dirty.partitions.insert(partition);
        }
    }

    /// One key of a checkpoint.
    pub fn load(&mut self, key: &Bytes, value: &Bytes) -> Result<(), StateDamage> {
        match key.split_first() {
            Some((&PARTITION, rest)) => {
                let id = partition_of_key(rest)?;
                let Some(held) = self.partitions.get_mut(&id) else {
                    return Err(StateDamage { what: "partition without a stream" });
                };
                held.decode_into(value)?;
                self.producers += held.producers.len();
                held.view.index().spans().iter().for_each(|span| self.extents.took_span(span));
                Ok(())
            }
            _ => {
                self.apply(&Effect::decode(key, Some(value))?, Lsn(0));
                Ok(())
            }
        }
    }

    /// One entry of the journal. Entries up to `loaded` are in the checkpoint already: only where their batches lie is new.
    pub fn replay(&mut self, entry: &Replayed<'_>, loaded: Lsn) -> Result<(), StateDamage> {
        const UNREADABLE: StateDamage = StateDamage { what: "entry cannot be read" };
        if entry.lsn > loaded {
            match entry.kind {
                EntryKind::Batch => {
                    let batch = read_batch(&entry.body).ok_or(UNREADABLE)?;
                    let header = BatchHeader::parse(&batch.bytes).map_err(|_| UNREADABLE)?;
                    let base_offset = Offset::from_i64(header.base_offset).ok_or(UNREADABLE)?;
                    self.apply_batch(batch.primary, &header, base_offset, entry.append_ms, entry.lsn);
                    for Target { partition, base_offset, selection } in batch.targets {
                        if selection != Selection::All {
                            return Err(StateDamage { what: "a target of a newer version" });
                        }
                        self.apply_batch(partition, &header, base_offset, entry.append_ms, entry.lsn);
                    }
                }
                EntryKind::PartitionTrim => {
                    let (partition, log_start) = read_partition_trim(&entry.body).ok_or(UNREADABLE)?;
                    self.apply(&Effect::Trim { partition, log_start }, entry.lsn);
                }
                EntryKind::RecordsRemoved => {
                    let (partition, runs) = removals::read_entry(&entry.body)?;
                    self.apply(&Effect::Remove { partition, runs }, entry.lsn);
                }
                EntryKind::SegmentsReplaced => self.apply(&Effect::Replace(read_entry(&entry.body)?), entry.lsn),
                EntryKind::GivenUp => {
                    for (partition, end) in read_given_up(&entry.body) {
                        let Some(held) = self.partitions.get_mut(&partition) else { continue };
                        // Its offsets are not given out again: consumers may have passed them.
                        held.next = held.next.max(end);
                        self.dirty.partitions.insert(partition);
                    }
                }
                EntryKind::StatePut => {
                    let (key, value) = read_state_put(&entry.body).ok_or(UNREADABLE)?;
                    self.apply(&Effect::decode(&key, Some(&value))?, entry.lsn);
                    self.touch(key, Some(value));
                }
                EntryKind::StateDelete => {
                    let key = read_state_delete(&entry.body).ok_or(UNREADABLE)?;
                    self.apply(&Effect::decode(&key, None)?, entry.lsn);
                    self.touch(key, None);
                }
                _ => {}
            }
        }
        self.place(entry.placed, entry.append_ms);
        Ok(())
    }

    /// After the last entry: everything that was read is durable, and `finished` are the extents that it lay in.
    pub fn replayed(&mut self, finished: &[ExtentNumber]) {
        let dropped = self.take_dropped();
        self.free(&dropped);
        let ids: Vec<_> = self.partitions.keys().copied().collect();
        // As it happened: what was trimmed was not among what was replaced, and only what was sealed was.
        for id in &ids {
            let Some(held) = self.partitions.get(id) else { continue };
            held.view.show_end(held.next);
            held.view.show_removed(held.removed.clone());
            let log_start = held.log_start;
            self.trim_index(*id, log_start);
        }
        finished.iter().for_each(|extent| self.seal(*extent));
        for id in &ids {
            let Some(held) = self.partitions.get(id) else { continue };
            let (log_start, replacements) = (held.log_start, held.replacing.len());
            (0..replacements).for_each(|_| self.replace_index(*id));
            self.trim_index(*id, log_start);
        }
    }

    /// What changed since the last call, in the order of keys.
    pub fn take_changes(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes: BTreeMap<Bytes, Option<Bytes>> = dirty.values.into_iter().collect();
        for id in dirty.partitions {
            if let Some(held) = self.partitions.get(&id) {
                changes.insert(partition_key(id), Some(held.encode()));
            }
        }
        changes.into_iter().collect()
    }

    pub fn is_clean(&self) -> bool {
        self.dirty.values.is_empty() && self.dirty.partitions.is_empty()
    }

    /// Everything that replay must reproduce, as keys and values: equal states have equal dumps.
    pub fn dump(&self) -> BTreeMap<Bytes, Bytes> {
        let streams = self.catalog.all().map(|info| Effect::PutStream(info.clone()));
        let kept = self.kept.iter().map(|(owner, settings)| Effect::PutKept { owner: owner.clone(), settings: settings.clone() });
        let groups = self.groups.dump().into_iter().map(Effect::Group);
        let cursors = self.cursors.dump().into_iter().map(Effect::Cursor);
        let retained = self.retained.all().map(|(subject, at)| Effect::Retain { subject: subject.clone(), at: Some(at) });
        let expiring = self.expiries.all();
        let expiring = expiring.map(|(partition, base, expiring)| Effect::Expire { partition, base, expiring: expiring.clone() });
        let effects = streams.chain(kept).chain(expiring).chain(groups).chain(cursors).chain(retained).chain([Effect::PutNode(self.node)]);
        let pairs = effects.filter_map(|effect| effect.key_value());
        let mut dump: BTreeMap<Bytes, Bytes> = pairs.filter_map(|(key, value)| Some((key, value?))).collect();
        for (id, held) in &self.partitions {
            let mut out = Writer::default();
            out.u64(held.log_start.0).u64(held.next.0).i32(held.epoch.0);
            held.producers.encode_timeless(&mut out);
            // When an extent was sealed is the journal's affair; what lies in segments must come back as it was.
            let mut archived = held.spans();
            archived.retain(|span| matches!(span.place, Place::Segment(_)) && span.end > held.log_start);
            write_spans(&mut out, &archived);
            out.u64(held.cleaned_to.0);
            write_runs(&mut out, &held.removed);
            dump.insert(partition_key(*id), out.done());
        }
        dump
    }
}

fn trim(extents: &mut Extents, held: &Partition, log_start: Offset) {
    let mut gone = Vec::new();
    held.view.index().trim(log_start, |position| extents.extent_of(position), |place, bytes| gone.push((place, bytes)));
    for (place, bytes) in gone {
        extents.lost(place, bytes);
    }
}
