//! What single requests are answered, through a whole session.

mod fixture;

use bytes::Bytes;
use uuid::Uuid;

use firth_kafka::KafkaSettings;
use firth_kafka::errors;
use firth_kafka::messages::configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterableConfig, ConfigResource, DescribeAclsRequest, DescribeConfigsRequest,
    DescribeConfigsResource, DescribeConfigsResult, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
    IncrementalAlterableConfig, ListConfigResourcesRequest,
};
use firth_kafka::messages::fetch::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use firth_kafka::messages::metadata::{
    Cursor, DescribeClusterRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest, DescribeTopicPartitionsTopic, MetadataRequest,
    MetadataRequestTopic,
};
use firth_kafka::messages::produce::{
    DescribeProducersRequest, DescribeProducersTopic, InitProducerIdRequest, ListTransactionsRequest, PartitionProduceData, ProduceRequest,
    TopicProduceData,
};
use firth_kafka::messages::topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatePartitionsAssignment, CreatePartitionsRequest,
    CreatePartitionsTopic, CreateTopicsRequest, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, DeleteTopicState,
    DeleteTopicsRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest, TopicPartitions,
};
use firth_model::batch_builder::{BatchBuilder, Draft};
use firth_model::compression::Codec;

use fixture::{NODE_ID, NOW, Node, Peer};

fn node() -> Node {
    Node::answering(KafkaSettings { partitions: 2, ..KafkaSettings::default() })
}

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: -1, replication_factor: -1, ..CreatableTopic::default() }
}

fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, ..CreateTopicsRequest::default() }
}

/// Makes `t`, with this many partitions.
async fn make(peer: &mut Peer, partitions: i32) -> Uuid {
    let made = ask!(peer, CreateTopics 7, create(vec![CreatableTopic { num_partitions: partitions, ..topic("t") }]));
    assert_eq!(made.topics[0].error_code, errors::NONE);
    made.topics[0].topic_id
}

async fn publish(peer: &mut Peer, codec: Codec, times: &[i64]) {
    let draft = |time: &i64| Draft { timestamp: NOW.0 + time, value: Some(b"v"), ..Draft::default() };
    let records: Bytes = times.iter().fold(BatchBuilder::with_codec(codec), |batch, time| batch.record(draft(time))).build();
    let partition_data = vec![PartitionProduceData { index: 0, records: Some(records) }];
    let topic_data = vec![TopicProduceData { name: "t".into(), partition_data, ..TopicProduceData::default() }];
    let response = ask!(peer, Produce 9, ProduceRequest { acks: -1, topic_data, ..ProduceRequest::default() });
    assert_eq!(response.responses[0].partition_responses[0].error_code, errors::NONE);
}

fn named(names: &[&str]) -> MetadataRequest {
    let topics = names.iter().map(|name| MetadataRequestTopic { name: Some((*name).into()), topic_id: Uuid::nil() });
    MetadataRequest { topics: Some(topics.collect()), ..MetadataRequest::default() }
}

#[tokio::test]
async fn metadata_makes_missing_topics_where_it_may() {
    let node = node();
    let mut peer = node.connect();
    let unwanted = ask!(peer, Metadata 9, MetadataRequest { allow_auto_topic_creation: false, ..named(&["a", "a/b"]) });
    let codes: Vec<i16> = unwanted.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [errors::UNKNOWN_TOPIC_OR_PARTITION, errors::INVALID_TOPIC_EXCEPTION]);

    let made = ask!(peer, Metadata 12, named(&["a.b", "a.b", "", "__consumer_offsets"]));
    let codes: Vec<i16> = made.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [errors::NONE, errors::INVALID_TOPIC_EXCEPTION, errors::UNKNOWN_TOPIC_OR_PARTITION]);
    assert!(made.topics[2].is_internal);
    let topic = &made.topics[0];
    assert!(!topic.topic_id.is_nil());
    assert_eq!(topic.partitions.len(), 2);
    assert_eq!((topic.partitions[1].leader_id, &topic.partitions[1].replica_nodes), (NODE_ID, &vec![NODE_ID]));
    assert_eq!((made.controller_id, made.brokers[0].node_id, made.brokers[0].port), (NODE_ID, NODE_ID, 9092));
    assert_eq!(made.cluster_id.as_deref(), Some("_____________________w"));

    let collides = ask!(peer, Metadata 9, named(&["a_b"]));
    assert_eq!(collides.topics[0].error_code, errors::INVALID_TOPIC_EXCEPTION);
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
        include_topic_authorized_operations: true,
        ..MetadataRequest::default()
    };
    let found = ask!(peer, Metadata 12, by_id(topic.topic_id));
    assert_eq!((found.topics[0].name.as_deref(), found.topics[0].topic_authorized_operations), (Some("a.b"), 3576));
    let unknown = ask!(peer, Metadata 12, by_id(Uuid::from_u128(99)));
    assert_eq!((unknown.topics[0].error_code, &unknown.topics[0].name), (errors::UNKNOWN_TOPIC_ID, &None));
    let confused = ask!(peer, Metadata 10, MetadataRequest { include_cluster_authorized_operations: true, ..by_id(topic.topic_id) });
    assert_eq!((confused.topics[0].error_code, confused.cluster_authorized_operations), (errors::INVALID_REQUEST, 8096));
    let all = ask!(peer, Metadata 0, MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() });
    assert_eq!(all.topics.len(), 1);
    let none = ask!(peer, Metadata 1, MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() });
    assert!(none.topics.is_empty());
}

#[tokio::test]
async fn topics_are_made_as_asked_or_refused_one_by_one() {
    let node = node();
    let mut peer = node.connect();
    let config = |name: &str, value: Option<&str>| CreatableTopicConfig { name: name.into(), value: value.map(Into::into) };
    let with = |name: &str, configs| CreatableTopic { configs, ..topic(name) };
    let assigned = |name: &str, brokers: &[&[i32]]| {
        let assignment =
            |(index, brokers): (i32, &&[i32])| CreatableReplicaAssignment { partition_index: index, broker_ids: brokers.to_vec() };
        CreatableTopic { assignments: (0..).zip(brokers).map(assignment).collect(), ..topic(name) }
    };
    let request = create(vec![
        topic("plain"),
        topic("twice"),
        topic("twice"),
        topic("bad name"),
        topic("__cluster_metadata"),
        CreatableTopic { num_partitions: 0, ..topic("empty") },
        CreatableTopic { replication_factor: 3, ..topic("copied") },
        with("set", vec![config("retention.ms", Some("1000")), config("cleanup.policy", Some("compact"))]),
        with("null", vec![config("retention.ms", None)]),
        with("wrong", vec![config("retention.ms", Some("soon"))]),
        with("strange", vec![config("message.format.version", Some("3.0"))]),
        assigned("assigned", &[&[NODE_ID], &[NODE_ID], &[NODE_ID]]),
        assigned("elsewhere", &[&[NODE_ID], &[1]]),
        CreatableTopic { num_partitions: 2, ..assigned("both", &[&[NODE_ID]]) },
    ]);
    let response = ask!(peer, CreateTopics 7, CreateTopicsRequest { validate_only: true, ..request.clone() });
    let dry: Vec<i16> = response.topics.iter().map(|topic| topic.error_code).collect();
    let response = ask!(peer, CreateTopics 7, request);
    let code = |name: &str| response.topics.iter().find(|topic| topic.name == name).expect("answered").error_code;
    assert_eq!(response.topics.len(), 13);
    assert_eq!(dry, response.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>());
    for (name, expected) in [
        ("plain", errors::NONE),
        ("twice", errors::INVALID_REQUEST),
        ("bad name", errors::INVALID_TOPIC_EXCEPTION),
        ("__cluster_metadata", errors::INVALID_REQUEST),
        ("empty", errors::INVALID_PARTITIONS),
        ("copied", errors::INVALID_REPLICATION_FACTOR),
        ("set", errors::NONE),
        ("null", errors::INVALID_CONFIG),
        ("wrong", errors::INVALID_CONFIG),
        ("strange", errors::INVALID_CONFIG),
        ("assigned", errors::NONE),
        ("elsewhere", errors::INVALID_REPLICA_ASSIGNMENT),
        ("both", errors::INVALID_REQUEST),
    ] {
        assert_eq!(code(name), expected, "{name}");
    }
    let set = response.topics.iter().find(|topic| topic.name == "set").expect("answered");
    assert_eq!((set.num_partitions, set.replication_factor), (2, 1));
    let configs = set.configs.as_ref().expect("told");
    let retention = configs.iter().find(|config| config.name == "retention.ms").expect("there");
    assert_eq!((retention.value.as_deref(), retention.config_source, configs.len()), (Some("1000"), 1, 36));
    let exists = ask!(peer, CreateTopics 2, create(vec![topic("plain")]));
    assert_eq!(exists.topics[0].error_code, errors::TOPIC_ALREADY_EXISTS);
    let all = ask!(peer, Metadata 9, MetadataRequest::default());
    let names: Vec<_> = all.topics.iter().map(|topic| (topic.name.as_deref().unwrap_or_default(), topic.partitions.len())).collect();
    assert_eq!(names, [("assigned", 3), ("plain", 2), ("set", 2)]);
}

#[tokio::test]
async fn topics_are_deleted_by_name_or_id() {
    let node = node();
    let mut peer = node.connect();
    let made = ask!(peer, CreateTopics 7, create(vec![topic("a"), topic("b"), topic("c")]));
    let id = |place: usize| made.topics[place].topic_id;
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let by_name = |name: &str| DeleteTopicState { name: Some(name.into()), topic_id: Uuid::nil() };
    let topics = vec![by_name("a"), by_id(id(1)), by_name("c"), by_id(id(2)), by_name("d"), by_id(Uuid::from_u128(99)), by_id(Uuid::nil())];
    let response = ask!(peer, DeleteTopics 6, DeleteTopicsRequest { topics, ..DeleteTopicsRequest::default() });
    let codes: Vec<i16> = response.responses.iter().map(|topic| topic.error_code).collect();
    let (no_name, no_id, bad) = (errors::UNKNOWN_TOPIC_OR_PARTITION, errors::UNKNOWN_TOPIC_ID, errors::INVALID_REQUEST);
    assert_eq!(codes, [errors::NONE, errors::NONE, bad, bad, no_name, no_id, bad]);
    assert_eq!(response.responses[1].name.as_deref(), Some("b"));
    let topic_names = vec!["c".into(), "a".into()];
    let response = ask!(peer, DeleteTopics 1, DeleteTopicsRequest { topic_names, ..DeleteTopicsRequest::default() });
    let codes: Vec<i16> = response.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [errors::NONE, no_name]);
}

#[tokio::test]
async fn partitions_grow_and_lose_their_front() {
    let node = node();
    let mut peer = node.connect();
    make(&mut peer, 1).await;
    publish(&mut peer, Codec::None, &[0, 1, 2]).await;
    let grow = |count, assignments: Option<Vec<Vec<i32>>>| {
        let assignments = assignments.map(|all| all.into_iter().map(|broker_ids| CreatePartitionsAssignment { broker_ids }).collect());
        let topics = vec![CreatePartitionsTopic { name: "t".into(), count, assignments }];
        CreatePartitionsRequest { topics, ..CreatePartitionsRequest::default() }
    };
    for (request, expected) in [
        (grow(1, None), errors::INVALID_PARTITIONS),
        (grow(-1, None), errors::INVALID_PARTITIONS),
        (grow(3, Some(vec![vec![NODE_ID]])), errors::INVALID_REPLICA_ASSIGNMENT),
        (grow(3, Some(vec![vec![NODE_ID], vec![1]])), errors::INVALID_REPLICA_ASSIGNMENT),
        (CreatePartitionsRequest { validate_only: true, ..grow(3, None) }, errors::NONE),
        (grow(3, Some(vec![vec![NODE_ID], vec![NODE_ID]])), errors::NONE),
        (grow(3, None), errors::INVALID_PARTITIONS),
    ] {
        let response = ask!(peer, CreatePartitions 3, request.clone());
        assert_eq!(response.results[0].error_code, expected, "{request:?}");
    }
    let trim = |partition_index, offset| DeleteRecordsPartition { partition_index, offset };
    let partitions = vec![trim(0, 2), trim(0, 4), trim(0, -2), trim(9, 0), trim(0, -1)];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let response = ask!(peer, DeleteRecords 2, DeleteRecordsRequest { topics, timeout_ms: 1000 });
    let results: Vec<_> = response.topics[0].partitions.iter().map(|result| (result.error_code, result.low_watermark)).collect();
    let out = (errors::OFFSET_OUT_OF_RANGE, -1);
    assert_eq!(results, [(0, 2), out, out, (errors::UNKNOWN_TOPIC_OR_PARTITION, -1), (0, 3)]);

    let asked = vec![TopicPartitions { topic: "t".into(), partitions: vec![0, 9] }];
    let elected = ask!(peer, ElectLeaders 2, ElectLeadersRequest { topic_partitions: Some(asked), ..ElectLeadersRequest::default() });
    let codes: Vec<i16> = elected.replica_election_results[0].partition_result.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [errors::ELECTION_NOT_NEEDED, errors::UNKNOWN_TOPIC_OR_PARTITION]);
    let moving = ask!(peer, ListPartitionReassignments 0, ListPartitionReassignmentsRequest::default());
    assert!(moving.topics.is_empty() && moving.error_code == errors::NONE);
}

#[tokio::test]
async fn offsets_are_found_by_name_and_time() {
    let node = node();
    let mut peer = node.connect();
    make(&mut peer, 1).await;
    publish(&mut peer, Codec::None, &[10, 40, 20]).await;
    publish(&mut peer, Codec::Lz4, &[30, 60, 50]).await;
    publish(&mut peer, Codec::Gzip, &[60, 5]).await;
    let at = |version: i16, timestamp: i64| {
        let partitions = vec![ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() }];
        let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
        (version, ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() })
    };
    for ((version, request), code, offset, time) in [
        (at(1, -1), 0, 8, -1),
        (at(1, -2), 0, 0, -1),
        (at(6, -3), errors::UNSUPPORTED_VERSION, -1, -1),
        (at(7, -3), 0, 4, NOW.0 + 60),
        (at(7, -4), errors::UNSUPPORTED_VERSION, -1, -1),
        (at(8, -4), 0, 0, -1),
        (at(9, -5), 0, -1, -1),
        (at(9, -6), errors::UNSUPPORTED_VERSION, -1, -1),
        (at(9, 0), 0, 0, NOW.0 + 10),
        (at(9, NOW.0 + 11), 0, 1, NOW.0 + 40),
        (at(9, NOW.0 + 41), 0, 4, NOW.0 + 60),
        (at(9, NOW.0 + 61), 0, -1, -1),
    ] {
        let response = ask!(peer, ListOffsets version, request.clone());
        let found = &response.topics[0].partitions[0];
        assert_eq!((found.error_code, found.offset, found.timestamp), (code, offset, time), "{request:?}");
    }
    // The batch that the index names has lost the record that was meant.
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 2 }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    ask!(peer, DeleteRecords 2, DeleteRecordsRequest { topics, timeout_ms: 1000 });
    let (version, request) = at(9, NOW.0 + 25);
    let response = ask!(peer, ListOffsets version, request);
    assert_eq!((response.topics[0].partitions[0].offset, response.topics[0].partitions[0].timestamp), (3, NOW.0 + 30));

    let partition = |partition_index, current_leader_epoch| ListOffsetsPartition { partition_index, current_leader_epoch, timestamp: -1 };
    let partitions = vec![partition(0, 5), partition(1, -1), partition(2, -1), partition(2, -1)];
    let topics = vec![ListOffsetsTopic { name: "t".into(), partitions }];
    let response = ask!(peer, ListOffsets 7, ListOffsetsRequest { topics, ..ListOffsetsRequest::default() });
    let codes: Vec<i16> = response.topics[0].partitions.iter().map(|found| found.error_code).collect();
    let (unknown, twice) = (errors::UNKNOWN_TOPIC_OR_PARTITION, errors::INVALID_REQUEST);
    assert_eq!(codes, [errors::UNKNOWN_LEADER_EPOCH, unknown, twice, twice]);
}

#[tokio::test]
async fn epochs_end_where_the_log_does() {
    let node = node();
    let mut peer = node.connect();
    make(&mut peer, 1).await;
    publish(&mut peer, Codec::None, &[0, 1]).await;
    let asked = |partition, current_leader_epoch, leader_epoch| OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch };
    let partitions = vec![asked(0, 0, 0), asked(0, -1, 1), asked(0, 1, 0), asked(3, 0, 0), asked(0, 0, -1)];
    let topics = vec![OffsetForLeaderTopic { topic: "t".into(), partitions }];
    let response = ask!(peer, OffsetForLeaderEpoch 4, OffsetForLeaderEpochRequest { replica_id: -1, topics });
    let ends: Vec<_> = response.topics[0].partitions.iter().map(|end| (end.error_code, end.leader_epoch, end.end_offset)).collect();
    let (newer, missing) = ((errors::UNKNOWN_LEADER_EPOCH, -1, -1), (errors::UNKNOWN_TOPIC_OR_PARTITION, -1, -1));
    assert_eq!(ends, [(0, 0, 2), (0, -1, -1), newer, missing, (0, -1, -1)]);
}

async fn describe(peer: &mut Peer, resource_type: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let configuration_keys = keys.map(|keys| keys.iter().map(|key| (*key).into()).collect());
    let resources = vec![DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys }];
    let request = DescribeConfigsRequest { resources, include_synonyms: true, include_documentation: true };
    ask!(peer, DescribeConfigs 4, request).results.remove(0)
}

async fn change(peer: &mut Peer, resource_type: i8, name: &str, steps: &[(&str, i8, Option<&str>)]) -> i16 {
    let step = |(name, config_operation, value): &(&str, i8, Option<&str>)| IncrementalAlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(Into::into),
    };
    let configs = steps.iter().map(step).collect();
    let resources = vec![IncrementalAlterConfigsResource { resource_type, resource_name: name.into(), configs }];
    let response = ask!(peer, IncrementalAlterConfigs 1, IncrementalAlterConfigsRequest { resources, validate_only: false });
    response.responses[0].error_code
}

#[tokio::test]
async fn topic_settings_are_changed_step_by_step_and_shown() {
    let node = node();
    let mut peer = node.connect();
    make(&mut peer, 1).await;
    let all = describe(&mut peer, 2, "t", None).await;
    assert_eq!((all.error_code, all.configs.len()), (errors::NONE, 36));
    assert!(all.configs.iter().all(|config| config.documentation.as_ref().is_some_and(|text| !text.is_empty())));
    let of = |result: &DescribeConfigsResult| {
        let config = &result.configs[0];
        (config.value.as_deref().unwrap_or_default().to_owned(), config.config_source, config.synonyms.len(), config.config_type)
    };
    let retention = describe(&mut peer, 2, "t", Some(&["retention.ms"])).await;
    assert_eq!(of(&retention), ("604800000".to_owned(), 5, 1, 5));

    node.log.refuse_alters(2);
    let steps = [("retention.ms", 0, Some("5")), ("cleanup.policy", 2, Some("compact")), ("preallocate", 1, None)];
    assert_eq!(change(&mut peer, 2, "t", &steps).await, errors::NONE, "after two conflicts");
    let retention = describe(&mut peer, 2, "t", Some(&["retention.ms"])).await;
    assert_eq!(of(&retention), ("5".to_owned(), 1, 2, 5));
    let cleanup = describe(&mut peer, 2, "t", Some(&["cleanup.policy"])).await;
    assert_eq!(of(&cleanup), ("delete,compact".to_owned(), 1, 2, 7));
    assert_eq!(change(&mut peer, 2, "t", &[("cleanup.policy", 3, Some("delete"))]).await, errors::NONE);
    let cleanup = describe(&mut peer, 2, "t", Some(&["cleanup.policy"])).await;
    assert_eq!(of(&cleanup).0, "compact");

    for (name, steps, expected) in [
        ("t", [("retention.ms", 2, Some("5"))], errors::INVALID_CONFIG),
        ("t", [("retention.ms", 0, Some("x"))], errors::INVALID_CONFIG),
        ("t", [("no.such", 0, Some("x"))], errors::INVALID_CONFIG),
        ("t", [("retention.ms", 0, None)], errors::INVALID_REQUEST),
        ("t", [("retention.ms", 9, Some("5"))], errors::INVALID_REQUEST),
        ("missing", [("retention.ms", 0, Some("5"))], errors::UNKNOWN_TOPIC_OR_PARTITION),
        ("", [("retention.ms", 0, Some("5"))], errors::INVALID_TOPIC_EXCEPTION),
    ] {
        assert_eq!(change(&mut peer, 2, name, &steps).await, expected, "{name} {steps:?}");
    }
    let configs = vec![AlterableConfig { name: "segment.bytes".into(), value: Some("2000000".into()) }];
    let resources = vec![AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs }];
    let replaced = ask!(peer, AlterConfigs 2, AlterConfigsRequest { resources, validate_only: false });
    assert_eq!(replaced.responses[0].error_code, errors::NONE);
    let retention = describe(&mut peer, 2, "t", Some(&["retention.ms"])).await;
    assert_eq!(of(&retention).1, 5, "a replacement forgets what it does not name");
    assert_eq!(describe(&mut peer, 2, "missing", None).await.error_code, errors::UNKNOWN_TOPIC_OR_PARTITION);
}

#[tokio::test]
async fn settings_of_groups_and_nodes_are_shown_and_groups_change() {
    let node = node();
    let mut peer = node.connect();
    let timeout = Some(&["consumer.session.timeout.ms"][..]);
    let before = describe(&mut peer, 32, "g", timeout).await;
    assert_eq!((before.configs[0].value.as_deref(), before.configs[0].config_source), (Some("45000"), 5));
    assert_eq!(change(&mut peer, 32, "g", &[("consumer.session.timeout.ms", 0, Some("50000"))]).await, errors::NONE);
    assert_eq!(change(&mut peer, 32, "g", &[("consumer.session.timeout.ms", 0, Some("1"))]).await, errors::INVALID_CONFIG);
    assert_eq!(change(&mut peer, 32, "", &[("consumer.session.timeout.ms", 0, Some("50000"))]).await, errors::INVALID_REQUEST);
    let after = describe(&mut peer, 32, "g", timeout).await;
    assert_eq!((after.configs[0].value.as_deref(), after.configs[0].config_source), (Some("50000"), 8));
    let listed = ask!(peer, ListConfigResources 1, ListConfigResourcesRequest { resource_types: vec![32, 4] });
    let resource = |name: &str, resource_type| ConfigResource { resource_name: name.into(), resource_type };
    assert_eq!(listed.config_resources, [resource("7", 4), resource("g", 32)]);
    assert_eq!(change(&mut peer, 32, "g", &[("consumer.session.timeout.ms", 1, None)]).await, errors::NONE);
    let listed = ask!(peer, ListConfigResources 1, ListConfigResourcesRequest { resource_types: vec![32] });
    assert!(listed.config_resources.is_empty());

    let partitions = describe(&mut peer, 4, "7", Some(&["num.partitions", "auto.create.topics.enable"])).await;
    let values: Vec<_> = partitions.configs.iter().map(|config| (config.value.as_deref(), config.read_only)).collect();
    assert_eq!(values, [(Some("true"), true), (Some("2"), true)]);
    assert_eq!(describe(&mut peer, 4, "8", None).await.error_code, errors::INVALID_REQUEST);
    assert!(describe(&mut peer, 4, "", None).await.configs.is_empty());
    assert_eq!(describe(&mut peer, 9, "x", None).await.error_code, errors::INVALID_REQUEST);
    assert_eq!(change(&mut peer, 4, "7", &[("num.partitions", 0, Some("3"))]).await, errors::INVALID_REQUEST);
    let acls = ask!(peer, DescribeAcls 3, DescribeAclsRequest::default());
    assert_eq!(acls.error_code, errors::SECURITY_DISABLED);
}

#[tokio::test]
async fn topics_are_described_in_pieces() {
    let node = node();
    let mut peer = node.connect();
    ask!(peer, CreateTopics 7, create(vec![topic("a"), topic("b"), topic("c")]));
    let from = |cursor: Option<(&str, i32)>, limit| DescribeTopicPartitionsRequest {
        response_partition_limit: limit,
        cursor: cursor.map(|(topic, partition_index)| Cursor { topic_name: topic.into(), partition_index }),
        ..DescribeTopicPartitionsRequest::default()
    };
    let first = ask!(peer, DescribeTopicPartitions 0, from(None, 3));
    let sizes: Vec<usize> = first.topics.iter().map(|topic| topic.partitions.len()).collect();
    assert_eq!((sizes, first.next_cursor), (vec![2, 1], Some(Cursor { topic_name: "b".into(), partition_index: 1 })));
    let second = ask!(peer, DescribeTopicPartitions 0, from(Some(("b", 1)), 1));
    assert_eq!(second.topics[0].partitions[0].partition_index, 1);
    assert_eq!(second.next_cursor, Some(Cursor { topic_name: "c".into(), partition_index: 0 }));
    let last = ask!(peer, DescribeTopicPartitions 0, from(Some(("c", 0)), 9));
    assert_eq!((last.topics.len(), last.next_cursor), (1, None));
    let named = |names: &[&str]| names.iter().map(|name| DescribeTopicPartitionsTopic { name: (*name).into() }).collect::<Vec<_>>();
    let missing = ask!(peer, DescribeTopicPartitions 0, DescribeTopicPartitionsRequest { topics: named(&["a", "x"]), ..from(None, 9) });
    assert_eq!(missing.topics[1].error_code, errors::UNKNOWN_TOPIC_OR_PARTITION);
    let lost = DescribeTopicPartitionsRequest { topics: named(&["a"]), ..from(Some(("b", 0)), 9) };
    let lost = ask!(peer, DescribeTopicPartitions 0, lost);
    assert_eq!(lost.topics[0].error_code, errors::INVALID_REQUEST);
}

#[tokio::test]
async fn cluster_and_producers_are_described() {
    let node = node();
    let mut peer = node.connect();
    make(&mut peer, 1).await;
    publish(&mut peer, Codec::None, &[0]).await;
    let cluster = ask!(peer, DescribeCluster 2, DescribeClusterRequest { endpoint_type: 1, ..DescribeClusterRequest::default() });
    assert_eq!((cluster.controller_id, cluster.brokers[0].broker_id, cluster.brokers[0].port), (NODE_ID, NODE_ID, 9092));
    let controllers = ask!(peer, DescribeCluster 2, DescribeClusterRequest { endpoint_type: 2, ..DescribeClusterRequest::default() });
    assert_eq!(controllers.error_code, errors::MISMATCHED_ENDPOINT_TYPE);
    let dirs = ask!(peer, DescribeLogDirs 4, DescribeLogDirsRequest { topics: None });
    assert!(dirs.results[0].topics[0].partitions[0].partition_size > 0);

    let fresh = InitProducerIdRequest { transaction_timeout_ms: 1000, ..InitProducerIdRequest::default() };
    let one = ask!(peer, InitProducerId 4, fresh.clone());
    let two = ask!(peer, InitProducerId 4, fresh.clone());
    assert!(one.producer_id != two.producer_id && one.error_code == errors::NONE && one.producer_epoch == 0);
    let transactional = ask!(peer, InitProducerId 4, InitProducerIdRequest { transactional_id: Some("x".into()), ..fresh.clone() });
    assert_eq!((transactional.error_code, transactional.producer_id), (errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1));
    let half = ask!(peer, InitProducerId 4, InitProducerIdRequest { producer_id: 1, ..fresh });
    assert_eq!(half.error_code, errors::INVALID_REQUEST);

    let topics = vec![DescribeProducersTopic { name: "t".into(), partition_indexes: vec![0, 1] }];
    let described = ask!(peer, DescribeProducers 0, DescribeProducersRequest { topics });
    let codes: Vec<i16> = described.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [errors::NONE, errors::UNKNOWN_TOPIC_OR_PARTITION]);
    let filters = vec!["Ongoing".into(), "Sideways".into()];
    let listed = ask!(peer, ListTransactions 1, ListTransactionsRequest { state_filters: filters, ..ListTransactionsRequest::default() });
    assert_eq!(listed.unknown_state_filters, ["Sideways"]);
}
