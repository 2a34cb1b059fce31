//! Messages of a session that lie in none of its legs.
//!
//! Retained messages of new subscriptions, and QoS 2 messages of groups: while they are in flight they are kept as notes of the session's
//! cursor. A note says how far the exchange is and where the record lies, from where it is read if it has to be sent again.
//!
//! ```text
//! in flight:  | step u8 | packet identifier u16 | subscription identifier u32, 0: none | retain u8 | partition u32 | offset u64
//!             | text of the shared subscription; empty: a retained message |
//! replaying:  | next offset u64 | end u64 | topic filter |
//! ```
//!
//! What is retained for a new subscription goes out in the order of its offsets. How far that is is noted in one with the messages that
//! went, so that each goes once.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use firth_model::ids::{Offset, PartitionId};

use crate::codec::property::SubscriptionIdentifier;
use crate::codec::qos::PacketId;
use crate::codec::text::Text;
use crate::notes::{NOTE_FLIGHT, NOTE_KIND, NOTE_REPLAY};

/// How far the exchange of a message is. Persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// At QoS 1.
    Sent = 1,
    /// At QoS 2, waits for PUBREC.
    SentOnce = 2,
    /// At QoS 2, PUBREC came.
    Received = 3,
}

impl Step {
    /// The stage of a mark on a leg.
    pub fn stage(self) -> u8 {
        self as u8 - Step::Sent as u8
    }
}

/// A message, and how it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    pub step: Step,
    /// `None`: it has none yet.
    pub id: Option<PacketId>,
    pub identifier: Option<SubscriptionIdentifier>,
    pub retain: bool,
    pub partition: PartitionId,
    pub offset: Offset,
    /// The shared subscription it came by; empty: it is retained.
    pub share: Text,
}

/// A subscription that is still to be sent what was retained before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaying {
    pub next: Offset,
    pub end: Offset,
    pub text: Text,
}

/// All of them of one session, by slots, which are the lower part of a note's number and ascend.
#[derive(Debug, Default)]
pub struct Flights {
    next: u32,
    flying: HashMap<u32, Flight>,
    replaying: HashMap<u32, Replaying>,
    /// To be written with the next flush.
    notes: BTreeMap<u32, Option<Bytes>>,
    /// Exchanges that go on when that is durable.
    noting: Vec<PacketId>,
    /// Done; they are forgotten when their group is told.
    finished: Vec<u32>,
}

/// What is to be written.
pub type Notes = Vec<(u32, Option<Bytes>)>;

impl Flights {
    fn slot(&mut self) -> u32 {
        loop {
            self.next = (self.next + 1) & !NOTE_KIND;
            if !self.flying.contains_key(&self.next) && !self.replaying.contains_key(&self.next) {
                return self.next;
            }
        }
    }

    /// Takes up a note of an earlier connection.
    pub fn restore(&mut self, number: u32, note: &Bytes) {
        let slot = number & !NOTE_KIND;
        match number & NOTE_KIND {
            NOTE_FLIGHT => self.flying.extend(Flight::from_note(note).map(|flight| (slot, flight))),
            _ => self.replaying.extend(Replaying::from_note(note).map(|replaying| (slot, replaying))),
        }
        self.next = self.next.max(slot);
    }

    /// What is in flight, in the order in which it was sent.
    pub fn all(&self) -> Vec<(u32, Flight)> {
        let mut all: Vec<(u32, Flight)> = self.flying.iter().map(|(slot, flight)| (*slot, flight.clone())).collect();
        all.sort_unstable_by_key(|(slot, _)| *slot);
        all
    }

    pub fn get(&self, slot: u32) -> Option<&Flight> {
        self.flying.get(&slot)
    }

    /// Offsets of a partition that are in flight.
    pub fn offsets_of(&self, partition: PartitionId) -> HashSet<Offset> {
        self.flying.values().filter(|flight| flight.partition == partition).map(|flight| flight.offset).collect()
    }

    /// Offsets that are in flight of a shared subscription.
    pub fn of_share(&self, text: &Text) -> Vec<Offset> {
        self.flying.values().filter(|flight| flight.share == *text).map(|flight| flight.offset).collect()
    }

    /// A message is about to be sent. Gives its slot.
    pub fn begin(&mut self, flight: Flight) -> u32 {
        let slot = self.slot();
        self.flying.insert(slot, flight);
        slot
    }

    /// It is sent, or goes on, under this identifier; what follows at QoS 2 is done when that is durable.
    pub fn mark(&mut self, slot: u32, id: PacketId, step: Step) {
        let Some(flight) = self.flying.get_mut(&slot) else { return };
        flight.id = Some(id);
        flight.step = step;
        self.notes.insert(NOTE_FLIGHT | slot, Some(flight.to_note(id)));
        if step != Step::Sent {
            self.noting.push(id);
        }
    }

    /// The client is done with it.
    pub fn finish(&mut self, slot: u32) {
        match self.flying.get(&slot) {
            Some(flight) if !flight.share.is_empty() => self.finished.push(slot),
            Some(_) => self.forget(slot),
            None => {}
        }
    }

    /// Those that are done and whose groups are to be told: then `forget` them.
    pub fn take_finished(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.finished)
    }

    pub fn forget(&mut self, slot: u32) {
        self.flying.remove(&slot);
        self.notes.insert(NOTE_FLIGHT | slot, None);
    }

    /// A new subscription is to be sent what is retained. Gives the slot, and the note that has to be there before the client hears.
    pub fn begin_replay(&mut self, replaying: Replaying) -> (u32, (u32, Option<Bytes>)) {
        let (slot, note) = (self.slot(), replaying.to_note());
        self.replaying.insert(slot, replaying);
        (slot, (NOTE_REPLAY | slot, Some(note)))
    }

    /// Whether some subscription is still to be sent what is retained.
    pub fn is_replaying(&self) -> bool {
        !self.replaying.is_empty()
    }

    /// Subscriptions that are still to be sent what is retained.
    pub fn replays(&self) -> Vec<(u32, Replaying)> {
        let mut all: Vec<(u32, Replaying)> = self.replaying.iter().map(|(slot, replaying)| (*slot, replaying.clone())).collect();
        all.sort_unstable_by_key(|(slot, _)| *slot);
        all
    }

    /// What lies there was sent, or need not be.
    pub fn passed(&mut self, slot: u32, offset: Offset) {
        if let Some(replaying) = self.replaying.get_mut(&slot) {
            replaying.next = offset.plus(1);
            self.notes.insert(NOTE_REPLAY | slot, Some(replaying.to_note()));
        }
    }

    /// See [`crate::session::Durable::end_replay`].
    pub fn end_replay(&mut self, slot: u32) {
        if self.replaying.remove(&slot).is_some() {
            self.notes.insert(NOTE_REPLAY | slot, None);
        }
    }

    /// Nothing changed since the last flush.
    pub fn is_quiet(&self) -> bool {
        self.notes.is_empty() && self.finished.is_empty()
    }

    /// What is to be written, and the exchanges that go on then.
    pub fn flush(&mut self) -> (Notes, Vec<PacketId>) {
        (std::mem::take(&mut self.notes).into_iter().collect(), std::mem::take(&mut self.noting))
    }
}

impl Flight {
    fn to_note(&self, id: PacketId) -> Bytes {
        let mut out = BytesMut::with_capacity(20 + self.share.as_bytes().len());
        out.put_u8(self.step as u8);
        out.put_u16(id.get());
        out.put_u32(self.identifier.map_or(0, SubscriptionIdentifier::get));
        out.put_u8(u8::from(self.retain));
        out.put_u32(self.partition.0);
        out.put_u64(self.offset.0);
        out.put_slice(self.share.as_bytes());
        out.freeze()
    }

    pub fn from_note(note: &Bytes) -> Option<Flight> {
        let mut rest = note.clone();
        let step = match rest.try_get_u8().ok()? {
            1 => Step::Sent,
            2 => Step::SentOnce,
            3 => Step::Received,
            _ => return None,
        };
        Some(Flight {
            step,
            id: Some(PacketId::new(rest.try_get_u16().ok()?)?),
            identifier: SubscriptionIdentifier::parse(rest.try_get_u32().ok()?),
            retain: rest.try_get_u8().ok()? != 0,
            partition: PartitionId(rest.try_get_u32().ok()?),
            offset: Offset(rest.try_get_u64().ok()?),
            share: Text::parse(rest).ok()?,
        })
    }
}

impl Replaying {
    fn to_note(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16 + self.text.as_bytes().len());
        out.put_u64(self.next.0);
        out.put_u64(self.end.0);
        out.put_slice(self.text.as_bytes());
        out.freeze()
    }

    fn from_note(note: &Bytes) -> Option<Replaying> {
        let mut rest = note.clone();
        let (next, end) = (Offset(rest.try_get_u64().ok()?), Offset(rest.try_get_u64().ok()?));
        Some(Replaying { next, end, text: Text::parse(rest).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not zero")
    }

    fn flight(offset: u64, share: &'static str) -> Flight {
        let (partition, offset) = (PartitionId(3), Offset(offset));
        let identifier = SubscriptionIdentifier::parse(7);
        Flight { step: Step::Sent, id: None, identifier, retain: true, partition, offset, share: Text::fixed(share) }
    }

    fn restored(notes: &Notes) -> Flights {
        let mut back = Flights::default();
        for (number, note) in notes {
            note.iter().for_each(|note| back.restore(*number, note));
        }
        back
    }

    #[test]
    fn what_is_noted_comes_back() {
        let mut flights = Flights::default();
        let (replay, (number, note)) = flights.begin_replay(Replaying { next: Offset(0), end: Offset(9), text: Text::fixed("a/#") });
        assert_eq!(restored(&vec![(number, note)]).replays()[0].1.next, Offset(0));
        let (first, second) = (flights.begin(flight(4, "")), flights.begin(flight(5, "$share/g/a")));
        flights.mark(first, id(1), Step::Sent);
        flights.mark(second, id(2), Step::SentOnce);
        flights.passed(replay, Offset(5));
        let (notes, noting) = flights.flush();
        assert_eq!(noting, [id(2)]);
        let mut back = restored(&notes);
        assert_eq!((back.all(), back.replays()), (flights.all(), flights.replays()));
        assert!(back.begin(flight(6, "")) > second, "the order goes on");
        assert_eq!(back.offsets_of(PartitionId(3)).len(), 3);
    }

    #[test]
    fn what_is_done_is_forgotten_at_once_or_behind_its_group() {
        let mut flights = Flights::default();
        let (first, second) = (flights.begin(flight(4, "")), flights.begin(flight(5, "$share/g/a")));
        flights.finish(first);
        flights.finish(second);
        assert_eq!(flights.flush().0, [(NOTE_FLIGHT | first, None)]);
        assert_eq!(flights.take_finished(), [second]);
        flights.forget(second);
        assert_eq!(flights.flush().0, [(NOTE_FLIGHT | second, None)]);
        assert!(flights.all().is_empty());
    }
}
