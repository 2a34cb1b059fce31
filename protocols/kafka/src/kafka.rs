//! The Kafka protocol as the door knows it.

use std::sync::Arc;

use firth_gateway::door::Broker;
use firth_gateway::future::BoxFuture;
use firth_gateway::link::{Link, LinkEnd};
use firth_gateway::protocol::{Protocol, ProtocolInfo};

use crate::config::KafkaSettings;
use crate::session::Session;

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
