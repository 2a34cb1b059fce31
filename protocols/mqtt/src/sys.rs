//! What a node says of itself under `$SYS`.
//!
//! As other brokers of MQTT do.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use firth_gateway::message::Message;
use firth_model::subject::Subject;
use firth_model::time::Millis;

use crate::node::Node;

/// The values of now, as messages that are retained in memory only.
pub fn values(node: &Node, now: Millis) -> Vec<Message> {
    let uptime_s = node.started.get().map_or(0, |started| now.since(*started) / 1000);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed).to_string();
    let message = |subject: &'static str, value: String| Message {
        subject: Subject::parse(subject).expect("a subject of the program"),
        key: None,
        value: Some(Bytes::from(value)),
        headers: Vec::new(),
        published: now,
        expires: None,
        guaranteed: false,
        retain: true,
        publisher: 0,
    };
    vec![
        message("$SYS/broker/version", concat!("firth version ", env!("CARGO_PKG_VERSION")).to_owned()),
        message("$SYS/broker/uptime", format!("{uptime_s} seconds")),
        message("$SYS/broker/clients/connected", node.registry.connected().to_string()),
        message("$SYS/broker/messages/received", count(&node.counts.received)),
        message("$SYS/broker/messages/sent", count(&node.counts.sent)),
        message("$SYS/broker/publish/messages/dropped", count(&node.counts.dropped)),
    ]
}
