//! Messages on their way to a client: from its legs, live, and retained.

use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::message::LiveDelivery;
use firth_gateway::message::Message;
use firth_model::ids::Position;
use firth_model::subject::Subject;

use crate::codec::publish::Publish;
use crate::codec::qos::{PacketId, QoS};
use crate::codec::text::Text;
use crate::flights::{Flight, Step};
use crate::headers::{is_expired, is_published_by, properties, published_qos, topic};
use crate::legs::{Handed, LegRecord};
use crate::outgoing::Waiting;
use crate::replay::{Replayed, StoredAt};
use crate::session::Session;
use crate::subscriptions::Grant;
use crate::window::{Origin, Source, Stage};

/// A message for the client, and how it is to come.
pub struct Parcel<'a> {
    pub message: &'a Message,
    pub grant: Grant,
    pub retain: bool,
    pub source: Option<Source>,
    /// It was sent before, under this identifier.
    pub again: Option<PacketId>,
}

impl Session {
    /// Sends what the client has room for, in order: retained messages of new subscriptions, then what the legs hold and what came live,
    /// as they were published.
    pub fn pump(&mut self) {
        if let Some(durable) = &mut self.durable {
            durable.legs.stir();
        }
        while self.ending.is_none() && self.wire.has_room() && self.outgoing.has_room() {
            if self.replays.is_active() {
                if !self.pump_replay() {
                    return;
                }
                continue;
            }
            if self.deliver_handed() {
                continue;
            }
            let after = self.queue.after();
            if let Some(durable) = &mut self.durable
                && !durable.legs.is_empty()
            {
                let looked_again = durable.legs.is_due(after);
                if !durable.legs.fill(&**self.broker.view(), after) {
                    return;
                }
                if looked_again {
                    // What was published live before a record that was found just now is there by now, and may go first.
                    self.take_events();
                    continue;
                }
                let next = durable.legs.peek();
                if next.is_some_and(|position| after.is_none_or(|after| position <= after)) {
                    if !self.window.has_room() {
                        return;
                    }
                    self.deliver_record();
                    continue;
                }
            }
            if self.queue.is_empty() {
                if self.park() {
                    return;
                }
            } else if !self.deliver_live() {
                return;
            }
        }
    }

    /// True: nothing is there, and who brings something wakes the session.
    fn park(&mut self) -> bool {
        self.durable.as_mut().is_none_or(|durable| durable.legs.park(&**self.broker.view()))
    }

    /// Sends one retained message, or one that was in flight before. False: there is none to send now.
    fn pump_replay(&mut self) -> bool {
        let (subscription, message, position, stored, last_value) = match self.replays.front() {
            None => {
                self.replays.go_on(self.broker.view());
                return false;
            }
            Some(Replayed::End { slot }) => {
                let slot = *slot;
                self.replays.pop();
                self.durable.iter_mut().for_each(|durable| durable.end_replay(slot));
                return true;
            }
            Some(Replayed::Again { slot, message }) => {
                let (slot, message) = (*slot, message.clone());
                return self.send_again(slot, message);
            }
            Some(Replayed::Retained { subscription, message, position, stored, last_value }) => {
                (*subscription, message.clone(), *position, *stored, *last_value)
            }
        };
        let Some(grant) = self.subscriptions.grant_of(&[subscription], false) else {
            self.replays.pop();
            return true;
        };
        let guaranteed = published_qos(&message).min(grant.qos) != QoS::AtMostOnce;
        if guaranteed && !self.window.has_room() {
            return false;
        }
        self.replays.pop();
        let newer = self.queue.iter().any(|live| (live.message.retain || last_value) && live.message.subject == message.subject);
        if !newer && !is_expired(&message, self.now) && !stored.is_some_and(|stored| self.comes_by_leg(subscription, stored, position)) {
            let kept = stored.filter(|_| guaranteed).zip(self.durable.as_mut());
            let source = kept.map(|(StoredAt { partition, offset, .. }, durable)| {
                let (identifier, share) = (grant.identifiers.first().copied(), Text::default());
                let flight = Flight { step: Step::Sent, id: None, identifier, retain: true, partition, offset, share };
                Source { partition, offset, origin: Origin::Noted(durable.flights.begin(flight)) }
            });
            self.deliver(Parcel { message: &message, grant, retain: true, source, again: None });
        }
        if let (Some(StoredAt { slot, offset, .. }), Some(durable)) = (stored, &mut self.durable) {
            durable.flights.passed(slot, offset);
        }
        true
    }

    /// Sends a message that an earlier connection of the session was sent. False: there is no room.
    fn send_again(&mut self, slot: u32, message: Option<Arc<Message>>) -> bool {
        if !self.window.has_room() {
            return false;
        }
        self.replays.pop();
        let Some(Flight { step, id: Some(id), identifier, retain, partition, offset, .. }) =
            self.durable.as_ref().and_then(|durable| durable.flights.get(slot)).cloned()
        else {
            return true;
        };
        let source = Source { partition, offset, origin: Origin::Noted(slot) };
        match message {
            Some(message) => {
                let qos = if step == Step::Sent { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                let grant = Grant { qos, identifiers: identifier.into_iter().collect(), retain_as_published: false };
                self.deliver(Parcel { message: &message, grant, retain, source: Some(source), again: Some(id) });
            }
            // It was replaced and is gone from the log. The client may hold its identifier: it is released all the same.
            None if step == Step::SentOnce => {
                self.window.put(id, Stage::Releasing, Some(source));
                self.mark(source, id, Step::Received);
            }
            None => {
                self.window.unreserve(id);
                self.settle(Some(source));
            }
        }
        true
    }

    /// Whether a retained message was published after its subscription was made, so that the leg brings it, or did.
    fn comes_by_leg(&self, subscription: u32, retained: StoredAt, position: Position) -> bool {
        let (Some(durable), Some(subscribed)) = (&self.durable, self.subscriptions.get(subscription)) else { return false };
        let Some((leg, first)) = subscribed.leg.and_then(|leg| Some((leg, durable.legs.first_of_new(leg)?))) else { return false };
        // What several partitions capture is one batch of the journal.
        let view = self.broker.view();
        let Some(((base, count), (own_base, own_count))) = view.batch_at(leg, position).zip(view.batch_at(retained.partition, position))
        else {
            return false;
        };
        let at = retained.offset.0.saturating_sub(own_base.0);
        count == own_count && base.0 + at >= first.0
    }

    /// Sends the next record of the legs, or settles it unseen.
    fn deliver_record(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        let Some(LegRecord { source, stored, elsewhere, closing }) = durable.legs.take() else { return };
        let handed = durable.handed.before.remove(&source);
        if let Some(Handed::Received(_)) = handed {
            // Its PUBREL is on its way already.
            return;
        }
        let message = &stored.message;
        let own = is_published_by(message, &self.client.id);
        let again = match handed {
            Some(Handed::Once(id) | Handed::Marked(id)) => PacketId::new(id),
            _ => None,
        };
        let expired = again.is_none() && is_expired(message, self.now);
        let grant = match closing {
            true => again.map(|_| Grant::default()),
            false if elsewhere || expired => None,
            false => self.subscriptions.grant_for(&message.subject, own),
        };
        let Some(mut grant) = grant else { return self.settle(Some(source)) };
        match handed {
            Some(Handed::Once(_)) => grant.qos = QoS::AtLeastOnce,
            Some(Handed::Marked(_)) => grant.qos = QoS::ExactlyOnce,
            _ => {}
        }
        let retain = grant.retain_as_published && message.retain;
        self.deliver(Parcel { message, grant, retain, source: Some(source), again });
    }

    /// Sends the oldest live message. False: it has to wait.
    fn deliver_live(&mut self) -> bool {
        let Some(LiveDelivery { message, subscriptions, .. }) = self.queue.front() else { return true };
        let own = message.publisher == self.connection.id();
        let guaranteed = published_qos(message) != QoS::AtMostOnce;
        let by_leg = guaranteed && self.durable.is_some() && self.subscriptions.has_leg(subscriptions);
        let grant = if by_leg { None } else { self.subscriptions.grant_of(subscriptions, own) };
        let message = message.clone();
        let expired = is_expired(&message, self.now);
        if let Some(mut grant) = grant
            && !expired
        {
            // What a persistent session gets live is what it may miss.
            if self.durable.is_some() {
                grant.qos = QoS::AtMostOnce;
            }
            if guaranteed && grant.qos != QoS::AtMostOnce && !self.window.has_room() {
                return false;
            }
            let retain = grant.retain_as_published && message.retain;
            self.deliver(Parcel { message: &message, grant, retain, source: None, again: None });
        }
        self.queue.pop();
        true
    }

    /// Whether a node that was stopped without a word may have sent the record to this client: DUP says that it might have
    /// ([MQTT-3.3.1-1]).
    fn may_have_been_sent(&self, source: Source) -> bool {
        let durable = self.durable.as_ref().filter(|_| matches!(source.origin, Origin::Leg | Origin::Noted(_)));
        durable.and_then(|durable| durable.doubtful.get(&source.partition)).is_some_and(|end| source.offset < *end)
    }

    /// Sends a message, for which there is room in the window.
    pub fn deliver(&mut self, parcel: Parcel<'_>) {
        let Parcel { message, grant, retain, source, again } = parcel;
        let qos = if again.is_some() { grant.qos } else { grant.qos.min(published_qos(message)) };
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => again.or_else(|| self.window.free_id()),
        };
        let Some(topic) = self.topic_of(&message.subject).filter(|_| packet_id.is_some() == (qos != QoS::AtMostOnce)) else {
            return self.lose(source);
        };
        let properties = match self.client.version.has_properties() {
            true => properties(message, grant.identifiers, self.now),
            false => crate::codec::property::Properties::default(),
        };
        static EMPTY: Bytes = Bytes::new();
        let payload = message.value.as_ref().unwrap_or(&EMPTY);
        let doubtful = qos == QoS::AtLeastOnce && source.is_some_and(|source| self.may_have_been_sent(source));
        let publish = Publish { dup: again.is_some() || doubtful, qos, retain, topic, packet_id, properties, payload: Bytes::new() };
        let marking = qos == QoS::ExactlyOnce && again.is_none() && source.is_some_and(|source| source.origin.is_kept());
        if let Some(id) = packet_id {
            let stage = match qos {
                QoS::ExactlyOnce if marking => Stage::Marking,
                QoS::ExactlyOnce => Stage::SentOnce,
                _ => Stage::Sent,
            };
            self.window.put(id, stage, source);
            match source {
                // [MQTT-4.3.3-2]: the identifier is stored before the message goes.
                Some(record) if marking => self.mark(record, id, Step::SentOnce),
                // Of a leg that is remembered when the connection ends.
                Some(record) if matches!(record.origin, Origin::Noted(_)) && again.is_none() => self.mark(record, id, Step::Sent),
                _ => {}
            }
        }
        if marking || !self.outgoing.is_empty() {
            let publish = Publish { payload: payload.clone(), ..publish };
            return self.outgoing.add(Waiting { publish, subject: message.subject.clone(), source, marking });
        }
        self.send_publish(publish, payload, &message.subject, source);
    }

    /// The topic of a subject. `None`: MQTT has no room for it.
    fn topic_of(&mut self, subject: &Subject) -> Option<Text> {
        if let Some((last, topic)) = &self.last_topic
            && last == subject
        {
            return Some(topic.clone());
        }
        let topic = topic(subject)?;
        self.last_topic = Some((subject.clone(), topic.clone()));
        Some(topic)
    }

    /// Sends what waited for an identifier that is durable now.
    pub fn send_waiting(&mut self) {
        while let Some(Waiting { mut publish, subject, source, .. }) = self.outgoing.pop() {
            let payload = std::mem::take(&mut publish.payload);
            self.send_publish(publish, &payload, &subject, source);
        }
    }

    /// The client cannot be sent the message: it is too large for it.
    fn lose(&mut self, source: Option<Source>) {
        self.node.counts.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.settle(source);
    }

    /// Sends a PUBLISH, with an alias for its topic if the client takes any. At QoS 0 the session is done with it.
    fn send_publish(&mut self, mut publish: Publish, payload: &Bytes, subject: &Subject, source: Option<Source>) {
        let alias = if self.client.version.has_properties() { self.taken.of(subject) } else { None };
        if let Some((alias, known)) = alias {
            publish.properties.edit().topic_alias = Some(alias);
            if known {
                publish.topic = Text::default();
            }
        }
        if self.wire.publish(&publish, payload, &self.client.receiver).is_err() {
            if let Some(id) = publish.packet_id {
                self.window.remove(id);
            }
            return self.lose(source);
        }
        self.node.counts.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some((alias, false)) = alias {
            self.taken.told(alias, subject);
        }
        if publish.packet_id.is_none() {
            self.settle(source);
        }
    }
}
