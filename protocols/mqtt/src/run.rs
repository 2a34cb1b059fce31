//! The loop of a connected client.

use std::pin::{Pin, pin};
use std::sync::Arc;

use firth_gateway::link::{LinkEnd, StopSignal};
use firth_model::limits::MQTT_UNDONE_MAX;
use tokio::time::{Duration, Instant, Sleep, sleep, timeout};

use crate::codec::reason::ReasonCode;
use crate::registry::Called;
use crate::session::{Durable, Ending, Session};
use crate::shared::MemberInbox;
use crate::wire::Turn;

/// Turns at its stream that a connection has left which is taken over: who waits for its place is not to wait long.
const LAST_READS: usize = 16;
/// How long a timer sleeps that nothing is due for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl Session {
    /// Serves the client to the end of its connection.
    pub async fn run(mut self: Box<Self>, mut stop: StopSignal) -> Result<(), LinkEnd> {
        // What may happen at any time is waited for once, and not anew for every packet.
        let chair = self.seat.chair();
        let (stopped, called, timer) = (pin!(stop.stopped()), pin!(chair.called()), pin!(sleep(NEVER)));
        let mut outside = Outside { stopped, called, timer };
        let ending = loop {
            self.work();
            if let Some(ending) = self.ending {
                break ending;
            }
            if self.wait(&mut outside).await {
                outside.called.set(chair.called());
            }
        };
        self.wire.let_go();
        // Boxed, for its size: most of its life a connection is not at its end.
        Box::pin(self.leave(ending)).await;
        match ending {
            Ending::Stopping => Err(LinkEnd::Stopping),
            Ending::Refused(reason) => Err(LinkEnd::Malformed { at_byte: 0, what: reason.name() }),
            Ending::Left { .. } | Ending::Lost | Ending::TakenOver | Ending::Removed => Ok(()),
        }
    }

    pub fn take_events(&mut self) {
        for event in self.connection.try_events() {
            self.event(event);
        }
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) {
        self.now = self.broker.now();
        self.take_events();
        self.hear_groups();
        if !self.wire.received.is_empty() && self.may_read() {
            self.decode();
        }
        self.pump();
        self.answer_pings();
        self.flush_settles();
        self.end_closing();
        // They are slices of what was received or stored, and would keep all of that while the client is idle.
        (self.inbound.last, self.last_topic) = (None, None);
    }

    /// Whether what the client sends is looked at: not while it lets too much be undone, or does not take what it is sent.
    pub fn may_read(&self) -> bool {
        self.ending.is_none()
            && self.operation.is_none()
            && self.held.is_empty()
            && self.inbound.held.is_none()
            && self.inbound.undone < MQTT_UNDONE_MAX
            && self.wire.has_room()
    }

    /// The timer went off, which was set for what was heard a while ago.
    fn look_for_silence(&mut self, reading: bool) {
        let Some(patience) = self.client.patience.filter(|patience| self.heard_at.elapsed() >= *patience) else { return };
        // While the node has reasons of its own not to read, the client cannot be heard. One that takes nothing of what it is sent is not
        // read either, but that is its own doing.
        if reading && !self.wire.waits_for_room() || !self.wire.has_room() {
            tracing::debug!(client = self.client.id.as_str(), ?patience, "a client is silent for too long");
            self.end(Ending::Refused(ReasonCode::KeepAliveTimeout));
        } else {
            self.heard_at = Instant::now();
        }
    }

    /// Whether something came that nobody looked at yet: the node itself may have stood still for a while.
    async fn hear_what_came(&mut self, reading: bool) -> bool {
        while let Ok(Ok(turn)) = timeout(Duration::ZERO, self.wire.turn(reading)).await {
            match turn {
                Turn::Wrote => {}
                Turn::Read(0) => return false,
                Turn::Read(_) => {
                    self.heard_at = Instant::now();
                    return true;
                }
            }
        }
        false
    }

    /// Takes in what has come already: a client that comes back at once did send it before.
    async fn hear_last(&mut self) {
        for _ in 0..LAST_READS {
            let reading = self.may_read();
            match timeout(Duration::ZERO, self.wire.turn(reading)).await {
                Ok(Ok(Turn::Read(1..) | Turn::Wrote)) => self.work(),
                _ => return,
            }
        }
    }

    /// Waits until there is something to do. True: somebody called.
    async fn wait<S: Future<Output = ()>, C: Future<Output = Called>>(&mut self, outside: &mut Outside<'_, S, C>) -> bool {
        let reading = self.may_read();
        let held = !self.held.is_empty() || self.inbound.held.is_some();
        let has_room = held.then(|| self.connection.room());
        let due = self.client.patience.map(|patience| self.heard_at + patience);
        if let Some(due) = due
            && due < outside.timer.deadline()
        {
            outside.timer.as_mut().reset(due);
        }
        let parked = self.durable.as_ref().filter(|durable| durable.legs.is_parked()).map(|durable| durable.legs.waiter());
        let inbox = self.memberships.as_ref().map(|memberships| memberships.inbox.clone());
        let is_member = inbox.is_some();
        let cold = self.durable.as_mut().filter(|durable| durable.legs.is_reading());
        let (is_cold, is_replaying, is_parked) = (cold.is_some(), self.replays.is_reading(), parked.is_some());
        tokio::select! {
            // In no fixed order: a client that sends without pause is sent what it is to be sent, and its connection can be ended.
            called = outside.called.as_mut() => {
                match called {
                    Called::TakenOver => {
                        self.hear_last().await;
                        self.end(Ending::TakenOver);
                    }
                    Called::Removed => self.end(Ending::Removed),
                    Called::Asked(call) => self.answer_call(call),
                }
                return true;
            }
            () = outside.stopped.as_mut() => self.end(Ending::Stopping),
            turn = self.wire.turn(reading) => match turn {
                // Who is not read is heard by what it takes.
                Ok(Turn::Wrote) if !reading => self.heard_at = Instant::now(),
                Ok(Turn::Wrote) => {}
                Ok(Turn::Read(0)) | Err(_) => self.end(Ending::Lost),
                Ok(Turn::Read(_)) => self.heard_at = Instant::now(),
            },
            events = self.connection.events() => {
                for event in events {
                    self.event(event);
                }
            }
            () = self.replays.read(), if is_replaying => {}
            () = read_cold(cold), if is_cold => {}
            () = woken(parked), if is_parked => {
                if let Some(durable) = &mut self.durable {
                    durable.legs.woken(&**self.broker.view());
                }
            }
            () = room(has_room), if held => {
                self.retry_held();
                self.retry_publish();
            }
            () = handed(inbox), if is_member => {}
            () = outside.timer.as_mut() => {
                outside.timer.as_mut().reset(Instant::now() + NEVER);
                if !self.hear_what_came(reading).await {
                    self.look_for_silence(reading);
                }
            }
        }
        false
    }
}

/// What may happen to a connection at any time.
struct Outside<'a, S, C> {
    stopped: Pin<&'a mut S>,
    called: Pin<&'a mut C>,
    /// Goes off when the client was silent for too long, or before: it is not set anew with every packet.
    timer: Pin<&'a mut Sleep>,
}

async fn read_cold(durable: Option<&mut Box<Durable>>) {
    match durable {
        Some(durable) => durable.legs.read_cold().await,
        None => std::future::pending().await,
    }
}

async fn woken(waiter: Option<Arc<firth_gateway::view::Waiter>>) {
    match waiter {
        Some(waiter) => waiter.woken().await,
        None => std::future::pending().await,
    }
}

async fn room(has_room: Option<impl Future<Output = ()>>) {
    match has_room {
        Some(has_room) => has_room.await,
        None => std::future::pending().await,
    }
}

async fn handed(inbox: Option<Arc<MemberInbox>>) {
    match inbox {
        Some(inbox) => inbox.bell.notified().await,
        None => std::future::pending().await,
    }
}
