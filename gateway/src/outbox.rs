//! The queue of events that come up to one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::answer::{Answer, Event, Tag};
use crate::refusal::Refusal;

/// Filled by the shard, emptied by the connection. Holds at most one reply for each request in flight, so the bound on those
/// bounds it too.
#[derive(Debug, Default)]
pub struct Outbox {
    events: Mutex<Vec<Event>>,
    bell: Notify,
}

impl Outbox {
    /// Adds without waking: the shard wakes each connection once per group.
    pub fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// Everything that is there, in order, without waiting.
    pub fn try_take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that is there, in order; waits until something is. Safe to drop while waiting.
    pub async fn take(&self) -> Vec<Event> {
        loop {
            let ready = self.try_take();
            if !ready.is_empty() {
                return ready;
            }
            self.bell.notified().await;
        }
    }
}

/// Bytes of requests in flight over all connections.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
    freed: Notify,
}

impl Budget {
    pub fn with_max(max: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), max, freed: Notify::new() })
    }

    /// Takes `bytes`, or nothing. One request that alone exceeds the bound passes when nothing else is in flight.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before != 0 && before + bytes > self.max {
            self.free(bytes);
            return None;
        }
        Some(Charge { budget: self.clone(), bytes })
    }

    fn free(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        // Only who crosses the bound downwards has anybody to wake.
        if before > self.max / 2 {
            self.freed.notify_waiters();
        }
    }

    /// Resolves when a charge may succeed again.
    pub async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.used.load(Ordering::Relaxed) <= self.max / 2 {
                return;
            }
            freed.await;
        }
    }
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.free(self.bytes);
    }
}

/// The way back to whoever asked.
#[derive(Debug)]
pub struct ReplyTo {
    pub outbox: Arc<Outbox>,
    pub tag: Tag,
    charge: Charge,
}

impl ReplyTo {
    pub fn new(outbox: Arc<Outbox>, tag: Tag, charge: Charge) -> ReplyTo {
        ReplyTo { outbox, tag, charge }
    }

    /// Puts the answer into the outbox, which is returned to be woken when the group's other answers are in.
    pub fn answer(self, result: Result<Answer, Refusal>) -> Arc<Outbox> {
        self.outbox.push(Event::Reply { tag: self.tag, result });
        drop(self.charge);
        self.outbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_back_what_is_dropped() {
        let budget = Budget::with_max(100);
        let first = budget.charge(60).expect("there is room");
        assert!(budget.charge(60).is_none());
        assert!(budget.charge(40).is_some(), "given back at once");
        drop(first);
        let huge = budget.charge(1000).expect("alone, even the largest passes");
        assert!(budget.charge(1).is_none());
        drop(huge);
        assert!(budget.charge(100).is_some());
    }

    #[test]
    fn who_waits_for_room_wakes_when_half_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let budget = Budget::with_max(100);
            let held = budget.charge(80).expect("there is room");
            let waiting = budget.clone();
            let waiter = tokio::spawn(async move { waiting.room().await });
            tokio::task::yield_now().await;
            assert!(!waiter.is_finished());
            drop(held);
            waiter.await.expect("woken");
        });
    }
}
