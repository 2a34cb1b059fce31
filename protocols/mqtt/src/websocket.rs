//! MQTT over WebSocket (MQTT 5.0 section 6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use firth_gateway::link::{ByteStream, LinkEnd};
use firth_model::limits::{MQTT_CONNECT_MS, REQUEST_BYTES_MAX};

/// Bytes of a request's head: cookies of a large site fit.
const HEAD_BYTES_MAX: usize = 16 << 10;
const NO_WEBSOCKET: &[u8] =
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n";
const PATH: &str = "/mqtt";
/// [MQTT-6.0.0-3], and what clients of 3.1 ask for.
const SUB_PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Of one message that is sent: a packet may go over several ([MQTT-6.0.0-2]).
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Written ahead of the socket by the library; a message must fit.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Speaks WebSocket on a stream; gives what its binary messages carry as one stream of bytes ([MQTT-6.0.0-1], [MQTT-6.0.0-2]).
pub async fn accept(stream: Box<dyn ByteStream>) -> Result<Box<dyn ByteStream>, LinkEnd> {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = 4 << 10;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = WRITE_BYTES_MAX;
    config.max_message_size = Some(REQUEST_BYTES_MAX);
    config.max_frame_size = Some(REQUEST_BYTES_MAX);
    let accepting = async {
        let stream = read_head(stream).await?;
        accept_hdr_async_with_config(stream, check, Some(config)).await.map_err(io::Error::other)
    };
    match tokio::time::timeout(Duration::from_millis(MQTT_CONNECT_MS), accepting).await {
        Ok(Ok(socket)) => Ok(Box::new(Carried { socket, rest: Bytes::new() })),
        Ok(Err(_)) => Err(LinkEnd::Malformed { at_byte: 0, what: "no WebSocket handshake of MQTT" }),
        Err(_) => Err(LinkEnd::Malformed { at_byte: 0, what: "no WebSocket handshake came in time" }),
    }
}

/// Reads the head of the request, and answers one that does not ask for WebSocket.
async fn read_head(mut stream: Box<dyn ByteStream>) -> io::Result<Rewound> {
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
    Ok(Rewound { head: head.into(), stream })
}

/// A stream of which the beginning was read already.
struct Rewound {
    head: Bytes,
    stream: Box<dyn ByteStream>,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
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

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(invalid("a text message"))),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
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
