//! What a partition remembers of its idempotent producers.

use std::collections::HashMap;

use firth_model::batch::BatchHeader;
use firth_model::ids::{Offset, ProducerEpoch, ProducerId};
use firth_model::time::Millis;

use firth_gateway::refusal::Refusal;

use crate::layout::{Reader, StateDamage, Writer};

/// Batches remembered for each producer: as many as a client may have in flight.
/// Source: Apache Kafka, `max.in.flight.requests.per.connection` of an idempotent producer is at most 5.
const BATCHES_KEPT: usize = 5;

/// One remembered batch: the sequences it took and where it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    first: i32,
    last: i32,
    base_offset: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub epoch: ProducerEpoch,
    pub last_seen: Millis,
    /// Oldest first; `count` of them are in use.
    batches: [Taken; BATCHES_KEPT],
    count: u8,
}

impl ProducerState {
    pub fn last_sequence(&self) -> i32 {
        self.taken().last().map_or(-1, |taken| taken.last)
    }

    fn taken(&self) -> &[Taken] {
        &self.batches[..usize::from(self.count)]
    }
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    Next,
    /// It was stored before, at this offset.
    Repeated(Offset),
}

#[derive(Default)]
pub struct Producers {
    known: HashMap<ProducerId, ProducerState, foldhash::fast::RandomState>,
}

impl Producers {
    /// Decides whether a batch with a producer id may be appended. Batches without one are always `Next`.
    ///
    /// As Apache Kafka: a producer that is not known may begin with any sequence (its state may have expired); a new epoch begins
    /// with 0; otherwise the sequence continues the last one, wrapping from `i32::MAX` to 0.
    pub fn check(&self, header: &BatchHeader) -> Result<Sequence, Refusal> {
        if header.producer_id < 0 {
            return Ok(Sequence::Next);
        }
        let Some(state) = self.known.get(&ProducerId(header.producer_id)) else {
            return Ok(Sequence::Next);
        };
        if header.producer_epoch < state.epoch.0 {
            return Err(Refusal::ProducerFenced);
        }
        if header.producer_epoch > state.epoch.0 {
            return if header.base_sequence == 0 { Ok(Sequence::Next) } else { Err(Refusal::SequenceGap) };
        }
        let (first, last) = sequences(header);
        if let Some(taken) = state.taken().iter().find(|taken| taken.first == first && taken.last == last) {
            return Ok(Sequence::Repeated(taken.base_offset));
        }
        match state.taken().last() {
            Some(newest) if first != following(newest.last, 1) => Err(Refusal::SequenceGap),
            _ => Ok(Sequence::Next),
        }
    }

    /// Remembers an appended batch. True if the producer was not known before.
    pub fn remember(&mut self, header: &BatchHeader, base_offset: Offset, now: Millis) -> bool {
        if header.producer_id < 0 {
            return false;
        }
        let (first, last) = sequences(header);
        let taken = Taken { first, last, base_offset };
        let epoch = ProducerEpoch(header.producer_epoch);
        let mut fresh = false;
        let state = self.known.entry(ProducerId(header.producer_id)).or_insert_with(|| {
            fresh = true;
            ProducerState { epoch, last_seen: now, batches: Default::default(), count: 0 }
        });
        if state.epoch != epoch {
            state.epoch = epoch;
            state.count = 0;
        }
        state.last_seen = now;
        if usize::from(state.count) == BATCHES_KEPT {
            state.batches.rotate_left(1);
            state.count -= 1;
        }
        state.batches[usize::from(state.count)] = taken;
        state.count += 1;
        fresh
    }

    pub fn forget(&mut self, id: ProducerId) -> bool {
        self.known.remove(&id).is_some()
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.known.iter().map(|(id, state)| (*id, state))
    }

    /// `count`, then for each producer in the order of ids: id i64, epoch i16, last seen i64, batches u8, and for each batch
    /// first i32, last i32, offset u64.
    pub fn encode(&self, out: &mut Writer) {
        let mut ids: Vec<_> = self.known.keys().copied().collect();
        ids.sort_unstable();
        out.count(ids.len());
        for id in ids {
            let state = &self.known[&id];
            out.i64(id.0).i16(state.epoch.0).i64(state.last_seen.0).u8(state.count);
            for taken in state.taken() {
                out.i32(taken.first).i32(taken.last).u64(taken.base_offset.0);
            }
        }
    }

    /// Without the last-seen times, which replay does not reproduce: they are only for `decide`, which forgets idle producers.
    pub fn encode_timeless(&self, out: &mut Writer) {
        let mut ids: Vec<_> = self.known.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let state = &self.known[&id];
            out.i64(id.0).i16(state.epoch.0);
            state.taken().iter().for_each(|taken| {
                out.i32(taken.first).i32(taken.last).u64(taken.base_offset.0);
            });
        }
    }

    pub fn decode(from: &mut Reader<'_>) -> Result<Producers, StateDamage> {
        let mut producers = Producers::default();
        for _ in 0..from.count(19)? {
            let id = ProducerId(from.i64()?);
            let epoch = ProducerEpoch(from.i16()?);
            let last_seen = Millis(from.i64()?);
            let count = from.u8()?;
            if usize::from(count) > BATCHES_KEPT {
                return Err(StateDamage { what: "too many batches of a producer" });
            }
            let mut batches = [Taken::default(); BATCHES_KEPT];
            for taken in &mut batches[..usize::from(count)] {
                *taken = Taken { first: from.i32()?, last: from.i32()?, base_offset: Offset(from.u64()?) };
            }
            producers.known.insert(id, ProducerState { epoch, last_seen, batches, count });
        }
        Ok(producers)
    }
}

fn sequences(header: &BatchHeader) -> (i32, i32) {
    (header.base_sequence, following(header.base_sequence, header.last_offset_delta))
}

/// The sequence `by` further on; after `i32::MAX` comes 0.
fn following(sequence: i32, by: i32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(epoch: i16, first: i32, count: i32) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            batch_bytes: 61,
            leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: first,
            record_count: count,
        }
    }

    #[test]
    fn repeated_batches_are_known_five_deep() {
        let mut producers = Producers::default();
        for step in 0..7 {
            let next = header(0, step * 10, 10);
            assert_eq!(producers.check(&next), Ok(Sequence::Next));
            producers.remember(&next, Offset(step as u64 * 10), Millis(0));
        }
        assert_eq!(producers.check(&header(0, 60, 10)), Ok(Sequence::Repeated(Offset(60))));
        assert_eq!(producers.check(&header(0, 20, 10)), Ok(Sequence::Repeated(Offset(20))));
        assert_eq!(producers.check(&header(0, 10, 10)), Err(Refusal::SequenceGap));
        assert_eq!(producers.check(&header(0, 80, 10)), Err(Refusal::SequenceGap));
        assert_eq!(producers.check(&header(0, 60, 5)), Err(Refusal::SequenceGap));
    }

    #[test]
    fn epochs_fence_and_begin_at_zero() {
        let mut producers = Producers::default();
        producers.remember(&header(3, 5, 1), Offset(0), Millis(0));
        assert_eq!(producers.check(&header(2, 6, 1)), Err(Refusal::ProducerFenced));
        assert_eq!(producers.check(&header(4, 6, 1)), Err(Refusal::SequenceGap));
        assert_eq!(producers.check(&header(4, 0, 1)), Ok(Sequence::Next));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.remember(&header(0, i32::MAX - 1, 2), Offset(0), Millis(0));
        assert_eq!(producers.check(&header(0, 0, 3)), Ok(Sequence::Next));
        producers.remember(&header(0, i32::MAX, 2), Offset(0), Millis(0));
        assert_eq!(producers.check(&header(0, 1, 1)), Ok(Sequence::Next));
    }

    #[test]
    fn state_survives_its_bytes() {
        let mut producers = Producers::default();
        for step in 0..9 {
            producers.remember(&header(1, step, 1), Offset(step as u64), Millis(step as i64));
        }
        let mut out = Writer::default();
        producers.encode(&mut out);
        let bytes = out.done();
        let back = Producers::decode(&mut Reader::of(&bytes)).expect("own bytes");
        assert_eq!(back.known, producers.known);
        for cut in 0..bytes.len() {
            assert!(Producers::decode(&mut Reader::of(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
}
