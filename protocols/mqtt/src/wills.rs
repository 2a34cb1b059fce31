//! Wills: how they are kept, and those that wait for their delay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use firth_gateway::answer::{Event, Tag};
use firth_gateway::connection::{Connection, Full};
use firth_gateway::cursors::Receipt;
use firth_gateway::door::Broker;
use firth_gateway::message::Message;
use firth_gateway::publishing::Publication;
use firth_model::spelling::Spelling;
use firth_model::time::Millis;

use crate::codec::connect::{Connect, Will};
use crate::codec::decode::decode_connect;
use crate::codec::encode::{Receiver, encode};
use crate::codec::packet::Packet;
use crate::codec::text::Text;
use crate::codec::version::ProtocolVersion;
use crate::headers::{Outline, message};
use crate::notes::NOTE_WILL;
use crate::registry::cursor_name;

/// Wills of clients that are gone and may come back in time.
#[derive(Default)]
pub struct Delayed {
    waiting: Mutex<HashMap<Text, Waiting>>,
}

struct Waiting {
    will: Will,
    due: Instant,
    timer: Option<AbortHandle>,
    number: u64,
}

impl Delayed {
    fn lock(&self) -> MutexGuard<'_, HashMap<Text, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `fire` with the will after `delay`, unless it is taken back before.
    pub fn schedule<F>(&self, id: &Text, will: Will, delay: Duration, fire: impl FnOnce(Will) -> F + Send + 'static, own: Arc<dyn Holder>)
    where
        F: Future<Output = ()> + Send,
    {
        let mut waiting = self.lock();
        let number = waiting.get(id).map_or(0, |before| before.number + 1);
        let key = id.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(will) = own.delayed().due(&key, number) {
                fire(will).await;
            }
        });
        let timer = Some(timer.abort_handle());
        let due = Instant::now() + delay;
        if let Some(Waiting { timer: Some(before), .. }) = waiting.insert(id.clone(), Waiting { will, due, timer, number }) {
            before.abort();
        }
    }

    fn due(&self, id: &Text, number: u64) -> Option<Will> {
        let mut waiting = self.lock();
        if waiting.get(id)?.number != number {
            return None;
        }
        waiting.remove(id).map(|due| due.will)
    }

    /// The will of a client that came back before it was due, and the rest of its delay.
    pub fn take_back(&self, id: &Text) -> Option<(Will, Duration)> {
        let Waiting { will, due, timer, .. } = self.lock().remove(id)?;
        if let Some(timer) = timer {
            timer.abort();
        }
        Some((will, due.saturating_duration_since(Instant::now())))
    }
}

/// Who keeps the delayed wills alive.
pub trait Holder: Send + Sync {
    fn delayed(&self) -> &Delayed;
}

/// The delay of a will, no longer than its session.
pub fn delay_s(will: &Will, expiry_s: u32) -> u32 {
    will.properties.will_delay_s.unwrap_or(0).min(expiry_s)
}

/// The message of a will. `None`: its topic is no subject.
pub fn will_message(will: &Will, now: Millis) -> Option<Message> {
    let subject = Spelling::Mqtt.subject(will.topic.as_bytes()).ok()?;
    let (payload, properties) = (will.payload.as_bytes().clone(), &will.properties);
    Some(message(Outline { subject, qos: will.qos, retain: will.retain, properties, payload }, now))
}

/// What publishing the will of a persistent session does: nobody publishes it again, also not after a crash.
pub fn will_receipt(id: &Text) -> Option<Receipt> {
    Some(Receipt::Takes { cursor: cursor_name(id), note: NOTE_WILL })
}

/// Publishes a message on a connection that is about to end, waiting for room.
pub async fn publish(connection: &mut Connection, message: Message, receipt: Option<Receipt>) {
    publish_all(connection, Tag(u64::MAX), vec![Publication { message, receipt }]).await;
}

/// The same of several, under a tag of the connection's.
pub async fn publish_all(connection: &mut Connection, tag: Tag, publications: Vec<Publication>) {
    let mut publications = publications;
    while let Err(Full(back)) = connection.publish(tag, publications) {
        connection.room_at_end().await;
        publications = back;
    }
}

/// Publishes a message of nobody who is connected, and waits until it is shown.
pub async fn publish_alone(broker: &Broker, message: Message, receipt: Option<Receipt>) {
    let mut connection = broker.connect();
    publish(&mut connection, message, receipt).await;
    loop {
        for event in connection.events().await {
            if matches!(event, Event::Reply { .. }) {
                return;
            }
        }
    }
}

/// What a persistent session keeps of a will: a CONNECT of 5.0 with nothing else but the session's expiry interval.
pub fn to_note(will: &Will, expiry_s: u32) -> Option<Bytes> {
    let mut connect = Connect::plain(ProtocolVersion::V5, Text::fixed("-"));
    connect.will = Some(will.clone());
    connect.properties.edit().session_expiry_s = Some(expiry_s);
    let mut out = BytesMut::new();
    encode(&Packet::Connect(Box::new(connect)), &Receiver::of(ProtocolVersion::V5), &mut out).ok()?;
    Some(out.freeze())
}

/// The will of a note, and the session's expiry interval.
pub fn from_note(note: &Bytes) -> Option<(Will, u32)> {
    let connect = decode_connect(&mut BytesMut::from(&note[..]), u32::MAX).ok()??;
    Some((connect.will?, connect.properties.session_expiry_s.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::property::PropertySet;
    use crate::codec::qos::QoS;
    use crate::codec::text::Binary;

    fn will() -> Will {
        let set = PropertySet { will_delay_s: Some(9), content_type: Some(Text::fixed("x")), ..PropertySet::default() };
        let payload = Binary::parse(Bytes::from_static(b"gone")).expect("short");
        Will { topic: Text::fixed("a/b"), payload, qos: QoS::ExactlyOnce, retain: true, properties: set.into() }
    }

    #[test]
    fn notes_bring_wills_back() {
        let note = to_note(&will(), 60).expect("it fits");
        assert_eq!(from_note(&note), Some((will(), 60)));
        assert_eq!(from_note(&Bytes::from_static(b"\x10")), None);
        assert_eq!((delay_s(&will(), 60), delay_s(&will(), 3)), (9, 3));
    }

    struct Held(Delayed);

    impl Holder for Held {
        fn delayed(&self) -> &Delayed {
            &self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_will_fires_once_when_it_is_due_and_not_when_it_was_taken_back() {
        let held = Arc::new(Held(Delayed::default()));
        let (fired, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for delay_s in [9, 5] {
            let fired = fired.clone();
            let fire = move |_| async move { fired.send(delay_s).expect("somebody listens") };
            held.0.schedule(&Text::fixed("a"), will(), Duration::from_secs(delay_s), fire, held.clone());
        }
        assert_eq!(heard.recv().await, Some(5));
        assert!(held.0.take_back(&Text::fixed("a")).is_none());
        held.0.schedule(
            &Text::fixed("a"),
            will(),
            Duration::from_secs(1),
            move |_| async move {
                let _ = fired.send(1);
            },
            held.clone(),
        );
        assert_eq!(held.0.take_back(&Text::fixed("a")), Some((will(), Duration::from_secs(1))));
        assert_eq!(heard.recv().await, None, "nobody is left to say anything");
    }
}
