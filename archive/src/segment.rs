//! The bytes of one segment: blocks of batches, and a directory of them.
//!
//! ```text
//! magic      8  "FIRTHSG1"
//! then blocks, sorted by partition and offset, each
//!   head    64  magic u32 "FBLK", partition u32, base offset u64, end offset u64, largest time i64, newest append time i64,
//!               body bytes u32, batches u32, XXH3-128 of the 48 bytes before, the sums and the body
//!   sums     8n XXH3-64 of each 16 KiB of the body: what of a damaged block is whole
//!   body        whole record batches as they are served
//! footer
//!   rows    56  each: position of the block u64, then the first 48 bytes of its head
//!   aborted  0  aborted transactions, none yet
//!   trailer 48  rows u32, aborted u32, position of the footer u64, reserved 8, XXH3-128 of the footer up to here, "FIRTHSE1"
//! ```
//! Integers are little endian. Persisted: a change needs another magic and both readers. A row for each block of about 256 KiB is the
//! sparse index of offsets and times. The heads repeat the footer: if that is damaged, it is made again from them.

use bytes::Bytes;

use firth_model::batch::{Batch, BatchHeader, HEADER_BYTES as BATCH_HEADER_BYTES};
use firth_model::ids::{Offset, PartitionId};
use firth_model::time::Millis;

use crate::part::checksum;

pub const MAGIC: &[u8; 8] = b"FIRTHSG1";
const BLOCK_MAGIC: &[u8; 4] = b"FBLK";
const END_MAGIC: &[u8; 8] = b"FIRTHSE1";
/// A block is finished at this size: large enough to read at a disk's rate, small enough to verify for one batch.
pub const BLOCK_BYTES: usize = 256 << 10;
pub const HEAD_BYTES: usize = 64;
/// What one bit of damage costs at most, beside the batch that it is in.
const PIECE_BYTES: usize = 16 << 10;
const SUM_BYTES: usize = 8;
const FIELDS_BYTES: usize = 48;
const ROW_BYTES: usize = 8 + FIELDS_BYTES;
pub const TRAILER_BYTES: usize = 48;

/// Why a segment, or a part of it, cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub struct SegmentDamage {
    pub at: u64,
    pub what: &'static str,
}

/// One block of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Of its head, in the segment.
    pub position: u64,
    pub partition: PartitionId,
    pub base: Offset,
    pub end: Offset,
    pub max_timestamp: i64,
    pub appended: Millis,
    pub body_bytes: u32,
    pub batches: u32,
}

impl Block {
    /// Bytes of head, sums and body.
    pub fn bytes(&self) -> usize {
        self.body_at() + self.body_bytes as usize
    }

    fn body_at(&self) -> usize {
        HEAD_BYTES + (self.body_bytes as usize).div_ceil(PIECE_BYTES) * SUM_BYTES
    }

    fn fields(&self) -> [u8; FIELDS_BYTES] {
        let mut out = [0; FIELDS_BYTES];
        out[..4].copy_from_slice(BLOCK_MAGIC);
        out[4..8].copy_from_slice(&self.partition.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.base.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.end.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.max_timestamp.to_le_bytes());
        out[32..40].copy_from_slice(&self.appended.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[44..].copy_from_slice(&self.batches.to_le_bytes());
        out
    }

    fn of_fields(position: u64, fields: &[u8; FIELDS_BYTES]) -> Option<Block> {
        fields.starts_with(BLOCK_MAGIC).then_some(())?;
        Some(Block {
            position,
            partition: PartitionId(u32_at(fields, 4)?),
            base: Offset(u64_at(fields, 8)?),
            end: Offset(u64_at(fields, 16)?),
            max_timestamp: u64_at(fields, 24)?.cast_signed(),
            appended: Millis(u64_at(fields, 32)?.cast_signed()),
            body_bytes: u32_at(fields, 40)?,
            batches: u32_at(fields, 44)?,
        })
    }

    /// The body in the block's bytes, verified.
    pub fn open(&self, bytes: &Bytes) -> Result<Bytes, SegmentDamage> {
        let damage = |what| SegmentDamage { at: self.position, what };
        let whole = bytes.get(..self.bytes()).ok_or(damage("a block ends early"))?;
        if whole[..FIELDS_BYTES] != self.fields() {
            return Err(damage("a block's head does not match the directory"));
        }
        let body = bytes.slice(self.body_at()..self.bytes());
        let holds = |sums: &[u8]| block_checksum(&whole[..FIELDS_BYTES], sums, &body)[..] == whole[FIELDS_BYTES..HEAD_BYTES];
        // Damage to the sums alone harms no record.
        if holds(&whole[HEAD_BYTES..self.body_at()]) || holds(&sums_of(&body)) {
            return Ok(body);
        }
        Err(damage("a block's checksum does not match"))
    }

    /// As `open`, and whether every byte of the block is as it was written.
    pub fn check(&self, bytes: &Bytes) -> Result<(), SegmentDamage> {
        let body = self.open(bytes)?;
        if bytes[HEAD_BYTES..self.body_at()] == sums_of(&body) {
            return Ok(());
        }
        Err(SegmentDamage { at: self.position, what: "a block's sums do not match its records, which are whole" })
    }

    /// The batches of a damaged block that are certainly whole, in order. `bytes` may end early.
    pub fn salvage(&self, bytes: &Bytes) -> Vec<Bytes> {
        let body_at = self.body_at().min(bytes.len());
        let body = bytes.slice(body_at..bytes.len().min(self.bytes()));
        let sums = bytes.get(HEAD_BYTES..body_at).unwrap_or_default().chunks_exact(SUM_BYTES);
        let full = |piece: &[u8], at: usize| piece.len() == PIECE_BYTES.min(self.body_bytes as usize - at * PIECE_BYTES);
        let pieces = body.chunks(PIECE_BYTES).zip(sums).enumerate();
        let good: Vec<bool> = pieces.map(|(at, (piece, sum))| full(piece, at) && piece_sum(piece)[..] == *sum).collect();
        let is_good = |from: usize, to: usize| (from / PIECE_BYTES..to.div_ceil(PIECE_BYTES)).all(|at| good.get(at) == Some(&true));
        let (mut found, mut at) = (Vec::new(), 0);
        // Whether a batch begins at `at` for certain, because the one before ended there.
        let mut sure = true;
        while at + BATCH_HEADER_BYTES <= body.len() {
            let header = BatchHeader::parse(&body[at..]).ok().filter(|_| is_good(at, at + BATCH_HEADER_BYTES));
            let end = header.and_then(|header| at.checked_add(header.batch_bytes as usize)).filter(|end| *end <= body.len());
            let whole = end.filter(|end| is_good(at, *end) && (sure || Batch::check(body.slice(at..*end)).is_ok()));
            match (whole, end) {
                (Some(end), _) => {
                    found.push(body.slice(at..end));
                    (at, sure) = (end, true);
                }
                // Its header is whole, so it says where the next one begins.
                (None, Some(end)) if sure => at = end,
                _ => (at, sure) = (at + 1, false),
            }
        }
        found
    }
}

fn block_checksum(fields: &[u8], sums: &[u8], body: &[u8]) -> [u8; 16] {
    let mut sum = twox_hash::XxHash3_128::default();
    sum.write(fields);
    sum.write(sums);
    sum.write(body);
    sum.finish_128().to_le_bytes()
}

fn sums_of(body: &[u8]) -> Vec<u8> {
    body.chunks(PIECE_BYTES).flat_map(piece_sum).collect()
}

fn piece_sum(piece: &[u8]) -> [u8; SUM_BYTES] {
    twox_hash::XxHash3_64::oneshot(piece).to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// All blocks of a segment, sorted by partition and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    blocks: Vec<Block>,
    /// Places among the blocks where some are missing: only in a directory that was made again from a damaged segment.
    holes: Vec<usize>,
}

impl Directory {
    /// Of one partition, in the order of offsets.
    pub fn of(&self, partition: PartitionId) -> &[Block] {
        let (from, to) = self.bounds(partition);
        &self.blocks[from..to]
    }

    fn bounds(&self, partition: PartitionId) -> (usize, usize) {
        let from = self.blocks.partition_point(|block| block.partition < partition);
        let to = self.blocks.partition_point(|block| block.partition <= partition);
        (from, to)
    }

    /// Whether a block of the partition may be missing before the one at `index` of its blocks, or behind the last if that is their count.
    pub fn lacks(&self, partition: PartitionId, index: usize) -> bool {
        let (from, _) = self.bounds(partition);
        self.holes.contains(&(from + index))
    }

    pub fn all(&self) -> &[Block] {
        &self.blocks
    }

    /// Reads the last `TRAILER_BYTES` of a segment of `total` bytes: where the footer begins.
    pub fn footer_at(trailer: &[u8], total: u64) -> Result<u64, SegmentDamage> {
        let damage = SegmentDamage { at: total.saturating_sub(TRAILER_BYTES as u64), what: "the segment's end cannot be read" };
        let rows = u32_at(trailer, 0).ok_or(damage)?;
        let position = u64_at(trailer, 8).ok_or(damage)?;
        let footer_bytes = u64::from(rows) * ROW_BYTES as u64 + TRAILER_BYTES as u64;
        let whole = trailer.ends_with(END_MAGIC) && position.checked_add(footer_bytes) == Some(total);
        if whole { Ok(position) } else { Err(damage) }
    }

    /// Reads a footer, trailer included, that begins at `position`.
    pub fn decode(footer: &[u8], position: u64) -> Result<Directory, SegmentDamage> {
        let damage = |what| SegmentDamage { at: position, what };
        let sum_at = footer.len().checked_sub(24).ok_or(damage("the footer ends early"))?;
        if checksum(&footer[..sum_at])[..] != footer[sum_at..sum_at + 16] {
            return Err(damage("the footer's checksum does not match"));
        }
        let rows = &footer[..footer.len().checked_sub(TRAILER_BYTES).ok_or(damage("the footer ends early"))?];
        let mut blocks = Vec::new();
        for row in rows.chunks_exact(ROW_BYTES) {
            let at = u64_at(row, 0).ok_or(damage("a row ends early"))?;
            let fields = row[8..].first_chunk().ok_or(damage("a row ends early"))?;
            blocks.push(Block::of_fields(at, fields).ok_or(damage("a row is no block's"))?);
        }
        Ok(Directory { blocks, holes: Vec::new() })
    }

    /// Makes the directory again from the blocks of a whole segment. Blocks that do not hold what their heads say are left out, and the
    /// places where they were are remembered.
    pub fn from_blocks(segment: &Bytes) -> Directory {
        let (mut blocks, mut holes) = (Vec::new(), Vec::new());
        let (mut at, mut expected) = (MAGIC.len(), MAGIC.len());
        while let Some(found) = segment.get(at..).and_then(|rest| rest.windows(4).position(|four| four == BLOCK_MAGIC)) {
            at += found;
            let block = segment[at..].first_chunk().and_then(|fields| Block::of_fields(at as u64, fields));
            let Some(block) = block.filter(|block| block.open(&segment.slice(at..)).is_ok()) else {
                at += 1;
                continue;
            };
            if at != expected {
                holes.push(blocks.len());
            }
            at += block.bytes();
            expected = at;
            blocks.push(block);
        }
        // What follows the last block must be its footer, and no more.
        if segment.len().checked_sub(expected) != Some(blocks.len() * ROW_BYTES + TRAILER_BYTES) {
            holes.push(blocks.len());
        }
        Directory { blocks, holes }
    }
}

/// Builds a segment in memory. Batches come sorted by partition and offset.
pub struct Writer {
    out: Vec<u8>,
    blocks: Vec<Block>,
    open: Option<Block>,
}

impl Writer {
    pub fn begin() -> Writer {
        Writer { out: MAGIC.to_vec(), blocks: Vec::new(), open: None }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.len() == MAGIC.len()
    }

    /// Adds one whole batch that takes the offsets from `base` to before `end`.
    pub fn push(&mut self, partition: PartitionId, batch: &[u8], base: Offset, end: Offset, max_timestamp: i64, appended: Millis) {
        let full = |block: &Block| block.partition != partition || block.body_bytes as usize >= BLOCK_BYTES;
        if self.open.as_ref().is_some_and(full) {
            self.end_block();
        }
        let position = self.out.len() as u64;
        if self.open.is_none() {
            self.out.extend_from_slice(&[0; HEAD_BYTES]);
        }
        let empty = Block { position, partition, base, end, max_timestamp, appended, body_bytes: 0, batches: 0 };
        let block = self.open.get_or_insert(empty);
        block.end = end;
        block.max_timestamp = block.max_timestamp.max(max_timestamp);
        block.appended = block.appended.max(appended);
        block.body_bytes += u32::try_from(batch.len()).expect("a batch fits an extent");
        block.batches += 1;
        self.out.extend_from_slice(batch);
    }

    fn end_block(&mut self) {
        let Some(block) = self.open.take() else { return };
        let at = usize::try_from(block.position).expect("built in memory");
        let fields = block.fields();
        let body_at = at + HEAD_BYTES;
        let sums = sums_of(&self.out[body_at..]);
        let sum = block_checksum(&fields, &sums, &self.out[body_at..]);
        self.out[at..at + FIELDS_BYTES].copy_from_slice(&fields);
        self.out[at + FIELDS_BYTES..at + HEAD_BYTES].copy_from_slice(&sum);
        self.out.splice(body_at..body_at, sums);
        self.blocks.push(block);
    }

    /// The whole segment, and its blocks.
    pub fn finish(mut self) -> (Vec<u8>, Vec<Block>) {
        self.end_block();
        let position = self.out.len();
        for block in &self.blocks {
            self.out.extend_from_slice(&block.position.to_le_bytes());
            self.out.extend_from_slice(&block.fields());
        }
        let rows = u32::try_from(self.blocks.len()).expect("built in memory");
        self.out.extend_from_slice(&rows.to_le_bytes());
        self.out.extend_from_slice(&0u32.to_le_bytes());
        self.out.extend_from_slice(&(position as u64).to_le_bytes());
        self.out.extend_from_slice(&[0; 8]);
        let sum = checksum(&self.out[position..]);
        self.out.extend_from_slice(&sum);
        self.out.extend_from_slice(END_MAGIC);
        (self.out, self.blocks)
    }
}

/// For fuzzing: reads bytes as a whole segment. Must not panic, nor take memory beyond a small multiple of the input.
#[doc(hidden)]
pub fn fuzz_decode(bytes: &[u8]) {
    let total = bytes.len() as u64;
    let trailer = &bytes[bytes.len().saturating_sub(TRAILER_BYTES)..];
    if let Ok(position) = Directory::footer_at(trailer, total) {
        let footer = usize::try_from(position).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let _ = Directory::decode(footer, position);
    }
    let whole = Bytes::copy_from_slice(bytes);
    for block in Directory::from_blocks(&whole).all() {
        let _ = block.open(&whole.slice(usize::try_from(block.position).unwrap_or(0)..));
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
