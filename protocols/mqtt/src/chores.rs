//! What MQTT does beside its connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use firth_gateway::answer::Answer;
use firth_gateway::connection::Connection;
use firth_gateway::cursors::{CursorAnswer, CursorMove, CursorReport, Keep};
use firth_gateway::door::Broker;
use firth_gateway::link::StopSignal;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;

use firth_model::time::Millis;

use crate::codec::text::Text;
use crate::flights::Flight;
use crate::leave::delay;
use crate::node::Node;
use crate::notes::{NOTE_FLIGHT, NOTE_KIND, NOTE_WILL};
use crate::registry::{SESSION_PREFIX, client_of, cursor_name};
use crate::sys;
use crate::wills::{delay_s, from_note, publish};

/// How often the values under `$SYS` are published, and some sessions are looked at, whether they ended.
const SYS_INTERVAL: Duration = Duration::from_secs(10);
/// Sessions that are looked at each time: the shard, which tells of them, has other work.
const LOOK_SESSIONS: usize = 1_000;

/// From the start of the node to its stop.
pub async fn run(node: Arc<Node>, broker: Broker, mut stop: StopSignal) {
    let _ = node.started.set(broker.now());
    let mut connection = broker.connect();
    match found(&node, &broker, &mut connection).await {
        Ok(ids) => node.registry.found(ids.into_iter()),
        Err(refusal) => tracing::warn!(?refusal, "sessions cannot be listed"),
    }
    node.is_listed.send_replace(true);
    let mut looked_at = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(SYS_INTERVAL) => {
                for mut message in sys::values(&node, &broker) {
                    // Nothing of it is stored: who subscribes is given the values of that moment.
                    message.retain = false;
                    publish(&mut connection, message, None).await;
                }
                connection.try_events();
                looked_at = forget_ended(&node, &mut broker.connect(), looked_at).await;
            }
            () = stop.stopped() => return,
        }
    }
}

/// Goes through the sessions from before the node started: their clients, and the wills that wait.
async fn found(node: &Arc<Node>, broker: &Broker, connection: &mut Connection) -> Result<Vec<Text>, Refusal> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let reports = list(connection, SESSION_PREFIX.into(), after, usize::MAX).await?;
        let Some(last) = reports.last() else { return Ok(ids) };
        after = Some(last.name.clone());
        for report in &reports {
            restore_will(node, broker, report);
            if hold_shared(node, report, broker.now())
                && let Some(id) = client_of(&report.name)
            {
                node.groups.forget_session(connection, &id).await;
            }
        }
        ids.extend(reports.iter().filter_map(|report| client_of(&report.name)).map(|id| id.detached()));
    }
}

async fn list(connection: &mut Connection, prefix: Bytes, after: Option<Bytes>, max: usize) -> Result<Vec<CursorReport>, Refusal> {
    match connection.call(Request::Cursor(Box::new(CursorMove::List { prefix, after, max }))).await? {
        Answer::Cursor(CursorAnswer::List(reports)) => Ok(reports),
        _ => Err(Refusal::Conflict),
    }
}

/// A session whose time is over is dropped by the broker, which tells nobody: looks at some of those behind `after`, and forgets what is
/// not there any more. Gives the last one that it looked at; `None`: there are no more.
async fn forget_ended(node: &Node, connection: &mut Connection, after: Option<Text>) -> Option<Text> {
    let reports = list(connection, SESSION_PREFIX.into(), after.as_ref().map(cursor_name), LOOK_SESSIONS).await.ok()?;
    let there: HashSet<Text> = reports.iter().filter_map(|report| client_of(&report.name)).collect();
    let last = reports.last().and_then(|report| client_of(&report.name)).map(|id| id.detached());
    for id in node.registry.kept_between(after.as_ref(), last.as_ref()) {
        // With its place taken nobody makes it anew meanwhile. Who is connected found out when it came.
        if !there.contains(&id)
            && let Some(seat) = node.registry.claim_free(id)
            && let Ok(reports) = list(connection, cursor_name(&seat.id), None, 1).await
            && reports.first().and_then(|report| client_of(&report.name)).is_none_or(|first| first != seat.id)
        {
            node.groups.forget_session(connection, &seat.id).await;
            node.registry.dropped(&seat.id);
        }
    }
    last
}

/// What a session has in flight of shared subscriptions is nobody else's. Whether the session has ended since.
fn hold_shared(node: &Node, report: &CursorReport, now: Millis) -> bool {
    let (Some(id), Some(detached)) = (client_of(&report.name), report.detached) else { return false };
    let flights = report.notes.iter().filter(|(number, _)| number & NOTE_KIND == NOTE_FLIGHT);
    for Flight { share, partition, offset, .. } in
        flights.filter_map(|(_, note)| Flight::from_note(note)).filter(|flight| !flight.share.is_empty())
    {
        node.groups.hold(&share.detached(), &id.detached(), (partition, offset));
    }
    matches!(report.keep, Keep::For(ms) if ms <= u64::try_from(now.since(detached)).unwrap_or(0))
}

/// The will of a session whose client was gone, or went with the node: its delay goes on from there.
fn restore_will(node: &Arc<Node>, broker: &Broker, report: &CursorReport) {
    let (Some(id), Some(detached)) = (client_of(&report.name), report.detached.filter(|_| !report.attached)) else { return };
    let Some((_, note)) = report.notes.iter().find(|(number, _)| *number == NOTE_WILL) else { return };
    let Some((will, _)) = from_note(note) else { return };
    let expiry_s = match report.keep {
        Keep::Ever => u32::MAX,
        Keep::For(ms) => u32::try_from(ms / 1000).unwrap_or(u32::MAX),
    };
    let passed_s = u32::try_from(broker.now().since(detached) / 1000).unwrap_or(u32::MAX);
    // One that is over by now, with its session or not, is due.
    let left_s = delay_s(&will, expiry_s).saturating_sub(passed_s);
    delay(node, broker, &id, will, Duration::from_secs(u64::from(left_s)));
}
