//! The types of packets.

/// A type of packet, and its number in the fixed header (MQTT 5.0 section 2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketKind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// Which end of a connection sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    Client,
    Server,
}

impl PacketKind {
    pub const ALL: [PacketKind; 15] = [
        PacketKind::Connect,
        PacketKind::ConnAck,
        PacketKind::Publish,
        PacketKind::PubAck,
        PacketKind::PubRec,
        PacketKind::PubRel,
        PacketKind::PubComp,
        PacketKind::Subscribe,
        PacketKind::SubAck,
        PacketKind::Unsubscribe,
        PacketKind::UnsubAck,
        PacketKind::PingReq,
        PacketKind::PingResp,
        PacketKind::Disconnect,
        PacketKind::Auth,
    ];

    pub fn from_number(number: u8) -> Option<PacketKind> {
        PacketKind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    pub fn number(self) -> u8 {
        self as u8
    }

    /// The lower half of the first byte, which only PUBLISH may choose (section 2.1.3).
    pub fn flags(self) -> u8 {
        match self {
            PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Whether the standard lets `sender` send it (section 2.1.2). In 3.1.1 a server sends no DISCONNECT, which a reader can ignore.
    pub fn sent_by(self, sender: Sender) -> bool {
        match self {
            PacketKind::Connect | PacketKind::Subscribe | PacketKind::Unsubscribe | PacketKind::PingReq => sender == Sender::Client,
            PacketKind::ConnAck | PacketKind::SubAck | PacketKind::UnsubAck | PacketKind::PingResp => sender == Sender::Server,
            _ => true,
        }
    }
}
