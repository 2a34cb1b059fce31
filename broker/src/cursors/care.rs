//! When queue cursors are to be looked after.

use firth_model::ids::Lsn;
use firth_model::time::Millis;

use super::table::Cursors;

/// How often filter streams are trimmed to what their cursors still need.
pub const TRIM_EVERY_MS: i64 = 5_000;
/// How often cursors that ended are dropped, and how many at once: the shard must not be kept from publishers.
pub const END_EVERY_MS: i64 = 200;
pub const ENDED_AT_ONCE: usize = 1_000;

pub struct Care {
    /// The last effect on cursors: an answer that depends on them waits for it.
    pub lsn: Lsn,
    pub trim_due: Millis,
    /// Cursors that ended are looked for no sooner.
    pub end_due: Millis,
    /// Filter streams without a leg, left by a crash, are not yet dropped.
    pub unswept: bool,
}

impl Care {
    pub fn starting(now: Millis) -> Care {
        Care { lsn: Lsn(0), trim_due: now.plus(TRIM_EVERY_MS), end_due: now, unswept: true }
    }

    pub fn next_due(&self, cursors: &Cursors) -> Millis {
        let never = Millis(i64::MAX);
        let trim = if cursors.filters.has_moved() { self.trim_due } else { never };
        let end = cursors.next_end().map_or(never, |end| end.max(self.end_due));
        if self.unswept { self.end_due } else { trim.min(end) }
    }
}
