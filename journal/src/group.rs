//! The bytes of one group: header, table of contents, entries.
//!
//! ```text
//!   0  magic           8   "FIRTHGR1"
//!   8  version         u32 1
//!  12  kind            u8  0 data, 1 fence, 2 marker, 3 directory, 4 bridge
//!  13  reserved        u8
//!  14  window          u16 groups in flight at most; 1
//!  16  cluster        16
//!  32  incarnation    16   of the extent
//!  48  shard           u32
//!  52  rows            u32 of the table of contents
//!  56  number          u64 of the group, over all extents
//!  64  epoch           u64 of the writer
//!  72  writer         16   nonce of the writer
//!  88  first lsn       u64
//!  96  entries         u32
//! 100  contents bytes  u32 table of contents
//! 104  body bytes      u32 table of contents and entries
//! 108  reserved        u32
//! 112  previous       16   XXH3-128 of the header of the group before: the chain
//! 128  durable         u64 position up to which the writer knew everything to be durable
//! 136  append time     i64 milliseconds, never decreasing
//! 144  body checksum  16   XXH3-128
//! 160  after          16   of a bridge: what the next group's `previous` is; zeros: the digest of this header, as everywhere else
//! 176  header checksum 16  XXH3-128 of the bytes above
//! 192  table of contents, rows of 32, for each partition that has a batch: partition u32, offsets u32, base offset u64,
//!      largest time i64, at u32 (from the group's start), bytes u32 (of the whole entry)
//!      entries
//!      zeros up to a multiple of 4096
//! ```
//! Integers are little endian. Persisted.

use bytes::Bytes;

use firth_model::ids::{Lsn, Offset, PartitionId, Position};
use firth_model::time::Millis;

use crate::entry::{Entry, Row};
use crate::extent::{BLOCK_BYTES, checksum, padded};

pub const HEADER_BYTES: usize = 192;
pub const CONTENTS_ROW_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"FIRTHGR1";
const VERSION: u32 = 1;
const CHECKED_BYTES: usize = 176;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    Data,
    /// The first group of a writer.
    Fence,
    /// Nothing but the durable position.
    Marker,
    /// The rows of a finished extent, at its very end.
    Directory,
    /// What a repair put in the place of groups that were given up: the entries of them that were whole. It has the number of the last
    /// of them, and the chain goes on behind it.
    Bridge,
}

/// A batch in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub row: Row,
    /// Where its entry begins.
    pub position: Position,
    /// Of the whole entry, header included.
    pub bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub kind: GroupKind,
    pub cluster: [u8; 16],
    pub incarnation: [u8; 16],
    pub rows: u32,
    pub number: u64,
    pub epoch: u64,
    pub writer: [u8; 16],
    pub first_lsn: Lsn,
    pub entries: u32,
    pub contents_bytes: u32,
    pub body_bytes: u32,
    pub previous: [u8; 16],
    pub durable: Position,
    pub append_ms: Millis,
    pub body_checksum: [u8; 16],
    /// Zeros in every group but a bridge.
    pub after: [u8; 16],
}

impl GroupHeader {
    /// Bytes of the whole group on disk.
    pub fn group_bytes(&self) -> usize {
        padded(HEADER_BYTES + self.body_bytes as usize)
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, 0, 1, 0]);
        out.extend_from_slice(&self.cluster);
        out.extend_from_slice(&self.incarnation);
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.writer);
        out.extend_from_slice(&self.first_lsn.0.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.contents_bytes.to_le_bytes());
        out.extend_from_slice(&self.body_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        out.extend_from_slice(&self.append_ms.0.to_le_bytes());
        out.extend_from_slice(&self.body_checksum);
        out.extend_from_slice(&self.after);
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out.try_into().expect("the fields above are a header long")
    }

    /// `None`: no group begins here, or its header is damaged.
    pub fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        if &head[..8] != MAGIC || head[8..12] != VERSION.to_le_bytes() || checksum(&head[..CHECKED_BYTES]) != head[CHECKED_BYTES..] {
            return None;
        }
        let kind = match head[12] {
            0 => GroupKind::Data,
            1 => GroupKind::Fence,
            2 => GroupKind::Marker,
            3 => GroupKind::Directory,
            4 => GroupKind::Bridge,
            _ => return None,
        };
        Some(GroupHeader {
            kind,
            cluster: sixteen(head, 16),
            incarnation: sixteen(head, 32),
            rows: u32_at(head, 52),
            number: u64_at(head, 56),
            epoch: u64_at(head, 64),
            writer: sixteen(head, 72),
            first_lsn: Lsn(u64_at(head, 88)),
            entries: u32_at(head, 96),
            contents_bytes: u32_at(head, 100),
            body_bytes: u32_at(head, 104),
            previous: sixteen(head, 112),
            durable: Position(u64_at(head, 128)),
            append_ms: Millis(u64_at(head, 136).cast_signed()),
            body_checksum: sixteen(head, 144),
            after: sixteen(head, 160),
        })
    }

    /// What the next group's `previous` must be, but behind a bridge.
    pub fn digest(bytes: &[u8]) -> [u8; 16] {
        checksum(&bytes[..HEADER_BYTES.min(bytes.len())])
    }

    /// What the next group's `previous` must be, whatever this is. `bytes` begins with this header.
    pub fn leads_to(&self, bytes: &[u8]) -> [u8; 16] {
        if self.after == [0; 16] { GroupHeader::digest(bytes) } else { self.after }
    }

    /// Whether something of this incarnation was written here, be it damaged: its mark is there, or it is a header that broke.
    /// A whole header of another incarnation is an earlier life of the file.
    pub fn resembles(bytes: &[u8], incarnation: &[u8; 16]) -> bool {
        let broken = || bytes.get(..8) == Some(MAGIC) && GroupHeader::decode(bytes).is_none();
        bytes.get(32..48) == Some(incarnation) || broken()
    }
}

/// Verifies the body of a group whose header was read. `bytes` is at least header and body.
pub fn body_holds(header: &GroupHeader, bytes: &[u8]) -> bool {
    let end = HEADER_BYTES + header.body_bytes as usize;
    bytes.get(HEADER_BYTES..end).is_some_and(|body| checksum(body) == header.body_checksum)
        && header.contents_bytes as u64 == u64::from(header.rows) * CONTENTS_ROW_BYTES as u64
        && header.contents_bytes <= header.body_bytes
}

/// The table of contents of a group at `position`. `bytes` begins with the group's header.
pub fn contents(header: &GroupHeader, position: Position, bytes: &[u8]) -> Vec<Located> {
    let table = bytes.get(HEADER_BYTES..HEADER_BYTES + header.contents_bytes as usize).unwrap_or_default();
    let located = |row: &[u8]| Located {
        row: Row {
            partition: PartitionId(u32_at(row, 0)),
            records: u32_at(row, 4),
            base_offset: Offset(u64_at(row, 8)),
            max_timestamp: u64_at(row, 16).cast_signed(),
        },
        position: Position(position.0 + u64::from(u32_at(row, 24))),
        bytes: u32_at(row, 28),
    };
    table.chunks_exact(CONTENTS_ROW_BYTES).map(located).collect()
}

/// What a group is filled up with on disk.
static ZEROS: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// A group ready to be written.
#[derive(Clone, Debug)]
pub struct Built {
    pub position: Position,
    /// Without the zeros behind it: who keeps a small group in memory keeps no block for it.
    pub bytes: Bytes,
    pub batches: Vec<Located>,
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
}

impl Built {
    /// What is written: the group and the zeros that fill its last block.
    pub fn slices(&self) -> [&[u8]; 2] {
        [&self.bytes, &ZEROS[..self.room_bytes() - self.bytes.len()]]
    }

    /// Bytes that it takes on disk.
    pub fn room_bytes(&self) -> usize {
        padded(self.bytes.len())
    }

    /// Where what follows it begins.
    pub fn end(&self) -> Position {
        Position(self.position.0 + self.room_bytes() as u64)
    }
}

/// Bytes that a group of these entries takes on disk.
pub fn group_bytes(entry_bytes: usize, rows: usize) -> usize {
    padded(HEADER_BYTES + rows * CONTENTS_ROW_BYTES + entry_bytes)
}

/// Builds a group. The one copy of every payload is made here; the buffer is what is written, cached and served.
/// `header` comes with everything but the counts, lengths and checksums.
pub fn build(mut header: GroupHeader, position: Position, entries: &[Entry]) -> Built {
    let entry_bytes: usize = entries.iter().map(Entry::bytes).sum();
    let rows = entries.iter().map(Entry::row_count).sum();
    let body_from = HEADER_BYTES + rows * CONTENTS_ROW_BYTES;
    let mut out = Vec::with_capacity(body_from + entry_bytes);
    out.resize(HEADER_BYTES, 0);
    let mut at = body_from;
    let mut batches = Vec::with_capacity(rows);
    for entry in entries {
        let (from_start, bytes) = (narrow(at), narrow(entry.bytes()));
        for row in entry.rows() {
            write_row(&mut out, row, from_start, bytes);
            batches.push(Located { row, position: Position(position.0 + u64::from(from_start)), bytes });
        }
        at += entry.bytes();
    }
    for entry in entries {
        entry.write(&mut out);
    }
    let first_lsn = header.first_lsn;
    let last_lsn = Lsn((first_lsn.0 + entries.len() as u64).saturating_sub(1));
    header.rows = narrow(rows);
    header.contents_bytes = narrow(rows * CONTENTS_ROW_BYTES);
    header.entries = narrow(entries.len());
    seal(header, position, out, batches, first_lsn, last_lsn)
}

/// One row of a table of contents; `at` from the group's start.
pub(crate) fn write_row(out: &mut Vec<u8>, row: Row, at: u32, bytes: u32) {
    out.extend_from_slice(&row.partition.0.to_le_bytes());
    out.extend_from_slice(&row.records.to_le_bytes());
    out.extend_from_slice(&row.base_offset.0.to_le_bytes());
    out.extend_from_slice(&row.max_timestamp.to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
}

/// Builds a group of another kind than data from its body.
pub fn build_plain(mut header: GroupHeader, position: Position, body: &[u8]) -> Built {
    let mut out = vec![0; HEADER_BYTES];
    out.extend_from_slice(body);
    header.rows = 0;
    header.contents_bytes = 0;
    header.entries = 0;
    let before = Lsn(header.first_lsn.0.saturating_sub(1));
    seal(header, position, out, Vec::new(), header.first_lsn, before)
}

fn seal(mut header: GroupHeader, position: Position, mut out: Vec<u8>, batches: Vec<Located>, first_lsn: Lsn, last_lsn: Lsn) -> Built {
    header.body_bytes = narrow(out.len() - HEADER_BYTES);
    header.body_checksum = checksum(&out[HEADER_BYTES..]);
    out[..HEADER_BYTES].copy_from_slice(&header.encode());
    Built { position, bytes: Bytes::from(out), batches, first_lsn, last_lsn }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a group fits an extent")
}

fn sixteen(bytes: &[u8], at: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[at..at + 16]);
    out
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::test_rig::sample_header;

    #[test]
    fn a_small_group_keeps_no_block_in_memory_and_fills_one_on_disk() {
        for body in [0, 1, 4_096 - HEADER_BYTES, 4_097 - HEADER_BYTES, 10_000] {
            let built = build_plain(sample_header(), Position(4_096), &vec![9; body]);
            assert_eq!(built.bytes.len(), HEADER_BYTES + body);
            let written = built.slices().concat();
            assert_eq!(written.len(), GroupHeader::decode(&written).expect("a header").group_bytes());
            assert_eq!(built.end(), Position(4_096 + written.len() as u64));
            assert!(written[built.bytes.len()..].iter().all(|byte| *byte == 0));
        }
    }
}
