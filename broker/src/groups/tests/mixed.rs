//! Both kinds of members in one group.

use firth_gateway::groups::{Assignment, ConsumerBeat, GroupMove, GroupState, Join, JoinProtocol, Membership, Subscription};
use firth_gateway::refusal::Refusal;
use firth_model::ids::PartitionIndex;

use super::beating::Client;
use super::joining::pair;
use super::{Rig, hello, join, protocol, still, sync};

/// What a joining member with `member` says when it joins again, holding these partitions of "a".
fn rejoin(member: &str, owned: &[u32]) -> Join {
    let subscription = Subscription {
        streams: vec!["a".into()],
        owned: vec![("a".into(), owned.iter().map(|index| PartitionIndex(*index)).collect())],
        ..Subscription::default()
    };
    Join { protocols: vec![JoinProtocol { subscription: Some(subscription), ..protocol("range", &["a"]) }], ..join(member) }
}

fn count(assignment: &Assignment) -> usize {
    match assignment {
        Assignment::Partitions(named) => named.iter().map(|(_, indexes)| indexes.len()).sum(),
        Assignment::Opaque(_) => panic!("the node assigns"),
    }
}

/// Joins and syncs; what it is assigned.
fn round(rig: &mut Rig, member: &str, owned: &[u32]) -> (i32, usize) {
    let tag = rig.send(GroupMove::Join(rejoin(member, owned)));
    let joined = rig.joined(tag);
    let tag = rig.send(GroupMove::Sync(sync(&joined.member, joined.generation, &[])));
    let synced = rig.synced(tag);
    (joined.generation, count(&synced.assignment))
}

#[test]
fn a_group_is_upgraded_with_its_members() {
    let mut rig = Rig::with(&[("a", 6)]);
    let (one, two, generation) = pair(&mut rig);
    let mut new = Client::start(&mut rig, hello("m", &["a"]));
    assert_eq!(new.holds, [], "nobody knows yet what the old members hold");
    rig.crash();
    assert_eq!(rig.report().membership, Membership::Beating);
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
    let (first, held) = round(&mut rig, &one, &[]);
    assert_eq!(held, 0, "the other old member may still hold everything");
    let (_, held) = round(&mut rig, &two, &[]);
    assert_eq!(held, 2);
    new.beat(&mut rig).unwrap();
    assert_eq!(new.holds.len(), 2);
    assert_eq!(rig.beat(&one, first), Err(Refusal::RebalanceInProgress), "its partitions are free now");
    assert_eq!(round(&mut rig, &one, &[]).1, 2);
    assert_eq!(rig.state(), GroupState::Stable);
    let report = rig.report();
    assert_eq!(report.members.iter().filter(|member| member.upgraded).count(), 2);
    assert_eq!(rig.beat("m", new.epoch), Err(Refusal::UnknownMember), "a beating member does not speak the old protocol");
}

#[test]
fn a_cooperative_member_lets_go_in_two_rounds() {
    let mut rig = Rig::with(&[("a", 4)]);
    let (one, two, _) = pair(&mut rig);
    rig.leave(&two).unwrap();
    let again = rig.send(GroupMove::Join(rejoin(&one, &[0, 1, 2, 3])));
    let generation = rig.joined(again).generation;
    let settled = rig.send(GroupMove::Sync(sync(&one, generation, &[])));
    rig.synced(settled);
    let mut new = Client::start(&mut rig, hello("m", &["a"]));
    let (generation, held) = round(&mut rig, &one, &[0, 1, 2, 3]);
    assert_eq!(held, 2);
    new.beat(&mut rig).unwrap();
    assert_eq!(new.holds, []);
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress), "it must say that it let go");
    let kept = match rig.report().members.iter().find(|member| member.upgraded) {
        Some(member) => member.current.iter().map(|partition| partition.index.0).collect::<Vec<_>>(),
        None => panic!("the old member"),
    };
    assert_eq!(round(&mut rig, &one, &kept).1, 2);
    new.beat(&mut rig).unwrap();
    assert_eq!(new.holds.len(), 2);
    assert_eq!(rig.state(), GroupState::Stable);
}

#[test]
fn joins_that_wait_are_sent_back_by_an_upgrade() {
    let mut rig = Rig::with(&[("a", 4)]);
    let (one, _, _) = pair(&mut rig);
    let waiting = rig.send(GroupMove::Join(join(&one)));
    rig.consumer(hello("m", &["a"])).unwrap();
    assert_eq!(rig.refused(waiting), Refusal::RebalanceInProgress);
}

#[test]
fn the_last_beating_member_leaves_a_joining_group() {
    let mut rig = Rig::with(&[("a", 4)]);
    let mut new = Client::start(&mut rig, hello("m", &["a"]));
    let tag = rig.send(GroupMove::Join(rejoin("", &[])));
    let old = rig.joined(tag);
    for _ in 0..3 {
        new.beat(&mut rig).unwrap();
    }
    let (generation, held) = round(&mut rig, &old.member, &[]);
    assert_eq!(held, 2);
    rig.consumer(still("m", -1)).unwrap();
    let report = rig.report();
    assert_eq!((report.membership, report.state), (Membership::Joining, GroupState::Reconciling));
    assert_eq!(rig.beat(&old.member, generation), Err(Refusal::RebalanceInProgress));
    rig.crash();
    assert_eq!(rig.beat(&old.member, generation), Err(Refusal::RebalanceInProgress));
    let tag = rig.send(GroupMove::Join(rejoin(&old.member, &[])));
    let again = rig.joined(tag);
    assert_eq!((again.generation, again.leader.clone()), (generation + 1, again.member));
}

#[test]
fn a_static_member_that_goes_back_downgrades_quietly() {
    let mut rig = Rig::with(&[("a", 4)]);
    rig.consumer(ConsumerBeat { instance: Some("i".into()), ..hello("m", &["a"]) }).unwrap();
    rig.consumer(ConsumerBeat { instance: Some("i".into()), ..still("m", -2) }).unwrap();
    let tag = rig.send(GroupMove::Join(Join { instance: Some("i".into()), ..rejoin("", &[]) }));
    let back = rig.joined(tag);
    let report = rig.report();
    assert_eq!((report.membership, report.state), (Membership::Joining, GroupState::Stable));
    let tag = rig.send(GroupMove::Sync(sync(&back.member, back.generation, &[])));
    assert_eq!(count(&rig.synced(tag).assignment), 4);
    rig.crash();
    assert_eq!(rig.beat(&back.member, back.generation), Ok(()));
}

#[test]
fn groups_of_other_kinds_do_not_mix() {
    let mut rig = Rig::with(&[("a", 1)]);
    let tag = rig.send(GroupMove::Join(Join { kind: "connect".into(), ..join("") }));
    let connect = rig.joined(tag).member;
    assert_eq!(rig.consumer(hello("m", &["a"])).unwrap_err(), Refusal::GroupKind);
    rig.leave(&connect).unwrap();
    // A consumer whose metadata nobody could read.
    let opaque = JoinProtocol { subscription: None, ..protocol("range", &["a"]) };
    let tag = rig.send(GroupMove::Join(Join { protocols: vec![opaque.clone()], ..join("") }));
    let consumer = rig.joined(tag).member;
    assert_eq!(rig.consumer(hello("m", &["a"])).unwrap_err(), Refusal::GroupKind);
    rig.leave(&consumer).unwrap();
    rig.consumer(hello("m", &["a"])).unwrap();
    for ask in [Join { kind: "connect".into(), ..join("") }, Join { protocols: vec![opaque], ..join("") }] {
        let tag = rig.send(GroupMove::Join(ask));
        assert_eq!(rig.refused(tag), Refusal::InconsistentProtocol);
    }
    let tag = rig.send(GroupMove::Join(Join { member_id_required: true, ..join("") }));
    assert!(matches!(rig.refused(tag), Refusal::MemberIdRequired { .. }));
}

#[test]
fn an_old_member_that_does_not_come_back_is_out() {
    let mut rig = Rig::with(&[("a", 4)]);
    let (one, two, generation) = pair(&mut rig);
    let mut new = Client::start(&mut rig, hello("m", &["a"]));
    rig.leave(&two).unwrap();
    for _ in 0..15 {
        assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
        new.beat(&mut rig).unwrap();
        rig.pass(4_000);
    }
    assert_eq!(rig.beat(&one, generation), Err(Refusal::UnknownMember));
    new.beat(&mut rig).unwrap();
    assert_eq!(new.holds.len(), 4);
}

#[test]
fn who_joins_and_does_not_sync_is_out() {
    let mut rig = Rig::with(&[("a", 4)]);
    let mut new = Client::start(&mut rig, hello("m", &["a"]));
    let tag = rig.send(GroupMove::Join(join("")));
    let old = rig.joined(tag);
    for _ in 0..16 {
        let _ = rig.beat(&old.member, old.generation);
        new.beat(&mut rig).unwrap();
        rig.pass(4_000);
    }
    assert_eq!(rig.beat(&old.member, old.generation), Err(Refusal::UnknownMember));
}

#[test]
fn generations_are_checked_in_mixed_groups() {
    let mut rig = Rig::with(&[("a", 4)]);
    rig.consumer(hello("m", &["a"])).unwrap();
    let tag = rig.send(GroupMove::Join(join("")));
    let old = rig.joined(tag);
    assert_eq!(rig.beat(&old.member, old.generation + 1), Err(Refusal::IllegalGeneration));
    let wrong = firth_gateway::groups::Sync { protocol: Some("other".into()), ..sync(&old.member, old.generation, &[]) };
    let tag = rig.send(GroupMove::Sync(wrong));
    assert_eq!(rig.refused(tag), Refusal::InconsistentProtocol);
    assert_eq!(rig.leave("m"), Err(Refusal::UnknownMember));
    assert_eq!(rig.leave(&old.member), Ok(()));
}
