//! The records of a stored batch, one after another.

use std::io::Read;

use bytes::Bytes;

use crate::batch::{Batch, HEADER_BYTES, LOG_APPEND_TIME};
use crate::compression::{Codec, unfolding};
use crate::walk::{Span, Walk, WalkError};

/// One record; its parts are slices of the batch, or of its uncompressed copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset of the record, counted from the batch's first.
    pub offset_delta: i32,
    /// Milliseconds since 1970; the log's own time where the batch has that.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Why a batch's records cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No codec has these attribute bits.
    Codec(i16),
    Body(WalkError),
}

impl From<WalkError> for ReadError {
    fn from(error: WalkError) -> ReadError {
        ReadError::Body(error)
    }
}

/// Iterates over the records of a batch. Ends after the first error.
#[derive(Debug)]
pub struct RecordReader {
    plain: Bytes,
    at: usize,
    left: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl RecordReader {
    /// Reads any batch, stored or produced. Uncompresses it whole, up to `unfolded_bytes_max` bytes.
    pub fn over(batch: &Batch, unfolded_bytes_max: u64) -> Result<RecordReader, ReadError> {
        let header = batch.header;
        let body = batch.bytes().slice(HEADER_BYTES..);
        let plain = match Codec::of(header.attributes).map_err(ReadError::Codec)? {
            Codec::None => body,
            codec => unfold(codec, &body, unfolded_bytes_max)?,
        };
        let append_time = (header.attributes & LOG_APPEND_TIME != 0).then_some(header.max_timestamp);
        Ok(RecordReader { plain, at: 0, left: header.record_count, base_timestamp: header.base_timestamp, append_time })
    }

    fn record(&mut self) -> Result<Record, WalkError> {
        let rest = self.plain.slice(self.at..);
        let slice = |span: Span| {
            let at = usize::try_from(span.at).expect("the walk went past it");
            rest.slice(at..at + span.bytes as usize)
        };
        let mut headers = Vec::new();
        let mut walk = Walk::over(rest.as_ref(), rest.len() as u64);
        let step = walk.step(|key, value| headers.push((slice(key), value.map(slice))))?;
        self.at += usize::try_from(walk.at()).expect("the walk went that far");
        Ok(Record {
            offset_delta: step.offset_delta,
            timestamp: self.append_time.unwrap_or_else(|| self.base_timestamp.saturating_add(step.timestamp_delta)),
            key: step.key.map(slice),
            value: step.value.map(slice),
            headers,
        })
    }
}

impl Iterator for RecordReader {
    type Item = Result<Record, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            return None;
        }
        let record = self.record();
        self.left = if record.is_ok() { self.left - 1 } else { 0 };
        Some(record)
    }
}

/// Uncompresses the whole of `folded`, up to `bytes_max` bytes.
pub(crate) fn unfold(codec: Codec, folded: &[u8], bytes_max: u64) -> Result<Bytes, WalkError> {
    let mut plain = Vec::new();
    let source = unfolding(codec, folded, bytes_max).map_err(|_| WalkError::Folding)?;
    source.take(bytes_max.saturating_add(1)).read_to_end(&mut plain).map_err(|_| WalkError::Folding)?;
    if plain.len() as u64 > bytes_max {
        return Err(WalkError::TooLarge { bytes_max });
    }
    Ok(Bytes::from(plain))
}
