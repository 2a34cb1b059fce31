//! Which names a new topic may have.

use std::collections::HashMap;

use firth_gateway::view::LogView;
use firth_model::names::{NameError, StreamName};

use crate::errors;
use crate::handlers::fault::Fault;

/// Topics that Apache Kafka keeps its own state in. Clients treat them apart; here they are topics like others, but never made by
/// being asked for.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];
/// The log of Apache Kafka's controllers; never a topic.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// The name as one, or why it is none.
pub fn parse(name: &str) -> Result<StreamName, Fault> {
    StreamName::parse(name).map_err(|error| {
        let what = match error {
            NameError::Empty => "a topic's name is not empty".to_owned(),
            NameError::TooLong { bytes, bytes_max } => format!("a topic's name has at most {bytes_max} bytes, not {bytes}"),
            NameError::Reserved => format!("\"{name}\" cannot be a topic's name"),
            NameError::Character { at } => format!("byte {at} of \"{name}\" is none of A-Z, a-z, 0-9, '.', '_' and '-'"),
        };
        Fault::because(errors::INVALID_TOPIC_EXCEPTION, what)
    })
}

/// Names that differ only in `.` and `_` from topics that are there: Apache Kafka refuses them, as its metrics could not tell them
/// apart.
#[derive(Default)]
pub struct Collisions {
    taken: HashMap<String, String>,
}

impl Collisions {
    /// With all topics, if one of `names` can collide at all.
    pub fn among<'a>(view: &dyn LogView, mut names: impl Iterator<Item = &'a str>) -> Collisions {
        if !names.any(may_collide) {
            return Collisions::default();
        }
        let streams = view.streams();
        let named = streams.iter().map(|stream| stream.name.as_str()).filter(|name| may_collide(name));
        Collisions { taken: named.map(|name| (unified(name), name.to_owned())).collect() }
    }

    pub fn check(&self, name: &str) -> Result<(), Fault> {
        match self.taken.get(&unified(name)) {
            Some(other) if other != name && may_collide(name) => {
                Err(Fault::because(errors::INVALID_TOPIC_EXCEPTION, format!("{name} collides with the topic {other}")))
            }
            _ => Ok(()),
        }
    }
}

fn may_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

fn unified(name: &str) -> String {
    name.replace('.', "_")
}
