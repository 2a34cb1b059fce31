//! Produce: every batch checked on the connection's task, then down in one `Publish`.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use firth_gateway::answer::Placed;
use firth_gateway::connection::Connection;
use firth_gateway::produced::{LiveProduced, Produced};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Publish, Wait};
use firth_gateway::streams::{StreamInfo, TimeSource};
use firth_model::batch::{Batch, BatchError, stamp_append_time};
use firth_model::ids::{PartitionId, PartitionIndex};
use firth_model::stream_subject::subject_of_stream;
use firth_model::time::Millis;
use firth_model::walk::WalkError;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceResponse,
};
use crate::records::{FaultKind, Keys, RecordFault, RecordRules, RecordsError, check_records};
use crate::settings;

/// A Produce request whose batches are on their way.
pub struct PendingProduce {
    topics: Vec<PendingTopic>,
    /// acks=0: the client reads no answer.
    silent: bool,
}

struct PendingTopic {
    name: Str,
    id: Uuid,
    partitions: Vec<PendingPartition>,
}

struct PendingPartition {
    index: i32,
    outcome: Outcome,
}

enum Outcome {
    /// Its place in the `Publish`; the time the log gave, where it does.
    Published {
        at: usize,
        append_time: Option<Millis>,
    },
    Refused(Fault),
}

/// Why a batch goes nowhere.
struct Fault {
    code: i16,
    message: String,
    records: Vec<RecordFault>,
}

impl Fault {
    fn plain(code: i16, message: &str) -> Fault {
        Fault { code, message: message.to_owned(), records: Vec::new() }
    }
}

/// What becomes of the request.
pub enum Answered {
    Response(ProduceResponse),
    Silent,
    SilentFailure,
}

/// Batches of one read, for one `Publish`.
#[derive(Default)]
pub struct Gathered {
    pub batches: Vec<Publish>,
    /// What of them live subscriptions are to be shown.
    pub live: Vec<LiveProduced>,
}

impl Gathered {
    /// Adds a batch, with what it is to others than its own stream. Gives its place.
    fn add(&mut self, connection: &mut Connection, stream: &StreamInfo, checked: Checked, silent: bool) -> usize {
        let Checked { partition, batch, expires, names_subject, .. } = checked;
        let (at, mut captured) = (self.batches.len(), Vec::new());
        let wait = if silent { Wait::None } else { Wait::Durable };
        connection.concerned(
            || subject_of_stream(&stream.name).ok(),
            &Produced { stream, batch: &batch, names_subject, guaranteed: !silent },
            at,
            &mut captured,
            &mut self.live,
        );
        self.batches.push(Publish { partition, batch, wait, expires, captured });
        at
    }
}

/// Checks every batch of a request; adds the good ones to `gathered`.
pub fn decide(
    client: &Client,
    connection: &mut Connection,
    version: i16,
    request: ProduceRequest,
    gathered: &mut Gathered,
) -> PendingProduce {
    let silent = request.acks == 0;
    let refusal = refuse_all(version, &request);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let stream = client.stream(&topic.name, topic.topic_id);
        let missing = if version >= 13 { errors::UNKNOWN_TOPIC_ID } else { errors::UNKNOWN_TOPIC_OR_PARTITION };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let index = data.index;
            let checked = match (refusal, &stream) {
                (Some((code, message)), _) => Err(Fault::plain(code, message)),
                (None, None) => Err(Fault::plain(missing, "there is no such topic")),
                (None, Some(stream)) => check(client, stream, data).map(|checked| (stream, checked)),
            };
            let outcome = match checked {
                Ok((stream, checked)) => {
                    let append_time = checked.append_time;
                    Outcome::Published { at: gathered.add(connection, stream, checked, silent), append_time }
                }
                Err(fault) => Outcome::Refused(fault),
            };
            partitions.push(PendingPartition { index, outcome });
        }
        topics.push(PendingTopic { name: topic.name, id: topic.topic_id, partitions });
    }
    PendingProduce { topics, silent }
}

fn refuse_all(version: i16, request: &ProduceRequest) -> Option<(i16, &'static str)> {
    if version < 3 {
        return Some((errors::UNSUPPORTED_VERSION, "only record batches of format 2 are taken"));
    }
    if request.transactional_id.is_some() {
        return Some((errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not there yet"));
    }
    (!(-1..=1).contains(&request.acks)).then_some((errors::INVALID_REQUIRED_ACKS, "acks must be 0, 1 or -1"))
}

/// A batch that may go down.
struct Checked {
    partition: PartitionId,
    batch: Batch,
    append_time: Option<Millis>,
    expires: Vec<(u32, Millis)>,
    names_subject: bool,
}

fn check(client: &Client, stream: &Arc<StreamInfo>, data: PartitionProduceData) -> Result<Checked, Fault> {
    let partition = u32::try_from(data.index).ok().and_then(|index| stream.partition(PartitionIndex(index)));
    let partition = partition.ok_or(Fault::plain(errors::UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition"))?;
    let bytes = data.records.unwrap_or_default();
    let bytes_max = u64::from(stream.policy.batch_bytes_max);
    if bytes.len() as u64 > bytes_max {
        return Err(refused(&Refusal::TooLarge { bytes: bytes.len() as u64, bytes_max }));
    }
    let mut batch = Batch::check(bytes).map_err(|error| broken(&error))?;
    let now = client.broker.now();
    let log_gives_time = stream.policy.time == TimeSource::Log;
    let rules = RecordRules {
        keys: if stream.policy.compacted { Keys::Required } else { Keys::Optional },
        times: if log_gives_time { None } else { settings::times_allowed(&stream.settings, now) },
        ..RecordRules::default()
    };
    let summary = check_records(&batch, &rules).map_err(|error| invalid(&error))?;
    let (expires, names_subject) = (summary.expires, summary.names_subject);
    if log_gives_time {
        let stamped: Bytes = stamp_append_time(batch.bytes(), now.0);
        batch = Batch::trust(stamped).map_err(|error| broken(&error))?;
        return Ok(Checked { partition, batch, append_time: Some(now), expires, names_subject });
    }
    // The index goes by the records' own times, whatever a careless producer wrote into the header.
    batch.header.max_timestamp = summary.max_timestamp;
    Ok(Checked { partition, batch, append_time: None, expires, names_subject })
}

fn broken(error: &BatchError) -> Fault {
    match error {
        BatchError::Checksum => Fault::plain(errors::CORRUPT_MESSAGE, "the batch's checksum does not match"),
        BatchError::Short => Fault::plain(errors::INVALID_RECORD, "a partition takes exactly one whole record batch a request"),
        BatchError::Magic(_) => {
            Fault::plain(errors::INVALID_RECORD, "only record batches of format 2 are taken; clients from 2017 on write them")
        }
        BatchError::Malformed(what) => Fault::plain(errors::CORRUPT_MESSAGE, what),
    }
}

fn invalid(error: &RecordsError) -> Fault {
    let invalid = |what: &str| Fault::plain(errors::INVALID_RECORD, what);
    match error {
        RecordsError::Count { .. } => invalid("the batch's record count does not fit its offsets"),
        RecordsError::Control => invalid("producers may not write control records"),
        RecordsError::Transactional => Fault::plain(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not there yet"),
        RecordsError::DeleteHorizon => invalid("only the log says when deletes may go"),
        RecordsError::AppendTime => {
            Fault::plain(errors::INVALID_TIMESTAMP, "only the log gives append times: producers send creation times")
        }
        RecordsError::Sequence(_) => invalid("a producer id needs a sequence"),
        RecordsError::Codec(_) => Fault::plain(errors::UNSUPPORTED_COMPRESSION_TYPE, "no compression codec has this number"),
        RecordsError::Body(WalkError::Malformed { what, .. }) => Fault::plain(errors::CORRUPT_MESSAGE, what),
        RecordsError::Body(WalkError::TooLarge { .. }) => {
            Fault::plain(errors::MESSAGE_TOO_LARGE, "the batch unfolds to more than is allowed")
        }
        RecordsError::Body(_) => Fault::plain(errors::CORRUPT_MESSAGE, "the batch cannot be decompressed"),
        RecordsError::Refused(faults) => {
            let times = faults.iter().any(|fault| matches!(fault.kind, FaultKind::Time(_)));
            let (code, message) = if times {
                (errors::INVALID_TIMESTAMP, "records with a time outside of what the topic takes")
            } else {
                (errors::INVALID_RECORD, "records without a key in a compacted topic")
            };
            Fault { code, message: message.to_owned(), records: faults.clone() }
        }
    }
}

fn refused(refusal: &Refusal) -> Fault {
    Fault::plain(errors::code(refusal), &errors::message(refusal))
}

impl PendingProduce {
    /// The answer, once the batches are durable or refused. `placed` is the whole `Publish`'s.
    pub fn answer(&mut self, version: i16, placed: &Result<Vec<Result<Placed, Refusal>>, Refusal>) -> Answered {
        let mut failed = false;
        let mut responses = Vec::with_capacity(self.topics.len());
        for topic in std::mem::take(&mut self.topics) {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let response = partition_response(partition, version, placed);
                failed |= response.error_code != errors::NONE;
                partitions.push(response);
            }
            responses.push(TopicProduceResponse { name: topic.name, topic_id: topic.id, partition_responses: partitions });
        }
        match (self.silent, failed) {
            (true, true) => Answered::SilentFailure,
            (true, false) => Answered::Silent,
            (false, _) => Answered::Response(ProduceResponse { responses, ..ProduceResponse::default() }),
        }
    }
}

fn partition_response(
    partition: PendingPartition,
    version: i16,
    placed: &Result<Vec<Result<Placed, Refusal>>, Refusal>,
) -> PartitionProduceResponse {
    let index = partition.index;
    let fault = match partition.outcome {
        Outcome::Refused(fault) => fault,
        Outcome::Published { at, append_time } => match placed.as_ref().map(|placed| placed.get(at)) {
            Ok(Some(Ok(placed))) => {
                return PartitionProduceResponse {
                    index,
                    base_offset: placed.base_offset.as_i64(),
                    log_append_time_ms: append_time.map_or(-1, |time| time.0),
                    log_start_offset: placed.log_start.as_i64(),
                    ..PartitionProduceResponse::default()
                };
            }
            Ok(Some(Err(refusal))) | Err(refusal) => produce_fault(refusal, version),
            Ok(None) => produce_fault(&Refusal::Stopping, version),
        },
    };
    let errors = fault.records.iter().map(|fault| BatchIndexAndErrorMessage {
        batch_index: fault.index,
        batch_index_error_message: Some(match fault.kind {
            FaultKind::NoKey => Str::fixed("a record of a compacted topic needs a key"),
            FaultKind::Time(_) => Str::fixed("the record's time is outside of what the topic takes"),
        }),
    });
    PartitionProduceResponse {
        index,
        error_code: fault.code,
        base_offset: -1,
        record_errors: errors.collect(),
        error_message: Some(Str::from(fault.message.as_str())),
        ..PartitionProduceResponse::default()
    }
}

fn produce_fault(refusal: &Refusal, version: i16) -> Fault {
    let code = match refusal {
        Refusal::NotFound if version >= 13 => errors::UNKNOWN_TOPIC_ID,
        // Retriable without a new lookup of a coordinator, which producers have none of.
        Refusal::Stopping => errors::NOT_LEADER_OR_FOLLOWER,
        other => errors::code(other),
    };
    Fault::plain(code, &errors::message(refusal))
}
