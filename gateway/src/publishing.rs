//! The part of a connection that publishes: what is shown at once, and what waits until it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::limits::JOINED_BYTES_MAX;

use crate::answer::{Answer, Event, Published, Stored, Tag};
use crate::cursors::Receipt;
use crate::live::{RouteCache, Routes, Subscriber};
use crate::message::{LiveDelivery, Message};
use crate::outbox::Charge;
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
    after: After,
    /// Of a call that became several parts: the results of those that are done.
    results: Vec<Result<Published, Refusal>>,
    parts: u64,
}

/// Tags of parts of a call, which are not the session's.
const PART: u64 = 1 << 63;

/// The last guaranteed message that was stored and shown: what is not stored is shown behind it.
#[derive(Default)]
struct After {
    /// Not looked up yet: most connections never mix the two.
    at: Option<(PartitionId, Offset)>,
    position: Position,
}

/// Where the journal has a batch.
pub(crate) type PositionOf<'a> = &'a dyn Fn(PartitionId, Offset) -> Position;

impl After {
    fn position(&mut self, position_of: PositionOf<'_>) -> Position {
        if let Some((partition, offset)) = self.at.take() {
            self.position = position_of(partition, offset);
        }
        self.position
    }
}

/// What one call published, or a part of it.
struct Unshown {
    tag: Tag,
    /// More of the same call follows.
    goes_on: bool,
    items: Vec<Item>,
    /// What the shard is still to be asked to store.
    stores: Vec<Store>,
    charge: Option<Charge>,
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

impl Item {
    /// It is shown live, without waiting for a disk, though others may store it too.
    fn is_only_shown(&self) -> bool {
        !self.message.guaranteed && !self.routes.live.is_empty()
    }

    /// It is shown when it is durable.
    fn waits(&self) -> bool {
        self.message.guaranteed && self.store.is_some()
    }
}

impl Publishing {
    /// Whether everything was shown.
    pub fn is_settled(&self) -> bool {
        self.unshown.is_empty()
    }

    /// Matches the messages and takes them in. What is to be stored comes from `next_stores`; what is not is shown by the next `show`.
    ///
    /// A guaranteed message that follows one which is only shown live, and that in turn follows a guaranteed one, begins a part of its own:
    /// who reads what is stored and gets the rest live could otherwise see it before.
    pub fn take(&mut self, tag: Tag, publications: Vec<Publication>, routes: &mut dyn RouteCache, publisher: u64, mut charge: Charge) {
        let mut joining = Joining::default();
        let mut items: Vec<Item> = Vec::with_capacity(publications.len());
        for Publication { mut message, receipt } in publications {
            message.publisher = publisher;
            let routes = routes.routes(&message.subject);
            let captured = routes.captures.iter().any(|capture| message.guaranteed || !capture.stream.policy.hidden);
            let message = Arc::new(message);
            let is_stored = captured || message.retain || receipt.is_some();
            if is_stored && message.guaranteed && items.last().is_some_and(Item::is_only_shown) && items.iter().any(Item::waits) {
                self.parts += 1;
                let bytes = items.iter().map(|item| item.message.weight()).sum();
                let (items, stores) = (std::mem::take(&mut items), std::mem::take(&mut joining).stores());
                self.push(Tag(PART | self.parts), true, items, stores, charge.split(bytes));
            }
            let store = is_stored.then(|| joining.add(&message, &routes, receipt));
            if store.is_none() {
                joining.part();
            }
            items.push(Item { message, routes, store, shown: false });
        }
        self.push(tag, false, items, joining.stores(), charge);
    }

    fn push(&mut self, tag: Tag, goes_on: bool, items: Vec<Item>, stores: Vec<Store>, charge: Charge) {
        let stored = stores.is_empty().then(|| Ok(Vec::new()));
        let charge = (!stores.is_empty()).then_some(charge);
        self.unshown.push_back(Unshown { tag, goes_on, items, stores, charge, stored, answer: None });
    }

    /// Whether the last call is to be asked for.
    pub fn has_stores(&self) -> bool {
        self.unshown.back().is_some_and(|unshown| unshown.charge.is_some())
    }

    /// What the shard is to be asked next. Nothing guaranteed while an earlier message that is only shown live waits to be.
    pub fn next_stores(&mut self) -> Option<(Tag, Vec<Store>, Charge)> {
        let is_pending = |item: &Item| !item.shown && item.is_only_shown();
        for unshown in &mut self.unshown {
            let waits = unshown.items.iter().position(Item::waits);
            if waits.is_some_and(|at| unshown.items[..at].iter().any(is_pending)) {
                return None;
            }
            if let Some(charge) = unshown.charge.take() {
                return Some((unshown.tag, std::mem::take(&mut unshown.stores), charge));
            }
            if unshown.items.iter().any(is_pending) {
                return None;
            }
        }
        None
    }

    /// Messages that a `Request::Publish` with this tag holds, each with the place of its batch: shown when that is durable.
    pub fn watch(&mut self, tag: Tag, messages: Vec<LiveProduced>) {
        let item = |(at, message, routes)| Item { message, routes, store: Some(at), shown: false };
        let items = messages.into_iter().map(item).collect();
        self.unshown.push_back(Unshown { tag, goes_on: false, items, stores: Vec::new(), charge: None, stored: None, answer: None });
    }

    /// The shard's answer. Gives it back if it is not the answer to a publish.
    pub fn answered(&mut self, tag: Tag, result: Result<Answer, Refusal>) -> Option<Result<Answer, Refusal>> {
        let waiting = self.unshown.iter_mut().find(|unshown| unshown.tag == tag && unshown.stored.is_none());
        match (waiting, result) {
            (Some(unshown), Ok(Answer::Stored(stored))) => unshown.stored = Some(Ok(stored)),
            (Some(unshown), Ok(Answer::Placed(placed))) => {
                let stored = placed.iter().map(|placed| match placed {
                    Ok(placed) => Ok(Stored { captures: 1, duplicate: placed.duplicate, at: None }),
                    Err(refusal) => Err(refusal.clone()),
                });
                unshown.stored = Some(Ok(stored.collect()));
                unshown.answer = Some(Ok(Answer::Placed(placed)));
            }
            (Some(unshown), Err(refusal)) => unshown.stored = Some(Err(refusal)),
            (_, result) => return Some(result),
        }
        None
    }

    /// Shows what may be shown and gives the replies of what is done, in order.
    pub fn show(&mut self, position_of: PositionOf<'_>, events: &mut Vec<Event>) {
        let mut woken: Vec<Arc<Subscriber>> = Vec::new();
        for unshown in &mut self.unshown {
            unshown.show(&mut self.after, position_of, &mut woken);
            if unshown.items.last().is_some_and(|item| !item.shown) {
                break;
            }
        }
        let is_done = |unshown: &Unshown| unshown.stored.is_some() && unshown.items.last().is_none_or(|item| item.shown);
        while let Some(done) = self.unshown.pop_front_if(|unshown| is_done(unshown)) {
            let result = match (done.answer, done.stored) {
                (Some(answer), _) => answer,
                (None, Some(stored)) => {
                    self.results.extend(done.items.iter().map(|item| outcome(item, &stored)));
                    if done.goes_on {
                        continue;
                    }
                    Ok(Answer::Published(std::mem::take(&mut self.results)))
                }
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
    groups: Vec<Joined>,
    /// Of the last group.
    bytes: usize,
}

struct Joined {
    messages: Vec<Arc<Message>>,
    routes: Arc<Routes>,
    receipt: Option<Receipt>,
}

impl Joining {
    /// Gives the place of the batch that the message will be in.
    fn add(&mut self, message: &Arc<Message>, routes: &Arc<Routes>, receipt: Option<Receipt>) -> usize {
        // What the shard does with single messages it does with the only one of a batch.
        let is_plain = |message: &Message| !message.retain && message.key.is_none() && message.expires.is_none();
        let bytes = message.weight();
        if let Some(Joined { messages, routes: with, receipt: None }) = self.groups.last_mut()
            && let Some(last) = messages.last()
            && Arc::ptr_eq(with, routes)
            && (last.guaranteed, &last.subject, receipt.is_none()) == (message.guaranteed, &message.subject, true)
            && is_plain(last)
            && is_plain(message)
            && self.bytes + bytes <= JOINED_BYTES_MAX
        {
            messages.push(message.clone());
            self.bytes += bytes;
        } else {
            self.groups.push(Joined { messages: vec![message.clone()], routes: routes.clone(), receipt });
            self.bytes = bytes;
        }
        self.groups.len() - 1
    }

    /// What comes next is not joined to what was: something else came between.
    fn part(&mut self) {
        self.bytes = JOINED_BYTES_MAX;
    }

    fn stores(self) -> Vec<Store> {
        let store = |Joined { messages, routes, receipt }: Joined| Store {
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

/// Both go to the same subscribers, and behind the same.
fn alike(one: &Item, other: &Item) -> bool {
    Arc::ptr_eq(&one.routes, &other.routes) && one.waits() == other.waits()
}

impl Unshown {
    /// Shows the items in order up to the first that must be durable first and is not.
    fn show(&mut self, after: &mut After, position_of: PositionOf<'_>, woken: &mut Vec<Arc<Subscriber>>) {
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
            let run = self.items[at..].iter().take_while(|item| alike(item, first) && may_show(item) == Some(visible));
            let end = at + run.count();
            if visible && !first.routes.live.is_empty() {
                let after = after.position(position_of);
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
            if let Some(Ok(stored)) = &self.stored {
                let of_item = |item: &Item| stored.get(item.store.filter(|_| item.message.guaranteed)?)?.as_ref().ok()?.at;
                after.at = self.items[at..end].iter().rev().find_map(of_item).or(after.at);
            }
            self.items[at..end].iter_mut().for_each(|item| item.shown = true);
            at = end;
        }
    }
}

#[cfg(test)]
#[path = "publishing_tests.rs"]
mod tests;
