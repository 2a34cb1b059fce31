//! All queue cursors of the node; only `apply` changes what is durable of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::cursors::{Attached, Attachment, Before, CursorId, CursorReport, HOLDS, Keep, Leg, Mark};
use firth_gateway::refusal::Refusal;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::limits::CURSOR_LIST_BYTES;
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use super::filters::FilterStreams;
use super::state::{CursorEffect, CursorRecord, LegRecord, attempts_key, leg_key, mark_key, note_key, settled_key};

/// What a cursor or a leg is in a list beside its notes, about.
const PLAIN_BYTES: usize = 200;

/// What is unsettled of one filter stream. The filter is the stream's: 100,000 legs share it.
pub(super) struct HeldLeg {
    pub partition: PartitionId,
    pub note: Box<[u8]>,
    pub bound_at: Position,
    pub floor: Offset,
    /// Above the floor, and not touching it.
    pub settled: RunSet,
    pub marks: BTreeMap<u64, (u32, u8)>,
    /// How often records were handed out, where that is counted.
    pub attempts: BTreeMap<u64, u32>,
}

pub(super) struct HeldCursor {
    pub name: Arc<[u8]>,
    pub keep: Keep,
    /// As stored: `None` while it is attached, and after a restart until it is again.
    pub detached: Option<Millis>,
    /// Who is attached, 0 nobody. Not remembered over a restart.
    pub generation: u64,
    /// By partition. Most cursors have few.
    pub legs: Vec<HeldLeg>,
    pub notes: BTreeMap<u32, Box<[u8]>>,
    pub note_bytes: usize,
    /// Records lost to limits since the start.
    pub dropped: u64,
}

#[derive(Default)]
pub struct Cursors {
    cursors: HashMap<CursorId, HeldCursor, foldhash::fast::RandomState>,
    by_name: BTreeMap<Arc<[u8]>, CursorId>,
    pub filters: FilterStreams,
    /// Detached cursors that are not kept for ever, by when they end.
    due: BTreeSet<(Millis, CursorId)>,
    pub(super) next_id: u64,
    /// End of the durable block that `next_id` is taken from.
    pub(super) ids_end: u64,
    /// Attachments since the start.
    generations: u64,
    /// When the node started: cursors that were attached when it stopped are detached since then.
    started: Option<Millis>,
}

impl HeldCursor {
    /// As who attaches now finds it. Interrupted: somebody was attached when the node stopped, and nobody since.
    pub fn before(&self) -> Before {
        let interrupted = self.detached.is_none() && self.generation == 0;
        Before { keep: self.keep, detached: self.detached, interrupted }
    }

    pub fn leg(&self, partition: PartitionId) -> Option<&HeldLeg> {
        self.legs.binary_search_by_key(&partition, |leg| leg.partition).ok().and_then(|at| self.legs.get(at))
    }

    fn leg_mut(&mut self, partition: PartitionId) -> Option<&mut HeldLeg> {
        self.legs.binary_search_by_key(&partition, |leg| leg.partition).ok().and_then(|at| self.legs.get_mut(at))
    }

    fn record(&self) -> CursorRecord {
        CursorRecord { name: Bytes::copy_from_slice(&self.name), keep: self.keep, detached: self.detached }
    }
}

impl HeldLeg {
    /// Forgets marks and attempts of what is settled, and says which keys those were.
    fn forget_settled(&mut self, cursor: CursorId, gone: &mut Vec<Bytes>) {
        let partition = self.partition;
        let settled = |offset: u64| offset < self.floor.0 || self.settled.contains(offset);
        for offset in take_settled(&mut self.marks, settled) {
            gone.push(mark_key(cursor, partition, Offset(offset)));
        }
        for offset in take_settled(&mut self.attempts, settled) {
            gone.push(attempts_key(cursor, partition, Offset(offset)));
        }
    }
}

fn take_settled<T>(of: &mut BTreeMap<u64, T>, settled: impl Fn(u64) -> bool) -> Vec<u64> {
    let gone: Vec<u64> = of.keys().copied().filter(|offset| settled(*offset)).collect();
    for offset in &gone {
        of.remove(offset);
    }
    gone
}

impl Cursors {
    pub fn len(&self) -> usize {
        self.cursors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    pub(super) fn by_name(&self, name: &[u8]) -> Option<CursorId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, cursor: CursorId) -> Option<&HeldCursor> {
        self.cursors.get(&cursor)
    }

    /// The cursor, if the attachment is its newest.
    pub(super) fn attached(&self, attachment: Attachment) -> Result<&HeldCursor, Refusal> {
        let cursor = self.get(attachment.cursor).ok_or(Refusal::NotFound)?;
        if cursor.generation == attachment.generation { Ok(cursor) } else { Err(Refusal::Conflict) }
    }

    /// Cannot refuse. Effects on what is gone change nothing. Adds to `gone` the other keys that are deleted by it.
    pub fn apply(&mut self, effect: &CursorEffect, gone: &mut Vec<Bytes>) {
        match effect {
            CursorEffect::ReserveIds { end } => self.ids_end = *end,
            CursorEffect::PutCursor { cursor, record } => self.put_cursor(*cursor, record),
            CursorEffect::DropCursor { cursor } => self.drop_cursor(*cursor, gone),
            CursorEffect::PutLeg { cursor, partition, leg } => self.put_leg(*cursor, *partition, leg),
            CursorEffect::DropLeg { cursor, partition } => {
                let Some(held) = self.cursors.get_mut(cursor) else { return };
                if let Ok(at) = held.legs.binary_search_by_key(partition, |leg| leg.partition) {
                    let leg = held.legs.remove(at);
                    self.forget_leg(*cursor, &leg, gone);
                }
            }
            CursorEffect::PutSettled { cursor, partition, floor, runs } => {
                let Some(leg) = self.cursors.get_mut(cursor).and_then(|held| held.leg_mut(*partition)) else { return };
                let before = std::mem::replace(&mut leg.floor, *floor);
                leg.settled = runs.clone();
                leg.forget_settled(*cursor, gone);
                self.filters.move_leg(*partition, before, *floor);
            }
            CursorEffect::PutMark { cursor, partition, mark } => {
                if let Some(leg) = self.cursors.get_mut(cursor).and_then(|held| held.leg_mut(*partition)) {
                    leg.marks.insert(mark.offset.0, (mark.tag, mark.stage));
                }
            }
            CursorEffect::PutAttempts { cursor, partition, offset, attempts } => {
                if let Some(leg) = self.cursors.get_mut(cursor).and_then(|held| held.leg_mut(*partition)) {
                    leg.attempts.insert(offset.0, *attempts);
                }
            }
            CursorEffect::PutNote { cursor, number, note } => {
                self.unqueue(*cursor);
                let Some(held) = self.cursors.get_mut(cursor) else { return };
                let before = match note {
                    Some(note) => held.notes.insert(*number, note[..].into()),
                    None => held.notes.remove(number),
                };
                held.note_bytes += note.as_ref().map_or(0, Bytes::len);
                held.note_bytes -= before.map_or(0, |before| before.len());
                self.queue(*cursor);
            }
        }
    }

    fn put_cursor(&mut self, cursor: CursorId, record: &CursorRecord) {
        self.unqueue(cursor);
        if let Some(held) = self.cursors.get_mut(&cursor) {
            held.keep = record.keep;
            held.detached = record.detached;
            // Who attaches is counted behind this.
            held.generation = 0;
        } else {
            self.next_id = self.next_id.max(cursor.0.saturating_add(1));
            let name: Arc<[u8]> = record.name[..].into();
            self.by_name.insert(name.clone(), cursor);
            let held = HeldCursor {
                name,
                keep: record.keep,
                detached: record.detached,
                generation: 0,
                legs: Vec::new(),
                notes: BTreeMap::new(),
                note_bytes: 0,
                dropped: 0,
            };
            self.cursors.insert(cursor, held);
        }
        self.queue(cursor);
    }

    fn drop_cursor(&mut self, cursor: CursorId, gone: &mut Vec<Bytes>) {
        self.unqueue(cursor);
        let Some(held) = self.cursors.remove(&cursor) else { return };
        self.by_name.remove(&held.name);
        for leg in &held.legs {
            gone.push(leg_key(cursor, leg.partition));
            self.forget_leg(cursor, leg, gone);
        }
        gone.extend(held.notes.keys().map(|number| note_key(cursor, *number)));
    }

    /// The leg was taken out of its cursor.
    fn forget_leg(&mut self, cursor: CursorId, leg: &HeldLeg, gone: &mut Vec<Bytes>) {
        self.filters.remove_leg(leg.partition, leg.floor);
        gone.push(settled_key(cursor, leg.partition));
        gone.extend(leg.marks.keys().map(|offset| mark_key(cursor, leg.partition, Offset(*offset))));
        gone.extend(leg.attempts.keys().map(|offset| attempts_key(cursor, leg.partition, Offset(*offset))));
    }

    fn put_leg(&mut self, cursor: CursorId, partition: PartitionId, leg: &LegRecord) {
        let Some(held) = self.cursors.get_mut(&cursor) else { return };
        match held.legs.binary_search_by_key(&partition, |leg| leg.partition) {
            Ok(at) => held.legs[at].note = leg.note[..].into(),
            Err(at) => {
                if held.legs.is_empty() {
                    // Not four at once, as a list grows: most cursors have one leg.
                    held.legs.reserve_exact(1);
                }
                let added = HeldLeg {
                    partition,
                    note: leg.note[..].into(),
                    bound_at: leg.bound_at,
                    floor: leg.floor,
                    settled: RunSet::default(),
                    marks: BTreeMap::new(),
                    attempts: BTreeMap::new(),
                };
                held.legs.insert(at, added);
                self.filters.add_leg(partition, &leg.filter, leg.floor);
            }
        }
    }

    /// Counts a new attachment of the cursor.
    pub(super) fn attach(&mut self, cursor: CursorId) -> Option<Attachment> {
        self.unqueue(cursor);
        let held = self.cursors.get_mut(&cursor)?;
        self.generations += 1;
        held.generation = self.generations;
        Some(Attachment { cursor, generation: self.generations })
    }

    /// When the time of a cursor is over if nobody attaches to it.
    fn time_of(&self, cursor: CursorId) -> Option<Millis> {
        let held = self.cursors.get(&cursor).filter(|held| held.generation == 0)?;
        let Keep::For(ms) = held.keep else { return None };
        Some(held.detached.or(self.started)?.plus(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// When it may be dropped.
    fn end_of(&self, cursor: CursorId) -> Option<Millis> {
        let is_held = self.cursors.get(&cursor)?.notes.range(HOLDS..).next().is_some();
        self.time_of(cursor).filter(|_| !is_held)
    }

    /// Whether the cursor was not to be kept until `now`.
    pub(super) fn has_ended(&self, cursor: CursorId, now: Millis) -> bool {
        let keep = self.cursors.get(&cursor).map(|held| held.keep);
        self.time_of(cursor).is_some_and(|end| end <= now || keep == Some(Keep::For(0)))
    }

    fn queue(&mut self, cursor: CursorId) {
        if let Some(end) = self.end_of(cursor) {
            self.due.insert((end, cursor));
        }
    }

    /// Before anything changes that `end_of` looks at.
    fn unqueue(&mut self, cursor: CursorId) {
        if let Some(end) = self.end_of(cursor) {
            self.due.remove(&(end, cursor));
        }
    }

    /// After replay: nobody is attached since `now`.
    pub fn recovered(&mut self, now: Millis) {
        self.started = Some(now);
        self.next_id = self.ids_end;
        let ids: Vec<CursorId> = self.cursors.keys().copied().collect();
        self.due.clear();
        ids.into_iter().for_each(|cursor| self.queue(cursor));
        self.filters.all_moved();
    }

    /// When the next detached cursor ends.
    pub fn next_end(&self) -> Option<Millis> {
        self.due.first().map(|(end, _)| *end)
    }

    /// The cursor that ended first, if any has by `now`.
    pub fn ended(&self, now: Millis) -> Option<CursorId> {
        self.due.first().filter(|(end, _)| *end <= now).map(|(_, cursor)| *cursor)
    }

    /// Everything durable as effects: for checks that compare two states.
    pub fn dump(&self) -> Vec<CursorEffect> {
        let mut effects = Vec::new();
        if self.ids_end > 0 {
            effects.push(CursorEffect::ReserveIds { end: self.ids_end });
        }
        for (&cursor, held) in &self.cursors {
            effects.push(CursorEffect::PutCursor { cursor, record: held.record() });
            for leg in &held.legs {
                let partition = leg.partition;
                if let Some(record) = self.leg_record(leg) {
                    effects.push(CursorEffect::PutLeg { cursor, partition, leg: Box::new(record) });
                }
                let (floor, runs) = (leg.floor, leg.settled.clone());
                effects.push(CursorEffect::PutSettled { cursor, partition, floor, runs });
                effects.extend(marks(leg).map(|mark| CursorEffect::PutMark { cursor, partition, mark }));
                let attempts = attempts(leg).map(|(offset, attempts)| CursorEffect::PutAttempts { cursor, partition, offset, attempts });
                effects.extend(attempts);
            }
            let notes = notes(held).map(|(number, note)| CursorEffect::PutNote { cursor, number, note: Some(note) });
            effects.extend(notes);
        }
        effects
    }

    pub(super) fn leg_record(&self, leg: &HeldLeg) -> Option<LegRecord> {
        let filter = self.filters.filter(leg.partition)?.clone();
        Some(LegRecord { filter, note: Bytes::copy_from_slice(&leg.note), bound_at: leg.bound_at, floor: leg.floor })
    }

    /// A leg as its cursor's owner sees it.
    pub(super) fn leg(&self, leg: &HeldLeg) -> Option<Leg> {
        Some(Leg {
            filter: self.filters.filter(leg.partition)?.clone(),
            note: Bytes::copy_from_slice(&leg.note),
            partition: leg.partition,
            bound_at: leg.bound_at,
            floor: leg.floor,
            settled: leg.settled.iter().map(|run| (Offset(run.start), Offset(run.end))).collect(),
            marks: marks(leg).collect(),
            attempts: attempts(leg).collect(),
        })
    }

    pub(super) fn remembered(&self, attachment: Attachment, found: bool) -> Option<Attached> {
        let held = self.get(attachment.cursor)?;
        let legs = held.legs.iter().filter_map(|leg| self.leg(leg)).collect();
        Some(Attached { attachment, found, before: None, legs, notes: notes(held).collect() })
    }

    /// Some cursors whose names follow this one, in their order, and the last of the names; `None`: there are no more.
    pub(super) fn some_after(&self, name: &[u8], at_most: usize) -> (Vec<CursorId>, Option<Arc<[u8]>>) {
        let after = self.by_name.range::<[u8], _>((std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded)).take(at_most);
        let some: Vec<(&Arc<[u8]>, CursorId)> = after.map(|(name, cursor)| (name, *cursor)).collect();
        let last = some.last().filter(|_| some.len() == at_most).map(|(name, _)| (*name).clone());
        (some.into_iter().map(|(_, cursor)| cursor).collect(), last)
    }

    pub(super) fn count_dropped(&mut self, cursor: CursorId, records: u64) {
        if let Some(held) = self.cursors.get_mut(&cursor) {
            held.dropped += records;
        }
    }

    /// Cursors whose name begins so, behind `after`, at most `max`. `bounds` says where a partition begins and ends.
    pub(super) fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        max: usize,
        bounds: impl Fn(PartitionId) -> Option<(Offset, Offset)>,
    ) -> Vec<CursorReport> {
        let begin = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let from = self.by_name.range::<[u8], _>((begin, Bound::Unbounded));
        let held = from.take_while(|(name, _)| name.starts_with(prefix)).filter_map(|(_, cursor)| self.get(*cursor));
        let report = |held: &HeldCursor| {
            let attached = held.generation != 0;
            CursorReport {
                name: Bytes::copy_from_slice(&held.name),
                attached,
                keep: held.keep,
                detached: if attached { None } else { held.detached.or(self.started) },
                legs: held.legs.iter().filter_map(|leg| self.leg_record(leg).map(|leg| (leg.filter, leg.note))).collect(),
                notes: notes(held).collect(),
                unsettled: held.legs.iter().map(|leg| unsettled(leg, &bounds)).sum(),
                dropped: held.dropped,
                marked: held.legs.iter().map(|leg| leg.marks.len() as u64).sum(),
            }
        };
        let mut bytes = 0;
        let few = held.take(max).take_while(|held| {
            let before = bytes;
            bytes += held.note_bytes + held.legs.iter().map(|leg| leg.note.len() + PLAIN_BYTES).sum::<usize>() + PLAIN_BYTES;
            before < CURSOR_LIST_BYTES
        });
        few.map(report).collect()
    }
}

fn marks(leg: &HeldLeg) -> impl Iterator<Item = Mark> + '_ {
    leg.marks.iter().map(|(&offset, &(tag, stage))| Mark { offset: Offset(offset), tag, stage })
}

fn attempts(leg: &HeldLeg) -> impl Iterator<Item = (Offset, u32)> + '_ {
    leg.attempts.iter().map(|(&offset, &attempts)| (Offset(offset), attempts))
}

fn notes(held: &HeldCursor) -> impl Iterator<Item = (u32, Bytes)> + '_ {
    held.notes.iter().map(|(&number, note)| (number, Bytes::copy_from_slice(note)))
}

fn unsettled(leg: &HeldLeg, bounds: impl Fn(PartitionId) -> Option<(Offset, Offset)>) -> u64 {
    let Some((log_start, end)) = bounds(leg.partition) else { return 0 };
    let from = leg.floor.max(log_start).0;
    end.0.saturating_sub(from) - leg.settled.count_in(from..end.0)
}
