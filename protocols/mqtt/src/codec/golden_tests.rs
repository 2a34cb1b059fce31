//! Bytes of each packet that must never change.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};

use super::acknowledgement::Acknowledgement;
use super::connack::ConnAck;
use super::connect::{Connect, Will};
use super::decode::{decode, decode_connect};
use super::encode::{Receiver, encode, encode_head};
use super::fault::{DecodeError, EncodeError};
use super::kind::{PacketKind, Sender};
use super::leave::{Auth, Disconnect};
use super::packet::Packet;
use super::property::{PropertySet, SubscriptionIdentifier};
use super::publish::Publish;
use super::qos::{PacketId, QoS};
use super::reason::ReasonCode;
use super::subscribe::{RetainHandling, SubAck, Subscribe, Subscription, SubscriptionOptions, UnsubAck, Unsubscribe};
use super::text::{Binary, Text};
use super::version::ProtocolVersion::{self, V5, V31, V311};
use crate::fuzz::fuzz_decode;

/// Bytes as a person writes them: hexadecimal digits in any groups, and text between quotes.
pub fn wire(trace: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in trace.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|byte| *byte != b' ').collect();
        assert!(digits.len().is_multiple_of(2), "half a byte in {part}");
        bytes.extend(digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()));
    }
    bytes
}

/// Takes one packet, CONNECT or other.
pub fn read(input: &mut BytesMut, version: ProtocolVersion, from: Sender) -> Result<Option<Packet>, DecodeError> {
    if input.first().is_some_and(|first| first >> 4 == PacketKind::Connect.number()) {
        return Ok(decode_connect(input, u32::MAX)?.map(|connect| Packet::Connect(Box::new(connect))));
    }
    decode(input, version, from, u32::MAX)
}

/// Who sends such a packet; a client, where both may.
pub fn sender_of(kind: PacketKind) -> Sender {
    if kind.sent_by(Sender::Client) { Sender::Client } else { Sender::Server }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn binary(bytes: &'static str) -> Binary {
    Binary::parse(Bytes::from_static(bytes.as_bytes())).unwrap()
}

fn connect(version: ProtocolVersion) -> Connect {
    Connect::plain(version, Text::fixed("abc"))
}

fn publish(topic: &'static str, payload: &'static str) -> Publish {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: Text::fixed(topic),
        packet_id: None,
        properties: Default::default(),
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

fn explained(reason: ReasonCode) -> Acknowledgement {
    let properties = PropertySet {
        reason_string: Some(Text::fixed("no")),
        user: vec![(Text::fixed("a"), Text::fixed("1")), (Text::fixed("a"), Text::fixed("2"))],
        ..PropertySet::default()
    };
    Acknowledgement { properties: properties.into(), ..Acknowledgement::of(id(0x1234), reason) }
}

type Golden = (ProtocolVersion, &'static str, Packet);

fn connects() -> Vec<Golden> {
    let will =
        Will { topic: Text::fixed("will"), payload: binary("gone"), qos: QoS::AtLeastOnce, retain: true, properties: Default::default() };
    let credentials = |connect| Connect { user_name: Some(Text::fixed("user")), password: Some(binary("pass")), ..connect };
    let full = Connect { will: Some(will.clone()), keep_alive_s: 10, ..credentials(connect(V311)) };
    let mut mosquitto = connect(V5);
    mosquitto.properties.edit().receive_maximum = NonZeroU16::new(20);
    let properties = PropertySet {
        session_expiry_s: Some(3600),
        authentication_method: Some(Text::fixed("m")),
        authentication_data: Some(binary("d")),
        request_problem_information: Some(false),
        request_response_information: Some(true),
        topic_alias_maximum: Some(10),
        packet_bytes_max: NonZeroU32::new(65_536),
        receive_maximum: NonZeroU16::new(20),
        user: vec![(Text::fixed("a"), Text::fixed("1")), (Text::fixed("a"), Text::fixed("2"))],
        ..PropertySet::default()
    };
    let will_properties = PropertySet {
        payload_is_text: Some(true),
        message_expiry_s: Some(60),
        content_type: Some(Text::fixed("text")),
        response_topic: Some(Text::fixed("r")),
        correlation_data: Some(binary("c")),
        will_delay_s: Some(5),
        ..PropertySet::default()
    };
    let will = Will { properties: will_properties.into(), qos: QoS::ExactlyOnce, retain: false, ..will };
    let whole = Connect { will: Some(will), clean_start: false, properties: properties.into(), ..credentials(connect(V5)) };
    let packet = |connect: Connect| Packet::Connect(Box::new(connect));
    vec![
        (V31, "10 11 0006 'MQIsdp' 03 02 003c 0003 'abc'", packet(connect(V31))),
        (V311, "10 0f 0004 'MQTT' 04 02 003c 0003 'abc'", packet(connect(V311))),
        (V311, "10 0f 0004 'MQTT' 84 02 003c 0003 'abc'", packet(Connect { bridge: true, ..connect(V311) })),
        (V311, "10 0c 0004 'MQTT' 04 02 003c 0000", packet(Connect { client_id: Text::default(), ..connect(V311) })),
        (V311, "10 27 0004 'MQTT' 04 ee 000a 0003 'abc' 0004 'will' 0004 'gone' 0004 'user' 0004 'pass'", packet(full)),
        (V5, "10 10 0004 'MQTT' 05 02 003c 00 0003 'abc'", packet(connect(V5))),
        (V5, "10 13 0004 'MQTT' 05 02 003c 03 210014 0003 'abc'", packet(mosquitto)),
        (
            V5,
            "10 6e 0004 'MQTT' 05 d4 003c 2a 1100000e10 150001 'm' 160001 'd' 1700 1901 22000a 2700010000 210014 260001 'a' 0001 '1' \
             260001 'a' 0001 '2' 0003 'abc' 1b 0101 020000003c 030004 'text' 080001 'r' 090001 'c' 1800000005 0004 'will' 0004 'gone' \
             0004 'user' 0004 'pass'",
            packet(whole),
        ),
    ]
}

fn connacks() -> Vec<Golden> {
    let plain = |session_present, reason| ConnAck { session_present, reason, properties: Default::default() };
    let limits = PropertySet { topic_alias_maximum: Some(10), receive_maximum: NonZeroU16::new(20), ..PropertySet::default() };
    let all = PropertySet {
        session_expiry_s: Some(u32::MAX),
        assigned_client_id: Some(Text::fixed("id")),
        server_keep_alive_s: Some(30),
        response_information: Some(Text::fixed("ri")),
        server_reference: Some(Text::fixed("sr")),
        reason_string: Some(Text::fixed("ok")),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        packet_bytes_max: NonZeroU32::new(1024),
        wildcard_subscriptions_available: Some(false),
        subscription_identifiers_available: Some(true),
        shared_subscriptions_available: Some(false),
        ..PropertySet::default()
    };
    vec![
        (V31, "20 02 00 00", Packet::ConnAck(plain(false, ReasonCode::Success))),
        (V311, "20 02 01 00", Packet::ConnAck(plain(true, ReasonCode::Success))),
        (V311, "20 02 00 01", Packet::ConnAck(plain(false, ReasonCode::UnsupportedProtocolVersion))),
        (V311, "20 02 00 05", Packet::ConnAck(plain(false, ReasonCode::NotAuthorized))),
        (V5, "20 03 00 85 00", Packet::ConnAck(plain(false, ReasonCode::ClientIdentifierNotValid))),
        (V5, "20 09 00 00 06 22000a 210014", Packet::ConnAck(ConnAck { properties: limits.into(), ..plain(false, ReasonCode::Success) })),
        (
            V5,
            "20 2e 01 00 2b 11ffffffff 13001e 1a0002 'ri' 1c0002 'sr' 1f0002 'ok' 120002 'id' 2700000400 2401 2500 2800 2901 2a00",
            Packet::ConnAck(ConnAck { properties: all.into(), ..plain(true, ReasonCode::Success) }),
        ),
    ]
}

fn publishes() -> Vec<Golden> {
    let step = |dup, qos, topic, payload| Publish { dup, qos, packet_id: Some(id(10)), ..publish(topic, payload) };
    let properties = PropertySet {
        payload_is_text: Some(true),
        message_expiry_s: Some(7),
        subscription_identifiers: Vec::new(),
        topic_alias: NonZeroU16::new(3),
        ..PropertySet::default()
    };
    let aliased = Publish { topic: Text::default(), properties: properties.into(), ..publish("", "x") };
    vec![
        (V31, "30 0c 0005 'topic' 'hello'", Packet::Publish(publish("topic", "hello"))),
        (V311, "30 0c 0005 'topic' 'hello'", Packet::Publish(publish("topic", "hello"))),
        (V311, "31 07 0005 'topic'", Packet::Publish(Publish { retain: true, ..publish("topic", "") })),
        (V311, "32 07 0003 'a/b' 000a", Packet::Publish(step(false, QoS::AtLeastOnce, "a/b", ""))),
        (V311, "3d 08 0003 'a/b' 000a 'x'", Packet::Publish(Publish { retain: true, ..step(true, QoS::ExactlyOnce, "a/b", "x") })),
        (V5, "30 0d 0005 'topic' 00 'hello'", Packet::Publish(publish("topic", "hello"))),
        (V5, "32 08 0003 'a/b' 000a 00", Packet::Publish(step(false, QoS::AtLeastOnce, "a/b", ""))),
        (V5, "30 0e 0000 0a 0101 0200000007 230003 'x'", Packet::Publish(aliased)),
    ]
}

fn steps() -> Vec<Golden> {
    let plain = || Acknowledgement::of(id(0x1234), ReasonCode::Success);
    let no = |reason| Acknowledgement::of(id(0x1234), reason);
    let mut goldens: Vec<Golden> = Vec::new();
    for version in ProtocolVersion::ALL {
        goldens.push((version, "40 02 1234", Packet::PubAck(plain())));
        goldens.push((version, "50 02 1234", Packet::PubRec(plain())));
        goldens.push((version, "62 02 1234", Packet::PubRel(plain())));
        goldens.push((version, "70 02 1234", Packet::PubComp(plain())));
        goldens.push((version, "c0 00", Packet::PingReq));
        goldens.push((version, "d0 00", Packet::PingResp));
        goldens.push((version, "e0 00", Packet::Disconnect(Disconnect::because(ReasonCode::Success))));
    }
    goldens.push((V5, "40 03 1234 10", Packet::PubAck(no(ReasonCode::NoMatchingSubscribers))));
    goldens.push((V5, "50 03 1234 97", Packet::PubRec(no(ReasonCode::QuotaExceeded))));
    goldens.push((V5, "62 03 1234 92", Packet::PubRel(no(ReasonCode::PacketIdentifierNotFound))));
    goldens.push((V5, "70 03 1234 92", Packet::PubComp(no(ReasonCode::PacketIdentifierNotFound))));
    let trace = "40 17 1234 87 13 1f0002 'no' 260001 'a' 0001 '1' 260001 'a' 0001 '2'";
    goldens.push((V5, trace, Packet::PubAck(explained(ReasonCode::NotAuthorized))));
    goldens
}

fn subscriptions() -> Vec<Golden> {
    let subscription = |filter, qos| Subscription { filter: Text::fixed(filter), options: SubscriptionOptions::of(qos) };
    let two = || vec![subscription("a/b", QoS::AtLeastOnce), subscription("c/d", QoS::ExactlyOnce)];
    let subscribe = |subscriptions| Subscribe { packet_id: id(10), properties: Default::default(), subscriptions };
    let options =
        SubscriptionOptions { qos: QoS::ExactlyOnce, no_local: true, retain_as_published: true, retain_handling: RetainHandling::Never };
    let mut rich = subscribe(vec![Subscription { options, ..subscription("a/#", QoS::AtMostOnce) }]);
    rich.properties.edit().subscription_identifiers = vec![SubscriptionIdentifier::parse(268_435_455).unwrap()];
    let suback = |reasons| SubAck { packet_id: id(10), properties: Default::default(), reasons };
    let unsubscribe =
        Unsubscribe { packet_id: id(10), properties: Default::default(), filters: vec![Text::fixed("a/b"), Text::fixed("c/d")] };
    let unsuback = |reasons| UnsubAck { packet_id: id(10), properties: Default::default(), reasons };
    let granted = || vec![ReasonCode::Success, ReasonCode::GrantedQoS2, ReasonCode::UnspecifiedError];
    let gone = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    vec![
        (V31, "82 0e 000a 0003 'a/b' 01 0003 'c/d' 02", Packet::Subscribe(subscribe(two()))),
        (V311, "82 0e 000a 0003 'a/b' 01 0003 'c/d' 02", Packet::Subscribe(subscribe(two()))),
        (V5, "82 0f 000a 00 0003 'a/b' 01 0003 'c/d' 02", Packet::Subscribe(subscribe(two()))),
        (V5, "82 0e 000a 05 0bffffff7f 0003 'a/#' 2e", Packet::Subscribe(rich)),
        (V311, "90 05 000a 00 02 80", Packet::SubAck(suback(granted()))),
        (V5, "90 06 000a 00 00 02 80", Packet::SubAck(suback(granted()))),
        (V311, "a2 0c 000a 0003 'a/b' 0003 'c/d'", Packet::Unsubscribe(unsubscribe.clone())),
        (V5, "a2 0d 000a 00 0003 'a/b' 0003 'c/d'", Packet::Unsubscribe(unsubscribe)),
        (V311, "b0 02 000a", Packet::UnsubAck(unsuback(Vec::new()))),
        (V5, "b0 05 000a 00 00 11", Packet::UnsubAck(unsuback(gone))),
    ]
}

fn goodbyes() -> Vec<Golden> {
    let expiry = PropertySet { session_expiry_s: Some(0), ..PropertySet::default() };
    let method =
        PropertySet { authentication_method: Some(Text::fixed("SCRAM")), authentication_data: Some(binary("x")), ..PropertySet::default() };
    let expiring = Disconnect { reason: ReasonCode::Success, properties: expiry.into() };
    let scram = Auth { reason: ReasonCode::ContinueAuthentication, properties: method.into() };
    vec![
        (V5, "e0 01 04", Packet::Disconnect(Disconnect::because(ReasonCode::DisconnectWithWill))),
        (V5, "e0 01 8e", Packet::Disconnect(Disconnect::because(ReasonCode::SessionTakenOver))),
        (V5, "e0 07 00 05 1100000000", Packet::Disconnect(expiring)),
        (V5, "f0 00", Packet::Auth(Auth { reason: ReasonCode::Success, properties: Default::default() })),
        (V5, "f0 0e 18 0c 150005 'SCRAM' 160001 'x'", Packet::Auth(scram)),
    ]
}

/// All of them.
pub fn goldens() -> Vec<Golden> {
    [connects(), connacks(), publishes(), steps(), subscriptions(), goodbyes()].concat()
}

#[test]
fn every_packet_has_the_bytes_it_always_had() {
    for (version, trace, packet) in goldens() {
        let bytes = wire(trace);
        let mut input = BytesMut::from(&bytes[..]);
        assert_eq!(read(&mut input, version, sender_of(packet.kind())), Ok(Some(packet.clone())), "{version:?} {trace}");
        assert!(input.is_empty(), "{trace}");
        let mut out = BytesMut::from(&b"before"[..]);
        encode(&packet, &Receiver::of(version), &mut out).unwrap();
        assert_eq!(out[6..], bytes, "{version:?} {trace}");
    }
}

#[test]
fn each_kind_of_packet_has_a_trace_in_each_of_its_versions() {
    for kind in PacketKind::ALL {
        for version in [V311, V5] {
            let found = goldens().iter().any(|(golden, _, packet)| *golden == version && packet.kind() == kind);
            assert_eq!(found, !(kind == PacketKind::Auth && version == V311), "{kind:?} {version:?}");
        }
    }
}

#[test]
fn a_packet_that_is_not_all_there_is_waited_for() {
    for (version, trace, packet) in goldens() {
        let bytes = wire(trace);
        for length in 0..bytes.len() {
            let mut input = BytesMut::from(&bytes[..length]);
            assert_eq!(read(&mut input, version, sender_of(packet.kind())), Ok(None), "{length} bytes of {trace}");
            assert_eq!(input, bytes[..length], "what came stays");
        }
    }
}

#[test]
fn packets_behind_each_other_come_one_by_one() {
    let mut input = BytesMut::from(&wire("30 0c 0005 'topic' 'hello' c0 00 e0")[..]);
    assert_eq!(decode(&mut input, V311, Sender::Client, 100), Ok(Some(Packet::Publish(publish("topic", "hello")))));
    assert_eq!(decode(&mut input, V311, Sender::Client, 100), Ok(Some(Packet::PingReq)));
    assert_eq!(decode(&mut input, V311, Sender::Client, 100), Ok(None));
    assert_eq!(input, wire("e0"));
}

#[test]
fn a_payload_is_a_slice_of_what_was_received() {
    let mut input = BytesMut::from(&wire("30 0c 0005 'topic' 'hello'")[..]);
    let (first, last) = (input.as_ptr() as usize, input.as_ptr() as usize + input.len());
    let Ok(Some(Packet::Publish(publish))) = decode(&mut input, V311, Sender::Client, 100) else { panic!("no PUBLISH") };
    for slice in [&publish.payload, publish.topic.as_bytes()] {
        assert!((first..last).contains(&(slice.as_ptr() as usize)));
    }
    let mut out = BytesMut::new();
    encode_head(&Packet::Publish(publish), &Receiver::of(V311), &mut out).unwrap();
    assert_eq!(out, wire("30 0c 0005 'topic'"), "the head tells the length of both");
}

#[test]
fn longer_ways_to_say_the_same_are_read() {
    for (version, trace, packet) in [
        (V5, "40 03 1234 00", Packet::PubAck(Acknowledgement::of(id(0x1234), ReasonCode::Success))),
        (V5, "62 04 1234 92 00", Packet::PubRel(Acknowledgement::of(id(0x1234), ReasonCode::PacketIdentifierNotFound))),
        (V5, "e0 02 00 00", Packet::Disconnect(Disconnect::because(ReasonCode::Success))),
        (V311, "e0 80 00", Packet::Disconnect(Disconnect::because(ReasonCode::Success))),
        (V311, "10 8f00 0004 'MQTT' 04 02 003c 0003 'abc'", Packet::Connect(Box::new(connect(V311)))),
        (V31, "6a 02 1234", Packet::PubRel(Acknowledgement::of(id(0x1234), ReasonCode::Success))),
        (V31, "14 11 0006 'MQIsdp' 03 03 003c 0003 'abc'", Packet::Connect(Box::new(connect(V31)))),
        (V31, "10 11 0006 'MQIsdp' 03 c2 003c 0003 'abc'", Packet::Connect(Box::new(connect(V31)))),
    ] {
        let mut input = BytesMut::from(&wire(trace)[..]);
        assert_eq!(read(&mut input, version, Sender::Client), Ok(Some(packet)), "{trace}");
    }
}

#[test]
fn what_a_receiver_cannot_hold_is_left_out() {
    let packet = Packet::PubAck(explained(ReasonCode::NotAuthorized));
    let sent = |packet_bytes_max, problem_information| {
        let mut out = BytesMut::new();
        let receiver = Receiver { version: V5, packet_bytes_max, problem_information };
        encode(&packet, &receiver, &mut out).map(|()| out.to_vec())
    };
    assert_eq!(sent(25, true).unwrap().len(), 25);
    assert_eq!(sent(24, true), Ok(wire("40 09 1234 87 05 1f0002 'no'")), "[MQTT-3.4.2-3]: without user properties");
    assert_eq!(sent(10, true), Ok(wire("40 03 1234 87")), "[MQTT-3.4.2-2]: without the reason string");
    assert_eq!(sent(25, false), Ok(wire("40 03 1234 87")), "[MQTT-3.1.2-29]");
    assert_eq!(sent(4, true), Err(EncodeError::TooLarge));
    let message = Packet::Publish(publish("topic", "hello"));
    for (packet_bytes_max, expected) in [(15, Ok(())), (14, Err(EncodeError::TooLarge))] {
        let mut out = BytesMut::new();
        assert_eq!(encode(&message, &Receiver { packet_bytes_max, ..Receiver::of(V5) }, &mut out), expected);
        assert_eq!(out.len(), if expected.is_ok() { 15 } else { 0 });
    }
}

#[test]
fn what_a_version_cannot_say_is_refused() {
    let refused = |packet: Packet, version| encode(&packet, &Receiver::of(version), &mut BytesMut::new()).unwrap_err();
    let step = Acknowledgement::of(id(1), ReasonCode::QuotaExceeded);
    assert_eq!(refused(Packet::PubAck(step.clone()), V311), EncodeError::NotInVersion);
    assert_eq!(refused(Packet::PubRel(step), V5), EncodeError::NotInVersion);
    assert_eq!(
        refused(Packet::Auth(Auth { reason: ReasonCode::Success, properties: Default::default() }), V311),
        EncodeError::NotInVersion
    );
    let connack = ConnAck { session_present: false, reason: ReasonCode::MalformedPacket, properties: Default::default() };
    assert_eq!(refused(Packet::ConnAck(connack), V311), EncodeError::NotInVersion);
    assert_eq!(refused(Packet::Publish(Publish { packet_id: Some(id(1)), ..publish("a", "") }), V5), EncodeError::PacketId);
}

#[test]
fn changed_goldens_break_nothing() {
    for (_, trace, _) in goldens() {
        let bytes = wire(trace);
        for at in 0..bytes.len() {
            fuzz_decode(&bytes[..at]);
            for value in 0..=255 {
                let mut changed = bytes.clone();
                changed[at] = value;
                fuzz_decode(&changed);
            }
        }
    }
}
