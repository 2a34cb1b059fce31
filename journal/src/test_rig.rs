//! What the tests of whole journals open them with.

use std::sync::Arc;

use firth_model::ids::{Lsn, Position};
use firth_model::time::Millis;

use crate::group::{GroupHeader, GroupKind};
use crate::options::Options;
use crate::simdisk::Dice;

/// So small that a few entries fill it.
pub const EXTENT: u32 = 64 << 10;

pub fn options(seed: u64) -> Options {
    let mut dice = Dice(seed);
    Options {
        extent_bytes: Some(EXTENT),
        clock: Arc::new(|| Millis(5)),
        cluster_id: [7; 16],
        reserve_extents: 1,
        random: Box::new(move || dice.sixteen()),
    }
}

/// A header to build groups with.
pub fn sample_header() -> GroupHeader {
    GroupHeader {
        kind: GroupKind::Data,
        cluster: [1; 16],
        incarnation: [2; 16],
        rows: 0,
        number: 1,
        epoch: 1,
        writer: [3; 16],
        first_lsn: Lsn(1),
        entries: 0,
        contents_bytes: 0,
        body_bytes: 0,
        previous: [0; 16],
        durable: Position(0),
        append_ms: Millis(0),
        body_checksum: [0; 16],
        after: [0; 16],
    }
}
