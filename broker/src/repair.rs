//! Gives up what cannot be read of segments, offline: what is whole of them goes into new ones.
//!
//! The journal must open: `firth_journal::repair` sees to that first. Replacements are journalled as any other, and checkpoints taken, so
//! that nothing refers to the damaged segments any more. They are deleted: the caller keeps copies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use firth_archive::checkpoints::ArchiveError;
use firth_archive::segment::{Block, Directory, Writer};
use firth_archive::segments::{SegmentError, Segments};
use firth_model::ids::{ExtentNumber, Offset, PartitionId, Position, SegmentId};
use firth_model::time::Millis;

use crate::effect::Effect;
use crate::index::{Place, Span};
use crate::read_behind::{Found, next_batch};
use crate::recovery::{Recovered, live_segments};
use crate::replaced::Replaced;
use crate::state::State;

/// Replacements in one entry, so that it fits the smallest extent.
const AT_ONCE: usize = 1_000;

/// Offsets of a partition that are given up, from the first to before the second. A record of a compacted stream that was there may be
/// among them or not.
pub type Lost = (PartitionId, Offset, Offset);

/// Looks at every segment that a state needs. Gives those that are damaged or missing.
pub fn damaged_segments(state: &State, segments: &Segments) -> Result<BTreeSet<SegmentId>, SegmentError> {
    let mut damaged = BTreeSet::new();
    for id in live_segments(state) {
        if !is_whole(segments, id)? {
            damaged.insert(id);
        }
    }
    Ok(damaged)
}

fn is_whole(segments: &Segments, id: SegmentId) -> Result<bool, SegmentError> {
    match segments.verify(id) {
        Ok(found) => Ok(found.is_empty()),
        Err(SegmentError::Gone) => Ok(false),
        Err(error) => Err(error),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Segment(#[from] SegmentError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Puts what is whole of `damaged` into new segments, and takes a checkpoint. Gives what is lost. `dice` makes names of segments.
///
/// Where an entry was lost that said what moved where, the state refers to extents and segments that are gone: the records are looked
/// for in segments that nothing refers to.
pub fn repair(
    mut recovered: Recovered,
    segments: &Segments,
    damaged: &BTreeSet<SegmentId>,
    now: Millis,
    dice: &mut dyn FnMut() -> u128,
) -> Result<Vec<Lost>, RepairError> {
    let mut search = Search { state: &recovered.state, segments, orphans: orphans(&recovered.state, segments)?, lost: Vec::new() };
    let mut replaced = search.elsewhere(&|extent| recovered.opened.reader.hold(extent).is_none());
    for id in damaged {
        replaced.extend(search.rebuild(*id, SegmentId::made(now, dice()))?);
    }
    let lost = search.lost;
    let effects: Vec<Effect> = replaced.chunks(AT_ONCE).map(|some| Effect::Replace(some.to_vec())).collect();
    let mut last = recovered.opened.last_lsn;
    if let Some(mut driver) = recovered.opened.journal.take_driver() {
        driver.core.enqueue(effects.iter().map(Effect::entry));
        driver.turn(now, &mut |completed| last = last.max(completed.durable))?;
        driver.mark(now)?;
    }
    for effect in &effects {
        recovered.state.apply(effect, last);
    }
    let changes: BTreeMap<Bytes, Option<Bytes>> = recovered.state.take_changes().into_iter().collect();
    let position = Position(recovered.open_extent.0 * u64::from(recovered.opened.reader.extent_bytes()));
    recovered.checkpoints.take(last, position, &changes)?;
    // The older of the two that are kept must not refer to them either.
    recovered.checkpoints.take(last, position, &BTreeMap::new())?;
    for id in damaged {
        segments.delete(*id)?;
    }
    Ok(lost)
}

/// Whole segments that nothing refers to, newest first.
fn orphans(state: &State, segments: &Segments) -> Result<Vec<SegmentId>, RepairError> {
    let live = live_segments(state);
    let mut orphans = Vec::new();
    for id in segments.list()?.into_iter().rev().filter(|id| !live.contains(id)) {
        if is_whole(segments, id)? {
            orphans.push(id);
        }
    }
    Ok(orphans)
}

struct Search<'a> {
    state: &'a State,
    segments: &'a Segments,
    orphans: Vec<SegmentId>,
    lost: Vec<Lost>,
}

impl Search<'_> {
    /// Every span that lies in a certain kind of place, by partition.
    fn spans(&self, wanted: &dyn Fn(Place) -> bool) -> Vec<(PartitionId, Span)> {
        let spans = self.state.partitions.iter().flat_map(|(id, held)| held.spans().into_iter().map(|span| (*id, span)));
        let mut spans: Vec<_> = spans.filter(|(_, span)| wanted(span.place)).collect();
        spans.sort_unstable_by_key(|(id, span)| (*id, span.base));
        spans
    }

    /// Spans in extents that are gone, found in other segments or given up.
    fn elsewhere(&mut self, is_gone: &dyn Fn(ExtentNumber) -> bool) -> Vec<Replaced> {
        let gone = self.spans(&|place| matches!(place, Place::Extent(extent) if is_gone(extent)));
        gone.into_iter().map(|(id, span)| self.find(id, &span)).collect()
    }

    /// Looks for the records of a span that is gone.
    fn find(&mut self, id: PartitionId, span: &Span) -> Replaced {
        let found = self.orphans.iter().find_map(|orphan| {
            let directory = self.segments.directory(*orphan).ok()?;
            let mut inside = directory.of(id).iter().filter(|block| block.end > span.base && block.base < span.end);
            let first = inside.next()?;
            let (base, end) = (first.base.max(span.base), inside.next_back().unwrap_or(first).end.min(span.end));
            Some(Span { place: Place::Segment(*orphan), base, end, ..*span })
        });
        match found {
            Some(found) => {
                self.give_up(id, span.base, found.base);
                self.give_up(id, found.end, span.end);
            }
            None => self.give_up(id, span.base, span.end),
        }
        Replaced { partition: id, base: span.base, end: span.end, spans: found.into_iter().collect(), cleaned_to: Offset(0) }
    }

    fn give_up(&mut self, id: PartitionId, base: Offset, end: Offset) {
        let log_start = self.state.partitions.get(&id).map_or(Offset(0), |held| held.log_start);
        let base = base.max(log_start);
        if base < end {
            self.lost.push((id, base, end));
        }
    }

    /// Makes the segment `new` of what is whole of `old`; says what takes the place of each span.
    fn rebuild(&mut self, old: SegmentId, new: SegmentId) -> Result<Vec<Replaced>, RepairError> {
        let spans = self.spans(&|place| place == Place::Segment(old));
        let directory = match self.segments.directory(old) {
            Ok(directory) => directory,
            Err(SegmentError::Gone) => return Ok(spans.into_iter().map(|(id, span)| self.find(id, &span)).collect()),
            Err(error) => return Err(error.into()),
        };
        let mut writer = Writer::begin();
        let mut replaced = Vec::new();
        for (id, span) in spans {
            let mut kept: Option<Span> = None;
            let mut take = |found: &Found| {
                writer.push(id, &found.batch, found.base, found.end, found.max_timestamp, span.appended);
                let place = Place::Segment(new);
                let grown = kept.get_or_insert(Span { place, base: found.base, end: found.end, bytes: 0, max_timestamp: i64::MIN, ..span });
                grown.end = found.end;
                grown.bytes += found.batch.len() as u64;
                grown.max_timestamp = grown.max_timestamp.max(found.max_timestamp);
            };
            for (base, end) in whole_batches(self.segments, old, &directory, id, &span, &mut take)? {
                self.give_up(id, base, end);
            }
            let spans = kept.into_iter().collect();
            replaced.push(Replaced { partition: id, base: span.base, end: span.end, spans, cleaned_to: Offset(0) });
        }
        if !writer.is_empty() {
            self.segments.put(new, &writer.finish().0)?;
        }
        Ok(replaced)
    }
}

/// Gives every whole batch of a span, in order. Returns the offsets that may be lost.
fn whole_batches(
    segments: &Segments,
    id: SegmentId,
    directory: &Directory,
    partition: PartitionId,
    span: &Span,
    take: &mut dyn FnMut(&Found),
) -> Result<Vec<(Offset, Offset)>, SegmentError> {
    let mut lost = Vec::new();
    let mut sure = span.base;
    let blocks = directory.of(partition);
    let within = |block: &Block| block.end > span.base && block.base < span.end;
    for (index, block) in blocks.iter().enumerate() {
        if directory.lacks(partition, index) && within(block) && block.base > sure {
            lost.push((sure, block.base));
        }
        if !within(block) {
            continue;
        }
        sure = sure.max(block.base);
        let (mut rest, whole) = match segments.block(id, directory, partition, index) {
            Ok(body) => (vec![body], true),
            Err(SegmentError::Damaged { .. }) => (segments.salvage(id, block)?, false),
            Err(error) => return Err(error),
        };
        for bytes in &mut rest {
            while let Some(found) = next_batch(bytes) {
                if found.end > span.end || found.base < sure {
                    continue;
                }
                if !whole && found.base > sure {
                    lost.push((sure, found.base));
                }
                sure = found.end;
                take(&found);
            }
        }
        let end = block.end.min(span.end);
        if !whole && end > sure {
            lost.push((sure, end));
        }
        sure = sure.max(end);
    }
    if directory.lacks(partition, blocks.len()) && sure < span.end {
        lost.push((sure, span.end));
    }
    Ok(lost)
}
