//! The queue from connections down to the shard.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbox::ReplyTo;
use crate::request::Request;

/// A request on its way to the shard.
#[derive(Debug)]
pub struct Submitted {
    pub request: Request,
    pub reply: ReplyTo,
}

/// The shard's queue. Bounded by the budget that every `Submitted` is charged to.
#[derive(Clone, Default)]
pub struct Inbox {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Submitted>,
    rung: bool,
    asleep: bool,
    closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request; gives it back if the shard is gone.
    pub fn push(&self, submitted: Submitted) -> Result<(), Submitted> {
        let mut state = self.lock();
        if state.closed {
            return Err(submitted);
        }
        state.waiting.push(submitted);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.shared.bell.notify_one();
        }
        Ok(())
    }

    /// Wakes the shard for something that lies elsewhere: a commit that became durable, a stop.
    pub fn ring(&self) {
        let mut state = self.lock();
        state.rung = true;
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.shared.bell.notify_one();
        }
    }

    /// Moves everything that waits into `into`. Sleeps until there is something, somebody rang, or `patience` is over.
    pub fn take(&self, into: &mut Vec<Submitted>, patience: Option<Duration>) {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.rung {
            state.asleep = true;
            state = match patience {
                Some(patience) => self.shared.bell.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0,
                None => self.shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.asleep = false;
        }
        state.rung = false;
        std::mem::swap(into, &mut state.waiting);
    }

    /// Nothing is taken any more; what waits is given back.
    pub fn close(&self) -> Vec<Submitted> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Answer, Tag};
    use crate::outbox::{Budget, Outbox};

    fn submitted(budget: &Arc<Budget>, outbox: &Arc<Outbox>, tag: u64) -> Submitted {
        let request = Request::Kept { owner: String::new() };
        let charge = budget.charge(request.weight()).expect("there is room");
        Submitted { request, reply: ReplyTo::new(outbox.clone(), Tag(tag), charge) }
    }

    #[test]
    fn requests_come_out_in_order_and_a_closed_inbox_gives_them_back() {
        let (inbox, budget, outbox) = (Inbox::default(), Budget::with_max(1 << 20), Arc::new(Outbox::default()));
        for tag in 0..3 {
            assert!(inbox.push(submitted(&budget, &outbox, tag)).is_ok());
        }
        let mut taken = Vec::new();
        inbox.take(&mut taken, None);
        assert_eq!(taken.iter().map(|submitted| submitted.reply.tag.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(inbox.close().is_empty());
        assert!(inbox.push(submitted(&budget, &outbox, 3)).is_err());
    }

    #[test]
    fn ringing_wakes_a_sleeping_shard() {
        let (inbox, bell) = (Inbox::default(), Inbox::default());
        let ringer = bell.clone();
        let thread = std::thread::spawn(move || ringer.ring());
        let mut taken = Vec::new();
        bell.take(&mut taken, None);
        assert!(taken.is_empty());
        thread.join().expect("rings");
        inbox.take(&mut taken, Some(Duration::from_millis(1)));
        assert!(taken.is_empty(), "patience ends");
    }

    #[test]
    fn answers_wake_the_connection_once_for_many() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (budget, outbox) = (Budget::with_max(1 << 20), Arc::new(Outbox::default()));
        for tag in 0..2 {
            submitted(&budget, &outbox, tag).reply.answer(Ok(Answer::Done));
        }
        outbox.wake();
        assert_eq!(runtime.block_on(outbox.take()).len(), 2);
    }
}
