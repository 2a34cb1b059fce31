//! The part of a connection that publishes: what is shown at once, and what waits until it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_model::ids::Position;

use crate::answer::{Answer, Event, Published, Stored, Tag};
use crate::cursors::Receipt;
use crate::live::{LiveDelivery, RouteCache, Routes, Subscriber};
use crate::message::Message;
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
        let mut stores = Vec::new();
        let mut items = Vec::with_capacity(publications.len());
        for Publication { mut message, receipt } in publications {
            message.publisher = publisher;
            let routes = routes.routes(&message.subject);
            let captured = routes.captures.iter().any(|stream| message.guaranteed || !stream.policy.hidden);
            let message = Arc::new(message);
            let store = (captured || message.retain || receipt.is_some()).then(|| {
                stores.push(Store { message: message.clone(), batch: stored::batch(&message), routes: routes.clone(), receipt });
                stores.len() - 1
            });
            items.push(Item { message, routes, store, shown: false });
        }
        let stored = stores.is_empty().then(|| Ok(Vec::new()));
        self.unshown.push_back(Unshown { tag, items, stored });
        stores
    }

    /// The shard's answer. False if it is not the answer to a publish.
    pub fn answered(&mut self, tag: Tag, result: Result<Answer, Refusal>) -> Result<(), Result<Answer, Refusal>> {
        let waiting = self.unshown.iter_mut().find(|unshown| unshown.tag == tag && unshown.stored.is_none());
        match (waiting, result) {
            (Some(unshown), Ok(Answer::Stored(stored))) => unshown.stored = Some(Ok(stored)),
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
        while let Some(unshown) = self.unshown.front()
            && unshown.items.last().is_none_or(|item| item.shown)
            && let Some(stored) = &unshown.stored
        {
            let results = unshown.items.iter().map(|item| outcome(item, stored)).collect();
            events.push(Event::Reply { tag: unshown.tag, result: Ok(Answer::Published(results)) });
            self.unshown.pop_front();
        }
        woken.iter().for_each(|subscriber| subscriber.wake());
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
