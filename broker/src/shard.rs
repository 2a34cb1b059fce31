//! The one owner of the state: decides, applies, journals, and shows what is durable.
//!
//! A turn takes everything that waits, decides and applies it, and hands the effects to the journal in one call. What a request is
//! answered, and what becomes visible, waits in `waiting` for its entry to be durable. Plain code: no `await`, no lock of another's.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_gateway::answer::Answer;
use firth_gateway::inbox::Submitted;
use firth_gateway::outbox::{Outbox, ReplyTo};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::LogView;
use firth_journal::commit::Completed;
use firth_journal::entry::Entry;
use firth_journal::group::Located;
use firth_journal::spares::Room;
use firth_model::batch::BatchHeader;
use firth_model::ids::{ExtentNumber, Lsn, Offset, PartitionId, Position, SegmentId};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::archiver::Job;
use crate::archiving::{ArchiveSettings, Archiving};
use crate::cursors::care::Care;
use crate::cursors::limits::QueueLimits;
use crate::effect::Effect;
use crate::groups::{Context, GroupSettings, Out};
use crate::partition::Partition;
use crate::replaced::Replaced;
use crate::retained::RETAINED_STREAM;
use crate::state::State;
use crate::view::View;

/// Where the shard puts its entries. The journal in a node; a simulated one in `sim`.
pub trait Log: Send {
    /// Queues the entries, in order, and gives the lsn of the last. Leaves `entries` empty.
    fn append(&mut self, entries: &mut Vec<Entry>) -> Lsn;
    fn room(&self) -> Room;
    /// Has the extent that is written now finished, once everything that was handed over is in it.
    fn finish_extent(&mut self);
    /// Bytes of entries that may be appended before the reserve is touched.
    fn room_bytes(&self) -> u64 {
        if self.room() == Room::Plenty { u64::MAX } else { 0 }
    }
    /// These extents hold nothing that is needed: they may be recycled once no reader holds them.
    fn release(&mut self, extents: &[ExtentNumber]);
    /// The last call: everything is durable; says so on disk and ends.
    fn drain(self: Box<Self>);
}

/// Takes a checkpoint's changes away to be written, elsewhere.
pub trait Checkpointer: Send {
    fn write(&mut self, checkpoint: Checkpoint);
}

/// Moves batches into segments, elsewhere, and deletes segments.
pub trait Archive: Send {
    fn start(&mut self, job: Job);
    fn delete(&mut self, segments: Vec<SegmentId>);
}

/// State as it was right after `at`; the journal is to be read from `position` on to know where later batches lie.
pub struct Checkpoint {
    pub at: Lsn,
    pub position: Position,
    pub changes: Vec<(bytes::Bytes, Option<bytes::Bytes>)>,
}

/// What happens when an entry is durable.
pub(crate) enum Due {
    Answer(ReplyTo, Result<Answer, Refusal>),
    ShowStream(Arc<StreamInfo>),
    HideStream(Arc<StreamInfo>, Vec<Partition>),
    ShowStart(PartitionId, Offset),
    ShowReplaced(Vec<Replaced>),
    ShowRemoved(PartitionId, Arc<RunSet>),
    ShowRetained(bytes::Bytes, Option<Offset>),
    Checkpoint(Checkpoint),
}

pub struct Shard {
    pub(crate) state: State,
    pub(crate) view: Arc<View>,
    pub(crate) now: Millis,
    log: Box<dyn Log>,
    checkpointer: Box<dyn Checkpointer>,
    archive: Box<dyn Archive>,
    pub(crate) archiving: Archiving,
    pub(crate) dice: Box<dyn FnMut() -> u128 + Send>,
    group_settings: GroupSettings,
    entries: Vec<Entry>,
    /// The lsn of the last effect that was applied, handed over or not.
    pub(crate) last: Lsn,
    durable: Lsn,
    /// The last effect on the catalog; the last on groups and cursors.
    pub(crate) catalog_lsn: Lsn,
    groups_lsn: Lsn,
    pub(crate) cursor_care: Care,
    waiting: VecDeque<(Lsn, Due)>,
    /// Connections to be woken at the end of the turn.
    pub(crate) to_wake: Vec<Arc<Outbox>>,
    pub(crate) room: Room,
    /// What publishers may still add in this turn.
    pub(crate) room_bytes: u64,
    pub(crate) upkeep: crate::schedule::Upkeep,
    /// `None`: the clock is believed whatever it says.
    pub clock_watch: Option<Arc<crate::clock_watch::ClockWatch>>,
    /// Producer ids that were reserved and not yet given out.
    pub(crate) producer_ids: std::ops::Range<i64>,
    touched: Vec<PartitionId>,
    pub(crate) entry_bytes_max: usize,
}

/// What a shard is built from.
pub struct Parts {
    pub view: Arc<View>,
    pub log: Box<dyn Log>,
    pub checkpointer: Box<dyn Checkpointer>,
    pub archive: Box<dyn Archive>,
    pub archive_settings: ArchiveSettings,
    pub dice: Box<dyn FnMut() -> u128 + Send>,
    pub group_settings: GroupSettings,
    pub queue_limits: QueueLimits,
    /// The last entry of the journal that was replayed.
    pub last: Lsn,
    /// Start of the first extent that is not sealed: where a checkpoint taken now would have the journal read from.
    pub open_extent: ExtentNumber,
    /// Largest entry that fits an extent.
    pub entry_bytes_max: usize,
    pub now: Millis,
}

impl Shard {
    /// A shard over replayed state. Shows everything in `parts.view`.
    pub fn new(mut state: State, parts: Parts) -> Shard {
        for held in state.partitions.values() {
            parts.view.show_partition(held.view.clone());
        }
        for info in state.catalog.all() {
            parts.view.routing.put(info);
            parts.view.show_stream(info.clone());
        }
        parts.view.lasts.load(std::mem::take(&mut state.lasts));
        parts.view.show_all_retained(&state.retained, state.catalog.by_name(RETAINED_STREAM));
        let newest = state.partitions.values().filter_map(|held| held.view.index().rows().back().map(|row| row.position));
        parts.view.show_to(newest.max().map_or(Position(0), |at| Position(at.0 + 1)));
        let mut dice = parts.dice;
        state.groups.recovered(&mut Context {
            now: parts.now,
            catalog: &state.catalog,
            settings: &parts.group_settings,
            random: &mut *dice,
        });
        state.cursors.recovered(parts.now);
        let mut archiving = Archiving::starting(parts.archive_settings, parts.now);
        for (id, held) in state.partitions.iter().filter(|(_, held)| !held.removed.is_empty()) {
            held.view.index().spans().iter().for_each(|span| archiving.thinning.wrote(*id, span, &held.removed));
        }
        Shard {
            state,
            view: parts.view,
            now: parts.now,
            log: parts.log,
            checkpointer: parts.checkpointer,
            archive: parts.archive,
            archiving,
            dice,
            group_settings: parts.group_settings,
            entries: Vec::new(),
            last: parts.last,
            durable: parts.last,
            catalog_lsn: Lsn(0),
            groups_lsn: Lsn(0),
            cursor_care: Care::starting(parts.now, parts.queue_limits),
            waiting: VecDeque::new(),
            to_wake: Vec::new(),
            room: Room::Plenty,
            room_bytes: 0,
            upkeep: crate::schedule::Upkeep::starting(parts.now, parts.open_extent),
            clock_watch: None,
            producer_ids: 0..0,
            touched: Vec::new(),
            entry_bytes_max: parts.entry_bytes_max,
        }
    }

    /// What the next checkpoint is to hold of last values: it is found again by reading, so the journal does not.
    pub fn remember_lasts(&mut self, changes: Vec<(bytes::Bytes, Option<bytes::Bytes>)>) {
        changes.into_iter().for_each(|(key, value)| self.state.touch(key, value));
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether every effect is durable and every answer given.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.durable == self.last
    }

    /// One turn. Leaves both lists empty.
    pub fn turn(&mut self, now: Millis, completed: &mut Vec<Completed>, submitted: &mut Vec<Submitted>) {
        self.now = self.now.max(now);
        self.room = self.log.room();
        self.room_bytes = self.log.room_bytes();
        for commit in completed.drain(..) {
            self.durable(commit);
        }
        for Submitted { request, reply } in submitted.drain(..) {
            self.request(request, reply);
        }
        self.group_timers();
        self.upkeep();
        self.look_after_cursors();
        self.archive();
        if !self.entries.is_empty() {
            let last = self.log.append(&mut self.entries);
            debug_assert_eq!(last, self.last, "the journal counts entries as the shard does");
        }
        for outbox in self.to_wake.drain(..) {
            outbox.wake();
        }
    }

    /// When the next turn is due even if nothing comes.
    pub fn next_deadline(&self) -> Millis {
        let upkeep = self.upkeep.next_due().min(self.archiving.due);
        let upkeep = self.state.expiries.next_due().map_or(upkeep, |due| upkeep.min(due.max(self.upkeep.expiry_due)));
        let upkeep = upkeep.min(self.cursor_care.next_due(&self.state.cursors, self.view.shown()));
        self.state.groups.next_deadline().map_or(upkeep, |groups| groups.min(upkeep))
    }

    fn request(&mut self, request: Request, reply: ReplyTo) {
        match request {
            Request::Publish(batches) => self.publish(batches, reply),
            Request::Cursor(ask) => self.cursor(*ask, reply),
            Request::Barrier => self.due(self.last, Due::Answer(reply, Ok(Answer::Done))),
            Request::Store(stores) => self.store(stores, reply),
            Request::Group(ask) => {
                let mut out = Out::default();
                let mut context = context(&mut self.state.catalog, &self.group_settings, &mut *self.dice, self.now);
                self.state.groups.decide(&mut context, *ask, reply, &mut out);
                self.group_effects(out);
            }
            request => {
                let (lsn, result) = match self.administer(request) {
                    Ok((lsn, answer)) => (lsn, Ok(answer)),
                    Err(refusal) => (self.catalog_lsn, Err(refusal)),
                };
                self.due(lsn, Due::Answer(reply, result));
            }
        }
    }

    /// Applies a batch that was decided for each of the partitions and queues its one entry.
    pub(crate) fn append_batch(&mut self, places: &[(PartitionId, Offset)], header: &BatchHeader, entry: Entry) -> Lsn {
        self.entries.push(entry);
        self.last = self.last.next();
        for (partition, base_offset) in places {
            self.state.apply_batch(*partition, header, *base_offset, self.now, self.last);
        }
        self.last
    }

    /// Applies an effect and queues its entry.
    pub(crate) fn emit(&mut self, effect: &Effect) -> Lsn {
        self.last = self.last.next();
        self.entries.push(effect.entry());
        self.state.apply(effect, self.last);
        if let Some((key, value)) = effect.key_value() {
            self.state.touch(key, value);
        }
        self.last
    }

    /// Entries queued in this turn.
    pub(crate) fn queued(&self) -> usize {
        self.entries.len()
    }

    /// What was queued behind the first `queued` entries is kept by a crash as a whole or not at all.
    pub(crate) fn tie(&mut self, queued: usize) {
        if let Some((_, tied)) = self.entries.get_mut(queued..).and_then(|entries| entries.split_last_mut()) {
            tied.iter_mut().for_each(|entry| entry.tied = true);
        }
    }

    /// Queues an entry that changes no state.
    pub(crate) fn note(&mut self, entry: Entry) {
        self.last = self.last.next();
        self.entries.push(entry);
    }

    fn group_timers(&mut self) {
        if self.state.groups.next_deadline().is_none_or(|due| due > self.now) {
            return;
        }
        let mut out = Out::default();
        let mut context = context(&mut self.state.catalog, &self.group_settings, &mut *self.dice, self.now);
        self.state.groups.tick(&mut context, &mut out);
        self.group_effects(out);
    }

    /// Tells the groups that streams came, went or grew.
    pub(crate) fn catalog_changed(&mut self) {
        let mut out = Out::default();
        let mut context = context(&mut self.state.catalog, &self.group_settings, &mut *self.dice, self.now);
        self.state.groups.catalog_changed(&mut context, &mut out);
        self.group_effects(out);
    }

    /// The groups have applied their effects already; here they are journalled, and the answers wait for them.
    fn group_effects(&mut self, out: Out) {
        for effect in out.effects {
            let (key, value) = effect.encode();
            self.last = self.last.next();
            self.groups_lsn = self.last;
            self.entries.push(match &value {
                Some(value) => Entry::state_put(&key, value.clone()),
                None => Entry::state_delete(&key),
            });
            self.state.touch(key, value);
        }
        for (reply, result) in out.answers {
            self.due(self.groups_lsn, Due::Answer(reply, result));
        }
    }

    pub(crate) fn due(&mut self, lsn: Lsn, due: Due) {
        if lsn <= self.durable {
            return self.happen(due);
        }
        // Almost always the newest; a repeated batch or a question may wait for an older entry.
        let at = self.waiting.iter().rposition(|(other, _)| *other <= lsn).map_or(0, |at| at + 1);
        self.waiting.insert(at, (lsn, due));
    }

    /// A durable batch, in each partition that has it.
    fn show_batch(&mut self, shared: &[Located], appended: Millis) {
        self.state.place(shared, appended);
        for Located { row, .. } in shared {
            if let Some(held) = self.state.partitions.get(&row.partition) {
                held.view.show_end(row.base_offset.plus(u64::from(row.records)));
                self.touched.push(row.partition);
            }
        }
    }

    /// A commit became durable: its batches are shown, then what waited for it happens.
    fn durable(&mut self, commit: Completed) {
        tracing::trace!(target: "path", hop = "Shard::durable");
        self.touched.clear();
        for group in &commit.groups {
            self.view.tail.push(group.position, group.bytes.clone());
            if !group.batches.is_empty() && self.archiving.open_since.is_none() {
                self.archiving.open_since = Some(commit.append_ms);
            }
            for shared in group.batches.chunk_by(|one, next| one.position == next.position) {
                self.show_batch(shared, commit.append_ms);
            }
            self.upkeep.wrote(group.room_bytes() as u64);
        }
        if let Some(extent) = commit.sealed {
            self.state.seal(extent);
            self.upkeep.sealed(extent);
            self.archiving.open_since = None;
        }
        if let Some(group) = commit.groups.last() {
            self.view.show_to(group.end());
        }
        self.durable = commit.durable;
        while self.waiting.front().is_some_and(|(lsn, _)| *lsn <= self.durable) {
            if let Some((_, due)) = self.waiting.pop_front() {
                self.happen(due);
            }
        }
        // Readers wake after the answers are in: both kinds of wake-up come once per commit.
        self.touched.sort_unstable();
        self.touched.dedup();
        for id in &self.touched {
            if let Some(held) = self.state.partitions.get(id) {
                held.view.wake();
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Answer(reply, result) => {
                let outbox = reply.answer(result);
                if self.to_wake.last().is_none_or(|last| !Arc::ptr_eq(last, &outbox)) {
                    self.to_wake.push(outbox);
                }
            }
            Due::ShowStream(info) => {
                for id in &info.partitions {
                    if let Some(held) = self.state.partitions.get(id) {
                        self.view.show_partition(held.view.clone());
                    }
                }
                self.view.show_stream(info);
            }
            Due::HideStream(info, partitions) => {
                self.view.hide_stream(&info);
                self.state.free(&partitions);
            }
            Due::ShowStart(partition, log_start) => self.state.trim_index(partition, log_start),
            Due::ShowRemoved(partition, removed) => {
                if let Some(held) = self.state.partitions.get(&partition) {
                    held.view.show_removed(removed);
                }
            }
            Due::ShowRetained(subject, at) => self.view.retain(&subject, at),
            Due::ShowReplaced(replaced) => self.show_replaced(&replaced),
            Due::Checkpoint(checkpoint) => self.checkpointer.write(checkpoint),
        }
    }

    /// Ends the log. Call when settled.
    pub fn end(self) {
        self.log.drain();
    }

    pub(crate) fn release(&mut self, extents: &[ExtentNumber]) {
        self.log.release(extents);
    }

    pub(crate) fn finish_extent(&mut self) {
        self.log.finish_extent();
    }

    pub(crate) fn start_job(&mut self, job: Job) {
        self.archive.start(job);
    }

    pub(crate) fn delete_segments(&mut self, segments: Vec<SegmentId>) {
        self.archive.delete(segments);
    }
}

fn context<'a>(
    catalog: &'a mut crate::catalog::Catalog,
    settings: &'a GroupSettings,
    dice: &'a mut (dyn FnMut() -> u128 + Send),
    now: Millis,
) -> Context<'a> {
    Context { now, catalog, settings, random: dice }
}
