//! Record batches, Kafka's own and broken ones.
//!
//! `golden/batches.txt`: codec, number of records, batch in hexadecimal, written by kafka-clients 4.1.0.

use bytes::Bytes;
use firth_kafka::records::{FaultKind, Keys, RecordFault, RecordRules, RecordsError, Summary, check_records};
use firth_model::batch::{Batch, seal};
use firth_model::batch_builder::{BatchBuilder, Draft, Producer};
use firth_model::compression::Codec;
use firth_model::record_reader::{ReadError, Record, RecordReader};
use firth_model::time::Millis;
use firth_model::walk::WalkError;

fn unhex(text: &str) -> Bytes {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

fn check(bytes: Bytes) -> Result<Summary, RecordsError> {
    check_records(&Batch::check(bytes).expect("checksum is right"), &RecordRules::default())
}

/// `check` of a batch after `change`, its checksum made anew.
fn check_changed(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Result<Summary, RecordsError> {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let length = u32::try_from(bytes.len() - 12).expect("small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    seal(&mut bytes);
    check(Bytes::from(bytes))
}

fn three() -> BatchBuilder {
    BatchBuilder::with_codec(Codec::None)
        .record(Draft { timestamp: 10, key: Some(b"k"), value: Some(b"v"), ..Draft::default() })
        .record(Draft { timestamp: 12, value: Some(b"v"), ..Draft::default() })
        .record(Draft { timestamp: 11, key: Some(b"k"), headers: &[("h", None)], ..Draft::default() })
}

#[test]
fn batches_of_kafka_are_good() {
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for line in include_str!("golden/batches.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let batch = Batch::check(unhex(words[2])).expect("a batch");
        let summary = check_records(&batch, &RecordRules::default()).expect("good records");
        let many = words[1] == "40";
        assert_eq!(codecs[usize::try_from(summary.codec.bits()).expect("small")], words[0]);
        let latest = if many { (1_700_000_005_000, 17) } else { (1_700_000_000_000, 0) };
        assert_eq!((summary.max_timestamp, summary.max_timestamp_delta), latest, "{line}");
        let records: Result<Vec<Record>, _> = RecordReader::over(&batch, 1 << 20).expect("opens").collect();
        let records = records.expect("all readable");
        assert_eq!(records.len(), words[1].parse::<usize>().expect("a count"));
        assert_eq!(records[0].key.as_deref(), Some(&b"key0"[..]));
        assert_eq!(records[0].headers, [(Bytes::from("h0"), None)]);
        if many {
            assert_eq!((&records[4].key, &records[6].value), (&None, &None));
            assert_eq!(records[39].value.as_deref(), Some(&b"value number 39 value"[..]));
            assert_eq!(records[39].headers, [(Bytes::from("h39"), Some(Bytes::from_static(&[1, 2])))]);
            assert_eq!((records[17].timestamp, records[17].offset_delta), (1_700_000_005_000, 17));
        }
    }
}

#[test]
fn builder_writes_what_kafka_writes() {
    let line = include_str!("golden/batches.txt").lines().find(|line| line.starts_with("none 1 ")).expect("a line");
    let batch = BatchBuilder::with_codec(Codec::None).record(Draft {
        timestamp: 1_700_000_000_000,
        key: Some(b"key0"),
        value: Some(b"value number 0 value"),
        headers: &[("h0", None)],
    });
    assert_eq!(batch.build(), unhex(&line["none 1 ".len()..]));
}

#[test]
fn builder_and_check_agree() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::with_codec(codec);
        for index in 0..1000 {
            builder = builder.record(Draft { timestamp: 50 - index, value: Some(&[7; 100]), ..Draft::default() });
        }
        let summary = check(builder.build()).expect("good");
        assert_eq!((summary.codec, summary.max_timestamp, summary.max_timestamp_delta), (codec, 50, 0));
    }
}

#[test]
fn headers_that_lie_are_refused() {
    let batch = three().build();
    let summary = check(batch.clone()).expect("good");
    assert_eq!((summary.max_timestamp, summary.max_timestamp_delta), (12, 1));
    let count = |record_count, last_offset_delta| Err(RecordsError::Count { record_count, last_offset_delta });
    assert_eq!(check_changed(&batch, |bytes| bytes[60] = 2), count(2, 2));
    assert_eq!(check_changed(&batch, |bytes| bytes[26] = 3), count(3, 3));
    assert_eq!(check(BatchBuilder::with_codec(Codec::None).build()), count(0, -1));
    assert_eq!(check_changed(&batch, |bytes| bytes[22] = 0x20), Err(RecordsError::Control));
    assert_eq!(check_changed(&batch, |bytes| bytes[22] = 0x10), Err(RecordsError::Transactional));
    assert_eq!(check_changed(&batch, |bytes| bytes[22] = 0x08), Err(RecordsError::AppendTime));
    assert_eq!(check_changed(&batch, |bytes| bytes[22] = 5), Err(RecordsError::Codec(5)));
    assert_eq!(check_changed(&batch, |bytes| bytes[22] = 4), Err(RecordsError::Body(WalkError::Folding)));
    let unnumbered = three().producer(Producer { id: 1, epoch: 0, base_sequence: -1 });
    assert_eq!(check(unnumbered.build()), Err(RecordsError::Sequence(-1)));
}

#[test]
fn bodies_that_lie_are_refused() {
    let batch = three().build();
    let what = |outcome: Result<Summary, RecordsError>| match outcome {
        Err(RecordsError::Body(WalkError::Malformed { what, .. })) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(check_changed(&batch, |bytes| bytes.push(0))), "bytes after the last record");
    assert_eq!(what(check_changed(&batch, |bytes| bytes.truncate(bytes.len() - 1))), "end inside a record");
    // The first record: length, attributes, time, offset, key length, key, value length, value, headers.
    assert_eq!(what(check_changed(&batch, |bytes| bytes[61] += 2)), "record of another length");
    assert_eq!(what(check_changed(&batch, |bytes| bytes[61] = 1)), "negative record length");
    assert_eq!(what(check_changed(&batch, |bytes| bytes[64] = 2)), "offsets are not consecutive");
    assert_eq!(what(check_changed(&batch, |bytes| bytes[65] = 3)), "negative length");
    assert_eq!(what(check_changed(&batch, |bytes| bytes[65] = 0x7e)), "end inside a record");
    assert_eq!(what(check_changed(&batch, |bytes| bytes[69] = 1)), "negative count of headers");
    assert_eq!(what(check_changed(&batch, |bytes| bytes[69] = 8)), "more headers than the record holds");
}

#[test]
fn rules_of_the_topic_name_the_records() {
    let batch = Batch::check(three().build()).expect("a batch");
    let rules = RecordRules { keys: Keys::Required, times: Some(12..=100), ..RecordRules::default() };
    let faults = vec![
        RecordFault { index: 0, kind: FaultKind::Time(10) },
        RecordFault { index: 1, kind: FaultKind::NoKey },
        RecordFault { index: 2, kind: FaultKind::Time(11) },
    ];
    assert_eq!(check_records(&batch, &rules), Err(RecordsError::Refused(faults)));
}

/// As in a `Draft`.
type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

#[test]
fn expiries_are_found_in_headers() {
    let long = [b'1'; 41];
    let drafts: [Headers<'_>; 8] = [
        &[("expires-at", Some(b"5000"))],
        &[],
        &[("other", Some(b"5000")), ("expires-at", Some(b"1970-01-01T00:00:07Z")), ("other", None)],
        &[("expires-by", Some(b"5000"))],
        &[("expires-at", None)],
        &[("expires-at", Some(b"soon"))],
        &[("expires-at", Some(&long)), ("expires-at-", Some(b"1")), ("", Some(b""))],
        &[("expires-at", Some(b"1")), ("expires-at", Some(b"2")), ("expires-at", Some(b"x"))],
    ];
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::with_codec(codec);
        // So many that some header lies across two pieces of what is unfolded.
        for draft in 0..8000 {
            builder = builder.record(Draft { value: Some(b"v"), headers: drafts[draft % 8], ..Draft::default() });
        }
        let expires = check(builder.build()).expect("good").expires;
        let expected = (0..1000).flat_map(|round| [(0, 5000), (2, 7000), (7, 2)].map(|(at, ms)| (round * 8 + at, Millis(ms))));
        assert_eq!(expires, expected.collect::<Vec<_>>(), "{codec:?}");
    }
    assert_eq!(check(three().build()).expect("good").expires.capacity(), 0);
}

#[test]
fn bombs_are_put_down() {
    let zeros = vec![0; 4 << 20];
    for codec in Codec::ALL {
        let bomb = BatchBuilder::with_codec(codec).record(Draft { value: Some(&zeros), ..Draft::default() }).build();
        let batch = Batch::check(bomb).expect("a batch");
        let rules = RecordRules { unfolded_bytes_max: 1 << 20, ..RecordRules::default() };
        let too_large = WalkError::TooLarge { bytes_max: 1 << 20 };
        assert_eq!(check_records(&batch, &rules), Err(RecordsError::Body(too_large)), "{codec:?}");
        if codec != Codec::None {
            let opened = RecordReader::over(&batch, 1 << 20);
            assert_eq!(opened.map(|_| ()), Err(ReadError::Body(too_large)), "{codec:?}");
        }
    }
}
