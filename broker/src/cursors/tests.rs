//! Cursors by themselves: moves, limits, and the same state by replay and from a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use firth_gateway::cursors::{Attachment, CursorId, HOLDS, Keep, Leg, Mark, Receipt, Settle, Settlement};
use firth_gateway::refusal::Refusal;
use firth_model::filter::{Filter, Reserved};
use firth_model::ids::{Lsn, Offset, PartitionId, Position};
use firth_model::limits::{CURSOR_NAME_BYTES_MAX, CURSOR_NOTE_BYTES_MAX, CURSOR_NOTES_BYTES_MAX, CURSOR_RUNS_MAX};
use firth_model::time::Millis;

use super::deciding::Binding;
use super::state::{CursorEffect, LegRecord};
use crate::effect::Effect;
use crate::groups::machine::Groups;
use crate::state::State;

const PARTITION: PartitionId = PartitionId(7);
const END: Offset = Offset(100_000);

fn empty() -> State {
    let mut state = State::empty(Groups::default(), 1 << 20);
    state.cursors.recovered(Millis(0));
    state
}

fn name(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).expect("a filter")
}

/// A state, and every effect on it in its bytes.
struct Desk {
    state: State,
    now: Millis,
    journal: Vec<(Bytes, Option<Bytes>)>,
}

impl Desk {
    fn fresh() -> Desk {
        Desk { state: empty(), now: Millis(0), journal: Vec::new() }
    }

    fn put(&mut self, effect: CursorEffect) {
        let effect = Effect::Cursor(effect);
        let (key, value) = effect.key_value().expect("has a key");
        self.state.apply(&effect, Lsn(0));
        self.state.touch(key.clone(), value.clone());
        self.journal.push((key, value));
    }

    fn attach(&mut self, text: &str, fresh: bool, keep: Keep) -> (Attachment, bool) {
        let attaching = self.state.cursors.attaching(&name(text), fresh, keep, self.now).expect("attaches");
        attaching.effects.into_iter().for_each(|effect| self.put(effect));
        (self.state.cursors.attach(attaching.cursor).expect("there"), attaching.found)
    }

    fn bind(&mut self, attachment: Attachment, partition: PartitionId, text: &str, floor: Offset) {
        let (filter, note) = (filter(text), name("note"));
        let effect = match self.state.cursors.binding(attachment, &filter, &note).expect("binds") {
            Binding::Known { effect, .. } => effect,
            Binding::New => {
                let partition = self.state.cursors.filters.find(&filter).unwrap_or(partition);
                let leg = Box::new(LegRecord { filter, note, bound_at: Position(5), floor });
                Some(CursorEffect::PutLeg { cursor: attachment.cursor, partition, leg })
            }
        };
        effect.into_iter().for_each(|effect| self.put(effect));
    }

    fn settle(&mut self, attachment: Attachment, what: &[Settlement]) -> Result<bool, Refusal> {
        let settles: Vec<Settle> = what.iter().map(|what| Settle { partition: PARTITION, what: what.clone() }).collect();
        self.state.cursors.attached(attachment)?;
        let (effects, marked) = self.state.cursors.settling(attachment.cursor, &settles, |_| Some(END))?;
        effects.into_iter().for_each(|effect| self.put(effect));
        Ok(marked)
    }

    fn detach(&mut self, attachment: Attachment, keep: Option<Keep>, now: Millis) {
        let effect = self.state.cursors.detaching(attachment, keep, now).expect("attached");
        self.put(effect);
    }

    fn note(&mut self, attachment: Attachment, number: u32, note: Option<Bytes>) -> Result<(), Refusal> {
        let effects = self.state.cursors.noting(attachment, vec![(number, note)])?;
        effects.into_iter().for_each(|effect| self.put(effect));
        Ok(())
    }

    fn leg(&self, cursor: CursorId) -> Leg {
        let cursors = &self.state.cursors;
        cursors.leg(cursors.get(cursor).and_then(|held| held.leg(PARTITION)).expect("a leg")).expect("its filter")
    }

    /// The state by the bytes of its effects.
    fn replayed(&self) -> State {
        let mut state = State::empty(Groups::default(), 1 << 20);
        for (key, value) in &self.journal {
            state.apply(&Effect::decode(key, value.as_ref()).expect("own bytes"), Lsn(0));
        }
        state.cursors.recovered(Millis(0));
        state
    }
}

fn done(from: u64, to: u64) -> Settlement {
    Settlement::Done { from: Offset(from), to: Offset(to) }
}

fn mark(offset: u64, tag: u32, stage: u8) -> Settlement {
    Settlement::Mark { offset: Offset(offset), tag, stage }
}

#[test]
fn the_newest_attachment_counts() {
    let mut desk = Desk::fresh();
    let (first, found) = desk.attach("a", false, Keep::For(10));
    assert!(!found);
    let (second, found) = desk.attach("a", false, Keep::For(10));
    assert!(found && second.cursor == first.cursor && second.generation > first.generation);
    assert_eq!(desk.settle(first, &[done(0, 1)]), Err(Refusal::Conflict));
    assert_eq!(desk.settle(second, &[done(0, 1)]), Ok(false));
    desk.bind(second, PARTITION, "x/>", Offset(0));
    desk.note(second, 1, Some(name("n"))).expect("noted");
    let (third, found) = desk.attach("a", true, Keep::Ever);
    assert!(!found && third.cursor == second.cursor);
    let attached = desk.state.cursors.remembered(third, found).expect("there");
    assert!(attached.legs.is_empty() && attached.notes.is_empty());
    assert_eq!(desk.state.cursors.attached(second).err(), Some(Refusal::Conflict));
    assert_eq!(desk.state.cursors.filters.take_idle(), [PARTITION]);
    desk.detach(third, Some(Keep::For(0)), Millis(3));
    assert_eq!(desk.state.cursors.attached(third).err(), Some(Refusal::NotFound));
    let (again, _) = desk.attach("a", false, Keep::Ever);
    assert_ne!(again.cursor, third.cursor, "ids are not given out again");
}

#[test]
fn settlements_become_runs_and_move_the_floor() {
    let mut desk = Desk::fresh();
    let (at, _) = desk.attach("a", false, Keep::Ever);
    desk.bind(at, PARTITION, "x/>", Offset(10));
    assert_eq!(desk.settle(at, &[done(12, 14), mark(10, 1, 1), mark(15, 2, 1)]), Ok(true));
    assert_eq!(desk.settle(at, &[mark(15, 2, 1), mark(13, 9, 1), mark(3, 9, 1)]), Ok(false), "known, settled, below");
    let leg = desk.leg(at.cursor);
    assert_eq!((leg.floor, &leg.settled[..]), (Offset(10), &[(Offset(12), Offset(14))][..]));
    let marked = |offset, tag| Mark { offset: Offset(offset), tag, stage: 1 };
    assert_eq!(leg.marks, [marked(10, 1), marked(15, 2)]);
    assert_eq!(desk.settle(at, &[done(0, 12)]), Ok(false));
    let leg = desk.leg(at.cursor);
    assert_eq!((leg.floor, leg.settled.len(), &leg.marks[..]), (Offset(14), 0, &[marked(15, 2)][..]));
    assert_eq!(desk.settle(at, &[mark(15, 2, 2)]), Ok(true), "a later stage");
    desk.settle(at, &[done(15, u64::MAX)]).expect("up to what there is");
    assert_eq!(desk.leg(at.cursor).settled, [(Offset(15), END)]);
    assert!(desk.leg(at.cursor).marks.is_empty());
    let effects = desk.journal.len();
    desk.settle(at, &[done(10, 14), done(20, 30)]).expect("nothing new");
    assert_eq!(desk.journal.len(), effects, "what is known is not journalled again");
    assert_eq!(desk.replayed().dump(), desk.state.dump());
}

#[test]
fn legs_on_one_filter_share_its_stream_and_other_rules_do_not() {
    let mut desk = Desk::fresh();
    let (one, _) = desk.attach("one", false, Keep::Ever);
    let (two, _) = desk.attach("two", false, Keep::Ever);
    desk.bind(one, PARTITION, "x/#", Offset(0));
    desk.bind(two, PartitionId(8), "x/#", Offset(4));
    assert_eq!(desk.state.cursors.filters.legs(PARTITION), 2);
    assert_eq!(desk.state.cursors.filters.find(&filter("x/#").with_reserved(Reserved::Matched)), None);
    desk.settle(one, &[done(0, 9)]).expect("settles");
    assert_eq!(desk.state.cursors.filters.take_moved(), [(PARTITION, Offset(4))]);
    let dropped = desk.state.cursors.unbinding(two, &filter("x/#")).expect("attached").expect("a leg");
    desk.put(dropped);
    assert_eq!(desk.state.cursors.filters.take_moved(), [(PARTITION, Offset(9))]);
    assert_eq!(desk.state.cursors.unbinding(two, &filter("x/#")), Ok(None));
    let known = desk.state.cursors.binding(one, &filter("x/#"), &name("note"));
    assert!(matches!(known, Ok(Binding::Known { partition: PARTITION, effect: None })));
    let renoted = desk.state.cursors.binding(one, &filter("x/#"), &name("other")).expect("binds");
    let Binding::Known { effect: Some(effect), .. } = renoted else { panic!("a note to put") };
    desk.put(effect);
    let leg = desk.leg(one.cursor);
    assert_eq!((&leg.note[..], leg.floor, leg.bound_at), (&b"other"[..], Offset(9), Position(5)));
    assert_eq!(desk.replayed().dump(), desk.state.dump());
}

/// Whoever attached for nothing: what the one before was doing nobody knows, and the time that is left runs on.
#[test]
fn what_is_returned_is_as_it_was_found() {
    let mut desk = Desk::fresh();
    let (left, _) = desk.attach("left", false, Keep::For(100));
    desk.attach("cut", false, Keep::For(100));
    desk.detach(left, None, Millis(10));
    desk.state = desk.replayed();
    desk.state.cursors.recovered(Millis(50));
    for (text, end, interrupted) in [("left", 110, false), ("cut", 150, true)] {
        let before = |desk: &Desk| desk.state.cursors.get(desk.state.cursors.by_name(&name(text)).expect("there")).expect("there").before();
        let found = before(&desk);
        assert_eq!(found.interrupted, interrupted);
        let (attachment, _) = desk.attach(text, false, Keep::For(9_000));
        assert!(!before(&desk).interrupted && !desk.state.cursors.has_ended(attachment.cursor, Millis(9_999)));
        let returned = desk.state.cursors.returning(attachment, Some(found), Millis(60)).expect("attached");
        desk.put(returned);
        assert_eq!(before(&desk), found);
        assert_eq!(desk.state.cursors.ended(Millis(end - 1)), None);
        assert_eq!(desk.state.cursors.ended(Millis(end)), Some(attachment.cursor));
        let made_anew = desk.attach(text, true, Keep::Ever).0;
        assert_eq!(desk.state.cursors.returning(attachment, Some(found), Millis(60)), Err(Refusal::Conflict));
        let dropped = desk.state.cursors.returning(made_anew, None, Millis(60)).expect("attached");
        desk.put(dropped);
    }
    assert!(desk.state.cursors.is_empty());
}

#[test]
fn detached_cursors_end_in_the_order_of_their_ends() {
    let mut desk = Desk::fresh();
    let (one, _) = desk.attach("one", false, Keep::For(500));
    let (two, _) = desk.attach("two", false, Keep::For(100));
    let (ever, _) = desk.attach("ever", false, Keep::Ever);
    let (still, _) = desk.attach("still", false, Keep::For(50));
    desk.detach(one, None, Millis(1000));
    desk.detach(two, None, Millis(1000));
    desk.detach(ever, None, Millis(1000));
    let cursors = &desk.state.cursors;
    assert_eq!(
        (cursors.next_end(), cursors.ended(Millis(1099)), cursors.ended(Millis(1100))),
        (Some(Millis(1100)), None, Some(two.cursor))
    );
    let (back, found) = desk.attach("two", false, Keep::For(100));
    assert!(found);
    assert_eq!(desk.state.cursors.ended(Millis(1499)), None);
    desk.detach(back, Some(Keep::For(u64::MAX)), Millis(1200));
    assert_eq!(desk.state.cursors.next_end(), Some(Millis(1500)));
    // Who was attached when the node stopped is detached since it started.
    let mut restarted = desk.replayed();
    restarted.cursors.recovered(Millis(2000));
    assert_eq!(restarted.cursors.ended(Millis(2000)), Some(one.cursor));
    restarted.apply(&Effect::Cursor(CursorEffect::DropCursor { cursor: one.cursor }), Lsn(0));
    assert_eq!((restarted.cursors.ended(Millis(2049)), restarted.cursors.ended(Millis(2050))), (None, Some(still.cursor)));
    let list = restarted.cursors.list(b"still", None, 9, |_| None);
    assert_eq!((list.len(), list[0].attached, list[0].detached), (1, false, Some(Millis(2000))));
}

#[test]
fn a_cursor_that_ended_is_not_found_again() {
    let mut desk = Desk::fresh();
    let (at, _) = desk.attach("a", false, Keep::For(100));
    desk.bind(at, PARTITION, "x/>", Offset(0));
    desk.detach(at, None, Millis(1000));
    desk.now = Millis(1099);
    let (at, found) = desk.attach("a", false, Keep::For(100));
    assert!(found);
    desk.detach(at, None, Millis(1100));
    desk.now = Millis(1200);
    let (at, found) = desk.attach("a", false, Keep::For(0));
    assert!(!found && desk.state.cursors.get(at.cursor).is_some_and(|held| held.legs.is_empty()));
    // One that goes with its attachment went with the process.
    desk.state = desk.replayed();
    assert!(!desk.attach("a", false, Keep::For(0)).1);
    assert_eq!(desk.replayed().dump(), desk.state.dump());
}

#[test]
fn what_is_too_large_is_refused() {
    let mut desk = Desk::fresh();
    let long = Bytes::from(vec![b'x'; CURSOR_NAME_BYTES_MAX + 1]);
    assert_eq!(desk.state.cursors.attaching(&long, false, Keep::Ever, Millis(0)).err(), Some(Refusal::MetadataTooLarge));
    let (at, _) = desk.attach("a", false, Keep::Ever);
    assert_eq!(desk.note(at, 1, Some(Bytes::from(vec![0; CURSOR_NOTE_BYTES_MAX + 1]))), Err(Refusal::MetadataTooLarge));
    let largest = Bytes::from(vec![0; CURSOR_NOTE_BYTES_MAX]);
    let fit = u32::try_from(CURSOR_NOTES_BYTES_MAX / CURSOR_NOTE_BYTES_MAX).expect("few");
    (0..fit).for_each(|number| desk.note(at, number, Some(largest.clone())).expect("there is room"));
    assert_eq!(desk.note(at, fit, Some(largest.clone())), Err(Refusal::MetadataTooLarge));
    desk.note(at, 0, None).expect("gives room");
    desk.note(at, fit, Some(largest)).expect("took it");
    desk.bind(at, PARTITION, "x/>", Offset(0));
    let holes: Vec<Settlement> = (0..CURSOR_RUNS_MAX as u64).map(|at| done(2 * at + 1, 2 * at + 2)).collect();
    desk.settle(at, &holes).expect("as many as may be");
    assert_eq!(desk.settle(at, &[done(50_000, 50_001)]), Err(Refusal::Overloaded));
    desk.settle(at, &[done(0, 1), done(50_000, 50_001)]).expect("one less");
}

#[test]
fn a_receipt_is_left_once() {
    let mut desk = Desk::fresh();
    let (at, _) = desk.attach("a", false, Keep::Ever);
    let receipt = Receipt::Leaves { attachment: at, note: 9 };
    let left = desk.state.cursors.receipt(&receipt).expect("attached").expect("not there");
    desk.put(left);
    assert_eq!(desk.state.cursors.receipt(&receipt), Ok(None));
    desk.note(at, 9, None).expect("removed");
    assert!(desk.state.cursors.receipt(&receipt).expect("attached").is_some());
    desk.attach("a", false, Keep::Ever);
    assert_eq!(desk.state.cursors.receipt(&receipt), Err(Refusal::Conflict));
}

#[test]
fn a_note_that_holds_its_cursor_is_taken_once() {
    let mut desk = Desk::fresh();
    let (at, _) = desk.attach("a", false, Keep::For(5));
    desk.note(at, HOLDS | 1, Some(name("last words"))).expect("noted");
    desk.detach(at, Some(Keep::For(5)), Millis(0));
    assert_eq!(desk.state.cursors.next_end(), None, "held");
    let receipt = Receipt::Takes { cursor: Bytes::from_static(b"a"), note: HOLDS | 1 };
    let taken = desk.state.cursors.receipt(&receipt).expect("no refusal").expect("there");
    desk.put(taken);
    assert_eq!(desk.state.cursors.next_end(), Some(Millis(5)));
    assert_eq!(desk.state.cursors.receipt(&receipt), Ok(None));
    let (at, _) = desk.attach("a", false, Keep::For(5));
    desk.note(at, HOLDS | 1, Some(name("more"))).expect("noted");
    desk.detach(at, None, Millis(10));
    let attaching = desk.state.cursors.attaching(&Bytes::from_static(b"a"), false, Keep::Ever, Millis(20)).expect("attaches");
    assert!(!attaching.found, "its time is over all the same");
}

#[test]
fn lists_go_by_the_beginning_of_names() {
    let mut desk = Desk::fresh();
    for text in ["mqtt/b", "mqtt/a", "nats/a"] {
        desk.attach(text, false, Keep::Ever);
    }
    let (at, _) = desk.attach("mqtt/a", false, Keep::For(5));
    desk.bind(at, PARTITION, "x/>", Offset(10));
    desk.settle(at, &[done(12, 14)]).expect("settles");
    let bounds = |_| Some((Offset(0), Offset(20)));
    let list = desk.state.cursors.list(b"mqtt/", None, 9, bounds);
    assert_eq!(list.iter().map(|report| &report.name[..]).collect::<Vec<_>>(), [b"mqtt/a", b"mqtt/b"]);
    assert_eq!((list[0].unsettled, list[0].attached, list[0].legs.len()), (8, true, 1));
    let names = |after, max| desk.state.cursors.list(b"mqtt/", after, max, bounds).iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(None, 1), ["mqtt/a"]);
    assert_eq!(names(Some(&b"mqtt/a"[..]), 1), ["mqtt/b"]);
    assert!(names(Some(&b"mqtt/b"[..]), 1).is_empty());
    let trimmed = desk.state.cursors.list(b"mqtt/a", None, 9, |_| Some((Offset(13), Offset(20))));
    assert_eq!(trimmed[0].unsettled, 6);
}

#[derive(Clone, Debug)]
enum Act {
    Attach(u8, bool),
    Bind(u8, u8),
    Unbind(u8, u8),
    Settle(u8, u8, u64, u64),
    Mark(u8, u8, u64),
    Note(u8, u32, bool),
    Detach(u8, bool),
    Checkpoint,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (0..4u8, prop::bool::weighted(0.2)).prop_map(|(who, fresh)| Act::Attach(who, fresh)),
        3 => (0..4u8, 0..3u8).prop_map(|(who, leg)| Act::Bind(who, leg)),
        1 => (0..4u8, 0..3u8).prop_map(|(who, leg)| Act::Unbind(who, leg)),
        8 => (0..4u8, 0..3u8, 0..60u64, 0..9u64).prop_map(|(who, leg, from, count)| Act::Settle(who, leg, from, count)),
        4 => (0..4u8, 0..3u8, 0..60u64).prop_map(|(who, leg, at)| Act::Mark(who, leg, at)),
        2 => (0..4u8, 0..3u32, any::<bool>()).prop_map(|(who, number, put)| Act::Note(who, number, put)),
        1 => (0..4u8, prop::bool::weighted(0.3)).prop_map(|(who, ends)| Act::Detach(who, ends)),
        1 => Just(Act::Checkpoint),
    ];
    prop::collection::vec(act, 1..80)
}

fn act(desk: &mut Desk, attached: &mut BTreeMap<u8, Attachment>, act: &Act) {
    let leg = |leg: u8| (PartitionId(20 + u32::from(leg)), format!("f{leg}/>"));
    let of = |who: &u8| attached.get(who).copied();
    match act {
        Act::Attach(who, fresh) => {
            attached.insert(*who, desk.attach(&format!("c{who}"), *fresh, Keep::For(9)).0);
        }
        Act::Bind(who, at) => {
            let (Some(attachment), (partition, filter)) = (of(who), leg(*at)) else { return };
            desk.bind(attachment, partition, &filter, Offset(u64::from(*who)));
        }
        Act::Unbind(who, at) => {
            let (Some(attachment), (_, text)) = (of(who), leg(*at)) else { return };
            let effect = desk.state.cursors.unbinding(attachment, &filter(&text)).expect("attached");
            effect.into_iter().for_each(|effect| desk.put(effect));
        }
        Act::Settle(who, at, from, count) => {
            let what = Settlement::Done { from: Offset(*from), to: Offset(from + count) };
            settle_one(desk, of(who), leg(*at).0, what);
        }
        Act::Mark(who, at, offset) => {
            settle_one(desk, of(who), leg(*at).0, Settlement::Mark { offset: Offset(*offset), tag: 5, stage: 1 });
        }
        Act::Note(who, number, put) => {
            let Some(attachment) = of(who) else { return };
            desk.note(attachment, *number, put.then(|| Bytes::from_static(b"n"))).expect("small");
        }
        Act::Detach(who, ends) => {
            let Some(attachment) = attached.remove(who) else { return };
            desk.detach(attachment, ends.then_some(Keep::For(0)), Millis(4));
        }
        Act::Checkpoint => {}
    }
}

fn settle_one(desk: &mut Desk, attachment: Option<Attachment>, partition: PartitionId, what: Settlement) {
    let Some(attachment) = attachment else { return };
    let settles = [Settle { partition, what }];
    let (effects, _) = desk.state.cursors.settling(attachment.cursor, &settles, |_| Some(Offset(50))).expect("attached");
    effects.into_iter().for_each(|effect| desk.put(effect));
}

proptest! {
    #[test]
    fn replay_and_checkpoints_give_the_same_state(acts in acts()) {
        let mut desk = Desk::fresh();
        let (mut attached, mut stored) = (BTreeMap::new(), BTreeMap::new());
        for one in &acts {
            act(&mut desk, &mut attached, one);
            if matches!(one, Act::Checkpoint) {
                stored.extend(desk.state.take_changes());
            }
        }
        stored.extend(desk.state.take_changes());
        let dump = desk.state.dump();
        prop_assert_eq!(desk.replayed().dump(), dump.clone());
        let mut loaded = State::empty(Groups::default(), 1 << 20);
        for (key, value) in &stored {
            let Some(value) = value else { continue };
            loaded.load(key, value).expect("own bytes");
        }
        let (partitions, floors): (BTreeSet<PartitionId>, Vec<_>) = {
            let all: Vec<_> = (20..23).map(PartitionId).collect();
            let floors = all.iter().map(|partition| desk.state.cursors.filters.smallest_floor(*partition)).collect();
            (all.into_iter().collect(), floors)
        };
        let again: Vec<_> = partitions.iter().map(|partition| loaded.cursors.filters.smallest_floor(*partition)).collect();
        prop_assert_eq!(again, floors);
        let (mut ours, mut theirs) = (dump, loaded.dump());
        // The node's own key is not among what was changed here.
        ours.remove(&b"\x01"[..]);
        theirs.remove(&b"\x01"[..]);
        prop_assert_eq!(ours, theirs);
    }
}

#[test]
fn attempts_are_counted_until_the_record_is_settled() {
    let mut desk = Desk::fresh();
    let (attachment, _) = desk.attach("a", false, Keep::Ever);
    desk.bind(attachment, PARTITION, "a/#", Offset(10));
    let handed = |offset| Settlement::HandedOut { offset: Offset(offset) };
    let marked = desk.settle(attachment, &[handed(10), handed(12), handed(12), handed(9), handed(END.0)]);
    assert_eq!(marked, Ok(false), "nobody waits for it to be durable");
    desk.settle(attachment, &[handed(12), handed(11), done(11, 12), handed(11)]).expect("settles");
    let (attachment, _) = desk.attach("a", false, Keep::Ever);
    assert_eq!(desk.leg(attachment.cursor).attempts, [(Offset(10), 1), (Offset(12), 3)]);
    assert_eq!(desk.replayed().dump(), desk.state.dump());
    desk.settle(attachment, &[done(10, 11)]).expect("settles");
    assert_eq!(desk.leg(attachment.cursor).attempts, [(Offset(12), 3)]);
    desk.settle(attachment, &[done(12, 13), handed(12)]).expect("settles");
    assert!(desk.leg(attachment.cursor).attempts.is_empty());
    assert_eq!(desk.replayed().dump(), desk.state.dump());
}
