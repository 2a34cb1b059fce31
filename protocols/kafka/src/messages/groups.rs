//! Classic consumer groups.

use bytes::Bytes;

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    FindCoordinatorRequest {
        key: Str [..=3];
        key_type: i8 [1..];
        coordinator_keys: Vec<Str> [4..];
    }

    FindCoordinatorResponse {
        throttle_time_ms: i32 [1..];
        error_code: i16 [..=3];
        error_message: Option<Str> [1..=3];
        node_id: i32 [..=3];
        host: Str [..=3];
        port: i32 [..=3];
        coordinators: Vec<Coordinator> [4..];
    }

    Coordinator {
        key: Str [4..];
        node_id: i32 [4..];
        host: Str [4..];
        port: i32 [4..];
        error_code: i16 [4..];
        error_message: Option<Str> [4..];
    }

    JoinGroupRequest {
        group_id: Str [..];
        session_timeout_ms: i32 [..];
        rebalance_timeout_ms: i32 [1..] = -1;
        member_id: Str [..];
        group_instance_id: Option<Str> [5..];
        protocol_type: Str [..];
        protocols: Vec<JoinGroupRequestProtocol> [..];
        reason: Option<Str> [8..];
    }

    JoinGroupRequestProtocol {
        name: Str [..];
        metadata: Bytes [..];
    }

    JoinGroupResponse {
        throttle_time_ms: i32 [2..];
        error_code: i16 [..];
        generation_id: i32 [..] = -1;
        protocol_type: Option<Str> [7..];
        protocol_name: Option<Str> [..] null [7..];
        leader: Str [..];
        skip_assignment: bool [9..];
        member_id: Str [..];
        members: Vec<JoinGroupResponseMember> [..];
    }

    JoinGroupResponseMember {
        member_id: Str [..];
        group_instance_id: Option<Str> [5..];
        metadata: Bytes [..];
    }

    SyncGroupRequest {
        group_id: Str [..];
        generation_id: i32 [..];
        member_id: Str [..];
        group_instance_id: Option<Str> [3..];
        protocol_type: Option<Str> [5..];
        protocol_name: Option<Str> [5..];
        assignments: Vec<SyncGroupRequestAssignment> [..];
    }

    SyncGroupRequestAssignment {
        member_id: Str [..];
        assignment: Bytes [..];
    }

    SyncGroupResponse {
        throttle_time_ms: i32 [1..];
        error_code: i16 [..];
        protocol_type: Option<Str> [5..];
        protocol_name: Option<Str> [5..];
        assignment: Bytes [..];
    }

    HeartbeatRequest {
        group_id: Str [..];
        generation_id: i32 [..];
        member_id: Str [..];
        group_instance_id: Option<Str> [3..];
    }

    HeartbeatResponse {
        throttle_time_ms: i32 [1..];
        error_code: i16 [..];
    }

    LeaveGroupRequest {
        group_id: Str [..];
        member_id: Str [..=2];
        members: Vec<MemberIdentity> [3..];
    }

    MemberIdentity {
        member_id: Str [3..];
        group_instance_id: Option<Str> [3..];
        reason: Option<Str> [5..];
    }

    LeaveGroupResponse {
        throttle_time_ms: i32 [1..];
        error_code: i16 [..];
        members: Vec<MemberResponse> [3..];
    }

    MemberResponse {
        member_id: Str [3..];
        group_instance_id: Option<Str> [3..];
        error_code: i16 [3..];
    }

    DescribeGroupsRequest {
        groups: Vec<Str> [..];
        include_authorized_operations: bool [3..];
    }

    DescribeGroupsResponse {
        throttle_time_ms: i32 [1..];
        groups: Vec<DescribedGroup> [..];
    }

    DescribedGroup {
        error_code: i16 [..];
        error_message: Option<Str> [6..];
        group_id: Str [..];
        group_state: Str [..];
        protocol_type: Str [..];
        protocol_data: Str [..];
        members: Vec<DescribedGroupMember> [..];
        authorized_operations: i32 [3..] = i32::MIN;
    }

    DescribedGroupMember {
        member_id: Str [..];
        group_instance_id: Option<Str> [4..];
        client_id: Str [..];
        client_host: Str [..];
        member_metadata: Bytes [..];
        member_assignment: Bytes [..];
    }

    ListGroupsRequest {
        states_filter: Vec<Str> [4..];
        types_filter: Vec<Str> [5..];
    }

    ListGroupsResponse {
        throttle_time_ms: i32 [1..];
        error_code: i16 [..];
        groups: Vec<ListedGroup> [..];
    }

    ListedGroup {
        group_id: Str [..];
        protocol_type: Str [..];
        group_state: Str [4..];
        group_type: Str [5..];
    }

    DeleteGroupsRequest {
        groups_names: Vec<Str> [..];
    }

    DeleteGroupsResponse {
        throttle_time_ms: i32 [..];
        results: Vec<DeletableGroupResult> [..];
    }

    DeletableGroupResult {
        group_id: Str [..];
        error_code: i16 [..];
    }
}
