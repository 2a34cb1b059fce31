//! Groups whose members are assigned by the node.
//!
//! Source: KIP-848; KIP-1082 for members that make their own ids.

use std::sync::Arc;

use firth_gateway::groups::{ConsumerBeat, ConsumerBeaten, GroupAnswer, GroupMove, GroupReport, MemberReport, Membership, StreamPartition};
use firth_gateway::refusal::Refusal;
use firth_gateway::view::LogView;
use firth_model::ids::{PartitionIndex, StreamId};

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::translate::{GROUP_OPERATIONS, ask, by_stream, client_info, group_code, group_message, owned, shown_host, state_name};
use crate::messages::consumers::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DescribedAssignment, DescribedGroup, DescribedTopicPartitions, HeartbeatAssignment, HeartbeatTopicPartitions, Member,
};

/// Stands for "as before" in a rebalance timeout.
const UNCHANGED_MS: i32 = -1;
/// What a described member is. Source: `ConsumerGroupDescribeResponse`, field `MemberType`.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub async fn heartbeat(
    client: Arc<Client>,
    client_id: Option<Str>,
    version: i16,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let beaten = match beat_of(&client, client_id, version, request) {
        Ok(beat) => {
            let beaten = ask(&client, GroupMove::ConsumerBeat(beat), |answer| match answer {
                GroupAnswer::ConsumerBeaten(beaten) => Some(beaten),
                _ => None,
            });
            beaten.await
        }
        Err(refusal) => Err(refusal),
    };
    heartbeat_response(beaten)
}

fn beat_of(client: &Client, client_id: Option<Str>, version: i16, request: ConsumerGroupHeartbeatRequest) -> Result<ConsumerBeat, Refusal> {
    let names = |names: Vec<Str>| names.iter().map(Str::to_string).collect();
    Ok(ConsumerBeat {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        epoch: request.member_epoch,
        instance: owned(request.instance_id),
        rack: owned(request.rack_id),
        client: client_info(client, client_id),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|span_ms| *span_ms != UNCHANGED_MS).map(i64::from),
        streams: request.subscribed_topic_names.map(names),
        pattern: owned(request.subscribed_topic_regex),
        assignor: owned(request.server_assignor),
        owned: request.topic_partitions.map(held).transpose()?,
        makes_own_id: version >= 1,
    })
}

fn held(topics: Vec<HeartbeatTopicPartitions>) -> Result<Vec<StreamPartition>, Refusal> {
    let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(|index| (StreamId(topic.topic_id), *index)));
    let partition = |(stream, index): (StreamId, i32)| {
        let index = u32::try_from(index).map_err(|_| Refusal::Malformed { what: "a partition below 0" })?;
        Ok(StreamPartition { stream, index: PartitionIndex(index) })
    };
    partitions.map(partition).collect()
}

fn heartbeat_response(beaten: Result<ConsumerBeaten, Refusal>) -> ConsumerGroupHeartbeatResponse {
    match beaten {
        Ok(beaten) => ConsumerGroupHeartbeatResponse {
            member_id: Some(Str::from(beaten.member)),
            member_epoch: beaten.epoch,
            heartbeat_interval_ms: beaten.interval_ms,
            assignment: beaten.assignment.map(|partitions| HeartbeatAssignment { topic_partitions: assigned(&partitions) }),
            ..ConsumerGroupHeartbeatResponse::default()
        },
        Err(refusal) => {
            let error_code = match refusal {
                // To clients of this membership a group of the other kind is not there.
                Refusal::GroupKind => errors::GROUP_ID_NOT_FOUND,
                // The group's name is one of the fields that are checked together.
                Refusal::InvalidGroup => errors::INVALID_REQUEST,
                ref other => group_code(other),
            };
            let error_message = Some(Str::from(group_message(&refusal)));
            ConsumerGroupHeartbeatResponse { error_code, error_message, ..ConsumerGroupHeartbeatResponse::default() }
        }
    }
}

fn assigned(partitions: &[StreamPartition]) -> Vec<HeartbeatTopicPartitions> {
    by_stream(partitions).into_iter().map(|(stream, partitions)| HeartbeatTopicPartitions { topic_id: stream.0, partitions }).collect()
}

pub async fn describe(client: Arc<Client>, _version: i16, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let names = request.group_ids.iter().map(Str::to_string).collect();
    let described = ask(&client, GroupMove::Describe(names), |answer| match answer {
        GroupAnswer::Described(reports) => Some(reports),
        _ => None,
    });
    let reports = described.await.unwrap_or_else(|refusal| vec![Err(refusal); request.group_ids.len()]);
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { i32::MIN };
    let groups =
        request.group_ids.into_iter().zip(reports).map(|(group, report)| described_group(client.view(), group, report, operations));
    ConsumerGroupDescribeResponse { groups: groups.collect(), ..ConsumerGroupDescribeResponse::default() }
}

fn described_group(view: &dyn LogView, group_id: Str, report: Result<GroupReport, Refusal>, authorized_operations: i32) -> DescribedGroup {
    let (error_code, message) = match report {
        _ if group_id.is_empty() => (errors::INVALID_GROUP_ID, group_message(&Refusal::InvalidGroup)),
        Ok(report) if report.membership == Membership::Beating => {
            return DescribedGroup {
                group_id,
                group_state: Str::fixed(state_name(report.membership, report.state)),
                group_epoch: report.epoch,
                assignment_epoch: report.assignment_epoch,
                assignor_name: Str::from(report.protocol),
                members: report.members.into_iter().map(|member| described_member(view, member)).collect(),
                authorized_operations,
                ..DescribedGroup::default()
            };
        }
        // Tools then ask with DescribeGroups.
        Ok(_) => (errors::GROUP_ID_NOT_FOUND, "the group's members agree in rounds".to_owned()),
        Err(refusal) => (group_code(&refusal), group_message(&refusal)),
    };
    DescribedGroup { error_code, error_message: Some(Str::from(message)), group_id, ..DescribedGroup::default() }
}

fn described_member(view: &dyn LogView, member: MemberReport) -> Member {
    Member {
        member_id: Str::from(member.member),
        instance_id: member.instance.map(Str::from),
        rack_id: member.rack.map(Str::from),
        member_epoch: member.epoch,
        client_host: shown_host(&member.client),
        client_id: Str::from(member.client.client),
        subscribed_topic_names: member.streams.into_iter().map(Str::from).collect(),
        subscribed_topic_regex: member.pattern.map(Str::from),
        assignment: described_assignment(view, &member.current),
        target_assignment: described_assignment(view, &member.target),
        member_type: if member.upgraded { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
    }
}

/// Topics that are no more are left out.
fn described_assignment(view: &dyn LogView, partitions: &[StreamPartition]) -> DescribedAssignment {
    let topics = by_stream(partitions).into_iter().filter_map(|(id, partitions)| {
        let stream = view.stream_by_id(id)?;
        Some(DescribedTopicPartitions { topic_id: id.0, topic_name: Str::from(stream.name.as_str()), partitions })
    });
    DescribedAssignment { topic_partitions: topics.collect() }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_assignment_is_told_by_topic_id() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let at = |id, index| StreamPartition { stream: StreamId(id), index: PartitionIndex(index) };
        let beaten = ConsumerBeaten {
            member: "m".to_owned(),
            epoch: 4,
            interval_ms: 5000,
            assignment: Some(vec![at(one, 0), at(two, 7), at(one, 3)]),
        };
        let response = heartbeat_response(Ok(beaten));
        let topics = response.assignment.expect("it was given").topic_partitions;
        assert_eq!(
            topics,
            [
                HeartbeatTopicPartitions { topic_id: one, partitions: vec![0, 3] },
                HeartbeatTopicPartitions { topic_id: two, partitions: vec![7] }
            ]
        );
        assert_eq!(held(topics).map(|partitions| partitions.len()), Ok(3));
        let below = vec![HeartbeatTopicPartitions { topic_id: one, partitions: vec![-1] }];
        assert!(matches!(held(below), Err(Refusal::Malformed { .. })));
    }

    #[test]
    fn refusals_have_the_codes_of_this_membership() {
        let code = |refusal| heartbeat_response(Err(refusal)).error_code;
        assert_eq!(code(Refusal::GroupKind), errors::GROUP_ID_NOT_FOUND);
        assert_eq!(code(Refusal::InvalidGroup), errors::INVALID_REQUEST);
        assert_eq!(code(Refusal::MemberEpochFenced), errors::FENCED_MEMBER_EPOCH);
        assert_eq!(code(Refusal::InstanceInUse), errors::UNRELEASED_INSTANCE_ID);
    }
}
