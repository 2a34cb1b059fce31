//! Groups in the door's words and in Kafka's.

use std::collections::BTreeMap;

use bytes::Bytes;

use firth_gateway::answer::Answer;
use firth_gateway::groups::{Assignment, ClientInfo, GroupAnswer, GroupMove, GroupState, Membership, StreamPartition, Subscription};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_gateway::streams::StreamInfo;
use firth_model::ids::{PartitionIndex, StreamId};

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::messages::embedded::{AssignedTopicPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use crate::versioned::{read_versioned, write_versioned};

/// What groups of consumers call themselves, and the only groups whose members' metadata we read.
pub const CONSUMER: &str = "consumer";

/// Everything one may do with a group, as bits by the numbers of Apache Kafka's `AclOperation`: read 3, delete 6, describe 8, describe
/// configs 10, alter configs 11.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The version assignments are written in: the oldest, which every client reads. All versions have the same fields.
const ASSIGNMENT_VERSION: i16 = 0;

/// Moves a group, and takes the one kind of answer that the move has.
pub async fn ask<T>(client: &Client, group_move: GroupMove, take: fn(GroupAnswer) -> Option<T>) -> Result<T, Refusal> {
    let taken = match client.ask(Request::Group(Box::new(group_move))).await? {
        Answer::Group(answer) => take(answer),
        _ => None,
    };
    taken.ok_or(Refusal::Unsupported { what: "the answer is one to another question" })
}

/// The code for a group request that was refused as a whole. What passes by itself becomes a code that makes every client look for
/// the coordinator and ask again; the codes of topics mean other things here.
pub fn group_code(refusal: &Refusal) -> i16 {
    match refusal {
        Refusal::StorageFull | Refusal::Damaged => errors::NOT_COORDINATOR,
        Refusal::NotFound | Refusal::Overloaded | Refusal::TimedOut | Refusal::Stopping => errors::COORDINATOR_NOT_AVAILABLE,
        Refusal::TooLarge { .. } => errors::UNKNOWN_SERVER_ERROR,
        other => errors::code(other),
    }
}

/// Words for a person about a group request that was refused.
pub fn group_message(refusal: &Refusal) -> String {
    let text = match refusal {
        Refusal::GroupKind => "the group's members agree in another way, and not all of them can change now",
        Refusal::GroupFull => "the group has as many members as it may have",
        Refusal::InvalidGroup => "a group's name is not empty, and not that long",
        Refusal::UnknownMember => "the group has no such member",
        Refusal::InstanceFenced => "another member came with this instance id",
        Refusal::InstanceInUse => "a member with this instance id is in the group",
        Refusal::MemberEpochFenced => "the member's epoch is not the group's: it has to join again",
        Refusal::MemberEpochStale => "the member has another epoch now",
        Refusal::UnknownAssignor => "there is no such assignor; there are uniform and range",
        other => return errors::message(other),
    };
    text.to_owned()
}

/// Who asks, as operators will see it.
pub fn client_info(client: &Client, client_id: Option<Str>) -> ClientInfo {
    let client_id = client_id.map(|client_id| client_id.to_string());
    ClientInfo { client: client_id.unwrap_or_default(), host: client.peer.ip().to_canonical().to_string() }
}

/// A member's host as Apache Kafka's tools know it: an address behind a slash, as nobody looks up its name.
pub fn shown_host(info: &ClientInfo) -> Str {
    if info.host.is_empty() { Str::default() } else { Str::from(format!("/{}", info.host)) }
}

/// A copy of its own, for what outlives the request it came in.
pub fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub fn owned(text: Option<Str>) -> Option<String> {
    text.map(|text| text.to_string())
}

/// What a consumer's metadata says; `None` if it is no subscription.
pub fn subscription(metadata: Bytes) -> Option<Subscription> {
    let (_, read) = read_versioned::<ConsumerProtocolSubscription>(metadata).ok()?;
    let partitions = |indexes: &[i32]| indexes.iter().filter_map(|index| u32::try_from(*index).ok()).map(PartitionIndex).collect();
    Some(Subscription {
        streams: read.topics.iter().map(Str::to_string).collect(),
        owned: read.owned_partitions.iter().map(|owned| (owned.topic.to_string(), partitions(&owned.partitions))).collect(),
        generation: read.generation_id,
        rack: owned(read.rack_id),
    })
}

/// An assignment as its member reads it.
pub fn assignment_bytes(assignment: &Assignment) -> Bytes {
    let partitions = match assignment {
        Assignment::Opaque(bytes) => return bytes.clone(),
        Assignment::Partitions(partitions) => partitions,
    };
    let assigned = partitions.iter().map(|(name, indexes)| AssignedTopicPartition {
        topic: Str::from(name.as_str()),
        partitions: indexes.iter().copied().map(shown_index).collect(),
    });
    let message = ConsumerProtocolAssignment { assigned_partitions: assigned.collect(), user_data: None };
    write_versioned(ASSIGNMENT_VERSION, &message)
}

/// A group's state as Apache Kafka names it for each kind of group.
pub fn state_name(membership: Membership, state: GroupState) -> &'static str {
    match (membership, state) {
        (_, GroupState::Empty) => "Empty",
        (_, GroupState::Stable) => "Stable",
        (_, GroupState::Dead) => "Dead",
        (Membership::Joining, GroupState::Reconciling) => "PreparingRebalance",
        (Membership::Joining, GroupState::Assigning) => "CompletingRebalance",
        (Membership::Beating, GroupState::Reconciling) => "Reconciling",
        (Membership::Beating, GroupState::Assigning) => "Assigning",
    }
}

/// A group's type as Apache Kafka names it.
pub fn type_name(membership: Membership) -> &'static str {
    match membership {
        Membership::Joining => "classic",
        Membership::Beating => "consumer",
    }
}

/// The partition that a client names by its topic and index, if there is one.
pub fn locate(stream: Option<&StreamInfo>, index: i32) -> Option<StreamPartition> {
    let (stream, index) = (stream?, PartitionIndex(u32::try_from(index).ok()?));
    stream.partition(index).map(|_| StreamPartition { stream: stream.id, index })
}

/// Indexes of partitions, by their streams.
pub fn by_stream<'a>(partitions: impl IntoIterator<Item = &'a StreamPartition>) -> BTreeMap<StreamId, Vec<i32>> {
    let mut streams: BTreeMap<StreamId, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        streams.entry(partition.stream).or_default().push(shown_index(partition.index));
    }
    streams
}

pub fn shown_index(index: PartitionIndex) -> i32 {
    i32::try_from(index.0).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use firth_gateway::streams::Policy;
    use firth_model::ids::PartitionId;
    use firth_model::names::StreamName;
    use uuid::Uuid;

    use super::*;
    use crate::messages::embedded::OwnedTopicPartition;

    #[test]
    fn subscriptions_of_all_versions_are_read() {
        let message = ConsumerProtocolSubscription {
            topics: vec![Str::fixed("a"), Str::fixed("b")],
            user_data: Some(Bytes::from_static(b"mine")),
            owned_partitions: vec![OwnedTopicPartition { topic: Str::fixed("a"), partitions: vec![0, -1, 2] }],
            generation_id: 7,
            rack_id: Some(Str::fixed("r")),
        };
        for version in 0..=3 {
            let read = subscription(write_versioned(version, &message)).expect("it is one");
            assert_eq!(read.streams, ["a", "b"]);
            let owned = vec![("a".to_owned(), vec![PartitionIndex(0), PartitionIndex(2)])];
            assert_eq!(read.owned, if version >= 1 { owned } else { Vec::new() });
            assert_eq!(read.generation, if version >= 2 { 7 } else { -1 });
            assert_eq!(read.rack.as_deref(), (version >= 3).then_some("r"));
        }
    }

    #[test]
    fn what_is_no_subscription_is_none() {
        for bytes in [&b""[..], b"\0", b"\xff\xff\0\0\0\0", b"\0\0\x7f\xff\xff\xff", b"connect"] {
            assert_eq!(subscription(Bytes::from_static(bytes)), None);
        }
    }

    #[test]
    fn assignments_are_written_as_consumers_read_them() {
        let name = StreamName::parse("ab").expect("a name");
        let assignment = Assignment::Partitions(vec![(name, vec![PartitionIndex(1), PartitionIndex(3)])]);
        let bytes = assignment_bytes(&assignment);
        // Version 0, one topic "ab" with the partitions 1 and 3, no user data.
        let fixed = b"\0\0\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\x01\0\0\0\x03\xff\xff\xff\xff";
        assert_eq!(&bytes[..], fixed);
        let opaque = Bytes::from_static(b"whatever");
        assert_eq!(assignment_bytes(&Assignment::Opaque(opaque.clone())), opaque);
    }

    #[test]
    fn states_have_the_names_of_their_kind() {
        let names = |membership| {
            [GroupState::Empty, GroupState::Reconciling, GroupState::Assigning, GroupState::Stable, GroupState::Dead]
                .map(|state| state_name(membership, state))
        };
        assert_eq!(names(Membership::Joining), ["Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"]);
        assert_eq!(names(Membership::Beating), ["Empty", "Reconciling", "Assigning", "Stable", "Dead"]);
    }

    #[test]
    fn partitions_are_found_by_index_and_grouped_by_stream() {
        let id = StreamId(Uuid::from_u128(5));
        let stream = StreamInfo {
            id,
            name: StreamName::parse("a").expect("a name"),
            partitions: vec![PartitionId(10), PartitionId(11)],
            policy: Policy::default(),
            settings: BTreeMap::new(),
            version: 0,
        };
        let at = |index| StreamPartition { stream: id, index: PartitionIndex(index) };
        assert_eq!(locate(Some(&stream), 1), Some(at(1)));
        assert_eq!((locate(Some(&stream), 2), locate(Some(&stream), -1), locate(None, 0)), (None, None, None));
        assert_eq!(by_stream(&[at(1), at(0)]), BTreeMap::from([(id, vec![1, 0])]));
    }

    #[test]
    fn refusals_that_pass_make_clients_ask_again() {
        assert_eq!(group_code(&Refusal::StorageFull), errors::NOT_COORDINATOR);
        assert_eq!(group_code(&Refusal::Overloaded), errors::COORDINATOR_NOT_AVAILABLE);
        assert_eq!(group_code(&Refusal::IllegalGeneration), errors::ILLEGAL_GENERATION);
    }
}
