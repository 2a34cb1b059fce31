//! The filter streams that legs lie on: which partition a filter has, and from where it is still needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};

/// One hidden stream that at least one leg lies on.
struct FilterStream {
    filter: Filter,
    legs: usize,
    /// How many legs have each floor.
    floors: BTreeMap<u64, u32>,
}

/// All of them. Follows from effects only, but for what was `take`n.
#[derive(Default)]
pub struct FilterStreams {
    streams: HashMap<PartitionId, FilterStream, foldhash::fast::RandomState>,
    by_filter: HashMap<Filter, PartitionId, foldhash::fast::RandomState>,
    /// Their smallest floor may have moved since the last trimming.
    moved: BTreeSet<PartitionId>,
    /// Lost their last leg, or never had one.
    idle: Vec<PartitionId>,
}

impl FilterStreams {
    pub fn find(&self, filter: &Filter) -> Option<PartitionId> {
        self.by_filter.get(filter).copied()
    }

    pub fn filter(&self, partition: PartitionId) -> Option<&Filter> {
        self.streams.get(&partition).map(|stream| &stream.filter)
    }

    pub fn contains(&self, partition: PartitionId) -> bool {
        self.streams.contains_key(&partition)
    }

    /// How many legs lie on a partition.
    pub fn legs(&self, partition: PartitionId) -> usize {
        self.streams.get(&partition).map_or(0, |stream| stream.legs)
    }

    /// Nothing below is needed any more.
    pub fn smallest_floor(&self, partition: PartitionId) -> Option<Offset> {
        self.streams.get(&partition)?.floors.keys().next().copied().map(Offset)
    }

    pub fn add_leg(&mut self, partition: PartitionId, filter: &Filter, floor: Offset) {
        if let Some(stream) = self.streams.get_mut(&partition) {
            stream.legs += 1;
            *stream.floors.entry(floor.0).or_default() += 1;
            return;
        }
        self.by_filter.insert(filter.clone(), partition);
        self.streams.insert(partition, FilterStream { filter: filter.clone(), legs: 1, floors: BTreeMap::from([(floor.0, 1)]) });
    }

    pub fn remove_leg(&mut self, partition: PartitionId, floor: Offset) {
        let Some(stream) = self.streams.get_mut(&partition) else { return };
        stream.legs -= 1;
        if stream.legs == 0 {
            if self.by_filter.get(&stream.filter) == Some(&partition) {
                self.by_filter.remove(&stream.filter);
            }
            self.streams.remove(&partition);
            self.moved.remove(&partition);
            self.idle.push(partition);
            return;
        }
        if stream.forget(floor) {
            self.moved.insert(partition);
        }
    }

    pub fn move_leg(&mut self, partition: PartitionId, from: Offset, to: Offset) {
        let Some(stream) = self.streams.get_mut(&partition).filter(|_| from != to) else { return };
        *stream.floors.entry(to.0).or_default() += 1;
        if stream.forget(from) {
            self.moved.insert(partition);
        }
    }

    /// All may have moved: what was noted of it is not remembered over a restart.
    pub fn all_moved(&mut self) {
        self.moved = self.streams.keys().copied().collect();
        self.idle.clear();
    }

    pub fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// The partitions whose smallest floor may have moved since the last call, and that floor.
    pub fn take_moved(&mut self) -> Vec<(PartitionId, Offset)> {
        let moved = std::mem::take(&mut self.moved);
        moved.into_iter().filter_map(|partition| Some((partition, self.smallest_floor(partition)?))).collect()
    }

    pub fn moved_again(&mut self, partition: PartitionId) {
        self.moved.insert(partition);
    }

    /// The partitions without a leg since the last call.
    pub fn take_idle(&mut self) -> Vec<PartitionId> {
        let mut idle = std::mem::take(&mut self.idle);
        idle.retain(|partition| !self.streams.contains_key(partition));
        idle
    }
}

impl FilterStream {
    /// One leg less has this floor. Whether the smallest floor is another now.
    fn forget(&mut self, floor: Offset) -> bool {
        let Some(count) = self.floors.get_mut(&floor.0) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.floors.remove(&floor.0);
        self.floors.keys().next().is_some_and(|smallest| *smallest > floor.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId(3);

    #[test]
    fn the_smallest_floor_follows_its_legs() {
        let filter = Filter::parse("a/>").expect("a filter");
        let mut streams = FilterStreams::default();
        streams.add_leg(PARTITION, &filter, Offset(5));
        streams.add_leg(PARTITION, &filter, Offset(5));
        streams.add_leg(PARTITION, &filter, Offset(9));
        assert_eq!((streams.find(&filter), streams.legs(PARTITION)), (Some(PARTITION), 3));
        streams.move_leg(PARTITION, Offset(5), Offset(7));
        assert!(!streams.has_moved());
        streams.move_leg(PARTITION, Offset(9), Offset(12));
        assert!(!streams.has_moved());
        streams.move_leg(PARTITION, Offset(5), Offset(12));
        assert_eq!(streams.take_moved(), [(PARTITION, Offset(7))]);
        streams.remove_leg(PARTITION, Offset(7));
        assert_eq!(streams.take_moved(), [(PARTITION, Offset(12))]);
        streams.remove_leg(PARTITION, Offset(12));
        assert!(streams.take_idle().is_empty());
        streams.remove_leg(PARTITION, Offset(12));
        assert_eq!((streams.take_idle(), streams.find(&filter), streams.has_moved()), (vec![PARTITION], None, false));
    }
}
