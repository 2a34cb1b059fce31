//! Streams as seen through the door.

use std::collections::BTreeMap;

use firth_model::filter::Filter;
use firth_model::ids::{PartitionId, PartitionIndex, StreamId};
use firth_model::names::StreamName;

/// Which time the records of a stream carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// The publisher's own.
    Publisher,
    /// The moment the log took them.
    Log,
}

/// What the log itself does with a stream. Protocols translate their own settings into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Records older than this are removed; `None` keeps them for ever.
    pub retention_ms: Option<u64>,
    /// A partition larger than this loses its oldest records; `None` sets no limit.
    pub retention_bytes: Option<u64>,
    /// Whether age and size remove records at all. A stream that is only compacted keeps every key's last record.
    pub expires: bool,
    /// Kept by last record per key.
    pub compacted: bool,
    /// Largest batch, in bytes as stored.
    pub batch_bytes_max: u32,
    pub time: TimeSource,
    /// A partition keeps at most so many of its newest records; `None` sets no limit.
    pub retention_records: Option<u64>,
    /// How long a compacted stream keeps the record that says a key is deleted, from the first cleaning that met it.
    pub delete_retention_ms: u64,
    /// Age below which a record of a compacted stream is not compacted.
    pub compaction_lag_min_ms: u64,
    /// Age at which a record of a compacted stream is compacted at the latest; `None` sets no limit.
    pub compaction_lag_max_ms: Option<u64>,
    /// Share of not yet compacted bytes, from 0 to 100, at which a stream is compacted.
    pub dirty_ratio_percent: u8,
    /// Filters whose messages the stream stores, beside those of its own subject. A hidden stream has no other.
    pub captures: Vec<Filter>,
    /// Offers its newest record of each subject to who subscribes, as a retained message is.
    pub offers_last: bool,
    /// Not listed, and no protocol's to name: the product's own.
    pub hidden: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            retention_ms: Some(7 * 24 * 60 * 60 * 1000),
            retention_bytes: None,
            expires: true,
            compacted: false,
            batch_bytes_max: 1_048_588,
            time: TimeSource::Publisher,
            retention_records: None,
            delete_retention_ms: 24 * 60 * 60 * 1000,
            compaction_lag_min_ms: 0,
            compaction_lag_max_ms: None,
            dirty_ratio_percent: 50,
            captures: Vec::new(),
            offers_last: false,
            hidden: false,
        }
    }
}

/// A stream as everybody may see it: published when durable, replaced as a whole when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    pub id: StreamId,
    pub name: StreamName,
    /// By index.
    pub partitions: Vec<PartitionId>,
    pub policy: Policy,
    /// What was set explicitly, in the words of the protocol that set it; stored and given back, not understood here.
    pub settings: BTreeMap<String, String>,
    /// Grows with every change of policy, settings or partitions: what `Alter` compares.
    pub version: u32,
}

impl StreamInfo {
    pub fn partition(&self, index: PartitionIndex) -> Option<PartitionId> {
        self.partitions.get(index.0 as usize).copied()
    }
}
