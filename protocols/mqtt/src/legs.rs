//! Legs of a session, merged in the order of the journal.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use firth_gateway::cursors::Leg;
use firth_gateway::future::BoxFuture;
use firth_gateway::message::StoredMessage;
use firth_gateway::refusal::Refusal;
use firth_gateway::stored;
use firth_gateway::view::{LogView, ReadNow, Records, Waiter};
use firth_model::batch::BatchHeader;
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, Position};
use firth_model::limits::MQTT_LEG_READ_BYTES;
use firth_model::subject::Subject;

use crate::window::{Origin, Source};

/// When a store is asked again that could not be reached.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A record of a leg, the next of its session.
#[derive(Debug)]
pub struct LegRecord {
    pub source: Source,
    pub stored: StoredMessage,
    /// Another leg delivers it.
    pub elsewhere: bool,
    /// Its subscription is over; only what was handed out before is still delivered.
    pub closing: bool,
}

/// One leg, and how far it is read.
struct Reader {
    partition: PartitionId,
    filter: Filter,
    bound_at: Position,
    /// Read up to here.
    next: Offset,
    /// Settled above the floor before this connection came.
    settled: VecDeque<(Offset, Offset)>,
    ahead: VecDeque<(Position, StoredMessage)>,
    parked: bool,
    /// Its subscription is over, and something of it is in flight.
    closing: bool,
    /// Where it began, if the last SUBSCRIBE that named it made it.
    new_from: Option<Offset>,
}

/// All legs of a session.
#[derive(Default)]
pub struct Legs {
    readers: Vec<Reader>,
    waiter: Arc<Waiter>,
    /// Everything below was read into memory, or is not there.
    filled_to: Position,
    /// A leg ran empty since.
    stale: bool,
    cold: Option<ColdRead>,
}

struct ColdRead {
    partition: PartitionId,
    records: BoxFuture<'static, Result<Records, Refusal>>,
}

impl Legs {
    pub fn add(&mut self, leg: &Leg) {
        self.remove(leg.partition);
        self.stale = true;
        self.readers.push(Reader {
            partition: leg.partition,
            filter: leg.filter.clone(),
            bound_at: leg.bound_at,
            next: leg.floor,
            settled: leg.settled.iter().copied().collect(),
            ahead: VecDeque::new(),
            parked: false,
            closing: false,
            new_from: None,
        });
    }

    /// A SUBSCRIBE made the leg, from this record on, or found it.
    pub fn set_new(&mut self, partition: PartitionId, from: Option<Offset>) {
        let readers = self.readers.iter_mut().filter(|reader| reader.partition == partition);
        readers.for_each(|reader| reader.new_from = from);
    }

    /// The first record that a leg brings or brought since the last SUBSCRIBE. `None`: it was there before that.
    pub fn first_of_new(&self, partition: PartitionId) -> Option<Offset> {
        self.readers.iter().find(|reader| reader.partition == partition)?.new_from
    }

    pub fn has(&self, partition: PartitionId) -> bool {
        self.readers.iter().any(|reader| reader.partition == partition)
    }

    pub fn remove(&mut self, partition: PartitionId) {
        self.readers.retain(|reader| reader.partition != partition);
        if self.cold.as_ref().is_some_and(|cold| cold.partition == partition) {
            self.cold = None;
        }
    }

    /// The subscription is over, or is there again; its records are read on.
    pub fn set_closing(&mut self, partition: PartitionId, closing: bool) {
        let readers = self.readers.iter_mut().filter(|reader| reader.partition == partition);
        readers.for_each(|reader| reader.closing = closing);
    }

    /// These runs, ascending, were settled by somebody else: what of them is not handed out yet is passed over.
    pub fn skip(&mut self, partition: PartitionId, runs: &[(Offset, Offset)]) {
        let Some(reader) = self.readers.iter_mut().find(|reader| reader.partition == partition) else { return };
        for (from, to) in runs {
            reader.ahead.retain(|(_, stored)| stored.offset < *from || stored.offset >= *to);
            match reader.settled.back_mut() {
                Some((first, end)) if *first <= *from && *from <= *end => *end = (*end).max(*to),
                _ => {
                    let at = reader.settled.partition_point(|(first, _)| first < from);
                    reader.settled.insert(at, (*from, *to));
                }
            }
        }
        self.stale = true;
    }

    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    pub fn waiter(&self) -> Arc<Waiter> {
        self.waiter.clone()
    }

    pub fn is_parked(&self) -> bool {
        self.readers.iter().any(|reader| reader.parked)
    }

    /// Looks again at all legs the next time.
    pub fn stir(&mut self) {
        self.stale = true;
    }

    /// Whether `fill` would look for records.
    pub fn is_due(&self, up_to: Option<Position>) -> bool {
        self.stale || up_to.is_some_and(|up_to| up_to > self.filled_to)
    }

    /// Everything that lies at or before `up_to` and that is not yet delivered is in memory after this. False: a read from disk has to end
    /// first, see [`Legs::read_cold`].
    pub fn fill(&mut self, view: &dyn LogView, up_to: Option<Position>) -> bool {
        if self.cold.is_some() {
            return false;
        }
        if !self.is_due(up_to) {
            return true;
        }
        let shown = view.shown();
        for reader in &mut self.readers {
            if let Some(records) = reader.fill(view) {
                self.cold = Some(ColdRead { partition: reader.partition, records });
                return false;
            }
        }
        self.filled_to = shown;
        self.stale = false;
        true
    }

    pub fn is_reading(&self) -> bool {
        self.cold.is_some()
    }

    /// Ends the read from disk that `fill` began. Safe to drop while waiting.
    pub async fn read_cold(&mut self) {
        let Some(cold) = &mut self.cold else { return std::future::pending().await };
        let records = (&mut cold.records).await;
        let partition = cold.partition;
        self.cold = None;
        let Some(reader) = self.readers.iter_mut().find(|reader| reader.partition == partition) else { return };
        match records {
            Ok(records) => reader.take(&records),
            Err(refusal) => reader.pass(&refusal),
        }
        self.stale = true;
    }

    /// Where the next record lies.
    pub fn peek(&self) -> Option<Position> {
        self.readers.iter().filter_map(Reader::head).min()
    }

    pub fn take(&mut self) -> Option<LegRecord> {
        // What lies in segments has no position any more.
        let head = |reader: &Reader| reader.ahead.front().map(|(position, stored)| (*position, stored.message.published));
        let (_, at) = self.readers.iter().enumerate().filter_map(|(at, reader)| Some((head(reader)?, at))).min()?;
        let reader = self.readers.get_mut(at)?;
        let (_, stored) = reader.ahead.pop_front()?;
        let closing = reader.closing;
        let source = Source { partition: reader.partition, offset: stored.offset, origin: Origin::Leg };
        self.stale |= reader.ahead.is_empty();
        let elsewhere = !closing && self.deliverer(&stored.message.subject) != Some(source.partition);
        Some(LegRecord { source, stored, elsewhere, closing })
    }

    /// The leg that delivers messages of a subject: of those that match the one bound first. It has every record that any other has.
    fn deliverer(&self, subject: &Subject) -> Option<PartitionId> {
        let [only] = &self.readers[..] else {
            let matching = self.readers.iter().filter(|reader| !reader.closing && reader.filter.matches(subject));
            return matching.min_by_key(|reader| (reader.bound_at, reader.partition)).map(|reader| reader.partition);
        };
        Some(only.partition)
    }

    /// Asks to be woken for what comes. False: something is there already.
    pub fn park(&mut self, view: &dyn LogView) -> bool {
        let mut nothing = true;
        for reader in &mut self.readers {
            if !reader.parked && reader.ahead.is_empty() {
                // To a leg whose stream is gone nothing comes any more.
                let is_gone = view.bounds(reader.partition).is_none();
                reader.parked = is_gone || view.park(reader.partition, reader.next, &self.waiter);
                nothing &= reader.parked;
            }
        }
        self.stale |= !nothing;
        nothing
    }

    /// After a wake: legs that have something are parked no more.
    pub fn woken(&mut self, view: &dyn LogView) {
        for reader in &mut self.readers {
            let has_more = view.bounds(reader.partition).is_none_or(|bounds| bounds.durable_end > reader.next);
            reader.parked &= !has_more;
        }
        self.stale = true;
    }
}

impl Reader {
    fn head(&self) -> Option<Position> {
        self.ahead.front().map(|(position, _)| *position)
    }

    /// Reads from memory until something is there or the end is reached. Gives the read that has to come from disk.
    fn fill(&mut self, view: &dyn LogView) -> Option<BoxFuture<'static, Result<Records, Refusal>>> {
        while self.ahead.is_empty() {
            self.pass_settled();
            match view.read(self.partition, self.next, MQTT_LEG_READ_BYTES) {
                ReadNow::Ready(records) if records.batches.is_empty() => return None,
                ReadNow::Ready(records) => self.take(&records),
                ReadNow::Behind => return Some(Box::pin(patient(view.read_behind(self.partition, self.next, MQTT_LEG_READ_BYTES)))),
                ReadNow::Refused(refusal) => {
                    let before = self.next;
                    self.pass(&refusal);
                    if self.next == before {
                        return None;
                    }
                }
            }
        }
        None
    }

    fn pass_settled(&mut self) {
        while let Some((from, to)) = self.settled.front().copied() {
            if from > self.next {
                return;
            }
            self.next = self.next.max(to);
            self.settled.pop_front();
        }
    }

    fn take(&mut self, records: &Records) {
        let unknown = Subject::parse("").expect("one empty level");
        for (batch, position) in records.batches.iter().zip(&records.positions) {
            match stored::messages(batch, self.next, &unknown) {
                Ok(messages) => {
                    for stored in messages {
                        self.pass_settled();
                        if stored.offset >= self.next {
                            self.next = stored.offset.plus(1);
                            self.ahead.push_back((*position, stored));
                        }
                    }
                }
                Err(refusal) => tracing::warn!(?refusal, partition = self.partition.0, "a batch of a session is not readable"),
            }
            self.next = self.next.max(end_of(batch).unwrap_or(self.next.plus(1)));
        }
    }

    /// A read failed: what is gone or damaged is passed over, the rest is tried again.
    fn pass(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::OffsetOutOfRange { log_start, .. } if *log_start > self.next => self.next = *log_start,
            Refusal::Damaged => self.next = self.next.plus(1),
            _ => {}
        }
    }
}

/// A read that could not be done now is not tried again at once.
async fn patient(reading: BoxFuture<'static, Result<Records, Refusal>>) -> Result<Records, Refusal> {
    let records = reading.await;
    if let Err(Refusal::Unavailable | Refusal::Overloaded) = records {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    records
}

/// The offset behind a batch.
fn end_of(batch: &Bytes) -> Option<Offset> {
    let header = BatchHeader::parse(batch).ok()?;
    Some(Offset::from_i64(header.base_offset)?.plus(header.offset_count()))
}

/// What the broker knows of records that were handed out before: their identifiers, and how far they are.
#[derive(Debug, Default)]
pub struct HandedOut {
    pub before: HashMap<Source, Handed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// At QoS 1, under this identifier.
    Once(u16),
    /// At QoS 2, waits for PUBREC.
    Marked(u16),
    /// At QoS 2, PUBREC came.
    Received(u16),
}

#[cfg(test)]
mod tests {
    use super::*;

    use firth_model::time::Millis;

    use crate::codec::property::Properties;
    use crate::codec::qos::QoS;
    use crate::headers::{Outline, message};
    use crate::test_view::{OFFERED, TestView};

    fn legs() -> Legs {
        let mut legs = Legs::default();
        let filter = Filter::parse("a").expect("a filter");
        let (bound_at, floor, note) = (Position(0), Offset(0), Bytes::new());
        legs.add(&Leg { filter, note, partition: OFFERED, bound_at, floor, settled: Vec::new(), marks: Vec::new(), attempts: Vec::new() });
        legs
    }

    /// Of what has been moved to segments the journal's order is not known any more.
    #[test]
    fn old_records_of_several_legs_come_by_their_times() {
        let subject = |text| Subject::parse(text).expect("a subject");
        let mut legs = Legs::default();
        for (partition, text, times) in [(1, "a", [10, 40]), (2, "b", [20, 30])] {
            let (filter, note) = (Filter::parse(text).expect("a filter"), Bytes::new());
            let (partition, bound_at, floor) = (PartitionId(partition), Position(0), Offset(0));
            legs.add(&Leg { filter, note, partition, bound_at, floor, settled: Vec::new(), marks: Vec::new(), attempts: Vec::new() });
            let properties = Properties::default();
            let of = |at: u64, time| {
                let (subject, payload) = (subject(text), Bytes::from_static(b"x"));
                let outline = Outline { subject, qos: QoS::AtLeastOnce, retain: false, properties: &properties, payload };
                (Position(0), StoredMessage { offset: Offset(at), message: message(outline, Millis(time)) })
            };
            legs.readers.last_mut().expect("just added").ahead = (0..).zip(times).map(|(at, time)| of(at, time)).collect();
        }
        let came: Vec<i64> = std::iter::from_fn(|| legs.take()).map(|record| record.stored.message.published.0).collect();
        assert_eq!(came, [10, 20, 30, 40]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_be_reached_is_not_asked_without_a_pause() {
        let (mut legs, view) = (legs(), TestView { is_unreachable: true, ..TestView::default() });
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            assert!(!legs.fill(&view, None), "it lies behind what memory holds");
            legs.read_cold().await;
        }
        assert_eq!(began.elapsed(), AGAIN_AFTER * 10);
    }

    #[test]
    fn what_memory_holds_and_cannot_be_read_is_passed_over() {
        let (mut legs, view) = (legs(), TestView { is_damaged: true, ..TestView::default() });
        assert!(legs.fill(&view, None) && legs.take().is_none());
        assert_eq!(legs.readers[0].next, Offset(1));
    }

    #[test]
    fn a_leg_whose_stream_is_gone_waits() {
        let mut legs = legs();
        let view = TestView::default();
        assert!(legs.fill(&view, None) && legs.take().is_none());
        assert!(legs.park(&view) && !legs.is_due(None), "nothing is to be looked for at once");
    }
}
