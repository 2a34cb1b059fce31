//! Queues that are over their limits, in the shard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use firth_gateway::answer::Event;
use firth_gateway::cursors::CursorId;
use firth_gateway::outbox::Outbox;
use firth_model::ids::{Offset, PartitionId};
use firth_model::limits::{CURSOR_RUNS_MAX, QUEUES_LOOK};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use super::care::LIMIT_EVERY_MS;
use super::limits::{Backlog, Drops, QueueLimits, lost};
use super::table::HeldCursor;
use crate::effect::Effect;
use crate::index::Index;
use crate::partition_view::PartitionView;
use crate::shard::{Due, Shard};

/// How often the log says that a session loses records.
const SAID_EVERY_MS: i64 = 60_000;
/// Sessions that it names at once; a number stands for the rest.
const NAMED_AT_ONCE: usize = 20;

/// Records that a cursor lost and the log has not said.
pub struct Unsaid {
    records: u64,
    due: Millis,
}

/// One walk over all cursors.
#[derive(Default)]
pub struct Walk {
    /// The name of the cursor that was looked at last. `None`: it begins.
    after: Option<Arc<[u8]>>,
    /// What was durable when it began.
    ends: HashMap<PartitionId, Offset>,
    /// What some cursor still needs of partitions that lost their newest records.
    needed: BTreeMap<PartitionId, RunSet>,
}

impl Walk {
    pub fn is_under_way(&self) -> bool {
        self.after.is_some()
    }
}

impl Shard {
    /// Looks at some cursors, if anything was stored since they were looked at last.
    pub(super) fn limit_queues(&mut self) {
        let shown = firth_gateway::view::LogView::shown(&*self.view);
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
        let (some, last) = self.state.cursors.some_after(after.as_deref().unwrap_or_default(), QUEUES_LOOK);
        for cursor in some {
            self.limit_queue(cursor);
            self.note_needed(cursor);
        }
        let done = last.is_none();
        self.cursor_care.walk.after = last;
        if done {
            self.remove_unneeded();
        }
        self.say_dropped();
    }

    fn begin_walk(&mut self) {
        let thinned = &self.cursor_care.thinned;
        let ends = thinned.iter().filter_map(|id| Some((*id, self.state.partitions.get(id)?.view.durable_end())));
        let ends: HashMap<PartitionId, Offset> = ends.collect();
        let needed = ends.keys().map(|id| (*id, RunSet::default())).collect();
        self.cursor_care.thinned.clear();
        self.cursor_care.walk = Walk { after: None, ends, needed };
    }

    /// Takes from the cursor what is beyond its limits.
    pub(super) fn limit_queue(&mut self, cursor: CursorId) {
        let limits = self.cursor_care.limits;
        let Some(held) = self.state.cursors.get(cursor) else { return };
        let (views, spared) = (self.views_of(held), if held.generation == 0 { 0 } else { limits.in_flight });
        let runs = runs_lost(held, &views, &limits, spared);
        let mut dropped = 0;
        for (partition, runs) in runs {
            let Some((effect, records)) = self.state.cursors.dropping(cursor, partition, &runs) else { continue };
            dropped += records;
            self.put(effect);
            if limits.drops == Drops::Newest {
                self.cursor_care.thinned.insert(partition);
            }
            // Who is attached reads by itself.
            if let Some(outbox) = self.cursor_care.attached.get(&cursor).and_then(Weak::upgrade) {
                outbox.push(Event::Dropped { partition, runs });
                self.to_wake.push(outbox);
            }
        }
        if dropped > 0 {
            self.view.dropped.fetch_add(dropped, Ordering::Relaxed);
            self.state.cursors.count_dropped(cursor, dropped);
            let unsaid = self.cursor_care.unsaid.entry(cursor).or_insert(Unsaid { records: 0, due: self.now });
            unsaid.records += dropped;
        }
    }

    /// The partitions of its legs, with what they show.
    fn views_of(&self, held: &HeldCursor) -> Vec<Arc<PartitionView>> {
        held.legs.iter().filter_map(|leg| self.state.partitions.get(&leg.partition)).map(|held| held.view.clone()).collect()
    }

    /// Records that were dropped from the newest end lie behind some that are kept, where no floor passes them.
    fn note_needed(&mut self, cursor: CursorId) {
        let walk = &mut self.cursor_care.walk;
        if walk.ends.is_empty() {
            return;
        }
        let Some(held) = self.state.cursors.get(cursor) else { return };
        for leg in &held.legs {
            if let (Some(end), Some(needed)) = (walk.ends.get(&leg.partition), walk.needed.get_mut(&leg.partition)) {
                let backlog = Backlog::of(leg.floor, *end, &leg.settled, 0);
                backlog.gaps().for_each(|(from, to)| drop(needed.insert(from..to)));
            }
        }
    }

    /// At the end of a walk: what no cursor needs of the partitions that lost their newest records goes.
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
    fn say_dropped(&mut self) {
        let now = self.now;
        let mut named = 0;
        let (mut others, mut of_others) = (0, 0);
        for (cursor, unsaid) in &mut self.cursor_care.unsaid {
            if unsaid.records == 0 || unsaid.due > now {
                continue;
            }
            if named < NAMED_AT_ONCE {
                named += 1;
                let name = self.state.cursors.get(*cursor).map(|held| String::from_utf8_lossy(&held.name).into_owned());
                tracing::warn!(queue = name.unwrap_or_default(), records = unsaid.records, "a queue is over its limit: records were dropped");
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
        self.cursor_care.attached.retain(|_, outbox| outbox.strong_count() > 0);
    }
}

/// What each partition of a cursor loses.
fn runs_lost(
    held: &HeldCursor,
    views: &[Arc<PartitionView>],
    limits: &QueueLimits,
    spared: u64,
) -> Vec<(PartitionId, Vec<(Offset, Offset)>)> {
    let mut partitions = Vec::new();
    let mut backlogs = Vec::new();
    for view in views {
        let Some(leg) = held.leg(view.id) else { continue };
        let backlog = Backlog::of(leg.floor.max(view.log_start()), view.durable_end(), &leg.settled, spared);
        if backlog.records > 0 {
            partitions.push((view, leg));
            backlogs.push(backlog);
        }
    }
    let guards: Vec<_> = partitions.iter().map(|(view, _)| view.index()).collect();
    let mut legs: Vec<(Backlog, &Index)> = backlogs.into_iter().zip(guards.iter().map(|guard| &**guard)).collect();
    let lost = lost(&mut legs, limits);
    let of_legs = partitions.iter().zip(lost).filter(|(_, runs)| !runs.is_empty());
    of_legs.map(|((view, leg), runs)| (view.id, joined(&leg.settled, runs))).collect()
}

/// The runs; where a leg has too many of them, from the last that it has to the end.
fn joined(settled: &RunSet, runs: Vec<(Offset, Offset)>) -> Vec<(Offset, Offset)> {
    let end = runs.iter().map(|(_, to)| *to).max();
    match (settled.iter().next_back(), end) {
        (Some(last), Some(end)) if settled.runs() >= CURSOR_RUNS_MAX && end.0 > last.end => vec![(Offset(last.end), end)],
        _ => runs,
    }
}

/// Those that lost their newest records since the last walk began.
pub type Thinned = BTreeSet<PartitionId>;
