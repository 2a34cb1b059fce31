//! PUBACK, PUBREC, PUBREL and PUBCOMP: the steps after a PUBLISH.

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, EncodeError};
use crate::codec::kind::PacketKind;
use crate::codec::place::{Place, packet_id_zero, wrong_reason};
use crate::codec::property::{Extras, Properties};
use crate::codec::qos::PacketId;
use crate::codec::reason::ReasonCode;
use crate::codec::sink::Sink;
use crate::codec::version::ProtocolVersion;

/// A step in the exchange of a message (MQTT 5.0 sections 3.4 to 3.7). Before 5.0 it is the identifier alone.
///
/// ```text
/// | packet id u16 | reason u8, if not success or with properties | properties, if there are any |
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    pub packet_id: PacketId,
    pub reason: ReasonCode,
    pub properties: Properties,
}

impl Acknowledgement {
    pub fn of(packet_id: PacketId, reason: ReasonCode) -> Acknowledgement {
        Acknowledgement { packet_id, reason, properties: Properties::default() }
    }

    pub fn read(cursor: &mut Cursor, kind: PacketKind, version: ProtocolVersion) -> Result<Acknowledgement, DecodeError> {
        let packet_id = PacketId::new(cursor.u16()?).ok_or(packet_id_zero(kind))?;
        if cursor.is_empty() || !version.has_properties() {
            return Ok(Acknowledgement::of(packet_id, ReasonCode::Success));
        }
        let reason = ReasonCode::from_number(cursor.u8()?).filter(|reason| reason.allowed_in(kind)).ok_or(wrong_reason(kind))?;
        let properties = if cursor.is_empty() { Properties::default() } else { Properties::read(cursor, Place::Packet(kind))? };
        Ok(Acknowledgement { packet_id, reason, properties })
    }

    /// Before 5.0 a message cannot be refused; PUBREL and PUBCOMP that name a failure only lose it.
    pub fn check(&self, kind: PacketKind, version: ProtocolVersion) -> Result<(), EncodeError> {
        let refuses = self.reason.is_failure() && matches!(kind, PacketKind::PubAck | PacketKind::PubRec);
        let sayable = if version.has_properties() { self.reason.allowed_in(kind) } else { !refuses };
        if sayable { Ok(()) } else { Err(EncodeError::NotInVersion) }
    }

    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion, extras: Extras) {
        sink.u16(self.packet_id.get());
        if !version.has_properties() {
            return;
        }
        let plain = self.properties.list_bytes(extras) == 0;
        if !plain || self.reason != ReasonCode::Success {
            sink.u8(self.reason.number());
        }
        if !plain {
            self.properties.write(sink, extras);
        }
    }
}
