//! Queues that are over their limits, in the shard.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use firth_gateway::answer::Event;
use firth_gateway::cursors::CursorId;
use firth_gateway::view::LogView;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::limits::{CURSOR_RUNS_MAX, QUEUE_DROPS_AT_ONCE, QUEUES_LOOK, QUEUES_WORK};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use super::care::{LIMIT_EVERY_MS, Unsaid, Walk};
use super::limits::{Backlog, QueueLimits, Runs, lost};
use super::table::{HeldCursor, HeldLeg};
use crate::effect::Effect;
use crate::index::Index;
use crate::partition_view::PartitionView;
use crate::shard::{Due, Shard};

/// How often the log says that a session loses records.
const SAID_EVERY_MS: i64 = 60_000;
/// Runs of a leg to which limits add no more: half of what there may be, so that who is attached can settle out of order.
const LOST_RUNS_MAX: usize = CURSOR_RUNS_MAX / 2;
/// Sessions that it names at once; a number stands for the rest.
const NAMED_AT_ONCE: usize = 20;

impl Shard {
    /// Looks at some cursors, if anything was stored since they were looked at last.
    pub(super) fn limit_queues(&mut self) {
        let shown = self.view.shown();
        let care = &self.cursor_care;
        let idle = !care.walk.is_under_way() && care.limited_to == shown && care.thinned.is_empty();
        if care.limit_due > self.now || idle || self.state.cursors.is_empty() {
            return;
        }
        self.cursor_care.limit_due = self.now.plus(LIMIT_EVERY_MS);
        if self.cursor_care.walk.after.is_none() {
            self.cursor_care.limited_to = shown;
            self.begin_walk();
        }
        let after = self.cursor_care.walk.after.take();
        let (some, mut last) = self.state.cursors.some_after(after.as_deref().unwrap_or_default(), QUEUES_LOOK);
        let mut work = 0;
        for (at, cursor) in some.iter().enumerate() {
            let dropped = self.limit_queue(*cursor);
            if dropped >= QUEUE_DROPS_AT_ONCE {
                // There may be more: this walk is not the last.
                self.cursor_care.limited_to = Position(0);
            }
            self.note_needed(*cursor);
            let Some(held) = self.state.cursors.get(*cursor) else { continue };
            work += dropped + held.legs.iter().map(|leg| 1 + leg.settled.runs()).sum::<usize>();
            if work > QUEUES_WORK && at + 1 < some.len() {
                last = Some(held.name.clone());
                break;
            }
        }
        let done = last.is_none();
        self.cursor_care.walk.after = last;
        if done {
            self.remove_unneeded();
        }
    }

    fn begin_walk(&mut self) {
        let thinned = &self.cursor_care.thinned;
        let ends = thinned.iter().filter_map(|id| Some((*id, self.state.partitions.get(id)?.view.durable_end())));
        let ends: HashMap<PartitionId, Offset> = ends.collect();
        let needed = ends.keys().map(|id| (*id, RunSet::default())).collect();
        self.cursor_care.thinned.clear();
        self.cursor_care.attached.retain(|_, outbox| outbox.strong_count() > 0);
        self.cursor_care.walk = Walk { after: None, ends, needed };
    }

    /// Takes from the cursor what is beyond its limits. Gives the pieces that was.
    pub(super) fn limit_queue(&mut self, cursor: CursorId) -> usize {
        let limits = self.cursor_care.limits;
        let Some(held) = self.state.cursors.get(cursor) else { return 0 };
        let is_attached = held.generation != 0;
        let (views, spared) = (self.views_of(held), if is_attached { limits.in_flight } else { 0 });
        let (runs, pieces) = runs_lost(held, &views, &limits, spared);
        let mut dropped = 0;
        for (partition, runs) in runs {
            let Some((effect, records)) = self.state.cursors.dropping(cursor, partition, &runs) else { continue };
            dropped += records;
            self.put(effect);
            // Behind what is kept, where no floor passes it.
            let leg = self.state.cursors.get(cursor).and_then(|held| held.leg(partition));
            if leg.is_some_and(|leg| leg.settled.runs() > 0) {
                self.cursor_care.thinned.insert(partition);
            }
            // Who is attached reads by itself.
            let outbox = self.cursor_care.attached.get(&cursor).and_then(Weak::upgrade);
            if let Some(outbox) = outbox.filter(|_| is_attached) {
                outbox.push(Event::Dropped { partition, runs });
                self.to_wake.push(outbox);
            }
        }
        if dropped > 0 {
            self.view.dropped.fetch_add(dropped, Ordering::Relaxed);
            self.state.cursors.count_dropped(cursor, dropped);
            let unsaid = self.cursor_care.unsaid.entry(cursor).or_insert(Unsaid { records: 0, due: self.now });
            unsaid.records += dropped;
            self.cursor_care.say_due = self.cursor_care.say_due.min(unsaid.due.max(self.now));
        }
        pieces
    }

    /// The partitions of its legs, with what they show.
    fn views_of(&self, held: &HeldCursor) -> Vec<Arc<PartitionView>> {
        held.legs.iter().filter_map(|leg| self.state.partitions.get(&leg.partition)).map(|held| held.view.clone()).collect()
    }

    /// What the cursor still needs of partitions that lost records behind some that are kept.
    fn note_needed(&mut self, cursor: CursorId) {
        let walk = &mut self.cursor_care.walk;
        if walk.ends.is_empty() {
            return;
        }
        let Some(held) = self.state.cursors.get(cursor) else { return };
        for leg in &held.legs {
            if let (Some(end), Some(needed)) = (walk.ends.get(&leg.partition), walk.needed.get_mut(&leg.partition)) {
                let backlog = Backlog::of(leg.floor, *end, &leg.settled, 0);
                for (from, to) in backlog.gaps() {
                    needed.insert(from..to);
                }
            }
        }
    }

    /// At the end of a walk: what no cursor needs of these partitions goes.
    fn remove_unneeded(&mut self) {
        let Walk { ends, needed, .. } = std::mem::take(&mut self.cursor_care.walk);
        for (partition, needed) in needed {
            let (Some(held), Some(end)) = (self.state.partitions.get(&partition), ends.get(&partition)) else { continue };
            let gone = &held.removed;
            let whole = Backlog::of(held.log_start, *end, &needed, 0);
            let runs: RunSet = whole.gaps().filter(|(from, to)| !gone.covers(*from..*to)).map(|(from, to)| from..to).collect();
            if runs.is_empty() {
                continue;
            }
            let lsn = self.emit(&Effect::Remove { partition, runs });
            if let Some(held) = self.state.partitions.get(&partition) {
                let removed = held.removed.clone();
                self.due(lsn, Due::ShowRemoved(partition, removed));
            }
        }
    }

    /// Each session once a minute at most.
    pub(super) fn say_dropped(&mut self) {
        let now = self.now;
        if self.cursor_care.say_due > now {
            return;
        }
        let mut named = 0;
        let (mut others, mut of_others) = (0, 0);
        for (cursor, unsaid) in &mut self.cursor_care.unsaid {
            if unsaid.records == 0 || unsaid.due > now {
                continue;
            }
            if named < NAMED_AT_ONCE {
                named += 1;
                let name = self.state.cursors.get(*cursor).map(|held| String::from_utf8_lossy(&held.name).into_owned());
                tracing::warn!(
                    queue = name.unwrap_or_default(),
                    records = unsaid.records,
                    "a queue is over its limit: records were dropped"
                );
            } else {
                others += 1;
                of_others += unsaid.records;
            }
            *unsaid = Unsaid { records: 0, due: now.plus(SAID_EVERY_MS) };
        }
        if others > 0 {
            tracing::warn!(queues = others, records = of_others, "further queues are over their limits: records were dropped");
        }
        self.cursor_care.unsaid.retain(|_, unsaid| unsaid.records > 0 || unsaid.due > now);
        let due = self.cursor_care.unsaid.values().filter(|unsaid| unsaid.records > 0).map(|unsaid| unsaid.due).min();
        self.cursor_care.say_due = due.unwrap_or(Millis(i64::MAX));
    }
}

/// What each partition of a cursor loses, and how many pieces that is.
fn runs_lost(held: &HeldCursor, views: &[Arc<PartitionView>], limits: &QueueLimits, spared: u64) -> (Vec<(PartitionId, Runs)>, usize) {
    let mut partitions = Vec::new();
    let mut backlogs = Vec::new();
    for view in views {
        let Some(leg) = held.leg(view.id) else { continue };
        // What is marked is half delivered: its exchange has to end.
        let mut kept_out = std::borrow::Cow::Borrowed(&leg.settled);
        for offset in leg.marks.keys() {
            kept_out.to_mut().insert(*offset..offset + 1);
        }
        let backlog = Backlog::of(leg.floor.max(view.log_start()), view.durable_end(), &kept_out, spared);
        if backlog.records > 0 {
            let from = leg.floor.max(view.log_start()).0;
            let to = backlog.gaps().next().map_or(from, |(from, _)| from);
            partitions.push((view, leg, Spared { from, to }));
            backlogs.push(backlog);
        }
    }
    let guards: Vec<_> = partitions.iter().map(|(view, ..)| view.index()).collect();
    let mut legs: Vec<(Backlog, &Index)> = backlogs.into_iter().zip(guards.iter().map(|guard| &**guard)).collect();
    let (lost, pieces) = lost(&mut legs, limits);
    let of_legs = partitions.iter().zip(lost).filter(|(_, runs)| !runs.is_empty());
    (of_legs.map(|((view, leg, spared), runs)| (view.id, joined(leg, runs, spared))).collect(), pieces)
}

/// From which offset to before which a leg keeps what may be in flight. What lies below is not there any more.
struct Spared {
    from: u64,
    to: u64,
}

/// The runs, and, where a leg would have settled too many of them out of order, the smallest gap between those for each that is added: what
/// is settled is written as a whole, so their number is bounded. A queue at this bound loses a little more than it is over: for each run
/// too many at most a part in `LOST_RUNS_MAX` of what it holds. A gap with a mark stays: its exchange has to end, and marks are not that
/// many. What may be in flight without a mark stays too, and the runs in it do not count.
fn joined(leg: &HeldLeg, mut runs: Runs, spared: &Spared) -> Runs {
    let mut settled = leg.settled.clone();
    for (from, to) in &runs {
        settled.insert(from.0..to.0);
    }
    let added = settled.runs().saturating_sub(leg.settled.runs());
    let behind = settled.iter().filter(|run| run.start >= spared.to).count();
    let excess = behind.saturating_sub(LOST_RUNS_MAX).min(added);
    if excess > 0 {
        let gaps = settled.iter().zip(settled.iter().skip(1)).map(|(run, next)| (run.end, next.start));
        let is_spared = |from: u64, to: u64| from.max(spared.from) < to.min(spared.to);
        let may_go = |(from, to): &(u64, u64)| leg.marks.range(from..to).next().is_none() && !is_spared(*from, *to);
        let mut idle: Vec<(u64, u64)> = gaps.filter(may_go).collect();
        idle.sort_unstable_by_key(|(from, to)| (to - from, *from));
        runs.extend(idle.into_iter().take(excess).map(|(from, to)| (Offset(from), Offset(to))));
        runs.sort_unstable();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::super::limits::Drops;
    use super::*;

    use bytes::Bytes;
    use firth_gateway::answer::Answer;
    use firth_gateway::cursors::{Attachment, CursorAnswer, CursorMove, CursorReport, Keep, Leg, Settle, Settlement};
    use firth_gateway::request::{Request, Store};
    use firth_gateway::stored;
    use firth_gateway::view::RouteView;
    use firth_model::filter::Filter;

    use crate::bench::{Rig, message};
    use crate::routing::Shared;

    fn run(range: std::ops::Range<u64>) -> RunSet {
        std::iter::once(range).collect()
    }

    fn limited(records: u64, drops: Drops) -> Rig {
        let mut rig = Rig::with_partitions(1);
        rig.shard().cursor_care.limits = QueueLimits { records, bytes: 1 << 30, drops, in_flight: 2 };
        rig
    }

    fn ask(rig: &mut Rig, ask: CursorMove) -> CursorAnswer {
        match rig.ask(Request::Cursor(Box::new(ask))) {
            Ok(Answer::Cursor(answer)) => answer,
            other => panic!("answered {other:?}"),
        }
    }

    /// A session with one leg.
    fn session(rig: &mut Rig, name: &'static str) -> (Attachment, Leg) {
        let attach = CursorMove::Attach { name: Bytes::from_static(name.as_bytes()), fresh: false, keep: Keep::Ever };
        let CursorAnswer::Attached(attached) = ask(rig, attach) else { panic!("not attached") };
        let (attachment, filter) = (attached.attachment, Filter::parse("a/>").expect("a filter"));
        let CursorAnswer::Bound { leg, .. } = ask(rig, CursorMove::Bind { attachment, filter, note: Bytes::new() }) else {
            panic!("not bound")
        };
        (attachment, leg)
    }

    fn leave(rig: &mut Rig, attachment: Attachment) {
        ask(rig, CursorMove::Detach { attachment, keep: None });
    }

    fn settle(rig: &mut Rig, attachment: Attachment, leg: &Leg, from: u64, to: u64) {
        let what = Settlement::Done { from: Offset(from), to: Offset(to) };
        ask(rig, CursorMove::Settle { attachment, settles: vec![Settle { partition: leg.partition, what }] });
    }

    fn publish(rig: &mut Rig, count: usize) {
        for _ in 0..count {
            let message = message("a/b", Some("x"));
            let routes = Shared(rig.view().routing.clone()).cache().routes(&message.subject);
            let batch = stored::batch([&message]);
            let store = Store { message: Arc::new(message), batch, routes, origin: None, receipt: None };
            rig.ask(Request::Store(vec![store])).expect("stored");
        }
    }

    fn report(rig: &mut Rig, name: &'static str) -> CursorReport {
        let CursorAnswer::List(mut reports) =
            ask(rig, CursorMove::List { prefix: Bytes::from_static(name.as_bytes()), after: None, max: 10 })
        else {
            panic!("no list")
        };
        reports.pop().expect("one")
    }

    #[test]
    fn who_is_away_loses_the_oldest_and_nobody_else_anything() {
        let mut rig = limited(5, Drops::Oldest);
        let (away, _) = session(&mut rig, "away");
        let (here, leg) = session(&mut rig, "here");
        leave(&mut rig, away);
        publish(&mut rig, 4);
        settle(&mut rig, here, &leg, 0, 4);
        publish(&mut rig, 7);
        assert!(rig.pass(10_000).is_empty(), "seven of which two may be in flight");
        let (one, other) = (report(&mut rig, "away"), report(&mut rig, "here"));
        assert_eq!((one.unsettled, one.dropped, other.unsettled, other.dropped), (5, 6, 7, 0));
        assert_eq!(rig.view().dropped_of_queues(), 6);
        let (_, leg) = session(&mut rig, "away");
        assert_eq!(leg.floor, Offset(6));
    }

    #[test]
    fn who_comes_back_is_within_the_limits_at_once() {
        let mut rig = limited(5, Drops::Oldest);
        let (away, _) = session(&mut rig, "away");
        leave(&mut rig, away);
        rig.pass(1_000);
        publish(&mut rig, 9);
        let (_, leg) = session(&mut rig, "away");
        assert_eq!(leg.floor, Offset(4));
    }

    #[test]
    fn who_is_attached_is_told() {
        let mut rig = limited(5, Drops::Oldest);
        let (_, leg) = session(&mut rig, "slow");
        publish(&mut rig, 10);
        let told = rig.pass(10_000);
        let [Event::Dropped { partition, runs }] = &told[..] else { panic!("{told:?}") };
        let lost: RunSet = runs.iter().map(|(from, to)| from.0..to.0).collect();
        assert_eq!((*partition, lost), (leg.partition, run(2..5)));
    }

    #[test]
    fn the_newest_are_removed_when_nobody_needs_them() {
        let mut rig = limited(5, Drops::Newest);
        let (away, leg) = session(&mut rig, "away");
        leave(&mut rig, away);
        publish(&mut rig, 8);
        let (other, _) = session(&mut rig, "other");
        publish(&mut rig, 4);
        rig.pass(10_000);
        assert_eq!((report(&mut rig, "away").unsettled, report(&mut rig, "other").unsettled), (5, 4));
        rig.pass(10_000);
        rig.pass(10_000);
        let removed =
            |rig: &Rig| rig.view().removed(leg.partition).map(|removed| removed.iter().map(|run| (run.start, run.end)).collect::<Vec<_>>());
        assert_eq!(removed(&rig), Some(vec![(5, 8)]));
        settle(&mut rig, other, &leg, 8, 12);
        publish(&mut rig, 1);
        (0..3).for_each(|_| drop(rig.pass(10_000)));
        assert_eq!(removed(&rig), Some(vec![(5, 12)]), "the last is needed by the other");
    }

    /// As many runs as may be, each behind a gap of `gap` records but the last, which is behind a large one.
    fn full_leg(gap: u64, large: u64) -> HeldLeg {
        let runs = LOST_RUNS_MAX as u64;
        let starts = (0..runs).map(|at| (at + 1) * (gap + 1) + if at + 1 == runs { large } else { 0 });
        HeldLeg {
            partition: PartitionId(0),
            note: Box::default(),
            bound_at: Position(0),
            floor: Offset(1),
            settled: starts.map(|start| start..start + 1).collect(),
            marks: Default::default(),
            attempts: Default::default(),
        }
    }

    #[test]
    fn at_the_bound_of_runs_the_smallest_gap_goes_too() {
        let mut leg = full_leg(3, 100_000);
        let last = leg.settled.iter().next_back().expect("many").end;
        let over = vec![(Offset(last + 500), Offset(last + 501))];
        let none = Spared { from: 0, to: 0 };
        // Where one ends that is settled already there is no further run.
        assert_eq!(joined(&leg, vec![(Offset(last), Offset(last + 1))], &none), [(Offset(last), Offset(last + 1))]);
        assert_eq!(joined(&leg, over.clone(), &none), [(Offset(5), Offset(8)), over[0]]);
        leg.marks.insert(6, (1, 1));
        assert_eq!(joined(&leg, over.clone(), &none), [(Offset(9), Offset(12)), over[0]]);
        // Everything is marked: there is one run more.
        leg.marks.extend((0..last + 1).map(|offset| (offset, (1, 1))));
        assert_eq!(joined(&leg, over.clone(), &none), over);
        leg.marks.clear();
        // However many its client settled: one for one.
        leg.settled.insert(last + 400..last + 401);
        assert_eq!(joined(&leg, over.clone(), &none), [(Offset(5), Offset(8)), over[0]]);
    }

    #[test]
    fn at_the_bound_of_runs_what_may_be_in_flight_stays() {
        let mut leg = full_leg(3, 100_000);
        let last = leg.settled.iter().next_back().expect("many").end;
        let over = vec![(Offset(last + 500), Offset(last + 501))];
        for behind in [100, 200, 300, 400] {
            leg.settled.insert(last + behind..last + behind + 1);
        }
        let joined = |from, to| joined(&leg, over.clone(), &Spared { from, to });
        assert_eq!(joined(1, 6), [(Offset(9), Offset(12)), over[0]], "of the first gap a part may be");
        assert_eq!(joined(1, 9), [(Offset(9), Offset(12)), over[0]]);
        assert_eq!(joined(1, last), over, "those behind are few");
        assert_eq!(joined(11, 16), [(Offset(5), Offset(8)), over[0]], "what lies below is not there any more");
    }

    #[test]
    fn at_the_bound_of_runs_who_is_attached_keeps_what_it_was_sent() {
        let mut rig = limited(20_000, Drops::Newest);
        rig.shard().cursor_care.limits.in_flight = 100;
        let (slow, leg) = session(&mut rig, "slow");
        let runs = LOST_RUNS_MAX as u64 + 100;
        publish(&mut rig, 2 * (LOST_RUNS_MAX + 100) + 1);
        let one = |at: u64| Settlement::Done { from: Offset(2 * at + 1), to: Offset(2 * at + 2) };
        let settles = (0..runs).map(|at| Settle { partition: leg.partition, what: one(at) }).collect();
        ask(&mut rig, CursorMove::Settle { attachment: slow, settles });
        publish(&mut rig, 1000);
        rig.shard().cursor_care.limits.records = runs + 1001 - 100 - 1;
        let told = rig.pass(10_000);
        let [Event::Dropped { runs, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(runs[0], (Offset(200), Offset(201)), "the first behind a hundred");
        assert_eq!(runs.len(), 2);
    }

    #[test]
    fn at_the_bound_of_runs_what_is_lost_is_counted_and_little() {
        let mut rig = limited(20_000, Drops::Newest);
        let (slow, leg) = session(&mut rig, "slow");
        publish(&mut rig, 2 * CURSOR_RUNS_MAX + 1);
        let one = |at: u64| Settlement::Done { from: Offset(2 * at + 1), to: Offset(2 * at + 2) };
        let settles = (0..CURSOR_RUNS_MAX as u64).map(|at| Settle { partition: leg.partition, what: one(at) }).collect();
        ask(&mut rig, CursorMove::Settle { attachment: slow, settles });
        publish(&mut rig, 3000);
        leave(&mut rig, slow);
        let kept = CURSOR_RUNS_MAX as u64 + 3001;
        assert_eq!(report(&mut rig, "slow").unsettled, kept);
        rig.shard().cursor_care.limits.records = kept - 1;
        rig.pass(10_000);
        let one = report(&mut rig, "slow");
        assert_eq!((one.unsettled, one.dropped), (kept - 2, 2), "one that it is over, and one that makes room for its run");
    }

    #[test]
    fn streams_of_an_earlier_start_get_todays_bound() {
        let mut rig = limited(5, Drops::Oldest);
        let (_, leg) = session(&mut rig, "any");
        let bound = |rig: &Rig| {
            let stream = rig.state().partitions[&leg.partition].stream;
            let policy = rig.state().catalog.by_id(stream).expect("there").policy.clone();
            (policy.retention_bytes, policy.expires, policy.hidden, policy.captures.len())
        };
        assert_eq!(bound(&rig), (Some(2 << 30), true, true, 1));
        // As after a start with other settings.
        for (bytes, drops, expected) in [(1 << 20, Drops::Oldest, Some(2 << 20)), (1 << 20, Drops::Newest, None)] {
            rig.shard().cursor_care.limits = QueueLimits { records: 5, bytes, drops, in_flight: 2 };
            rig.shard().cursor_care.unswept = true;
            rig.pass(10_000);
            assert_eq!(bound(&rig), (expected, expected.is_some(), true, 1));
        }
        publish(&mut rig, 1);
        assert_eq!(report(&mut rig, "any").unsettled, 1, "it is captured as before");
    }

    #[test]
    fn what_is_half_delivered_stays() {
        let mut rig = limited(5, Drops::Oldest);
        let (away, leg) = session(&mut rig, "away");
        publish(&mut rig, 1);
        let what = Settlement::Mark { offset: Offset(0), tag: 7, stage: 2 };
        ask(&mut rig, CursorMove::Settle { attachment: away, settles: vec![Settle { partition: leg.partition, what }] });
        leave(&mut rig, away);
        publish(&mut rig, 9);
        rig.pass(10_000);
        let (_, leg) = session(&mut rig, "away");
        assert_eq!((leg.floor, &leg.settled[..], leg.marks.len()), (Offset(0), &[(Offset(1), Offset(5))][..], 1));
    }
}
