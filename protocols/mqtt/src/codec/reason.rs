//! Reason codes, and which packets may carry which.

use crate::codec::kind::PacketKind;
use crate::codec::version::ProtocolVersion;

macro_rules! reasons {
    ($($number:literal $variant:ident $name:literal $($kind:ident)*;)*) => {
        /// Why something was done or refused (MQTT 5.0 section 2.4, table 2-6). From 0x80 on it is a failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum ReasonCode { $($variant = $number,)* }

        impl ReasonCode {
            pub const ALL: &'static [ReasonCode] = &[$(ReasonCode::$variant,)*];

            pub fn from_number(number: u8) -> Option<ReasonCode> {
                match number {
                    $($number => Some(ReasonCode::$variant),)*
                    _ => None,
                }
            }

            /// As the standard calls it. Number 0 has three names; this is the one of acknowledgements.
            pub fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$variant => $name,)*
                }
            }

            /// Whether table 2-6 lets a packet of this kind carry it.
            pub fn allowed_in(self, kind: PacketKind) -> bool {
                match self {
                    $(ReasonCode::$variant => [$(PacketKind::$kind,)*].contains(&kind),)*
                }
            }
        }
    };
}

reasons! {
    0x00 Success "Success" ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth;
    0x01 GrantedQoS1 "Granted QoS 1" SubAck;
    0x02 GrantedQoS2 "Granted QoS 2" SubAck;
    0x04 DisconnectWithWill "Disconnect with Will Message" Disconnect;
    0x10 NoMatchingSubscribers "No matching subscribers" PubAck PubRec;
    0x11 NoSubscriptionExisted "No subscription existed" UnsubAck;
    0x18 ContinueAuthentication "Continue authentication" Auth;
    0x19 ReAuthenticate "Re-authenticate" Auth;
    0x80 UnspecifiedError "Unspecified error" ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x81 MalformedPacket "Malformed Packet" ConnAck Disconnect;
    0x82 ProtocolError "Protocol Error" ConnAck Disconnect;
    0x83 ImplementationSpecificError "Implementation specific error" ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version" ConnAck;
    0x85 ClientIdentifierNotValid "Client Identifier not valid" ConnAck;
    0x86 BadUserNameOrPassword "Bad User Name or Password" ConnAck;
    0x87 NotAuthorized "Not authorized" ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x88 ServerUnavailable "Server unavailable" ConnAck;
    0x89 ServerBusy "Server busy" ConnAck Disconnect;
    0x8A Banned "Banned" ConnAck;
    0x8B ServerShuttingDown "Server shutting down" Disconnect;
    0x8C BadAuthenticationMethod "Bad authentication method" ConnAck Disconnect;
    0x8D KeepAliveTimeout "Keep Alive timeout" Disconnect;
    0x8E SessionTakenOver "Session taken over" Disconnect;
    0x8F TopicFilterInvalid "Topic Filter invalid" SubAck UnsubAck Disconnect;
    0x90 TopicNameInvalid "Topic Name invalid" ConnAck PubAck PubRec Disconnect;
    0x91 PacketIdentifierInUse "Packet Identifier in use" PubAck PubRec SubAck UnsubAck;
    0x92 PacketIdentifierNotFound "Packet Identifier not found" PubRel PubComp;
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded" Disconnect;
    0x94 TopicAliasInvalid "Topic Alias invalid" Disconnect;
    0x95 PacketTooLarge "Packet too large" ConnAck Disconnect;
    0x96 MessageRateTooHigh "Message rate too high" Disconnect;
    0x97 QuotaExceeded "Quota exceeded" ConnAck PubAck PubRec SubAck Disconnect;
    0x98 AdministrativeAction "Administrative action" Disconnect;
    0x99 PayloadFormatInvalid "Payload format invalid" ConnAck PubAck PubRec Disconnect;
    0x9A RetainNotSupported "Retain not supported" ConnAck Disconnect;
    0x9B QoSNotSupported "QoS not supported" ConnAck Disconnect;
    0x9C UseAnotherServer "Use another server" ConnAck Disconnect;
    0x9D ServerMoved "Server moved" ConnAck Disconnect;
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported" SubAck Disconnect;
    0x9F ConnectionRateExceeded "Connection rate exceeded" ConnAck Disconnect;
    0xA0 MaximumConnectTime "Maximum connect time" Disconnect;
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported" SubAck Disconnect;
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported" SubAck Disconnect;
}

impl ReasonCode {
    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn is_failure(self) -> bool {
        self.number() >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 (3.1.1 section 3.2.2.3, table 3.1). `None`: no code fits, and the server closes the
    /// connection without CONNACK (3.1.1 [MQTT-3.2.2-6]).
    pub fn return_code(self) -> Option<u8> {
        match self {
            ReasonCode::Success => Some(0),
            ReasonCode::UnsupportedProtocolVersion => Some(1),
            ReasonCode::ClientIdentifierNotValid => Some(2),
            ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved
            | ReasonCode::ConnectionRateExceeded => Some(3),
            ReasonCode::BadUserNameOrPassword | ReasonCode::BadAuthenticationMethod => Some(4),
            ReasonCode::NotAuthorized | ReasonCode::Banned => Some(5),
            _ => None,
        }
    }

    /// What a return code of MQTT 3.1 and 3.1.1 means. `None`: it is reserved.
    pub fn from_return_code(code: u8) -> Option<ReasonCode> {
        match code {
            0 => Some(ReasonCode::Success),
            1 => Some(ReasonCode::UnsupportedProtocolVersion),
            2 => Some(ReasonCode::ClientIdentifierNotValid),
            3 => Some(ReasonCode::ServerUnavailable),
            4 => Some(ReasonCode::BadUserNameOrPassword),
            5 => Some(ReasonCode::NotAuthorized),
            _ => None,
        }
    }

    /// What stands for it in a SUBACK of `version`: before 5.0 there is one failure (3.1.1 [MQTT-3.9.3-2]).
    pub fn in_suback(self, version: ProtocolVersion) -> u8 {
        if self.is_failure() && !version.has_properties() { 0x80 } else { self.number() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_standards_and_come_back() {
        assert_eq!(ReasonCode::ALL.len(), 43);
        for reason in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_number(reason.number()), Some(*reason));
            assert!(PacketKind::ALL.iter().any(|kind| reason.allowed_in(*kind)), "{} is in no packet", reason.name());
        }
        assert_eq!((0..=255).filter(|number| ReasonCode::from_number(*number).is_some()).count(), ReasonCode::ALL.len());
    }

    #[test]
    fn each_packet_may_carry_as_many_as_its_section_lists() {
        let count = |kind: PacketKind| ReasonCode::ALL.iter().filter(|reason| reason.allowed_in(kind)).count();
        assert_eq!(count(PacketKind::ConnAck), 22, "section 3.2.2.2");
        assert_eq!(count(PacketKind::PubAck), 9, "section 3.4.2.1");
        assert_eq!(count(PacketKind::PubRec), 9, "section 3.5.2.1");
        assert_eq!(count(PacketKind::PubRel), 2, "section 3.6.2.1");
        assert_eq!(count(PacketKind::PubComp), 2, "section 3.7.2.1");
        assert_eq!(count(PacketKind::SubAck), 12, "section 3.9.3");
        assert_eq!(count(PacketKind::UnsubAck), 7, "section 3.11.3");
        assert_eq!(count(PacketKind::Disconnect), 30, "section 3.14.2.1, and 0x8C of table 2-6");
        assert_eq!(count(PacketKind::Auth), 3, "section 3.15.2.1");
    }

    #[test]
    fn return_codes_go_there_and_back() {
        for code in 0..=5 {
            assert_eq!(ReasonCode::from_return_code(code).and_then(ReasonCode::return_code), Some(code));
        }
        assert_eq!(ReasonCode::from_return_code(6), None);
        assert_eq!(ReasonCode::MalformedPacket.return_code(), None);
        assert_eq!(ReasonCode::QuotaExceeded.in_suback(ProtocolVersion::V311), 0x80);
        assert_eq!(ReasonCode::QuotaExceeded.in_suback(ProtocolVersion::V5), 0x97);
    }
}
