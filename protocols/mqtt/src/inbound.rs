//! What a client publishes, until the node has answered it.

use std::collections::{HashMap, VecDeque};

use firth_gateway::answer::{Published, Tag};
use firth_gateway::publishing::Publication;
use firth_gateway::refusal::Refusal;
use firth_model::subject::Subject;

use crate::aliases::Given;
use crate::codec::qos::PacketId;
use crate::codec::reason::ReasonCode;
use crate::codec::text::Text;

#[derive(Default)]
pub struct Inbound {
    pub given: Given,
    /// Identifiers of QoS 2 messages whose PUBREL did not come.
    pub known: HashMap<PacketId, Incoming>,
    /// Of the current socket read.
    pub batch: Vec<Publication>,
    pub acks: Vec<Ack>,
    pub forgetting: Vec<PacketId>,
    /// Socket reads that are not answered, oldest first.
    pub pending: VecDeque<Pending>,
    /// Publications and acknowledgements in `pending`.
    pub undone: usize,
    /// QoS 1 messages that are not acknowledged.
    pub unacknowledged: usize,
    /// A client often publishes under one topic for a while.
    pub last: Option<(Text, Subject)>,
    /// A publish for which the node had no room.
    pub held: Option<(Tag, Vec<Publication>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// It is being stored.
    Submitted,
    /// PUBREC is sent.
    Received,
}

/// The acknowledgement of a PUBLISH of QoS 1 or 2.
#[derive(Debug, Clone, Copy)]
pub struct Ack {
    pub packet_id: PacketId,
    pub exactly_once: bool,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// Known on this side of the door.
    Local(ReasonCode),
    /// That of the publication at this place.
    At(usize),
}

pub type Results = Result<Vec<Result<Published, Refusal>>, Refusal>;

pub struct Pending {
    pub tag: Tag,
    pub acks: Vec<Ack>,
    pub publications: usize,
    pub results: Option<Results>,
}

impl Inbound {
    /// Exchanges that count against the receive maximum.
    pub fn open(&self) -> usize {
        self.known.len() + self.unacknowledged
    }

    /// The next socket read whose acknowledgements may leave.
    pub fn pop_answered(&mut self) -> Option<Pending> {
        self.pending.front()?.results.as_ref()?;
        let pending = self.pending.pop_front()?;
        self.undone -= pending.publications + pending.acks.len();
        Some(pending)
    }
}
