//! Readers that go on while everything else does.

use firth_broker::view::View;
use firth_gateway::refusal::Refusal;
use firth_gateway::view::LogView;
use firth_journal::disk::{Disk, FileName};
use firth_journal::reader::{ExtentHold, Reader};
use firth_model::ids::{ExtentNumber, Offset, PartitionId};

use crate::check::meet;
use crate::clients::Clients;
use crate::machine::{EXTENT_BYTES, Machine};

/// Walks through a partition in small fetches, over many steps (I13).
#[derive(Default)]
pub struct Walker {
    at: Option<(PartitionId, Offset)>,
}

impl Walker {
    /// One fetch. `reachable`: the store of segments can be reached, so nothing excuses a refusal.
    pub fn step(&mut self, view: &View, clients: &mut Clients, machine: &mut Machine, reachable: bool, context: &str) {
        let partitions = clients.memory.partitions();
        if partitions.is_empty() {
            return;
        }
        let (_, picked) = partitions[machine.dice.below(partitions.len() as u64) as usize];
        let still = self.at.filter(|(id, _)| partitions.iter().any(|(_, other)| other == id));
        let Some(bounds) = view.bounds(still.map_or(picked, |(id, _)| id)) else { return };
        let (id, mut next) = still.unwrap_or((picked, bounds.log_start));
        match view.read_here(id, next, 1 + machine.dice.below(3_000) as u32) {
            Ok(records) => {
                for (at, bytes) in records.batches.iter().enumerate() {
                    next = match clients.memory.thinned(id) {
                        Some(thinned) => thinned.meet(bytes, next, at == 0, &mut Vec::new(), context),
                        None => meet(clients.memory.seen.entry(id).or_default(), bytes, next, at == 0, context).2,
                    };
                }
                assert!(!records.batches.is_empty() || next == bounds.durable_end, "{context}: partition {} ends at {next}", id.0);
                self.at = (!records.batches.is_empty()).then_some((id, next));
            }
            Err(Refusal::OffsetOutOfRange { log_start, .. }) => {
                assert!(log_start > next, "{context}: {next} of partition {} is out of range", id.0);
                self.at = Some((id, log_start));
            }
            Err(Refusal::Unavailable) if !reachable => {}
            Err(refusal) => panic!("{context}: {next} of partition {}: {refusal:?}", id.0),
        }
    }
}

/// Somebody who is in an extent for long: as long as he is, nobody writes there.
pub struct LongRead<'a> {
    _hold: ExtentHold<'a>,
    extent: ExtentNumber,
    bytes: Vec<u8>,
}

impl<'a> LongRead<'a> {
    /// Begins in some finished extent.
    pub fn begin(reader: &'a Reader, machine: &mut Machine, open: ExtentNumber) -> Option<LongRead<'a>> {
        let finished: Vec<FileName> = machine.extents().into_iter().filter(|file| *file < FileName::Extent(open)).collect();
        let FileName::Extent(extent) = *finished.get(machine.dice.below(finished.len() as u64) as usize)? else { return None };
        let hold = reader.hold(extent)?;
        let bytes = read_all(machine, extent)?;
        Some(LongRead { _hold: hold, extent, bytes })
    }

    pub fn look(&self, machine: &Machine, context: &str) {
        if !machine.disk.is_crashed() {
            let now = read_all(machine, self.extent);
            assert!(now.as_ref() == Some(&self.bytes), "{context}: extent {} changed under its reader", self.extent.0);
        }
    }
}

fn read_all(machine: &Machine, extent: ExtentNumber) -> Option<Vec<u8>> {
    let mut bytes = vec![0; EXTENT_BYTES as usize];
    machine.disk.read(FileName::Extent(extent), 0, &mut bytes).ok()?;
    Some(bytes)
}
