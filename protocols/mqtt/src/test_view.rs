//! What a node holds, in tests of what reads it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use firth_gateway::future::BoxFuture;
use firth_gateway::refusal::Refusal;
use firth_gateway::stored::batch;
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::{Bounds, FoundBatch, LastValue, LastValues, LastsFrom, LogView, ReadNow, Records, Waiter};
use firth_model::filter::Filter;
use firth_model::ids::{LeaderEpoch, Offset, PartitionId, Position, StreamId};
use firth_model::subject::Subject;
use firth_model::time::Millis;

use crate::codec::property::Properties;
use crate::codec::qos::QoS;
use crate::headers::{Outline, message};

pub const RETAINED: PartitionId = PartitionId(1);
pub const OFFERED: PartitionId = PartitionId(2);

/// A retained message at offset 0, and a last value of the same subject at offset 0 of another partition, found or not.
#[derive(Default)]
pub struct TestView {
    /// When the last value is found. `None`: never.
    pub found_after: Option<Duration>,
    pub finds: bool,
    /// Otherwise both partitions are gone.
    pub has_records: bool,
    /// They are in a store that does not answer.
    pub is_unreachable: bool,
    /// The first of them are damaged, and there are no others.
    pub is_damaged: bool,
}

fn one(text: &'static str) -> Bytes {
    let (subject, payload) = (Subject::parse("a").expect("a subject"), Bytes::from_static(text.as_bytes()));
    let properties = Properties::default();
    let outline = Outline { subject, qos: QoS::AtLeastOnce, retain: true, properties: &properties, payload };
    batch([&message(outline, Millis(0))]).bytes().clone()
}

impl LogView for TestView {
    fn stream(&self, _: &str) -> Option<Arc<StreamInfo>> {
        None
    }
    fn stream_by_id(&self, _: StreamId) -> Option<Arc<StreamInfo>> {
        None
    }
    fn streams(&self) -> Vec<Arc<StreamInfo>> {
        Vec::new()
    }
    fn bounds(&self, _: PartitionId) -> Option<Bounds> {
        None
    }
    fn read(&self, partition: PartitionId, from: Offset, _: u32) -> ReadNow {
        if self.is_damaged {
            return if from == Offset(0) { ReadNow::Refused(Refusal::Damaged) } else { ReadNow::Ready(Records::default()) };
        }
        if self.is_unreachable {
            return ReadNow::Behind;
        }
        if !self.has_records {
            return ReadNow::Refused(Refusal::NotFound);
        }
        let mut records = Records::default();
        let (text, position) = if partition == RETAINED { ("retained", Position(1)) } else { ("last", Position(2)) };
        records.push(one(text), position);
        ReadNow::Ready(records)
    }
    fn read_behind(&self, _: PartitionId, _: Offset, _: u32) -> BoxFuture<'static, Result<Records, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::Unavailable)))
    }
    fn find_time(&self, _: PartitionId, _: i64) -> BoxFuture<'static, Result<Option<FoundBatch>, Refusal>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn find_latest_time(&self, _: PartitionId) -> BoxFuture<'static, Result<Option<FoundBatch>, Refusal>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn epoch_end(&self, _: PartitionId, _: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        None
    }
    fn park(&self, _: PartitionId, _: Offset, _: &Arc<Waiter>) -> bool {
        self.has_records
    }
    fn position_of(&self, _: PartitionId, _: Offset) -> Option<Position> {
        None
    }
    fn shown(&self) -> Position {
        Position(3)
    }
    fn retained(&self, _: &Filter) -> Option<(PartitionId, Vec<Offset>)> {
        Some((RETAINED, vec![Offset(0)]))
    }
    fn last_values_ready(&self, _: &Filter) -> Option<BoxFuture<'static, bool>> {
        let after = self.found_after;
        Some(Box::pin(async move {
            match after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
            true
        }))
    }
    fn last_values(&self, _: &Filter, _: Option<&LastsFrom>, _: usize) -> LastValues {
        let (subject, retained) = (Bytes::from_static(b"a"), Some((RETAINED, Offset(0))));
        let value = LastValue { subject, partition: OFFERED, offset: Offset(0), retained };
        LastValues { values: self.finds.then_some(value).into_iter().collect(), next: None }
    }
    fn has_last_value(&self, _: &[u8]) -> bool {
        true
    }
}
