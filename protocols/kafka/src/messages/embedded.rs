//! What consumers tell each other inside of group messages.

use bytes::Bytes;

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    ConsumerProtocolSubscription {
        topics: Vec<Str> [..];
        user_data: Option<Bytes> [..];
        owned_partitions: Vec<OwnedTopicPartition> [1..];
        generation_id: i32 [2..] = -1;
        rack_id: Option<Str> [3..];
    }

    OwnedTopicPartition {
        topic: Str [1..];
        partitions: Vec<i32> [1..];
    }

    ConsumerProtocolAssignment {
        assigned_partitions: Vec<AssignedTopicPartition> [..];
        user_data: Option<Bytes> [..];
    }

    AssignedTopicPartition {
        topic: Str [..];
        partitions: Vec<i32> [..];
    }
}
