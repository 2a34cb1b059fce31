//! MQTT over WebSocket (MQTT 5.0 section 6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};

use firth_gateway::link::{ByteStream, LinkEnd};
use firth_model::limits::{MQTT_CONNECT_BYTES_MAX, MQTT_CONNECT_MS};

/// Bytes of a request's head: cookies of a large site fit.
const HEAD_BYTES_MAX: usize = 16 << 10;
const NO_WEBSOCKET: &[u8] =
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n";
const PATH: &str = "/mqtt";
/// [MQTT-6.0.0-3], and what clients of 3.1 ask for.
const SUB_PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Of other packets in a message beside the largest, and of the heads of frames.
const BESIDE_BYTES: usize = 64 << 10;
/// What a client may send before its CONNECT is understood: that, and the heads of its frames.
const UNKNOWN_BYTES_MAX: usize = MQTT_CONNECT_BYTES_MAX as usize + BESIDE_BYTES;
/// Of one message that is sent: a packet may go over several ([MQTT-6.0.0-2]).
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Written ahead of the socket by the library; a message must fit.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Speaks WebSocket on a stream; gives what its binary messages carry as one stream of bytes ([MQTT-6.0.0-1], [MQTT-6.0.0-2]).
///
/// The library keeps a message until it is whole, and its bounds cannot be changed later. So a message may hold the largest packet, and
/// until `is_known`, which says that a CONNECT came, no more is read than a CONNECT needs.
pub async fn accept(stream: Box<dyn ByteStream>, packet_bytes_max: u32, is_known: Arc<AtomicBool>) -> Result<Box<dyn ByteStream>, LinkEnd> {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = 4 << 10;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = WRITE_BYTES_MAX;
    let packet_bytes_max = usize::try_from(packet_bytes_max.max(MQTT_CONNECT_BYTES_MAX)).unwrap_or(usize::MAX);
    let bytes_max = packet_bytes_max.saturating_add(BESIDE_BYTES);
    config.max_message_size = Some(bytes_max);
    config.max_frame_size = Some(bytes_max);
    let accepting = async {
        let stream = read_head(stream, is_known).await?;
        accept_hdr_async_with_config(stream, check, Some(config)).await.map_err(io::Error::other)
    };
    match tokio::time::timeout(Duration::from_millis(MQTT_CONNECT_MS), accepting).await {
        Ok(Ok(socket)) => Ok(Box::new(Carried { socket, rest: Bytes::new() })),
        Ok(Err(_)) => Err(LinkEnd::Malformed { at_byte: 0, what: "no WebSocket handshake of MQTT" }),
        Err(_) => Err(LinkEnd::Malformed { at_byte: 0, what: "no WebSocket handshake came in time" }),
    }
}

/// Reads the head of the request, and answers one that does not ask for WebSocket.
async fn read_head(mut stream: Box<dyn ByteStream>, is_known: Arc<AtomicBool>) -> io::Result<Rewound> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(invalid("a long head"));
        }
        let mut more = [0; 1024];
        match stream.read(&mut more).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&more[..count]),
        }
    }
    let asks = head.split(|byte| *byte == b'\n').any(|line| line.to_ascii_lowercase().starts_with(b"sec-websocket-key:"));
    if !asks {
        stream.write_all(NO_WEBSOCKET).await?;
        stream.shutdown().await?;
        return Err(invalid("plain HTTP"));
    }
    Ok(Rewound { head: head.into(), stream, is_known, unknown_bytes: 0 })
}

/// A stream of which the beginning was read already.
struct Rewound {
    head: Bytes,
    stream: Box<dyn ByteStream>,
    is_known: Arc<AtomicBool>,
    /// Read while the client was not known.
    unknown_bytes: usize,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() && self.is_known.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        if self.head.is_empty() {
            if self.unknown_bytes > UNKNOWN_BYTES_MAX {
                return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
            }
            let before = into.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(context, into);
            self.unknown_bytes += into.filled().len() - before;
            return read;
        }
        let count = self.head.len().min(into.remaining());
        into.put_slice(&self.head.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
fn check(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let refuse = |status, text: &str| {
        let mut refusal = ErrorResponse::new(Some(text.to_owned()));
        *refusal.status_mut() = status;
        Err(refusal)
    };
    if request.uri().path() != PATH {
        return refuse(StatusCode::NOT_FOUND, "MQTT is at /mqtt");
    }
    let asked = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let asked: Vec<&str> = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect();
    let Some(chosen) = SUB_PROTOCOLS.into_iter().find(|own| asked.contains(own)) else {
        return refuse(StatusCode::BAD_REQUEST, "the sub-protocol is mqtt");
    };
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    Ok(response)
}

/// The bytes in the messages of a WebSocket.
struct Carried {
    socket: WebSocketStream<Rewound>,
    /// Of the last message.
    rest: Bytes,
}

impl Carried {
    /// As far as the socket takes it at once: the connection ends in any case.
    fn say_too_large(&mut self, context: &mut Context<'_>) {
        let close = CloseFrame { code: CloseCode::Size, reason: "a message is too large".into() };
        if let Poll::Ready(Ok(())) = Pin::new(&mut self.socket).poll_ready(context)
            && Pin::new(&mut self.socket).start_send(Message::Close(Some(close))).is_ok()
        {
            let _ = Pin::new(&mut self.socket).poll_flush(context);
        }
    }
}

fn is_too_large(error: &Error) -> bool {
    match error {
        Error::Capacity(_) => true,
        Error::Io(error) => error.kind() == io::ErrorKind::FileTooLarge,
        _ => false,
    }
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(invalid("a text message"))),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => {
                    if is_too_large(&error) {
                        self.say_too_large(context);
                    }
                    return Poll::Ready(Err(io::Error::other(error)));
                }
            }
        }
        let count = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io::Error::other)?;
        let count = bytes.len().min(MESSAGE_BYTES_MAX);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    /// One message of all: a peer gets few large ones.
    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, chunks: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        for chunk in chunks {
            let room = MESSAGE_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        let count = bytes.len();
        Pin::new(&mut self.socket).start_send(Message::Binary(bytes.into())).map_err(io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context).map_err(io::Error::other)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const OPENING: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

    /// A client, and what its node reads.
    async fn opened(is_known: bool) -> (DuplexStream, Box<dyn ByteStream>) {
        let (mut near, far) = tokio::io::duplex(4 << 20);
        near.write_all(OPENING).await.expect("taken");
        let known = Arc::new(AtomicBool::new(is_known));
        let carried = accept(Box::new(far), 2_000_000, known).await.unwrap_or_else(|end| panic!("{end:?}"));
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(near.read_u8().await.expect("an answer"));
        }
        (near, carried)
    }

    /// A binary frame of which so much is sent.
    async fn send(near: &mut DuplexStream, claimed: u64, sent: usize) {
        let mut frame = vec![0x82, 0xff];
        frame.extend(claimed.to_be_bytes());
        frame.extend(vec![0; 4 + sent]);
        near.write_all(&frame).await.expect("taken");
    }

    async fn expect_too_large(mut near: DuplexStream, mut carried: Box<dyn ByteStream>) {
        let read = tokio::time::timeout(Duration::from_secs(20), carried.read_u8()).await;
        read.expect("an end in time").expect_err("too much");
        let mut close = [0; 4];
        near.read_exact(&mut close).await.expect("a frame");
        assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1009));
    }

    #[tokio::test]
    async fn a_message_is_no_larger_than_a_packet() {
        let (mut near, carried) = opened(true).await;
        send(&mut near, 2_100_000, 0).await;
        expect_too_large(near, carried).await;
        let (mut near, mut carried) = opened(true).await;
        send(&mut near, 2_000_000, 2_000_000).await;
        carried.read_exact(&mut vec![0; 2_000_000]).await.expect("a whole packet");
    }

    #[tokio::test]
    async fn before_a_connect_no_more_is_read_than_that_needs() {
        let (mut near, carried) = opened(false).await;
        send(&mut near, 1_000_000, 500_000).await;
        expect_too_large(near, carried).await;
        let (mut near, mut carried) = opened(false).await;
        send(&mut near, 320 << 10, 320 << 10).await;
        carried.read_exact(&mut vec![0; 320 << 10]).await.expect("a whole CONNECT");
    }
}
