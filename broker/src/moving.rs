//! What a shard has moved into segments, and when.
//!
//! Lazily: a finished extent waits until the journal is over its cap or the extent is old, because much of what it holds dies before.
//! Segments that became small are merged, and those of which most was removed are written anew. One job at a time, oldest extents first.

use std::collections::{BTreeMap, HashMap, HashSet};

use firth_gateway::streams::Policy;
use firth_journal::spares::Room;
use firth_model::ids::{ExtentNumber, Offset, PartitionId, SegmentId};
use firth_model::limits::{JOB_BYTES, JOB_PARTITIONS, MERGE_SEGMENTS_MIN};
use firth_model::time::Millis;

use crate::archiver::{Cleaning, Job, Outcome, Part};
use crate::archiving::{ArchiveSettings, LOOK_EVERY_MS, RETRY_AFTER_MS};
use crate::effect::Effect;
use crate::index::{Place, Span};
use crate::partition::Partition;
use crate::replaced::Replaced;
use crate::shard::{Due, Shard};

fn part(held: &Partition, spans: Vec<Span>, cleaning: Option<Cleaning>) -> Part {
    let last = Offset(held.next.0.saturating_sub(1));
    Part { partition: held.view.id, log_start: held.log_start, spans, removed: held.removed.clone(), last, cleaning }
}

/// Spans of partitions that go together.
type Chosen = BTreeMap<PartitionId, Vec<Span>>;

impl Shard {
    /// Starts a job if one is due, and has old extents finished.
    pub(crate) fn archive(&mut self) {
        if self.archiving.due > self.now {
            return;
        }
        self.archiving.due = self.now.plus(LOOK_EVERY_MS);
        let old = Millis(self.now.0.saturating_sub(self.archiving.settings.after_ms));
        if self.archiving.open_since.is_some_and(|since| since < old) {
            // Its records would stay here as long as nothing else is written.
            self.archiving.open_since = None;
            self.finish_extent();
        }
        if self.archiving.under_way || self.archiving.unshown > 0 {
            return;
        }
        let chosen = self.old_extents(old).and_then(|chosen| self.job(chosen));
        let job = chosen.or_else(|| self.compaction());
        let job = job.or_else(|| self.thin_segments().or_else(|| self.small_segments()).and_then(|chosen| self.job(chosen)));
        if let Some(job) = job {
            self.archiving.under_way = true;
            for part in job.parts.iter().filter(|part| part.cleaning.is_some()) {
                if let Some(held) = self.state.partitions.get_mut(&part.partition) {
                    // The job says when the next ones are due.
                    held.tombstones_due = None;
                }
            }
            self.start_job(job);
        }
    }

    /// The spans in the oldest extents that are to be moved.
    fn old_extents(&mut self, old: Millis) -> Option<Chosen> {
        let extents = &self.state.extents;
        let mut oldest: Vec<_> = extents.sealed_live().collect();
        let extent_bytes = extents.start_of(ExtentNumber(1)).0;
        let over = extents.sealed_bytes().saturating_sub(self.archiving.settings.journal_bytes_max);
        let at_once = usize::try_from(JOB_BYTES / extent_bytes).unwrap_or(1).max(1);
        let wanted = usize::try_from(over.div_ceil(extent_bytes)).unwrap_or(usize::MAX);
        // When the disk is full, what little lives in an extent may let go of all of it.
        let wanted = if self.room == Room::Plenty { wanted } else { wanted.max(1) };
        oldest.truncate(at_once);
        let (first, last) = (*oldest.first()?, *oldest.last()?);
        // A look at all partitions every second would be too much.
        if wanted == 0 && self.archiving.oldest.is_some_and(|(extent, newest)| extent == first && newest >= old) {
            return None;
        }
        let mut chosen = Chosen::new();
        let mut newest: BTreeMap<_, Millis> = BTreeMap::new();
        for (id, held) in &self.state.partitions {
            let index = held.view.index();
            for span in index.spans() {
                let Place::Extent(extent) = span.place else { continue };
                if extent > last {
                    break;
                }
                let appended = newest.entry(extent).or_insert(span.appended);
                *appended = (*appended).max(span.appended);
                chosen.entry(*id).or_default().push(*span);
            }
        }
        self.archiving.oldest = newest.first_key_value().map(|(extent, newest)| (*extent, *newest));
        // Oldest first, up to the first that may stay.
        let due = newest.values().enumerate().take_while(|(at, appended)| *at < wanted || **appended < old).count();
        let last = *newest.keys().nth(due.checked_sub(1)?)?;
        chosen.retain(|id, spans| {
            spans.retain(|span| matches!(span.place, Place::Extent(extent) if extent <= last));
            !spans.is_empty() && !spans.iter().any(|span| self.archiving.stuck.contains(&(*id, span.place)))
        });
        (!chosen.is_empty()).then_some(chosen)
    }

    /// The spans in segments of which little is left or that were small from the start, if there are enough to be worth it.
    fn small_segments(&self) -> Option<Chosen> {
        let mut small: Vec<_> = self.state.extents.segments().filter(|(_, live)| live.bytes < self.archiving.settings.own_bytes).collect();
        if small.len() < MERGE_SEGMENTS_MIN {
            return None;
        }
        small.sort_unstable_by_key(|(id, live)| (live.bytes, *id));
        let mut bytes = 0;
        let fits = |(id, live): &(SegmentId, crate::extents::Live)| {
            bytes += live.bytes;
            (bytes <= JOB_BYTES).then_some(*id)
        };
        let merged: HashSet<SegmentId> = small.iter().map_while(fits).collect();
        let chosen = self.spans_in(&merged);
        // One partition's own segments that cannot become fewer are left as they are.
        (chosen.values().map(Vec::len).sum::<usize>() > 1).then_some(chosen)
    }

    /// The spans in segments of whose bytes more than half were removed, about, as many as make a job.
    fn thin_segments(&mut self) -> Option<Chosen> {
        let (extents, thinning) = (&self.state.extents, &mut self.archiving.thinning);
        if !thinning.is_due(self.now, |segment| extents.holds(segment)) {
            return None;
        }
        let mut gone: HashMap<SegmentId, u64> = HashMap::new();
        for (id, held) in self.state.partitions.iter().filter(|(_, held)| !held.removed.is_empty()) {
            for span in held.view.index().spans() {
                if let Place::Segment(segment) = span.place {
                    *gone.entry(segment).or_default() += thinning.gone(*id, segment, span, &held.removed);
                }
            }
        }
        let (mut bytes, mut thin) = (0, HashSet::new());
        for (id, live) in extents.segments() {
            if bytes < JOB_BYTES && gone.get(&id).is_some_and(|gone| gone.saturating_mul(2) > live.bytes) {
                bytes += live.bytes;
                thin.insert(id);
            }
        }
        let chosen = self.spans_in(&thin);
        (!chosen.is_empty()).then_some(chosen)
    }

    fn spans_in(&self, segments: &HashSet<SegmentId>) -> Chosen {
        let mut chosen = Chosen::new();
        if segments.is_empty() {
            return chosen;
        }
        for (id, held) in &self.state.partitions {
            let index = held.view.index();
            let within = |span: &&Span| matches!(span.place, Place::Segment(segment) if segments.contains(&segment));
            let spans: Vec<Span> = index.spans().iter().filter(within).copied().collect();
            if !spans.is_empty() && !spans.iter().any(|span| self.archiving.stuck.contains(&(*id, span.place))) {
                chosen.insert(*id, spans);
            }
        }
        chosen
    }

    fn job(&self, chosen: Chosen) -> Option<Job> {
        let mut parts = Vec::new();
        for (partition, spans) in chosen.into_iter().take(JOB_PARTITIONS) {
            let Some(held) = self.state.partitions.get(&partition) else { continue };
            let all = held.spans();
            // What lies between two of the spans may lie in another segment: each neighbourhood by itself.
            let mut neighbours: Vec<Span> = Vec::new();
            for span in spans {
                let follows = neighbours.last().is_none_or(|last| {
                    let at = all.partition_point(|other| other.end <= last.base);
                    all.get(at + 1) == Some(&span)
                });
                if !follows {
                    parts.push(part(held, std::mem::take(&mut neighbours), None));
                }
                neighbours.push(span);
            }
            parts.push(part(held, neighbours, None));
        }
        self.job_of(parts)
    }

    fn job_of(&self, parts: Vec<Part>) -> Option<Job> {
        let ArchiveSettings { segment_bytes, own_bytes, journal_bytes_max, .. } = self.archiving.settings;
        // The further the journal is over its cap the more of the disk goes to moving it, until it is held where it is.
        let over = self.state.extents.sealed_bytes() / journal_bytes_max.max(1);
        let rests = match over {
            _ if self.room != Room::Plenty => 0,
            0 | 1 => 4,
            2 | 3 => 2,
            4..8 => 1,
            _ => 0,
        };
        (!parts.is_empty()).then_some(Job { parts, now: self.now, segment_bytes, own_bytes, rests })
    }

    /// The partitions of compacted streams of which enough was not cleaned yet. Only what lies in segments is.
    fn compaction(&self) -> Option<Job> {
        let mut parts = Vec::new();
        let mut bytes = 0;
        for info in self.state.catalog.all().filter(|info| info.policy.compacted) {
            for id in &info.partitions {
                let Some(held) = self.state.partitions.get(id) else { continue };
                if let Some(dirty) = self.dirty_part(held, &info.policy)
                    && bytes < JOB_BYTES
                {
                    bytes += dirty.spans.iter().map(|span| span.bytes).sum::<u64>();
                    parts.push(dirty);
                }
            }
        }
        parts.sort_unstable_by_key(|part| part.partition);
        self.job_of(parts)
    }

    fn dirty_part(&self, held: &Partition, policy: &Policy) -> Option<Part> {
        let age = |ms: u64| Millis(self.now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
        let old_enough = age(policy.compaction_lag_min_ms);
        let index = held.view.index();
        let archived = index.spans().iter().take_while(|span| matches!(span.place, Place::Segment(_)));
        let spans: Vec<Span> = archived.take_while(|span| span.appended <= old_enough).copied().collect();
        drop(index);
        let dirty = || spans.iter().filter(|span| span.end > held.cleaned_to);
        let dirty_bytes: u64 = dirty().map(|span| span.bytes).sum();
        let bytes: u64 = spans.iter().map(|span| span.bytes).sum();
        let much = dirty_bytes > 0 && dirty_bytes * 100 >= bytes * u64::from(policy.dirty_ratio_percent);
        let late = policy.compaction_lag_max_ms.is_some_and(|ms| dirty().any(|span| span.appended < age(ms)));
        let over = held.tombstones_due.is_some_and(|due| due <= self.now);
        let stuck = spans.iter().any(|span| self.archiving.stuck.contains(&(held.view.id, span.place)));
        if spans.is_empty() || stuck || !(much || late || over) {
            return None;
        }
        let cleaning = Cleaning {
            dirty_from: held.cleaned_to,
            until: spans.last().map_or(held.cleaned_to, |span| span.end).max(held.cleaned_to),
            delete_retention_ms: policy.delete_retention_ms,
            map_bytes: self.archiving.settings.map_bytes,
        };
        Some(part(held, spans, Some(cleaning)))
    }

    /// Something of a job is ready, or it ended.
    pub fn archived(&mut self, outcome: Outcome) {
        self.archiving.bury(outcome.unused);
        self.archiving.stuck.extend(outcome.damaged);
        for (partition, due) in outcome.tombstones {
            if let Some(held) = self.state.partitions.get_mut(&partition) {
                held.tombstones_due = Some(held.tombstones_due.map_or(due, |earlier| earlier.min(due)));
            }
        }
        if outcome.failed {
            self.archiving.due = self.now.plus(RETRY_AFTER_MS);
        }
        if outcome.last {
            self.archiving.under_way = false;
            // What comes next need not wait for the next look, but for what this job changed to be durable.
            self.archiving.due = self.archiving.due.max(self.now);
        }
        let (good, bad): (Vec<Replaced>, Vec<Replaced>) = outcome.replaced.into_iter().partition(|part| self.is_still_good(part));
        let dropped: Vec<SegmentId> = bad.iter().flat_map(Replaced::segments).collect();
        let mut group = Vec::new();
        let mut bytes = 0;
        for part in good {
            if let Some(held) = self.state.partitions.get(&part.partition) {
                part.spans.iter().for_each(|span| self.archiving.thinning.wrote(part.partition, span, &held.removed));
            }
            bytes += part.bytes();
            if bytes > self.entry_bytes_max / 2 && !group.is_empty() {
                self.replace(std::mem::take(&mut group));
                bytes = part.bytes();
            }
            group.push(part);
        }
        if !group.is_empty() {
            self.replace(group);
        }
        self.bury_unheld(dropped);
    }

    /// A partition may have been dropped, or everything there trimmed, since the job was given. What is replaced is whole.
    fn is_still_good(&self, part: &Replaced) -> bool {
        let Some(held) = self.state.partitions.get(&part.partition).filter(|held| part.end > held.log_start) else { return false };
        let spans = held.spans();
        let begins = part.base <= held.log_start || spans.iter().any(|span| span.base == part.base);
        begins && spans.iter().any(|span| span.end == part.end)
    }

    fn replace(&mut self, replaced: Vec<Replaced>) {
        let effect = Effect::Replace(replaced);
        let lsn = self.emit(&effect);
        let Effect::Replace(replaced) = effect else { return };
        self.archiving.unshown += 1;
        self.due(lsn, Due::ShowReplaced(replaced));
    }

    /// A replacement is durable: readers find what it made.
    pub(crate) fn show_replaced(&mut self, replaced: &[Replaced]) {
        self.archiving.unshown -= 1;
        for part in replaced {
            self.state.replace_index(part.partition);
        }
        self.bury_unheld(replaced.iter().flat_map(Replaced::segments).collect());
        self.give_back_extents();
    }

    /// Segments in which nothing lives, of those that were made; other parts of the same segment may still wait to be shown.
    fn bury_unheld(&mut self, mut made: Vec<SegmentId>) {
        made.sort_unstable();
        made.dedup();
        let expected: HashSet<SegmentId> = self.state.replacing().collect();
        made.retain(|id| !self.state.extents.holds(*id) && !expected.contains(id));
        self.archiving.bury(made);
    }

    /// Segments that were on the store when the process began.
    pub fn found_segments(&mut self, ids: Vec<SegmentId>) {
        let expected: HashSet<SegmentId> = self.state.replacing().collect();
        let orphans: Vec<SegmentId> = ids.into_iter().filter(|id| !self.state.extents.holds(*id) && !expected.contains(id)).collect();
        if !orphans.is_empty() {
            tracing::info!(count = orphans.len(), "segments that nothing refers to will be deleted");
        }
        self.archiving.bury(orphans);
    }

    /// Segments that may be deleted now.
    pub(crate) fn take_graves(&mut self) -> Vec<SegmentId> {
        let dead = self.state.extents.take_dead_segments();
        self.archiving.bury(dead);
        let covered = self.archiving.checkpoints_ended[0];
        let (deleted, kept) = self.archiving.graves.iter().partition(|(begun, _)| *begun < covered);
        self.archiving.graves = kept;
        let deleted: Vec<(u64, SegmentId)> = deleted;
        deleted.into_iter().map(|(_, id)| id).collect()
    }
}
