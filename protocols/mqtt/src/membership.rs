//! The groups a client is in, and what it holds of them.

use std::collections::HashMap;
use std::sync::Arc;

use firth_gateway::message::Message;
use firth_model::ids::{Offset, PartitionId};

use crate::codec::text::Text;
use crate::shared::{Group, MemberInbox};
use crate::window::{Origin, Source};

#[derive(Default)]
pub struct Memberships {
    pub inbox: Arc<MemberInbox>,
    /// Never taken out while the client is connected: what it has in flight names a group by its place.
    groups: Vec<Arc<Group>>,
    handed: HashMap<(u32, Offset), Arc<Message>>,
}

impl Memberships {
    pub fn add(&mut self, group: &Arc<Group>) {
        if !self.groups.iter().any(|known| Arc::ptr_eq(known, group)) {
            self.groups.push(group.clone());
        }
    }

    /// All groups go on for which the client has room again.
    pub fn call_groups(&self) {
        if self.inbox.has_room_again() {
            self.groups.iter().for_each(|group| group.bell.notify_one());
        }
    }

    /// The group that serves a shared subscription now.
    pub fn group_of(&self, text: &Text) -> Option<Arc<Group>> {
        self.groups.iter().rev().find(|group| group.text == *text).cloned()
    }

    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// A message that is about to be sent.
    pub fn handed(&mut self, group: &Arc<Group>, offset: Offset, message: &Arc<Message>) -> Source {
        self.add(group);
        let place = self.place_of(group);
        self.handed.insert((place, offset), message.clone());
        // Which partition it is, only the group knows.
        Source { partition: PartitionId(0), offset, origin: Origin::Group(place) }
    }

    /// What is in flight, with its group.
    pub fn find(&self, source: &Source) -> Option<(&Arc<Group>, Arc<Message>)> {
        let Origin::Group(place) = source.origin else { return None };
        Some((self.group_at(place)?, self.handed.get(&(place, source.offset))?.clone()))
    }

    /// A message of a group that this connection was handed.
    pub fn message(&self, group: &Arc<Group>, offset: Offset) -> Option<Arc<Message>> {
        self.handed.get(&(self.place_of(group), offset)).cloned()
    }

    pub fn forget(&mut self, group: &Arc<Group>, offset: Offset) {
        self.handed.remove(&(self.place_of(group), offset));
    }

    fn place_of(&self, group: &Arc<Group>) -> u32 {
        let place = self.groups.iter().position(|known| Arc::ptr_eq(known, group));
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX)
    }

    /// The client is done with it.
    pub fn settle(&mut self, place: u32, offset: Offset) {
        self.handed.remove(&(place, offset));
        if let Some(group) = self.group_at(place) {
            group.settle(offset);
        }
    }

    fn group_at(&self, place: u32) -> Option<&Arc<Group>> {
        self.groups.get(usize::try_from(place).ok()?)
    }
}
