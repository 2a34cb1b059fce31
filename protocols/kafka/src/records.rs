//! Whether a produced batch holds what its header says.

use std::io::BufRead;
use std::ops::RangeInclusive;

use firth_gateway::message::SUBJECT_HEADER;
use firth_model::batch::{Batch, BatchHeader, CONTROL, DELETE_HORIZON, HEADER_BYTES, LOG_APPEND_TIME, TRANSACTIONAL};
use firth_model::compression::{Codec, unfolding};
use firth_model::expiry::{EXPIRES_AT, expires_at};
use firth_model::time::Millis;
use firth_model::walk::{Walk, WalkError};

/// Uncompressed bytes of one batch that are walked at most: bounds the processor time that a small batch can take.
pub const UNFOLDED_BYTES_MAX: u64 = 64 << 20;
/// Faults that are told of one batch; a client shows one.
pub const FAULTS_MAX: usize = 100;

/// What a topic asks of the records it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRules {
    pub unfolded_bytes_max: u64,
    pub keys: Keys,
    /// Milliseconds since 1970 that a record's time may have; `None` where the log gives the time. A record without a time
    /// (-1) always passes.
    pub times: Option<RangeInclusive<i64>>,
}

impl Default for RecordRules {
    fn default() -> RecordRules {
        RecordRules { unfolded_bytes_max: UNFOLDED_BYTES_MAX, keys: Keys::Optional, times: None }
    }
}

/// Whether records need keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Optional,
    /// In a compacted topic, where a record without one could never be replaced.
    Required,
}

/// What the walk found out about a good batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub codec: Codec,
    /// The largest time of a record. The header's may differ, if its producer was careless.
    pub max_timestamp: i64,
    /// Offset of the first record with that time, counted from the batch's first.
    pub max_timestamp_delta: i32,
    pub unfolded_bytes: u64,
    /// Records with a header `expires-at` that names a moment: their offset counted from the batch's first, rising, and the moment. Of
    /// several such headers the last counts.
    pub expires: Vec<(u32, Millis)>,
    /// A record says under which subject it is published.
    pub names_subject: bool,
}

/// Why a batch is refused. Kafka's code for most is INVALID_RECORD or CORRUPT_MESSAGE; the session decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordsError {
    /// No records, or not as many as offsets.
    Count {
        record_count: i32,
        last_offset_delta: i32,
    },
    /// Markers are written by servers only.
    Control,
    /// Transactions are not served.
    Transactional,
    /// The log gives its own time; a producer may not say that it did.
    AppendTime,
    /// When deletes may go is the log's to say.
    DeleteHorizon,
    /// A producer id without a sequence number.
    Sequence(i32),
    /// No codec has these attribute bits.
    Codec(i16),
    Body(WalkError),
    /// These records break a rule of the topic; the first `FAULTS_MAX`, in order.
    Refused(Vec<RecordFault>),
}

/// A record that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// Position in the batch, from 0.
    pub index: i32,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    NoKey,
    /// Milliseconds since 1970, outside of what the topic takes.
    Time(i64),
}

impl From<WalkError> for RecordsError {
    fn from(error: WalkError) -> RecordsError {
        RecordsError::Body(error)
    }
}

/// Walks every record of a batch that a producer sent. The checksum was verified by `Batch::check`.
pub fn check_records(batch: &Batch, rules: &RecordRules) -> Result<Summary, RecordsError> {
    let codec = check_header(&batch.header)?;
    let body = &batch.bytes()[HEADER_BYTES..];
    if codec == Codec::None {
        return check_body(Walk::over(body, rules.unfolded_bytes_max), &batch.header, codec, rules);
    }
    let unfolding = unfolding(codec, body, rules.unfolded_bytes_max).map_err(|_| WalkError::Folding)?;
    check_body(Walk::over(unfolding, rules.unfolded_bytes_max), &batch.header, codec, rules)
}

fn check_header(header: &BatchHeader) -> Result<Codec, RecordsError> {
    let BatchHeader { attributes, record_count, last_offset_delta, .. } = *header;
    if record_count < 1 || record_count - 1 != last_offset_delta {
        return Err(RecordsError::Count { record_count, last_offset_delta });
    }
    if attributes & CONTROL != 0 {
        return Err(RecordsError::Control);
    }
    if attributes & TRANSACTIONAL != 0 {
        return Err(RecordsError::Transactional);
    }
    if attributes & LOG_APPEND_TIME != 0 {
        return Err(RecordsError::AppendTime);
    }
    if attributes & DELETE_HORIZON != 0 {
        return Err(RecordsError::DeleteHorizon);
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return Err(RecordsError::Sequence(header.base_sequence));
    }
    Codec::of(attributes).map_err(RecordsError::Codec)
}

fn check_body(mut walk: Walk<impl BufRead>, header: &BatchHeader, codec: Codec, rules: &RecordRules) -> Result<Summary, RecordsError> {
    let mut latest: Option<(i64, i32)> = None;
    let mut faults = Vec::new();
    let mut expires = Vec::new();
    let mut names_subject = false;
    for index in 0..header.record_count {
        let at = walk.at();
        let mut moment = None;
        let step = walk.step_watching([EXPIRES_AT, SUBJECT_HEADER.as_bytes()], |which, value| match which {
            0 => moment = value.and_then(expires_at).or(moment),
            _ => names_subject = true,
        })?;
        if step.offset_delta != index {
            return Err(WalkError::Malformed { at, what: "offsets are not consecutive" }.into());
        }
        let Some(timestamp) = header.base_timestamp.checked_add(step.timestamp_delta) else {
            return Err(WalkError::Malformed { at, what: "time beyond 64 bits" }.into());
        };
        if let Some(moment) = moment {
            expires.push((index.unsigned_abs(), moment));
        }
        if latest.is_none_or(|(largest, _)| timestamp > largest) {
            latest = Some((timestamp, index));
        }
        let no_key = rules.keys == Keys::Required && step.key.is_none();
        let out_of_time = timestamp != -1 && rules.times.as_ref().is_some_and(|times| !times.contains(&timestamp));
        if (no_key || out_of_time) && faults.len() < FAULTS_MAX {
            let kind = if no_key { FaultKind::NoKey } else { FaultKind::Time(timestamp) };
            faults.push(RecordFault { index, kind });
        }
    }
    if !walk.is_at_end()? {
        return Err(WalkError::Malformed { at: walk.at(), what: "bytes after the last record" }.into());
    }
    if !faults.is_empty() {
        return Err(RecordsError::Refused(faults));
    }
    let (max_timestamp, max_timestamp_delta) = latest.unwrap_or((-1, 0));
    Ok(Summary { codec, max_timestamp, max_timestamp_delta, unfolded_bytes: walk.at(), expires, names_subject })
}
