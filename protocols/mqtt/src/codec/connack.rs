//! CONNACK: the answer to CONNECT.

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, EncodeError, malformed};
use crate::codec::kind::PacketKind;
use crate::codec::place::{Place, wrong_reason};
use crate::codec::property::{Extras, Properties};
use crate::codec::reason::ReasonCode;
use crate::codec::sink::Sink;
use crate::codec::version::ProtocolVersion;

/// Whether a client is connected, and to what (MQTT 5.0 section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Does not exist in 3.1, where it reads as false.
    pub session_present: bool,
    pub reason: ReasonCode,
    pub properties: Properties,
}

impl ConnAck {
    pub fn read(cursor: &mut Cursor, version: ProtocolVersion) -> Result<ConnAck, DecodeError> {
        let (flags, number) = (cursor.u8()?, cursor.u8()?);
        if version != ProtocolVersion::V31 && flags & !1 != 0 {
            return Err(malformed("MQTT-3.2.2-1", "a reserved flag of CONNACK is set"));
        }
        let session_present = version != ProtocolVersion::V31 && flags == 1;
        let (reason, properties) = if version.has_properties() {
            let reason = ReasonCode::from_number(number).filter(|reason| reason.allowed_in(PacketKind::ConnAck));
            (reason, Properties::read(cursor, Place::Packet(PacketKind::ConnAck))?)
        } else {
            (ReasonCode::from_return_code(number), Properties::default())
        };
        let reason = reason.ok_or(wrong_reason(PacketKind::ConnAck))?;
        if session_present && reason != ReasonCode::Success {
            return Err(malformed("MQTT-3.2.2-6", "a refusal with a session"));
        }
        Ok(ConnAck { session_present, reason, properties })
    }

    /// Whether `version` has a number for the reason.
    pub fn check(&self, version: ProtocolVersion) -> Result<(), EncodeError> {
        let sayable =
            if version.has_properties() { self.reason.allowed_in(PacketKind::ConnAck) } else { self.reason.return_code().is_some() };
        if sayable { Ok(()) } else { Err(EncodeError::NotInVersion) }
    }

    /// Writes a packet that [`ConnAck::check`] passed.
    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion, extras: Extras) {
        let present = self.session_present && version != ProtocolVersion::V31 && self.reason == ReasonCode::Success;
        sink.u8(u8::from(present));
        if version.has_properties() {
            sink.u8(self.reason.number());
            self.properties.write(sink, extras);
        } else {
            sink.u8(self.reason.return_code().unwrap_or_default());
        }
    }
}
