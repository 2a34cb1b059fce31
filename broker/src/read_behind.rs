//! Reads from extents, on a thread that may block.

use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::refusal::Refusal;
use firth_gateway::view::{FoundBatch, Records};
use firth_journal::entry::{batch_of, open_entry};
use firth_journal::reader::{ReadError, Reader};
use firth_model::ids::{Offset, PartitionId, Position};

use crate::index::{Row, Span, Spot};
use crate::partition_view::PartitionView;

/// Neighbouring entries closer than this are read at once: reading over a gap is cheaper than another read.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// Largest single read: long enough to run at the disk's sequential rate.
const RUN_BYTES_MAX: u64 = 1 << 20;

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
/// A trim or a recycled extent may overtake this read; it is then tried again from what is left, or refused as out of range.
pub fn batches(reader: &Arc<Reader>, partition: &PartitionView, from: Offset, bytes_max: u32) -> Result<Records, Refusal> {
    for _ in 0..3 {
        let (log_start, end) = (partition.log_start(), partition.durable_end());
        if from < log_start || from > end {
            return Err(Refusal::OffsetOutOfRange { log_start, end });
        }
        match read_once(reader, partition, from, bytes_max) {
            Err(ReadError::Gone) => continue,
            Err(error) => return Err(damaged(partition.id, &error)),
            Ok(records) => return Ok(records),
        }
    }
    Err(Refusal::Overloaded)
}

fn read_once(reader: &Arc<Reader>, partition: &PartitionView, from: Offset, bytes_max: u32) -> Result<Records, ReadError> {
    let spot = partition.index().find(from);
    let pieces = match spot {
        Spot::End => return Ok(Records::default()),
        Spot::Span(span) => span_pieces(reader, partition.id, &span)?,
        Spot::Row(_) => row_pieces(partition, from, bytes_max),
    };
    let first = pieces.partition_point(|piece| piece.end <= from);
    let mut records = Records::default();
    let mut at = first;
    while at < pieces.len() {
        let room = u64::from(bytes_max).saturating_sub(records.bytes as u64);
        let taken = run_length(&pieces[at..], room, records.batches.is_empty());
        if taken == 0 {
            break;
        }
        let run = &pieces[at..at + taken];
        read_run(reader, run, &mut records)?;
        at += taken;
    }
    Ok(records)
}

/// How many of the pieces to read at once: neighbours of one extent, within the room that is left. `first`: one goes whatever its size.
fn run_length(pieces: &[Piece], room: u64, first: bool) -> usize {
    let Some(head) = pieces.first() else { return 0 };
    if u64::from(head.bytes) > room && !first {
        return 0;
    }
    let mut wanted = u64::from(head.bytes);
    let mut end = head.position.0 + wanted;
    let mut count = 1;
    for piece in &pieces[1..] {
        wanted += u64::from(piece.bytes);
        let near = piece.position.0.checked_sub(end).is_some_and(|gap| gap <= GAP_BYTES_MAX);
        end = piece.position.0 + u64::from(piece.bytes);
        if !near || wanted > room || end - head.position.0 > RUN_BYTES_MAX {
            break;
        }
        count += 1;
    }
    count
}

fn read_run(reader: &Reader, run: &[Piece], records: &mut Records) -> Result<(), ReadError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
    let bytes = last.position.0 + u64::from(last.bytes) - first.position.0;
    let bytes = u32::try_from(bytes).map_err(|_| ReadError::Damaged { position: first.position, what: "run too long" })?;
    let raw = reader.read(first.position, bytes)?;
    for piece in run {
        let at = usize::try_from(piece.position.0 - first.position.0).unwrap_or(usize::MAX);
        let batch = verified(&raw, at, piece)?;
        records.push(batch);
    }
    Ok(())
}

fn verified(raw: &Bytes, at: usize, piece: &Piece) -> Result<Bytes, ReadError> {
    let damage = |what| ReadError::Damaged { position: piece.position, what };
    let whole = at.checked_add(piece.bytes as usize).filter(|end| *end <= raw.len()).ok_or(damage("entry beyond the read"))?;
    let entry = raw.slice(at..whole);
    open_entry(&entry, 0).map_err(|_| damage("entry checksum"))?;
    batch_of(&entry).ok_or(damage("entry is no batch"))
}

fn span_pieces(reader: &Reader, partition: PartitionId, span: &Span) -> Result<Vec<Piece>, ReadError> {
    let directory = reader.directory(span.extent)?;
    let pieces = directory.rows(partition).iter().map(|located| Piece {
        base: located.row.base_offset,
        end: located.row.base_offset.plus(u64::from(located.row.records)),
        position: located.position,
        bytes: located.bytes,
        max_timestamp: located.row.max_timestamp,
    });
    Ok(pieces.collect())
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
pub fn first_at_or_after(reader: &Arc<Reader>, partition: &PartitionView, timestamp: i64) -> Result<Option<FoundBatch>, Refusal> {
    search(reader, partition, |max_timestamp| max_timestamp >= timestamp)
}

/// The first of the batches that have the partition's largest timestamp.
pub fn latest(reader: &Arc<Reader>, partition: &PartitionView) -> Result<Option<FoundBatch>, Refusal> {
    let index = partition.index();
    let spans = index.spans().iter().map(|span| span.max_timestamp);
    let newest = spans.chain(index.rows().iter().map(|row| row.max_timestamp)).max();
    drop(index);
    match newest {
        Some(newest) => search(reader, partition, |max_timestamp| max_timestamp >= newest),
        None => Ok(None),
    }
}

fn search(reader: &Arc<Reader>, partition: &PartitionView, wanted: impl Fn(i64) -> bool) -> Result<Option<FoundBatch>, Refusal> {
    let log_start = partition.log_start();
    let spans: Vec<Span> = partition.index().spans().iter().filter(|span| wanted(span.max_timestamp)).copied().collect();
    let live = |piece: &Piece| piece.end > log_start && wanted(piece.max_timestamp);
    let found = |piece: &Piece| FoundBatch { base_offset: piece.base, max_timestamp: piece.max_timestamp };
    for span in spans {
        match span_pieces(reader, partition.id, &span) {
            Ok(pieces) => {
                if let Some(piece) = pieces.iter().find(|piece| live(piece)) {
                    return Ok(Some(found(piece)));
                }
            }
            // Trimmed meanwhile: what was in it is no answer any more.
            Err(ReadError::Gone) => continue,
            Err(error) => return Err(damaged(partition.id, &error)),
        }
    }
    let index = partition.index();
    Ok(index.rows().iter().map(Piece::from).find(|piece| live(piece)).map(|piece| found(&piece)))
}

fn damaged(partition: PartitionId, error: &ReadError) -> Refusal {
    tracing::error!(partition = partition.0, %error, "read refused: the journal is damaged");
    Refusal::Damaged
}
