//! Moves batches from extents and segments into other segments.
//!
//! Runs beside the shard, one job at a time. Nothing it writes is used before the shard has journalled the replacement; what is not used
//! is deleted by the shard later.

use std::sync::Arc;

use firth_archive::segment::Writer;
use firth_model::batch::BatchHeader;
use firth_model::cleaning::{CleanError, Cleaned, Round, Verdict, clean, look};
use firth_model::ids::{Offset, PartitionId, SegmentId};
use firth_model::key_map::KeyMap;
use firth_model::limits::COLD_READ_AT_ONCE;
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::index::{Place, Span};
use crate::read_behind::{ColdError, Found, Sources};
use crate::replaced::Replaced;

/// What is to be moved, in the order of partitions.
#[derive(Debug)]
pub struct Job {
    pub parts: Vec<Part>,
    pub now: Millis,
    pub segment_bytes: usize,
    pub own_bytes: u64,
    /// How many times as long as it works it rests after each segment: publishers need the disk and the processor more.
    pub rests: u32,
}

/// Neighbouring spans of one partition, in the order of offsets; there is at least one.
#[derive(Debug)]
pub struct Part {
    pub partition: PartitionId,
    /// Batches wholly below are left out.
    pub log_start: Offset,
    pub spans: Vec<Span>,
    /// Records that are left out.
    pub removed: Arc<RunSet>,
    /// The last record of the partition: it stays whatever it is, so that readers who step over gaps always come to the end.
    pub last: Offset,
    pub cleaning: Option<Cleaning>,
}

/// A part is to keep only the newest record of each key.
#[derive(Clone, Copy, Debug)]
pub struct Cleaning {
    /// Below, earlier rounds left only the newest of each key.
    pub dirty_from: Offset,
    /// From here on everything is kept.
    pub until: Offset,
    pub delete_retention_ms: u64,
    pub map_bytes: usize,
}

/// What became of some of a job. Several come of one job; the last one says so.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To be journalled: the segments they name are durable.
    pub replaced: Vec<Replaced>,
    /// Segments that were made, or may have been, and are of no use.
    pub unused: Vec<SegmentId>,
    /// Where damaged batches lie: their partition stays where it is.
    pub damaged: Vec<(PartitionId, Place)>,
    /// When the first tombstone that a cleaning kept may go.
    pub tombstones: Vec<(PartitionId, Millis)>,
    /// The job ended early: the store refused.
    pub failed: bool,
    pub last: bool,
}

/// Does jobs. In a node a thread does; in a simulation the simulation itself.
pub struct Archiver {
    sources: Sources,
    /// Gives the part of segment names that is chance.
    dice: Box<dyn FnMut() -> u128 + Send>,
}

/// Why a part, or a whole job, does not go on.
enum Stopped {
    Part(Place),
    Job,
}

/// The segment that is being built, and what waits for it.
struct Building<'a> {
    archiver: &'a mut Archiver,
    job: &'a Job,
    id: SegmentId,
    writer: Writer,
    /// Replacements of partitions that are done: they are good once the segment is durable.
    waiting: Vec<Replaced>,
    report: &'a mut dyn FnMut(Outcome),
}

impl Archiver {
    pub fn over(sources: Sources, dice: Box<dyn FnMut() -> u128 + Send>) -> Archiver {
        Archiver { sources, dice }
    }

    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Does a job; calls `report` for each piece of it that is ready, and once at its end.
    pub fn run(&mut self, job: Job, report: &mut dyn FnMut(Outcome)) {
        let id = SegmentId::made(job.now, (self.dice)());
        let mut building = Building { job: &job, id, writer: Writer::begin(), waiting: Vec::new(), report, archiver: self };
        let mut damaged = Vec::new();
        let mut failed = false;
        for part in &job.parts {
            let outcome = match part.cleaning {
                Some(cleaning) => building.clean(part, cleaning),
                None => building.part(part, None),
            };
            match outcome {
                Ok(()) => {}
                Err(Stopped::Part(place)) => damaged.push((part.partition, place)),
                Err(Stopped::Job) => {
                    failed = true;
                    break;
                }
            }
        }
        failed = failed || building.finish_segment().is_err();
        (building.report)(Outcome { damaged, failed, last: true, ..Outcome::default() });
    }
}

impl Building<'_> {
    /// Notes the keys of the records that were not cleaned, then copies the part without what newer records replaced.
    fn clean(&mut self, part: &Part, cleaning: Cleaning) -> Result<(), Stopped> {
        let mut keys = KeyMap::bounded(cleaning.map_bytes, cleaning.until.0 - cleaning.dirty_from.0, (self.archiver.dice)() as u64);
        let mut until = cleaning.until;
        for span in part.spans.iter().filter(|span| span.end > cleaning.dirty_from) {
            let mut broken = None;
            let sources = self.archiver.sources.clone();
            let mut take = |found: Found| {
                let noted = look(&found.batch, &mut |record| {
                    let within = (cleaning.dirty_from.0..until.0).contains(&record.offset);
                    if within && record.key.is_some_and(|key| !keys.note(key, record.offset)) {
                        // What does not fit waits for the next round.
                        until = Offset(record.offset);
                    }
                });
                broken = noted.err();
                broken.is_none() && found.end < until
            };
            let read = sources.read_span(part.partition, span, cleaning.dirty_from.max(span.base), at_once(), &mut take);
            self.settled(part, span, read, broken)?;
        }
        let round = Round { keys: &keys, until: until.0, last: part.last.0, now: self.job.now.0 };
        let horizon = self.job.now.plus(i64::try_from(cleaning.delete_retention_ms).unwrap_or(i64::MAX));
        self.part(part, Some((round, horizon)))
    }

    fn part(&mut self, part: &Part, round: Option<(Round<'_>, Millis)>) -> Result<(), Stopped> {
        let bytes: u64 = part.spans.iter().map(|span| span.bytes).sum();
        let own = bytes >= self.job.own_bytes;
        if own {
            self.finish_segment()?;
        }
        let mut done = nothing_yet(part, part.spans.first().map_or(part.log_start, |span| span.base));
        let mut written = 0;
        for span in &part.spans {
            written += self.span(part, span, round, &mut done)?;
            done.end = span.end;
            done.cleaned_to = round.map_or(Offset(0), |(round, _)| span.end.min(Offset(round.until)));
            // A large partition goes in pieces, so that a crash loses little work and the replaced is given back early.
            if written >= self.job.segment_bytes as u64 / 2 && own {
                let next = nothing_yet(part, span.end);
                self.waiting.push(std::mem::replace(&mut done, next));
                self.finish_segment()?;
                written = 0;
            }
        }
        if done.end > done.base {
            self.waiting.push(done);
        }
        if own {
            self.finish_segment()?;
        }
        Ok(())
    }

    /// Copies one span. Gives the bytes that were kept.
    fn span(&mut self, part: &Part, span: &Span, round: Option<(Round<'_>, Millis)>, done: &mut Replaced) -> Result<u64, Stopped> {
        let sources = self.archiver.sources.clone();
        let mut kept = 0;
        let (mut full, mut broken, mut tombstone) = (Ok(()), None, None);
        let mut take = |mut found: Found| {
            match what_stays(&found, part, round, &mut tombstone) {
                Ok(Cleaned::Whole) => {}
                Ok(Cleaned::Rewritten(batch)) => {
                    found.max_timestamp = BatchHeader::parse(&batch).map_or(found.max_timestamp, |header| header.max_timestamp);
                    found.batch = batch;
                }
                Ok(Cleaned::Gone) => return true,
                Err(error) => {
                    broken = Some(error);
                    return false;
                }
            }
            kept += found.batch.len() as u64;
            self.push(part.partition, &found, span, done);
            if self.writer.bytes() >= self.job.segment_bytes {
                full = self.end_segment();
            }
            full.is_ok()
        };
        let read = sources.read_span(part.partition, span, part.log_start.max(span.base), at_once(), &mut take);
        full?;
        self.settled(part, span, read, broken)?;
        if let Some(due) = tombstone {
            (self.report)(Outcome { tombstones: vec![(part.partition, due)], ..Outcome::default() });
        }
        Ok(kept)
    }

    /// What a read of a span that met something unreadable means for the job.
    fn settled(&self, part: &Part, span: &Span, read: Result<(), ColdError>, broken: Option<CleanError>) -> Result<(), Stopped> {
        match broken.map_or(read, |error| Err(ColdError::Damaged(error.to_string()))) {
            Ok(()) => Ok(()),
            Err(ColdError::Damaged(what)) => {
                tracing::error!(partition = part.partition.0, what, "damaged batches stay where they are");
                Err(Stopped::Part(span.place))
            }
            Err(error @ (ColdError::Gone | ColdError::Unavailable(_))) => {
                tracing::warn!(partition = part.partition.0, %error, "a segment was not made");
                Err(Stopped::Job)
            }
        }
    }

    fn push(&mut self, partition: PartitionId, found: &Found, span: &Span, done: &mut Replaced) {
        self.writer.push(partition, &found.batch, found.base, found.end, found.max_timestamp, span.appended);
        let place = Place::Segment(self.id);
        let bytes = found.batch.len() as u64;
        match done.spans.last_mut().filter(|last| last.place == place) {
            Some(last) => {
                last.end = found.end;
                last.bytes += bytes;
                last.max_timestamp = last.max_timestamp.max(found.max_timestamp);
                last.appended = last.appended.max(span.appended);
            }
            None => done.spans.push(Span {
                place,
                base: found.base,
                end: found.end,
                bytes,
                max_timestamp: found.max_timestamp,
                appended: span.appended,
            }),
        }
    }

    /// Makes the segment durable. Replacements still wait: one of them may go on in the next segment.
    fn end_segment(&mut self) -> Result<(), Stopped> {
        if self.writer.is_empty() {
            return Ok(());
        }
        let (bytes, _) = std::mem::replace(&mut self.writer, Writer::begin()).finish();
        let id = std::mem::replace(&mut self.id, SegmentId::made(self.job.now, (self.archiver.dice)()));
        if let Err(error) = self.archiver.sources.segments.put(id, &bytes) {
            tracing::warn!(%error, bytes = bytes.len(), "a segment cannot be made; what it would hold stays where it is");
            // An answer that was lost may have been a yes.
            let named: Vec<SegmentId> = self.waiting.drain(..).flat_map(|replaced| replaced.segments().collect::<Vec<_>>()).collect();
            (self.report)(Outcome { unused: named.into_iter().chain([id]).collect(), ..Outcome::default() });
            return Err(Stopped::Job);
        }
        Ok(())
    }

    /// Makes the segment durable and reports everything that waited for it. Only between partitions, or between spans.
    fn finish_segment(&mut self) -> Result<(), Stopped> {
        self.end_segment()?;
        if !self.waiting.is_empty() {
            let replaced = std::mem::take(&mut self.waiting);
            (self.report)(Outcome { replaced, ..Outcome::default() });
        }
        Ok(())
    }
}

fn at_once() -> u32 {
    u32::try_from(COLD_READ_AT_ONCE).unwrap_or(u32::MAX)
}

/// What of a batch goes into the new segment.
fn what_stays(
    found: &Found,
    part: &Part,
    round: Option<(Round<'_>, Millis)>,
    tombstone: &mut Option<Millis>,
) -> Result<Cleaned, CleanError> {
    let removed = |offset: u64| part.removed.contains(offset) && offset != part.last.0;
    let Some((round, horizon)) = round else {
        let touched = part.removed.overlaps(found.base.0..found.end.0);
        return if touched { clean(&found.batch, None, &mut |record| verdict(removed(record.offset))) } else { Ok(Cleaned::Whole) };
    };
    // A batch beyond the round is whole, and its tombstones get no horizon yet.
    let horizon = (found.base.0 < round.until).then_some(horizon.0);
    clean(&found.batch, horizon, &mut |record| {
        let stays = round.verdict(record) == Verdict::Keep && !removed(record.offset);
        if stays && record.is_tombstone && record.offset < round.until {
            let due = Millis(record.delete_horizon.or(horizon).unwrap_or(i64::MAX));
            *tombstone = Some(tombstone.map_or(due, |earlier: Millis| earlier.min(due)));
        }
        verdict(!stays)
    })
}

fn verdict(removed: bool) -> Verdict {
    if removed { Verdict::Remove } else { Verdict::Keep }
}

fn nothing_yet(part: &Part, base: Offset) -> Replaced {
    Replaced { partition: part.partition, base, end: base, spans: Vec::new(), cleaned_to: Offset(0) }
}
