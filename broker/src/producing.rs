//! Batches to the partitions they name.

use firth_gateway::answer::{Answer, Placed};
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Publish;
use firth_journal::entry::Entry;
use firth_model::ids::Lsn;
use firth_model::limits::EXPIRING_RECORDS_MAX;

use crate::effect::Effect;
use crate::partition::Decision;
use crate::shard::{Due, Shard};
use crate::storing::{Ahead, Prepared};

impl Shard {
    /// The durable path of records: decide, apply, hand over.
    pub(crate) fn publish(&mut self, batches: Vec<Publish>, reply: ReplyTo) {
        tracing::trace!(target: "path", hop = "Shard::publish");
        let mut placed = Vec::with_capacity(batches.len());
        let mut upto = Lsn(0);
        for publish in &batches {
            let outcome = self.publish_one(publish, &mut upto);
            placed.push(outcome);
        }
        self.due(upto, Due::Answer(reply, Ok(Answer::Placed(placed))));
    }

    fn publish_one(&mut self, publish: &Publish, upto: &mut Lsn) -> Result<Placed, Refusal> {
        let batch = &publish.batch;
        let held = self.state.partitions.get(&publish.partition).ok_or(Refusal::NotFound)?;
        let log_start = held.log_start;
        held.fits(batch)?;
        let base_offset = match held.decide(batch, held.next)? {
            Decision::Repeated { base_offset } => {
                *upto = (*upto).max(held.last_lsn);
                return Ok(Placed { base_offset, log_start, duplicate: true });
            }
            Decision::Append { base_offset } => base_offset,
        };
        let entry = held.entry(batch, base_offset, &[]);
        let room = self.room_bytes;
        let copies = self.prepare_with_copies(publish, &entry).inspect_err(|_| self.room_bytes = room)?;
        let queued = self.queued();
        for (store, copy) in publish.captured.iter().zip(copies) {
            if let Some(copy) = copy {
                self.carry_out(store, copy, upto);
            }
        }
        *upto = self.append_batch(&[(publish.partition, base_offset)], &batch.header, entry);
        // Whoever repeats a batch that is there already stores no copies for others again.
        self.tie(queued);
        if !publish.expires.is_empty() {
            let expiring = publish.expires.clone();
            *upto = self.emit(&Effect::Expire { partition: publish.partition, base: base_offset, expiring });
        }
        Ok(Placed { base_offset, log_start, duplicate: false })
    }

    /// Whether a batch and everything that others store of it has room. One copy that is refused refuses all: what would be stored of
    /// a refused batch would be stored again when its producer repeats it.
    fn prepare_with_copies(&mut self, publish: &Publish, entry: &Entry) -> Result<Vec<Option<Prepared>>, Refusal> {
        if entry.bytes() > self.entry_bytes_max {
            let (bytes, bytes_max) = (entry.bytes() as u64, self.entry_bytes_max as u64);
            return Err(Refusal::TooLarge { bytes, bytes_max });
        }
        self.room_bytes = self.room_bytes.checked_sub(entry.room_bytes() as u64).ok_or(Refusal::StorageFull)?;
        if self.state.expiries.records() + publish.expires.len() > EXPIRING_RECORDS_MAX {
            return Err(Refusal::Overloaded);
        }
        let mut ahead = Ahead::behind(publish.expires.len());
        let mut copies = Vec::with_capacity(publish.captured.len());
        for store in &publish.captured {
            let copy = self.prepare(store, &ahead)?;
            copy.iter().for_each(|copy| ahead.add(store, copy));
            copies.push(copy);
        }
        Ok(copies)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use firth_gateway::message::Message;
    use firth_gateway::request::{Declare, Request, Store, Wait};
    use firth_gateway::stored;
    use firth_gateway::streams::{Policy, StreamInfo};
    use firth_gateway::view::{LogView, RouteView};
    use firth_model::filter::Filter;
    use firth_model::ids::Offset;
    use firth_model::names::StreamName;

    use super::*;
    use crate::bench::{Rig, message};
    use crate::routing::Shared;

    fn declare(rig: &mut Rig, name: &str, captures: &[&str], batch_bytes_max: u32) -> Arc<StreamInfo> {
        let captures = captures.iter().map(|text| Filter::parse(text).expect("a filter")).collect();
        let policy = Policy { captures, batch_bytes_max, ..Policy::default() };
        let name = StreamName::parse(name).expect("a name");
        let declare = Declare { name, partitions: 1, policy, settings: Default::default() };
        let Ok(Answer::Stream(info)) = rig.ask(Request::Declare(Box::new(declare))) else { panic!("not made") };
        info
    }

    fn produce(rig: &mut Rig, info: &StreamInfo, messages: &[Message]) -> Result<Placed, Refusal> {
        produce_copied(rig, info, messages, messages)
    }

    /// Produces one batch of messages, with the copies that others capture.
    fn produce_copied(rig: &mut Rig, info: &StreamInfo, messages: &[Message], copies: &[Message]) -> Result<Placed, Refusal> {
        let mut cache = Shared(rig.view().routing.clone()).cache();
        let copy = |message: &Message| Store {
            message: Arc::new(message.clone()),
            batch: stored::batch([message]),
            routes: cache.routes(&message.subject),
            origin: Some(info.id),
            receipt: None,
        };
        let captured = copies.iter().map(copy).collect();
        let batch = stored::batch(messages);
        let publish = Publish { partition: info.partitions[0], batch, wait: Wait::Durable, expires: Vec::new(), captured };
        match rig.ask(Request::Publish(vec![publish])) {
            Ok(Answer::Placed(mut placed)) => placed.pop().expect("one"),
            other => panic!("answered {other:?}"),
        }
    }

    fn end(rig: &Rig, info: &StreamInfo) -> Offset {
        rig.view().bounds(info.partitions[0]).expect("there").durable_end
    }

    fn sized(bytes: usize) -> Message {
        Message { value: Some(Bytes::from(vec![7; bytes])), ..message("narrow", None) }
    }

    #[test]
    fn a_copy_that_is_refused_leaves_no_others() {
        let mut rig = Rig::with_partitions(1);
        let wide = declare(&mut rig, "wide", &["narrow"], 1 << 20);
        let narrow = declare(&mut rig, "narrow", &[], 1 << 20);
        // As of a batch that was compressed well.
        let copies = [sized(10), sized(10), sized(1 << 20)];
        assert!(matches!(produce_copied(&mut rig, &narrow, &[sized(1)], &copies), Err(Refusal::TooLarge { .. })));
        assert_eq!((end(&rig, &wide), end(&rig, &narrow)), (Offset(0), Offset(0)));
        rig.limit_room(64 << 10);
        let copies = [sized(10), sized(10), sized(60 << 10)];
        assert_eq!(produce(&mut rig, &narrow, &copies), Err(Refusal::StorageFull));
        assert_eq!((end(&rig, &wide), end(&rig, &narrow)), (Offset(0), Offset(0)));
        rig.limit_room(160 << 10);
        produce(&mut rig, &narrow, &copies).expect("there is room");
        assert_eq!((end(&rig, &wide), end(&rig, &narrow)), (Offset(3), Offset(3)));
    }

    #[test]
    fn copies_of_one_batch_lie_behind_each_other() {
        let mut rig = Rig::with_partitions(1);
        let wide = declare(&mut rig, "wide", &["narrow"], 1 << 20);
        let narrow = declare(&mut rig, "narrow", &[], 1 << 20);
        for round in 1..=2 {
            let values = ["a", "b", "c"].map(|value| message("narrow", Some(value)));
            produce(&mut rig, &narrow, &values).expect("stored");
            assert_eq!((end(&rig, &wide), end(&rig, &narrow)), (Offset(3 * round), Offset(3 * round)));
        }
        for at in 0..6 {
            let records = rig.view().read_here(wide.partitions[0], Offset(at), 1).expect("readable");
            let read = stored::messages(&records.batches[0], Offset(at), &message("wide", None).subject).expect("a batch");
            assert_eq!(read[0].message.value.as_deref(), Some(&b"abc"[at as usize % 3..][..1]), "at {at}");
        }
    }

    #[test]
    fn who_captures_does_not_refuse_the_producer_of_another() {
        let mut rig = Rig::with_partitions(1);
        let wide = declare(&mut rig, "wide", &["narrow"], 300);
        let narrow = declare(&mut rig, "narrow", &[], 1 << 20);
        produce(&mut rig, &narrow, &[sized(10), sized(1000)]).expect("within the bound of its own");
        assert_eq!((end(&rig, &wide), end(&rig, &narrow)), (Offset(2), Offset(2)));
        assert!(matches!(produce(&mut rig, &wide, &[sized(1000)]), Err(Refusal::TooLarge { .. })));
    }
}
