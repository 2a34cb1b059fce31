//! What one connected client is to its node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use firth_gateway::answer::Tag;
use firth_gateway::connection::{Connection, Full};
use firth_gateway::cursors::{Attachment, CursorMove, Settle, Settlement};
use firth_gateway::door::Broker;
use firth_gateway::request::Request;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};
use firth_model::subject::Subject;
use firth_model::time::Millis;
use tokio::time::{Duration, Instant};

use crate::aliases::{Given, Taken};
use crate::codec::acknowledgement::Acknowledgement;
use crate::codec::connect::Will;
use crate::codec::encode::Receiver;
use crate::codec::leave::Disconnect;
use crate::codec::packet::Packet;
use crate::codec::qos::PacketId;
use crate::codec::reason::ReasonCode;
use crate::codec::text::Text;
use crate::codec::version::ProtocolVersion;
use crate::flights::{Flights, Step};
use crate::inbound::Inbound;
use crate::legs::{HandedOut, Legs};
use crate::membership::Memberships;
use crate::node::Node;
use crate::notes::CLOSING_NOTE;
use crate::outgoing::Outgoing;
use crate::queue::Queue;
use crate::registry::Seat;
use crate::replay::Replays;
use crate::subscriptions::Subscriptions;
use crate::window::{Origin, Source, Window};
use crate::wire::Wire;

/// What does not change while a client is connected.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: Text,
    pub version: ProtocolVersion,
    pub receiver: Receiver,
    /// Another broker, which wants retain flags as they were published and nothing of its own back.
    pub bridge: bool,
    /// A client that is silent for so long is gone.
    pub patience: Option<Duration>,
    /// The session's expiry interval; `u32::MAX` is never.
    pub expiry_s: u32,
}

/// The part of a session that outlives its connection.
pub struct Durable {
    pub attachment: Attachment,
    pub legs: Legs,
    /// What earlier connections were handed, until it is sent again.
    pub handed: HandedOut,
    /// What is in flight and lies in none of the legs.
    pub flights: Flights,
    /// To be settled with the next flush.
    pub settles: Vec<Settle>,
    /// Exchanges whose marks are in `settles`.
    pub marking: Vec<PacketId>,
    pub notes: HashSet<u32>,
    /// Records below these offsets may have been sent at QoS 1 before the node stopped without saying so.
    pub doubtful: HashMap<PartitionId, Offset>,
    /// Legs whose subscription is over while something of them is in flight.
    pub closing: HashMap<PartitionId, Filter>,
}

impl Durable {
    /// Nothing is remembered yet.
    pub fn attached(attachment: Attachment) -> Durable {
        Durable {
            attachment,
            legs: Legs::default(),
            handed: HandedOut::default(),
            flights: Flights::default(),
            settles: Vec::new(),
            marking: Vec::new(),
            notes: HashSet::new(),
            doubtful: HashMap::new(),
            closing: HashMap::new(),
        }
    }

    /// The subscription is over: it needs nothing any more of what was retained.
    pub fn end_replays_of(&mut self, text: &Text) {
        for (slot, _) in self.flights.replays().into_iter().filter(|(_, replaying)| replaying.text == *text) {
            self.end_replay(slot);
        }
    }

    /// A new subscription has all that was retained.
    pub fn end_replay(&mut self, slot: u32) {
        self.flights.end_replay(slot);
        if !self.flights.is_replaying() {
            // What comes retained from now on is sent for the first time.
            self.doubtful.retain(|partition, _| self.legs.has(*partition));
        }
    }
}

/// What a request is to do when it is answered.
pub enum Asked {
    /// One step of the SUBSCRIBE or UNSUBSCRIBE in work; which of its subscriptions, and its number.
    Step { at: usize, number: u32 },
    /// What was published before the SUBSCRIBE in work is durable.
    Barrier,
    /// Marks of these exchanges are durable.
    Marked(Vec<PacketId>),
    /// A group is told that its message is done: whatever comes of it.
    Aside,
    /// Incoming identifiers are forgotten: PUBCOMP.
    Forgotten(Vec<PacketId>),
}

/// SUBSCRIBE or UNSUBSCRIBE in work; nothing that its client sent later is looked at before it is answered.
pub struct Operation {
    pub packet_id: PacketId,
    pub reasons: Vec<ReasonCode>,
    /// Answers that are missing.
    pub missing: usize,
    /// Subscriptions that get retained messages. `None`: it is an UNSUBSCRIBE.
    pub replays: Option<Vec<u32>>,
    /// What the client published before is not stored yet; the barrier comes behind that.
    pub barrier_due: bool,
    /// What they get of it that is stored; looked up when everything else is done.
    pub jobs: Option<Vec<RetainedJob>>,
}

/// What is retained for one new subscription, and the slot of its note if the session must not miss it.
pub struct RetainedJob {
    pub subscription: u32,
    pub partition: PartitionId,
    pub offsets: Vec<Offset>,
    pub slot: Option<u32>,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client said goodbye; `will`: and wants its will published.
    Left {
        will: bool,
    },
    /// The client closed, or cannot be reached.
    Lost,
    /// The node ends it, for this reason.
    Refused(ReasonCode),
    TakenOver,
    /// Somebody removed the session.
    Removed,
    Stopping,
}

/// Live messages that the client was too slow for.
#[derive(Debug, Default)]
pub struct LiveDrops {
    /// Those of the connection's outbox that were counted.
    pub outside: u64,
    pub unsaid: u64,
    /// When the log last said it.
    pub said: Option<Millis>,
}

pub struct Session {
    pub node: Arc<Node>,
    pub broker: Broker,
    pub client: Client,
    pub seat: Seat,
    pub wire: Wire,
    pub connection: Connection,
    pub next_tag: u64,
    /// Requests for which the node had no room; the socket is left unread until they are taken.
    pub held: VecDeque<(Tag, Request)>,
    pub asked: HashMap<Tag, Asked>,
    pub operation: Option<Box<Operation>>,
    pub inbound: Inbound,
    pub subscriptions: Subscriptions,
    pub window: Window,
    pub taken: Taken,
    pub queue: Queue,
    /// What a client is sent often comes under one topic for a while.
    pub last_topic: Option<(Subject, Text)>,
    pub live_drops: LiveDrops,
    pub outgoing: Outgoing,
    pub replays: Replays,
    pub durable: Option<Box<Durable>>,
    /// Groups of shared subscriptions.
    pub memberships: Option<Box<Memberships>>,
    pub will: Option<Box<Will>>,
    /// PINGREQs that are answered behind what was to be sent before they came.
    pub pings: u32,
    pub heard_at: Instant,
    /// The node's clock as it was when the session last had something to do: it is asked once for all that came together.
    pub now: Millis,
    pub ending: Option<Ending>,
}

impl Session {
    pub fn of(node: Arc<Node>, broker: Broker, client: Client, seat: Seat, wire: Wire, connection: Connection) -> Session {
        let now = broker.now();
        Session {
            inbound: Inbound { given: Given::up_to(node.settings.topic_aliases), ..Inbound::default() },
            node,
            broker,
            client,
            seat,
            wire,
            connection,
            next_tag: 0,
            held: VecDeque::new(),
            asked: HashMap::new(),
            operation: None,
            subscriptions: Subscriptions::default(),
            window: Window::of(u16::MAX),
            taken: Taken::default(),
            queue: Queue::default(),
            last_topic: None,
            live_drops: LiveDrops::default(),
            replays: Replays::default(),
            durable: None,
            memberships: None,
            will: None,
            pings: 0,
            outgoing: Outgoing::default(),
            heard_at: Instant::now(),
            now,
            ending: None,
        }
    }

    pub fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        Tag(self.next_tag)
    }

    /// Sends a packet that its receiver can be sent; one that is too large for it even without what may be left out is not sent.
    pub fn send(&mut self, packet: &Packet) {
        if let Err(error) = self.wire.send(packet, &self.client.receiver) {
            tracing::debug!(%error, kind = ?packet.kind(), "a packet is not sent");
        }
    }

    pub fn acknowledge(&mut self, packet: fn(Acknowledgement) -> Packet, id: PacketId, reason: ReasonCode) {
        self.send(&packet(Acknowledgement::of(id, reason)));
    }

    pub fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    /// Asks the node, now or as soon as it has room.
    pub fn ask(&mut self, request: Request, asked: Option<Asked>) {
        let tag = self.tag();
        if let Some(asked) = asked {
            self.asked.insert(tag, asked);
        }
        if !self.held.is_empty() {
            self.held.push_back((tag, request));
        } else if let Err(Full(request)) = self.connection.submit(tag, request) {
            self.held.push_back((tag, request));
        }
    }

    pub fn ask_cursor(&mut self, cursor_move: CursorMove, asked: Option<Asked>) {
        self.ask(Request::Cursor(Box::new(cursor_move)), asked);
    }

    /// Tries again what found no room.
    pub fn retry_held(&mut self) {
        while let Some((tag, request)) = self.held.pop_front() {
            if let Err(Full(request)) = self.connection.submit(tag, request) {
                self.held.push_front((tag, request));
                return;
            }
        }
    }

    /// The session needs the record no more.
    pub fn settle(&mut self, source: Option<Source>) {
        let Some(source) = source else { return };
        let Source { partition, offset, origin } = source;
        if let Origin::Group(place) = origin {
            return self.memberships.iter_mut().for_each(|memberships| memberships.settle(place, offset));
        }
        let Some(durable) = &mut self.durable else { return };
        if let Origin::Noted(slot) = origin {
            return durable.flights.finish(slot);
        }
        if let Some(Settle { partition: last, what: Settlement::Done { to, .. } }) = durable.settles.last_mut()
            && *last == partition
            && *to == offset
        {
            *to = offset.plus(1);
            return;
        }
        durable.settles.push(Settle { partition, what: Settlement::Done { from: offset, to: Offset(offset.0.saturating_add(1)) } });
    }

    /// Remembers on disk how far the exchange of a record is; what follows is done when it is there.
    pub fn mark(&mut self, source: Source, id: PacketId, step: Step) {
        let Some(durable) = &mut self.durable else { return };
        if let Origin::Noted(slot) = source.origin {
            return durable.flights.mark(slot, id, step);
        }
        let stage = step.stage();
        let what = Settlement::Mark { offset: source.offset, tag: u32::from(id.get()), stage };
        durable.settles.push(Settle { partition: source.partition, what });
        durable.marking.push(id);
    }

    /// Sends down what was settled since the last time.
    pub fn flush_settles(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        if durable.settles.is_empty() {
            return self.flush_flights();
        }
        let settles = std::mem::take(&mut durable.settles);
        let marking = std::mem::take(&mut durable.marking);
        let attachment = durable.attachment;
        let asked = (!marking.is_empty()).then_some(Asked::Marked(marking));
        self.ask_cursor(CursorMove::Settle { attachment, settles }, asked);
        self.flush_flights();
    }

    /// Whether a message of the leg was sent and is not acknowledged, by this connection or an earlier one.
    fn has_in_flight(&self, partition: PartitionId) -> bool {
        let before = self.durable.as_ref().is_some_and(|durable| durable.handed.before.keys().any(|source| source.partition == partition));
        before || self.window.has_of(partition)
    }

    /// What is asked for when the subscription of a leg is over: the leg goes, when nothing of it is in flight any more.
    pub fn end_leg(&mut self, attachment: Attachment, partition: PartitionId, filter: Filter) -> CursorMove {
        let busy = self.has_in_flight(partition);
        if let Some(durable) = &mut self.durable {
            if busy {
                durable.legs.set_closing(partition, true);
                durable.closing.insert(partition, filter.clone());
                return CursorMove::Bind { attachment, filter, note: CLOSING_NOTE.into() };
            }
            durable.legs.remove(partition);
        }
        CursorMove::Unbind { attachment, filter }
    }

    /// Ends legs of which nothing is in flight any more.
    pub fn end_closing(&mut self) {
        let Some(durable) = &self.durable else { return };
        // A SUBSCRIBE in work may be about to take one of them up again.
        if durable.closing.is_empty() || self.operation.is_some() {
            return;
        }
        let attachment = durable.attachment;
        let partitions: Vec<PartitionId> = durable.closing.keys().copied().collect();
        for partition in partitions {
            if self.has_in_flight(partition) {
                continue;
            }
            let Some(durable) = &mut self.durable else { return };
            durable.legs.remove(partition);
            if let Some(filter) = durable.closing.remove(&partition) {
                self.ask_cursor(CursorMove::Unbind { attachment, filter }, None);
            }
        }
    }

    /// The last packet to a client whose connection the node ends, where its version has one.
    pub fn say_why(&mut self, reason: ReasonCode) {
        if self.client.version.has_properties() {
            self.send(&Packet::Disconnect(Disconnect::because(reason)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use firth_gateway::cursors::CursorId;
    use firth_model::ids::Position;

    use crate::flights::Replaying;

    /// Who unsubscribes and subscribes again is sent what is retained for the first time, without DUP.
    #[test]
    fn with_its_last_replay_goes_the_doubt_about_it() {
        let (retained, leg) = (PartitionId(1), PartitionId(2));
        let mut durable = Durable::attached(Attachment { cursor: CursorId(1), generation: 1 });
        durable.legs.add(&firth_gateway::cursors::Leg {
            filter: Filter::parse("a/#").expect("a filter"),
            note: bytes::Bytes::new(),
            partition: leg,
            bound_at: Position(0),
            floor: Offset(0),
            settled: Vec::new(),
            marks: Vec::new(),
            attempts: Vec::new(),
        });
        let (one, other) = (Text::fixed("a/#"), Text::fixed("b/#"));
        for text in [&one, &other] {
            durable.flights.begin_replay(Replaying { next: Offset(0), end: Offset(9), text: text.clone() });
        }
        durable.doubtful.extend([(retained, Offset(9)), (leg, Offset(3))]);
        durable.end_replays_of(&one);
        assert_eq!((durable.flights.replays().len(), durable.doubtful.len()), (1, 2));
        durable.end_replays_of(&other);
        assert_eq!((durable.flights.is_replaying(), durable.doubtful), (false, HashMap::from([(leg, Offset(3))])));
    }
}
