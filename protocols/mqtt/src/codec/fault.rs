//! Why bytes are no packet, and why a packet has no bytes.

use crate::codec::reason::ReasonCode;
use crate::codec::version::ProtocolVersion;

/// Bytes that are not what the protocol allows. The connection they came on ends (MQTT 5.0 section 4.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text} ({rule})")]
pub struct DecodeError {
    /// What a 5.0 peer hears, in CONNACK before it is connected and in DISCONNECT afterwards.
    pub reason: ReasonCode,
    pub text: &'static str,
    /// The statement or section that was broken.
    pub rule: &'static str,
    /// The version in whose CONNACK a refused CONNECT is answered; none where CONNECT did not get so far, and in other packets.
    pub version: Option<ProtocolVersion>,
    /// The connection closes without a word, as the standard allows. So it is where other brokers do, and clients may count on it.
    pub quiet: bool,
}

/// Bytes that cannot be a packet.
pub fn malformed(rule: &'static str, text: &'static str) -> DecodeError {
    DecodeError { reason: ReasonCode::MalformedPacket, text, rule, version: None, quiet: false }
}

/// Bytes that say what may not be said, or not here.
pub fn protocol_error(rule: &'static str, text: &'static str) -> DecodeError {
    DecodeError { reason: ReasonCode::ProtocolError, text, rule, version: None, quiet: false }
}

impl DecodeError {
    pub fn quietly(self) -> DecodeError {
        DecodeError { quiet: true, ..self }
    }

    pub fn because(self, reason: ReasonCode) -> DecodeError {
        DecodeError { reason, ..self }
    }

    pub fn answered_in(self, version: ProtocolVersion) -> DecodeError {
        DecodeError { version: Some(version), ..self }
    }
}

/// A packet that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is larger than its receiver accepts ([MQTT-3.1.2-24]), or than any packet may be (268,435,460 bytes).
    #[error("the packet is larger than its receiver accepts")]
    TooLarge,
    /// The receiver's version cannot say it: AUTH or a negative PUBACK before 5.0, a CONNACK whose reason has no return code.
    #[error("the receiver's version cannot say this")]
    NotInVersion,
    /// A PUBLISH has a packet identifier if and only if its QoS is above 0 ([MQTT-2.2.1-2]).
    #[error("packet identifier and QoS contradict each other")]
    PacketId,
}
