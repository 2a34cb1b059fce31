//! What outlives a process: disk, stores, clocks, chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use firth_archive::checkpoints::Checkpoints;
use firth_archive::store::{MemoryStore, Store};
use firth_broker::cursors::limits::QueueLimits;
use firth_broker::groups::machine::Groups;
use firth_broker::index::Place;
use firth_broker::state::State;
use firth_journal::disk::{Disk, FileName};
use firth_journal::simdisk::{Dice, SimDisk};
use firth_model::ids::{Lsn, PartitionId, Position, SegmentId};
use firth_model::time::{Clock, Millis};

use crate::ablation::{Ablations, LateSync};
use crate::history::History;

/// Small, so that short runs fill several.
pub const EXTENT_BYTES: u32 = 128 << 10;
/// The cluster that all simulated nodes belong to.
pub const CLUSTER: [u8; 16] = [9; 16];
const START_MS: i64 = 1_700_000_000_000;

/// The hands of the machine's clocks: the steady one only goes forward, the other one is set now and then.
#[derive(Default)]
pub struct Hands {
    steady: AtomicI64,
    ahead: AtomicI64,
    /// Times that the clock was set.
    sets: AtomicI64,
    /// The latest time by which a node decided something.
    latest: AtomicI64,
}

impl Hands {
    /// As a clock that is right would say.
    pub fn true_time(&self) -> Millis {
        Millis(START_MS + self.steady.load(Ordering::Relaxed))
    }

    /// A node went by this time.
    pub fn went_by(&self, now: Millis) {
        self.latest.fetch_max(now.0, Ordering::Relaxed);
    }

    pub fn latest(&self) -> Millis {
        Millis(self.latest.load(Ordering::Relaxed))
    }

    pub fn steady(self: &Arc<Self>) -> Clock {
        let hands = self.clone();
        Arc::new(move || Millis(hands.steady.load(Ordering::Relaxed)))
    }

    pub fn wall(self: &Arc<Self>) -> Clock {
        let hands = self.clone();
        Arc::new(move || Millis(START_MS + hands.steady.load(Ordering::Relaxed) + hands.ahead.load(Ordering::Relaxed)))
    }
}

pub struct Machine {
    pub disk: Arc<SimDisk>,
    pub store: Arc<MemoryStore>,
    pub segments: Arc<MemoryStore>,
    pub dice: Dice,
    pub hands: Arc<Hands>,
    pub broken: Ablations,
    pub history: History,
    /// Of the nodes that start on it.
    pub queue_limits: QueueLimits,
    /// Up to where acknowledged groups and entries reach, over all lives.
    pub acknowledged_to: (Position, Lsn),
}

impl Machine {
    pub fn of_seed(seed: u64) -> Machine {
        let mut dice = Dice(seed);
        // One machine in six has a disk that fills up.
        let volume_bytes = if dice.below(6) == 0 { u64::from(EXTENT_BYTES) * (12 + dice.below(12)) } else { 1 << 28 };
        Machine {
            disk: Arc::new(SimDisk::of_bytes(volume_bytes)),
            store: Arc::default(),
            segments: Arc::default(),
            dice,
            hands: Arc::default(),
            broken: Ablations::default(),
            history: History::of_seed(seed),
            queue_limits: QueueLimits::default(),
            acknowledged_to: (Position(0), Lsn(0)),
        }
    }

    /// Another machine with the same content and clocks, and chance of its own.
    pub fn copy(&self, seed: u64) -> Machine {
        let hands = Hands::default();
        hands.steady.store(self.steady_ms(), Ordering::Relaxed);
        hands.ahead.store(self.clock_ahead(), Ordering::Relaxed);
        hands.went_by(self.hands.latest());
        Machine {
            disk: Arc::new(self.disk.copy()),
            store: Arc::new(self.store.copy()),
            segments: Arc::new(self.segments.copy()),
            dice: Dice(seed),
            hands: Arc::new(hands),
            broken: self.broken,
            history: History::of_seed(seed),
            queue_limits: self.queue_limits,
            acknowledged_to: self.acknowledged_to,
        }
    }

    /// The disk as the process sees it.
    pub fn seen_disk(&self) -> Arc<dyn Disk> {
        if self.broken.late_sync { Arc::new(LateSync::over(self.disk.clone())) } else { self.disk.clone() }
    }

    pub fn steady_ms(&self) -> i64 {
        self.hands.steady.load(Ordering::Relaxed)
    }

    pub fn clock_ahead(&self) -> i64 {
        self.hands.ahead.load(Ordering::Relaxed)
    }

    pub fn pass(&self, span_ms: i64) {
        self.hands.steady.fetch_add(span_ms, Ordering::Relaxed);
    }

    /// Sets the system's clock to be so much ahead of the true time.
    pub fn set_clock_ahead(&self, ahead_ms: i64) {
        if self.hands.ahead.swap(ahead_ms, Ordering::Relaxed) != ahead_ms {
            self.hands.sets.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the clock was ever set.
    pub fn was_clock_set(&self) -> bool {
        self.hands.sets.load(Ordering::Relaxed) > 0
    }

    /// Ends every fault of the stores.
    pub fn mend_stores(&self) {
        for store in [&self.store, &self.segments] {
            store.unreachable(false);
            store.fail_after(None);
            store.lose_answers(0);
        }
    }

    /// Of every byte on disk and stores.
    pub fn digest(&self) -> u64 {
        let mut digest = self.disk.digest();
        for store in [&self.store, &self.segments] {
            for name in store.list("").expect("mended") {
                let bytes = store.get(&name).expect("mended").expect("just listed");
                for eight in name.as_bytes().chunks(8).chain(bytes.chunks(8)) {
                    let word = eight.iter().fold(eight.len() as u64, |word, byte| word << 8 | u64::from(*byte));
                    digest = (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
            }
        }
        digest
    }

    /// Journal extents that are there.
    pub fn extents(&self) -> Vec<FileName> {
        let files = self.disk.list().unwrap_or_default();
        files.into_iter().map(|(file, _)| file).filter(|file| matches!(file, FileName::Extent(_))).collect()
    }

    /// Segments that the two newest checkpoints refer to and the store lacks (I6).
    pub fn unreachable_segments(&self) -> Vec<(PartitionId, SegmentId)> {
        let dones: Vec<String> = self.store.list("ckpt/").expect("mended").into_iter().filter(|name| name.ends_with("/done")).collect();
        let mut missing = Vec::new();
        for newest in dones.iter().rev().take(2) {
            let copy = self.store.copy();
            for newer in dones.iter().filter(|name| *name > newest) {
                copy.delete(newer).expect("a copy in memory");
            }
            let (_, loaded) = Checkpoints::open(Arc::new(copy)).expect("complete");
            let entries = loaded.map(|loaded| loaded.entries).unwrap_or_default();
            missing.extend(segments_of(&entries).into_iter().filter(|(_, id)| {
                let name = firth_archive::segments::name(*id);
                self.segments.size(&name).expect("mended").is_none()
            }));
        }
        missing
    }
}

fn segments_of(entries: &[(bytes::Bytes, bytes::Bytes)]) -> Vec<(PartitionId, SegmentId)> {
    let mut state = State::empty(Groups::default(), EXTENT_BYTES);
    for (key, value) in entries {
        state.load(key, value).expect("a checkpoint that was complete");
    }
    let mut named = BTreeMap::new();
    for (id, held) in &state.partitions {
        for span in held.view.index().spans() {
            // What was trimmed when the checkpoint was taken is dropped by whoever loads it.
            if let Place::Segment(segment) = span.place
                && span.end > held.log_start
            {
                named.insert((*id, segment), ());
            }
        }
    }
    named.into_keys().collect()
}
