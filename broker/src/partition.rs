//! One partition as the shard owns it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::refusal::Refusal;
use firth_journal::entry::{Entry, Row as EntryRow, Target};
use firth_model::batch::{Batch, prefix};
use firth_model::ids::{LeaderEpoch, Lsn, Offset, PartitionId, StreamId};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::index::{Index, Span};
use crate::layout::{Reader, StateDamage, Writer};
use crate::partition_view::PartitionView;
use crate::producers::{Producers, Sequence};
use crate::removals::{read_runs, write_runs};
use crate::replaced::{Replaced, read_extent_spans, read_spans, write_spans};

pub struct Partition {
    pub view: Arc<PartitionView>,
    pub stream: StreamId,
    /// Largest batch, copied from the stream's policy so that a publish looks at one place.
    pub batch_bytes_max: u32,
    pub log_start: Offset,
    /// The offset of the next record; ahead of the durable end while groups are being written.
    pub next: Offset,
    pub epoch: LeaderEpoch,
    pub producers: Producers,
    /// The last effect on this partition: an answer that depends on it waits for it.
    pub last_lsn: Lsn,
    /// Applied and not yet durable: the index, which readers see, still has what they replace.
    pub replacing: VecDeque<Replaced>,
    /// Of the records below only the newest of each key are left.
    pub cleaned_to: Offset,
    /// When the archiver last said that a tombstone may go. Not part of what replay must reproduce.
    pub tombstones_due: Option<Millis>,
    /// Gone for readers, though the bytes may still be there. Readers see it when it is durable.
    pub removed: Arc<RunSet>,
}

/// Version byte of a partition's value: 1 had spans in extents only and ended with them.
const VALUE_VERSION: u8 = 2;

/// What `decide` makes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Append { base_offset: Offset },
    Repeated { base_offset: Offset },
}

impl Partition {
    pub fn empty(id: PartitionId, stream: StreamId, batch_bytes_max: u32) -> Partition {
        Partition {
            view: Arc::new(PartitionView::empty(id)),
            stream,
            batch_bytes_max,
            log_start: Offset(0),
            next: Offset(0),
            epoch: LeaderEpoch(0),
            producers: Producers::default(),
            last_lsn: Lsn(0),
            replacing: VecDeque::new(),
            cleaned_to: Offset(0),
            tombstones_due: None,
            removed: Arc::default(),
        }
    }

    /// Refuses a batch that is larger than the stream takes.
    pub fn fits(&self, batch: &Batch) -> Result<(), Refusal> {
        let (bytes, bytes_max) = (batch.header.batch_bytes, self.batch_bytes_max);
        if bytes > bytes_max {
            return Err(Refusal::TooLarge { bytes: u64::from(bytes), bytes_max: u64::from(bytes_max) });
        }
        Ok(())
    }

    /// Whether and where a batch goes, behind what was decided to be below `next`. Changes nothing.
    pub fn decide(&self, batch: &Batch, next: Offset) -> Result<Decision, Refusal> {
        if i64::try_from(next.0.saturating_add(batch.header.offset_count())).is_err() {
            return Err(Refusal::InvalidRecord { index: 0, what: "the partition has no offsets left" });
        }
        match self.producers.check(&batch.header)? {
            Sequence::Next => Ok(Decision::Append { base_offset: next }),
            Sequence::Repeated(base_offset) => Ok(Decision::Repeated { base_offset }),
        }
    }

    /// The entry of an appended batch, which this partition owns and `targets` have too.
    pub fn entry(&self, batch: &Batch, base_offset: Offset, targets: &[Target]) -> Entry {
        let header = &batch.header;
        let row = EntryRow {
            partition: self.view.id,
            base_offset,
            records: u32::try_from(header.offset_count()).unwrap_or(u32::MAX),
            max_timestamp: header.max_timestamp,
        };
        Entry::batch(row, targets, prefix(base_offset, header.batch_bytes, self.epoch), batch.tail())
    }

    /// The batch is appended. True if its producer was not known before.
    pub fn apply(&mut self, header: &firth_model::batch::BatchHeader, base_offset: Offset, now: Millis, lsn: Lsn) -> bool {
        tracing::trace!(target: "path", hop = "Partition::apply");
        self.next = base_offset.plus(header.offset_count());
        self.last_lsn = lsn;
        self.producers.remember(header, base_offset, now)
    }

    /// Spans of the durable part with everything replaced that was decided. Rows are not among them: they are found again by reading the
    /// journal from the first extent that was not sealed.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = self.view.index().spans().iter().copied().collect();
        self.replacing.iter().for_each(|replaced| replaced.apply_to(&mut spans));
        spans
    }

    /// Version u8, log start u64, next u64, epoch i32, producers, spans, cleaned to u64, removed runs of (first u64, end u64).
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.u8(VALUE_VERSION).u64(self.log_start.0).u64(self.next.0).i32(self.epoch.0);
        self.producers.encode(&mut out);
        write_spans(&mut out, &self.spans());
        out.u64(self.cleaned_to.0);
        write_runs(&mut out, &self.removed);
        out.done()
    }

    pub fn decode_into(&mut self, value: &[u8]) -> Result<(), StateDamage> {
        let mut from = Reader::of(value);
        let version = from.u8()?;
        if !(1..=VALUE_VERSION).contains(&version) {
            return Err(StateDamage { what: "partition of a newer version" });
        }
        self.log_start = Offset(from.u64()?);
        self.next = Offset(from.u64()?);
        self.epoch = LeaderEpoch(from.i32()?);
        self.producers = Producers::decode(&mut from)?;
        let spans = if version == 1 { read_extent_spans(&mut from)? } else { read_spans(&mut from)? };
        if version > 1 {
            self.cleaned_to = Offset(from.u64()?);
            self.removed = Arc::new(read_runs(&mut from)?);
        }
        from.end()?;
        *self.view.index() = Index::of_spans(spans);
        self.view.show_removed(self.removed.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Place;
    use firth_model::ids::{ExtentNumber, SegmentId};

    fn partition() -> Partition {
        Partition::empty(PartitionId(3), StreamId(uuid::Uuid::nil()), 1 << 20)
    }

    fn span(place: Place, base: u64, end: u64) -> Span {
        Span { place, base: Offset(base), end: Offset(end), bytes: 100, max_timestamp: 7, appended: Millis(8) }
    }

    #[test]
    fn a_value_holds_what_was_decided_and_not_yet_shown() {
        let mut held = partition();
        let old = span(Place::Extent(ExtentNumber(4)), 0, 10);
        let kept = span(Place::Segment(SegmentId(9)), 2, 10);
        *held.view.index() = Index::of_spans(vec![old]);
        held.replacing.push_back(Replaced {
            partition: held.view.id,
            base: Offset(0),
            end: Offset(10),
            spans: vec![kept],
            cleaned_to: Offset(10),
        });
        held.cleaned_to = Offset(10);
        held.removed = Arc::new([3..5, 8..9].into_iter().collect());
        let mut back = partition();
        back.decode_into(&held.encode()).expect("own bytes");
        assert_eq!((back.spans(), back.cleaned_to, &back.removed), (vec![kept], Offset(10), &held.removed));
        assert_eq!(held.view.index().spans(), &[old], "readers still see the old");
    }

    /// Checkpoints of the first version are on the disks of users.
    #[test]
    fn the_first_version_is_still_read() {
        let mut out = Writer::default();
        out.u8(1).u64(1).u64(30).i32(0);
        Producers::default().encode(&mut out);
        out.count(1);
        out.u64(4).u64(0).u64(30).u64(100).i64(7).i64(8);
        let mut back = partition();
        back.decode_into(&out.done()).expect("an older value");
        assert_eq!((back.log_start, back.next), (Offset(1), Offset(30)));
        assert_eq!(back.spans(), [span(Place::Extent(ExtentNumber(4)), 0, 30)]);
    }
}
