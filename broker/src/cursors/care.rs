//! When queue cursors are to be looked after.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use firth_gateway::cursors::CursorId;
use firth_gateway::outbox::Outbox;
use firth_model::ids::{Lsn, Offset, PartitionId, Position};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use super::limits::QueueLimits;
use super::table::Cursors;

/// How often filter streams are trimmed to what their cursors still need.
pub const TRIM_EVERY_MS: i64 = 5_000;
/// How often cursors that ended are dropped, and how many at once: the shard must not be kept from publishers.
pub const END_EVERY_MS: i64 = 200;
/// What ended while the node was down stays for so long after its start: what notes of it mean only its protocol knows, which looks then.
pub const END_FIRST_MS: i64 = 5_000;
pub const ENDED_AT_ONCE: usize = 1_000;
/// How often some cursors are looked at, whether they are over their limits.
pub const LIMIT_EVERY_MS: i64 = 500;

/// Records that a cursor lost and the log has not said.
pub struct Unsaid {
    pub records: u64,
    pub due: Millis,
}

/// One walk over all cursors.
#[derive(Default)]
pub struct Walk {
    /// The name of the cursor that was looked at last. `None`: it begins.
    pub after: Option<Arc<[u8]>>,
    /// What was durable when it began.
    pub ends: HashMap<PartitionId, Offset>,
    /// What some cursor still needs of partitions that lost their newest records.
    pub needed: BTreeMap<PartitionId, RunSet>,
}

impl Walk {
    pub fn is_under_way(&self) -> bool {
        self.after.is_some()
    }
}

pub struct Care {
    /// The last effect on cursors: an answer that depends on them waits for it.
    pub lsn: Lsn,
    pub trim_due: Millis,
    /// Cursors that ended are looked for no sooner.
    pub end_due: Millis,
    /// Filter streams without a leg, left by a crash, are not yet dropped.
    pub unswept: bool,
    pub limits: QueueLimits,
    pub limit_due: Millis,
    /// Everything stored below was looked at when the last walk over all cursors began.
    pub limited_to: Position,
    pub walk: Walk,
    /// Partitions that lost their newest records since the last walk began.
    pub thinned: BTreeSet<PartitionId>,
    pub unsaid: HashMap<CursorId, Unsaid>,
    /// When the log says the next of it.
    pub say_due: Millis,
    /// Who is attached, to be told what a queue lost.
    pub attached: HashMap<CursorId, Weak<Outbox>>,
}

impl Care {
    pub fn starting(now: Millis, limits: QueueLimits) -> Care {
        Care {
            lsn: Lsn(0),
            trim_due: now.plus(TRIM_EVERY_MS),
            end_due: now.plus(END_FIRST_MS),
            unswept: true,
            limits,
            limit_due: now,
            limited_to: Position(0),
            walk: Walk::default(),
            thinned: BTreeSet::new(),
            unsaid: HashMap::new(),
            say_due: Millis(i64::MAX),
            attached: HashMap::new(),
        }
    }

    /// `shown`: up to where something is stored.
    pub fn next_due(&self, cursors: &Cursors, shown: Position) -> Millis {
        let unlimited = !cursors.is_empty() && (self.walk.is_under_way() || self.limited_to != shown || !self.thinned.is_empty());
        let limit = if unlimited { self.limit_due } else { Millis(i64::MAX) };
        self.next_care(cursors).min(limit).min(self.say_due)
    }

    fn next_care(&self, cursors: &Cursors) -> Millis {
        let never = Millis(i64::MAX);
        let trim = if cursors.filters.has_moved() { self.trim_due } else { never };
        let end = cursors.next_end().map_or(never, |end| end.max(self.end_due));
        if self.unswept { Millis(i64::MIN) } else { trim.min(end) }
    }
}
