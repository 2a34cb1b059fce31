//! Committed positions.

use firth_gateway::groups::{
    Commit, CommitItem, Committed, GroupAnswer, GroupLine, GroupMove, GroupState, Join, Positions, StreamPartition,
};
use firth_gateway::refusal::Refusal;
use firth_model::ids::{LeaderEpoch, Offset, PartitionIndex};

use super::joining::pair;
use super::{Rig, hello, join, still};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn commit(rig: &mut Rig, member: &str, generation: i32, offset: u64) -> Result<Vec<Result<(), Refusal>>, Refusal> {
    let partition = rig.partitions("a", [0]).pop();
    commit_item(rig, member, generation, CommitItem { partition, offset: Offset(offset), epoch: None, metadata: String::new() })
}

fn commit_item(rig: &mut Rig, member: &str, generation: i32, item: CommitItem) -> Result<Vec<Result<(), Refusal>>, Refusal> {
    let ask = Commit { group: "g".into(), generation, member: member.into(), instance: None, items: vec![item] };
    match rig.ask(GroupMove::Commit(ask))? {
        GroupAnswer::Committed(items) => Ok(items),
        other => panic!("{other:?}"),
    }
}

fn positions(rig: &mut Rig, member: Option<(&str, i32)>, partitions: Option<Vec<StreamPartition>>) -> Result<Vec<Committed>, Refusal> {
    let member = member.map(|(member, epoch)| (member.to_owned(), epoch));
    match rig.ask(GroupMove::Positions(vec![Positions { group: "g".into(), member, partitions }])) {
        Ok(GroupAnswer::Positions(mut groups)) => groups.remove(0),
        other => panic!("{other:?}"),
    }
}

fn drop_positions(rig: &mut Rig, partitions: Vec<Option<StreamPartition>>) -> Result<Vec<Result<(), Refusal>>, Refusal> {
    match rig.ask(GroupMove::DropPositions { group: "g".into(), partitions })? {
        GroupAnswer::PositionsDropped(dropped) => Ok(dropped),
        other => panic!("{other:?}"),
    }
}

fn drop_group(rig: &mut Rig) -> Result<(), Refusal> {
    match rig.ask(GroupMove::DropGroups(vec!["g".into()])) {
        Ok(GroupAnswer::GroupsDropped(mut dropped)) => dropped.remove(0),
        other => panic!("{other:?}"),
    }
}

fn lines(rig: &mut Rig, states: &[&str], kinds: &[&str]) -> Vec<GroupLine> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    match rig.ask(GroupMove::List { states: owned(states), kinds: owned(kinds) }) {
        Ok(GroupAnswer::Listed(lines)) => lines,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_position_is_remembered() {
    let mut rig = Rig::with(&[("a", 2)]);
    let partition = rig.partitions("a", [1]).pop();
    let item = CommitItem { partition, offset: Offset(7), epoch: Some(LeaderEpoch(3)), metadata: "m".into() };
    assert_eq!(commit_item(&mut rig, "", -1, item), Ok(vec![Ok(())]));
    rig.crash();
    let found = positions(&mut rig, None, None).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].offset, found[0].epoch, found[0].metadata.as_str()), (Offset(7), Some(LeaderEpoch(3)), "m"));
    let asked = rig.partitions("a", 0..2);
    assert_eq!(positions(&mut rig, None, Some(asked)).unwrap(), found);
    assert_eq!(lines(&mut rig, &["Empty"], &["classic"]).len(), 1);
    assert_eq!(lines(&mut rig, &["stable"], &[]).len(), 0);
    assert_eq!(lines(&mut rig, &[], &["Consumer"]).len(), 0);
}

#[test]
fn bad_items_are_refused_alone() {
    let mut rig = Rig::with(&[("a", 1)]);
    let beyond = StreamPartition { stream: rig.id("a"), index: PartitionIndex(1) };
    let item = |partition, metadata: String| CommitItem { partition, offset: Offset(1), epoch: None, metadata };
    let good = rig.partitions("a", [0]).pop();
    let items = vec![
        item(None, String::new()),
        item(good.clone(), "x".repeat(4097)),
        item(Some(beyond), String::new()),
        item(good, "x".repeat(4096)),
    ];
    let ask = Commit { group: "g".into(), generation: -1, member: String::new(), instance: None, items };
    let Ok(GroupAnswer::Committed(results)) = rig.ask(GroupMove::Commit(ask)) else { panic!("committed") };
    assert_eq!(results, [Err(Refusal::NotFound), Err(Refusal::MetadataTooLarge), Err(Refusal::NotFound), Ok(())]);
}

#[test]
fn commits_of_joining_members_are_checked() {
    let mut rig = Rig::with(&[("a", 1)]);
    assert_eq!(commit(&mut rig, "m", 3, 1), Err(Refusal::GroupNotFound));
    let (one, two, generation) = pair(&mut rig);
    assert_eq!(commit(&mut rig, &one, generation, 1), Ok(vec![Ok(())]));
    assert_eq!(commit(&mut rig, &one, generation + 1, 1), Err(Refusal::IllegalGeneration));
    assert_eq!(commit(&mut rig, "nobody", generation, 1), Err(Refusal::UnknownMember));
    assert_eq!(commit(&mut rig, "", -1, 1), Err(Refusal::UnknownMember));
    let again = rig.send(GroupMove::Join(join(&one)));
    assert_eq!(commit(&mut rig, &two, generation, 2), Ok(vec![Ok(())]), "it may commit before it joins again");
    let other = rig.send(GroupMove::Join(join(&two)));
    let generation = rig.joined(again).generation;
    rig.joined(other);
    assert_eq!(commit(&mut rig, &two, generation, 2), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut rig = Rig::with(&[("a", 1)]);
    let (one, two, generation) = pair(&mut rig);
    for offset in 0..5 {
        rig.pass(4_000);
        assert_eq!(commit(&mut rig, &one, generation, offset), Ok(vec![Ok(())]));
        assert_eq!(commit(&mut rig, &two, generation, offset), Ok(vec![Ok(())]));
    }
}

#[test]
fn commits_of_beating_members_are_checked() {
    let mut rig = Rig::with(&[("a", 1)]);
    let epoch = rig.consumer(hello("m", &["a"])).unwrap().epoch;
    assert_eq!(commit(&mut rig, "m", epoch, 1), Ok(vec![Ok(())]));
    assert_eq!(commit(&mut rig, "m", epoch - 1, 1), Err(Refusal::MemberEpochStale));
    assert_eq!(commit(&mut rig, "n", epoch, 1), Err(Refusal::UnknownMember));
    assert_eq!(commit(&mut rig, "", -1, 1), Err(Refusal::UnknownMember));
    assert_eq!(positions(&mut rig, Some(("m", epoch)), None).unwrap().len(), 1);
    assert_eq!(positions(&mut rig, Some(("m", epoch + 1)), None), Err(Refusal::MemberEpochStale));
    assert_eq!(positions(&mut rig, Some(("n", epoch)), None), Err(Refusal::UnknownMember));
    assert_eq!(positions(&mut rig, Some(("", -1)), None).unwrap().len(), 1);
    rig.consumer(still("m", -1)).unwrap();
    assert_eq!(commit(&mut rig, "", -1, 5), Ok(vec![Ok(())]));
}

#[test]
fn positions_in_use_are_not_dropped() {
    let mut rig = Rig::with(&[("a", 1), ("b", 1)]);
    assert_eq!(drop_positions(&mut rig, Vec::new()), Err(Refusal::GroupNotFound));
    let epoch = rig.consumer(hello("m", &["a"])).unwrap().epoch;
    commit(&mut rig, "m", epoch, 1).unwrap().remove(0).unwrap();
    let b = rig.partitions("b", [0]).pop();
    let item = CommitItem { partition: b.clone(), offset: Offset(1), epoch: None, metadata: String::new() };
    commit_item(&mut rig, "m", epoch, item).unwrap().remove(0).unwrap();
    let a = rig.partitions("a", [0]).pop();
    let dropped = drop_positions(&mut rig, vec![a.clone(), b, None]).unwrap();
    assert_eq!(dropped, [Err(Refusal::SubscribedTo), Ok(()), Err(Refusal::NotFound)]);
    assert_eq!(drop_group(&mut rig), Err(Refusal::GroupNotEmpty));
    rig.consumer(still("m", -1)).unwrap();
    assert_eq!(drop_positions(&mut rig, vec![a]), Ok(vec![Ok(())]));
    assert_eq!(drop_group(&mut rig), Ok(()));
    assert_eq!(drop_group(&mut rig), Err(Refusal::GroupNotFound));
    assert!(rig.groups.dump().is_empty());
    rig.crash();
}

#[test]
fn positions_of_joining_groups_in_use_are_not_dropped() {
    let mut rig = Rig::with(&[("a", 1), ("b", 1)]);
    pair(&mut rig);
    let partitions = vec![rig.partitions("a", [0]).pop(), rig.partitions("b", [0]).pop()];
    assert_eq!(drop_positions(&mut rig, partitions.clone()).unwrap(), [Err(Refusal::SubscribedTo), Ok(())]);
    let mut rig = Rig::with(&[("a", 1)]);
    let tag = rig.send(GroupMove::Join(Join { kind: "connect".into(), ..join("") }));
    rig.joined(tag);
    assert_eq!(drop_positions(&mut rig, partitions), Err(Refusal::GroupNotEmpty));
}

#[test]
fn positions_go_with_their_stream() {
    let mut rig = Rig::with(&[("a", 1), ("b", 1)]);
    commit(&mut rig, "", -1, 1).unwrap().remove(0).unwrap();
    rig.drop_stream("a");
    assert_eq!(positions(&mut rig, None, None), Ok(Vec::new()));
    rig.crash();
}

#[test]
fn positions_of_groups_without_members_expire_by_commit() {
    let mut rig = Rig::with(&[("a", 1)]);
    commit(&mut rig, "", -1, 1).unwrap().remove(0).unwrap();
    rig.pass(6 * DAY_MS);
    commit(&mut rig, "", -1, 2).unwrap().remove(0).unwrap();
    rig.pass(6 * DAY_MS);
    assert_eq!(positions(&mut rig, None, None).unwrap().len(), 1);
    rig.pass(DAY_MS + 600_000);
    assert_eq!(positions(&mut rig, None, None), Ok(Vec::new()));
    assert!(rig.groups.dump().is_empty());
}

#[test]
fn positions_expire_when_their_group_is_empty_for_long() {
    let mut rig = Rig::with(&[("a", 1)]);
    rig.settings.session_timeout_max_ms = i64::MAX;
    let tag = rig.send(GroupMove::Join(Join { session_timeout_ms: 100 * DAY_MS, ..join("") }));
    let one = rig.joined(tag);
    let tag = rig.send(GroupMove::Sync(super::sync(&one.member, 1, &[])));
    rig.synced(tag);
    commit(&mut rig, &one.member, 1, 1).unwrap().remove(0).unwrap();
    rig.pass(20 * DAY_MS);
    assert_eq!(positions(&mut rig, None, None).unwrap().len(), 1, "a live group keeps what it subscribes to");
    rig.leave(&one.member).unwrap();
    rig.pass(DAY_MS);
    rig.crash();
    rig.pass(6 * DAY_MS - 700_000);
    assert_eq!(positions(&mut rig, None, None).unwrap().len(), 1);
    assert_eq!(rig.state(), GroupState::Empty);
    rig.pass(1_500_000);
    assert!(rig.groups.dump().is_empty());
    rig.crash();
}

#[test]
fn an_empty_group_without_positions_goes_soon() {
    let mut rig = Rig::with(&[("a", 1)]);
    rig.consumer(hello("m", &["a"])).unwrap();
    rig.consumer(still("m", -1)).unwrap();
    assert_eq!(rig.state(), GroupState::Empty);
    rig.pass(600_001);
    assert!(rig.groups.dump().is_empty());
    assert_eq!(rig.groups.next_deadline(), None, "nothing left to wake for");
    let gone = rig.ask(GroupMove::Describe(vec!["g".into()]));
    assert!(matches!(gone, Ok(GroupAnswer::Described(reports)) if matches!(reports[0], Err(Refusal::GroupNotFound))));
}

#[test]
fn many_old_positions_go_in_several_sweeps() {
    let mut rig = Rig::with(&[("a", 5_000)]);
    for index in 0..5_000 {
        let item = CommitItem { partition: rig.partitions("a", [index]).pop(), offset: Offset(1), epoch: None, metadata: String::new() };
        commit_item(&mut rig, "", -1, item).unwrap().remove(0).unwrap();
    }
    rig.pass(7 * DAY_MS + 600_000);
    rig.pass(1_000);
    assert!(rig.groups.dump().is_empty());
}
