//! Moves on queue cursors in the shard, and their upkeep.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::answer::Answer;
use firth_gateway::cursors::{Attached, Attachment, CursorAnswer, CursorId, CursorMove, Keep, Leg, Settle};
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Alter, Request};
use firth_gateway::streams::{Policy, StreamInfo};
use firth_gateway::view::LogView;
use firth_journal::spares::Room;
use firth_model::filter::Filter;
use firth_model::ids::{Lsn, Offset, PartitionId, StreamId};
use firth_model::limits::CURSOR_NOTE_SMALL_BYTES;
use firth_model::names::StreamName;
use firth_model::time::Millis;

use super::care::{END_EVERY_MS, ENDED_AT_ONCE, TRIM_EVERY_MS};
use super::deciding::Binding;
use super::limits::Drops;
use super::state::{CursorEffect, LegRecord};
use super::table::HeldCursor;
use crate::effect::Effect;
use crate::shard::{Due, Shard};
use crate::storing::hidden_policy;

/// What the names of filter streams begin with.
const NAME_BEGIN: &str = "_filter.";

/// Why a lookup of what the shard has just put there cannot fail.
const JUST_PUT: &str = "its effect was applied in this call";

impl Shard {
    pub(crate) fn cursor(&mut self, ask: CursorMove, reply: ReplyTo) {
        let before = self.last;
        let outcome = self.cursor_move(ask);
        if let Ok((CursorAnswer::Attached(attached), _)) = &outcome {
            self.cursor_care.attached.insert(attached.attachment.cursor, std::sync::Arc::downgrade(&reply.outbox));
        }
        self.drop_idle_streams();
        if self.last > before {
            self.cursor_care.lsn = self.last;
        }
        let lsn = match &outcome {
            Ok((_, true)) => self.cursor_care.lsn,
            Ok((_, false)) | Err(_) => Lsn(0),
        };
        let result = outcome.map(|(answer, _)| Answer::Cursor(answer));
        self.due(lsn, Due::Answer(reply, result));
    }

    /// The answer, and whether it has to wait until everything is durable.
    fn cursor_move(&mut self, ask: CursorMove) -> Result<(CursorAnswer, bool), Refusal> {
        match ask {
            CursorMove::Attach { name, fresh, keep } => {
                let attached = self.attach(&name, fresh, keep)?;
                Ok((CursorAnswer::Attached(Box::new(attached)), true))
            }
            CursorMove::Detach { attachment, keep } => {
                let effect = self.state.cursors.detaching(attachment, keep, self.now)?;
                self.put(effect);
                Ok((CursorAnswer::Done, true))
            }
            CursorMove::Return { attachment, before } => {
                let effect = self.state.cursors.returning(attachment, before, self.now)?;
                self.put(effect);
                Ok((CursorAnswer::Done, true))
            }
            CursorMove::Bind { attachment, filter, note } => {
                let (leg, new) = self.bind(attachment, &filter, note)?;
                Ok((CursorAnswer::Bound { leg, new }, true))
            }
            CursorMove::Unbind { attachment, filter } => {
                let effect = self.state.cursors.unbinding(attachment, &filter)?;
                let there = effect.is_some();
                effect.into_iter().for_each(|effect| self.put(effect));
                Ok((CursorAnswer::Unbound(there), true))
            }
            CursorMove::Settle { attachment, settles } => {
                self.state.cursors.attached(attachment)?;
                let marked = self.settle(attachment.cursor, &settles)?;
                Ok((CursorAnswer::Done, marked))
            }
            CursorMove::SettleOf { name, settles } => {
                let cursor = self.state.cursors.by_name(&name).ok_or(Refusal::NotFound)?;
                self.settle(cursor, &settles)?;
                Ok((CursorAnswer::Done, true))
            }
            CursorMove::Note { attachment, notes } => {
                // Small ones are as marks: on a full disk who is sent messages goes on.
                let adds = notes.iter().any(|(_, note)| note.as_ref().is_some_and(|note| note.len() > CURSOR_NOTE_SMALL_BYTES));
                let effects = self.state.cursors.noting(attachment, notes)?;
                self.roomy(adds)?;
                effects.into_iter().for_each(|effect| self.put(effect));
                Ok((CursorAnswer::Done, true))
            }
            CursorMove::List { prefix, after, max } => {
                let bounds = |partition: PartitionId| {
                    let view = &self.state.partitions.get(&partition)?.view;
                    Some((view.log_start(), view.durable_end()))
                };
                Ok((CursorAnswer::List(self.state.cursors.list(&prefix, after.as_deref(), max, bounds)), true))
            }
            CursorMove::Drop { name } => {
                let cursor = self.state.cursors.by_name(&name).ok_or(Refusal::NotFound)?;
                self.put(CursorEffect::DropCursor { cursor });
                Ok((CursorAnswer::Done, true))
            }
        }
    }

    pub(super) fn put(&mut self, effect: CursorEffect) {
        self.emit(&Effect::Cursor(effect));
    }

    /// Refuses what would only fill a full disk. What frees space goes on.
    fn roomy(&self, needed: bool) -> Result<(), Refusal> {
        if needed && self.room != Room::Plenty { Err(Refusal::StorageFull) } else { Ok(()) }
    }

    fn attach(&mut self, name: &Bytes, fresh: bool, keep: Keep) -> Result<Attached, Refusal> {
        let now = if self.ages_are_known() { self.now } else { Millis(i64::MIN) };
        let attaching = self.state.cursors.attaching(name, fresh, keep, now)?;
        self.roomy(!attaching.found)?;
        let held = self.state.cursors.get(attaching.cursor).filter(|_| attaching.found);
        let before = held.map(HeldCursor::before);
        attaching.effects.into_iter().for_each(|effect| self.put(effect));
        if attaching.found {
            self.limit_queue(attaching.cursor);
        }
        let attachment = self.state.cursors.attach(attaching.cursor).expect(JUST_PUT);
        let attached = self.state.cursors.remembered(attachment, attaching.found).expect(JUST_PUT);
        Ok(Attached { before, ..attached })
    }

    fn bind(&mut self, attachment: Attachment, filter: &Filter, note: Bytes) -> Result<(Leg, bool), Refusal> {
        let (partition, new) = match self.state.cursors.binding(attachment, filter, &note)? {
            Binding::Known { partition, effect } => {
                effect.into_iter().for_each(|effect| self.put(effect));
                (partition, false)
            }
            Binding::New => {
                self.roomy(true)?;
                (self.bind_anew(attachment.cursor, filter, note)?, true)
            }
        };
        let cursors = &self.state.cursors;
        let held = cursors.get(attachment.cursor).and_then(|held| held.leg(partition)).expect(JUST_PUT);
        Ok((cursors.leg(held).expect(JUST_PUT), new))
    }

    fn bind_anew(&mut self, cursor: CursorId, filter: &Filter, note: Bytes) -> Result<PartitionId, Refusal> {
        let known = self.state.cursors.filters.find(filter);
        let partition = match known.filter(|partition| self.state.partitions.contains_key(partition)) {
            Some(partition) => partition,
            None => self.make_filter_stream(filter)?,
        };
        let floor = self.state.partitions.get(&partition).expect(JUST_PUT).next;
        // What is journalled later lies at or above what is shown now.
        let leg = LegRecord { filter: owned(filter)?, note, bound_at: self.view.shown(), floor };
        self.put(CursorEffect::PutLeg { cursor, partition, leg: Box::new(leg) });
        Ok(partition)
    }

    /// The hidden stream of one partition that stores what is published under the filter.
    fn make_filter_stream(&mut self, filter: &Filter) -> Result<PartitionId, Refusal> {
        let chance = uuid::Builder::from_random_bytes((self.dice)().to_le_bytes()).into_uuid();
        let name = StreamName::parse(&format!("{NAME_BEGIN}{}", chance.simple())).map_err(|_| Refusal::InvalidName)?;
        let policy = self.filter_policy(vec![owned(filter)?]);
        let info = self.make_stream(name, 1, policy, BTreeMap::new())?;
        info.partitions.first().copied().ok_or(Refusal::NotFound)
    }

    /// What all legs have settled goes, and what nobody comes back for is bounded by the limits of each cursor. One message that its
    /// client keeps and never acknowledges would hold all that follows it: then the stream itself gives up its oldest records.
    fn filter_policy(&self, captures: Vec<Filter>) -> Policy {
        let limits = self.cursor_care.limits;
        let plain = hidden_policy(Policy { captures, ..Policy::default() });
        match limits.drops {
            Drops::Oldest => Policy { retention_bytes: Some(limits.bytes.saturating_mul(2)), expires: true, ..plain },
            Drops::Newest => plain,
        }
    }

    /// Whether a mark is among the effects.
    fn settle(&mut self, cursor: CursorId, settles: &[Settle]) -> Result<bool, Refusal> {
        let next = |partition: PartitionId| self.state.partitions.get(&partition).map(|held| held.next);
        let (effects, marked) = self.state.cursors.settling(cursor, settles, next)?;
        effects.into_iter().for_each(|effect| self.put(effect));
        Ok(marked)
    }

    /// Streams whose last leg went.
    fn drop_idle_streams(&mut self) {
        for partition in self.state.cursors.filters.take_idle() {
            if let Some(stream) = self.state.partitions.get(&partition).map(|held| held.stream) {
                self.drop_filter_stream(stream);
            }
        }
    }

    fn drop_filter_stream(&mut self, stream: StreamId) {
        let dropped = self.administer(Request::Drop { stream });
        debug_assert!(dropped.is_ok(), "a stream that is there can be dropped");
    }

    /// Ends cursors, trims filter streams, and drops those that a crash left without a leg.
    pub(crate) fn look_after_cursors(&mut self) {
        let before = self.last;
        if self.cursor_care.unswept {
            self.cursor_care.unswept = false;
            self.sweep_filter_streams();
        }
        if self.cursor_care.end_due <= self.now && self.state.cursors.next_end().is_some_and(|end| end <= self.now) {
            self.cursor_care.end_due = self.now.plus(END_EVERY_MS);
            self.end_cursors();
        }
        if self.cursor_care.trim_due <= self.now && self.state.cursors.filters.has_moved() {
            self.cursor_care.trim_due = self.now.plus(TRIM_EVERY_MS);
            self.trim_filter_streams();
        }
        self.limit_queues();
        self.say_dropped();
        if self.last > before {
            self.cursor_care.lsn = self.last;
        }
    }

    /// A clock that jumped must not end what was to be kept.
    fn ages_are_known(&self) -> bool {
        self.clock_watch.as_ref().is_none_or(|watch| watch.agrees())
    }

    fn end_cursors(&mut self) {
        if !self.ages_are_known() {
            return;
        }
        for _ in 0..ENDED_AT_ONCE {
            let Some(cursor) = self.state.cursors.ended(self.now) else { break };
            self.put(CursorEffect::DropCursor { cursor });
        }
        self.drop_idle_streams();
    }

    fn trim_filter_streams(&mut self) {
        for (partition, floor) in self.state.cursors.filters.take_moved() {
            let Some(held) = self.state.partitions.get(&partition) else { continue };
            let before: Offset = floor.min(held.view.durable_end());
            if before < floor {
                self.state.cursors.filters.moved_again(partition);
            }
            let trimmed = self.administer(Request::Trim { partition, before: Some(before) });
            debug_assert!(trimmed.is_ok(), "what is durable can be trimmed");
        }
    }

    /// Drops filter streams without a leg, and gives the others today's policy: an earlier start may have had other limits.
    fn sweep_filter_streams(&mut self) {
        let ours = |info: &&Arc<StreamInfo>| info.policy.hidden && info.name.as_str().starts_with(NAME_BEGIN);
        let all: Vec<Arc<StreamInfo>> = self.state.catalog.all().filter(ours).cloned().collect();
        for info in all {
            if !info.partitions.iter().any(|partition| self.state.cursors.filters.contains(*partition)) {
                self.drop_filter_stream(info.id);
                continue;
            }
            let policy = self.filter_policy(info.policy.captures.clone());
            if policy != info.policy {
                let alter = Alter { stream: info.id, version: info.version, policy, settings: info.settings.clone() };
                let altered = self.administer(Request::Alter(Box::new(alter)));
                debug_assert!(altered.is_ok(), "a stream that is there can be altered");
            }
        }
    }
}

/// A copy that does not hold on to the request it came in.
fn owned(filter: &Filter) -> Result<Filter, Refusal> {
    let text = Bytes::copy_from_slice(filter.as_bytes());
    let copied = Filter::from_text(text).map_err(|_| Refusal::InvalidPattern { what: "no filter".to_owned() })?;
    Ok(copied.with_reserved(filter.reserved()))
}
