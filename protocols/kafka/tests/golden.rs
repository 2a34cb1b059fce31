//! Messages as Apache Kafka's own classes write them.
//!
//! `golden/bodies.txt` holds a line for each served version of each API and direction, written by the message classes of
//! kafka-clients 4.1.0 from made-up values: key, version, direction, body in hexadecimal. It must never change; new versions
//! add lines.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use firth_kafka::apis::{APIS, ApiKey, Request, Response};
use firth_kafka::codec::reader::Reader;
use firth_kafka::codec::wire::Records;
use firth_kafka::codec::writer::Writer;
use firth_kafka::envelope::{Incoming, RequestHeader, read_request, write_response};
use firth_kafka::messages::embedded::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use firth_kafka::messages::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use firth_kafka::messages::metadata::{ApiVersionsRequest, ApiVersionsResponse};
use firth_kafka::versioned::{read_versioned, write_versioned};

const BODIES: &str = include_str!("golden/bodies.txt");

fn unhex(text: &str) -> Bytes {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

fn join(chunks: Vec<Bytes>) -> Bytes {
    let mut all = BytesMut::new();
    chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
    all.freeze()
}

fn there_and_back(key: ApiKey, version: i16, direction: &str, body: Bytes) -> Bytes {
    let form = key.api().form(version);
    let mut reader = Reader::over(body, form);
    let mut writer = Writer::new(form);
    match direction {
        "request" => Request::read(key, &mut reader).expect("a request").write(&mut writer),
        _ => Response::read(key, &mut reader).expect("a response").write(&mut writer),
    }
    reader.finish().expect("nothing left");
    join(writer.chunks())
}

#[test]
fn bodies_are_those_of_kafka() {
    let mut seen = BTreeSet::new();
    for line in BODIES.lines().filter(|line| !line.starts_with('-')) {
        let words: Vec<&str> = line.split(' ').collect();
        let (number, version, body) = (words[0].parse().expect("a key"), words[1].parse().expect("a version"), unhex(words[3]));
        let key = ApiKey::find(number).expect("a served API");
        assert_eq!(there_and_back(key, version, words[2], body.clone()), body, "{} {version} {}", key.api().name, words[2]);
        seen.insert((number, version, words[2]));
    }
    for api in APIS {
        // kafka-clients 4.1 advertises Produce 0 to 2 without being able to write them.
        let written_from = if api.key == ApiKey::Produce { 3 } else { api.min };
        for version in written_from..=api.max {
            assert!(seen.contains(&(api.key.number(), version, "request")), "{} {version} has no request", api.name);
            assert!(seen.contains(&(api.key.number(), version, "response")), "{} {version} has no response", api.name);
        }
    }
}

#[test]
fn embedded_messages_are_those_of_kafka() {
    for line in BODIES.lines().filter(|line| line.starts_with('-')) {
        let words: Vec<&str> = line.split(' ').collect();
        let bytes = unhex(words[3]);
        let again = if words[2] == "subscription" {
            let (version, message) = read_versioned::<ConsumerProtocolSubscription>(bytes.clone()).expect("a subscription");
            write_versioned(version, &message)
        } else {
            let (version, message) = read_versioned::<ConsumerProtocolAssignment>(bytes.clone()).expect("an assignment");
            write_versioned(version, &message)
        };
        assert_eq!(again, bytes, "{line}");
    }
}

#[test]
fn flexible_request_header_keeps_a_plain_client_id() {
    let frame = unhex("00120003000000070001610003726404342e3500");
    let header = RequestHeader { api_key: 18, api_version: 3, correlation_id: 7, client_id: Some("a".into()) };
    let request = ApiVersionsRequest { client_software_name: "rd".into(), client_software_version: "4.5".into() }.into();
    assert_eq!(read_request(frame), Ok(Incoming::Request { header, request }));
}

#[test]
fn versions_and_apis_beyond_ours_are_told_apart() {
    let newer = read_request(unhex("0012006300000007ffffff0102030405"));
    assert!(matches!(newer, Ok(Incoming::UnservedVersion { key: ApiKey::ApiVersions, .. })), "{newer:?}");
    let old_fetch = read_request(unhex("0001000300000007ffff"));
    assert!(matches!(old_fetch, Ok(Incoming::UnservedVersion { key: ApiKey::Fetch, .. })), "{old_fetch:?}");
    let unknown = read_request(unhex("7fff000000000007"));
    assert_eq!(unknown, Ok(Incoming::UnservedApi { api_key: 0x7fff, api_version: 0, correlation_id: 7 }));
}

/// Layouts of Produce 0 to 2, from the protocol guide of Apache Kafka 0.10.
#[test]
fn oldest_produce_versions_are_laid_out_as_they_were() {
    let request = unhex("0001000003e800000001000174000000010000000500000002aabb");
    assert_eq!(there_and_back(ApiKey::Produce, 0, "request", request.clone()), request);
    let refused = "00000001000174000000010000000500238000000000000000";
    for (version, tail) in [(0, ""), (1, "00000007"), (2, "ffffffffffffffff00000007")] {
        let response = unhex(&format!("{refused}{tail}"));
        assert_eq!(there_and_back(ApiKey::Produce, version, "response", response.clone()), response, "version {version}");
    }
}

#[test]
fn api_versions_answer_has_the_oldest_header() {
    let answer = ApiVersionsResponse { error_code: 35, ..ApiVersionsResponse::default() }.into();
    assert_eq!(join(write_response(7, 0, &answer)), unhex("0000000a00000007002300000000"));
    assert_eq!(join(write_response(7, 3, &answer)), unhex("0000000c000000070023010000000000"));
}

#[test]
fn large_batches_are_spliced_and_small_ones_copied() {
    let large = Bytes::from(vec![7; 10_000]);
    let small = Bytes::from_static(b"small");
    let records = Records { chunks: vec![small, large.clone(), large.clone()] };
    let partition = PartitionData { records: Some(records), ..PartitionData::default() };
    let topic = FetchableTopicResponse { partitions: vec![partition], ..FetchableTopicResponse::default() };
    let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() }.into();
    let chunks = write_response(1, 12, &response);
    assert_eq!(chunks.len(), 4, "head, two batches, what follows");
    assert_eq!((chunks[1].as_ptr(), chunks[2].as_ptr()), (large.as_ptr(), large.as_ptr()));
    let all = join(chunks);
    assert_eq!(all[..4], u32::try_from(all.len() - 4).expect("small").to_be_bytes());
}
