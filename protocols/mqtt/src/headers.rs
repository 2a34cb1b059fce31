//! The mapping of MQTT's properties to headers, and back.
//!
//! | MQTT | header |
//! |---|---|
//! | content type | `content-type` |
//! | response topic | `reply-to`, as canonical text where it is a subject |
//! | correlation data | `correlation-id` |
//! | payload format indicator 1, 0 | `payload-format`: `utf-8`, `bytes` |
//! | message expiry interval | the moment at which the message expires |
//! | user property `firth-key` | the key of the record |
//! | other user properties | one to one, in order; those named `firth-…` are dropped |
//!
//! On the way out a well-known header that stands twice, or whose value its property cannot hold, is a user property; headers that are no
//! UTF-8 are left out, and null reads as an empty string.

use bytes::Bytes;

use firth_gateway::message::{Message, OWN_HEADERS, PUBLISHER_HEADER, QOS_HEADER};
use firth_model::spelling::Spelling;
use firth_model::subject::Subject;
use firth_model::time::Millis;

use crate::codec::property::{Properties, PropertySet, SubscriptionIdentifier};
use crate::codec::qos::QoS;
use crate::codec::text::{Binary, Text};
use crate::codec::topic::check_topic_name;

const CONTENT_TYPE: &[u8] = b"content-type";
const REPLY_TO: &[u8] = b"reply-to";
const CORRELATION_ID: &[u8] = b"correlation-id";
const PAYLOAD_FORMAT: &[u8] = b"payload-format";
const KEY: &[u8] = b"firth-key";
const TEXT: &[u8] = b"utf-8";
const BINARY: &[u8] = b"bytes";

/// What a client publishes, by PUBLISH or by its will.
pub struct Outline<'a> {
    pub subject: Subject,
    pub qos: QoS,
    pub retain: bool,
    pub properties: &'a Properties,
    pub payload: Bytes,
}

/// The message of a publish at `now`.
pub fn message(outline: Outline<'_>, now: Millis) -> Message {
    let Outline { subject, qos, retain, properties, payload } = outline;
    let mut headers = Vec::new();
    let mut key = None;
    match (qos, retain) {
        (QoS::ExactlyOnce, _) => headers.push((name(QOS_HEADER.as_bytes()), Some(Bytes::from_static(b"2")))),
        (QoS::AtMostOnce, true) => headers.push((name(QOS_HEADER.as_bytes()), Some(Bytes::from_static(b"0")))),
        _ => {}
    }
    if let Some(text) = &properties.content_type {
        headers.push((name(CONTENT_TYPE), Some(copy(text.as_bytes()))));
    }
    if let Some(topic) = &properties.response_topic {
        let reply_to = match Spelling::Mqtt.subject(topic.as_bytes()) {
            Ok(subject) => subject.as_bytes().clone(),
            Err(_) => copy(topic.as_bytes()),
        };
        headers.push((name(REPLY_TO), Some(reply_to)));
    }
    if let Some(data) = &properties.correlation_data {
        headers.push((name(CORRELATION_ID), Some(copy(data.as_bytes()))));
    }
    if let Some(is_text) = properties.payload_is_text {
        headers.push((name(PAYLOAD_FORMAT), Some(name(if is_text { TEXT } else { BINARY }))));
    }
    for (name, value) in &properties.user {
        if name.as_bytes() == KEY {
            key = Some(copy(value.as_bytes())).filter(|key| key != subject.as_bytes());
        } else if !name.as_bytes().starts_with(OWN_HEADERS) {
            headers.push((copy(name.as_bytes()), Some(copy(value.as_bytes()))));
        }
    }
    let expires = properties.message_expiry_s.map(|span_s| now.plus(i64::from(span_s) * 1000));
    let value = (!(retain && payload.is_empty())).then(|| small_copy(payload));
    let guaranteed = qos != QoS::AtMostOnce;
    Message { subject, key, value, headers, published: now, expires, guaranteed, retain, publisher: 0 }
}

/// The QoS at which a message was published: what is guaranteed by another protocol counts as 1.
pub fn published_qos(message: &Message) -> QoS {
    let said = message.headers.iter().find(|(name, _)| name == QOS_HEADER.as_bytes()).and_then(|(_, value)| value.as_deref());
    match said {
        Some(b"2") => QoS::ExactlyOnce,
        Some(b"0") => QoS::AtMostOnce,
        _ if message.guaranteed => QoS::AtLeastOnce,
        _ => QoS::AtMostOnce,
    }
}

/// Notes who published the message, for as long as it is stored.
pub fn set_publisher(message: &mut Message, id: &Text) {
    message.headers.push((name(PUBLISHER_HEADER.as_bytes()), Some(id.as_bytes().clone())));
}

/// Whether this client published the message; known of those that a subscription of its session did not want back.
pub fn is_published_by(message: &Message, id: &Text) -> bool {
    let mut publishers = message.headers.iter().filter(|(name, _)| name == PUBLISHER_HEADER.as_bytes());
    publishers.any(|(_, publisher)| publisher.as_ref() == Some(id.as_bytes()))
}

/// Whether nobody is to see the message any more.
pub fn is_expired(message: &Message, now: Millis) -> bool {
    message.expires.is_some_and(|at| at <= now)
}

/// The properties of the message for a subscriber of MQTT 5.0.
pub fn properties(message: &Message, identifiers: Vec<SubscriptionIdentifier>, now: Millis) -> Properties {
    if message.headers.is_empty() && message.expires.is_none() && identifiers.is_empty() {
        return Properties::default();
    }
    let mut set = PropertySet { subscription_identifiers: identifiers, ..PropertySet::default() };
    // What is left, in seconds, the one that has begun with them: a message that is passed on at once keeps its interval.
    set.message_expiry_s = message.expires.map(|at| u32::try_from((at.since(now) + 999) / 1000).unwrap_or(u32::MAX));
    for (name, value) in &message.headers {
        if !name.starts_with(OWN_HEADERS) && !well_known(&mut set, name, value.as_ref()) {
            let value = value.clone().unwrap_or_default();
            if let (Ok(name), Ok(value)) = (Text::parse(name.clone()), Text::parse(value)) {
                set.user.push((name, value));
            }
        }
    }
    if set == PropertySet::default() { Properties::default() } else { set.into() }
}

/// Whether the header became a property of its own.
fn well_known(set: &mut PropertySet, name: &[u8], value: Option<&Bytes>) -> bool {
    let Some(value) = value else { return false };
    match name {
        CONTENT_TYPE => put(&mut set.content_type, || Text::parse(value.clone()).ok()),
        REPLY_TO => put(&mut set.response_topic, || response_topic(value)),
        CORRELATION_ID => put(&mut set.correlation_data, || Binary::parse(value.clone())),
        PAYLOAD_FORMAT => put(&mut set.payload_is_text, || match &value[..] {
            TEXT => Some(true),
            BINARY => Some(false),
            _ => None,
        }),
        _ => false,
    }
}

fn put<T>(slot: &mut Option<T>, value: impl FnOnce() -> Option<T>) -> bool {
    if slot.is_some() {
        return false;
    }
    *slot = value();
    slot.is_some()
}

fn response_topic(value: &Bytes) -> Option<Text> {
    let text = match Subject::from_text(value.clone()) {
        Ok(subject) => topic(&subject)?,
        Err(_) => Text::parse(value.clone()).ok()?,
    };
    (!text.is_empty() && check_topic_name(&text).is_ok()).then_some(text)
}

/// The topic name of a subject. `None`: MQTT has no room for it.
pub fn topic(subject: &Subject) -> Option<Text> {
    let text = subject.as_bytes();
    // Most subjects read the same in both.
    if !text.is_empty() && !text.iter().any(|byte| matches!(byte, b'%' | b'+' | b'#' | 0)) {
        return Text::parse(text.clone()).ok();
    }
    let mut out = Vec::with_capacity(text.len());
    Spelling::Mqtt.write_subject(subject, &mut out);
    Text::parse(out.into()).ok()
}

/// Payloads below this are copied out of the buffer they came in: a message that waits somewhere is not to hold all of it.
const COPIED_BYTES_MAX: usize = 4 << 10;

fn small_copy(payload: Bytes) -> Bytes {
    if payload.len() < COPIED_BYTES_MAX { copy(&payload) } else { payload }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn name(text: &'static [u8]) -> Bytes {
    Bytes::from_static(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(properties: Properties, payload: &'static [u8], retain: bool) -> (Message, Properties) {
        let outline = Outline {
            subject: Subject::parse("a/b").expect("a subject"),
            qos: QoS::AtLeastOnce,
            retain,
            properties: &properties,
            payload: Bytes::from_static(payload),
        };
        let message = message(outline, Millis(1000));
        let out = super::properties(&message, Vec::new(), Millis(1000));
        (message, out)
    }

    #[test]
    fn properties_come_back_as_they_went() {
        let mut set = PropertySet {
            payload_is_text: Some(true),
            message_expiry_s: Some(7),
            content_type: Some(Text::fixed("text/plain")),
            response_topic: Some(Text::fixed("answers/%41*/me")),
            correlation_data: Binary::parse(Bytes::from_static(b"\x00\xff")),
            ..PropertySet::default()
        };
        set.user = vec![(Text::fixed("a"), Text::fixed("1")), (Text::fixed("a"), Text::fixed("")), (Text::fixed("Ä"), Text::fixed("b"))];
        let properties = Properties::from(set);
        assert_eq!(through(properties.clone(), b"x", false).1, properties);
        assert_eq!(through(Properties::default(), b"x", false).1, Properties::default());
    }

    #[test]
    fn own_names_are_not_taken_and_not_given() {
        let mut set = PropertySet { user: vec![(Text::fixed("firth-subject"), Text::fixed("no"))], ..PropertySet::default() };
        set.user.push((Text::fixed("firth-key"), Text::fixed("k")));
        let (message, out) = through(set.into(), b"", true);
        assert_eq!((message.key.as_deref(), message.value.as_ref()), (Some(&b"k"[..]), None));
        assert!(message.headers.is_empty());
        assert_eq!(out, Properties::default());
        assert_eq!(through(Properties::default(), b"", false).0.value, Some(Bytes::new()));
    }

    #[test]
    fn expiry_counts_down_to_nothing() {
        let (message, _) = through(PropertySet { message_expiry_s: Some(2), ..PropertySet::default() }.into(), b"", false);
        assert!(!is_expired(&message, Millis(2999)));
        assert_eq!(super::properties(&message, Vec::new(), Millis(2500)).message_expiry_s, Some(1));
        assert!(is_expired(&message, Millis(3000)));
    }

    #[test]
    fn what_no_property_holds_is_a_user_property_or_nothing() {
        let (mut message, _) = through(Properties::default(), b"", false);
        let header = |name: &'static [u8], value: &'static [u8]| (Bytes::from_static(name), Some(Bytes::from_static(value)));
        message.headers = vec![header(b"content-type", b"a"), header(b"content-type", b"b"), header(b"x", b"\xff"), header(b"\xff", b"x")];
        message.headers.push((Bytes::from_static(b"null"), None));
        let out = properties(&message, Vec::new(), Millis(0));
        assert_eq!(out.content_type, Some(Text::fixed("a")));
        assert_eq!(out.user, [(Text::fixed("content-type"), Text::fixed("b")), (Text::fixed("null"), Text::default())]);
    }
}
