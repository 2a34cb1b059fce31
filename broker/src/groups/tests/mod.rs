//! Groups, driven by hand with a clock of their own.

mod beating;
mod bytes;
mod cursors;
mod joining;
mod mixed;
mod storm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ::bytes::Bytes;

use firth_gateway::answer::{Answer, Tag};
use firth_gateway::groups::{
    Beat, ClientInfo, ConsumerBeat, ConsumerBeaten, GroupAnswer, GroupMove, GroupReport, GroupState, Join, JoinProtocol, Joined, Leave,
    StreamPartition, Subscription, Sync, Synced,
};
use firth_gateway::outbox::{Budget, Outbox, ReplyTo};
use firth_gateway::refusal::Refusal;
use firth_gateway::streams::{Policy, StreamInfo};
use firth_model::ids::{PartitionId, PartitionIndex, StreamId};
use firth_model::names::StreamName;
use firth_model::time::Millis;

use super::machine::Groups;
use super::state::GroupEffect;
use super::{Context, GroupSettings, Out};
use crate::catalog::Catalog;

type Reply = Result<Answer, Refusal>;

/// Groups with all that a node has around them. After each call, what is due at the present moment has happened.
pub struct Rig {
    groups: Groups,
    catalog: Catalog,
    settings: GroupSettings,
    now: Millis,
    chance: u128,
    next_tag: u64,
    effects: Vec<GroupEffect>,
    replies: BTreeMap<u64, Reply>,
    outbox: Arc<Outbox>,
    budget: Arc<Budget>,
}

impl Rig {
    fn fresh() -> Rig {
        Rig {
            groups: Groups::default(),
            catalog: Catalog::default(),
            settings: GroupSettings::default(),
            now: Millis(1_000_000),
            chance: 0,
            next_tag: 0,
            effects: Vec::new(),
            replies: BTreeMap::new(),
            outbox: Arc::default(),
            budget: Budget::with_max(usize::MAX / 2),
        }
    }

    /// With streams of these names and sizes.
    fn with(streams: &[(&str, u32)]) -> Rig {
        let mut rig = Rig::fresh();
        for (name, size) in streams {
            rig.stream(name, *size);
        }
        rig
    }

    /// Makes a stream, or grows it.
    fn stream(&mut self, name: &str, size: u32) -> StreamId {
        let known = self.catalog.by_name(name).map(|info| info.id);
        self.chance += 1;
        let id = known.unwrap_or(StreamId(uuid::Uuid::from_u128(self.chance)));
        let info = StreamInfo {
            id,
            name: StreamName::parse(name).unwrap(),
            partitions: (0..size).map(PartitionId).collect(),
            policy: Policy::default(),
            settings: BTreeMap::new(),
            version: 1,
        };
        self.catalog.put(Arc::new(info));
        self.call(|groups, cx, out| groups.catalog_changed(cx, out));
        id
    }

    fn drop_stream(&mut self, name: &str) {
        let id = self.catalog.by_name(name).unwrap().id;
        self.catalog.remove(id);
        self.call(|groups, cx, out| groups.catalog_changed(cx, out));
    }

    fn call(&mut self, step: impl FnOnce(&mut Groups, &mut Context<'_>, &mut Out)) {
        let mut out = Out::default();
        let chance = &mut self.chance;
        let mut random = || {
            *chance += 1;
            *chance
        };
        let mut cx = Context { now: self.now, catalog: &self.catalog, settings: &self.settings, random: &mut random };
        step(&mut self.groups, &mut cx, &mut out);
        if self.groups.next_deadline().is_some_and(|due| due <= self.now) {
            self.groups.tick(&mut cx, &mut out);
        }
        assert!(self.groups.next_deadline().is_none_or(|due| due > self.now), "nothing stays due");
        self.effects.extend(out.effects);
        for (reply, result) in out.answers {
            let before = self.replies.insert(reply.tag.0, result);
            assert!(before.is_none(), "answered once");
        }
    }

    /// Asks; the answer may come later.
    fn send(&mut self, ask: GroupMove) -> u64 {
        self.next_tag += 1;
        let tag = self.next_tag;
        let reply = ReplyTo::new(self.outbox.clone(), Tag(tag), self.budget.charge(1).unwrap());
        self.call(|groups, cx, out| groups.decide(cx, ask, reply, out));
        tag
    }

    fn take(&mut self, tag: u64) -> Result<GroupAnswer, Refusal> {
        match self.replies.remove(&tag).expect("answered") {
            Ok(Answer::Group(answer)) => Ok(answer),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    fn waits(&self, tag: u64) -> bool {
        !self.replies.contains_key(&tag)
    }

    fn ask(&mut self, ask: GroupMove) -> Result<GroupAnswer, Refusal> {
        let tag = self.send(ask);
        self.take(tag)
    }

    fn joined(&mut self, tag: u64) -> Joined {
        match self.take(tag) {
            Ok(GroupAnswer::Joined(joined)) => joined,
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, tag: u64) -> Synced {
        match self.take(tag) {
            Ok(GroupAnswer::Synced(synced)) => synced,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, tag: u64) -> Refusal {
        self.take(tag).expect_err("refused")
    }

    fn beat(&mut self, member: &str, generation: i32) -> Result<(), Refusal> {
        let beat = Beat { group: "g".into(), generation, member: member.into(), instance: None };
        self.ask(GroupMove::Beat(beat)).map(|_| ())
    }

    fn leave(&mut self, member: &str) -> Result<(), Refusal> {
        let members = vec![(member.to_owned(), None)];
        match self.ask(GroupMove::Leave(Leave { group: "g".into(), members })) {
            Ok(GroupAnswer::Left(mut left)) => left.remove(0),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    fn consumer(&mut self, beat: ConsumerBeat) -> Result<ConsumerBeaten, Refusal> {
        match self.ask(GroupMove::ConsumerBeat(beat))? {
            GroupAnswer::ConsumerBeaten(beaten) => Ok(beaten),
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self) -> GroupReport {
        match self.ask(GroupMove::Describe(vec!["g".into()])) {
            Ok(GroupAnswer::Described(mut reports)) => reports.remove(0).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self) -> GroupState {
        self.report().state
    }

    /// Moves the clock in small steps, doing what is due.
    fn pass(&mut self, span_ms: i64) {
        let end = self.now.plus(span_ms);
        while self.now < end {
            let due = self.groups.next_deadline().unwrap_or(end);
            self.now = due.min(end).max(self.now.plus(1));
            self.call(|groups, cx, out| groups.tick(cx, out));
        }
    }

    /// Goes on with what the journal holds, as after a crash. Answers that wait are lost.
    fn crash(&mut self) {
        let mut groups = Groups::default();
        for effect in &self.effects {
            let (key, value) = effect.encode();
            let read = GroupEffect::decode(&key, value.as_ref()).expect("own bytes");
            assert_eq!(&read, effect);
            groups.apply(&read);
        }
        assert_eq!(groups.dump(), self.groups.dump(), "recovery gives what was live");
        // A checkpoint is the newest value of each key, in the order of keys.
        let mut newest: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
        for effect in &self.effects {
            let (key, value) = effect.encode();
            newest.insert(key, value);
        }
        let mut loaded = Groups::default();
        for (key, value) in &newest {
            if value.is_some() {
                loaded.apply(&GroupEffect::decode(key, value.as_ref()).expect("own bytes"));
            }
        }
        assert_eq!(loaded.dump(), self.groups.dump(), "a checkpoint gives what was live");
        self.groups = groups;
        self.call(|groups, cx, _| groups.recovered(cx));
    }

    fn id(&self, name: &str) -> StreamId {
        self.catalog.by_name(name).unwrap().id
    }

    fn partitions(&self, name: &str, indexes: impl IntoIterator<Item = u32>) -> Vec<StreamPartition> {
        let stream = self.id(name);
        indexes.into_iter().map(|index| StreamPartition { stream, index: PartitionIndex(index) }).collect()
    }
}

fn protocol(name: &str, streams: &[&str]) -> JoinProtocol {
    let streams: Vec<String> = streams.iter().map(|&name| name.to_owned()).collect();
    let metadata = Bytes::from(format!("{name}:{}", streams.join(",")));
    JoinProtocol { name: name.into(), metadata, subscription: Some(Subscription { streams, generation: -1, ..Subscription::default() }) }
}

/// A consumer that assigns by `range` and subscribes to "a".
fn join(member: &str) -> Join {
    Join {
        group: "g".into(),
        member: member.into(),
        instance: None,
        client: ClientInfo { client: "c".into(), host: "/h".into() },
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        kind: "consumer".into(),
        protocols: vec![protocol("range", &["a"])],
        member_id_required: false,
        may_skip_assignment: true,
    }
}

fn sync(member: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Sync {
    let assignments = assignments.iter().map(|(member, bytes)| ((*member).to_owned(), Bytes::from_static(bytes.as_bytes()))).collect();
    Sync { group: "g".into(), generation, member: member.into(), instance: None, kind: None, protocol: None, assignments }
}

/// A heartbeat in which nothing changed.
fn still(member: &str, epoch: i32) -> ConsumerBeat {
    ConsumerBeat {
        group: "g".into(),
        member: member.into(),
        epoch,
        instance: None,
        rack: None,
        client: ClientInfo::default(),
        rebalance_timeout_ms: None,
        streams: None,
        pattern: None,
        assignor: None,
        owned: None,
        makes_own_id: true,
    }
}

/// A first heartbeat.
fn hello(member: &str, streams: &[&str]) -> ConsumerBeat {
    ConsumerBeat {
        rebalance_timeout_ms: Some(30_000),
        streams: Some(streams.iter().map(|&name| name.to_owned()).collect()),
        owned: Some(Vec::new()),
        ..still(member, 0)
    }
}

/// A heartbeat of a member that holds exactly `owned`.
fn holding(member: &str, epoch: i32, owned: &[StreamPartition]) -> ConsumerBeat {
    ConsumerBeat { owned: Some(owned.to_vec()), ..still(member, epoch) }
}

fn indexes(partitions: &[StreamPartition]) -> BTreeSet<u32> {
    partitions.iter().map(|partition| partition.index.0).collect()
}
