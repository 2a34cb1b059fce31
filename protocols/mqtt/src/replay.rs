//! Retained messages on their way to new subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_gateway::future::BoxFuture;
use firth_gateway::message::{Message, StoredMessage};
use firth_gateway::stored;
use firth_gateway::view::{LogView, ReadNow};
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::limits::MQTT_RETAINED_ROUND;
use firth_model::subject::Subject;

use crate::sessions::Listing;

/// A retained message for one subscription.
#[derive(Debug)]
pub struct Replayed {
    pub message: Arc<Message>,
    pub subscription: u32,
    /// Where the journal has it; 0 if it is older than all of that.
    pub position: Position,
}

/// Subscriptions that get their retained messages, one after the other.
#[derive(Default)]
pub struct Replays {
    jobs: VecDeque<(u32, Job)>,
    ready: VecDeque<Replayed>,
    /// For which subscription.
    reading: Option<(u32, BoxFuture<'static, Round>)>,
}

enum Job {
    Retained(Retained),
    Sessions(Box<Listing>),
}

struct Retained {
    partition: PartitionId,
    offsets: VecDeque<Offset>,
    newer: Vec<Subject>,
}

/// What a round found, and what is left of its job.
type Round = (Vec<(Arc<Message>, Position)>, Option<Job>);

impl Replays {
    /// What is stored, but of subjects that have something newer.
    pub fn add(&mut self, subscription: u32, partition: PartitionId, offsets: Vec<Offset>, newer: Vec<Subject>) {
        if !offsets.is_empty() {
            self.jobs.push_back((subscription, Job::Retained(Retained { partition, offsets: offsets.into(), newer })));
        }
    }

    pub fn add_sessions(&mut self, subscription: u32, listing: Listing) {
        self.jobs.push_back((subscription, Job::Sessions(Box::new(listing))));
    }

    /// A message that is in memory.
    pub fn add_ready(&mut self, subscription: u32, message: Arc<Message>) {
        self.ready.push_back(Replayed { message, subscription, position: Position(0) });
    }

    /// Nothing more is to come for it.
    pub fn forget(&mut self, subscription: u32) {
        self.jobs.retain(|(number, _)| *number != subscription);
        self.ready.retain(|replayed| replayed.subscription != subscription);
        self.reading.take_if(|(number, _)| *number == subscription);
    }

    /// Whether something is to come: what was published meanwhile waits.
    pub fn is_active(&self) -> bool {
        !self.ready.is_empty() || self.reading.is_some() || !self.jobs.is_empty()
    }

    pub fn front(&self) -> Option<&Replayed> {
        self.ready.front()
    }

    pub fn pop(&mut self) -> Option<Replayed> {
        self.ready.pop_front()
    }

    /// Begins the next round of reading, if what was read is delivered.
    pub fn go_on(&mut self, view: &Arc<dyn LogView>) {
        if !self.ready.is_empty() || self.reading.is_some() {
            return;
        }
        let Some((subscription, job)) = self.jobs.pop_front() else { return };
        let view = view.clone();
        let reading: BoxFuture<'static, Round> = match job {
            Job::Retained(retained) => Box::pin(retained.round(view)),
            Job::Sessions(listing) => Box::pin(async move {
                let (messages, rest) = listing.round().await;
                let messages = messages.into_iter().map(|message| (Arc::new(message), Position(0))).collect();
                (messages, rest.map(|rest| Job::Sessions(Box::new(rest))))
            }),
        };
        self.reading = Some((subscription, reading));
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Ends the round. Safe to drop while waiting.
    pub async fn read(&mut self) {
        let Some((subscription, reading)) = &mut self.reading else { return std::future::pending().await };
        let subscription = *subscription;
        let (found, rest) = reading.as_mut().await;
        self.reading = None;
        if let Some(job) = rest {
            self.jobs.push_front((subscription, job));
        }
        self.ready.extend(found.into_iter().map(|(message, position)| Replayed { message, subscription, position }));
    }
}

impl Retained {
    async fn round(mut self, view: Arc<dyn LogView>) -> Round {
        let mut found = Vec::new();
        for offset in self.offsets.drain(..self.offsets.len().min(MQTT_RETAINED_ROUND)) {
            let Some((stored, position)) = read_one(&view, self.partition, offset).await else { continue };
            if stored.message.value.is_some() && !self.newer.contains(&stored.message.subject) {
                found.push((Arc::new(stored.message), position));
            }
        }
        (found, (!self.offsets.is_empty()).then_some(Job::Retained(self)))
    }
}

/// A record by its place. `None`: it is not there any more, or cannot be read.
pub async fn read_one(view: &Arc<dyn LogView>, partition: PartitionId, offset: Offset) -> Option<(StoredMessage, Position)> {
    let records = match view.read(partition, offset, 1) {
        ReadNow::Ready(records) => records,
        ReadNow::Behind => match view.read_behind(partition, offset, 1).await {
            Ok(records) => records,
            Err(refusal) => {
                tracing::warn!(?refusal, offset = offset.0, "a retained message cannot be read");
                return None;
            }
        },
        // It was replaced meanwhile: what replaced it comes live.
        ReadNow::Refused(_) => return None,
    };
    let (batch, position) = (records.batches.first()?, records.positions.first()?);
    let unknown = Subject::parse("").expect("one empty level");
    let stored = stored::messages(batch, offset, &unknown).unwrap_or_default().into_iter().find(|stored| stored.offset == offset)?;
    Some((stored, *position))
}
