//! The bytes of one connection: what came, and what is to go.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use firth_gateway::link::ByteStream;
use firth_gateway::outbox::Budget;
use firth_model::limits::MQTT_UNSENT_BYTES_MAX;

use crate::arriving::Arriving;
use crate::codec::cursor::{Variable, read_variable};
use crate::codec::encode::{Receiver, encode, encode_publish_head};
use crate::codec::fault::EncodeError;
use crate::codec::packet::Packet;
use crate::codec::publish::Publish;

/// First read of a connection that was idle.
const READ_BYTES_MIN: usize = 4 << 10;
/// Largest read of a busy one.
const READ_BYTES_MAX: usize = 256 << 10;
/// Payloads from here on are sent as they are; shorter ones are copied behind their packet's head.
const GATHERED_BYTES_MIN: usize = 4 << 10;
/// Chunks in one gathered write; the kernel takes at most 1024.
const GATHERED_MAX: usize = 64;

pub struct Wire {
    pub peer: SocketAddr,
    stream: Box<dyn ByteStream>,
    pub received: BytesMut,
    arriving: Arriving,
    read_bytes: usize,
    unsent: VecDeque<Bytes>,
    /// What was encoded last, behind `unsent`.
    tail: BytesMut,
    unsent_bytes: usize,
    /// The stream was given everything, and may keep some of it.
    unflushed: bool,
    /// The peer takes nothing more; what it sent before is still read.
    deaf: bool,
}

/// What a turn at the stream brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    Wrote,
    /// So many bytes; none: the peer sends nothing more.
    Read(usize),
}

impl Wire {
    /// Charges large packets to the budget while they come in.
    pub fn over(stream: Box<dyn ByteStream>, peer: SocketAddr, budget: Arc<Budget>) -> Wire {
        Wire {
            peer,
            stream,
            received: BytesMut::new(),
            arriving: Arriving::within(budget),
            read_bytes: READ_BYTES_MIN,
            unsent: VecDeque::new(),
            tail: BytesMut::new(),
            unsent_bytes: 0,
            unflushed: false,
            deaf: false,
        }
    }

    pub fn send(&mut self, packet: &Packet, receiver: &Receiver) -> Result<(), EncodeError> {
        let before = self.tail.len();
        encode(packet, receiver, &mut self.tail)?;
        self.unsent_bytes += self.tail.len() - before;
        Ok(())
    }

    /// Sends a PUBLISH with this payload in place of its own.
    ///
    /// # Errors
    /// Nothing is sent then.
    pub fn publish(&mut self, publish: &Publish, payload: &Bytes, receiver: &Receiver) -> Result<(), EncodeError> {
        let before = self.tail.len();
        encode_publish_head(publish, payload.len(), receiver, &mut self.tail)?;
        self.unsent_bytes += self.tail.len() - before + payload.len();
        if payload.len() < GATHERED_BYTES_MIN {
            self.tail.extend_from_slice(payload);
        } else {
            self.unsent.push_back(self.tail.split().freeze());
            self.unsent.push_back(payload.clone());
        }
        Ok(())
    }

    /// Whether the peer reads what it is sent.
    pub fn has_room(&self) -> bool {
        self.unsent_bytes < MQTT_UNSENT_BYTES_MAX
    }

    pub fn has_unsent(&self) -> bool {
        self.unsent_bytes > 0 || self.unflushed
    }

    /// Writes what is to go, and reads if `reading`; resolves when either brought something. Safe to drop while waiting.
    pub async fn turn(&mut self, reading: bool) -> io::Result<Turn> {
        poll_fn(|context| {
            if self.deaf {
                self.drop_unsent();
            }
            if !reading {
                self.arriving.let_go();
            }
            if self.unsent_bytes > 0 {
                match self.poll_write(context) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(Turn::Wrote)),
                    Poll::Ready(Err(error)) if !reading => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(_)) => {
                        self.deaf = true;
                        self.drop_unsent();
                    }
                    Poll::Pending => {}
                }
            }
            if self.unflushed
                && let Poll::Ready(flushed) = Pin::new(&mut *self.stream).poll_flush(context)
            {
                self.unflushed = false;
                return Poll::Ready(flushed.map(|()| Turn::Wrote));
            }
            if !reading {
                return Poll::Pending;
            }
            self.poll_read(context).map(|count| count.map(Turn::Read))
        })
        .await
    }

    fn drop_unsent(&mut self) {
        (self.unsent, self.tail) = (VecDeque::new(), BytesMut::new());
        (self.unsent_bytes, self.unflushed) = (0, false);
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.tail.is_empty() {
            self.unsent.push_back(self.tail.split().freeze());
        }
        let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.unsent) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        let written = ready!(Pin::new(&mut *self.stream).poll_write_vectored(context, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent(written);
        self.unflushed = true;
        if self.unsent_bytes == 0 {
            self.tail = BytesMut::new();
            self.unflushed = Pin::new(&mut *self.stream).poll_flush(context)?.is_pending();
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, mut count: usize) {
        self.unsent_bytes -= count;
        while let Some(front) = self.unsent.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.unsent.pop_front();
        }
        self.unsent = VecDeque::new();
    }

    /// Reads what is there. While nothing is there, holds no buffer that was not filled.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.arriving.poll_room(self.packet_bytes(), context))?;
        let was_empty = self.received.is_empty();
        self.received.reserve(self.read_bytes);
        let polled = {
            let mut room = (&mut self.received).limit(self.read_bytes);
            let read = std::pin::pin!(self.stream.read_buf(&mut room));
            read.poll(context)
        };
        match polled {
            Poll::Pending if was_empty => self.received = BytesMut::new(),
            Poll::Ready(Ok(count)) if count == self.read_bytes => self.read_bytes = (self.read_bytes * 4).min(READ_BYTES_MAX),
            Poll::Ready(Ok(count)) if count < self.read_bytes / 8 => self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN),
            _ => {}
        }
        polled
    }

    /// Bytes of the packet that begins what was received; 0 until its length is there.
    fn packet_bytes(&self) -> usize {
        match self.received.get(1..).map(read_variable) {
            Some(Variable::Whole { value, length, .. }) => 1 + length + usize::try_from(value).unwrap_or(usize::MAX / 2),
            _ => 0,
        }
    }

    /// Whether the client is kept from sending the rest of a large packet.
    pub fn waits_for_room(&self) -> bool {
        self.arriving.waits_for_room()
    }

    /// Nothing more is received for now: gives back what a large packet took of the budget, which its receiver may need itself.
    pub fn let_go(&mut self) {
        self.arriving.let_go();
    }

    /// After everything that was received was taken: an idle connection holds no buffer.
    pub fn rest(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// Writes everything that is to go, and says that nothing follows.
    pub async fn close(&mut self) -> io::Result<()> {
        while self.has_unsent() {
            self.turn(false).await?;
        }
        poll_fn(|context| Pin::new(&mut *self.stream).poll_shutdown(context)).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn is_still(wire: &mut Wire) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, wire.turn(true)).await.is_err()
    }

    /// A PUBLISH of so many bytes, its head and the beginning of what follows.
    fn begun(bytes: usize) -> Vec<u8> {
        let mut packet = vec![0x30];
        let mut rest = bytes;
        while rest > 127 {
            packet.push((rest & 127) as u8 | 128);
            rest >>= 7;
        }
        packet.push(rest as u8);
        packet.extend([7; 100]);
        packet
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_packet_is_charged_while_it_comes_in() {
        let budget = Budget::with_max(1 << 20);
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let mut wire = Wire::over(Box::new(far), "127.0.0.1:5".parse().expect("an address"), budget.clone());
        near.write_all(&begun(700 << 10)).await.expect("taken");
        let held = budget.charge(500 << 10).expect("there is room");
        assert!(matches!(wire.turn(true).await, Ok(Turn::Read(1..))));
        near.write_all(&[7; 1000]).await.expect("taken");
        assert!(is_still(&mut wire).await && wire.waits_for_room(), "less than half is in use, and yet too much");
        drop(held);
        assert!(matches!(wire.turn(true).await, Ok(Turn::Read(1000))));
        assert!(is_still(&mut wire).await && !wire.waits_for_room());
        assert!(budget.charge(400 << 10).is_none(), "it is charged");
        assert!(tokio::time::timeout(std::time::Duration::ZERO, wire.turn(false)).await.is_err());
        assert!(budget.charge(1 << 20).is_some(), "who does not read holds nothing");
        assert!(is_still(&mut wire).await);
        wire.received.clear();
        assert!(is_still(&mut wire).await);
        assert!(budget.charge(1 << 20).is_some(), "it was taken");
        near.write_all(&begun(700 << 10)).await.expect("taken");
        assert!(matches!(wire.turn(true).await, Ok(Turn::Read(1..))));
        let late = wire.turn(true).await.expect_err("it does not come");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        wire.let_go();
        assert!(budget.charge(1 << 20).is_some());
    }
}
