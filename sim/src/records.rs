//! Records with keys and ends, each of which says who made it.

use bytes::Bytes;

use firth_journal::simdisk::Dice;
use firth_model::batch::Batch;
use firth_model::batch_builder::{BatchBuilder, Draft, Producer};
use firth_model::compression::Codec;
use firth_model::expiry::{EXPIRES_AT, expires_at};
use firth_model::ids::Offset;
use firth_model::record_reader::RecordReader;
use firth_model::time::Millis;

use crate::batches::Mark;

/// Keys that most records have one of, and those that the others have one of.
const KEYS_OFTEN: u64 = 5;
const KEYS_SELDOM: u64 = 60;
/// A record that expires does so within this long.
const TTL_MS: u64 = 15_000;
const MARK_HEADER: &str = "mark";
const UNFOLDED_BYTES_MAX: u64 = 1 << 20;

/// How a producer makes the records of a batch: the same recipe makes the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub seed: u64,
    /// The true time when they are made.
    pub made: Millis,
    /// One record in so many expires.
    pub one_expires_in: u64,
}

/// One record, as it was made or as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Its own: the sequence is that of its batch and its place in it.
    pub mark: Mark,
    pub made: Millis,
    pub key: u64,
    /// `None`: its key is deleted.
    pub value_bytes: Option<usize>,
    pub expires: Option<Millis>,
}

impl Recipe {
    /// The records of the batch that begins with `mark`, of about `filling` bytes.
    pub fn records(&self, mark: Mark, count: i32, filling: usize) -> Vec<Keyed> {
        let mut dice = Dice(self.seed);
        let record = |at: i32| Keyed {
            mark: Mark { sequence: mark.sequence + at, ..mark },
            made: self.made,
            key: if dice.below(4) > 0 { dice.below(KEYS_OFTEN) } else { dice.below(KEYS_SELDOM) },
            value_bytes: (dice.below(4) > 0).then_some(filling / count.unsigned_abs() as usize),
            expires: (dice.below(self.one_expires_in) == 0).then(|| self.made.plus(dice.below(TTL_MS).cast_signed())),
        };
        (0..count).map(record).collect()
    }

    /// Their batch, and which of them expire when.
    pub fn batch(&self, mark: Mark, count: i32, filling: usize) -> (Batch, Vec<(u32, Millis)>) {
        let records = self.records(mark, count, filling);
        let codec = if self.seed.is_multiple_of(3) { Codec::Lz4 } else { Codec::None };
        let producer = Producer { id: mark.producer, epoch: 0, base_sequence: mark.sequence };
        let builder = records.iter().fold(BatchBuilder::with_codec(codec).producer(producer), add);
        let expires = (0..).zip(&records).filter_map(|(at, record)| Some((at, record.expires?))).collect();
        (Batch::check(builder.build()).expect("made well"), expires)
    }
}

fn add(builder: BatchBuilder, record: &Keyed) -> BatchBuilder {
    let Mark { producer, sequence } = record.mark;
    let mark = [&producer.to_be_bytes()[..], &sequence.to_be_bytes()].concat();
    let (key, value) = (record.key.to_be_bytes(), record.value_bytes.map(|bytes| vec![sequence as u8; bytes]));
    let expires = record.expires.map(|at| at.0.to_string());
    let mut headers = vec![(MARK_HEADER, Some(&mark[..]))];
    if let Some(expires) = &expires {
        headers.push((std::str::from_utf8(EXPIRES_AT).expect("ASCII"), Some(expires.as_bytes())));
    }
    builder.record(Draft { timestamp: record.made.0, key: Some(&key), value: value.as_deref(), headers: &headers })
}

/// The records that are left of a stored batch. `None` if they are not as somebody made them.
pub fn read(batch: &Batch) -> Option<Vec<(Offset, Keyed)>> {
    let base = Offset::from_i64(batch.header.base_offset)?;
    let mut records = Vec::new();
    for record in RecordReader::over(batch, UNFOLDED_BYTES_MAX).ok()? {
        let record = record.ok()?;
        let header = |name: &[u8]| record.headers.iter().find(|(other, _)| *other == name)?.1.clone();
        let mark = header(MARK_HEADER.as_bytes())?;
        let producer = i64::from_be_bytes(mark.get(..8)?.try_into().ok()?);
        let sequence = i32::from_be_bytes(mark.get(8..)?.try_into().ok()?);
        let sequence_by_batch = batch.header.base_sequence + record.offset_delta;
        if (producer, sequence) != (batch.header.producer_id, sequence_by_batch) {
            return None;
        }
        let value = record.value.as_ref();
        if value.is_some_and(|value| value.iter().any(|byte| *byte != sequence as u8)) {
            return None;
        }
        let keyed = Keyed {
            mark: Mark { producer, sequence },
            made: Millis(record.timestamp),
            key: u64::from_be_bytes(record.key?.as_ref().try_into().ok()?),
            value_bytes: value.map(Bytes::len),
            expires: header(EXPIRES_AT).as_deref().and_then(expires_at),
        };
        records.push((base.plus(u64::try_from(record.offset_delta).ok()?), keyed));
    }
    Some(records)
}
