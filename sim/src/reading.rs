//! What a session reads of its legs.

use firth_gateway::cursors::Leg;
use firth_gateway::stored;
use firth_gateway::view::LogView;
use firth_model::batch::BatchHeader;
use firth_model::ids::{Offset, PartitionId};
use firth_model::removed::RunSet;
use firth_model::subject::Subject;

use crate::world::World;

/// Message and offset of everything stored on the leg that is not settled.
pub fn unsettled(world: &World, leg: &Leg, passed: &RunSet) -> Vec<(u64, u64)> {
    let Some(bounds) = world.view.bounds(leg.partition) else { return Vec::new() };
    let mut next = leg.floor.max(bounds.log_start);
    let mut found = Vec::new();
    while next < bounds.durable_end {
        let (some, behind) = read(world, leg.partition, next, 20_000);
        assert!(behind > next, "nothing at {next} below the end {}", bounds.durable_end);
        found.extend(some.into_iter().filter(|(_, offset)| !passed.contains(*offset)));
        next = behind;
    }
    found
}

/// The message at an offset. `None`: it is not there any more.
pub fn message_at(world: &World, partition: PartitionId, offset: u64) -> Option<u64> {
    world.view.bounds(partition).filter(|bounds| bounds.log_start.0 <= offset && offset < bounds.durable_end.0)?;
    read(world, partition, Offset(offset), 1).0.into_iter().find(|(_, at)| *at == offset).map(|(id, _)| id)
}

/// Messages and offsets of some batches, and the offset behind them.
fn read(world: &World, partition: PartitionId, from: Offset, bytes_max: u32) -> (Vec<(u64, u64)>, Offset) {
    let records = world.view.read_here(partition, from, bytes_max).expect("between the bounds");
    let unknown = Subject::parse("").expect("one empty level");
    let (mut found, mut behind) = (Vec::new(), from);
    for batch in &records.batches {
        for message in stored::messages(batch, from, &unknown).expect("whole") {
            let value = message.message.value.expect("a value");
            found.push((value.first_chunk().copied().map(u64::from_le_bytes).expect("begins with its id"), message.offset.0));
        }
        let header = BatchHeader::parse(batch).expect("whole");
        behind = Offset::from_i64(header.base_offset).expect("of the log").plus(header.offset_count());
    }
    (found, behind)
}
