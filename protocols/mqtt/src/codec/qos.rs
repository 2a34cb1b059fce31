//! Quality of service and packet identifiers.

use std::num::NonZeroU16;

/// Names an exchange of packets in one direction of a connection; never zero ([MQTT-2.2.1-3]).
pub type PacketId = NonZeroU16;

/// How surely a message arrives (MQTT 5.0 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    /// Two bits of the wire; 3 is none.
    pub fn from_number(number: u8) -> Option<QoS> {
        match number {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    pub fn number(self) -> u8 {
        self as u8
    }
}
