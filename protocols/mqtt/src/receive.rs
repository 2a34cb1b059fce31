//! PUBLISH and PUBREL of a client.

use firth_gateway::answer::Tag;
use firth_gateway::connection::Full;
use firth_gateway::cursors::{CursorMove, Receipt};
use firth_gateway::publishing::Publication;
use firth_gateway::refusal::Refusal;
use firth_model::spelling::Spelling;
use firth_model::subject::{Subject, SubjectError};

use crate::codec::packet::Packet;
use crate::codec::publish::Publish;
use crate::codec::qos::{PacketId, QoS};
use crate::codec::reason::ReasonCode;
use crate::codec::text::Text;
use crate::headers::{Outline, message, set_publisher};
use crate::inbound::{Ack, Incoming, Outcome, Pending, Results};
use crate::notes::NOTE_INCOMING;
use crate::reasons::{may_pass_later, reason_of};
use crate::session::{Asked, Ending, Session};
use crate::sessions::client_under;

/// First levels to which only their own protocol publishes.
const RESERVED: [&[u8]; 5] = [b"$SYS", b"$share", b"$JS", b"$KV", b"$O"];

impl Session {
    /// Takes in a PUBLISH; it is published with the others of its socket read.
    pub fn receive_publish(&mut self, publish: Publish) {
        let subject = match self.subject_of(&publish) {
            Ok(subject) => subject,
            Err(reason) if reason == ReasonCode::TopicNameInvalid && self.client.version.has_properties() => {
                return self.refuse_publish(&publish, reason);
            }
            Err(reason) => return self.end(Ending::Refused(reason)),
        };
        let Some(packet_id) = publish.packet_id else {
            if !is_reserved(&subject) {
                self.take_in(publish, subject, None);
            } else if let Some(id) = removed_session(&publish, &subject) {
                self.remove_session(id, None);
            }
            return;
        };
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        let local = |reason| Ack { packet_id, exactly_once, outcome: Outcome::Local(reason) };
        if exactly_once && let Some(incoming) = self.inbound.known.get(&packet_id) {
            if *incoming == Incoming::Received {
                self.inbound.acks.push(local(ReasonCode::Success));
            }
            return;
        }
        if self.client.version.has_properties() && self.inbound.open() >= usize::from(self.node.settings.receive_maximum) {
            return self.end(Ending::Refused(ReasonCode::ReceiveMaximumExceeded));
        }
        if !exactly_once {
            self.inbound.unacknowledged += 1;
        }
        if is_reserved(&subject) {
            let Some(id) = removed_session(&publish, &subject) else {
                return self.inbound.acks.push(local(ReasonCode::NotAuthorized));
            };
            if exactly_once {
                self.inbound.known.insert(packet_id, Incoming::Submitted);
            }
            return self.remove_session(id, Some(Ack { packet_id, exactly_once, outcome: Outcome::At(0) }));
        }
        let receipt = match (&self.durable, exactly_once) {
            (Some(durable), true) => Some(Receipt::Leaves { attachment: durable.attachment, note: incoming_note(packet_id) }),
            _ => None,
        };
        if exactly_once {
            self.inbound.known.insert(packet_id, Incoming::Submitted);
        }
        let outcome = Outcome::At(self.inbound.batch.len());
        self.inbound.acks.push(Ack { packet_id, exactly_once, outcome });
        self.take_in(publish, subject, receipt);
    }

    fn take_in(&mut self, publish: Publish, subject: Subject, receipt: Option<Receipt>) {
        let Publish { qos, retain, properties, payload, .. } = publish;
        let outline = Outline { subject, qos, retain, properties: &properties, payload };
        let mut message = message(outline, self.now);
        if self.durable.is_some() && message.guaranteed && self.subscriptions.keeps_own_out(&message.subject) {
            set_publisher(&mut message, &self.client.id);
        }
        self.inbound.batch.push(Publication { message, receipt });
    }

    /// A PUBLISH that is not taken; its connection goes on.
    fn refuse_publish(&mut self, publish: &Publish, reason: ReasonCode) {
        let Some(packet_id) = publish.packet_id else { return };
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        if !exactly_once {
            self.inbound.unacknowledged += 1;
        }
        self.inbound.acks.push(Ack { packet_id, exactly_once, outcome: Outcome::Local(reason) });
    }

    /// The subject of a PUBLISH, by its topic or its alias.
    ///
    /// # Errors
    /// The connection cannot go on, but for a topic that is only longer than subjects are.
    fn subject_of(&mut self, publish: &Publish) -> Result<Subject, ReasonCode> {
        let alias = publish.properties.topic_alias;
        if publish.topic.is_empty() {
            // Section 3.3.2.3.4 calls it a protocol error; an alias that is too large has a reason of its own.
            let beyond = alias.is_some_and(|alias| alias.get() > self.node.settings.topic_aliases);
            let reason = if beyond { ReasonCode::TopicAliasInvalid } else { ReasonCode::ProtocolError };
            return alias.and_then(|alias| self.inbound.given.get(alias)).cloned().ok_or(reason);
        }
        let known = self.inbound.last.as_ref().filter(|(topic, _)| *topic == publish.topic);
        let subject = match known {
            Some((_, subject)) => subject.clone(),
            None => {
                let subject = Spelling::Mqtt.subject(publish.topic.as_bytes()).map_err(|error| match error {
                    SubjectError::TooLong { .. } => ReasonCode::TopicNameInvalid,
                    _ => ReasonCode::MalformedPacket,
                })?;
                self.inbound.last = Some((publish.topic.clone(), subject.clone()));
                subject
            }
        };
        if let Some(alias) = alias
            && !self.inbound.given.set(alias, subject.clone())
        {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        Ok(subject)
    }

    /// PUBREL: the identifier is forgotten, and PUBCOMP says so when that is durable.
    pub fn receive_release(&mut self, packet_id: PacketId) {
        match self.inbound.known.get(&packet_id) {
            Some(Incoming::Received) if self.durable.is_some() => {
                self.inbound.known.remove(&packet_id);
                self.inbound.forgetting.push(packet_id);
            }
            Some(Incoming::Received) => {
                self.inbound.known.remove(&packet_id);
                self.acknowledge(Packet::PubComp, packet_id, ReasonCode::Success);
            }
            // One whose PUBREC is not sent cannot be released yet: it is as unknown. A session that goes on may repeat a PUBREL whose
            // PUBCOMP was lost (5.0 section 3.7.2.1): no mistake.
            Some(Incoming::Submitted) | None => {
                let mistaken = self.client.version.has_properties() && self.durable.is_none();
                let reason = if mistaken { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
                self.acknowledge(Packet::PubComp, packet_id, reason);
            }
        }
    }

    /// Everything one socket read decoded goes down at once.
    pub fn publish_batch(&mut self) {
        if !self.inbound.forgetting.is_empty()
            && let Some(durable) = &self.durable
        {
            let ids = std::mem::take(&mut self.inbound.forgetting);
            let notes = ids.iter().map(|id| (incoming_note(*id), None)).collect();
            self.ask_cursor(CursorMove::Note { attachment: durable.attachment, notes }, Some(Asked::Forgotten(ids)));
        }
        if self.inbound.batch.is_empty() && self.inbound.acks.is_empty() {
            return;
        }
        let tag = self.tag();
        let (batch, acks) = (std::mem::take(&mut self.inbound.batch), std::mem::take(&mut self.inbound.acks));
        self.inbound.undone += batch.len() + acks.len();
        let results = batch.is_empty().then(|| Ok(Vec::new()));
        self.inbound.pending.push_back(Pending { tag, acks, publications: batch.len(), results });
        if batch.is_empty() {
            self.answer_published();
        } else if let Err(Full(batch)) = self.connection.publish(tag, batch) {
            self.inbound.held = Some((tag, batch));
        }
    }

    pub fn retry_publish(&mut self) {
        if let Some((tag, batch)) = self.inbound.held.take()
            && let Err(Full(batch)) = self.connection.publish(tag, batch)
        {
            self.inbound.held = Some((tag, batch));
        }
    }

    /// The publications of one socket read are done.
    pub fn published(&mut self, tag: Tag, results: Results) {
        if let Some(pending) = self.inbound.pending.iter_mut().find(|pending| pending.tag == tag) {
            pending.results = Some(results);
        }
        self.answer_published();
    }

    /// Acknowledges in the order in which the packets came ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
    fn answer_published(&mut self) {
        while let Some(pending) = self.inbound.pop_answered() {
            for ack in &pending.acks {
                if self.ending.is_some() {
                    return;
                }
                match ack.outcome {
                    Outcome::Local(reason) => self.acknowledge_publish(ack, reason),
                    Outcome::At(at) => self.answer_publish(ack, at, &pending),
                }
            }
        }
        self.ask_barrier();
    }

    fn answer_publish(&mut self, ack: &Ack, at: usize, pending: &Pending) {
        let refusal = match &pending.results {
            Some(Ok(results)) => match results.get(at) {
                Some(Ok(published)) => {
                    // At QoS 2 nobody looks at who hears a message before it is released, as in other brokers.
                    let unheard = published.matches == 0 && !published.duplicate && !ack.exactly_once;
                    let reason = if unheard { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
                    return self.acknowledge_publish(ack, reason);
                }
                Some(Err(refusal)) => refusal,
                None => &Refusal::Stopping,
            },
            Some(Err(refusal)) => refusal,
            None => &Refusal::Stopping,
        };
        tracing::debug!(?refusal, "a publish is refused");
        if !self.client.version.has_properties() && may_pass_later(refusal) {
            return self.end(Ending::Refused(reason_of(refusal)));
        }
        self.acknowledge_publish(ack, reason_of(refusal));
    }

    fn acknowledge_publish(&mut self, ack: &Ack, reason: ReasonCode) {
        if ack.exactly_once {
            if reason.is_failure() {
                self.inbound.known.remove(&ack.packet_id);
            } else {
                self.inbound.known.insert(ack.packet_id, Incoming::Received);
            }
        } else {
            self.inbound.unacknowledged = self.inbound.unacknowledged.saturating_sub(1);
        }
        let packet = if ack.exactly_once { Packet::PubRec } else { Packet::PubAck };
        let told = if self.client.version.has_properties() { reason } else { ReasonCode::Success };
        self.acknowledge(packet, ack.packet_id, told);
    }
}

fn incoming_note(packet_id: PacketId) -> u32 {
    NOTE_INCOMING | u32::from(packet_id.get())
}

/// The client whose session the PUBLISH is to end.
fn removed_session(publish: &Publish, subject: &Subject) -> Option<Text> {
    client_under(subject).filter(|_| publish.retain && publish.payload.is_empty())
}

/// Whether clients may not publish there.
pub fn is_reserved(subject: &Subject) -> bool {
    let reserved = subject.begins_with_dollar() && subject.levels().next().is_some_and(|first| RESERVED.contains(&first));
    reserved && !is_state_of_bridge(subject)
}

/// mosquitto's bridges say there whether they are connected, also by their wills.
fn is_state_of_bridge(subject: &Subject) -> bool {
    let after = subject.as_bytes().strip_prefix(b"$SYS/broker/connection/");
    let name = after.and_then(|rest| rest.strip_suffix(b"/state"));
    name.is_some_and(|name| !name.is_empty() && !name.contains(&b'/'))
}
