//! The stored unit: Kafka RecordBatch v2, byte for byte.
//!
//! ```text
//!  0  baseOffset            i64   patched by the owner
//!  8  batchLength           i32   bytes after this field
//! 12  partitionLeaderEpoch  i32   patched by the owner
//! 16  magic                 i8    2
//! 17  crc                   u32   crc32c of everything from `attributes` on
//! 21  attributes            i16   bits 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//! 23  lastOffsetDelta       i32
//! 27  baseTimestamp         i64
//! 35  maxTimestamp          i64
//! 43  producerId            i64
//! 51  producerEpoch         i16
//! 53  baseSequence          i32
//! 57  recordCount           i32
//! 61  records
//! ```
//! Source: Apache Kafka, "Record Batch" in the implementation chapter of its documentation. All integers big endian.

use bytes::Bytes;

use crate::ids::{LeaderEpoch, Offset};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes at the start of a batch that the owner of the partition writes: base offset, length, leader epoch.
pub const PREFIX_BYTES: usize = 16;
/// First byte under the checksum.
const CRC_FROM: usize = 21;

/// `attributes` bit: the time of every record is the batch's largest timestamp, given by the log.
pub const LOG_APPEND_TIME: i16 = 1 << 3;
/// `attributes` bit: belongs to a transaction.
pub const TRANSACTIONAL: i16 = 1 << 4;
/// `attributes` bit: a marker, not data.
pub const CONTROL: i16 = 1 << 5;

/// `attributes` bit: the base timestamp is the moment from which on the batch's tombstones may go (KIP-534).
pub const DELETE_HORIZON: i16 = 1 << 6;

/// The fixed fields of a batch, as its producer wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    pub batch_bytes: u32,
    pub leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header's length says.
    Short,
    /// Only format 2 is stored; 0 and 1 are the message sets of clients before 2017.
    Magic(i8),
    /// The checksum does not match.
    Checksum,
    /// A field contradicts another.
    Malformed(&'static str),
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; does not verify the checksum. `batch_bytes` counts the whole batch.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() <= PREFIX_BYTES {
            return Err(BatchError::Short);
        }
        let magic = bytes[16] as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let Some(fixed) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Short);
        };
        let length = i32_at(fixed, 8);
        let total = i64::from(length) + 12;
        if total < HEADER_BYTES as i64 {
            return Err(BatchError::Malformed("batch length below the header's size"));
        }
        Ok(BatchHeader {
            base_offset: i64_at(fixed, 0),
            batch_bytes: u32::try_from(total).map_err(|_| BatchError::Malformed("batch length"))?,
            leader_epoch: i32_at(fixed, 12),
            magic,
            crc: u32::from_be_bytes([fixed[17], fixed[18], fixed[19], fixed[20]]),
            attributes: i16::from_be_bytes([fixed[21], fixed[22]]),
            last_offset_delta: i32_at(fixed, 23),
            base_timestamp: i64_at(fixed, 27),
            max_timestamp: i64_at(fixed, 35),
            producer_id: i64_at(fixed, 43),
            producer_epoch: i16::from_be_bytes([fixed[51], fixed[52]]),
            base_sequence: i32_at(fixed, 53),
            record_count: i32_at(fixed, 57),
        })
    }

    /// Number of offsets the batch takes: `last_offset_delta + 1`.
    pub fn offset_count(&self) -> u64 {
        u64::try_from(i64::from(self.last_offset_delta) + 1).unwrap_or(0)
    }
}

/// One whole batch whose checksum and structure were verified by whoever made it. The first 16 bytes are its
/// producer's; readers and the journal put `prefix` in their place.
#[derive(Clone, Debug)]
pub struct Batch {
    pub header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes the batch at the start of `bytes`, which must be exactly one batch, and verifies its checksum.
    /// The records behind the header are not walked.
    pub fn check(bytes: Bytes) -> Result<Batch, BatchError> {
        let batch = Batch::trust(bytes)?;
        if crc32c::crc32c(&batch.bytes[CRC_FROM..]) != batch.header.crc {
            return Err(BatchError::Checksum);
        }
        Ok(batch)
    }

    /// As `check`, without the checksum: for bytes that came from a place which verified it.
    pub fn trust(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.batch_bytes as usize != bytes.len() {
            return Err(BatchError::Short);
        }
        Ok(Batch { header, bytes })
    }

    /// The whole batch as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What follows the 16 bytes of the prefix.
    pub fn tail(&self) -> Bytes {
        self.bytes.slice(PREFIX_BYTES..)
    }
}

/// The first 16 bytes of a batch as its owner writes them. `batch_bytes` counts the whole batch.
pub fn prefix(base_offset: Offset, batch_bytes: u32, epoch: LeaderEpoch) -> [u8; PREFIX_BYTES] {
    let mut out = [0; PREFIX_BYTES];
    out[..8].copy_from_slice(&base_offset.as_i64().to_be_bytes());
    out[8..12].copy_from_slice(&(batch_bytes - 12).to_be_bytes());
    out[12..].copy_from_slice(&epoch.0.to_be_bytes());
    out
}

/// Gives a batch the log's own time: sets the attribute bit and the largest timestamp, and the checksum anew.
pub fn stamp_append_time(batch: &[u8], now_ms: i64) -> Bytes {
    let mut out = batch.to_vec();
    let attributes = i16::from_be_bytes([out[21], out[22]]) | LOG_APPEND_TIME;
    out[21..23].copy_from_slice(&attributes.to_be_bytes());
    out[35..43].copy_from_slice(&now_ms.to_be_bytes());
    seal(&mut out);
    Bytes::from(out)
}

/// Writes the checksum over everything from `attributes` on. `batch` is a whole batch.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn i32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> i64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + 5];
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        bytes[57..61].copy_from_slice(&1i32.to_be_bytes());
        seal(&mut bytes);
        bytes
    }

    #[test]
    fn checksum_covers_all_but_the_prefix() {
        let bytes = sample();
        assert!(Batch::check(Bytes::from(bytes.clone())).is_ok());
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            let outcome = Batch::check(Bytes::from(broken));
            let owned_by_the_log = at < 8 || (12..16).contains(&at);
            assert_eq!(outcome.is_ok(), owned_by_the_log, "byte {at}");
        }
    }

    #[test]
    fn prefix_is_what_parse_reads() {
        let mut bytes = sample();
        let total = bytes.len() as u32;
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix(Offset(77), total, LeaderEpoch(3)));
        let header = BatchHeader::parse(&bytes).expect("a whole batch");
        assert_eq!((header.base_offset, header.leader_epoch, header.batch_bytes), (77, 3, total));
    }

    #[test]
    fn append_time_keeps_the_batch_valid() {
        let stamped = stamp_append_time(&sample(), 42);
        let batch = Batch::check(stamped).expect("checksum made anew");
        assert_eq!(batch.header.max_timestamp, 42);
        assert_eq!(batch.header.attributes & LOG_APPEND_TIME, LOG_APPEND_TIME);
    }
}
