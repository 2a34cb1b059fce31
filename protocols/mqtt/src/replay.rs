//! Retained messages on their way to new subscriptions.
//!
//! The last values that streams offer are among them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use firth_gateway::future::BoxFuture;
use firth_gateway::message::{Message, StoredMessage};
use firth_gateway::refusal::Refusal;
use firth_gateway::stored;
use firth_gateway::view::{LastValue, LastValues, LastsFrom, LogView, ReadNow};
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::limits::MQTT_RETAINED_ROUND;
use firth_model::subject::Subject;

use crate::legs::AGAIN_AFTER;
use crate::sessions::Listing;

/// What comes before everything that was published later.
#[derive(Debug)]
pub enum Replayed {
    /// For one subscription. `position`: where the journal has it; 0 if it is older than all of that. `last_value`: it is the last value
    /// of a stream, published with the retain flag or not.
    Retained { subscription: u32, message: Arc<Message>, position: Position, stored: Option<StoredAt>, last_value: bool },
    /// In flight before, in this slot of the session's; `None` if it is not there any more.
    Again { slot: u32, message: Option<Arc<Message>> },
    /// A subscription that was noted in this slot has all that was retained.
    End { slot: u32 },
}

/// Where a retained message lies that a kept session must not miss, and the slot of its subscription's note.
#[derive(Debug, Clone, Copy)]
pub struct StoredAt {
    pub slot: u32,
    pub partition: PartitionId,
    pub offset: Offset,
}

/// Subscriptions that get their retained messages, one after the other.
#[derive(Default)]
pub struct Replays {
    jobs: VecDeque<(u32, Job)>,
    ready: VecDeque<Replayed>,
    /// For which subscription.
    reading: Option<(u32, BoxFuture<'static, Round>)>,
    /// Since when there is something to come.
    began: Option<Instant>,
}

enum Job {
    Lasts(Lasts),
    Retained(Retained),
    Sessions(Box<Listing>),
    Again(VecDeque<StoredAt>),
}

struct Retained {
    partition: PartitionId,
    offsets: VecDeque<Offset>,
    slot: Option<u32>,
    /// Last values were sent before: those of their subjects are done.
    beside_lasts: bool,
}

/// Last values of streams that match a filter.
struct Lasts {
    filter: Filter,
    /// They are being found, and waited for until then.
    ready: Option<(BoxFuture<'static, bool>, Instant)>,
    /// They were not all found in time: of a subject that has a retained message that one goes out, whatever is found meanwhile.
    late: bool,
    from: Option<LastsFrom>,
    /// What goes out behind them.
    then: Option<Retained>,
}

/// What a round found, and what is left of its job.
type Round = (Vec<Replayed>, Option<Job>);

/// How long the first last values are waited for. Nobody else bounds it.
const READY_MAX: Duration = Duration::from_secs(1);

/// What is sent again belongs to no subscription.
const NONE: u32 = u32::MAX;

impl Replays {
    /// What streams offer; before what is retained, of which it has what is newer.
    pub fn add_lasts(&mut self, subscription: u32, filter: &Filter, view: &dyn LogView) {
        if let Some(ready) = view.last_values_ready(filter) {
            // All of a client wait at the same time.
            let ready = Some((ready, Instant::now() + READY_MAX));
            let lasts = Lasts { filter: filter.clone(), ready, late: false, from: None, then: None };
            self.jobs.push_back((subscription, Job::Lasts(lasts)));
        }
    }

    /// What is stored. With a slot its end is told.
    pub fn add(&mut self, subscription: u32, partition: PartitionId, offsets: Vec<Offset>, slot: Option<u32>) {
        let retained = Retained { partition, offsets: offsets.into(), slot, beside_lasts: false };
        let lasts = self.jobs.iter_mut().rev().find_map(|(number, job)| match job {
            Job::Lasts(lasts) if *number == subscription && lasts.then.is_none() => Some(lasts),
            _ => None,
        });
        match lasts {
            Some(lasts) => lasts.then = Some(retained),
            None => self.jobs.push_back((subscription, Job::Retained(retained))),
        }
    }

    pub fn add_sessions(&mut self, subscription: u32, listing: Listing) {
        self.jobs.push_back((subscription, Job::Sessions(Box::new(listing))));
    }

    /// What was in flight before, by slots.
    pub fn add_again(&mut self, flights: VecDeque<StoredAt>) {
        self.jobs.push_back((NONE, Job::Again(flights)));
    }

    /// A message that is in memory.
    pub fn add_ready(&mut self, subscription: u32, message: Arc<Message>) {
        self.ready.push_back(Replayed::of_memory(subscription, message));
    }

    /// Nothing more is to come for it.
    pub fn forget(&mut self, subscription: u32) {
        self.jobs.retain(|(number, _)| *number != subscription);
        self.ready.retain(|replayed| !matches!(replayed, Replayed::Retained { subscription: number, .. } if *number == subscription));
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
        self.began.get_or_insert_with(Instant::now);
        let view = view.clone();
        let reading: BoxFuture<'static, Round> = match job {
            Job::Lasts(lasts) => Box::pin(lasts.round(view, subscription)),
            Job::Retained(retained) => Box::pin(retained.round(view, subscription)),
            Job::Sessions(listing) => Box::pin(async move {
                let (messages, rest) = listing.round().await;
                let replayed = |message| Replayed::of_memory(subscription, Arc::new(message));
                (messages.into_iter().map(replayed).collect(), rest.map(|rest| Job::Sessions(Box::new(rest))))
            }),
            Job::Again(flights) => Box::pin(read_again(view, flights)),
        };
        self.reading = Some((subscription, reading));
    }

    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Whether what is being read may be waited for by who asks whether the node is there.
    pub fn is_brief(&self) -> bool {
        self.began.is_none_or(|began| began.elapsed() < AGAIN_AFTER)
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
        if self.jobs.is_empty() {
            self.began = None;
        }
        self.ready.extend(found);
    }
}

impl Replayed {
    /// What no stream holds.
    fn of_memory(subscription: u32, message: Arc<Message>) -> Replayed {
        Replayed::Retained { subscription, message, position: Position(0), stored: None, last_value: false }
    }
}

impl Lasts {
    /// Some last values; where there is a retained message too, the newer of both.
    async fn round(mut self, view: Arc<dyn LogView>, subscription: u32) -> Round {
        if let Some((ready, until)) = self.ready.take() {
            // What is not found by then comes live, or to who subscribes later.
            self.late = !tokio::time::timeout_at(until, ready).await.unwrap_or(false);
        }
        let LastValues { values, next } = view.last_values(&self.filter, self.from.as_ref(), MQTT_RETAINED_ROUND);
        let mut found = Vec::new();
        for LastValue { subject, partition, offset, retained } in values {
            if self.late && retained.is_some() {
                continue;
            }
            let Ok(subject) = Subject::from_text(subject) else { continue };
            let Ok(last) = read_one(&view, partition, offset).await else { return (Vec::new(), Some(Job::Lasts(self))) };
            let last = last.filter(|(read, _)| read.message.value.is_some()).map(|(mut read, position)| {
                read.message.subject = subject;
                (read, position, true)
            });
            let retained = match retained {
                Some((partition, offset)) => match read_one(&view, partition, offset).await {
                    Ok(retained) => retained.map(|(read, position)| (read, position, false)),
                    Err(Unreachable) => return (Vec::new(), Some(Job::Lasts(self))),
                },
                None => None,
            };
            // By the order of the journal; of two that it has no more, by their times.
            let newest = last.into_iter().chain(retained).max_by_key(|(read, position, last)| (*position, read.message.published, *last));
            found.extend(newest.map(|(read, position, last_value)| Replayed::Retained {
                subscription,
                message: Arc::new(read.message),
                position,
                stored: None,
                last_value,
            }));
        }
        let (late, then) = (self.late, self.then.take());
        let rest = match next {
            Some(next) => Some(Job::Lasts(Lasts { from: Some(next), then, ..self })),
            None => then.map(|retained| Job::Retained(Retained { beside_lasts: !late, ..retained })),
        };
        (found, rest)
    }
}

impl Retained {
    async fn round(mut self, view: Arc<dyn LogView>, subscription: u32) -> Round {
        let (partition, slot) = (self.partition, self.slot);
        let mut found = Vec::new();
        for _ in 0..MQTT_RETAINED_ROUND {
            let Some(offset) = self.offsets.front().copied() else { break };
            let Ok(read) = read_one(&view, partition, offset).await else { break };
            self.offsets.pop_front();
            let Some((read, position)) = read else { continue };
            let elsewhere = self.beside_lasts && view.has_last_value(read.message.subject.as_bytes());
            if read.message.value.is_some() && !elsewhere {
                let stored = slot.map(|slot| StoredAt { slot, partition, offset });
                found.push(Replayed::Retained { subscription, message: Arc::new(read.message), position, stored, last_value: false });
            }
        }
        if !self.offsets.is_empty() {
            return (found, Some(Job::Retained(self)));
        }
        found.extend(slot.map(|slot| Replayed::End { slot }));
        (found, None)
    }
}

async fn read_again(view: Arc<dyn LogView>, mut flights: VecDeque<StoredAt>) -> Round {
    let mut found = Vec::new();
    for _ in 0..MQTT_RETAINED_ROUND {
        let Some(StoredAt { slot, partition, offset }) = flights.front().copied() else { break };
        let Ok(read) = read_one(&view, partition, offset).await else { break };
        flights.pop_front();
        found.push(Replayed::Again { slot, message: read.map(|(read, _)| Arc::new(read.message)) });
    }
    (found, (!flights.is_empty()).then_some(Job::Again(flights)))
}

/// The store does not answer: what lies in it comes when it does.
struct Unreachable;

/// A record by its place. `None`: it is not there any more, or cannot be read. An error comes after a while only.
async fn read_one(
    view: &Arc<dyn LogView>,
    partition: PartitionId,
    offset: Offset,
) -> Result<Option<(StoredMessage, Position)>, Unreachable> {
    let records = match view.read(partition, offset, 1) {
        ReadNow::Ready(records) => records,
        ReadNow::Behind => match view.read_behind(partition, offset, 1).await {
            Ok(records) => records,
            Err(Refusal::Unavailable | Refusal::Overloaded) => {
                tokio::time::sleep(AGAIN_AFTER).await;
                return Err(Unreachable);
            }
            Err(refusal) => {
                tracing::warn!(?refusal, offset = offset.0, "a retained message cannot be read");
                return Ok(None);
            }
        },
        // It was replaced meanwhile: what replaced it comes live.
        ReadNow::Refused(_) => return Ok(None),
    };
    let Some((batch, position)) = records.batches.first().zip(records.positions.first()) else { return Ok(None) };
    let unknown = Subject::parse("").expect("one empty level");
    let stored = stored::messages(batch, offset, &unknown).unwrap_or_default().into_iter().find(|stored| stored.offset == offset);
    Ok(stored.map(|stored| (stored, *position)))
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;

    use crate::test_view::{RETAINED, TestView};

    /// What a subscriber is sent.
    async fn sent(found_after: Option<Duration>, finds: bool) -> Vec<Bytes> {
        let view: Arc<dyn LogView> = Arc::new(TestView { found_after, finds, has_records: true, ..TestView::default() });
        let mut replays = Replays::default();
        replays.add_lasts(7, &Filter::parse("a").expect("a filter"), &*view);
        replays.add(7, RETAINED, vec![Offset(0)], None);
        let mut sent = Vec::new();
        while replays.is_active() {
            replays.go_on(&view);
            replays.read().await;
            while let Some(replayed) = replays.pop() {
                let Replayed::Retained { subscription: 7, message, .. } = replayed else { panic!("{replayed:?}") };
                sent.push(message.value.clone().expect("a value"));
            }
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_last_value_and_a_retained_message_the_newer_comes() {
        assert_eq!(sent(Some(Duration::ZERO), true).await, ["last"]);
    }

    /// What finds last values is behind: it catches up while they are looked at, or was half done.
    #[tokio::test(start_paused = true)]
    async fn what_is_retained_comes_when_last_values_are_late() {
        for finds in [false, true] {
            assert_eq!(sent(Some(READY_MAX * 2), finds).await, ["retained"], "finds: {finds}");
            assert_eq!(sent(None, finds).await, ["retained"], "finds: {finds}");
        }
    }

    /// Each look at a store that does not answer ends, so that the client hears of the node in between.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_be_reached_is_asked_again_and_holds_up_no_ping() {
        let view: Arc<dyn LogView> = Arc::new(TestView { is_unreachable: true, ..TestView::default() });
        let (mut replays, began) = (Replays::default(), Instant::now());
        replays.add(7, RETAINED, vec![Offset(0)], None);
        for look in 0..3 {
            replays.go_on(&view);
            assert_eq!(replays.is_brief(), look == 0);
            replays.read().await;
            assert!(replays.is_active() && replays.front().is_none() && !replays.is_reading());
        }
        assert_eq!(began.elapsed(), AGAIN_AFTER * 3);
    }

    /// However many filters one SUBSCRIBE has: they wait at the same time.
    #[tokio::test(start_paused = true)]
    async fn late_last_values_are_waited_for_once() {
        let view: Arc<dyn LogView> = Arc::new(TestView { has_records: true, ..TestView::default() });
        let (mut replays, began) = (Replays::default(), Instant::now());
        for subscription in 0..100 {
            replays.add_lasts(subscription, &Filter::parse("a").expect("a filter"), &*view);
        }
        while replays.is_active() {
            replays.go_on(&view);
            replays.read().await;
        }
        assert_eq!(began.elapsed(), READY_MAX);
    }
}
