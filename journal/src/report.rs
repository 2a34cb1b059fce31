//! What is told of a journal that is not as it should be.

use std::fmt;

use firth_model::ids::{ExtentNumber, Position};

use crate::group::Located;

/// A group that may have been acknowledged and cannot be read.
#[derive(Clone, Debug)]
pub struct DamageReport {
    pub extent: ExtentNumber,
    /// Where the first unreadable group begins.
    pub position: Position,
    /// Everything below was known to be durable.
    pub durable: Position,
    pub what: &'static str,
    /// Batches that lie at or behind the position, as far as a directory or a table of contents still tells.
    pub lost: Vec<Located>,
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (extent, position, durable) = (self.extent.0, self.position.0, self.durable.0);
        write!(f, "shard 0, extent {extent}, position {position}: {} (durable up to {durable})", self.what)?;
        for (partition, from, to) in ranges(&self.lost) {
            write!(f, "; partition {partition} offsets {from} to {to}")?;
        }
        Ok(())
    }
}

/// Offsets by partition, neighbouring batches joined.
pub(crate) fn ranges(lost: &[Located]) -> Vec<(u32, u64, u64)> {
    let mut ranges: Vec<(u32, u64, u64)> = Vec::new();
    let mut sorted: Vec<_> = lost.iter().map(|located| located.row).collect();
    sorted.sort_by_key(|row| (row.partition, row.base_offset));
    for row in sorted {
        let (first, end) = (row.base_offset.0, row.base_offset.0 + u64::from(row.records));
        match ranges.last_mut() {
            Some((partition, _, to)) if *partition == row.partition.0 && *to + 1 >= first => *to = end.saturating_sub(1),
            _ => ranges.push((row.partition.0, first, end.saturating_sub(1))),
        }
    }
    ranges
}

/// What a crash left at the end: never acknowledged, kept aside.
#[derive(Clone, Debug)]
pub struct TornReport {
    pub extent: ExtentNumber,
    pub position: Position,
    /// Bytes copied to `<extent>.torn`.
    pub bytes: u64,
}

impl fmt::Display for TornReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "extent {}, position {}, {} bytes", self.extent.0, self.position.0, self.bytes)
    }
}
