//! What is remembered of groups, and its bytes.
//!
//! Every effect is the whole value of one key, so a checkpoint is the newest value of each key. Integers are little endian; texts
//! and byte strings carry a u32 length; an optional field is a u8 (0 or 1) before it. The first byte of a key is its kind and the
//! first byte of a value its version. Persisted: never reuse either.
//!
//! ```text
//! key                                                   value
//! 0x10  u16 length, group                               a group's header
//! 0x11  u16 length, group, member (to the end)          a member
//! 0x12  u16 length, group, stream id 16, index u32      a cursor
//! 0x13  u16 length, group, member (to the end)          what a member is to work on (target)
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::groups::{Assignment, ClientInfo, JoinProtocol, Membership, StreamPartition, Subscription};
use firth_model::ids::{LeaderEpoch, Offset, PartitionIndex, StreamId};
use firth_model::names::StreamName;
use firth_model::time::Millis;

use crate::layout::{Reader, StateDamage, Writer};

const GROUP: u8 = 0x10;
const MEMBER: u8 = 0x11;
const CURSOR: u8 = 0x12;
const TARGET: u8 = 0x13;
const VALUE_VERSION: u8 = 1;

/// Longest name of a group or a member, in bytes: the longest text of the protocols we speak.
pub const NAME_BYTES_MAX: usize = 32_767;

pub type Holding = BTreeSet<StreamPartition>;

/// The header of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub membership: Membership,
    /// What the group is for, as its first member said.
    pub kind: String,
    /// Generation of a joining group, group epoch of a beating one.
    pub epoch: i32,
    /// Group epoch for which the targets were made.
    pub assignment_epoch: i32,
    /// Joining: the leader has assigned in this generation.
    pub settled: bool,
    pub protocol: Option<String>,
    pub leader: Option<Arc<str>>,
    /// Since when there is no member.
    pub empty_since: Option<Millis>,
    /// Beating: fingerprint of the subscribed streams and their sizes when the epoch was last raised.
    pub streams_mark: u64,
}

/// How far a member of a beating group has come towards its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Stable,
    /// It must let go of partitions first.
    Unrevoked,
    /// It waits for partitions that others hold.
    Unreleased,
    /// A joining member from before the group was upgraded: what it holds is known when it joins again.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberRecord {
    pub instance: Option<String>,
    pub client: ClientInfo,
    pub rack: Option<String>,
    pub rebalance_timeout_ms: i64,
    /// Of members that agree in rounds.
    pub joining: Option<JoiningPart>,
    pub streams: Vec<String>,
    pub pattern: Option<String>,
    pub assignor: Option<String>,
    pub epoch: i32,
    pub previous_epoch: i32,
    pub standing: Standing,
    pub assigned: Holding,
    pub revoking: Holding,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoiningPart {
    pub session_timeout_ms: i64,
    pub protocols: Vec<JoinProtocol>,
    /// What the leader gave, in a joining group.
    pub assignment: Option<Assignment>,
}

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub offset: Offset,
    pub epoch: Option<LeaderEpoch>,
    pub metadata: String,
    pub committed: Millis,
}

/// A change of what is remembered of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEffect {
    PutGroup { group: Arc<str>, record: Box<GroupRecord> },
    DropGroup { group: Arc<str> },
    PutMember { group: Arc<str>, member: Arc<str>, record: Box<MemberRecord> },
    DropMember { group: Arc<str>, member: Arc<str> },
    PutTarget { group: Arc<str>, member: Arc<str>, target: Holding },
    DropTarget { group: Arc<str>, member: Arc<str> },
    PutCursor { group: Arc<str>, partition: StreamPartition, cursor: Cursor },
    DropCursor { group: Arc<str>, partition: StreamPartition },
}

impl GroupEffect {
    pub fn group(&self) -> &Arc<str> {
        match self {
            GroupEffect::PutGroup { group, .. }
            | GroupEffect::DropGroup { group }
            | GroupEffect::PutMember { group, .. }
            | GroupEffect::DropMember { group, .. }
            | GroupEffect::PutTarget { group, .. }
            | GroupEffect::DropTarget { group, .. }
            | GroupEffect::PutCursor { group, .. }
            | GroupEffect::DropCursor { group, .. } => group,
        }
    }

    /// The key, and its value; `None` deletes the key.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            GroupEffect::PutGroup { group, record } => (begin_key(GROUP, group).done(), Some(encode_group(record))),
            GroupEffect::DropGroup { group } => (begin_key(GROUP, group).done(), None),
            GroupEffect::PutMember { group, member, record } => (member_key(MEMBER, group, member), Some(encode_member(record))),
            GroupEffect::DropMember { group, member } => (member_key(MEMBER, group, member), None),
            GroupEffect::PutTarget { group, member, target } => {
                let mut out = begin_value();
                write_holding(&mut out, target);
                (member_key(TARGET, group, member), Some(out.done()))
            }
            GroupEffect::DropTarget { group, member } => (member_key(TARGET, group, member), None),
            GroupEffect::PutCursor { group, partition, cursor } => (cursor_key(group, partition), Some(encode_cursor(cursor))),
            GroupEffect::DropCursor { group, partition } => (cursor_key(group, partition), None),
        }
    }

    /// Reads a key and its value. Never panics; bytes of a newer version are damage to this one.
    pub fn decode(key: &[u8], value: Option<&Bytes>) -> Result<GroupEffect, StateDamage> {
        let mut from = Reader::of(key);
        let kind = from.u8()?;
        let length = usize::from(from.u16()?);
        let rest = key.get(3..).ok_or(StateDamage { what: "group key" })?;
        let (name, rest) = rest.split_at_checked(length).ok_or(StateDamage { what: "group key" })?;
        let group = name_of(name)?;
        match (kind, value) {
            (GROUP, _) if !rest.is_empty() => Err(StateDamage { what: "bytes after a group's key" }),
            (GROUP, Some(value)) => Ok(GroupEffect::PutGroup { group, record: Box::new(decode_group(value)?) }),
            (GROUP, None) => Ok(GroupEffect::DropGroup { group }),
            (MEMBER, Some(value)) => Ok(GroupEffect::PutMember { group, member: name_of(rest)?, record: Box::new(decode_member(value)?) }),
            (MEMBER, None) => Ok(GroupEffect::DropMember { group, member: name_of(rest)? }),
            (TARGET, Some(value)) => {
                let mut from = open_value(value)?;
                let target = read_holding(&mut from)?;
                from.end()?;
                Ok(GroupEffect::PutTarget { group, member: name_of(rest)?, target })
            }
            (TARGET, None) => Ok(GroupEffect::DropTarget { group, member: name_of(rest)? }),
            (CURSOR, value) => {
                let mut from = Reader::of(rest);
                let partition = read_partition(&mut from)?;
                from.end()?;
                match value {
                    Some(value) => Ok(GroupEffect::PutCursor { group, partition, cursor: decode_cursor(value)? }),
                    None => Ok(GroupEffect::DropCursor { group, partition }),
                }
            }
            _ => Err(StateDamage { what: "unknown kind of group key" }),
        }
    }
}

fn begin_key(kind: u8, group: &str) -> Writer {
    let length = u16::try_from(group.len()).expect("names are at most NAME_BYTES_MAX, checked when a move comes in");
    let mut out = Writer::default();
    out.u8(kind).u16(length).raw(group.as_bytes());
    out
}

fn member_key(kind: u8, group: &str, member: &str) -> Bytes {
    begin_key(kind, group).raw(member.as_bytes()).done()
}

fn cursor_key(group: &str, partition: &StreamPartition) -> Bytes {
    begin_key(CURSOR, group).raw(partition.stream.0.as_bytes()).u32(partition.index.0).done()
}

fn name_of(bytes: &[u8]) -> Result<Arc<str>, StateDamage> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| StateDamage { what: "name is not UTF-8" })
}

fn begin_value() -> Writer {
    let mut out = Writer::default();
    out.u8(VALUE_VERSION);
    out
}

fn open_value(value: &[u8]) -> Result<Reader<'_>, StateDamage> {
    let mut from = Reader::of(value);
    if from.u8()? != VALUE_VERSION {
        return Err(StateDamage { what: "group value of a newer version" });
    }
    Ok(from)
}

/// Flags u8 (1 beating, 2 settled), epoch i32, assignment epoch i32, kind, protocol?, leader?, empty since i64?, streams mark u64.
fn encode_group(record: &GroupRecord) -> Bytes {
    let mut out = begin_value();
    out.u8(u8::from(record.membership == Membership::Beating) | u8::from(record.settled) << 1);
    out.i32(record.epoch).i32(record.assignment_epoch).text(&record.kind);
    write_optional(&mut out, record.protocol.as_deref());
    write_optional(&mut out, record.leader.as_deref());
    match record.empty_since {
        Some(since) => out.u8(1).i64(since.0),
        None => out.u8(0),
    };
    out.u64(record.streams_mark).done()
}

fn decode_group(value: &[u8]) -> Result<GroupRecord, StateDamage> {
    let mut from = open_value(value)?;
    let flags = from.u8()?;
    let (epoch, assignment_epoch) = (from.i32()?, from.i32()?);
    let kind = from.text()?.to_owned();
    let protocol = read_optional(&mut from)?;
    let leader = read_optional(&mut from)?.map(Arc::from);
    let empty_since = if from.u8()? == 0 { None } else { Some(Millis(from.i64()?)) };
    let streams_mark = from.u64()?;
    from.end()?;
    let membership = if flags & 1 == 0 { Membership::Joining } else { Membership::Beating };
    Ok(GroupRecord { membership, kind, epoch, assignment_epoch, settled: flags & 2 != 0, protocol, leader, empty_since, streams_mark })
}

/// Instance?, client, host, rack?, rebalance timeout i64, joining part?, streams, pattern?, assignor?, epoch i32, previous epoch
/// i32, standing u8, assigned, revoking.
fn encode_member(record: &MemberRecord) -> Bytes {
    let mut out = begin_value();
    write_optional(&mut out, record.instance.as_deref());
    out.text(&record.client.client).text(&record.client.host);
    write_optional(&mut out, record.rack.as_deref());
    out.i64(record.rebalance_timeout_ms);
    match &record.joining {
        Some(part) => write_joining(out.u8(1), part),
        None => {
            out.u8(0);
        }
    }
    write_texts(&mut out, &record.streams);
    write_optional(&mut out, record.pattern.as_deref());
    write_optional(&mut out, record.assignor.as_deref());
    out.i32(record.epoch).i32(record.previous_epoch);
    out.u8(match record.standing {
        Standing::Stable => 0,
        Standing::Unrevoked => 1,
        Standing::Unreleased => 2,
        Standing::Unknown => 3,
    });
    write_holding(&mut out, &record.assigned);
    write_holding(&mut out, &record.revoking);
    out.done()
}

fn decode_member(value: &Bytes) -> Result<MemberRecord, StateDamage> {
    let mut from = open_value(value)?;
    let instance = read_optional(&mut from)?;
    let client = ClientInfo { client: from.text()?.to_owned(), host: from.text()?.to_owned() };
    let rack = read_optional(&mut from)?;
    let rebalance_timeout_ms = from.i64()?;
    let joining = if from.u8()? == 0 { None } else { Some(read_joining(&mut from)?) };
    let streams = read_texts(&mut from)?;
    let pattern = read_optional(&mut from)?;
    let assignor = read_optional(&mut from)?;
    let (epoch, previous_epoch) = (from.i32()?, from.i32()?);
    let standing = match from.u8()? {
        0 => Standing::Stable,
        1 => Standing::Unrevoked,
        2 => Standing::Unreleased,
        3 => Standing::Unknown,
        _ => return Err(StateDamage { what: "standing of a member" }),
    };
    let assigned = read_holding(&mut from)?;
    let revoking = read_holding(&mut from)?;
    from.end()?;
    Ok(MemberRecord {
        instance,
        client,
        rack,
        rebalance_timeout_ms,
        joining,
        streams,
        pattern,
        assignor,
        epoch,
        previous_epoch,
        standing,
        assigned,
        revoking,
    })
}

/// Session timeout i64; protocols: name, metadata, subscription?; assignment: u8 (0 none, 1 opaque bytes, 2 partitions by name).
fn write_joining(out: &mut Writer, part: &JoiningPart) {
    out.i64(part.session_timeout_ms).count(part.protocols.len());
    for protocol in &part.protocols {
        out.text(&protocol.name).bytes(&protocol.metadata);
        match &protocol.subscription {
            Some(subscription) => write_subscription(out.u8(1), subscription),
            None => {
                out.u8(0);
            }
        }
    }
    match &part.assignment {
        None => {
            out.u8(0);
        }
        Some(Assignment::Opaque(bytes)) => {
            out.u8(1).bytes(bytes);
        }
        Some(Assignment::Partitions(named)) => {
            out.u8(2).count(named.len());
            for (name, indexes) in named {
                write_named(out, name.as_str(), indexes);
            }
        }
    }
}

fn read_joining(from: &mut Reader<'_>) -> Result<JoiningPart, StateDamage> {
    let session_timeout_ms = from.i64()?;
    let mut protocols = Vec::new();
    for _ in 0..from.count(9)? {
        let name = from.text()?.to_owned();
        let metadata = Bytes::copy_from_slice(from.bytes()?);
        let subscription = if from.u8()? == 0 { None } else { Some(read_subscription(from)?) };
        protocols.push(JoinProtocol { name, metadata, subscription });
    }
    let assignment = match from.u8()? {
        0 => None,
        1 => Some(Assignment::Opaque(Bytes::copy_from_slice(from.bytes()?))),
        2 => {
            let mut named = Vec::new();
            for _ in 0..from.count(8)? {
                let (name, indexes) = read_named(from)?;
                let name = StreamName::parse(&name).map_err(|_| StateDamage { what: "stream name in an assignment" })?;
                named.push((name, indexes));
            }
            Some(Assignment::Partitions(named))
        }
        _ => return Err(StateDamage { what: "kind of assignment" }),
    };
    Ok(JoiningPart { session_timeout_ms, protocols, assignment })
}

/// Streams, owned partitions by name, generation i32, rack?.
fn write_subscription(out: &mut Writer, subscription: &Subscription) {
    write_texts(out, &subscription.streams);
    out.count(subscription.owned.len());
    for (name, indexes) in &subscription.owned {
        write_named(out, name, indexes);
    }
    out.i32(subscription.generation);
    write_optional(out, subscription.rack.as_deref());
}

fn read_subscription(from: &mut Reader<'_>) -> Result<Subscription, StateDamage> {
    let streams = read_texts(from)?;
    let mut owned = Vec::new();
    for _ in 0..from.count(8)? {
        owned.push(read_named(from)?);
    }
    Ok(Subscription { streams, owned, generation: from.i32()?, rack: read_optional(from)? })
}

fn write_named(out: &mut Writer, name: &str, indexes: &[PartitionIndex]) {
    out.text(name).count(indexes.len());
    for index in indexes {
        out.u32(index.0);
    }
}

fn read_named(from: &mut Reader<'_>) -> Result<(String, Vec<PartitionIndex>), StateDamage> {
    let name = from.text()?.to_owned();
    let mut indexes = Vec::new();
    for _ in 0..from.count(4)? {
        indexes.push(PartitionIndex(from.u32()?));
    }
    Ok((name, indexes))
}

/// Streams: id 16 and its indexes u32, both in rising order.
fn write_holding(out: &mut Writer, holding: &Holding) {
    let mut streams: Vec<(StreamId, Vec<u32>)> = Vec::new();
    for partition in holding {
        match streams.last_mut() {
            Some((stream, indexes)) if *stream == partition.stream => indexes.push(partition.index.0),
            _ => streams.push((partition.stream, vec![partition.index.0])),
        }
    }
    out.count(streams.len());
    for (stream, indexes) in streams {
        out.raw(stream.0.as_bytes()).count(indexes.len());
        for index in indexes {
            out.u32(index);
        }
    }
}

fn read_holding(from: &mut Reader<'_>) -> Result<Holding, StateDamage> {
    let mut holding = Holding::new();
    for _ in 0..from.count(20)? {
        let stream = StreamId(uuid::Uuid::from_bytes(from.sixteen()?));
        for _ in 0..from.count(4)? {
            holding.insert(StreamPartition { stream, index: PartitionIndex(from.u32()?) });
        }
    }
    Ok(holding)
}

fn read_partition(from: &mut Reader<'_>) -> Result<StreamPartition, StateDamage> {
    Ok(StreamPartition { stream: StreamId(uuid::Uuid::from_bytes(from.sixteen()?)), index: PartitionIndex(from.u32()?) })
}

/// Offset u64, leader epoch i32 (-1 none), committed i64, metadata.
fn encode_cursor(cursor: &Cursor) -> Bytes {
    let mut out = begin_value();
    out.u64(cursor.offset.0).i32(cursor.epoch.map_or(-1, |epoch| epoch.0)).i64(cursor.committed.0).text(&cursor.metadata).done()
}

fn decode_cursor(value: &[u8]) -> Result<Cursor, StateDamage> {
    let mut from = open_value(value)?;
    let offset = Offset(from.u64()?);
    let epoch = Some(from.i32()?).filter(|epoch| *epoch >= 0).map(LeaderEpoch);
    let committed = Millis(from.i64()?);
    let metadata = from.text()?.to_owned();
    from.end()?;
    Ok(Cursor { offset, epoch, metadata, committed })
}

fn write_optional(out: &mut Writer, text: Option<&str>) {
    match text {
        Some(text) => out.u8(1).text(text),
        None => out.u8(0),
    };
}

fn read_optional(from: &mut Reader<'_>) -> Result<Option<String>, StateDamage> {
    Ok(if from.u8()? == 0 { None } else { Some(from.text()?.to_owned()) })
}

fn write_texts(out: &mut Writer, texts: &[String]) {
    out.count(texts.len());
    for text in texts {
        out.text(text);
    }
}

fn read_texts(from: &mut Reader<'_>) -> Result<Vec<String>, StateDamage> {
    let mut texts = Vec::new();
    for _ in 0..from.count(4)? {
        texts.push(from.text()?.to_owned());
    }
    Ok(texts)
}
