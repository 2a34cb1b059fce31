//! What a session knows of one leg, which has to remember it.

use std::collections::{BTreeMap, BTreeSet};

use firth_gateway::cursors::Leg;
use firth_gateway::view::LogView;
use firth_model::ids::PartitionId;
use firth_model::removed::RunSet;

use crate::attempts::Attempts;
use crate::reading::{message_at, unsettled};
use crate::world::World;

#[derive(Default)]
pub struct Bound {
    /// Messages from this one on were sent when the bind was acknowledged.
    pub from: u64,
    pub leg: Option<Leg>,
    /// Settled since it attached; not among what it reads any more.
    pub passed: RunSet,
    /// Settlements in flight, or not yet behind anything acknowledged: message and the tag of the request.
    pub asked: BTreeMap<u64, u64>,
    /// Asked before a crash: may have been settled or not.
    pub unsure: BTreeSet<u64>,
    pub settled: BTreeSet<u64>,
    /// Acknowledged marks of what is not settled: offset and tag.
    pub marks: BTreeMap<u64, u32>,
    pub attempts: Attempts,
    /// Messages lost to limits in this life.
    lost: BTreeSet<u64>,
    /// Those lost before a crash, which may be there again.
    lost_before: BTreeSet<u64>,
}

impl Bound {
    pub fn of(leg: Leg, from: u64) -> Bound {
        let passed = leg.settled.iter().map(|(from, to)| from.0..to.0).collect();
        let attempts = Attempts::of(&leg.attempts);
        Bound { from, leg: Some(leg), passed, attempts, ..Bound::default() }
    }

    /// The process is gone: what was asked may have happened or not.
    pub fn crashed(&mut self) {
        self.unsure.extend(std::mem::take(&mut self.asked).into_keys());
        self.lost_before.append(&mut self.lost);
        self.attempts.crashed();
        self.leg = None;
    }

    /// The leg lost these to a limit.
    pub fn lose(&mut self, world: &World, partition: PartitionId, offsets: &[u64], context: &str) {
        for offset in offsets {
            assert!(!self.marks.contains_key(offset), "{context}: {offset} is lost, which is half delivered");
            self.lost.extend(message_at(world, partition, *offset));
        }
    }

    /// `expected`: the messages that the leg must have, or have had settled or lost. Gives how many counts of attempts were compared.
    pub fn check<'a>(&mut self, world: &World, leg: &Leg, expected: impl Iterator<Item = &'a u64>, context: &str) -> usize {
        let log_start = world.view.bounds(leg.partition).unwrap_or_else(|| panic!("{context}: the stream is gone")).log_start;
        assert!(log_start <= leg.floor, "{context}: trimmed to {log_start}, beyond the floor {}", leg.floor);
        let passed = leg.settled.iter().map(|(from, to)| from.0..to.0).collect();
        let (mut there, mut offsets) = (BTreeSet::new(), BTreeSet::new());
        for (id, offset) in unsettled(world, leg, &passed) {
            offsets.insert(offset);
            assert!(there.insert(id), "{context}: message {id} is there twice");
            assert!(!self.settled.contains(&id), "{context}: message {id} at {offset} was settled and comes again");
        }
        self.lost_before.retain(|id| !there.contains(id));
        for id in expected {
            let lost = self.lost.contains(id) || self.lost_before.contains(id);
            let settled = lost || self.settled.contains(id) || self.asked.contains_key(id) || self.unsure.contains(id);
            assert!(settled || there.contains(id), "{context}: message {id} was acknowledged and is lost");
        }
        for (offset, tag) in &self.marks {
            let mark = leg.marks.iter().find(|mark| mark.offset.0 == *offset);
            assert_eq!(mark.map(|mark| mark.tag), Some(*tag), "{context}: the mark at {offset}");
        }
        let unsure = std::mem::take(&mut self.unsure);
        self.settled.extend(unsure.into_iter().filter(|id| !there.contains(id)));
        self.attempts.check(&leg.attempts, &offsets, context)
    }
}
