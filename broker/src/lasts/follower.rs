//! Reads streams to find their last values.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::live::RouteCache;
use firth_gateway::message::StoredMessage;
use firth_gateway::refusal::Refusal;
use firth_gateway::stored;
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::{LogView, ReadNow, Records, RouteView, Waiter};
use firth_model::batch::BatchHeader;
use firth_model::ids::{Offset, PartitionId, Position, StreamId};
use firth_model::limits::{LAST_VALUES_MAX, LAST_VALUES_READ_BYTES};
use firth_model::removed::RunSet;
use firth_model::stream_subject::subject_of_stream;
use firth_model::subject::Subject;
use firth_model::time::Millis;

use super::state::{Last, LastChange, LastEffect};
use super::table::{OfStream, Offer};
use crate::routing::Shared;
use crate::view::View;

/// How often values are looked for whose records are gone.
const SWEEP_EVERY_MS: i64 = 30_000;
/// Pieces that one look reads: who waits is answered in between.
const PIECES_AT_ONCE: usize = 8;
/// Subjects that were looked at before others may look: the table is theirs too.
const SWEEP_AT_ONCE: usize = 8_192;

/// How long a partition is left alone whose records lie in a store that cannot be reached.
pub const AWAY_MS: i64 = 1_000;

/// What one look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// There is more to read.
    pub more: bool,
    /// Something was read from disk.
    pub cold: bool,
    /// There is something that cannot be read now, and is looked at again after `AWAY_MS`.
    pub away: bool,
}

/// The one who finds. In a node a thread runs it.
pub struct Follower {
    view: Arc<View>,
    routes: Box<dyn RouteCache>,
    version: u64,
    /// The partitions that are followed, and whose turn it is.
    followed: Vec<(Arc<StreamInfo>, PartitionId)>,
    turn: usize,
    /// Keys whose value changed since they were taken.
    subjects: HashSet<(StreamId, Bytes)>,
    partitions: HashSet<(StreamId, PartitionId)>,
    /// Subjects without a value that are remembered until all partitions are read.
    gone: HashMap<StreamId, HashSet<Bytes>>,
    /// Values, over all streams.
    count: usize,
    full: bool,
    sweep_due: Millis,
    now: Millis,
    /// When partitions are looked at again that could not be read.
    away: HashMap<PartitionId, Millis>,
    /// A read failed in this look. It took its time: others are not tried as well.
    has_failed: bool,
}

impl Follower {
    /// Goes on from what the view's table has.
    pub fn over(view: Arc<View>, now: Millis) -> Follower {
        let routes = Shared(view.routing.clone()).cache();
        let found = view.lasts.found();
        let count = found.values().map(|of| of.newest.len()).sum();
        let gone_of = |of: &OfStream| of.newest.iter().filter(|(_, last)| last.gone).map(|(subject, _)| subject.clone()).collect();
        let gone = found.iter().map(|(stream, of)| (*stream, gone_of(of))).collect();
        drop(found);
        Follower {
            view,
            routes,
            // No version of the table is this one.
            version: u64::MAX,
            followed: Vec::new(),
            turn: 0,
            subjects: HashSet::new(),
            partitions: HashSet::new(),
            gone,
            count,
            full: false,
            sweep_due: now.plus(SWEEP_EVERY_MS),
            now,
            away: HashMap::new(),
            has_failed: false,
        }
    }

    /// Reads pieces of partitions that have more, each in its turn.
    pub fn look(&mut self, now: Millis) -> Look {
        (self.now, self.has_failed) = (now, false);
        self.take_offers();
        let mut look = Look::default();
        let followed = std::mem::take(&mut self.followed);
        let mut pieces = 0;
        for _ in 0..followed.len() {
            let Some((info, partition)) = followed.get(self.turn % followed.len()) else { break };
            pieces += usize::from(self.read(info, *partition, &mut look));
            if pieces == PIECES_AT_ONCE {
                look.more = true;
                break;
            }
            self.turn = (self.turn + 1) % followed.len();
        }
        // The next look begins with another one.
        self.turn += usize::from(self.has_failed);
        self.followed = followed;
        if !look.more {
            self.forget_gone();
        }
        if self.sweep_due <= now {
            self.sweep_due = now.plus(SWEEP_EVERY_MS);
            self.sweep();
        }
        self.view.lasts.answer(!look.more && !look.away);
        look
    }

    /// Whether some stream is followed.
    pub fn is_busy(&self) -> bool {
        !self.followed.is_empty()
    }

    /// What changed since the last call, for the next checkpoint.
    pub fn take_changes(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let found = self.view.lasts.found();
        let mut changes = Vec::with_capacity(self.subjects.len() + self.partitions.len());
        for (stream, partition) in self.partitions.drain() {
            let next = found.get(&stream).and_then(|of| of.next.get(&partition)).copied();
            changes.push(LastEffect { stream, what: LastChange::ReadTo { partition, next } }.encode());
        }
        for (stream, subject) in self.subjects.drain() {
            let last = found.get(&stream).and_then(|of| of.newest.get(&subject)).copied();
            changes.push(LastEffect { stream, what: LastChange::Newest { subject, last } }.encode());
        }
        changes
    }

    pub fn has_changes(&self) -> bool {
        !self.partitions.is_empty() || !self.subjects.is_empty()
    }

    /// Asks to be woken when a followed partition grows. False: one has.
    pub fn park(&self, waiter: &Arc<Waiter>) -> bool {
        let found = self.view.lasts.found();
        let mut parked = true;
        for (info, partition) in &self.followed {
            let (stream, partition) = (info.id, *partition);
            let next = found.get(&stream).and_then(|of| of.next.get(&partition).copied()).unwrap_or(Offset(0));
            let there = self.view.bounds(partition).is_some();
            parked &= !there || self.is_away(partition) || self.view.park(partition, next, waiter);
        }
        parked
    }

    /// Forgets the streams that offer no more, and begins with those that do.
    fn take_offers(&mut self) {
        let Some((version, offers)) = self.view.lasts.offers_since(self.version) else { return };
        self.version = version;
        self.away.clear();
        let partitions = |offer: &Offer| offer.info.partitions.iter().map(|id| (offer.info.clone(), *id)).collect::<Vec<_>>();
        self.followed = offers.iter().flat_map(partitions).collect();
        let mut found = self.view.lasts.found_mut();
        let offered: HashSet<StreamId> = offers.iter().map(|offer| offer.info.id).collect();
        let ended: Vec<StreamId> = found.keys().filter(|stream| !offered.contains(stream)).copied().collect();
        for stream in ended {
            let Some(of) = found.remove(&stream) else { continue };
            self.gone.remove(&stream);
            self.count -= of.newest.len();
            self.subjects.extend(of.newest.into_keys().map(|subject| (stream, subject)));
            self.partitions.extend(of.next.into_keys().map(|partition| (stream, partition)));
        }
        for stream in offered {
            found.entry(stream).or_default();
        }
    }

    /// Whether there was something to read.
    fn read(&mut self, info: &StreamInfo, partition: PartitionId, look: &mut Look) -> bool {
        let Some(bounds) = self.view.bounds(partition) else { return false };
        let known = self.view.lasts.found().get(&info.id).and_then(|of| of.next.get(&partition).copied());
        let next = known.unwrap_or(Offset(0)).max(bounds.log_start);
        if next >= bounds.durable_end {
            if known.is_none() && next > Offset(0) {
                self.reached(info.id, partition, next);
            }
            return false;
        }
        if self.is_away(partition) {
            look.away = true;
            return false;
        }
        let records = match self.view.read(partition, next, LAST_VALUES_READ_BYTES) {
            ReadNow::Ready(records) => Ok(records),
            ReadNow::Refused(refusal) => Err(refusal),
            ReadNow::Behind if self.has_failed => {
                self.away.insert(partition, self.now.plus(AWAY_MS));
                look.away = true;
                return false;
            }
            ReadNow::Behind => {
                look.cold = true;
                self.view.read_here(partition, next, LAST_VALUES_READ_BYTES)
            }
        };
        let reached = match records {
            Ok(records) if records.batches.is_empty() => bounds.durable_end,
            Ok(records) => self.take(info, partition, next, &records),
            // Its beginning was removed meanwhile, or it is gone: the next look sees that.
            Err(Refusal::OffsetOutOfRange { .. } | Refusal::NotFound) => next,
            // It is there: what is behind it may not pass for all that there is.
            Err(Refusal::Unavailable | Refusal::Overloaded | Refusal::TimedOut | Refusal::Stopping) => {
                self.away.insert(partition, self.now.plus(AWAY_MS));
                (look.away, self.has_failed) = (true, true);
                return false;
            }
            Err(refusal) => {
                let behind = self.view.behind_piece_of(partition, next).unwrap_or(bounds.durable_end);
                tracing::warn!(?refusal, partition = partition.0, from = next.0, to = behind.0, "no last values are offered from here");
                behind
            }
        };
        self.away.remove(&partition);
        self.reached(info.id, partition, reached);
        look.more |= reached < bounds.durable_end;
        true
    }

    /// Whether it could not be read lately. A clock that was put back makes nobody wait for longer.
    fn is_away(&self, partition: PartitionId) -> bool {
        self.away.get(&partition).is_some_and(|due| *due > self.now && *due <= self.now.plus(AWAY_MS))
    }

    fn reached(&mut self, stream: StreamId, partition: PartitionId, next: Offset) {
        if let Some(of) = self.view.lasts.found_mut().get_mut(&stream)
            && of.next.insert(partition, next) != Some(next)
        {
            self.partitions.insert((stream, partition));
        }
    }

    /// The offset behind what was taken.
    fn take(&mut self, info: &StreamInfo, partition: PartitionId, from: Offset, records: &Records) -> Offset {
        let Ok(own) = subject_of_stream(&info.name) else { return end_of(records, from) };
        for (batch, position) in records.batches.iter().zip(&records.positions) {
            match stored::messages(batch, from, &own) {
                Ok(mut messages) => {
                    for stored in &mut messages {
                        if stored.message.subject != own && !self.is_captured(info, &stored.message.subject) {
                            stored.message.subject = own.clone();
                        }
                    }
                    self.put(info, partition, *position, &messages);
                }
                Err(refusal) => tracing::warn!(?refusal, partition = partition.0, "a batch has no readable last values"),
            }
        }
        end_of(records, from)
    }

    /// What a stream does not capture may not be said in its name.
    fn is_captured(&mut self, info: &StreamInfo, subject: &Subject) -> bool {
        self.routes.routes(subject).captures.iter().any(|capture| capture.stream.id == info.id)
    }

    fn put(&mut self, info: &StreamInfo, partition: PartitionId, position: Position, messages: &[StoredMessage]) {
        let stream = info.id;
        let mut found = self.view.lasts.found_mut();
        let Some(of) = found.get_mut(&stream) else { return };
        for StoredMessage { offset, message } in messages {
            let text = &message.subject.as_bytes()[..];
            // MQTT has no retained message without a payload.
            let gone = message.value.as_ref().is_none_or(Bytes::is_empty);
            let last = Last { partition, offset: *offset, position, time: message.published, gone };
            let known = of.newest.get_mut(text);
            if known.as_ref().is_some_and(|known| known.is_newer_than(&last)) {
                continue;
            }
            if gone && info.partitions.len() == 1 {
                if let Some((subject, _)) = of.newest.remove_entry(text) {
                    self.count -= 1;
                    self.subjects.insert((stream, subject));
                }
                continue;
            }
            let subject = Bytes::copy_from_slice(text);
            if gone {
                self.gone.entry(stream).or_default().insert(subject.clone());
            }
            match known {
                Some(known) => *known = last,
                None if self.count >= LAST_VALUES_MAX => {
                    if !std::mem::replace(&mut self.full, true) {
                        tracing::warn!(
                            max = LAST_VALUES_MAX,
                            "streams have more subjects than last values are kept of: the rest is not offered"
                        );
                    }
                    continue;
                }
                None => {
                    self.count += 1;
                    of.newest.insert(subject.clone(), last);
                }
            }
            self.subjects.insert((stream, subject));
        }
    }

    /// Where all partitions were read, nothing older comes any more.
    fn forget_gone(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        let mut found = self.view.lasts.found_mut();
        for (stream, subjects) in std::mem::take(&mut self.gone) {
            let Some(of) = found.get_mut(&stream) else { continue };
            let is_read = |partition: &PartitionId| {
                let next = of.next.get(partition).copied().unwrap_or(Offset(0));
                self.view.bounds(*partition).is_none_or(|bounds| next >= bounds.durable_end)
            };
            let mut partitions = self.followed.iter().filter(|(info, _)| info.id == stream).map(|(_, partition)| partition);
            if !partitions.all(is_read) {
                self.gone.insert(stream, subjects);
                continue;
            }
            for subject in subjects {
                if of.newest.get(&subject).is_some_and(|last| last.gone) {
                    of.newest.remove(&subject);
                    self.count -= 1;
                    self.subjects.insert((stream, subject));
                }
            }
        }
    }

    /// Forgets values whose records were removed. What compaction took away stays until the subject's next record: its read finds nothing.
    fn sweep(&mut self) {
        let mut left: HashMap<StreamId, HashMap<PartitionId, Left>> = HashMap::new();
        for (info, id) in &self.followed {
            if let Some(bounds) = self.view.bounds(*id) {
                let is_left = Left { log_start: bounds.log_start, removed: self.view.removed(*id) };
                left.entry(info.id).or_default().insert(*id, is_left);
            }
        }
        left.retain(|_, partitions| partitions.values().any(|left| left.log_start > Offset(0) || left.removed.is_some()));
        for (stream, partitions) in left {
            let is_over = |last: &Last| partitions.get(&last.partition).is_none_or(|left| !left.has(last.offset));
            let mut after = Some(Bytes::new());
            while let Some(from) = after.take() {
                after = self.sweep_piece(stream, from, &is_over);
            }
        }
        self.full &= self.count >= LAST_VALUES_MAX;
    }

    /// Looks at so many subjects from `from` on, and gives the last of them, unless they were all.
    fn sweep_piece(&mut self, stream: StreamId, from: Bytes, is_over: &dyn Fn(&Last) -> bool) -> Option<Bytes> {
        let mut found = self.view.lasts.found_mut();
        let of = found.get_mut(&stream)?;
        let mut visited = 0;
        let (mut last_seen, mut over) = (None, Vec::new());
        for (subject, last) in of.newest.range(from..).take(SWEEP_AT_ONCE) {
            visited += 1;
            last_seen = Some(subject.clone());
            if is_over(last) {
                over.push(subject.clone());
            }
        }
        for subject in over {
            of.newest.remove(&subject);
            self.count -= 1;
            self.subjects.insert((stream, subject));
        }
        last_seen.filter(|_| visited == SWEEP_AT_ONCE)
    }
}

/// What readers still find of a partition.
struct Left {
    log_start: Offset,
    removed: Option<Arc<RunSet>>,
}

impl Left {
    fn has(&self, offset: Offset) -> bool {
        offset >= self.log_start && self.removed.as_ref().is_none_or(|removed| !removed.contains(offset.0))
    }
}

/// The offset behind the last batch; behind `from` in any case.
fn end_of(records: &Records, from: Offset) -> Offset {
    let end = records.batches.last().and_then(|batch| {
        let header = BatchHeader::parse(batch).ok()?;
        Some(Offset::from_i64(header.base_offset)?.plus(header.offset_count()))
    });
    end.unwrap_or(from).max(from.plus(1))
}
