//! AlterConfigs and IncrementalAlterConfigs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firth_gateway::refusal::Refusal;
use firth_gateway::request::{Alter, Request};

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::group_settings::{self, GROUPS_OWNER};
use crate::handlers::configs::{BROKER, GROUP, TOPIC, check_node, kept};
use crate::handlers::fault::{Fault, told};
use crate::handlers::topic_names::parse;
use crate::handlers::topics::repeated;
use crate::messages::configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use crate::setting::{Kind, Setting, elements};
use crate::settings;

/// Attempts at a change while others change the same topic; the last wait is a third of a second.
const TRIES: u32 = 7;
const FIRST_WAIT_MS: u64 = 5;

type Settings = BTreeMap<String, String>;

/// What is to become of a resource's settings.
enum Change {
    /// These and no others.
    Replace(Settings),
    Steps(Vec<Step>),
}

struct Step {
    name: String,
    action: Action,
}

enum Action {
    Set(String),
    Delete,
    /// Elements of a list, separated by commas.
    Append(String),
    Subtract(String),
}

/// Replaces all settings of each resource.
pub async fn alter_configs(client: Arc<Client>, _version: i16, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let twice = repeated(request.resources.iter().map(|resource| (resource.resource_type, resource.resource_name.clone())));
    let mut response = AlterConfigsResponse::default();
    for resource in request.resources {
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
        let outcome = match replacement(resource) {
            _ if twice.contains(&(resource_type, resource_name.clone())) => Err(Fault::twice()),
            Ok(change) => alter(&client, resource_type, &resource_name, &change, request.validate_only).await,
            Err(fault) => Err(fault),
        };
        let (error_code, error_message) = told(&outcome);
        response.responses.push(AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name });
    }
    response
}

/// Changes single settings of each resource.
pub async fn incremental_alter_configs(
    client: Arc<Client>,
    _version: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let twice = repeated(request.resources.iter().map(|resource| (resource.resource_type, resource.resource_name.clone())));
    let mut response = IncrementalAlterConfigsResponse::default();
    for resource in request.resources {
        let (resource_type, resource_name) = (resource.resource_type, resource.resource_name.clone());
        let outcome = match steps(resource) {
            _ if twice.contains(&(resource_type, resource_name.clone())) => Err(Fault::twice()),
            Ok(change) => alter(&client, resource_type, &resource_name, &change, request.validate_only).await,
            Err(fault) => Err(fault),
        };
        let (error_code, error_message) = told(&outcome);
        response.responses.push(IncrementalAlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name });
    }
    response
}

fn replacement(resource: AlterConfigsResource) -> Result<Change, Fault> {
    check_once(resource.configs.iter().map(|config| &config.name))?;
    let pair = |name: Str, value: Option<Str>| Ok((name.as_str().to_owned(), value.ok_or_else(|| no_value(&name))?.as_str().to_owned()));
    let settings: Result<Settings, Fault> = resource.configs.into_iter().map(|config| pair(config.name, config.value)).collect();
    settings.map(Change::Replace)
}

fn steps(resource: IncrementalAlterConfigsResource) -> Result<Change, Fault> {
    check_once(resource.configs.iter().map(|config| &config.name))?;
    let step = |name: Str, operation: i8, value: Option<Str>| {
        let value = value.map(|value| value.as_str().to_owned()).ok_or_else(|| no_value(&name));
        let action = match operation {
            0 => Action::Set(value?),
            1 => Action::Delete,
            2 => Action::Append(value?),
            3 => Action::Subtract(value?),
            other => return Err(Fault::because(errors::INVALID_REQUEST, format!("there is no operation {other}"))),
        };
        Ok(Step { name: name.as_str().to_owned(), action })
    };
    let steps: Result<Vec<Step>, Fault> =
        resource.configs.into_iter().map(|config| step(config.name, config.config_operation, config.value)).collect();
    steps.map(Change::Steps)
}

fn check_once<'a>(names: impl Iterator<Item = &'a Str>) -> Result<(), Fault> {
    match repeated(names).iter().next() {
        Some(name) => Err(Fault::because(errors::INVALID_REQUEST, format!("{name} stands in the request more than once"))),
        None => Ok(()),
    }
}

fn no_value(name: &str) -> Fault {
    Fault::because(errors::INVALID_REQUEST, format!("{name} has no value"))
}

async fn alter(client: &Client, resource_type: i8, name: &str, change: &Change, validate_only: bool) -> Result<(), Fault> {
    match resource_type {
        TOPIC => alter_topic(client, name, change, validate_only).await,
        GROUP => alter_group(client, name, change, validate_only).await,
        BROKER => {
            if !name.is_empty() {
                check_node(client, name)?;
            }
            Err(Fault::because(errors::INVALID_REQUEST, "the node's settings change only in its own configuration"))
        }
        other => Err(Fault::because(errors::INVALID_REQUEST, format!("settings of resources of type {other} cannot be changed"))),
    }
}

async fn alter_topic(client: &Client, name: &str, change: &Change, validate_only: bool) -> Result<(), Fault> {
    parse(name)?;
    for attempt in 0..TRIES {
        let stream = client.view().stream(name).ok_or_else(|| Fault::no_topic(name))?;
        let changed = change.apply(&stream.settings, settings::find)?;
        let settings = settings::check(&changed).map_err(|what| Fault::because(errors::INVALID_CONFIG, what))?;
        if validate_only || settings == stream.settings {
            return Ok(());
        }
        let alter = Alter { stream: stream.id, version: stream.version, policy: settings::policy(&settings), settings };
        match client.ask(Request::Alter(Box::new(alter))).await {
            Ok(_) => return Ok(()),
            // Somebody's change is on its way to the disk; when it is there, the view shows it.
            Err(Refusal::Conflict) => tokio::time::sleep(Duration::from_millis(FIRST_WAIT_MS << attempt)).await,
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(Fault::because(errors::REQUEST_TIMED_OUT, "others change the topic all the time"))
}

async fn alter_group(client: &Client, group: &str, change: &Change, validate_only: bool) -> Result<(), Fault> {
    if group.is_empty() {
        return Err(Fault::because(errors::INVALID_REQUEST, "a group has a name"));
    }
    let owner = group_settings::owner(group);
    let before = kept(client, owner.clone()).await?;
    let changed = change.apply(&before, group_settings::find)?;
    let after = group_settings::check(&changed).map_err(|what| Fault::because(errors::INVALID_CONFIG, what))?;
    if validate_only || after == before {
        return Ok(());
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
    let settings = gone.chain(after.iter().map(|(name, value)| (name.clone(), Some(value.clone())))).collect();
    let listed = if after.is_empty() { None } else { Some(String::new()) };
    let list = Request::Keep { owner: GROUPS_OWNER.to_owned(), settings: BTreeMap::from([(group.to_owned(), listed)]) };
    for answer in client.ask_all(vec![Request::Keep { owner, settings }, list]).await {
        answer.map_err(Fault::from)?;
    }
    Ok(())
}

impl Change {
    /// The settings after the change; `find` knows the kind of each setting.
    fn apply(&self, before: &Settings, find: impl Fn(&str) -> Option<&'static Setting>) -> Result<Settings, Fault> {
        let steps = match self {
            Change::Replace(settings) => return Ok(settings.clone()),
            Change::Steps(steps) => steps,
        };
        let mut after = before.clone();
        for step in steps {
            match &step.action {
                Action::Set(value) => {
                    after.insert(step.name.clone(), value.clone());
                }
                Action::Delete => {
                    after.remove(&step.name);
                }
                Action::Append(value) | Action::Subtract(value) => {
                    let list = find(&step.name).filter(|setting| setting.kind == Kind::List);
                    let no_list = || Fault::because(errors::INVALID_CONFIG, format!("{} is no list", step.name));
                    let default = list.ok_or_else(no_list)?.default;
                    let present = after.get(&step.name).map_or(default, String::as_str);
                    let mut parts: Vec<&str> = elements(present).collect();
                    for part in elements(value).map(str::trim) {
                        match &step.action {
                            Action::Subtract(_) => parts.retain(|present| *present != part),
                            _ if parts.contains(&part) => {}
                            _ => parts.push(part),
                        }
                    }
                    let value = parts.join(",");
                    after.insert(step.name.clone(), value);
                }
            }
        }
        Ok(after)
    }
}
