//! One group: what is durable of it, and what a restart may forget.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use firth_gateway::groups::{Membership, StreamPartition};
use firth_gateway::outbox::ReplyTo;

use super::state::{Cursor, GroupEffect, GroupRecord, Holding, MemberRecord};

/// Where a joining group stands in its round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Empty,
    /// Waiting for members to join.
    Joining,
    /// Waiting for the leader's assignment.
    Assigning,
    Stable,
}

/// A live member of a joining group. What is durable of it may be older: it is written when a round completes.
pub struct Seat {
    pub member: MemberRecord,
    /// It has not been through a round.
    pub is_fresh: bool,
    pub join: Option<ReplyTo>,
    pub sync: Option<ReplyTo>,
}

/// The live state of a joining group.
#[derive(Default)]
pub struct Round {
    pub phase: Phase,
    pub kind: String,
    pub leader: Option<Arc<str>>,
    pub seats: BTreeMap<Arc<str>, Seat>,
    /// Ids that were given out and have not joined.
    pub promised: BTreeSet<Arc<str>>,
    pub unsynced: BTreeSet<Arc<str>>,
    /// The round began in an empty group: it waits for its delay, not for members.
    pub from_empty: bool,
    pub more_came: bool,
    /// What is left of the longest initial delay.
    pub delay_left_ms: i64,
}

impl Round {
    pub fn everybody_joined(&self) -> bool {
        self.promised.is_empty() && self.seats.values().all(|seat| seat.join.is_some())
    }

    pub fn rebalance_timeout_ms(&self) -> i64 {
        self.seats.values().map(|seat| seat.member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub fn member_with_instance(&self, instance: &str) -> Option<Arc<str>> {
        let has = |seat: &Seat| seat.member.instance.as_deref() == Some(instance);
        self.seats.iter().find(|(_, seat)| has(seat)).map(|(id, _)| id.clone())
    }
}

pub struct Group {
    pub name: Arc<str>,
    // Durable: changed by `apply` alone.
    pub record: Option<GroupRecord>,
    pub members: BTreeMap<Arc<str>, MemberRecord>,
    pub targets: BTreeMap<Arc<str>, Holding>,
    pub cursors: BTreeMap<StreamPartition, Cursor>,
    /// Who holds a partition or still has to let go of it; follows from `members`.
    pub holders: HashMap<StreamPartition, Arc<str>>,
    // Forgotten by a restart.
    pub round: Round,
    /// Version of the catalog that the subscriptions were last compared with.
    pub catalog_seen: Option<u64>,
}

impl Group {
    pub fn named(name: Arc<str>) -> Group {
        Group {
            name,
            record: None,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            cursors: BTreeMap::new(),
            holders: HashMap::new(),
            round: Round::default(),
            catalog_seen: None,
        }
    }

    /// Cannot refuse. Effects on what is gone change nothing.
    pub fn apply(&mut self, effect: &GroupEffect) {
        match effect {
            GroupEffect::PutGroup { record, .. } => self.record = Some((**record).clone()),
            GroupEffect::DropGroup { .. } => self.record = None,
            GroupEffect::PutMember { member, record, .. } => {
                self.release(member);
                for partition in record.assigned.iter().chain(&record.revoking) {
                    self.holders.insert(partition.clone(), member.clone());
                }
                self.members.insert(member.clone(), (**record).clone());
            }
            GroupEffect::DropMember { member, .. } => {
                self.release(member);
                self.members.remove(member);
            }
            GroupEffect::PutTarget { member, target, .. } => {
                self.targets.insert(member.clone(), target.clone());
            }
            GroupEffect::DropTarget { member, .. } => {
                self.targets.remove(member);
            }
            GroupEffect::PutCursor { partition, cursor, .. } => match self.cursors.get_mut(partition) {
                Some(held) => held.clone_from(cursor),
                None => {
                    self.cursors.insert(partition.clone(), cursor.clone());
                }
            },
            GroupEffect::DropCursor { partition, .. } => {
                self.cursors.remove(partition);
            }
        }
    }

    fn release(&mut self, member: &Arc<str>) {
        let Some(record) = self.members.get(member) else { return };
        for partition in record.assigned.iter().chain(&record.revoking) {
            if self.holders.get(partition) == Some(member) {
                self.holders.remove(partition);
            }
        }
    }

    pub fn is_beating(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.membership == Membership::Beating)
    }

    pub fn has_members(&self) -> bool {
        if self.is_beating() { !self.members.is_empty() } else { self.round.phase != Phase::Empty }
    }

    /// Nothing durable and nobody who waits: as good as never made.
    pub fn is_nothing(&self) -> bool {
        self.is_forgotten() && self.round.seats.is_empty() && self.round.promised.is_empty()
    }

    /// Nothing durable.
    pub fn is_forgotten(&self) -> bool {
        self.record.is_none() && self.members.is_empty() && self.targets.is_empty() && self.cursors.is_empty()
    }

    pub fn epoch(&self) -> i32 {
        self.record.as_ref().map_or(0, |record| record.epoch)
    }

    pub fn member_with_instance(&self, instance: &str) -> Option<Arc<str>> {
        let has = |member: &MemberRecord| member.instance.as_deref() == Some(instance);
        self.members.iter().find(|(_, member)| has(member)).map(|(id, _)| id.clone())
    }

    /// Every durable fact as an effect that makes it, in the order of keys.
    pub fn dump(&self) -> Vec<GroupEffect> {
        let group = &self.name;
        let mut dump = Vec::new();
        if let Some(record) = &self.record {
            dump.push(GroupEffect::PutGroup { group: group.clone(), record: Box::new(record.clone()) });
        }
        for (member, record) in &self.members {
            dump.push(GroupEffect::PutMember { group: group.clone(), member: member.clone(), record: Box::new(record.clone()) });
        }
        for (partition, cursor) in &self.cursors {
            dump.push(GroupEffect::PutCursor { group: group.clone(), partition: partition.clone(), cursor: cursor.clone() });
        }
        for (member, target) in &self.targets {
            dump.push(GroupEffect::PutTarget { group: group.clone(), member: member.clone(), target: target.clone() });
        }
        dump
    }
}
