//! MQTT as the door knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firth_gateway::door::Broker;
use firth_gateway::future::BoxFuture;
use firth_gateway::link::{Link, LinkEnd, StopSignal};
use firth_gateway::protocol::{Protocol, ProtocolInfo};

use crate::chores;
use crate::connect::connect;
use crate::node::{MqttSettings, Node};
use crate::websocket;
use crate::wire::Wire;

/// The MQTT protocol over one carrier; both carriers of a node share its clients.
pub struct Mqtt {
    node: Arc<Node>,
    carrier: Carrier,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Plain,
    WebSocket,
}

impl Mqtt {
    /// Over TCP: listener `mqtt`, port 1883.
    pub fn new(settings: MqttSettings) -> Mqtt {
        Mqtt { node: Node::with(settings), carrier: Carrier::Plain }
    }

    /// The same node over WebSocket: listener `mqtt-ws`, port 8083.
    pub fn over_websocket(&self) -> Mqtt {
        Mqtt { node: self.node.clone(), carrier: Carrier::WebSocket }
    }
}

impl Protocol for Mqtt {
    fn describe(&self) -> ProtocolInfo {
        match self.carrier {
            Carrier::Plain => ProtocolInfo { name: "mqtt", default_port: 1883 },
            Carrier::WebSocket => ProtocolInfo { name: "mqtt-ws", default_port: 8083 },
        }
    }

    fn serve(&self, link: Link, broker: Broker) -> BoxFuture<'static, Result<(), LinkEnd>> {
        let (node, carrier) = (self.node.clone(), self.carrier);
        Box::pin(async move {
            let (mut stop, peer) = (link.stop, link.peer);
            let is_known = Arc::new(AtomicBool::new(false));
            let stream = match carrier {
                Carrier::Plain => link.stream,
                // Boxed, for its size: most connections never see it.
                Carrier::WebSocket => {
                    let bytes_max = node.settings.announced_packet_bytes();
                    Box::pin(websocket::accept(link.stream, bytes_max, is_known.clone())).await?
                }
            };
            let wire = Wire::over(stream, peer, broker.budget().clone());
            // Boxed apart: a connection that is served holds nothing of how it began.
            let connecting = Box::pin(connect(node, broker, wire));
            let session = tokio::select! {
                session = connecting => session?,
                () = stop.stopped() => return Err(LinkEnd::Stopping),
            };
            is_known.store(true, Ordering::Relaxed);
            match session {
                Some(session) => Box::pin(session.run(stop)).await,
                None => Ok(()),
            }
        })
    }

    fn run(&self, broker: Broker, stop: StopSignal) -> BoxFuture<'static, ()> {
        let node = self.node.clone();
        if node.is_run.swap(true, Ordering::AcqRel) {
            return Box::pin(async {});
        }
        Box::pin(chores::run(node, broker, stop))
    }
}
