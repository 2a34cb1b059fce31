//! What a large packet takes of the budget while it comes in.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use firth_gateway::future::BoxFuture;
use firth_gateway::outbox::{Budget, Charge};
use tokio::time::sleep;

/// Packets larger than this are charged to the node's budget before they are received.
const LARGE_PACKET_BYTES: usize = 64 << 10;
/// How long a large packet may take to arrive, and more for each of so many bytes: it holds room that others wait for, and links are slow.
const LARGE_PACKET_TIME: Duration = Duration::from_secs(60);
const BYTES_EACH_SECOND: usize = 16 << 10;

pub struct Arriving {
    budget: Arc<Budget>,
    large: Option<Box<Large>>,
}

struct Large {
    bytes: usize,
    charge: Option<Charge>,
    /// For room; with a charge, for the end of its time.
    wait: BoxFuture<'static, ()>,
}

impl Arriving {
    pub fn within(budget: Arc<Budget>) -> Arriving {
        Arriving { budget, large: None }
    }

    /// Ready when there is room for the packet of so many bytes that comes in now; gives back what another one held.
    ///
    /// # Errors
    /// It did not arrive in time.
    pub fn poll_room(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.large.take_if(|large| large.bytes != bytes);
        if bytes <= LARGE_PACKET_BYTES {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(large) = &mut self.large {
                let waited = large.wait.as_mut().poll(context);
                if large.charge.is_some() {
                    return Poll::Ready(if waited.is_ready() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) });
                }
                ready!(waited);
            }
            let charge = self.budget.charge(bytes);
            let budget = self.budget.clone();
            let wait: BoxFuture<'static, ()> = match charge {
                Some(_) => Box::pin(sleep(time_of(bytes))),
                None => Box::pin(async move { budget.room(bytes).await }),
            };
            self.large = Some(Box::new(Large { bytes, charge, wait }));
        }
    }

    /// Nothing is received now: what waits for room itself is not to wait for this.
    pub fn let_go(&mut self) {
        self.large = None;
    }

    pub fn waits_for_room(&self) -> bool {
        self.large.as_ref().is_some_and(|large| large.charge.is_none())
    }
}

fn time_of(bytes: usize) -> Duration {
    LARGE_PACKET_TIME + Duration::from_secs((bytes / BYTES_EACH_SECOND) as u64)
}
