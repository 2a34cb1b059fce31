//! What a publishing connection shows, and when.

use super::*;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use firth_model::ids::StreamId;
use firth_model::names::StreamName;
use firth_model::subject::Subject;
use firth_model::time::Millis;

use crate::live::{Capture, LiveRoute};
use crate::message::Overflow;
use crate::outbox::{Budget, Outbox};
use crate::streams::{Policy, StreamInfo};

/// Everything goes to one subscriber; what begins with `kept` is captured.
struct Fixed {
    subscriber: Arc<Subscriber>,
    known: Vec<(Subject, Arc<Routes>)>,
}

impl RouteCache for Fixed {
    fn routes(&mut self, subject: &Subject) -> Arc<Routes> {
        if let Some((_, routes)) = self.known.iter().find(|(known, _)| known == subject) {
            return routes.clone();
        }
        let stream = StreamInfo {
            id: StreamId(uuid::Uuid::nil()),
            name: StreamName::parse("kept").expect("a name"),
            partitions: Vec::new(),
            policy: Policy::default(),
            settings: Default::default(),
            version: 0,
        };
        let capture = Capture { stream: Arc::new(stream), by_name: true };
        let captures = if subject.as_str().starts_with("kept") { vec![capture] } else { Vec::new() };
        let live = vec![LiveRoute { subscriber: self.subscriber.clone(), subscriptions: Arc::new([1]) }];
        let routes = Arc::new(Routes { version: 0, live, captures });
        self.known.push((subject.clone(), routes.clone()));
        routes
    }
}

struct Rig {
    publishing: Publishing,
    routes: Fixed,
    outbox: Arc<Outbox>,
    /// Tags that the shard was asked under.
    asked: Vec<Tag>,
}

impl Rig {
    fn fresh(overflow: Overflow) -> Rig {
        let outbox = Arc::<Outbox>::default();
        let subscriber = Arc::new(Subscriber { id: 9, overflow, dropped: AtomicU64::new(0), outbox: outbox.clone() });
        Rig { publishing: Publishing::default(), routes: Fixed { subscriber, known: Vec::new() }, outbox, asked: Vec::new() }
    }

    fn publish(&mut self, tag: u64, messages: &[(&str, bool)]) -> (Vec<Store>, Vec<u64>) {
        let publication = |(subject, guaranteed): &(&str, bool)| Publication { message: message(subject, *guaranteed), receipt: None };
        let publications = messages.iter().map(publication).collect();
        let charge = Budget::with_max(1 << 30).charge(1 << 20).expect("there is room");
        self.publishing.take(Tag(tag), publications, &mut self.routes, 3, charge);
        let shown = self.show();
        let stores = std::iter::from_fn(|| self.publishing.next_stores()).flat_map(|(tag, stores, _)| {
            self.asked.push(tag);
            stores
        });
        (stores.collect(), shown)
    }

    fn show(&mut self) -> Vec<u64> {
        let mut events = Vec::new();
        self.publishing.show(&|_, offset| Position(100 + offset.0), &mut events);
        events.iter().map(|event| if let Event::Reply { tag, .. } = event { tag.0 } else { u64::MAX }).collect()
    }

    fn answer(&mut self, tag: u64, stored: Vec<Result<Stored, Refusal>>) -> Vec<u64> {
        assert!(self.publishing.answered(Tag(tag), Ok(Answer::Stored(stored))).is_none());
        self.show()
    }

    /// Subjects that were shown since the last look.
    fn shown(&self) -> Vec<String> {
        let live =
            self.outbox.try_take().into_iter().flat_map(|event| if let Event::Live(live) = event { live } else { Default::default() });
        live.map(|delivery| delivery.message.subject.to_string()).collect()
    }
}

fn message(subject: &str, guaranteed: bool) -> Message {
    Message {
        subject: Subject::parse(subject).expect("a subject"),
        key: None,
        value: Some(Bytes::from_static(b"v")),
        headers: Vec::new(),
        published: Millis(0),
        expires: None,
        guaranteed,
        retain: false,
        publisher: 0,
    }
}

fn stored() -> Result<Stored, Refusal> {
    Ok(Stored { captures: 1, ..Stored::default() })
}

#[test]
fn what_follows_a_guaranteed_message_waits_until_that_is_durable() {
    let mut rig = Rig::fresh(Overflow::DropNewest);
    let (stores, replies) = rig.publish(1, &[("live/1", false), ("kept/1", false), ("kept/2", true), ("live/2", false)]);
    assert_eq!((stores.len(), replies.len()), (2, 0));
    assert_eq!(rig.shown(), ["live/1", "kept/1"]);
    let (stores, replies) = rig.publish(2, &[("live/3", false)]);
    assert_eq!((stores.len(), replies.len(), rig.shown().len()), (0, 0, 0), "behind the first call's");
    assert_eq!(rig.answer(1, vec![stored(), stored()]), [1, 2]);
    assert_eq!(rig.shown(), ["kept/2", "live/2", "live/3"]);
    assert!(rig.publishing.is_settled());
}

#[test]
fn without_a_stream_nothing_waits() {
    let mut rig = Rig::fresh(Overflow::DropNewest);
    let (stores, replies) = rig.publish(1, &[("live/1", true), ("live/2", false)]);
    assert_eq!((stores.len(), replies), (0, vec![1]));
    assert_eq!(rig.shown(), ["live/1", "live/2"]);
}

/// Who reads what is stored and gets the rest live sees both in the order in which they were published.
#[test]
fn what_is_stored_behind_what_is_not_waits_for_that() {
    let mut rig = Rig::fresh(Overflow::DropNewest);
    let mixed = [("live/1", false), ("kept/1", true), ("live/1", false), ("kept/1", true), ("live/1", false)];
    let (stores, replies) = rig.publish(1, &mixed);
    assert_eq!((stores.len(), replies.len()), (1, 0), "the second is not asked for yet");
    let at = |offset| Ok(Stored { captures: 1, at: Some((PartitionId(1), Offset(offset))), ..Stored::default() });
    let part = rig.asked[0].0;
    assert_eq!(rig.answer(part, vec![at(1)]), [0; 0]);
    let (tag, stores, _) = rig.publishing.next_stores().expect("now it is");
    assert_eq!((tag, stores.len()), (Tag(1), 1));
    let (stores, _) = rig.publish(2, &[("kept/1", true)]);
    assert_eq!(stores.len(), 0, "behind what the first call has to show");
    assert_eq!(rig.answer(1, vec![at(2)]), [1]);
    assert!(rig.publishing.next_stores().is_some_and(|(tag, ..)| tag == Tag(2)));
    let (stores, _) = rig.publish(3, &[("live/1", false), ("kept/1", true)]);
    assert_eq!(stores.len(), 0, "its own first waits behind the second call's");
    assert_eq!(rig.answer(2, vec![at(3)]), [2]);
    assert!(rig.publishing.next_stores().is_some_and(|(tag, ..)| tag == Tag(3)));
    let live = rig.outbox.try_take().into_iter().flat_map(|event| if let Event::Live(live) = event { live } else { Default::default() });
    let after: Vec<u64> = live.filter(|delivery| !delivery.message.guaranteed).map(|delivery| delivery.after.0).collect();
    assert_eq!(after, [0, 101, 102, 103]);
}

/// Who is shown a message that others store, and asks for it then, comes behind it.
#[test]
fn what_waits_for_no_disk_is_asked_for_before_it_is_shown() {
    let mut rig = Rig::fresh(Overflow::DropNewest);
    let take = |rig: &mut Rig, tag, guaranteed| {
        let publication = Publication { message: message("kept/1", guaranteed), receipt: None };
        let charge = Budget::with_max(1 << 30).charge(1 << 20).expect("there is room");
        rig.publishing.take(Tag(tag), vec![publication], &mut rig.routes, 3, charge);
    };
    take(&mut rig, 1, false);
    assert!(rig.publishing.has_stores() && rig.publishing.next_stores().is_some());
    take(&mut rig, 2, true);
    assert!(rig.publishing.next_stores().is_none(), "guaranteed, behind one that is not shown");
    rig.show();
    assert!(rig.publishing.next_stores().is_some());
}

#[test]
fn refused_and_repeated_messages_are_not_shown() {
    let mut rig = Rig::fresh(Overflow::DropNewest);
    rig.publish(1, &[("kept/1", true), ("kept/2", true), ("kept/3", true)]);
    rig.publish(2, &[("kept/4", true)]);
    assert_eq!(rig.answer(2, vec![Err(Refusal::StorageFull)]), [0; 0], "replies come in order");
    let repeated = Ok(Stored { duplicate: true, ..Stored::default() });
    assert_eq!(rig.answer(1, vec![Err(Refusal::StorageFull), repeated, stored()]), [1, 2]);
    assert_eq!(rig.shown(), ["kept/3"]);
}

#[test]
fn messages_under_one_subject_are_one_batch() {
    let mut rig = Rig::fresh(Overflow::DropNewest);
    let (stores, _) = rig.publish(1, &[("kept/1", true), ("kept/1", true), ("kept/2", true), ("kept/1", true), ("kept/1", false)]);
    let records: Vec<i32> = stores.iter().map(|store| store.batch.header.record_count).collect();
    assert_eq!(records, [2, 1, 1, 1]);
    assert_eq!(rig.answer(1, vec![stored(), stored(), stored(), stored()]), [1]);
    assert_eq!(rig.shown(), ["kept/1", "kept/1", "kept/2", "kept/1", "kept/1"]);
}

#[test]
fn a_full_outbox_follows_its_policy() {
    let flood = |overflow| {
        let rig = Rig::fresh(overflow);
        let large = |at: usize| {
            let message = Message { value: Some(Bytes::from(vec![0; 3 << 20])), ..message(&format!("n/{at}"), false) };
            LiveDelivery { message: Arc::new(message), subscriptions: Arc::new([1]), after: Position(0) }
        };
        rig.routes.subscriber.push((0..4).map(large));
        let dropped = rig.routes.subscriber.dropped.load(std::sync::atomic::Ordering::Relaxed);
        let overrun = matches!(rig.outbox.try_take().first(), Some(Event::Overrun));
        rig.routes.subscriber.push((0..1).map(large));
        (dropped, overrun, rig.shown())
    };
    assert_eq!(flood(Overflow::DropNewest), (2, false, vec!["n/0".to_owned()]));
    assert_eq!(flood(Overflow::DropOldest), (2, false, vec!["n/0".to_owned()]));
    assert_eq!(flood(Overflow::Disconnect), (2, true, vec![]), "nothing comes after an overrun");
}
