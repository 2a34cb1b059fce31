//! One node without threads: its shard, its journal, its disk, all turned by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use firth_archive::checkpoints::Checkpoints;
use firth_archive::segments::Segments;
use firth_broker::archiver::{Archiver, Job, Outcome};
use firth_broker::archiving::ArchiveSettings;
use firth_broker::clock_watch::ClockWatch;
use firth_broker::groups::GroupSettings;
use firth_broker::index::Place;
use firth_broker::read_behind::Sources;
use firth_broker::recovery::{Recovered, RecoveryError, recover};
use firth_broker::shard::{Archive, Checkpoint, Checkpointer, Log, Parts, Shard};
use firth_broker::view::View;
use firth_gateway::answer::{Event, Tag};
use firth_gateway::inbox::Submitted;
use firth_gateway::outbox::{Budget, Outbox, ReplyTo};
use firth_gateway::request::Request;
use firth_journal::commit::{Completed, Driver};
use firth_journal::disk::{Disk, FileName};
use firth_journal::entry::Entry;
use firth_journal::options::{OpenError, Options};
use firth_journal::reader::Reader;
use firth_journal::report::DamageReport;
use firth_journal::simdisk::Dice;
use firth_journal::spares::Room;
use firth_model::ids::{ExtentNumber, Lsn, Position, SegmentId};
use firth_model::time::Millis;

use crate::ablation::Ablations;
use crate::machine::{CLUSTER, EXTENT_BYTES, Hands, Machine};

const ARCHIVE: ArchiveSettings = ArchiveSettings {
    journal_bytes_max: 256 << 10,
    after_ms: 5_000,
    segment_bytes: 48 << 10,
    own_bytes: 32 << 10,
    map_bytes: 1 << 10,
    thin_every_ms: 5_000,
};

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

    fn room_bytes(&self) -> u64 {
        let waiting: u64 = desk(&self.desk).entries.iter().map(|entry| entry.room_bytes() as u64).sum();
        self.room.room_bytes().saturating_sub(waiting)
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
    watch: Arc<ClockWatch>,
    hands: Arc<Hands>,
    /// The time of the last turn.
    now: Millis,
    budget: Arc<Budget>,
    driver: Driver,
    desk: SharedDesk,
    checkpoints: Checkpoints,
    /// Of a checkpoint that failed: they go into the next one.
    unwritten: BTreeMap<Bytes, Option<Bytes>>,
    archiver: Archiver,
    outcomes: VecDeque<Outcome>,
    completed: Vec<Completed>,
    submitted: Vec<Submitted>,
    broken: Ablations,
    acknowledged_to: (Position, Lsn),
    /// The disk said no: this process is over.
    pub death: Option<io::Error>,
}

impl World {
    /// Starts the node on what the machine holds.
    pub fn start(machine: &mut Machine) -> Result<World, RecoveryError> {
        let watch = ClockWatch::over(machine.hands.wall(), machine.hands.steady());
        let Recovered { state, mut opened, checkpoints, open_extent } = loop {
            let mut chance = Dice(machine.dice.roll());
            let options = Options {
                extent_bytes: Some(EXTENT_BYTES),
                clock: watch.clock(),
                cluster_id: CLUSTER,
                reserve_extents: 2,
                random: Box::new(move || chance.sixteen()),
            };
            match recover(machine.seen_disk(), machine.store.clone(), options) {
                Err(RecoveryError::Journal(OpenError::Damaged(report))) if machine.broken.cut_damaged => cut(machine, &report),
                outcome => break outcome?,
            }
        };
        watch.not_before(opened.append_ms);
        let driver = opened.journal.take_driver().expect("nobody started it");
        // Caches so small that most reads go to the disk and the store.
        let segments = Arc::new(Segments::over(machine.segments.clone(), 32 << 10));
        let sources = Sources { extents: opened.reader.clone(), segments };
        let view = Arc::new(View::over(sources.clone(), 64 << 10));
        let (mut ids, mut names) = (Dice(machine.dice.roll()), Dice(machine.dice.roll()));
        let shared = SharedDesk::default();
        let now = watch.now();
        let parts = Parts {
            entry_bytes_max: opened.journal.entry_bytes_max(),
            view: view.clone(),
            log: Box::new(SimLog { desk: shared.clone(), last: opened.last_lsn, room: driver.spares.clone() }),
            checkpointer: Box::new(SimCheckpointer { desk: shared.clone() }),
            archive: Box::new(SimCheckpointer { desk: shared.clone() }),
            archive_settings: ARCHIVE,
            dice: Box::new(move || u128::from_le_bytes(ids.sixteen())),
            group_settings: GroupSettings::default(),
            queue_limits: machine.queue_limits,
            last: opened.last_lsn,
            open_extent,
            now,
        };
        let mut shard = Shard::new(state, parts);
        shard.clock_watch = Some(watch.clone());
        let (_, lsn) = machine.acknowledged_to;
        // Damage that was made on purpose, or a rule that is off, is for the checks of records to find.
        let whole = opened.last_lsn >= lsn || machine.broken.cut_damaged || machine.broken.no_markers;
        assert!(whole, "entries up to {} were acknowledged, {} came back", lsn.0, opened.last_lsn.0);
        Ok(World {
            shard,
            view,
            outbox: Arc::default(),
            watch,
            hands: machine.hands.clone(),
            now,
            budget: Budget::with_max(usize::MAX / 2),
            driver,
            desk: shared,
            checkpoints,
            unwritten: BTreeMap::new(),
            archiver: Archiver::over(sources, Box::new(move || u128::from_le_bytes(names.sixteen()))),
            outcomes: VecDeque::new(),
            completed: Vec::new(),
            submitted: Vec::new(),
            broken: machine.broken,
            acknowledged_to: (machine.acknowledged_to.0, opened.last_lsn),
            death: None,
        })
    }

    /// The time by which the shard went last.
    pub fn now(&self) -> Millis {
        self.now
    }

    pub fn is_dead(&self) -> bool {
        self.death.is_some()
    }

    pub fn room(&self) -> Room {
        self.driver.spares.room()
    }

    pub fn reader(&self) -> Arc<Reader> {
        self.driver.reader.clone()
    }

    /// The extent that is written now.
    pub fn open_extent(&self) -> ExtentNumber {
        self.driver.header.number
    }

    /// Up to where acknowledged groups and entries reach.
    pub fn acknowledged_to(&self) -> (Position, Lsn) {
        self.acknowledged_to
    }

    pub fn submit(&mut self, tag: Tag, mut request: Request) {
        if self.broken.expire_early {
            expire_early(&mut request);
        }
        let charge = self.budget.charge(request.weight()).expect("without bound");
        self.submitted.push(Submitted { request, reply: ReplyTo::new(self.outbox.clone(), tag, charge) });
    }

    /// One turn of the shard.
    pub fn turn(&mut self) {
        self.now = self.watch.now();
        self.hands.went_by(self.now);
        self.shard.turn(self.now, &mut self.completed, &mut self.submitted);
    }

    fn died(&mut self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            self.death.get_or_insert(error);
        }
    }

    /// The commit thread's work: everything handed over becomes durable, or the disk fails.
    pub fn commit(&mut self) {
        let now = self.watch.now();
        let entries = std::mem::take(&mut desk(&self.desk).entries);
        self.driver.core.enqueue(entries);
        let finish = std::mem::take(&mut desk(&self.desk).finish_extent);
        let mut fresh = Vec::new();
        let turned = self.driver.turn(now, &mut |commit| fresh.push(commit));
        self.died(turned);
        if finish && !self.is_dead() {
            let finished = self.driver.finish_extent(now, &mut |commit| fresh.push(commit));
            self.died(finished);
        }
        for group in fresh.iter().flat_map(|commit| &commit.groups) {
            let (position, lsn) = self.acknowledged_to;
            assert!(group.position > position, "group at {} behind {}", group.position.0, position.0);
            assert_eq!(group.first_lsn, lsn.next(), "entries are numbered one by one");
            self.acknowledged_to = (group.position, group.last_lsn.max(lsn));
        }
        self.completed.append(&mut fresh);
    }

    /// The idle marker.
    pub fn mark(&mut self) {
        if !self.broken.no_markers {
            let marked = self.driver.mark(self.watch.now());
            self.died(marked);
        }
    }

    /// The checkpoint thread's work.
    pub fn write_checkpoints(&mut self) {
        let due = std::mem::take(&mut desk(&self.desk).checkpoints);
        for checkpoint in due {
            self.unwritten.extend(checkpoint.changes);
            let taken = self.checkpoints.take(checkpoint.at, checkpoint.position, &self.unwritten);
            if taken.is_ok() {
                self.unwritten.clear();
            }
            self.shard.checkpoint_ended(taken.ok().map(|()| (checkpoint.at, self.checkpoints.keep_from())));
        }
    }

    /// The archive thread's work: a whole job, of which the shard hears piece by piece.
    pub fn archive(&mut self) {
        let (jobs, deletions) = {
            let mut desk = desk(&self.desk);
            (std::mem::take(&mut desk.jobs), std::mem::take(&mut desk.deletions))
        };
        for mut job in jobs {
            self.broken.spoil(&mut job);
            let moved = extents_of(&job);
            let outcomes = &mut self.outcomes;
            let mut failed = false;
            self.archiver.run(job, &mut |outcome| {
                failed |= outcome.failed || !outcome.damaged.is_empty();
                outcomes.push_back(outcome);
            });
            if self.broken.give_back_early && !failed {
                desk(&self.desk).released.extend(moved);
            }
        }
        for id in deletions {
            // It stays until the next start.
            self.archiver.sources().segments.delete(id).ok();
        }
        if let Some(outcome) = self.outcomes.pop_front() {
            self.shard.archived(outcome);
        }
        if self.broken.delete_early && self.outcomes.is_empty() {
            self.delete_early();
        }
    }

    fn delete_early(&mut self) {
        let segments = self.archiver.sources().segments.clone();
        let state = self.shard.state();
        let expected: Vec<SegmentId> = state.replacing().collect();
        let unneeded = |id: &SegmentId| !state.extents.holds(*id) && !expected.contains(id);
        for id in segments.list().unwrap_or_default().into_iter().filter(unneeded) {
            segments.delete(id).ok();
        }
    }

    /// What the archive thread does first.
    pub fn find_segments(&mut self) {
        let ids = self.archiver.sources().segments.list().expect("mended");
        self.shard.found_segments(ids);
    }

    /// The extents thread's work.
    pub fn recycle(&mut self) {
        let released = std::mem::take(&mut desk(&self.desk).released);
        if self.broken.recycle_under_readers {
            let given = released.iter().rev().try_for_each(|extent| self.driver.spares.give_back(*extent));
            self.died(given);
        } else {
            self.driver.reader.retire(&released);
        }
        let zeroed = self.driver.spares.zero_ahead().map(|_| ());
        self.died(zeroed);
        let replenished = self.driver.spares.replenish(&self.driver.reader, &mut Vec::new()).map(|_| ());
        self.died(replenished);
    }

    /// What came up.
    pub fn events(&mut self) -> Vec<Event> {
        self.outbox.try_take()
    }
}

/// The wrong rule about times to live: all are shorter than their records say.
fn expire_early(request: &mut Request) {
    let Request::Publish(batches) = request else { return };
    for (_, at) in batches.iter_mut().flat_map(|publish| &mut publish.expires) {
        *at = Millis(at.0 - 5_000);
    }
}

/// The extents that a job moves everything out of.
fn extents_of(job: &Job) -> Vec<ExtentNumber> {
    let spans = job.parts.iter().flat_map(|part| &part.spans);
    let extents: BTreeSet<ExtentNumber> =
        spans.filter_map(|span| if let Place::Extent(extent) = span.place { Some(extent) } else { None }).collect();
    extents.into_iter().collect()
}

/// The wrong rule about torn tails: cuts the journal where it cannot be read.
fn cut(machine: &Machine, report: &DamageReport) {
    let at = usize::try_from(report.position.0 % u64::from(EXTENT_BYTES)).unwrap_or(0);
    machine.disk.damage(FileName::Extent(report.extent), |bytes| bytes[at..].fill(0));
    for file in machine.extents() {
        if file > FileName::Extent(report.extent) {
            machine.disk.delete(file).expect("it was listed");
        }
    }
    machine.disk.sync_names().expect("no crash is planned");
    machine.disk.restart_process();
}
