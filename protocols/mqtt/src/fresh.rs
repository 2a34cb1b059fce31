//! Retained messages of QoS 0 that are not stored yet.
//!
//! They are shown at once and stored a moment later. Who subscribes in between gets them from here, so that nobody sees a message and then
//! does not find it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firth_gateway::message::Message;
use firth_model::filter::Filter;
use firth_model::subject::Subject;

#[derive(Default)]
pub struct Fresh {
    by_subject: Mutex<HashMap<Subject, (u64, Arc<Message>)>>,
}

impl Fresh {
    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, (u64, Arc<Message>)>> {
        self.by_subject.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is about to be shown. The number takes it away again.
    pub fn add(&self, message: &Message) -> u64 {
        let mut fresh = self.lock();
        let number = fresh.get(&message.subject).map_or(0, |(number, _)| number + 1);
        fresh.insert(message.subject.clone(), (number, Arc::new(message.clone())));
        number
    }

    /// It is stored, or lost.
    pub fn remove(&self, subject: &Subject, number: u64) {
        let mut fresh = self.lock();
        if fresh.get(subject).is_some_and(|(newest, _)| *newest == number) {
            fresh.remove(subject);
        }
    }

    pub fn matching(&self, filter: &Filter) -> Vec<Arc<Message>> {
        let fresh = self.lock();
        fresh.values().filter(|(_, message)| filter.matches(&message.subject)).map(|(_, message)| message.clone()).collect()
    }
}

/// Whether the message is one that is retained and shown before it is stored.
pub fn is_fresh(message: &Message) -> bool {
    message.retain && !message.guaranteed
}
