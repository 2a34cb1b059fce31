//! What checkpoints keep of last values, and its bytes.
//!
//! Numbers in keys are big endian, in values little endian; the first byte of a key is its kind and the first byte of a value its
//! version. Persisted: never reuse either.
//!
//! ```text
//! key                                value
//! 0x31  stream 16, partition u32     the offset up to which the partition was read, u64
//! 0x32  stream 16, text of subject   where its newest record lies: partition u32, offset u64, position u64, time i64, gone u8
//! ```

use bytes::Bytes;

use firth_model::ids::{Offset, PartitionId, Position, StreamId};
use firth_model::time::Millis;

use crate::layout::{Reader, StateDamage, Writer, begin_value, open_value};

const READ: u8 = 0x31;
const LAST: u8 = 0x32;

/// Where the newest record of a subject lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    pub partition: PartitionId,
    pub offset: Offset,
    /// Where the journal had it when it was found; 0 if it was in a segment by then.
    pub position: Position,
    /// What the record says.
    pub time: Millis,
    /// It says that the subject has no value. Remembered while older records of other partitions may come.
    pub gone: bool,
}

impl Last {
    /// By the order of the journal; of two that it had no more, by their times.
    pub fn is_newer_than(&self, other: &Last) -> bool {
        if self.partition == other.partition {
            return self.offset > other.offset;
        }
        (self.position, self.time) > (other.position, other.time)
    }
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastEffect {
    pub stream: StreamId,
    pub what: LastChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastChange {
    ReadTo { partition: PartitionId, next: Option<Offset> },
    Newest { subject: Bytes, last: Option<Last> },
}

impl LastEffect {
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = Writer::default();
        match &self.what {
            LastChange::ReadTo { partition, next } => {
                key.u8(READ).raw(self.stream.0.as_bytes()).raw(&partition.0.to_be_bytes());
                (key.done(), next.map(|next| begin_value().u64(next.0).done()))
            }
            LastChange::Newest { subject, last } => {
                key.u8(LAST).raw(self.stream.0.as_bytes()).raw(subject);
                (key.done(), last.as_ref().map(encode_last))
            }
        }
    }

    pub fn decode(key: &[u8], value: Option<&Bytes>) -> Result<LastEffect, StateDamage> {
        let mut from = Reader::of(key);
        let kind = from.u8()?;
        let stream = StreamId(uuid::Uuid::from_bytes(from.sixteen()?));
        let what = match kind {
            READ => {
                let partition = PartitionId(from.u32()?.swap_bytes());
                from.end()?;
                let next = value.map(|value| open_value(value)?.u64().map(Offset)).transpose()?;
                LastChange::ReadTo { partition, next }
            }
            LAST => {
                let subject = Bytes::copy_from_slice(&key[17..]);
                LastChange::Newest { subject, last: value.map(|value| decode_last(value)).transpose()? }
            }
            _ => return Err(StateDamage { what: "unknown kind of last value" }),
        };
        Ok(LastEffect { stream, what })
    }
}

fn encode_last(last: &Last) -> Bytes {
    let mut out = begin_value();
    out.u32(last.partition.0).u64(last.offset.0).u64(last.position.0).i64(last.time.0).u8(u8::from(last.gone)).done()
}

fn decode_last(value: &[u8]) -> Result<Last, StateDamage> {
    let mut from = open_value(value)?;
    let (partition, offset) = (PartitionId(from.u32()?), Offset(from.u64()?));
    let last = Last { partition, offset, position: Position(from.u64()?), time: Millis(from.i64()?), gone: from.u8()? != 0 };
    from.end()?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// These bytes are on the disks of users: a change here needs a new version byte and both readers.
    #[test]
    fn last_values_keep_their_bytes() {
        let stream = StreamId(uuid::Uuid::from_u128(7));
        let last = Last { partition: PartitionId(258), offset: Offset(9), position: Position(70_000), time: Millis(-1), gone: true };
        let subject = Bytes::from_static(b"a/b");
        let effects = [
            LastChange::ReadTo { partition: PartitionId(258), next: Some(Offset(10)) },
            LastChange::ReadTo { partition: PartitionId(258), next: None },
            LastChange::Newest { subject: subject.clone(), last: Some(last) },
            LastChange::Newest { subject, last: None },
        ]
        .map(|what| LastEffect { stream, what });
        let stored: Vec<(String, Option<String>)> =
            effects.iter().map(LastEffect::encode).map(|(key, value)| (hex(&key), value.map(|value| hex(&value)))).collect();
        let id = "00000000000000000000000000000007";
        let value = "01 02010000 0900000000000000 7011010000000000 ffffffffffffffff 01".replace(' ', "");
        let expected = [
            (format!("31{id}00000102"), Some("010a00000000000000".to_owned())),
            (format!("31{id}00000102"), None),
            (format!("32{id}612f62"), Some(value)),
            (format!("32{id}612f62"), None),
        ];
        assert_eq!(stored, expected);
        for effect in effects {
            let (key, value) = effect.encode();
            assert_eq!(LastEffect::decode(&key, value.as_ref()), Ok(effect));
            if let Some(value) = value {
                (0..value.len()).for_each(|cut| assert!(LastEffect::decode(&key, Some(&value.slice(..cut))).is_err()));
            }
            (0..17).for_each(|cut| assert!(LastEffect::decode(&key[..cut], None).is_err()));
        }
    }

    #[test]
    fn newer_is_what_the_journal_has_later() {
        let at = |partition, offset, position, time| Last {
            partition: PartitionId(partition),
            offset: Offset(offset),
            position: Position(position),
            time: Millis(time),
            gone: false,
        };
        assert!(at(1, 5, 0, 0).is_newer_than(&at(1, 4, 90, 90)), "in one partition the offset says it");
        assert!(at(1, 5, 80, 1).is_newer_than(&at(2, 9, 70, 2)));
        assert!(at(1, 5, 80, 1).is_newer_than(&at(2, 9, 0, 2)), "what lies in a segment is older");
        assert!(at(1, 5, 0, 3).is_newer_than(&at(2, 9, 0, 2)));
    }
}
