//! One client's side of the door.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::subject::Subject;

use crate::answer::{Answer, Event, Tag};
use crate::inbox::{Inbox, Submitted};
use crate::live::{RouteCache, Subscriber};
use crate::message::Overflow;
use crate::outbox::{Budget, Outbox, ReplyTo};
use crate::produced::{LiveProduced, Produced};
use crate::publishing::{Publication, Publishing};
use crate::refusal::Refusal;
use crate::request::{Request, Store};
use crate::view::{LogView, RouteView};

/// Requests go down, events come up; both are batches. Dropping it ends its live subscriptions.
pub struct Connection {
    id: u64,
    inbox: Inbox,
    budget: Arc<Budget>,
    outbox: Arc<Outbox>,
    view: Arc<dyn LogView>,
    router: Arc<dyn RouteView>,
    /// Made with the first publish under a subject.
    routes: Option<Box<dyn RouteCache>>,
    publishing: Publishing,
    subscriber: Option<Arc<Subscriber>>,
    /// By the number the session gave: the router's name and the filter.
    subscriptions: HashMap<u32, (u64, Filter)>,
    /// What the last request that found no room would have been charged.
    refused_bytes: usize,
}

/// The node holds as many requests as it may: the request comes back, and the socket is to be left unread.
#[derive(Debug)]
pub struct Full<T = Request>(pub T);

impl Connection {
    pub(crate) fn new(id: u64, inbox: Inbox, budget: Arc<Budget>, view: Arc<dyn LogView>, router: Arc<dyn RouteView>) -> Connection {
        Connection {
            id,
            inbox,
            budget,
            outbox: Arc::default(),
            view,
            router,
            routes: None,
            publishing: Publishing::default(),
            subscriber: None,
            subscriptions: HashMap::new(),
            refused_bytes: 0,
        }
    }

    /// Names the connection among all of the node since it started; never 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn submit(&mut self, tag: Tag, request: Request) -> Result<(), Full> {
        tracing::trace!(target: "path", hop = "Connection::submit");
        let weight = request.weight();
        let Some(charge) = self.budget.charge(weight) else {
            self.refused_bytes = weight;
            return Err(Full(request));
        };
        let reply = ReplyTo::new(self.outbox.clone(), tag, charge);
        if let Err(submitted) = self.inbox.push(Submitted { request, reply }) {
            submitted.reply.answer(Err(Refusal::Stopping)).wake();
        }
        Ok(())
    }

    /// Publishes under subjects, in order: to live subscriptions, to the streams that capture them, and to the retained ones. Answered
    /// with `Answer::Published` when everything guaranteed is durable, in the order of the calls. Guaranteed messages that somebody
    /// stores are shown to live subscriptions when they are durable, and later ones of this connection behind them.
    pub fn publish(&mut self, tag: Tag, publications: Vec<Publication>) -> Result<(), Full<Vec<Publication>>> {
        const PLAIN: usize = 256;
        let weight = publications.iter().map(|publication| publication.message.weight() + PLAIN).sum();
        let Some(charge) = self.budget.charge(weight) else {
            self.refused_bytes = weight;
            return Err(Full(publications));
        };
        let routes = self.routes.get_or_insert_with(|| self.router.cache());
        self.publishing.take(tag, publications, routes.as_mut(), self.id, charge);
        if self.publishing.has_stores() {
            // Who is shown a retained message, and then asks for it, finds it.
            self.store();
        }
        let mut replies = Vec::new();
        self.show(&mut replies);
        if !replies.is_empty() {
            replies.into_iter().for_each(|reply| self.outbox.push(reply));
            self.outbox.wake();
        }
        Ok(())
    }

    /// Looks who else than its own stream is concerned by a batch that is to be produced to it. Adds to `captured` what others store, and
    /// to `live` what live subscriptions are to be shown, with `at`: for `submit_produced`.
    /// `subject` gives the stream's own subject, that of records which name none; a stream without one concerns nobody.
    pub fn concerned(
        &mut self,
        subject: impl FnOnce() -> Option<Subject>,
        produced: &Produced<'_>,
        at: usize,
        captured: &mut Vec<Store>,
        live: &mut Vec<LiveProduced>,
    ) {
        if self.router.is_quiet() {
            return;
        }
        let Some(subject) = subject() else { return };
        let routes = self.routes.get_or_insert_with(|| self.router.cache());
        produced.concern(&subject, routes.as_mut(), self.id, at, captured, live);
    }

    /// As `submit` of a `Request::Publish`, of which these messages are shown to live subscriptions when they are durable.
    pub fn submit_produced(
        &mut self,
        tag: Tag,
        request: Request,
        live: Vec<LiveProduced>,
    ) -> Result<(), Full<(Request, Vec<LiveProduced>)>> {
        if let Err(Full(request)) = self.submit(tag, request) {
            return Err(Full((request, live)));
        }
        if !live.is_empty() {
            self.publishing.watch(tag, live);
        }
        Ok(())
    }

    /// Adds a live subscription under a number of the session's choice, in place of the one that has it. Every publish finds it from
    /// now on. What it gets comes up as `Event::Live`; the first call says for all what happens when they are too many.
    pub fn subscribe(&mut self, subscription: u32, filter: Filter, overflow: Overflow) {
        let subscriber = self
            .subscriber
            .get_or_insert_with(|| Arc::new(Subscriber { id: self.id, overflow, dropped: AtomicU64::new(0), outbox: self.outbox.clone() }));
        let name = self.router.subscribe(subscriber, subscription, &filter);
        if let Some((old, filter)) = self.subscriptions.insert(subscription, (name, filter)) {
            self.router.unsubscribe(old, &filter);
        }
    }

    /// Ends a live subscription; what was matched before may still come.
    pub fn unsubscribe(&mut self, subscription: u32) {
        if let Some((name, filter)) = self.subscriptions.remove(&subscription) {
            self.router.unsubscribe(name, &filter);
        }
    }

    /// Messages that live subscriptions lost for want of room.
    pub fn dropped(&self) -> u64 {
        self.subscriber.as_ref().map_or(0, |subscriber| subscriber.dropped.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Until there is room for the last request that found none. Who waits for several tries all of them again.
    pub fn room(&self) -> impl Future<Output = ()> + Send + use<> {
        let (budget, bytes) = (self.budget.clone(), self.refused_bytes);
        async move { budget.room(bytes).await }
    }

    /// As `room`, for who hears nothing any more: answers that come meanwhile are taken, and with them what held room until they came.
    pub async fn room_at_end(&mut self) {
        let room = self.room();
        tokio::select! {
            () = room => {}
            _ = self.events() => {}
        }
    }

    /// Everything that is ready, in order; waits until something is. Safe to drop while waiting.
    pub async fn events(&mut self) -> Vec<Event> {
        loop {
            let events = self.outbox.take().await;
            let events = self.heard(events);
            if !events.is_empty() {
                tracing::trace!(target: "path", hop = "Connection::events");
                return events;
            }
        }
    }

    /// Everything that is ready, in order, without waiting.
    pub fn try_events(&mut self) -> Vec<Event> {
        let events = self.outbox.try_take();
        self.heard(events)
    }

    /// Takes out what concerns publishes that are not yet shown, and shows what may be.
    fn heard(&mut self, events: Vec<Event>) -> Vec<Event> {
        if self.publishing.is_settled() {
            return events;
        }
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            match event {
                Event::Reply { tag, result } => match self.publishing.answered(tag, result) {
                    None => self.show(&mut out),
                    Some(result) => out.push(Event::Reply { tag, result }),
                },
                event => out.push(event),
            }
        }
        out
    }

    /// Shows what may be shown, and has stored what may be stored.
    fn show(&mut self, replies: &mut Vec<Event>) {
        let view = &self.view;
        self.publishing.show(&|partition, offset| place_of(&**view, partition, offset), replies);
        self.store();
    }

    /// Asks for what may be stored.
    fn store(&mut self) {
        while let Some((tag, stores, charge)) = self.publishing.next_stores() {
            let reply = ReplyTo::new(self.outbox.clone(), tag, charge);
            if let Err(submitted) = self.inbox.push(Submitted { request: Request::Store(stores), reply }) {
                submitted.reply.answer(Err(Refusal::Stopping)).wake();
            }
        }
    }

    /// Ends the live subscriptions and waits until everything that was published is durable and shown, whoever is still there to hear.
    pub async fn finish(mut self) {
        self.end_subscriptions();
        while !self.publishing.is_settled() {
            self.events().await;
        }
    }

    /// One request, awaited: for the command line, jobs and tests. The connection must have nothing else under way.
    pub async fn call(&mut self, request: Request) -> Result<Answer, Refusal> {
        let mut request = request;
        while let Err(Full(back)) = self.submit(Tag(u64::MAX), request) {
            self.room().await;
            request = back;
        }
        loop {
            // What else comes up, such as word of records that a queue lost, is for a session.
            let reply = |event| if let Event::Reply { result, .. } = event { Some(result) } else { None };
            if let Some(result) = self.events().await.into_iter().find_map(reply) {
                return result;
            }
        }
    }

    fn end_subscriptions(&mut self) {
        for (_, (name, filter)) in self.subscriptions.drain() {
            self.router.unsubscribe(name, &filter);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end_subscriptions();
    }
}

/// Where the journal has what was stored; what lies elsewhere by now is before all that is durable.
fn place_of(view: &dyn LogView, partition: PartitionId, offset: Offset) -> Position {
    view.position_of(partition, offset).unwrap_or_else(|| view.shown())
}
