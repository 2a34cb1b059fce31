//! The life of one connection: frames in, answers out, in order.
//!
//! Requests run as they come; answers leave in the order of their requests. Everything that one socket read decoded for Produce goes
//! down as one `Publish`; every other request is a future of its own, polled here.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::Instant;

use firth_gateway::answer::{Answer, Event, Placed, Tag};
use firth_gateway::connection::{Connection, Full};
use firth_gateway::door::Broker;
use firth_gateway::future::BoxFuture;
use firth_gateway::link::{ByteStream, Link, LinkEnd, StopSignal};
use firth_gateway::outbox::Charge;
use firth_gateway::produced::LiveProduced;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request as DoorRequest;
use firth_model::limits::{REQUEST_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};

use crate::apis::{ApiKey, Request, Response};
use crate::client::Client;
use crate::codec::reader::Malformed;
use crate::config::KafkaSettings;
use crate::envelope::{Incoming, RequestHeader, read_request, write_response};
use crate::handlers;
use crate::handlers::produce::{Gathered, PendingProduce};

/// First read of a connection that was idle, and all it may hold before a request is understood.
const READ_BYTES_MIN: usize = 16 << 10;
/// Largest read of a busy one.
const READ_BYTES_MAX: usize = 256 << 10;
/// Answers written ahead of a slow reader before its requests are left unread.
const UNSENT_BYTES_MAX: usize = 4 << 20;
/// Frames larger than this are charged to the node's budget before they are received.
const LARGE_FRAME_BYTES: usize = 64 << 10;
/// How long the last answers of a peer that ended its side may take: one that only half closed still gets them.
const LAST_ANSWERS_TIME: Duration = Duration::from_secs(10);
/// How long a large frame may take to arrive: it holds room that others wait for.
const LARGE_FRAME_TIME: Duration = Duration::from_secs(60);
/// A peer that took nothing for so long is slow.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Chunks in one gathered write; the kernel takes at most 1024.
const GATHERED_MAX: usize = 256;

/// One request's place in the order of answers.
enum Slot {
    /// With what it holds of the budget until it is sent.
    Ready(Vec<Bytes>, Option<Charge>),
    Running {
        header: RequestHeader,
        fetch: Option<Arc<handlers::fetch::Hurry>>,
        answer: BoxFuture<'static, Response>,
    },
    Produce {
        header: RequestHeader,
        tag: Tag,
        pending: PendingProduce,
    },
}

pub struct Session {
    client: Arc<Client>,
    broker: Broker,
    connection: Connection,
    reader: ReadHalf<Box<dyn ByteStream>>,
    writer: WriteHalf<Box<dyn ByteStream>>,
    received: BytesMut,
    read_bytes: usize,
    /// Room taken for a large frame that is coming in, and when it must be there.
    frame_charge: Option<(Charge, Instant)>,
    slots: VecDeque<Slot>,
    /// Batches of the current read, for one `Publish`.
    batch: Gathered,
    /// Produce requests in `slots` whose batches are in `batch`.
    produce_slots: usize,
    next_tag: u64,
    /// A publish that found the door full; the socket is left unread until it is taken.
    held: Option<(Tag, DoorRequest, Vec<LiveProduced>)>,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    /// Bytes given to the socket since the connection began; charges of answers, each with the count at which its last byte is sent.
    sent_bytes: u64,
    charges: VecDeque<(u64, Charge)>,
    /// When a peer that takes nothing gets copies of its own of what it does not take.
    stalled_at: Option<Instant>,
    ended: bool,
    /// The peer takes no answers any more.
    deaf: bool,
    /// When a connection whose peer sends nothing more ends, answered or not.
    gone_at: Option<Instant>,
}

impl Session {
    pub fn new(link: Link, broker: Broker, settings: Arc<KafkaSettings>) -> (Session, StopSignal) {
        let client = Arc::new(Client::new(&link, broker.clone(), settings));
        let (reader, writer) = tokio::io::split(link.stream);
        let session = Session {
            client,
            connection: broker.connect(),
            broker,
            reader,
            writer,
            received: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            frame_charge: None,
            slots: VecDeque::new(),
            batch: Gathered::default(),
            produce_slots: 0,
            next_tag: 0,
            held: None,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            sent_bytes: 0,
            charges: VecDeque::new(),
            stalled_at: None,
            ended: false,
            deaf: false,
            gone_at: None,
        };
        (session, link.stop)
    }

    /// Serves until the peer closes, breaks the protocol, or the node stops and everything asked before is answered.
    pub async fn run(mut self, mut stop: StopSignal) -> Result<(), LinkEnd> {
        let mut stopping = false;
        loop {
            if (stopping || self.ended) && self.slots.is_empty() && self.unsent.is_empty() {
                return if stopping { Err(LinkEnd::Stopping) } else { Ok(()) };
            }
            let reading = !stopping && !self.ended && self.has_room();
            let wanted = self.wanted_bytes(reading);
            let unsent = !self.unsent.is_empty();
            let running = self.slots.iter().any(|slot| matches!(slot, Slot::Running { .. }));
            let budget = self.broker.budget().clone();
            let due = self.frame_charge.as_ref().map(|(_, due)| *due);
            tokio::select! {
                biased;
                sent = write_some(&mut self.writer, &self.unsent), if unsent => match sent {
                    Ok(count) => self.sent(count),
                    // Nobody hears the answers any more; what the peer asked before it went, as to leave a group, still counts.
                    Err(error) => self.unheard(error),
                },
                events = self.connection.events() => {
                    for event in events {
                        if let Event::Reply { tag, result } = event {
                            self.published(tag, result)?;
                        }
                    }
                }
                () = poll_running(&mut self.slots), if running => {}
                () = budget.room(wanted.unwrap_or(0)), if wanted.is_some() => self.retry_held(),
                read = read_some(&mut self.reader, &mut self.received, self.read_bytes), if reading && wanted.is_none() => {
                    self.read(read.map_err(LinkEnd::Broken)?)?;
                }
                () = until(self.stalled_at), if self.stalled_at.is_some() => self.let_go_of_groups(),
                () = until(self.gone_at), if self.gone_at.is_some() => return Ok(()),
                () = until(due), if due.is_some() && reading => {
                    return Err(LinkEnd::Malformed { at_byte: 4, what: "a large request that did not arrive in time" });
                }
                () = stop.stopped(), if !stopping => {
                    stopping = true;
                    self.hurry_fetches();
                }
            }
            self.flush()?;
        }
    }

    fn has_room(&self) -> bool {
        self.slots.len() < REQUESTS_IN_FLIGHT_MAX && self.unsent_bytes < UNSENT_BYTES_MAX
    }

    /// Bytes for which there is no room in the node's budget: of a publish, or of a large frame that is coming in.
    fn wanted_bytes(&mut self, reading: bool) -> Option<usize> {
        if let Some((_, request, _)) = &self.held {
            return Some(request.weight());
        }
        match self.frame_bytes() {
            Some(Ok(bytes)) if bytes > LARGE_FRAME_BYTES && self.frame_charge.is_none() => {
                let charge = self.broker.budget().charge(bytes);
                self.frame_charge = charge.map(|charge| (charge, Instant::now() + LARGE_FRAME_TIME));
                (self.frame_charge.is_none() && reading).then_some(bytes)
            }
            _ => None,
        }
    }

    /// Length of the frame that begins the buffer, once its four bytes are there.
    fn frame_bytes(&self) -> Option<Result<usize, LinkEnd>> {
        let prefix = self.received.first_chunk::<4>()?;
        let length = i32::from_be_bytes(*prefix);
        Some(match usize::try_from(length) {
            Ok(bytes) if bytes <= REQUEST_BYTES_MAX => Ok(bytes),
            _ => Err(LinkEnd::Malformed { at_byte: 0, what: what_speaks(prefix) }),
        })
    }

    fn read(&mut self, count: usize) -> Result<(), LinkEnd> {
        if count == 0 {
            // Half a request is nobody's loss but the peer's.
            self.ended = true;
            self.gone_at.get_or_insert(Instant::now() + LAST_ANSWERS_TIME);
            self.hurry_fetches();
            return Ok(());
        }
        self.read_bytes = if count == self.read_bytes { (self.read_bytes * 2).min(READ_BYTES_MAX) } else { self.read_bytes };
        self.decode()
    }

    /// Takes every whole frame out of what was received.
    fn decode(&mut self) -> Result<(), LinkEnd> {
        while let Some(bytes) = self.frame_bytes() {
            let bytes = bytes?;
            if self.received.len() < 4 + bytes || self.slots.len() >= REQUESTS_IN_FLIGHT_MAX {
                break;
            }
            self.received.advance(4);
            let frame = self.received.split_to(bytes).freeze();
            self.frame_charge = None;
            let incoming = read_request(frame).map_err(|Malformed { at, what }| LinkEnd::Malformed { at_byte: at as u64, what })?;
            self.incoming(incoming)?;
        }
        if self.received.is_empty() {
            // An idle connection holds no buffer; one that is busy gets the next from the allocator at once.
            self.received = BytesMut::new();
        }
        self.submit_batch()
    }

    fn incoming(&mut self, incoming: Incoming) -> Result<(), LinkEnd> {
        match incoming {
            Incoming::Request { header, request: Request::Produce(request) } => {
                tracing::trace!(target: "path", hop = "codec.decode");
                self.hurry_fetches();
                let pending = handlers::produce::decide(&self.client, &mut self.connection, header.api_version, request, &mut self.batch);
                self.produce_slots += 1;
                self.slots.push_back(Slot::Produce { header, tag: Tag(self.next_tag), pending });
            }
            Incoming::Request { header, request } => {
                let is_fetch = matches!(request, Request::Fetch(_));
                if !is_fetch {
                    self.hurry_fetches();
                }
                let fetch = is_fetch.then(Arc::default);
                let answer = handlers::handle(self.client.clone(), &header, request, fetch.clone());
                self.slots.push_back(Slot::Running { header, fetch, answer });
            }
            Incoming::UnservedVersion { header, key: ApiKey::ApiVersions } => {
                // The client learns the versions from a body that every client can read (KIP-511).
                let response = handlers::versions::unserved();
                self.slots.push_back(Slot::Ready(write_response(header.correlation_id, 0, &response), None));
            }
            Incoming::UnservedVersion { header, key } => {
                tracing::debug!(api = key.api().name, version = header.api_version, "version is not served");
                // As Apache Kafka does: no version was promised that could carry an answer.
                return Err(LinkEnd::Malformed { at_byte: 2, what: "a version of an API that is not served" });
            }
            Incoming::UnservedApi { api_key, .. } => {
                tracing::debug!(api_key, "API is not served");
                return Err(LinkEnd::Malformed { at_byte: 0, what: "an API that is not served" });
            }
        }
        Ok(())
    }

    /// Everything one read decoded for Produce goes down at once.
    fn submit_batch(&mut self) -> Result<(), LinkEnd> {
        if std::mem::take(&mut self.produce_slots) == 0 {
            return Ok(());
        }
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        if self.batch.batches.is_empty() {
            // Every batch was refused on this side of the door.
            return self.published(tag, Ok(Answer::Placed(Vec::new())));
        }
        tracing::trace!(target: "path", hop = "session");
        let Gathered { batches, live } = std::mem::take(&mut self.batch);
        self.submit_produced(tag, DoorRequest::Publish(batches), live);
        Ok(())
    }

    fn submit_produced(&mut self, tag: Tag, request: DoorRequest, live: Vec<LiveProduced>) {
        if let Err(Full((request, live))) = self.connection.submit_produced(tag, request, live) {
            self.held = Some((tag, request, live));
        }
    }

    fn retry_held(&mut self) {
        if let Some((tag, request, live)) = self.held.take() {
            self.submit_produced(tag, request, live);
        }
    }

    /// The batches of one `Publish` are durable, or refused.
    fn published(&mut self, tag: Tag, result: Result<Answer, Refusal>) -> Result<(), LinkEnd> {
        let placed: Result<Vec<Result<Placed, Refusal>>, Refusal> = match result {
            Ok(Answer::Placed(placed)) => Ok(placed),
            Ok(_) => return Ok(()),
            Err(refusal) => Err(refusal),
        };
        let mut at = 0;
        while at < self.slots.len() {
            let Slot::Produce { header, tag: own, pending } = &mut self.slots[at] else {
                at += 1;
                continue;
            };
            if *own != tag {
                at += 1;
                continue;
            }
            let answer = pending.answer(header.api_version, &placed);
            match answer {
                handlers::produce::Answered::Response(response) => {
                    tracing::trace!(target: "path", hop = "codec.encode");
                    let frame = write_response(header.correlation_id, header.api_version, &response.into());
                    self.slots[at] = Slot::Ready(frame, None);
                    at += 1;
                }
                handlers::produce::Answered::Silent => {
                    self.slots.remove(at);
                }
                // Nobody reads an answer to acks=0: closing is the only way to say that something went wrong.
                handlers::produce::Answered::SilentFailure => {
                    return Err(LinkEnd::Malformed { at_byte: 0, what: "a publish without acknowledgement was refused" });
                }
            }
        }
        Ok(())
    }

    /// The peer takes no answers: they are dropped, and what it sent before is read to the end.
    fn unheard(&mut self, error: std::io::Error) {
        tracing::debug!(%error, "answers cannot be sent");
        self.deaf = true;
        self.unsent.clear();
        self.unsent_bytes = 0;
        self.charges.clear();
        self.stalled_at = None;
    }

    /// Chunks are slices of whole groups that all readers share. A peer that stands still would keep the groups in memory: it gets
    /// copies of just what it asked for, which its charge covers.
    fn let_go_of_groups(&mut self) {
        self.stalled_at = None;
        for chunk in &mut self.unsent {
            *chunk = Bytes::copy_from_slice(chunk);
        }
    }

    fn hurry_fetches(&self) {
        for slot in &self.slots {
            if let Slot::Running { fetch: Some(hurry), .. } = slot {
                hurry.now();
            }
        }
    }

    /// Moves answers whose turn it is into the queue to the socket.
    fn flush(&mut self) -> Result<(), LinkEnd> {
        while let Some(Slot::Ready(..)) = self.slots.front() {
            if let Some(Slot::Ready(frame, charge)) = self.slots.pop_front()
                && !self.deaf
            {
                for chunk in frame {
                    self.unsent_bytes += chunk.len();
                    self.unsent.push_back(chunk);
                }
                if let Some(charge) = charge {
                    self.charges.push_back((self.sent_bytes + self.unsent_bytes as u64, charge));
                }
                self.stalled_at.get_or_insert(Instant::now() + STALLED_AFTER);
            }
        }
        // Frames that found no slot when they were read.
        let whole = matches!(self.frame_bytes(), Some(Ok(bytes)) if self.received.len() >= 4 + bytes);
        if whole && self.has_room() && self.held.is_none() && !self.ended { self.decode() } else { Ok(()) }
    }

    fn sent(&mut self, count: usize) {
        self.unsent_bytes -= count;
        self.sent_bytes += count as u64;
        self.stalled_at = (self.unsent_bytes > 0).then(|| Instant::now() + STALLED_AFTER);
        while self.charges.front().is_some_and(|(end, _)| *end <= self.sent_bytes) {
            self.charges.pop_front();
        }
        let mut rest = count;
        while let Some(front) = self.unsent.front_mut() {
            if rest < front.len() {
                front.advance(rest);
                return;
            }
            rest -= front.len();
            self.unsent.pop_front();
        }
    }
}

/// Polls every running request; ready when one of them ended.
async fn poll_running(slots: &mut VecDeque<Slot>) {
    std::future::poll_fn(|context| {
        let mut ended = false;
        for slot in slots.iter_mut() {
            let Slot::Running { header, answer, fetch } = slot else { continue };
            if let Poll::Ready(response) = answer.as_mut().poll(context) {
                let charge = fetch.as_ref().and_then(|fetch| fetch.take_charge());
                *slot = Slot::Ready(write_response(header.correlation_id, header.api_version, &response), charge);
                ended = true;
            }
        }
        if ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Reads what is there, up to `bytes`. While nothing is there, holds no buffer that was not filled.
async fn read_some(reader: &mut ReadHalf<Box<dyn ByteStream>>, into: &mut BytesMut, bytes: usize) -> std::io::Result<usize> {
    std::future::poll_fn(|context| {
        let was_empty = into.is_empty();
        into.reserve(bytes);
        let polled = {
            let mut room = (&mut *into).limit(bytes);
            let read = std::pin::pin!(reader.read_buf(&mut room));
            read.poll(context)
        };
        if polled.is_pending() && was_empty {
            *into = BytesMut::new();
        }
        polled
    })
    .await
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn write_some(writer: &mut WriteHalf<Box<dyn ByteStream>>, unsent: &VecDeque<Bytes>) -> std::io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); GATHERED_MAX];
    let mut count = 0;
    for (slice, chunk) in slices.iter_mut().zip(unsent) {
        *slice = IoSlice::new(chunk);
        count += 1;
    }
    std::future::poll_fn(|context| Pin::new(&mut *writer).poll_write_vectored(context, &slices[..count])).await
}

/// Names the protocol of a peer that knocked at the wrong door, by its first bytes.
fn what_speaks(prefix: &[u8; 4]) -> &'static str {
    match prefix {
        [0x16, 0x03, ..] => "TLS on a plaintext port: set security.protocol=PLAINTEXT",
        b"GET " | b"POST" | b"PUT " | b"HEAD" => "HTTP on the Kafka port",
        b"AMQP" => "AMQP on the Kafka port",
        [0x10, ..] => "MQTT on the Kafka port",
        b"CONN" => "NATS on the Kafka port",
        [b'*', ..] => "Redis on the Kafka port",
        _ => "frame length out of range",
    }
}
