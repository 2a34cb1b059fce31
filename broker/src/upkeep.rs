//! What a shard does by itself: retention, checkpoints, forgetting, giving extents back.

use firth_journal::entry::Entry;
use firth_model::ids::{ExtentNumber, Lsn, PartitionId, Position, ProducerId};
use firth_model::limits::{PRODUCER_IDLE_MS, PRODUCERS_MAX, REPLAY_BYTES_MAX};
use firth_model::time::Millis;

use crate::effect::Effect;
use crate::shard::{Checkpoint, Due, Shard};

/// How often age and size are looked at. A look at 10,000 partitions takes about a millisecond.
const RETENTION_EVERY_MS: i64 = 5_000;
/// A checkpoint at least this often, if anything changed.
const CHECKPOINT_EVERY_MS: i64 = 30_000;
/// A checkpoint after this much journal: half of what start-up may replay, because the extents that are open when it is taken are
/// read again too.
const CHECKPOINT_EVERY_BYTES: u64 = REPLAY_BYTES_MAX / 2;
/// How often idle producers are looked for.
const PRODUCERS_EVERY_MS: i64 = 10 * 60_000;
/// Producers forgotten at once when there are too many: enough that the search for the idlest is rare.
const PRODUCERS_FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 100;

pub struct Upkeep {
    retention_due: Millis,
    producers_due: Millis,
    checkpoint_due: Millis,
    bytes_since_checkpoint: u64,
    checkpoint_under_way: bool,
    /// The oldest extent whose batches have rows, not a span.
    open_extent: ExtentNumber,
    /// The journal below is in two checkpoints.
    keep_from: Position,
}

impl Upkeep {
    pub fn starting(now: Millis, open_extent: ExtentNumber) -> Upkeep {
        Upkeep {
            retention_due: now.plus(RETENTION_EVERY_MS),
            producers_due: now.plus(PRODUCERS_EVERY_MS),
            checkpoint_due: now.plus(CHECKPOINT_EVERY_MS),
            bytes_since_checkpoint: 0,
            checkpoint_under_way: false,
            open_extent,
            keep_from: Position(0),
        }
    }

    pub fn wrote(&mut self, bytes: u64) {
        self.bytes_since_checkpoint += bytes;
    }

    pub fn sealed(&mut self, extent: ExtentNumber) {
        self.open_extent = self.open_extent.max(ExtentNumber(extent.0 + 1));
    }

    pub fn next_due(&self) -> Millis {
        let checkpoint = if self.checkpoint_under_way { Millis(i64::MAX) } else { self.checkpoint_due };
        self.retention_due.min(self.producers_due).min(checkpoint)
    }
}

impl Shard {
    /// Everything that is due now.
    pub(crate) fn upkeep(&mut self) {
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
        if self.state.is_clean() || self.upkeep.checkpoint_under_way {
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

    fn give_back_extents(&mut self) {
        let dead = self.state.extents.take_dead(self.upkeep.keep_from);
        if !dead.is_empty() {
            self.release(&dead);
        }
    }

    fn expire_records(&mut self) {
        let mut trims = Vec::new();
        for info in self.state.catalog.all().filter(|info| info.policy.expires) {
            let policy = &info.policy;
            if policy.retention_ms.is_none() && policy.retention_bytes.is_none() {
                continue;
            }
            let before = policy.retention_ms.and_then(|age| i64::try_from(age).ok()).map(|age| Millis(self.now.0.saturating_sub(age)));
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
