//! What the follower finds, and what subscribers see of it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use firth_archive::store::Store;
use firth_gateway::answer::Answer;
use firth_gateway::request::{Alter, Declare, Publish, Request, Wait};
use firth_gateway::streams::{Policy, StreamInfo};
use firth_gateway::view::{LastsFrom, LogView};
use firth_model::batch::Batch;
use firth_model::batch_builder::{BatchBuilder, Draft};
use firth_model::compression::Codec;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, SegmentId};
use firth_model::names::StreamName;
use firth_model::time::Millis;

use super::follower::{AWAY_MS, Follower};
use super::state::{Last, LastChange, LastEffect};
use crate::bench::Rig;
use crate::effect::Effect;
use crate::index::{Index, Place, Span};

const LATER: Millis = Millis(1 << 40);

fn last_policy(captures: &[&str]) -> Policy {
    let captures = captures.iter().map(|text| Filter::parse(text).expect("a filter")).collect();
    Policy { captures, offers_last: true, ..Policy::default() }
}

fn declare(rig: &mut Rig, name: &str, partitions: u32, policy: Policy) -> Arc<StreamInfo> {
    let name = StreamName::parse(name).expect("a name");
    let declare = Declare { name, partitions, policy, settings: Default::default() };
    let Ok(Answer::Stream(info)) = rig.ask(Request::Declare(Box::new(declare))) else { panic!("not made") };
    info
}

fn alter(rig: &mut Rig, info: &StreamInfo, policy: Policy) -> Arc<StreamInfo> {
    let alter = Alter { stream: info.id, version: info.version, policy, settings: Default::default() };
    let Ok(Answer::Stream(info)) = rig.ask(Request::Alter(Box::new(alter))) else { panic!("not altered") };
    info
}

/// One batch of (subject, value) records; without a subject they have their stream's.
fn produce(rig: &mut Rig, info: &StreamInfo, partition: usize, records: &[(Option<&str>, Option<&str>)]) {
    let mut builder = BatchBuilder::with_codec(Codec::None);
    for (subject, value) in records {
        let header = subject.map(|subject| ("firth-subject", Some(subject.as_bytes())));
        let headers: Vec<_> = header.into_iter().collect();
        builder = builder.record(Draft { value: value.map(str::as_bytes), headers: &headers, ..Draft::default() });
    }
    let batch = Batch::trust(builder.build()).expect("a batch");
    let (partition, wait) = (info.partitions[partition], Wait::Durable);
    let publish = Publish { partition, batch, wait, expires: Vec::new(), captured: Vec::new() };
    rig.ask(Request::Publish(vec![publish])).expect("stored");
}

fn all(follower: &mut Follower, now: Millis) {
    while follower.look(now).more {}
}

/// (subject, offset) of what the filter finds, a few at a time.
fn found(rig: &Rig, filter: &str) -> Vec<(String, u64)> {
    let filter = Filter::parse(filter).expect("a filter");
    let (mut found, mut from) = (Vec::new(), None::<LastsFrom>);
    loop {
        let some = rig.view().last_values(&filter, from.as_ref(), 2);
        let text = |subject: &Bytes| String::from_utf8(subject.to_vec()).expect("a text");
        found.extend(some.values.iter().map(|value| (text(&value.subject), value.offset.0)));
        from = some.next;
        if from.is_none() {
            found.sort();
            return found;
        }
    }
}

fn expect(rig: &Rig, filter: &str, expected: &[(&str, u64)]) {
    let expected: Vec<_> = expected.iter().map(|(subject, offset)| ((*subject).to_owned(), *offset)).collect();
    assert_eq!(found(rig, filter), expected, "{filter}");
}

#[test]
fn the_newest_record_of_each_subject_is_offered() {
    let mut rig = Rig::with_partitions(1);
    let orders = declare(&mut rig, "orders", 1, last_policy(&["till/*"]));
    let plain = declare(&mut rig, "plain", 1, Policy::default());
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    produce(&mut rig, &plain, 0, &[(None, Some("x"))]);
    produce(&mut rig, &orders, 0, &[(None, Some("0")), (Some("orders/eu"), Some("1")), (Some("till/4"), Some("2"))]);
    produce(&mut rig, &orders, 0, &[(Some("orders/eu"), Some("3")), (Some("elsewhere"), Some("4"))]);
    all(&mut follower, Millis(0));
    // What the stream does not capture has its own subject.
    expect(&rig, "#", &[("orders", 4), ("orders/eu", 3), ("till/4", 2)]);
    expect(&rig, "orders/>", &[("orders/eu", 3)]);
    expect(&rig, "*/4", &[("till/4", 2)]);
    expect(&rig, "plain", &[]);
    assert!(rig.view().last_values_ready(&Filter::parse("plain/#").expect("a filter")).is_none(), "nobody offers it");
    produce(&mut rig, &orders, 0, &[(Some("orders/eu"), None), (None, Some(""))]);
    all(&mut follower, Millis(0));
    expect(&rig, "#", &[("till/4", 2)]);
    assert!(rig.view().has_last_value(b"till/4") && !rig.view().has_last_value(b"orders"));
}

#[test]
fn who_asks_waits_for_what_is_durable() {
    let mut rig = Rig::with_partitions(1);
    let orders = declare(&mut rig, "orders", 1, last_policy(&[]));
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    all(&mut follower, Millis(0));
    produce(&mut rig, &orders, 0, &[(None, Some("0"))]);
    let mut ready = rig.view().last_values_ready(&Filter::parse("#").expect("a filter")).expect("a stream offers");
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(ready.as_mut().poll(&mut context).is_pending());
    assert!(!follower.park(&rig.view().lasts.waiter));
    // However long that takes: who does not wait so long gives up by itself.
    let given_up = rig.view().last_values_ready(&Filter::parse("orders").expect("a filter"));
    rig.view().lasts.answer(false);
    assert!(ready.as_mut().poll(&mut context).is_pending());
    drop(given_up);
    all(&mut follower, LATER);
    assert_eq!(ready.as_mut().poll(&mut context), std::task::Poll::Ready(true));
    assert!(!rig.view().lasts.is_asked() && follower.park(&rig.view().lasts.waiter));
}

#[test]
fn it_is_switched_on_and_off_and_dropped() {
    let mut rig = Rig::with_partitions(1);
    let orders = declare(&mut rig, "orders", 1, Policy::default());
    produce(&mut rig, &orders, 0, &[(Some("orders/a"), Some("0")), (Some("orders/b"), Some("1"))]);
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    all(&mut follower, Millis(0));
    expect(&rig, "#", &[]);
    assert!(!follower.is_busy() && !follower.has_changes());
    let orders = alter(&mut rig, &orders, last_policy(&[]));
    all(&mut follower, Millis(0));
    expect(&rig, "#", &[("orders/a", 0), ("orders/b", 1)]);
    let kept: Vec<_> = follower.take_changes();
    assert_eq!((kept.len(), kept.iter().filter(|(_, value)| value.is_some()).count()), (3, 3));
    let orders = alter(&mut rig, &orders, Policy::default());
    expect(&rig, "#", &[]);
    all(&mut follower, Millis(0));
    let mut ended = follower.take_changes();
    ended.sort();
    let mut keys: Vec<_> = kept.iter().map(|(key, _)| (key.clone(), None)).collect();
    keys.sort();
    assert_eq!(ended, keys, "nothing of it is left");
    let orders = alter(&mut rig, &orders, last_policy(&[]));
    all(&mut follower, Millis(0));
    expect(&rig, "#", &[("orders/a", 0), ("orders/b", 1)]);
    rig.ask(Request::Drop { stream: orders.id }).expect("dropped");
    expect(&rig, "#", &[]);
    all(&mut follower, Millis(0));
    let mut ended = follower.take_changes();
    ended.sort();
    assert_eq!(ended, keys);
}

#[test]
fn a_start_goes_on_from_what_was_kept() {
    let mut rig = Rig::with_partitions(1);
    let orders = declare(&mut rig, "orders", 1, last_policy(&[]));
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    produce(&mut rig, &orders, 0, &[(Some("orders/a"), Some("0")), (Some("orders/b"), Some("1"))]);
    all(&mut follower, Millis(0));
    let kept = follower.take_changes();
    produce(&mut rig, &orders, 0, &[(Some("orders/b"), Some("2")), (Some("orders/a"), None)]);
    all(&mut follower, Millis(0));
    expect(&rig, "#", &[("orders/b", 2)]);
    // As after a crash: what came later is found again, what came before is not read again.
    let mut state = crate::state::State::empty(Default::default(), 1 << 20);
    kept.iter().for_each(|(key, value)| state.load(key, value.as_ref().expect("put")).expect("own bytes"));
    assert_eq!(state.lasts[&orders.id].next[&orders.partitions[0]], Offset(2));
    let stray = LastChange::Newest { subject: Bytes::from_static(b"x"), last: None };
    state.apply(&Effect::Last(LastEffect { stream: orders.id, what: stray }), firth_model::ids::Lsn(0));
    rig.view().lasts.load(std::mem::take(&mut state.lasts));
    expect(&rig, "#", &[("orders/a", 0), ("orders/b", 1)]);
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    all(&mut follower, Millis(0));
    expect(&rig, "#", &[("orders/b", 2)]);
}

#[test]
fn what_was_removed_is_forgotten() {
    let mut rig = Rig::with_partitions(1);
    let orders = declare(&mut rig, "orders", 1, last_policy(&[]));
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    for subject in ["orders/a", "orders/b", "orders/c"] {
        produce(&mut rig, &orders, 0, &[(Some(subject), Some("x"))]);
    }
    all(&mut follower, Millis(0));
    follower.take_changes();
    rig.ask(Request::Trim { partition: orders.partitions[0], before: Some(Offset(2)) }).expect("trimmed");
    all(&mut follower, LATER);
    expect(&rig, "#", &[("orders/c", 2)]);
    assert_eq!(follower.take_changes().iter().filter(|(_, value)| value.is_none()).count(), 2);
}

#[test]
fn of_several_partitions_and_streams_the_newest_in_the_journal_counts() {
    let mut rig = Rig::with_partitions(1);
    let orders = declare(&mut rig, "orders", 2, last_policy(&[]));
    let audit = declare(&mut rig, "audit", 1, last_policy(&["orders/#"]));
    // The second partition has the older ones, and is read later.
    produce(&mut rig, &orders, 1, &[(Some("orders/a"), Some("old")), (Some("orders/b"), Some("old")), (Some("orders/c"), Some("old"))]);
    produce(&mut rig, &orders, 0, &[(Some("orders/a"), Some("new")), (Some("orders/b"), None)]);
    produce(&mut rig, &audit, 0, &[(Some("orders/c"), Some("new"))]);
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    all(&mut follower, Millis(0));
    let filter = Filter::parse("orders/#").expect("a filter");
    let values = rig.view().last_values(&filter, None, 10).values;
    let mut places: Vec<_> = values.iter().map(|value| (&value.subject[..], value.partition)).collect();
    places.sort();
    assert_eq!(places, [(&b"orders/a"[..], orders.partitions[0]), (b"orders/c", audit.partitions[0])]);
    let gone = |rig: &Rig| rig.view().lasts.found()[&orders.id].newest.values().filter(|last: &&Last| last.gone).count();
    assert_eq!(gone(&rig), 0, "no mark is left");
}

/// A store that nobody reaches.
struct Away;

impl Store for Away {
    fn put(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn get(&self, _: &str) -> io::Result<Option<Bytes>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn get_range(&self, _: &str, _: u64, _: usize) -> io::Result<Bytes> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn size(&self, _: &str) -> io::Result<Option<u64>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    fn delete(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

#[test]
fn what_cannot_be_reached_for_a_while_is_found_afterwards() {
    let mut rig = Rig::over(Arc::new(Away), 1);
    let orders = declare(&mut rig, "orders", 1, last_policy(&[]));
    let partition = orders.partitions[0];
    produce(&mut rig, &orders, 0, &[(Some("orders/a"), Some("0")), (Some("orders/b"), Some("1"))]);
    let (place, base, end) = (Place::Segment(SegmentId(9)), Offset(0), Offset(2));
    let moved = Index::of_spans(vec![Span { place, base, end, bytes: 100, max_timestamp: 0, appended: Millis(0) }]);
    let view = rig.state().partitions[&partition].view.clone();
    let here = std::mem::replace(&mut *view.index(), moved);
    let mut follower = Follower::over(rig.view().clone(), Millis(0));
    let look = follower.look(Millis(0));
    assert!(look.away && !look.more && follower.park(&rig.view().lasts.waiter), "it waits");
    assert!(!follower.has_changes(), "nothing is kept as read");
    assert!(follower.look(Millis(1)).away);
    *view.index() = here;
    assert!(follower.look(Millis(AWAY_MS - 1)).away, "it does not ask again and again");
    expect(&rig, "#", &[]);
    assert!(!follower.look(Millis(AWAY_MS)).away);
    expect(&rig, "#", &[("orders/a", 0), ("orders/b", 1)]);
}
