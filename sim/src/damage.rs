//! Bytes that change at rest, between two lives.
//!
//! Whatever is damaged: the start is refused with a report, or every read gives the right bytes or an error, and what is whole of other
//! partitions is served. A journal that was refused is repaired: it opens, and nothing that it serves is other than it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use firth_archive::checkpoints::newest;
use firth_archive::segments::Segments;
use firth_archive::store::Store;
use firth_broker::recovery::{RecoveryError, recover};
use firth_broker::repair::{self, damaged_segments};
use firth_gateway::refusal::Refusal;
use firth_gateway::view::LogView;
use firth_journal::disk::{Disk, FileName};
use firth_journal::extent::BLOCK_BYTES;
use firth_journal::group::{GroupHeader, GroupKind, HEADER_BYTES};
use firth_journal::options::{OpenError, Options};
use firth_journal::repair::{Wanted, repair as repair_journal};
use firth_journal::simdisk::Dice;
use firth_model::batch::BatchHeader;
use firth_model::ids::{Lsn, Offset, PartitionId, Position};
use firth_model::time::Millis;

use crate::ablation::Ablations;
use crate::check::meet;
use crate::clients::Clients;
use crate::machine::{CLUSTER, EXTENT_BYTES, Machine};
use crate::run::{Outcome, live};
use crate::world::World;

const STEPS: u64 = 500;

/// Where bytes were changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Extent(FileName),
    Segment(String),
    Checkpoint(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One bit, of the n-th byte.
    Flip(usize),
    /// A block of zeros, from the n-th byte on.
    Zeros(usize),
    /// The file ends at the n-th byte.
    Cut(usize),
}

/// What came of one damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The start was refused, with a report.
    Refused,
    /// Everything was served, as it was or around what is damaged: partitions that lack something.
    Served { lacking: usize },
}

/// A machine at rest after some work, and what its clients know.
pub struct Rested {
    machine: Machine,
    clients: Clients,
}

impl Rested {
    pub fn of_seed(seed: u64, broken: Ablations) -> Rested {
        let mut machine = Machine::of_seed(seed);
        machine.broken = broken;
        let mut clients = Clients::fresh();
        let context = format!("seed={seed} before the damage");
        for life in 0..2 {
            machine.history.begins(life);
            let mut world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
            clients.adopt(&world, &context);
            live(&mut world, &mut machine, &mut clients, &mut Outcome::default(), STEPS, &context);
            crate::check::check(&world, &mut clients, &machine, &context);
            // Idle for a while.
            world.mark();
            machine.acknowledged_to = world.acknowledged_to();
            drop(world);
            machine.disk.restart_process();
        }
        Rested { machine, clients }
    }

    /// Damages a copy, as the seed says, and starts it.
    pub fn damaged(&mut self, seed: u64) -> (Target, Kind, Came) {
        let mut machine = self.machine.copy(seed);
        let (target, kind) = pick(&mut machine);
        apply(&machine, &target, kind);
        let context = format!("seed={seed} {target:?} {kind:?}");
        (target.clone(), kind, self.came(&mut machine, &target, kind, &context))
    }

    /// A bit of the last group that was acknowledged.
    pub fn last_group_damaged(&mut self, seed: u64) -> Came {
        let mut machine = self.machine.copy(seed);
        let (extent, at) = last_data_group(&machine).expect("something was written");
        let target = Target::Extent(extent);
        let kind = Kind::Flip(at + HEADER_BYTES + machine.dice.below(64) as usize);
        apply(&machine, &target, kind);
        self.came(&mut machine, &target, kind, &format!("seed={seed} last group"))
    }

    fn came(&mut self, machine: &mut Machine, target: &Target, kind: Kind, context: &str) -> Came {
        // Records are compared one by one; how far the journal reaches is part of that.
        machine.acknowledged_to.1 = firth_model::ids::Lsn(0);
        let mut world = match World::start(machine) {
            Ok(world) => world,
            Err(error) => {
                refused_well(&error, target, context);
                if let Target::Extent(_) = target {
                    self.repaired(machine, context);
                }
                return Came::Refused;
            }
        };
        let lacking = self.read_around(&world, machine, context);
        if let Kind::Flip(_) = kind {
            assert!(lacking.len() <= 1, "{context}: one bit took records from {lacking:?}");
        }
        // What the archive moves now must not make the damage look whole, nor spread it.
        work_on(&mut world, machine);
        let later = self.read_around(&world, machine, &format!("{context} (later)"));
        assert!(later.is_subset(&lacking), "{context}: damage spread from {lacking:?} to {later:?}");
        Came::Served { lacking: lacking.len() }
    }

    /// Gives up what cannot be read of the journal, starts, and reads everything twice: as it is, and when it has moved.
    fn repaired(&mut self, machine: &mut Machine, context: &str) {
        let loaded = newest(&*machine.store).unwrap_or_else(|error| panic!("{context}: {error}"));
        let (at, from) = loaded.map_or((Lsn(0), Position(0)), |loaded| (loaded.at, loaded.position));
        let mut chance = Dice(machine.dice.roll());
        let random = Box::new(move || chance.sixteen());
        let wanted = Wanted { cluster_id: CLUSTER, extent_bytes: EXTENT_BYTES, at, from, random };
        machine.disk.restart_process();
        let done = repair_journal(&*machine.disk, wanted, &mut |_| Ok(())).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(!done.extents.is_empty(), "{context}: refused, and nothing to repair");
        give_up_segments(machine).unwrap_or_else(|error| panic!("{context}: after {done:?}: {error}"));
        machine.disk.restart_process();
        let mut world = World::start(machine).unwrap_or_else(|error| panic!("{context}: after {done:?}: {error}"));
        let kept = self.read_what_is_left(&world, context);
        work_on(&mut world, machine);
        let later = self.read_what_is_left(&world, context);
        let trimmed = |(id, base): &(PartitionId, u64)| world.view.bounds(*id).is_none_or(|bounds| bounds.log_start.0 > *base);
        let gone: Vec<_> = kept.difference(&later).filter(|place| !trimmed(place)).collect();
        assert!(gone.is_empty(), "{context}: after {done:?} {gone:?} did not stay");
    }

    /// The batches that are served, by partition and first offset. Each is one that was there before.
    fn read_what_is_left(&self, world: &World, context: &str) -> BTreeSet<(PartitionId, u64)> {
        let mut left = BTreeSet::new();
        for (id, seen) in &self.clients.memory.seen {
            let Some(bounds) = world.view.bounds(*id) else { continue };
            if let Some(thinned) = self.clients.memory.thinned.get(id) {
                thinned.check_repaired(world, *id, context);
                continue;
            }
            let mut next = bounds.log_start;
            while next < bounds.durable_end {
                let records = world.view.read_here(*id, next, 2_000).unwrap_or_else(|refusal| panic!("{context}: {next}: {refusal:?}"));
                if records.batches.is_empty() {
                    break;
                }
                for bytes in &records.batches {
                    let header = BatchHeader::parse(bytes).unwrap_or_else(|error| panic!("{context}: {next}: {error:?}"));
                    let base = Offset::from_i64(header.base_offset).expect("not negative");
                    // Nobody may have read the last ones yet.
                    let same = seen.batches.get(&base.0).is_none_or(|known| *known == (header.crc, header.offset_count()));
                    assert!(same, "{context}: {base} of {} is another one", id.0);
                    assert!(base.plus(header.offset_count()) > next, "{context}: {base} of {} comes again", id.0);
                    next = base.plus(header.offset_count());
                    left.insert((*id, base.0));
                }
            }
        }
        left
    }

    /// Reads everything. Gives the partitions of which something is missing, with an error.
    fn read_around(&mut self, world: &World, machine: &Machine, context: &str) -> BTreeSet<PartitionId> {
        let mut lacking = BTreeSet::new();
        for (_, id) in self.clients.memory.partitions() {
            if let Some(thinned) = self.clients.memory.thinned(id) {
                if !thinned.is_whole(world, id, machine.hands.latest(), context) {
                    lacking.insert(id);
                }
                continue;
            }
            let seen = self.clients.memory.seen.entry(id).or_default();
            let known: Vec<(u64, u64)> = seen.batches.iter().map(|(base, (_, count))| (*base, base + count)).collect();
            let bounds = world.view.bounds(id).unwrap_or_else(|| panic!("{context}: partition {} is gone", id.0));
            let end = known.last().map_or(0, |(_, end)| *end);
            assert!(bounds.durable_end.0 >= end, "{context}: partition {} ends at {}, not at {end}", id.0, bounds.durable_end);
            let mut next = bounds.log_start;
            let mut first = true;
            while next < bounds.durable_end {
                match world.view.read_here(id, next, 2_000) {
                    Ok(records) => {
                        assert!(!records.batches.is_empty(), "{context}: nothing at {next} of {}", id.0);
                        for bytes in &records.batches {
                            next = meet(seen, bytes, next, first, context).2;
                            first = false;
                        }
                    }
                    Err(Refusal::Damaged) => {
                        lacking.insert(id);
                        let batch_end = known.iter().map(|(_, end)| *end).find(|end| *end > next.0);
                        next = Offset(batch_end.unwrap_or(bounds.durable_end.0));
                        first = false;
                    }
                    Err(refusal) => panic!("{context}: {next} of {}: {refusal:?}", id.0),
                }
            }
        }
        lacking
    }
}

/// The second part of a repair, as the tool does it.
fn give_up_segments(machine: &mut Machine) -> Result<(), Box<dyn std::error::Error>> {
    let (mut chance, mut names) = (Dice(machine.dice.roll()), Dice(machine.dice.roll()));
    let options = Options {
        extent_bytes: Some(EXTENT_BYTES),
        clock: Arc::new(|| Millis(0)),
        cluster_id: CLUSTER,
        reserve_extents: 0,
        random: Box::new(move || chance.sixteen()),
    };
    let recovered = recover(machine.disk.clone(), machine.store.clone(), options)?;
    let segments = Segments::over(machine.segments.clone(), 0);
    let damaged = damaged_segments(&recovered.state, &segments)?;
    let now = recovered.opened.append_ms;
    repair::repair(recovered, &segments, &damaged, now, &mut || u128::from_le_bytes(names.sixteen()))?;
    Ok(())
}

/// Lets the archive move what it wants to.
fn work_on(world: &mut World, machine: &mut Machine) {
    world.find_segments();
    for _ in 0..40 {
        machine.pass(1_000);
        world.turn();
        world.commit();
        world.archive();
        world.recycle();
        world.write_checkpoints();
    }
}

fn refused_well(error: &RecoveryError, target: &Target, context: &str) {
    match (error, target) {
        (RecoveryError::Journal(OpenError::Damaged(report)), Target::Extent(_)) => {
            assert!(!report.to_string().is_empty(), "{context}");
        }
        (RecoveryError::Archive(error), Target::Checkpoint(name)) => {
            assert!(error.to_string().contains(name.as_str()), "{context}: the report does not name the object: {error}");
        }
        (error, _) => panic!("{context}: refused for another reason: {error}"),
    }
}

fn pick(machine: &mut Machine) -> (Target, Kind) {
    let segments = machine.segments.list("").expect("whole");
    let checkpoints = machine.store.list("").expect("whole");
    let extents = machine.extents();
    let dice = &mut machine.dice;
    let (target, bytes) = match dice.below(10) {
        0..=3 if !segments.is_empty() => {
            let name = segments[dice.below(segments.len() as u64) as usize].clone();
            let bytes = machine.segments.size(&name).expect("whole").expect("listed");
            (Target::Segment(name), bytes)
        }
        4 | 5 if !checkpoints.is_empty() => {
            let name = checkpoints[dice.below(checkpoints.len() as u64) as usize].clone();
            let bytes = machine.store.size(&name).expect("whole").expect("listed");
            (Target::Checkpoint(name), bytes)
        }
        _ => (Target::Extent(extents[dice.below(extents.len() as u64) as usize]), u64::from(EXTENT_BYTES)),
    };
    let at = machine.dice.below(bytes) as usize;
    let kind = match machine.dice.below(6) {
        0 => Kind::Zeros(at / BLOCK_BYTES as usize * BLOCK_BYTES as usize),
        1 => Kind::Cut(at),
        _ => Kind::Flip(at),
    };
    (target, kind)
}

fn apply(machine: &Machine, target: &Target, kind: Kind) {
    let change = |bytes: &mut [u8]| match kind {
        Kind::Flip(at) => bytes[at] ^= 1 << (at % 8),
        Kind::Zeros(at) => {
            let end = bytes.len().min(at + BLOCK_BYTES as usize);
            bytes[at..end].fill(0);
        }
        Kind::Cut(_) => {}
    };
    let store = |store: &firth_archive::store::MemoryStore, name: &str| {
        store.damage(name, |bytes| match kind {
            Kind::Cut(at) => bytes.truncate(at),
            _ => change(bytes),
        });
    };
    match (target, kind) {
        (Target::Extent(file), Kind::Cut(at)) => machine.disk.truncate(*file, at),
        (Target::Extent(file), _) => machine.disk.damage(*file, change),
        (Target::Segment(name), _) => store(&machine.segments, name),
        (Target::Checkpoint(name), _) => store(&machine.store, name),
    }
}

/// The newest group that holds entries: its extent, and where in it.
fn last_data_group(machine: &Machine) -> Option<(FileName, usize)> {
    let mut newest: Option<(u64, FileName, usize)> = None;
    for file in machine.extents() {
        let mut bytes = vec![0; EXTENT_BYTES as usize];
        machine.disk.read(file, 0, &mut bytes).ok()?;
        let incarnations: Vec<_> =
            bytes.get(BLOCK_BYTES as usize..).and_then(GroupHeader::decode).map(|header| header.incarnation).into_iter().collect();
        for at in (0..bytes.len()).step_by(BLOCK_BYTES as usize) {
            let Some(header) = GroupHeader::decode(&bytes[at..]) else { continue };
            let own = incarnations.contains(&header.incarnation) && header.kind == GroupKind::Data;
            if own && newest.is_none_or(|(number, ..)| header.number > number) {
                newest = Some((header.number, file, at));
            }
        }
    }
    newest.map(|(_, file, at)| (file, at))
}
