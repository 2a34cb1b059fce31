//! Consumer groups that the server assigns (KIP-848).

use uuid::Uuid;

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    ConsumerGroupHeartbeatRequest {
        group_id: Str [..];
        member_id: Str [..];
        member_epoch: i32 [..];
        instance_id: Option<Str> [..];
        rack_id: Option<Str> [..];
        rebalance_timeout_ms: i32 [..] = -1;
        subscribed_topic_names: Option<Vec<Str>> [..];
        subscribed_topic_regex: Option<Str> [1..];
        server_assignor: Option<Str> [..];
        topic_partitions: Option<Vec<HeartbeatTopicPartitions>> [..];
    }

    HeartbeatTopicPartitions {
        topic_id: Uuid [..];
        partitions: Vec<i32> [..];
    }

    ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
        member_id: Option<Str> [..];
        member_epoch: i32 [..];
        heartbeat_interval_ms: i32 [..];
        assignment: Option<HeartbeatAssignment> [..];
    }

    HeartbeatAssignment {
        topic_partitions: Vec<HeartbeatTopicPartitions> [..];
    }

    ConsumerGroupDescribeRequest {
        group_ids: Vec<Str> [..];
        include_authorized_operations: bool [..];
    }

    ConsumerGroupDescribeResponse {
        throttle_time_ms: i32 [..];
        groups: Vec<DescribedGroup> [..];
    }

    DescribedGroup {
        error_code: i16 [..];
        error_message: Option<Str> [..];
        group_id: Str [..];
        group_state: Str [..];
        group_epoch: i32 [..];
        assignment_epoch: i32 [..];
        assignor_name: Str [..];
        members: Vec<Member> [..];
        authorized_operations: i32 [..] = i32::MIN;
    }

    Member {
        member_id: Str [..];
        instance_id: Option<Str> [..];
        rack_id: Option<Str> [..];
        member_epoch: i32 [..];
        client_id: Str [..];
        client_host: Str [..];
        subscribed_topic_names: Vec<Str> [..];
        subscribed_topic_regex: Option<Str> [..];
        assignment: DescribedAssignment [..];
        target_assignment: DescribedAssignment [..];
        member_type: i8 [1..] = -1;
    }

    DescribedTopicPartitions {
        topic_id: Uuid [..];
        topic_name: Str [..];
        partitions: Vec<i32> [..];
    }

    DescribedAssignment {
        topic_partitions: Vec<DescribedTopicPartitions> [..];
    }
}
