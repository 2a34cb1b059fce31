//! Bytes that are no packet, and the rule each breaks.

use bytes::BytesMut;

use super::decode::{decode, decode_connect};
use super::fault::DecodeError;
use super::golden_tests::wire;
use super::kind::Sender;
use super::reason::ReasonCode;
use super::version::ProtocolVersion::{self, V5, V31, V311};

/// Version, bytes, rule, reason code.
type Row = (ProtocolVersion, &'static str, &'static str, u8);

/// The beginning of a CONNECT of 5.0 before its properties, and of 3.1.1 before the client id; their lengths are put in by the test.
const CONNECT: &str = "0004 'MQTT' 05 02 000a";

const FROM_CLIENTS: &[Row] = &[
    // Fixed header.
    (V5, "00", "5.0 section 2.1.2", 0x82),
    (V311, "00 00", "5.0 section 2.1.2", 0x82),
    (V311, "f0 00", "3.1.1 section 2.2.1", 0x81),
    (V5, "10", "MQTT-3.1.0-2", 0x82),
    (V5, "30 80808080 01", "5.0 section 2.1.4", 0x81),
    (V311, "30 ffffffff", "5.0 section 2.1.4", 0x81),
    (V5, "c0 8000", "MQTT-1.5.5-1", 0x81),
    (V5, "30 e807", "MQTT-3.2.2-15", 0x95),
    (V311, "82 ffffff7f", "MQTT-3.2.2-15", 0x95),
    (V5, "c1 00", "MQTT-2.1.3-1", 0x81),
    (V311, "c8 00", "MQTT-2.1.3-1", 0x81),
    (V5, "21 03 00 00 00", "MQTT-2.1.3-1", 0x82),
    (V5, "42 02 0001", "MQTT-2.1.3-1", 0x81),
    (V5, "51 02 0001", "MQTT-2.1.3-1", 0x81),
    (V5, "72 02 0001", "MQTT-2.1.3-1", 0x81),
    (V5, "60 02 0001", "MQTT-3.6.1-1", 0x82),
    (V311, "63 02 0001", "MQTT-3.6.1-1", 0x82),
    (V5, "80 07 0001 00 0001 'p' 00", "MQTT-3.8.1-1", 0x81),
    (V311, "a0 05 0001 0001 'p'", "MQTT-3.10.1-1", 0x81),
    (V5, "e1 00", "MQTT-3.14.1-1", 0x82),
    (V5, "f2 00", "MQTT-3.15.1-1", 0x82),
    (V5, "c0 01 00", "5.0 section 3.12", 0x81),
    (V5, "20 03 00 00 00", "5.0 section 2.1.2", 0x82),
    (V5, "90 04 0001 00 00", "5.0 section 2.1.2", 0x82),
    (V5, "b0 04 0001 00 00", "5.0 section 2.1.2", 0x82),
    (V5, "d0 00", "5.0 section 2.1.2", 0x82),
    (V5, "d1 00", "MQTT-2.1.3-1", 0x81),
    // PUBLISH.
    (V5, "36 0d 0005 'topic' 1234 00 'abc'", "MQTT-3.3.1-4", 0x81),
    (V311, "36 09 0005 'topic' 1234", "MQTT-3.3.1-4", 0x81),
    (V5, "38 08 0005 'topic' 00", "MQTT-3.3.1-2", 0x81),
    (V311, "38 07 0005 'topic'", "MQTT-3.3.1-2", 0x81),
    (V5, "32 0a 0005 'topic' 0000 00", "MQTT-2.2.1-3", 0x82),
    (V311, "34 09 0005 'topic' 0000", "MQTT-2.2.1-3", 0x82),
    (V311, "32 07 0005 'topic'", "5.0 section 4.13", 0x81),
    (V5, "30 00", "5.0 section 4.13", 0x81),
    (V311, "30 04 0005 'to'", "5.0 section 4.13", 0x81),
    (V5, "30 07 0005 'topic'", "5.0 section 4.13", 0x81),
    (V311, "30 07 0005 'top' 0000", "MQTT-1.5.4-2", 0x81),
    (V5, "30 08 0005 'to' eda080 00", "MQTT-1.5.4-1", 0x81),
    (V5, "30 08 0005 'top' 0170 00", "5.0 section 1.5.4", 0x81),
    (V5, "30 08 0005 'to' c29f70 00", "5.0 section 1.5.4", 0x81),
    (V311, "30 07 0005 '+opic'", "MQTT-3.3.2-2", 0x81),
    (V5, "30 08 0005 'top/#' 00", "MQTT-3.3.2-2", 0x81),
    (V311, "30 03 0000 'x'", "MQTT-4.7.3-1", 0x81),
    (V5, "30 03 0000 00", "MQTT-4.7.3-1", 0x81),
    (V5, "30 06 0000 03 230000", "MQTT-3.3.2-8", 0x94),
    (V5, "30 06 0001 't' 02 0b01", "MQTT-3.3.4-6", 0x82),
    (V5, "30 08 0001 't' 04 080001 '#'", "MQTT-3.3.2-14", 0x82),
    (V5, "30 07 0001 't' 03 080000", "MQTT-3.3.2-14", 0x82),
    // Properties.
    (V5, "30 06 0001 't' 02 0102", "5.0 section 2.2.2.2", 0x82),
    (V5, "30 08 0001 't' 04 0101 0101", "5.0 section 2.2.2.2", 0x82),
    (V5, "30 0e 0001 't' 0a 0200000001 0200000001", "5.0 section 2.2.2.2", 0x82),
    (V5, "30 0a 0001 't' 06 230001 230002", "5.0 section 2.2.2.2", 0x82),
    (V5, "30 05 0001 't' 01 01", "5.0 section 4.13", 0x81),
    (V5, "30 07 0001 't' 03 020000", "5.0 section 4.13", 0x81),
    (V5, "30 05 0001 't' 01 26", "5.0 section 4.13", 0x81),
    (V5, "30 08 0001 't' 04 260001 'p'", "5.0 section 4.13", 0x81),
    (V5, "30 05 0001 't' 02 01", "5.0 section 4.13", 0x81),
    (V5, "30 08 0001 't' ffffffff 7f", "5.0 section 1.5.5", 0x81),
    (V5, "30 06 0001 't' 02 0001", "5.0 section 2.2.2.2", 0x81),
    (V5, "30 06 0001 't' 02 2b01", "5.0 section 2.2.2.2", 0x81),
    (V5, "30 07 0001 't' 03 800101", "5.0 section 2.2.2.2", 0x81),
    (V5, "30 07 0001 't' 03 8b0001", "MQTT-1.5.5-1", 0x81),
    (V5, "30 07 0001 't' 03 0b8000", "MQTT-1.5.5-1", 0x81),
    (V5, "30 0a 0001 't' 06 0b8080808001", "5.0 section 1.5.5", 0x81),
    (V5, "30 06 0001 't' 02 0b00", "5.0 section 3.8.2.1.2", 0x82),
    (V5, "30 06 0001 't' 02 2400", "5.0 section 2.2.2.2", 0x82),
    (V5, "30 09 0001 't' 05 1800000001", "5.0 section 2.2.2.2", 0x82),
    (V5, "30 08 0001 't' 04 030001 00", "MQTT-1.5.4-2", 0x81),
    (V5, "30 09 0001 't' 05 260000 0001 ff", "5.0 section 4.13", 0x81),
    (V5, "30 0a 0001 't' 06 260000 0001 ff", "MQTT-1.5.4-1", 0x81),
    // PUBACK, PUBREC, PUBREL, PUBCOMP.
    (V5, "40 00", "5.0 section 4.13", 0x81),
    (V311, "50 01 01", "5.0 section 4.13", 0x81),
    (V311, "40 02 0000", "MQTT-2.2.1-3", 0x82),
    (V5, "62 03 0000 00", "MQTT-2.2.1-3", 0x82),
    (V311, "70 03 0001 00", "5.0 section 4.13", 0x81),
    (V5, "40 05 0001 00 00 00", "5.0 section 4.13", 0x81),
    (V5, "40 04 0001 00 01", "5.0 section 4.13", 0x81),
    (V5, "40 03 0001 ff", "5.0 section 2.4", 0x82),
    (V5, "50 03 0001 92", "5.0 section 2.4", 0x82),
    (V5, "62 03 0001 80", "5.0 section 2.4", 0x82),
    (V5, "70 03 0001 10", "5.0 section 2.4", 0x82),
    (V5, "40 0c 0001 00 08 1f0001 'p' 1f0001 'q'", "5.0 section 2.2.2.2", 0x82),
    (V5, "40 09 0001 00 05 1100000001", "5.0 section 2.2.2.2", 0x82),
    // SUBSCRIBE.
    (V5, "82 07 0000 00 0001 'p' 00", "MQTT-2.2.1-3", 0x81),
    (V5, "82 03 0001 00", "MQTT-3.8.3-2", 0x81),
    (V311, "82 02 0001", "MQTT-3.8.3-2", 0x81),
    (V5, "82 06 0001 00 0001 'p'", "5.0 section 4.13", 0x81),
    (V5, "82 08 0001 00 0001 'p' 00 00", "5.0 section 4.13", 0x81),
    (V5, "82 07 0001 00 0001 'p' 03", "5.0 section 3.8.3.1", 0x81),
    (V311, "82 06 0001 0001 'p' 03", "5.0 section 3.8.3.1", 0x81),
    (V31, "82 06 0001 0001 'p' 03", "5.0 section 3.8.3.1", 0x81),
    (V5, "82 07 0001 00 0001 'p' 30", "5.0 section 3.8.3.1", 0x81),
    (V5, "82 07 0001 00 0001 'p' 40", "MQTT-3.8.3-5", 0x81),
    (V5, "82 07 0001 00 0001 'p' 80", "MQTT-3.8.3-5", 0x81),
    (V311, "82 06 0001 0001 'p' 04", "3.1.1 MQTT-3-8.3-4", 0x81),
    (V5, "82 06 0001 00 0000 00", "MQTT-4.7.3-1", 0x81),
    (V5, "82 08 0001 00 0002 'a#' 00", "MQTT-4.7.1-1", 0x81),
    (V311, "82 08 0001 0003 '#/a' 00", "MQTT-4.7.1-1", 0x81),
    (V311, "82 0a 0001 0005 'ab/+e' 00", "MQTT-4.7.1-2", 0x81),
    (V5, "82 10 0001 00 000a '$share/g/a' 04", "MQTT-3.8.3-4", 0x82),
    (V5, "82 09 0001 02 0b00 0001 'p' 00", "5.0 section 3.8.2.1.2", 0x82),
    (V5, "82 0b 0001 04 0b01 0b01 0001 'p' 00", "5.0 section 2.2.2.2", 0x82),
    (V5, "82 09 0001 02 0100 0001 'p' 00", "5.0 section 2.2.2.2", 0x81),
    // UNSUBSCRIBE.
    (V5, "a2 06 0000 00 0001 'p'", "MQTT-2.2.1-3", 0x81),
    (V5, "a2 03 0001 00", "MQTT-3.10.3-2", 0x81),
    (V311, "a2 02 0001", "MQTT-3.10.3-2", 0x81),
    (V5, "a2 05 0001 00 0000", "MQTT-4.7.3-1", 0x81),
    (V5, "a2 08 0001 00 0003 'a+b'", "MQTT-4.7.1-2", 0x81),
    (V311, "a2 06 0001 0001 'p' 00", "5.0 section 4.13", 0x81),
    (V5, "a2 08 0001 02 0b01 0001 'p'", "5.0 section 2.2.2.2", 0x81),
    // DISCONNECT and AUTH.
    (V311, "e0 01 00", "5.0 section 4.13", 0x81),
    (V5, "e0 01 05", "5.0 section 2.4", 0x82),
    (V5, "e0 03 00 01 00", "5.0 section 2.2.2.2", 0x81),
    (V5, "e0 0c 00 0a 1100000000 1100000000", "5.0 section 2.2.2.2", 0x82),
    (V5, "e0 06 00 04 150001 'p'", "5.0 section 2.2.2.2", 0x82),
    (V5, "e0 03 00 00 00", "5.0 section 4.13", 0x81),
    (V5, "f0 01 18", "5.0 section 3.15.2.2.2", 0x82),
    (V5, "f0 06 18 04 160001 'x'", "5.0 section 3.1.2.11.10", 0x82),
    (V5, "f0 01 80", "5.0 section 2.4", 0x82),
];

const FROM_SERVERS: &[Row] = &[
    (V5, "82 07 0001 00 0001 'p' 00", "5.0 section 2.1.2", 0x82),
    (V5, "c0 00", "5.0 section 2.1.2", 0x82),
    (V311, "20 02 02 00", "MQTT-3.2.2-1", 0x81),
    (V5, "20 03 01 85 00", "MQTT-3.2.2-6", 0x81),
    (V311, "20 02 00 06", "5.0 section 2.4", 0x82),
    (V5, "20 03 00 91 00", "5.0 section 2.4", 0x82),
    (V5, "20 05 00 00 02 2402", "5.0 section 3.2.2.3.4", 0x82),
    (V5, "20 06 00 00 03 210000", "5.0 section 3.1.2.11", 0x82),
    (V5, "90 03 0001 00", "5.0 section 3.9.3", 0x81),
    (V5, "90 04 0001 00 11", "5.0 section 2.4", 0x82),
    (V311, "90 03 0001 87", "3.1.1 MQTT-3.9.3-2", 0x81),
    (V5, "b0 04 0001 00 01", "5.0 section 2.4", 0x82),
    (V311, "b0 03 0001 00", "5.0 section 4.13", 0x81),
    (V5, "e0 07 00 05 1100000000", "MQTT-3.14.2-2", 0x82),
    (V5, "e0 01 04", "5.0 section 2.4", 0x82),
];

fn refusal(version: ProtocolVersion, from: Sender, trace: &str) -> DecodeError {
    let mut input = BytesMut::from(&wire(trace)[..]);
    match decode(&mut input, version, from, 1000) {
        Err(error) => error,
        other => panic!("{version:?} {trace} is taken for {other:?}"),
    }
}

#[test]
fn what_breaks_a_rule_is_refused_by_that_rule() {
    for (rows, from) in [(FROM_CLIENTS, Sender::Client), (FROM_SERVERS, Sender::Server)] {
        for (version, trace, rule, reason) in rows {
            let error = refusal(*version, from, trace);
            assert_eq!((error.rule, error.reason.number()), (*rule, *reason), "{version:?} {trace}: {error}");
            assert_eq!(error.version, None, "only a refused CONNECT says how to answer");
        }
    }
}

#[test]
fn some_faults_end_a_connection_without_a_word() {
    for trace in ["30 80808080", "c0 01 00", "e0 01 05", "c0 8000"] {
        assert!(refusal(V5, Sender::Client, trace).quiet, "{trace}");
    }
    assert!(!refusal(V5, Sender::Client, "40 03 0001 ff").quiet);
}

/// A CONNECT with this body.
fn refused_connect(body: &str) -> DecodeError {
    let body = wire(body);
    let mut packet = BytesMut::from(&[0x10, u8::try_from(body.len()).unwrap()][..]);
    packet.extend_from_slice(&body);
    match decode_connect(&mut packet, 1000) {
        Err(error) => error,
        other => panic!("{body:02x?} is taken for {other:?}"),
    }
}

#[test]
fn a_connect_is_refused_in_the_version_it_names() {
    let rows: &[(&str, &str, u8, Option<ProtocolVersion>)] = &[
        ("", "5.0 section 4.13", 0x81, None),
        ("0003 'MQT' 04 02 000a 0001 'p'", "MQTT-3.1.2-1", 0x81, None),
        ("0004 'mqtt' 04 02 000a 0001 'p'", "MQTT-3.1.2-1", 0x81, None),
        ("0004 'MQTT'", "5.0 section 4.13", 0x81, None),
        ("0004 'MQTT' 03 02 000a 0001 'p'", "MQTT-3.1.2-2", 0x84, Some(V311)),
        ("0006 'MQIsdp' 04 02 000a 0001 'p'", "MQTT-3.1.2-2", 0x84, Some(V311)),
        ("0004 'MQTT' 06 02 000a 00 0001 'p'", "MQTT-3.1.2-2", 0x84, Some(V311)),
        ("0004 'MQTT' 02", "MQTT-3.1.2-2", 0x84, Some(V311)),
        ("0004 'MQTT' 04 03 000a 0001 'p'", "MQTT-3.1.2-3", 0x81, Some(V311)),
        ("0004 'MQTT' 05 01 000a 00 0001 'p'", "MQTT-3.1.2-3", 0x81, Some(V5)),
        ("0004 'MQTT' 05 0a 000a 00 0001 'p'", "MQTT-3.1.2-11", 0x81, Some(V5)),
        ("0004 'MQTT' 05 1e 000a 00 0001 'p' 00 0001 'p' 0001 'p'", "MQTT-3.1.2-12", 0x81, Some(V5)),
        ("0004 'MQTT' 04 22 000a 0001 'p'", "MQTT-3.1.2-13", 0x81, Some(V311)),
        ("0004 'MQTT' 04 42 000a 0001 'p' 0001 'p'", "3.1.1 MQTT-3.1.2-22", 0x81, Some(V311)),
        ("0004 'MQTT' 05 02 000a 00", "5.0 section 4.13", 0x81, Some(V5)),
        ("0004 'MQTT' 05 06 000a 00 0001 'p'", "5.0 section 4.13", 0x81, Some(V5)),
        ("0004 'MQTT' 05 82 000a 00 0001 'p'", "5.0 section 4.13", 0x81, Some(V5)),
        ("0004 'MQTT' 05 02 000a 00 0001 'p' 0001 'p'", "5.0 section 4.13", 0x81, Some(V5)),
        ("0004 'MQTT' 05 02 000a 00 0003 'a' 0000", "MQTT-3.1.3-8", 0x85, Some(V5)),
        ("0004 'MQTT' 05 02 000a 00 0002 'a' ff", "MQTT-3.1.3-8", 0x85, Some(V5)),
        ("0004 'MQTT' 04 00 000a 0000", "MQTT-3.1.3-8", 0x85, Some(V311)),
        ("0006 'MQIsdp' 03 02 000a 0000", "MQTT-3.1.3-8", 0x85, Some(V31)),
        ("0004 'MQTT' 04 02 000a 0002 'a' 00", "MQTT-3.1.3-4", 0x81, Some(V311)),
        ("0004 'MQTT' 05 82 000a 00 0001 'p' 0002 'a' 01", "5.0 section 1.5.4", 0x81, Some(V5)),
        ("0004 'MQTT' 05 06 000a 00 0001 'p' 00 0000 0000", "MQTT-4.7.3-1", 0x81, Some(V5)),
        ("0004 'MQTT' 04 06 000a 0001 'p' 0001 '#' 0000", "MQTT-3.3.2-2", 0x81, Some(V311)),
        ("0004 'MQTT' 05 06 000a 00 0001 'p' 05 1100000001 0001 't' 0000", "5.0 section 2.2.2.2", 0x82, Some(V5)),
    ];
    for (body, rule, reason, version) in rows {
        let error = refused_connect(body);
        assert_eq!((error.rule, error.reason.number(), error.version), (*rule, *reason, *version), "{body}: {error}");
    }
}

#[test]
fn the_properties_of_a_connect_are_judged() {
    for (properties, rule, reason) in [
        ("03 210000", "5.0 section 3.1.2.11", 0x82),
        ("05 2700000000", "5.0 section 3.1.2.11", 0x82),
        ("02 1702", "5.0 section 2.2.2.2", 0x82),
        ("02 1902", "5.0 section 2.2.2.2", 0x82),
        ("0a 1100000001 1100000001", "5.0 section 2.2.2.2", 0x82),
        ("04 160001 'd'", "5.0 section 3.1.2.11.10", 0x82),
        ("02 0101", "5.0 section 2.2.2.2", 0x82),
        ("05 1800000001", "5.0 section 2.2.2.2", 0x82),
        ("02 0b01", "5.0 section 2.2.2.2", 0x82),
        ("02 0001", "5.0 section 2.2.2.2", 0x81),
        ("03 110000", "5.0 section 4.13", 0x81),
    ] {
        let error = refused_connect(&format!("{CONNECT} {properties} 0001 'p'"));
        assert_eq!((error.rule, error.reason.number(), error.version), (rule, reason, Some(V5)), "{properties}: {error}");
        assert!(!error.quiet, "{properties}");
    }
}

#[test]
fn a_connection_begins_with_connect() {
    let begin = |trace: &str| decode_connect(&mut BytesMut::from(&wire(trace)[..]), 1000).unwrap_err();
    for (trace, rule) in [
        ("30", "MQTT-3.1.0-1"),
        ("c0 00", "MQTT-3.1.0-1"),
        ("00", "5.0 section 2.1.2"),
        ("10 ffffffff", "5.0 section 2.1.4"),
        ("11 0d 0004 'MQTT' 04 02 000a 0001 'p'", "MQTT-2.1.3-1"),
    ] {
        let error = begin(trace);
        assert_eq!((error.rule, error.version), (rule, None), "{trace}");
    }
    let error = begin("10 8e00 0004 'MQTT' 05 02 000a 00 0001 'p'");
    assert_eq!((error.rule, error.version), ("MQTT-1.5.5-1", Some(V5)));
    let error = begin("10 ffff7f");
    assert_eq!((error.reason, error.version), (ReasonCode::PacketTooLarge, None), "nobody is made to keep so much");
}

#[test]
fn a_packet_above_the_limit_is_refused_before_it_comes() {
    for (trace, limit, refused) in [("30 62", 100, false), ("30 63", 100, true), ("30 8001", 131, false), ("30 8001", 130, true)] {
        let mut input = BytesMut::from(&wire(trace)[..]);
        let found = decode(&mut input, V5, Sender::Client, limit);
        assert_eq!(
            found.map_err(|error| error.reason),
            if refused { Err(ReasonCode::PacketTooLarge) } else { Ok(None) },
            "{trace} {limit}"
        );
    }
}
