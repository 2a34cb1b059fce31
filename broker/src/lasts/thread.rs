//! The thread that finds last values in a node.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;

use firth_gateway::view::Waiter;
use firth_model::time::Clock;

use super::follower::{AWAY_MS, Follower};
use super::table::Lasts;
use crate::view::View;

/// How often what was found is given to the shard for its next checkpoint: what is not there is found again after a crash.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// How often it looks although nothing woke it: for what was removed.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a look that read from disk it rests as long as that took, but no longer: a stream that is read for the first time may be large,
/// and nobody else is to notice.
const REST_MAX: Duration = Duration::from_millis(200);

/// When it looks again at what could not be read.
const AWAY: Duration = Duration::from_millis(AWAY_MS.unsigned_abs());

/// Where changes for the next checkpoint go.
pub type Keep = Box<dyn FnMut(Vec<(Bytes, Option<Bytes>)>) + Send>;

/// Ends the thread when it is dropped.
pub struct FollowerThread {
    lasts: Arc<Lasts>,
    thread: Option<JoinHandle<()>>,
}

impl FollowerThread {
    /// Fails if the system has no thread to give.
    pub fn start(view: &Arc<View>, clock: Clock, keep: Keep) -> std::io::Result<FollowerThread> {
        let follower = Follower::over(view.clone(), clock());
        let lasts = view.lasts.clone();
        let own = lasts.clone();
        let spawned = std::thread::Builder::new().name("last-values".to_owned()).spawn(move || run(follower, &own, &clock, keep))?;
        Ok(FollowerThread { lasts, thread: Some(spawned) })
    }
}

impl Drop for FollowerThread {
    fn drop(&mut self) {
        self.lasts.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of last values ended by a broken invariant");
        }
    }
}

fn run(mut follower: Follower, lasts: &Lasts, clock: &Clock, mut keep: Keep) {
    let waiter = lasts.waiter.clone();
    let mut keep_due = Instant::now() + KEEP_EVERY;
    while !lasts.is_stopping() {
        let began = Instant::now();
        let look = follower.look(clock());
        if follower.has_changes() && keep_due <= Instant::now() {
            keep_due = Instant::now() + KEEP_EVERY;
            keep(follower.take_changes());
        }
        if look.more {
            if look.cold {
                std::thread::sleep(began.elapsed().min(REST_MAX));
            }
            continue;
        }
        // Who asks for what cannot be read is not answered by asking for it again and again.
        if lasts.is_asked() && !look.away || !follower.park(&waiter) {
            continue;
        }
        let until = match (follower.has_changes(), follower.is_busy()) {
            (true, _) => Some(keep_due),
            (false, true) => Some(began + PATIENCE),
            (false, false) => None,
        };
        let again = look.away.then(|| Instant::now() + AWAY);
        let until = until.into_iter().chain(again).min();
        wait(&waiter, until);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Until somebody wakes it, or the time has come.
fn wait(waiter: &Waiter, until: Option<Instant>) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut woken = pin!(waiter.woken());
    while woken.as_mut().poll(&mut context) == Poll::Pending {
        match until {
            None => std::thread::park(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                std::thread::park_timeout(left);
            }
        }
    }
}
