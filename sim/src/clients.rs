//! Clients of the simulated node: what they ask, and how they take the answers.

use std::collections::BTreeMap;

use firth_gateway::answer::{Answer, Event, Placed, Tag};
use firth_gateway::groups::{Commit, CommitItem, GroupAnswer, GroupMove, StreamPartition};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Declare, Publish, Request, Wait};
use firth_gateway::view::LogView;
use firth_journal::simdisk::Dice;
use firth_model::ids::{Offset, PartitionId, PartitionIndex};
use firth_model::names::StreamName;

use crate::batches::{Mark, make};
use crate::machine::Machine;
use crate::memory::{Memory, Sent};
use crate::records::Recipe;
use crate::world::World;

const GROUPS: [&str; 2] = ["readers", "others"];
/// Partitions that a stream grows to at most.
const GROWN: u32 = 5;
/// As many batches as a client may have in flight, and a partition remembers.
const REMEMBERED: usize = 5;

enum Asked {
    Publish { producer: usize, id: i64, sent: Vec<Sent> },
    Declare(usize),
    Drop(usize),
    Grow(usize),
    Commit(&'static str, StreamPartition, Offset),
    Trim(PartitionId, Offset),
}

pub struct Clients {
    pub memory: Memory,
    asked: BTreeMap<u64, Asked>,
    next_tag: u64,
    /// Publishes that were refused for want of space, in this life.
    pub refused_full: usize,
}

impl Clients {
    pub fn fresh() -> Clients {
        Clients { memory: Memory::fresh(), asked: BTreeMap::new(), next_tag: 0, refused_full: 0 }
    }

    fn ask(&mut self, world: &mut World, asked: Asked, request: Request) {
        let tag = self.next_tag;
        self.next_tag += 1;
        self.asked.insert(tag, asked);
        world.submit(Tag(tag), request);
    }

    /// After a restart: what was asked before gets no answer any more. What was not answered is there or is not.
    pub fn adopt(&mut self, world: &World, context: &str) {
        self.asked.clear();
        self.refused_full = 0;
        for slot in 0..self.memory.slots.len() {
            let there = world.shard.state().catalog.by_name(self.memory.slots[slot].name).cloned();
            self.memory.adopt(slot, there, context);
        }
        for producer in &mut self.memory.producers {
            producer.asked = 0;
        }
    }

    /// Sends again what was not answered.
    pub fn reconnect(&mut self, world: &mut World, machine: &mut Machine) {
        for producer in 0..self.memory.producers.len() {
            self.resend(world, machine, producer);
        }
    }

    fn resend(&mut self, world: &mut World, machine: &mut Machine, producer: usize) {
        for sent in self.memory.producers[producer].open.clone() {
            self.send(world, machine, producer, vec![sent]);
        }
    }

    /// One action, picked by the dice.
    pub fn act(&mut self, world: &mut World, machine: &mut Machine) {
        let dice = &mut machine.dice;
        if let Some(slot) = (0..self.memory.slots.len()).find(|slot| self.is_wanted(*slot)) {
            return self.declare(world, slot);
        }
        let partitions = self.memory.partitions();
        if partitions.is_empty() {
            return;
        }
        let (slot, partition) = partitions[dice.below(partitions.len() as u64) as usize];
        match dice.below(60) {
            0..=2 => self.commit(world, machine, slot),
            3..=5 => {
                let quarter = 1 + machine.dice.below(4);
                self.trim(world, machine, partition, quarter);
            }
            6 => self.drop_stream(world, slot),
            7 => self.grow(world, dice),
            8..=10 => self.repeat(world, machine),
            _ => self.publish(world, machine),
        }
    }

    fn is_wanted(&self, slot: usize) -> bool {
        let slot = &self.memory.slots[slot];
        slot.info.is_none() && !slot.declaring
    }

    fn declare(&mut self, world: &mut World, at: usize) {
        let slot = &mut self.memory.slots[at];
        slot.declaring = true;
        let name = StreamName::parse(slot.name).expect("a name");
        let declare = Declare { name, partitions: slot.partitions, policy: slot.policy.clone(), settings: BTreeMap::new() };
        self.ask(world, Asked::Declare(at), Request::Declare(Box::new(declare)));
    }

    fn drop_stream(&mut self, world: &mut World, at: usize) {
        let slot = &mut self.memory.slots[at];
        let Some(info) = slot.settled().filter(|_| slot.passing && slot.growing == 0).cloned() else { return };
        slot.dropping = true;
        self.ask(world, Asked::Drop(at), Request::Drop { stream: info.id });
    }

    fn grow(&mut self, world: &mut World, dice: &mut Dice) {
        let slot = &mut self.memory.slots[0];
        let Some(info) = slot.settled().cloned() else { return };
        let partitions = info.partitions.len() as u32 + 1;
        if partitions <= GROWN && slot.growing == 0 && dice.below(2) == 0 {
            slot.growing = partitions;
            self.ask(world, Asked::Grow(0), Request::Grow { stream: info.id, partitions });
        }
    }

    fn commit(&mut self, world: &mut World, machine: &mut Machine, slot: usize) {
        let dice = &mut machine.dice;
        let Some(info) = self.memory.slots[slot].settled() else { return };
        let index = PartitionIndex(dice.below(info.partitions.len() as u64) as u32);
        let partition = StreamPartition { stream: info.id, index };
        let group = GROUPS[dice.below(2) as usize];
        let bounds = self.memory.commits.entry((group, partition.clone())).or_default();
        let offset = Offset(bounds.asked.0 + dice.below(10));
        bounds.asked = offset;
        let item = CommitItem { partition: Some(partition.clone()), offset, epoch: None, metadata: String::new() };
        let commit = Commit { group: group.to_owned(), generation: -1, member: String::new(), instance: None, items: vec![item] };
        self.ask(world, Asked::Commit(group, partition, offset), Request::Group(Box::new(GroupMove::Commit(commit))));
    }

    /// Removes some quarters of a partition.
    pub fn trim(&mut self, world: &mut World, machine: &mut Machine, partition: PartitionId, quarters: u64) {
        let Some(bounds) = world.view.bounds(partition) else { return };
        let before = Offset(bounds.log_start.0 + (bounds.durable_end.0 - bounds.log_start.0) * quarters / 4);
        let trim = self.memory.trims.entry(partition).or_default();
        trim.asked = trim.asked.max(before);
        machine.history.note("trim asked", format_args!("\"partition\":{},\"before\":{}", partition.0, before.0));
        self.ask(world, Asked::Trim(partition, before), Request::Trim { partition, before: Some(before) });
    }

    fn publish(&mut self, world: &mut World, machine: &mut Machine) {
        let producer = machine.dice.below(self.memory.producers.len() as u64) as usize;
        let own = &mut self.memory.producers[producer];
        if own.asked == 0 && !own.open.is_empty() {
            return self.resend(world, machine, producer);
        }
        if own.open.len() + 2 > REMEMBERED || self.memory.partition_of(producer).is_none() {
            return;
        }
        let mut batches = Vec::new();
        let (at_ms, made, dice) = (machine.steady_ms(), machine.hands.true_time(), &mut machine.dice);
        for _ in 0..=dice.below(2) {
            let own = &mut self.memory.producers[producer];
            let count = 1 + dice.below(5) as i32;
            let one_expires_in = self.memory.slots[own.slot].one_expires_in;
            // Enough of what expires for segments of its own, so that they are written anew.
            let one_large_in = if one_expires_in == Some(1) { 2 } else { 10 };
            let filling = if dice.below(one_large_in) == 0 { 5000 } else { dice.below(200) as usize };
            let recipe = one_expires_in.map(|one_expires_in| Recipe { seed: dice.roll(), made, one_expires_in });
            let sent = Sent { mark: Mark { producer: own.id, sequence: own.next }, count, filling, at_ms, recipe };
            own.next += count;
            own.open.push(sent);
            own.recent.push(sent);
            batches.push(sent);
        }
        let own = &mut self.memory.producers[producer];
        own.recent.drain(..own.recent.len().saturating_sub(REMEMBERED));
        self.send(world, machine, producer, batches);
    }

    /// A batch that was acknowledged already, as a client does whose answer was late.
    fn repeat(&mut self, world: &mut World, machine: &mut Machine) {
        let producer = machine.dice.below(self.memory.producers.len() as u64) as usize;
        let own = &self.memory.producers[producer];
        let Some(sent) = own.recent.iter().find(|sent| own.acknowledged.contains_key(&sent.mark)).copied() else { return };
        self.send(world, machine, producer, vec![sent]);
    }

    fn send(&mut self, world: &mut World, machine: &mut Machine, producer: usize, sent: Vec<Sent>) {
        let Some(partition) = self.memory.partition_of(producer) else { return };
        if let Some(thinned) = self.memory.thinned(partition) {
            sent.iter().flat_map(Sent::records).for_each(|record| thinned.sent(&record, world.now()));
        }
        let publish = |sent: &Sent| {
            let Mark { producer, sequence } = sent.mark;
            let fields = format_args!("\"partition\":{},\"producer\":{producer},\"sequence\":{sequence}", partition.0);
            machine.history.note("sent", fields);
            let (batch, expires) = match sent.recipe {
                Some(recipe) => recipe.batch(sent.mark, sent.count, sent.filling),
                None => (make(sent.mark, sent.count, sent.filling), Vec::new()),
            };
            Publish { partition, batch, wait: Wait::Durable, expires, captured: Vec::new() }
        };
        let request = Request::Publish(sent.iter().map(publish).collect());
        let own = &mut self.memory.producers[producer];
        own.asked += 1;
        let id = own.id;
        self.ask(world, Asked::Publish { producer, id, sent }, request);
    }

    /// Takes the answers that came up.
    pub fn hear(&mut self, world: &mut World, machine: &mut Machine) {
        for event in world.events() {
            let Event::Reply { tag, result } = event else { continue };
            let Some(asked) = self.asked.remove(&tag.0) else { continue };
            match result {
                Ok(answer) => self.answered(machine, asked, answer),
                Err(refusal) => self.refused(machine, asked, &refusal),
            }
        }
    }

    fn answered(&mut self, machine: &mut Machine, asked: Asked, answer: Answer) {
        let memory = &mut self.memory;
        match (asked, answer) {
            (Asked::Publish { producer, id, sent }, Answer::Placed(placed)) => {
                // Of a stream that was dropped meanwhile, otherwise.
                if memory.producers[producer].id == id {
                    memory.producers[producer].asked -= 1;
                    sent.into_iter().zip(placed).for_each(|(sent, placed)| self.placed(machine, producer, sent, placed));
                }
            }
            (Asked::Declare(slot), Answer::Stream(info)) => {
                machine.history.note("declared", format_args!("\"stream\":\"{}\",\"partitions\":{:?}", info.name, ids(&info.partitions)));
                memory.slots[slot].declaring = false;
                memory.slots[slot].info = Some(info);
            }
            (Asked::Grow(slot), Answer::Stream(info)) => {
                machine.history.note("grown", format_args!("\"stream\":\"{}\",\"partitions\":{:?}", info.name, ids(&info.partitions)));
                memory.slots[slot].growing = 0;
                memory.slots[slot].info = Some(info);
            }
            (Asked::Drop(slot), Answer::Done) => {
                machine.history.note("dropped", format_args!("\"stream\":\"{}\"", memory.slots[slot].name));
                memory.forget(slot);
            }
            (Asked::Commit(group, partition, offset), Answer::Group(GroupAnswer::Committed(outcomes))) => {
                if outcomes.iter().all(Result::is_ok)
                    && let Some(bounds) = memory.commits.get_mut(&(group, partition))
                {
                    bounds.acknowledged = bounds.acknowledged.max(Some(offset));
                }
            }
            (Asked::Trim(partition, before), Answer::Trimmed { log_start }) => {
                machine.history.note("trimmed", format_args!("\"partition\":{},\"log_start\":{}", partition.0, log_start.0));
                if let Some(bounds) = memory.trims.get_mut(&partition) {
                    bounds.acknowledged = bounds.acknowledged.max(Some(before));
                }
            }
            (_, answer) => panic!("an answer to another question: {answer:?}"),
        }
    }

    fn refused(&mut self, machine: &mut Machine, asked: Asked, refusal: &Refusal) {
        machine.history.note("refused", format_args!("\"refusal\":\"{refusal:?}\""));
        match asked {
            Asked::Declare(slot) => self.memory.slots[slot].declaring = false,
            Asked::Grow(slot) => self.memory.slots[slot].growing = 0,
            // Its stream was dropped before.
            Asked::Trim(partition, _) => {
                let gone = !self.memory.partitions().iter().any(|(_, id)| *id == partition);
                assert!(gone || matches!(refusal, Refusal::OffsetOutOfRange { .. }), "a trim of {} got {refusal:?}", partition.0);
            }
            Asked::Publish { .. } | Asked::Drop(_) | Asked::Commit(..) => panic!("refused as a whole: {refusal:?}"),
        }
    }

    fn placed(&mut self, machine: &mut Machine, at: usize, sent: Sent, placed: Result<Placed, Refusal>) {
        let dropping = self.memory.slots[self.memory.producers[at].slot].dropping;
        let own = &mut self.memory.producers[at];
        let Mark { producer, sequence } = sent.mark;
        match placed {
            Ok(placed) => {
                let fields = format_args!("\"producer\":{producer},\"sequence\":{sequence},\"offset\":{}", placed.base_offset.0);
                machine.history.note("acknowledged", fields);
                own.open.retain(|open| open.mark != sent.mark);
                let before = own.acknowledged.insert(sent.mark, (placed.base_offset, sent));
                if let Some((offset, _)) = before {
                    assert!(placed.duplicate && offset == placed.base_offset, "{:?} acknowledged at {offset} and {placed:?}", sent.mark);
                }
                let partition = self.memory.partition_of(at);
                if let Some(thinned) = partition.and_then(|id| self.memory.thinned(id)) {
                    let records = (placed.base_offset.0..).map(Offset).zip(sent.records());
                    records.for_each(|(offset, record)| thinned.note(offset, record, "acknowledged"));
                }
            }
            // It is sent again. Later ones of the producer were refused with it, as their sequence has a gap.
            Err(Refusal::StorageFull) => self.refused_full += 1,
            Err(Refusal::SequenceGap) if own.open.first().is_some_and(|first| first.mark != sent.mark) => {}
            Err(Refusal::NotFound) if dropping => {}
            Err(refusal) => panic!("{:?} refused: {refusal:?}", sent.mark),
        }
    }
}

fn ids(partitions: &[PartitionId]) -> Vec<u32> {
    partitions.iter().map(|id| id.0).collect()
}
