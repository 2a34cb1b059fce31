//! Reads from extents and segments, on a thread that may block.

use std::sync::Arc;

use bytes::Bytes;

use firth_archive::segment::Block;
use firth_archive::segments::{SegmentError, Segments};
use firth_gateway::refusal::Refusal;
use firth_gateway::view::{FoundBatch, Records};
use firth_journal::entry::{batch_at, open_entry};
use firth_journal::reader::{Directory as ExtentDirectory, ReadError, Reader};
use firth_model::batch::BatchHeader;
use firth_model::ids::{Offset, PartitionId, Position, SegmentId};
use firth_model::limits::COLD_READ_AT_ONCE;

use crate::index::{Place, Row, Span, Spot};
use crate::partition_view::PartitionView;
use crate::stripped::live_records;

/// Neighbouring entries closer than this are read at once: reading over a gap is cheaper than another read.
const GAP_BYTES_MAX: u64 = 64 << 10;

/// Where batches lie that are behind the tail cache.
#[derive(Clone)]
pub struct Sources {
    pub extents: Arc<Reader>,
    pub segments: Arc<Segments>,
}

/// Why something behind the tail cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// It was moved or removed meanwhile: the index knows where to.
    #[error("it lies elsewhere now")]
    Gone,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Unavailable(String),
}

impl From<ReadError> for ColdError {
    fn from(error: ReadError) -> ColdError {
        match error {
            ReadError::Gone => ColdError::Gone,
            error => ColdError::Damaged(error.to_string()),
        }
    }
}

impl From<SegmentError> for ColdError {
    fn from(error: SegmentError) -> ColdError {
        match error {
            SegmentError::Gone => ColdError::Gone,
            SegmentError::Damaged { .. } => ColdError::Damaged(error.to_string()),
            SegmentError::Io { .. } => ColdError::Unavailable(error.to_string()),
        }
    }
}

/// One whole batch as it was found.
pub struct Found {
    pub base: Offset,
    pub end: Offset,
    pub max_timestamp: i64,
    /// 0 of what lies in a segment.
    pub position: Position,
    pub batch: Bytes,
}

/// Where one entry lies.
#[derive(Clone, Copy)]
struct Piece {
    base: Offset,
    end: Offset,
    position: Position,
    bytes: u32,
    max_timestamp: i64,
}

impl From<&Row> for Piece {
    fn from(row: &Row) -> Piece {
        Piece { base: row.base, end: row.end(), position: row.position, bytes: row.bytes, max_timestamp: row.max_timestamp }
    }
}

/// Batches from `from` on, at least one if there is one, verified.
///
/// A trim, a replacement or a recycled extent may overtake this read; it is then tried again from what is there now.
pub fn batches(sources: &Sources, partition: &PartitionView, from: Offset, bytes_max: u32) -> Result<Records, Refusal> {
    for _ in 0..3 {
        let (log_start, end) = (partition.log_start(), partition.durable_end());
        if from < log_start || from > end {
            return Err(Refusal::OffsetOutOfRange { log_start, end });
        }
        match read_once(sources, partition, from, bytes_max) {
            Err(ColdError::Gone) => continue,
            Err(error) => return Err(refused(partition.id, &error)),
            Ok(records) => return live_records(partition, records),
        }
    }
    Err(Refusal::Unavailable)
}

/// Where a reader who got this will go on, if there is more and it takes what it gets.
pub fn goes_on(records: &Records, bytes_max: u32) -> Option<Offset> {
    let header = BatchHeader::parse(records.batches.last()?).ok()?;
    let next = Offset::from_i64(header.base_offset)?.plus(header.offset_count());
    (records.bytes >= bytes_max as usize / 2).then_some(next)
}

/// Loads what lies behind `next`, so that the disk works while the reader takes what it has. What fails the reader will see.
pub fn read_ahead(sources: &Sources, partition: &PartitionView, next: Offset) {
    let spot = partition.index().find(next);
    let Spot::Span(Span { place: Place::Segment(id), base, .. }) = spot else { return };
    let Ok(directory) = sources.segments.directory(id) else { return };
    let first = directory.of(partition.id).partition_point(|block| block.end <= next.max(base));
    sources.segments.load_ahead(id, &directory, partition.id, first);
}

fn read_once(sources: &Sources, partition: &PartitionView, mut from: Offset, bytes_max: u32) -> Result<Records, ColdError> {
    let mut records = Records::default();
    loop {
        let mut take = |found: Found| {
            if !records.batches.is_empty() && records.bytes + found.batch.len() > bytes_max as usize {
                return false;
            }
            records.push(found.batch, found.position);
            true
        };
        let spot = partition.index().find(from);
        let outcome = match spot {
            Spot::End => return Ok(records),
            Spot::Span(span) => sources.read_span(partition.id, &span, from, bytes_max, &mut take),
            Spot::Row(_) => return sources.read_pieces(&row_pieces(partition, from, bytes_max), bytes_max, &mut take).map(|()| records),
        };
        match outcome {
            // What comes before the damage is served; the next read meets it.
            Err(error) if records.batches.is_empty() => return Err(error),
            _ if !records.batches.is_empty() => return Ok(records),
            _ => {}
        }
        let Spot::Span(span) = spot else { return Ok(records) };
        // Everything that was left of the span has been removed from it.
        from = span.end;
    }
}

impl Sources {
    /// Gives the batches of a span that end behind `from`, in order, until `take` says no. About `bytes_max` are read ahead of that.
    pub fn read_span(
        &self,
        partition: PartitionId,
        span: &Span,
        from: Offset,
        bytes_max: u32,
        take: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), ColdError> {
        match span.place {
            Place::Extent(extent) => {
                let directory = self.extents.directory(extent)?;
                let pieces = pieces_of(&directory, partition, span);
                let first = pieces.partition_point(|piece| piece.end <= from);
                if directory.is_partial() {
                    return self.read_partial(&pieces[first..], span, from, bytes_max, take);
                }
                self.read_pieces(&pieces[first..], bytes_max, take)
            }
            Place::Segment(id) => self.read_segment(partition, id, span, from, take),
        }
    }

    /// Of an extent of which a part cannot be read: up to the first offset that may be lost, and then that it may be.
    fn read_partial(
        &self,
        pieces: &[Piece],
        span: &Span,
        from: Offset,
        bytes_max: u32,
        take: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), ColdError> {
        let mut sure = from.max(span.base);
        let mut follows = |piece: &&Piece| {
            let follows = piece.base <= sure;
            sure = if follows { piece.end } else { sure };
            follows
        };
        let count = pieces.iter().take_while(&mut follows).count();
        let mut wanted = true;
        self.read_pieces(&pieces[..count], bytes_max, &mut |found| {
            wanted = take(found);
            wanted
        })?;
        if wanted && sure < span.end {
            return Err(ColdError::Damaged("a part of the extent cannot be read".to_owned()));
        }
        Ok(())
    }

    fn read_segment(
        &self,
        partition: PartitionId,
        id: SegmentId,
        span: &Span,
        from: Offset,
        take: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), ColdError> {
        let directory = self.segments.directory(id)?;
        let blocks = directory.of(partition);
        let first = blocks.partition_point(|block| block.end <= from.max(span.base));
        // Everything below was read, or nobody asks for it.
        let mut sure = from.max(span.base);
        for index in first..=blocks.len() {
            let wanted = blocks.get(index).filter(|block| block.base < span.end);
            if directory.lacks(partition, index) && (index > first || wanted.is_none_or(|block| block.base > from)) {
                return Err(ColdError::Damaged(format!("the segment lacks blocks of partition {}", partition.0)));
            }
            if wanted.is_none() {
                break;
            }
            let block = self.segments.block(id, &directory, partition, index);
            let mut rest = match (block, wanted) {
                (Err(damage @ SegmentError::Damaged { .. }), Some(block)) => {
                    sure = match self.salvage(id, block, span, sure, take)? {
                        Some(sure) if sure >= block.end => sure,
                        Some(_) => return Err(damage.into()),
                        None => return Ok(()),
                    };
                    continue;
                }
                (block, _) => block?,
            };
            while !rest.is_empty() {
                let batch = next_batch(&mut rest).ok_or_else(|| ColdError::Damaged("a block holds what is no batch".to_owned()))?;
                sure = sure.max(batch.end);
                if batch.end > from && batch.end <= span.end && !take(batch) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Gives what is whole of a damaged block from `sure` on, up to the first offset that may be lost, which it returns. `None`: enough.
    fn salvage(
        &self,
        id: SegmentId,
        block: &Block,
        span: &Span,
        mut sure: Offset,
        take: &mut dyn FnMut(Found) -> bool,
    ) -> Result<Option<Offset>, ColdError> {
        sure = sure.max(block.base);
        for batch in self.segments.salvage(id, block)? {
            let Some(found) = next_batch(&mut batch.clone()).filter(|found| found.end > sure) else { continue };
            if found.base > sure {
                break;
            }
            sure = found.end;
            if found.end <= span.end && !take(found) {
                return Ok(None);
            }
        }
        Ok(Some(sure))
    }

    fn read_pieces(&self, pieces: &[Piece], bytes_max: u32, take: &mut dyn FnMut(Found) -> bool) -> Result<(), ColdError> {
        let mut at = 0;
        while at < pieces.len() {
            let run = &pieces[at..at + run_length(&pieces[at..], u64::from(bytes_max))];
            at += run.len();
            if !self.read_run(run, take)? {
                break;
            }
        }
        Ok(())
    }

    fn read_run(&self, run: &[Piece], take: &mut dyn FnMut(Found) -> bool) -> Result<bool, ColdError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(true) };
        let bytes = last.position.0 + u64::from(last.bytes) - first.position.0;
        let bytes = u32::try_from(bytes).map_err(|_| ReadError::Damaged { position: first.position, what: "run too long" })?;
        let raw = self.extents.read(first.position, bytes)?;
        for piece in run {
            let at = usize::try_from(piece.position.0 - first.position.0).unwrap_or(usize::MAX);
            let batch = verified(&raw, at, piece)?;
            if !take(Found { base: piece.base, end: piece.end, max_timestamp: piece.max_timestamp, position: piece.position, batch }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first batch of a span that ends behind `log_start` and has a largest time that is `wanted`.
    fn search_span(
        &self,
        partition: PartitionId,
        span: &Span,
        log_start: Offset,
        wanted: &dyn Fn(i64) -> bool,
    ) -> Result<Option<FoundBatch>, ColdError> {
        let id = match span.place {
            Place::Segment(id) => id,
            Place::Extent(extent) => {
                let pieces = pieces_of(&*self.extents.directory(extent)?, partition, span);
                let piece = pieces.iter().find(|piece| piece.end > log_start && wanted(piece.max_timestamp));
                return Ok(piece.map(|piece| FoundBatch { base_offset: piece.base, max_timestamp: piece.max_timestamp }));
            }
        };
        let directory = self.segments.directory(id)?;
        let within = |base: Offset, end: Offset| end > log_start && base >= span.base && end <= span.end;
        for (index, block) in directory.of(partition).iter().enumerate() {
            if !within(block.base, block.end) || !wanted(block.max_timestamp) {
                continue;
            }
            let mut rest = self.segments.block(id, &directory, partition, index)?;
            let mut first = None;
            while let Some(batch) = next_batch(&mut rest) {
                let found = FoundBatch { base_offset: batch.base, max_timestamp: batch.max_timestamp };
                if batch.end > log_start && wanted(batch.max_timestamp) {
                    return Ok(Some(found));
                }
                first = first.or((batch.end > log_start).then_some(found));
            }
            // The block has the time, by the records themselves; a careless header does not tell where: the reader looks from here.
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }
}

/// The pieces of a span, in order.
fn pieces_of(directory: &ExtentDirectory, partition: PartitionId, span: &Span) -> Vec<Piece> {
    let pieces = directory.rows(partition).iter().map(|located| Piece {
        base: located.row.base_offset,
        end: located.row.base_offset.plus(u64::from(located.row.records)),
        position: located.position,
        bytes: located.bytes,
        max_timestamp: located.row.max_timestamp,
    });
    pieces.filter(|piece| piece.base >= span.base && piece.end <= span.end).collect()
}

/// How many of the pieces to read at once: neighbours of one extent, within `room`. At least one.
fn run_length(pieces: &[Piece], room: u64) -> usize {
    let Some(head) = pieces.first() else { return 0 };
    let mut wanted = u64::from(head.bytes);
    let mut end = head.position.0 + wanted;
    let mut count = 1;
    for piece in &pieces[1..] {
        wanted += u64::from(piece.bytes);
        let near = piece.position.0.checked_sub(end).is_some_and(|gap| gap <= GAP_BYTES_MAX);
        end = piece.position.0 + u64::from(piece.bytes);
        if !near || wanted > room || end - head.position.0 > COLD_READ_AT_ONCE {
            break;
        }
        count += 1;
    }
    count
}

fn verified(raw: &Bytes, at: usize, piece: &Piece) -> Result<Bytes, ReadError> {
    let damage = |what| ReadError::Damaged { position: piece.position, what };
    let whole = at.checked_add(piece.bytes as usize).filter(|end| *end <= raw.len()).ok_or(damage("entry beyond the read"))?;
    let entry = raw.slice(at..whole);
    open_entry(&entry, 0).map_err(|_| damage("entry checksum"))?;
    batch_at(&entry, piece.base).ok_or(damage("entry is no batch"))
}

/// Takes the first batch off verified bytes.
pub(crate) fn next_batch(rest: &mut Bytes) -> Option<Found> {
    let header = BatchHeader::parse(rest).ok()?;
    let bytes = usize::try_from(header.batch_bytes).ok().filter(|bytes| *bytes <= rest.len())?;
    let base = Offset::from_i64(header.base_offset)?;
    let (end, max_timestamp) = (base.plus(header.offset_count()), header.max_timestamp);
    Some(Found { base, end, max_timestamp, position: Position(0), batch: rest.split_to(bytes) })
}

/// Rows from `from` on: no more than a read can give.
fn row_pieces(partition: &PartitionView, from: Offset, bytes_max: u32) -> Vec<Piece> {
    let index = partition.index();
    let Spot::Row(first) = index.find(from) else { return Vec::new() };
    let mut bytes = 0u64;
    let mut pieces = Vec::new();
    for row in index.rows().range(first..) {
        if bytes > u64::from(bytes_max) {
            break;
        }
        bytes += u64::from(row.bytes);
        pieces.push(Piece::from(row));
    }
    pieces
}

/// The first batch whose largest timestamp is at least `timestamp`.
pub fn first_at_or_after(sources: &Sources, partition: &PartitionView, timestamp: i64) -> Result<Option<FoundBatch>, Refusal> {
    search(sources, partition, |max_timestamp| max_timestamp >= timestamp)
}

/// The first of the batches that have the partition's largest timestamp.
pub fn latest(sources: &Sources, partition: &PartitionView) -> Result<Option<FoundBatch>, Refusal> {
    let index = partition.index();
    let spans = index.spans().iter().map(|span| span.max_timestamp);
    let newest = spans.chain(index.rows().iter().map(|row| row.max_timestamp)).max();
    drop(index);
    match newest {
        Some(newest) => search(sources, partition, |max_timestamp| max_timestamp >= newest),
        None => Ok(None),
    }
}

fn search(sources: &Sources, partition: &PartitionView, wanted: impl Fn(i64) -> bool) -> Result<Option<FoundBatch>, Refusal> {
    for _ in 0..3 {
        match search_once(sources, partition, &wanted) {
            Err(ColdError::Gone) => continue,
            Err(error) => return Err(refused(partition.id, &error)),
            Ok(found) => return Ok(found),
        }
    }
    Err(Refusal::Unavailable)
}

fn search_once(sources: &Sources, partition: &PartitionView, wanted: &dyn Fn(i64) -> bool) -> Result<Option<FoundBatch>, ColdError> {
    let log_start = partition.log_start();
    let spans: Vec<Span> = partition.index().spans().iter().filter(|span| wanted(span.max_timestamp)).copied().collect();
    for span in spans {
        if let Some(found) = sources.search_span(partition.id, &span, log_start, wanted)? {
            return Ok(Some(found));
        }
    }
    let index = partition.index();
    let row = index.rows().iter().find(|row| row.end() > log_start && wanted(row.max_timestamp));
    Ok(row.map(|row| FoundBatch { base_offset: row.base, max_timestamp: row.max_timestamp }))
}

fn refused(partition: PartitionId, error: &ColdError) -> Refusal {
    match error {
        ColdError::Unavailable(_) => {
            tracing::warn!(partition = partition.0, %error, "read refused: the store of segments cannot be reached");
            Refusal::Unavailable
        }
        _ => {
            tracing::error!(partition = partition.0, %error, "read refused: what was stored is damaged");
            Refusal::Damaged
        }
    }
}
