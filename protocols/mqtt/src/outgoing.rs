//! Messages that wait behind one whose mark is not durable.

use std::collections::VecDeque;

use firth_model::subject::Subject;

use crate::codec::publish::Publish;
use crate::codec::qos::PacketId;
use crate::window::Source;

/// A PUBLISH whose turn has not come.
pub struct Waiting {
    pub publish: Publish,
    pub subject: Subject,
    pub source: Option<Source>,
    /// Its own identifier is being made durable.
    pub marking: bool,
}

/// In the order in which they are to be sent. Empty but for the time that a mark takes.
#[derive(Default)]
pub struct Outgoing {
    waiting: VecDeque<Waiting>,
}

/// As many as wait for one mark at most; what comes behind stays where it is.
const WAITING_MAX: usize = 4096;

impl Outgoing {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    pub fn add(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// The identifier is durable.
    pub fn marked(&mut self, id: PacketId) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.publish.packet_id == Some(id)) {
            waiting.marking = false;
        }
    }

    /// The next whose turn it is.
    pub fn pop(&mut self) -> Option<Waiting> {
        if self.waiting.front()?.marking { None } else { self.waiting.pop_front() }
    }
}
