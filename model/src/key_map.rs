//! The latest offset of each key, in bounded memory.

use twox_hash::XxHash3_128;

/// Two halves of a key's hash, and its offset plus one; 0 is an empty place.
type Place = [u64; 3];

/// Bytes that one place takes.
const PLACE_BYTES: usize = std::mem::size_of::<Place>();

/// Keys are known by 128 bits of their hash: that two keys of a partition share them is as likely as a bit that tips unseen.
#[derive(Debug)]
pub struct KeyMap {
    places: Vec<Place>,
    taken: usize,
    taken_max: usize,
    seed: u64,
}

impl KeyMap {
    /// A map for at most `keys_max` keys that takes at most `bytes_max` bytes, and takes them at once. Whoever chooses keys should
    /// not know `seed`.
    pub fn bounded(bytes_max: usize, keys_max: u64, seed: u64) -> KeyMap {
        let fitting = bytes_max / PLACE_BYTES;
        // A third more places than keys keeps searches short.
        let wanted = usize::try_from(keys_max.saturating_add(keys_max / 3).saturating_add(1)).unwrap_or(usize::MAX);
        let count = wanted.min(fitting);
        KeyMap { places: vec![[0; 3]; count], taken: 0, taken_max: count - count.div_ceil(4), seed }
    }

    /// Notes that `key` has a record at `offset`; an older one changes nothing. False if a new key has no room: everything noted
    /// before stays.
    pub fn note(&mut self, key: &[u8], offset: u64) -> bool {
        let (first, second) = self.hash(key);
        let Some(at) = self.find(first, second) else { return false };
        let place = &mut self.places[at];
        if place[2] != 0 {
            place[2] = place[2].max(offset.saturating_add(1));
            return true;
        }
        if self.taken == self.taken_max {
            return false;
        }
        *place = [first, second, offset.saturating_add(1)];
        self.taken += 1;
        true
    }

    /// The highest offset noted for `key`.
    pub fn latest(&self, key: &[u8]) -> Option<u64> {
        let (first, second) = self.hash(key);
        self.places[self.find(first, second)?][2].checked_sub(1)
    }

    /// Keys noted.
    pub fn len(&self) -> usize {
        self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        self.places.len() * PLACE_BYTES
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        let hash = XxHash3_128::oneshot_with_seed(self.seed, key);
        ((hash >> 64) as u64, hash as u64)
    }

    /// The key's place, or the empty one where it would go. `None` only of a map without places: others always keep some empty.
    fn find(&self, first: u64, second: u64) -> Option<usize> {
        let count = self.places.len();
        // The high part of the product spreads the hash over any count of places.
        let mut at = ((u128::from(first) * count as u128) >> 64) as usize;
        for _ in 0..count {
            let place = &self.places[at];
            if place[2] == 0 || (place[0], place[1]) == (first, second) {
                return Some(at);
            }
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_offset_wins() {
        let mut map = KeyMap::bounded(1 << 20, 100, 7);
        for (key, offset) in [("a", 0), ("b", 1), ("a", 5), ("a", 3)] {
            assert!(map.note(key.as_bytes(), offset));
        }
        assert_eq!((map.latest(b"a"), map.latest(b"b"), map.latest(b""), map.len()), (Some(5), Some(1), None, 2));
    }

    #[test]
    fn as_many_keys_as_promised_fit_and_bytes_bound_them() {
        for keys in [0u64, 1, 2, 3, 10, 1000] {
            let mut map = KeyMap::bounded(1 << 20, keys, keys);
            assert!((0..keys).all(|key| map.note(&key.to_be_bytes(), key)), "{keys}");
            assert!((0..keys).all(|key| map.latest(&key.to_be_bytes()) == Some(key)), "{keys}");
        }
        let mut map = KeyMap::bounded(2400, u64::MAX, 1);
        let fitting = (0u64..).take_while(|key| map.note(&key.to_be_bytes(), *key)).count();
        assert_eq!((fitting, map.len(), map.bytes()), (75, 75, 2400));
        assert!(map.note(&0u64.to_be_bytes(), 99), "a known key needs no room");
        assert_eq!(map.latest(&0u64.to_be_bytes()), Some(99));
        assert_eq!(map.latest(b"unknown"), None);
        assert!(!KeyMap::bounded(0, 10, 1).note(b"a", 0));
    }
}
