//! What a shard does by itself: retention, checkpoints, forgetting.

use firth_journal::entry::Entry;
use firth_journal::spares::Room;
use firth_model::ids::{ExtentNumber, Lsn, PartitionId, Position, ProducerId};
use firth_model::limits::{PRODUCER_IDLE_MS, PRODUCERS_MAX};
use firth_model::time::Millis;

use crate::effect::Effect;
use crate::schedule::{CHECKPOINT_EVERY_BYTES, CHECKPOINT_EVERY_MS, PRODUCERS_EVERY_MS, RETENTION_EVERY_MS, STARVED_EVERY_MS};
use crate::shard::{Checkpoint, Due, Shard};

/// With room for less than this many, checkpoints do not wait for their time.
const FEW_EXTENTS: ExtentNumber = ExtentNumber(8);
/// Producers forgotten at once when there are too many: enough that the search for the idlest is rare.
const PRODUCERS_FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 100;

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
        // Without a change there is still the position: when space is short, two checkpoints are wanted at once.
        if (self.state.is_clean() && !self.wants_space()) || self.upkeep.checkpoint_under_way {
            return;
        }
        self.upkeep.checkpoint_under_way = true;
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
        self.note(Entry::checkpoint_taken(at));
        self.give_back_extents();
    }

    /// Whether few extents are left and checkpoints would let finished ones go.
    fn wants_space(&self) -> bool {
        let few = self.state.extents.start_of(FEW_EXTENTS).0;
        self.room_bytes < few && self.upkeep.keep_from < self.state.extents.start_of(self.upkeep.open_extent)
    }

    fn give_back_extents(&mut self) {
        let dead = self.state.extents.take_dead(self.upkeep.keep_from);
        if !dead.is_empty() {
            self.release(&dead);
        }
    }

    fn expire_records(&mut self) {
        let ages_are_known = self.clock_watch.as_ref().is_none_or(|watch| watch.agrees());
        let mut trims = Vec::new();
        for info in self.state.catalog.all().filter(|info| info.policy.expires) {
            let policy = &info.policy;
            if policy.retention_ms.is_none() && policy.retention_bytes.is_none() {
                continue;
            }
            let before = policy
                .retention_ms
                .filter(|_| ages_are_known)
                .and_then(|age| i64::try_from(age).ok())
                .map(|age| Millis(self.now.0.saturating_sub(age)));
            for id in &info.partitions {
                let Some(held) = self.state.partitions.get(id) else { continue };
                if let Some(log_start) = held.view.index().expired(before, policy.retention_bytes)
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
