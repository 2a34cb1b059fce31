//! Partitions that lose records one by one: to newer ones of their key, to their own time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use firth_gateway::refusal::Refusal;
use firth_gateway::view::LogView;
use firth_model::batch::Batch;
use firth_model::ids::{Offset, PartitionId};
use firth_model::time::Millis;

use crate::batches::Mark;
use crate::records::{Keyed, read};
use crate::world::World;

/// How long the compacted stream of a run keeps the record that says a key is deleted.
pub const DELETES_KEPT_MS: i64 = 40_000;

/// What is known of the records of one partition.
#[derive(Clone, Debug, Default)]
pub struct Thinned {
    /// Only the newest of a key has to stay.
    compacted: bool,
    /// Acknowledged, or seen by somebody.
    known: BTreeMap<u64, Keyed>,
    places: BTreeMap<Mark, u64>,
    /// The earliest time by which a node that got the record went then.
    sent: BTreeMap<Mark, Millis>,
    /// Known, and seen to be gone.
    gone: BTreeSet<u64>,
    /// By base offset: checksum and records of a batch of which all were noted.
    noted: BTreeMap<u64, (u32, Vec<u64>)>,
}

/// Why records went, by how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    pub replaced: usize,
    pub expired: usize,
    pub deleted: usize,
}

impl Removals {
    pub fn add(&mut self, other: Removals) {
        self.replaced += other.replaced;
        self.expired += other.expired;
        self.deleted += other.deleted;
    }
}

/// What may have removed a record.
enum Reason {
    Replaced,
    Expired,
    Deleted,
}

impl Thinned {
    /// Nothing is known of it.
    pub fn fresh(compacted: bool) -> Thinned {
        Thinned { compacted, ..Thinned::default() }
    }

    /// The record goes to a node, maybe again.
    pub fn sent(&mut self, record: &Keyed, now: Millis) {
        let sent = self.sent.entry(record.mark).or_insert(now);
        *sent = now.min(*sent);
    }

    /// Somebody was told, or saw, that the record lies there.
    pub fn note(&mut self, offset: Offset, record: Keyed, context: &str) {
        let before = self.known.insert(offset.0, record);
        assert!(before.is_none_or(|before| before == record), "{context}: offset {offset} was {before:?}, is {record:?}");
        let other = self.places.insert(record.mark, offset.0);
        assert!(other.is_none_or(|other| other == offset.0), "{context}: {:?} is at {other:?} and at {offset}", record.mark);
    }

    /// Notes what is left of one batch, adding its offsets to `there`. Gives where the next batch may begin.
    pub fn meet(&mut self, bytes: &Bytes, next: Offset, may_begin_before: bool, there: &mut Vec<u64>, context: &str) -> Offset {
        let batch = Batch::check(bytes.clone()).unwrap_or_else(|error| panic!("{context}: broken bytes at {next}: {error:?}"));
        let base = Offset::from_i64(batch.header.base_offset).expect("not negative");
        let end = base.plus(batch.header.offset_count());
        let in_order = base >= next || (may_begin_before && end > next);
        assert!(in_order && end > base, "{context}: batch from {base} to {end} where {next} was expected");
        let from = there.len();
        // A reader skips what lies before the offset that he asked for; what was trimmed may show removed records again.
        let is_asked = |offset: &u64| *offset >= next.0;
        match self.noted.get(&base.0) {
            Some((crc, offsets)) if *crc == batch.header.crc => there.extend(offsets.iter().copied().filter(is_asked)),
            _ => {
                let records = read(&batch).unwrap_or_else(|| panic!("{context}: records at {next} that nobody made"));
                let offsets: Vec<u64> = records.iter().map(|(offset, _)| offset.0).collect();
                there.extend(offsets.iter().copied().filter(is_asked));
                records.into_iter().filter(|(offset, _)| *offset >= next).for_each(|(offset, record)| self.note(offset, record, context));
                if base >= next {
                    self.noted.insert(base.0, (batch.header.crc, offsets));
                }
            }
        }
        let back = there[from..].iter().find(|offset| self.gone.contains(offset));
        assert!(back.is_none(), "{context}: what was at {back:?} came back: {:?}", back.and_then(|offset| self.known.get(offset)));
        end
    }

    /// Reads the whole partition; `now` is the latest time by which a node decided something. Whatever is known and not there must have had
    /// a reason to go, and stays away from now on.
    pub fn check(&mut self, world: &World, id: PartitionId, now: Millis, context: &str) -> Removals {
        let mut sum = Removals::default();
        for (offset, reason) in self.look(world, id, now, context) {
            self.gone.insert(offset);
            match reason {
                Reason::Replaced => sum.replaced += 1,
                Reason::Expired => sum.expired += 1,
                Reason::Deleted => sum.deleted += 1,
            }
        }
        sum
    }

    /// As `check`, but what is gone may be there again in a copy of the machine. Gives what was not gone before.
    fn look(&mut self, world: &World, id: PartitionId, now: Millis, context: &str) -> Vec<(u64, Reason)> {
        let context = &format!("{context}: partition {}", id.0);
        let bounds = world.view.bounds(id).unwrap_or_else(|| panic!("{context} is gone"));
        let mut there = self.read_all(world, id, false, context);
        self.known = self.known.split_off(&bounds.log_start.0);
        self.gone = self.gone.split_off(&bounds.log_start.0);
        let last = self.known.last_key_value().map_or(0, |(offset, _)| offset + 1);
        assert!(bounds.durable_end.0 >= last, "{context} ends at {}, not at {last}", bounds.durable_end);
        let mut missing = Vec::new();
        // From the newest on: those of a key that were met are newer.
        let (mut newer, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        for (offset, record) in self.known.iter().rev() {
            let is_replaced = self.compacted && !newer.insert(record.key);
            if there.last() == Some(offset) {
                there.pop();
                let rule = !deleted.contains(&record.key);
                assert!(rule, "{context}: {record:?} at {offset} is there, and what deleted its key is gone");
                continue;
            }
            let reason = self.reason(record, is_replaced, now);
            let reason = reason.unwrap_or_else(|| panic!("{context}: {record:?} at {offset} is missing at {}: no rule lets it go", now.0));
            if matches!(reason, Reason::Deleted) {
                deleted.insert(record.key);
            }
            if !self.gone.contains(offset) {
                missing.push((*offset, reason));
            }
        }
        assert!(there.is_empty(), "{context}: {there:?} are there, which nobody knew");
        missing
    }

    fn reason(&self, record: &Keyed, is_replaced: bool, now: Millis) -> Option<Reason> {
        let is_expired = record.expires.is_some_and(|at| at <= now);
        let was_kept = self.sent.get(&record.mark).is_some_and(|sent| sent.plus(DELETES_KEPT_MS) <= now);
        match () {
            () if is_replaced => Some(Reason::Replaced),
            () if is_expired => Some(Reason::Expired),
            () if self.compacted && record.value_bytes.is_none() && was_kept => Some(Reason::Deleted),
            () => None,
        }
    }

    /// The offsets of the records that are there, in order. `may_lack_end`: the last ones may have been given up.
    fn read_all(&mut self, world: &World, id: PartitionId, may_lack_end: bool, context: &str) -> Vec<u64> {
        let bounds = world.view.bounds(id).unwrap_or_else(|| panic!("{context} is gone"));
        let (mut next, mut first) = (bounds.log_start, true);
        let mut there = Vec::new();
        while next < bounds.durable_end {
            let records = world.view.read_here(id, next, 20_000).unwrap_or_else(|refusal| panic!("{context}: {next}: {refusal:?}"));
            if records.batches.is_empty() && may_lack_end {
                break;
            }
            assert!(!records.batches.is_empty(), "{context}: nothing at {next} below the end {}", bounds.durable_end);
            for bytes in &records.batches {
                next = self.meet(bytes, next, first, &mut there, context);
                first = false;
            }
        }
        there
    }

    /// Reads the partition of a damaged machine. False: something of it cannot be read; the rest is as it was.
    pub fn is_whole(&mut self, world: &World, id: PartitionId, now: Millis, context: &str) -> bool {
        let bounds = world.view.bounds(id).unwrap_or_else(|| panic!("{context}: partition {} is gone", id.0));
        let (mut next, mut first, mut whole) = (bounds.log_start, true, true);
        while next < bounds.durable_end {
            match world.view.read_here(id, next, 2_000) {
                Ok(records) => {
                    assert!(!records.batches.is_empty(), "{context}: nothing at {next} of {}", id.0);
                    for bytes in &records.batches {
                        next = self.meet(bytes, next, first, &mut Vec::new(), context);
                        first = false;
                    }
                }
                Err(Refusal::Damaged) => (next, first, whole) = (next.plus(1), true, false),
                Err(refusal) => panic!("{context}: {next} of {}: {refusal:?}", id.0),
            }
        }
        if whole {
            self.look(world, id, now, context);
        }
        whole
    }

    /// Reads the partition of a repaired machine: what was given up may be gone, and what it had removed may be there.
    pub fn check_repaired(&self, world: &World, id: PartitionId, context: &str) {
        let mut copy = Thinned { gone: BTreeSet::new(), ..self.clone() };
        copy.read_all(world, id, true, context);
    }
}
