//! Connections over a pair of pipes, the node in our hand.

mod fixture;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use firth_gateway::link::LinkEnd;
use firth_gateway::streams::Policy;
use firth_kafka::KafkaSettings;
use firth_kafka::apis::{APIS, ApiKey, Response};
use firth_kafka::envelope::read_response;
use firth_kafka::errors;
use firth_kafka::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use firth_kafka::messages::metadata::{ApiVersionsRequest, MetadataRequest};
use firth_kafka::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use firth_model::batch_builder::{BatchBuilder, Draft};
use firth_model::compression::Codec;
use firth_model::names::StreamName;

use fixture::{DEADLINE, MemoryLog, NOW, Node};

fn make_topic(log: &MemoryLog, name: &str) {
    let name = StreamName::parse(name).expect("a name");
    let declare = firth_gateway::request::Declare { name, partitions: 1, policy: Policy::default(), settings: Default::default() };
    log.declare(declare).expect("a fresh name");
}

fn batch() -> Bytes {
    BatchBuilder::with_codec(Codec::None).record(Draft { timestamp: NOW.0, value: Some(b"v"), ..Draft::default() }).build()
}

fn produce(topic: &str, acks: i16, records: Bytes) -> ProduceRequest {
    let partition_data = vec![PartitionProduceData { index: 0, records: Some(records) }];
    let topic_data = vec![TopicProduceData { name: topic.into(), partition_data, ..TopicProduceData::default() }];
    ProduceRequest { acks, timeout_ms: 1000, topic_data, ..ProduceRequest::default() }
}

fn fetch(topic: &str, max_wait_ms: i32) -> FetchRequest {
    let partitions = vec![FetchPartition { partition: 0, partition_max_bytes: 1 << 20, ..FetchPartition::default() }];
    let topics = vec![FetchTopic { topic: topic.into(), partitions, ..FetchTopic::default() }];
    FetchRequest { max_wait_ms, min_bytes: 1, topics, ..FetchRequest::default() }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_the_first_one() {
    let node = Node::answering(KafkaSettings::default());
    let mut peer = node.connect();
    // ApiVersions 99, correlation id 5, no client id, then bytes that only its version knows.
    peer.stream.write_all(&[0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 1, 2]).await.expect("read");
    let (correlation_id, response) = read_response(ApiKey::ApiVersions, 0, peer.frame().await).expect("version 0");
    let Response::ApiVersions(response) = response else { panic!("{response:?}") };
    assert_eq!((correlation_id, response.error_code), (5, errors::UNSUPPORTED_VERSION));
    assert_eq!(response.api_keys.len(), APIS.len());
    let named = ApiVersionsRequest { client_software_name: "test".into(), client_software_version: "1.0".into() };
    let response = ask!(peer, ApiVersions 4, named);
    assert_eq!(response.error_code, errors::NONE, "the connection goes on");
    let nameless = ask!(peer, ApiVersions 3, ApiVersionsRequest::default());
    assert_eq!(nameless.error_code, errors::INVALID_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn answers_leave_in_the_order_of_their_requests() {
    let node = Node::still(KafkaSettings::default());
    make_topic(&node.log, "t");
    let mut peer = node.connect();
    let first = peer.send(9, produce("t", -1, batch())).await;
    let one = node.take_one();
    let second = peer.send(9, produce("t", -1, batch())).await;
    let two = node.take_one();
    let third = peer.send(9, produce("missing", -1, batch())).await;
    // The later ones are done first.
    let (answer_two, answer_one) = (node.log.answer(two.request), node.log.answer(one.request));
    two.reply.answer(answer_two).wake();
    one.reply.answer(answer_one).wake();
    for (sent, code, offset) in [(first, errors::NONE, 1), (second, errors::NONE, 0), (third, errors::UNKNOWN_TOPIC_OR_PARTITION, -1)] {
        let (received, Response::Produce(response)) = peer.receive(ApiKey::Produce, 9).await else { panic!("another answer") };
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((received, partition.error_code, partition.base_offset), (sent, code, offset));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_of_one_read_go_down_together() {
    let node = Node::still(KafkaSettings::default());
    make_topic(&node.log, "t");
    let mut peer = node.connect();
    let mut bytes = Vec::new();
    for correlation_id in 1..=3 {
        let header = firth_kafka::envelope::RequestHeader { api_key: 0, api_version: 9, correlation_id, client_id: None };
        let frame = firth_kafka::envelope::write_request(&header, &produce("t", -1, batch()).into());
        frame.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
    }
    peer.stream.write_all(&bytes).await.expect("read");
    let taken = node.take_one();
    let answer = node.log.answer(taken.request);
    taken.reply.answer(answer).wake();
    for correlation_id in 1..=3 {
        let (received, Response::Produce(response)) = peer.receive(ApiKey::Produce, 9).await else { panic!("another answer") };
        assert_eq!(received, correlation_id);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, i64::from(correlation_id - 1));
    }
}

#[tokio::test]
async fn a_parked_fetch_is_hurried_by_what_comes_after_it() {
    let node = Node::answering(KafkaSettings::default());
    make_topic(&node.log, "t");
    let mut peer = node.connect();
    let fetched = peer.send(11, fetch("t", 10 * 60 * 1000)).await;
    let asked = peer.send(9, MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() }).await;
    let (received, Response::Fetch(response)) = peer.receive(ApiKey::Fetch, 11).await else { panic!("another answer") };
    assert_eq!((received, response.error_code), (fetched, errors::NONE));
    let (received, _) = peer.receive(ApiKey::Metadata, 9).await;
    assert_eq!(received, asked);
}

#[tokio::test]
async fn a_parked_fetch_is_woken_by_records() {
    let node = Node::answering(KafkaSettings::default());
    make_topic(&node.log, "t");
    let (mut reader, mut writer) = (node.connect(), node.connect());
    reader.send(11, fetch("t", 10 * 60 * 1000)).await;
    let written = ask!(writer, Produce 9, produce("t", 1, batch()));
    assert_eq!(written.responses[0].partition_responses[0].error_code, errors::NONE);
    let (_, Response::Fetch(response)) = reader.receive(ApiKey::Fetch, 11).await else { panic!("another answer") };
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.high_watermark), (errors::NONE, 1));
    assert_eq!(partition.records.as_ref().map(|records| records.chunks.len()), Some(1));
}

/// What does not fit is not read from disk for every partition that is left.
#[tokio::test]
async fn a_full_answer_reads_no_more_from_disk() {
    let node = Node::answering(KafkaSettings::default());
    let declare = firth_gateway::request::Declare {
        name: StreamName::parse("t").expect("a name"),
        partitions: 8,
        policy: Policy::default(),
        settings: Default::default(),
    };
    node.log.declare(declare).expect("a fresh name");
    let mut peer = node.connect();
    for index in 0..8 {
        let mut produced = produce("t", 1, batch());
        produced.topic_data[0].partition_data[0].index = index;
        ask!(peer, Produce 9, produced);
    }
    node.log.cold_reads();
    let partition = |partition| FetchPartition { partition, partition_max_bytes: 1 << 20, ..FetchPartition::default() };
    let mut request = fetch("t", 0);
    request.topics[0].partitions = (0..8).map(partition).collect();
    request.max_bytes = i32::try_from(batch().len() * 5 / 2).expect("small");
    let response = ask!(peer, Fetch 11, request);
    let bytes =
        |data: &firth_kafka::messages::fetch::PartitionData| data.records.iter().flat_map(|records| &records.chunks).map(Bytes::len).sum();
    let given: Vec<usize> = response.responses[0].partitions.iter().map(bytes).collect();
    let one = batch().len();
    assert_eq!(given, [one, one, 0, 0, 0, 0, 0, 0]);
    assert_eq!(node.log.cold_reads(), 3, "two that fit and one that does not");
}

#[tokio::test]
async fn old_versions_of_produce_are_refused_partition_by_partition() {
    let node = Node::answering(KafkaSettings::default());
    make_topic(&node.log, "t");
    let mut peer = node.connect();
    for version in 0..=2 {
        let response = ask!(peer, Produce version, produce("t", 1, batch()));
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.index, partition.error_code, partition.base_offset), (0, errors::UNSUPPORTED_VERSION, -1));
    }
}

#[tokio::test]
async fn a_refused_publish_without_acknowledgement_closes_the_connection() {
    let node = Node::answering(KafkaSettings::default());
    make_topic(&node.log, "t");
    let mut peer = node.connect();
    peer.send(9, produce("t", 0, batch())).await;
    let everything = ask!(peer, Metadata 9, MetadataRequest::default());
    assert_eq!(everything.topics.len(), 1, "a good one is not answered, and the next request is");
    peer.send(9, produce("missing", 0, batch())).await;
    assert!(matches!(peer.end().await, Err(LinkEnd::Malformed { .. })));
}

#[tokio::test]
async fn a_large_request_that_waits_for_room_leaves_others_served() {
    let mut node = Node::answering(KafkaSettings::default());
    node.bound(1 << 20);
    make_topic(&node.log, "t");
    let mut held = node.budget().charge(700 << 10).expect("there is room");
    let value = vec![7; 700 << 10];
    let large = BatchBuilder::with_codec(Codec::None).record(Draft { timestamp: NOW.0, value: Some(&value), ..Draft::default() }).build();
    let (mut peer, mut other) = (node.connect(), node.connect());
    let sent = peer.send(9, produce("t", 1, large)).await;
    // Less than half is in use, and yet too much.
    for left in [700 << 10, 450 << 10] {
        held.settle(left);
        assert_eq!(ask!(other, Metadata 9, MetadataRequest::default()).topics.len(), 1);
    }
    drop(held);
    assert_eq!(peer.receive(ApiKey::Produce, 9).await.0, sent);
}

#[tokio::test]
async fn frames_that_are_none_close_the_connection() {
    let node = Node::answering(KafkaSettings::default());
    let too_large = 101u32 << 20;
    let unserved_api = [0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let unserved_version = [0, 0, 0, 10, 0, 1, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    for bytes in [&too_large.to_be_bytes()[..], b"GET / HTTP/1.1\r\n", &[0xff; 8], &unserved_api, &unserved_version] {
        let mut peer = node.connect();
        peer.stream.write_all(bytes).await.expect("read");
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, peer.stream.read_to_end(&mut rest)).await.expect("closed in time").expect("closed");
        assert!(rest.is_empty());
        assert!(matches!(peer.end().await, Err(LinkEnd::Malformed { .. })), "{bytes:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_stays_until_its_peer_or_its_node_goes() {
    let node = Node::answering(KafkaSettings::default());
    let (mut idle, mut stopped) = (node.connect(), node.connect());
    let alive = ask!(idle, Metadata 9, MetadataRequest::default());
    assert_eq!(alive.brokers.len(), 1);
    idle.stream.shutdown().await.expect("closes");
    assert!(idle.end().await.is_ok());

    make_topic(&node.log, "t");
    stopped.send(11, fetch("t", 10 * 60 * 1000)).await;
    stopped.stop.send(true).expect("the session listens");
    assert!(matches!(stopped.end().await, Err(LinkEnd::Stopping)));
}
