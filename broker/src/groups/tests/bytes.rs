//! The bytes of groups on disk.

use std::sync::Arc;

use ::bytes::Bytes;
use proptest::prelude::*;

use firth_gateway::groups::{Assignment, ClientInfo, JoinProtocol, Membership, StreamPartition, Subscription};
use firth_model::ids::{LeaderEpoch, Offset, PartitionIndex, StreamId};
use firth_model::names::StreamName;
use firth_model::time::Millis;

use crate::groups::state::{Cursor, GroupEffect, GroupRecord, Holding, JoiningPart, MemberRecord, Standing};

fn partition(stream: u128, index: u32) -> StreamPartition {
    StreamPartition { stream: StreamId(uuid::Uuid::from_u128(stream)), index: PartitionIndex(index) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// These bytes are on the disks of users: a change here needs a new version byte and both readers.
#[track_caller]
fn keeps(effect: &GroupEffect, key: &str, value: Option<&str>) {
    let (key_bytes, value_bytes) = effect.encode();
    assert_eq!(hex(&key_bytes), key);
    assert_eq!(value_bytes.as_ref().map(|value| hex(value)).as_deref(), value);
    assert_eq!(&GroupEffect::decode(&key_bytes, value_bytes.as_ref()).unwrap(), effect);
}

fn sample_group() -> GroupRecord {
    GroupRecord {
        membership: Membership::Joining,
        kind: "c".into(),
        epoch: 5,
        assignment_epoch: 4,
        settled: true,
        protocol: Some("r".into()),
        leader: Some("m".into()),
        empty_since: Some(Millis(9)),
        streams_mark: 0x1122,
    }
}

fn sample_member() -> MemberRecord {
    let subscription =
        Subscription { streams: vec!["a".into()], owned: vec![("a".into(), vec![PartitionIndex(1)])], generation: 3, rack: None };
    MemberRecord {
        instance: Some("i".into()),
        client: ClientInfo { client: "c".into(), host: "h".into() },
        rack: None,
        rebalance_timeout_ms: 2,
        joining: Some(JoiningPart {
            session_timeout_ms: 1,
            protocols: vec![JoinProtocol { name: "r".into(), metadata: Bytes::from_static(b"x"), subscription: Some(subscription) }],
            assignment: Some(Assignment::Opaque(Bytes::from_static(b"y"))),
        }),
        streams: vec!["a".into()],
        pattern: Some("p".into()),
        assignor: None,
        epoch: 7,
        previous_epoch: 6,
        standing: Standing::Unrevoked,
        assigned: Holding::from([partition(1, 0), partition(1, 2)]),
        revoking: Holding::new(),
    }
}

#[test]
fn effects_keep_their_bytes() {
    let group: Arc<str> = "g".into();
    let member: Arc<str> = "m".into();
    let stream = "00000000000000000000000000000001";
    keeps(
        &GroupEffect::PutGroup { group: group.clone(), record: Box::new(sample_group()) },
        "10010067",
        Some("01020500000004000000010000006301010000007201010000006d0109000000000000002211000000000000"),
    );
    keeps(&GroupEffect::DropGroup { group: group.clone() }, "10010067", None);
    let value = [
        "01",
        "010100000069",
        "0100000063",
        "0100000068",
        "00",
        "0200000000000000",
        "01",
        "0100000000000000",
        "01000000",
        "0100000072",
        "0100000078",
        "01",
        "01000000",
        "0100000061",
        "01000000",
        "0100000061",
        "01000000",
        "01000000",
        "03000000",
        "00",
        "01",
        "0100000079",
        "01000000",
        "0100000061",
        "010100000070",
        "00",
        "07000000",
        "06000000",
        "01",
        "01000000",
        stream,
        "02000000",
        "00000000",
        "02000000",
        "00000000",
    ]
    .concat();
    keeps(
        &GroupEffect::PutMember { group: group.clone(), member: member.clone(), record: Box::new(sample_member()) },
        "110100676d",
        Some(&value),
    );
    let key = ["12010067", stream, "02000000"].concat();
    let cursor = Cursor { offset: Offset(7), epoch: None, metadata: "t".into(), committed: Millis(8) };
    keeps(
        &GroupEffect::PutCursor { group: group.clone(), partition: partition(1, 2), cursor },
        &key,
        Some("010700000000000000ffffffff08000000000000000100000074"),
    );
    keeps(&GroupEffect::DropCursor { group: group.clone(), partition: partition(1, 2) }, &key, None);
    let value = ["01", "01000000", stream, "01000000", "03000000"].concat();
    let target = Holding::from([partition(1, 3)]);
    keeps(&GroupEffect::PutTarget { group, member, target }, "130100676d", Some(&value));
}

#[test]
fn cut_values_are_damage_not_panics() {
    let effects = [
        GroupEffect::PutGroup { group: "g".into(), record: Box::new(sample_group()) },
        GroupEffect::PutMember { group: "g".into(), member: "m".into(), record: Box::new(sample_member()) },
        GroupEffect::PutTarget { group: "g".into(), member: "m".into(), target: Holding::from([partition(1, 3)]) },
    ];
    for effect in effects {
        let (key, value) = effect.encode();
        let value = value.unwrap();
        for cut in 0..value.len() {
            assert!(GroupEffect::decode(&key, Some(&value.slice(..cut))).is_err(), "cut at {cut}");
        }
        for cut in 0..4 {
            assert!(GroupEffect::decode(&key[..cut], Some(&value)).is_err(), "key cut at {cut}");
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé]{0,6}"
}

fn holding() -> impl Strategy<Value = Holding> {
    proptest::collection::btree_set((0_u128..3, 0_u32..5).prop_map(|(stream, index)| partition(stream, index)), 0..8)
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let owned = proptest::collection::vec((text(), proptest::collection::vec((0_u32..9).prop_map(PartitionIndex), 0..3)), 0..3);
    (proptest::collection::vec(text(), 0..3), owned, any::<i32>(), proptest::option::of(text()))
        .prop_map(|(streams, owned, generation, rack)| Subscription { streams, owned, generation, rack })
}

fn joining() -> impl Strategy<Value = JoiningPart> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..5).prop_map(Bytes::from);
    let protocol = (text(), bytes(), proptest::option::of(subscription())).prop_map(|(name, metadata, subscription)| JoinProtocol {
        name,
        metadata,
        subscription,
    });
    let named = proptest::collection::vec(("[a-z]{1,4}", 0_u32..9), 0..3).prop_map(|named| {
        let one = |(name, index): (String, u32)| (StreamName::parse(&name).expect("a name"), vec![PartitionIndex(index)]);
        Assignment::Partitions(named.into_iter().map(one).collect())
    });
    let assignment = proptest::option::of(prop_oneof![bytes().prop_map(Assignment::Opaque), named]);
    (any::<i64>(), proptest::collection::vec(protocol, 0..3), assignment)
        .prop_map(|(session_timeout_ms, protocols, assignment)| JoiningPart { session_timeout_ms, protocols, assignment })
}

fn member() -> impl Strategy<Value = MemberRecord> {
    let standing = prop_oneof![Just(Standing::Stable), Just(Standing::Unrevoked), Just(Standing::Unreleased), Just(Standing::Unknown)];
    let optional = || proptest::option::of(text());
    let who = (optional(), text(), text(), optional(), any::<i64>());
    let what = (proptest::option::of(joining()), proptest::collection::vec(text(), 0..3), optional(), optional());
    (who, what, any::<i32>(), any::<i32>(), standing, holding(), holding()).prop_map(
        |(who, what, epoch, previous_epoch, standing, assigned, revoking)| {
            let (instance, client, host, rack, rebalance_timeout_ms) = who;
            let (joining, streams, pattern, assignor) = what;
            MemberRecord {
                instance,
                client: ClientInfo { client, host },
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
            }
        },
    )
}

fn group_record() -> impl Strategy<Value = GroupRecord> {
    let membership = prop_oneof![Just(Membership::Joining), Just(Membership::Beating)];
    let optional = || proptest::option::of(text());
    let first = (membership, text(), any::<i32>(), any::<i32>(), any::<bool>());
    (first, optional(), optional(), proptest::option::of(any::<i64>()), any::<u64>()).prop_map(
        |((membership, kind, epoch, assignment_epoch, settled), protocol, leader, since, streams_mark)| GroupRecord {
            membership,
            kind,
            epoch,
            assignment_epoch,
            settled,
            protocol,
            leader: leader.map(Arc::from),
            empty_since: since.map(Millis),
            streams_mark,
        },
    )
}

fn effect() -> impl Strategy<Value = GroupEffect> {
    let name = || text().prop_map(Arc::<str>::from);
    let cursor = (0..u64::MAX, proptest::option::of(0..i32::MAX), text(), any::<i64>()).prop_map(|(offset, epoch, metadata, committed)| {
        Cursor { offset: Offset(offset), epoch: epoch.map(LeaderEpoch), metadata, committed: Millis(committed) }
    });
    let spot = || (0_u128..9, any::<u32>()).prop_map(|(stream, index)| partition(stream, index));
    prop_oneof![
        (name(), group_record()).prop_map(|(group, record)| GroupEffect::PutGroup { group, record: Box::new(record) }),
        name().prop_map(|group| GroupEffect::DropGroup { group }),
        (name(), name(), member()).prop_map(|(group, member, record)| GroupEffect::PutMember { group, member, record: Box::new(record) }),
        (name(), name()).prop_map(|(group, member)| GroupEffect::DropMember { group, member }),
        (name(), name(), holding()).prop_map(|(group, member, target)| GroupEffect::PutTarget { group, member, target }),
        (name(), name()).prop_map(|(group, member)| GroupEffect::DropTarget { group, member }),
        (name(), spot(), cursor).prop_map(|(group, partition, cursor)| GroupEffect::PutCursor { group, partition, cursor }),
        (name(), spot()).prop_map(|(group, partition)| GroupEffect::DropCursor { group, partition }),
    ]
}

proptest! {
    #[test]
    fn effects_survive_their_bytes(effect in effect()) {
        let (key, value) = effect.encode();
        prop_assert_eq!(GroupEffect::decode(&key, value.as_ref()), Ok(effect));
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        kind in 0x0f_u8..0x15,
        rest in proptest::collection::vec(any::<u8>(), 0..40),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
    ) {
        let key: Vec<u8> = std::iter::once(kind).chain(rest).collect();
        let _ = GroupEffect::decode(&key, value.map(Bytes::from).as_ref());
        let short = [&[kind, 1, 0, b'g'], &key[1..]].concat();
        let _ = GroupEffect::decode(&short, None);
    }

    #[test]
    fn flipped_bits_are_read_or_refused(effect in effect(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let (key, value) = effect.encode();
        if let Some(value) = value {
            let mut value = value.to_vec();
            let at = at.index(value.len());
            value[at] ^= 1_u8 << bit;
            let _ = GroupEffect::decode(&key, Some(&Bytes::from(value)));
        }
    }
}
