//! What all MQTT connections of a node share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use firth_gateway::message::Overflow;
use firth_model::limits::{MQTT_IN_FLIGHT_MAX, MQTT_PACKET_BYTES, MQTT_RECEIVE_MAXIMUM, MQTT_TOPIC_ALIASES, REQUEST_BYTES_MAX};
use firth_model::time::Millis;
use tokio::sync::watch;

use crate::codec::version::ProtocolVersion;
use crate::registry::{Counts, Registry};
use crate::shared::Groups;
use crate::wills::{Delayed, Holder};

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    /// Messages of QoS 1 and 2 that a 5.0 client may have unacknowledged at the node, and is told so.
    pub receive_maximum: u16,
    /// Messages of QoS 1 and 2 that the node has unacknowledged at a client, at most.
    pub in_flight_max: u16,
    /// Topic aliases in each direction; 0: none.
    pub topic_aliases: u16,
    /// The largest packet, for all versions; 5.0 clients are told, and without it have a bound of their own.
    pub packet_bytes_max: Option<u32>,
    /// The longest keep-alive; a client that asks for more or none is told this one.
    pub keep_alive_s_max: Option<u16>,
    /// The longest time for which a session is kept, also of clients before 5.0 that ask for ever.
    pub session_expiry_s_max: Option<u32>,
    /// What becomes of live messages of a client that is too slow for them.
    pub live_overflow: Overflow,
}

impl Default for MqttSettings {
    fn default() -> MqttSettings {
        MqttSettings {
            receive_maximum: MQTT_RECEIVE_MAXIMUM,
            in_flight_max: MQTT_IN_FLIGHT_MAX,
            topic_aliases: MQTT_TOPIC_ALIASES,
            packet_bytes_max: None,
            keep_alive_s_max: None,
            session_expiry_s_max: None,
            live_overflow: Overflow::DropNewest,
        }
    }
}

impl MqttSettings {
    /// What a 5.0 client is told, and held to.
    pub fn announced_packet_bytes(&self) -> u32 {
        self.packet_bytes_max.unwrap_or(MQTT_PACKET_BYTES)
    }

    /// The largest packet of a client of this version. One that cannot be told is only held to what was set.
    pub fn packet_bytes_max(&self, version: ProtocolVersion) -> u32 {
        if version.has_properties() {
            return self.announced_packet_bytes();
        }
        self.packet_bytes_max.unwrap_or(u32::try_from(REQUEST_BYTES_MAX).unwrap_or(u32::MAX))
    }
}

pub struct Node {
    pub settings: MqttSettings,
    pub registry: Arc<Registry>,
    pub delayed: Delayed,
    pub groups: Groups,
    pub counts: Counts,
    /// When the node started; 0 until it did.
    pub started: std::sync::OnceLock<Millis>,
    /// Turns true when the sessions from before the node started are known. Nobody is served before.
    pub is_listed: watch::Sender<bool>,
    /// Its chores are done by somebody.
    pub is_run: AtomicBool,
}

impl Node {
    pub fn with(settings: MqttSettings) -> Arc<Node> {
        Arc::new(Node {
            settings,
            registry: Arc::default(),
            delayed: Delayed::default(),
            groups: Groups::default(),
            counts: Counts::default(),
            started: std::sync::OnceLock::new(),
            is_listed: watch::Sender::new(false),
            is_run: AtomicBool::new(false),
        })
    }

    pub async fn listed(&self) {
        // The sender is the node's own.
        let _ = self.is_listed.subscribe().wait_for(|is_listed| *is_listed).await;
    }
}

impl Holder for Node {
    fn delayed(&self) -> &Delayed {
        &self.delayed
    }
}
