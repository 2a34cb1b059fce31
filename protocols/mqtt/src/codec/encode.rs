//! Writes packets in the version of their receiver.

use bytes::BytesMut;

use crate::codec::fault::EncodeError;
use crate::codec::kind::PacketKind;
use crate::codec::packet::Packet;
use crate::codec::property::Extras;
use crate::codec::publish::Publish;
use crate::codec::sink::{Count, Sink, VARIABLE_MAX};
use crate::codec::version::ProtocolVersion;

/// Who is to read a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    pub version: ProtocolVersion,
    /// Its maximum packet size, the fixed header included.
    pub packet_bytes_max: u32,
    /// Whether it wants reason strings and user properties in all packets (section 3.1.2.11.7).
    pub problem_information: bool,
}

impl Receiver {
    /// One that set no bounds.
    pub fn of(version: ProtocolVersion) -> Receiver {
        Receiver { version, packet_bytes_max: u32::MAX, problem_information: true }
    }
}

/// Appends a packet to `out`. Where it would be too large for its receiver, user properties and then the reason string are left out of
/// packets that may lose them. A CONNECT is written in the version it names.
///
/// # Errors
/// Nothing is appended then.
pub fn encode(packet: &Packet, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
    encode_head(packet, receiver, out)?;
    if let Packet::Publish(publish) = packet {
        out.extend_from_slice(&publish.payload);
    }
    Ok(())
}

/// As [`encode`], without the payload of a PUBLISH, which the caller sends behind it.
pub fn encode_head(packet: &Packet, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
    let version = receiver.version;
    match packet {
        Packet::Publish(publish) => return encode_publish_head(publish, publish.payload.len(), receiver, out),
        Packet::ConnAck(packet) => packet.check(version)?,
        Packet::PubAck(step) | Packet::PubRec(step) | Packet::PubRel(step) | Packet::PubComp(step) => step.check(packet.kind(), version)?,
        Packet::SubAck(packet) => packet.check()?,
        Packet::UnsubAck(packet) => packet.check()?,
        Packet::Disconnect(packet) => packet.check(version)?,
        Packet::Auth(packet) => packet.check(version)?,
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq | Packet::PingResp => {}
    }
    let kind = packet.kind();
    for extras in choices(kind, receiver) {
        let mut count = Count::default();
        write_body(packet, &mut count, version, *extras);
        if let Ok(body_bytes) = checked_length(count.0, receiver) {
            let first = kind.number() << 4 | kind.flags();
            write_header(out, first, body_bytes, count.0);
            write_body(packet, out, version, *extras);
            return Ok(());
        }
    }
    Err(EncodeError::TooLarge)
}

/// Appends everything of a PUBLISH but its payload of so many bytes, which the caller sends behind it.
///
/// # Errors
/// [`EncodeError::TooLarge`]: it must not be sent to this receiver ([MQTT-3.1.2-25]). Nothing is appended then.
pub fn encode_publish_head(publish: &Publish, payload_bytes: usize, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
    publish.check()?;
    let mut count = Count::default();
    publish.write_head(&mut count, receiver.version);
    let body_bytes = checked_length(count.0 + payload_bytes, receiver)?;
    write_header(out, PacketKind::Publish.number() << 4 | publish.flags(), body_bytes, count.0);
    publish.write_head(out, receiver.version);
    Ok(())
}

/// What to try, the fullest first. Packets that ask for something are sent whole or not at all.
fn choices(kind: PacketKind, receiver: &Receiver) -> &'static [Extras] {
    const ALL: &[Extras] = &[Extras::All, Extras::ReasonOnly, Extras::None];
    match kind {
        PacketKind::Connect | PacketKind::Publish | PacketKind::Subscribe | PacketKind::Unsubscribe => &ALL[..1],
        // [MQTT-3.1.2-29]
        PacketKind::ConnAck | PacketKind::Disconnect => ALL,
        _ if receiver.problem_information => ALL,
        _ => &ALL[2..],
    }
}

/// The remaining length of a packet with a body of so many bytes.
fn checked_length(body_bytes: usize, receiver: &Receiver) -> Result<u32, EncodeError> {
    let length = u32::try_from(body_bytes).ok().filter(|length| *length <= VARIABLE_MAX).ok_or(EncodeError::TooLarge)?;
    let mut head = Count(1);
    head.variable(length);
    let head_bytes = u32::try_from(head.0).expect("at most five");
    if length + head_bytes > receiver.packet_bytes_max { Err(EncodeError::TooLarge) } else { Ok(length) }
}

/// Makes room for the packet's head, and writes its fixed header.
fn write_header(out: &mut BytesMut, first: u8, body_bytes: u32, written_bytes: usize) {
    out.reserve(5 + written_bytes);
    out.u8(first);
    out.variable(body_bytes);
}

fn write_body<S: Sink>(packet: &Packet, sink: &mut S, version: ProtocolVersion, extras: Extras) {
    match packet {
        Packet::Connect(connect) => connect.write(sink),
        Packet::ConnAck(packet) => packet.write(sink, version, extras),
        Packet::Publish(publish) => publish.write_head(sink, version),
        Packet::PubAck(step) | Packet::PubRec(step) | Packet::PubRel(step) | Packet::PubComp(step) => step.write(sink, version, extras),
        Packet::Subscribe(packet) => packet.write(sink, version),
        Packet::SubAck(packet) => packet.write(sink, version, extras),
        Packet::Unsubscribe(packet) => packet.write(sink, version),
        Packet::UnsubAck(packet) => packet.write(sink, version, extras),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(packet) => packet.write(sink, version, extras),
        Packet::Auth(packet) => packet.write(sink, extras),
    }
}
