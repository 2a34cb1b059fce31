//! Groups that agree in rounds, and groups as shown.
//!
//! Source: Apache Kafka 4.1, `GroupCoordinatorService` and `GroupMetadataManager` for which code is answered when.

use std::collections::HashSet;
use std::sync::Arc;

use firth_gateway::groups::{
    Beat, GroupAnswer, GroupLine, GroupMove, GroupReport, Join, JoinProtocol, Joined, JoinedMember, Leave, MemberReport, Membership, Sync,
    Synced,
};
use firth_gateway::refusal::Refusal;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::fault::Fault;
use crate::handlers::translate::{
    CONSUMER, GROUP_OPERATIONS, ask, assignment_bytes, client_info, detached, group_code, group_message, owned, shown_host, state_name,
    subscription, type_name,
};
use crate::messages::groups::{
    Coordinator, DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribedGroup, DescribedGroupMember, FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, ListGroupsResponse, ListedGroup, MemberIdentity, MemberResponse, SyncGroupRequest, SyncGroupResponse,
};

/// What FindCoordinator's `key_type` says the keys are. Source: `FindCoordinatorRequest.CoordinatorType`.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;

pub async fn find_coordinator(client: Arc<Client>, version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let found = match request.key_type {
        GROUP_KEY => Ok(()),
        TRANSACTION_KEY => Err(Refusal::TransactionsRefused.into()),
        _ => Err(Fault::because(errors::INVALID_REQUEST, "only groups have a coordinator here")),
    };
    let coordinator = |key: Str| match &found {
        Ok(()) => {
            let (host, port) = client.advertised();
            Coordinator { key, node_id: client.node_id(), host, port, ..Coordinator::default() }
        }
        Err(fault) => {
            Coordinator { key, node_id: -1, port: -1, error_code: fault.code, error_message: fault.text(), ..Coordinator::default() }
        }
    };
    if version >= 4 {
        let coordinators = request.coordinator_keys.into_iter().map(coordinator).collect();
        return FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
    }
    let only = coordinator(request.key);
    FindCoordinatorResponse {
        error_code: only.error_code,
        error_message: only.error_message,
        node_id: only.node_id,
        host: only.host,
        port: only.port,
        ..FindCoordinatorResponse::default()
    }
}

pub async fn join_group(client: Arc<Client>, client_id: Option<Str>, version: i16, request: JoinGroupRequest) -> JoinGroupResponse {
    let is_consumer = request.protocol_type == CONSUMER;
    let member = request.member_id.clone();
    let join = Join {
        group: request.group_id.to_string(),
        member: member.to_string(),
        instance: owned(request.group_instance_id),
        client: client_info(&client, client_id),
        session_timeout_ms: i64::from(request.session_timeout_ms),
        rebalance_timeout_ms: i64::from(request.rebalance_timeout_ms),
        kind: request.protocol_type.to_string(),
        protocols: request.protocols.iter().map(|protocol| join_protocol(protocol, is_consumer)).collect(),
        // KIP-394.
        member_id_required: version >= 4,
        // KIP-814.
        may_skip_assignment: version >= 9,
    };
    let joined = ask(&client, GroupMove::Join(join), |answer| match answer {
        GroupAnswer::Joined(joined) => Some(joined),
        _ => None,
    });
    join_response(member, joined.await)
}

fn join_protocol(protocol: &JoinGroupRequestProtocol, is_consumer: bool) -> JoinProtocol {
    let metadata = detached(&protocol.metadata);
    let subscription = if is_consumer { subscription(metadata.clone()) } else { None };
    JoinProtocol { name: protocol.name.to_string(), metadata, subscription }
}

/// `member` is what the joiner called itself.
fn join_response(member: Str, joined: Result<Joined, Refusal>) -> JoinGroupResponse {
    match joined {
        Ok(joined) => JoinGroupResponse {
            generation_id: joined.generation,
            protocol_type: Some(Str::from(joined.kind)),
            // None was chosen: null, or empty in versions without null.
            protocol_name: joined.protocol.filter(|protocol| !protocol.is_empty()).map(Str::from),
            leader: Str::from(joined.leader),
            skip_assignment: joined.skip_assignment,
            member_id: Str::from(joined.member),
            members: joined.members.into_iter().map(joined_member).collect(),
            ..JoinGroupResponse::default()
        },
        Err(refusal) => {
            let error_code = group_code(&refusal);
            let member_id = match refusal {
                Refusal::MemberIdRequired { member } => Str::from(member),
                // It is no member any more.
                Refusal::GroupFull => Str::default(),
                _ => member,
            };
            JoinGroupResponse { error_code, member_id, ..JoinGroupResponse::default() }
        }
    }
}

fn joined_member(member: JoinedMember) -> JoinGroupResponseMember {
    JoinGroupResponseMember {
        member_id: Str::from(member.member),
        group_instance_id: member.instance.map(Str::from),
        metadata: member.metadata,
    }
}

pub async fn sync_group(client: Arc<Client>, version: i16, request: SyncGroupRequest) -> SyncGroupResponse {
    // KIP-559: from version 5 on both must be said.
    if version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse { error_code: errors::INCONSISTENT_GROUP_PROTOCOL, ..SyncGroupResponse::default() };
    }
    let assignments = request.assignments.iter().map(|given| (given.member_id.to_string(), detached(&given.assignment)));
    let sync = Sync {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
        kind: owned(request.protocol_type),
        protocol: owned(request.protocol_name),
        assignments: assignments.collect(),
    };
    let synced = ask(&client, GroupMove::Sync(sync), |answer| match answer {
        GroupAnswer::Synced(synced) => Some(synced),
        _ => None,
    });
    sync_response(synced.await)
}

fn sync_response(synced: Result<Synced, Refusal>) -> SyncGroupResponse {
    match synced {
        Ok(synced) => SyncGroupResponse {
            protocol_type: Some(Str::from(synced.kind)),
            protocol_name: Some(Str::from(synced.protocol)),
            assignment: assignment_bytes(&synced.assignment),
            ..SyncGroupResponse::default()
        },
        Err(refusal) => SyncGroupResponse { error_code: group_code(&refusal), ..SyncGroupResponse::default() },
    }
}

pub async fn heartbeat(client: Arc<Client>, _version: i16, request: HeartbeatRequest) -> HeartbeatResponse {
    let beat = Beat {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id),
    };
    let beaten = ask(&client, GroupMove::Beat(beat), |answer| matches!(answer, GroupAnswer::Beaten).then_some(()));
    HeartbeatResponse { error_code: outcome_code(&beaten.await), ..HeartbeatResponse::default() }
}

fn outcome_code(outcome: &Result<(), Refusal>) -> i16 {
    outcome.as_ref().map_or_else(group_code, |()| errors::NONE)
}

pub async fn leave_group(client: Arc<Client>, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let members =
        if version >= 3 { request.members } else { vec![MemberIdentity { member_id: request.member_id, ..MemberIdentity::default() }] };
    let named = |member: &MemberIdentity| (member.member_id.to_string(), owned(member.group_instance_id.clone()));
    let leave = Leave { group: request.group_id.to_string(), members: members.iter().map(named).collect() };
    let left = ask(&client, GroupMove::Leave(leave), |answer| match answer {
        GroupAnswer::Left(left) => Some(left),
        _ => None,
    });
    leave_response(version, members, left.await)
}

fn leave_response(version: i16, members: Vec<MemberIdentity>, left: Result<Vec<Result<(), Refusal>>, Refusal>) -> LeaveGroupResponse {
    let left = match left {
        Ok(left) => left,
        // A group that is not there: nobody of them is a member.
        Err(Refusal::UnknownMember | Refusal::GroupNotFound) => vec![Err(Refusal::UnknownMember); members.len()],
        Err(refusal) => return LeaveGroupResponse { error_code: group_code(&refusal), ..LeaveGroupResponse::default() },
    };
    if version < 3 {
        let error_code = left.first().map_or(errors::NONE, outcome_code);
        return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
    }
    let members = members.into_iter().zip(&left).map(|(member, outcome)| MemberResponse {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: outcome_code(outcome),
    });
    LeaveGroupResponse { members: members.collect(), ..LeaveGroupResponse::default() }
}

pub async fn describe_groups(client: Arc<Client>, version: i16, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let names = request.groups.iter().map(Str::to_string).collect();
    let described = ask(&client, GroupMove::Describe(names), |answer| match answer {
        GroupAnswer::Described(reports) => Some(reports),
        _ => None,
    });
    let reports = described.await.unwrap_or_else(|refusal| vec![Err(refusal); request.groups.len()]);
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { i32::MIN };
    let groups = request.groups.into_iter().zip(reports).map(|(group, report)| described_group(version, group, report, operations));
    DescribeGroupsResponse { groups: groups.collect(), ..DescribeGroupsResponse::default() }
}

fn described_group(version: i16, group_id: Str, report: Result<GroupReport, Refusal>, authorized_operations: i32) -> DescribedGroup {
    let refusal = match report {
        Ok(report) if report.membership == Membership::Joining => {
            return DescribedGroup {
                group_id,
                group_state: Str::fixed(state_name(report.membership, report.state)),
                protocol_type: Str::from(report.kind),
                protocol_data: Str::from(report.protocol),
                members: report.members.into_iter().map(described_member).collect(),
                authorized_operations,
                ..DescribedGroup::default()
            };
        }
        // Its members are told with ConsumerGroupDescribe; here it is as if it were not.
        Ok(_) => Refusal::GroupNotFound,
        Err(refusal) => refusal,
    };
    let is_absent = refusal == Refusal::GroupNotFound;
    let mut group = DescribedGroup { group_id, ..DescribedGroup::default() };
    if is_absent {
        group.group_state = Str::fixed("Dead");
        // KIP-1043; before it, being dead said it all.
        group.authorized_operations = if version >= 6 { i32::MIN } else { authorized_operations };
    }
    if !is_absent || version >= 6 {
        group.error_code = group_code(&refusal);
        group.error_message = Some(Str::from(group_message(&refusal)));
    }
    group
}

fn described_member(member: MemberReport) -> DescribedGroupMember {
    DescribedGroupMember {
        member_id: Str::from(member.member),
        group_instance_id: member.instance.map(Str::from),
        client_host: shown_host(&member.client),
        client_id: Str::from(member.client.client),
        member_metadata: member.metadata,
        member_assignment: member.assignment.as_ref().map(assignment_bytes).unwrap_or_default(),
    }
}

pub async fn list_groups(client: Arc<Client>, _version: i16, request: ListGroupsRequest) -> ListGroupsResponse {
    let states = request.states_filter.iter().map(|state| state.trim().to_owned()).collect();
    let kinds = request.types_filter.iter().map(Str::to_string).collect();
    let listed = ask(&client, GroupMove::List { states, kinds }, |answer| match answer {
        GroupAnswer::Listed(lines) => Some(lines),
        _ => None,
    });
    match listed.await {
        Ok(lines) => ListGroupsResponse { groups: lines.into_iter().map(listed_group).collect(), ..ListGroupsResponse::default() },
        Err(refusal) => ListGroupsResponse { error_code: group_code(&refusal), ..ListGroupsResponse::default() },
    }
}

fn listed_group(line: GroupLine) -> ListedGroup {
    let protocol_type = match line.membership {
        Membership::Joining => Str::from(line.kind),
        Membership::Beating => Str::fixed(CONSUMER),
    };
    ListedGroup {
        group_id: Str::from(line.group),
        protocol_type,
        group_state: Str::fixed(state_name(line.membership, line.state)),
        group_type: Str::fixed(type_name(line.membership)),
    }
}

pub async fn delete_groups(client: Arc<Client>, _version: i16, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut seen = HashSet::new();
    let names: Vec<Str> = request.groups_names.into_iter().filter(|name| seen.insert(name.clone())).collect();
    let asked = names.iter().map(Str::to_string).collect();
    let dropped = ask(&client, GroupMove::DropGroups(asked), |answer| match answer {
        GroupAnswer::GroupsDropped(dropped) => Some(dropped),
        _ => None,
    });
    let dropped = dropped.await.unwrap_or_else(|refusal| vec![Err(refusal); names.len()]);
    let results =
        names.into_iter().zip(&dropped).map(|(group_id, outcome)| DeletableGroupResult { group_id, error_code: outcome_code(outcome) });
    DeleteGroupsResponse { results: results.collect(), ..DeleteGroupsResponse::default() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use firth_gateway::groups::{Assignment, ClientInfo, GroupState};

    use super::*;

    fn member(id: &'static str, instance: Option<&'static str>) -> MemberIdentity {
        MemberIdentity { member_id: Str::fixed(id), group_instance_id: instance.map(Str::fixed), reason: None }
    }

    fn report(membership: Membership) -> GroupReport {
        GroupReport {
            group: "g".to_owned(),
            membership,
            kind: "consumer".to_owned(),
            state: GroupState::Stable,
            epoch: 3,
            assignment_epoch: 3,
            protocol: "range".to_owned(),
            members: vec![MemberReport {
                member: "m".to_owned(),
                instance: None,
                client: ClientInfo { client: "c".to_owned(), host: "10.0.0.1".to_owned() },
                rack: None,
                metadata: Bytes::from_static(b"meta"),
                assignment: Some(Assignment::Opaque(Bytes::from_static(b"mine"))),
                epoch: 0,
                streams: Vec::new(),
                pattern: None,
                current: Vec::new(),
                target: Vec::new(),
                upgraded: false,
            }],
        }
    }

    #[test]
    fn a_join_without_an_id_is_told_its_id() {
        let refused = join_response(Str::default(), Err(Refusal::MemberIdRequired { member: "m-1".to_owned() }));
        assert_eq!((refused.error_code, refused.generation_id, &*refused.member_id), (errors::MEMBER_ID_REQUIRED, -1, "m-1"));
        let refused = join_response(Str::fixed("m"), Err(Refusal::InvalidSession));
        assert_eq!((refused.error_code, &*refused.member_id), (errors::INVALID_SESSION_TIMEOUT, "m"));
    }

    #[test]
    fn leaving_is_answered_by_member_from_version_3_on() {
        let members = || vec![member("a", None), member("", Some("i"))];
        let left = leave_response(3, members(), Ok(vec![Ok(()), Err(Refusal::InstanceFenced)]));
        let codes: Vec<i16> = left.members.iter().map(|member| member.error_code).collect();
        assert_eq!((left.error_code, codes), (errors::NONE, vec![errors::NONE, errors::FENCED_INSTANCE_ID]));
        let left = leave_response(5, members(), Err(Refusal::UnknownMember));
        assert_eq!((left.error_code, left.members[1].error_code), (errors::NONE, errors::UNKNOWN_MEMBER_ID));
        let left = leave_response(5, members(), Err(Refusal::InvalidGroup));
        assert_eq!((left.error_code, left.members.len()), (errors::INVALID_GROUP_ID, 0));
        for refused in [Ok(vec![Err(Refusal::UnknownMember)]), Err(Refusal::UnknownMember)] {
            let left = leave_response(2, vec![member("a", None)], refused);
            assert_eq!((left.error_code, left.members.len()), (errors::UNKNOWN_MEMBER_ID, 0));
        }
    }

    #[test]
    fn groups_in_rounds_are_described_and_others_are_dead() {
        let group = described_group(6, Str::fixed("g"), Ok(report(Membership::Joining)), GROUP_OPERATIONS);
        assert_eq!((group.error_code, &*group.group_state, &*group.protocol_data), (errors::NONE, "Stable", "range"));
        assert_eq!((&*group.members[0].client_host, &group.members[0].member_assignment[..]), ("/10.0.0.1", &b"mine"[..]));
        assert_eq!(group.authorized_operations, GROUP_OPERATIONS);
        for report in [Ok(report(Membership::Beating)), Err(Refusal::GroupNotFound)] {
            let group = described_group(6, Str::fixed("g"), report.clone(), i32::MIN);
            assert_eq!((group.error_code, &*group.group_state), (errors::GROUP_ID_NOT_FOUND, "Dead"));
            let group = described_group(5, Str::fixed("g"), report, i32::MIN);
            assert_eq!((group.error_code, &*group.group_state, group.error_message), (errors::NONE, "Dead", None));
        }
        let group = described_group(5, Str::fixed("g"), Err(Refusal::Stopping), GROUP_OPERATIONS);
        assert_eq!((group.error_code, &*group.group_state), (errors::COORDINATOR_NOT_AVAILABLE, ""));
    }
}
