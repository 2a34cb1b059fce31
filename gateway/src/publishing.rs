//! The part of a connection that publishes: what is shown at once, and what waits until it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_model::ids::Position;
use firth_model::limits::JOINED_BYTES_MAX;

use crate::answer::{Answer, Event, Published, Stored, Tag};
use crate::cursors::Receipt;
use crate::live::{LiveDelivery, RouteCache, Routes, Subscriber};
use crate::message::Message;
use crate::produced::LiveProduced;
use crate::refusal::Refusal;
use crate::request::Store;
use crate::stored;

/// One message to be published under its subject.
#[derive(Debug)]
pub struct Publication {
    pub message: Message,
    /// What it leaves with a cursor; only of a guaranteed one.
    pub receipt: Option<Receipt>,
}

/// Publishes of one connection that are not yet shown, oldest first: later ones follow earlier ones.
#[derive(Default)]
pub(crate) struct Publishing {
    unshown: VecDeque<Unshown>,
}

/// What one call published.
struct Unshown {
    tag: Tag,
    items: Vec<Item>,
    /// `None`: the shard has not answered yet.
    stored: Option<Result<Vec<Result<Stored, Refusal>>, Refusal>>,
    /// The answer as it came, where the asker wants that.
    answer: Option<Result<Answer, Refusal>>,
}

struct Item {
    message: Arc<Message>,
    routes: Arc<Routes>,
    /// Its place among what the shard was asked to store.
    store: Option<usize>,
    shown: bool,
}

impl Publishing {
    /// Whether everything was shown.
    pub fn is_settled(&self) -> bool {
        self.unshown.is_empty()
    }

    /// Matches the messages and takes them in. Gives what is to be stored; if nothing is, all of it is shown by the next `show`.
    pub fn take(&mut self, tag: Tag, publications: Vec<Publication>, routes: &mut dyn RouteCache, publisher: u64) -> Vec<Store> {
        let mut joining = Joining::default();
        let mut items = Vec::with_capacity(publications.len());
        for Publication { mut message, receipt } in publications {
            message.publisher = publisher;
            let routes = routes.routes(&message.subject);
            let captured = routes.captures.iter().any(|capture| message.guaranteed || !capture.stream.policy.hidden);
            let message = Arc::new(message);
            let store = (captured || message.retain || receipt.is_some()).then(|| joining.add(&message, &routes, receipt));
            items.push(Item { message, routes, store, shown: false });
        }
        let stores = joining.stores();
        let stored = stores.is_empty().then(|| Ok(Vec::new()));
        self.unshown.push_back(Unshown { tag, items, stored, answer: None });
        stores
    }

    /// Messages that a `Request::Publish` with this tag holds, each with the place of its batch: shown when that is durable.
    pub fn watch(&mut self, tag: Tag, messages: Vec<LiveProduced>) {
        let item = |(at, message, routes)| Item { message, routes, store: Some(at), shown: false };
        self.unshown.push_back(Unshown { tag, items: messages.into_iter().map(item).collect(), stored: None, answer: None });
    }

    /// The shard's answer. False if it is not the answer to a publish.
    pub fn answered(&mut self, tag: Tag, result: Result<Answer, Refusal>) -> Result<(), Result<Answer, Refusal>> {
        let waiting = self.unshown.iter_mut().find(|unshown| unshown.tag == tag && unshown.stored.is_none());
        match (waiting, result) {
            (Some(unshown), Ok(Answer::Stored(stored))) => unshown.stored = Some(Ok(stored)),
            (Some(unshown), Ok(Answer::Placed(placed))) => {
                let stored = placed.iter().map(|placed| match placed {
                    Ok(placed) => Ok(Stored { captures: 1, duplicate: placed.duplicate }),
                    Err(refusal) => Err(refusal.clone()),
                });
                unshown.stored = Some(Ok(stored.collect()));
                unshown.answer = Some(Ok(Answer::Placed(placed)));
            }
            (Some(unshown), Err(refusal)) => unshown.stored = Some(Err(refusal)),
            (_, result) => return Err(result),
        }
        Ok(())
    }

    /// Shows what may be shown and gives the replies of what is done, in order.
    pub fn show(&mut self, after: Position, events: &mut Vec<Event>) {
        let mut woken: Vec<Arc<Subscriber>> = Vec::new();
        for unshown in &mut self.unshown {
            unshown.show(after, &mut woken);
            if unshown.items.last().is_some_and(|item| !item.shown) {
                break;
            }
        }
        let is_done = |unshown: &Unshown| unshown.stored.is_some() && unshown.items.last().is_none_or(|item| item.shown);
        while let Some(done) = self.unshown.pop_front_if(|unshown| is_done(unshown)) {
            let result = match (done.answer, done.stored) {
                (Some(answer), _) => answer,
                (None, Some(stored)) => Ok(Answer::Published(done.items.iter().map(|item| outcome(item, &stored)).collect())),
                (None, None) => Err(Refusal::Stopping),
            };
            events.push(Event::Reply { tag: done.tag, result });
        }
        woken.iter().for_each(|subscriber| subscriber.wake());
    }
}

/// Messages to be stored, those that follow each other under one subject as one batch.
#[derive(Default)]
struct Joining {
    groups: Vec<(Vec<Arc<Message>>, Arc<Routes>, Option<Receipt>)>,
    /// Of the last group.
    bytes: usize,
}

impl Joining {
    /// Gives the place of the batch that the message will be in.
    fn add(&mut self, message: &Arc<Message>, routes: &Arc<Routes>, receipt: Option<Receipt>) -> usize {
        // What the shard does with single messages it does with the only one of a batch.
        let is_plain = |message: &Message| !message.retain && message.key.is_none() && message.expires.is_none();
        let bytes = message.weight();
        if let Some((joined, with, None)) = self.groups.last_mut()
            && let Some(last) = joined.last()
            && Arc::ptr_eq(with, routes)
            && (last.guaranteed, &last.subject, receipt.is_none()) == (message.guaranteed, &message.subject, true)
            && is_plain(last)
            && is_plain(message)
            && self.bytes + bytes <= JOINED_BYTES_MAX
        {
            joined.push(message.clone());
            self.bytes += bytes;
        } else {
            self.groups.push((vec![message.clone()], routes.clone(), receipt));
            self.bytes = bytes;
        }
        self.groups.len() - 1
    }

    fn stores(self) -> Vec<Store> {
        let store = |(messages, routes, receipt): (Vec<Arc<Message>>, _, _)| Store {
            batch: stored::batch(messages.iter().map(|message| &**message)),
            message: messages[0].clone(),
            routes,
            origin: None,
            receipt,
        };
        self.groups.into_iter().map(store).collect()
    }
}

fn outcome(item: &Item, stored: &Result<Vec<Result<Stored, Refusal>>, Refusal>) -> Result<Published, Refusal> {
    let live = u32::try_from(item.routes.live.len()).unwrap_or(u32::MAX);
    let Some(at) = item.store else { return Ok(Published { matches: live, duplicate: false }) };
    match stored {
        Ok(results) => match results.get(at) {
            Some(Ok(stored)) => Ok(Published { matches: live.saturating_add(stored.captures), duplicate: stored.duplicate }),
            Some(Err(refusal)) => Err(refusal.clone()),
            None => Err(Refusal::Stopping),
        },
        Err(refusal) => Err(refusal.clone()),
    }
}

impl Unshown {
    /// Shows the items in order up to the first that must be durable first and is not.
    fn show(&mut self, after: Position, woken: &mut Vec<Arc<Subscriber>>) {
        let stored = &self.stored;
        let may_show = |item: &Item| match (item.store.filter(|_| item.message.guaranteed), stored) {
            (None, _) => Some(true),
            (Some(_), None) => None,
            (Some(at), Some(Ok(results))) => Some(matches!(results.get(at), Some(Ok(stored)) if !stored.duplicate)),
            (Some(_), Some(Err(_))) => Some(false),
        };
        let mut at = self.items.iter().position(|item| !item.shown).unwrap_or(self.items.len());
        while let Some(first) = self.items.get(at) {
            let Some(visible) = may_show(first) else { break };
            // A run of one subject goes to each subscriber at once.
            let run =
                self.items[at..].iter().take_while(|item| Arc::ptr_eq(&item.routes, &first.routes) && may_show(item) == Some(visible));
            let end = at + run.count();
            if visible {
                for route in &first.routes.live {
                    let deliveries = self.items[at..end].iter().map(|item| LiveDelivery {
                        message: item.message.clone(),
                        subscriptions: route.subscriptions.clone(),
                        after,
                    });
                    if route.subscriber.push(deliveries) {
                        woken.push(route.subscriber.clone());
                    }
                }
            }
            self.items[at..end].iter_mut().for_each(|item| item.shown = true);
            at = end;
        }
    }
}
