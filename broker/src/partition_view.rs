//! The durable part of one partition, as readers see it.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use firth_gateway::view::Waiter;
use firth_model::ids::{LeaderEpoch, Offset, PartitionId};
use firth_model::removed::RunSet;

use crate::index::Index;

/// The durable part of one partition. Written by the shard, once per group; read by everybody.
pub struct PartitionView {
    pub id: PartitionId,
    log_start: AtomicU64,
    durable_end: AtomicU64,
    epoch: AtomicI32,
    index: Mutex<Index>,
    parked: Mutex<Vec<Weak<Waiter>>>,
    removed: Mutex<Arc<RunSet>>,
    /// So that readers of a partition that lost no record take no lock for it.
    has_removed: AtomicBool,
}

impl PartitionView {
    pub fn empty(id: PartitionId) -> PartitionView {
        PartitionView {
            id,
            log_start: AtomicU64::new(0),
            durable_end: AtomicU64::new(0),
            epoch: AtomicI32::new(0),
            index: Mutex::default(),
            parked: Mutex::default(),
            removed: Mutex::default(),
            has_removed: AtomicBool::new(false),
        }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    pub fn durable_end(&self) -> Offset {
        Offset(self.durable_end.load(Ordering::Acquire))
    }

    /// The epoch of whoever owns the partition: 0 as long as one node has.
    pub fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.epoch.load(Ordering::Relaxed))
    }

    pub fn show_start(&self, log_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
    }

    pub fn show_removed(&self, removed: Arc<RunSet>) {
        self.has_removed.store(!removed.is_empty(), Ordering::Release);
        *self.removed.lock().unwrap_or_else(PoisonError::into_inner) = removed;
    }

    /// What readers step over. `None`: nothing.
    pub fn removed(&self) -> Option<Arc<RunSet>> {
        let some = self.has_removed.load(Ordering::Acquire);
        some.then(|| self.removed.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub fn show_end(&self, end: Offset) {
        self.durable_end.store(end.0, Ordering::Release);
    }

    /// Wakes everybody who waits for this partition to grow.
    pub fn wake(&self) {
        let parked = std::mem::take(&mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner));
        for waiter in parked {
            if let Some(waiter) = waiter.upgrade() {
                waiter.wake();
            }
        }
    }

    pub fn park(&self, seen_end: Offset, waiter: &Arc<Waiter>) -> bool {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: the shard shows the end before it takes the list.
        if self.durable_end() > seen_end {
            return false;
        }
        let address = Arc::downgrade(waiter);
        if !parked.iter().any(|other| other.ptr_eq(&address)) {
            if parked.len() == parked.capacity() {
                parked.retain(|other| other.strong_count() > 0);
            }
            parked.push(address);
        }
        true
    }
}
