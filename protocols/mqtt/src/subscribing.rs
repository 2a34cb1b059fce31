//! SUBSCRIBE and UNSUBSCRIBE of a client.

use std::sync::Arc;

use firth_gateway::cursors::{CursorMove, Leg};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_model::ids::Offset;
use firth_model::limits::{MQTT_SUBSCRIPTIONS_MAX, SUBJECT_LEVELS_MAX};

use crate::codec::packet::Packet;
use crate::codec::property::{Properties, SubscriptionIdentifier};
use crate::codec::qos::QoS;
use crate::codec::reason::ReasonCode;
use crate::codec::subscribe::{RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe};
use crate::codec::text::Text;
use crate::codec::topic::shared_parts;
use crate::flights::Replaying;
use crate::notes::NOTE_SUBSCRIPTION;
use crate::reasons::reason_of;
use crate::session::{Asked, Ending, Operation, RetainedJob, Session};
use crate::sessions::Listing;
use crate::subscriptions::Subscribed;
use crate::sys;

impl Session {
    pub fn receive_subscribe(&mut self, subscribe: Subscribe) {
        let identifier = subscribe.properties.subscription_identifiers.first().copied();
        let reasons = Vec::with_capacity(subscribe.subscriptions.len());
        let replays = Some(Vec::new());
        let operation = Operation { packet_id: subscribe.packet_id, reasons, missing: 0, replays, barrier_due: false, jobs: None };
        self.operation = Some(Box::new(operation));
        for (at, subscription) in subscribe.subscriptions.into_iter().enumerate() {
            let reason = self.add_subscription(at, subscription, identifier);
            if self.ending.is_some() {
                return;
            }
            if let Some(operation) = &mut self.operation {
                operation.reasons.push(reason);
            }
        }
        self.await_retained();
        self.finish_operation();
    }

    /// What was published before this SUBSCRIBE and nobody acknowledges may still be on its way to the retained messages: the client's own
    /// is waited for, and then for all that the node was given before.
    fn await_retained(&mut self) {
        if let Some(operation) = &mut self.operation
            && operation.replays.as_ref().is_some_and(|replays| !replays.is_empty())
        {
            operation.missing += 1;
            operation.barrier_due = true;
            self.ask_barrier();
        }
    }

    /// Asks for the barrier that is due, if the client's own publishes are done.
    pub fn ask_barrier(&mut self) {
        if let Some(operation) = &mut self.operation
            && operation.barrier_due
            && self.inbound.pending.is_empty()
        {
            operation.barrier_due = false;
            self.ask(Request::Barrier, Some(Asked::Barrier));
        }
    }

    /// Adds one subscription; what a persistent session has to keep of it is asked for.
    fn add_subscription(&mut self, at: usize, subscription: Subscription, identifier: Option<SubscriptionIdentifier>) -> ReasonCode {
        let Subscription { filter: text, mut options } = subscription;
        if too_deep(&text) {
            self.end(Ending::Refused(ReasonCode::MalformedPacket));
            return ReasonCode::MalformedPacket;
        }
        let Ok(share) = shared_parts(&text).map(|parts| parts.is_some()) else { return ReasonCode::TopicFilterInvalid };
        if self.client.bridge {
            options.no_local = true;
            options.retain_as_published = true;
        }
        let existing = self.subscriptions.number_of(&text);
        if existing.is_none() && self.subscriptions.count() >= MQTT_SUBSCRIPTIONS_MAX {
            return ReasonCode::QuotaExceeded;
        }
        let Some(mut subscribed) = Subscribed::of(text, options, identifier) else { return ReasonCode::TopicFilterInvalid };
        if let Some(before) = existing.and_then(|number| self.subscriptions.get(number)) {
            subscribed.leg = before.leg;
            subscribed.note = before.note;
        }
        let (text, filter) = (subscribed.text.clone(), subscribed.filter.clone());
        let number = self.subscriptions.put(subscribed);
        if share {
            if let Some(operation) = &mut self.operation {
                operation.missing += 1;
            }
            self.join(&text, number, at);
        } else if existing.is_none() {
            self.connection.subscribe(number, filter, self.node.settings.live_overflow);
        }
        self.keep_subscription(at, number);
        let replays = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => existing.is_none(),
            RetainHandling::Never => false,
        };
        if let Some(Operation { replays: Some(numbers), .. }) = self.operation.as_deref_mut()
            && replays
            && !share
        {
            numbers.push(number);
        }
        match options.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        }
    }

    /// Asks for what a persistent session keeps of a subscription: a leg from QoS 1 on, else a note.
    fn keep_subscription(&mut self, at: usize, number: u32) {
        let Some(attachment) = self.durable.as_ref().map(|durable| durable.attachment) else { return };
        let mut moves = Vec::new();
        if let Some(subscribed) = self.subscriptions.get_mut(number)
            && subscribed.options.qos == QoS::AtMostOnce
            && let Some(partition) = subscribed.leg.take()
        {
            let filter = subscribed.filter.clone();
            moves.push(self.end_leg(attachment, partition, filter));
        }
        let (Some(durable), Some(subscribed)) = (&mut self.durable, self.subscriptions.get_mut(number)) else { return };
        if subscribed.shared || subscribed.options.qos == QoS::AtMostOnce {
            let note = subscribed.note.unwrap_or_else(|| free_note(&durable.notes));
            durable.notes.insert(note);
            subscribed.note = Some(note);
            moves.push(CursorMove::Note { attachment, notes: vec![(note, Some(subscribed.to_note()))] });
        } else {
            moves.push(CursorMove::Bind { attachment, filter: subscribed.filter.clone(), note: subscribed.to_note() });
            if let Some(note) = subscribed.note.take() {
                durable.notes.remove(&note);
                moves.push(CursorMove::Note { attachment, notes: vec![(note, None)] });
            }
        }
        self.ask_steps(at, number, moves);
    }

    fn ask_steps(&mut self, at: usize, number: u32, moves: Vec<CursorMove>) {
        if let Some(operation) = &mut self.operation {
            operation.missing += moves.len();
        }
        for one in moves {
            self.ask_cursor(one, Some(Asked::Step { at, number }));
        }
    }

    pub fn receive_unsubscribe(&mut self, unsubscribe: Unsubscribe) {
        let reasons = Vec::with_capacity(unsubscribe.filters.len());
        let operation = Operation { packet_id: unsubscribe.packet_id, reasons, missing: 0, replays: None, barrier_due: false, jobs: None };
        self.operation = Some(Box::new(operation));
        for (at, text) in unsubscribe.filters.iter().enumerate() {
            let reason = self.remove_subscription(at, text);
            if let Some(operation) = &mut self.operation {
                operation.reasons.push(reason);
            }
        }
        self.finish_operation();
    }

    fn remove_subscription(&mut self, at: usize, text: &Text) -> ReasonCode {
        let number = self.subscriptions.number_of(text);
        let Some((number, removed)) = number.and_then(|number| Some((number, self.subscriptions.remove(number)?))) else {
            return ReasonCode::NoSubscriptionExisted;
        };
        if removed.shared {
            self.leave_group(text);
        }
        self.connection.unsubscribe(number);
        self.replays.forget(number);
        self.durable.iter_mut().for_each(|durable| durable.end_replays_of(text));
        if let Some(attachment) = self.durable.as_ref().map(|durable| durable.attachment) {
            let mut moves = Vec::new();
            if let Some(partition) = removed.leg {
                moves.push(self.end_leg(attachment, partition, removed.filter));
            }
            if let (Some(note), Some(durable)) = (removed.note, &mut self.durable) {
                durable.notes.remove(&note);
                moves.push(CursorMove::Note { attachment, notes: vec![(note, None)] });
            }
            self.ask_steps(at, number, moves);
        }
        ReasonCode::Success
    }

    /// The leg of a subscription is durable.
    pub fn bound(&mut self, number: u32, leg: &Leg) {
        // A leg that is only bound to be ended later belongs to no subscription any more.
        if let (Some(durable), Some(subscribed)) = (&mut self.durable, self.subscriptions.get_mut(number))
            && subscribed.options.qos != QoS::AtMostOnce
        {
            // A leg that was there keeps its place: its reader is further than what is settled.
            if durable.closing.remove(&leg.partition).is_some() {
                durable.legs.set_closing(leg.partition, false);
                durable.legs.set_new(leg.partition, None);
                subscribed.leg = Some(leg.partition);
            } else if subscribed.leg != Some(leg.partition) {
                durable.legs.add(leg);
                durable.legs.set_new(leg.partition, Some(leg.floor));
                subscribed.leg = Some(leg.partition);
            } else {
                durable.legs.set_new(leg.partition, None);
            }
        }
        self.step_done();
    }

    pub fn step_done(&mut self) {
        if let Some(operation) = &mut self.operation {
            operation.missing = operation.missing.saturating_sub(1);
        }
        self.finish_operation();
    }

    /// A subscription that cannot be kept is none.
    pub fn step_refused(&mut self, at: usize, number: u32, refusal: &Refusal) {
        tracing::debug!(?refusal, client = self.client.id.as_str(), "a subscription is refused");
        if *refusal == Refusal::Conflict {
            return self.end(Ending::TakenOver);
        }
        if let Some(operation) = &mut self.operation {
            if let Some(reason) = operation.reasons.get_mut(at) {
                *reason = reason_of(refusal);
            }
            if let Some(replays) = &mut operation.replays {
                replays.retain(|replay| *replay != number);
                if let Some(removed) = self.subscriptions.remove(number) {
                    self.connection.unsubscribe(number);
                    if removed.shared {
                        self.leave_group(&removed.text);
                    }
                    if let (Some(durable), Some(partition)) = (&mut self.durable, removed.leg) {
                        durable.legs.remove(partition);
                    }
                }
            }
        }
        self.step_done();
    }

    /// Answers the operation, if nothing of it is missing, and begins with its retained messages.
    fn finish_operation(&mut self) {
        if self.operation.as_ref().is_some_and(|operation| operation.missing == 0 && operation.jobs.is_none()) && self.note_replays() {
            return;
        }
        let Some(operation) = self.operation.take_if(|operation| operation.missing == 0) else { return };
        let Operation { packet_id, reasons, replays, jobs, .. } = *operation;
        let properties = Properties::default();
        let Some(replays) = replays else {
            return self.send(&Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }));
        };
        self.send(&Packet::SubAck(SubAck { packet_id, properties, reasons }));
        for number in &replays {
            if let Some(subscribed) = self.subscriptions.get(*number) {
                self.replays.add_lasts(*number, &subscribed.filter, &**self.broker.view());
            }
        }
        for RetainedJob { subscription, partition, offsets, slot } in jobs.unwrap_or_default() {
            self.replays.add(subscription, partition, offsets, slot);
        }
        for number in replays {
            let Some(subscribed) = self.subscriptions.get(number) else { continue };
            if let Some(listing) = Listing::of(&self.node, &self.broker, &subscribed.filter) {
                self.replays.add_sessions(number, listing);
            }
            for message in sys::values(&self.node, &self.broker) {
                if subscribed.filter.matches(&message.subject) {
                    self.replays.add_ready(number, Arc::new(message));
                }
            }
        }
    }

    /// Looks up what is retained for the operation's subscriptions. What a kept session must not miss of it is noted first; true: that is
    /// asked for.
    fn note_replays(&mut self) -> bool {
        let Some(numbers) = self.operation.as_ref().and_then(|operation| operation.replays.clone()) else { return false };
        let (mut jobs, mut notes) = (Vec::new(), Vec::new());
        for subscription in numbers {
            let Some(subscribed) = self.subscriptions.get(subscription) else { continue };
            let Some((partition, mut offsets)) = self.broker.view().retained(&subscribed.filter) else { continue };
            offsets.sort_unstable();
            let kept = self.durable.as_mut().filter(|_| subscribed.options.qos != QoS::AtMostOnce);
            let slot = kept.zip(offsets.last()).map(|(durable, last)| {
                let replaying = Replaying { next: Offset(0), end: last.plus(1), text: subscribed.text.clone() };
                let (slot, note) = durable.flights.begin_replay(replaying);
                notes.push(note);
                slot
            });
            jobs.push(RetainedJob { subscription, partition, offsets, slot });
        }
        let Some(operation) = &mut self.operation else { return false };
        operation.jobs = Some(jobs);
        let Some(attachment) = self.durable.as_ref().map(|durable| durable.attachment).filter(|_| !notes.is_empty()) else { return false };
        operation.missing += 1;
        self.ask_cursor(CursorMove::Note { attachment, notes }, Some(Asked::Barrier));
        true
    }
}

/// More levels than any subject has: nothing could match.
fn too_deep(text: &Text) -> bool {
    text.as_bytes().iter().filter(|byte| **byte == b'/').count() >= SUBJECT_LEVELS_MAX
}

fn free_note(taken: &std::collections::HashSet<u32>) -> u32 {
    let count = u32::try_from(taken.len()).unwrap_or(u32::MAX);
    let mut notes = (0..=count).map(|number| NOTE_SUBSCRIPTION | (number & !crate::notes::NOTE_KIND));
    notes.find(|note| !taken.contains(note)).unwrap_or(NOTE_SUBSCRIPTION)
}
