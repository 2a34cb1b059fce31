//! When a shard is to look after itself.

use firth_model::ids::{ExtentNumber, Position};
use firth_model::limits::REPLAY_BYTES_MAX;
use firth_model::time::Millis;

/// How often age and size are looked at. A look at 10,000 partitions takes about a millisecond.
pub const RETENTION_EVERY_MS: i64 = 5_000;
/// How often they are looked at, and a checkpoint is tried that frees extents, while space is short.
pub const STARVED_EVERY_MS: i64 = 500;
/// A checkpoint at least this often, if anything changed.
pub const CHECKPOINT_EVERY_MS: i64 = 30_000;
/// A checkpoint after this much journal: half of what start-up may replay, because the extents that are open when it is taken are
/// read again too.
pub const CHECKPOINT_EVERY_BYTES: u64 = REPLAY_BYTES_MAX / 2;
/// How often expired records are looked for: what expires in between goes together.
pub const EXPIRY_EVERY_MS: i64 = 200;
/// How often idle producers are looked for.
pub const PRODUCERS_EVERY_MS: i64 = 10 * 60_000;

pub struct Upkeep {
    pub retention_due: Millis,
    pub producers_due: Millis,
    /// Expired records are looked for no sooner.
    pub expiry_due: Millis,
    pub checkpoint_due: Millis,
    pub bytes_since_checkpoint: u64,
    pub checkpoint_under_way: bool,
    /// The oldest extent whose batches have rows, not a span.
    pub open_extent: ExtentNumber,
    /// The journal below is in two checkpoints.
    pub keep_from: Position,
}

impl Upkeep {
    pub fn starting(now: Millis, open_extent: ExtentNumber) -> Upkeep {
        Upkeep {
            retention_due: now.plus(RETENTION_EVERY_MS),
            producers_due: now.plus(PRODUCERS_EVERY_MS),
            expiry_due: now,
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
