//! Messages to the streams that capture their subjects.

use firth_gateway::answer::{Answer, Stored};
use firth_gateway::live::Capture;
use firth_gateway::message::Message;
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Store;
use firth_gateway::stored;
use firth_gateway::streams::Policy;
use firth_journal::entry::Entry;
use firth_model::batch::Batch;
use firth_model::ids::{Lsn, Offset, PartitionId};
use firth_model::limits::{EXPIRING_RECORDS_MAX, REQUEST_BYTES_MAX};
use firth_model::names::StreamName;
use firth_model::partitioner::partition_of_key;

use crate::effect::Effect;
use crate::partition::Decision;
use crate::retained::RETAINED_STREAM;
use crate::shard::{Due, Shard};

/// Where one message goes: its batch in each partition that captured it, and in the retained stream's.
struct Placement {
    captured: Vec<PartitionId>,
    retained: Option<(PartitionId, Batch)>,
}

impl Shard {
    pub(crate) fn store(&mut self, stores: Vec<Store>, reply: ReplyTo) {
        tracing::trace!(target: "path", hop = "Shard::publish");
        let mut results = Vec::with_capacity(stores.len());
        let mut upto = Lsn(0);
        for store in &stores {
            let outcome = self.store_one(store, &mut upto);
            results.push(outcome);
        }
        self.due(upto, Due::Answer(reply, Ok(Answer::Stored(results))));
    }

    pub(crate) fn store_one(&mut self, store: &Store, upto: &mut Lsn) -> Result<Stored, Refusal> {
        let message = &*store.message;
        let receipt = match &store.receipt {
            Some(receipt) => self.state.cursors.receipt(receipt)?,
            None => None,
        };
        if store.receipt.is_some() && receipt.is_none() {
            // What was done may be on its way to the disk still.
            *upto = (*upto).max(self.cursor_care.lsn);
            return Ok(Stored { duplicate: true, ..Stored::default() });
        }
        let placement = self.place(store)?;
        let captures = u32::try_from(placement.captured.len()).unwrap_or(u32::MAX);
        let batches = placement.captured.iter().map(|id| (*id, &store.batch));
        let batches: Vec<_> = batches.chain(placement.retained.iter().map(|(id, batch)| (*id, batch))).collect();
        let decided = self.decide_all(&batches, message)?;
        let queued = self.queued();
        let mut stored_at = None;
        for ((partition, batch), (base, entry)) in batches.into_iter().zip(decided) {
            self.append_batch(partition, &batch.header, base, entry);
            if let Some(expires) = message.expires {
                self.emit(&Effect::Expire { partition, base, expiring: vec![(0, expires)] });
            }
            stored_at = Some((partition, base));
            *upto = self.last;
        }
        if message.retain {
            let subject = message.subject.as_bytes().clone();
            // The retained stream's comes last.
            let at = stored_at.filter(|_| message.value.is_some()).map(|(_, at)| at);
            *upto = self.emit(&Effect::Retain { subject: subject.clone(), at });
            self.due(*upto, Due::ShowRetained(subject, at));
        }
        if let Some(receipt) = receipt {
            *upto = self.emit(&Effect::Cursor(receipt));
            self.cursor_care.lsn = *upto;
        }
        // Else who sends it again after a crash would have it stored twice where it was already.
        self.tie(queued);
        Ok(Stored { captures, duplicate: false, at: stored_at })
    }

    /// The partitions that capture the message, by the routes it came with or, if they are old, by new ones.
    fn place(&mut self, store: &Store) -> Result<Placement, Refusal> {
        let message = &*store.message;
        let fresh = self.view.routing.version(&message.subject) == store.routes.version;
        let again = (!fresh).then(|| self.view.routing.captures(&message.subject));
        let captures = again.as_deref().unwrap_or(&store.routes.captures);
        let key = message.key.as_ref().unwrap_or(message.subject.as_bytes());
        let partition = |capture: &Capture| {
            // As it is now: the routes may hold it as it was before it grew.
            let info = self.state.catalog.by_id(capture.stream.id)?;
            let count = u32::try_from(info.partitions.len()).ok().filter(|count| *count > 0)?;
            info.partition(partition_of_key(key, count))
        };
        let stores = |capture: &&Capture| {
            let asks_all = store.origin.is_none_or(|origin| !capture.by_name && capture.stream.id != origin);
            asks_all && (message.guaranteed || !capture.stream.policy.hidden)
        };
        let captured = captures.iter().filter(stores).filter_map(partition).collect();
        let retained = if message.retain { self.retained_batch(store)? } else { None };
        Ok(Placement { captured, retained })
    }

    /// What the retained stream gets: the record under its subject as the key, or its end. Nothing ends what is not there.
    fn retained_batch(&mut self, store: &Store) -> Result<Option<(PartitionId, Batch)>, Refusal> {
        let message = &*store.message;
        if message.value.is_none() && self.state.retained.at(message.subject.as_bytes()).is_none() {
            return Ok(None);
        }
        let partition = self.retained_partition()?;
        let batch = match &message.key {
            None => store.batch.clone(),
            Some(_) => stored::batch([&Message { key: None, ..message.clone() }]),
        };
        Ok(Some((partition, batch)))
    }

    /// The partition of the retained stream, which is made when it is needed first.
    fn retained_partition(&mut self) -> Result<PartitionId, Refusal> {
        if let Some(info) = self.state.catalog.by_name(RETAINED_STREAM) {
            return info.partitions.first().copied().ok_or(Refusal::NotFound);
        }
        let name = StreamName::parse(RETAINED_STREAM).map_err(|_| Refusal::InvalidName)?;
        let policy = hidden_policy(Policy { compacted: true, ..Policy::default() });
        let info = self.make_stream(name, 1, policy, Default::default())?;
        info.partitions.first().copied().ok_or(Refusal::NotFound)
    }

    /// Where each of them goes and its entry, or why all of it goes nowhere. Changes nothing but what may still be added in this turn.
    fn decide_all(&mut self, batches: &[(PartitionId, &Batch)], message: &Message) -> Result<Vec<(Offset, Entry)>, Refusal> {
        if message.expires.is_some() && self.state.expiries.records() + batches.len() > EXPIRING_RECORDS_MAX {
            return Err(Refusal::Overloaded);
        }
        let mut room = self.room_bytes;
        let mut decided = Vec::with_capacity(batches.len());
        for (partition, batch) in batches {
            let held = self.state.partitions.get(partition).ok_or(Refusal::NotFound)?;
            let (Decision::Append { base_offset } | Decision::Repeated { base_offset }) = held.decide(batch)?;
            let entry = held.entry(batch, base_offset);
            let bytes = entry.bytes();
            if bytes > self.entry_bytes_max {
                return Err(Refusal::TooLarge { bytes: bytes as u64, bytes_max: self.entry_bytes_max as u64 });
            }
            room = room.checked_sub(bytes as u64).ok_or(Refusal::StorageFull)?;
            decided.push((base_offset, entry));
        }
        self.room_bytes = room;
        Ok(decided)
    }
}

/// A hidden stream keeps what somebody still needs, whatever its age, and takes whatever a request may hold.
pub fn hidden_policy(policy: Policy) -> Policy {
    let batch_bytes_max = u32::try_from(REQUEST_BYTES_MAX).unwrap_or(u32::MAX);
    Policy { retention_ms: None, retention_bytes: None, expires: false, batch_bytes_max, hidden: true, ..policy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;
    use firth_gateway::request::{Declare, Request};
    use firth_gateway::view::{LogView, RouteView};
    use firth_model::filter::Filter;
    use firth_model::subject::Subject;

    use crate::bench::{Rig, message};
    use crate::routing::Shared;

    fn declare(rig: &mut Rig, name: &str, captures: &[&str], partitions: u32) -> Arc<firth_gateway::streams::StreamInfo> {
        let captures = captures.iter().map(|text| Filter::parse(text).expect("a filter")).collect();
        let policy = Policy { captures, ..Policy::default() };
        let name = StreamName::parse(name).expect("a name");
        let declare = Declare { name, partitions, policy, settings: Default::default() };
        let Ok(Answer::Stream(info)) = rig.ask(Request::Declare(Box::new(declare))) else { panic!("not made") };
        info
    }

    fn store(rig: &mut Rig, message: Message) -> Result<Stored, Refusal> {
        let routes = Shared(rig.view().routing.clone()).cache().routes(&message.subject);
        store_by(rig, message, routes)
    }

    fn store_by(rig: &mut Rig, message: Message, routes: Arc<firth_gateway::live::Routes>) -> Result<Stored, Refusal> {
        let batch = stored::batch([&message]);
        let store = Store { message: Arc::new(message), batch, routes, origin: None, receipt: None };
        match rig.ask(Request::Store(vec![store])) {
            Ok(Answer::Stored(mut stored)) => stored.pop().expect("one"),
            other => panic!("answered {other:?}"),
        }
    }

    fn records(rig: &Rig, info: &firth_gateway::streams::StreamInfo) -> u64 {
        info.partitions.iter().filter_map(|id| rig.view().bounds(*id)).map(|bounds| bounds.durable_end.0).sum()
    }

    #[test]
    fn every_stream_that_captures_a_subject_stores_it_once() {
        let mut rig = Rig::with_partitions(1);
        let orders = declare(&mut rig, "orders", &[], 3);
        let audit = declare(&mut rig, "audit", &["orders/>", "orders/eu/*"], 1);
        assert_eq!(store(&mut rig, message("orders/eu/7", Some("x"))).map(|stored| stored.captures), Ok(2));
        assert_eq!(store(&mut rig, message("orders", Some("x"))).map(|stored| stored.captures), Ok(1));
        assert_eq!(store(&mut rig, message("other", Some("x"))).map(|stored| stored.captures), Ok(0));
        assert_eq!((records(&rig, &orders), records(&rig, &audit)), (2, 1));
    }

    #[test]
    fn old_routes_are_matched_again() {
        let mut rig = Rig::with_partitions(1);
        let old = Shared(rig.view().routing.clone()).cache().routes(&Subject::parse("late/1").expect("a subject"));
        let late = declare(&mut rig, "late", &[], 1);
        assert_eq!(store_by(&mut rig, message("late/1", Some("x")), old).map(|stored| stored.captures), Ok(1));
        assert_eq!(records(&rig, &late), 1);
    }

    #[test]
    fn a_refused_message_is_stored_nowhere() {
        let mut rig = Rig::with_partitions(1);
        let wide = declare(&mut rig, "wide", &["narrow/>"], 1);
        let narrow = declare(&mut rig, "narrow", &[], 1);
        let mut huge = message("narrow/1", None);
        huge.value = Some(Bytes::from(vec![0; 2 << 20]));
        assert!(matches!(store(&mut rig, huge), Err(Refusal::TooLarge { .. })));
        assert_eq!((records(&rig, &wide), records(&rig, &narrow)), (0, 0));
    }

    #[test]
    fn the_newest_retained_message_of_a_subject_is_found_until_an_empty_one_ends_it() {
        let mut rig = Rig::with_partitions(1);
        let all = Filter::parse("#").expect("a filter");
        let found = |rig: &Rig| rig.view().retained(&all).map(|(_, offsets)| offsets.iter().map(|at| at.0).collect::<Vec<_>>());
        let retain = |subject, value| Message { retain: true, ..message(subject, value) };
        assert_eq!(store(&mut rig, retain("a/1", None)), Ok(Stored::default()), "nothing to end");
        assert!(rig.state().catalog.by_name(RETAINED_STREAM).is_none());
        store(&mut rig, retain("a/2", Some("x"))).expect("stored");
        store(&mut rig, retain("a/1", Some("x"))).expect("stored");
        store(&mut rig, message("a/1", Some("not retained"))).expect("taken");
        assert_eq!(found(&rig), Some(vec![1, 0]), "by subject");
        store(&mut rig, retain("a/1", Some("y"))).expect("stored");
        assert_eq!(found(&rig), Some(vec![2, 0]));
        store(&mut rig, retain("a/2", None)).expect("stored");
        assert_eq!(found(&rig), Some(vec![2]));
        assert!(rig.view().streams().iter().all(|info| info.name.as_str() != RETAINED_STREAM), "hidden");
    }
}
