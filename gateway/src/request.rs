//! What may be asked: a closed set, without any protocol's words.

use std::collections::BTreeMap;
use std::sync::Arc;

use firth_model::batch::Batch;
use firth_model::ids::{Offset, PartitionId, ProducerEpoch, ProducerId, StreamId};
use firth_model::names::StreamName;
use firth_model::time::Millis;

use crate::cursors::{CursorMove, Receipt};
use crate::groups::GroupMove;
use crate::live::Routes;
use crate::message::Message;
use crate::streams::Policy;

#[derive(Debug)]
pub enum Request {
    /// Everything one socket read decoded, in order. Answered as one, when all of it is durable.
    Publish(Vec<Publish>),
    /// Messages published under subjects, in order, to whoever captures them. Answered as one, when all of it is durable.
    Store(Vec<Store>),
    Cursor(Box<CursorMove>),
    /// Answered `Done` when everything that was asked before, by anybody, is durable and shown.
    Barrier,
    Declare(Box<Declare>),
    Alter(Box<Alter>),
    /// Grows a stream to `partitions`, if it has fewer.
    Grow {
        stream: StreamId,
        partitions: u32,
    },
    Drop {
        stream: StreamId,
    },
    /// Removes the records below `before`; `None` means all that are durable now.
    Trim {
        partition: PartitionId,
        before: Option<Offset>,
    },
    Group(Box<GroupMove>),
    /// A fresh producer id, or the next epoch of one.
    Producer {
        continues: Option<(ProducerId, ProducerEpoch)>,
    },
    /// The producers that a partition remembers.
    Producers {
        partition: PartitionId,
    },
    /// Settings of the node or of a group that outlive it, in their protocol's words. `None` removes one.
    Keep {
        owner: String,
        settings: BTreeMap<String, Option<String>>,
    },
    Kept {
        owner: String,
    },
}

/// One batch for one partition.
#[derive(Debug)]
pub struct Publish {
    pub partition: PartitionId,
    pub batch: Batch,
    pub wait: Wait,
    /// Records that expire by themselves: offset counted from the batch's first, rising, and the moment. Empty for most batches.
    pub expires: Vec<(u32, Millis)>,
    /// Its records that others capture too. Stored before it, so that who publishes it again loses none of them.
    pub captured: Vec<Store>,
}

/// One message, or several alike, for the streams that capture their subject.
#[derive(Debug)]
pub struct Store {
    /// The first. Others have the same subject, no key of their own and no end, and are not retained.
    pub message: Arc<Message>,
    /// The messages as `stored::batch` makes it.
    pub batch: Batch,
    /// What matched; matched again if that is of an older version.
    pub routes: Arc<Routes>,
    /// The stream that it was produced to, beside which only explicit captures store it. `None`: published under its subject.
    pub origin: Option<StreamId>,
    pub receipt: Option<Receipt>,
}

/// When a publish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// When it is on disk.
    Durable,
    /// The asker does not look at the answer.
    None,
}

/// A change of a stream that still has the version the asker saw.
#[derive(Debug)]
pub struct Alter {
    pub stream: StreamId,
    pub version: u32,
    pub policy: Policy,
    pub settings: BTreeMap<String, String>,
}

/// A stream to be made.
#[derive(Debug)]
pub struct Declare {
    pub name: StreamName,
    pub partitions: u32,
    pub policy: Policy,
    pub settings: BTreeMap<String, String>,
}

impl Request {
    /// Bytes that the request holds until it is answered, for the node's bound on requests in flight.
    pub fn weight(&self) -> usize {
        const PLAIN: usize = 256;
        match self {
            Request::Publish(batches) => batches.iter().map(|publish| publish.weight() + PLAIN).sum(),
            Request::Store(stores) => stores.iter().map(|store| store.weight() + PLAIN).sum(),
            _ => PLAIN,
        }
    }
}

impl Publish {
    fn weight(&self) -> usize {
        self.batch.bytes().len() + self.captured.iter().map(Store::weight).sum::<usize>()
    }
}

impl Store {
    fn weight(&self) -> usize {
        self.batch.bytes().len()
    }
}
