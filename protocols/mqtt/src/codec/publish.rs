//! PUBLISH: a message on its way.

use bytes::Bytes;

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, EncodeError, malformed, protocol_error};
use crate::codec::kind::{PacketKind, Sender};
use crate::codec::place::{Place, packet_id_zero};
use crate::codec::property::{Extras, Properties};
use crate::codec::qos::{PacketId, QoS};
use crate::codec::sink::Sink;
use crate::codec::text::Text;
use crate::codec::topic::check_topic_name;
use crate::codec::version::ProtocolVersion;

const RETAIN: u8 = 0x01;
const QOS_SHIFT: u32 = 1;
const DUP: u8 = 0x08;

/// A message (MQTT 5.0 section 3.3).
///
/// ```text
/// | topic u16+n | packet id u16 (QoS above 0) | properties (5.0) | payload, to the end |
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Empty only where a topic alias stands for it.
    pub topic: Text,
    /// If and only if the QoS is above 0.
    pub packet_id: Option<PacketId>,
    pub properties: Properties,
    pub payload: Bytes,
}

impl Publish {
    pub fn read(cursor: &mut Cursor, flags: u8, version: ProtocolVersion, from: Sender) -> Result<Publish, DecodeError> {
        let Some(qos) = QoS::from_number(flags >> QOS_SHIFT & 3) else {
            return Err(malformed("MQTT-3.3.1-4", "the QoS of a PUBLISH is 3"));
        };
        let dup = flags & DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(malformed("MQTT-3.3.1-2", "the DUP flag of a PUBLISH of QoS 0 is set"));
        }
        let topic = cursor.text()?;
        check_topic_name(&topic)?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => Some(PacketId::new(cursor.u16()?).ok_or(packet_id_zero(PacketKind::Publish))?),
        };
        let properties =
            if version.has_properties() { Properties::read(cursor, Place::Packet(PacketKind::Publish))? } else { Properties::default() };
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(malformed("MQTT-4.7.3-1", "a topic name is empty and has no topic alias"));
        }
        if from == Sender::Client && !properties.subscription_identifiers.is_empty() {
            return Err(protocol_error("MQTT-3.3.4-6", "a client's PUBLISH has a subscription identifier"));
        }
        Ok(Publish { dup, qos, retain: flags & RETAIN != 0, topic, packet_id, properties, payload: cursor.take_rest() })
    }

    /// The flags of its fixed header.
    pub fn flags(&self) -> u8 {
        let dup = if self.dup && self.qos != QoS::AtMostOnce { DUP } else { 0 };
        dup | self.qos.number() << QOS_SHIFT | if self.retain { RETAIN } else { 0 }
    }

    pub fn check(&self) -> Result<(), EncodeError> {
        if self.packet_id.is_some() == (self.qos != QoS::AtMostOnce) { Ok(()) } else { Err(EncodeError::PacketId) }
    }

    /// Everything before the payload.
    pub fn write_head<S: Sink>(&self, sink: &mut S, version: ProtocolVersion) {
        sink.text(&self.topic);
        if let Some(packet_id) = self.packet_id {
            sink.u16(packet_id.get());
        }
        if version.has_properties() {
            self.properties.write(sink, Extras::All);
        }
    }
}
