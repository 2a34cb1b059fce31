//! Which offsets of a partition were removed.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets, kept as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSet {
    /// Start to end, the end not included.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl RunSet {
    /// Adds the offsets of `range`; returns how many of them are new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let (mut start, mut end) = (range.start, range.end);
        let mut known = 0;
        // From the highest run that could touch the range downwards.
        while let Some((&run_start, &run_end)) = self.runs.range(..=range.end).next_back() {
            if run_end < range.start {
                break;
            }
            known += run_end.min(range.end).saturating_sub(run_start.max(range.start));
            start = start.min(run_start);
            end = end.max(run_end);
            self.runs.remove(&run_start);
        }
        self.runs.insert(start, end);
        let added = range.end - range.start - known;
        self.count += added;
        added
    }

    pub fn contains(&self, offset: u64) -> bool {
        self.run_at(offset).is_some()
    }

    /// The run that `offset` lies in: a reader steps to its end.
    pub fn run_at(&self, offset: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.runs.range(..=offset).next_back()?;
        (offset < end).then_some(start..end)
    }

    /// Whether any offset of `range` is in the set.
    pub fn overlaps(&self, range: Range<u64>) -> bool {
        !range.is_empty() && self.runs.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    /// Whether every offset of `range` is in the set; of an empty range, always.
    pub fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.run_at(range.start).is_some_and(|run| run.end >= range.end)
    }

    /// How many offsets are in the set.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many offsets of `range` are in the set. Takes time with the runs in it.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let first = self.run_at(range.start).map_or(0, |run| run.end.min(range.end) - range.start);
        let rest = self.runs.range(range.start.saturating_add(1)..).take_while(|(start, _)| **start < range.end);
        first + rest.map(|(start, end)| end.min(&range.end) - start).sum::<u64>()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets every offset below `offset`: the log no longer begins before it.
    pub fn trim_below(&mut self, offset: u64) {
        while let Some(run) = self.runs.first_entry().filter(|run| *run.key() < offset) {
            let (start, end) = run.remove_entry();
            self.count -= end.min(offset) - start;
            if end > offset {
                self.runs.insert(offset, end);
            }
        }
    }

    /// The runs, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Memory taken, roughly: a tree's nodes are at least half full, and about two thirds full in the mean.
    pub fn bytes(&self) -> usize {
        self.runs.len() * 24
    }
}

impl FromIterator<Range<u64>> for RunSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> RunSet {
        let mut set = RunSet::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_that_touch_become_one() {
        let mut set = RunSet::default();
        assert_eq!(set.insert(5..8), 3);
        assert_eq!(set.insert(10..12), 2);
        assert_eq!(set.insert(3..3), 0);
        assert_eq!(set.runs(), 2);
        assert_eq!(set.insert(8..10), 2);
        assert_eq!((set.iter().next(), set.runs()), (Some(5..12), 1));
        assert_eq!((set.run_at(7), set.run_at(12), set.count()), (Some(5..12), None, 7));
        set.trim_below(9);
        assert_eq!((set.iter().next(), set.runs(), set.count()), (Some(9..12), 1, 3));
        set.trim_below(u64::MAX);
        assert!(set.is_empty() && set.count() == 0);
        assert_eq!(set.insert(0..u64::MAX), u64::MAX);
        assert!(set.covers(7..u64::MAX) && !set.contains(u64::MAX));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u64, u64),
        Trim(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let insert = (0..80u64, 0..12u64).prop_map(|(start, count)| Act::Insert(start, count));
        prop::collection::vec(prop_oneof![9 => insert, 1 => (0..80u64).prop_map(Act::Trim)], 0..40)
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_set(acts in acts(), start in 0..90u64, count in 0..20u64) {
            let mut set = RunSet::default();
            let mut plain = BTreeSet::new();
            for act in acts {
                match act {
                    Act::Insert(start, count) => {
                        let added = (start..start + count).filter(|&offset| plain.insert(offset)).count();
                        prop_assert_eq!(set.insert(start..start + count), added as u64);
                    }
                    Act::Trim(below) => {
                        set.trim_below(below);
                        plain = plain.split_off(&below);
                    }
                }
                prop_assert_eq!(set.count(), plain.len() as u64);
            }
            let range = start..start + count;
            prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
            prop_assert!(set.iter().zip(set.iter().skip(1)).all(|(one, next)| one.end < next.start));
            prop_assert_eq!(set.contains(start), plain.contains(&start));
            prop_assert_eq!(set.overlaps(range.clone()), range.clone().any(|offset| plain.contains(&offset)));
            prop_assert_eq!(set.covers(range.clone()), range.clone().all(|offset| plain.contains(&offset)));
            prop_assert_eq!(set.count_in(range.clone()), range.filter(|offset| plain.contains(offset)).count() as u64);
        }
    }
}
