//! What readers of partitions ask.

use uuid::Uuid;

use crate::codec::message::message;
use crate::codec::text::Str;
use crate::codec::wire::Records;

message! {
    FetchRequest {
        replica_id: i32 [..=14] = -1;
        max_wait_ms: i32 [..];
        min_bytes: i32 [..];
        max_bytes: i32 [..] = i32::MAX;
        isolation_level: i8 [..];
        session_id: i32 [7..];
        session_epoch: i32 [7..] = -1;
        topics: Vec<FetchTopic> [..];
        forgotten_topics_data: Vec<ForgottenTopic> [7..];
        rack_id: Str [11..];
        cluster_id: Option<Str> [12..] tag 0;
        replica_state: ReplicaState [15..] tag 1;
    }

    ReplicaState {
        replica_id: i32 [15..] = -1;
        replica_epoch: i64 [15..] = -1;
    }

    FetchTopic {
        topic: Str [..=12];
        topic_id: Uuid [13..];
        partitions: Vec<FetchPartition> [..];
    }

    FetchPartition {
        partition: i32 [..];
        current_leader_epoch: i32 [9..] = -1;
        fetch_offset: i64 [..];
        last_fetched_epoch: i32 [12..] = -1;
        log_start_offset: i64 [5..] = -1;
        partition_max_bytes: i32 [..];
        replica_directory_id: Uuid [17..] tag 0;
        high_watermark: i64 [18..] tag 1 = i64::MAX;
    }

    ForgottenTopic {
        topic: Str [7..=12];
        topic_id: Uuid [13..];
        partitions: Vec<i32> [7..];
    }

    FetchResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [7..];
        session_id: i32 [7..];
        responses: Vec<FetchableTopicResponse> [..];
        node_endpoints: Vec<NodeEndpoint> [16..] tag 0;
    }

    FetchableTopicResponse {
        topic: Str [..=12];
        topic_id: Uuid [13..];
        partitions: Vec<PartitionData> [..];
    }

    PartitionData {
        partition_index: i32 [..];
        error_code: i16 [..];
        high_watermark: i64 [..];
        last_stable_offset: i64 [..] = -1;
        log_start_offset: i64 [5..] = -1;
        aborted_transactions: Option<Vec<AbortedTransaction>> [..];
        preferred_read_replica: i32 [11..] = -1;
        records: Option<Records> [..];
        diverging_epoch: DivergingEpoch [12..] tag 0;
        current_leader: LeaderIdAndEpoch [12..] tag 1;
        snapshot_id: SnapshotId [12..] tag 2;
    }

    DivergingEpoch {
        epoch: i32 [12..] = -1;
        end_offset: i64 [12..] = -1;
    }

    LeaderIdAndEpoch {
        leader_id: i32 [12..] = -1;
        leader_epoch: i32 [12..] = -1;
    }

    SnapshotId {
        end_offset: i64 [..] = -1;
        epoch: i32 [..] = -1;
    }

    AbortedTransaction {
        producer_id: i64 [..];
        first_offset: i64 [..];
    }

    NodeEndpoint {
        node_id: i32 [16..];
        host: Str [16..];
        port: i32 [16..];
        rack: Option<Str> [16..];
    }

    ListOffsetsRequest {
        replica_id: i32 [..];
        isolation_level: i8 [2..];
        topics: Vec<ListOffsetsTopic> [..];
        timeout_ms: i32 [10..];
    }

    ListOffsetsTopic {
        name: Str [..];
        partitions: Vec<ListOffsetsPartition> [..];
    }

    ListOffsetsPartition {
        partition_index: i32 [..];
        current_leader_epoch: i32 [4..] = -1;
        timestamp: i64 [..];
    }

    ListOffsetsResponse {
        throttle_time_ms: i32 [2..];
        topics: Vec<ListOffsetsTopicResponse> [..];
    }

    ListOffsetsTopicResponse {
        name: Str [..];
        partitions: Vec<ListOffsetsPartitionResponse> [..];
    }

    ListOffsetsPartitionResponse {
        partition_index: i32 [..];
        error_code: i16 [..];
        timestamp: i64 [..] = -1;
        offset: i64 [..] = -1;
        leader_epoch: i32 [4..] = -1;
    }

    OffsetForLeaderEpochRequest {
        replica_id: i32 [3..] = -2;
        topics: Vec<OffsetForLeaderTopic> [..];
    }

    OffsetForLeaderTopic {
        topic: Str [..];
        partitions: Vec<OffsetForLeaderPartition> [..];
    }

    OffsetForLeaderPartition {
        partition: i32 [..];
        current_leader_epoch: i32 [..] = -1;
        leader_epoch: i32 [..];
    }

    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [..];
        topics: Vec<OffsetForLeaderTopicResult> [..];
    }

    OffsetForLeaderTopicResult {
        topic: Str [..];
        partitions: Vec<EpochEndOffset> [..];
    }

    EpochEndOffset {
        error_code: i16 [..];
        partition: i32 [..];
        leader_epoch: i32 [..] = -1;
        end_offset: i64 [..] = -1;
    }
}
