//! What is moved into segments, and what is not needed.

use std::collections::HashSet;

use firth_model::ids::{ExtentNumber, PartitionId, SegmentId};
use firth_model::limits::{COMPACTION_MAP_BYTES, OWN_SEGMENT_BYTES, SEGMENT_BYTES};
use firth_model::time::Millis;

use crate::index::Place;
use crate::thinning::Thinning;

/// How often a shard looks whether something is to be moved.
pub const LOOK_EVERY_MS: i64 = 1_000;
/// After a store that refused.
pub const RETRY_AFTER_MS: i64 = 10_000;

/// When journal is moved into segments.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveSettings {
    /// Finished extents beyond this many bytes are moved, oldest first.
    pub journal_bytes_max: u64,
    /// A finished extent whose newest batch is older than this is moved.
    pub after_ms: i64,
    /// A segment is finished at this size.
    pub segment_bytes: usize,
    /// A partition with this much in one job gets segments of its own; smaller segments are merged.
    pub own_bytes: u64,
    /// Memory for the keys of a partition that is compacted.
    pub map_bytes: usize,
    /// How often segments of which most was removed are looked for: the search takes time with the runs of removed records.
    pub thin_every_ms: i64,
}

impl Default for ArchiveSettings {
    fn default() -> ArchiveSettings {
        ArchiveSettings {
            journal_bytes_max: 4 << 30,
            after_ms: 15 * 60_000,
            segment_bytes: SEGMENT_BYTES,
            own_bytes: OWN_SEGMENT_BYTES,
            map_bytes: COMPACTION_MAP_BYTES,
            thin_every_ms: 60_000,
        }
    }
}

/// What is under way and what waits.
pub(crate) struct Archiving {
    pub settings: ArchiveSettings,
    pub due: Millis,
    pub under_way: bool,
    /// Entries of replacements that are not durable: until readers see them, the index has what they replace.
    pub unshown: usize,
    /// Nobody uses these any more. Deleted once two checkpoints were taken after that, because until then an older checkpoint and a
    /// damaged journal could bring back what refers to them.
    pub graves: Vec<(u64, SegmentId)>,
    /// Checkpoints begun, and those of the two newest that ended well.
    pub checkpoints_begun: u64,
    pub checkpoints_ended: [u64; 2],
    /// Damaged batches lie here: their partition is not moved from there again by this process.
    pub stuck: HashSet<(PartitionId, Place)>,
    /// The oldest finished extent in which something lives, when that was last looked for, and its newest batch.
    pub oldest: Option<(ExtentNumber, Millis)>,
    /// When the first batch came into the extent that is written now.
    pub open_since: Option<Millis>,
    pub thinning: Thinning,
}

impl Archiving {
    pub fn starting(settings: ArchiveSettings, now: Millis) -> Archiving {
        Archiving {
            settings,
            due: now.plus(LOOK_EVERY_MS),
            under_way: false,
            unshown: 0,
            graves: Vec::new(),
            checkpoints_begun: 0,
            checkpoints_ended: [0; 2],
            stuck: HashSet::new(),
            oldest: None,
            open_since: None,
            thinning: Thinning::starting(now, settings.thin_every_ms),
        }
    }

    pub fn has_graves(&self) -> bool {
        !self.graves.is_empty()
    }

    pub fn bury(&mut self, ids: impl IntoIterator<Item = SegmentId>) {
        let begun = self.checkpoints_begun;
        for id in ids {
            if !self.graves.iter().any(|(_, other)| *other == id) {
                self.graves.push((begun, id));
            }
        }
    }
}
