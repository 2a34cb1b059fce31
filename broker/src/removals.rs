//! Records that are gone before their bytes are: removed sets, and what expires when.
//!
//! ```text
//! runs                            count u32, then first u64, end u64 of each
//! body of a RecordsRemoved entry  version u8, partition u32, runs
//! value of key 0x06               version u8, then for each record of the batch that expires: offset from the base u32, when i64
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use firth_journal::entry::{Entry, EntryKind};
use firth_model::ids::{Offset, PartitionId};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::layout::{Reader, StateDamage, Writer, begin_value, open_value};

/// Records of one batch that expire: offset from the batch's base, and when.
pub type Expiring = Vec<(u32, Millis)>;

/// Records with a time to live, by their batch. Follows from effects only.
#[derive(Default)]
pub struct Expiries {
    batches: BTreeMap<(PartitionId, Offset), Expiring>,
    /// Each batch once, by its earliest.
    due: BTreeSet<(Millis, PartitionId, Offset)>,
    records: usize,
}

fn earliest(expiring: &[(u32, Millis)]) -> Millis {
    expiring.iter().map(|(_, at)| *at).min().unwrap_or(Millis(i64::MAX))
}

impl Expiries {
    /// Records that are waited for.
    pub fn records(&self) -> usize {
        self.records
    }

    /// What of the batch at `base` still expires. None: the batch is forgotten.
    pub fn put(&mut self, partition: PartitionId, base: Offset, expiring: Expiring) {
        if let Some(old) = self.batches.remove(&(partition, base)) {
            self.due.remove(&(earliest(&old), partition, base));
            self.records -= old.len();
        }
        if !expiring.is_empty() {
            self.due.insert((earliest(&expiring), partition, base));
            self.records += expiring.len();
            self.batches.insert((partition, base), expiring);
        }
    }

    pub fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// The batch whose record is due first, if that is not after `now`: its expired offsets, and what is left of it.
    pub fn first_due(&self, now: Millis) -> Option<(PartitionId, Offset, Vec<Range<u64>>, Expiring)> {
        let (_, partition, base) = *self.due.first().filter(|(at, ..)| *at <= now)?;
        let expiring = self.batches.get(&(partition, base))?;
        let (over, left): (Expiring, Expiring) = expiring.iter().partition(|(_, at)| *at <= now);
        let ranges = over.iter().map(|(delta, _)| base.0 + u64::from(*delta)..base.0 + u64::from(*delta) + 1).collect();
        Some((partition, base, ranges, left))
    }

    /// The batches of a partition.
    pub fn of(&self, partition: PartitionId) -> Vec<Offset> {
        self.batches.range((partition, Offset(0))..=(partition, Offset(u64::MAX))).map(|((_, base), _)| *base).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = (PartitionId, Offset, &Expiring)> {
        self.batches.iter().map(|((partition, base), expiring)| (*partition, *base, expiring))
    }
}

pub fn encode_expiring(expiring: &[(u32, Millis)]) -> Bytes {
    let mut out = begin_value();
    out.count(expiring.len());
    for (delta, at) in expiring {
        out.u32(*delta).i64(at.0);
    }
    out.done()
}

pub fn decode_expiring(value: &[u8]) -> Result<Expiring, StateDamage> {
    let mut from = open_value(value)?;
    let mut expiring = Vec::new();
    for _ in 0..from.count(12)? {
        expiring.push((from.u32()?, Millis(from.i64()?)));
    }
    from.end()?;
    Ok(expiring)
}

pub fn write_runs(out: &mut Writer, runs: &RunSet) {
    out.count(runs.runs());
    for run in runs.iter() {
        out.u64(run.start).u64(run.end);
    }
}

pub fn read_runs(from: &mut Reader<'_>) -> Result<RunSet, StateDamage> {
    let mut runs = RunSet::default();
    for _ in 0..from.count(16)? {
        let range = from.u64()?..from.u64()?;
        if range.is_empty() {
            return Err(StateDamage { what: "empty run of removed records" });
        }
        runs.insert(range);
    }
    Ok(runs)
}

pub fn entry(partition: PartitionId, runs: &RunSet) -> Entry {
    let mut out = begin_value();
    out.u32(partition.0);
    write_runs(&mut out, runs);
    Entry::reserved(EntryKind::RecordsRemoved, out.done())
}

pub fn read_entry(body: &[u8]) -> Result<(PartitionId, RunSet), StateDamage> {
    let mut from = open_value(body)?;
    let partition = PartitionId(from.u32()?);
    let runs = read_runs(&mut from)?;
    from.end()?;
    Ok((partition, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_survive_their_bytes() {
        let runs: RunSet = [4..9, 12..13].into_iter().collect();
        let mut raw = Vec::new();
        entry(PartitionId(6), &runs).write(&mut raw);
        let (_, body, _) = firth_journal::entry::open_entry(&Bytes::from(raw), 0).expect("own bytes");
        assert_eq!(read_entry(&body).expect("own body"), (PartitionId(6), runs));
        for cut in 0..body.len() {
            assert!(read_entry(&body[..cut]).is_err(), "cut at {cut}");
        }
        let expiring = vec![(0, Millis(5)), (7, Millis(-1))];
        assert_eq!(decode_expiring(&encode_expiring(&expiring)).expect("own bytes"), expiring);
    }

    #[test]
    fn what_is_due_first_comes_first_and_leaves_the_rest() {
        let (first, second) = (PartitionId(1), PartitionId(2));
        let mut expiries = Expiries::default();
        expiries.put(first, Offset(10), vec![(0, Millis(50)), (2, Millis(20))]);
        expiries.put(second, Offset(0), vec![(1, Millis(30))]);
        assert_eq!((expiries.records(), expiries.next_due()), (3, Some(Millis(20))));
        assert!(expiries.first_due(Millis(19)).is_none());
        let (partition, base, ranges, left) = expiries.first_due(Millis(40)).expect("due");
        assert_eq!((partition, base, &ranges[0], ranges.len(), &left[..]), (first, Offset(10), &(12..13), 1, &[(0, Millis(50))][..]));
        expiries.put(partition, base, left);
        assert_eq!(expiries.first_due(Millis(40)).map(|(partition, ..)| partition), Some(second));
        expiries.put(second, Offset(0), Vec::new());
        assert_eq!((expiries.records(), expiries.next_due(), expiries.of(second).len()), (1, Some(Millis(50)), 0));
    }
}
