//! SUBSCRIBE, UNSUBSCRIBE and their answers.

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, EncodeError, malformed, protocol_error};
use crate::codec::kind::PacketKind;
use crate::codec::place::{Place, packet_id_zero, wrong_reason};
use crate::codec::property::{Extras, Properties};
use crate::codec::qos::{PacketId, QoS};
use crate::codec::reason::ReasonCode;
use crate::codec::sink::Sink;
use crate::codec::text::Text;
use crate::codec::topic::{check_topic_filter, shared_parts};
use crate::codec::version::ProtocolVersion;

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u32 = 4;
const RESERVED: u8 = 0xc0;

/// Asks for messages (MQTT 5.0 section 3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// At least one.
    pub subscriptions: Vec<Subscription>,
}

/// A filter, and how what matches it is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub filter: Text,
    pub options: SubscriptionOptions,
}

/// One byte behind each filter (section 3.8.3.1). Before 5.0 it is the QoS alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainHandling {
    Always = 0,
    IfNew = 1,
    Never = 2,
}

/// Answers each subscription, in order (section 3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// The QoS granted, or a failure. In 3.1.1 every failure is 0x80, which reads as unspecified error.
    pub reasons: Vec<ReasonCode>,
}

/// Ends subscriptions (section 3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<Text>,
}

/// Answers each filter of an UNSUBSCRIBE, in order (section 3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    pub packet_id: PacketId,
    pub properties: Properties,
    /// Before 5.0 not said, and read as none.
    pub reasons: Vec<ReasonCode>,
}

impl SubscriptionOptions {
    /// What MQTT 3.1.1 means by a subscription of this QoS.
    pub fn of(qos: QoS) -> SubscriptionOptions {
        SubscriptionOptions { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Always }
    }

    fn parse(byte: u8, version: ProtocolVersion) -> Result<SubscriptionOptions, DecodeError> {
        let Some(qos) = QoS::from_number(byte & 3) else {
            return Err(malformed("5.0 section 3.8.3.1", "the QoS of a subscription is 3"));
        };
        match version {
            ProtocolVersion::V31 => return Ok(SubscriptionOptions::of(qos)), // The other bits are unused there.
            ProtocolVersion::V311 if byte & !3 != 0 => {
                return Err(malformed("3.1.1 MQTT-3-8.3-4", "a reserved bit of a subscription is set"));
            }
            ProtocolVersion::V311 => return Ok(SubscriptionOptions::of(qos)),
            ProtocolVersion::V5 => {}
        }
        if byte & RESERVED != 0 {
            return Err(malformed("MQTT-3.8.3-5", "a reserved bit of a subscription is set"));
        }
        let retain_handling = match byte >> RETAIN_HANDLING_SHIFT & 3 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(malformed("5.0 section 3.8.3.1", "the retain handling of a subscription is 3")),
        };
        let (no_local, retain_as_published) = (byte & NO_LOCAL != 0, byte & RETAIN_AS_PUBLISHED != 0);
        Ok(SubscriptionOptions { qos, no_local, retain_as_published, retain_handling })
    }

    fn byte(self, version: ProtocolVersion) -> u8 {
        if !version.has_properties() {
            return self.qos.number();
        }
        let no_local = if self.no_local { NO_LOCAL } else { 0 };
        let as_published = if self.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        self.qos.number() | no_local | as_published | (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT
    }
}

impl Subscribe {
    pub fn read(cursor: &mut Cursor, version: ProtocolVersion) -> Result<Subscribe, DecodeError> {
        let (packet_id, properties) = read_head(cursor, PacketKind::Subscribe, version)?;
        if cursor.is_empty() {
            return Err(malformed("MQTT-3.8.3-2", "a SUBSCRIBE has no subscription"));
        }
        let mut subscriptions = Vec::new();
        while !cursor.is_empty() {
            let filter = cursor.text()?;
            check_topic_filter(&filter)?;
            let options = SubscriptionOptions::parse(cursor.u8()?, version)?;
            // One that is shared by name only is refused in SUBACK.
            if version.has_properties() && matches!(shared_parts(&filter), Ok(Some(_))) && options.no_local {
                return Err(protocol_error("MQTT-3.8.3-4", "a shared subscription is no-local"));
            }
            subscriptions.push(Subscription { filter, options });
        }
        Ok(Subscribe { packet_id, properties, subscriptions })
    }

    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion) {
        write_head(sink, self.packet_id, &self.properties, version, Extras::All);
        for subscription in &self.subscriptions {
            sink.text(&subscription.filter);
            sink.u8(subscription.options.byte(version));
        }
    }
}

impl SubAck {
    pub fn read(cursor: &mut Cursor, version: ProtocolVersion) -> Result<SubAck, DecodeError> {
        let (packet_id, properties) = read_head(cursor, PacketKind::SubAck, version)?;
        let reasons = read_reasons(cursor, PacketKind::SubAck)?;
        let old = |reason: &ReasonCode| !reason.is_failure() || *reason == ReasonCode::UnspecifiedError;
        if !version.has_properties() && !reasons.iter().all(old) {
            return Err(malformed("3.1.1 MQTT-3.9.3-2", "a return code of SUBACK is reserved"));
        }
        Ok(SubAck { packet_id, properties, reasons })
    }

    pub fn check(&self) -> Result<(), EncodeError> {
        check_reasons(&self.reasons, PacketKind::SubAck)
    }

    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion, extras: Extras) {
        write_head(sink, self.packet_id, &self.properties, version, extras);
        for reason in &self.reasons {
            sink.u8(reason.in_suback(version));
        }
    }
}

impl Unsubscribe {
    pub fn read(cursor: &mut Cursor, version: ProtocolVersion) -> Result<Unsubscribe, DecodeError> {
        let (packet_id, properties) = read_head(cursor, PacketKind::Unsubscribe, version)?;
        if cursor.is_empty() {
            return Err(malformed("MQTT-3.10.3-2", "an UNSUBSCRIBE has no filter"));
        }
        let mut filters = Vec::new();
        while !cursor.is_empty() {
            let filter = cursor.text()?;
            check_topic_filter(&filter)?;
            filters.push(filter);
        }
        Ok(Unsubscribe { packet_id, properties, filters })
    }

    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion) {
        write_head(sink, self.packet_id, &self.properties, version, Extras::All);
        for filter in &self.filters {
            sink.text(filter);
        }
    }
}

impl UnsubAck {
    pub fn read(cursor: &mut Cursor, version: ProtocolVersion) -> Result<UnsubAck, DecodeError> {
        let (packet_id, properties) = read_head(cursor, PacketKind::UnsubAck, version)?;
        let reasons = if version.has_properties() { read_reasons(cursor, PacketKind::UnsubAck)? } else { Vec::new() };
        Ok(UnsubAck { packet_id, properties, reasons })
    }

    pub fn check(&self) -> Result<(), EncodeError> {
        check_reasons(&self.reasons, PacketKind::UnsubAck)
    }

    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion, extras: Extras) {
        write_head(sink, self.packet_id, &self.properties, version, extras);
        for reason in self.reasons.iter().filter(|_| version.has_properties()) {
            sink.u8(reason.number());
        }
    }
}

fn read_head(cursor: &mut Cursor, kind: PacketKind, version: ProtocolVersion) -> Result<(PacketId, Properties), DecodeError> {
    let packet_id = PacketId::new(cursor.u16()?).ok_or(packet_id_zero(kind))?;
    let properties = if version.has_properties() { Properties::read(cursor, Place::Packet(kind))? } else { Properties::default() };
    Ok((packet_id, properties))
}

fn write_head<S: Sink>(sink: &mut S, packet_id: PacketId, properties: &Properties, version: ProtocolVersion, extras: Extras) {
    sink.u16(packet_id.get());
    if version.has_properties() {
        properties.write(sink, extras);
    }
}

fn read_reasons(cursor: &mut Cursor, kind: PacketKind) -> Result<Vec<ReasonCode>, DecodeError> {
    let numbers = cursor.take_rest();
    if numbers.is_empty() {
        return Err(malformed("5.0 section 3.9.3", "an acknowledgement of subscriptions has no reason code"));
    }
    let reason = |number: &u8| ReasonCode::from_number(*number).filter(|reason| reason.allowed_in(kind)).ok_or(wrong_reason(kind));
    numbers.iter().map(reason).collect()
}

fn check_reasons(reasons: &[ReasonCode], kind: PacketKind) -> Result<(), EncodeError> {
    if reasons.iter().all(|reason| reason.allowed_in(kind)) { Ok(()) } else { Err(EncodeError::NotInVersion) }
}
