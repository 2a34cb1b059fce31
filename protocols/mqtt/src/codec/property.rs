//! Properties: what 5.0 packets carry besides their fields.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::Deref;
use std::sync::LazyLock;

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, malformed, protocol_error};
use crate::codec::kind::PacketKind;
use crate::codec::place::Place;
use crate::codec::qos::QoS;
use crate::codec::reason::ReasonCode;
use crate::codec::sink::{Count, Sink, VARIABLE_MAX};
use crate::codec::text::{Binary, Text};
use crate::codec::topic::check_topic_name;

/// Names a subscription to its client: 1 to 268,435,455 (MQTT 5.0 section 3.8.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionIdentifier(NonZeroU32);

impl SubscriptionIdentifier {
    pub fn parse(number: u32) -> Option<SubscriptionIdentifier> {
        NonZeroU32::new(number).filter(|number| number.get() <= VARIABLE_MAX).map(SubscriptionIdentifier)
    }

    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// The properties of a packet. Most packets have none, and then this is one pointer; what is read through it is then all `None`.
#[derive(Debug, Clone, Default)]
pub struct Properties(Option<Box<PropertySet>>);

/// Every property of MQTT 5.0 (table 2-4). Which packet may have which: [`PropertySet::read`] knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PropertySet {
    /// 0x01: the payload is UTF-8.
    pub payload_is_text: Option<bool>,
    /// 0x02
    pub message_expiry_s: Option<u32>,
    /// 0x03
    pub content_type: Option<Text>,
    /// 0x08
    pub response_topic: Option<Text>,
    /// 0x09
    pub correlation_data: Option<Binary>,
    /// 0x0B: one in SUBSCRIBE, in PUBLISH one for each subscription that matched.
    pub subscription_identifiers: Vec<SubscriptionIdentifier>,
    /// 0x11: 0xFFFFFFFF is never.
    pub session_expiry_s: Option<u32>,
    /// 0x12
    pub assigned_client_id: Option<Text>,
    /// 0x13
    pub server_keep_alive_s: Option<u16>,
    /// 0x15
    pub authentication_method: Option<Text>,
    /// 0x16
    pub authentication_data: Option<Binary>,
    /// 0x17: absent is true.
    pub request_problem_information: Option<bool>,
    /// 0x18
    pub will_delay_s: Option<u32>,
    /// 0x19: absent is false.
    pub request_response_information: Option<bool>,
    /// 0x1A
    pub response_information: Option<Text>,
    /// 0x1C
    pub server_reference: Option<Text>,
    /// 0x1F
    pub reason_string: Option<Text>,
    /// 0x21: absent is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// 0x22: absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// 0x23
    pub topic_alias: Option<NonZeroU16>,
    /// 0x24: 0 or 1; absent is 2, which is not written.
    pub maximum_qos: Option<QoS>,
    /// 0x25: absent is true, as for the three that follow.
    pub retain_available: Option<bool>,
    /// 0x27: absent is no limit.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// 0x28
    pub wildcard_subscriptions_available: Option<bool>,
    /// 0x29
    pub subscription_identifiers_available: Option<bool>,
    /// 0x2A
    pub shared_subscriptions_available: Option<bool>,
    /// 0x26: in order, and names may repeat ([MQTT-3.3.2-18]).
    pub user: Vec<(Text, Text)>,
}

impl Properties {
    /// For changing them.
    pub fn edit(&mut self) -> &mut PropertySet {
        self.0.get_or_insert_default()
    }
}

impl From<PropertySet> for Properties {
    fn from(set: PropertySet) -> Properties {
        Properties(Some(Box::new(set)))
    }
}

impl Deref for Properties {
    type Target = PropertySet;

    fn deref(&self) -> &PropertySet {
        static NONE: LazyLock<PropertySet> = LazyLock::new(PropertySet::default);
        match &self.0 {
            Some(set) => set,
            None => &NONE,
        }
    }
}

impl PartialEq for Properties {
    fn eq(&self, other: &Properties) -> bool {
        **self == **other
    }
}

impl Eq for Properties {}

/// What may be left out of a packet that would be too large for its receiver ([MQTT-3.4.2-2] and its likes in other packets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    All,
    ReasonOnly,
    None,
}

impl Properties {
    /// The list as it is written, without its length.
    pub fn list_bytes(&self, extras: Extras) -> usize {
        let Some(set) = &self.0 else { return 0 };
        let mut count = Count::default();
        set.write(&mut count, extras);
        count.0
    }

    /// Length and list.
    pub fn write<S: Sink>(&self, sink: &mut S, extras: Extras) {
        // A list longer than four bytes can say makes the packet too large as well, and the count of the packet finds that.
        sink.variable(u32::try_from(self.list_bytes(extras)).unwrap_or(u32::MAX));
        if let Some(set) = &self.0 {
            set.write(sink, extras);
        }
    }

    /// Reads length and list.
    ///
    /// # Errors
    /// Section 2.2.2: a list beyond the packet's end, an unknown property, one of another packet, one that stands twice, a value outside
    /// its range.
    pub fn read(cursor: &mut Cursor, place: Place) -> Result<Properties, DecodeError> {
        let length = usize::try_from(cursor.variable()?).expect("28 bits fit");
        let mut list = Cursor::over(cursor.take(length)?);
        if list.is_empty() {
            return Ok(Properties::default());
        }
        let mut set = Box::new(PropertySet::default());
        while !list.is_empty() {
            set.read(&mut list, place)?;
        }
        if set.authentication_data.is_some() && set.authentication_method.is_none() {
            return Err(protocol_error("5.0 section 3.1.2.11.10", "authentication data without an authentication method"));
        }
        Ok(Properties(Some(set)))
    }
}

/// The places in which a property may stand (table 2-4); 0 if there is no such property.
fn places(number: u32) -> u16 {
    const CONNECT: u16 = Place::Packet(PacketKind::Connect).bit();
    const CONNACK: u16 = Place::Packet(PacketKind::ConnAck).bit();
    const PUBLISH: u16 = Place::Packet(PacketKind::Publish).bit();
    const SUBSCRIBE: u16 = Place::Packet(PacketKind::Subscribe).bit();
    const DISCONNECT: u16 = Place::Packet(PacketKind::Disconnect).bit();
    const AUTH: u16 = Place::Packet(PacketKind::Auth).bit();
    const WILL: u16 = Place::Will.bit();
    const ACKNOWLEDGEMENTS: u16 = Place::Packet(PacketKind::PubAck).bit()
        | Place::Packet(PacketKind::PubRec).bit()
        | Place::Packet(PacketKind::PubRel).bit()
        | Place::Packet(PacketKind::PubComp).bit()
        | Place::Packet(PacketKind::SubAck).bit()
        | Place::Packet(PacketKind::UnsubAck).bit();
    match number {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => PUBLISH | WILL,
        0x0B => PUBLISH | SUBSCRIBE,
        0x11 => CONNECT | CONNACK | DISCONNECT,
        0x15 | 0x16 => CONNECT | CONNACK | AUTH,
        0x17 | 0x19 => CONNECT,
        0x18 => WILL,
        0x1C => CONNACK | DISCONNECT,
        0x1F => CONNACK | ACKNOWLEDGEMENTS | DISCONNECT | AUTH,
        0x21 | 0x22 | 0x27 => CONNECT | CONNACK,
        0x23 => PUBLISH,
        0x12 | 0x13 | 0x1A | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => CONNACK,
        0x26 => u16::MAX,
        _ => 0,
    }
}

impl PropertySet {
    /// Reads one property. Its value is read before its place is judged: bytes that cannot be read are the worse fault.
    fn read(&mut self, list: &mut Cursor, place: Place) -> Result<(), DecodeError> {
        let number = list.variable()?;
        match number {
            0x01 => once(&mut self.payload_is_text, flag(list.u8()?))?,
            0x02 => once(&mut self.message_expiry_s, Ok(list.u32()?))?,
            0x03 => once(&mut self.content_type, Ok(list.text()?))?,
            0x08 => once(&mut self.response_topic, response_topic(list.text()?))?,
            0x09 => once(&mut self.correlation_data, Ok(list.binary()?))?,
            0x0B => self.add_subscription_identifier(list.variable()?, place)?,
            0x11 => once(&mut self.session_expiry_s, Ok(list.u32()?))?,
            0x12 => once(&mut self.assigned_client_id, Ok(list.text()?))?,
            0x13 => once(&mut self.server_keep_alive_s, Ok(list.u16()?))?,
            0x15 => once(&mut self.authentication_method, Ok(list.text()?))?,
            0x16 => once(&mut self.authentication_data, Ok(list.binary()?))?,
            0x17 => once(&mut self.request_problem_information, flag(list.u8()?))?,
            0x18 => once(&mut self.will_delay_s, Ok(list.u32()?))?,
            0x19 => once(&mut self.request_response_information, flag(list.u8()?))?,
            0x1A => once(&mut self.response_information, Ok(list.text()?))?,
            0x1C => once(&mut self.server_reference, Ok(list.text()?))?,
            0x1F => once(&mut self.reason_string, Ok(list.text()?))?,
            0x21 => once(&mut self.receive_maximum, above_zero(NonZeroU16::new(list.u16()?)))?,
            0x22 => once(&mut self.topic_alias_maximum, Ok(list.u16()?))?,
            0x23 => once(&mut self.topic_alias, topic_alias(list.u16()?))?,
            0x24 => once(&mut self.maximum_qos, maximum_qos(list.u8()?))?,
            0x25 => once(&mut self.retain_available, flag(list.u8()?))?,
            0x26 => self.user.push((list.text()?, list.text()?)),
            0x27 => once(&mut self.packet_bytes_max, above_zero(NonZeroU32::new(list.u32()?)))?,
            0x28 => once(&mut self.wildcard_subscriptions_available, flag(list.u8()?))?,
            0x29 => once(&mut self.subscription_identifiers_available, flag(list.u8()?))?,
            0x2A => once(&mut self.shared_subscriptions_available, flag(list.u8()?))?,
            _ => return Err(malformed("5.0 section 2.2.2.2", "there is no such property")),
        }
        if places(number) & place.bit() == 0 {
            return Err(place.foreign_property());
        }
        Ok(())
    }

    fn add_subscription_identifier(&mut self, number: u32, place: Place) -> Result<(), DecodeError> {
        let Some(identifier) = SubscriptionIdentifier::parse(number) else {
            return Err(protocol_error("5.0 section 3.8.2.1.2", "a subscription identifier is zero"));
        };
        if !self.subscription_identifiers.is_empty() && place != Place::Packet(PacketKind::Publish) {
            return Err(twice());
        }
        self.subscription_identifiers.push(identifier);
        Ok(())
    }

    /// The list, in the order of the table but for some of CONNACK that brokers write in another.
    fn write<S: Sink>(&self, sink: &mut S, extras: Extras) {
        byte(sink, 0x01, self.payload_is_text.map(u8::from));
        four(sink, 0x02, self.message_expiry_s);
        text(sink, 0x03, &self.content_type);
        text(sink, 0x08, &self.response_topic);
        binary(sink, 0x09, &self.correlation_data);
        for identifier in &self.subscription_identifiers {
            sink.u8(0x0B);
            sink.variable(identifier.get());
        }
        four(sink, 0x11, self.session_expiry_s);
        two(sink, 0x13, self.server_keep_alive_s);
        text(sink, 0x15, &self.authentication_method);
        binary(sink, 0x16, &self.authentication_data);
        byte(sink, 0x17, self.request_problem_information.map(u8::from));
        four(sink, 0x18, self.will_delay_s);
        byte(sink, 0x19, self.request_response_information.map(u8::from));
        text(sink, 0x1A, &self.response_information);
        text(sink, 0x1C, &self.server_reference);
        if extras != Extras::None {
            text(sink, 0x1F, &self.reason_string);
        }
        two(sink, 0x22, self.topic_alias_maximum);
        text(sink, 0x12, &self.assigned_client_id);
        four(sink, 0x27, self.packet_bytes_max.map(NonZeroU32::get));
        two(sink, 0x21, self.receive_maximum.map(NonZeroU16::get));
        two(sink, 0x23, self.topic_alias.map(NonZeroU16::get));
        byte(sink, 0x24, self.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce).map(QoS::number));
        byte(sink, 0x25, self.retain_available.map(u8::from));
        byte(sink, 0x28, self.wildcard_subscriptions_available.map(u8::from));
        byte(sink, 0x29, self.subscription_identifiers_available.map(u8::from));
        byte(sink, 0x2A, self.shared_subscriptions_available.map(u8::from));
        if extras == Extras::All {
            for (name, value) in &self.user {
                sink.u8(0x26);
                sink.text(name);
                sink.text(value);
            }
        }
    }
}

fn twice() -> DecodeError {
    protocol_error("5.0 section 2.2.2.2", "a property stands twice")
}

fn once<T>(slot: &mut Option<T>, value: Result<T, DecodeError>) -> Result<(), DecodeError> {
    match slot.replace(value?) {
        None => Ok(()),
        Some(_) => Err(twice()),
    }
}

fn flag(byte: u8) -> Result<bool, DecodeError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(protocol_error("5.0 section 2.2.2.2", "a property that is 0 or 1 is neither")),
    }
}

fn above_zero<T>(value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(protocol_error("5.0 section 3.1.2.11", "a receive maximum or maximum packet size is zero"))
}

fn topic_alias(number: u16) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(number).ok_or(protocol_error("MQTT-3.3.2-8", "a topic alias is zero").because(ReasonCode::TopicAliasInvalid))
}

fn maximum_qos(byte: u8) -> Result<QoS, DecodeError> {
    let qos = QoS::from_number(byte).filter(|qos| *qos != QoS::ExactlyOnce);
    qos.ok_or(protocol_error("5.0 section 3.2.2.3.4", "a maximum QoS is neither 0 nor 1"))
}

fn response_topic(name: Text) -> Result<Text, DecodeError> {
    if name.is_empty() || check_topic_name(&name).is_err() {
        return Err(protocol_error("MQTT-3.3.2-14", "a response topic is no topic name"));
    }
    Ok(name)
}

fn byte<S: Sink>(sink: &mut S, number: u8, value: Option<u8>) {
    if let Some(value) = value {
        sink.u8(number);
        sink.u8(value);
    }
}

fn two<S: Sink>(sink: &mut S, number: u8, value: Option<u16>) {
    if let Some(value) = value {
        sink.u8(number);
        sink.u16(value);
    }
}

fn four<S: Sink>(sink: &mut S, number: u8, value: Option<u32>) {
    if let Some(value) = value {
        sink.u8(number);
        sink.u32(value);
    }
}

fn text<S: Sink>(sink: &mut S, number: u8, value: &Option<Text>) {
    if let Some(value) = value {
        sink.u8(number);
        sink.text(value);
    }
}

fn binary<S: Sink>(sink: &mut S, number: u8, value: &Option<Binary>) {
    if let Some(value) = value {
        sink.u8(number);
        sink.binary(value);
    }
}
