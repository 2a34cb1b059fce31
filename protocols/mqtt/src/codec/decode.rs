//! Takes packets out of what a connection received.

use bytes::{Buf, BytesMut};

use crate::codec::acknowledgement::Acknowledgement;
use crate::codec::connack::ConnAck;
use crate::codec::connect::Connect;
use crate::codec::cursor::Cursor;
use crate::codec::fault::DecodeError;
use crate::codec::header::{Header, HeaderRules, long_length};
use crate::codec::kind::{PacketKind, Sender};
use crate::codec::leave::{Auth, Disconnect};
use crate::codec::packet::Packet;
use crate::codec::publish::Publish;
use crate::codec::subscribe::{SubAck, Subscribe, UnsubAck, Unsubscribe};
use crate::codec::version::ProtocolVersion;

/// Takes the CONNECT that a connection begins with. `None`: it is not all there; `input` is unchanged.
///
/// `packet_bytes_max` bounds what a connection makes its reader keep before it says who it is.
///
/// # Errors
/// [`DecodeError::version`] is the version to answer in. Without one, or when [`DecodeError::quiet`], the connection is closed as it is.
pub fn decode_connect(input: &mut BytesMut, packet_bytes_max: u32) -> Result<Option<Connect>, DecodeError> {
    let rules = HeaderRules { version: None, from: Sender::Client, packet_bytes_max };
    let Some((header, mut cursor)) = take_packet(input, &rules)? else { return Ok(None) };
    let connect = Connect::read(&mut cursor, header.flags)?;
    if header.is_long() && connect.version == ProtocolVersion::V5 {
        return Err(long_length().answered_in(connect.version));
    }
    Ok(Some(connect))
}

/// Takes the next packet of a connection, sent by `from`, which is not CONNECT. `None`: it is not all there; `input` is unchanged.
///
/// Nothing is allocated by a length that was received: what a packet carries are slices of `input`, and lists grow as they are read.
///
/// # Errors
/// The connection cannot go on; `input` is then no longer of use. A packet above `packet_bytes_max` (fixed header included) is refused as
/// soon as its length is known.
pub fn decode(input: &mut BytesMut, version: ProtocolVersion, from: Sender, packet_bytes_max: u32) -> Result<Option<Packet>, DecodeError> {
    let rules = HeaderRules { version: Some(version), from, packet_bytes_max };
    let Some((header, mut cursor)) = take_packet(input, &rules)? else { return Ok(None) };
    let packet = read_body(&header, &mut cursor, version, from)?;
    cursor.end()?;
    Ok(Some(packet))
}

fn take_packet(input: &mut BytesMut, rules: &HeaderRules) -> Result<Option<(Header, Cursor)>, DecodeError> {
    let Some(header) = Header::read(input, rules)? else { return Ok(None) };
    if input.len() < header.packet_bytes() {
        return Ok(None);
    }
    let mut packet = input.split_to(header.packet_bytes()).freeze();
    packet.advance(header.head_bytes);
    Ok(Some((header, Cursor::over(packet))))
}

fn read_body(header: &Header, cursor: &mut Cursor, version: ProtocolVersion, from: Sender) -> Result<Packet, DecodeError> {
    let step = |cursor: &mut Cursor| Acknowledgement::read(cursor, header.kind, version);
    Ok(match header.kind {
        PacketKind::Connect => Packet::Connect(Box::new(Connect::read(cursor, header.flags)?)),
        PacketKind::ConnAck => Packet::ConnAck(ConnAck::read(cursor, version)?),
        PacketKind::Publish => Packet::Publish(Publish::read(cursor, header.flags, version, from)?),
        PacketKind::PubAck => Packet::PubAck(step(cursor)?),
        PacketKind::PubRec => Packet::PubRec(step(cursor)?),
        PacketKind::PubRel => Packet::PubRel(step(cursor)?),
        PacketKind::PubComp => Packet::PubComp(step(cursor)?),
        PacketKind::Subscribe => Packet::Subscribe(Subscribe::read(cursor, version)?),
        PacketKind::SubAck => Packet::SubAck(SubAck::read(cursor, version)?),
        PacketKind::Unsubscribe => Packet::Unsubscribe(Unsubscribe::read(cursor, version)?),
        PacketKind::UnsubAck => Packet::UnsubAck(UnsubAck::read(cursor, version)?),
        PacketKind::PingReq => Packet::PingReq,
        PacketKind::PingResp => Packet::PingResp,
        PacketKind::Disconnect => Packet::Disconnect(Disconnect::read(cursor, version, from)?),
        PacketKind::Auth => Packet::Auth(Auth::read(cursor)?),
    })
}
