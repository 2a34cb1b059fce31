//! Entry point for fuzzing: any bytes may be given to it.

use bytes::BytesMut;

use crate::codec::decode::{decode, decode_connect};
use crate::codec::encode::{Receiver, encode};
use crate::codec::kind::Sender;
use crate::codec::packet::Packet;
use crate::codec::version::ProtocolVersion;

/// Reads bytes as a packet of every version and from either end. Must not panic; what can be read must come back the same after being
/// written.
pub fn fuzz_decode(bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    if let Ok(Some(connect)) = decode_connect(&mut input, u32::MAX) {
        let version = connect.version;
        let mut again = written(&Packet::Connect(Box::new(connect.clone())), version);
        assert_eq!(decode_connect(&mut again, u32::MAX), Ok(Some(connect)), "a CONNECT changed on its way");
        assert!(again.is_empty(), "a CONNECT was longer than it said");
    }
    for version in ProtocolVersion::ALL {
        for from in [Sender::Client, Sender::Server] {
            let mut input = BytesMut::from(bytes);
            if let Ok(Some(packet)) = decode(&mut input, version, from, u32::MAX) {
                let mut again = written(&packet, version);
                assert_eq!(decode(&mut again, version, from, u32::MAX), Ok(Some(packet)), "a packet changed on its way");
                assert!(again.is_empty(), "a packet was longer than it said");
            }
        }
    }
}

fn written(packet: &Packet, version: ProtocolVersion) -> BytesMut {
    let mut out = BytesMut::new();
    encode(packet, &Receiver::of(version), &mut out).expect("what was read can be written");
    out
}
