//! Any packet comes back as it went, in every version.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::acknowledgement::Acknowledgement;
use super::connack::ConnAck;
use super::connect::{Connect, Will};
use super::encode::{Receiver, encode, encode_head};
use super::golden_tests::{read, sender_of};
use super::kind::{PacketKind, Sender};
use super::leave::{Auth, Disconnect};
use super::packet::Packet;
use super::property::{Properties, PropertySet, SubscriptionIdentifier};
use super::publish::Publish;
use super::qos::{PacketId, QoS};
use super::reason::ReasonCode;
use super::subscribe::{RetainHandling, SubAck, Subscribe, Subscription, SubscriptionOptions, UnsubAck, Unsubscribe};
use super::text::{Binary, Text};
use super::version::ProtocolVersion::{self, V5, V31, V311};
use crate::fuzz::fuzz_decode;

fn parsed(text: String) -> Text {
    Text::parse(Bytes::from(text)).unwrap()
}

fn text() -> BoxedStrategy<Text> {
    "[ -~äß\u{2a6d4}]{0,12}".prop_map(parsed).boxed()
}

fn name() -> BoxedStrategy<Text> {
    "[a-z/$ä]{1,12}".prop_map(parsed).boxed()
}

fn filter() -> BoxedStrategy<Text> {
    "([a-z]{1,3}|[+])(/([a-z]{0,3}|[+])){0,4}(/#)?".prop_map(parsed).boxed()
}

fn binary() -> BoxedStrategy<Binary> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| Binary::parse(Bytes::from(bytes)).unwrap()).boxed()
}

fn id() -> BoxedStrategy<PacketId> {
    any::<PacketId>().boxed()
}

fn qos() -> BoxedStrategy<QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]).boxed()
}

fn reason(kind: PacketKind, version: ProtocolVersion) -> BoxedStrategy<ReasonCode> {
    let sayable = |reason: &ReasonCode| match (version, kind) {
        (V5, _) => reason.allowed_in(kind),
        (_, PacketKind::ConnAck) => reason.return_code().and_then(ReasonCode::from_return_code) == Some(*reason),
        (_, PacketKind::SubAck) => reason.number() <= 2 || *reason == ReasonCode::UnspecifiedError,
        _ => *reason == ReasonCode::Success,
    };
    select(ReasonCode::ALL.iter().copied().filter(sayable).collect::<Vec<_>>()).boxed()
}

fn user() -> BoxedStrategy<Vec<(Text, Text)>> {
    vec((text(), text()), 0..4).boxed()
}

fn message_properties() -> BoxedStrategy<PropertySet> {
    (of(any::<bool>()), of(any::<u32>()), of(text()), of(name()), of(binary()), user())
        .prop_map(|(payload_is_text, message_expiry_s, content_type, response_topic, correlation_data, user)| PropertySet {
            payload_is_text,
            message_expiry_s,
            content_type,
            response_topic,
            correlation_data,
            user,
            ..PropertySet::default()
        })
        .boxed()
}

fn reason_properties() -> BoxedStrategy<PropertySet> {
    (of(text()), user()).prop_map(|(reason_string, user)| PropertySet { reason_string, user, ..PropertySet::default() }).boxed()
}

/// Those that CONNECT and CONNACK share.
fn limits() -> BoxedStrategy<PropertySet> {
    (of(any::<u32>()), of((text(), of(binary()))), of(any::<NonZeroU16>()), of(any::<u16>()), of(any::<NonZeroU32>()), user())
        .prop_map(|(session_expiry_s, authentication, receive_maximum, topic_alias_maximum, packet_bytes_max, user)| PropertySet {
            session_expiry_s,
            authentication_method: authentication.clone().map(|(method, _)| method),
            authentication_data: authentication.and_then(|(_, data)| data),
            receive_maximum,
            topic_alias_maximum,
            packet_bytes_max,
            user,
            ..PropertySet::default()
        })
        .boxed()
}

/// Only 5.0 has properties.
fn in_version(version: ProtocolVersion, set: BoxedStrategy<PropertySet>) -> BoxedStrategy<Properties> {
    if version == V5 { set.prop_map(Properties::from).boxed() } else { Just(Properties::default()).boxed() }
}

fn will(version: ProtocolVersion) -> BoxedStrategy<Will> {
    let properties = (message_properties(), of(any::<u32>()));
    let properties = properties.prop_map(|(set, will_delay_s)| PropertySet { will_delay_s, ..set }).boxed();
    (name(), binary(), qos(), any::<bool>(), in_version(version, properties))
        .prop_map(|(topic, payload, qos, retain, properties)| Will { topic, payload, qos, retain, properties })
        .boxed()
}

fn connect(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let asked = (limits(), of(any::<bool>()), of(any::<bool>()));
    let asked = asked.prop_map(|(set, problem, response)| PropertySet {
        request_problem_information: problem,
        request_response_information: response,
        ..set
    });
    let credentials = (of(text()), of(binary())).prop_map(move |(user_name, password)| match version {
        V5 => (user_name, password),
        _ => (user_name.clone(), password.filter(|_| user_name.is_some())),
    });
    let fields = (any::<bool>(), any::<bool>(), any::<u16>(), name());
    (fields, of(will(version)), credentials, in_version(version, asked.boxed()))
        .prop_map(move |((bridge, clean_start, keep_alive_s, client_id), will, (user_name, password), properties)| {
            let connect = Connect { version, bridge, clean_start, keep_alive_s, client_id, will, user_name, password, properties };
            Packet::Connect(Box::new(connect))
        })
        .boxed()
}

fn connack(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let flags = (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let texts = (of(text()), of(text()), of(text()), of(text()));
    let set = (limits(), texts, of(any::<u16>()), flags).prop_map(|(set, texts, server_keep_alive_s, flags)| PropertySet {
        assigned_client_id: texts.0,
        response_information: texts.1,
        server_reference: texts.2,
        reason_string: texts.3,
        server_keep_alive_s,
        maximum_qos: flags.0.map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
        retain_available: flags.1,
        wildcard_subscriptions_available: flags.2,
        subscription_identifiers_available: flags.3,
        shared_subscriptions_available: flags.4,
        ..set
    });
    (any::<bool>(), reason(PacketKind::ConnAck, version), in_version(version, set.boxed()))
        .prop_map(move |(present, reason, properties)| {
            let session_present = present && reason == ReasonCode::Success && version != V31;
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        })
        .boxed()
}

/// From a server; a client's PUBLISH has no subscription identifiers.
fn publish(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let identifiers = vec((1..=268_435_455u32).prop_map(|number| SubscriptionIdentifier::parse(number).unwrap()), 0..3);
    let set = (message_properties(), identifiers, of(any::<NonZeroU16>()));
    let set = set.prop_map(|(set, subscription_identifiers, topic_alias)| PropertySet { subscription_identifiers, topic_alias, ..set });
    let fields = (any::<bool>(), qos(), any::<bool>(), name(), any::<bool>(), id());
    (fields, in_version(version, set.boxed()), vec(any::<u8>(), 0..200))
        .prop_map(|((dup, qos, retain, topic, alias_alone, id), properties, payload)| {
            Packet::Publish(Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if alias_alone && properties.topic_alias.is_some() { Text::default() } else { topic },
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                properties,
                payload: Bytes::from(payload),
            })
        })
        .boxed()
}

fn step(kind: PacketKind, version: ProtocolVersion) -> BoxedStrategy<Packet> {
    (id(), reason(kind, version), in_version(version, reason_properties()))
        .prop_map(move |(packet_id, reason, properties)| {
            let step = Acknowledgement { packet_id, reason, properties };
            match kind {
                PacketKind::PubAck => Packet::PubAck(step),
                PacketKind::PubRec => Packet::PubRec(step),
                PacketKind::PubRel => Packet::PubRel(step),
                _ => Packet::PubComp(step),
            }
        })
        .boxed()
}

fn options(version: ProtocolVersion) -> BoxedStrategy<SubscriptionOptions> {
    let handling = select(vec![RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never]);
    (qos(), any::<bool>(), any::<bool>(), handling)
        .prop_map(move |(qos, no_local, retain_as_published, retain_handling)| match version {
            V5 => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
            _ => SubscriptionOptions::of(qos),
        })
        .boxed()
}

fn subscribe(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let set = (of(1..=268_435_455u32), user()).prop_map(|(identifier, user)| PropertySet {
        subscription_identifiers: identifier.and_then(SubscriptionIdentifier::parse).into_iter().collect(),
        user,
        ..PropertySet::default()
    });
    let subscriptions = vec((filter(), options(version)).prop_map(|(filter, options)| Subscription { filter, options }), 1..5);
    (id(), in_version(version, set.boxed()), subscriptions)
        .prop_map(|(packet_id, properties, subscriptions)| Packet::Subscribe(Subscribe { packet_id, properties, subscriptions }))
        .boxed()
}

fn suback(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    (id(), in_version(version, reason_properties()), vec(reason(PacketKind::SubAck, version), 1..5))
        .prop_map(|(packet_id, properties, reasons)| Packet::SubAck(SubAck { packet_id, properties, reasons }))
        .boxed()
}

fn unsubscribe(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let set = user().prop_map(|user| PropertySet { user, ..PropertySet::default() }).boxed();
    (id(), in_version(version, set), vec(filter(), 1..5))
        .prop_map(|(packet_id, properties, filters)| Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }))
        .boxed()
}

fn unsuback(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    (id(), in_version(version, reason_properties()), vec(reason(PacketKind::UnsubAck, version), 1..5))
        .prop_map(move |(packet_id, properties, reasons)| {
            let reasons = if version == V5 { reasons } else { Vec::new() };
            Packet::UnsubAck(UnsubAck { packet_id, properties, reasons })
        })
        .boxed()
}

fn disconnect(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let set = (reason_properties(), of(any::<u32>()), of(text()));
    let set = set.prop_map(|(set, session_expiry_s, server_reference)| PropertySet { session_expiry_s, server_reference, ..set });
    (reason(PacketKind::Disconnect, version), in_version(version, set.boxed()))
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
        .boxed()
}

fn auth() -> BoxedStrategy<Packet> {
    let set = (reason_properties(), text(), of(binary()));
    let set = set.prop_map(|(set, method, data)| PropertySet { authentication_method: Some(method), authentication_data: data, ..set });
    (reason(PacketKind::Auth, V5), set).prop_map(|(reason, set)| Packet::Auth(Auth { reason, properties: set.into() })).boxed()
}

fn packet(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let mut kinds = vec![
        connect(version),
        connack(version),
        publish(version),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        disconnect(version),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
    ];
    kinds.extend([PacketKind::PubAck, PacketKind::PubRec, PacketKind::PubRel, PacketKind::PubComp].map(|kind| step(kind, version)));
    if version == V5 {
        kinds.push(auth());
    }
    proptest::strategy::Union::new(kinds).boxed()
}

fn versioned() -> BoxedStrategy<(ProtocolVersion, Packet)> {
    select(vec![V31, V311, V5]).prop_flat_map(|version| (Just(version), packet(version))).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_packet_comes_back((version, packet) in versioned()) {
        let mut wire = BytesMut::new();
        encode(&packet, &Receiver::of(version), &mut wire).unwrap();
        let mut head = BytesMut::new();
        encode_head(&packet, &Receiver::of(version), &mut head).unwrap();
        prop_assert_eq!(&wire[..head.len()], &head[..]);
        let from = if matches!(packet, Packet::Publish(_)) { Sender::Server } else { sender_of(packet.kind()) };
        prop_assert_eq!(read(&mut wire, version, from), Ok(Some(packet)));
        prop_assert!(wire.is_empty());
    }

    #[test]
    fn a_packet_fits_or_is_not_sent((version, packet) in versioned(), packet_bytes_max in 2..200u32, problem_information: bool) {
        let receiver = Receiver { version, packet_bytes_max, problem_information };
        let mut wire = BytesMut::new();
        match encode(&packet, &receiver, &mut wire) {
            Ok(()) => prop_assert!(wire.len() <= packet_bytes_max as usize),
            Err(_) => prop_assert!(wire.is_empty()),
        }
    }

    #[test]
    fn any_bytes_are_a_packet_or_refused(bytes in vec(any::<u8>(), 0..64)) {
        fuzz_decode(&bytes);
    }

    #[test]
    fn a_packet_with_changed_bytes_is_one_or_refused(
        (version, packet) in versioned(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut wire = BytesMut::new();
        encode(&packet, &Receiver::of(version), &mut wire).unwrap();
        for (at, value) in changes {
            let at = at.index(wire.len());
            wire[at] = value;
        }
        fuzz_decode(&wire);
    }
}
