//! What a connection does for others: says what it is, and has sessions removed.

use firth_gateway::answer::Published;

use crate::codec::text::Text;
use crate::described::{Described, FILTERS_MAX};
use crate::inbound::{Ack, Pending};
use crate::registry::Call;
use crate::session::Session;
use crate::sessions::remove;

impl Session {
    fn describe(&self) -> Described {
        let all = self.subscriptions.all().map(|(_, one)| (one.text.clone(), one.options.qos));
        Described {
            durable: self.durable.is_some(),
            version: self.client.version,
            address: self.wire.peer,
            expiry_s: self.client.expiry_s,
            subscriptions: self.subscriptions.count(),
            filters: all.take(FILTERS_MAX).collect(),
            in_flight: self.window.count(),
            waiting: self.queue.iter().count(),
        }
    }

    /// Ends a session, somebody's or its own; `ack` is answered when that is durable.
    pub fn remove_session(&mut self, id: Text, ack: Option<Ack>) {
        self.publish_batch();
        let tag = self.tag();
        let acks: Vec<Ack> = ack.into_iter().collect();
        self.inbound.undone += 1 + acks.len();
        self.inbound.pending.push_back(Pending { tag, acks, publications: 1, results: None });
        let (node, broker, caller) = (self.node.clone(), self.broker.clone(), self.seat.caller());
        tokio::spawn(async move { caller.call(Call::Removed(tag, remove(&node, &broker, id).await)) });
    }

    /// What the node wants of this connection.
    pub fn answer_call(&mut self, call: Call) {
        match call {
            Call::Describe(asker) => {
                // Who asked may be gone.
                let _ = asker.send(self.describe());
            }
            Call::Removed(tag, result) => {
                let published = |was_there| Ok(Published { matches: u32::from(was_there), duplicate: false });
                self.published(tag, result.map(|was_there| vec![published(was_there)]));
            }
        }
    }
}
