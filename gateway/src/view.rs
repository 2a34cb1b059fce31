//! What a connection may look at without asking the shard.
//!
//! Implemented by `broker`, handed in by `server`. Everything seen here is durable.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use firth_model::filter::Filter;
use firth_model::ids::{LeaderEpoch, Offset, PartitionId, Position, StreamId};

use crate::future::BoxFuture;
use crate::live::{RouteCache, Subscriber};
use crate::refusal::Refusal;
use crate::streams::StreamInfo;

/// Where a partition begins and ends, all durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub log_start: Offset,
    /// One past the last durable record.
    pub durable_end: Offset,
    /// One past the last record that belongs to no open transaction.
    pub stable_end: Offset,
    pub epoch: LeaderEpoch,
    /// Stored bytes of live batches.
    pub bytes: u64,
}

/// Whole batches in offset order; the first may begin before the offset that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub batches: Vec<Bytes>,
    /// Where the journal has each batch; 0 for what lies in a segment, which is older than all that the journal has.
    pub positions: Vec<Position>,
    pub bytes: usize,
}

impl Records {
    /// Adds one whole batch.
    pub fn push(&mut self, batch: Bytes, position: Position) {
        self.bytes += batch.len();
        self.batches.push(batch);
        self.positions.push(position);
    }
}

/// What a read from memory found.
#[derive(Debug)]
pub enum ReadNow {
    /// Batches from memory; empty at the end of the log.
    Ready(Records),
    /// The offset lies behind what memory holds: ask `read_behind`.
    Behind,
    Refused(Refusal),
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundBatch {
    pub base_offset: Offset,
    pub max_timestamp: i64,
}

/// The newest record of a subject in a stream that offers it. The record may be gone by the time it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastValue {
    /// In canonical text. The record may name another, which its stream does not capture: this one counts.
    pub subject: Bytes,
    pub partition: PartitionId,
    pub offset: Offset,
    /// The retained message of the same subject: the newer of both counts.
    pub retained: Option<(PartitionId, Offset)>,
}

/// Where a search for last values goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastsFrom {
    pub stream: StreamId,
    /// Subjects behind this one; `None`: all of the stream.
    pub after: Option<Bytes>,
}

/// Part of the last values that were asked for.
#[derive(Clone, Debug, Default)]
pub struct LastValues {
    pub values: Vec<LastValue>,
    /// `None`: these were the last.
    pub next: Option<LastsFrom>,
}

pub trait LogView: Send + Sync {
    fn stream(&self, name: &str) -> Option<Arc<StreamInfo>>;
    fn stream_by_id(&self, id: StreamId) -> Option<Arc<StreamInfo>>;
    /// All streams that are not hidden, by name.
    fn streams(&self) -> Vec<Arc<StreamInfo>>;

    fn bounds(&self, partition: PartitionId) -> Option<Bounds>;
    /// Batches from `from` on, as many whole ones as fit into `bytes_max`, at least one if there is one.
    fn read(&self, partition: PartitionId, from: Offset, bytes_max: u32) -> ReadNow;
    /// The same from disk, on one of the cold-read threads.
    fn read_behind(&self, partition: PartitionId, from: Offset, bytes_max: u32) -> BoxFuture<'static, Result<Records, Refusal>>;
    /// The first batch that may hold a record at or after `timestamp`: its largest time is no smaller.
    fn find_time(&self, partition: PartitionId, timestamp: i64) -> BoxFuture<'static, Result<Option<FoundBatch>, Refusal>>;
    /// The first batch with the largest timestamp of the partition.
    fn find_latest_time(&self, partition: PartitionId) -> BoxFuture<'static, Result<Option<FoundBatch>, Refusal>>;
    /// The largest epoch at or below `epoch` and the offset where it ended.
    fn epoch_end(&self, partition: PartitionId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)>;

    /// Asks to be woken when the partition's durable end passes `seen_end`. False if it already has.
    fn park(&self, partition: PartitionId, seen_end: Offset, waiter: &Arc<Waiter>) -> bool;
    /// Where the journal has the batch with this offset; `None` if it has it no more.
    fn position_of(&self, partition: PartitionId, offset: Offset) -> Option<Position>;
    /// The first offset of the batch that the journal has at this position, and how many offsets it has; `None` if it has none there, or
    /// not among its recent ones.
    fn batch_at(&self, _partition: PartitionId, _position: Position) -> Option<(Offset, u64)> {
        None
    }
    /// Everything below is durable and may be read. Of two looks the second never sees less.
    fn shown(&self) -> Position;
    /// Where the retained messages lie whose subjects match: the offsets in the partition, in the order of their subjects.
    fn retained(&self, filter: &Filter) -> Option<(PartitionId, Vec<Offset>)>;
    /// Records that queues lost to their limits since the node started.
    fn dropped_of_queues(&self) -> u64 {
        0
    }
    /// `None`: no stream offers last values that the filter might match. Otherwise true when what is durable now is among them, however
    /// long that takes; false: nobody looks for them any more.
    fn last_values_ready(&self, _filter: &Filter) -> Option<BoxFuture<'static, bool>> {
        None
    }
    /// Last values whose subjects match: about `at_most`, maybe none although there are more to come. Each subject once.
    fn last_values(&self, _filter: &Filter, _from: Option<&LastsFrom>, _at_most: usize) -> LastValues {
        LastValues::default()
    }
    /// Whether a stream offers a last value of the subject, in canonical text.
    fn has_last_value(&self, _subject: &[u8]) -> bool {
        false
    }
}

/// Who is subscribed to what, now.
pub trait RouteView: Send + Sync {
    fn cache(&self) -> Box<dyn RouteCache>;
    /// Nobody is subscribed, and no stream captures more than its own subject: what is produced to a stream concerns nobody else.
    fn is_quiet(&self) -> bool;
    /// Adds a live subscription that every publish finds from now on. Names it, to take it away with the same filter.
    fn subscribe(&self, subscriber: &Arc<Subscriber>, subscription: u32, filter: &Filter) -> u64;
    fn unsubscribe(&self, name: u64, filter: &Filter);
}

/// A reader that waits for records; woken at most once per group however many partitions it waits for.
#[derive(Debug, Default)]
pub struct Waiter {
    bell: Notify,
}

impl Waiter {
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// Resolves at the next wake, or at once if one came since the last wait. May wake without cause.
    pub async fn woken(&self) {
        self.bell.notified().await;
    }
}
