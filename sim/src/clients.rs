//! Clients of the simulated node, and their memory.

use std::collections::BTreeMap;

use firth_gateway::answer::{Answer, Event, Tag};
use firth_gateway::groups::{Commit, CommitItem, GroupAnswer, GroupMove, StreamPartition};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Declare, Publish, Request, Wait};
use firth_gateway::streams::{Policy, StreamInfo};
use firth_journal::simdisk::Dice;
use firth_model::ids::{Offset, PartitionId, PartitionIndex};
use firth_model::names::StreamName;
use std::sync::Arc;

use crate::batches::{Mark, make};
use crate::world::World;

/// Producers of a run, one partition each, so that the order of one producer is the order of its partition's batches of it.
pub const PRODUCERS: usize = 4;
const PARTITIONS: u32 = 3;
pub const GROUP: &str = "readers";

/// What a producer did last.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub mark: Mark,
    pub count: i32,
    pub filling: usize,
}

pub struct Producer {
    pub id: i64,
    next: i32,
    /// Not answered yet, oldest first: sent again, as they were, after a restart.
    pub open: Vec<Sent>,
    /// Acknowledged: first offset by mark.
    pub acknowledged: BTreeMap<Mark, (Offset, i32)>,
}

enum Asked {
    Publish { producer: usize, sent: Vec<Sent> },
    Declare,
    Commit(Offset),
    Trim(Offset),
}

pub struct Clients {
    pub producers: Vec<Producer>,
    asked: BTreeMap<u64, Asked>,
    next_tag: u64,
    pub stream: Option<Arc<StreamInfo>>,
    /// The largest commit that was acknowledged, and the largest that was asked for.
    pub committed: Option<Offset>,
    pub commit_asked: Option<Offset>,
    /// The largest log start that was acknowledged for partition 0, and the largest asked for.
    pub trimmed: Offset,
    pub trim_asked: Offset,
    pub refused: Vec<Refusal>,
}

impl Clients {
    pub fn fresh() -> Clients {
        let producer = |id: usize| Producer { id: id as i64 + 100, next: 0, open: Vec::new(), acknowledged: BTreeMap::new() };
        Clients {
            producers: (0..PRODUCERS).map(producer).collect(),
            asked: BTreeMap::new(),
            next_tag: 0,
            stream: None,
            committed: None,
            commit_asked: None,
            trimmed: Offset(0),
            trim_asked: Offset(0),
            refused: Vec::new(),
        }
    }

    fn ask(&mut self, world: &mut World, asked: Asked, request: Request) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.asked.insert(tag, asked);
        world.submit(Tag(tag), request);
    }

    /// After a restart: what was asked before gets no answer any more.
    pub fn reconnect(&mut self, world: &mut World) {
        self.asked.clear();
        self.stream = world.shard.state().catalog.by_name("events").cloned();
        if self.stream.is_none() {
            return;
        }
        for producer in 0..PRODUCERS {
            let open = std::mem::take(&mut self.producers[producer].open);
            for sent in open {
                self.send(world, producer, vec![sent]);
            }
        }
    }

    pub fn partition_of(&self, producer: usize) -> Option<PartitionId> {
        self.stream.as_ref()?.partition(PartitionIndex(producer as u32 % PARTITIONS))
    }

    /// One action, picked by the dice.
    pub fn act(&mut self, world: &mut World, dice: &mut Dice) {
        let Some(stream) = self.stream.clone() else {
            if self.asked.is_empty() {
                self.declare(world);
            }
            return;
        };
        match dice.below(20) {
            0 => {
                let offset = Offset(self.commit_asked.map_or(0, |asked| asked.0) + dice.below(10));
                self.commit_asked = Some(offset);
                let partition = StreamPartition { stream: stream.id, index: PartitionIndex(0) };
                let item = CommitItem { partition: Some(partition), offset, epoch: None, metadata: String::new() };
                let commit = Commit { group: GROUP.to_owned(), generation: -1, member: String::new(), instance: None, items: vec![item] };
                self.ask(world, Asked::Commit(offset), Request::Group(Box::new(GroupMove::Commit(commit))));
            }
            1 => {
                let bounds = stream.partitions.first().and_then(|id| firth_gateway::view::LogView::bounds(&*world.view, *id));
                let Some(bounds) = bounds else { return };
                let before = Offset(bounds.log_start.0 + (bounds.durable_end.0 - bounds.log_start.0) / 4);
                self.trim_asked = self.trim_asked.max(before);
                self.ask(world, Asked::Trim(before), Request::Trim { partition: stream.partitions[0], before: Some(before) });
            }
            _ => self.publish(world, dice),
        }
    }

    fn declare(&mut self, world: &mut World) {
        let name = StreamName::parse("events").expect("a name");
        let policy = Policy { batch_bytes_max: 32 << 10, ..Policy::default() };
        let declare = Declare { name, partitions: PARTITIONS, policy, settings: BTreeMap::new() };
        self.ask(world, Asked::Declare, Request::Declare(Box::new(declare)));
    }

    fn publish(&mut self, world: &mut World, dice: &mut Dice) {
        let producer = dice.below(PRODUCERS as u64) as usize;
        // As many as a client may have in flight and a partition remembers.
        if self.producers[producer].open.len() >= 5 {
            return;
        }
        let mut sent = Vec::new();
        for _ in 0..=dice.below(2) {
            let own = &mut self.producers[producer];
            let count = 1 + dice.below(5) as i32;
            let filling = if dice.below(10) == 0 { 5000 } else { dice.below(200) as usize };
            sent.push(Sent { mark: Mark { producer: own.id, sequence: own.next }, count, filling });
            own.next += count;
        }
        self.send(world, producer, sent);
    }

    fn send(&mut self, world: &mut World, producer: usize, sent: Vec<Sent>) {
        let Some(partition) = self.partition_of(producer) else { return };
        let publish = |sent: &Sent| {
            let batch = make(sent.mark, sent.count, sent.filling);
            Publish { partition, batch, wait: Wait::Durable, expires: Vec::new() }
        };
        let request = Request::Publish(sent.iter().map(publish).collect());
        self.producers[producer].open.extend_from_slice(&sent);
        self.ask(world, Asked::Publish { producer, sent }, request);
    }

    /// Takes the answers that came up.
    pub fn hear(&mut self, world: &mut World) {
        for Event::Reply { tag, result } in world.events() {
            let Some(asked) = self.asked.remove(&tag.0) else { continue };
            match (asked, result) {
                (Asked::Publish { producer, sent }, Ok(Answer::Placed(placed))) => {
                    for (sent, placed) in sent.iter().zip(placed) {
                        self.placed(producer, sent, placed);
                    }
                }
                (Asked::Declare, Ok(Answer::Stream(info))) => self.stream = Some(info),
                (Asked::Commit(offset), Ok(Answer::Group(GroupAnswer::Committed(outcomes)))) if outcomes.iter().all(Result::is_ok) => {
                    self.committed = self.committed.max(Some(offset));
                }
                (Asked::Trim(before), Ok(Answer::Trimmed { .. })) => self.trimmed = self.trimmed.max(before),
                (_, Err(refusal)) => self.refused.push(refusal),
                (_, Ok(answer)) => panic!("an answer to another question: {answer:?}"),
            }
        }
    }

    fn placed(&mut self, producer: usize, sent: &Sent, placed: Result<firth_gateway::answer::Placed, Refusal>) {
        let own = &mut self.producers[producer];
        match placed {
            Ok(placed) => {
                own.open.retain(|open| open.mark != sent.mark);
                let before = own.acknowledged.insert(sent.mark, (placed.base_offset, sent.count));
                assert!(before.is_none_or(|(offset, _)| offset == placed.base_offset), "one batch acknowledged at two offsets");
            }
            // A full disk: it is sent again. Later ones of the producer were refused with it, as their sequence has a gap.
            Err(refusal) => self.refused.push(refusal),
        }
    }
}
