//! Topics made, grown, trimmed and removed.

use uuid::Uuid;

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    CreateTopicsRequest {
        topics: Vec<CreatableTopic> [..];
        timeout_ms: i32 [..] = 60000;
        validate_only: bool [..];
    }

    CreatableTopic {
        name: Str [..];
        num_partitions: i32 [..];
        replication_factor: i16 [..];
        assignments: Vec<CreatableReplicaAssignment> [..];
        configs: Vec<CreatableTopicConfig> [..];
    }

    CreatableReplicaAssignment {
        partition_index: i32 [..];
        broker_ids: Vec<i32> [..];
    }

    CreatableTopicConfig {
        name: Str [..];
        value: Option<Str> [..];
    }

    CreateTopicsResponse {
        throttle_time_ms: i32 [..];
        topics: Vec<CreatableTopicResult> [..];
    }

    CreatableTopicResult {
        name: Str [..];
        topic_id: Uuid [7..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
        num_partitions: i32 [5..] = -1;
        replication_factor: i16 [5..] = -1;
        configs: Option<Vec<CreatableTopicConfigs>> [5..];
        topic_config_error_code: i16 [5..] tag 0;
    }

    CreatableTopicConfigs {
        name: Str [5..];
        value: Option<Str> [5..];
        read_only: bool [5..];
        config_source: i8 [5..] = -1;
        is_sensitive: bool [5..];
    }

    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..];
        topic_names: Vec<Str> [..=5];
        timeout_ms: i32 [..];
    }

    DeleteTopicState {
        name: Option<Str> [6..];
        topic_id: Uuid [6..];
    }

    DeleteTopicsResponse {
        throttle_time_ms: i32 [..];
        responses: Vec<DeletableTopicResult> [..];
    }

    DeletableTopicResult {
        name: Option<Str> [..] null [6..];
        topic_id: Uuid [6..];
        error_code: i16 [..];
        error_message: Option<Str> [5..];
    }

    CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> [..];
        timeout_ms: i32 [..];
        validate_only: bool [..];
    }

    CreatePartitionsTopic {
        name: Str [..];
        count: i32 [..];
        assignments: Option<Vec<CreatePartitionsAssignment>> [..];
    }

    CreatePartitionsAssignment {
        broker_ids: Vec<i32> [..];
    }

    CreatePartitionsResponse {
        throttle_time_ms: i32 [..];
        results: Vec<CreatePartitionsTopicResult> [..];
    }

    CreatePartitionsTopicResult {
        name: Str [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
    }

    DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> [..];
        timeout_ms: i32 [..];
    }

    DeleteRecordsTopic {
        name: Str [..];
        partitions: Vec<DeleteRecordsPartition> [..];
    }

    DeleteRecordsPartition {
        partition_index: i32 [..];
        offset: i64 [..];
    }

    DeleteRecordsResponse {
        throttle_time_ms: i32 [..];
        topics: Vec<DeleteRecordsTopicResult> [..];
    }

    DeleteRecordsTopicResult {
        name: Str [..];
        partitions: Vec<DeleteRecordsPartitionResult> [..];
    }

    DeleteRecordsPartitionResult {
        partition_index: i32 [..];
        low_watermark: i64 [..];
        error_code: i16 [..];
    }

    ElectLeadersRequest {
        election_type: i8 [1..];
        topic_partitions: Option<Vec<TopicPartitions>> [..];
        timeout_ms: i32 [..] = 60000;
    }

    TopicPartitions {
        topic: Str [..];
        partitions: Vec<i32> [..];
    }

    ElectLeadersResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [1..];
        replica_election_results: Vec<ReplicaElectionResult> [..];
    }

    ReplicaElectionResult {
        topic: Str [..];
        partition_result: Vec<PartitionResult> [..];
    }

    PartitionResult {
        partition_id: i32 [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
    }

    ListPartitionReassignmentsRequest {
        timeout_ms: i32 [..] = 60000;
        topics: Option<Vec<ListPartitionReassignmentsTopics>> [..];
    }

    ListPartitionReassignmentsTopics {
        name: Str [..];
        partition_indexes: Vec<i32> [..];
    }

    ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
        topics: Vec<OngoingTopicReassignment> [..];
    }

    OngoingTopicReassignment {
        name: Str [..];
        partitions: Vec<OngoingPartitionReassignment> [..];
    }

    OngoingPartitionReassignment {
        partition_index: i32 [..];
        replicas: Vec<i32> [..];
        adding_replicas: Vec<i32> [..];
        removing_replicas: Vec<i32> [..];
    }
}
