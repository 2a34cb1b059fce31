//! Groups as operators see them.

use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::groups::{GroupLine, GroupReport, GroupState, MemberReport, Membership, StreamPartition};

use super::assign::Assignor;
use super::group::{Group, Phase};
use super::state::{Holding, MemberRecord, Standing};

pub fn membership(group: &Group) -> Membership {
    if group.is_beating() { Membership::Beating } else { Membership::Joining }
}

fn kind(group: &Group) -> String {
    if group.has_members() && !group.is_beating() {
        return group.round.kind.clone();
    }
    group.record.as_ref().map(|record| record.kind.clone()).unwrap_or_default()
}

pub fn state(group: &Group) -> GroupState {
    let Some(record) = group.record.as_ref().filter(|record| record.membership == Membership::Beating) else {
        return match group.round.phase {
            Phase::Empty => GroupState::Empty,
            Phase::Joining => GroupState::Reconciling,
            Phase::Assigning => GroupState::Assigning,
            Phase::Stable => GroupState::Stable,
        };
    };
    let reached = |member: &MemberRecord| member.standing == Standing::Stable && member.epoch == record.assignment_epoch;
    if group.members.is_empty() {
        GroupState::Empty
    } else if record.epoch > record.assignment_epoch {
        GroupState::Assigning
    } else if group.members.values().all(reached) {
        GroupState::Stable
    } else {
        GroupState::Reconciling
    }
}

pub fn line(group: &Group) -> GroupLine {
    GroupLine { group: group.name.to_string(), membership: membership(group), kind: kind(group), state: state(group) }
}

/// Whether a line passes the filters; an empty filter passes all. States and kinds are matched as Apache Kafka's tools write them,
/// in any case.
pub fn passes(line: &GroupLine, states: &[String], kinds: &[String]) -> bool {
    let state = match (line.membership, line.state) {
        (_, GroupState::Empty) => "empty",
        (_, GroupState::Stable) => "stable",
        (_, GroupState::Dead) => "dead",
        (Membership::Joining, GroupState::Reconciling) => "preparingrebalance",
        (Membership::Joining, GroupState::Assigning) => "completingrebalance",
        (Membership::Beating, GroupState::Reconciling) => "reconciling",
        (Membership::Beating, GroupState::Assigning) => "assigning",
    };
    let kind = match line.membership {
        Membership::Joining => "classic",
        Membership::Beating => "consumer",
    };
    let among = |asked: &[String], word: &str| asked.is_empty() || asked.iter().any(|asked| asked.eq_ignore_ascii_case(word));
    among(states, state) && among(kinds, kind)
}

pub fn report(group: &Group, assignor: Assignor) -> GroupReport {
    let record = group.record.as_ref();
    let state = state(group);
    let beating = group.is_beating();
    let protocol = match (beating, state) {
        (true, _) => assignor.name().to_owned(),
        // A round in progress has no protocol yet.
        (false, GroupState::Stable) => record.and_then(|record| record.protocol.clone()).unwrap_or_default(),
        (false, _) => String::new(),
    };
    let members = if beating {
        group.members.iter().map(|(id, member)| beating_member(group, id, member)).collect()
    } else {
        let settled = (state == GroupState::Stable).then_some(protocol.as_str());
        group.round.seats.iter().map(|(id, seat)| joining_member(id, &seat.member, settled)).collect()
    };
    GroupReport {
        group: group.name.to_string(),
        membership: membership(group),
        kind: kind(group),
        state,
        epoch: group.epoch(),
        assignment_epoch: record.map_or(0, |record| record.assignment_epoch),
        protocol,
        members,
    }
}

fn beating_member(group: &Group, id: &Arc<str>, member: &MemberRecord) -> MemberReport {
    let listed = |holding: &Holding| -> Vec<StreamPartition> { holding.iter().cloned().collect() };
    MemberReport {
        member: id.to_string(),
        instance: member.instance.clone(),
        client: member.client.clone(),
        rack: member.rack.clone(),
        metadata: Bytes::new(),
        assignment: None,
        epoch: member.epoch,
        streams: member.streams.clone(),
        pattern: member.pattern.clone(),
        current: listed(&member.assigned),
        target: group.targets.get(id).map(listed).unwrap_or_default(),
        upgraded: member.joining.is_some(),
    }
}

/// What members said and got is shown when it is settled by `protocol`.
fn joining_member(id: &Arc<str>, member: &MemberRecord, protocol: Option<&str>) -> MemberReport {
    let part = member.joining.as_ref();
    let held = part.and_then(|part| part.protocols.iter().find(|held| Some(held.name.as_str()) == protocol));
    MemberReport {
        member: id.to_string(),
        instance: member.instance.clone(),
        client: member.client.clone(),
        rack: None,
        metadata: held.map_or_else(Bytes::new, |held| held.metadata.clone()),
        assignment: part.filter(|_| protocol.is_some()).and_then(|part| part.assignment.clone()),
        epoch: 0,
        streams: held.and_then(|held| held.subscription.as_ref()).map(|subscription| subscription.streams.clone()).unwrap_or_default(),
        pattern: None,
        current: Vec::new(),
        target: Vec::new(),
        upgraded: false,
    }
}
