//! The queue of events that come up to one connection.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::answer::{Answer, Event, Tag};
use crate::message::{LiveDelivery, Overflow};
use crate::refusal::Refusal;
use firth_model::limits::LIVE_BYTES_MAX;

/// Filled by the shard and by publishers, emptied by the connection. Holds at most one reply for each request in flight, so the bound
/// on those bounds it too; live deliveries have a bound of their own.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Event>,
    live: VecDeque<LiveDelivery>,
    live_bytes: usize,
    /// It was too slow, and is not sent anything any more.
    overrun: bool,
    /// Of the connection, while it waits.
    waker: Option<Waker>,
}

impl Waiting {
    fn take(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        if !self.live.is_empty() {
            self.live_bytes = 0;
            events.push(Event::Live(std::mem::take(&mut self.live)));
        }
        events
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds without waking: the shard wakes each connection once per group.
    pub fn push(&self, event: Event) {
        self.lock().events.push(event);
    }

    pub fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds live deliveries without waking. Says whether nothing was there before, and how many found no room.
    pub(crate) fn push_live(&self, deliveries: impl Iterator<Item = LiveDelivery>, overflow: Overflow) -> (bool, u64) {
        let mut waiting = self.lock();
        let was_empty = waiting.live.is_empty() && waiting.events.is_empty();
        let mut dropped = 0;
        for delivery in deliveries {
            let bytes = delivery.message.weight();
            if waiting.overrun {
                dropped += 1;
                continue;
            }
            // One message is always taken, however large.
            if waiting.live_bytes + bytes > LIVE_BYTES_MAX && !waiting.live.is_empty() {
                match overflow {
                    Overflow::DropNewest => {
                        dropped += 1;
                        continue;
                    }
                    Overflow::Disconnect => {
                        dropped += 1;
                        waiting.overrun = true;
                        waiting.events.push(Event::Overrun);
                        continue;
                    }
                    Overflow::DropOldest => {
                        while waiting.live_bytes + bytes > LIVE_BYTES_MAX
                            && let Some(oldest) = waiting.live.pop_front()
                        {
                            waiting.live_bytes -= oldest.message.weight();
                            dropped += 1;
                        }
                    }
                }
            }
            waiting.live_bytes += bytes;
            waiting.live.push_back(delivery);
        }
        (was_empty, dropped)
    }

    /// Everything that is there, without waiting: replies in order, then one event with all live deliveries in order.
    pub fn try_take(&self) -> Vec<Event> {
        self.lock().take()
    }

    /// Everything that is there, in order; waits until something is. Safe to drop while waiting. Only one may wait: the connection.
    pub async fn take(&self) -> Vec<Event> {
        poll_fn(|context| {
            let mut waiting = self.lock();
            let ready = waiting.take();
            if !ready.is_empty() {
                return Poll::Ready(ready);
            }
            if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                waiting.waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// Part of what is free that one grant takes at most: fifty readers that stand still leave room for one that does not.
const GRANT_DIVISOR: usize = 16;
/// What a grant gives in any case: below it an answer is more trouble than it carries.
const GRANT_BYTES_MIN: usize = 64 << 10;

/// Bytes of one kind over all connections, such as those of requests in flight.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
    /// Of `waiting`; who frees looks here first.
    waiters: AtomicUsize,
    waiting: Mutex<Waiters>,
}

/// Who waits for room, by the most that may be in use for it, and a name.
#[derive(Debug, Default)]
struct Waiters {
    wakers: BTreeMap<(usize, u64), Waker>,
    next_name: u64,
}

impl Budget {
    pub fn with_max(max: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), max, waiters: AtomicUsize::new(0), waiting: Mutex::default() })
    }

    /// Takes `bytes`, or nothing. One request that alone exceeds the bound passes when nothing else is in flight.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let with = |used: usize| used.checked_add(bytes).filter(|sum| used == 0 || *sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).ok()?;
        Some(Charge { budget: self.clone(), bytes })
    }

    /// A charge for what is not known yet: at most `wanted`, at most a part of what is free. `None`: overdrawn as far as may be.
    ///
    /// Settle it when it is known; a single batch may be larger than what was granted, so the bound may be overdrawn by as much again.
    pub fn grant(self: &Arc<Self>, wanted: usize) -> Option<Charge> {
        let used = self.used.load(Ordering::Relaxed);
        if used >= 2 * self.max {
            return None;
        }
        let fair = self.max.saturating_sub(used) / GRANT_DIVISOR;
        let bytes = wanted.min(fair.max(GRANT_BYTES_MIN));
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Some(Charge { budget: self.clone(), bytes })
    }

    fn free(&self, bytes: usize) {
        // In one order with what a waiter does: it enters itself and then looks at what is used.
        let used = self.used.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        if self.waiters.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut waiting = self.waiting();
        let woken = waiting.wakers.split_off(&(used, 0));
        self.waiters.store(waiting.wakers.len(), Ordering::SeqCst);
        drop(waiting);
        woken.into_values().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiters> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when a charge of so many bytes may succeed: not before half of the bound is free, so that many who wait for little are
    /// woken once for much room, and not by everything that is given back.
    pub async fn room(&self, bytes: usize) {
        self.at_most((self.max / 2).min(self.max.saturating_sub(bytes))).await;
    }

    /// Resolves when a grant may succeed again.
    pub async fn grants(&self) {
        self.at_most((2 * self.max).saturating_sub(1)).await;
    }

    async fn at_most(&self, bytes: usize) {
        let mut waits = Waits { budget: self, bytes, name: None };
        poll_fn(|context| waits.poll(context)).await;
    }
}

/// One who waits until at most `bytes` are in use.
struct Waits<'a> {
    budget: &'a Budget,
    bytes: usize,
    /// Among those who wait, once it was entered.
    name: Option<u64>,
}

impl Waits<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let budget = self.budget;
        let is_free = || budget.used.load(Ordering::SeqCst) <= self.bytes;
        if is_free() {
            return Poll::Ready(());
        }
        let mut waiting = budget.waiting();
        let name = *self.name.get_or_insert_with(|| {
            waiting.next_name += 1;
            waiting.next_name
        });
        waiting.wakers.insert((self.bytes, name), context.waker().clone());
        budget.waiters.store(waiting.wakers.len(), Ordering::SeqCst);
        drop(waiting);
        // Again, for what was given back before it was entered.
        if is_free() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Some(name) = self.name else { return };
        let mut waiting = self.budget.waiting();
        waiting.wakers.remove(&(self.bytes, name));
        self.budget.waiters.store(waiting.wakers.len(), Ordering::SeqCst);
    }
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a part of the charge, at most all of it, for what is held apart from now on.
    pub fn split(&mut self, bytes: usize) -> Charge {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Charge { budget: self.budget.clone(), bytes }
    }

    /// Makes the charge what is really held, more or less than it was.
    pub fn settle(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.free(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
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
    fn readers_that_stand_still_leave_room_for_others() {
        let budget = Budget::with_max(64 << 20);
        let still: Vec<Charge> = (0..50).map(|_| budget.grant(50 << 20).expect("granted")).collect();
        assert_eq!(still[0].bytes(), 4 << 20);
        assert!(budget.grant(1 << 20).expect("granted").bytes() >= 64 << 10);
        let mut large = budget.grant(1).expect("granted");
        large.settle(128 << 20);
        assert!(budget.grant(1).is_none(), "overdrawn");
        large.settle(10);
        assert!(budget.grant(1).is_some());
        drop((still, large));
        assert_eq!(budget.grant(usize::MAX).expect("granted").bytes(), 4 << 20, "everything was given back");
    }

    #[test]
    fn who_waits_for_room_wakes_when_half_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let budget = Budget::with_max(100);
            let held = budget.charge(80).expect("there is room");
            let waiting = budget.clone();
            let waiter = tokio::spawn(async move { waiting.room(30).await });
            tokio::task::yield_now().await;
            assert!(!waiter.is_finished());
            drop(held);
            waiter.await.expect("woken");
        });
    }

    #[test]
    fn who_waits_for_more_than_half_wakes_when_it_fits_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for (wanted, still_too_much, fits) in [(70, 40, 30), (100, 1, 0), (1000, 1, 0)] {
                let budget = Budget::with_max(100);
                let mut held = budget.charge(80).expect("there is room");
                let waiting = budget.clone();
                let waiter = tokio::spawn(async move {
                    waiting.room(wanted).await;
                    waiting.charge(wanted).expect("there is room")
                });
                tokio::task::yield_now().await;
                held.settle(still_too_much);
                tokio::task::yield_now().await;
                assert!(!waiter.is_finished(), "{wanted} beside {still_too_much}");
                held.settle(fits);
                drop(waiter.await.expect("woken"));
                drop(held);
                assert!(budget.waiting().wakers.is_empty());
            }
        });
    }

    #[test]
    fn who_waits_for_much_is_not_woken_by_what_is_too_little() {
        let budget = Budget::with_max(100);
        let mut held = budget.charge(100).expect("there is room");
        let counts = Arc::new(Wakes::default());
        let waker = Waker::from(counts.clone());
        let mut many: Vec<_> = (0..10).map(|_| Box::pin(budget.room(90))).collect();
        let mut poll_all =
            || many.iter_mut().filter_map(|one| one.as_mut().poll(&mut Context::from_waker(&waker)).is_ready().then_some(())).count();
        assert_eq!(poll_all(), 0);
        (11..100).rev().for_each(|left| held.settle(left));
        assert_eq!(counts.0.load(Ordering::Relaxed), 0);
        held.settle(10);
        held.settle(9);
        assert_eq!(counts.0.load(Ordering::Relaxed), 10, "once each");
        assert_eq!(poll_all(), 10);
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
