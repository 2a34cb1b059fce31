//! Sessions under `$SYS/broker/sessions`: listed, shown, removed.
//!
//! Nothing of it is stored: who subscribes to a filter that names them gets a message for each, made when it is its turn. Who publishes an
//! empty retained message in the place of one ends that session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use firth_gateway::answer::Answer;
use firth_gateway::connection::Connection;
use firth_gateway::cursors::{CursorAnswer, CursorMove, CursorReport};
use firth_gateway::door::Broker;
use firth_gateway::message::Message;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_model::filter::{Filter, FilterLevel};
use firth_model::limits::MQTT_RETAINED_ROUND;
use firth_model::subject::{Subject, raw_level};

use crate::codec::text::Text;
use crate::described::{Described, to_json};
use crate::node::Node;
use crate::registry::{SESSION_PREFIX, client_of, cursor_name};
use crate::sys::of_memory;
use crate::wills::{publish_alone, will_message, will_receipt};

/// The levels above the client identifiers, which are a level each.
const ABOVE: [&[u8]; 3] = [b"$SYS", b"broker", b"sessions"];
/// How long a connection may take to say what it is: it may be at its end.
const DESCRIBE_TIME: Duration = Duration::from_secs(2);

fn subject_of(id: &Text) -> Option<Subject> {
    Subject::from_levels(ABOVE.into_iter().chain([&id.as_bytes()[..]])).ok()
}

/// The client whose session is removed by an empty retained message under the subject.
pub fn client_under(subject: &Subject) -> Option<Text> {
    let mut levels = subject.levels();
    let above = levels.by_ref().take(ABOVE.len()).eq(ABOVE);
    let (id, None) = (levels.next()?, levels.next()) else { return None };
    Text::parse(raw_level(id).into_owned().into()).ok().filter(|id| above && !id.is_empty())
}

/// Sessions that are still to be listed for one subscription.
pub struct Listing {
    node: Arc<Node>,
    broker: Broker,
    filter: Filter,
    rest: Rest,
}

enum Rest {
    One(Text),
    /// Those that the broker keeps, behind this name; then the others.
    Kept(Option<bytes::Bytes>),
    Connected(VecDeque<Text>),
}

impl Listing {
    /// `None`: the filter does not name sessions. One that only happens to match them does not: there may be very many.
    pub fn of(node: &Arc<Node>, broker: &Broker, filter: &Filter) -> Option<Listing> {
        let (above, id) = filter.levels().split_at_checked(ABOVE.len())?;
        if !above.iter().zip(ABOVE).all(|(level, name)| matches!(level, FilterLevel::Literal(text) if text[..] == *name)) {
            return None;
        }
        let rest = match id {
            [] => return None,
            [FilterLevel::Literal(text)] => Rest::One(Text::parse(raw_level(text).into_owned().into()).ok()?),
            _ => Rest::Kept(None),
        };
        Some(Listing { node: node.clone(), broker: broker.clone(), filter: filter.clone(), rest })
    }

    /// The next of them, and what is left.
    pub async fn round(self) -> (Vec<Message>, Option<Listing>) {
        let mut connection = self.broker.connect();
        let (found, rest, with_kept) = match self.rest {
            Rest::One(id) => {
                let reports = reports(&mut connection, cursor_name(&id), None, 1).await;
                let report = reports.into_iter().find(|report| client_of(&report.name).as_ref() == Some(&id));
                (vec![(id, report)], None, true)
            }
            Rest::Kept(after) => {
                let reports = reports(&mut connection, SESSION_PREFIX.into(), after, MQTT_RETAINED_ROUND).await;
                let rest = match reports.last() {
                    Some(last) => Rest::Kept(Some(last.name.clone())),
                    None => Rest::Connected(self.node.registry.all().into()),
                };
                let found = reports.into_iter().filter_map(|report| Some((client_of(&report.name)?, Some(report))));
                (found.collect(), Some(rest), true)
            }
            Rest::Connected(mut ids) => {
                let found = ids.drain(..ids.len().min(MQTT_RETAINED_ROUND)).map(|id| (id, None)).collect();
                (found, (!ids.is_empty()).then_some(Rest::Connected(ids)), false)
            }
        };
        let messages = messages(&self.node, &self.broker, &self.filter, found, with_kept).await;
        let next = rest.map(|rest| Listing { rest, node: self.node, broker: self.broker, filter: self.filter });
        (messages, next)
    }
}

type Found = Vec<(Text, Option<CursorReport>)>;

async fn reports(connection: &mut Connection, prefix: bytes::Bytes, after: Option<bytes::Bytes>, max: usize) -> Vec<CursorReport> {
    match connection.call(Request::Cursor(Box::new(CursorMove::List { prefix, after, max }))).await {
        Ok(Answer::Cursor(CursorAnswer::List(reports))) => reports,
        _ => Vec::new(),
    }
}

/// Those that match, as messages; without `with_kept` only those that the broker does not know.
async fn messages(node: &Node, broker: &Broker, filter: &Filter, found: Found, with_kept: bool) -> Vec<Message> {
    let asked: Vec<_> = found.into_iter().map(|(id, report)| (node.registry.describe(&id), id, report)).collect();
    let mut messages = Vec::with_capacity(asked.len());
    for (describing, id, report) in asked {
        let described: Option<Described> = match describing {
            Some(describing) => tokio::time::timeout(DESCRIBE_TIME, describing).await.ok().and_then(Result::ok),
            None => None,
        };
        let is_known = described.as_ref().is_some_and(|one| with_kept || !one.durable) || report.is_some();
        let Some(subject) = subject_of(&id).filter(|subject| is_known && filter.matches(subject)) else { continue };
        let now = broker.now();
        messages.push(of_memory(subject, to_json(&id, described.as_ref(), report.as_ref(), now), now));
    }
    messages
}

/// Ends the session of a client, who is sent away if connected; durable when this returns. Whether there was one.
pub async fn remove(node: &Node, broker: &Broker, id: Text) -> Result<bool, Refusal> {
    let (seat, was_connected) = node.registry.evict(id).await;
    if let Some(message) = node.delayed.take_back(&seat.id).and_then(|(will, _)| will_message(&will, broker.now())) {
        publish_alone(broker, message, will_receipt(&seat.id)).await;
    }
    let mut connection = broker.connect();
    let drop = CursorMove::Drop { name: cursor_name(&seat.id) };
    let was_kept = match connection.call(Request::Cursor(Box::new(drop))).await {
        Ok(_) => true,
        Err(Refusal::NotFound) => false,
        Err(refusal) => return Err(refusal),
    };
    node.groups.forget_session(&mut connection, &seat.id).await;
    node.registry.dropped(&seat.id);
    // What its own connection did at its end.
    connection.call(Request::Barrier).await?;
    Ok(was_kept || was_connected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_identifier_is_one_level() {
        for id in ["a", "a/b", "+", "#", "%2F", "é*"] {
            let id = Text::fixed(id);
            assert_eq!(client_under(&subject_of(&id).expect("short")), Some(id));
        }
        for other in ["$SYS/broker/sessions", "$SYS/broker/sessions/a/b", "$SYS/broker/x/a", "a/b/c/d", "$SYS/broker/sessions/"] {
            assert_eq!(client_under(&Subject::parse(other).expect("a subject")), None, "{other}");
        }
    }
}
