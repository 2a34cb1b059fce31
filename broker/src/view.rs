//! What connections see of the log: durable, and without asking the shard.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use firth_gateway::future::BoxFuture;
use firth_gateway::refusal::Refusal;
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::{Bounds, FoundBatch, LastValues, LastsFrom, LogView, ReadNow, Records, Waiter};
use firth_journal::entry::batch_at;
use firth_model::filter::Filter;
use firth_model::ids::{LeaderEpoch, Offset, PartitionId, Position, StreamId};
use firth_model::limits::COLD_READ_THREADS;
use firth_model::names::StreamName;
use firth_model::removed::RunSet;

use crate::cold::ColdThreads;
use crate::index::{Row, Spot};
use crate::lasts::table::Lasts;
use crate::partition_view::PartitionView;
use crate::read_behind::{self, Sources};
use crate::retained::{RETAINED_STREAM, Retained};
use crate::routing::Routing;
use crate::stripped::live_records;
use crate::tail::Tail;

/// Subjects that are looked at under one lock, which the shard needs too: less than a millisecond.
const RETAINED_AT_ONCE: usize = 4_096;

/// All of it. One for a node.
pub struct View {
    streams: RwLock<Streams>,
    partitions: RwLock<HashMap<PartitionId, Arc<PartitionView>, foldhash::fast::RandomState>>,
    pub tail: Tail,
    /// Who gets what is published under a subject.
    pub routing: Arc<Routing>,
    shown: AtomicU64,
    retained: RwLock<(Option<PartitionId>, Retained)>,
    /// Records that queues lost to their limits.
    pub dropped: AtomicU64,
    /// The last values that streams offer.
    pub lasts: Arc<Lasts>,
    sources: Sources,
    cold: ColdThreads,
}

#[derive(Default)]
struct Streams {
    by_name: BTreeMap<StreamName, Arc<StreamInfo>>,
    by_id: HashMap<StreamId, Arc<StreamInfo>>,
}

impl View {
    pub fn over(sources: Sources, tail_bytes_max: u64) -> View {
        View {
            streams: RwLock::default(),
            partitions: RwLock::default(),
            tail: Tail::with_max(tail_bytes_max),
            routing: Arc::default(),
            shown: AtomicU64::new(0),
            retained: RwLock::default(),
            dropped: AtomicU64::new(0),
            lasts: Arc::default(),
            sources,
            cold: ColdThreads::idle(),
        }
    }

    /// Shows a stream as it now is; its partitions must be known already.
    pub fn show_stream(&self, info: Arc<StreamInfo>) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        if info.name.as_str() == RETAINED_STREAM {
            self.retained.write().unwrap_or_else(PoisonError::into_inner).0 = info.partitions.first().copied();
        }
        self.lasts.show(&info);
        if !info.policy.hidden {
            streams.by_name.insert(info.name.clone(), info.clone());
        }
        streams.by_id.insert(info.id, info);
    }

    /// Everything below is durable, and shown.
    pub fn show_to(&self, position: Position) {
        self.shown.fetch_max(position.0, Ordering::AcqRel);
    }

    pub fn show_all_retained(&self, retained: &Retained, stream: Option<&Arc<StreamInfo>>) {
        let partition = stream.and_then(|info| info.partitions.first().copied());
        *self.retained.write().unwrap_or_else(PoisonError::into_inner) = (partition, retained.clone());
    }

    /// The newest retained message of the subject is durable.
    pub fn retain(&self, subject: &bytes::Bytes, at: Option<Offset>) {
        self.retained.write().unwrap_or_else(PoisonError::into_inner).1.put(subject, at);
    }

    pub fn show_partition(&self, partition: Arc<PartitionView>) {
        self.partitions.write().unwrap_or_else(PoisonError::into_inner).insert(partition.id, partition);
    }

    pub fn hide_stream(&self, info: &StreamInfo) {
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        streams.by_id.remove(&info.id);
        if streams.by_name.get(&info.name).is_some_and(|shown| shown.id == info.id) {
            streams.by_name.remove(&info.name);
        }
        drop(streams);
        self.lasts.hide(info.id);
        let mut hidden = Vec::new();
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        hidden.extend(info.partitions.iter().filter_map(|id| partitions.remove(id)));
        drop(partitions);
        // Who waits for a partition that is gone must hear so.
        for partition in hidden {
            partition.wake();
        }
    }

    /// A read that may block, on the caller's own thread: for simulations and offline tools.
    pub fn read_here(&self, partition: PartitionId, from: Offset, bytes_max: u32) -> Result<Records, Refusal> {
        let partition = self.partition(partition).ok_or(Refusal::NotFound)?;
        match self.read_live(&partition, from, bytes_max) {
            ReadNow::Ready(records) => Ok(records),
            ReadNow::Behind => read_behind::batches(&self.sources, &partition, from, bytes_max),
            ReadNow::Refused(refusal) => Err(refusal),
        }
    }

    fn partition(&self, id: PartitionId) -> Option<Arc<PartitionView>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Offsets of the partition that readers step over.
    pub fn removed(&self, partition: PartitionId) -> Option<Arc<RunSet>> {
        self.partition(partition)?.removed()
    }

    /// The offset behind the batch, or the part of an extent or segment, that holds this one.
    pub fn behind_piece_of(&self, partition: PartitionId, offset: Offset) -> Option<Offset> {
        let partition = self.partition(partition)?;
        let index = partition.index();
        match index.find(offset) {
            Spot::Span(span) => Some(span.end),
            Spot::Row(at) => index.rows().get(at).map(Row::end),
            Spot::End => None,
        }
    }

    /// As `read_memory`, without the removed records.
    fn read_live(&self, partition: &PartitionView, from: Offset, bytes_max: u32) -> ReadNow {
        match self.read_memory(partition, from, bytes_max) {
            ReadNow::Ready(records) => live_records(partition, records).map_or_else(ReadNow::Refused, ReadNow::Ready),
            other => other,
        }
    }

    fn read_memory(&self, partition: &PartitionView, from: Offset, bytes_max: u32) -> ReadNow {
        let (log_start, end) = (partition.log_start(), partition.durable_end());
        if from < log_start || from > end {
            return ReadNow::Refused(Refusal::OffsetOutOfRange { log_start, end });
        }
        if from == end {
            return ReadNow::Ready(Records::default());
        }
        let index = partition.index();
        let first = match index.find(from) {
            Spot::Row(at) => at,
            Spot::Span(_) => return ReadNow::Behind,
            Spot::End => return ReadNow::Ready(Records::default()),
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        self.tail.look(|get| {
            for row in index.rows().range(first..) {
                let Some(entry) = get(row.position, row.bytes).filter(|_| bytes + row.own_bytes() <= u64::from(bytes_max) || bytes == 0)
                else {
                    return;
                };
                bytes += row.own_bytes();
                found.push((entry, row.base, row.position));
            }
        });
        // What is shared is copied: that is no work to do while others wait.
        drop(index);
        let mut records = Records::default();
        for (entry, base, position) in found {
            let Some(batch) = batch_at(&entry, base) else { break };
            records.push(batch, position);
        }
        if records.batches.is_empty() { ReadNow::Behind } else { ReadNow::Ready(records) }
    }
}

impl LogView for View {
    fn stream(&self, name: &str) -> Option<Arc<StreamInfo>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<StreamInfo>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    fn streams(&self) -> Vec<Arc<StreamInfo>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).by_name.values().cloned().collect()
    }

    fn bounds(&self, partition: PartitionId) -> Option<Bounds> {
        let partition = self.partition(partition)?;
        let durable_end = partition.durable_end();
        Some(Bounds {
            log_start: partition.log_start(),
            durable_end,
            stable_end: durable_end,
            epoch: partition.epoch(),
            bytes: partition.index().bytes(),
        })
    }

    fn read(&self, partition: PartitionId, from: Offset, bytes_max: u32) -> ReadNow {
        match self.partition(partition) {
            Some(partition) => self.read_live(&partition, from, bytes_max),
            None => ReadNow::Refused(Refusal::NotFound),
        }
    }

    fn read_behind(&self, partition: PartitionId, from: Offset, bytes_max: u32) -> BoxFuture<'static, Result<Records, Refusal>> {
        let Some(partition) = self.partition(partition) else {
            return Box::pin(async { Err(Refusal::NotFound) });
        };
        let sources = self.sources.clone();
        self.cold.run(COLD_READ_THREADS, move || {
            let answer = read_behind::batches(&sources, &partition, from, bytes_max);
            let next = answer.as_ref().ok().and_then(|records| read_behind::goes_on(records, bytes_max));
            let ahead = move || next.into_iter().for_each(|next| read_behind::read_ahead(&sources, &partition, next));
            (answer, ahead)
        })
    }

    fn find_time(&self, partition: PartitionId, timestamp: i64) -> BoxFuture<'static, Result<Option<FoundBatch>, Refusal>> {
        let Some(partition) = self.partition(partition) else {
            return Box::pin(async { Err(Refusal::NotFound) });
        };
        let sources = self.sources.clone();
        self.cold.run(COLD_READ_THREADS, move || (read_behind::first_at_or_after(&sources, &partition, timestamp), || ()))
    }

    fn find_latest_time(&self, partition: PartitionId) -> BoxFuture<'static, Result<Option<FoundBatch>, Refusal>> {
        let Some(partition) = self.partition(partition) else {
            return Box::pin(async { Err(Refusal::NotFound) });
        };
        let sources = self.sources.clone();
        self.cold.run(COLD_READ_THREADS, move || (read_behind::latest(&sources, &partition), || ()))
    }

    fn epoch_end(&self, partition: PartitionId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let partition = self.partition(partition)?;
        // One node has owned every partition since offset 0: there is one epoch, and it has not ended.
        let current = partition.epoch();
        (epoch == current).then(|| (current, partition.durable_end()))
    }

    fn park(&self, partition: PartitionId, seen_end: Offset, waiter: &Arc<Waiter>) -> bool {
        self.partition(partition).is_some_and(|partition| partition.park(seen_end, waiter))
    }

    fn position_of(&self, partition: PartitionId, offset: Offset) -> Option<Position> {
        let partition = self.partition(partition)?;
        let index = partition.index();
        match index.find(offset) {
            Spot::Row(at) => index.rows().get(at).map(|row| row.position),
            Spot::Span(_) | Spot::End => None,
        }
    }

    fn batch_at(&self, partition: PartitionId, position: Position) -> Option<(Offset, u64)> {
        let partition = self.partition(partition)?;
        let index = partition.index();
        let at = index.rows().binary_search_by_key(&position, |row| row.position).ok()?;
        index.rows().get(at).map(|row| (row.base, u64::from(row.records)))
    }

    fn shown(&self) -> Position {
        Position(self.shown.load(Ordering::Acquire))
    }

    fn retained(&self, filter: &Filter) -> Option<(PartitionId, Vec<Offset>)> {
        let (mut offsets, mut after) = (Vec::new(), None);
        loop {
            // In pieces, between which the shard may show what it has.
            let retained = self.retained.read().unwrap_or_else(PoisonError::into_inner);
            after = retained.1.matching(filter, after.as_ref(), RETAINED_AT_ONCE, &mut offsets);
            if after.is_none() {
                return retained.0.filter(|_| !offsets.is_empty()).map(|partition| (partition, offsets));
            }
        }
    }

    fn dropped_of_queues(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn last_values_ready(&self, filter: &Filter) -> Option<BoxFuture<'static, bool>> {
        self.lasts.ready(filter, |partition| self.partition(partition).map(|partition| partition.durable_end()))
    }

    fn last_values(&self, filter: &Filter, from: Option<&LastsFrom>, at_most: usize) -> LastValues {
        let mut found = self.lasts.find(filter, from, at_most);
        let retained = self.retained.read().unwrap_or_else(PoisonError::into_inner);
        for value in &mut found.values {
            value.retained = retained.0.zip(retained.1.at(&value.subject));
        }
        found
    }

    fn has_last_value(&self, subject: &[u8]) -> bool {
        self.lasts.has(subject)
    }
}
