//! Who is connected under which client identifier.
//!
//! And what their sessions keep in memory.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use crate::codec::text::Text;

/// All clients of a node.
#[derive(Default)]
pub struct Registry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seats: HashMap<Text, Arc<Chair>>,
    /// Persistent sessions; `None` until the broker said which there are.
    kept: Option<HashSet<Text>>,
}

/// What a connection sits on.
#[derive(Debug)]
pub struct Chair {
    evicted: AtomicBool,
    bell: Notify,
    /// Closed when its connection is gone.
    gone: Semaphore,
}

/// A connection's right to its client identifier. Dropping it says that the connection is gone.
pub struct Seat {
    registry: Arc<Registry>,
    pub id: Text,
    chair: Arc<Chair>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the identifier over from whoever has it, and waits until that connection is gone.
    pub async fn claim(self: &Arc<Registry>, id: Text) -> Seat {
        let chair = Arc::new(Chair { evicted: AtomicBool::new(false), bell: Notify::new(), gone: Semaphore::new(0) });
        let before = self.lock().seats.insert(id.clone(), chair.clone());
        let seat = Seat { registry: self.clone(), id, chair };
        if let Some(before) = before {
            before.evicted.store(true, Ordering::Release);
            before.bell.notify_one();
            // Never a permit: it is an error when the connection is gone.
            let _ = before.gone.acquire().await;
        }
        seat
    }

    /// Takes the identifier if nobody has it.
    pub fn claim_free(self: &Arc<Registry>, id: Text) -> Option<Seat> {
        let mut state = self.lock();
        if state.seats.contains_key(&id) {
            return None;
        }
        let chair = Arc::new(Chair { evicted: AtomicBool::new(false), bell: Notify::new(), gone: Semaphore::new(0) });
        state.seats.insert(id.clone(), chair.clone());
        Some(Seat { registry: self.clone(), id, chair })
    }

    pub fn connected(&self) -> usize {
        self.lock().seats.len()
    }

    /// These sessions are there from before the node started.
    pub fn found(&self, ids: impl Iterator<Item = Text>) {
        self.lock().kept.get_or_insert_default().extend(ids);
    }

    pub fn made(&self, id: &Text) {
        if let Some(kept) = &mut self.lock().kept {
            kept.insert(id.clone());
        }
    }

    pub fn dropped(&self, id: &Text) {
        if let Some(kept) = &mut self.lock().kept {
            kept.remove(id);
        }
    }

    /// Whether there may be a persistent session of this identifier.
    pub fn may_exist(&self, id: &Text) -> bool {
        self.lock().kept.as_ref().is_none_or(|kept| kept.contains(id))
    }
}

impl Chair {
    /// Resolves when another connection takes the identifier over.
    pub async fn evicted(&self) {
        while !self.is_evicted() {
            self.bell.notified().await;
        }
    }

    fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }
}

impl Seat {
    pub fn chair(&self) -> Arc<Chair> {
        self.chair.clone()
    }

    pub fn is_evicted(&self) -> bool {
        self.chair.is_evicted()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if state.seats.get(&self.id).is_some_and(|chair| Arc::ptr_eq(chair, &self.chair)) {
            state.seats.remove(&self.id);
        }
        drop(state);
        self.chair.gone.close();
    }
}

/// The cursor of a client's session.
pub const SESSION_PREFIX: &[u8] = b"mqtt/";

pub fn cursor_name(id: &Text) -> Bytes {
    [SESSION_PREFIX, id.as_bytes()].concat().into()
}

/// The client identifier of a session's cursor.
pub fn client_of(name: &Bytes) -> Option<Text> {
    name.starts_with(SESSION_PREFIX).then(|| Text::parse(name.slice(SESSION_PREFIX.len()..)).ok())?
}

/// What the node counts of MQTT.
#[derive(Default)]
pub struct Counts {
    pub received: AtomicU64,
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_identifier_goes_from_hand_to_hand() {
        let registry = Arc::new(Registry::default());
        let first = registry.claim(Text::fixed("a")).await;
        let (other, third) = (registry.clone(), registry.clone());
        let second = tokio::spawn(async move { other.claim(Text::fixed("a")).await });
        first.chair().evicted().await;
        assert!(!second.is_finished());
        let third = tokio::spawn(async move { third.claim(Text::fixed("a")).await });
        tokio::task::yield_now().await;
        drop(first);
        let second = second.await.expect("seated");
        second.chair().evicted().await;
        assert!(!third.is_finished(), "the second is not gone");
        drop(second);
        let third = third.await.expect("seated");
        assert!(!third.is_evicted());
        assert_eq!(registry.connected(), 1);
        drop(third);
        assert_eq!(registry.connected(), 0);
    }

    #[test]
    fn cursors_are_named_by_their_clients() {
        assert_eq!(client_of(&cursor_name(&Text::fixed("a/b"))), Some(Text::fixed("a/b")));
        assert_eq!(client_of(&Bytes::from_static(b"nats/a")), None);
    }
}
