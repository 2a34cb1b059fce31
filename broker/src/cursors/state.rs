//! What is remembered of queue cursors, and its bytes.
//!
//! Every effect is the whole value of one key, so a checkpoint is the newest value of each key. Numbers in keys are big endian, in
//! values little endian; byte strings carry a u32 length; a varint is seven bits a byte, the lowest first, the top bit set on all but the
//! last. The first byte of a key is its kind and the first byte of a value its version. Persisted: never reuse either.
//!
//! ```text
//! key                                       value
//! 0x20  cursor u64                          a cursor: keep u64 (all ones: for ever), detached u8 (0: attached) and, if 1, i64; name
//! 0x21  cursor u64, partition u32           a leg: rule for reserved subjects u8, bound at u64, floor u64, filter, note
//! 0x22  cursor u64, partition u32           what is settled of a leg: floor varint; of each run above it, to the end of the value, how
//!                                           far it begins behind what comes before it, and its length, both varint and neither 0
//! 0x23  cursor u64, partition u32, offset u64  a mark: tag u32, stage u8
//! 0x24  cursor u64, number u32              a note, to the end of the value
//! 0x26  cursor u64, partition u32, offset u64  how often a record was handed out, u32
//! 0x25                                      end of the block of ids that may have been given out, u64
//! ```
//!
//! What belongs to a cursor or a leg goes with it, without deletes of its own in the journal; so do the marks of what is settled.

use bytes::Bytes;

use firth_gateway::cursors::{CursorId, Keep, Mark};
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::layout::{Reader, StateDamage, Writer, begin_value, open_value, reserved_number, reserved_of_number};

const CURSOR: u8 = 0x20;
const LEG: u8 = 0x21;
const SETTLED: u8 = 0x22;
const MARK: u8 = 0x23;
const NOTE: u8 = 0x24;
const IDS: u8 = 0x25;
const ATTEMPTS: u8 = 0x26;

const FOR_EVER: u64 = u64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorRecord {
    pub name: Bytes,
    pub keep: Keep,
    /// Since when, or `None` while it is attached.
    pub detached: Option<Millis>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegRecord {
    pub filter: Filter,
    pub note: Bytes,
    pub bound_at: Position,
    /// Where it begins; of a leg that is there already, its floor.
    pub floor: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorEffect {
    /// Ids below may have been given out.
    ReserveIds {
        end: u64,
    },
    PutCursor {
        cursor: CursorId,
        record: CursorRecord,
    },
    /// With everything that belongs to it.
    DropCursor {
        cursor: CursorId,
    },
    /// A leg, or another note for the one there is.
    PutLeg {
        cursor: CursorId,
        partition: PartitionId,
        leg: Box<LegRecord>,
    },
    DropLeg {
        cursor: CursorId,
        partition: PartitionId,
    },
    /// Instead of what was settled before; marks of what is settled go.
    PutSettled {
        cursor: CursorId,
        partition: PartitionId,
        floor: Offset,
        runs: RunSet,
    },
    PutMark {
        cursor: CursorId,
        partition: PartitionId,
        mark: Mark,
    },
    PutAttempts {
        cursor: CursorId,
        partition: PartitionId,
        offset: Offset,
        attempts: u32,
    },
    PutNote {
        cursor: CursorId,
        number: u32,
        note: Option<Bytes>,
    },
}

impl CursorEffect {
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            CursorEffect::ReserveIds { end } => (Bytes::from_static(&[IDS]), Some(begin_value().u64(*end).done())),
            CursorEffect::PutCursor { cursor, record } => (cursor_key(*cursor), Some(encode_cursor(record))),
            CursorEffect::DropCursor { cursor } => (cursor_key(*cursor), None),
            CursorEffect::PutLeg { cursor, partition, leg } => (leg_key(*cursor, *partition), Some(encode_leg(leg))),
            CursorEffect::DropLeg { cursor, partition } => (leg_key(*cursor, *partition), None),
            CursorEffect::PutSettled { cursor, partition, floor, runs } => {
                (settled_key(*cursor, *partition), Some(encode_settled(*floor, runs)))
            }
            CursorEffect::PutMark { cursor, partition, mark } => {
                (mark_key(*cursor, *partition, mark.offset), Some(begin_value().u32(mark.tag).u8(mark.stage).done()))
            }
            CursorEffect::PutAttempts { cursor, partition, offset, attempts } => {
                (attempts_key(*cursor, *partition, *offset), Some(begin_value().u32(*attempts).done()))
            }
            CursorEffect::PutNote { cursor, number, note } => {
                (note_key(*cursor, *number), note.as_ref().map(|note| begin_value().raw(note).done()))
            }
        }
    }

    /// Reads a key and its value. Never panics; bytes of a newer version are damage to this one.
    pub fn decode(key: &[u8], value: Option<&Bytes>) -> Result<CursorEffect, StateDamage> {
        let mut from = Reader::of(key);
        let kind = from.u8()?;
        if kind == IDS {
            from.end()?;
            let mut value = open_value(value.ok_or(StateDamage { what: "ids of cursors without a value" })?)?;
            let end = value.u64()?;
            value.end()?;
            return Ok(CursorEffect::ReserveIds { end });
        }
        let cursor = CursorId(from.u64()?.swap_bytes());
        if kind == CURSOR {
            from.end()?;
            return Ok(match value {
                Some(value) => CursorEffect::PutCursor { cursor, record: decode_cursor(value)? },
                None => CursorEffect::DropCursor { cursor },
            });
        }
        let second = from.u32()?.swap_bytes();
        if kind == NOTE {
            from.end()?;
            let note = value.map(|value| open_value(value).map(|_| value.slice(1..))).transpose()?;
            return Ok(CursorEffect::PutNote { cursor, number: second, note });
        }
        let partition = PartitionId(second);
        let offset = if matches!(kind, MARK | ATTEMPTS) { Offset(from.u64()?.swap_bytes()) } else { Offset(0) };
        from.end()?;
        match (kind, value) {
            (LEG, Some(value)) => Ok(CursorEffect::PutLeg { cursor, partition, leg: Box::new(decode_leg(value)?) }),
            (LEG, None) => Ok(CursorEffect::DropLeg { cursor, partition }),
            (SETTLED, Some(value)) => {
                let (floor, runs) = decode_settled(value)?;
                Ok(CursorEffect::PutSettled { cursor, partition, floor, runs })
            }
            (MARK, Some(value)) => {
                let mut from = open_value(value)?;
                let mark = Mark { offset, tag: from.u32()?, stage: from.u8()? };
                from.end()?;
                Ok(CursorEffect::PutMark { cursor, partition, mark })
            }
            (ATTEMPTS, Some(value)) => {
                let mut from = open_value(value)?;
                let attempts = from.u32()?;
                from.end()?;
                Ok(CursorEffect::PutAttempts { cursor, partition, offset, attempts })
            }
            _ => Err(StateDamage { what: "unknown kind of cursor key" }),
        }
    }
}

fn key(kind: u8, cursor: CursorId) -> Writer {
    let mut out = Writer::default();
    out.u8(kind).raw(&cursor.0.to_be_bytes());
    out
}

pub fn cursor_key(cursor: CursorId) -> Bytes {
    key(CURSOR, cursor).done()
}

pub fn leg_key(cursor: CursorId, partition: PartitionId) -> Bytes {
    key(LEG, cursor).raw(&partition.0.to_be_bytes()).done()
}

pub fn settled_key(cursor: CursorId, partition: PartitionId) -> Bytes {
    key(SETTLED, cursor).raw(&partition.0.to_be_bytes()).done()
}

pub fn mark_key(cursor: CursorId, partition: PartitionId, offset: Offset) -> Bytes {
    key(MARK, cursor).raw(&partition.0.to_be_bytes()).raw(&offset.0.to_be_bytes()).done()
}

pub fn attempts_key(cursor: CursorId, partition: PartitionId, offset: Offset) -> Bytes {
    key(ATTEMPTS, cursor).raw(&partition.0.to_be_bytes()).raw(&offset.0.to_be_bytes()).done()
}

pub fn note_key(cursor: CursorId, number: u32) -> Bytes {
    key(NOTE, cursor).raw(&number.to_be_bytes()).done()
}

fn encode_cursor(record: &CursorRecord) -> Bytes {
    let mut out = begin_value();
    out.u64(match record.keep {
        Keep::For(ms) => ms.min(FOR_EVER - 1),
        Keep::Ever => FOR_EVER,
    });
    match record.detached {
        Some(at) => out.u8(1).i64(at.0),
        None => out.u8(0),
    };
    out.bytes(&record.name).done()
}

fn decode_cursor(value: &[u8]) -> Result<CursorRecord, StateDamage> {
    let mut from = open_value(value)?;
    let keep = match from.u64()? {
        FOR_EVER => Keep::Ever,
        ms => Keep::For(ms),
    };
    let detached = match from.u8()? {
        0 => None,
        1 => Some(Millis(from.i64()?)),
        _ => return Err(StateDamage { what: "whether a cursor is detached" }),
    };
    let name = Bytes::copy_from_slice(from.bytes()?);
    from.end()?;
    Ok(CursorRecord { name, keep, detached })
}

fn encode_leg(leg: &LegRecord) -> Bytes {
    let reserved = reserved_number(leg.filter.reserved());
    begin_value().u8(reserved).u64(leg.bound_at.0).u64(leg.floor.0).bytes(leg.filter.as_bytes()).bytes(&leg.note).done()
}

fn decode_leg(value: &[u8]) -> Result<LegRecord, StateDamage> {
    let mut from = open_value(value)?;
    let reserved = reserved_of_number(from.u8()?)?;
    let (bound_at, floor) = (Position(from.u64()?), Offset(from.u64()?));
    let text = Bytes::copy_from_slice(from.bytes()?);
    let filter = Filter::from_text(text).map_err(|_| StateDamage { what: "filter of a leg" })?.with_reserved(reserved);
    let note = Bytes::copy_from_slice(from.bytes()?);
    from.end()?;
    Ok(LegRecord { filter, note, bound_at, floor })
}

fn write_varint(out: &mut Writer, mut value: u64) {
    while value >= 0x80 {
        out.u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.u8((value & 0x7f) as u8);
}

fn read_varint(rest: &mut &[u8]) -> Result<u64, StateDamage> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(StateDamage { what: "value ends early" })?;
        *rest = behind;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(StateDamage { what: "varint" })
}

fn encode_settled(floor: Offset, runs: &RunSet) -> Bytes {
    let mut out = begin_value();
    write_varint(&mut out, floor.0);
    let mut behind = floor.0;
    for run in runs.iter() {
        write_varint(&mut out, run.start - behind);
        write_varint(&mut out, run.end - run.start);
        behind = run.end;
    }
    out.done()
}

fn decode_settled(value: &[u8]) -> Result<(Offset, RunSet), StateDamage> {
    open_value(value)?;
    let mut rest = &value[1..];
    let floor = read_varint(&mut rest)?;
    let mut runs = RunSet::default();
    let mut behind = floor;
    while !rest.is_empty() {
        let (gap, length) = (read_varint(&mut rest)?, read_varint(&mut rest)?);
        let start = behind.checked_add(gap);
        let end = start.and_then(|start| start.checked_add(length));
        let (Some(start), Some(end), true) = (start, end, gap > 0 && length > 0) else {
            return Err(StateDamage { what: "run of settled records" });
        };
        runs.insert(start..end);
        behind = end;
    }
    Ok((Offset(floor), runs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use firth_model::filter::Reserved;

    const CURSOR_7: CursorId = CursorId(7);
    const PARTITION_258: PartitionId = PartitionId(258);

    fn samples() -> Vec<CursorEffect> {
        let filter = Filter::parse("a/*/#").expect("a filter").with_reserved(Reserved::DollarHidden);
        let leg = LegRecord { filter, note: Bytes::from_static(b"q1"), bound_at: Position(70_000), floor: Offset(9) };
        let record = |keep, detached| CursorRecord { name: Bytes::from_static(b"mqtt/\xff"), keep, detached };
        let put = |keep, detached| CursorEffect::PutCursor { cursor: CURSOR_7, record: record(keep, detached) };
        let (cursor, partition) = (CURSOR_7, PARTITION_258);
        vec![
            CursorEffect::ReserveIds { end: 2000 },
            put(Keep::For(60_000), None),
            put(Keep::Ever, Some(Millis(-5))),
            CursorEffect::DropCursor { cursor },
            CursorEffect::PutLeg { cursor, partition, leg: Box::new(leg) },
            CursorEffect::DropLeg { cursor, partition },
            CursorEffect::PutSettled { cursor, partition, floor: Offset(300), runs: RunSet::default() },
            CursorEffect::PutSettled { cursor, partition, floor: Offset(300), runs: [302..303, 700..1000].into_iter().collect() },
            CursorEffect::PutMark { cursor, partition, mark: Mark { offset: Offset(301), tag: 65_535, stage: 2 } },
            CursorEffect::PutAttempts { cursor, partition, offset: Offset(301), attempts: 3 },
            CursorEffect::PutNote { cursor, number: 12, note: Some(Bytes::from_static(b"will")) },
            CursorEffect::PutNote { cursor, number: 12, note: Some(Bytes::new()) },
            CursorEffect::PutNote { cursor, number: 12, note: None },
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn effects_survive_their_bytes() {
        for effect in samples() {
            let (key, value) = effect.encode();
            assert_eq!(CursorEffect::decode(&key, value.as_ref()), Ok(effect));
        }
    }

    /// These bytes are on the disks of users: a change here needs a new version byte and both readers.
    #[test]
    fn cursors_keep_their_bytes() {
        let stored: Vec<(String, Option<String>)> =
            samples().iter().map(|effect| effect.encode()).map(|(key, value)| (hex(&key), value.map(|value| hex(&value)))).collect();
        let (cursor, leg) = ("0000000000000007", "000000000000000700000102");
        let name = "060000006d7174742fff";
        let expected = [
            ("25".to_owned(), Some("01d007000000000000".to_owned())),
            (format!("20{cursor}"), Some(format!("0160ea00000000000000{name}"))),
            (format!("20{cursor}"), Some(format!("01ffffffffffffffff01fbffffffffffffff{name}"))),
            (format!("20{cursor}"), None),
            (format!("21{leg}"), Some("010170110100000000000900000000000000 05000000612f2a2f23 020000007131".replace(' ', ""))),
            (format!("21{leg}"), None),
            (format!("22{leg}"), Some("01ac02".to_owned())),
            (format!("22{leg}"), Some("01ac02 0201 8d03ac02".replace(' ', ""))),
            (format!("23{leg}000000000000012d"), Some("01ffff000002".to_owned())),
            (format!("26{leg}000000000000012d"), Some("0103000000".to_owned())),
            (format!("24{cursor}0000000c"), Some("0177696c6c".to_owned())),
            (format!("24{cursor}0000000c"), Some("01".to_owned())),
            (format!("24{cursor}0000000c"), None),
        ];
        assert_eq!(stored, expected);
    }

    #[test]
    fn cut_values_and_keys_are_damage_not_panics() {
        for effect in samples() {
            let (key, value) = effect.encode();
            for cut in 0..key.len() {
                assert!(CursorEffect::decode(&key[..cut], value.as_ref()).is_err(), "{effect:?} cut at {cut}");
            }
            let Some(value) = value else { continue };
            for cut in 0..value.len() {
                // What ends with the value may be shorter, but never without its version.
                let open_ended = matches!(effect, CursorEffect::PutNote { .. } | CursorEffect::PutSettled { .. });
                let cut_value = value.slice(..cut);
                let decoded = CursorEffect::decode(&key, Some(&cut_value));
                assert!(decoded.is_err() || open_ended && cut > 0, "{effect:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn hostile_runs_are_damage() {
        for value in [&b"\x01\x00\x00\x01"[..], b"\x01\x00\x01\x00", b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01\x01"] {
            assert!(decode_settled(value).is_err(), "{value:?}");
        }
        assert!(decode_settled(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02").is_err());
        assert_eq!(decode_settled(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").map(|(floor, _)| floor), Ok(Offset(u64::MAX)));
    }
}
