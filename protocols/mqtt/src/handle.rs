//! What each packet of a connected client does.

use firth_gateway::answer::{Answer, Event, Tag};
use firth_gateway::cursors::CursorAnswer;
use firth_gateway::refusal::Refusal;

use crate::codec::acknowledgement::Acknowledgement;
use crate::codec::decode::decode;
use crate::codec::kind::Sender;
use crate::codec::leave::Disconnect;
use crate::codec::packet::Packet;
use crate::codec::qos::PacketId;
use crate::codec::reason::ReasonCode;
use crate::flights::Step;
use crate::reasons::reason_of;
use crate::session::{Asked, Ending, Session};
use crate::window::{InFlight, Stage};

/// How often the log says that a client loses live messages.
const DROPS_SAID_EVERY_MS: i64 = 60_000;

impl Session {
    /// Takes every whole packet out of what was received, up to one that has to wait for the node.
    pub fn decode(&mut self) {
        let bytes_max = self.node.settings.packet_bytes_max(self.client.version);
        while self.ending.is_none() && self.operation.is_none() && self.inbound.held.is_none() {
            match decode(&mut self.wire.received, self.client.version, Sender::Client, bytes_max) {
                Ok(Some(packet)) => self.handle(packet),
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, client = self.client.id.as_str(), "a packet is refused");
                    let ending = if error.quiet { Ending::Lost } else { Ending::Refused(error.reason) };
                    self.end(ending);
                }
            }
        }
        self.wire.rest();
        self.publish_batch();
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => {
                self.node.counts.received.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.receive_publish(publish);
            }
            Packet::PubAck(step) => self.receive_puback(step.packet_id),
            Packet::PubRec(step) => self.receive_pubrec(&step),
            Packet::PubRel(step) => {
                // What was published before is acknowledged before.
                self.publish_batch();
                self.receive_release(step.packet_id);
            }
            Packet::PubComp(step) => self.receive_pubcomp(step.packet_id),
            Packet::Subscribe(subscribe) => {
                self.publish_batch();
                self.receive_subscribe(subscribe);
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.publish_batch();
                self.receive_unsubscribe(unsubscribe);
            }
            Packet::PingReq => {
                self.pings = self.pings.saturating_add(1);
                self.publish_batch();
                self.pump();
                self.answer_pings();
            }
            Packet::Disconnect(disconnect) => self.receive_disconnect(&disconnect),
            Packet::Auth(_) => self.end(Ending::Refused(ReasonCode::ProtocolError)),
            // The codec lets no client send these, nor a second CONNECT.
            Packet::Connect(_) | Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.end(Ending::Refused(ReasonCode::ProtocolError))
            }
        }
    }

    /// Answers pings; not before the retained messages that are being read, if that does not take long.
    pub fn answer_pings(&mut self) {
        if !self.replays.is_reading() || !self.replays.is_brief() {
            for _ in 0..std::mem::take(&mut self.pings) {
                self.send(&Packet::PingResp);
            }
        }
    }

    fn receive_puback(&mut self, id: PacketId) {
        match self.window.get(id) {
            Some(InFlight { stage: Stage::Sent, source }) => {
                let source = *source;
                self.window.remove(id);
                self.settle(source);
            }
            Some(_) => self.end(Ending::Refused(ReasonCode::ProtocolError)),
            None => {}
        }
    }

    fn receive_pubrec(&mut self, step: &Acknowledgement) {
        let id = step.packet_id;
        let Some(flight) = self.window.get(id) else {
            let unknown = self.client.version.has_properties();
            let reason = if unknown { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
            return self.acknowledge(Packet::PubRel, id, reason);
        };
        let source = flight.source;
        match (&flight.stage, source) {
            (Stage::SentOnce, _) if step.reason.is_failure() => {
                self.window.remove(id);
                self.settle(source);
            }
            (Stage::SentOnce, Some(record)) if record.origin.is_kept() => {
                flight.stage = Stage::Releasing;
                self.mark(record, id, Step::Received);
            }
            (Stage::SentOnce, _) => {
                flight.stage = Stage::Released;
                self.acknowledge(Packet::PubRel, id, ReasonCode::Success);
            }
            (Stage::Released, _) => self.acknowledge(Packet::PubRel, id, ReasonCode::Success),
            (Stage::Releasing, _) => {}
            (Stage::Sent | Stage::Marking, _) => self.end(Ending::Refused(ReasonCode::ProtocolError)),
        }
    }

    fn receive_pubcomp(&mut self, id: PacketId) {
        match self.window.get(id) {
            Some(InFlight { stage: Stage::Released, source }) => {
                let source = *source;
                self.window.remove(id);
                self.settle(source);
            }
            Some(_) => self.end(Ending::Refused(ReasonCode::ProtocolError)),
            None => {}
        }
    }

    fn receive_disconnect(&mut self, disconnect: &Disconnect) {
        if let Some(expiry_s) = disconnect.properties.session_expiry_s {
            // Section 3.14.2.2.2: a session that was to end cannot be kept after all.
            if self.client.expiry_s == 0 && expiry_s != 0 {
                return self.end(Ending::Refused(ReasonCode::ProtocolError));
            }
            self.client.expiry_s = expiry_s.min(self.node.settings.session_expiry_s_max.unwrap_or(u32::MAX));
        }
        self.end(Ending::Left { will: disconnect.reason != ReasonCode::Success });
    }

    pub fn event(&mut self, event: Event) {
        match event {
            Event::Live(deliveries) => {
                let (dropped, overrun) = self.queue.add(deliveries, self.node.settings.live_overflow);
                self.count_dropped(dropped);
                if overrun {
                    self.end(Ending::Refused(ReasonCode::QuotaExceeded));
                }
            }
            Event::Dropped { partition, runs } => {
                if let Some(durable) = &mut self.durable {
                    durable.legs.skip(partition, &runs);
                }
            }
            Event::Overrun => {
                self.count_dropped(0);
                self.end(Ending::Refused(ReasonCode::QuotaExceeded));
            }
            Event::Reply { tag, result } => self.replied(tag, result),
        }
    }

    /// So many, and those that were dropped before they came here.
    fn count_dropped(&mut self, records: u64) {
        let outside = self.connection.dropped();
        let records = records + outside - std::mem::replace(&mut self.live_drops.outside, outside);
        if records == 0 {
            return;
        }
        self.node.counts.dropped.fetch_add(records, std::sync::atomic::Ordering::Relaxed);
        let drops = &mut self.live_drops;
        drops.unsaid += records;
        let now = self.broker.now();
        if drops.said.is_none_or(|said| now.since(said) >= DROPS_SAID_EVERY_MS) {
            drops.said = Some(now);
            let records = std::mem::take(&mut drops.unsaid);
            tracing::warn!(client = self.client.id.as_str(), records, "a client is too slow: live messages were dropped");
        }
    }

    fn replied(&mut self, tag: Tag, result: Result<Answer, Refusal>) {
        if let Some(asked) = self.asked.remove(&tag) {
            return self.answered(asked, result);
        }
        match result {
            Ok(Answer::Published(results)) => self.published(tag, Ok(results)),
            Ok(_) => {}
            // What was settled lazily has no other answer; a session that is somebody else's by now ends.
            Err(Refusal::Conflict) => self.end(Ending::TakenOver),
            Err(refusal) => self.published(tag, Err(refusal)),
        }
    }

    fn answered(&mut self, asked: Asked, result: Result<Answer, Refusal>) {
        match (asked, result) {
            (Asked::Step { number, .. }, Ok(Answer::Cursor(CursorAnswer::Bound { leg, .. }))) => self.bound(number, &leg),
            (Asked::Step { .. }, Ok(_)) | (Asked::Barrier, _) => self.step_done(),
            (Asked::Aside, _) => {}
            (Asked::Step { at, number }, Err(refusal)) => self.step_refused(at, number, &refusal),
            (Asked::Marked(ids), Ok(_)) => ids.into_iter().for_each(|id| self.marked(id)),
            (Asked::Forgotten(ids), Ok(_)) => ids.into_iter().for_each(|id| self.acknowledge(Packet::PubComp, id, ReasonCode::Success)),
            (_, Err(Refusal::Conflict)) => self.end(Ending::TakenOver),
            (Asked::Marked(_) | Asked::Forgotten(_), Err(refusal)) => {
                tracing::warn!(?refusal, client = self.client.id.as_str(), "a session cannot be written");
                self.end(Ending::Refused(match reason_of(&refusal) {
                    ReasonCode::QuotaExceeded => ReasonCode::QuotaExceeded,
                    _ => ReasonCode::UnspecifiedError,
                }));
            }
        }
    }

    /// How far an exchange is, is durable: the packet that had to wait for it goes.
    fn marked(&mut self, id: PacketId) {
        match self.window.get(id) {
            Some(flight @ InFlight { stage: Stage::Marking, .. }) => {
                flight.stage = Stage::SentOnce;
                self.outgoing.marked(id);
                self.send_waiting();
            }
            Some(flight @ InFlight { stage: Stage::Releasing, .. }) => {
                flight.stage = Stage::Released;
                self.acknowledge(Packet::PubRel, id, ReasonCode::Success);
            }
            _ => {}
        }
    }
}
