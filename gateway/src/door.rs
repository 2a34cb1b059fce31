//! The handle on the broker that protocols get.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firth_model::ledger::Shares;
use firth_model::time::{Clock, Millis};

use crate::connection::Connection;
use crate::inbox::Inbox;
use crate::outbox::Budget;
use crate::view::{LogView, RouteView};

/// A cheap handle on the broker: opens connections and looks at the log.
#[derive(Clone)]
pub struct Broker {
    inbox: Inbox,
    view: Arc<dyn LogView>,
    router: Arc<dyn RouteView>,
    connections: Arc<AtomicU64>,
    budget: Arc<Budget>,
    answers: Arc<Budget>,
    clock: Clock,
    node: Arc<NodeInfo>,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub id: i32,
    pub cluster: uuid::Uuid,
}

impl Broker {
    pub fn new(inbox: Inbox, view: Arc<dyn LogView>, router: Arc<dyn RouteView>, clock: Clock, node: NodeInfo) -> Broker {
        let shares = Shares::default();
        let (budget, answers) = (Budget::with_max(shares.requests), Budget::with_max(shares.responses));
        let connections = Arc::default();
        Broker { inbox, view, router, connections, budget, answers, clock, node: Arc::new(node) }
    }

    /// With these shares of memory in place of a large machine's. For before the first `connect`.
    pub fn bounded(self, shares: &Shares) -> Broker {
        Broker { budget: Budget::with_max(shares.requests), answers: Budget::with_max(shares.responses), ..self }
    }

    pub fn connect(&self) -> Connection {
        let id = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Connection::new(id, self.inbox.clone(), self.budget.clone(), self.view.clone(), self.router.clone())
    }

    pub fn view(&self) -> &Arc<dyn LogView> {
        &self.view
    }

    pub fn node(&self) -> &NodeInfo {
        &self.node
    }

    /// Bytes of requests that may be read from sockets or wait for the shard, over all connections.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Bytes of records in answers that no socket took yet, over all connections.
    pub fn answers(&self) -> &Arc<Budget> {
        &self.answers
    }

    pub fn now(&self) -> Millis {
        (self.clock)()
    }
}
