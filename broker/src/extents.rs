//! Which journal extents still hold live batches.

use std::collections::{BTreeSet, HashMap};

use firth_model::ids::{ExtentNumber, Position};

/// Counts, for each extent, the partitions that have live batches in it.
pub struct Extents {
    live: HashMap<ExtentNumber, u32, foldhash::fast::RandomState>,
    /// Extents that exist and are finished, oldest first.
    sealed: BTreeSet<ExtentNumber>,
    extent_bytes: u32,
}

impl Extents {
    pub fn of_size(extent_bytes: u32) -> Extents {
        Extents { live: HashMap::default(), sealed: BTreeSet::new(), extent_bytes }
    }

    pub fn extent_of(&self, position: Position) -> ExtentNumber {
        ExtentNumber(position.0 / u64::from(self.extent_bytes))
    }

    pub fn start_of(&self, extent: ExtentNumber) -> Position {
        Position(extent.0 * u64::from(self.extent_bytes))
    }

    pub fn took_first(&mut self, extent: ExtentNumber) {
        *self.live.entry(extent).or_default() += 1;
    }

    pub fn lost_last(&mut self, extent: ExtentNumber) {
        if let Some(count) = self.live.get_mut(&extent) {
            *count -= 1;
            if *count == 0 {
                self.live.remove(&extent);
            }
        }
    }

    pub fn sealed(&mut self, extent: ExtentNumber) {
        self.sealed.insert(extent);
    }

    /// Takes out the sealed extents below `keep_from` in which nothing lives: they may be recycled.
    pub fn take_dead(&mut self, keep_from: Position) -> Vec<ExtentNumber> {
        let keep_from = self.extent_of(keep_from);
        let old = self.sealed.range(..keep_from).copied();
        let dead: Vec<_> = old.filter(|extent| !self.live.contains_key(extent)).collect();
        for extent in &dead {
            self.sealed.remove(extent);
        }
        dead
    }
}
