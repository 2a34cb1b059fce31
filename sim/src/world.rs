//! One node without threads: its shard, its journal, its disk, all turned by hand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firth_archive::checkpoints::Checkpoints;
use firth_archive::segments::Segments;
use firth_archive::store::MemoryStore;
use firth_broker::archiver::{Archiver, Job, Outcome};
use firth_broker::archiving::ArchiveSettings;
use firth_broker::groups::GroupSettings;
use firth_broker::read_behind::Sources;
use firth_broker::recovery::{Recovered, RecoveryError, recover};
use firth_broker::shard::{Archive, Checkpoint, Checkpointer, Log, Parts, Shard};
use firth_broker::view::View;
use firth_gateway::answer::{Event, Tag};
use firth_gateway::inbox::Submitted;
use firth_gateway::outbox::{Budget, Outbox, ReplyTo};
use firth_gateway::request::Request;
use firth_journal::commit::{Completed, Driver};
use firth_journal::entry::Entry;
use firth_journal::options::Options;
use firth_journal::simdisk::{Dice, SimDisk};
use firth_journal::spares::Room;
use firth_model::ids::{ExtentNumber, Lsn, SegmentId};
use firth_model::time::Millis;

/// Small, so that short runs fill several.
pub const EXTENT_BYTES: u32 = 128 << 10;
const ARCHIVE: ArchiveSettings =
    ArchiveSettings { journal_bytes_max: 256 << 10, after_ms: 5_000, segment_bytes: 48 << 10, own_bytes: 32 << 10, map_bytes: 4 << 10 };

/// What outlives a crash: the disk and the store, and the simulation's own clock and chance.
pub struct Machine {
    pub disk: Arc<SimDisk>,
    pub store: Arc<MemoryStore>,
    pub segments: Arc<MemoryStore>,
    pub dice: Dice,
    pub now: Millis,
}

impl Machine {
    pub fn of_seed(seed: u64) -> Machine {
        Machine {
            disk: Arc::new(SimDisk::of_bytes(1 << 28)),
            store: Arc::default(),
            segments: Arc::default(),
            dice: Dice(seed),
            now: Millis(1_700_000_000_000),
        }
    }
}

/// What the shard handed over and the world has not done yet.
#[derive(Default)]
struct Desk {
    entries: Vec<Entry>,
    checkpoints: Vec<Checkpoint>,
    released: Vec<ExtentNumber>,
    finish_extent: bool,
    jobs: Vec<Job>,
    deletions: Vec<SegmentId>,
}

type SharedDesk = Arc<Mutex<Desk>>;

fn desk(shared: &SharedDesk) -> MutexGuard<'_, Desk> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct SimLog {
    desk: SharedDesk,
    last: Lsn,
    room: Arc<firth_journal::spares::Spares>,
}

impl Log for SimLog {
    fn append(&mut self, entries: &mut Vec<Entry>) -> Lsn {
        self.last = Lsn(self.last.0 + entries.len() as u64);
        desk(&self.desk).entries.append(entries);
        self.last
    }

    fn room(&self) -> Room {
        self.room.room()
    }

    fn finish_extent(&mut self) {
        desk(&self.desk).finish_extent = true;
    }

    fn release(&mut self, extents: &[ExtentNumber]) {
        desk(&self.desk).released.extend_from_slice(extents);
    }

    fn drain(self: Box<Self>) {}
}

impl Archive for SimCheckpointer {
    fn start(&mut self, job: Job) {
        desk(&self.desk).jobs.push(job);
    }

    fn delete(&mut self, segments: Vec<SegmentId>) {
        desk(&self.desk).deletions.extend(segments);
    }
}

struct SimCheckpointer {
    desk: SharedDesk,
}

impl Checkpointer for SimCheckpointer {
    fn write(&mut self, checkpoint: Checkpoint) {
        desk(&self.desk).checkpoints.push(checkpoint);
    }
}

pub struct World {
    pub shard: Shard,
    pub view: Arc<View>,
    pub outbox: Arc<Outbox>,
    budget: Arc<Budget>,
    driver: Driver,
    desk: SharedDesk,
    checkpoints: Checkpoints,
    archiver: Archiver,
    outcomes: VecDeque<Outcome>,
    completed: Vec<Completed>,
    submitted: Vec<Submitted>,
    /// The disk said no: this process is over.
    pub dead: bool,
}

impl World {
    /// Starts the node on what the machine holds.
    pub fn start(machine: &mut Machine) -> Result<World, RecoveryError> {
        let mut chance = Dice(machine.dice.roll());
        let mut ids = Dice(machine.dice.roll());
        let now = machine.now;
        let options = Options {
            extent_bytes: Some(EXTENT_BYTES),
            clock: Arc::new(move || now),
            cluster_id: [9; 16],
            reserve_extents: 2,
            random: Box::new(move || chance.sixteen()),
        };
        let Recovered { state, mut opened, checkpoints, open_extent } = recover(machine.disk.clone(), machine.store.clone(), options)?;
        let driver = opened.journal.take_driver().expect("nobody started it");
        // Caches so small that most reads go to the disk and the store.
        let segments = Arc::new(Segments::over(machine.segments.clone(), 32 << 10));
        let sources = Sources { extents: opened.reader.clone(), segments };
        let view = Arc::new(View::over(sources.clone(), 64 << 10));
        let mut names = Dice(machine.dice.roll());
        let shared = SharedDesk::default();
        let parts = Parts {
            entry_bytes_max: opened.journal.entry_bytes_max(),
            view: view.clone(),
            log: Box::new(SimLog { desk: shared.clone(), last: opened.last_lsn, room: driver.spares.clone() }),
            checkpointer: Box::new(SimCheckpointer { desk: shared.clone() }),
            archive: Box::new(SimCheckpointer { desk: shared.clone() }),
            archive_settings: ARCHIVE,
            dice: Box::new(move || u128::from_le_bytes(ids.sixteen())),
            group_settings: GroupSettings::default(),
            last: opened.last_lsn,
            open_extent,
            now,
        };
        Ok(World {
            shard: Shard::new(state, parts),
            view,
            outbox: Arc::default(),
            budget: Budget::with_max(usize::MAX / 2),
            driver,
            desk: shared,
            checkpoints,
            archiver: Archiver::over(sources, Box::new(move || u128::from_le_bytes(names.sixteen()))),
            outcomes: VecDeque::new(),
            completed: Vec::new(),
            submitted: Vec::new(),
            dead: false,
        })
    }

    pub fn submit(&mut self, tag: Tag, request: Request) {
        let charge = self.budget.charge(request.weight()).expect("without bound");
        self.submitted.push(Submitted { request, reply: ReplyTo::new(self.outbox.clone(), tag, charge) });
    }

    /// One turn of the shard.
    pub fn turn(&mut self, now: Millis) {
        self.shard.turn(now, &mut self.completed, &mut self.submitted);
    }

    /// The commit thread's work: everything handed over becomes durable, or the disk fails.
    pub fn commit(&mut self, now: Millis) {
        let entries = std::mem::take(&mut desk(&self.desk).entries);
        self.driver.core.enqueue(entries);
        let finish = std::mem::take(&mut desk(&self.desk).finish_extent);
        let completed = &mut self.completed;
        self.dead |= self.driver.turn(now, &mut |commit| completed.push(commit)).is_err();
        if finish && !self.dead {
            self.dead |= self.driver.finish_extent(now, &mut |commit| completed.push(commit)).is_err();
        }
    }

    /// The idle marker.
    pub fn mark(&mut self, now: Millis) {
        self.dead |= self.driver.mark(now).is_err();
    }

    /// The checkpoint thread's work.
    pub fn write_checkpoints(&mut self) {
        let due = std::mem::take(&mut desk(&self.desk).checkpoints);
        for checkpoint in due {
            let changes: BTreeMap<_, _> = checkpoint.changes.into_iter().collect();
            let taken = self.checkpoints.take(checkpoint.at, checkpoint.position, &changes);
            self.shard.checkpoint_ended(taken.ok().map(|()| (checkpoint.at, self.checkpoints.keep_from())));
        }
    }

    /// The archive thread's work: a whole job, of which the shard hears piece by piece.
    pub fn archive(&mut self) {
        let (jobs, deletions) = {
            let mut desk = desk(&self.desk);
            (std::mem::take(&mut desk.jobs), std::mem::take(&mut desk.deletions))
        };
        for job in jobs {
            let outcomes = &mut self.outcomes;
            self.archiver.run(job, &mut |outcome| outcomes.push_back(outcome));
        }
        for id in deletions {
            self.archiver.sources().segments.delete(id).expect("memory");
        }
        if let Some(outcome) = self.outcomes.pop_front() {
            self.shard.archived(outcome);
        }
    }

    /// What the archive thread does first.
    pub fn find_segments(&mut self) {
        let ids = self.archiver.sources().segments.list().expect("memory");
        self.shard.found_segments(ids);
    }

    /// The extents thread's work.
    pub fn recycle(&mut self) {
        let released = std::mem::take(&mut desk(&self.desk).released);
        self.driver.reader.retire(&released);
        self.dead |= self.driver.spares.zero_ahead().is_err();
        let replenished = self.driver.spares.replenish(&self.driver.reader, &mut Vec::new());
        self.dead |= replenished.is_err();
    }

    /// What came up.
    pub fn events(&mut self) -> Vec<Event> {
        self.outbox.try_take()
    }
}
