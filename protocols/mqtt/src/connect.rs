//! CONNECT and its answer: from an accepted stream to a client with a session.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use firth_gateway::answer::Answer;
use firth_gateway::connection::Connection;
use firth_gateway::cursors::{Attached, CursorAnswer, CursorMove};
use firth_gateway::door::Broker;
use firth_gateway::link::LinkEnd;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_model::limits::{CURSOR_NOTE_BYTES_MAX, MQTT_CONNECT_BYTES_MAX, MQTT_CONNECT_MS};
use firth_model::spelling::Spelling;

use crate::aliases::Taken;
use crate::codec::connack::ConnAck;
use crate::codec::connect::{Connect, Will};
use crate::codec::decode::decode_connect;
use crate::codec::encode::Receiver;
use crate::codec::fault::DecodeError;
use crate::codec::packet::Packet;
use crate::codec::property::Properties;
use crate::codec::reason::ReasonCode;
use crate::codec::text::Text;
use crate::codec::version::ProtocolVersion;
use crate::leave::{delay, keep_of};
use crate::node::Node;
use crate::notes::NOTE_WILL;
use crate::reasons::reason_of;
use crate::receive::is_reserved;
use crate::registry::cursor_name;
use crate::session::{Client, Session};
use crate::wills;
use crate::window::Window;
use crate::wire::{Turn, Wire};

/// How long a refusal may take to be read.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// A CONNECT that is not served, and how its client hears of it.
struct Refused {
    version: ProtocolVersion,
    reason: ReasonCode,
}

/// Reads CONNECT and answers it. `None`: the client was refused or did not come to the point, and is gone.
pub async fn connect(node: Arc<Node>, broker: Broker, mut wire: Wire) -> Result<Option<Box<Session>>, LinkEnd> {
    let waiting = tokio::time::timeout(Duration::from_millis(MQTT_CONNECT_MS), read_connect(&mut wire));
    let connect = match waiting.await {
        Ok(Ok(Some(connect))) => connect,
        Ok(Ok(None)) => return Ok(None),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a CONNECT is refused");
            if let (Some(version), false) = (error.version, error.quiet) {
                refuse(&mut wire, Refused { version, reason: error.reason }).await;
            }
            return Err(LinkEnd::Malformed { at_byte: 0, what: error.text });
        }
        Err(_) => return Err(LinkEnd::Malformed { at_byte: 0, what: "no CONNECT came in time" }),
    };
    let version = connect.version;
    match welcome(node, broker, &mut wire, connect).await {
        Ok(ready) => Ok(Some(Box::new(ready.into_session(wire)))),
        Err(reason) => {
            refuse(&mut wire, Refused { version, reason }).await;
            Err(LinkEnd::Malformed { at_byte: 0, what: reason.name() })
        }
    }
}

async fn read_connect(wire: &mut Wire) -> Result<Option<Connect>, DecodeError> {
    loop {
        if let Some(connect) = decode_connect(&mut wire.received, MQTT_CONNECT_BYTES_MAX)? {
            wire.let_go();
            return Ok(Some(connect));
        }
        match wire.turn(true).await {
            Ok(Turn::Read(0)) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

/// Says no, where the version has a word for it, and closes.
async fn refuse(wire: &mut Wire, refused: Refused) {
    let Refused { version, reason } = refused;
    let packet = ConnAck { session_present: false, reason, properties: Properties::default() };
    if wire.send(&Packet::ConnAck(packet), &Receiver::of(version)).is_ok() {
        let _ = tokio::time::timeout(REFUSAL_TIME, wire.close()).await;
    }
}

/// Everything of a session but its wire.
struct Ready {
    node: Arc<Node>,
    broker: Broker,
    client: Client,
    seat: crate::registry::Seat,
    connection: Connection,
    connect: Connect,
    attached: Option<Attached>,
    connack: ConnAck,
}

async fn welcome(node: Arc<Node>, broker: Broker, _wire: &mut Wire, mut connect: Connect) -> Result<Ready, ReasonCode> {
    if connect.properties.authentication_method.is_some() {
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    if let Some(will) = &connect.will {
        match Spelling::Mqtt.subject(will.topic.as_bytes()) {
            Ok(subject) if !is_reserved(&subject) => {}
            Ok(_) => return Err(ReasonCode::NotAuthorized),
            Err(_) => return Err(ReasonCode::TopicNameInvalid),
        }
    }
    let mut connack = ConnAck { session_present: false, reason: ReasonCode::Success, properties: Properties::default() };
    let client = negotiate(&node, &mut connect, &mut connack);
    node.listed().await;
    let seat = node.registry.claim(client.id.clone()).await;
    if !will_fits(&node, &client, &connect) {
        return Err(ReasonCode::ServerUnavailable);
    }
    // A will that waits is not published if its session goes on, and at once if that ends.
    let mut waiting = node.delayed.take_back(&client.id);
    let message_of = |(will, _): (Will, Duration)| wills::will_message(&will, broker.now());
    if let Some(message) = waiting.take_if(|_| connect.clean_start).and_then(message_of) {
        wills::publish_alone(&broker, message, wills::will_receipt(&client.id)).await;
    }
    let mut connection = broker.connect();
    let attached = match attach(&node, &mut connection, &client, &connect).await {
        Ok(attached) => attached,
        Err(refusal) => {
            if let Some((will, left)) = waiting {
                // Nobody came back. Its place is free again by then.
                delay(&node, &broker, &client.id, will, left.max(Duration::from_secs(1)));
            }
            return Err(match reason_of(&refusal) {
                ReasonCode::QuotaExceeded => ReasonCode::QuotaExceeded,
                _ => ReasonCode::ServerUnavailable,
            });
        }
    };
    connack.session_present = attached.as_ref().is_some_and(|attached| attached.found && !connect.clean_start);
    // What the session kept of it went with the session.
    if let Some(message) = waiting.filter(|_| !connack.session_present).and_then(message_of) {
        wills::publish_alone(&broker, message, None).await;
    }
    Ok(Ready { node, broker, client, seat, connection, connect, attached, connack })
}

/// Whether the session can keep the will, if there is to be one: before anything of one that is there changes.
fn will_fits(node: &Node, client: &Client, connect: &Connect) -> bool {
    let is_kept = client.expiry_s > 0 || !connect.clean_start && node.registry.may_exist(&client.id);
    let note = connect.will.as_ref().filter(|_| is_kept).and_then(|will| wills::to_note(will, client.expiry_s));
    note.is_none_or(|note| note.len() <= CURSOR_NOTE_BYTES_MAX)
}

/// What the client asked for, within what the node allows, and what it has to be told of that.
fn negotiate(node: &Node, connect: &mut Connect, connack: &mut ConnAck) -> Client {
    let settings = &node.settings;
    let version = connect.version;
    let has_properties = version.has_properties();
    let told = connack.properties.edit();
    if connect.client_id.is_empty() {
        let name = format!("auto-{}", uuid::Uuid::new_v4().hyphenated().to_string().to_uppercase());
        connect.client_id = Text::parse(name.into()).expect("letters, digits and hyphens");
        told.assigned_client_id = Some(connect.client_id.clone());
    }
    let asked_s = match has_properties {
        true => connect.properties.session_expiry_s.unwrap_or(0),
        false if connect.clean_start => 0,
        false => u32::MAX,
    };
    let expiry_s = asked_s.min(settings.session_expiry_s_max.unwrap_or(u32::MAX));
    if expiry_s != asked_s {
        told.session_expiry_s = Some(expiry_s);
    }
    let mut keep_alive_s = connect.keep_alive_s;
    if let Some(max) = settings.keep_alive_s_max
        && (keep_alive_s == 0 || keep_alive_s > max)
        && has_properties
    {
        keep_alive_s = max;
        told.server_keep_alive_s = Some(max);
    }
    told.receive_maximum = NonZeroU16::new(settings.receive_maximum).filter(|max| max.get() != u16::MAX);
    told.topic_alias_maximum = Some(settings.topic_aliases).filter(|max| *max > 0);
    told.packet_bytes_max = std::num::NonZeroU32::new(settings.announced_packet_bytes());
    Client {
        id: connect.client_id.detached(),
        version,
        receiver: Receiver {
            version,
            packet_bytes_max: connect.properties.packet_bytes_max.map_or(u32::MAX, std::num::NonZeroU32::get),
            problem_information: connect.properties.request_problem_information.unwrap_or(true),
        },
        bridge: connect.bridge,
        // [MQTT-3.1.2-22]: one and a half times the keep-alive.
        patience: (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500)),
        expiry_s,
    }
}

/// The session's cursor, for a client whose session outlives its connection or goes on with one that did.
async fn attach(node: &Node, connection: &mut Connection, client: &Client, connect: &Connect) -> Result<Option<Attached>, Refusal> {
    let may_exist = node.registry.may_exist(&client.id);
    let name = cursor_name(&client.id);
    if client.expiry_s == 0 && connect.clean_start {
        if may_exist {
            connection.call(Request::Cursor(Box::new(CursorMove::Drop { name }))).await.map(drop).or_else(none_was_there)?;
            node.groups.forget_session(connection, &client.id).await;
            node.registry.dropped(&client.id);
        }
        return Ok(None);
    }
    if client.expiry_s == 0 && !may_exist {
        return Ok(None);
    }
    let attach = CursorMove::Attach { name, fresh: connect.clean_start, keep: keep_of(client.expiry_s) };
    let Answer::Cursor(CursorAnswer::Attached(attached)) = connection.call(Request::Cursor(Box::new(attach))).await? else {
        return Err(Refusal::Conflict);
    };
    if may_exist && !attached.found {
        node.groups.forget_session(connection, &client.id).await;
    }
    node.registry.made(&client.id);
    if let Err(refusal) = keep_will(connection, &attached, client, connect).await {
        // Nobody is connected after all: a session that was there waits on as it did, and one that was not is none.
        let give_back = CursorMove::Return { attachment: attached.attachment, before: attached.before };
        connection.call(Request::Cursor(Box::new(give_back))).await?;
        return Err(refusal);
    }
    Ok(Some(*attached))
}

/// Puts the client's will, or none, in the place of what its session keeps.
async fn keep_will(connection: &mut Connection, attached: &Attached, client: &Client, connect: &Connect) -> Result<(), Refusal> {
    let note = connect.will.as_ref().and_then(|will| wills::to_note(will, client.expiry_s));
    let had_note = attached.notes.iter().any(|(number, _)| *number == NOTE_WILL);
    if note.is_some() || had_note {
        let keep = CursorMove::Note { attachment: attached.attachment, notes: vec![(NOTE_WILL, note)] };
        connection.call(Request::Cursor(Box::new(keep))).await?;
    }
    Ok(())
}

fn none_was_there(refusal: Refusal) -> Result<(), Refusal> {
    if refusal == Refusal::NotFound { Ok(()) } else { Err(refusal) }
}

impl Ready {
    fn into_session(self, wire: Wire) -> Session {
        let Ready { node, broker, client, seat, connection, connect, attached, connack } = self;
        let asked = connect.properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        let window = Window::of(asked.min(node.settings.in_flight_max));
        let taken = Taken::up_to(connect.properties.topic_alias_maximum.unwrap_or(0).min(node.settings.topic_aliases));
        let mut session = Session::of(node, broker, client, seat, wire, connection);
        session.window = window;
        session.taken = taken;
        session.will = connect.will.map(Box::new);
        session.send(&Packet::ConnAck(connack));
        if let Some(attached) = attached {
            session.resume(attached);
        }
        session
    }
}
