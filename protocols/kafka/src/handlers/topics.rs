//! CreateTopics and DeleteTopics.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use uuid::Uuid;

use firth_gateway::answer::Answer;
use firth_gateway::request::{Declare, Request};
use firth_gateway::streams::StreamInfo;
use firth_model::ids::StreamId;
use firth_model::limits::STREAM_PARTITIONS_MAX;

use crate::client::Client;
use crate::codec::text::Str;
use crate::errors;
use crate::handlers::configs::{DEFAULT_CONFIG, DYNAMIC_TOPIC_CONFIG};
use crate::handlers::fault::{Fault, told};
use crate::handlers::topic_names::{CLUSTER_METADATA, Collisions, parse};
use crate::messages::topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse, DeletableTopicResult,
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::settings::{self, TOPIC_SETTINGS};

/// Stands for "as many as is usual" in a number of partitions or replicas.
const USUAL: i32 = -1;

pub async fn create_topics(client: Arc<Client>, _version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names = || request.topics.iter().map(|topic| topic.name.clone());
    let twice = repeated(names());
    let collisions = Collisions::among(client.view(), request.topics.iter().map(|topic| topic.name.as_str()));
    let mut results = Vec::with_capacity(request.topics.len());
    let (mut requests, mut places) = (Vec::new(), Vec::new());
    for topic in request.topics.iter().filter(|topic| !twice.contains(&topic.name)) {
        match plan(&client, topic, &collisions) {
            Err(fault) => results.push(refused(&topic.name, &fault)),
            Ok(declare) => {
                results.push(made(&topic.name, Uuid::nil(), declare.partitions, &declare.settings));
                if !request.validate_only {
                    places.push(results.len() - 1);
                    requests.push(Request::Declare(Box::new(declare)));
                }
            }
        }
    }
    for (place, answer) in places.into_iter().zip(client.ask_all(requests).await) {
        match answer {
            Ok(Answer::Stream(stream)) => results[place].topic_id = stream.id.0,
            Ok(_) => {}
            Err(refusal) => results[place] = refused(&results[place].name, &refusal.into()),
        }
    }
    results.extend(twice.iter().map(|name| refused(name, &Fault::twice())));
    CreateTopicsResponse { topics: results, ..CreateTopicsResponse::default() }
}

/// What stands in a request more than once.
pub fn repeated<T: Clone + Eq + Hash>(items: impl Iterator<Item = T>) -> HashSet<T> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for item in items {
        if !seen.insert(item.clone()) {
            twice.insert(item);
        }
    }
    twice
}

fn plan(client: &Client, topic: &CreatableTopic, collisions: &Collisions) -> Result<Declare, Fault> {
    if topic.name == CLUSTER_METADATA {
        return Err(Fault::because(errors::INVALID_REQUEST, "the cluster's own log is no topic"));
    }
    let name = parse(&topic.name)?;
    collisions.check(&topic.name)?;
    if client.view().stream(&topic.name).is_some() {
        return Err(Fault::because(errors::TOPIC_ALREADY_EXISTS, format!("topic {} is there already", topic.name)));
    }
    let mut asked = BTreeMap::new();
    for config in &topic.configs {
        let null = || Fault::because(errors::INVALID_CONFIG, format!("{} has no value", config.name));
        let value = config.value.as_ref().ok_or_else(null)?;
        asked.insert(config.name.as_str().to_owned(), value.as_str().to_owned());
    }
    let settings = settings::check(&asked).map_err(|what| Fault::because(errors::INVALID_CONFIG, what))?;
    let partitions = partitions(client, topic)?;
    Ok(Declare { name, partitions, policy: settings::policy(&settings), settings })
}

/// How many partitions the topic gets. Every way of asking for another number of replicas than one, or for another node than this
/// one, is refused.
fn partitions(client: &Client, topic: &CreatableTopic) -> Result<u32, Fault> {
    if !topic.assignments.is_empty() {
        return assigned(client, topic);
    }
    match topic.replication_factor {
        -1 | 1 => {}
        ..=0 => {
            return Err(Fault::because(errors::INVALID_REPLICATION_FACTOR, "a topic has at least one replica; -1 asks for the usual"));
        }
        more => {
            let what = format!("{more} replicas need as many brokers, and there is 1");
            return Err(Fault::because(errors::INVALID_REPLICATION_FACTOR, what));
        }
    }
    if topic.num_partitions == USUAL {
        return Ok(client.settings.partitions);
    }
    let partitions = u32::try_from(topic.num_partitions).ok().filter(|count| (1..=STREAM_PARTITIONS_MAX).contains(count));
    partitions.ok_or_else(|| {
        let what = format!("a topic has from 1 to {STREAM_PARTITIONS_MAX} partitions; -1 asks for the usual");
        Fault::because(errors::INVALID_PARTITIONS, what)
    })
}

fn assigned(client: &Client, topic: &CreatableTopic) -> Result<u32, Fault> {
    if topic.replication_factor != -1 || topic.num_partitions != USUAL {
        let what = "with an assignment of replicas, numbers of partitions and replicas must be -1";
        return Err(Fault::because(errors::INVALID_REQUEST, what));
    }
    let mut indexes = HashSet::new();
    for assignment in &topic.assignments {
        if !indexes.insert(assignment.partition_index) {
            let what = format!("partition {} is assigned more than once", assignment.partition_index);
            return Err(Fault::because(errors::INVALID_REPLICA_ASSIGNMENT, what));
        }
        check_replicas(client, &assignment.broker_ids)?;
    }
    let count = u32::try_from(indexes.len()).ok().filter(|count| *count <= STREAM_PARTITIONS_MAX);
    let count = count.ok_or_else(|| Fault::because(errors::INVALID_PARTITIONS, "more partitions than a topic may have"))?;
    // So many different indexes, all from 0 to one less: each is there.
    if indexes.iter().all(|index| u32::try_from(*index).is_ok_and(|index| index < count)) {
        Ok(count)
    } else {
        Err(Fault::because(errors::INVALID_REPLICA_ASSIGNMENT, "partitions must be numbered from 0 without a gap"))
    }
}

/// Whether replicas may lie on `brokers`: only one, here.
pub fn check_replicas(client: &Client, brokers: &[i32]) -> Result<(), Fault> {
    let node = client.node_id();
    let what = match brokers {
        [only] if *only == node => return Ok(()),
        [] => "a partition without replicas".to_owned(),
        _ => match brokers.iter().find(|broker| **broker != node) {
            Some(other) => format!("there is no broker {other}"),
            None => format!("broker {node} is assigned more than once"),
        },
    };
    Err(Fault::because(errors::INVALID_REPLICA_ASSIGNMENT, what))
}

fn made(name: &Str, topic_id: Uuid, partitions: u32, settings: &BTreeMap<String, String>) -> CreatableTopicResult {
    let configs = TOPIC_SETTINGS.iter().map(|setting| {
        let set = settings.get(setting.name);
        CreatableTopicConfigs {
            name: Str::fixed(setting.name),
            value: Some(set.map_or(Str::fixed(setting.default), |value| Str::from(value.as_str()))),
            config_source: if set.is_some() { DYNAMIC_TOPIC_CONFIG } else { DEFAULT_CONFIG },
            ..CreatableTopicConfigs::default()
        }
    });
    CreatableTopicResult {
        name: name.clone(),
        topic_id,
        num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        replication_factor: 1,
        configs: Some(configs.collect()),
        ..CreatableTopicResult::default()
    }
}

fn refused(name: &Str, fault: &Fault) -> CreatableTopicResult {
    CreatableTopicResult {
        name: name.clone(),
        error_code: fault.code,
        error_message: fault.text(),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}

pub async fn delete_topics(client: Arc<Client>, _version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::nil() };
    let asked: Vec<DeleteTopicState> = request.topics.into_iter().chain(request.topic_names.into_iter().map(by_name)).collect();
    let twice = repeated(asked.iter().map(|topic| (topic.name.clone(), topic.topic_id)));
    let mut streams: HashMap<StreamId, usize> = HashMap::new();
    let mut outcomes: Vec<Result<Arc<StreamInfo>, Fault>> = Vec::with_capacity(asked.len());
    for topic in &asked {
        let found = if twice.contains(&(topic.name.clone(), topic.topic_id)) { Err(Fault::twice()) } else { find(&client, topic) };
        // The same topic by its name and by its id: neither is done.
        let place = outcomes.len();
        let found = found.and_then(|stream| match streams.insert(stream.id, place) {
            None => Ok(stream),
            Some(other) => {
                outcomes[other] = Err(Fault::twice());
                Err(Fault::twice())
            }
        });
        outcomes.push(found);
    }
    let places: Vec<usize> = (0..outcomes.len()).filter(|place| outcomes[*place].is_ok()).collect();
    let requests = outcomes.iter().flatten().map(|stream| Request::Drop { stream: stream.id }).collect();
    for (place, answer) in places.into_iter().zip(client.ask_all(requests).await) {
        if let Err(refusal) = answer {
            outcomes[place] = Err(refusal.into());
        }
    }
    let responses = asked.into_iter().zip(outcomes).map(|(topic, outcome)| {
        let (error_code, error_message) = told(&outcome);
        let (name, topic_id) = match outcome {
            Ok(stream) => (Some(Str::from(stream.name.as_str())), stream.id.0),
            Err(_) => (topic.name, topic.topic_id),
        };
        DeletableTopicResult { name, topic_id, error_code, error_message }
    });
    DeleteTopicsResponse { responses: responses.collect(), ..DeleteTopicsResponse::default() }
}

fn find(client: &Client, topic: &DeleteTopicState) -> Result<Arc<StreamInfo>, Fault> {
    match (&topic.name, topic.topic_id) {
        (None, id) if id.is_nil() => Err(Fault::because(errors::INVALID_REQUEST, "neither a name nor an id")),
        (Some(_), id) if !id.is_nil() => Err(Fault::because(errors::INVALID_REQUEST, "both a name and an id")),
        (Some(name), _) => client.view().stream(name).ok_or_else(|| Fault::no_topic(name)),
        (None, id) => {
            let unknown = || Fault::because(errors::UNKNOWN_TOPIC_ID, "there is no topic with this id");
            client.view().stream_by_id(StreamId(id)).ok_or_else(unknown)
        }
    }
}
