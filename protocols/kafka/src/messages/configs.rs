//! Settings of topics, groups and nodes, and who may do what.

use crate::codec::message::message;
use crate::codec::text::Str;

message! {
    DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> [..];
        include_synonyms: bool [..];
        include_documentation: bool [3..];
    }

    DescribeConfigsResource {
        resource_type: i8 [..];
        resource_name: Str [..];
        configuration_keys: Option<Vec<Str>> [..];
    }

    DescribeConfigsResponse {
        throttle_time_ms: i32 [..];
        results: Vec<DescribeConfigsResult> [..];
    }

    DescribeConfigsResult {
        error_code: i16 [..];
        error_message: Option<Str> [..];
        resource_type: i8 [..];
        resource_name: Str [..];
        configs: Vec<DescribeConfigsResourceResult> [..];
    }

    DescribeConfigsResourceResult {
        name: Str [..];
        value: Option<Str> [..];
        read_only: bool [..];
        config_source: i8 [..] = -1;
        is_sensitive: bool [..];
        synonyms: Vec<DescribeConfigsSynonym> [..];
        config_type: i8 [3..];
        documentation: Option<Str> [3..];
    }

    DescribeConfigsSynonym {
        name: Str [..];
        value: Option<Str> [..];
        source: i8 [..];
    }

    AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [..];
        validate_only: bool [..];
    }

    AlterConfigsResource {
        resource_type: i8 [..];
        resource_name: Str [..];
        configs: Vec<AlterableConfig> [..];
    }

    AlterableConfig {
        name: Str [..];
        value: Option<Str> [..];
    }

    AlterConfigsResponse {
        throttle_time_ms: i32 [..];
        responses: Vec<AlterConfigsResourceResponse> [..];
    }

    AlterConfigsResourceResponse {
        error_code: i16 [..];
        error_message: Option<Str> [..];
        resource_type: i8 [..];
        resource_name: Str [..];
    }

    IncrementalAlterConfigsRequest {
        resources: Vec<IncrementalAlterConfigsResource> [..];
        validate_only: bool [..];
    }

    IncrementalAlterConfigsResource {
        resource_type: i8 [..];
        resource_name: Str [..];
        configs: Vec<IncrementalAlterableConfig> [..];
    }

    IncrementalAlterableConfig {
        name: Str [..];
        config_operation: i8 [..];
        value: Option<Str> [..];
    }

    IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 [..];
        responses: Vec<IncrementalAlterConfigsResourceResponse> [..];
    }

    IncrementalAlterConfigsResourceResponse {
        error_code: i16 [..];
        error_message: Option<Str> [..];
        resource_type: i8 [..];
        resource_name: Str [..];
    }

    ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..];
    }

    ListConfigResourcesResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        config_resources: Vec<ConfigResource> [..];
    }

    ConfigResource {
        resource_name: Str [..];
        resource_type: i8 [1..] = 16;
    }

    DescribeAclsRequest {
        resource_type_filter: i8 [..];
        resource_name_filter: Option<Str> [..];
        pattern_type_filter: i8 [..] = 3;
        principal_filter: Option<Str> [..];
        host_filter: Option<Str> [..];
        operation: i8 [..];
        permission_type: i8 [..];
    }

    DescribeAclsResponse {
        throttle_time_ms: i32 [..];
        error_code: i16 [..];
        error_message: Option<Str> [..];
        resources: Vec<DescribeAclsResource> [..];
    }

    DescribeAclsResource {
        resource_type: i8 [..];
        resource_name: Str [..];
        pattern_type: i8 [..] = 3;
        acls: Vec<AclDescription> [..];
    }

    AclDescription {
        principal: Str [..];
        host: Str [..];
        operation: i8 [..];
        permission_type: i8 [..];
    }
}
