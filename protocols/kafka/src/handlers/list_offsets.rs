//! ListOffsets and OffsetForLeaderEpoch: offsets by name, time and epoch.

use std::collections::HashSet;
use std::sync::Arc;

use firth_gateway::refusal::Refusal;
use firth_gateway::view::{Bounds, FoundBatch, ReadNow, Records};
use firth_model::batch::{Batch, HEADER_BYTES, LOG_APPEND_TIME};
use firth_model::compression::{Codec, unfolding};
use firth_model::ids::{LeaderEpoch, Offset, PartitionId, PartitionIndex};
use firth_model::walk::Walk;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::fetch::check_epoch;
use crate::messages::fetch::{
    EpochEndOffset, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use crate::records::UNFOLDED_BYTES_MAX;

/// `replica_id` of an ordinary client.
const CONSUMER: i32 = -1;
/// `isolation_level` of a client that does not see open transactions.
const READ_COMMITTED: i8 = 1;
/// Reads behind the batch that the index named, where that one's records had been trimmed away. Each is large, so this is more than
/// any partition has between two batches with times.
const READS_MAX: usize = 1024;
const READ_BYTES: u32 = 1 << 20;

/// What a `timestamp` field asks for.
enum Wanted {
    Latest,
    Earliest,
    LargestTime,
    /// The end of what remote storage has; there is none.
    Remote,
    Time(i64),
}

/// One answer; an offset of -1 says that there is none.
struct Found {
    timestamp: i64,
    offset: i64,
    epoch: i32,
}

const NOTHING: Found = Found { timestamp: -1, offset: -1, epoch: -1 };

pub async fn list_offsets(client: Arc<Client>, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let committed = request.replica_id == CONSUMER && request.isolation_level == READ_COMMITTED;
    let mut seen: HashSet<(Str, i32)> = HashSet::new();
    let mut twice: HashSet<(Str, i32)> = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                twice.insert(key);
            }
        }
    }
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let found = match wanted(asked.timestamp, version) {
                _ if !twice.is_empty() && twice.contains(&(topic.name.clone(), asked.partition_index)) => Err(errors::INVALID_REQUEST),
                None => Err(errors::UNSUPPORTED_VERSION),
                Some(wanted) => find(&client, &topic.name, &asked, wanted, committed).await,
            };
            let (error_code, found) = found.map_or_else(|code| (code, NOTHING), |found| (errors::NONE, found));
            partitions.push(ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code,
                timestamp: found.timestamp,
                offset: found.offset,
                leader_epoch: found.epoch,
            });
        }
        response.topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    response
}

/// `None`: the version has no such question.
fn wanted(timestamp: i64, version: i16) -> Option<Wanted> {
    match timestamp {
        -1 => Some(Wanted::Latest),
        -2 => Some(Wanted::Earliest),
        -3 if version >= 7 => Some(Wanted::LargestTime),
        // The earliest on this disk: the earliest, as there is no other place.
        -4 if version >= 8 => Some(Wanted::Earliest),
        -5 if version >= 9 => Some(Wanted::Remote),
        0.. => Some(Wanted::Time(timestamp)),
        _ => None,
    }
}

fn locate(client: &Client, topic: &str, index: i32) -> Result<(PartitionId, Bounds), i16> {
    let stream = client.view().stream(topic).ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let index = u32::try_from(index).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let partition = stream.partition(PartitionIndex(index)).ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let bounds = client.view().bounds(partition).ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    Ok((partition, bounds))
}

async fn find(client: &Client, topic: &str, asked: &ListOffsetsPartition, wanted: Wanted, committed: bool) -> Result<Found, i16> {
    let (partition, bounds) = locate(client, topic, asked.partition_index)?;
    check_epoch(asked.current_leader_epoch, bounds.epoch)?;
    let end = if committed { bounds.stable_end } else { bounds.durable_end };
    let plain = |offset: Offset| Found { timestamp: -1, offset: offset.as_i64(), epoch: bounds.epoch.0 };
    let found = match wanted {
        Wanted::Latest => return Ok(plain(end)),
        Wanted::Earliest => return Ok(plain(bounds.log_start)),
        Wanted::Remote => return Ok(NOTHING),
        Wanted::LargestTime => match client.view().find_latest_time(partition).await {
            Ok(Some(batch)) => walk(client, partition, batch, batch.max_timestamp).await,
            Ok(None) => Ok(None),
            Err(refusal) => Err(refusal),
        },
        Wanted::Time(timestamp) => match client.view().find_time(partition, timestamp).await {
            Ok(Some(batch)) => walk(client, partition, batch, timestamp).await,
            Ok(None) => Ok(None),
            Err(refusal) => Err(refusal),
        },
    };
    match found {
        Ok(Some(found)) if found.offset < end.as_i64() => Ok(found),
        Ok(_) => Ok(NOTHING),
        // A client tries again after this one.
        Err(Refusal::Stopping) => Err(errors::NOT_LEADER_OR_FOLLOWER),
        Err(refusal) => Err(errors::code(&refusal)),
    }
}

/// The first record at or after `timestamp`, from the batch on that the index named.
async fn walk(client: &Client, partition: PartitionId, first: FoundBatch, timestamp: i64) -> Result<Option<Found>, Refusal> {
    let mut from = first.base_offset;
    // One batch is nearly always all.
    let mut bytes_max = 1;
    for _ in 0..READS_MAX {
        let bounds = client.view().bounds(partition).ok_or(Refusal::NotFound)?;
        from = from.max(bounds.log_start);
        if from >= bounds.durable_end {
            return Ok(None);
        }
        let records = match read(client, partition, from, bytes_max).await {
            // Trimmed since its bounds were looked at.
            Err(Refusal::OffsetOutOfRange { .. }) => continue,
            records => records?,
        };
        if records.batches.is_empty() {
            return Ok(None);
        }
        for bytes in records.batches {
            let batch = Batch::trust(bytes).map_err(|_| Refusal::Damaged)?;
            if let Some(found) = search(&batch, from, timestamp)? {
                return Ok(Some(found));
            }
            let base = Offset::from_i64(batch.header.base_offset).ok_or(Refusal::Damaged)?;
            from = from.max(base.plus(batch.header.offset_count()));
        }
        bytes_max = READ_BYTES;
    }
    Err(Refusal::TimedOut)
}

async fn read(client: &Client, partition: PartitionId, from: Offset, bytes_max: u32) -> Result<Records, Refusal> {
    match client.view().read(partition, from, bytes_max) {
        ReadNow::Ready(records) => Ok(records),
        ReadNow::Behind => client.view().read_behind(partition, from, bytes_max).await,
        ReadNow::Refused(refusal) => Err(refusal),
    }
}

/// The first record of a batch that is at or behind `from` and at or after `timestamp`.
fn search(batch: &Batch, from: Offset, timestamp: i64) -> Result<Option<Found>, Refusal> {
    let header = &batch.header;
    let found = |offset: i64, timestamp: i64| Some(Found { timestamp, offset, epoch: header.leader_epoch });
    if header.attributes & LOG_APPEND_TIME != 0 {
        let offset = header.base_offset.max(from.as_i64());
        let inside = offset - header.base_offset <= i64::from(header.last_offset_delta);
        let late = header.max_timestamp >= timestamp;
        return Ok(if inside && late { found(offset, header.max_timestamp) } else { None });
    }
    let codec = Codec::of(header.attributes).map_err(|_| Refusal::Damaged)?;
    let plain = unfolding(codec, &batch.bytes()[HEADER_BYTES..], UNFOLDED_BYTES_MAX).map_err(|_| Refusal::Damaged)?;
    let mut walk = Walk::over(plain, UNFOLDED_BYTES_MAX);
    for _ in 0..header.record_count {
        let step = walk.step(|_, _| ()).map_err(|_| Refusal::Damaged)?;
        let offset = header.base_offset.saturating_add(i64::from(step.offset_delta));
        let time = header.base_timestamp.saturating_add(step.timestamp_delta);
        if offset >= from.as_i64() && time >= timestamp {
            return Ok(found(offset, time));
        }
    }
    Ok(None)
}

pub async fn offset_for_leader_epoch(
    client: Arc<Client>,
    _version: i16,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| OffsetForLeaderTopicResult {
        partitions: topic.partitions.iter().map(|asked| epoch_end(&client, &topic.topic, asked)).collect(),
        topic: topic.topic,
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..OffsetForLeaderEpochResponse::default() }
}

fn epoch_end(client: &Client, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let partition = asked.partition;
    let located = locate(client, topic, partition).and_then(|(id, bounds)| {
        check_epoch(asked.current_leader_epoch, bounds.epoch)?;
        Ok((id, bounds))
    });
    let (id, bounds) = match located {
        Ok(located) => located,
        Err(error_code) => return EpochEndOffset { error_code, partition, ..EpochEndOffset::default() },
    };
    // Of an epoch that has not begun, nothing is known.
    let begun = (0..=bounds.epoch.0).contains(&asked.leader_epoch);
    let end = if begun { client.view().epoch_end(id, LeaderEpoch(asked.leader_epoch)) } else { None };
    let (leader_epoch, end_offset) = end.map_or((-1, -1), |(epoch, end)| (epoch.0, end.as_i64()));
    EpochEndOffset { partition, leader_epoch, end_offset, ..EpochEndOffset::default() }
}
