//! An accepted byte stream, whatever carries it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// TCP, TLS later, or a pair in memory: a protocol never sees a socket, so tests and the simulator are ordinary peers.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

pub struct Link {
    pub stream: Box<dyn ByteStream>,
    pub peer: SocketAddr,
    /// The address the client connected to: what it is told to come back to, unless configured otherwise.
    pub local: SocketAddr,
    pub stop: StopSignal,
}

/// Turns true once, when the node stops: finish what was asked, take nothing more.
#[derive(Clone)]
pub struct StopSignal(pub watch::Receiver<bool>);

impl StopSignal {
    /// Resolves when the node stops.
    pub async fn stopped(&mut self) {
        // A sender that is gone means the node is gone too.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// How a connection ended, when not by its peer closing it.
#[derive(Debug)]
pub enum LinkEnd {
    /// The peer sent what the protocol does not allow; `at_byte` counts inside the frame.
    Malformed { at_byte: u64, what: &'static str },
    /// The stream failed.
    Broken(std::io::Error),
    /// The node stops.
    Stopping,
}
