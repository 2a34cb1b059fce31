//! One client's side of the door.

use std::sync::Arc;

use crate::answer::{Answer, Event, Tag};
use crate::inbox::{Inbox, Submitted};
use crate::outbox::{Budget, Outbox, ReplyTo};
use crate::refusal::Refusal;
use crate::request::Request;

/// Requests go down, events come up; both are batches.
pub struct Connection {
    inbox: Inbox,
    budget: Arc<Budget>,
    outbox: Arc<Outbox>,
}

/// The node holds as many requests as it may: the request comes back, and the socket is to be left unread.
#[derive(Debug)]
pub struct Full(pub Request);

impl Connection {
    pub fn new(inbox: Inbox, budget: Arc<Budget>) -> Connection {
        Connection { inbox, budget, outbox: Arc::new(Outbox::default()) }
    }

    pub fn submit(&mut self, tag: Tag, request: Request) -> Result<(), Full> {
        tracing::trace!(target: "path", hop = "Connection::submit");
        let Some(charge) = self.budget.charge(request.weight()) else {
            return Err(Full(request));
        };
        let reply = ReplyTo::new(self.outbox.clone(), tag, charge);
        if let Err(submitted) = self.inbox.push(Submitted { request, reply }) {
            submitted.reply.answer(Err(Refusal::Stopping)).wake();
        }
        Ok(())
    }

    /// Until `submit` will accept again.
    pub async fn room(&mut self) {
        self.budget.room().await;
    }

    /// Everything that is ready, in order; waits until something is. Safe to drop while waiting.
    pub async fn events(&mut self) -> Vec<Event> {
        let events = self.outbox.take().await;
        tracing::trace!(target: "path", hop = "Connection::events");
        events
    }

    /// One request, awaited: for the command line, jobs and tests. The connection must have nothing else under way.
    pub async fn call(&mut self, request: Request) -> Result<Answer, Refusal> {
        let mut request = request;
        while let Err(Full(back)) = self.submit(Tag(u64::MAX), request) {
            self.room().await;
            request = back;
        }
        let mut events = self.events().await;
        match events.pop() {
            Some(Event::Reply { result, .. }) => result,
            None => Err(Refusal::Stopping),
        }
    }
}
