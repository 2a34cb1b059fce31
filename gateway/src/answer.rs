//! What may come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use firth_model::ids::{Offset, ProducerEpoch, ProducerId};
use firth_model::time::Millis;

use crate::groups::GroupAnswer;
use crate::refusal::Refusal;
use crate::streams::StreamInfo;

/// Names one request of one connection; the session makes it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

#[derive(Debug)]
pub enum Event {
    Reply { tag: Tag, result: Result<Answer, Refusal> },
}

#[derive(Debug)]
pub enum Answer {
    /// One for each batch of the `Publish`, in order.
    Placed(Vec<Result<Placed, Refusal>>),
    Stream(Arc<StreamInfo>),
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

#[derive(Clone, Copy, Debug)]
pub struct ProducerReport {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    pub last_sequence: i32,
    pub last_seen: Millis,
}
