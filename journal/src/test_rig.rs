//! What the tests of whole journals open them with.

use std::sync::Arc;

use firth_model::time::Millis;

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
