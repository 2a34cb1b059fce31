//! Messages that a client was sent and has not acknowledged.

use std::collections::{HashMap, HashSet};

use firth_model::ids::{Offset, PartitionId};

use crate::codec::qos::PacketId;

/// The record that a packet carries, of a persistent session or of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub partition: PartitionId,
    pub offset: Offset,
    pub origin: Origin,
}

/// Where a record comes from, and so who is told when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A leg of the session's own.
    Leg,
    /// A group of shared subscriptions, by its place among the client's.
    Group(u32),
    /// Kept as a note of the session, in this slot of `Flights`.
    Noted(u32),
}

impl Origin {
    /// Whether the session keeps on disk how far an exchange is.
    pub fn is_kept(self) -> bool {
        !matches!(self, Origin::Group(_))
    }
}

/// How far the exchange of a message is (MQTT 5.0 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// QoS 1, waits for PUBACK.
    Sent,
    /// QoS 2, its identifier is being made durable.
    Marking,
    /// QoS 2, waits for PUBREC.
    SentOnce,
    /// That PUBREC came is being made durable.
    Releasing,
    /// PUBREL is sent, waits for PUBCOMP.
    Released,
}

#[derive(Debug)]
pub struct InFlight {
    pub stage: Stage,
    pub source: Option<Source>,
}

/// One client's messages in flight, by packet identifier.
#[derive(Debug)]
pub struct Window {
    max: usize,
    last: u16,
    flying: HashMap<PacketId, InFlight>,
    /// Identifiers of messages that an earlier connection of the session sent and this one has not sent again.
    reserved: HashSet<PacketId>,
}

impl Window {
    /// At most `max` at once.
    pub fn of(max: u16) -> Window {
        Window { max: usize::from(max), last: 0, flying: HashMap::new(), reserved: HashSet::new() }
    }

    pub fn has_room(&self) -> bool {
        self.flying.len() < self.max
    }

    pub fn count(&self) -> usize {
        self.flying.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flying.is_empty()
    }

    /// Keeps an identifier for a message that is to be sent again.
    pub fn reserve(&mut self, id: PacketId) {
        self.reserved.insert(id);
    }

    pub fn unreserve(&mut self, id: PacketId) {
        self.reserved.remove(&id);
    }

    /// An identifier that is free. There is one while there is room: the window is smaller than the space of identifiers, and what is
    /// reserved was in such a window. `None` if a client managed to have all of them reserved.
    pub fn free_id(&mut self) -> Option<PacketId> {
        for _ in 0..=u16::MAX {
            self.last = self.last.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last)
                && !self.flying.contains_key(&id)
                && !self.reserved.contains(&id)
            {
                return Some(id);
            }
        }
        None
    }

    pub fn put(&mut self, id: PacketId, stage: Stage, source: Option<Source>) {
        self.reserved.remove(&id);
        self.flying.insert(id, InFlight { stage, source });
    }

    pub fn get(&mut self, id: PacketId) -> Option<&mut InFlight> {
        self.flying.get_mut(&id)
    }

    pub fn remove(&mut self, id: PacketId) -> Option<InFlight> {
        self.flying.remove(&id)
    }

    /// QoS 1 messages of the session's records that wait for their PUBACK.
    pub fn unacknowledged(&self) -> Vec<(Source, PacketId)> {
        let sent = self.flying.iter().filter(|(_, flight)| flight.stage == Stage::Sent);
        sent.filter_map(|(id, flight)| Some((flight.source.filter(|source| source.origin == Origin::Leg)?, *id))).collect()
    }

    /// Whether something of a leg is in flight.
    pub fn has_of(&self, partition: PartitionId) -> bool {
        let mut sources = self.flying.values().filter_map(|flight| flight.source);
        sources.any(|source| source.origin == Origin::Leg && source.partition == partition)
    }

    /// What is in flight of groups.
    pub fn shared(&self) -> Vec<(Source, PacketId, Stage)> {
        let all = self.flying.iter();
        all.filter_map(|(id, flight)| Some((flight.source.filter(|source| matches!(source.origin, Origin::Group(_)))?, *id, flight.stage)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not zero")
    }

    #[test]
    fn identifiers_come_round_and_pass_over_those_in_use() {
        let mut window = Window::of(2);
        window.reserve(id(1));
        assert_eq!(window.free_id(), Some(id(2)));
        window.put(id(2), Stage::Sent, None);
        window.last = u16::MAX - 1;
        assert_eq!(window.free_id(), Some(id(u16::MAX)));
        assert_eq!(window.free_id(), Some(id(3)), "0 is none, 1 is reserved, 2 is in flight");
        window.put(id(1), Stage::SentOnce, None);
        assert!(!window.has_room());
        assert!(window.remove(id(1)).is_some() && window.has_room());
        window.last = 0;
        assert_eq!(window.free_id(), Some(id(1)));
    }

    #[test]
    fn only_unacknowledged_records_are_remembered() {
        let mut window = Window::of(9);
        let source = |offset| Source { partition: PartitionId(7), offset: Offset(offset), origin: Origin::Leg };
        window.put(id(1), Stage::Sent, Some(source(4)));
        window.put(id(2), Stage::Sent, None);
        window.put(id(3), Stage::SentOnce, Some(source(5)));
        assert_eq!(window.unacknowledged(), [(source(4), id(1))]);
    }
}
