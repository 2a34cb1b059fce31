//! The fixed header: which packet begins, and how long it is.

use crate::codec::cursor::{Variable, read_variable};
use crate::codec::fault::{DecodeError, malformed, protocol_error};
use crate::codec::kind::{PacketKind, Sender};
use crate::codec::place::wrong_flags;
use crate::codec::reason::ReasonCode;
use crate::codec::version::ProtocolVersion;

/// The first two to five bytes of a packet (MQTT 5.0 section 2.1).
///
/// ```text
/// | kind, 4 bits | flags, 4 bits | length of what follows: 1 to 4 bytes |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: PacketKind,
    pub flags: u8,
    /// Its own length.
    pub head_bytes: usize,
    /// The length of what follows.
    pub body_bytes: usize,
}

/// What a packet must keep to, from its first byte on.
#[derive(Debug, Clone, Copy)]
pub struct HeaderRules {
    /// `None` before a CONNECT.
    pub version: Option<ProtocolVersion>,
    pub from: Sender,
    /// The largest packet, its fixed header included.
    pub packet_bytes_max: u32,
}

impl Header {
    /// Reads a header, and refuses the packet if that alone tells enough. `None`: more bytes have to come.
    pub fn read(input: &[u8], rules: &HeaderRules) -> Result<Option<Header>, DecodeError> {
        let Some(first) = input.first() else { return Ok(None) };
        let (kind, flags) = (PacketKind::from_number(first >> 4), first & 0x0f);
        let Some(kind) = kind else {
            return Err(protocol_error("5.0 section 2.1.2", "the packet type 0 is reserved"));
        };
        check_kind(kind, flags, rules)?;
        let (body_bytes, length) = match read_variable(&input[1..]) {
            Variable::Whole { shortest: false, .. } if rules.version == Some(ProtocolVersion::V5) => return Err(long_length()),
            Variable::Whole { value, length, .. } => (usize::try_from(value).expect("28 bits fit"), length),
            Variable::Incomplete => return Ok(None),
            Variable::TooLong => return Err(malformed("5.0 section 2.1.4", "a remaining length has more than four bytes").quietly()),
        };
        let header = Header { kind, flags, head_bytes: 1 + length, body_bytes };
        header.check(rules)?;
        Ok(Some(header))
    }

    /// Whether the remaining length has more bytes than it needs.
    pub fn is_long(&self) -> bool {
        self.head_bytes > 2 && self.body_bytes < 1 << (7 * (self.head_bytes - 2))
    }

    /// The length of the whole packet.
    pub fn packet_bytes(&self) -> usize {
        self.head_bytes + self.body_bytes
    }

    fn check(&self, rules: &HeaderRules) -> Result<(), DecodeError> {
        if matches!(self.kind, PacketKind::PingReq | PacketKind::PingResp) && self.body_bytes > 0 {
            return Err(malformed("5.0 section 3.12", "a ping is not empty").quietly());
        }
        if !self.kind.sent_by(rules.from) {
            return Err(protocol_error("5.0 section 2.1.2", "a packet goes in the wrong direction"));
        }
        if self.packet_bytes() > usize::try_from(rules.packet_bytes_max).unwrap_or(usize::MAX) {
            let error = malformed("MQTT-3.2.2-15", "a packet is larger than the maximum packet size");
            return Err(error.because(ReasonCode::PacketTooLarge));
        }
        Ok(())
    }
}

/// A remaining length with more bytes than it needs, which 5.0 forbids.
pub fn long_length() -> DecodeError {
    malformed("MQTT-1.5.5-1", "a remaining length is longer than it needs to be").quietly()
}

/// What the first byte alone says.
fn check_kind(kind: PacketKind, flags: u8, rules: &HeaderRules) -> Result<(), DecodeError> {
    match rules.version {
        None if kind != PacketKind::Connect => {
            return Err(protocol_error("MQTT-3.1.0-1", "the first packet is not CONNECT").quietly());
        }
        None => return Ok(()), // Whether its flags matter depends on the version in it.
        Some(_) if kind == PacketKind::Connect => return Err(protocol_error("MQTT-3.1.0-2", "a second CONNECT")),
        Some(ProtocolVersion::V31 | ProtocolVersion::V311) if kind == PacketKind::Auth => {
            return Err(malformed("3.1.1 section 2.2.1", "the packet type 15 is reserved"));
        }
        // In 3.1 DUP and QoS stand in other packets too and say nothing.
        Some(ProtocolVersion::V31) => return Ok(()),
        Some(ProtocolVersion::V311 | ProtocolVersion::V5) => {}
    }
    if kind != PacketKind::Publish && flags != kind.flags() {
        return Err(wrong_flags(kind));
    }
    Ok(())
}
