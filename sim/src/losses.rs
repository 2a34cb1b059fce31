//! What is settled of all legs: what a turn of the shard settled by itself is what queues lost to their limits.

use std::collections::BTreeMap;

use bytes::Bytes;

use firth_broker::cursors::state::CursorEffect;
use firth_gateway::cursors::CursorId;
use firth_model::filter::Filter;
use firth_model::ids::PartitionId;
use firth_model::removed::RunSet;

use crate::world::World;

/// By session and partition: the leg's filter, and what of it is settled.
pub struct Settled(BTreeMap<(Bytes, PartitionId), (Filter, RunSet)>);

/// What was settled of a leg since an earlier look.
#[derive(Debug)]
pub struct Since {
    pub session: Bytes,
    pub partition: PartitionId,
    pub filter: Filter,
    pub offsets: Vec<u64>,
}

impl Settled {
    pub fn of(world: &World) -> Settled {
        let (mut names, mut filters) = (BTreeMap::<CursorId, Bytes>::new(), BTreeMap::new());
        let mut settled = BTreeMap::new();
        for effect in world.shard.state().cursors.dump() {
            match effect {
                CursorEffect::PutCursor { cursor, record } => drop(names.insert(cursor, record.name)),
                CursorEffect::PutLeg { cursor, partition, leg } => drop(filters.insert((cursor, partition), leg.filter)),
                CursorEffect::PutSettled { cursor, partition, floor, mut runs } => {
                    runs.insert(0..floor.0);
                    settled.insert((names[&cursor].clone(), partition), (filters[&(cursor, partition)].clone(), runs));
                }
                _ => {}
            }
        }
        Settled(settled)
    }

    /// Of legs that were there before.
    pub fn since(&self, before: &Settled) -> Vec<Since> {
        let both = self.0.iter().filter_map(|(place, now)| Some((place, now, before.0.get(place)?)));
        let since = both.map(|((session, partition), (filter, now), (_, then))| {
            let offsets = now.iter().flatten().filter(|offset| !then.contains(*offset)).collect();
            Since { session: session.clone(), partition: *partition, filter: filter.clone(), offsets }
        });
        since.collect()
    }
}
