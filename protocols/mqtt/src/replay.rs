//! Retained messages on their way to new subscriptions.
//!
//! The last values that streams offer are among them.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_gateway::future::BoxFuture;
use firth_gateway::message::{Message, StoredMessage};
use firth_gateway::stored;
use firth_gateway::view::{LastValue, LastValues, LastsFrom, LogView, ReadNow};
use firth_model::filter::Filter;
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
    /// It is the last value of a stream, published with the retain flag or not.
    pub last_value: bool,
}

/// Subscriptions that get their retained messages, one after the other.
#[derive(Default)]
pub struct Replays {
    jobs: VecDeque<Job>,
    ready: VecDeque<Replayed>,
    reading: Option<BoxFuture<'static, Round>>,
}

struct Job {
    subscription: u32,
    /// Last values go first: they know of retained messages.
    lasts: Lasts,
    /// In the retained stream.
    stored: Option<(PartitionId, VecDeque<Offset>)>,
    newer: Vec<Subject>,
}

/// How far a job is with last values.
enum Lasts {
    /// They are being found.
    Awaited(Filter, BoxFuture<'static, ()>),
    From(Filter, Option<LastsFrom>),
    /// There are no more.
    Done,
}

/// What one round of reading came to.
struct Round {
    subscription: u32,
    found: Vec<Found>,
    lasts: Option<Lasts>,
}

struct Found {
    stored: StoredMessage,
    position: Position,
    last_value: bool,
}

impl Replays {
    /// What is stored and offered, but of subjects that have something newer.
    pub fn add(&mut self, subscription: u32, filter: &Filter, view: &dyn LogView, newer: Vec<Subject>) {
        let lasts = view.last_values_ready(filter).map_or(Lasts::Done, |ready| Lasts::Awaited(filter.clone(), ready));
        let stored = view.retained(filter).map(|(partition, offsets)| (partition, offsets.into()));
        let job = Job { subscription, lasts, stored, newer };
        if !job.is_done() {
            self.jobs.push_back(job);
        }
    }

    /// A message that is in memory.
    pub fn add_ready(&mut self, subscription: u32, message: Arc<Message>) {
        self.ready.push_back(Replayed { message, subscription, position: Position(0), last_value: false });
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
        let (subscription, newer) = (job.subscription, job.newer.clone());
        let lasts = std::mem::replace(&mut job.lasts, Lasts::Done);
        if !matches!(lasts, Lasts::Done) {
            self.reading = Some(Box::pin(read_lasts(view.clone(), subscription, lasts, newer)));
            return;
        }
        if let Some((partition, offsets)) = &mut job.stored {
            let count = offsets.len().min(MQTT_RETAINED_ROUND);
            let round: Vec<Offset> = offsets.drain(..count).collect();
            self.reading = Some(Box::pin(read_stored(view.clone(), subscription, *partition, round, newer)));
        }
        if job.is_done() {
            self.jobs.pop_front();
        }
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Ends the round. Safe to drop while waiting.
    pub async fn read(&mut self) {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let Round { subscription, found, lasts } = reading.as_mut().await;
        self.reading = None;
        for Found { stored, position, last_value } in found {
            self.ready.push_back(Replayed { message: Arc::new(stored.message), subscription, position, last_value });
        }
        // The subscription may have ended meanwhile.
        if let Some(job) = self.jobs.front_mut().filter(|job| lasts.is_some() && job.subscription == subscription) {
            if let (Some(lasts), Lasts::Done) = (lasts, &job.lasts) {
                job.lasts = lasts;
            }
            if job.is_done() {
                self.jobs.pop_front();
            }
        }
    }
}

impl Job {
    fn is_done(&self) -> bool {
        matches!(self.lasts, Lasts::Done) && self.stored.as_ref().is_none_or(|(_, offsets)| offsets.is_empty())
    }
}

/// Some last values; where there is a retained message too, the newer of both.
async fn read_lasts(view: Arc<dyn LogView>, subscription: u32, lasts: Lasts, newer: Vec<Subject>) -> Round {
    let (filter, from) = match lasts {
        Lasts::Awaited(filter, ready) => {
            ready.await;
            (filter, None)
        }
        Lasts::From(filter, from) => (filter, from),
        Lasts::Done => return Round { subscription, found: Vec::new(), lasts: None },
    };
    let LastValues { values, next } = view.last_values(&filter, from.as_ref(), MQTT_RETAINED_ROUND);
    let mut found = Vec::new();
    for LastValue { subject, partition, offset, retained } in values {
        let Ok(subject) = Subject::from_text(subject) else { continue };
        if newer.contains(&subject) {
            continue;
        }
        let last = read_one(&view, partition, offset).await.map(|(mut stored, position)| {
            stored.message.subject = subject;
            Found { stored, position, last_value: true }
        });
        let retained = match retained {
            Some((partition, offset)) => read_one(&view, partition, offset).await,
            None => None,
        };
        let retained = retained.map(|(stored, position)| Found { stored, position, last_value: false });
        found.extend(last.into_iter().chain(retained).reduce(|last, retained| if retained.is_newer_than(&last) { retained } else { last }));
    }
    let lasts = next.map_or(Lasts::Done, |next| Lasts::From(filter, Some(next)));
    Round { subscription, found, lasts: Some(lasts) }
}

async fn read_stored(
    view: Arc<dyn LogView>,
    subscription: u32,
    partition: PartitionId,
    offsets: Vec<Offset>,
    newer: Vec<Subject>,
) -> Round {
    let mut found = Vec::new();
    for offset in offsets {
        let Some((stored, position)) = read_one(&view, partition, offset).await else { continue };
        let subject = &stored.message.subject;
        if !newer.contains(subject) && !view.has_last_value(subject.as_bytes()) {
            found.push(Found { stored, position, last_value: false });
        }
    }
    Round { subscription, found, lasts: None }
}

/// A record with a payload, and where it lies. `None`: it was replaced or removed meanwhile; what replaced it comes live.
async fn read_one(view: &Arc<dyn LogView>, partition: PartitionId, offset: Offset) -> Option<(StoredMessage, Position)> {
    let records = match view.read(partition, offset, 1) {
        ReadNow::Ready(records) => records,
        ReadNow::Behind => match view.read_behind(partition, offset, 1).await {
            Ok(records) => records,
            Err(refusal) => {
                tracing::warn!(?refusal, offset = offset.0, "a retained message cannot be read");
                return None;
            }
        },
        ReadNow::Refused(_) => return None,
    };
    let (batch, position) = (records.batches.first()?, records.positions.first()?);
    let unknown = Subject::parse("").expect("one empty level");
    let stored = stored::messages(batch, offset, &unknown).unwrap_or_default().into_iter().find(|stored| stored.offset == offset)?;
    stored.message.value.is_some().then_some((stored, *position))
}

impl Found {
    /// By the order of the journal; of two that it has no more, by their times.
    fn is_newer_than(&self, other: &Found) -> bool {
        (self.position, self.stored.message.published) > (other.position, other.stored.message.published)
    }
}
