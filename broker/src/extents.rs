//! Which journal extents and segments still hold live batches.

use std::collections::{BTreeSet, HashMap};

use firth_model::ids::{ExtentNumber, Position, SegmentId};

use crate::index::{Place, Span};

/// What of a segment is still needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    pub spans: u32,
    pub bytes: u64,
}

/// Counts, for each extent, the partitions that have live batches in it, and for each segment its live spans.
pub struct Extents {
    live: HashMap<ExtentNumber, u32, foldhash::fast::RandomState>,
    segments: HashMap<SegmentId, Live, foldhash::fast::RandomState>,
    /// Segments that lost their last span since they were last taken.
    dead_segments: Vec<SegmentId>,
    /// Extents that exist and are finished, oldest first.
    sealed: BTreeSet<ExtentNumber>,
    extent_bytes: u32,
}

impl Extents {
    pub fn of_size(extent_bytes: u32) -> Extents {
        Extents { live: HashMap::default(), segments: HashMap::default(), dead_segments: Vec::new(), sealed: BTreeSet::new(), extent_bytes }
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

    pub fn took_span(&mut self, span: &Span) {
        match span.place {
            Place::Extent(extent) => self.took_first(extent),
            Place::Segment(id) => {
                let live = self.segments.entry(id).or_default();
                live.spans += 1;
                live.bytes += span.bytes;
            }
        }
    }

    /// A partition has nothing more in an extent, or lost a span of so many bytes in a segment.
    pub fn lost(&mut self, place: Place, bytes: u64) {
        match place {
            Place::Extent(extent) => {
                if let Some(count) = self.live.get_mut(&extent) {
                    *count -= 1;
                    if *count == 0 {
                        self.live.remove(&extent);
                    }
                }
            }
            Place::Segment(id) => {
                if let Some(live) = self.segments.get_mut(&id) {
                    live.spans -= 1;
                    live.bytes -= bytes;
                    if live.spans == 0 {
                        self.segments.remove(&id);
                        self.dead_segments.push(id);
                    }
                }
            }
        }
    }

    pub fn sealed(&mut self, extent: ExtentNumber) {
        self.sealed.insert(extent);
    }

    /// Finished extents in which something lives, oldest first.
    pub fn sealed_live(&self) -> impl Iterator<Item = ExtentNumber> {
        self.sealed.iter().copied().filter(|extent| self.live.contains_key(extent))
    }

    /// Bytes of the finished extents that are not given back.
    pub fn sealed_bytes(&self) -> u64 {
        self.sealed.len() as u64 * u64::from(self.extent_bytes)
    }

    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, Live)> {
        self.segments.iter().map(|(id, live)| (*id, *live))
    }

    pub fn holds(&self, id: SegmentId) -> bool {
        self.segments.contains_key(&id)
    }

    pub fn take_dead_segments(&mut self) -> Vec<SegmentId> {
        // While a state is replayed partition by partition, a segment may lose its last span before another partition takes one.
        let mut dead = std::mem::take(&mut self.dead_segments);
        dead.retain(|id| !self.holds(*id));
        dead
    }

    /// Whether a sealed extent waits to be given back.
    pub fn has_dead(&self) -> bool {
        self.sealed.iter().any(|extent| !self.live.contains_key(extent))
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
