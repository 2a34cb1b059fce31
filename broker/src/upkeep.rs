//! What a shard does by itself: retention, checkpoints, forgetting.

use std::collections::BTreeMap;

use firth_journal::entry::Entry;
use firth_journal::spares::Room;
use firth_model::ids::{ExtentNumber, Lsn, Offset, PartitionId, Position, ProducerId};
use firth_model::limits::{PRODUCER_IDLE_MS, PRODUCERS_MAX};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::effect::Effect;
use crate::retained::RETAINED_STREAM;
use crate::schedule::{
    CHECKPOINT_EVERY_BYTES, CHECKPOINT_EVERY_MS, EXPIRY_EVERY_MS, PRODUCERS_EVERY_MS, RETENTION_EVERY_MS, STARVED_EVERY_MS,
};
use crate::shard::{Checkpoint, Due, Shard};

/// With room for less than this many, checkpoints do not wait for their time.
const FEW_EXTENTS: ExtentNumber = ExtentNumber(8);
/// Producers forgotten at once when there are too many: enough that the search for the idlest is rare.
const PRODUCERS_FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 100;
/// Batches with expired records in one turn: the shard must not be kept from publishers.
const EXPIRED_AT_ONCE: usize = 10_000;

impl Shard {
    /// Everything that is due now.
    pub(crate) fn upkeep(&mut self) {
        if self.room == Room::Reserve {
            // Publishers wait for what retention gives back.
            self.upkeep.retention_due = self.upkeep.retention_due.min(self.now.plus(STARVED_EVERY_MS));
        }
        if self.wants_space() {
            self.upkeep.checkpoint_due = self.upkeep.checkpoint_due.min(self.now.plus(STARVED_EVERY_MS));
        }
        if self.upkeep.retention_due <= self.now {
            self.upkeep.retention_due = self.now.plus(RETENTION_EVERY_MS);
            self.expire_records();
            self.give_back_extents();
        }
        if self.upkeep.expiry_due <= self.now && self.state.expiries.next_due().is_some_and(|due| due <= self.now) {
            self.upkeep.expiry_due = self.now.plus(EXPIRY_EVERY_MS);
            self.remove_expired();
        }
        if self.state.producers > PRODUCERS_MAX || self.upkeep.producers_due <= self.now {
            self.upkeep.producers_due = self.now.plus(PRODUCERS_EVERY_MS);
            self.forget_producers();
        }
        let full = self.upkeep.bytes_since_checkpoint >= CHECKPOINT_EVERY_BYTES;
        let due = self.upkeep.checkpoint_due <= self.now;
        if (full || due) && !self.upkeep.checkpoint_under_way {
            self.upkeep.checkpoint_due = self.now.plus(CHECKPOINT_EVERY_MS);
            self.checkpoint();
        }
    }

    /// Takes the changes of the state now; they are written once the last of their entries is durable.
    pub fn checkpoint(&mut self) {
        // Without a change there is still the position: what nobody needs is given back after two checkpoints.
        let awaited = self.wants_space() || self.state.extents.has_dead() || self.archiving.has_graves();
        if (self.state.is_clean() && !awaited) || self.upkeep.checkpoint_under_way {
            return;
        }
        self.upkeep.checkpoint_under_way = true;
        self.archiving.checkpoints_begun += 1;
        self.upkeep.bytes_since_checkpoint = 0;
        let position = self.state.extents.start_of(self.upkeep.open_extent);
        let changes = self.state.take_changes();
        let at = self.last;
        self.due(at, Due::Checkpoint(Checkpoint { at, position, changes }));
    }

    /// A checkpoint ended. If it is complete (`Some`), journal before the position is needed only for the records in it.
    pub fn checkpoint_ended(&mut self, done: Option<(Lsn, Position)>) {
        self.upkeep.checkpoint_under_way = false;
        let Some((at, keep_from)) = done else { return };
        self.upkeep.keep_from = self.upkeep.keep_from.max(keep_from);
        self.archiving.checkpoints_ended = [self.archiving.checkpoints_ended[1], self.archiving.checkpoints_begun];
        self.note(Entry::checkpoint_taken(at));
        self.give_back_extents();
    }

    /// Whether few extents are left and checkpoints would let finished ones go.
    fn wants_space(&self) -> bool {
        let few = self.state.extents.start_of(FEW_EXTENTS).0;
        self.room_bytes < few && self.upkeep.keep_from < self.state.extents.start_of(self.upkeep.open_extent)
    }

    pub(crate) fn give_back_extents(&mut self) {
        let dead = self.state.extents.take_dead(self.upkeep.keep_from);
        if !dead.is_empty() {
            self.release(&dead);
        }
        let segments = self.take_graves();
        if !segments.is_empty() {
            self.delete_segments(segments);
        }
    }

    /// Records whose own time is over.
    fn remove_expired(&mut self) {
        if self.clock_watch.as_ref().is_some_and(|watch| !watch.agrees()) {
            return;
        }
        let mut over: BTreeMap<PartitionId, RunSet> = BTreeMap::new();
        for _ in 0..EXPIRED_AT_ONCE {
            let Some((partition, base, ranges, left)) = self.state.expiries.first_due(self.now) else { break };
            self.emit(&Effect::Expire { partition, base, expiring: left });
            let runs = over.entry(partition).or_default();
            ranges.into_iter().for_each(|range| {
                runs.insert(range);
            });
        }
        for (partition, runs) in over {
            self.retain_no_more(partition, &runs);
            let lsn = self.emit(&Effect::Remove { partition, runs });
            if let Some(held) = self.state.partitions.get(&partition) {
                let removed = held.removed.clone();
                self.due(lsn, Due::ShowRemoved(partition, removed));
            }
        }
    }

    /// What is removed of the retained stream is not the newest of its subject any more.
    fn retain_no_more(&mut self, partition: PartitionId, runs: &RunSet) {
        if self.state.catalog.by_name(RETAINED_STREAM).is_none_or(|info| !info.partitions.contains(&partition)) {
            return;
        }
        for subject in self.state.retained.among(runs) {
            let lsn = self.emit(&Effect::Retain { subject: subject.clone(), at: None });
            self.due(lsn, Due::ShowRetained(subject, None));
        }
    }

    fn expire_records(&mut self) {
        let ages_are_known = self.clock_watch.as_ref().is_none_or(|watch| watch.agrees());
        let mut trims = Vec::new();
        for info in self.state.catalog.all().filter(|info| info.policy.expires) {
            let policy = &info.policy;
            if policy.retention_ms.is_none() && policy.retention_bytes.is_none() && policy.retention_records.is_none() {
                continue;
            }
            let before = policy
                .retention_ms
                .filter(|_| ages_are_known)
                .and_then(|age| i64::try_from(age).ok())
                .map(|age| Millis(self.now.0.saturating_sub(age)));
            for id in &info.partitions {
                let Some(held) = self.state.partitions.get(id) else { continue };
                let by_count = policy.retention_records.map(|count| Offset(held.view.durable_end().0.saturating_sub(count)));
                let by_age_or_bytes = held.view.index().expired(before, policy.retention_bytes);
                if let Some(log_start) = by_count.max(by_age_or_bytes)
                    && log_start > held.log_start
                {
                    trims.push((*id, log_start));
                }
            }
        }
        for (partition, log_start) in trims {
            let lsn = self.emit(&Effect::Trim { partition, log_start });
            self.due(lsn, Due::ShowStart(partition, log_start));
        }
    }

    /// Idle producers, and the idlest ones while there are too many.
    fn forget_producers(&mut self) {
        let idle_before = Millis(self.now.0.saturating_sub(PRODUCER_IDLE_MS));
        let mut known: Vec<(Millis, PartitionId, ProducerId)> = Vec::with_capacity(self.state.producers);
        for (id, held) in &self.state.partitions {
            known.extend(held.producers.iter().map(|(producer, state)| (state.last_seen, *id, producer)));
        }
        known.sort_unstable();
        let idle = known.partition_point(|(last_seen, ..)| *last_seen < idle_before);
        let excess = known.len().saturating_sub(PRODUCERS_MAX);
        let excess = if excess > 0 { excess + PRODUCERS_FORGOTTEN_AT_ONCE } else { 0 };
        for (_, partition, producer) in known.into_iter().take(idle.max(excess)) {
            self.emit(&Effect::ForgetProducer { partition, producer });
        }
    }
}
