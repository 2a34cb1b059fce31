//! How often records were handed out, as a session knows it.

use std::collections::{BTreeMap, BTreeSet};

use firth_model::ids::Offset;

/// Of one record.
#[derive(Default)]
struct Count {
    /// Durable.
    sure: u32,
    /// Counted by these requests, not yet behind anything acknowledged.
    asked: Vec<u64>,
    /// Counted before a crash, or not.
    unsure: u32,
}

/// Of the records of one leg, by offset. The counts never fall, but for what was not durable when the process died.
#[derive(Default)]
pub struct Attempts(BTreeMap<u64, Count>);

impl Attempts {
    /// As the leg remembers them.
    pub fn of(remembered: &[(Offset, u32)]) -> Attempts {
        Attempts(remembered.iter().map(|(offset, sure)| (offset.0, Count { sure: *sure, ..Count::default() })).collect())
    }

    pub fn asked(&mut self, offset: u64, tag: u64) {
        self.0.entry(offset).or_default().asked.push(tag);
    }

    pub fn refused(&mut self, offset: u64, tag: u64) {
        if let Some(count) = self.0.get_mut(&offset) {
            count.asked.retain(|other| *other != tag);
        }
    }

    /// Something was acknowledged: what was asked before is durable.
    pub fn durable_before(&mut self, tag: u64) {
        for count in self.0.values_mut() {
            let before = count.asked.len();
            count.asked.retain(|asked| *asked >= tag);
            count.sure += u32::try_from(before - count.asked.len()).expect("few");
        }
    }

    pub fn crashed(&mut self) {
        for count in self.0.values_mut() {
            count.unsure += u32::try_from(std::mem::take(&mut count.asked).len()).expect("few");
        }
    }

    /// Compares with what the leg remembers of what is not settled. Gives how many were compared.
    pub fn check(&mut self, remembered: &[(Offset, u32)], unsettled: &BTreeSet<u64>, context: &str) -> usize {
        let remembered: BTreeMap<u64, u32> = remembered.iter().map(|(offset, attempts)| (offset.0, *attempts)).collect();
        let stray: Vec<&u64> = remembered.keys().filter(|offset| !unsettled.contains(offset)).collect();
        assert!(stray.is_empty(), "{context}: attempts at what is settled: {stray:?}");
        self.0.retain(|offset, _| unsettled.contains(offset));
        for (offset, count) in &mut self.0 {
            let found = remembered.get(offset).copied().unwrap_or(0);
            let most = count.sure + count.unsure + u32::try_from(count.asked.len()).expect("few");
            assert!((count.sure..=most).contains(&found), "{context}: {found} attempts at {offset}, {} to {most} expected", count.sure);
            *count = Count { sure: found, ..Count::default() };
        }
        self.0.len()
    }
}
