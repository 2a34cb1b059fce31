//! Chance for tests, from a seed.

use bytes::Bytes;

/// SplitMix64: the same seed gives the same values on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn with_seed(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub fn text(&mut self) -> String {
        (0..self.below(12)).map(|_| if self.below(8) == 0 { 'ö' } else { 'a' }).collect()
    }

    /// Few bytes, or now and then so many that they are not copied.
    pub fn bytes(&mut self) -> Bytes {
        let length = if self.below(4) == 0 { 5000 } else { self.below(20) };
        (0..length).map(|_| self.roll() as u8).collect()
    }
}
