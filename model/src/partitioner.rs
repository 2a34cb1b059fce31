//! The partition of a keyed record.

use crate::ids::PartitionIndex;

/// The partition that Apache Kafka's Java client chooses for the key: murmur2 of it, without its sign, modulo the partitions.
/// Panics if `partitions` is 0.
pub fn partition_of_key(key: &[u8], partitions: u32) -> PartitionIndex {
    PartitionIndex((murmur2(key) & 0x7fff_ffff) % partitions)
}

/// Austin Appleby's MurmurHash2 for 32 bits, with the seed of Apache Kafka.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = words.iter().fold(SEED ^ length, |hash, word| {
        let mut part = u32::from_le_bytes(*word).wrapping_mul(M);
        part ^= part >> R;
        hash.wrapping_mul(M) ^ part.wrapping_mul(M)
    });
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Apache Kafka's own test of its hash expects.
    #[test]
    fn hashes_as_apache_kafka_does() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
        assert_eq!(partition_of_key(b"foobar", 1), PartitionIndex(0));
    }
}
