//! What each API answers, one family a file.

use std::future::{Future, ready};
use std::sync::Arc;

use firth_gateway::future::BoxFuture;

use crate::apis::{Request, Response};
use crate::client::Client;
use crate::envelope::RequestHeader;
use crate::messages::produce::ProduceResponse;

pub mod alter_configs;
pub mod cluster;
pub mod configs;
pub mod consumers;
pub mod fault;
pub mod fetch;
pub mod fetch_sessions;
pub mod groups;
pub mod list_offsets;
pub mod metadata;
pub mod offsets;
pub mod partitions;
pub mod produce;
pub mod producers;
pub mod topic_names;
pub mod topics;
pub mod translate;
pub mod versions;

/// The answer to a request, on its way. `hurry` lets a fetch answer before its time.
pub fn handle(
    client: Arc<Client>,
    header: &RequestHeader,
    request: Request,
    hurry: Option<Arc<fetch::Hurry>>,
) -> BoxFuture<'static, Response> {
    let (version, client_id) = (header.api_version, header.client_id.clone());
    match request {
        // Never asked: the session sends the batches of many requests down together.
        Request::Produce(_) => boxed(ready(ProduceResponse::default())),
        Request::Fetch(request) => boxed(fetch::fetch(client, version, request, hurry.unwrap_or_default())),
        Request::ListOffsets(request) => boxed(list_offsets::list_offsets(client, version, request)),
        Request::Metadata(request) => boxed(metadata::metadata(client, version, request)),
        Request::ApiVersions(request) => boxed(ready(versions::api_versions(version, &request))),
        Request::CreateTopics(request) => boxed(topics::create_topics(client, version, request)),
        Request::DeleteTopics(request) => boxed(topics::delete_topics(client, version, request)),
        Request::DeleteRecords(request) => boxed(partitions::delete_records(client, version, request)),
        Request::InitProducerId(request) => boxed(producers::init_producer_id(client, version, request)),
        Request::OffsetForLeaderEpoch(request) => boxed(list_offsets::offset_for_leader_epoch(client, version, request)),
        Request::DescribeAcls(request) => boxed(configs::describe_acls(client, version, request)),
        Request::DescribeConfigs(request) => boxed(configs::describe_configs(client, version, request)),
        Request::AlterConfigs(request) => boxed(alter_configs::alter_configs(client, version, request)),
        Request::DescribeLogDirs(request) => boxed(cluster::describe_log_dirs(client, version, request)),
        Request::CreatePartitions(request) => boxed(partitions::create_partitions(client, version, request)),
        Request::ElectLeaders(request) => boxed(partitions::elect_leaders(client, version, request)),
        Request::IncrementalAlterConfigs(request) => boxed(alter_configs::incremental_alter_configs(client, version, request)),
        Request::ListPartitionReassignments(request) => boxed(partitions::list_partition_reassignments(client, version, request)),
        Request::DescribeCluster(request) => boxed(cluster::describe_cluster(client, version, request)),
        Request::DescribeProducers(request) => boxed(producers::describe_producers(client, version, request)),
        Request::ListTransactions(request) => boxed(producers::list_transactions(client, version, request)),
        Request::ListConfigResources(request) => boxed(configs::list_config_resources(client, version, request)),
        Request::DescribeTopicPartitions(request) => boxed(cluster::describe_topic_partitions(client, version, request)),
        Request::OffsetCommit(request) => boxed(offsets::offset_commit(client, version, request)),
        Request::OffsetFetch(request) => boxed(offsets::offset_fetch(client, version, request)),
        Request::OffsetDelete(request) => boxed(offsets::offset_delete(client, version, request)),
        Request::FindCoordinator(request) => boxed(groups::find_coordinator(client, version, request)),
        Request::JoinGroup(request) => boxed(groups::join_group(client, client_id, version, request)),
        Request::Heartbeat(request) => boxed(groups::heartbeat(client, version, request)),
        Request::LeaveGroup(request) => boxed(groups::leave_group(client, version, request)),
        Request::SyncGroup(request) => boxed(groups::sync_group(client, version, request)),
        Request::DescribeGroups(request) => boxed(groups::describe_groups(client, version, request)),
        Request::ListGroups(request) => boxed(groups::list_groups(client, version, request)),
        Request::DeleteGroups(request) => boxed(groups::delete_groups(client, version, request)),
        Request::ConsumerGroupHeartbeat(request) => boxed(consumers::heartbeat(client, client_id, version, request)),
        Request::ConsumerGroupDescribe(request) => boxed(consumers::describe(client, version, request)),
    }
}

fn boxed<R: Into<Response>>(answer: impl Future<Output = R> + Send + 'static) -> BoxFuture<'static, Response> {
    Box::pin(async move { answer.await.into() })
}
