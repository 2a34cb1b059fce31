//! What producers send, and what tells about them.

use bytes::Bytes;
use uuid::Uuid;

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    ProduceRequest {
        transactional_id: Option<Str> [3..];
        acks: i16 [..];
        timeout_ms: i32 [..];
        topic_data: Vec<TopicProduceData> [..];
    }

    TopicProduceData {
        name: Str [..=12];
        topic_id: Uuid [13..];
        partition_data: Vec<PartitionProduceData> [..];
    }

    PartitionProduceData {
        index: i32 [..];
        records: Option<Bytes> [..];
    }

    ProduceResponse {
        responses: Vec<TopicProduceResponse> [..];
        throttle_time_ms: i32 [1..];
        node_endpoints: Vec<NodeEndpoint> [10..] tag 0;
    }

    TopicProduceResponse {
        name: Str [..=12];
        topic_id: Uuid [13..];
        partition_responses: Vec<PartitionProduceResponse> [..];
    }

    PartitionProduceResponse {
        index: i32 [..];
        error_code: i16 [..];
        base_offset: i64 [..];
        log_append_time_ms: i64 [2..] = -1;
        log_start_offset: i64 [5..] = -1;
        record_errors: Vec<BatchIndexAndErrorMessage> [8..];
        error_message: Option<Str> [8..];
        current_leader: LeaderIdAndEpoch [10..] tag 0;
    }

    BatchIndexAndErrorMessage {
        batch_index: i32 [8..];
        batch_index_error_message: Option<Str> [8..];
    }

    LeaderIdAndEpoch {
        leader_id: i32 [10..] = -1;
        leader_epoch: i32 [10..] = -1;
    }

    NodeEndpoint {
        node_id: i32 [10..];
        host: Str [10..];
        port: i32 [10..];
        rack: Option<Str> [10..];
    }

    InitProducerIdRequest {
        transactional_id: Option<Str> [..];
        transaction_timeout_ms: i32 [..];
        producer_id: i64 [3..] = -1;
        producer_epoch: i16 [3..] = -1;
    }

    InitProducerIdResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        producer_id: i64 [..] = -1;
        producer_epoch: i16 [..];
    }

    DescribeProducersRequest {
        topics: Vec<DescribeProducersTopic> [..];
    }

    DescribeProducersTopic {
        name: Str [..];
        partition_indexes: Vec<i32> [..];
    }

    DescribeProducersResponse {
        throttle_time_ms: i32 [..];
        topics: Vec<DescribeProducersTopicResult> [..];
    }

    DescribeProducersTopicResult {
        name: Str [..];
        partitions: Vec<DescribeProducersPartitionResult> [..];
    }

    DescribeProducersPartitionResult {
        partition_index: i32 [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
        active_producers: Vec<ProducerState> [..];
    }

    ProducerState {
        producer_id: i64 [..];
        producer_epoch: i32 [..];
        last_sequence: i32 [..] = -1;
        last_timestamp: i64 [..] = -1;
        coordinator_epoch: i32 [..];
        current_txn_start_offset: i64 [..] = -1;
    }

    ListTransactionsRequest {
        state_filters: Vec<Str> [..];
        producer_id_filters: Vec<i64> [..];
        duration_filter: i64 [1..] = -1;
        transactional_id_pattern: Option<Str> [2..];
    }

    ListTransactionsResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        unknown_state_filters: Vec<Str> [..];
        transaction_states: Vec<TransactionState> [..];
    }

    TransactionState {
        transactional_id: Str [..];
        producer_id: i64 [..];
        transaction_state: Str [..];
    }
}
