//! The end of a connection: its will, its session, its last publishes.

use std::sync::Arc;
use std::time::Duration;

use firth_gateway::answer::Tag;
use firth_gateway::connection::{Connection, Full};
use firth_gateway::cursors::{CursorMove, Keep, Settle, Settlement};
use firth_gateway::door::Broker;
use firth_gateway::request::Request;

use crate::codec::connect::Will;
use crate::codec::reason::ReasonCode;
use crate::codec::text::Text;
use crate::node::Node;
use crate::notes::NOTE_WILL;
use crate::receive::is_reserved;
use crate::resume::WAITS_FOR_PUBACK;
use crate::session::{Ending, Session};
use crate::wills::{delay_s, publish, publish_all, publish_alone, will_message, will_receipt};

/// How long the last bytes to a client may take.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// What a session's expiry interval is to the broker.
pub fn keep_of(expiry_s: u32) -> Keep {
    if expiry_s == u32::MAX { Keep::Ever } else { Keep::For(u64::from(expiry_s) * 1000) }
}

impl Session {
    /// Ends the connection: everything it published is shown, and its session is free, when its identifier is.
    pub async fn leave(mut self: Box<Self>, ending: Ending) {
        match ending {
            Ending::Refused(reason) => self.say_why(reason),
            Ending::TakenOver => self.say_why(ReasonCode::SessionTakenOver),
            Ending::Removed => {
                self.say_why(ReasonCode::AdministrativeAction);
                self.client.expiry_s = 0;
            }
            Ending::Stopping => self.say_why(ReasonCode::ServerShuttingDown),
            Ending::Left { .. } | Ending::Lost => {}
        }
        // The client hears at once; whether it listens must not hold up anybody.
        tokio::select! {
            biased;
            _ = self.wire.turn(false), if self.wire.has_unsent() => {}
            () = std::future::ready(()) => {}
        }
        // Before the will, as it was sent.
        if let Some((tag, batch)) = self.inbound.held.take() {
            publish_all(&mut self.connection, tag, batch).await;
        }
        self.mark_unacknowledged();
        self.flush_settles();
        let delayed = self.leave_will(ending).await;
        let expiry_s = self.client.expiry_s;
        let session_stays = expiry_s > 0 && self.durable.is_some();
        if !session_stays {
            self.end_left_flights();
        }
        for (tag, request) in std::mem::take(&mut self.held) {
            insist(&mut self.connection, tag, request).await;
        }
        self.leave_groups(session_stays);
        let Session { node, broker, client, seat, mut wire, connection, durable, .. } = *self;
        connection.finish().await;
        if let Some(durable) = durable {
            // Behind the will, which takes its note out of the session.
            let detach = CursorMove::Detach { attachment: durable.attachment, keep: Some(keep_of(expiry_s)) };
            insist(&mut broker.connect(), Tag(u64::MAX), Request::Cursor(Box::new(detach))).await;
            if expiry_s == 0 {
                node.registry.dropped(&client.id);
            }
        }
        if let Some((will, delay_s)) = delayed {
            delay(&node, &broker, &client.id, will, Duration::from_secs(u64::from(delay_s)));
        }
        drop(seat);
        let _ = tokio::time::timeout(GOODBYE_TIME, wire.close()).await;
    }

    /// Remembers on disk which messages of QoS 1 wait for their PUBACK, and under which identifiers.
    fn mark_unacknowledged(&mut self) {
        let unacknowledged = self.window.unacknowledged();
        let Some(durable) = self.durable.as_mut().filter(|_| self.client.expiry_s > 0) else { return };
        durable.settles.extend(unacknowledged.into_iter().map(|(source, id)| {
            let what = Settlement::Mark { offset: source.offset, tag: u32::from(id.get()), stage: WAITS_FOR_PUBACK };
            Settle { partition: source.partition, what }
        }));
    }

    /// Publishes the will, or gives it back with its delay. What a persistent session keeps of one that is done with goes.
    async fn leave_will(&mut self, ending: Ending) -> Option<(Will, u32)> {
        let will = *self.will.take()?;
        let wanted = match ending {
            Ending::Left { will } => will,
            // A node that comes back publishes what its sessions kept.
            Ending::Stopping => self.durable.is_none(),
            Ending::Lost | Ending::Refused(_) | Ending::TakenOver | Ending::Removed => true,
        };
        let delay_s = delay_s(&will, self.client.expiry_s);
        // Who takes a session over that goes on takes the will back; who ends the session publishes it.
        let goes_on = ending == Ending::TakenOver && self.client.expiry_s > 0;
        let delay_s = if goes_on { delay_s.max(1) } else { delay_s };
        if wanted && delay_s > 0 && ending != Ending::Stopping {
            return Some((will, delay_s));
        }
        if wanted
            && let Some(message) = will_message(&will, self.broker.now())
            && !is_reserved(&message.subject)
        {
            let receipt = self.durable.as_ref().and_then(|_| will_receipt(&self.client.id));
            publish(&mut self.connection, message, receipt).await;
        } else if let Some(durable) = &self.durable
            && ending != Ending::Stopping
        {
            let forget = CursorMove::Note { attachment: durable.attachment, notes: vec![(NOTE_WILL, None)] };
            self.ask_cursor(forget, None);
        }
        None
    }
}

/// Publishes a will after its delay.
pub fn delay(node: &Arc<Node>, broker: &Broker, id: &Text, will: Will, delay: Duration) {
    let (own, broker, key) = (node.clone(), broker.clone(), id.clone());
    let fire = async move |will: Will| {
        let Some(message) = will_message(&will, broker.now()).filter(|message| !is_reserved(&message.subject)) else { return };
        // A client that is back in this moment keeps a will of its own there, or none.
        let seat = own.registry.claim_free(key);
        let receipt = seat.as_ref().and_then(|seat| will_receipt(&seat.id));
        publish_alone(&broker, message, receipt).await;
    };
    node.delayed.schedule(id, will, delay, fire, node.clone());
}

/// Asks, whatever it takes; nobody waits for the answer.
async fn insist(connection: &mut Connection, tag: Tag, request: Request) {
    let mut request = request;
    while let Err(Full(back)) = connection.submit(tag, request) {
        connection.room_at_end().await;
        request = back;
    }
}
