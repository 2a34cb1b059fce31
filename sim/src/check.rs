//! Whether a node serves what it acknowledged, no more.

use std::collections::BTreeMap;

use bytes::Bytes;

use firth_broker::groups::state::GroupEffect;
use firth_gateway::view::LogView;
use firth_model::ids::{Offset, PartitionId};

use crate::batches::{Mark, read};
use crate::clients::Clients;
use crate::machine::Machine;
use crate::memory::{AGE_KEPT_MS, Memory, SIZE_KEPT, Seen};
use crate::world::World;

/// How much faster than the steady clock the node's may run: a tenth, and a step.
const CLOCK_SLACK_MS: i64 = AGE_KEPT_MS / 10 + 500;

/// Reads everything and compares. Panics with what is wrong (I1, I2, I10, I11, I12 of the invariants).
pub fn check(world: &World, clients: &mut Clients, machine: &Machine, context: &str) {
    let memory = &mut clients.memory;
    let mut found: BTreeMap<Mark, Offset> = BTreeMap::new();
    for (slot, id) in memory.partitions() {
        let bounds = world.view.bounds(id).unwrap_or_else(|| panic!("{context}: partition {} is gone", id.0));
        let seen = memory.seen.entry(id).or_default();
        assert!(bounds.log_start >= seen.log_start, "{context}: log start {} of {} was {}", bounds.log_start, id.0, seen.log_start);
        seen.log_start = bounds.log_start;
        match memory.thinned(id) {
            Some(thinned) => {
                let removals = thinned.check(world, id, machine.hands.latest(), context);
                memory.removals.add(removals);
            }
            None => read_partition(world, id, &mut found, memory.seen.entry(id).or_default(), context),
        }
        check_start(memory, slot, id, bounds.log_start, bounds.bytes, context);
    }
    for producer in 0..memory.producers.len() {
        check_producer(world, memory, producer, &found, machine.steady_ms(), context);
    }
    check_commits(world, memory, context);
}

/// What a producer was told is where he was told, unless something was allowed to remove it.
fn check_producer(world: &World, memory: &Memory, at: usize, found: &BTreeMap<Mark, Offset>, steady_ms: i64, context: &str) {
    let Some(partition) = memory.partition_of(at) else { return };
    let producer = &memory.producers[at];
    let log_start = world.view.bounds(partition).expect("looked at before").log_start;
    let trimmed = memory.trims.get(&partition).map_or(Offset(0), |bounds| bounds.asked);
    let by_age = memory.slots[producer.slot].policy.retention_ms.is_some() && !memory.ages_unsure;
    let mut last: Option<Offset> = None;
    for (mark, (offset, sent)) in &producer.acknowledged {
        assert!(last.is_none_or(|last| last < *offset), "{context}: order of producer {} broken at {offset}", mark.producer);
        last = Some(*offset);
        if *offset >= log_start && sent.recipe.is_none() {
            assert_eq!(found.get(mark), Some(offset), "{context}: acknowledged {mark:?} is not at its offset");
        } else if by_age && *offset >= trimmed {
            let age = steady_ms - sent.at_ms;
            assert!(age + CLOCK_SLACK_MS >= AGE_KEPT_MS, "{context}: {mark:?} at {offset} was removed {age} ms old");
        }
    }
}

fn check_start(memory: &Memory, slot: usize, id: PartitionId, log_start: Offset, bytes: u64, context: &str) {
    let trim = memory.trims.get(&id).copied().unwrap_or_default();
    assert!(Some(log_start) >= trim.acknowledged, "{context}: partition {} begins at {log_start}, trimmed to {trim:?}", id.0);
    let policy = &memory.slots[slot].policy;
    if log_start <= trim.asked || policy.retention_ms.is_some() {
        return;
    }
    assert!(policy.retention_bytes.is_some(), "{context}: partition {} begins at {log_start}, trimmed to {trim:?}", id.0);
    // A batch counts for 24 bytes less once it lies in a segment: the journal counts what it wraps around it (seed 1158).
    let unwrapped = SIZE_KEPT / 8;
    assert!(bytes + unwrapped >= SIZE_KEPT, "{context}: {bytes} bytes are left of partition {}", id.0);
}

/// Compares one batch with what was seen of it before, and remembers it. Gives its mark and where the next one begins.
pub fn meet(seen: &mut Seen, bytes: &Bytes, next: Offset, may_begin_before: bool, context: &str) -> (Mark, Offset, Offset) {
    let (batch, mark) = read(bytes).unwrap_or_else(|| panic!("{context}: broken bytes at {next}"));
    let base = Offset::from_i64(batch.header.base_offset).expect("not negative");
    let contiguous = base == next || (may_begin_before && base < next);
    assert!(contiguous, "{context}: batch at {base} where {next} was expected");
    assert_eq!(mark.producer, batch.header.producer_id, "{context}");
    let count = batch.header.offset_count();
    let before = seen.batches.insert(base.0, (batch.header.crc, count));
    assert!(before.is_none_or(|before| before == (batch.header.crc, count)), "{context}: offset {base} changed");
    let twice = seen.marks.insert(mark, base.0);
    assert!(twice.is_none_or(|other| other == base.0), "{context}: {mark:?} is at {twice:?} and at {base}");
    (mark, base, base.plus(count))
}

fn read_partition(world: &World, id: PartitionId, found: &mut BTreeMap<Mark, Offset>, seen: &mut Seen, context: &str) {
    let bounds = world.view.bounds(id).expect("looked at before");
    let mut next = bounds.log_start;
    let mut first = true;
    let mut there = 0;
    while next < bounds.durable_end {
        let records = world.view.read_here(id, next, 20_000).unwrap_or_else(|refusal| panic!("{context}: {} at {next}: {refusal:?}", id.0));
        assert!(!records.batches.is_empty(), "{context}: nothing at {next} below the end {}", bounds.durable_end);
        for bytes in &records.batches {
            let (mark, base, end) = meet(seen, bytes, next, first, context);
            (first, next, there) = (false, end, there + 1);
            assert!(found.insert(mark, base).is_none(), "{context}: {mark:?} is there twice");
        }
    }
    let shown = seen.batches.iter().filter(|(base, (_, count))| *base + *count > bounds.log_start.0).count();
    assert_eq!(shown, there, "{context}: of partition {} what was shown is gone", id.0);
}

fn check_commits(world: &World, memory: &Memory, context: &str) {
    let stored: BTreeMap<_, _> = (world.shard.state().groups.dump().into_iter())
        .filter_map(|effect| match effect {
            GroupEffect::PutCursor { group, partition, cursor } => Some(((group.to_string(), partition), cursor.offset)),
            _ => None,
        })
        .collect();
    for ((group, partition), bounds) in &memory.commits {
        // A stream that is about to go takes its positions with it.
        let going = memory.slots.iter().any(|slot| slot.dropping && slot.info.as_ref().is_some_and(|info| info.id == partition.stream));
        let Some(acknowledged) = bounds.acknowledged.filter(|_| !going) else { continue };
        let stored = stored.get(&((*group).to_owned(), partition.clone()));
        let stored = *stored.unwrap_or_else(|| panic!("{context}: the commit of {acknowledged} by {group} is gone"));
        assert!((acknowledged..=bounds.asked).contains(&stored), "{context}: {group} committed {bounds:?}, stored {stored}");
    }
}
