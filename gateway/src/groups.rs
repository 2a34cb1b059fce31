//! Group membership and cursors as asked for and answered.
//!
//! A group has members of two kinds. *Joining* members agree in rounds: all join, a leader assigns, all sync; the group has a
//! generation. *Beating* members report what they own with each heartbeat and the node assigns; each has an epoch of its own.
//! Sources: Apache Kafka's group membership protocol and KIP-848.

use bytes::Bytes;

use firth_model::ids::{LeaderEpoch, Offset, PartitionIndex, StreamId};
use firth_model::names::StreamName;

use crate::refusal::Refusal;

/// Who a member says it is; shown to operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    pub client: String,
    pub host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPartition {
    pub stream: StreamId,
    pub index: PartitionIndex,
}

/// What a joining member of a consumer kind put into its opaque metadata, read by its protocol, so that both kinds can share a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    pub streams: Vec<String>,
    pub owned: Vec<(String, Vec<PartitionIndex>)>,
    pub generation: i32,
    pub rack: Option<String>,
}

/// One way of assigning that a joining member can take part in, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinProtocol {
    pub name: String,
    pub metadata: Bytes,
    pub subscription: Option<Subscription>,
}

#[derive(Clone, Debug)]
pub struct Join {
    pub group: String,
    /// Empty for a first join.
    pub member: String,
    pub instance: Option<String>,
    pub client: ClientInfo,
    pub session_timeout_ms: i64,
    pub rebalance_timeout_ms: i64,
    /// What the group is for, as "consumer" or "connect".
    pub kind: String,
    pub protocols: Vec<JoinProtocol>,
    /// A first join is answered `MemberIdRequired`, so that a lost answer leaves no ghost member.
    pub member_id_required: bool,
    /// Whether the client understands `skip_assignment` (a static leader that comes back).
    pub may_skip_assignment: bool,
}

#[derive(Clone, Debug)]
pub struct Joined {
    pub generation: i32,
    pub kind: String,
    pub protocol: Option<String>,
    pub leader: String,
    pub member: String,
    pub skip_assignment: bool,
    /// Only for the leader.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug)]
pub struct JoinedMember {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
}

#[derive(Clone, Debug)]
pub struct Sync {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    /// Checked when given.
    pub kind: Option<String>,
    pub protocol: Option<String>,
    /// From the leader; empty from the others.
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug)]
pub struct Synced {
    pub kind: String,
    pub protocol: String,
    pub assignment: Assignment,
}

/// What a joining member is to work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// The leader's bytes.
    Opaque(Bytes),
    /// The node's own assignment in a group with beating members; the protocol writes it as its clients read it.
    Partitions(Vec<(StreamName, Vec<PartitionIndex>)>),
}

#[derive(Clone, Debug)]
pub struct Beat {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Leave {
    pub group: String,
    pub members: Vec<(String, Option<String>)>,
}

/// KIP-848 heartbeat. Fields that are `None` have not changed since the member's last one.
#[derive(Clone, Debug)]
pub struct ConsumerBeat {
    pub group: String,
    pub member: String,
    /// 0 joins, -1 leaves, -2 leaves for a while (static member), else the member's epoch.
    pub epoch: i32,
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub client: ClientInfo,
    pub rebalance_timeout_ms: Option<i64>,
    pub streams: Option<Vec<String>>,
    pub pattern: Option<String>,
    pub assignor: Option<String>,
    pub owned: Option<Vec<StreamPartition>>,
    /// The member makes its own id (KIP-1082); an empty id is then refused.
    pub makes_own_id: bool,
}

#[derive(Clone, Debug)]
pub struct ConsumerBeaten {
    pub member: String,
    pub epoch: i32,
    pub interval_ms: i32,
    /// Given when it changed or the member asked anew.
    pub assignment: Option<Vec<StreamPartition>>,
}

/// One position to remember for a group.
#[derive(Clone, Debug)]
pub struct CommitItem {
    /// Resolved by the door's view; `None` if there is no such partition (refused for that item alone).
    pub partition: Option<StreamPartition>,
    pub offset: Offset,
    pub epoch: Option<LeaderEpoch>,
    pub metadata: String,
}

/// Commits positions for a group. `generation` -1 with an empty member comes from outside any membership.
#[derive(Clone, Debug)]
pub struct Commit {
    pub group: String,
    pub generation: i32,
    pub member: String,
    pub instance: Option<String>,
    pub items: Vec<CommitItem>,
}

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub partition: StreamPartition,
    pub offset: Offset,
    pub epoch: Option<LeaderEpoch>,
    pub metadata: String,
}

#[derive(Clone, Debug)]
pub struct Positions {
    pub group: String,
    /// With an epoch: checked as the member's (KIP-848).
    pub member: Option<(String, i32)>,
    /// `None`: all of the group.
    pub partitions: Option<Vec<StreamPartition>>,
}

#[derive(Clone, Debug)]
pub enum GroupMove {
    Join(Join),
    Sync(Sync),
    Beat(Beat),
    Leave(Leave),
    ConsumerBeat(ConsumerBeat),
    Commit(Commit),
    Positions(Vec<Positions>),
    DropPositions { group: String, partitions: Vec<Option<StreamPartition>> },
    DropGroups(Vec<String>),
    List { states: Vec<String>, kinds: Vec<String> },
    Describe(Vec<String>),
}

#[derive(Clone, Debug)]
pub enum GroupAnswer {
    Joined(Joined),
    Synced(Synced),
    Beaten,
    Left(Vec<Result<(), Refusal>>),
    ConsumerBeaten(ConsumerBeaten),
    Committed(Vec<Result<(), Refusal>>),
    Positions(Vec<Result<Vec<Committed>, Refusal>>),
    PositionsDropped(Vec<Result<(), Refusal>>),
    GroupsDropped(Vec<Result<(), Refusal>>),
    Listed(Vec<GroupLine>),
    Described(Vec<Result<GroupReport, Refusal>>),
}

/// How a group's members agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// In rounds.
    Joining,
    /// By heartbeats; may hold joining members too while a group is being upgraded.
    Beating,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    /// Joining: waiting for members to join. Beating: a member has not reached its target.
    Reconciling,
    /// Joining: waiting for the leader. Beating: the target is out of date.
    Assigning,
    Stable,
    Dead,
}

#[derive(Clone, Debug)]
pub struct GroupLine {
    pub group: String,
    pub membership: Membership,
    pub kind: String,
    pub state: GroupState,
}

#[derive(Clone, Debug)]
pub struct GroupReport {
    pub group: String,
    pub membership: Membership,
    pub kind: String,
    pub state: GroupState,
    /// Generation, or group epoch.
    pub epoch: i32,
    pub assignment_epoch: i32,
    /// The protocol or assignor in force.
    pub protocol: String,
    pub members: Vec<MemberReport>,
}

#[derive(Clone, Debug)]
pub struct MemberReport {
    pub member: String,
    pub instance: Option<String>,
    pub client: ClientInfo,
    pub rack: Option<String>,
    /// Joining members: as they gave it.
    pub metadata: Bytes,
    pub assignment: Option<Assignment>,
    /// Beating members.
    pub epoch: i32,
    pub streams: Vec<String>,
    pub pattern: Option<String>,
    pub current: Vec<StreamPartition>,
    pub target: Vec<StreamPartition>,
    /// A joining member inside a beating group.
    pub upgraded: bool,
}
