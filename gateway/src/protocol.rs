//! What a protocol is: the only trait a front end implements.

use crate::door::Broker;
use crate::future::BoxFuture;
use crate::link::{Link, LinkEnd, StopSignal};

/// Speaks one protocol to clients. Sees no socket type, no journal, no other protocol.
pub trait Protocol: Send + Sync + 'static {
    fn describe(&self) -> ProtocolInfo;
    /// Serves one connection, to its end.
    fn serve(&self, link: Link, broker: Broker) -> BoxFuture<'static, Result<(), LinkEnd>>;
    /// What the protocol does beside its connections, from the start of the node to its stop.
    fn run(&self, _broker: Broker, _stop: StopSignal) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ProtocolInfo {
    /// Configuration key, metric label and log field.
    pub name: &'static str,
    pub default_port: u16,
}
