//! What is due when, for all groups.
//!
//! A heartbeat moves a session's end on every call, so moving an end further away only notes it; the queue is put right when the
//! old end comes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use firth_model::time::Millis;

/// What happens when a timer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// A member, or somebody who was promised an id, was not heard for its session timeout.
    Session,
    /// The joining phase of a round.
    Round,
    /// The members of a round that have not synced.
    Sync,
    /// A beating member has not let go of its partitions.
    Revoke,
    /// A joining member of a beating group was told to join again.
    Rejoin,
    /// A joining member of a beating group has joined and must sync.
    Resync,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    pub group: Arc<str>,
    /// Empty for timers of the whole group.
    pub member: Arc<str>,
    pub kind: TimerKind,
}

#[derive(Clone, Copy)]
struct Slot {
    due: Millis,
    /// Where the queue has it: never after `due`.
    queued: Millis,
}

#[derive(Default)]
pub struct Timers {
    slots: HashMap<TimerKey, Slot>,
    queue: BTreeSet<(Millis, TimerKey)>,
}

impl Timers {
    pub fn set(&mut self, key: TimerKey, due: Millis) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.due = due;
            if slot.queued > due {
                let before = std::mem::replace(&mut slot.queued, due);
                let entry = (before, key);
                self.queue.remove(&entry);
                self.queue.insert((due, entry.1));
            }
            return;
        }
        self.slots.insert(key.clone(), Slot { due, queued: due });
        self.queue.insert((due, key));
    }

    pub fn set_if_absent(&mut self, key: TimerKey, due: Millis) {
        if !self.slots.contains_key(&key) {
            self.set(key, due);
        }
    }

    pub fn cancel(&mut self, key: &TimerKey) {
        if let Some(slot) = self.slots.remove(key) {
            self.queue.remove(&(slot.queued, key.clone()));
        }
    }

    /// Takes the next timer that has ended by `now`.
    pub fn pop(&mut self, now: Millis) -> Option<TimerKey> {
        loop {
            if self.queue.first()?.0 > now {
                return None;
            }
            let (_, key) = self.queue.pop_first()?;
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.due <= now {
                self.slots.remove(&key);
                return Some(key);
            }
            slot.queued = slot.due;
            self.queue.insert((slot.due, key));
        }
    }

    /// No timer ends before this moment; it may be early.
    pub fn next(&self) -> Option<Millis> {
        self.queue.first().map(|(due, _)| *due)
    }

    pub fn clear(&mut self) {
        self.slots.clear();
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(member: &str) -> TimerKey {
        TimerKey { group: "g".into(), member: member.into(), kind: TimerKind::Session }
    }

    #[test]
    fn ends_come_in_order_and_moved_ends_come_later() {
        let mut timers = Timers::default();
        timers.set(key("a"), Millis(10));
        timers.set(key("b"), Millis(20));
        timers.set(key("a"), Millis(30));
        assert_eq!(timers.pop(Millis(15)), None);
        assert_eq!(timers.pop(Millis(25)), Some(key("b")));
        assert_eq!(timers.pop(Millis(25)), None);
        assert_eq!(timers.next(), Some(Millis(30)));
        assert_eq!(timers.pop(Millis(30)), Some(key("a")));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_end_can_come_nearer_or_not_at_all() {
        let mut timers = Timers::default();
        timers.set(key("a"), Millis(50));
        timers.set(key("a"), Millis(5));
        timers.set(key("b"), Millis(6));
        timers.cancel(&key("b"));
        timers.set_if_absent(key("a"), Millis(1));
        assert_eq!(timers.next(), Some(Millis(5)));
        assert_eq!(timers.pop(Millis(100)), Some(key("a")));
        assert_eq!(timers.pop(Millis(100)), None);
    }
}
