//! What is left of batches, against Kafka's documented rules.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::batch::{PREFIX_BYTES, prefix, stamp_append_time};
use crate::batch_builder::{BatchBuilder, Draft, Producer};
use crate::ids::{LeaderEpoch, Offset};
use crate::record_reader::{Record, RecordReader};

const DELETE_RETENTION_MS: i64 = 1000;

fn stored(batch: &Bytes, base_offset: u64) -> Bytes {
    let mut out = batch.to_vec();
    let bytes = u32::try_from(out.len()).expect("small");
    out[..PREFIX_BYTES].copy_from_slice(&prefix(Offset(base_offset), bytes, LeaderEpoch(3)));
    Bytes::from(out)
}

fn read(batch: &Bytes) -> Vec<Record> {
    let batch = Batch::check(batch.clone()).expect("a sealed batch");
    if batch.header.record_count == 0 {
        return Vec::new();
    }
    RecordReader::over(&batch, 1 << 20).expect("opens").collect::<Result<_, _>>().expect("readable")
}

fn three(codec: Codec) -> Bytes {
    let builder = BatchBuilder::with_codec(codec)
        .producer(Producer { id: 9, epoch: 2, base_sequence: 40 })
        .record(Draft { timestamp: 500, key: Some(b"a"), value: Some(b"1"), ..Draft::default() })
        .record(Draft { timestamp: 900, key: Some(b"b"), value: Some(b"2"), headers: &[("h", Some(b"x")), ("n", None)] })
        .record(Draft { timestamp: 700, key: Some(b"c"), ..Draft::default() });
    stored(&builder.build(), 100)
}

fn without(batch: &Bytes, horizon: Option<i64>, removed: &[u64]) -> Cleaned {
    let mut decide = |record: &RecordSeen<'_>| if removed.contains(&record.offset) { Verdict::Remove } else { Verdict::Keep };
    clean(batch, horizon, &mut decide).expect("a good batch")
}

fn rewritten(cleaned: Cleaned) -> Bytes {
    match cleaned {
        Cleaned::Rewritten(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_rest_of_a_batch_is_unchanged() {
    for codec in Codec::ALL {
        let before = three(codec);
        assert_eq!(without(&before, None, &[]), Cleaned::Whole);
        assert_eq!(without(&before, None, &[100, 101, 102]), Cleaned::Gone);
        let after = rewritten(without(&before, None, &[101]));
        let (old, new) = (BatchHeader::parse(&before).expect("a header"), BatchHeader::parse(&after).expect("a header"));
        let expected = BatchHeader { batch_bytes: new.batch_bytes, crc: new.crc, max_timestamp: 700, record_count: 2, ..old };
        assert_eq!(new, expected, "{codec:?}");
        let mut records = read(&before);
        records.remove(1);
        assert_eq!(read(&after), records);
        assert_eq!(without(&after, None, &[101]), Cleaned::Whole);
    }
}

#[test]
fn a_horizon_leaves_times_as_they_were() {
    for codec in Codec::ALL {
        let before = three(codec);
        let after = rewritten(without(&before, Some(1 << 41), &[]));
        let header = BatchHeader::parse(&after).expect("a header");
        assert_eq!((header.attributes, header.base_timestamp), (codec.bits() | DELETE_HORIZON, 1 << 41));
        assert_eq!((header.max_timestamp, header.record_count), (900, 3));
        assert_eq!(read(&after), read(&before), "{codec:?}");
        let mut seen = Vec::new();
        look(&after, &mut |record| seen.push((record.offset, record.timestamp, record.is_tombstone, record.delete_horizon))).expect("good");
        let horizon = Some(1 << 41);
        assert_eq!(seen, [(100, 500, false, horizon), (101, 900, false, horizon), (102, 700, true, horizon)]);
        assert_eq!(without(&after, Some(1 << 42), &[]), Cleaned::Whole, "a horizon is set once");
        let rest = rewritten(without(&after, Some(1 << 42), &[102]));
        assert_eq!(read(&rest), read(&before)[..2]);
    }
    assert_eq!(without(&three(Codec::None), Some(5), &[100, 101, 102]), Cleaned::Gone);
}

#[test]
fn times_of_the_log_stay() {
    let before = stamp_append_time(&three(Codec::Lz4), 5000);
    let after = rewritten(without(&before, Some(9000), &[100]));
    let records = read(&after);
    assert_eq!(records, read(&before)[1..]);
    assert!(records.iter().all(|record| record.timestamp == 5000));
}

#[test]
fn an_empty_batch_covers_its_offsets() {
    let before = three(Codec::Zstd);
    for source in [before.clone(), before.slice(..HEADER_BYTES)] {
        let after = empty(&source).expect("a header");
        let header = Batch::check(after.clone()).expect("a sealed batch").header;
        assert_eq!((after.len(), header.base_offset, header.offset_count(), header.record_count), (61, 100, 3, 0));
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence, header.leader_epoch), (9, 2, 40, 3));
        assert_eq!((header.attributes, header.max_timestamp), (0, 900));
        assert_eq!(without(&after, None, &[]), Cleaned::Gone);
        assert_eq!(empty(&after), Ok(after));
    }
    assert_eq!(empty(&before[..60]), Err(CleanError::Batch(BatchError::Short)));
}

#[test]
fn headers_are_shown_and_markers_are_not_asked_about() {
    let mut headers = Vec::new();
    let batch = three(Codec::Gzip);
    look(&batch, &mut |record| headers.extend(record.headers().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))))
        .expect("good");
    assert_eq!(headers, [(b"h".to_vec(), Some(b"x".to_vec())), (b"n".to_vec(), None)]);
    for bit in [CONTROL, TRANSACTIONAL] {
        let mut marker = three(Codec::None).to_vec();
        marker[22] |= bit as u8;
        assert_eq!(without(&Bytes::from(marker), Some(1), &[100]), Cleaned::Whole);
    }
}

#[test]
fn damage_is_an_error() {
    for codec in Codec::ALL {
        let batch = three(codec);
        for at in 0..batch.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = batch.to_vec();
                damaged[at] ^= flip;
                // Any outcome but a panic; what is rewritten is a batch.
                if let Ok(Cleaned::Rewritten(out)) = clean(&Bytes::from(damaged), Some(7), &mut |_| Verdict::Keep) {
                    assert!(Batch::check(out).is_ok());
                }
            }
        }
    }
}

/// One record of the model. Batches are numbered; each may have a horizon.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    offset: u64,
    batch: usize,
    timestamp: i64,
    key: Option<u8>,
    value: Option<u8>,
}

#[derive(Clone, Debug)]
enum Act {
    /// Codec, and key, value, time of each record.
    Append(usize, Vec<(Option<u8>, Option<u8>, i64)>),
    /// Time that passes first; how many of the newest offsets are not compacted yet.
    Clean(i64, u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let key = prop_oneof![20 => (0..12u8).prop_map(Some), 1 => Just(None)];
    let value = prop_oneof![3 => any::<u8>().prop_map(Some), 1 => Just(None)];
    let append =
        (0..5usize, prop::collection::vec((key, value, -1..1_000_000i64), 1..8)).prop_map(|(codec, drafts)| Act::Append(codec, drafts));
    let round = (0..900i64, 0..6u64).prop_map(|(passed, lag)| Act::Clean(passed, lag));
    prop::collection::vec(prop_oneof![3 => append, 1 => round], 1..30)
}

/// The rules in the words of the documentation, over plain records.
fn clean_plain(log: &mut Vec<Plain>, horizons: &mut HashMap<usize, i64>, until: u64, now: i64, last: u64) {
    let newest: HashMap<u8, u64> =
        log.iter().filter(|record| record.offset < until).filter_map(|record| Some((record.key?, record.offset))).collect();
    log.retain(|record| {
        let Some(key) = record.key else { return record.offset >= until || record.offset == last };
        let over = record.value.is_none() && horizons.get(&record.batch).is_some_and(|horizon| now >= *horizon);
        record.offset >= until || record.offset == last || (record.offset == newest[&key] && !over)
    });
    for record in log.iter().filter(|record| record.value.is_none()) {
        horizons.entry(record.batch).or_insert(now + DELETE_RETENTION_MS);
    }
}

fn clean_stored(log: &mut Vec<Bytes>, until: u64, now: i64, last: u64) {
    let mut keys = KeyMap::bounded(1 << 16, 400, 5);
    for batch in log.iter() {
        look(batch, &mut |record| {
            if let Some(key) = record.key.filter(|_| record.offset < until) {
                assert!(keys.note(key, record.offset));
            }
        })
        .expect("good");
    }
    let round = Round { keys: &keys, until, last, now };
    *log = std::mem::take(log)
        .into_iter()
        .filter_map(|batch| match clean(&batch, Some(now + DELETE_RETENTION_MS), &mut |record| round.verdict(record)).expect("good") {
            Cleaned::Whole => Some(batch),
            Cleaned::Rewritten(batch) => Some(batch),
            // Some are replaced, as the last batch of a producer would be.
            Cleaned::Gone => (batch.len() % 2 == 0).then(|| empty(&batch).expect("a header")),
        })
        .collect();
}

/// Offset, time, key, value.
type Flat = (u64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn flat(log: &[Bytes]) -> Vec<Flat> {
    let records = log.iter().flat_map(|batch| {
        let base = BatchHeader::parse(batch).expect("a header").base_offset;
        read(batch).into_iter().map(move |record| (base, record))
    });
    let vec = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_vec());
    records
        .map(|(base, record)| (base as u64 + u64::from(record.offset_delta as u32), record.timestamp, vec(record.key), vec(record.value)))
        .collect()
}

proptest! {
    // A failing case prints its seed and its smallest input.
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn compaction_keeps_what_kafka_documents(acts in acts()) {
        let (mut log, mut plain, mut horizons) = (Vec::new(), Vec::new(), HashMap::new());
        let (mut end, mut now) = (0u64, 1_000_000i64);
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Append(codec, drafts) => {
                    let mut builder = BatchBuilder::with_codec(Codec::ALL[codec]);
                    let base = end;
                    for (key, value, timestamp) in drafts {
                        let (key_bytes, value_bytes) = (key.map(|key| [key; 3]), value.map(|value| [value; 5]));
                        let draft = Draft {
                            timestamp,
                            key: key_bytes.as_ref().map(|key| &key[..]),
                            value: value_bytes.as_ref().map(|value| &value[..]),
                            ..Draft::default()
                        };
                        builder = builder.record(draft);
                        plain.push(Plain { offset: end, batch: number, timestamp, key, value });
                        end += 1;
                    }
                    log.push(stored(&builder.build(), base));
                }
                Act::Clean(passed, lag) if end > 0 => {
                    now += passed;
                    let until = end.saturating_sub(lag);
                    clean_stored(&mut log, until, now, end - 1);
                    clean_plain(&mut plain, &mut horizons, until, now, end - 1);
                }
                Act::Clean(..) => (),
            }
            let expected: Vec<_> = plain
                .iter()
                .map(|r| (r.offset, r.timestamp, r.key.map(|key| vec![key; 3]), r.value.map(|value| vec![value; 5])))
                .collect();
            prop_assert_eq!(flat(&log), expected);
        }
    }
}
