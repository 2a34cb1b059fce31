//! Threads that read behind the tail cache.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use firth_archive::background::step_back;
use firth_gateway::future::BoxFuture;
use firth_gateway::refusal::Refusal;

/// Readers at the end of the log and publishers go first.
const COLD_READ_NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// A few blocking threads with one queue. The queue is bounded by the connections: each waits for the one read it asked for.
pub struct ColdThreads {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stopping: bool,
}

impl ColdThreads {
    /// Threads start with the first job, so that a node nobody reads from behind the tail has none.
    pub fn idle() -> ColdThreads {
        ColdThreads { shared: Arc::default(), threads: Mutex::default() }
    }

    /// Runs `job` on one of `threads_max` threads. What it gives beside the answer is done when the answer is on its way.
    pub fn run<T: Send + 'static, A: FnOnce()>(
        &self,
        threads_max: usize,
        job: impl FnOnce() -> (Result<T, Refusal>, A) + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Refusal>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let job: Job = Box::new(move || {
            // A connection that went away while it waited needs no answer, and no read.
            if !sender.is_closed() {
                let (answer, afterwards) = job();
                let _ = sender.send(answer);
                afterwards();
            }
        });
        self.start(threads_max);
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).jobs.push_back(job);
        self.shared.bell.notify_one();
        Box::pin(async move { receiver.await.unwrap_or(Err(Refusal::Stopping)) })
    }

    fn start(&self, threads_max: usize) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.len() < threads_max {
            let shared = self.shared.clone();
            let name = format!("cold-read-{}", threads.len());
            match std::thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => tracing::error!(%error, "no thread for reads behind the tail"),
                Err(_) => return,
            }
        }
    }
}

impl Drop for ColdThreads {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stopping = true;
        state.jobs.clear();
        drop(state);
        self.shared.bell.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The last handle may be dropped by a job itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn work(&self) {
        step_back(COLD_READ_NICE);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.stopping {
                return;
            }
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            } else {
                state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
