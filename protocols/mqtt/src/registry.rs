//! Who is connected under which client identifier.
//!
//! And what their sessions keep in memory.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use firth_gateway::answer::Tag;
use firth_gateway::refusal::Refusal;
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::codec::text::Text;
use crate::described::Described;

/// All clients of a node.
#[derive(Default)]
pub struct Registry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seats: HashMap<Text, Arc<Chair>>,
    /// Persistent sessions; `None` until the broker said which there are.
    kept: Option<BTreeSet<Text>>,
}

/// What a connection sits on.
pub struct Chair {
    /// Whether, and why, who sits here is to go.
    order: AtomicU8,
    calls: Mutex<VecDeque<Call>>,
    bell: Notify,
    /// Closed when its connection is gone.
    gone: Semaphore,
}

const STAY: u8 = 0;
const TAKEN_OVER: u8 = 1;
const REMOVED: u8 = 2;

/// What a connection is asked or told.
pub enum Call {
    /// To say what its session is.
    Describe(oneshot::Sender<Described>),
    /// The session that it asked to be removed is; whether there was one.
    Removed(Tag, Result<bool, Refusal>),
}

/// Why a connection is called.
pub enum Called {
    /// Another one has its identifier.
    TakenOver,
    /// Its session is to end.
    Removed,
    Asked(Call),
}

/// Reaches a connection, as long as it is there.
pub struct Caller(Arc<Chair>);

impl Caller {
    pub fn call(&self, call: Call) {
        self.0.lock_calls().push_back(call);
        self.0.bell.notify_one();
    }
}

impl Chair {
    fn free() -> Arc<Chair> {
        let (order, calls) = (AtomicU8::new(STAY), Mutex::default());
        Arc::new(Chair { order, calls, bell: Notify::new(), gone: Semaphore::new(0) })
    }

    fn lock_calls(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        self.replace(id, TAKEN_OVER).await.0
    }

    /// The same to end the session. Whether somebody was connected.
    pub async fn evict(self: &Arc<Registry>, id: Text) -> (Seat, bool) {
        self.replace(id, REMOVED).await
    }

    async fn replace(self: &Arc<Registry>, id: Text, order: u8) -> (Seat, bool) {
        let chair = Chair::free();
        let before = self.lock().seats.insert(id.clone(), chair.clone());
        let seat = Seat { registry: self.clone(), id, chair };
        let was_there = before.is_some();
        if let Some(before) = before {
            before.order.store(order, Ordering::Release);
            before.bell.notify_one();
            // Never a permit: it is an error when the connection is gone.
            let _ = before.gone.acquire().await;
        }
        (seat, was_there)
    }

    /// Takes the identifier if nobody has it.
    pub fn claim_free(self: &Arc<Registry>, id: Text) -> Option<Seat> {
        let mut state = self.lock();
        if state.seats.contains_key(&id) {
            return None;
        }
        let chair = Chair::free();
        state.seats.insert(id.clone(), chair.clone());
        Some(Seat { registry: self.clone(), id, chair })
    }

    /// Asks a connection what its session is. What comes is an error if it is gone.
    pub fn describe(&self, id: &Text) -> Option<oneshot::Receiver<Described>> {
        let state = self.lock();
        let chair = state.seats.get(id)?;
        let (answer, described) = oneshot::channel();
        Caller(chair.clone()).call(Call::Describe(answer));
        Some(described)
    }

    /// The identifiers of all clients that are connected.
    pub fn all(&self) -> Vec<Text> {
        self.lock().seats.keys().cloned().collect()
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

    /// Persistent sessions with identifiers behind `after`, up to `last` if it is given, in their order.
    pub fn kept_between(&self, after: Option<&Text>, last: Option<&Text>) -> Vec<Text> {
        let state = self.lock();
        let Some(kept) = &state.kept else { return Vec::new() };
        let behind = kept.range::<Text, _>((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        behind.take_while(|id| last.is_none_or(|last| *id <= last)).cloned().collect()
    }

    /// Whether there may be a persistent session of this identifier.
    pub fn may_exist(&self, id: &Text) -> bool {
        self.lock().kept.as_ref().is_none_or(|kept| kept.contains(id))
    }
}

impl Chair {
    /// Resolves when the connection is to do something. Safe to drop while waiting.
    pub async fn called(&self) -> Called {
        loop {
            match self.order.load(Ordering::Acquire) {
                STAY => {}
                REMOVED => return Called::Removed,
                _ => return Called::TakenOver,
            }
            if let Some(call) = self.lock_calls().pop_front() {
                return Called::Asked(call);
            }
            self.bell.notified().await;
        }
    }
}

impl Seat {
    pub fn chair(&self) -> Arc<Chair> {
        self.chair.clone()
    }

    /// For whoever is to tell the connection something later.
    pub fn caller(&self) -> Caller {
        Caller(self.chair.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        if state.seats.get(&self.id).is_some_and(|chair| Arc::ptr_eq(chair, &self.chair)) {
            state.seats.remove(&self.id);
        }
        drop(state);
        self.chair.lock_calls().clear();
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
        assert!(matches!(first.chair().called().await, Called::TakenOver));
        assert!(!second.is_finished());
        let third = tokio::spawn(async move { third.claim(Text::fixed("a")).await });
        tokio::task::yield_now().await;
        drop(first);
        let second = second.await.expect("seated");
        assert!(matches!(second.chair().called().await, Called::TakenOver));
        assert!(!third.is_finished(), "the second is not gone");
        drop(second);
        let third = third.await.expect("seated");
        let described = registry.describe(&Text::fixed("a")).expect("somebody is there");
        assert!(matches!(third.chair().called().await, Called::Asked(Call::Describe(_))));
        assert_eq!(registry.connected(), 1);
        drop(third);
        assert!(described.await.is_err());
        assert_eq!(registry.connected(), 0);
    }

    #[test]
    fn kept_sessions_are_found_by_their_names() {
        let registry = Registry::default();
        registry.made(&Text::fixed("early"));
        registry.found(["c", "a", "b", "d"].into_iter().map(Text::fixed));
        registry.dropped(&Text::fixed("b"));
        let between = |after: Option<&'static str>, last: Option<&'static str>| {
            let (after, last) = (after.map(Text::fixed), last.map(Text::fixed));
            registry.kept_between(after.as_ref(), last.as_ref()).iter().map(|id| id.as_str().to_owned()).collect::<String>()
        };
        assert_eq!(between(None, Some("c")), "ac");
        assert_eq!(between(Some("a"), None), "cd");
        assert_eq!(between(Some("d"), None), "");
    }

    #[test]
    fn cursors_are_named_by_their_clients() {
        assert_eq!(client_of(&cursor_name(&Text::fixed("a/b"))), Some(Text::fixed("a/b")));
        assert_eq!(client_of(&Bytes::from_static(b"nats/a")), None);
    }
}
