//! Metadata: where topics live; makes missing ones where that is allowed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use firth_gateway::answer::Answer;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Declare, Request};
use firth_gateway::streams::{Policy, StreamInfo};
use firth_model::ids::{PartitionId, StreamId};

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::topic_names::{Collisions, is_internal, parse};
use crate::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

/// Everything one may do with a topic, as bits by the numbers of Apache Kafka's `AclOperation`: read 3, write 4, create 5, delete 6,
/// alter 7, describe 8, describe configs 10, alter configs 11.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// The same for the cluster: create 5, alter 7, describe 8, cluster action 9, describe configs 10, alter configs 11, idempotent
/// write 12.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// What is known of one topic that was asked for.
enum Found {
    Stream(Arc<StreamInfo>),
    /// By name: not there.
    Missing {
        name: Str,
        error_code: i16,
    },
    /// By id: not there.
    MissingId(Uuid),
}

pub async fn metadata(client: Arc<Client>, version: i16, request: MetadataRequest) -> MetadataResponse {
    let found = match request.topics {
        None => all(&client),
        // The first version had no other way to ask for everything.
        Some(topics) if topics.is_empty() && version == 0 => all(&client),
        Some(topics) => {
            let mut found = look_up(&client, version, topics);
            if client.settings.auto_create && request.allow_auto_topic_creation {
                make_missing(&client, &mut found).await;
            }
            found
        }
    };
    let topic_operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { i32::MIN };
    let (host, port) = client.advertised();
    MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: client.node_id(), host, port, rack: None }],
        cluster_id: Some(cluster_id(client.broker.node().cluster)),
        controller_id: client.node_id(),
        topics: found.into_iter().map(|found| topic(&client, found, topic_operations)).collect(),
        cluster_authorized_operations: if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN },
        ..MetadataResponse::default()
    }
}

fn all(client: &Client) -> Vec<Found> {
    client.view().streams().into_iter().map(Found::Stream).collect()
}

/// Each topic once, in the order of the request. If one is asked for by its id, all are.
fn look_up(client: &Client, version: i16, topics: Vec<MetadataRequestTopic>) -> Vec<Found> {
    let by_id = topics.iter().any(|topic| !topic.topic_id.is_nil());
    // Versions 10 and 11 have room for ids without knowing what they mean.
    let confused = version < 12 && (by_id || topics.iter().any(|topic| topic.name.is_none()));
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    let mut found = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = topic.name.unwrap_or_default();
        if confused {
            found.push(Found::Missing { name, error_code: errors::INVALID_REQUEST });
        } else if by_id {
            if !topic.topic_id.is_nil() && ids.insert(topic.topic_id) {
                let stream = client.view().stream_by_id(StreamId(topic.topic_id));
                found.push(stream.map_or(Found::MissingId(topic.topic_id), Found::Stream));
            }
        } else if names.insert(name.clone()) {
            found.push(match client.view().stream(&name) {
                Some(stream) => Found::Stream(stream),
                None => Found::Missing { error_code: missing_code(&name), name },
            });
        }
    }
    found
}

/// The code for a name that no topic has.
pub fn missing_code(name: &str) -> i16 {
    parse(name).map_or_else(|fault| fault.code, |_| errors::UNKNOWN_TOPIC_OR_PARTITION)
}

/// Makes the topics that are not there and may be.
async fn make_missing(client: &Client, found: &mut [Found]) {
    let missing = |found: &Found| match found {
        Found::Missing { name, error_code: errors::UNKNOWN_TOPIC_OR_PARTITION } if !is_internal(name) => Some(name.clone()),
        _ => None,
    };
    let wanted: Vec<Str> = found.iter().filter_map(missing).collect();
    let collisions = Collisions::among(client.view(), wanted.iter().map(Str::as_str));
    let (mut requests, mut made) = (Vec::new(), Vec::new());
    let mut outcomes: HashMap<Str, Result<Arc<StreamInfo>, i16>> = HashMap::new();
    for name in wanted {
        match collisions.check(&name).and_then(|()| parse(&name)) {
            Ok(stream) => {
                let partitions = client.settings.partitions;
                let declare = Declare { name: stream, partitions, policy: Policy::default(), settings: Default::default() };
                requests.push(Request::Declare(Box::new(declare)));
                made.push(name);
            }
            Err(fault) => {
                outcomes.insert(name, Err(fault.code));
            }
        }
    }
    for (name, answer) in made.into_iter().zip(client.ask_all(requests).await) {
        let outcome = match answer {
            Ok(Answer::Stream(stream)) => Ok(stream),
            // Somebody else was faster; it may not be visible yet, then the client asks again.
            Ok(_) | Err(Refusal::Exists) => client.view().stream(&name).ok_or(errors::LEADER_NOT_AVAILABLE),
            Err(refusal) => Err(errors::code(&refusal)),
        };
        outcomes.insert(name, outcome);
    }
    for found in found {
        let Found::Missing { name, error_code } = found else { continue };
        match outcomes.remove(name) {
            Some(Ok(stream)) => *found = Found::Stream(stream),
            Some(Err(code)) => *error_code = code,
            None => {}
        }
    }
}

fn topic(client: &Client, found: Found, topic_authorized_operations: i32) -> MetadataResponseTopic {
    match found {
        Found::Stream(stream) => MetadataResponseTopic {
            name: Some(Str::from(stream.name.as_str())),
            topic_id: stream.id.0,
            is_internal: is_internal(stream.name.as_str()),
            partitions: (0..).zip(&stream.partitions).map(|(index, id)| partition(client, index, *id)).collect(),
            topic_authorized_operations,
            ..MetadataResponseTopic::default()
        },
        Found::Missing { name, error_code } => {
            MetadataResponseTopic { error_code, is_internal: is_internal(&name), name: Some(name), ..MetadataResponseTopic::default() }
        }
        Found::MissingId(topic_id) => {
            MetadataResponseTopic { error_code: errors::UNKNOWN_TOPIC_ID, topic_id, ..MetadataResponseTopic::default() }
        }
    }
}

fn partition(client: &Client, partition_index: i32, partition: PartitionId) -> MetadataResponsePartition {
    MetadataResponsePartition {
        partition_index,
        leader_id: client.node_id(),
        leader_epoch: epoch(client, partition),
        replica_nodes: vec![client.node_id()],
        isr_nodes: vec![client.node_id()],
        ..MetadataResponsePartition::default()
    }
}

/// The partition's epoch; 0, the first, of one that is just being made or dropped.
pub fn epoch(client: &Client, partition: PartitionId) -> i32 {
    client.view().bounds(partition).map_or(0, |bounds| bounds.epoch.0)
}

/// The cluster's id as Kafka's clients know such ids: 22 characters of the URL-safe base 64 alphabet, without padding.
pub fn cluster_id(cluster: Uuid) -> Str {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Six bits a character from the front; the last has two, filled up with zeros.
    let character = |at: u32| {
        let shifted = if at < 21 { cluster.as_u128() >> (122 - 6 * at) } else { cluster.as_u128() << 4 };
        char::from(ALPHABET[(shifted & 63) as usize])
    };
    Str::from((0..22).map(character).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_base_64() {
        // From Python's base64.urlsafe_b64encode.
        let cluster = Uuid::from_u128(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        assert_eq!(cluster_id(cluster), "ASNFZ4mrze_-3LqYdlQyEA");
        assert_eq!(cluster_id(Uuid::from_u128(u128::MAX)), "_____________________w");
    }
}
