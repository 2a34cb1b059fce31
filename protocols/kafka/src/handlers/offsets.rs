//! The positions that groups commit, read and drop.
//!
//! Source: Apache Kafka 4.1, `KafkaApis` and `OffsetMetadataManager` for which code is answered where.

use std::collections::HashMap;
use std::sync::Arc;

use firth_gateway::groups::{Commit, CommitItem, Committed, GroupAnswer, GroupMove, Positions, StreamPartition};
use firth_gateway::refusal::Refusal;
use firth_gateway::view::LogView;
use firth_model::ids::{LeaderEpoch, Offset};

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::translate::{ask, group_code, locate, owned, shown_index};
use crate::messages::offsets::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

/// Stands for no position.
const NO_OFFSET: i64 = -1;

pub async fn offset_commit(client: Arc<Client>, version: i16, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let (mut topics, mut items, mut places) = (Vec::with_capacity(request.topics.len()), Vec::new(), Vec::new());
    for topic in request.topics {
        let stream = client.view().stream(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let mut response = OffsetCommitResponsePartition { partition_index: partition.partition_index, error_code: errors::NONE };
            match commit_item(locate(stream.as_deref(), partition.partition_index), partition) {
                Ok(item) => {
                    places.push((topics.len(), partitions.len()));
                    items.push(item);
                }
                Err(code) => response.error_code = code,
            }
            partitions.push(response);
        }
        topics.push(OffsetCommitResponseTopic { name: topic.name, partitions });
    }
    if !items.is_empty() {
        let commit = Commit {
            group: request.group_id.to_string(),
            generation: request.generation_id_or_member_epoch,
            member: request.member_id.to_string(),
            instance: owned(request.group_instance_id),
            items,
        };
        let committed = ask(&client, GroupMove::Commit(commit), |answer| match answer {
            GroupAnswer::Committed(committed) => Some(committed),
            _ => None,
        });
        let codes = commit_codes(version, places.len(), committed.await);
        for ((topic, partition), code) in places.into_iter().zip(codes) {
            topics[topic].partitions[partition].error_code = code;
        }
    }
    OffsetCommitResponse { topics, ..OffsetCommitResponse::default() }
}

fn commit_item(place: Option<StreamPartition>, partition: OffsetCommitRequestPartition) -> Result<CommitItem, i16> {
    let place = place.ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let offset = Offset::from_i64(partition.committed_offset).ok_or(errors::OFFSET_OUT_OF_RANGE)?;
    let epoch = Some(partition.committed_leader_epoch).filter(|epoch| *epoch >= 0).map(LeaderEpoch);
    Ok(CommitItem { partition: Some(place), offset, epoch, metadata: owned(partition.committed_metadata).unwrap_or_default() })
}

/// One code for each of `count` items.
fn commit_codes(version: i16, count: usize, committed: Result<Vec<Result<(), Refusal>>, Refusal>) -> Vec<i16> {
    match committed {
        Ok(committed) => committed.iter().map(|outcome| outcome.as_ref().map_or_else(errors::code, |()| errors::NONE)).collect(),
        Err(refusal) => vec![commit_code(version, &refusal); count],
    }
}

/// Clients before version 9 know no member epochs, nor that a group may be missing.
fn commit_code(version: i16, refusal: &Refusal) -> i16 {
    match refusal {
        Refusal::GroupNotFound if version < 9 => errors::ILLEGAL_GENERATION,
        Refusal::MemberEpochStale if version < 9 => errors::UNSUPPORTED_VERSION,
        other => group_code(other),
    }
}

pub async fn offset_fetch(client: Arc<Client>, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let groups = if version >= 8 { request.groups } else { vec![only_group(request)] };
    let wanted: Vec<Wanted> = groups.into_iter().map(|group| Wanted::of(client.view(), group)).collect();
    let asked = wanted.iter().map(Wanted::question).collect();
    let found = ask(&client, GroupMove::Positions(asked), |answer| match answer {
        GroupAnswer::Positions(found) => Some(found),
        _ => None,
    });
    let found = found.await.unwrap_or_else(|refusal| vec![Err(refusal); wanted.len()]);
    let mut groups = wanted.into_iter().zip(found).map(|(wanted, found)| wanted.answer(client.view(), version, found));
    if version >= 8 {
        OffsetFetchResponse { groups: groups.collect(), ..OffsetFetchResponse::default() }
    } else {
        groups.next().map(only_response).unwrap_or_default()
    }
}

/// The one group of a request before version 8.
fn only_group(request: OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.map(|topics| {
        let renamed =
            topics.into_iter().map(|topic| OffsetFetchRequestTopics { name: topic.name, partition_indexes: topic.partition_indexes });
        renamed.collect()
    });
    OffsetFetchRequestGroup { group_id: request.group_id, topics, ..OffsetFetchRequestGroup::default() }
}

/// The answer to a request before version 8.
fn only_response(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    let topics = group
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic { name: topic.name, partitions: topic.partitions.into_iter().map(partition).collect() });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..OffsetFetchResponse::default() }
}

/// What is asked of one group.
struct Wanted {
    group: Str,
    member: Option<(String, i32)>,
    /// `None`: everything it has committed.
    topics: Option<Vec<WantedTopic>>,
}

struct WantedTopic {
    name: Str,
    partitions: Vec<(i32, Option<StreamPartition>)>,
}

impl Wanted {
    fn of(view: &dyn LogView, asked: OffsetFetchRequestGroup) -> Wanted {
        let topic = |topic: OffsetFetchRequestTopics| {
            let stream = view.stream(&topic.name);
            let partitions = topic.partition_indexes.into_iter().map(|index| (index, locate(stream.as_deref(), index)));
            WantedTopic { partitions: partitions.collect(), name: topic.name }
        };
        let topics = asked.topics.map(|topics| topics.into_iter().map(topic).collect());
        // Neither a member nor an epoch: somebody outside of the group, or a member that agrees in rounds.
        let is_member = asked.member_id.is_some() || asked.member_epoch >= 0;
        let member = is_member.then(|| (owned(asked.member_id).unwrap_or_default(), asked.member_epoch));
        Wanted { group: asked.group_id, member, topics }
    }

    fn question(&self) -> Positions {
        let partitions = self.topics.as_ref().map(|topics| {
            let places = topics.iter().flat_map(|topic| &topic.partitions).filter_map(|(_, place)| place.clone());
            places.collect()
        });
        Positions { group: self.group.to_string(), member: self.member.clone(), partitions }
    }

    fn answer(self, view: &dyn LogView, version: i16, found: Result<Vec<Committed>, Refusal>) -> OffsetFetchResponseGroup {
        let (topics, error_code) = match (found, self.topics) {
            (Ok(found), Some(wanted)) => (wanted_positions(wanted, found), errors::NONE),
            (Ok(found), None) => (all_positions(view, found), errors::NONE),
            // Version 1 has no place for an error but each partition's.
            (Err(refusal), Some(wanted)) if version < 2 => {
                let code = fetch_code(&refusal);
                let none = |(index, _)| OffsetFetchResponsePartitions { error_code: code, ..no_position(index) };
                (wanted.into_iter().map(|topic| topic.each(none)).collect(), code)
            }
            (Err(refusal), _) => (Vec::new(), fetch_code(&refusal)),
        };
        OffsetFetchResponseGroup { group_id: self.group, topics, error_code }
    }
}

impl WantedTopic {
    fn each(self, position: impl FnMut((i32, Option<StreamPartition>)) -> OffsetFetchResponsePartitions) -> OffsetFetchResponseTopics {
        OffsetFetchResponseTopics { name: self.name, partitions: self.partitions.into_iter().map(position).collect() }
    }
}

/// Consumers before 3.9 take every passing error but this one for a lasting one.
fn fetch_code(refusal: &Refusal) -> i16 {
    match group_code(refusal) {
        errors::COORDINATOR_NOT_AVAILABLE => errors::NOT_COORDINATOR,
        code => code,
    }
}

fn wanted_positions(wanted: Vec<WantedTopic>, found: Vec<Committed>) -> Vec<OffsetFetchResponseTopics> {
    let found: HashMap<StreamPartition, Committed> = found.into_iter().map(|committed| (committed.partition.clone(), committed)).collect();
    let shown = |(index, place): (i32, Option<StreamPartition>)| match place.and_then(|place| found.get(&place)) {
        Some(committed) => position(index, committed),
        None => no_position(index),
    };
    wanted.into_iter().map(|topic| topic.each(shown)).collect()
}

/// By topic, in the order that they come in; topics that are no more are left out.
fn all_positions(view: &dyn LogView, found: Vec<Committed>) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    let mut places: HashMap<_, Option<usize>> = HashMap::new();
    for committed in found {
        let id = committed.partition.stream;
        let place = places.entry(id).or_insert_with(|| {
            let stream = view.stream_by_id(id)?;
            topics.push(OffsetFetchResponseTopics { name: Str::from(stream.name.as_str()), partitions: Vec::new() });
            Some(topics.len() - 1)
        });
        if let Some(place) = *place {
            topics[place].partitions.push(position(shown_index(committed.partition.index), &committed));
        }
    }
    topics
}

fn position(partition_index: i32, committed: &Committed) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.offset.as_i64(),
        committed_leader_epoch: committed.epoch.map_or(-1, |epoch| epoch.0),
        metadata: Some(Str::from(committed.metadata.as_str())),
        error_code: errors::NONE,
    }
}

/// What is answered where nothing was committed, also for partitions that are not there.
fn no_position(partition_index: i32) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: NO_OFFSET,
        metadata: Some(Str::default()),
        ..OffsetFetchResponsePartitions::default()
    }
}

pub async fn offset_delete(client: Arc<Client>, _version: i16, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let stream = client.view().stream(&topic.name);
        partitions.extend(topic.partitions.iter().map(|partition| locate(stream.as_deref(), partition.partition_index)));
    }
    let drop = GroupMove::DropPositions { group: request.group_id.to_string(), partitions };
    let dropped = ask(&client, drop, |answer| match answer {
        GroupAnswer::PositionsDropped(dropped) => Some(dropped),
        _ => None,
    });
    delete_response(request, dropped.await)
}

fn delete_response(request: OffsetDeleteRequest, dropped: Result<Vec<Result<(), Refusal>>, Refusal>) -> OffsetDeleteResponse {
    let mut dropped = match dropped {
        Ok(dropped) => dropped.into_iter(),
        Err(refusal) => return OffsetDeleteResponse { error_code: group_code(&refusal), ..OffsetDeleteResponse::default() },
    };
    let mut partition = |partition_index| {
        let outcome = dropped.next().unwrap_or(Err(Refusal::NotFound));
        OffsetDeleteResponsePartition { partition_index, error_code: outcome.as_ref().map_or_else(errors::code, |()| errors::NONE) }
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect();
        topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions });
    }
    OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() }
}

#[cfg(test)]
mod tests {
    use firth_model::ids::{PartitionIndex, StreamId};
    use uuid::Uuid;

    use super::*;
    use crate::messages::offsets::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};

    fn at(index: u32) -> StreamPartition {
        StreamPartition { stream: StreamId(Uuid::from_u128(1)), index: PartitionIndex(index) }
    }

    fn wanted() -> Vec<WantedTopic> {
        let partitions = vec![(0, Some(at(0))), (1, Some(at(1))), (9, None)];
        vec![WantedTopic { name: Str::fixed("a"), partitions }]
    }

    fn committed(index: u32, offset: u64) -> Committed {
        Committed { partition: at(index), offset: Offset(offset), epoch: Some(LeaderEpoch(2)), metadata: "m".to_owned() }
    }

    #[test]
    fn what_was_not_committed_is_minus_one_without_an_error() {
        let topics = wanted_positions(wanted(), vec![committed(1, 40)]);
        let shown: Vec<(i32, i64, i32, i16)> = topics[0]
            .partitions
            .iter()
            .map(|position| (position.partition_index, position.committed_offset, position.committed_leader_epoch, position.error_code))
            .collect();
        assert_eq!(shown, [(0, -1, -1, 0), (1, 40, 2, 0), (9, -1, -1, 0)]);
        assert_eq!(topics[0].partitions[0].metadata, Some(Str::default()));
    }

    #[test]
    fn commits_are_refused_in_words_that_the_version_has() {
        let code = |version, refusal| commit_codes(version, 1, Err(refusal))[0];
        assert_eq!(code(8, Refusal::GroupNotFound), errors::ILLEGAL_GENERATION);
        assert_eq!(code(9, Refusal::GroupNotFound), errors::GROUP_ID_NOT_FOUND);
        assert_eq!(code(9, Refusal::MemberEpochStale), errors::STALE_MEMBER_EPOCH);
        assert_eq!(code(8, Refusal::MemberEpochStale), errors::UNSUPPORTED_VERSION);
        let codes = commit_codes(9, 3, Ok(vec![Ok(()), Err(Refusal::NotFound), Err(Refusal::MetadataTooLarge)]));
        assert_eq!(codes, [errors::NONE, errors::UNKNOWN_TOPIC_OR_PARTITION, errors::OFFSET_METADATA_TOO_LARGE]);
    }

    #[test]
    fn items_that_cannot_be_committed_stay_here() {
        let asked = |offset| OffsetCommitRequestPartition { committed_offset: offset, ..OffsetCommitRequestPartition::default() };
        assert_eq!(commit_item(None, asked(1)).err(), Some(errors::UNKNOWN_TOPIC_OR_PARTITION));
        assert_eq!(commit_item(Some(at(0)), asked(-1)).err(), Some(errors::OFFSET_OUT_OF_RANGE));
        let item = commit_item(Some(at(0)), asked(7)).expect("it is good");
        assert_eq!((item.offset, item.epoch, item.metadata), (Offset(7), None, String::new()));
    }

    #[test]
    fn dropping_is_answered_by_partition_or_as_a_whole() {
        let request = || OffsetDeleteRequest {
            group_id: Str::fixed("g"),
            topics: vec![OffsetDeleteRequestTopic {
                name: Str::fixed("a"),
                partitions: [0, 1, 2].map(|partition_index| OffsetDeleteRequestPartition { partition_index }).into(),
            }],
        };
        let response = delete_response(request(), Ok(vec![Ok(()), Err(Refusal::SubscribedTo), Err(Refusal::NotFound)]));
        let codes: Vec<i16> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [errors::NONE, errors::GROUP_SUBSCRIBED_TO_TOPIC, errors::UNKNOWN_TOPIC_OR_PARTITION]);
        let response = delete_response(request(), Err(Refusal::GroupNotEmpty));
        assert_eq!((response.error_code, response.topics.len()), (errors::NON_EMPTY_GROUP, 0));
    }
}
