//! Where properties stand, and which fault is which.
//!
//! The standard calls some faults malformed (0x81) and some protocol errors (0x82), and leaves the choice open for others. Where clients
//! have come to know one of the two, that one is answered; these choices are all here.

use crate::codec::fault::{DecodeError, malformed, protocol_error};
use crate::codec::kind::PacketKind;

/// A list of properties: those of a packet, or those of the will in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Packet(PacketKind),
    Will,
}

impl Place {
    /// One bit for each place, for the table of properties.
    pub const fn bit(self) -> u16 {
        match self {
            Place::Will => 1,
            Place::Packet(kind) => 1 << (kind as u16),
        }
    }

    /// A property that this place does not have (section 2.2.2.2: malformed).
    pub fn foreign_property(self) -> DecodeError {
        let text = "a property is not allowed in this packet";
        match self {
            Place::Packet(PacketKind::Subscribe | PacketKind::Unsubscribe) => malformed("5.0 section 2.2.2.2", text),
            _ => protocol_error("5.0 section 2.2.2.2", text),
        }
    }
}

/// Flags of the fixed header that the packet does not have ([MQTT-2.1.3-1]).
pub fn wrong_flags(kind: PacketKind) -> DecodeError {
    let text = "the flags of the fixed header are not those of the packet";
    match kind {
        PacketKind::ConnAck => protocol_error("MQTT-2.1.3-1", text),
        PacketKind::PubRel => protocol_error("MQTT-3.6.1-1", text),
        PacketKind::Subscribe => malformed("MQTT-3.8.1-1", text),
        PacketKind::Unsubscribe => malformed("MQTT-3.10.1-1", text),
        PacketKind::Disconnect => protocol_error("MQTT-3.14.1-1", text),
        PacketKind::Auth => protocol_error("MQTT-3.15.1-1", text),
        _ => malformed("MQTT-2.1.3-1", text),
    }
}

/// The packet identifier 0 ([MQTT-2.2.1-3]).
pub fn packet_id_zero(kind: PacketKind) -> DecodeError {
    let text = "a packet identifier is zero";
    match kind {
        PacketKind::Subscribe | PacketKind::Unsubscribe => malformed("MQTT-2.2.1-3", text),
        _ => protocol_error("MQTT-2.2.1-3", text),
    }
}

/// A reason code that is none, or not one of this packet (section 2.4).
pub fn wrong_reason(kind: PacketKind) -> DecodeError {
    let error = protocol_error("5.0 section 2.4", "a reason code is not one of this packet");
    // Whoever says goodbye is not told that it was said wrongly.
    if kind == PacketKind::Disconnect { error.quietly() } else { error }
}
