//! Speaks Kafka to clients.
//!
//! [`messages`] describes what is said, [`codec`] turns it into bytes, [`envelope`] puts headers in front. A [`session`] serves one
//! connection: [`handlers`] answer its requests through the door. Record batches stay as their producers made them; [`records`]
//! checks them first.

use std::sync::Arc;

use firth_gateway::door::Broker;
use firth_gateway::link::{Link, LinkEnd};
use firth_gateway::protocol::{BoxFuture, Protocol, ProtocolInfo};

use crate::session::Session;

pub mod apis;
pub mod batch_builder;
pub mod client;
pub mod codec;
pub mod compression;
pub mod envelope;
pub mod errors;
#[doc(hidden)]
pub mod fuzz;
pub mod group_settings;
pub mod handlers;
pub mod messages;
pub mod node_settings;
pub mod record_reader;
pub mod records;
pub mod session;
pub mod setting;
pub mod settings;
pub mod versioned;
pub mod walk;

/// What a node may be told about its Kafka side.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Host and port that clients are told to connect to; `None` tells them the address they came to.
    pub advertise: Option<(String, u16)>,
    /// Whether a topic that is asked for and not there is made, if its asker allows it.
    pub auto_create: bool,
    /// Partitions of a topic whose maker gives no number.
    pub partitions: u32,
}

impl Default for KafkaSettings {
    fn default() -> KafkaSettings {
        KafkaSettings { advertise: None, auto_create: true, partitions: 1 }
    }
}

/// The Kafka protocol; each connection is a session of its own.
pub struct Kafka {
    settings: Arc<KafkaSettings>,
}

impl Kafka {
    pub fn new(settings: KafkaSettings) -> Kafka {
        Kafka { settings: Arc::new(settings) }
    }
}

impl Protocol for Kafka {
    fn describe(&self) -> ProtocolInfo {
        ProtocolInfo { name: "kafka", default_port: 9092 }
    }

    fn serve(&self, link: Link, broker: Broker) -> BoxFuture<'static, Result<(), LinkEnd>> {
        let (session, stop) = Session::new(link, broker, self.settings.clone());
        Box::pin(session.run(stop))
    }
}
