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
    jobs: VecDeque<Job>,
    ready: VecDeque<Replayed>,
    reading: Option<BoxFuture<'static, Vec<Found>>>,
}

struct Job {
    subscription: u32,
    partition: PartitionId,
    offsets: VecDeque<Offset>,
    newer: Vec<Subject>,
}

struct Found {
    subscription: u32,
    stored: StoredMessage,
    position: Position,
}

impl Replays {
    /// What is stored, but of subjects that have something newer.
    pub fn add(&mut self, subscription: u32, partition: PartitionId, offsets: Vec<Offset>, newer: Vec<Subject>) {
        if !offsets.is_empty() {
            self.jobs.push_back(Job { subscription, partition, offsets: offsets.into(), newer });
        }
    }

    /// A message that is in memory.
    pub fn add_ready(&mut self, subscription: u32, message: Arc<Message>) {
        self.ready.push_back(Replayed { message, subscription, position: Position(0) });
    }

    /// Nothing more is to come for it.
    pub fn forget(&mut self, subscription: u32) {
        self.jobs.retain(|job| job.subscription != subscription);
        self.ready.retain(|replayed| replayed.subscription != subscription);
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
        let Some(job) = self.jobs.front_mut() else { return };
        let count = job.offsets.len().min(MQTT_RETAINED_ROUND);
        let offsets: Vec<Offset> = job.offsets.drain(..count).collect();
        let (subscription, partition, newer) = (job.subscription, job.partition, job.newer.clone());
        if job.offsets.is_empty() {
            self.jobs.pop_front();
        }
        self.reading = Some(Box::pin(read(view.clone(), subscription, partition, offsets, newer)));
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Ends the round. Safe to drop while waiting.
    pub async fn read(&mut self) {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let found = reading.as_mut().await;
        self.reading = None;
        for Found { subscription, stored, position } in found {
            self.ready.push_back(Replayed { message: Arc::new(stored.message), subscription, position });
        }
    }
}

async fn read(view: Arc<dyn LogView>, subscription: u32, partition: PartitionId, offsets: Vec<Offset>, newer: Vec<Subject>) -> Vec<Found> {
    let mut found = Vec::new();
    for offset in offsets {
        let records = match view.read(partition, offset, 1) {
            ReadNow::Ready(records) => records,
            ReadNow::Behind => match view.read_behind(partition, offset, 1).await {
                Ok(records) => records,
                Err(refusal) => {
                    tracing::warn!(?refusal, offset = offset.0, "a retained message cannot be read");
                    continue;
                }
            },
            // It was replaced meanwhile: what replaced it comes live.
            ReadNow::Refused(_) => continue,
        };
        let (Some(batch), Some(position)) = (records.batches.first(), records.positions.first()) else { continue };
        let unknown = Subject::parse("").expect("one empty level");
        let stored = stored::messages(batch, offset, &unknown).unwrap_or_default().into_iter().find(|stored| stored.offset == offset);
        if let Some(stored) = stored.filter(|stored| stored.message.value.is_some() && !newer.contains(&stored.message.subject)) {
            found.push(Found { subscription, stored, position: *position });
        }
    }
    found
}
