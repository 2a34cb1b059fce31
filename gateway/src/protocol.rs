//! What a protocol is: the only trait a front end implements.

use crate::door::Broker;
use crate::future::BoxFuture;
use crate::link::{Link, LinkEnd};

/// Speaks one protocol to clients. Sees no socket type, no journal, no other protocol.
pub trait Protocol: Send + Sync + 'static {
    fn describe(&self) -> ProtocolInfo;
    /// Serves one connection, to its end.
    fn serve(&self, link: Link, broker: Broker) -> BoxFuture<'static, Result<(), LinkEnd>>;
}

#[derive(Clone, Copy, Debug)]
pub struct ProtocolInfo {
    /// Configuration key, metric label and log field.
    pub name: &'static str,
    pub default_port: u16,
}
