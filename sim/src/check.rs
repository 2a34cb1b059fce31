//! Whether a node serves what it acknowledged, no more.

use std::collections::{BTreeMap, HashMap};

use firth_broker::groups::state::GroupEffect;
use firth_gateway::view::LogView;
use firth_model::ids::{Offset, PartitionId, PartitionIndex};

use crate::batches::{Mark, read};
use crate::clients::{Clients, GROUP, PRODUCERS};
use crate::world::World;

/// What consumers saw: checksum of the batch at each base offset. What was seen once must stay.
pub type Seen = HashMap<(PartitionId, u64), u32>;

/// Reads everything and compares. Panics with what is wrong (I1, I2, I10, I11, I12 of the invariants).
pub fn check(world: &World, clients: &Clients, seen: &mut Seen, context: &str) {
    let Some(stream) = &clients.stream else { return };
    let mut found: BTreeMap<Mark, Offset> = BTreeMap::new();
    let mut starts = HashMap::new();
    for id in &stream.partitions {
        let bounds = world.view.bounds(*id).unwrap_or_else(|| panic!("{context}: partition {} is gone", id.0));
        starts.insert(*id, bounds.log_start);
        read_partition(world, *id, &mut found, seen, context);
    }
    for producer in 0..PRODUCERS {
        let partition = clients.partition_of(producer).expect("declared");
        let mut last: Option<Offset> = None;
        for (mark, (offset, _)) in &clients.producers[producer].acknowledged {
            assert!(last.is_none_or(|last| last < *offset), "{context}: order of producer {} broken at {offset}", mark.producer);
            last = Some(*offset);
            if *offset < starts[&partition] {
                continue;
            }
            assert_eq!(found.get(mark), Some(offset), "{context}: acknowledged {mark:?} is not at its offset");
        }
    }
    check_trim(world, clients, context);
    check_commit(world, clients, context);
}

fn read_partition(world: &World, id: PartitionId, found: &mut BTreeMap<Mark, Offset>, seen: &mut Seen, context: &str) {
    let bounds = world.view.bounds(id).expect("looked at before");
    let mut next = bounds.log_start;
    let mut first = true;
    while next < bounds.durable_end {
        let records = world.view.read_here(id, next, 20_000).unwrap_or_else(|refusal| panic!("{context}: read: {refusal:?}"));
        assert!(!records.batches.is_empty(), "{context}: nothing at {next} below the end {}", bounds.durable_end);
        for bytes in &records.batches {
            let (batch, mark) = read(bytes).unwrap_or_else(|| panic!("{context}: broken bytes at {next}"));
            let base = Offset::from_i64(batch.header.base_offset).expect("not negative");
            let contiguous = base == next || (first && base < next);
            assert!(contiguous, "{context}: batch at {base} where {next} was expected");
            first = false;
            next = base.plus(batch.header.offset_count());
            assert_eq!(mark.producer, batch.header.producer_id, "{context}");
            let twice = found.insert(mark, base);
            assert!(twice.is_none(), "{context}: {mark:?} is there twice");
            let before = seen.insert((id, base.0), batch.header.crc);
            assert!(before.is_none_or(|crc| crc == batch.header.crc), "{context}: offset {base} changed");
        }
    }
    let end = bounds.durable_end.0;
    let vanished = seen.keys().find(|(partition, base)| *partition == id && *base >= end);
    assert!(vanished.is_none(), "{context}: {vanished:?} was shown and is gone");
}

fn check_trim(world: &World, clients: &Clients, context: &str) {
    let Some(first) = clients.stream.as_ref().and_then(|stream| stream.partition(PartitionIndex(0))) else { return };
    let log_start = world.view.bounds(first).expect("looked at before").log_start;
    let allowed = clients.trimmed..=clients.trim_asked;
    assert!(allowed.contains(&log_start), "{context}: log start {log_start} is not in {allowed:?}");
}

fn check_commit(world: &World, clients: &Clients, context: &str) {
    let Some(committed) = clients.committed else { return };
    let stored = world.shard.state().groups.dump().into_iter().find_map(|effect| match effect {
        GroupEffect::PutCursor { group, cursor, .. } if &*group == GROUP => Some(cursor.offset),
        _ => None,
    });
    let stored = stored.unwrap_or_else(|| panic!("{context}: the commit of {committed} is gone"));
    assert!(stored >= committed && Some(stored) <= clients.commit_asked, "{context}: committed {committed}, stored {stored}");
}
