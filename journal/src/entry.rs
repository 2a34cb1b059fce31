//! One entry of the journal: its header, and the layouts of all kinds.
//!
//! ```text
//! kind     u16   below
//! version  u8    of the kind's layout
//! flags    u8    bit 0: a reader that does not know the kind must refuse to start
//! length   u32   bytes of the body
//! checksum u32   crc32c of the eight bytes above and of the body
//! body
//! ```
//! Integers are little endian, but for what is inside a record batch. Persisted: kinds are never reused.
//! Kinds from 0x1000 on are reserved, 0x100 for each protocol.

use bytes::Bytes;

use firth_model::batch::PREFIX_BYTES;
use firth_model::ids::{Lsn, Offset, PartitionId};

pub const ENTRY_HEADER_BYTES: usize = 12;
const REQUIRED: u8 = 1;
/// Version of every layout on this page.
const LAYOUT: u8 = 1;
/// Largest head that needs no allocation: a batch's without targets.
const HEAD_INLINE: usize = 32;
/// What each row takes, in the table of contents of a group and in the directory of the extent.
const ROW_ROOM_BYTES: usize = 32 + 36;
/// Targets of one entry at most, so that the rows that name them fit beside the largest entry into the smallest extent.
pub const TARGETS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum EntryKind {
    /// A record batch: see [`Entry::batch`].
    Batch = 1,
    /// A record batch that lies in an object elsewhere: key, position u64, length u32, checksum 16, partition u32, base offset u64.
    ExternalBatch = 2,
    /// Partition u32, log start u64.
    PartitionTrim = 3,
    /// Segments that take the place of others or of journal.
    SegmentsReplaced = 4,
    /// Lsn u64.
    CheckpointTaken = 5,
    /// Key length u32, key, value.
    StatePut = 6,
    /// Key.
    StateDelete = 7,
    /// Key length u32, key, delta of the key's own kind.
    StateDelta = 8,
    /// Work that is settled.
    QueueAck = 9,
    /// Work that moves to another queue.
    QueueMove = 10,
    /// A transaction's end in one shard: all markers and positions.
    TxnDecision = 11,
    /// A transaction's end as told by another shard.
    TxnMarker = 12,
    /// Ownership goes to another node.
    Handoff = 13,
    /// A setting that all readers must agree on.
    Config = 14,
    /// A list of targets that later batches refer to.
    TargetSet = 15,
    /// Records that are gone for readers though their bytes are still there.
    RecordsRemoved = 16,
    /// An entry that a repair gave up. Empty, or what is known of the batch it was, for each partition that had it: partition u32,
    /// base offset u64, offsets u32.
    GivenUp = 17,
}

impl EntryKind {
    pub fn find(number: u16) -> Option<EntryKind> {
        use EntryKind::*;
        let all = [
            Batch,
            ExternalBatch,
            PartitionTrim,
            SegmentsReplaced,
            CheckpointTaken,
            StatePut,
            StateDelete,
            StateDelta,
            QueueAck,
            QueueMove,
            TxnDecision,
            TxnMarker,
            Handoff,
            Config,
            TargetSet,
            RecordsRemoved,
            GivenUp,
        ];
        all.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// What a table of contents says of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub partition: PartitionId,
    pub base_offset: Offset,
    /// Offsets the batch takes.
    pub records: u32,
    pub max_timestamp: i64,
}

/// A partition that captured records of a batch it does not own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub partition: PartitionId,
    pub base_offset: Offset,
    pub selection: Selection,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    /// Positions of the records in the batch, ascending.
    Indexes(Vec<u32>),
}

/// A target of all records, in its entry.
const TARGET_BYTES: usize = 16;

/// Bytes of an entry that name other partitions, if so many have its batch as a whole: nobody's records.
pub fn shared_bytes(partitions: usize) -> u32 {
    u32::try_from(partitions.saturating_sub(1) * TARGET_BYTES).unwrap_or(u32::MAX)
}

impl Target {
    /// Its own row. `primary` is the batch's.
    pub fn row(&self, primary: Row) -> Row {
        let records = match &self.selection {
            Selection::All => primary.records,
            Selection::Indexes(indexes) => u32::try_from(indexes.len()).unwrap_or(u32::MAX),
        };
        Row { partition: self.partition, base_offset: self.base_offset, records, ..primary }
    }
}

#[derive(Clone, Debug)]
enum Head {
    Inline([u8; HEAD_INLINE], u8),
    Long(Bytes),
}

/// An entry on its way to the journal. Its body is a head, made here, and a payload, which is copied once, into the group.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: EntryKind,
    /// Of the primary.
    row: Option<Row>,
    /// Of the targets.
    target_rows: Vec<Row>,
    /// It comes into the group of the entry behind it, so that a crash keeps both or neither, unless they are too large for one group.
    pub tied: bool,
    head: Head,
    payload: Bytes,
}

impl Entry {
    fn plain(kind: EntryKind, head: &[u8], payload: Bytes) -> Entry {
        let head = match <[u8; HEAD_INLINE]>::try_from(&[head, &[0; HEAD_INLINE]].concat()[..HEAD_INLINE]) {
            Ok(inline) if head.len() <= HEAD_INLINE => Head::Inline(inline, head.len() as u8),
            _ => Head::Long(Bytes::copy_from_slice(head)),
        };
        Entry { kind, row: None, target_rows: Vec::new(), tied: false, head, payload }
    }

    /// A record batch for `row.partition`, its primary.
    ///
    /// ```text
    /// primary u32, home u32 (shard of the primary, 0 today), targets u32,
    /// for each target: partition u32, base offset u64, count u32 (0xffffffff: all), that many indexes u32,
    /// the batch: prefix 16 (base offset, length, leader epoch, written here), then `tail`
    /// ```
    pub fn batch(row: Row, targets: &[Target], prefix: [u8; PREFIX_BYTES], tail: Bytes) -> Entry {
        if targets.is_empty() {
            let mut head = [0; HEAD_INLINE];
            head[..4].copy_from_slice(&row.partition.0.to_le_bytes());
            head[12..12 + PREFIX_BYTES].copy_from_slice(&prefix);
            let head = Head::Inline(head, 12 + PREFIX_BYTES as u8);
            return Entry { kind: EntryKind::Batch, row: Some(row), target_rows: Vec::new(), tied: false, head, payload: tail };
        }
        debug_assert!(targets.len() <= TARGETS_MAX);
        let mut head = Vec::new();
        head.extend_from_slice(&row.partition.0.to_le_bytes());
        head.extend_from_slice(&0u32.to_le_bytes());
        head.extend_from_slice(&count(targets.len()));
        for target in targets {
            head.extend_from_slice(&target.partition.0.to_le_bytes());
            head.extend_from_slice(&target.base_offset.0.to_le_bytes());
            match &target.selection {
                Selection::All => head.extend_from_slice(&u32::MAX.to_le_bytes()),
                Selection::Indexes(indexes) => {
                    head.extend_from_slice(&count(indexes.len()));
                    indexes.iter().for_each(|index| head.extend_from_slice(&index.to_le_bytes()));
                }
            }
        }
        head.extend_from_slice(&prefix);
        let target_rows = targets.iter().map(|target| target.row(row)).collect();
        Entry { kind: EntryKind::Batch, row: Some(row), target_rows, tied: false, head: Head::Long(Bytes::from(head)), payload: tail }
    }

    pub fn partition_trim(partition: PartitionId, log_start: Offset) -> Entry {
        let mut head = [0; 12];
        head[..4].copy_from_slice(&partition.0.to_le_bytes());
        head[4..].copy_from_slice(&log_start.0.to_le_bytes());
        Entry::plain(EntryKind::PartitionTrim, &head, Bytes::new())
    }

    pub fn checkpoint_taken(at: Lsn) -> Entry {
        Entry::plain(EntryKind::CheckpointTaken, &at.0.to_le_bytes(), Bytes::new())
    }

    pub fn state_put(key: &[u8], value: Bytes) -> Entry {
        Entry::plain(EntryKind::StatePut, &[&count(key.len())[..], key].concat(), value)
    }

    pub fn state_delete(key: &[u8]) -> Entry {
        Entry::plain(EntryKind::StateDelete, key, Bytes::new())
    }

    pub fn given_up(rows: &[Row]) -> Entry {
        let mut head = Vec::new();
        for row in rows {
            head.extend_from_slice(&row.partition.0.to_le_bytes());
            head.extend_from_slice(&row.base_offset.0.to_le_bytes());
            head.extend_from_slice(&row.records.to_le_bytes());
        }
        Entry::plain(EntryKind::GivenUp, &head, Bytes::new())
    }

    /// A body made elsewhere, for the kinds whose owners come later.
    pub fn reserved(kind: EntryKind, body: Bytes) -> Entry {
        Entry { kind, row: None, target_rows: Vec::new(), tied: false, head: Head::Inline([0; HEAD_INLINE], 0), payload: body }
    }

    /// Of a batch: what the table of contents says of it for each partition that has it, the primary first.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.row.into_iter().chain(self.target_rows.iter().copied())
    }

    pub fn row_count(&self) -> usize {
        usize::from(self.row.is_some()) + self.target_rows.len()
    }

    fn head(&self) -> &[u8] {
        match &self.head {
            Head::Inline(bytes, length) => &bytes[..usize::from(*length)],
            Head::Long(bytes) => bytes,
        }
    }

    /// Bytes in the journal, header included.
    pub fn bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.head().len() + self.payload.len()
    }

    /// Bytes that it takes of an extent, with its rows.
    pub fn room_bytes(&self) -> usize {
        self.bytes() + self.row_count() * ROW_ROOM_BYTES
    }

    /// Appends header and body. The caller keeps an entry far below 4 GiB.
    pub fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        let length = u32::try_from(self.bytes() - ENTRY_HEADER_BYTES).expect("an entry fits an extent");
        out.extend_from_slice(&(self.kind as u16).to_le_bytes());
        out.extend_from_slice(&[LAYOUT, REQUIRED]);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.head());
        out.extend_from_slice(&self.payload);
        let checksum = checksum(&out[at..]);
        out[at + 8..at + ENTRY_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn count(items: usize) -> [u8; 4] {
    u32::try_from(items).expect("an entry fits an extent").to_le_bytes()
}

/// Of a whole entry, its checksum field left out.
fn checksum(entry: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry[..8]), &entry[ENTRY_HEADER_BYTES..])
}

/// The fixed part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub kind: u16,
    pub version: u8,
    pub required: bool,
    pub body_bytes: u32,
}

/// Why bytes are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryDamage {
    pub what: &'static str,
}

/// Reads and verifies the entry at `at`: its header, its body, and where the next one begins.
pub fn open_entry(raw: &Bytes, at: usize) -> Result<(EntryHeader, Bytes, usize), EntryDamage> {
    let rest = raw.get(at..).ok_or(EntryDamage { what: "entry begins beyond the bytes" })?;
    let head = rest.first_chunk::<ENTRY_HEADER_BYTES>().ok_or(EntryDamage { what: "entry ends early" })?;
    let body_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let total = ENTRY_HEADER_BYTES + body_bytes as usize;
    let whole = rest.get(..total).ok_or(EntryDamage { what: "entry ends early" })?;
    if checksum(whole).to_le_bytes() != head[8..] {
        return Err(EntryDamage { what: "entry checksum does not match" });
    }
    let header =
        EntryHeader { kind: u16::from_le_bytes([head[0], head[1]]), version: head[2], required: head[3] & REQUIRED != 0, body_bytes };
    Ok((header, raw.slice(at + ENTRY_HEADER_BYTES..at + total), at + total))
}

/// The body of a `Batch` entry.
#[derive(Clone, Debug)]
pub struct BatchEntry {
    pub primary: PartitionId,
    pub targets: Vec<Target>,
    /// The whole record batch, prefix included.
    pub bytes: Bytes,
}

pub fn read_batch(body: &Bytes) -> Option<BatchEntry> {
    let mut at = 12;
    let (primary, target_count) = (u32_at(body, 0)?, u32_at(body, 8)?);
    let mut targets = Vec::new();
    for _ in 0..target_count {
        let (partition, base_offset) = (PartitionId(u32_at(body, at)?), Offset(u64_at(body, at + 4)?));
        let index_count = u32_at(body, at + 12)?;
        at += 16;
        let selection = if index_count == u32::MAX {
            Selection::All
        } else {
            let mut indexes = Vec::new();
            for _ in 0..index_count {
                indexes.push(u32_at(body, at)?);
                at += 4;
            }
            Selection::Indexes(indexes)
        };
        targets.push(Target { partition, base_offset, selection });
    }
    (at + PREFIX_BYTES <= body.len()).then(|| BatchEntry { primary: PartitionId(primary), targets, bytes: body.slice(at..) })
}

/// Where the batch begins in the body of its entry.
fn behind_targets(body: &[u8]) -> Option<usize> {
    let mut at = 12;
    for _ in 0..u32_at(body, 8)? {
        let count = u32_at(body, at + 12)?;
        at += TARGET_BYTES + if count == u32::MAX { 0 } else { 4 * count as usize };
    }
    (at + PREFIX_BYTES <= body.len()).then_some(at)
}

/// The record batch inside the bytes of a whole `Batch` entry, whose checksum was verified before, as the partition has it that has it
/// at `base_offset`: the primary the very bytes, a target a copy with its own offset. The checksum of a batch does not cover that.
pub fn batch_at(entry: &Bytes, base_offset: Offset) -> Option<Bytes> {
    if entry.len() < ENTRY_HEADER_BYTES + 12 || u16::from_le_bytes([entry[0], entry[1]]) != EntryKind::Batch as u16 {
        return None;
    }
    if entry[ENTRY_HEADER_BYTES + 8..ENTRY_HEADER_BYTES + 12] == [0; 4] {
        return Some(entry.slice(ENTRY_HEADER_BYTES + 12..));
    }
    let batch = entry.slice(ENTRY_HEADER_BYTES + behind_targets(&entry[ENTRY_HEADER_BYTES..])?..);
    let own = base_offset.0.to_be_bytes();
    if batch.first_chunk() == Some(&own) {
        return Some(batch);
    }
    let mut copy = batch.to_vec();
    copy[..own.len()].copy_from_slice(&own);
    Some(Bytes::from(copy))
}

pub fn read_partition_trim(body: &[u8]) -> Option<(PartitionId, Offset)> {
    (body.len() == 12).then_some(())?;
    Some((PartitionId(u32_at(body, 0)?), Offset(u64_at(body, 4)?)))
}

/// The partitions of a batch that was given up, each with the offset behind it. None: what it was is not known.
pub fn read_given_up(body: &[u8]) -> impl Iterator<Item = (PartitionId, Offset)> {
    body.chunks_exact(16).filter_map(|row| Some((PartitionId(u32_at(row, 0)?), Offset(u64_at(row, 4)?).plus(u64::from(u32_at(row, 12)?)))))
}

pub fn read_state_put(body: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = 4usize.checked_add(u32_at(body, 0)? as usize)?;
    (end <= body.len()).then(|| (body.slice(4..end), body.slice(end..)))
}

pub fn read_state_delete(body: &Bytes) -> Option<Bytes> {
    (!body.is_empty()).then(|| body.clone())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row { partition: PartitionId(7), base_offset: Offset(40), records: 2, max_timestamp: 5 }
    }

    fn bytes(entry: &Entry) -> Bytes {
        let mut out = Vec::new();
        entry.write(&mut out);
        assert_eq!(out.len(), entry.bytes());
        Bytes::from(out)
    }

    #[test]
    fn batches_survive_with_and_without_targets() {
        let some = Target { partition: PartitionId(9), base_offset: Offset(1), selection: Selection::Indexes(vec![0, 3]) };
        let all = Target { partition: PartitionId(8), base_offset: Offset(2), selection: Selection::All };
        for targets in [vec![], vec![some, all]] {
            let raw = bytes(&Entry::batch(row(), &targets, [1; 16], Bytes::from_static(b"tail")));
            let (header, body, next) = open_entry(&raw, 0).expect("own bytes");
            assert_eq!((EntryKind::find(header.kind), next), (Some(EntryKind::Batch), raw.len()));
            let batch = read_batch(&body).expect("own body");
            assert_eq!((batch.primary, &batch.targets), (PartitionId(7), &targets));
            assert_eq!(&batch.bytes[..], [&[1; 16][..], b"tail"].concat());
            assert_eq!(batch_at(&raw, Offset(0x0101010101010101)), Some(batch.bytes.clone()), "the primary's are the very bytes");
            if !targets.is_empty() {
                let other = batch_at(&raw, Offset(2)).expect("a batch");
                assert_eq!((&other[..8], &other[8..]), (&[0, 0, 0, 0, 0, 0, 0, 2][..], &batch.bytes[8..]));
            }
        }
    }

    #[test]
    fn every_partition_that_has_a_batch_has_a_row() {
        let some = Target { partition: PartitionId(9), base_offset: Offset(1), selection: Selection::Indexes(vec![1]) };
        let all = Target { partition: PartitionId(8), base_offset: Offset(2), selection: Selection::All };
        let entry = Entry::batch(row(), &[some, all], [1; 16], Bytes::new());
        let rows: Vec<_> = entry.rows().map(|row| (row.partition.0, row.base_offset.0, row.records, row.max_timestamp)).collect();
        assert_eq!(rows, [(7, 40, 2, 5), (9, 1, 1, 5), (8, 2, 2, 5)]);
        assert_eq!(entry.row_count(), 3);
        let raw = bytes(&Entry::given_up(&entry.rows().collect::<Vec<_>>()));
        let (_, body, _) = open_entry(&raw, 0).expect("own bytes");
        let ends: Vec<_> = read_given_up(&body).map(|(partition, end)| (partition.0, end.0)).collect();
        assert_eq!(ends, [(7, 42), (9, 2), (8, 4)]);
    }

    #[test]
    fn state_and_trims_survive() {
        let long_key = [5; 100];
        for key in [&b"k"[..], &long_key] {
            let raw = bytes(&Entry::state_put(key, Bytes::from_static(b"value")));
            let (_, body, _) = open_entry(&raw, 0).expect("own bytes");
            assert_eq!(read_state_put(&body), Some((Bytes::copy_from_slice(key), Bytes::from_static(b"value"))));
            let raw = bytes(&Entry::state_delete(key));
            assert_eq!(read_state_delete(&open_entry(&raw, 0).expect("own bytes").1), Some(Bytes::copy_from_slice(key)));
        }
        let raw = bytes(&Entry::partition_trim(PartitionId(3), Offset(9)));
        let (_, body, _) = open_entry(&raw, 0).expect("own bytes");
        assert_eq!(read_partition_trim(&body), Some((PartitionId(3), Offset(9))));
    }

    /// On the disks of users.
    #[test]
    fn a_batch_keeps_its_bytes() {
        let raw = bytes(&Entry::batch(row(), &[], [0xaa; 16], Bytes::from_static(b"t")));
        let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..16], "010001011d000000");
        assert_eq!(&hex[24..48], "070000000000000000000000");
        assert_eq!(&hex[48..], format!("{}74", "aa".repeat(16)));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let raw = bytes(&Entry::batch(row(), &[], [1; 16], Bytes::from_static(b"tail")));
        for bit in 0..raw.len() * 8 {
            let mut flipped = raw.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_entry(&Bytes::from(flipped), 0).is_err(), "bit {bit}");
        }
    }
}
