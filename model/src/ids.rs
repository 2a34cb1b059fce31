//! Numbers and identifiers that are stored or sent.

use std::fmt;

use crate::time::Millis;

/// Identifier of a stream, new on every creation: a stream that is made again under an old name gets another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub uuid::Uuid);

/// Number of a partition in the whole node; given once, never reused. Not the index inside its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

/// Index of a partition inside its stream, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub u32);

/// Position of a record in its partition: 0, 1, 2, … never reused. At most `i64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `count` records later. Saturates at the largest offset a client can name.
    pub fn plus(self, count: u64) -> Offset {
        Offset(self.0.saturating_add(count).min(i64::MAX as u64))
    }

    /// The offset as clients write it.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The offset a client wrote, if it is one (not negative).
    pub fn from_i64(value: i64) -> Option<Offset> {
        u64::try_from(value).ok().map(Offset)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Term of a partition's owner: raised when ownership moves to another node, not at a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

/// Identifier of an idempotent producer, given out by the node from durable blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

/// Term of one producer id; a higher one fences the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

/// Number of an entry in the journal: 1, 2, 3, … in the order of effects. 0 means "before every entry".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// Byte position in the journal: the extent's number times the extent size, plus the offset inside the extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Number of a journal extent: 0, 1, 2, … never reused; a recycled file gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentNumber(pub u64);

/// Name of an archive segment, never reused. The upper 48 bits are the milliseconds since 1970 when it was made, the rest is chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u128);

impl SegmentId {
    pub fn made(at: Millis, chance: u128) -> SegmentId {
        let ms = u128::try_from(at.0).unwrap_or(0) & ((1 << 48) - 1);
        SegmentId(ms << 80 | chance >> 48)
    }

    pub fn made_at(self) -> Millis {
        Millis(i64::try_from(self.0 >> 80).unwrap_or(i64::MAX))
    }
}
