//! Offsets that groups commit.

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    OffsetCommitRequest {
        group_id: Str [..];
        generation_id_or_member_epoch: i32 [..] = -1;
        member_id: Str [..];
        group_instance_id: Option<Str> [7..];
        retention_time_ms: i64 [..=4] = -1;
        topics: Vec<OffsetCommitRequestTopic> [..];
    }

    OffsetCommitRequestTopic {
        name: Str [..];
        partitions: Vec<OffsetCommitRequestPartition> [..];
    }

    OffsetCommitRequestPartition {
        partition_index: i32 [..];
        committed_offset: i64 [..];
        committed_leader_epoch: i32 [6..] = -1;
        committed_metadata: Option<Str> [..];
    }

    OffsetCommitResponse {
        throttle_time_ms: i32 [3..];
        topics: Vec<OffsetCommitResponseTopic> [..];
    }

    OffsetCommitResponseTopic {
        name: Str [..];
        partitions: Vec<OffsetCommitResponsePartition> [..];
    }

    OffsetCommitResponsePartition {
        partition_index: i32 [..];
        error_code: i16 [..];
    }

    OffsetFetchRequest {
        group_id: Str [..=7];
        topics: Option<Vec<OffsetFetchRequestTopic>> [..=7] null [2..=7];
        groups: Vec<OffsetFetchRequestGroup> [8..];
        require_stable: bool [7..];
    }

    OffsetFetchRequestTopic {
        name: Str [..=7];
        partition_indexes: Vec<i32> [..=7];
    }

    OffsetFetchRequestGroup {
        group_id: Str [8..];
        member_id: Option<Str> [9..];
        member_epoch: i32 [9..] = -1;
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..];
    }

    OffsetFetchRequestTopics {
        name: Str [8..];
        partition_indexes: Vec<i32> [8..];
    }

    OffsetFetchResponse {
        throttle_time_ms: i32 [3..];
        topics: Vec<OffsetFetchResponseTopic> [..=7];
        error_code: i16 [2..=7];
        groups: Vec<OffsetFetchResponseGroup> [8..];
    }

    OffsetFetchResponseTopic {
        name: Str [..=7];
        partitions: Vec<OffsetFetchResponsePartition> [..=7];
    }

    OffsetFetchResponsePartition {
        partition_index: i32 [..=7];
        committed_offset: i64 [..=7];
        committed_leader_epoch: i32 [5..=7] = -1;
        metadata: Option<Str> [..=7];
        error_code: i16 [..=7];
    }

    OffsetFetchResponseGroup {
        group_id: Str [8..];
        topics: Vec<OffsetFetchResponseTopics> [8..];
        error_code: i16 [8..];
    }

    OffsetFetchResponseTopics {
        name: Str [8..];
        partitions: Vec<OffsetFetchResponsePartitions> [8..];
    }

    OffsetFetchResponsePartitions {
        partition_index: i32 [8..];
        committed_offset: i64 [8..];
        committed_leader_epoch: i32 [8..] = -1;
        metadata: Option<Str> [8..];
        error_code: i16 [8..];
    }

    OffsetDeleteRequest {
        group_id: Str [..];
        topics: Vec<OffsetDeleteRequestTopic> [..];
    }

    OffsetDeleteRequestTopic {
        name: Str [..];
        partitions: Vec<OffsetDeleteRequestPartition> [..];
    }

    OffsetDeleteRequestPartition {
        partition_index: i32 [..];
    }

    OffsetDeleteResponse {
        error_code: i16 [..];
        throttle_time_ms: i32 [..];
        topics: Vec<OffsetDeleteResponseTopic> [..];
    }

    OffsetDeleteResponseTopic {
        name: Str [..];
        partitions: Vec<OffsetDeleteResponsePartition> [..];
    }

    OffsetDeleteResponsePartition {
        partition_index: i32 [..];
        error_code: i16 [..];
    }
}
