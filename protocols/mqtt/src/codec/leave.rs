//! DISCONNECT and AUTH: a reason with properties, and nothing else.

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, EncodeError, protocol_error};
use crate::codec::kind::{PacketKind, Sender};
use crate::codec::place::{Place, wrong_reason};
use crate::codec::property::{Extras, Properties};
use crate::codec::reason::ReasonCode;
use crate::codec::sink::Sink;
use crate::codec::version::ProtocolVersion;

/// The last packet of a connection (MQTT 5.0 section 3.14). Before 5.0 only a client sends it, and it says nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: ReasonCode,
    pub properties: Properties,
}

/// A step of enhanced authentication (MQTT 5.0 section 3.15). Does not exist before 5.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    pub reason: ReasonCode,
    pub properties: Properties,
}

impl Disconnect {
    pub fn because(reason: ReasonCode) -> Disconnect {
        Disconnect { reason, properties: Properties::default() }
    }

    pub fn read(cursor: &mut Cursor, version: ProtocolVersion, from: Sender) -> Result<Disconnect, DecodeError> {
        if !version.has_properties() {
            return Ok(Disconnect::because(ReasonCode::Success));
        }
        let (reason, properties) = read_body(cursor, PacketKind::Disconnect)?;
        if from == Sender::Server && properties.session_expiry_s.is_some() {
            return Err(protocol_error("MQTT-3.14.2-2", "a server's DISCONNECT has a session expiry interval"));
        }
        if from == Sender::Server && reason == ReasonCode::DisconnectWithWill {
            return Err(wrong_reason(PacketKind::Disconnect));
        }
        Ok(Disconnect { reason, properties })
    }

    pub fn check(&self, version: ProtocolVersion) -> Result<(), EncodeError> {
        let sayable = !version.has_properties() || self.reason.allowed_in(PacketKind::Disconnect);
        if sayable { Ok(()) } else { Err(EncodeError::NotInVersion) }
    }

    pub fn write<S: Sink>(&self, sink: &mut S, version: ProtocolVersion, extras: Extras) {
        if version.has_properties() {
            write_body(sink, self.reason, &self.properties, extras);
        }
    }
}

impl Auth {
    pub fn read(cursor: &mut Cursor) -> Result<Auth, DecodeError> {
        let whole = !cursor.is_empty();
        let (reason, properties) = read_body(cursor, PacketKind::Auth)?;
        if whole && properties.authentication_method.is_none() {
            return Err(protocol_error("5.0 section 3.15.2.2.2", "an AUTH has no authentication method"));
        }
        Ok(Auth { reason, properties })
    }

    pub fn check(&self, version: ProtocolVersion) -> Result<(), EncodeError> {
        let sayable = version.has_properties() && self.reason.allowed_in(PacketKind::Auth);
        if sayable { Ok(()) } else { Err(EncodeError::NotInVersion) }
    }

    pub fn write<S: Sink>(&self, sink: &mut S, extras: Extras) {
        write_body(sink, self.reason, &self.properties, extras);
    }
}

/// Both may be left out, from the end (sections 3.14.2.1 and 3.15.2.1).
fn read_body(cursor: &mut Cursor, kind: PacketKind) -> Result<(ReasonCode, Properties), DecodeError> {
    if cursor.is_empty() {
        return Ok((ReasonCode::Success, Properties::default()));
    }
    let reason = ReasonCode::from_number(cursor.u8()?).filter(|reason| reason.allowed_in(kind)).ok_or(wrong_reason(kind))?;
    let properties = if cursor.is_empty() { Properties::default() } else { Properties::read(cursor, Place::Packet(kind))? };
    Ok((reason, properties))
}

fn write_body<S: Sink>(sink: &mut S, reason: ReasonCode, properties: &Properties, extras: Extras) {
    let plain = properties.list_bytes(extras) == 0;
    if !plain || reason != ReasonCode::Success {
        sink.u8(reason.number());
    }
    if !plain {
        properties.write(sink, extras);
    }
}
