//! What MQTT does beside its connections.

use std::sync::Arc;
use std::time::Duration;

use firth_gateway::answer::Answer;
use firth_gateway::cursors::{CursorAnswer, CursorMove, CursorReport, Keep};
use firth_gateway::door::Broker;
use firth_gateway::link::StopSignal;
use firth_gateway::request::Request;

use crate::leave::delay;
use crate::node::Node;
use crate::notes::NOTE_WILL;
use crate::registry::{SESSION_PREFIX, client_of};
use crate::sys;
use crate::wills::{delay_s, from_note, publish};

/// How often the values under `$SYS` are published.
const SYS_INTERVAL: Duration = Duration::from_secs(10);

/// From the start of the node to its stop.
pub async fn run(node: Arc<Node>, broker: Broker, mut stop: StopSignal) {
    let _ = node.started.set(broker.now());
    let mut connection = broker.connect();
    let list = CursorMove::List { prefix: SESSION_PREFIX.into(), after: None, max: usize::MAX };
    if let Ok(Answer::Cursor(CursorAnswer::List(reports))) = connection.call(Request::Cursor(Box::new(list))).await {
        for report in &reports {
            restore_will(&node, &broker, report);
        }
        node.registry.found(reports.iter().filter_map(|report| client_of(&report.name)));
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(SYS_INTERVAL) => {
                for mut message in sys::values(&node, broker.now()) {
                    // Nothing of it is stored: who subscribes is given the values of that moment.
                    message.retain = false;
                    publish(&mut connection, message).await;
                }
                connection.try_events();
            }
            () = stop.stopped() => return,
        }
    }
}

/// The will of a session whose client was gone, or went with the node: its delay goes on from there.
fn restore_will(node: &Arc<Node>, broker: &Broker, report: &CursorReport) {
    let (Some(id), Some(detached)) = (client_of(&report.name), report.detached.filter(|_| !report.attached)) else { return };
    let Some((_, note)) = report.notes.iter().find(|(number, _)| *number == NOTE_WILL) else { return };
    let Some((will, kept_s)) = from_note(note) else { return };
    let expiry_s = match report.keep {
        Keep::Ever => u32::MAX,
        Keep::For(_) => kept_s,
    };
    let passed_s = u32::try_from(broker.now().since(detached) / 1000).unwrap_or(u32::MAX);
    let left_s = if expiry_s == u32::MAX { expiry_s } else { expiry_s.saturating_sub(passed_s) };
    let delay_left_s = delay_s(&will, expiry_s).saturating_sub(passed_s).min(left_s);
    delay(node, broker, &id, will, delay_left_s, left_s);
}
