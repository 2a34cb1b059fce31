//! Members whom the node assigns to.

use std::collections::BTreeSet;

use firth_gateway::groups::{ConsumerBeat, GroupMove, GroupState, Join, StreamPartition};
use firth_gateway::refusal::Refusal;

use super::{Rig, hello, holding, indexes, join, still};

/// A client that obeys: it holds what it was told to hold, from its next heartbeat on.
pub struct Client {
    pub member: String,
    pub epoch: i32,
    pub holds: Vec<StreamPartition>,
}

impl Client {
    pub fn start(rig: &mut Rig, hello: ConsumerBeat) -> Client {
        let beaten = rig.consumer(hello).unwrap();
        Client { member: beaten.member, epoch: beaten.epoch, holds: beaten.assignment.unwrap_or_default() }
    }

    pub fn beat(&mut self, rig: &mut Rig) -> Result<(), Refusal> {
        let beaten = rig.consumer(holding(&self.member, self.epoch, &self.holds))?;
        self.epoch = beaten.epoch;
        if let Some(assignment) = beaten.assignment {
            self.holds = assignment;
        }
        Ok(())
    }
}

fn settle(rig: &mut Rig, clients: &mut [Client]) {
    for _ in 0..6 {
        for client in clients.iter_mut() {
            client.beat(rig).unwrap();
        }
    }
    assert_eq!(rig.state(), GroupState::Stable);
}

#[test]
fn a_lone_member_gets_everything() {
    let mut rig = Rig::with(&[("a", 3)]);
    let beaten = rig.consumer(hello("m1", &["a"])).unwrap();
    assert_eq!((beaten.member.as_str(), beaten.epoch, beaten.interval_ms), ("m1", 1, 5_000));
    assert_eq!(beaten.assignment, Some(rig.partitions("a", 0..3)));
    let quiet = rig.consumer(still("m1", 1)).unwrap();
    assert_eq!((quiet.epoch, quiet.assignment), (1, None));
    assert_eq!(rig.state(), GroupState::Stable);
    let before = rig.effects.len();
    rig.consumer(still("m1", 1)).unwrap();
    assert_eq!(rig.effects.len(), before, "a quiet heartbeat journals nothing");
}

#[test]
fn partitions_move_only_after_they_are_let_go() {
    let mut rig = Rig::with(&[("a", 4)]);
    let mut one = Client::start(&mut rig, hello("m1", &["a"]));
    let mut two = Client::start(&mut rig, hello("m2", &["a"]));
    assert_eq!(two.holds, []);
    assert_eq!(rig.state(), GroupState::Reconciling);
    two.beat(&mut rig).unwrap();
    assert_eq!(two.holds, []);
    one.beat(&mut rig).unwrap();
    assert_eq!(indexes(&one.holds), BTreeSet::from([0, 1]));
    assert_eq!(one.epoch, 1, "it stays behind until it has let go");
    two.beat(&mut rig).unwrap();
    assert_eq!(two.holds, [], "the first has not said yet that it let go");
    one.beat(&mut rig).unwrap();
    assert_eq!(one.epoch, 2);
    two.beat(&mut rig).unwrap();
    assert_eq!(indexes(&two.holds), BTreeSet::from([2, 3]));
    assert_eq!(rig.state(), GroupState::Stable);
}

#[test]
fn a_restart_changes_nothing() {
    let mut rig = Rig::with(&[("a", 4)]);
    let mut clients = [Client::start(&mut rig, hello("m1", &["a"])), Client::start(&mut rig, hello("m2", &["a"]))];
    clients[0].beat(&mut rig).unwrap();
    rig.crash();
    settle(&mut rig, &mut clients);
    let epochs = clients.each_ref().map(|client| client.epoch);
    rig.pass(40_000);
    rig.crash();
    rig.pass(40_000);
    settle(&mut rig, &mut clients);
    assert_eq!(clients.each_ref().map(|client| client.epoch), epochs);
}

#[test]
fn bad_heartbeats_are_refused() {
    let mut rig = Rig::with(&[("a", 1)]);
    let malformed = [
        ConsumerBeat { member: String::new(), ..hello("", &["a"]) },
        ConsumerBeat { makes_own_id: false, ..still("", 3) },
        ConsumerBeat { rebalance_timeout_ms: None, ..hello("m", &["a"]) },
        ConsumerBeat { owned: None, ..hello("m", &["a"]) },
        ConsumerBeat { owned: Some(rig.partitions("a", [0])), ..hello("m", &["a"]) },
        ConsumerBeat { streams: None, ..hello("m", &["a"]) },
        ConsumerBeat { instance: Some(String::new()), ..hello("m", &["a"]) },
        ConsumerBeat { rack: Some(String::new()), ..hello("m", &["a"]) },
        still("m", -2),
        still("m", -3),
    ];
    for beat in malformed {
        let shown = format!("{beat:?}");
        assert!(matches!(rig.consumer(beat), Err(Refusal::Malformed { .. })), "{shown}");
    }
    let refused = |rig: &mut Rig, beat| rig.consumer(beat).unwrap_err();
    let assignor = ConsumerBeat { assignor: Some("best".into()), ..hello("m", &["a"]) };
    assert_eq!(refused(&mut rig, assignor), Refusal::UnknownAssignor);
    let pattern = ConsumerBeat { pattern: Some("a)(".into()), ..hello("m", &[]) };
    assert!(matches!(refused(&mut rig, pattern), Refusal::InvalidPattern { .. }));
    let huge = ConsumerBeat { pattern: Some("(((a{100}){100}){100}){100}".into()), ..hello("m", &[]) };
    assert!(matches!(refused(&mut rig, huge), Refusal::InvalidPattern { .. }));
    assert_eq!(refused(&mut rig, ConsumerBeat { group: String::new(), ..hello("m", &["a"]) }), Refusal::InvalidGroup);
    assert_eq!(refused(&mut rig, still("m", 4)), Refusal::UnknownMember);
    assert_eq!(refused(&mut rig, still("m", -1)), Refusal::UnknownMember);
    assert!(rig.effects.is_empty());
    assert!(rig.groups.dump().is_empty());
}

#[test]
fn an_old_client_is_given_an_id() {
    let mut rig = Rig::with(&[("a", 1)]);
    let beaten = rig.consumer(ConsumerBeat { makes_own_id: false, ..hello("", &["a"]) }).unwrap();
    assert!(!beaten.member.is_empty());
    assert!(rig.consumer(still(&beaten.member, beaten.epoch)).is_ok());
}

#[test]
fn epochs_fence() {
    let mut rig = Rig::with(&[("a", 2)]);
    rig.consumer(hello("m1", &["a"])).unwrap();
    assert_eq!(rig.consumer(still("m1", 2)).unwrap_err(), Refusal::MemberEpochFenced);
    let all = rig.partitions("a", 0..2);
    rig.consumer(hello("m2", &["a"])).unwrap();
    rig.consumer(holding("m1", 1, &all)).unwrap();
    let kept = rig.report().members[0].current.clone();
    rig.consumer(holding("m1", 1, &kept)).unwrap();
    // The answer with epoch 2 was lost: the same heartbeat again is fine, one that claims more is not, one without is not.
    let resent = rig.consumer(holding("m1", 1, &kept)).unwrap();
    assert_eq!(resent.epoch, 2);
    assert_eq!(rig.consumer(holding("m1", 1, &all)).unwrap_err(), Refusal::MemberEpochFenced);
    assert_eq!(rig.consumer(still("m1", 1)).unwrap_err(), Refusal::MemberEpochFenced);
    // Starting over is always possible.
    assert_eq!(rig.consumer(hello("m1", &["a"])).unwrap().assignment, Some(kept));
}

#[test]
fn leaving_hands_over() {
    let mut rig = Rig::with(&[("a", 4)]);
    let mut clients = [Client::start(&mut rig, hello("m1", &["a"])), Client::start(&mut rig, hello("m2", &["a"]))];
    settle(&mut rig, &mut clients);
    let left = rig.consumer(still("m1", -1)).unwrap();
    assert_eq!((left.epoch, left.assignment), (-1, None));
    assert_eq!(rig.state(), GroupState::Assigning);
    clients[1].beat(&mut rig).unwrap();
    assert_eq!(clients[1].holds.len(), 4);
    rig.consumer(still("m2", -1)).unwrap();
    assert_eq!(rig.state(), GroupState::Empty);
}

#[test]
fn silent_and_stubborn_members_are_out() {
    let mut rig = Rig::with(&[("a", 4)]);
    let mut one = Client::start(&mut rig, hello("m1", &["a"]));
    let mut two = Client::start(&mut rig, hello("m2", &["a"]));
    // The first is told to let go and does not, for its rebalance timeout of 30 s.
    for _ in 0..6 {
        rig.consumer(holding("m1", 1, &rig.partitions("a", 0..4))).unwrap();
        two.beat(&mut rig).unwrap();
        rig.pass(5_000);
    }
    assert_eq!(one.beat(&mut rig), Err(Refusal::UnknownMember));
    two.beat(&mut rig).unwrap();
    assert_eq!(two.holds.len(), 4);
    rig.pass(45_000);
    assert_eq!(two.beat(&mut rig), Err(Refusal::UnknownMember));
}

#[test]
fn static_members_keep_their_place() {
    let mut rig = Rig::with(&[("a", 4)]);
    let steady = |member: &str| ConsumerBeat { instance: Some("i1".into()), ..hello(member, &["a"]) };
    let with = |beat: ConsumerBeat| ConsumerBeat { instance: Some("i1".into()), ..beat };
    let mut clients = [Client::start(&mut rig, steady("m1")), Client::start(&mut rig, hello("m2", &["a"]))];
    for _ in 0..3 {
        let beaten = rig.consumer(with(holding("m1", clients[0].epoch, &clients[0].holds))).unwrap();
        clients[0].epoch = beaten.epoch;
        clients[0].holds = beaten.assignment.unwrap_or(clients[0].holds.clone());
        clients[1].beat(&mut rig).unwrap();
    }
    assert_eq!(rig.state(), GroupState::Stable);
    let held = indexes(&clients[0].holds);
    assert_eq!(rig.consumer(steady("m3")).unwrap_err(), Refusal::InstanceInUse);
    assert_eq!(rig.consumer(with(still("m3", 2))).unwrap_err(), Refusal::InstanceFenced);
    assert_eq!(rig.consumer(with(still("m3", -2))).unwrap_err(), Refusal::InstanceFenced);
    let other = ConsumerBeat { instance: Some("i9".into()), ..still("m1", 2) };
    assert_eq!(rig.consumer(other).unwrap_err(), Refusal::UnknownMember);
    assert_eq!(rig.consumer(with(still("m1", -2))).unwrap().epoch, -2);
    clients[1].beat(&mut rig).unwrap();
    assert_eq!(clients[1].holds.len(), 2, "the place of a paused member is kept");
    let epoch = rig.report().epoch;
    let back = rig.consumer(steady("m3")).unwrap();
    assert_eq!(indexes(&back.assignment.unwrap()), held);
    assert_eq!(rig.report().epoch, epoch, "coming back rebalances nobody");
    assert_eq!(rig.consumer(with(still("m1", 2))).unwrap_err(), Refusal::InstanceFenced);
    rig.consumer(with(still("m3", -2))).unwrap();
    for _ in 0..10 {
        rig.pass(5_000);
        clients[1].beat(&mut rig).unwrap();
    }
    assert_eq!(clients[1].holds.len(), 4, "but not for ever");
}

#[test]
fn streams_that_come_and_grow_are_noticed() {
    let mut rig = Rig::with(&[("a", 1)]);
    let by_pattern = ConsumerBeat { pattern: Some("lo.*".into()), streams: None, ..hello("m1", &[]) };
    let mut one = Client::start(&mut rig, by_pattern);
    assert_eq!(one.holds, []);
    rig.stream("logs", 2);
    rig.stream("xlogs", 2);
    one.beat(&mut rig).unwrap();
    assert_eq!(one.holds, rig.partitions("logs", 0..2));
    rig.stream("logs", 3);
    one.beat(&mut rig).unwrap();
    assert_eq!(one.holds, rig.partitions("logs", 0..3));
    rig.drop_stream("logs");
    one.beat(&mut rig).unwrap();
    one.beat(&mut rig).unwrap();
    assert_eq!(one.holds, []);
    // Another subscription replaces it; an empty pattern takes it back.
    let beat = ConsumerBeat { pattern: Some(String::new()), streams: Some(vec!["a".into()]), ..still("m1", one.epoch) };
    assert_eq!(rig.consumer(beat).unwrap().assignment, Some(rig.partitions("a", 0..1)));
}

#[test]
fn a_member_may_ask_for_ranges() {
    let mut rig = Rig::with(&[("a", 3), ("b", 3)]);
    let asks = |member: &str| ConsumerBeat { assignor: Some("range".into()), ..hello(member, &["a", "b"]) };
    let mut clients = [Client::start(&mut rig, asks("m1")), Client::start(&mut rig, asks("m2"))];
    settle(&mut rig, &mut clients);
    let report = rig.report();
    assert_eq!(report.protocol, "range");
    for name in ["a", "b"] {
        let stream = rig.id(name);
        let of: Vec<StreamPartition> = report.members[0].current.iter().filter(|held| held.stream == stream).cloned().collect();
        assert_eq!(indexes(&of), BTreeSet::from([0, 1]));
    }
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut rig = Rig::with(&[("a", 1)]);
    rig.settings.members_max = 1;
    rig.consumer(hello("m1", &["a"])).unwrap();
    assert_eq!(rig.consumer(hello("m2", &["a"])).unwrap_err(), Refusal::GroupFull);
    assert!(rig.consumer(still("m1", 1)).is_ok());
    let classic = rig.send(GroupMove::Join(join("")));
    assert_eq!(rig.refused(classic), Refusal::GroupFull);
}

#[test]
fn an_emptied_group_may_change_its_kind() {
    let mut rig = Rig::with(&[("a", 1)]);
    rig.consumer(hello("m1", &["a"])).unwrap();
    rig.consumer(still("m1", -1)).unwrap();
    let classic = rig.send(GroupMove::Join(Join { kind: "connect".into(), ..join("") }));
    let joined = rig.joined(classic);
    assert!(joined.generation > 1);
    assert_eq!(rig.consumer(hello("m1", &["a"])).unwrap_err(), Refusal::GroupKind);
    rig.leave(&joined.member).unwrap();
    assert!(rig.consumer(hello("m1", &["a"])).unwrap().epoch > joined.generation);
}
