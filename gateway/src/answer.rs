//! What may come back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use firth_model::ids::{Offset, PartitionId, ProducerEpoch, ProducerId};
use firth_model::time::Millis;

use crate::cursors::CursorAnswer;
use crate::groups::GroupAnswer;
use crate::message::LiveDelivery;
use crate::refusal::Refusal;
use crate::streams::StreamInfo;

/// Names one request of one connection; the session makes it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

#[derive(Debug)]
pub enum Event {
    Reply {
        tag: Tag,
        result: Result<Answer, Refusal>,
    },
    /// What was published under filters that the connection subscribed to, in order.
    Live(VecDeque<LiveDelivery>),
    /// The connection was too slow for its live subscriptions and gets nothing of them any more.
    Overrun,
    /// The queue of a cursor that the connection is attached to was over its limit and lost these records: they are settled.
    Dropped {
        partition: PartitionId,
        /// As (first, end), ascending.
        runs: Vec<(Offset, Offset)>,
    },
}

#[derive(Debug)]
pub enum Answer {
    /// One for each batch of the `Publish`, in order.
    Placed(Vec<Result<Placed, Refusal>>),
    /// One for each `Store`, in order.
    Stored(Vec<Result<Stored, Refusal>>),
    /// One for each publication of `Connection::publish`, in order.
    Published(Vec<Result<Published, Refusal>>),
    Stream(Arc<StreamInfo>),
    Cursor(CursorAnswer),
    Done,
    Trimmed {
        log_start: Offset,
    },
    Group(GroupAnswer),
    Producer {
        id: ProducerId,
        epoch: ProducerEpoch,
    },
    Producers(Vec<ProducerReport>),
    Kept(BTreeMap<String, String>),
}

/// Where a batch stands in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub base_offset: Offset,
    pub log_start: Offset,
    /// It was there already: the same producer, epoch and sequence.
    pub duplicate: bool,
}

/// What became of a message that was to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Streams that captured it, the retained ones not among them.
    pub captures: u32,
    /// Its receipt was there already: it is not stored again.
    pub duplicate: bool,
    /// Where it was stored last: behind everything else that was stored of it.
    pub at: Option<(PartitionId, Offset)>,
}

/// What became of a message that was published under a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Live subscriptions of other connections or this one, and streams, that it reached.
    pub matches: u32,
    pub duplicate: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct ProducerReport {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    pub last_sequence: i32,
    pub last_seen: Millis,
}
