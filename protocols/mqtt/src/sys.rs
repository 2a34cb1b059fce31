//! What a node says of itself under `$SYS`.
//!
//! As other brokers of MQTT do.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use firth_gateway::door::Broker;
use firth_gateway::message::Message;
use firth_model::subject::Subject;
use firth_model::time::Millis;

use crate::node::Node;

/// A message that is retained in memory only.
pub fn of_memory(subject: Subject, value: Bytes, now: Millis) -> Message {
    Message {
        subject,
        key: None,
        value: Some(value),
        headers: Vec::new(),
        published: now,
        expires: None,
        guaranteed: false,
        retain: true,
        publisher: 0,
    }
}

/// The values of now, as messages that are retained in memory only.
pub fn values(node: &Node, broker: &Broker) -> Vec<Message> {
    let now = broker.now();
    let of_queues = broker.view().dropped_of_queues();
    let dropped = node.counts.dropped.load(Ordering::Relaxed).saturating_add(of_queues);
    let uptime_s = node.started.get().map_or(0, |started| now.since(*started) / 1000);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed).to_string();
    let message = |subject: &'static str, value: String| {
        let subject = Subject::parse(subject).expect("a subject of the program");
        of_memory(subject, value.into(), now)
    };
    vec![
        message("$SYS/broker/version", concat!("firth version ", env!("CARGO_PKG_VERSION")).to_owned()),
        message("$SYS/broker/uptime", format!("{uptime_s} seconds")),
        message("$SYS/broker/clients/connected", node.registry.connected().to_string()),
        message("$SYS/broker/messages/received", count(&node.counts.received)),
        message("$SYS/broker/messages/sent", count(&node.counts.sent)),
        // Of all kinds, as Mosquitto counts them; then those that sessions had stored.
        message("$SYS/broker/publish/messages/dropped", dropped.to_string()),
        message("$SYS/broker/queue/messages/dropped", of_queues.to_string()),
    ]
}
