//! Random members of both kinds, crashes and lost answers: partitions never have two owners, and get one in the end.

use std::collections::{BTreeMap, BTreeSet};

use ::bytes::Bytes;

use firth_gateway::groups::{
    Assignment, Beat, ConsumerBeat, GroupAnswer, GroupMove, Join, JoinProtocol, Joined, Leave, Membership, StreamPartition, Subscription,
    Sync,
};
use firth_gateway::refusal::Refusal;
use firth_model::ids::PartitionIndex;

use super::{Rig, hello, holding, join, still};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

type Held = BTreeSet<StreamPartition>;

/// A process that takes part, and what it works on.
enum Actor {
    /// After a lost answer it says everything anew.
    Beating {
        member: String,
        epoch: i32,
        held: Held,
        streams: Vec<String>,
        anew: bool,
    },
    Joining(Joiner),
}

#[derive(Default)]
struct Joiner {
    member: String,
    generation: i32,
    held: Held,
    must_join: bool,
    join: Option<u64>,
    sync: Option<u64>,
    /// Keeps what it holds while it joins.
    cooperative: bool,
}

impl Actor {
    fn held(&self) -> &Held {
        match self {
            Actor::Beating { held, .. } => held,
            Actor::Joining(joiner) => &joiner.held,
        }
    }

    fn step(&mut self, rig: &mut Rig, lose_answer: bool) {
        match self {
            Actor::Joining(joiner) => joiner.step(rig),
            Actor::Beating { member, epoch, held, streams, anew } => {
                let owned: Vec<StreamPartition> = held.iter().cloned().collect();
                let names: Vec<&str> = streams.iter().map(String::as_str).collect();
                let beat = match (*epoch, *anew) {
                    (0, _) => hello(member, &names),
                    (_, true) => ConsumerBeat { epoch: *epoch, owned: Some(owned), ..hello(member, &names) },
                    (_, false) => holding(member, *epoch, &owned),
                };
                *anew = lose_answer;
                match rig.consumer(beat) {
                    _ if lose_answer => {}
                    Ok(beaten) => {
                        *epoch = beaten.epoch;
                        if let Some(assignment) = beaten.assignment {
                            *held = assignment.into_iter().collect();
                        }
                    }
                    Err(Refusal::UnknownMember | Refusal::MemberEpochFenced) => {
                        *epoch = 0;
                        held.clear();
                    }
                    Err(Refusal::GroupKind) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }

    fn leave(&self, rig: &mut Rig) {
        match self {
            Actor::Beating { member, epoch, .. } if *epoch > 0 => {
                let _ = rig.consumer(ConsumerBeat { ..still(member, -1) });
            }
            Actor::Joining(joiner) if !joiner.member.is_empty() => {
                let members = vec![(joiner.member.clone(), None)];
                let _ = rig.ask(GroupMove::Leave(Leave { group: "g".into(), members }));
            }
            _ => {}
        }
    }

    fn wants(&self) -> Vec<String> {
        match self {
            Actor::Beating { streams, .. } => streams.clone(),
            Actor::Joining(_) => vec!["a".into()],
        }
    }
}

impl Joiner {
    fn step(&mut self, rig: &mut Rig) {
        if let Some(tag) = self.join {
            if rig.waits(tag) {
                return;
            }
            self.join = None;
            match rig.take(tag) {
                Ok(GroupAnswer::Joined(joined)) => self.joined(rig, joined),
                Ok(other) => panic!("{other:?}"),
                Err(Refusal::MemberIdRequired { member }) => self.member = member,
                Err(refusal) => self.refused(&refusal),
            }
            return;
        }
        if let Some(tag) = self.sync {
            if rig.waits(tag) {
                return;
            }
            self.sync = None;
            match rig.take(tag) {
                Ok(GroupAnswer::Synced(synced)) => self.assigned(rig, &synced.assignment),
                Ok(other) => panic!("{other:?}"),
                Err(refusal) => self.refused(&refusal),
            }
            return;
        }
        if self.must_join || self.member.is_empty() {
            return self.send_join(rig);
        }
        let beat = Beat { group: "g".into(), generation: self.generation, member: self.member.clone(), instance: None };
        if let Err(refusal) = rig.ask(GroupMove::Beat(beat)) {
            self.refused(&refusal);
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        self.must_join = true;
        match refusal {
            Refusal::RebalanceInProgress if self.cooperative => {}
            Refusal::RebalanceInProgress | Refusal::IllegalGeneration | Refusal::InconsistentProtocol => self.held.clear(),
            Refusal::UnknownMember => {
                self.held.clear();
                self.member.clear();
            }
            other => panic!("{other:?}"),
        }
    }

    fn send_join(&mut self, rig: &mut Rig) {
        if !self.cooperative {
            self.held.clear();
        }
        let held: Vec<String> = self.held.iter().map(|partition| partition.index.0.to_string()).collect();
        let subscription = Subscription {
            streams: vec!["a".into()],
            owned: vec![("a".into(), self.held.iter().map(|partition| partition.index).collect())],
            ..Subscription::default()
        };
        let protocol = JoinProtocol { name: "p".into(), metadata: Bytes::from(held.join(",")), subscription: Some(subscription) };
        let ask = Join { protocols: vec![protocol], member_id_required: true, ..join(&self.member) };
        self.join = Some(rig.send(GroupMove::Join(ask)));
    }

    fn joined(&mut self, rig: &mut Rig, joined: Joined) {
        self.must_join = false;
        self.member = joined.member;
        self.generation = joined.generation;
        let mut assignments = Vec::new();
        if joined.leader == self.member {
            let mut owners: BTreeMap<u32, &str> = BTreeMap::new();
            for member in &joined.members {
                let text = std::str::from_utf8(&member.metadata).unwrap();
                for index in text.split(',').filter(|text| !text.is_empty()) {
                    let before = owners.insert(index.parse().unwrap(), &member.member);
                    assert_eq!(before, None, "two members own a partition");
                }
            }
            let size = u32::try_from(rig.catalog.by_name("a").unwrap().partitions.len()).unwrap();
            let turn = joined.members.iter().cycle();
            let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (index, member) in (0..size).zip(turn) {
                // What another owns is let go first.
                if owners.get(&index).is_none_or(|owner| *owner == member.member) {
                    given.entry(member.member.clone()).or_default().push(index.to_string());
                }
            }
            assignments = given.into_iter().map(|(member, indexes)| (member, Bytes::from(indexes.join(",")))).collect();
        }
        let (generation, member) = (self.generation, self.member.clone());
        let ask = Sync { group: "g".into(), generation, member, instance: None, kind: None, protocol: None, assignments };
        self.sync = Some(rig.send(GroupMove::Sync(ask)));
    }

    fn assigned(&mut self, rig: &mut Rig, assignment: &Assignment) {
        let indexes: Vec<u32> = match assignment {
            Assignment::Opaque(bytes) => {
                let text = std::str::from_utf8(bytes).unwrap();
                text.split(',').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect()
            }
            Assignment::Partitions(named) => {
                named.iter().flat_map(|(_, indexes)| indexes.iter().map(|PartitionIndex(index)| *index)).collect()
            }
        };
        let next: Held = rig.partitions("a", indexes).into_iter().collect();
        self.must_join = self.held.difference(&next).next().is_some();
        self.held = next;
    }
}

struct Storm {
    seed: u64,
    dice: Dice,
    rig: Rig,
    actors: Vec<Actor>,
    born: u32,
    cooperative: bool,
}

impl Storm {
    fn check(&self) {
        let mut seen = Held::new();
        for partition in self.actors.iter().flat_map(Actor::held) {
            assert!(seen.insert(partition.clone()), "seed {}: {partition:?} has two owners", self.seed);
        }
    }

    fn act(&mut self, at: usize, lose_answer: bool) {
        self.actors[at].step(&mut self.rig, lose_answer);
        self.check();
    }

    /// Everybody acts before any session ends.
    fn everybody(&mut self) {
        for at in 0..self.actors.len() {
            self.act(at, false);
        }
        self.rig.pass(2_000);
    }

    fn shake(&mut self) {
        let count = self.actors.len() as u64;
        match self.dice.below(20) {
            0 | 1 if count < 6 => self.birth(),
            2 if count > 0 => {
                let at = usize::try_from(self.dice.below(count)).unwrap();
                self.actors.remove(at).leave(&mut self.rig);
            }
            // It dies without a word.
            3 if count > 0 => drop(self.actors.remove(usize::try_from(self.dice.below(count)).unwrap())),
            4 => self.crash(),
            5 => self.grow(),
            6 | 7 => self.everybody(),
            _ if count > 0 => {
                let at = usize::try_from(self.dice.below(count)).unwrap();
                let lose_answer = self.dice.below(8) == 0;
                self.act(at, lose_answer);
            }
            _ => self.rig.pass(2_000),
        }
    }

    fn birth(&mut self) {
        self.born += 1;
        let actor = if self.dice.below(2) == 0 {
            Actor::Joining(Joiner { cooperative: self.cooperative, ..Joiner::default() })
        } else {
            let streams = if self.dice.below(3) == 0 { vec!["a".into(), "b".into()] } else { vec!["a".into()] };
            Actor::Beating { member: format!("m{}", self.born), epoch: 0, held: Held::new(), streams, anew: false }
        };
        self.actors.push(actor);
    }

    fn crash(&mut self) {
        self.rig.crash();
        for actor in &mut self.actors {
            if let Actor::Joining(joiner) = actor {
                let lost = |tag: &u64| self.rig.waits(*tag);
                if joiner.join.as_ref().is_some_and(lost) || joiner.sync.as_ref().is_some_and(lost) {
                    joiner.join = None;
                    joiner.sync = None;
                    joiner.must_join = true;
                }
            }
        }
    }

    /// Joining groups do not notice by themselves that a stream grew: their members would.
    fn grow(&mut self) {
        let ask = GroupMove::List { states: Vec::new(), kinds: Vec::new() };
        let Ok(GroupAnswer::Listed(lines)) = self.rig.ask(ask) else { panic!("listed") };
        if lines.iter().all(|line| line.membership == Membership::Beating) {
            let size = self.rig.catalog.by_name("a").unwrap().partitions.len();
            self.rig.stream("a", u32::try_from(size.min(14)).unwrap() + 1);
        }
    }

    fn check_everything_is_owned(&self) {
        let held: Held = self.actors.iter().flat_map(Actor::held).cloned().collect();
        for name in ["a", "b"] {
            if self.actors.iter().any(|actor| actor.wants().iter().any(|wanted| wanted == name)) {
                let size = u32::try_from(self.rig.catalog.by_name(name).unwrap().partitions.len()).unwrap();
                for partition in self.rig.partitions(name, 0..size) {
                    assert!(held.contains(&partition), "seed {}: nobody owns {name} {partition:?}", self.seed);
                }
            }
        }
    }
}

#[test]
fn partitions_have_one_owner_whatever_happens() {
    for seed in 0..60 {
        let rig = Rig::with(&[("a", 8), ("b", 3)]);
        let cooperative = seed % 2 == 0;
        let mut storm = Storm { seed, dice: Dice(seed), rig, actors: Vec::new(), born: 0, cooperative };
        for _ in 0..6 {
            for _ in 0..60 {
                storm.shake();
                if storm.dice.below(4) == 0 {
                    storm.everybody();
                }
            }
            // Long enough for the sessions of the dead to end, and for what follows.
            for _ in 0..80 {
                storm.everybody();
            }
            storm.check_everything_is_owned();
        }
        storm.rig.crash();
    }
}
