//! DescribeConfigs, ListConfigResources, DescribeAcls.

use std::collections::BTreeMap;
use std::sync::Arc;

use firth_gateway::answer::Answer;
use firth_gateway::request::Request;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::group_settings::{self, GROUP_SETTINGS, GROUPS_OWNER};
use crate::handlers::fault::{Fault, told};
use crate::handlers::topic_names::parse;
use crate::messages::configs::{
    ConfigResource, DescribeAclsRequest, DescribeAclsResponse, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym, ListConfigResourcesRequest,
    ListConfigResourcesResponse,
};
use crate::node_settings::{NodeFacts, NodeSetting, node_settings};
use crate::setting::Setting;
use crate::settings::TOPIC_SETTINGS;

/// `resource_type` of what has settings. Source: Apache Kafka, `ConfigResource.Type`.
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const BROKER_LOGGER: i8 = 8;
pub const CLIENT_METRICS: i8 = 16;
pub const GROUP: i8 = 32;

/// `config_source`: where a value comes from. Source: Apache Kafka, `DescribeConfigsResponse.ConfigSource`.
pub const DYNAMIC_TOPIC_CONFIG: i8 = 1;
pub const STATIC_BROKER_CONFIG: i8 = 4;
pub const DEFAULT_CONFIG: i8 = 5;
pub const GROUP_CONFIG: i8 = 8;

/// What is told of each setting.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

pub async fn describe_configs(client: Arc<Client>, _version: i16, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let detail = Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let described = describe(&client, &resource, detail).await;
        let (error_code, error_message) = told(&described);
        let mut configs = described.unwrap_or_default();
        if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
            configs.retain(|config| keys.contains(&config.name));
        }
        results.push(DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs,
        });
    }
    DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }
}

async fn describe(
    client: &Client,
    resource: &DescribeConfigsResource,
    detail: Detail,
) -> Result<Vec<DescribeConfigsResourceResult>, Fault> {
    let name = resource.resource_name.as_str();
    let nameless = |what: &str| Fault::because(errors::INVALID_REQUEST, what);
    match resource.resource_type {
        TOPIC => {
            parse(name)?;
            let stream = client.view().stream(name).ok_or_else(|| Fault::no_topic(name))?;
            Ok(TOPIC_SETTINGS.iter().map(|setting| topic_line(setting, &stream.settings, detail)).collect())
        }
        // What was changed for all nodes at once: nothing can be.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER => {
            check_node(client, name)?;
            let (host, port) = client.advertised();
            let facts = NodeFacts { id: client.node_id(), host: host.as_str().to_owned(), port };
            Ok(node_settings(&facts, &client.settings).iter().map(|setting| node_line(setting, detail)).collect())
        }
        BROKER_LOGGER if name.is_empty() => Err(nameless("a logger is asked for by its broker's id")),
        BROKER_LOGGER => check_node(client, name).map(|()| Vec::new()),
        CLIENT_METRICS if name.is_empty() => Err(nameless("a subscription to metrics has a name")),
        CLIENT_METRICS => Ok(Vec::new()),
        GROUP if name.is_empty() => Err(nameless("a group has a name")),
        GROUP => {
            let kept = kept(client, group_settings::owner(name)).await?;
            Ok(GROUP_SETTINGS.iter().map(|setting| group_line(setting, &kept, detail)).collect())
        }
        other => Err(Fault::because(errors::INVALID_REQUEST, format!("resources of type {other} have no settings"))),
    }
}

/// Whether `name` is this node's id.
pub fn check_node(client: &Client, name: &str) -> Result<(), Fault> {
    if name.parse() == Ok(client.node_id()) {
        return Ok(());
    }
    Err(Fault::because(errors::INVALID_REQUEST, format!("the broker's id is {}, not {name}", client.node_id())))
}

/// The settings that the door keeps for `owner`.
pub async fn kept(client: &Client, owner: String) -> Result<BTreeMap<String, String>, Fault> {
    match client.ask(Request::Kept { owner }).await {
        Ok(Answer::Kept(settings)) => Ok(settings),
        Ok(_) => Ok(BTreeMap::new()),
        Err(refusal) => Err(refusal.into()),
    }
}

fn topic_line(setting: &Setting, set: &BTreeMap<String, String>, detail: Detail) -> DescribeConfigsResourceResult {
    let default = setting.node_names.first().map(|name| synonym(name, setting.default, DEFAULT_CONFIG));
    line(setting, set.get(setting.name), DYNAMIC_TOPIC_CONFIG, default, detail)
}

fn group_line(setting: &Setting, set: &BTreeMap<String, String>, detail: Detail) -> DescribeConfigsResourceResult {
    let value = set.get(setting.name);
    let default = value.is_none().then(|| synonym(setting.name, setting.default, DEFAULT_CONFIG));
    line(setting, value, GROUP_CONFIG, default, detail)
}

/// `default` is where the value comes from when nothing is set.
fn line(
    setting: &Setting,
    value: Option<&String>,
    source: i8,
    default: Option<DescribeConfigsSynonym>,
    detail: Detail,
) -> DescribeConfigsResourceResult {
    let set = value.map(|value| synonym(setting.name, value, source));
    DescribeConfigsResourceResult {
        name: Str::fixed(setting.name),
        value: Some(value.map_or(Str::fixed(setting.default), |value| Str::from(value.as_str()))),
        config_source: if value.is_some() { source } else { DEFAULT_CONFIG },
        synonyms: if detail.synonyms { set.into_iter().chain(default).collect() } else { Vec::new() },
        config_type: setting.kind.number(),
        documentation: detail.documentation.then_some(Str::fixed(setting.meaning)),
        ..DescribeConfigsResourceResult::default()
    }
}

fn node_line(setting: &NodeSetting, detail: Detail) -> DescribeConfigsResourceResult {
    let source = if setting.configured { STATIC_BROKER_CONFIG } else { DEFAULT_CONFIG };
    DescribeConfigsResourceResult {
        name: Str::fixed(setting.name),
        value: Some(Str::from(setting.value.as_str())),
        read_only: true,
        config_source: source,
        synonyms: if detail.synonyms { vec![synonym(setting.name, &setting.value, source)] } else { Vec::new() },
        config_type: setting.kind.number(),
        documentation: detail.documentation.then_some(Str::fixed(setting.meaning)),
        ..DescribeConfigsResourceResult::default()
    }
}

fn synonym(name: &'static str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: Str::fixed(name), value: Some(Str::from(value)), source }
}

pub async fn list_config_resources(client: Arc<Client>, version: i16, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let all = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    let types = match request.resource_types {
        // The first version only knew of subscriptions to metrics.
        _ if version == 0 => vec![CLIENT_METRICS],
        types if types.is_empty() => all.to_vec(),
        types => types,
    };
    let failed = |error_code| ListConfigResourcesResponse { error_code, ..ListConfigResourcesResponse::default() };
    if types.iter().any(|resource_type| !all.contains(resource_type)) {
        return failed(errors::UNSUPPORTED_VERSION);
    }
    let mut response = ListConfigResourcesResponse::default();
    for resource_type in all.into_iter().filter(|resource_type| types.contains(resource_type)) {
        let names: Vec<String> = match resource_type {
            TOPIC => client.view().streams().iter().map(|stream| stream.name.as_str().to_owned()).collect(),
            BROKER | BROKER_LOGGER => vec![client.node_id().to_string()],
            GROUP => match kept(&client, GROUPS_OWNER.to_owned()).await {
                Ok(groups) => groups.into_keys().collect(),
                Err(fault) => return failed(fault.code),
            },
            _ => Vec::new(),
        };
        let named = names.into_iter().map(|name| ConfigResource { resource_name: Str::from(name), resource_type });
        response.config_resources.extend(named);
    }
    response
}

pub async fn describe_acls(_client: Arc<Client>, _version: i16, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: errors::SECURITY_DISABLED,
        error_message: Some(Str::fixed("nobody is kept from anything: there are no access rules")),
        ..DescribeAclsResponse::default()
    }
}
