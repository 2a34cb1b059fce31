//! Accepts connections and hands them to their protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use firth_gateway::door::Broker;
use firth_gateway::link::{Link, LinkEnd, StopSignal};
use firth_gateway::protocol::Protocol;

/// Connections of one listener. Each holds a descriptor; the default limit of a process is 20,000 or fewer.
const CONNECTIONS_MAX: usize = 16_384;

/// Connections that may wait to be accepted: as many as Linux allows by default (`net.core.somaxconn`). Who finds no place tries again a
/// second later, and after a restart all clients come at once.
const BACKLOG: u32 = 4_096;

/// A bound socket and what is spoken on it.
pub struct Door {
    pub protocol: Arc<dyn Protocol>,
    pub listener: TcpListener,
    pub address: SocketAddr,
}

pub fn bind(protocol: Arc<dyn Protocol>, address: SocketAddr) -> Result<Door> {
    let name = protocol.describe().name;
    let listener = listening(address).with_context(|| format!("cannot listen on {address} for {name}"))?;
    let address = listener.local_addr()?;
    Ok(Door { protocol, listener, address })
}

fn listening(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart need not wait until the connections of the last process are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// Without a place, the answer comes a second later.
    #[tokio::test]
    async fn two_thousand_connections_may_come_before_one_is_accepted() {
        let descriptors = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors }).expect("up to the hard limit");
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux");
        let wanted = 2_000.min(allowed.trim().parse().expect("a number"));
        let listener = listening("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let address = listener.local_addr().expect("known");
        let patience = Duration::from_millis(900);
        let connect = |_| std::net::TcpStream::connect_timeout(&address, patience).expect("at once");
        let waiting: Vec<_> = (0..wanted).map(connect).collect();
        assert_eq!(waiting.len(), wanted);
    }
}
