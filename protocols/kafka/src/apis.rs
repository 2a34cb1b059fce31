//! The APIs that are served, in which versions.

use crate::codec::form::Form;
use crate::codec::reader::{Malformed, Reader};
use crate::codec::wire::Wire;
use crate::codec::writer::Writer;
use crate::messages::{configs, consumers, fetch, groups, metadata, offsets, produce, topics};

/// One API as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    pub key: ApiKey,
    pub name: &'static str,
    /// Advertised versions.
    pub min: i16,
    pub max: i16,
    /// First version with compact lengths and tagged fields.
    pub flexible_from: i16,
}

impl Api {
    /// The shape of the API's messages in `version`.
    pub const fn form(&self, version: i16) -> Form {
        Form { version, flexible: version >= self.flexible_from }
    }

    /// Whether requests of `version` can be read.
    pub const fn reads(&self, version: i16) -> bool {
        version >= self.min && version <= self.max
    }

    /// Whether the response header of `version` has tagged fields. Never for ApiVersions: its client does not know yet what
    /// the server speaks.
    pub const fn tags_response_header(&self, version: i16) -> bool {
        version >= self.flexible_from && !matches!(self.key, ApiKey::ApiVersions)
    }
}

macro_rules! apis {
    ($( $key:literal $name:ident [$min:literal $max:literal] flexible $flexible:literal
        $family:ident $request:ident $response:ident; )*) => {
        /// Names an API on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ApiKey { $( $name = $key, )* }

        /// All served APIs, by key.
        pub const APIS: &[Api] = &[ $( ApiKey::$name.api(), )* ];

        impl ApiKey {
            /// The API that `number` names, if it is served.
            pub const fn find(number: i16) -> Option<ApiKey> {
                match number {
                    $( $key => Some(ApiKey::$name), )*
                    _ => None,
                }
            }

            pub const fn number(self) -> i16 {
                match self { $( ApiKey::$name => $key, )* }
            }

            pub const fn api(self) -> Api {
                match self { $( ApiKey::$name => Api {
                    key: ApiKey::$name,
                    name: stringify!($name),
                    min: $min,
                    max: $max,
                    flexible_from: $flexible,
                }, )* }
            }
        }

        /// The body of a request.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request { $( $name($family::$request), )* }

        /// The body of a response.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Response { $( $name($family::$response), )* }

        impl Request {
            pub fn key(&self) -> ApiKey {
                match self { $( Request::$name(_) => ApiKey::$name, )* }
            }

            /// Reads the body of a request to `key` in the reader's form.
            pub fn read(key: ApiKey, reader: &mut Reader) -> Result<Request, Malformed> {
                match key { $( ApiKey::$name => Wire::read(reader).map(Request::$name), )* }
            }

            pub fn write(&self, writer: &mut Writer) {
                match self { $( Request::$name(body) => body.write(writer), )* }
            }
        }

        impl Response {
            pub fn key(&self) -> ApiKey {
                match self { $( Response::$name(_) => ApiKey::$name, )* }
            }

            /// Reads the body of a response from `key` in the reader's form.
            pub fn read(key: ApiKey, reader: &mut Reader) -> Result<Response, Malformed> {
                match key { $( ApiKey::$name => Wire::read(reader).map(Response::$name), )* }
            }

            pub fn write(&self, writer: &mut Writer) {
                match self { $( Response::$name(body) => body.write(writer), )* }
            }
        }

        $(
            impl From<$family::$request> for Request {
                fn from(body: $family::$request) -> Request {
                    Request::$name(body)
                }
            }

            impl From<$family::$response> for Response {
                fn from(body: $family::$response) -> Response {
                    Response::$name(body)
                }
            }
        )*

        #[cfg(test)]
        impl Request {
            pub fn sample(key: ApiKey, dice: &mut crate::codec::dice::Dice, form: Form) -> Request {
                match key { $( ApiKey::$name => Request::$name(Wire::sample(dice, form)), )* }
            }
        }

        #[cfg(test)]
        impl Response {
            pub fn sample(key: ApiKey, dice: &mut crate::codec::dice::Dice, form: Form) -> Response {
                match key { $( ApiKey::$name => Response::$name(Wire::sample(dice, form)), )* }
            }
        }
    };
}

// Produce 0 to 2 are advertised because librdkafka takes their absence for a server that knows no compression (KAFKA-18659); they are
// read only to be refused.
apis! {
    0 Produce [0 13] flexible 9 produce ProduceRequest ProduceResponse;
    1 Fetch [4 18] flexible 12 fetch FetchRequest FetchResponse;
    2 ListOffsets [1 10] flexible 6 fetch ListOffsetsRequest ListOffsetsResponse;
    3 Metadata [0 13] flexible 9 metadata MetadataRequest MetadataResponse;
    8 OffsetCommit [2 9] flexible 8 offsets OffsetCommitRequest OffsetCommitResponse;
    9 OffsetFetch [1 9] flexible 6 offsets OffsetFetchRequest OffsetFetchResponse;
    10 FindCoordinator [0 6] flexible 3 groups FindCoordinatorRequest FindCoordinatorResponse;
    11 JoinGroup [0 9] flexible 6 groups JoinGroupRequest JoinGroupResponse;
    12 Heartbeat [0 4] flexible 4 groups HeartbeatRequest HeartbeatResponse;
    13 LeaveGroup [0 5] flexible 4 groups LeaveGroupRequest LeaveGroupResponse;
    14 SyncGroup [0 5] flexible 4 groups SyncGroupRequest SyncGroupResponse;
    15 DescribeGroups [0 6] flexible 5 groups DescribeGroupsRequest DescribeGroupsResponse;
    16 ListGroups [0 5] flexible 3 groups ListGroupsRequest ListGroupsResponse;
    18 ApiVersions [0 4] flexible 3 metadata ApiVersionsRequest ApiVersionsResponse;
    19 CreateTopics [2 7] flexible 5 topics CreateTopicsRequest CreateTopicsResponse;
    20 DeleteTopics [1 6] flexible 4 topics DeleteTopicsRequest DeleteTopicsResponse;
    21 DeleteRecords [0 2] flexible 2 topics DeleteRecordsRequest DeleteRecordsResponse;
    22 InitProducerId [0 5] flexible 2 produce InitProducerIdRequest InitProducerIdResponse;
    23 OffsetForLeaderEpoch [2 4] flexible 4 fetch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    29 DescribeAcls [1 3] flexible 2 configs DescribeAclsRequest DescribeAclsResponse;
    32 DescribeConfigs [1 4] flexible 4 configs DescribeConfigsRequest DescribeConfigsResponse;
    33 AlterConfigs [0 2] flexible 2 configs AlterConfigsRequest AlterConfigsResponse;
    35 DescribeLogDirs [1 4] flexible 2 metadata DescribeLogDirsRequest DescribeLogDirsResponse;
    37 CreatePartitions [0 3] flexible 2 topics CreatePartitionsRequest CreatePartitionsResponse;
    42 DeleteGroups [0 2] flexible 2 groups DeleteGroupsRequest DeleteGroupsResponse;
    43 ElectLeaders [0 2] flexible 2 topics ElectLeadersRequest ElectLeadersResponse;
    44 IncrementalAlterConfigs [0 1] flexible 1 configs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
    46 ListPartitionReassignments [0 0] flexible 0 topics ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse;
    47 OffsetDelete [0 0] flexible 32767 offsets OffsetDeleteRequest OffsetDeleteResponse;
    60 DescribeCluster [0 2] flexible 0 metadata DescribeClusterRequest DescribeClusterResponse;
    61 DescribeProducers [0 0] flexible 0 produce DescribeProducersRequest DescribeProducersResponse;
    66 ListTransactions [0 2] flexible 0 produce ListTransactionsRequest ListTransactionsResponse;
    68 ConsumerGroupHeartbeat [0 1] flexible 0 consumers ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse;
    69 ConsumerGroupDescribe [0 1] flexible 0 consumers ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse;
    74 ListConfigResources [0 1] flexible 0 configs ListConfigResourcesRequest ListConfigResourcesResponse;
    75 DescribeTopicPartitions [0 0] flexible 0 metadata DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
}
