//! What is whole inside damage, and the bridge over it.

use std::collections::HashSet;

use bytes::Bytes;

use firth_model::batch::BatchHeader;
use firth_model::ids::{Lsn, Offset, PartitionId, Position};

use crate::entry::{ENTRY_HEADER_BYTES, Entry, EntryKind, Row, open_entry, read_batch};
use crate::extent::{BLOCK_BYTES, ExtentHeader, checksum};
use crate::group::{CONTENTS_ROW_BYTES, GroupHeader, GroupKind, HEADER_BYTES, Located, contents, write_row};

/// Groups lay here from `from` to `to`, places in the extent. Nothing of an earlier life of the file lies before `sure`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub from: usize,
    pub to: usize,
    pub sure: usize,
    /// Of its first entry, if that is known.
    pub first_lsn: Option<Lsn>,
    /// Of the first entry behind it.
    pub next_lsn: Option<Lsn>,
    /// Groups of lower numbers are of an earlier life.
    pub number_min: u64,
}

/// One entry of the stretch, each with an lsn of its own. Its rows, as far as they are known, if it is a batch.
#[derive(Clone, Debug)]
enum Kept {
    Whole { bytes: Bytes, rows: Vec<Row> },
    Lost(Vec<Row>),
}

#[derive(Debug, Default)]
pub(crate) struct Salvage {
    kept: Vec<Kept>,
    /// Batches that are lost, as far as something names them.
    pub lost: Vec<Located>,
    /// Bytes were passed over that no group's header covers: nothing but the lsns around says how much they held.
    pub unknown: bool,
}

/// A group that is being walked, by its header.
struct Known {
    end: usize,
    rows: Vec<Located>,
    /// How many entries were found before it, and how many there are with its own.
    before: usize,
    upto: usize,
}

struct Walk<'a> {
    raw: &'a Bytes,
    extent: &'a ExtentHeader,
    stretch: Stretch,
    kept: Vec<Kept>,
    /// Where among what was kept bytes were first passed over since it was last known how many entries there are.
    gap: Option<usize>,
    known: Option<Known>,
    lost: Vec<Located>,
    unknown: bool,
}

/// Reads what is whole. `raw` is the extent.
pub(crate) fn salvage(raw: &Bytes, extent: &ExtentHeader, stretch: Stretch) -> Salvage {
    let mut walk = Walk { raw, extent, stretch, kept: Vec::new(), gap: None, known: None, lost: Vec::new(), unknown: false };
    let mut at = stretch.from;
    while at < stretch.to {
        at = walk.step(at);
    }
    walk.end_group();
    if let (Some(first), Some(next)) = (stretch.first_lsn, stretch.next_lsn) {
        walk.there_are(usize::try_from(next.0.saturating_sub(first.0)).unwrap_or(usize::MAX));
    }
    Salvage { kept: walk.kept, lost: walk.lost, unknown: walk.unknown }
}

impl Walk<'_> {
    /// Looks at one place; gives the next.
    fn step(&mut self, at: usize) -> usize {
        let block = BLOCK_BYTES as usize;
        if at.is_multiple_of(block)
            && let Some(header) = self.header_at(at)
        {
            return self.begin_group(&header, at);
        }
        if self.known.as_ref().is_some_and(|known| at >= known.end) {
            self.end_group();
            return if at.is_multiple_of(block) { at } else { at.next_multiple_of(block) };
        }
        if at >= self.stretch.sure && self.known.is_none() {
            self.unknown = true;
            return (at + 1).next_multiple_of(block);
        }
        match self.entry_at(at) {
            Some((rows, next)) => {
                self.kept.push(Kept::Whole { bytes: self.raw.slice(at..next), rows });
                next
            }
            None => {
                self.unknown |= self.known.is_none();
                self.gap.get_or_insert(self.kept.len());
                at + 1
            }
        }
    }

    fn header_at(&self, at: usize) -> Option<GroupHeader> {
        let header = GroupHeader::decode(self.raw.get(at..)?)?;
        let ours = header.incarnation == self.extent.incarnation && header.cluster == self.extent.cluster;
        (ours && header.kind != GroupKind::Directory && header.number >= self.stretch.number_min).then_some(header)
    }

    fn begin_group(&mut self, header: &GroupHeader, at: usize) -> usize {
        self.end_group();
        if let Some(first) = self.stretch.first_lsn {
            self.there_are(usize::try_from(header.first_lsn.0.saturating_sub(first.0)).unwrap_or(usize::MAX));
        }
        let end = (at + HEADER_BYTES + header.body_bytes as usize).min(self.stretch.to);
        let inside = (at + HEADER_BYTES + header.contents_bytes as usize).min(end);
        let rows = contents(header, self.extent.position(narrow(at)), &self.raw[at..end]);
        let before = self.kept.len();
        self.known = Some(Known { end, rows, before, upto: before + header.entries as usize });
        self.gap = None;
        inside
    }

    /// Batches of the group that were not found are lost.
    fn end_group(&mut self) {
        let Some(known) = self.known.take() else { return };
        let found: HashSet<(PartitionId, Offset)> = self.kept[known.before..].iter().flat_map(Kept::places).collect();
        let plausible = |located: &&Located| located.position < self.extent.position(narrow(known.end)) && located.bytes > 0;
        let lost: Vec<Located> =
            known.rows.iter().filter(plausible).filter(|located| !found.contains(&place(&located.row))).copied().collect();
        self.there_are(known.upto);
        // So that what follows them goes on behind their offsets.
        let mut names = lost.chunk_by(|one, next| one.position == next.position);
        for kept in &mut self.kept[known.before..] {
            if let Kept::Lost(rows) = kept
                && rows.is_empty()
            {
                rows.extend(names.next().into_iter().flatten().map(|located| located.row));
            }
        }
        self.lost.extend(lost);
    }

    /// It is known how many entries were there up to here: those that are lost take their places.
    fn there_are(&mut self, count: usize) {
        // No more than can have lain here, whatever a damaged number says.
        let most = (self.stretch.to - self.stretch.from) / ENTRY_HEADER_BYTES;
        let missing = count.min(most).saturating_sub(self.kept.len());
        let at = self.gap.unwrap_or(self.kept.len()).min(self.kept.len());
        self.kept.splice(at..at, std::iter::repeat_n(Kept::Lost(Vec::new()), missing));
        self.gap = None;
    }

    /// A whole entry begins here: its rows if it is a batch, and its end.
    fn entry_at(&self, at: usize) -> Option<(Vec<Row>, usize)> {
        let end = self.known.as_ref().map_or(self.stretch.sure.min(self.stretch.to), |known| known.end);
        let head = self.raw.get(at..end)?.first_chunk::<ENTRY_HEADER_BYTES>()?;
        let kind = EntryKind::find(u16::from_le_bytes([head[0], head[1]]))?;
        // Few places pass this, so that looking at each byte costs little.
        if head[2] != 1 || head[3] > 1 {
            return None;
        }
        let (_, body, next) = open_entry(self.raw, at).ok()?;
        if next > end {
            return None;
        }
        if kind != EntryKind::Batch {
            return Some((Vec::new(), next));
        }
        Some((rows_of(&body)?, next))
    }
}

/// The rows of a batch, by its own entry.
fn rows_of(body: &Bytes) -> Option<Vec<Row>> {
    let batch = read_batch(body)?;
    let header = BatchHeader::parse(&batch.bytes).ok()?;
    let primary = Row {
        partition: batch.primary,
        base_offset: Offset::from_i64(header.base_offset)?,
        records: u32::try_from(header.offset_count()).ok()?,
        max_timestamp: header.max_timestamp,
    };
    Some(std::iter::once(primary).chain(batch.targets.iter().map(|target| target.row(primary))).collect())
}

fn place(row: &Row) -> (PartitionId, Offset) {
    (row.partition, row.base_offset)
}

/// A place in an extent.
pub(crate) fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Kept {
    /// Rows of what is whole.
    fn rows(&self) -> &[Row] {
        match self {
            Kept::Whole { rows, .. } => rows,
            Kept::Lost(_) => &[],
        }
    }

    fn places(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        self.rows().iter().map(place)
    }

    fn bytes(&self) -> usize {
        match self {
            Kept::Whole { bytes, rows } => bytes.len() + rows.len() * CONTENTS_ROW_BYTES,
            Kept::Lost(rows) => Entry::given_up(rows).bytes(),
        }
    }
}

impl Salvage {
    /// How many entries are lost.
    pub fn lost_entries(&self) -> usize {
        self.kept.iter().filter(|kept| matches!(kept, Kept::Lost(_))).count()
    }

    pub fn entries(&self) -> usize {
        self.kept.len()
    }

    /// Whether the batch is among what was whole.
    pub fn has(&self, row: &Row) -> bool {
        self.kept.iter().flat_map(Kept::rows).any(|other| place(other) == place(row))
    }

    /// Adds lost entries until there are `count`.
    pub fn there_are(&mut self, count: usize) {
        if self.kept.len() < count {
            self.kept.resize(count, Kept::Lost(Vec::new()));
        }
    }

    /// The group that takes the place of the stretch: exactly `bytes` long. `header` comes with what is of the chain and of time.
    /// Gives it, and where the batches in it lie.
    pub fn bridge(&self, mut header: GroupHeader, position: Position, bytes: usize) -> (Vec<u8>, Vec<Located>) {
        let mut room = bytes - HEADER_BYTES;
        // Lost entries at the end need no place if there is none: the next group says where it begins.
        let fits = |kept: &&Kept| {
            let left = room.checked_sub(kept.bytes());
            room = left.unwrap_or(0);
            left.is_some()
        };
        let kept: Vec<&Kept> = self.kept.iter().take_while(fits).collect();
        let rows = kept.iter().map(|kept| kept.rows().len()).sum();
        let mut entries = Vec::new();
        let mut table = Vec::with_capacity(rows * CONTENTS_ROW_BYTES);
        let mut located = Vec::with_capacity(rows);
        for one in &kept {
            let at = narrow(HEADER_BYTES + rows * CONTENTS_ROW_BYTES + entries.len());
            match one {
                Kept::Whole { bytes, rows } => {
                    for row in rows {
                        write_row(&mut table, *row, at, narrow(bytes.len()));
                        located.push(Located { row: *row, position: Position(position.0 + u64::from(at)), bytes: narrow(bytes.len()) });
                    }
                    entries.extend_from_slice(bytes);
                }
                Kept::Lost(rows) => Entry::given_up(rows).write(&mut entries),
            }
        }
        let mut out = vec![0; HEADER_BYTES];
        out.extend_from_slice(&table);
        out.extend_from_slice(&entries);
        out.resize(bytes, 0);
        header.kind = GroupKind::Bridge;
        (header.rows, header.contents_bytes) = (narrow(rows), narrow(table.len()));
        (header.entries, header.body_bytes) = (narrow(kept.len()), narrow(bytes - HEADER_BYTES));
        header.body_checksum = checksum(&out[HEADER_BYTES..]);
        out[..HEADER_BYTES].copy_from_slice(&header.encode());
        (out, located)
    }
}
