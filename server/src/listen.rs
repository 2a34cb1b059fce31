//! Accepts connections and hands them to their protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use firth_gateway::door::Broker;
use firth_gateway::link::{Link, LinkEnd, StopSignal};
use firth_gateway::protocol::Protocol;

/// Connections of one listener. Each holds a descriptor; the default limit of a process is 20,000 or fewer.
const CONNECTIONS_MAX: usize = 16_384;

/// A bound socket and what is spoken on it.
pub struct Door {
    pub protocol: Arc<dyn Protocol>,
    pub listener: TcpListener,
    pub address: SocketAddr,
}

pub async fn bind(protocol: Arc<dyn Protocol>, address: SocketAddr) -> Result<Door> {
    let name = protocol.describe().name;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {name}"))?;
    let address = listener.local_addr()?;
    Ok(Door { protocol, listener, address })
}

/// Serves until the node stops, then waits for the connections to end by themselves.
pub async fn serve(door: Door, broker: Broker, stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut signal = StopSignal(stop.clone());
    let name = door.protocol.describe().name;
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = signal.stopped() => break,
            _ = connections.join_next(), if connections.len() >= CONNECTIONS_MAX => {}
            accepted = door.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => match link(stream, peer, stop.clone()) {
                    Ok(link) => {
                        let served = door.protocol.serve(link, broker.clone());
                        connections.spawn(async move { ended(name, peer, served.await) });
                    }
                    Err(error) => tracing::debug!(protocol = name, %peer, %error, "connection lost before it began"),
                },
                // Out of descriptors: accepting again at once would spin.
                Err(error) => {
                    tracing::warn!(protocol = name, %error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(door.listener);
    while connections.join_next().await.is_some() {}
}

fn link(stream: TcpStream, peer: SocketAddr, stop: watch::Receiver<bool>) -> std::io::Result<Link> {
    // Answers leave in whole batches; waiting for more to fill a segment would only add delay.
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    Ok(Link { stream: Box::new(stream), peer, local, stop: StopSignal(stop) })
}

fn ended(protocol: &'static str, peer: SocketAddr, result: Result<(), LinkEnd>) {
    match result {
        Ok(()) | Err(LinkEnd::Stopping) => tracing::debug!(protocol, %peer, "connection ended"),
        Err(LinkEnd::Malformed { at_byte, what }) => tracing::warn!(protocol, %peer, at_byte, what, "connection closed: malformed"),
        Err(LinkEnd::Broken(error)) => tracing::debug!(protocol, %peer, %error, "connection broke"),
    }
}
