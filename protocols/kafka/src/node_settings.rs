//! The settings of the node, as clients look for them.
//!
//! Clients may read them; they come from the node's own configuration or are fixed. Under the names that Apache Kafka's brokers
//! have. What a broker has and this server has nothing like is left out.

use firth_model::limits::{CURSOR_METADATA_BYTES_MAX, GROUP_MEMBERS_MAX, PRODUCER_IDLE_MS, REQUEST_BYTES_MAX};

use crate::config::KafkaSettings;
use crate::setting::Kind;
use crate::settings::TOPIC_SETTINGS;

/// One setting of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSetting {
    pub name: &'static str,
    pub kind: Kind,
    pub value: String,
    /// Whether the value comes from the node's configuration.
    pub configured: bool,
    pub meaning: &'static str,
}

/// Who the node is, as far as its settings show it.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub id: i32,
    pub host: String,
    pub port: i32,
}

type Line = (&'static str, Kind, &'static str, &'static str);

/// Name, kind, value, meaning.
#[rustfmt::skip]
const FIXED: &[Line] = &[
    ("authorizer.class.name", Kind::Text, "", "Who decides what clients may do; nobody."),
    ("auto.leader.rebalance.enable", Kind::Boolean, "false", "Whether leaders move back to preferred brokers; there is one broker."),
    ("default.replication.factor", Kind::Int, "1", "Replicas of a topic whose maker gives no number."),
    ("delete.topic.enable", Kind::Boolean, "true", "Whether topics can be deleted."),
    ("fetch.max.bytes", Kind::Int, "57671680", "Bytes that a consumer's fetch may ask for."),
    ("group.consumer.assignors", Kind::List, "uniform,range", "Assignors of consumer groups, the default first."),
    ("group.consumer.heartbeat.interval.ms", Kind::Int, "5000", "Time between two heartbeats of a consumer group's members."),
    ("group.consumer.max.heartbeat.interval.ms", Kind::Int, "15000", "Longest heartbeat interval a consumer group may have."),
    ("group.consumer.max.session.timeout.ms", Kind::Int, "60000", "Longest session timeout a consumer group may have."),
    ("group.consumer.migration.policy", Kind::Text, "bidirectional", "Whether groups change between the two membership protocols."),
    ("group.consumer.min.heartbeat.interval.ms", Kind::Int, "5000", "Shortest heartbeat interval a consumer group may have."),
    ("group.consumer.min.session.timeout.ms", Kind::Int, "45000", "Shortest session timeout a consumer group may have."),
    ("group.consumer.session.timeout.ms", Kind::Int, "45000", "Silence after which a consumer group's member is taken for gone."),
    ("group.coordinator.rebalance.protocols", Kind::List, "classic,consumer", "Membership protocols that are served."),
    ("group.initial.rebalance.delay.ms", Kind::Int, "0", "Wait of a new group for more members before its first round."),
    ("group.max.session.timeout.ms", Kind::Int, "1800000", "Longest session timeout a joining member may ask for."),
    ("group.min.session.timeout.ms", Kind::Int, "6000", "Shortest session timeout a joining member may ask for."),
    ("inter.broker.listener.name", Kind::Text, "PLAINTEXT", "Listener between brokers; there is one broker."),
    ("listener.security.protocol.map", Kind::Text, "PLAINTEXT:PLAINTEXT", "Security of the listeners."),
    ("log.cleaner.enable", Kind::Boolean, "true", "Whether compacted topics are compacted."),
    ("max.request.partition.size.limit", Kind::Int, "2000", "Partitions in one answer to DescribeTopicPartitions."),
    ("offsets.topic.replication.factor", Kind::Short, "1", "Replicas of committed offsets."),
    ("process.roles", Kind::List, "broker,controller", "What the node is in its cluster."),
    ("sasl.enabled.mechanisms", Kind::List, "", "Ways to log in; none."),
    ("transaction.state.log.min.isr", Kind::Int, "1", "Replicas that must have a transaction's state."),
    ("transaction.state.log.replication.factor", Kind::Short, "1", "Replicas of transactions' state."),
];

/// All settings of the node, by name.
pub fn node_settings(node: &NodeFacts, settings: &KafkaSettings) -> Vec<NodeSetting> {
    let listener = format!("PLAINTEXT://{}:{}", bracketed(&node.host), node.port);
    let configured = |name, kind, value, meaning| NodeSetting { name, kind, value, configured: true, meaning };
    let limit = |name, kind, value, meaning| NodeSetting { name, kind, value, configured: false, meaning };
    let mut all = vec![
        configured("advertised.listeners", Kind::Text, listener.clone(), "Address that clients are told to connect to."),
        configured("listeners", Kind::Text, listener, "Address that clients connect to."),
        configured("auto.create.topics.enable", Kind::Boolean, settings.auto_create.to_string(), "Whether missing topics are made."),
        configured("broker.id", Kind::Int, node.id.to_string(), "Number of the node."),
        configured("node.id", Kind::Int, node.id.to_string(), "Number of the node."),
        configured("num.partitions", Kind::Int, settings.partitions.to_string(), "Partitions of a topic whose maker gives no number."),
        limit("group.consumer.max.size", Kind::Int, GROUP_MEMBERS_MAX.to_string(), "Members of a consumer group."),
        limit("group.max.size", Kind::Int, GROUP_MEMBERS_MAX.to_string(), "Members of a group."),
        limit("offset.metadata.max.bytes", Kind::Int, CURSOR_METADATA_BYTES_MAX.to_string(), "Text kept beside a committed offset."),
        limit("producer.id.expiration.ms", Kind::Int, PRODUCER_IDLE_MS.to_string(), "Idle time after which a producer is forgotten."),
        limit("socket.request.max.bytes", Kind::Int, REQUEST_BYTES_MAX.to_string(), "Largest request that is taken."),
    ];
    all.extend(FIXED.iter().map(|(name, kind, value, meaning)| limit(name, *kind, (*value).to_owned(), meaning)));
    // The defaults of topics, under the name that overrides the others.
    for setting in TOPIC_SETTINGS {
        if let Some(name) = setting.node_names.first() {
            all.push(limit(name, setting.kind, setting.default.to_owned(), setting.meaning));
        }
    }
    all.sort_unstable_by_key(|setting| setting.name);
    all
}

/// An IPv6 address as it stands in front of a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_look_for_is_there_once() {
        let node = NodeFacts { id: 1, host: "::1".to_owned(), port: 9092 };
        let all = node_settings(&node, &KafkaSettings { partitions: 3, ..KafkaSettings::default() });
        assert!(all.windows(2).all(|pair| pair[0].name < pair[1].name), "no name twice");
        let value = |name: &str| all.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str());
        assert_eq!(value("advertised.listeners"), Some("PLAINTEXT://[::1]:9092"));
        assert_eq!(value("num.partitions"), Some("3"));
        assert_eq!(value("log.retention.ms"), Some("604800000"));
        assert_eq!(value("message.max.bytes"), Some("1048588"));
        assert_eq!(value("default.replication.factor"), Some("1"));
    }
}
