//! What a move on a cursor comes to: effects, or a refusal. Changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use firth_gateway::cursors::{Attachment, Before, CursorId, Keep, Receipt, Settle, Settlement};
use firth_gateway::refusal::Refusal;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};
use firth_model::limits::{
    CURSOR_ID_BLOCK, CURSOR_LEGS_MAX, CURSOR_MARKS_MAX, CURSOR_NAME_BYTES_MAX, CURSOR_NOTE_BYTES_MAX, CURSOR_NOTES_BYTES_MAX,
    CURSOR_NOTES_MAX, CURSOR_RUNS_MAX, CURSORS_MAX,
};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use super::state::{CursorEffect, CursorRecord};
use super::table::{Cursors, HeldLeg};

/// An attach that may be done.
pub struct Attaching {
    pub cursor: CursorId,
    /// It was there before, and is not made anew.
    pub found: bool,
    pub effects: Vec<CursorEffect>,
}

/// A bind that may be done.
pub enum Binding {
    /// There is a leg; the effect, if any, puts another note to it.
    Known {
        partition: PartitionId,
        effect: Option<CursorEffect>,
    },
    New,
}

/// What the settlements of one move make of one leg.
struct Settling<'a> {
    leg: &'a HeldLeg,
    floor: Offset,
    runs: RunSet,
    changed: bool,
    marks: usize,
    /// Counted in this move.
    attempts: BTreeMap<u64, u32>,
}

impl Cursors {
    /// The effects of an attach. They are the same whether somebody is attached already: the newest attachment counts. A cursor that
    /// ended by `now` is not found, also if it was not dropped yet.
    pub fn attaching(&self, name: &Bytes, fresh: bool, keep: Keep, now: Millis) -> Result<Attaching, Refusal> {
        if name.len() > CURSOR_NAME_BYTES_MAX {
            return Err(Refusal::MetadataTooLarge);
        }
        let record = CursorRecord { name: name.clone(), keep, detached: None };
        let known = self.by_name(name);
        let mut effects = Vec::new();
        let Some(cursor) = known else {
            if self.len() >= CURSORS_MAX {
                return Err(Refusal::Overloaded);
            }
            let cursor = CursorId(self.next_id);
            if self.next_id >= self.ids_end {
                effects.push(CursorEffect::ReserveIds { end: self.next_id + CURSOR_ID_BLOCK });
            }
            effects.push(CursorEffect::PutCursor { cursor, record });
            return Ok(Attaching { cursor, found: false, effects });
        };
        let fresh = fresh || self.has_ended(cursor, now);
        if fresh {
            // The id stays, so that who was attached before hears `Conflict`.
            effects.push(CursorEffect::DropCursor { cursor });
            effects.push(CursorEffect::PutCursor { cursor, record });
        } else if self.get(cursor).is_some_and(|held| held.keep != keep || held.detached.is_some()) {
            effects.push(CursorEffect::PutCursor { cursor, record });
        }
        Ok(Attaching { cursor, found: !fresh, effects })
    }

    pub fn detaching(&self, attachment: Attachment, keep: Option<Keep>, now: Millis) -> Result<CursorEffect, Refusal> {
        let held = self.attached(attachment)?;
        let (cursor, keep) = (attachment.cursor, keep.unwrap_or(held.keep));
        if keep == Keep::For(0) {
            return Ok(CursorEffect::DropCursor { cursor });
        }
        let record = CursorRecord { name: Bytes::copy_from_slice(&held.name), keep, detached: Some(now) };
        Ok(CursorEffect::PutCursor { cursor, record })
    }

    /// See [`CursorMove::Return`](firth_gateway::cursors::CursorMove::Return).
    pub fn returning(&self, attachment: Attachment, before: Option<Before>, now: Millis) -> Result<CursorEffect, Refusal> {
        let (held, cursor) = (self.attached(attachment)?, attachment.cursor);
        let Some(Before { keep, detached, interrupted }) = before else { return Ok(CursorEffect::DropCursor { cursor }) };
        // Who was attached until then is not any more.
        let detached = if interrupted { None } else { detached.or(Some(now)) };
        let record = CursorRecord { name: Bytes::copy_from_slice(&held.name), keep, detached };
        Ok(CursorEffect::PutCursor { cursor, record })
    }

    pub fn binding(&self, attachment: Attachment, filter: &Filter, note: &Bytes) -> Result<Binding, Refusal> {
        let held = self.attached(attachment)?;
        if note.len() > CURSOR_NOTE_BYTES_MAX {
            return Err(Refusal::MetadataTooLarge);
        }
        if let Some(leg) = self.filters.find(filter).and_then(|partition| held.leg(partition)) {
            let record = self.leg_record(leg).filter(|record| record.note != *note);
            let effect = record.map(|mut record| {
                record.note = note.clone();
                CursorEffect::PutLeg { cursor: attachment.cursor, partition: leg.partition, leg: Box::new(record) }
            });
            return Ok(Binding::Known { partition: leg.partition, effect });
        }
        if held.legs.len() >= CURSOR_LEGS_MAX { Err(Refusal::Overloaded) } else { Ok(Binding::New) }
    }

    /// `None`: there is no such leg.
    pub fn unbinding(&self, attachment: Attachment, filter: &Filter) -> Result<Option<CursorEffect>, Refusal> {
        let held = self.attached(attachment)?;
        let leg = self.filters.find(filter).and_then(|partition| held.leg(partition));
        Ok(leg.map(|leg| CursorEffect::DropLeg { cursor: attachment.cursor, partition: leg.partition }))
    }

    /// The effects of settlements, and whether a mark is among these. What is settled already, lies on a leg that is gone, or was never
    /// published (`next` is a partition's next offset) changes nothing.
    pub fn settling(
        &self,
        cursor: CursorId,
        settles: &[Settle],
        next: impl Fn(PartitionId) -> Option<Offset>,
    ) -> Result<(Vec<CursorEffect>, bool), Refusal> {
        let held = self.get(cursor).ok_or(Refusal::NotFound)?;
        let (mut effects, mut handed) = (Vec::new(), Vec::new());
        let mut legs: BTreeMap<PartitionId, Settling<'_>> = BTreeMap::new();
        for Settle { partition, what } in settles {
            let (Some(leg), Some(next)) = (held.leg(*partition), next(*partition)) else { continue };
            let settling = legs.entry(*partition).or_insert_with(|| Settling::of(leg));
            match what {
                Settlement::Done { from, to } => drop(settling.done(*from, (*to).min(next))),
                Settlement::Mark { offset, tag, stage } if *offset < next => {
                    if settling.mark(*offset, (*tag, *stage))? {
                        let mark = firth_gateway::cursors::Mark { offset: *offset, tag: *tag, stage: *stage };
                        effects.push(CursorEffect::PutMark { cursor, partition: *partition, mark });
                    }
                }
                Settlement::HandedOut { offset } if *offset < next => {
                    if let Some(attempts) = settling.handed_out(*offset) {
                        handed.push(CursorEffect::PutAttempts { cursor, partition: *partition, offset: *offset, attempts });
                    }
                }
                Settlement::Mark { .. } | Settlement::HandedOut { .. } => {}
            }
        }
        let marked = !effects.is_empty();
        effects.append(&mut handed);
        for (partition, settling) in legs.into_iter().filter(|(_, settling)| settling.changed) {
            let (before, after) = (settling.leg.settled.runs(), settling.runs.runs());
            if after > CURSOR_RUNS_MAX && after > before {
                return Err(Refusal::Overloaded);
            }
            effects.push(CursorEffect::PutSettled { cursor, partition, floor: settling.floor, runs: settling.runs });
        }
        Ok((effects, marked))
    }

    /// The effect that takes these runs from a leg, and how many records that are. `None`: none.
    pub(super) fn dropping(&self, cursor: CursorId, partition: PartitionId, runs: &[(Offset, Offset)]) -> Option<(CursorEffect, u64)> {
        let leg = self.get(cursor)?.leg(partition)?;
        let mut settling = Settling::of(leg);
        let dropped = runs.iter().map(|(from, to)| settling.done(*from, *to)).sum();
        let effect = CursorEffect::PutSettled { cursor, partition, floor: settling.floor, runs: settling.runs };
        settling.changed.then_some((effect, dropped))
    }

    pub fn noting(&self, attachment: Attachment, notes: Vec<(u32, Option<Bytes>)>) -> Result<Vec<CursorEffect>, Refusal> {
        let held = self.attached(attachment)?;
        let (mut count, mut bytes) = (held.notes.len(), held.note_bytes);
        // Each number once: the last of a number counts.
        let notes: BTreeMap<u32, Option<Bytes>> = notes.into_iter().collect();
        let mut effects = Vec::with_capacity(notes.len());
        for (number, note) in notes {
            let before = held.notes.get(&number);
            if before.map(|before| &before[..]) == note.as_deref() {
                continue;
            }
            if note.as_ref().is_some_and(|note| note.len() > CURSOR_NOTE_BYTES_MAX) {
                return Err(Refusal::MetadataTooLarge);
            }
            count = count + usize::from(note.is_some()) - usize::from(before.is_some());
            bytes = bytes + note.as_ref().map_or(0, Bytes::len) - before.map_or(0, |before| before.len());
            effects.push(CursorEffect::PutNote { cursor: attachment.cursor, number, note });
        }
        if count > CURSOR_NOTES_MAX && count > held.notes.len() {
            return Err(Refusal::Overloaded);
        }
        if bytes > CURSOR_NOTES_BYTES_MAX && bytes > held.note_bytes {
            return Err(Refusal::MetadataTooLarge);
        }
        Ok(effects)
    }

    /// What a receipt changes. `None`: that is done already.
    pub fn receipt(&self, receipt: &Receipt) -> Result<Option<CursorEffect>, Refusal> {
        match receipt {
            Receipt::Leaves { attachment, note } => {
                let held = self.attached(*attachment)?;
                let there = held.notes.contains_key(note);
                if !there && held.notes.len() >= CURSOR_NOTES_MAX {
                    return Err(Refusal::Overloaded);
                }
                let left = CursorEffect::PutNote { cursor: attachment.cursor, number: *note, note: Some(Bytes::new()) };
                Ok((!there).then_some(left))
            }
            Receipt::Takes { cursor, note } => {
                let Some(cursor) = self.by_name(cursor) else { return Ok(None) };
                let there = self.get(cursor).is_some_and(|held| held.notes.contains_key(note));
                Ok(there.then_some(CursorEffect::PutNote { cursor, number: *note, note: None }))
            }
        }
    }
}

impl<'a> Settling<'a> {
    fn of(leg: &'a HeldLeg) -> Settling<'a> {
        Settling { leg, floor: leg.floor, runs: leg.settled.clone(), changed: false, marks: leg.marks.len(), attempts: BTreeMap::new() }
    }

    /// How many records that settles.
    fn done(&mut self, from: Offset, to: Offset) -> u64 {
        let from = from.max(self.floor);
        let settled = if from < to { self.runs.insert(from.0..to.0) } else { 0 };
        if settled == 0 {
            return 0;
        }
        self.changed = true;
        if let Some(run) = self.runs.run_at(self.floor.0) {
            self.floor = Offset(run.end);
            self.runs.trim_below(run.end);
        }
        settled
    }

    /// How often the record was handed out now. `None`: nobody counts it, because it is settled or there are too many.
    fn handed_out(&mut self, offset: Offset) -> Option<u32> {
        let known = self.attempts.get(&offset.0).or_else(|| self.leg.attempts.get(&offset.0)).copied();
        let settled = offset < self.floor || self.runs.contains(offset.0);
        let full = known.is_none() && self.leg.attempts.len() + self.attempts.len() >= CURSOR_MARKS_MAX;
        if settled || full {
            return None;
        }
        let attempts = known.unwrap_or(0).saturating_add(1);
        self.attempts.insert(offset.0, attempts);
        Some(attempts)
    }

    /// Whether the mark says anything new.
    fn mark(&mut self, offset: Offset, mark: (u32, u8)) -> Result<bool, Refusal> {
        if offset < self.floor || self.runs.contains(offset.0) {
            return Ok(false);
        }
        match self.leg.marks.get(&offset.0) {
            Some(known) if *known == mark => return Ok(false),
            Some(_) => {}
            None => self.marks += 1,
        }
        if self.marks > CURSOR_MARKS_MAX { Err(Refusal::Overloaded) } else { Ok(true) }
    }
}
