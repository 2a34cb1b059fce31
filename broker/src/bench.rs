//! A shard without threads and disk, for benchmarks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use firth_archive::segments::Segments;
use firth_archive::store::{MemoryStore, Store};
use firth_gateway::answer::Tag;
#[cfg(test)]
use firth_gateway::answer::{Answer, Event};
use firth_gateway::inbox::Submitted;
use firth_gateway::outbox::{Budget, Outbox, ReplyTo};
#[cfg(test)]
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Declare, Publish, Request, Wait};
use firth_gateway::streams::Policy;
use firth_journal::commit::Completed;
use firth_journal::entry::Entry;
use firth_journal::group::{Built, Located};
use firth_journal::options::Options;
use firth_journal::simdisk::{Dice, SimDisk};
use firth_journal::spares::Room;
use firth_model::batch::Batch;
use firth_model::ids::{ExtentNumber, Lsn, PartitionId, Position, SegmentId};
use firth_model::names::StreamName;
use firth_model::time::Millis;

use crate::archiver::Job;
use crate::archiving::ArchiveSettings;
use crate::cursors::limits::QueueLimits;
use crate::groups::GroupSettings;
use crate::read_behind::Sources;
use crate::recovery::recover;
use crate::shard::{Archive, Checkpoint, Checkpointer, Log, Parts, Shard};
use crate::view::View;

/// Entries handed over and not completed yet.
type Queue = Arc<Mutex<Vec<Entry>>>;

struct MemoryLog {
    queue: Queue,
    last: Lsn,
    room_bytes: Arc<AtomicU64>,
}

impl Log for MemoryLog {
    fn append(&mut self, entries: &mut Vec<Entry>) -> Lsn {
        self.last = Lsn(self.last.0 + entries.len() as u64);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).append(entries);
        self.last
    }

    fn room(&self) -> Room {
        Room::Plenty
    }

    fn room_bytes(&self) -> u64 {
        self.room_bytes.load(Ordering::Relaxed)
    }

    fn finish_extent(&mut self) {}

    fn release(&mut self, _: &[ExtentNumber]) {}

    fn drain(self: Box<Self>) {}
}

struct NoCheckpoints;

impl Checkpointer for NoCheckpoints {
    fn write(&mut self, _: Checkpoint) {}
}

impl Archive for NoCheckpoints {
    fn start(&mut self, _: Job) {}

    fn delete(&mut self, _: Vec<SegmentId>) {}
}

/// Publishes to its partitions in turn.
pub struct Rig {
    shard: Shard,
    queue: Queue,
    /// What publishers may add in one turn.
    room_bytes: Arc<AtomicU64>,
    outbox: Arc<Outbox>,
    budget: Arc<Budget>,
    partitions: u32,
    next: u32,
    position: u64,
    lsn: u64,
    now: Millis,
}

impl Rig {
    /// A shard with one stream of so many partitions.
    pub fn with_partitions(partitions: u32) -> Rig {
        Rig::over(Arc::new(MemoryStore::default()), partitions)
    }

    /// With segments in this store.
    pub(crate) fn over(store: Arc<dyn Store>, partitions: u32) -> Rig {
        let mut dice = Dice(1);
        let options = Options {
            extent_bytes: Some(1 << 20),
            clock: Arc::new(|| Millis(0)),
            cluster_id: [0; 16],
            reserve_extents: 0,
            random: Box::new(move || dice.sixteen()),
        };
        let disk = Arc::new(SimDisk::of_bytes(1 << 30));
        let recovered = recover(disk, Arc::new(MemoryStore::default()), options).expect("an empty disk opens");
        let (queue, room_bytes) = (Queue::default(), Arc::new(AtomicU64::new(u64::MAX)));
        let segments = Arc::new(Segments::over(store, 1 << 20));
        let sources = Sources { extents: recovered.opened.reader.clone(), segments };
        let parts = Parts {
            view: Arc::new(View::over(sources, 1 << 20)),
            archive: Box::new(NoCheckpoints),
            archive_settings: ArchiveSettings::default(),
            log: Box::new(MemoryLog { queue: queue.clone(), last: recovered.opened.last_lsn, room_bytes: room_bytes.clone() }),
            checkpointer: Box::new(NoCheckpoints),
            dice: Box::new({
                let mut dice = Dice(7);
                move || u128::from_le_bytes(dice.sixteen())
            }),
            group_settings: GroupSettings::default(),
            queue_limits: QueueLimits::default(),
            last: recovered.opened.last_lsn,
            open_extent: recovered.open_extent,
            entry_bytes_max: 1 << 20,
            now: Millis(0),
        };
        let shard = Shard::new(recovered.state, parts);
        let (outbox, budget) = (Arc::default(), Budget::with_max(usize::MAX / 2));
        let mut rig = Rig { shard, queue, room_bytes, outbox, budget, partitions, next: 0, position: 1 << 20, lsn: 0, now: Millis(0) };
        let name = StreamName::parse("bench").expect("a name");
        let declare = Declare { name, partitions, policy: Policy::default(), settings: BTreeMap::new() };
        rig.turn(Request::Declare(Box::new(declare)));
        rig.outbox.try_take();
        rig
    }

    /// The batches as one request, to its answer.
    pub fn publish(&mut self, batches: Vec<Batch>) {
        let mut publish = Vec::with_capacity(batches.len());
        for batch in batches {
            publish.push(Publish {
                partition: PartitionId(self.next),
                batch,
                wait: Wait::Durable,
                expires: Vec::new(),
                captured: Vec::new(),
            });
            self.next = (self.next + 1) % self.partitions;
        }
        self.turn(Request::Publish(publish));
        assert_eq!(self.outbox.try_take().len(), 1);
    }

    /// What one request is answered.
    #[cfg(test)]
    pub(crate) fn ask(&mut self, request: Request) -> Result<Answer, Refusal> {
        self.turn(request);
        match self.outbox.try_take().pop() {
            Some(Event::Reply { result, .. }) => result,
            other => panic!("no reply but {other:?}"),
        }
    }

    pub fn limit_room(&self, bytes: u64) {
        self.room_bytes.store(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.shard.view
    }

    #[cfg(test)]
    pub(crate) fn shard(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// Time passes, and the shard has two turns.
    #[cfg(test)]
    pub(crate) fn pass(&mut self, ms: i64) -> Vec<Event> {
        self.now = self.now.plus(ms);
        self.run(Vec::new());
        self.outbox.try_take()
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &crate::state::State {
        &self.shard.state
    }

    fn turn(&mut self, request: Request) {
        let charge = self.budget.charge(request.weight()).expect("without bound");
        self.run(vec![Submitted { request, reply: ReplyTo::new(self.outbox.clone(), Tag(0), charge) }]);
    }

    fn run(&mut self, mut submitted: Vec<Submitted>) {
        self.shard.turn(self.now, &mut Vec::new(), &mut submitted);
        let entries = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        let mut completed = if entries.is_empty() { Vec::new() } else { vec![self.complete(&entries)] };
        self.shard.turn(self.now, &mut completed, &mut submitted);
    }

    /// What the commit thread would say of these entries.
    fn complete(&mut self, entries: &[Entry]) -> Completed {
        let mut batches = Vec::with_capacity(entries.len());
        let mut written = Vec::new();
        let start = self.position;
        for entry in entries {
            if cfg!(test) {
                entry.write(&mut written);
            }
            let bytes = u32::try_from(entry.bytes()).unwrap_or(u32::MAX);
            for row in entry.rows() {
                batches.push(Located { row, position: Position(self.position), bytes });
            }
            self.position += u64::from(bytes);
        }
        self.lsn += entries.len() as u64;
        let (first_lsn, last_lsn) = (Lsn(self.lsn - entries.len() as u64 + 1), Lsn(self.lsn));
        // Benchmarks read nothing.
        let position = Position(if cfg!(test) { start } else { self.position });
        let group = Built { position, bytes: Bytes::from(written), batches, first_lsn, last_lsn };
        Completed { durable: last_lsn, groups: vec![group], sealed: None, append_ms: Millis(0) }
    }
}

/// A guaranteed message without headers.
#[cfg(test)]
pub(crate) fn message(subject: &str, value: Option<&'static str>) -> firth_gateway::message::Message {
    firth_gateway::message::Message {
        subject: firth_model::subject::Subject::parse(subject).expect("a subject"),
        key: None,
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        headers: Vec::new(),
        published: Millis(1),
        expires: None,
        guaranteed: true,
        retain: false,
        publisher: 1,
    }
}
