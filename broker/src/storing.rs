//! Messages to the streams that capture their subjects.

use std::collections::HashMap;

use firth_gateway::answer::{Answer, Stored};
use firth_gateway::live::Capture;
use firth_gateway::message::Message;
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_gateway::request::Store;
use firth_gateway::stored;
use firth_gateway::streams::Policy;
use firth_journal::entry::{Entry, Selection, TARGETS_MAX, Target};
use firth_model::batch::{Batch, BatchHeader};
use firth_model::ids::{Lsn, Offset, PartitionId};
use firth_model::limits::{EXPIRING_RECORDS_MAX, REQUEST_BYTES_MAX};
use firth_model::names::StreamName;
use firth_model::partitioner::partition_of_key;

use crate::cursors::state::CursorEffect;
use crate::effect::Effect;
use crate::partition::Decision;
use crate::retained::RETAINED_STREAM;
use crate::shard::{Due, Shard};

/// Where one message goes.
struct Placement {
    /// Streams that captured it.
    captures: usize,
    /// Who gets its batch as it came. The retained stream's partition is the last.
    together: Vec<PartitionId>,
    /// The retained stream's partition, if it gets another one.
    apart: Option<(PartitionId, Batch)>,
}

/// A batch in all partitions that get it, and the one entry that holds it for them.
struct Decided {
    header: BatchHeader,
    places: Vec<(PartitionId, Offset)>,
    entry: Entry,
}

/// A message that can be stored: nothing refuses it any more.
pub(crate) struct Prepared {
    captures: u32,
    decided: Vec<Decided>,
    receipt: Option<CursorEffect>,
}

/// What was decided and is not yet applied.
#[derive(Default)]
pub(crate) struct Ahead {
    next: HashMap<PartitionId, Offset>,
    expiring: usize,
}

impl Ahead {
    /// Behind a batch of which so many records have an end.
    pub(crate) fn behind(expiring: usize) -> Ahead {
        Ahead { expiring, ..Ahead::default() }
    }

    pub(crate) fn add(&mut self, store: &Store, prepared: &Prepared) {
        for Decided { header, places, .. } in &prepared.decided {
            self.next.extend(places.iter().map(|(partition, base)| (*partition, base.plus(header.offset_count()))));
            self.expiring += if store.message.expires.is_some() { places.len() } else { 0 };
        }
    }
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

    fn store_one(&mut self, store: &Store, upto: &mut Lsn) -> Result<Stored, Refusal> {
        let Some(prepared) = self.prepare(store, &Ahead::default())? else {
            // What was done may be on its way to the disk still.
            *upto = (*upto).max(self.cursor_care.lsn);
            return Ok(Stored { duplicate: true, ..Stored::default() });
        };
        let queued = self.queued();
        let stored = self.carry_out(store, prepared, upto);
        // Else who sends it again after a crash would have it stored twice where it was already.
        self.tie(queued);
        Ok(stored)
    }

    /// Decides everything about a message that goes behind what is `ahead`. `None`: its receipt says that it was stored before.
    pub(crate) fn prepare(&mut self, store: &Store, ahead: &Ahead) -> Result<Option<Prepared>, Refusal> {
        let receipt = match &store.receipt {
            Some(receipt) => self.state.cursors.receipt(receipt)?,
            None => None,
        };
        if store.receipt.is_some() && receipt.is_none() {
            return Ok(None);
        }
        let placement = self.place(store)?;
        let captures = u32::try_from(placement.captures).unwrap_or(u32::MAX);
        let decided = self.decide_all(store, &placement, ahead)?;
        Ok(Some(Prepared { captures, decided, receipt }))
    }

    /// Applies what was decided and queues its entries.
    pub(crate) fn carry_out(&mut self, store: &Store, prepared: Prepared, upto: &mut Lsn) -> Stored {
        let message = &*store.message;
        let mut stored_at = None;
        for Decided { header, places, entry } in prepared.decided {
            *upto = self.append_batch(&places, &header, entry);
            for (partition, base) in places {
                if let Some(expires) = message.expires {
                    *upto = self.emit(&Effect::Expire { partition, base, expiring: vec![(0, expires)] });
                }
                stored_at = Some((partition, base));
            }
        }
        if message.retain {
            let subject = message.subject.as_bytes().clone();
            // The retained stream's comes last.
            let at = stored_at.filter(|_| message.value.is_some()).map(|(_, at)| at);
            *upto = self.emit(&Effect::Retain { subject: subject.clone(), at });
            self.due(*upto, Due::ShowRetained(subject, at));
        }
        if let Some(receipt) = prepared.receipt {
            *upto = self.emit(&Effect::Cursor(receipt));
            self.cursor_care.lsn = *upto;
        }
        Stored { captures: prepared.captures, duplicate: false, at: stored_at }
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
        let together: Vec<_> = captures.iter().filter(stores).filter_map(partition).collect();
        let mut placement = Placement { captures: together.len(), together, apart: None };
        // Nothing ends what is not there.
        if message.retain && (message.value.is_some() || self.state.retained.at(message.subject.as_bytes()).is_some()) {
            let partition = self.retained_partition()?;
            match &message.key {
                None => placement.together.push(partition),
                // It is kept there under its subject as the key.
                Some(_) => placement.apart = Some((partition, stored::batch([&Message { key: None, ..message.clone() }]))),
            }
        }
        Ok(placement)
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

    /// What goes where, or why all of it goes nowhere. Changes nothing but what may still be added in this turn.
    fn decide_all(&mut self, store: &Store, placement: &Placement, ahead: &Ahead) -> Result<Vec<Decided>, Refusal> {
        let copies = placement.together.len() + usize::from(placement.apart.is_some());
        if store.message.expires.is_some() && self.state.expiries.records() + ahead.expiring + copies > EXPIRING_RECORDS_MAX {
            return Err(Refusal::Overloaded);
        }
        let together = placement.together.chunks(1 + TARGETS_MAX).map(|partitions| (partitions, &store.batch));
        let apart = placement.apart.iter().map(|(partition, batch)| (std::slice::from_ref(partition), batch));
        let mut room = self.room_bytes;
        let mut all = Vec::with_capacity(2);
        for (partitions, batch) in together.chain(apart) {
            let decided = self.decide(partitions, batch, store.origin.is_none(), ahead)?;
            let bytes = decided.entry.bytes();
            if bytes > self.entry_bytes_max {
                return Err(Refusal::TooLarge { bytes: bytes as u64, bytes_max: self.entry_bytes_max as u64 });
            }
            room = room.checked_sub(decided.entry.room_bytes() as u64).ok_or(Refusal::StorageFull)?;
            all.push(decided);
        }
        self.room_bytes = room;
        Ok(all)
    }

    /// The first of the partitions owns the batch, the others have it as targets. What was produced to another stream had to be within
    /// the bound of that one: who captures it does not refuse its producer.
    fn decide(&self, partitions: &[PartitionId], batch: &Batch, bounded: bool, ahead: &Ahead) -> Result<Decided, Refusal> {
        let place = |partition: &PartitionId| {
            let held = self.state.partitions.get(partition).ok_or(Refusal::NotFound)?;
            if bounded {
                held.fits(batch)?;
            }
            let next = ahead.next.get(partition).copied().unwrap_or(held.next);
            let (Decision::Append { base_offset } | Decision::Repeated { base_offset }) = held.decide(batch, next)?;
            Ok((held, base_offset))
        };
        let (first, others) = partitions.split_first().ok_or(Refusal::NotFound)?;
        let (owner, base_offset) = place(first)?;
        let mut places = Vec::with_capacity(partitions.len());
        places.push((*first, base_offset));
        let mut targets = Vec::with_capacity(others.len());
        for partition in others {
            let (held, base_offset) = place(partition)?;
            // Readers of a target get the primary's bytes but for the offset.
            debug_assert_eq!(owner.epoch, held.epoch);
            places.push((*partition, base_offset));
            targets.push(Target { partition: *partition, base_offset, selection: Selection::All });
        }
        Ok(Decided { header: batch.header, places, entry: owner.entry(batch, base_offset, &targets) })
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
    fn what_several_streams_store_lies_in_the_journal_once() {
        let mut rig = Rig::with_partitions(1);
        let orders = declare(&mut rig, "orders", &[], 1).partitions[0];
        let audit = declare(&mut rig, "audit", &["orders/eu/>"], 1).partitions[0];
        store(&mut rig, message("orders/us/1", Some("first"))).expect("stored");
        let retained = Message { retain: true, ..message("orders/eu/7", Some("second")) };
        let stored = store(&mut rig, retained).expect("stored");
        let (kept, at) = stored.at.expect("in the retained stream");
        let places = [(orders, Offset(1)), (audit, Offset(0)), (kept, at)];
        let positions: Vec<_> = places.iter().map(|(partition, offset)| rig.view().position_of(*partition, *offset)).collect();
        assert!(positions[0].is_some() && positions.iter().all(|position| *position == positions[0]), "{positions:?}");
        let unknown = Subject::parse("").expect("a subject");
        for (partition, offset) in places {
            let records = rig.view().read_here(partition, offset, 1 << 20).expect("readable");
            let read = stored::messages(&records.batches[0], offset, &unknown).expect("a batch");
            let found: Vec<_> = read.iter().map(|one| (one.offset, one.message.value.clone())).collect();
            assert_eq!(found, [(offset, Some(Bytes::from_static(b"second")))], "partition {}", partition.0);
            let charged = rig.view().bounds(partition).expect("there").bytes;
            let plain = 24 + records.batches[0].len() as u64;
            assert!(partition == orders || charged == plain, "nobody is charged for naming the others: {charged} for {plain}");
        }
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
