//! Groups of shared subscriptions: who is in them, and what is handed to whom (MQTT 5.0 section 4.8.2).
//!
//! A group is one cursor, read by a task of its own (`group_run.rs`). Members take messages from their inbox as their windows allow; what
//! a member leaves there goes back to the group.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use firth_gateway::connection::Connection;
use firth_gateway::cursors::{Attachment, CursorMove};
use firth_gateway::message::Message;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Request;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};
use firth_model::limits::MQTT_SHARED_AHEAD;

use crate::codec::text::Text;
use crate::held::{Held, Place, cursor_name, settle_of};

/// All groups of a node, by the topic filter of their subscriptions: `$share/{group}/{filter}`.
#[derive(Default)]
pub struct Groups {
    by_text: Mutex<HashMap<Text, Arc<Group>>>,
    /// What sessions have in flight of groups that nobody runs.
    held: Mutex<HashMap<Text, Held>>,
}

pub struct Group {
    pub text: Text,
    pub filter: Filter,
    pub cursor: Bytes,
    state: Mutex<State>,
    pub bell: Notify,
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    /// Whose turn it is.
    turn: usize,
    /// Clients whose sessions are subscribed, connected or not.
    subscribers: HashSet<Text>,
    /// Members that wait until the group stores what is published.
    joining: Vec<Member>,
    place: Option<(Attachment, PartitionId)>,
    /// What members did not take after all.
    returned: BTreeMap<Offset, Arc<Message>>,
    settled: Vec<Offset>,
    /// QoS 2 messages in flight to members that are not connected.
    in_flight: HashMap<Text, Vec<Place>>,
    /// Those of them that the group has not read yet: they are handed to nobody.
    elsewhere: HashSet<Offset>,
    /// What clients that left the group go on with at QoS 2.
    leaving: HashSet<Offset>,
}

#[derive(Clone)]
struct Member {
    client: Text,
    number: u32,
    at: usize,
    inbox: Arc<MemberInbox>,
    /// Before the group was ready: it hears of that, and is handed nothing.
    has_left: bool,
}

/// What groups hand to one connected client.
#[derive(Default)]
pub struct MemberInbox {
    waiting: Mutex<VecDeque<Handout>>,
    /// A group has something for the client that did not fit. Changed under the lock of `waiting`.
    found_full: AtomicBool,
    pub bell: Notify,
}

pub enum Handout {
    /// The group stores for this subscription from now on, or cannot.
    Joined {
        at: usize,
        number: u32,
        result: Result<PartitionId, Refusal>,
    },
    Message(Handed),
}

/// A message of a group, for one subscription of the client.
pub struct Handed {
    pub group: Arc<Group>,
    pub number: u32,
    pub message: Arc<Message>,
    /// `None`: it is not stored.
    pub offset: Option<Offset>,
}

impl MemberInbox {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Handout>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        let waiting = self.lock();
        let has_room = waiting.len() < MQTT_SHARED_AHEAD;
        if !has_room {
            self.found_full.store(true, Ordering::Relaxed);
        }
        has_room
    }

    fn push(&self, handout: Handout) {
        self.lock().push_back(handout);
        self.bell.notify_one();
    }

    pub fn pop(&self) -> Option<Handout> {
        self.lock().pop_front()
    }

    /// True, once: a group found it full, and half of it was taken since.
    pub fn has_room_again(&self) -> bool {
        let waiting = self.lock();
        waiting.len() <= MQTT_SHARED_AHEAD / 2 && self.found_full.swap(false, Ordering::Relaxed)
    }

    pub fn put_back(&self, handout: Handout) {
        self.lock().push_front(handout);
    }

    /// What groups said about subscriptions: which of its SUBSCRIBE, its number, and whether it is kept.
    pub fn take_joined(&self) -> Vec<(usize, u32, Result<PartitionId, Refusal>)> {
        let mut joined = Vec::new();
        self.lock().retain(|handout| match handout {
            Handout::Joined { at, number, result } => {
                joined.push((*at, *number, result.clone()));
                false
            }
            Handout::Message(_) => true,
        });
        joined
    }

    /// What is there of one group, or of all.
    fn take_messages(&self, of: Option<&Arc<Group>>) -> Vec<Handed> {
        let mut taken = Vec::new();
        let mut waiting = self.lock();
        for handout in std::mem::take(&mut *waiting) {
            match handout {
                Handout::Message(handed) if of.is_none_or(|group| Arc::ptr_eq(group, &handed.group)) => taken.push(handed),
                other => waiting.push_back(other),
            }
        }
        taken
    }

    /// Gives everything back to whom it came from.
    pub fn give_back(&self) {
        for Handed { group, message, offset, .. } in self.take_messages(None) {
            group.take_back(offset, message);
        }
    }
}

impl Groups {
    fn lock(&self) -> MutexGuard<'_, HashMap<Text, Arc<Group>>> {
        self.by_text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group of a shared subscription, with this client among its subscribers. True: it is new, and nobody runs it.
    pub fn enter(&self, text: &Text, share: &str, filter: &Filter, client: &Text) -> (Arc<Group>, bool) {
        let mut groups = self.lock();
        let (group, fresh) = match groups.get(text) {
            Some(group) => (group.clone(), false),
            None => {
                let cursor = cursor_name(share, filter);
                let Held { by_client: in_flight, ended: settled } = self.lock_held().remove(text).unwrap_or_default();
                let elsewhere = in_flight.values().flatten().map(|(_, offset)| offset).chain(&settled).copied().collect();
                let (state, bell) = (Mutex::new(State { in_flight, elsewhere, settled, ..State::default() }), Notify::new());
                let group = Arc::new(Group { text: text.clone(), filter: filter.clone(), cursor, state, bell });
                groups.insert(text.clone(), group.clone());
                (group, true)
            }
        };
        group.lock().subscribers.insert(client.clone());
        (group, fresh)
    }

    /// Forgets a group that has no subscriber any more. False: it has.
    pub fn forget(&self, group: &Group) -> bool {
        let mut groups = self.lock();
        let mut state = group.lock();
        let empty = state.subscribers.is_empty();
        if empty {
            groups.remove(&group.text);
            if !state.in_flight.is_empty() {
                self.lock_held().entry(group.text.clone()).or_default().by_client = std::mem::take(&mut state.in_flight);
            }
        }
        empty
    }

    /// A session has this message of a group in flight since before the node started.
    pub fn hold(&self, text: &Text, client: &Text, place: Place) {
        self.lock_held().entry(text.clone()).or_default().by_client.entry(client.clone()).or_default().push(place);
    }

    pub fn find(&self, text: &Text) -> Option<Arc<Group>> {
        self.lock().get(text).cloned()
    }

    fn lock_held(&self) -> MutexGuard<'_, HashMap<Text, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session is no more: it is in no group, and what it had in flight of groups that nobody runs is settled.
    pub async fn forget_session(&self, connection: &mut Connection, client: &Text) {
        for settle in self.end_session(client) {
            // Of a group that is no more there is nothing to settle.
            if let Err(refusal) = connection.call(Request::Cursor(Box::new(settle))).await
                && refusal != Refusal::NotFound
            {
                tracing::warn!(?refusal, client = client.as_str(), "what a session had in flight of a group is not settled");
            }
        }
    }

    /// Who begins to run a group meanwhile finds what is held of it, or is found.
    fn end_session(&self, client: &Text) -> Vec<CursorMove> {
        let end = |(text, held): (&Text, &mut Held)| {
            Some(held.end(client)).filter(|places| !places.is_empty()).map(|places| (text.clone(), places))
        };
        let ended: Vec<(Text, Vec<Place>)> = self.lock_held().iter_mut().filter_map(end).collect();
        let groups: Vec<Arc<Group>> = self.lock().values().cloned().collect();
        groups.iter().for_each(|group| group.unsubscribe(client, &[]));
        ended.iter().filter_map(|(text, places)| settle_of(text, places)).collect()
    }
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member is there and has room. It hears when the group is ready.
    pub fn join(&self, client: &Text, number: u32, at: usize, inbox: &Arc<MemberInbox>) {
        let mut state = self.lock();
        state.remove(client);
        let member = Member { client: client.clone(), number, at, inbox: inbox.clone(), has_left: false };
        match state.place {
            Some((_, partition)) => state.welcome(member, Ok(partition)),
            None => state.joining.push(member),
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The member's connection is gone; its session may stay.
    pub fn part(self: &Arc<Group>, client: &Text, inbox: &MemberInbox) {
        self.lock().remove(client);
        for Handed { message, offset, .. } in inbox.take_messages(Some(self)) {
            self.take_back(offset, message);
        }
        self.bell.notify_one();
    }

    /// The session is not subscribed any more; what it has in flight while it is away ends with that. `flights` goes on between the client
    /// and its session, at most until the last one leaves the group: that could not be told then how it ends.
    pub fn unsubscribe(&self, client: &Text, flights: &[Offset]) {
        let mut state = self.lock();
        state.subscribers.remove(client);
        state.remove(client);
        let ended: Vec<Offset> = state.in_flight.remove(client).unwrap_or_default().into_iter().map(|(_, offset)| offset).collect();
        state.leaving.extend(flights);
        state.leaving.retain(|offset| !ended.contains(offset));
        state.settled.extend(ended);
        if state.subscribers.is_empty() {
            let left = std::mem::take(&mut state.leaving);
            state.settled.extend(left);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Whether nobody is subscribed any more. Then it is not ready either: who joins from now on waits until it is again.
    pub fn pause_if_deserted(&self) -> bool {
        let mut state = self.lock();
        let deserted = state.subscribers.is_empty();
        if deserted {
            state.place = None;
        }
        deserted
    }

    /// It is not ready for a while.
    pub fn pause(&self) {
        self.lock().place = None;
    }

    pub fn settle(&self, offset: Offset) {
        let mut state = self.lock();
        state.leaving.remove(&offset);
        state.settled.push(offset);
        drop(state);
        self.bell.notify_one();
    }

    /// The client is done with what it had in flight, and settles it itself.
    pub fn landed(&self, offset: Offset) {
        self.lock().leaving.remove(&offset);
    }

    /// What was handed out and not sent, or not acknowledged by a member that is gone, goes to another.
    pub fn take_back(&self, offset: Option<Offset>, message: Arc<Message>) {
        if let Some(offset) = offset {
            self.lock().returned.insert(offset, message);
            self.bell.notify_one();
        }
    }

    /// The member keeps the message in flight while it is away.
    pub fn keep_flight(&self, client: &Text, place: Place) {
        self.lock().in_flight.entry(client.clone()).or_default().push(place);
    }

    /// The member is back, and goes on with what it has in flight.
    pub fn take_flights(&self, client: &Text) {
        self.lock().in_flight.remove(client);
    }

    /// Whether a member has what the group reads here in flight since before.
    pub fn is_elsewhere(&self, offset: Offset) -> bool {
        let mut state = self.lock();
        !state.elsewhere.is_empty() && state.elsewhere.remove(&offset)
    }

    /// Who may settle for the group, and where; `None` while it is not ready.
    pub fn place(&self) -> Option<(Attachment, PartitionId)> {
        self.lock().place
    }

    /// The group stores from now on, or cannot: who waits to hear it does.
    pub fn ready(&self, result: &Result<(Attachment, PartitionId), Refusal>) {
        let mut state = self.lock();
        state.place = result.as_ref().ok().copied();
        for member in std::mem::take(&mut state.joining) {
            state.welcome(member, result.clone().map(|(_, partition)| partition));
        }
    }

    pub fn take_settled(&self) -> Vec<Offset> {
        std::mem::take(&mut self.lock().settled)
    }

    pub fn take_returned(&self) -> Option<(Offset, Arc<Message>)> {
        self.lock().returned.pop_first()
    }

    /// Whether somebody is there.
    pub fn has_members(&self) -> bool {
        !self.lock().members.is_empty()
    }

    /// Whether a member has room.
    pub fn has_room(&self) -> bool {
        self.lock().members.iter().any(|member| member.inbox.has_room())
    }

    /// Hands a message to the next member with room. False: none has.
    pub fn hand_out(self: &Arc<Group>, message: &Arc<Message>, offset: Option<Offset>) -> bool {
        let mut state = self.lock();
        let count = state.members.len();
        for step in 0..count {
            let at = (state.turn + step) % count;
            let Some(member) = state.members.get(at).filter(|member| member.inbox.has_room()).cloned() else { continue };
            state.turn = at + 1;
            // While it is a member: who parts takes back what is in its inbox then.
            member.inbox.push(Handout::Message(Handed { group: self.clone(), number: member.number, message: message.clone(), offset }));
            return true;
        }
        false
    }
}

impl State {
    fn remove(&mut self, client: &Text) {
        self.members.retain(|member| member.client != *client);
        self.joining.iter_mut().filter(|member| member.client == *client).for_each(|member| member.has_left = true);
    }

    fn welcome(&mut self, member: Member, result: Result<PartitionId, Refusal>) {
        let (at, number) = (member.at, member.number);
        let inbox = member.inbox.clone();
        if result.is_ok() && !member.has_left {
            self.members.push(member);
        }
        inbox.push(Handout::Joined { at, number, result });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use firth_gateway::cursors::CursorId;

    /// Its cursor is about to be dropped: a subscription that was confirmed then would miss messages.
    #[test]
    fn who_joins_a_group_at_its_end_waits_for_its_next_beginning() {
        let (text, filter) = (Text::fixed("$share/g/a"), Filter::parse("a").expect("a filter"));
        let place = (Attachment { cursor: CursorId(1), generation: 1 }, PartitionId(7));
        let (one, other) = (Text::fixed("one"), Text::fixed("other"));
        let groups = Groups::default();
        let (group, fresh) = groups.enter(&text, "g", &filter, &one);
        group.ready(&Ok(place));
        let inbox = Arc::new(MemberInbox::default());
        group.join(&one, 0, 3, &inbox);
        assert_eq!((fresh, inbox.take_joined()), (true, vec![(3, 0, Ok(PartitionId(7)))]));
        assert!(!group.pause_if_deserted());
        group.unsubscribe(&one, &[Offset(4)]);
        assert_eq!(group.take_settled(), [Offset(4)], "nobody else is told how that ends");
        assert!(group.pause_if_deserted());
        let (same, fresh) = groups.enter(&text, "g", &filter, &other);
        same.join(&other, 1, 5, &inbox);
        group.pause();
        assert_eq!((fresh, inbox.take_joined()), (false, Vec::new()));
        assert!(!groups.forget(&group));
        group.ready(&Ok(place));
        assert_eq!(inbox.take_joined(), [(5, 1, Ok(PartitionId(7)))]);
    }

    fn made(groups: &Groups, clients: &[&Text]) -> Arc<Group> {
        let (text, filter) = (Text::fixed("$share/g/a"), Filter::parse("a").expect("a filter"));
        let made = clients.iter().map(|client| groups.enter(&text, "g", &filter, client).0);
        made.last().expect("one client")
    }

    /// Their clients go on with them, and the group may be gone when they are done.
    #[test]
    fn what_subscribers_who_left_have_in_flight_ends_with_the_group() {
        let (one, other) = (Text::fixed("one"), Text::fixed("other"));
        for ends in [false, true] {
            let groups = Groups::default();
            let group = made(&groups, &[&one, &other]);
            group.unsubscribe(&one, &[Offset(4), Offset(7)]);
            assert!(group.take_settled().is_empty(), "it is not done yet, and its group is there");
            group.settle(Offset(7));
            assert_eq!(group.take_settled(), [Offset(7)]);
            if ends {
                assert!(groups.end_session(&other).is_empty(), "the group is told");
            } else {
                group.unsubscribe(&other, &[Offset(5)]);
            }
            let mut settled = group.take_settled();
            settled.sort_unstable();
            assert_eq!(settled, if ends { vec![Offset(4)] } else { vec![Offset(4), Offset(5)] });
        }
    }

    #[test]
    fn who_leaves_before_the_group_is_ready_becomes_no_member() {
        let place = (Attachment { cursor: CursorId(1), generation: 1 }, PartitionId(7));
        let (one, other) = (Text::fixed("one"), Text::fixed("other"));
        let groups = Groups::default();
        let group = made(&groups, &[&one, &other]);
        let (gone, here) = (Arc::new(MemberInbox::default()), Arc::new(MemberInbox::default()));
        group.join(&one, 0, 3, &gone);
        group.part(&one, &gone);
        group.join(&other, 1, 4, &here);
        group.join(&other, 1, 5, &here);
        group.ready(&Ok(place));
        assert_eq!(group.lock().members.len(), 1);
        assert_eq!(here.take_joined().len(), 2, "whatever waits for it hears");
        group.pause();
        group.join(&other, 1, 6, &here);
        group.unsubscribe(&other, &[]);
        group.ready(&Ok(place));
        assert!(!group.has_room(), "nobody is there");
        assert_eq!(here.take_joined(), [(6, 1, Ok(PartitionId(7)))]);
    }
}
