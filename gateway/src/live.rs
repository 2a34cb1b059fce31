//! Live subscriptions: what is published while somebody is attached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firth_model::subject::Subject;

use crate::message::{LiveDelivery, Overflow};
use crate::outbox::Outbox;
use crate::streams::StreamInfo;

/// One connection as publishers see it.
#[derive(Debug)]
pub struct Subscriber {
    /// The same as its publisher's id.
    pub id: u64,
    pub overflow: Overflow,
    /// Messages that were not delivered for want of room.
    pub dropped: AtomicU64,
    pub(crate) outbox: Arc<Outbox>,
}

impl Subscriber {
    /// Hands over what was published, in order, without waking: true if there was nothing before, so that a wake is due.
    pub fn push(&self, deliveries: impl Iterator<Item = LiveDelivery>) -> bool {
        let (was_empty, dropped) = self.outbox.push_live(deliveries, self.overflow);
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        was_empty
    }

    pub fn wake(&self) {
        self.outbox.wake();
    }
}

/// Everybody who matches one subject.
#[derive(Debug)]
pub struct Routes {
    /// The router's version; what is stored is matched again when it has moved.
    pub version: u64,
    pub live: Vec<LiveRoute>,
    pub captures: Vec<Capture>,
}

/// A stream that stores what is published under a subject. A hidden one only stores what is guaranteed.
#[derive(Clone, Debug)]
pub struct Capture {
    pub stream: Arc<StreamInfo>,
    /// Only because of the stream's own name.
    pub by_name: bool,
}

#[derive(Clone, Debug)]
pub struct LiveRoute {
    pub subscriber: Arc<Subscriber>,
    pub subscriptions: Arc<[u32]>,
}

/// What a connection keeps of the router's answers; one for each connection.
pub trait RouteCache: Send {
    fn routes(&mut self, subject: &Subject) -> Arc<Routes>;
}
