//! More partitions, fewer records, and leaders.

use std::sync::Arc;

use firth_gateway::answer::Answer;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_gateway::streams::StreamInfo;
use firth_model::ids::{Offset, PartitionIndex};
use firth_model::limits::STREAM_PARTITIONS_MAX;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::fault::{Fault, told};
use crate::handlers::topic_names::is_internal;
use crate::handlers::topics::{check_replicas, repeated};
use crate::messages::topics::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult, DeleteRecordsPartition,
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, PartitionResult, ReplicaElectionResult,
};

/// `offset` that asks for all records to go.
const ALL_RECORDS: i64 = -1;

pub async fn create_partitions(client: Arc<Client>, _version: i16, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let twice = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let mut outcomes: Vec<Result<(), Fault>> = Vec::with_capacity(request.topics.len());
    let (mut requests, mut places) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        let planned = if twice.contains(&topic.name) { Err(Fault::twice()) } else { plan(&client, topic) };
        outcomes.push(planned.map(|grow| {
            if !request.validate_only {
                places.push(outcomes.len());
                requests.push(grow);
            }
        }));
    }
    for (place, answer) in places.into_iter().zip(client.ask_all(requests).await) {
        outcomes[place] = answer.map(|_| ()).map_err(Fault::from);
    }
    let results = request.topics.into_iter().zip(outcomes).map(|(topic, outcome)| {
        let (error_code, error_message) = told(&outcome);
        CreatePartitionsTopicResult { name: topic.name, error_code, error_message }
    });
    CreatePartitionsResponse { results: results.collect(), ..CreatePartitionsResponse::default() }
}

fn plan(client: &Client, topic: &CreatePartitionsTopic) -> Result<Request, Fault> {
    let stream = client.view().stream(&topic.name).ok_or_else(|| Fault::no_topic(&topic.name))?;
    let present = stream.partitions.len();
    let wanted = usize::try_from(topic.count).ok().filter(|count| *count > present).ok_or_else(|| {
        let what = format!("the topic has {present} partitions, and {} would be no more", topic.count);
        Fault::because(errors::INVALID_PARTITIONS, what)
    })?;
    let partitions = u32::try_from(wanted)
        .ok()
        .filter(|count| *count <= STREAM_PARTITIONS_MAX)
        .ok_or_else(|| Fault::because(errors::INVALID_PARTITIONS, format!("a topic has at most {STREAM_PARTITIONS_MAX} partitions")))?;
    if let Some(assignments) = &topic.assignments {
        if assignments.len() != wanted - present {
            let what = format!("{} more partitions, but assignments for {}", wanted - present, assignments.len());
            return Err(Fault::because(errors::INVALID_REPLICA_ASSIGNMENT, what));
        }
        assignments.iter().try_for_each(|assignment| check_replicas(client, &assignment.broker_ids))?;
    }
    Ok(Request::Grow { stream: stream.id, partitions })
}

pub async fn delete_records(client: Arc<Client>, _version: i16, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let (mut topics, mut requests, mut places) = (Vec::with_capacity(request.topics.len()), Vec::new(), Vec::new());
    for topic in request.topics {
        let stream = client.view().stream(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let mut error_code = errors::NONE;
            match trim(stream.as_deref(), &topic.name, &asked) {
                Ok(trim) => {
                    places.push((topics.len(), partitions.len()));
                    requests.push(trim);
                }
                Err(code) => error_code = code,
            }
            let partition_index = asked.partition_index;
            partitions.push(DeleteRecordsPartitionResult { partition_index, low_watermark: -1, error_code });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    for ((topic, partition), answer) in places.into_iter().zip(client.ask_all(requests).await) {
        let result = &mut topics[topic].partitions[partition];
        match answer {
            Ok(Answer::Trimmed { log_start }) => result.low_watermark = log_start.as_i64(),
            Ok(_) => {}
            // Clients ask again after this one.
            Err(Refusal::Stopping) => result.error_code = errors::NOT_LEADER_OR_FOLLOWER,
            Err(refusal) => result.error_code = errors::code(&refusal),
        }
    }
    DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }
}

fn trim(stream: Option<&StreamInfo>, topic: &str, asked: &DeleteRecordsPartition) -> Result<Request, i16> {
    let stream = stream.ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let index = u32::try_from(asked.partition_index).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let partition = stream.partition(PartitionIndex(index)).ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    if is_internal(topic) {
        return Err(errors::INVALID_TOPIC_EXCEPTION);
    }
    // Of a topic that is only compacted, nobody may cut off the front: every key has its last record.
    if stream.policy.compacted && !stream.policy.expires {
        return Err(errors::POLICY_VIOLATION);
    }
    let before = match asked.offset {
        ALL_RECORDS => None,
        offset => Some(Offset::from_i64(offset).ok_or(errors::OFFSET_OUT_OF_RANGE)?),
    };
    Ok(Request::Trim { partition, before })
}

/// Every partition has the leader that it always has.
pub async fn elect_leaders(client: Arc<Client>, _version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
    // 0 elects the preferred replica, 1 any that is there.
    let known = (0..=1).contains(&request.election_type);
    let error_code = if known { errors::NONE } else { errors::INVALID_REQUEST };
    // Asked for all partitions, those that need no election are left out.
    let results = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let stream = client.view().stream(&topic.topic);
        let there = |index: i32| {
            let index = u32::try_from(index).ok();
            index.and_then(|index| stream.as_ref()?.partition(PartitionIndex(index))).is_some()
        };
        let elect = |partition_id: i32| {
            let (error_code, message) = match (known, there(partition_id)) {
                (false, _) => (errors::INVALID_REQUEST, "there is no such kind of election"),
                (true, false) => (errors::UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition"),
                (true, true) => (errors::ELECTION_NOT_NEEDED, "the partition has its leader"),
            };
            PartitionResult { partition_id, error_code, error_message: Some(Str::fixed(message)) }
        };
        ReplicaElectionResult { partition_result: topic.partitions.into_iter().map(elect).collect(), topic: topic.topic }
    });
    ElectLeadersResponse { error_code, replica_election_results: results.collect(), ..ElectLeadersResponse::default() }
}

/// No replica ever moves.
pub async fn list_partition_reassignments(
    _client: Arc<Client>,
    _version: i16,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
