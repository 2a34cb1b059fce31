//! DescribeCluster, DescribeTopicPartitions, DescribeLogDirs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use firth_gateway::streams::StreamInfo;
use firth_model::ids::PartitionIndex;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::metadata::{CLUSTER_OPERATIONS, TOPIC_OPERATIONS, cluster_id, epoch, missing_code};
use crate::handlers::topic_names::is_internal;
use crate::messages::metadata::{
    Cursor, DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsPartition, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};

/// Partitions in one answer: Apache Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: usize = 2000;
/// `endpoint_type`: the nodes that serve clients.
const BROKERS: i8 = 1;
/// `endpoint_type`: the nodes that serve administrators of the cluster.
const CONTROLLERS: i8 = 2;
/// All partitions share one journal; clients only need a name for where they are.
const LOG_DIR: &str = "journal";

pub async fn describe_cluster(client: Arc<Client>, _version: i16, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refusal = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((errors::MISMATCHED_ENDPOINT_TYPE, "this listener serves clients, not controllers")),
        _ => Some((errors::UNSUPPORTED_ENDPOINT_TYPE, "there is no such type of endpoint")),
    };
    if let Some((error_code, message)) = refusal {
        return DescribeClusterResponse { error_code, error_message: Some(Str::fixed(message)), ..DescribeClusterResponse::default() };
    }
    let (host, port) = client.advertised();
    DescribeClusterResponse {
        cluster_id: cluster_id(client.broker.node().cluster),
        controller_id: client.node_id(),
        brokers: vec![DescribeClusterBroker { broker_id: client.node_id(), host, port, rack: None, is_fenced: false }],
        cluster_authorized_operations: if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN },
        ..DescribeClusterResponse::default()
    }
}

/// Topics by name, from the cursor on, with at most so many partitions in all; a new cursor says where to go on.
pub async fn describe_topic_partitions(
    client: Arc<Client>,
    _version: i16,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (first, first_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), usize::try_from(cursor.partition_index)),
        None => ("", Ok(0)),
    };
    let fetches_all = request.topics.is_empty();
    let names: BTreeSet<Str> = if fetches_all {
        client.view().streams().iter().map(|stream| Str::from(stream.name.as_str())).filter(|name| name.as_str() >= first).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.clone()).filter(|name| name.as_str() >= first).collect()
    };
    let lost = !fetches_all && request.cursor.is_some() && !names.contains(first);
    let (Ok(first_partition), false) = (first_partition, lost) else {
        let refused = |topic: &Str| describe_missing(topic, errors::INVALID_REQUEST);
        let topics = request.topics.iter().map(|topic| refused(&topic.name)).collect();
        return DescribeTopicPartitionsResponse { topics, ..DescribeTopicPartitionsResponse::default() };
    };
    let mut room = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in &names {
        if room == 0 {
            response.next_cursor = Some(Cursor { topic_name: name.clone(), partition_index: 0 });
            break;
        }
        let Some(stream) = client.view().stream(name) else {
            if !fetches_all {
                response.topics.push(describe_missing(name, missing_code(name)));
            }
            continue;
        };
        let from = if name == first { first_partition } else { 0 };
        let to = from.saturating_add(room).min(stream.partitions.len());
        let topic = describe_partitions(&client, &stream, from, to);
        room -= topic.partitions.len();
        response.topics.push(topic);
        if to < stream.partitions.len() {
            let partition_index = i32::try_from(to).unwrap_or(i32::MAX);
            response.next_cursor = Some(Cursor { topic_name: name.clone(), partition_index });
            break;
        }
    }
    response
}

fn describe_missing(name: &Str, error_code: i16) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code,
        name: Some(name.clone()),
        is_internal: is_internal(name),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn describe_partitions(client: &Client, stream: &StreamInfo, from: usize, to: usize) -> DescribeTopicPartitionsResponseTopic {
    let node = client.node_id();
    let chosen = (0..).zip(&stream.partitions).take(to).skip(from);
    let partitions = chosen.map(|(partition_index, partition)| DescribeTopicPartitionsResponsePartition {
        partition_index,
        leader_id: node,
        leader_epoch: epoch(client, *partition),
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..DescribeTopicPartitionsResponsePartition::default()
    });
    DescribeTopicPartitionsResponseTopic {
        name: Some(Str::from(stream.name.as_str())),
        topic_id: stream.id.0,
        is_internal: is_internal(stream.name.as_str()),
        partitions: partitions.collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

pub async fn describe_log_dirs(client: Arc<Client>, _version: i16, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let mut topics = Vec::new();
    match request.topics {
        None => {
            for stream in client.view().streams() {
                let indexes = 0..i32::try_from(stream.partitions.len()).unwrap_or(i32::MAX);
                topics.push(sizes(&client, &stream, indexes));
            }
        }
        Some(asked) => {
            let mut wanted: HashMap<Str, HashSet<i32>> = HashMap::new();
            for topic in asked {
                wanted.entry(topic.topic).or_default().extend(topic.partitions);
            }
            for (name, indexes) in wanted {
                if let Some(stream) = client.view().stream(&name) {
                    topics.push(sizes(&client, &stream, indexes.into_iter()));
                }
            }
        }
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    let result = DescribeLogDirsResult { log_dir: Str::fixed(LOG_DIR), topics, ..DescribeLogDirsResult::default() };
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

fn sizes(client: &Client, stream: &StreamInfo, indexes: impl Iterator<Item = i32>) -> DescribeLogDirsTopic {
    let size = |partition_index: i32| {
        let index = u32::try_from(partition_index).ok()?;
        let bounds = client.view().bounds(stream.partition(PartitionIndex(index))?)?;
        let partition_size = i64::try_from(bounds.bytes).unwrap_or(i64::MAX);
        Some(DescribeLogDirsPartition { partition_index, partition_size, ..DescribeLogDirsPartition::default() })
    };
    DescribeLogDirsTopic { name: Str::from(stream.name.as_str()), partitions: indexes.filter_map(size).collect() }
}
