//! Groups of shared subscriptions: who is in them, and what is handed to whom (MQTT 5.0 section 4.8.2).
//!
//! A group is one cursor, read by a task of its own (`group_run.rs`). Members take messages from their inbox as their windows allow; what
//! a member leaves there goes back to the group.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use firth_gateway::message::Message;
use firth_gateway::refusal::Refusal;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};
use firth_model::limits::MQTT_SHARED_AHEAD;

use crate::codec::qos::PacketId;
use crate::codec::text::Text;
use crate::window::Stage;

/// All groups of a node, by the topic filter of their subscriptions: `$share/{group}/{filter}`.
#[derive(Default)]
pub struct Groups {
    by_text: Mutex<HashMap<Text, Arc<Group>>>,
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
    partition: Option<PartitionId>,
    /// What members did not take after all.
    returned: BTreeMap<Offset, Arc<Message>>,
    settled: Vec<Offset>,
    /// QoS 2 messages in flight to members that are not connected.
    in_flight: HashMap<Text, Vec<Flight>>,
}

#[derive(Clone)]
struct Member {
    client: Text,
    number: u32,
    at: usize,
    inbox: Arc<MemberInbox>,
}

/// A QoS 2 message whose exchange with one member is not over.
#[derive(Clone)]
pub struct Flight {
    pub offset: Offset,
    pub id: PacketId,
    pub stage: Stage,
    pub message: Arc<Message>,
    pub number: u32,
}

/// What groups hand to one connected client.
#[derive(Default)]
pub struct MemberInbox {
    waiting: Mutex<VecDeque<Handout>>,
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
        self.lock().len() < MQTT_SHARED_AHEAD
    }

    fn push(&self, handout: Handout) {
        self.lock().push_back(handout);
        self.bell.notify_one();
    }

    pub fn pop(&self) -> Option<Handout> {
        self.lock().pop_front()
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
                let (state, bell) = (Mutex::default(), Notify::new());
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
        let empty = group.lock().subscribers.is_empty();
        if empty {
            groups.remove(&group.text);
        }
        empty
    }

    /// A session is no more: it is in no group.
    pub fn forget_session(&self, client: &Text) {
        let groups: Vec<Arc<Group>> = self.lock().values().cloned().collect();
        groups.iter().for_each(|group| group.unsubscribe(client));
    }
}

/// Parts behind their lengths, so that no two groups have one name.
fn cursor_name(share: &str, filter: &Filter) -> Bytes {
    let mut name = BytesMut::new();
    name.put_slice(b"mqtt-share/");
    name.put_slice(format!("{}/{share}/", share.len()).as_bytes());
    name.put_slice(filter.as_bytes());
    name.freeze()
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member is there and has room. It hears when the group is ready.
    pub fn join(&self, client: &Text, number: u32, at: usize, inbox: &Arc<MemberInbox>) {
        let mut state = self.lock();
        state.members.retain(|member| member.client != *client);
        let member = Member { client: client.clone(), number, at, inbox: inbox.clone() };
        match state.partition {
            Some(partition) => state.welcome(member, Ok(partition)),
            None => state.joining.push(member),
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The member's connection is gone; its session may stay.
    pub fn part(self: &Arc<Group>, client: &Text, inbox: &MemberInbox) {
        self.lock().members.retain(|member| member.client != *client);
        for Handed { message, offset, .. } in inbox.take_messages(Some(self)) {
            self.take_back(offset, message);
        }
        self.bell.notify_one();
    }

    /// The session is not subscribed any more; what it has in flight ends with that.
    pub fn unsubscribe(&self, client: &Text) {
        let mut state = self.lock();
        state.subscribers.remove(client);
        state.members.retain(|member| member.client != *client);
        let ended = state.in_flight.remove(client).unwrap_or_default();
        state.settled.extend(ended.iter().map(|flight| flight.offset));
        drop(state);
        self.bell.notify_one();
    }

    pub fn is_deserted(&self) -> bool {
        self.lock().subscribers.is_empty()
    }

    pub fn settle(&self, offset: Offset) {
        self.lock().settled.push(offset);
        self.bell.notify_one();
    }

    /// What was handed out and not sent, or not acknowledged by a member that is gone, goes to another.
    pub fn take_back(&self, offset: Option<Offset>, message: Arc<Message>) {
        if let Some(offset) = offset {
            self.lock().returned.insert(offset, message);
            self.bell.notify_one();
        }
    }

    pub fn keep_flight(&self, client: &Text, flight: Flight) {
        self.lock().in_flight.entry(client.clone()).or_default().push(flight);
    }

    pub fn take_flights(&self, client: &Text) -> Vec<Flight> {
        self.lock().in_flight.remove(client).unwrap_or_default()
    }

    /// The group stores from now on, or cannot: who waits to hear it does.
    pub fn ready(&self, result: &Result<PartitionId, Refusal>) {
        let mut state = self.lock();
        state.partition = result.as_ref().ok().copied();
        for member in std::mem::take(&mut state.joining) {
            state.welcome(member, result.clone());
        }
    }

    pub fn take_settled(&self) -> Vec<Offset> {
        std::mem::take(&mut self.lock().settled)
    }

    pub fn take_returned(&self) -> Option<(Offset, Arc<Message>)> {
        self.lock().returned.pop_first()
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
            drop(state);
            member.inbox.push(Handout::Message(Handed { group: self.clone(), number: member.number, message: message.clone(), offset }));
            return true;
        }
        false
    }
}

impl State {
    fn welcome(&mut self, member: Member, result: Result<PartitionId, Refusal>) {
        let (at, number) = (member.at, member.number);
        let inbox = member.inbox.clone();
        if result.is_ok() {
            self.members.push(member);
        }
        inbox.push(Handout::Joined { at, number, result });
    }
}
