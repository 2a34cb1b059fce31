//! InitProducerId, DescribeProducers, ListTransactions.

use std::sync::Arc;

use firth_gateway::answer::{Answer, ProducerReport};
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_model::ids::PartitionIndex;

use crate::client::Client;
use crate::errors;
use crate::handlers::fault::{Fault, told};
use crate::handlers::topic_names::parse;
use crate::messages::produce::{
    DescribeProducersPartitionResult, DescribeProducersRequest, DescribeProducersResponse, DescribeProducersTopicResult,
    InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse, ProducerState,
};

/// States that a transaction can have with Apache Kafka.
const TRANSACTION_STATES: [&str; 8] =
    ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"];

/// A fresh id: only transactional producers get the next epoch of one that they name, and there are none.
pub async fn init_producer_id(client: Arc<Client>, _version: i16, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let failed = |error_code| InitProducerIdResponse { error_code, producer_epoch: -1, ..InitProducerIdResponse::default() };
    if request.transactional_id.is_some() {
        return failed(errors::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    }
    // An id without an epoch, or the other way about.
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return failed(errors::INVALID_REQUEST);
    }
    match client.ask(Request::Producer { continues: None }).await {
        Ok(Answer::Producer { id, epoch }) => {
            InitProducerIdResponse { producer_id: id.0, producer_epoch: epoch.0, ..InitProducerIdResponse::default() }
        }
        // After this one a producer asks again, and looks for no coordinator of a transaction.
        Ok(_) | Err(Refusal::Stopping) => failed(errors::COORDINATOR_LOAD_IN_PROGRESS),
        Err(refusal) => failed(errors::code(&refusal)),
    }
}

pub async fn describe_producers(client: Arc<Client>, _version: i16, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut response = DescribeProducersResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for partition_index in topic.partition_indexes {
            let reports = reports(&client, &topic.name, partition_index).await;
            let (error_code, error_message) = told(&reports);
            let active_producers = reports.unwrap_or_default().iter().map(state).collect();
            partitions.push(DescribeProducersPartitionResult { partition_index, error_code, error_message, active_producers });
        }
        response.topics.push(DescribeProducersTopicResult { name: topic.name, partitions });
    }
    response
}

async fn reports(client: &Client, topic: &str, index: i32) -> Result<Vec<ProducerReport>, Fault> {
    parse(topic)?;
    let stream = client.view().stream(topic).ok_or_else(|| Fault::no_topic(topic))?;
    let partition = u32::try_from(index).ok().and_then(|index| stream.partition(PartitionIndex(index)));
    let unknown = || Fault::because(errors::UNKNOWN_TOPIC_OR_PARTITION, format!("{topic} has no partition {index}"));
    let partition = partition.ok_or_else(unknown)?;
    match client.ask(Request::Producers { partition }).await {
        Ok(Answer::Producers(reports)) => Ok(reports),
        // Clients look for the leader again after this one.
        Ok(_) | Err(Refusal::Stopping) => Err(Fault::because(errors::NOT_LEADER_OR_FOLLOWER, "the node stops")),
        Err(refusal) => Err(refusal.into()),
    }
}

fn state(report: &ProducerReport) -> ProducerState {
    ProducerState {
        producer_id: report.id.0,
        producer_epoch: i32::from(report.epoch.0),
        last_sequence: report.last_sequence,
        last_timestamp: report.last_seen.0,
        coordinator_epoch: -1,
        current_txn_start_offset: -1,
    }
}

pub async fn list_transactions(_client: Arc<Client>, _version: i16, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let unknown = request.state_filters.into_iter().filter(|state| !TRANSACTION_STATES.contains(&state.as_str()));
    ListTransactionsResponse { unknown_state_filters: unknown.collect(), ..ListTransactionsResponse::default() }
}
