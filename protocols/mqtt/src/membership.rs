//! The groups a client is in, and what it holds of them.

use std::collections::HashMap;
use std::sync::Arc;

use firth_gateway::message::Message;
use firth_model::ids::{Offset, PartitionId};

use crate::codec::text::Text;
use crate::shared::{Group, MemberInbox};
use crate::window::Source;

#[derive(Default)]
pub struct Memberships {
    pub inbox: Arc<MemberInbox>,
    /// Never taken out while the client is connected: what it has in flight names a group by its place, counted from 1.
    groups: Vec<Arc<Group>>,
    handed: HashMap<(u32, Offset), (Arc<Message>, u32)>,
}

impl Memberships {
    pub fn add(&mut self, group: &Arc<Group>) {
        if !self.groups.iter().any(|known| Arc::ptr_eq(known, group)) {
            self.groups.push(group.clone());
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
    pub fn handed(&mut self, group: &Arc<Group>, offset: Offset, message: &Arc<Message>, number: u32) -> Source {
        self.add(group);
        let place = self.groups.iter().position(|known| Arc::ptr_eq(known, group)).unwrap_or_default();
        let place = u32::try_from(place + 1).unwrap_or(u32::MAX);
        self.handed.insert((place, offset), (message.clone(), number));
        // Which partition it is, only the group knows.
        Source { partition: PartitionId(0), offset, group: place }
    }

    /// What is in flight, with its group and the number of its subscription.
    pub fn find(&self, source: &Source) -> Option<(&Arc<Group>, Arc<Message>, u32)> {
        let (message, number) = self.handed.get(&(source.group, source.offset))?;
        Some((self.group_at(source.group)?, message.clone(), *number))
    }

    /// The client is done with it.
    pub fn settle(&mut self, source: &Source) {
        self.handed.remove(&(source.group, source.offset));
        if let Some(group) = self.group_at(source.group) {
            group.settle(source.offset);
        }
    }

    fn group_at(&self, place: u32) -> Option<&Arc<Group>> {
        self.groups.get(usize::try_from(place).ok()?.checked_sub(1)?)
    }
}
