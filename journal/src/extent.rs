//! The first block of an extent.
//!
//! ```text
//!  0  magic        8   "FIRTHEX1"
//!  8  version      u32 1
//! 12  extent bytes u32
//! 16  cluster     16
//! 32  incarnation 16   random; every group of this life of the file repeats it
//! 48  number       u64
//! 56  shard        u32
//! 60  reserved     u32
//! 64  checksum    16   XXH3-128 of the bytes above
//! ```
//! The rest of the block is zero. Groups begin behind it.

use firth_model::ids::{ExtentNumber, Position};

/// Groups begin at multiples of this.
pub const BLOCK_BYTES: u32 = 4096;
const MAGIC: &[u8; 8] = b"FIRTHEX1";
const VERSION: u32 = 1;
const FIELDS_BYTES: usize = 64;

pub fn checksum(bytes: &[u8]) -> [u8; 16] {
    twox_hash::XxHash3_128::oneshot(bytes).to_le_bytes()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentHeader {
    pub extent_bytes: u32,
    pub cluster: [u8; 16],
    pub incarnation: [u8; 16],
    pub number: ExtentNumber,
}

impl ExtentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_BYTES as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.extent_bytes.to_le_bytes());
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.incarnation);
        out.extend_from_slice(&self.number.0.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out.resize(BLOCK_BYTES as usize, 0);
        out
    }

    /// `None`: not an extent's header, or a damaged one.
    pub fn decode(block: &[u8]) -> Option<ExtentHeader> {
        let fields = block.get(..FIELDS_BYTES)?;
        let sum = block.get(FIELDS_BYTES..FIELDS_BYTES + 16)?;
        if checksum(fields) != sum || &fields[..8] != MAGIC || fields[8..12] != VERSION.to_le_bytes() {
            return None;
        }
        Some(ExtentHeader {
            extent_bytes: u32::from_le_bytes(fields[12..16].try_into().ok()?),
            cluster: fields[16..32].try_into().ok()?,
            incarnation: fields[32..48].try_into().ok()?,
            number: ExtentNumber(u64::from_le_bytes(fields[48..56].try_into().ok()?)),
        })
    }

    /// Position of a byte of this extent.
    pub fn position(&self, at: u32) -> Position {
        Position(self.number.0 * u64::from(self.extent_bytes) + u64::from(at))
    }
}

/// The next multiple of the block size.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES as usize)
}
