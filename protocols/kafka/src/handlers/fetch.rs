//! Fetch: reads through the view, on the connection's own task; waits where there is nothing yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use firth_gateway::outbox::Charge;
use firth_gateway::refusal::Refusal;
use firth_gateway::view::{Bounds, ReadNow, Records, Waiter};
use firth_model::ids::{LeaderEpoch, Offset, PartitionId, PartitionIndex};

use crate::client::Client;
use crate::codec::wire::Records as WireRecords;
use crate::errors;
use crate::handlers::fetch_sessions::{FetchSessions, Plan, Watched, key_of};
use crate::messages::fetch::{DivergingEpoch, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};

/// Longest wait a client may ask for: it is meant to be a few seconds.
const WAIT_MS_MAX: u64 = 15 * 60 * 1000;

/// What a session and its running fetch tell each other: to answer with what there is, and what the answer holds of the budget.
#[derive(Debug, Default)]
pub struct Hurry {
    asked: AtomicBool,
    bell: Notify,
    held: Mutex<Option<Charge>>,
}

impl Hurry {
    pub fn now(&self) {
        self.asked.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// The bytes of the answer, to be given back once they are sent.
    pub fn take_charge(&self) -> Option<Charge> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn hold(&self, charge: Option<Charge>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = charge;
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// One round over the partitions of a plan.
struct Round {
    /// In the order of the plan.
    partitions: Vec<PartitionData>,
    bytes: usize,
    failed: bool,
    /// Where to wait: the partitions that are there, with the end that was seen.
    ends: Vec<(PartitionId, Offset)>,
    /// For `bytes`. `None`: the node holds as much for slow readers as it may, so nothing was read.
    charge: Option<Charge>,
}

pub async fn fetch(client: Arc<Client>, version: i16, mut request: FetchRequest, hurry: Arc<Hurry>) -> FetchResponse {
    let planned = sessions(&client).plan(&mut request);
    let plan = match planned {
        Ok(plan) => plan,
        Err(error_code) => return FetchResponse { error_code, ..FetchResponse::default() },
    };
    let wait_ms = u64::try_from(request.max_wait_ms).unwrap_or(0).min(WAIT_MS_MAX);
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let waiter = Arc::new(Waiter::default());
    loop {
        let mut round = read_all(&client, version, &request, &plan).await;
        let short = round.charge.is_none();
        let enough = round.bytes >= bytes_min || round.failed || round.ends.is_empty();
        if enough || hurry.is_asked() || Instant::now() >= deadline {
            hurry.hold(round.charge.take());
            return respond(&client, plan, round);
        }
        // What is not sent is not held, least of all while waiting.
        round.charge = None;
        if short {
            tokio::select! {
                () = client.broker.answers().grants() => {}
                () = hurry.bell.notified() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
            continue;
        }
        let parked = round.ends.iter().all(|(partition, end)| client.view().park(*partition, *end, &waiter));
        if parked {
            tokio::select! {
                () = waiter.woken() => {}
                () = hurry.bell.notified() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }
}

fn sessions(client: &Client) -> MutexGuard<'_, FetchSessions> {
    client.sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_all(client: &Client, version: i16, request: &FetchRequest, plan: &Plan) -> Round {
    let mut round =
        Round { partitions: Vec::with_capacity(plan.partitions.len()), bytes: 0, failed: false, ends: Vec::new(), charge: None };
    let mut charge = client.broker.answers().grant(usize::try_from(request.max_bytes).unwrap_or(0));
    let bytes_max = charge.as_ref().map_or(0, Charge::bytes);
    let mut full = false;
    for watched in &plan.partitions {
        let data = match locate(client, version, watched) {
            Err(error_code) => failed(watched, error_code, None),
            Ok((partition, bounds)) => {
                round.ends.push((partition, bounds.durable_end));
                let first = round.bytes == 0 && charge.is_some();
                let room = Room { bytes: bytes_max.saturating_sub(round.bytes), first, full: &mut full };
                read_one(client, watched, partition, bounds, room).await
            }
        };
        round.failed |= data.error_code != errors::NONE || data.diverging_epoch.end_offset >= 0;
        round.bytes += data.records.iter().flat_map(|records| &records.chunks).map(bytes::Bytes::len).sum::<usize>();
        round.partitions.push(data);
    }
    if let Some(charge) = &mut charge {
        charge.settle(round.bytes);
    }
    round.charge = charge;
    round
}

fn locate(client: &Client, version: i16, watched: &Watched) -> Result<(PartitionId, Bounds), i16> {
    let missing = if version >= 13 { errors::UNKNOWN_TOPIC_ID } else { errors::UNKNOWN_TOPIC_OR_PARTITION };
    let stream = client.stream(&watched.topic, watched.topic_id).ok_or(missing)?;
    let index = u32::try_from(watched.wanted.partition).map_err(|_| errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let partition = stream.partition(PartitionIndex(index)).ok_or(errors::UNKNOWN_TOPIC_OR_PARTITION)?;
    let bounds = client.view().bounds(partition).ok_or(missing)?;
    check_epoch(watched.wanted.current_leader_epoch, bounds.epoch)?;
    Ok((partition, bounds))
}

/// Compares the epoch a client believes in with the partition's. -1: it does not say.
pub fn check_epoch(believed: i32, current: LeaderEpoch) -> Result<(), i16> {
    match believed {
        -1 => Ok(()),
        older if older < current.0 => Err(errors::FENCED_LEADER_EPOCH),
        newer if newer > current.0 => Err(errors::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}

/// What an answer still takes.
struct Room<'a> {
    bytes: usize,
    /// Nothing is in it yet.
    first: bool,
    /// What was read from disk did not fit: nothing more is read there only to be left out.
    full: &'a mut bool,
}

async fn read_one(client: &Client, watched: &Watched, partition: PartitionId, bounds: Bounds, room: Room<'_>) -> PartitionData {
    let wanted = &watched.wanted;
    if let Some(diverging_epoch) = diverging(client, watched, partition) {
        return PartitionData { diverging_epoch, ..told(watched, bounds, Records::default()) };
    }
    let Some(from) = Offset::from_i64(wanted.fetch_offset) else {
        return failed(watched, errors::OFFSET_OUT_OF_RANGE, Some(bounds));
    };
    let bytes_max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(room.bytes);
    // The first batch of an answer is given whatever its size, so that a consumer with small limits still moves on.
    if bytes_max == 0 && !room.first {
        return told(watched, bounds, Records::default());
    }
    let asked = u32::try_from(bytes_max).unwrap_or(u32::MAX);
    let read = match client.view().read(partition, from, asked) {
        ReadNow::Ready(records) => Ok(records),
        ReadNow::Behind if *room.full => Ok(Records::default()),
        ReadNow::Behind => {
            let read = client.view().read_behind(partition, from, asked).await;
            *room.full = !room.first && matches!(&read, Ok(records) if records.bytes > room.bytes);
            read
        }
        ReadNow::Refused(refusal) => Err(refusal),
    };
    match read {
        Ok(records) if records.bytes > bytes_max && !room.first => told(watched, bounds, Records::default()),
        Ok(records) => told(watched, bounds, records),
        Err(refusal) => failed(watched, fetch_code(&refusal), Some(bounds)),
    }
}

fn fetch_code(refusal: &Refusal) -> i16 {
    match refusal {
        // A client that reads on after CORRUPT_MESSAGE tells its user; after a storage error it would try for ever.
        Refusal::Damaged => errors::CORRUPT_MESSAGE,
        other => errors::code(other),
    }
}

/// A client that says which epoch it last read is told where that epoch ended, if it read beyond.
fn diverging(client: &Client, watched: &Watched, partition: PartitionId) -> Option<DivergingEpoch> {
    let wanted = &watched.wanted;
    if wanted.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end) = client.view().epoch_end(partition, LeaderEpoch(wanted.last_fetched_epoch))?;
    let beyond = epoch.0 < wanted.last_fetched_epoch || end.as_i64() < wanted.fetch_offset;
    beyond.then(|| DivergingEpoch { epoch: epoch.0, end_offset: end.as_i64() })
}

fn told(watched: &Watched, bounds: Bounds, records: Records) -> PartitionData {
    PartitionData {
        partition_index: watched.wanted.partition,
        high_watermark: bounds.durable_end.as_i64(),
        last_stable_offset: bounds.stable_end.as_i64(),
        log_start_offset: bounds.log_start.as_i64(),
        records: Some(WireRecords { chunks: records.batches }),
        ..PartitionData::default()
    }
}

fn failed(watched: &Watched, error_code: i16, bounds: Option<Bounds>) -> PartitionData {
    PartitionData {
        partition_index: watched.wanted.partition,
        error_code,
        high_watermark: bounds.map_or(-1, |bounds| bounds.durable_end.as_i64()),
        log_start_offset: bounds.map_or(-1, |bounds| bounds.log_start.as_i64()),
        records: Some(WireRecords::default()),
        ..PartitionData::default()
    }
}

fn respond(client: &Client, plan: Plan, round: Round) -> FetchResponse {
    let mut response = FetchResponse { session_id: plan.session_id, ..FetchResponse::default() };
    let (mut told, mut gave) = (HashMap::new(), HashMap::new());
    for (watched, data) in plan.partitions.iter().zip(round.partitions) {
        let news = (data.high_watermark, data.log_start_offset);
        let has_records = data.records.as_ref().is_some_and(|records| !records.chunks.is_empty());
        let diverges = data.diverging_epoch.end_offset >= 0;
        let changed = has_records || diverges || data.error_code != errors::NONE || watched.told != Some(news);
        if plan.session_id != 0 {
            told.insert(key_of(watched), news);
            if has_records {
                gave.insert(key_of(watched), ());
            }
        }
        if plan.incremental && !changed {
            continue;
        }
        let topics = &mut response.responses;
        match topics.last_mut() {
            Some(topic) if topic.topic == watched.topic && topic.topic_id == watched.topic_id => topic.partitions.push(data),
            _ => topics.push(FetchableTopicResponse { topic: watched.topic.clone(), topic_id: watched.topic_id, partitions: vec![data] }),
        }
    }
    if plan.session_id != 0 {
        sessions(client).told(plan.session_id, &told, &gave);
    }
    response
}
