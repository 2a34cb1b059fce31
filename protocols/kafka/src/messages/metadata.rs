//! What a node tells about itself and its streams.

use uuid::Uuid;

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    ApiVersionsRequest {
        client_software_name: Str [3..];
        client_software_version: Str [3..];
    }

    ApiVersionsResponse {
        error_code: i16 [..];
        api_keys: Vec<ApiVersion> [..];
        throttle_time_ms: i32 [1..];
        supported_features: Vec<SupportedFeatureKey> [3..] tag 0;
        finalized_features_epoch: i64 [3..] tag 1 = -1;
        finalized_features: Vec<FinalizedFeatureKey> [3..] tag 2;
        zk_migration_ready: bool [3..] tag 3;
    }

    ApiVersion {
        api_key: i16 [..];
        min_version: i16 [..];
        max_version: i16 [..];
    }

    SupportedFeatureKey {
        name: Str [3..];
        min_version: i16 [3..];
        max_version: i16 [3..];
    }

    FinalizedFeatureKey {
        name: Str [3..];
        max_version_level: i16 [3..];
        min_version_level: i16 [3..];
    }

    MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [..] null [1..];
        allow_auto_topic_creation: bool [4..] = true;
        include_cluster_authorized_operations: bool [8..=10];
        include_topic_authorized_operations: bool [8..];
    }

    MetadataRequestTopic {
        topic_id: Uuid [10..];
        name: Option<Str> [..] null [10..];
    }

    MetadataResponse {
        throttle_time_ms: i32 [3..];
        brokers: Vec<MetadataResponseBroker> [..];
        cluster_id: Option<Str> [2..];
        controller_id: i32 [1..] = -1;
        topics: Vec<MetadataResponseTopic> [..];
        cluster_authorized_operations: i32 [8..=10] = i32::MIN;
        error_code: i16 [13..];
    }

    MetadataResponseBroker {
        node_id: i32 [..];
        host: Str [..];
        port: i32 [..];
        rack: Option<Str> [1..];
    }

    MetadataResponseTopic {
        error_code: i16 [..];
        name: Option<Str> [..] null [12..];
        topic_id: Uuid [10..];
        is_internal: bool [1..];
        partitions: Vec<MetadataResponsePartition> [..];
        topic_authorized_operations: i32 [8..] = i32::MIN;
    }

    MetadataResponsePartition {
        error_code: i16 [..];
        partition_index: i32 [..];
        leader_id: i32 [..];
        leader_epoch: i32 [7..] = -1;
        replica_nodes: Vec<i32> [..];
        isr_nodes: Vec<i32> [..];
        offline_replicas: Vec<i32> [5..];
    }

    DescribeTopicPartitionsRequest {
        topics: Vec<DescribeTopicPartitionsTopic> [..];
        response_partition_limit: i32 [..] = 2000;
        cursor: Option<Cursor> [..];
    }

    DescribeTopicPartitionsTopic {
        name: Str [..];
    }

    Cursor {
        topic_name: Str [..];
        partition_index: i32 [..];
    }

    DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 [..];
        topics: Vec<DescribeTopicPartitionsResponseTopic> [..];
        next_cursor: Option<Cursor> [..];
    }

    DescribeTopicPartitionsResponseTopic {
        error_code: i16 [..];
        name: Option<Str> [..];
        topic_id: Uuid [..];
        is_internal: bool [..];
        partitions: Vec<DescribeTopicPartitionsResponsePartition> [..];
        topic_authorized_operations: i32 [..] = i32::MIN;
    }

    DescribeTopicPartitionsResponsePartition {
        error_code: i16 [..];
        partition_index: i32 [..];
        leader_id: i32 [..];
        leader_epoch: i32 [..] = -1;
        replica_nodes: Vec<i32> [..];
        isr_nodes: Vec<i32> [..];
        eligible_leader_replicas: Option<Vec<i32>> [..];
        last_known_elr: Option<Vec<i32>> [..];
        offline_replicas: Vec<i32> [..];
    }

    DescribeClusterRequest {
        include_cluster_authorized_operations: bool [..];
        endpoint_type: i8 [1..] = 1;
        include_fenced_brokers: bool [2..];
    }

    DescribeClusterResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
        endpoint_type: i8 [1..] = 1;
        cluster_id: Str [..];
        controller_id: i32 [..] = -1;
        brokers: Vec<DescribeClusterBroker> [..];
        cluster_authorized_operations: i32 [..] = i32::MIN;
    }

    DescribeClusterBroker {
        broker_id: i32 [..];
        host: Str [..];
        port: i32 [..];
        rack: Option<Str> [..];
        is_fenced: bool [2..];
    }

    DescribeLogDirsRequest {
        topics: Option<Vec<DescribableLogDirTopic>> [..];
    }

    DescribableLogDirTopic {
        topic: Str [..];
        partitions: Vec<i32> [..];
    }

    DescribeLogDirsResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [3..];
        results: Vec<DescribeLogDirsResult> [..];
    }

    DescribeLogDirsResult {
        error_code: i16 [..];
        log_dir: Str [..];
        topics: Vec<DescribeLogDirsTopic> [..];
        total_bytes: i64 [4..] = -1;
        usable_bytes: i64 [4..] = -1;
    }

    DescribeLogDirsTopic {
        name: Str [..];
        partitions: Vec<DescribeLogDirsPartition> [..];
    }

    DescribeLogDirsPartition {
        partition_index: i32 [..];
        partition_size: i64 [..];
        offset_lag: i64 [..];
        is_future_key: bool [..];
    }
}
