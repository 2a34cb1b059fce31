//! One node's broker: opens it, runs the shard's thread, stops it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use firth_archive::background::step_back;
use firth_archive::checkpoints::Checkpoints;
use firth_archive::segments::Segments;
use firth_archive::store::Store;
use firth_gateway::door::{Broker, NodeInfo};
use firth_gateway::inbox::Inbox;
use firth_journal::commit::Completed;
use firth_journal::disk::Disk;
use firth_journal::entry::Entry;
use firth_journal::journal::Journal;
use firth_journal::options::{OpenError, Options};
use firth_journal::spares::Room;
use firth_model::ids::{ExtentNumber, Lsn, Position, SegmentId};
use firth_model::ledger::Shares;
use firth_model::time::Clock;

use crate::archiver::{Archiver, Job, Outcome};
use crate::archiving::ArchiveSettings;
use crate::clock_watch::ClockWatch;
use crate::cursors::limits::QueueLimits;
use crate::groups::GroupSettings;
use crate::lasts::thread::FollowerThread;
use crate::read_behind::Sources;
use crate::recovery::{Recovered, RecoveryError, recover};
use crate::routing::Shared;
use crate::shard::{Archive, Checkpoint, Checkpointer, Log, Parts, Shard};
use crate::view::View;

/// What a node is built from. Numbers are settings; clock, disk and chance are parts.
pub struct NodeParts {
    pub disk: Arc<dyn Disk>,
    /// Of checkpoints.
    pub store: Arc<dyn Store>,
    /// Of segments.
    pub segments: Arc<dyn Store>,
    pub archive: ArchiveSettings,
    pub journal: Options,
    pub clock: Clock,
    /// Whether the clock can be believed.
    pub watch: Arc<ClockWatch>,
    pub dice: Box<dyn FnMut() -> u128 + Send>,
    /// Names segments.
    pub segment_dice: Box<dyn FnMut() -> u128 + Send>,
    pub info: NodeInfo,
    pub groups: GroupSettings,
    pub queues: QueueLimits,
    pub memory: Shares,
}

/// A running broker. Stop it with `stop`: dropping it ends the process's work without a drain.
pub struct Node {
    broker: Broker,
    inbox: Inbox,
    control: Arc<Mutex<Control>>,
    shard: JoinHandle<()>,
    last_values: FollowerThread,
}

/// What reaches the shard beside requests.
#[derive(Default)]
struct Control {
    completed: Vec<Completed>,
    checkpointed: Vec<Option<(Lsn, Position)>>,
    archived: Vec<Outcome>,
    /// Segments that were there at the start.
    found: Vec<SegmentId>,
    /// Changes of last values for the next checkpoint.
    lasts: Vec<(Bytes, Option<Bytes>)>,
    stopping: bool,
}

impl Node {
    /// Recovers the state and starts the threads. What was acknowledged before is there; nothing else is.
    pub fn open(parts: NodeParts) -> Result<Node, RecoveryError> {
        let Recovered { state, mut opened, checkpoints, open_extent } = recover(parts.disk, parts.store, parts.journal)?;
        if let Some(torn) = &opened.torn {
            tracing::warn!(report = %torn, "the journal's last group was incomplete: it was never acknowledged and is kept aside");
        }
        let segments = Arc::new(Segments::over(parts.segments, parts.memory.block_cache));
        let sources = Sources { extents: opened.reader.clone(), segments };
        parts.watch.not_before(opened.append_ms);
        opened.reader.directories_at_most(parts.memory.directory_cache);
        let view = Arc::new(View::over(sources.clone(), parts.memory.tail_cache));
        let inbox = Inbox::default();
        let control = Arc::new(Mutex::new(Control::default()));
        let (bell, board) = (inbox.clone(), control.clone());
        let completed = move |completed| {
            lock(&board).completed.push(completed);
            bell.ring();
        };
        opened.journal.start(completed, end_process).map_err(OpenError::Io)?;
        let checkpointer = CheckpointThread::start(checkpoints, inbox.clone(), control.clone());
        let archive =
            ArchiveThread::start(Archiver::over(sources, parts.segment_dice), inbox.clone(), control.clone(), parts.clock.clone());
        let shard_parts = Parts {
            archive: Box::new(archive),
            archive_settings: parts.archive,
            entry_bytes_max: opened.journal.entry_bytes_max(),
            view: view.clone(),
            log: Box::new(opened.journal),
            checkpointer: Box::new(checkpointer),
            dice: parts.dice,
            group_settings: parts.groups,
            queue_limits: parts.queues,
            last: opened.last_lsn,
            open_extent,
            now: (parts.clock)(),
        };
        let mut shard = Shard::new(state, shard_parts);
        shard.clock_watch = Some(parts.watch);
        let broker = Broker::new(inbox.clone(), view.clone(), Arc::new(Shared(view.routing.clone())), parts.clock.clone(), parts.info)
            .bounded(&parts.memory);
        let (door, board, clock) = (inbox.clone(), control.clone(), parts.clock);
        let (bell, kept) = (inbox.clone(), control.clone());
        let keep = move |changes| {
            lock(&kept).lasts.extend::<Vec<_>>(changes);
            bell.ring();
        };
        let last_values = FollowerThread::start(&view, clock.clone(), Box::new(keep)).map_err(OpenError::Io)?;
        let spawned = std::thread::Builder::new().name("shard".to_owned()).spawn(move || run(shard, &door, &board, &clock));
        let shard = spawned.map_err(OpenError::Io)?;
        Ok(Node { broker, inbox, control, shard, last_values })
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Takes no more requests, makes durable what was taken, answers it, and writes the journal's last group.
    pub fn stop(self) {
        drop(self.last_values);
        lock(&self.control).stopping = true;
        self.inbox.ring();
        if self.shard.join().is_err() {
            tracing::error!("the shard ended by a broken invariant");
        }
    }
}

/// What was queued is neither durable nor known not to be, and nothing of it was answered: the next start reads what is on disk.
fn end_process(error: std::io::Error) {
    tracing::error!(%error, "the journal cannot be written: ending at once, nothing unacknowledged is answered");
    eprintln!("firth: the journal cannot be written: {error}");
    std::process::abort();
}

fn lock(control: &Mutex<Control>) -> std::sync::MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shard's thread.
fn run(mut shard: Shard, inbox: &Inbox, control: &Mutex<Control>, clock: &Clock) {
    let mut submitted = Vec::new();
    let mut completed = Vec::new();
    let (mut archived, mut found) = (Vec::new(), Vec::new());
    loop {
        let now = clock();
        let patience = u64::try_from(shard.next_deadline().since(now)).unwrap_or(0);
        inbox.take(&mut submitted, Some(Duration::from_millis(patience.max(1))));
        let (checkpointed, lasts, stopping) = {
            let mut control = lock(control);
            std::mem::swap(&mut control.completed, &mut completed);
            archived.append(&mut control.archived);
            found.append(&mut control.found);
            (std::mem::take(&mut control.checkpointed), std::mem::take(&mut control.lasts), control.stopping)
        };
        if !found.is_empty() {
            shard.found_segments(std::mem::take(&mut found));
        }
        for outcome in archived.drain(..) {
            shard.archived(outcome);
        }
        if !lasts.is_empty() {
            shard.remember_lasts(lasts);
        }
        for done in checkpointed {
            shard.checkpoint_ended(done);
        }
        if stopping {
            submitted.extend(inbox.close());
        }
        shard.turn(clock(), &mut completed, &mut submitted);
        if stopping && shard.is_settled() {
            return shard.end();
        }
    }
}

impl Log for Journal {
    fn append(&mut self, entries: &mut Vec<Entry>) -> Lsn {
        Journal::append(self, entries)
    }

    fn room(&self) -> Room {
        Journal::room(self)
    }

    fn finish_extent(&mut self) {
        Journal::finish_extent(self);
    }

    fn room_bytes(&self) -> u64 {
        Journal::room_bytes(self)
    }

    fn release(&mut self, extents: &[ExtentNumber]) {
        Journal::release(self, extents);
    }

    fn drain(self: Box<Self>) {
        Journal::drain(*self);
    }
}

/// Writes checkpoints beside the shard, one at a time.
struct CheckpointThread {
    jobs: mpsc::Sender<Checkpoint>,
}

impl CheckpointThread {
    fn start(mut checkpoints: Checkpoints, inbox: Inbox, control: Arc<Mutex<Control>>) -> CheckpointThread {
        let (jobs, work) = mpsc::channel::<Checkpoint>();
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            // Changes of a checkpoint that failed go into the next one.
            let mut changes = BTreeMap::new();
            for job in work {
                let at = job.at;
                changes.extend(job.changes);
                let done = match checkpoints.take(at, job.position, &changes) {
                    Ok(()) => {
                        changes.clear();
                        Some((at, checkpoints.keep_from()))
                    }
                    Err(error) => {
                        // The journal keeps everything, so nothing is lost: start-up replays more.
                        tracing::error!(%error, "checkpoint failed");
                        None
                    }
                };
                lock(&control).checkpointed.push(done);
                inbox.ring();
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for checkpoints");
        }
        CheckpointThread { jobs }
    }
}

impl Checkpointer for CheckpointThread {
    fn write(&mut self, checkpoint: Checkpoint) {
        if self.jobs.send(checkpoint).is_err() {
            tracing::error!("the checkpoint thread is gone");
        }
    }
}

/// A rest is no longer, however long a segment took.
const PAUSE_MS_MAX: i64 = 5_000;

/// Makes and deletes segments beside the shard, one after the other.
struct ArchiveThread {
    work: mpsc::Sender<Work>,
}

/// Publishers and readers go first: nobody waits for a segment.
const ARCHIVE_NICE: i32 = 10;

enum Work {
    Job(Job),
    Delete(Vec<SegmentId>),
}

impl ArchiveThread {
    fn start(mut archiver: Archiver, inbox: Inbox, control: Arc<Mutex<Control>>, clock: Clock) -> ArchiveThread {
        let (work, jobs) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
            step_back(ARCHIVE_NICE);
            let segments = archiver.sources().segments.clone();
            match segments.list() {
                Ok(ids) => lock(&control).found = ids,
                Err(error) => tracing::warn!(%error, "segments cannot be listed; what nothing refers to stays until the next start"),
            }
            inbox.ring();
            for work in jobs {
                match work {
                    Work::Job(job) => {
                        let (rests, mut began) = (i64::from(job.rests), clock());
                        archiver.run(job, &mut |outcome| {
                            let worked = clock().since(began);
                            lock(&control).archived.push(outcome);
                            inbox.ring();
                            // No longer than a stop may take, though the thread is not waited for.
                            let pause = (worked * rests).min(PAUSE_MS_MAX);
                            std::thread::sleep(Duration::from_millis(u64::try_from(pause).unwrap_or(0)));
                            began = clock();
                        });
                    }
                    Work::Delete(ids) => ids.into_iter().for_each(|id| {
                        if let Err(error) = segments.delete(id) {
                            tracing::warn!(%error, "a segment cannot be deleted; it stays until the next start");
                        }
                    }),
                }
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for segments");
        }
        ArchiveThread { work }
    }

    fn send(&self, work: Work) {
        if self.work.send(work).is_err() {
            tracing::error!("the archive thread is gone");
        }
    }
}

impl Archive for ArchiveThread {
    fn start(&mut self, job: Job) {
        self.send(Work::Job(job));
    }

    fn delete(&mut self, segments: Vec<SegmentId>) {
        self.send(Work::Delete(segments));
    }
}
