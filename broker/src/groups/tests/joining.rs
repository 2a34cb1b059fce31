//! Members that agree in rounds.

use ::bytes::Bytes;

use firth_gateway::groups::{Assignment, GroupAnswer, GroupMove, GroupState, Join, Leave, Sync};
use firth_gateway::refusal::Refusal;

use super::{Rig, join, protocol, sync};

/// A stable group of two; the first is the leader. Returns their ids and the generation.
pub fn pair(rig: &mut Rig) -> (String, String, i32) {
    let one = rig.send(GroupMove::Join(join("")));
    let one = rig.joined(one);
    let first = rig.send(GroupMove::Sync(sync(&one.member, one.generation, &[(&one.member, "one")])));
    rig.synced(first);
    let two = rig.send(GroupMove::Join(join("")));
    assert!(rig.waits(two), "the first must join again");
    assert_eq!(rig.beat(&one.member, one.generation), Err(Refusal::RebalanceInProgress));
    let again = rig.send(GroupMove::Join(join(&one.member)));
    let (again, two) = (rig.joined(again), rig.joined(two));
    assert_eq!(again.leader, one.member);
    assert_eq!(again.members.len(), 2);
    assert!(two.members.is_empty());
    let generation = two.generation;
    let follower = rig.send(GroupMove::Sync(sync(&two.member, generation, &[])));
    assert!(rig.waits(follower));
    assert_eq!(rig.state(), GroupState::Assigning);
    let leader = rig.send(GroupMove::Sync(sync(&one.member, generation, &[(&one.member, "1"), (&two.member, "2")])));
    assert_eq!(rig.synced(leader).assignment, Assignment::Opaque(Bytes::from_static(b"1")));
    assert_eq!(rig.synced(follower).assignment, Assignment::Opaque(Bytes::from_static(b"2")));
    assert_eq!(rig.state(), GroupState::Stable);
    (one.member, two.member, generation)
}

#[test]
fn two_members_share_a_group() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    assert_eq!(generation, 2);
    assert_eq!(rig.beat(&one, generation), Ok(()));
    assert_eq!(rig.beat(&two, generation - 1), Err(Refusal::IllegalGeneration));
    assert_eq!(rig.beat("stranger", generation), Err(Refusal::UnknownMember));
    let report = rig.report();
    assert_eq!((report.kind.as_str(), report.protocol.as_str(), report.epoch), ("consumer", "range", 2));
    assert!(report.members[0].assignment.is_some());
}

#[test]
fn a_restart_causes_no_rebalance() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    rig.pass(9_000);
    rig.crash();
    assert_eq!(rig.state(), GroupState::Stable);
    rig.pass(9_000);
    assert_eq!(rig.beat(&one, generation), Ok(()));
    assert_eq!(rig.beat(&two, generation), Ok(()));
    let late = rig.send(GroupMove::Sync(sync(&two, generation, &[])));
    assert_eq!(rig.synced(late).assignment, Assignment::Opaque(Bytes::from_static(b"2")));
}

#[test]
fn a_round_cut_by_a_crash_starts_over() {
    let mut rig = Rig::fresh();
    let (one, two, _) = pair(&mut rig);
    let again = rig.send(GroupMove::Join(join(&one)));
    let other = rig.send(GroupMove::Join(join(&two)));
    let generation = rig.joined(again).generation;
    rig.joined(other);
    rig.crash();
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
    let early = rig.send(GroupMove::Sync(sync(&two, generation, &[])));
    assert_eq!(rig.refused(early), Refusal::RebalanceInProgress);
    let again = rig.send(GroupMove::Join(join(&one)));
    let other = rig.send(GroupMove::Join(join(&two)));
    assert_eq!(rig.joined(again).generation, generation + 1);
    rig.joined(other);
}

#[test]
fn a_member_lost_before_a_crash_leaves_no_hole() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    rig.leave(&two).unwrap();
    rig.crash();
    assert_eq!(rig.state(), GroupState::Reconciling);
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
    let again = rig.send(GroupMove::Join(join(&one)));
    assert_eq!(rig.joined(again).members.len(), 1);
}

#[test]
fn a_first_join_may_have_to_come_back_with_its_id() {
    let mut rig = Rig::fresh();
    let tag = rig.send(GroupMove::Join(Join { member_id_required: true, ..join("") }));
    let Refusal::MemberIdRequired { member } = rig.refused(tag) else { panic!("an id") };
    assert!(member.starts_with("c-"));
    let back = rig.send(GroupMove::Join(Join { member_id_required: true, ..join(&member) }));
    assert_eq!(rig.joined(back).member, member);
    let stranger = rig.send(GroupMove::Join(join("nobody")));
    assert_eq!(rig.refused(stranger), Refusal::UnknownMember);
}

#[test]
fn a_promised_id_that_is_not_used_is_forgotten() {
    let mut rig = Rig::fresh();
    let tag = rig.send(GroupMove::Join(Join { member_id_required: true, ..join("") }));
    let Refusal::MemberIdRequired { member } = rig.refused(tag) else { panic!("an id") };
    rig.pass(10_001);
    let back = rig.send(GroupMove::Join(join(&member)));
    assert_eq!(rig.refused(back), Refusal::UnknownMember);
    assert!(rig.effects.is_empty());
}

#[test]
fn a_promised_id_holds_a_round_open_until_it_leaves() {
    let mut rig = Rig::fresh();
    let (one, two, _) = pair(&mut rig);
    let tag = rig.send(GroupMove::Join(Join { member_id_required: true, ..join("") }));
    let Refusal::MemberIdRequired { member } = rig.refused(tag) else { panic!("an id") };
    let again = rig.send(GroupMove::Join(join(&one)));
    let other = rig.send(GroupMove::Join(join(&two)));
    assert!(rig.waits(again));
    rig.leave(&member).unwrap();
    rig.joined(again);
    rig.joined(other);
}

#[test]
fn bad_joins_are_refused() {
    let mut rig = Rig::fresh();
    let cases = [
        (Join { group: String::new(), ..join("") }, Refusal::InvalidGroup),
        (Join { session_timeout_ms: 5_999, ..join("") }, Refusal::InvalidSession),
        (Join { session_timeout_ms: 1_800_001, ..join("") }, Refusal::InvalidSession),
        (Join { kind: String::new(), ..join("") }, Refusal::InconsistentProtocol),
        (Join { protocols: Vec::new(), ..join("") }, Refusal::InconsistentProtocol),
    ];
    for (ask, refusal) in cases {
        let tag = rig.send(GroupMove::Join(ask));
        assert_eq!(rig.refused(tag), refusal);
    }
    pair(&mut rig);
    let other_kind = rig.send(GroupMove::Join(Join { kind: "connect".into(), ..join("") }));
    assert_eq!(rig.refused(other_kind), Refusal::InconsistentProtocol);
    let other_protocol = rig.send(GroupMove::Join(Join { protocols: vec![protocol("sticky", &["a"])], ..join("") }));
    assert_eq!(rig.refused(other_protocol), Refusal::InconsistentProtocol);
    assert_eq!(rig.state(), GroupState::Stable);
}

#[test]
fn the_protocol_is_voted_for() {
    let mut rig = Rig::fresh();
    rig.settings.initial_rebalance_delay_ms = 100;
    let both = |first: &str, second: &str| Join { protocols: vec![protocol(first, &["a"]), protocol(second, &["a"])], ..join("") };
    let tags = [both("x", "y"), both("y", "x"), both("y", "x")].map(|ask| rig.send(GroupMove::Join(ask)));
    rig.pass(1_000);
    for tag in tags {
        let joined = rig.joined(tag);
        assert_eq!((joined.protocol.as_deref(), joined.generation), (Some("y"), 1));
    }
}

#[test]
fn the_first_round_waits_for_more_members() {
    let mut rig = Rig::fresh();
    rig.settings.initial_rebalance_delay_ms = 3_000;
    let one = rig.send(GroupMove::Join(join("")));
    rig.pass(2_000);
    let two = rig.send(GroupMove::Join(join("")));
    rig.pass(2_000);
    assert!(rig.waits(one), "a newcomer prolongs the wait");
    rig.pass(2_000);
    assert_eq!(rig.joined(one).members.len() + rig.joined(two).members.len(), 2);
}

#[test]
fn a_silent_member_is_out_and_the_others_go_on() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    for _ in 0..3 {
        rig.pass(4_000);
        let _ = rig.beat(&one, generation);
    }
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
    assert_eq!(rig.beat(&two, generation), Err(Refusal::UnknownMember));
    let again = rig.send(GroupMove::Join(join(&one)));
    assert_eq!(rig.joined(again).members.len(), 1);
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    let again = rig.send(GroupMove::Join(join(&one)));
    for _ in 0..14 {
        rig.pass(4_000);
        assert_eq!(rig.beat(&two, generation), Err(Refusal::RebalanceInProgress));
    }
    assert!(rig.waits(again));
    rig.pass(4_001);
    assert_eq!(rig.joined(again).members.len(), 1);
    assert_eq!(rig.beat(&two, generation), Err(Refusal::UnknownMember));
}

#[test]
fn who_does_not_sync_in_time_is_out() {
    let mut rig = Rig::fresh();
    let (one, two, _) = pair(&mut rig);
    let again = rig.send(GroupMove::Join(join(&one)));
    let other = rig.send(GroupMove::Join(join(&two)));
    let generation = rig.joined(again).generation;
    rig.joined(other);
    let leader = rig.send(GroupMove::Sync(sync(&one, generation, &[])));
    rig.synced(leader);
    for _ in 0..15 {
        rig.pass(4_000);
        let _ = rig.beat(&one, generation);
        let _ = rig.beat(&two, generation);
    }
    rig.pass(1);
    assert_eq!(rig.beat(&two, generation), Err(Refusal::UnknownMember));
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
}

#[test]
fn a_leader_that_does_not_sync_is_replaced() {
    let mut rig = Rig::fresh();
    let (one, two, _) = pair(&mut rig);
    let again = rig.send(GroupMove::Join(join(&one)));
    let other = rig.send(GroupMove::Join(join(&two)));
    let generation = rig.joined(again).generation;
    rig.joined(other);
    let follower = rig.send(GroupMove::Sync(sync(&two, generation, &[])));
    rig.pass(10_001);
    assert_eq!(rig.refused(follower), Refusal::RebalanceInProgress);
    let other = rig.send(GroupMove::Join(join(&two)));
    assert_eq!(rig.joined(other).leader, two);
}

#[test]
fn rejoining_without_news_is_answered_at_once() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    let same = rig.send(GroupMove::Join(join(&two)));
    assert_eq!(rig.joined(same).generation, generation);
    let news = rig.send(GroupMove::Join(Join { protocols: vec![protocol("range", &["a", "b"])], ..join(&two) }));
    assert!(rig.waits(news));
    assert_eq!(rig.beat(&one, generation), Err(Refusal::RebalanceInProgress));
    let again = rig.send(GroupMove::Join(join(&one)));
    let members = rig.joined(again).members;
    assert!(members.iter().any(|member| member.member == two && member.metadata == "range:a,b"));
    rig.joined(news);
}

#[test]
fn several_may_leave_at_once() {
    let mut rig = Rig::fresh();
    let (one, two, generation) = pair(&mut rig);
    let members = vec![(one.clone(), None), ("nobody".to_owned(), None), (two, None), (String::new(), Some("i".to_owned()))];
    let Ok(GroupAnswer::Left(left)) = rig.ask(GroupMove::Leave(Leave { group: "g".into(), members })) else { panic!("left") };
    assert_eq!(left, [Ok(()), Err(Refusal::UnknownMember), Ok(()), Err(Refusal::UnknownMember)]);
    assert_eq!(rig.state(), GroupState::Empty);
    assert_eq!(rig.beat(&one, generation), Err(Refusal::UnknownMember));
    let anew = rig.send(GroupMove::Join(join("")));
    assert!(rig.joined(anew).generation > generation);
}

#[test]
fn a_group_has_a_largest_size() {
    let mut rig = Rig::fresh();
    rig.settings.members_max = 2;
    let (one, _, generation) = pair(&mut rig);
    let third = rig.send(GroupMove::Join(join("")));
    assert_eq!(rig.refused(third), Refusal::GroupFull);
    assert_eq!(rig.beat(&one, generation), Ok(()));
}

fn static_join(member: &str, instance: &str) -> Join {
    Join { instance: Some(instance.into()), ..join(member) }
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut rig = Rig::fresh();
    let one = rig.send(GroupMove::Join(static_join("", "i1")));
    let one = rig.joined(one);
    assert!(one.member.starts_with("i1-"));
    let settled = rig.send(GroupMove::Sync(Sync { instance: Some("i1".into()), ..sync(&one.member, 1, &[(&one.member, "x")]) }));
    rig.synced(settled);
    let back = rig.send(GroupMove::Join(static_join("", "i1")));
    let back = rig.joined(back);
    assert_ne!(back.member, one.member);
    assert_eq!((back.generation, back.skip_assignment, back.leader.clone()), (1, true, back.member.clone()));
    assert_eq!(rig.state(), GroupState::Stable);
    rig.crash();
    let got = rig.send(GroupMove::Sync(Sync { instance: Some("i1".into()), ..sync(&back.member, 1, &[]) }));
    assert_eq!(rig.synced(got).assignment, Assignment::Opaque(Bytes::from_static(b"x")));
    // The old process is fenced.
    let fenced = rig.send(GroupMove::Sync(Sync { instance: Some("i1".into()), ..sync(&one.member, 1, &[]) }));
    assert_eq!(rig.refused(fenced), Refusal::InstanceFenced);
    assert_eq!(rig.beat(&one.member, 1), Err(Refusal::UnknownMember));
}

#[test]
fn an_old_client_that_comes_back_is_no_leader() {
    let mut rig = Rig::fresh();
    let one = rig.send(GroupMove::Join(static_join("", "i1")));
    let one = rig.joined(one);
    let settled = rig.send(GroupMove::Sync(sync(&one.member, 1, &[])));
    rig.synced(settled);
    let back = rig.send(GroupMove::Join(Join { may_skip_assignment: false, ..static_join("", "i1") }));
    let back = rig.joined(back);
    assert_eq!((back.leader, back.members.len(), back.skip_assignment), (one.member, 0, false));
}

#[test]
fn a_static_member_with_another_protocol_starts_a_round() {
    let mut rig = Rig::fresh();
    let first = Join { protocols: vec![protocol("x", &["a"]), protocol("y", &["a"])], ..static_join("", "i1") };
    let one = rig.send(GroupMove::Join(first));
    let one = rig.joined(one);
    let settled = rig.send(GroupMove::Sync(sync(&one.member, 1, &[])));
    rig.synced(settled);
    let back = rig.send(GroupMove::Join(Join { protocols: vec![protocol("y", &["a"])], ..static_join("", "i1") }));
    let back = rig.joined(back);
    assert_eq!((back.protocol.as_deref(), back.generation), (Some("y"), 2));
}

#[test]
fn a_static_member_leaves_by_its_instance() {
    let mut rig = Rig::fresh();
    let one = rig.send(GroupMove::Join(static_join("", "i1")));
    rig.joined(one);
    let members = vec![(String::new(), Some("i1".to_owned()))];
    let left = rig.ask(GroupMove::Leave(Leave { group: "g".into(), members }));
    assert!(matches!(left, Ok(GroupAnswer::Left(left)) if left == [Ok(())]));
    assert_eq!(rig.state(), GroupState::Empty);
}

#[test]
fn syncs_of_another_kind_or_protocol_are_refused() {
    let mut rig = Rig::fresh();
    let (one, _, generation) = pair(&mut rig);
    let kind = rig.send(GroupMove::Sync(Sync { kind: Some("connect".into()), ..sync(&one, generation, &[]) }));
    assert_eq!(rig.refused(kind), Refusal::InconsistentProtocol);
    let protocol = rig.send(GroupMove::Sync(Sync { protocol: Some("sticky".into()), ..sync(&one, generation, &[]) }));
    assert_eq!(rig.refused(protocol), Refusal::InconsistentProtocol);
    let nobody = rig.send(GroupMove::Sync(Sync { group: "none".into(), ..sync(&one, generation, &[]) }));
    assert_eq!(rig.refused(nobody), Refusal::UnknownMember);
}

#[test]
fn a_join_sent_twice_is_answered_once_each() {
    let mut rig = Rig::fresh();
    let (one, _, _) = pair(&mut rig);
    let first = rig.send(GroupMove::Join(join(&one)));
    let second = rig.send(GroupMove::Join(join(&one)));
    assert_eq!(rig.refused(first), Refusal::RebalanceInProgress);
    assert!(rig.waits(second));
}
