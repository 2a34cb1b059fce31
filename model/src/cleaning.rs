//! Stored batches without some of their records.
//!
//! Offsets never change: a batch that lost records still covers all its offsets, and readers step over the gaps. What a compacted
//! stream keeps is `Round::verdict`. Source of the rules: Apache Kafka's documentation, "Log Compaction" in the chapter on its design,
//! and KIP-534 for the delete horizon.

use std::fmt;

use bytes::Bytes;

use crate::batch::{Batch, BatchError, BatchHeader, CONTROL, DELETE_HORIZON, HEADER_BYTES, LOG_APPEND_TIME, TRANSACTIONAL, seal};
use crate::batch_builder::put_varying;
use crate::compression::{Codec, fold};
use crate::key_map::KeyMap;
use crate::record_reader::unfold;
use crate::walk::{Span, Walk, WalkError};

/// Uncompressed bytes of one batch at most. No batch with more is stored.
const UNFOLDED_BYTES_MAX: u64 = 64 << 20;
/// Where the fields lie that are written anew.
const LENGTH_AT: usize = 8;
const ATTRIBUTES_AT: usize = 21;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const RECORD_COUNT_AT: usize = 57;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Remove,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// It stays as it is.
    Whole,
    /// This batch replaces it: the same offsets, fewer records or a delete horizon.
    Rewritten(Bytes),
    /// No record is left. `empty` makes what may stand in its place.
    Gone,
}

/// Why bytes could not be cleaned. Stored batches were walked before, so this is damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanError {
    Batch(BatchError),
    /// No codec has these attribute bits.
    Codec(i16),
    Body(WalkError),
}

impl fmt::Display for CleanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CleanError::Batch(error) => write!(f, "no batch: {error:?}"),
            CleanError::Codec(bits) => write!(f, "no codec has the bits {bits}"),
            CleanError::Body(error) => write!(f, "no records: {error:?}"),
        }
    }
}

impl std::error::Error for CleanError {}

impl From<WalkError> for CleanError {
    fn from(error: WalkError) -> CleanError {
        CleanError::Body(error)
    }
}

/// One record, as the verdict on it needs it.
#[derive(Clone, Copy, Debug)]
pub struct RecordSeen<'a> {
    pub offset: u64,
    /// Milliseconds since 1970, as readers see it.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    /// Whether its value is null: says that the key is deleted.
    pub is_tombstone: bool,
    /// From when on its batch's tombstones may go, in milliseconds since 1970; `None` until a first cleaning kept one.
    pub delete_horizon: Option<i64>,
    headers: &'a [(Span, Option<Span>)],
    plain: &'a [u8],
}

impl<'a> RecordSeen<'a> {
    /// Keys and values of its headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a {
        let plain = self.plain;
        self.headers.iter().map(move |(key, value)| (part(plain, *key), value.map(|value| part(plain, value))))
    }
}

/// One round of compacting a partition, up to an offset.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The latest offset of every key below `until`; keys that earlier rounds settled and nobody wrote since may be missing.
    pub keys: &'a KeyMap,
    /// Records from here on are kept.
    pub until: u64,
    /// The last record of the partition is kept, whatever it is.
    pub last: u64,
    /// Milliseconds since 1970.
    pub now: i64,
}

impl Round<'_> {
    /// Keeps the newest record of each key. A tombstone goes once its batch's horizon has come. A record without a key goes, as in
    /// Apache Kafka: nothing could ever replace it; such records were written before the stream was compacted.
    pub fn verdict(&self, record: &RecordSeen<'_>) -> Verdict {
        if record.offset >= self.until || record.offset == self.last {
            return Verdict::Keep;
        }
        let Some(key) = record.key else { return Verdict::Remove };
        let is_replaced = self.keys.latest(key).is_some_and(|latest| latest > record.offset);
        let is_over = record.is_tombstone && record.delete_horizon.is_some_and(|horizon| self.now >= horizon);
        if is_replaced || is_over { Verdict::Remove } else { Verdict::Keep }
    }
}

/// Asks `decide` about each record of a stored batch, in order, and gives what is left of it. The rest of the batch keeps its offsets,
/// its producer's fields and its codec; readers see the records that stay unchanged. Markers and batches of transactions stay
/// whole, unasked.
///
/// A batch that keeps tombstones and has no delete horizon gets `horizon`, if one is given: the time of this cleaning plus what the
/// stream allows for deletes. It is written where the base timestamp was (KIP-534), and the records' own times relative to it.
///
/// `batch` is exactly one batch with its stored prefix, its checksum verified by whoever read it.
pub fn clean(batch: &Bytes, horizon: Option<i64>, decide: &mut dyn FnMut(&RecordSeen<'_>) -> Verdict) -> Result<Cleaned, CleanError> {
    let batch = Batch::trust(batch.clone()).map_err(CleanError::Batch)?;
    let header = &batch.header;
    if header.attributes & (CONTROL | TRANSACTIONAL) != 0 {
        return Ok(Cleaned::Whole);
    }
    let (codec, plain) = plain_records(&batch)?;
    let kept = sift(header, &plain, decide)?;
    let horizon = horizon.filter(|_| kept.tombstones && header.attributes & DELETE_HORIZON == 0);
    match (kept.records.len(), horizon) {
        (0, _) => Ok(Cleaned::Gone),
        (count, None) if count as u64 == kept.seen => Ok(Cleaned::Whole),
        _ => rewrite(&batch, codec, &plain, &kept, horizon).map(Cleaned::Rewritten),
    }
}

/// Shows every record of a stored batch to `see`, as `clean` would. Markers and batches of transactions too.
pub fn look(batch: &Bytes, see: &mut dyn FnMut(&RecordSeen<'_>)) -> Result<(), CleanError> {
    let batch = Batch::trust(batch.clone()).map_err(CleanError::Batch)?;
    let (_, plain) = plain_records(&batch)?;
    sift(&batch.header, &plain, &mut |record| {
        see(record);
        Verdict::Remove
    })
    .map(|_| ())
}

/// A batch without records that covers the offsets of `batch`, so that readers step over them and the producer's last sequence is
/// still there. `batch` may be its first 61 bytes only.
pub fn empty(batch: &[u8]) -> Result<Bytes, CleanError> {
    let header = BatchHeader::parse(batch).map_err(CleanError::Batch)?;
    let mut out = batch[..HEADER_BYTES].to_vec();
    let attributes = header.attributes & (LOG_APPEND_TIME | TRANSACTIONAL | CONTROL);
    put(&mut out, LENGTH_AT, &(HEADER_BYTES as i32 - 12).to_be_bytes());
    put(&mut out, ATTRIBUTES_AT, &attributes.to_be_bytes());
    put(&mut out, BASE_TIMESTAMP_AT, &(-1i64).to_be_bytes());
    put(&mut out, RECORD_COUNT_AT, &0i32.to_be_bytes());
    seal(&mut out);
    Ok(Bytes::from(out))
}

/// What is left of a batch's records.
#[derive(Default)]
struct Kept {
    records: Vec<Place>,
    /// How many there were.
    seen: u64,
    tombstones: bool,
    max_timestamp: i64,
}

/// Where a kept record lies, and its time.
struct Place {
    start: usize,
    end: usize,
    timestamp: i64,
}

fn plain_records(batch: &Batch) -> Result<(Codec, Bytes), CleanError> {
    let codec = Codec::of(batch.header.attributes).map_err(CleanError::Codec)?;
    let body = batch.bytes().slice(HEADER_BYTES..);
    let plain = match codec {
        Codec::None => body,
        // An empty batch has no frame of its codec either.
        _ if body.is_empty() => body,
        codec => unfold(codec, &body, UNFOLDED_BYTES_MAX)?,
    };
    Ok((codec, plain))
}

fn sift(header: &BatchHeader, plain: &[u8], decide: &mut dyn FnMut(&RecordSeen<'_>) -> Verdict) -> Result<Kept, CleanError> {
    let malformed = |at, what| CleanError::Body(WalkError::Malformed { at, what });
    let base_offset = u64::try_from(header.base_offset).map_err(|_| malformed(0, "negative offset"))?;
    let append_time = (header.attributes & LOG_APPEND_TIME != 0).then_some(header.max_timestamp);
    let delete_horizon = (header.attributes & DELETE_HORIZON != 0).then_some(header.base_timestamp);
    let mut walk = Walk::over(plain, plain.len() as u64);
    let mut kept = Kept { max_timestamp: i64::MIN, ..Kept::default() };
    let mut headers = Vec::new();
    let mut next_delta = 0;
    for _ in 0..header.record_count {
        let start = walk.at() as usize;
        headers.clear();
        let step = walk.step(|key, value| headers.push((key, value)))?;
        if !(next_delta..=header.last_offset_delta).contains(&step.offset_delta) {
            return Err(malformed(start as u64, "offsets do not rise within the batch"));
        }
        next_delta = step.offset_delta.saturating_add(1);
        let timestamp = header.base_timestamp.wrapping_add(step.timestamp_delta);
        let record = RecordSeen {
            offset: base_offset.saturating_add(u64::from(step.offset_delta.unsigned_abs())),
            timestamp: append_time.unwrap_or(timestamp),
            key: step.key.map(|key| part(plain, key)),
            is_tombstone: step.value.is_none(),
            delete_horizon,
            headers: &headers,
            plain,
        };
        kept.seen += 1;
        if decide(&record) == Verdict::Keep {
            kept.records.push(Place { start, end: walk.at() as usize, timestamp });
            kept.tombstones |= step.value.is_none();
            kept.max_timestamp = kept.max_timestamp.max(timestamp);
        }
    }
    if walk.is_at_end()? { Ok(kept) } else { Err(malformed(walk.at(), "bytes after the last record")) }
}

fn rewrite(batch: &Batch, codec: Codec, plain: &[u8], kept: &Kept, horizon: Option<i64>) -> Result<Bytes, CleanError> {
    let mut records = Vec::with_capacity(plain.len());
    for place in &kept.records {
        let record = &plain[place.start..place.end];
        match horizon {
            None => records.extend_from_slice(record),
            Some(horizon) => put_with_delta(&mut records, record, place.timestamp.wrapping_sub(horizon)),
        }
    }
    let header = &batch.header;
    let mut out = batch.bytes()[..HEADER_BYTES].to_vec();
    out.extend_from_slice(&fold(codec, &records));
    let malformed = |what| CleanError::Batch(BatchError::Malformed(what));
    let length = i32::try_from(out.len() - 12).map_err(|_| malformed("batch beyond 2 GiB"))?;
    let count = i32::try_from(kept.records.len()).map_err(|_| malformed("more records than offsets"))?;
    put(&mut out, LENGTH_AT, &length.to_be_bytes());
    put(&mut out, RECORD_COUNT_AT, &count.to_be_bytes());
    if header.attributes & LOG_APPEND_TIME == 0 {
        put(&mut out, MAX_TIMESTAMP_AT, &kept.max_timestamp.to_be_bytes());
    }
    if let Some(horizon) = horizon {
        put(&mut out, ATTRIBUTES_AT, &(header.attributes | DELETE_HORIZON).to_be_bytes());
        put(&mut out, BASE_TIMESTAMP_AT, &horizon.to_be_bytes());
    }
    seal(&mut out);
    Ok(Bytes::from(out))
}

/// Adds a record that was walked, with another timestamp delta.
fn put_with_delta(out: &mut Vec<u8>, record: &[u8], delta: i64) {
    let attributes_at = varying_end(record, 0);
    let rest_at = varying_end(record, attributes_at + 1);
    let mut front = vec![record[attributes_at]];
    put_varying(&mut front, delta);
    put_varying(out, (front.len() + record.len() - rest_at) as i64);
    out.extend_from_slice(&front);
    out.extend_from_slice(&record[rest_at..]);
}

/// Where the variable-length number at `at` ends: behind the first byte without the highest bit.
fn varying_end(record: &[u8], at: usize) -> usize {
    at + 1 + record[at..].iter().take_while(|byte| **byte & 0x80 != 0).count()
}

fn part(plain: &[u8], span: Span) -> &[u8] {
    let at = usize::try_from(span.at).expect("the walk went past it");
    &plain[at..at + span.bytes as usize]
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests;
