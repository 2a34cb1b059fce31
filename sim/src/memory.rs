//! What clients remember of a run: what was acknowledged, and what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firth_gateway::groups::StreamPartition;
use firth_gateway::streams::{Policy, StreamInfo};
use firth_model::ids::{Offset, PartitionId, PartitionIndex};

use crate::batches::Mark;
use crate::records::{Keyed, Recipe};
use crate::thinned::{DELETES_KEPT_MS, Removals, Thinned};

/// Size at which the stream `sizes` loses its oldest records.
pub const SIZE_KEPT: u64 = 40_000;
/// Age at which the stream `ages` loses records.
pub const AGE_KEPT_MS: i64 = 8_000;
/// Producers, by stream and partition. Those of a partition that is not there yet wait.
const PRODUCERS: [(usize, u32); 14] =
    [(0, 0), (0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (4, 0), (4, 0), (4, 1), (5, 0)];

/// A stream of a run, whether it is there or not.
pub struct Slot {
    pub name: &'static str,
    pub partitions: u32,
    pub policy: Policy,
    /// Dropped and made again in the course of a run.
    pub passing: bool,
    /// One record in so many expires; each has a key. `None`: the stream loses whole batches only, so they need not hold records.
    pub one_expires_in: Option<u64>,
    /// As it was acknowledged.
    pub info: Option<Arc<StreamInfo>>,
    pub declaring: bool,
    pub dropping: bool,
    /// The largest count of partitions that was asked for.
    pub growing: u32,
}

impl Slot {
    fn of(name: &'static str, partitions: u32, policy: Policy, passing: bool) -> Slot {
        let policy = Policy { batch_bytes_max: 32 << 10, retention_ms: policy.retention_ms.filter(|_| name == "ages"), ..policy };
        Slot { name, partitions, policy, passing, one_expires_in: None, info: None, declaring: false, dropping: false, growing: 0 }
    }

    /// There, and not about to go.
    pub fn settled(&self) -> Option<&Arc<StreamInfo>> {
        self.info.as_ref().filter(|_| !self.dropping)
    }
}

/// One batch that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub mark: Mark,
    pub count: i32,
    pub filling: usize,
    /// By the steady clock.
    pub at_ms: i64,
    pub recipe: Option<Recipe>,
}

impl Sent {
    /// The records, where they have keys.
    pub fn records(&self) -> Vec<Keyed> {
        self.recipe.map(|recipe| recipe.records(self.mark, self.count, self.filling)).unwrap_or_default()
    }
}

#[derive(Default)]
pub struct Producer {
    pub slot: usize,
    pub index: u32,
    pub id: i64,
    pub next: i32,
    /// Not answered well, oldest first: sent again, as they were.
    pub open: Vec<Sent>,
    /// The newest that were sent: what a partition remembers.
    pub recent: Vec<Sent>,
    /// Requests that are not answered.
    pub asked: usize,
    /// First offset and moment by mark.
    pub acknowledged: BTreeMap<Mark, (Offset, Sent)>,
}

/// What was acknowledged, and the most that was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    pub acknowledged: Option<Offset>,
    pub asked: Offset,
}

/// What consumers saw of a partition.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Checksum and number of offsets of the batch at each base offset. What was seen once must stay.
    pub batches: BTreeMap<u64, (u32, u64)>,
    pub marks: BTreeMap<Mark, u64>,
    pub log_start: Offset,
}

pub struct Memory {
    pub slots: Vec<Slot>,
    pub producers: Vec<Producer>,
    pub commits: BTreeMap<(&'static str, StreamPartition), Bounds>,
    pub trims: BTreeMap<PartitionId, Bounds>,
    pub seen: BTreeMap<PartitionId, Seen>,
    /// Of streams that lose records one by one.
    pub thinned: BTreeMap<PartitionId, Thinned>,
    /// What those lost.
    pub removals: Removals,
    /// A life began with a clock that was set: ages say nothing any more.
    pub ages_unsure: bool,
}

impl Memory {
    pub fn fresh() -> Memory {
        let plain = Policy::default();
        let sizes = Policy { retention_bytes: Some(SIZE_KEPT), ..plain.clone() };
        let ages = Policy { retention_ms: Some(AGE_KEPT_MS.cast_unsigned()), ..plain.clone() };
        let delete_retention_ms = DELETES_KEPT_MS.cast_unsigned();
        let keys = Policy { compacted: true, expires: false, delete_retention_ms, ..plain.clone() };
        let slots = vec![
            Slot::of("events", 3, plain.clone(), false),
            Slot::of("sizes", 2, sizes, false),
            Slot::of("ages", 1, ages, false),
            Slot::of("passing", 2, plain.clone(), true),
            Slot { one_expires_in: Some(8), ..Slot::of("keys", 2, keys, false) },
            Slot { one_expires_in: Some(1), ..Slot::of("brief", 1, plain, true) },
        ];
        let producer = |(at, (slot, index)): (usize, &(usize, u32))| Producer {
            slot: *slot,
            index: *index,
            id: at as i64 + 100,
            ..Producer::default()
        };
        Memory {
            slots,
            producers: PRODUCERS.iter().enumerate().map(producer).collect(),
            commits: BTreeMap::new(),
            trims: BTreeMap::new(),
            seen: BTreeMap::new(),
            thinned: BTreeMap::new(),
            removals: Removals::default(),
            ages_unsure: false,
        }
    }

    pub fn partition_of(&self, producer: usize) -> Option<PartitionId> {
        let producer = self.producers.get(producer)?;
        self.slots[producer.slot].settled()?.partition(PartitionIndex(producer.index))
    }

    /// What is known of the records of a partition that loses some one by one.
    pub fn thinned(&mut self, partition: PartitionId) -> Option<&mut Thinned> {
        let holds = |slot: &&Slot| slot.info.as_ref().is_some_and(|info| info.partitions.contains(&partition));
        let slot = self.slots.iter().filter(|slot| slot.one_expires_in.is_some()).find(holds)?;
        let compacted = slot.policy.compacted;
        Some(self.thinned.entry(partition).or_insert_with(|| Thinned::fresh(compacted)))
    }

    /// The partitions of every stream that is surely there.
    pub fn partitions(&self) -> Vec<(usize, PartitionId)> {
        let slots = self.slots.iter().enumerate();
        slots
            .flat_map(|(at, slot)| slot.settled().into_iter().flat_map(move |info| info.partitions.iter().map(move |id| (at, *id))))
            .collect()
    }

    pub fn acknowledged(&self) -> usize {
        self.producers.iter().map(|producer| producer.acknowledged.len()).sum()
    }

    /// A stream is gone, and everything in it.
    pub fn forget(&mut self, slot: usize) {
        let Some(info) = self.slots[slot].info.take() else { return };
        (self.slots[slot].dropping, self.slots[slot].growing) = (false, 0);
        let gone: BTreeSet<PartitionId> = info.partitions.iter().copied().collect();
        self.seen.retain(|id, _| !gone.contains(id));
        self.thinned.retain(|id, _| !gone.contains(id));
        self.trims.retain(|id, _| !gone.contains(id));
        self.commits.retain(|(_, partition), _| partition.stream != info.id);
        for producer in self.producers.iter_mut().filter(|producer| producer.slot == slot) {
            // As a client that begins anew: its old answers mean nothing any more.
            *producer = Producer { slot, index: producer.index, id: producer.id + 1000, ..Producer::default() };
        }
    }

    /// Compares a stream with what a restarted node says of it, and takes over what was never answered.
    pub fn adopt(&mut self, slot: usize, there: Option<Arc<StreamInfo>>, context: &str) {
        let name = self.slots[slot].name;
        match (self.slots[slot].info.clone(), there) {
            (Some(known), Some(there)) => {
                assert_eq!(known.id, there.id, "{context}: stream {name} is another one");
                assert!(there.partitions.starts_with(&known.partitions), "{context}: partitions of {name} changed");
                let most = known.partitions.len().max(self.slots[slot].growing as usize);
                assert!(there.partitions.len() <= most, "{context}: {name} grew by itself");
                self.slots[slot].info = Some(there);
            }
            (Some(_), None) => {
                assert!(self.slots[slot].dropping, "{context}: stream {name} is gone");
                self.forget(slot);
            }
            (None, Some(there)) => {
                assert!(self.slots[slot].declaring, "{context}: stream {name} came back");
                self.slots[slot].info = Some(there);
            }
            (None, None) => {}
        }
        let slot = &mut self.slots[slot];
        (slot.declaring, slot.dropping, slot.growing) = (false, false, 0);
    }
}
