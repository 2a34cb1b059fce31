//! CONNECT: who comes, in which version, and the will it leaves.

use crate::codec::cursor::Cursor;
use crate::codec::fault::{DecodeError, malformed};
use crate::codec::kind::PacketKind;
use crate::codec::place::{Place, wrong_flags};
use crate::codec::property::{Extras, Properties};
use crate::codec::qos::QoS;
use crate::codec::reason::ReasonCode;
use crate::codec::sink::Sink;
use crate::codec::text::{Binary, Text};
use crate::codec::topic::check_topic_name;
use crate::codec::version::ProtocolVersion;

/// The bit of the protocol level by which a broker that bridges says that it is one; it is in no standard.
const BRIDGE: u8 = 0x80;

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u32 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// The first packet of a connection (MQTT 5.0 section 3.1).
///
/// ```text
/// | name u16+n | level u8 | flags u8 | keep alive u16 | properties (5.0) | client id |
/// | will: properties (5.0), topic, payload | user name | password |
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: ProtocolVersion,
    /// Whether another broker comes, to bridge.
    pub bridge: bool,
    /// Called clean session before 5.0.
    pub clean_start: bool,
    /// 0: none.
    pub keep_alive_s: u16,
    pub client_id: Text,
    pub will: Option<Will>,
    pub user_name: Option<Text>,
    pub password: Option<Binary>,
    pub properties: Properties,
}

/// What is published when its client is gone (MQTT 5.0 section 3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: Text,
    pub payload: Binary,
    pub qos: QoS,
    pub retain: bool,
    pub properties: Properties,
}

impl Connect {
    /// A CONNECT that asks for nothing.
    pub fn plain(version: ProtocolVersion, client_id: Text) -> Connect {
        Connect {
            version,
            bridge: false,
            clean_start: true,
            keep_alive_s: 60,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: Properties::default(),
        }
    }

    /// Reads the body of a CONNECT. `header_flags` are those of its fixed header, which 3.1 does not look at.
    ///
    /// # Errors
    /// They name the version to answer in as soon as it is known.
    pub fn read(cursor: &mut Cursor, header_flags: u8) -> Result<Connect, DecodeError> {
        let (version, bridge) = read_version(cursor)?;
        if version != ProtocolVersion::V31 && header_flags != PacketKind::Connect.flags() {
            return Err(wrong_flags(PacketKind::Connect).quietly());
        }
        Connect::read_rest(cursor, version, bridge).map_err(|error| error.answered_in(version))
    }

    fn read_rest(cursor: &mut Cursor, version: ProtocolVersion, bridge: bool) -> Result<Connect, DecodeError> {
        let flags = cursor.u8().map_err(DecodeError::quietly)?;
        check_flags(flags, version).map_err(DecodeError::quietly)?;
        let keep_alive_s = cursor.u16().map_err(DecodeError::quietly)?;
        let properties = read_properties(cursor, version, Place::Packet(PacketKind::Connect))?;
        let clean_start = flags & CLEAN_START != 0;
        let client_id = read_client_id(cursor, version, clean_start)?;
        let will = if flags & WILL == 0 { None } else { Some(read_will(cursor, flags, version)?) };
        // 3.1 lets the packet's length win over the flags.
        let present = |flag: u8, cursor: &Cursor| flags & flag != 0 && !(version == ProtocolVersion::V31 && cursor.is_empty());
        let user_name = if present(USER_NAME, cursor) { Some(read_user_name(cursor).map_err(DecodeError::quietly)?) } else { None };
        let password = if present(PASSWORD, cursor) { Some(cursor.binary().map_err(DecodeError::quietly)?) } else { None };
        cursor.end()?;
        Ok(Connect { version, bridge, clean_start, keep_alive_s, client_id, will, user_name, password, properties })
    }

    pub fn write<S: Sink>(&self, sink: &mut S) {
        sink.field(self.version.name().as_bytes());
        sink.u8(self.version.level() | if self.bridge { BRIDGE } else { 0 });
        sink.u8(self.flags());
        sink.u16(self.keep_alive_s);
        if self.version.has_properties() {
            self.properties.write(sink, Extras::All);
        }
        sink.text(&self.client_id);
        if let Some(will) = &self.will {
            if self.version.has_properties() {
                will.properties.write(sink, Extras::All);
            }
            sink.text(&will.topic);
            sink.binary(&will.payload);
        }
        if let Some(user_name) = &self.user_name {
            sink.text(user_name);
        }
        if let Some(password) = &self.password {
            sink.binary(password);
        }
    }

    fn flags(&self) -> u8 {
        let mut flags = if self.clean_start { CLEAN_START } else { 0 };
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.number() << WILL_QOS_SHIFT | if will.retain { WILL_RETAIN } else { 0 };
        }
        flags |= if self.user_name.is_some() { USER_NAME } else { 0 };
        flags | if self.password.is_some() { PASSWORD } else { 0 }
    }
}

/// Name and level (sections 3.1.2.1 and 3.1.2.2), and whether a bridge comes.
fn read_version(cursor: &mut Cursor) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = cursor.binary().map_err(DecodeError::quietly)?.into_bytes();
    let level = cursor.u8().map_err(DecodeError::quietly)?;
    let (bridge, level) = (level & BRIDGE != 0, level & !BRIDGE);
    if !ProtocolVersion::ALL.iter().any(|version| name == version.name()) {
        return Err(malformed("MQTT-3.1.2-1", "the protocol is not MQTT").quietly());
    }
    match ProtocolVersion::ALL.into_iter().find(|version| name == version.name() && level == version.level()) {
        Some(version) => Ok((version, bridge)),
        None => {
            // Every client of a version that is none of ours reads the answer of the versions that came before properties.
            let error = malformed("MQTT-3.1.2-2", "this version of MQTT is not supported").because(ReasonCode::UnsupportedProtocolVersion);
            Err(error.answered_in(ProtocolVersion::V311))
        }
    }
}

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    if flags >> WILL_QOS_SHIFT & 3 == 3 {
        return Err(malformed("MQTT-3.1.2-12", "the QoS of a will is 3"));
    }
    if version == ProtocolVersion::V31 {
        return Ok(()); // Bit 0 is unused there, and the will's bits without a will have no rule.
    }
    if flags & 1 != 0 {
        return Err(malformed("MQTT-3.1.2-3", "the reserved flag of CONNECT is set"));
    }
    if flags & WILL == 0 && flags >> WILL_QOS_SHIFT & 3 != 0 {
        return Err(malformed("MQTT-3.1.2-11", "the QoS of a will without a will"));
    }
    if flags & WILL == 0 && flags & WILL_RETAIN != 0 {
        return Err(malformed("MQTT-3.1.2-13", "the retain flag of a will without a will"));
    }
    if version == ProtocolVersion::V311 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(malformed("3.1.1 MQTT-3.1.2-22", "a password without a user name"));
    }
    Ok(())
}

fn read_properties(cursor: &mut Cursor, version: ProtocolVersion, place: Place) -> Result<Properties, DecodeError> {
    if version.has_properties() { Properties::read(cursor, place) } else { Ok(Properties::default()) }
}

/// The client identifier (section 3.1.3.1). An empty one is for the server to replace, which before 5.0 it can only for a clean session,
/// and in 3.1 not at all.
fn read_client_id(cursor: &mut Cursor, version: ProtocolVersion, clean_start: bool) -> Result<Text, DecodeError> {
    // Its length comes first: whether the packet ends in it, or it is no string, are different faults.
    let bytes = cursor.binary()?.into_bytes();
    let id = Text::parse(bytes).ok().filter(|id| !id.has_refusable_letters());
    let invalid = match version {
        ProtocolVersion::V31 => id.as_ref().is_some_and(Text::is_empty),
        ProtocolVersion::V311 => id.as_ref().is_some_and(|id| id.is_empty() && !clean_start),
        ProtocolVersion::V5 => id.is_none(),
    };
    if invalid {
        let error = malformed("MQTT-3.1.3-8", "the client identifier is not valid");
        return Err(error.because(ReasonCode::ClientIdentifierNotValid));
    }
    id.ok_or(malformed("MQTT-3.1.3-4", "the client identifier is no string").quietly())
}

fn read_user_name(cursor: &mut Cursor) -> Result<Text, DecodeError> {
    let name = cursor.text()?;
    if name.has_refusable_letters() {
        return Err(malformed("5.0 section 1.5.4", "a user name contains a control character"));
    }
    Ok(name)
}

fn read_will(cursor: &mut Cursor, flags: u8, version: ProtocolVersion) -> Result<Will, DecodeError> {
    let qos = QoS::from_number(flags >> WILL_QOS_SHIFT & 3).expect("3 was refused with the flags");
    let properties = read_properties(cursor, version, Place::Will)?;
    let topic = cursor.text().map_err(DecodeError::quietly)?;
    check_topic_name(&topic)?;
    if topic.is_empty() {
        return Err(malformed("MQTT-4.7.3-1", "the topic of a will is empty"));
    }
    let payload = cursor.binary().map_err(DecodeError::quietly)?;
    Ok(Will { topic, payload, qos, retain: flags & WILL_RETAIN != 0, properties })
}
