//! One partition as the shard owns it.

use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::refusal::Refusal;
use firth_journal::entry::{Entry, Row as EntryRow};
use firth_model::batch::{Batch, prefix};
use firth_model::ids::{LeaderEpoch, Lsn, Offset, PartitionId, StreamId};
use firth_model::time::Millis;

use crate::effect::{begin_value, open_value};
use crate::index::Index;
use crate::layout::StateDamage;
use crate::partition_view::PartitionView;
use crate::producers::{Producers, Sequence};

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
}

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
        }
    }

    /// Whether and where a batch goes. Changes nothing.
    pub fn decide(&self, batch: &Batch) -> Result<Decision, Refusal> {
        let (bytes, bytes_max) = (batch.header.batch_bytes, self.batch_bytes_max);
        if bytes > bytes_max {
            return Err(Refusal::TooLarge { bytes: u64::from(bytes), bytes_max: u64::from(bytes_max) });
        }
        if i64::try_from(self.next.0 + batch.header.offset_count()).is_err() {
            return Err(Refusal::InvalidRecord { index: 0, what: "the partition has no offsets left" });
        }
        match self.producers.check(&batch.header)? {
            Sequence::Next => Ok(Decision::Append { base_offset: self.next }),
            Sequence::Repeated(base_offset) => Ok(Decision::Repeated { base_offset }),
        }
    }

    /// The entry of an appended batch.
    pub fn entry(&self, batch: &Batch, base_offset: Offset) -> Entry {
        let header = &batch.header;
        let row = EntryRow {
            partition: self.view.id,
            base_offset,
            records: u32::try_from(header.offset_count()).unwrap_or(u32::MAX),
            max_timestamp: header.max_timestamp,
        };
        Entry::batch(row, &[], prefix(base_offset, header.batch_bytes, self.epoch), batch.tail())
    }

    /// The batch is appended. True if its producer was not known before.
    pub fn apply(&mut self, header: &firth_model::batch::BatchHeader, base_offset: Offset, now: Millis, lsn: Lsn) -> bool {
        tracing::trace!(target: "path", hop = "Partition::apply");
        self.next = base_offset.plus(header.offset_count());
        self.last_lsn = lsn;
        self.producers.remember(header, base_offset, now)
    }

    /// Log start u64, next u64, epoch i32, producers, spans.
    pub fn encode(&self) -> Bytes {
        let mut out = begin_value();
        out.u64(self.log_start.0).u64(self.next.0).i32(self.epoch.0);
        self.producers.encode(&mut out);
        self.view.index().encode(&mut out);
        out.done()
    }

    pub fn decode_into(&mut self, value: &[u8]) -> Result<(), StateDamage> {
        let mut from = open_value(value)?;
        self.log_start = Offset(from.u64()?);
        self.next = Offset(from.u64()?);
        self.epoch = LeaderEpoch(from.i32()?);
        self.producers = Producers::decode(&mut from)?;
        let index = Index::decode(&mut from)?;
        from.end()?;
        *self.view.index() = index;
        Ok(())
    }
}
