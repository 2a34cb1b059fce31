//! Last values that were found, as subscribers see them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::oneshot;

use firth_gateway::future::BoxFuture;
use firth_gateway::streams::StreamInfo;
use firth_gateway::view::{LastValue, LastValues, LastsFrom, Waiter};
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId, StreamId};
use firth_model::limits::LAST_VALUES_LOOK;
use firth_model::stream_subject::{default_capture, subject_of_stream};
use firth_model::subject::Subject;

use super::state::{Last, LastChange};
use crate::retained::literal_beginning;

/// What was found in one stream.
#[derive(Default)]
pub struct OfStream {
    /// By the text of the subject.
    pub newest: BTreeMap<Bytes, Last>,
    /// Up to where each partition was read.
    pub next: HashMap<PartitionId, Offset>,
}

/// A stream that offers its last values.
#[derive(Clone)]
pub(super) struct Offer {
    pub info: Arc<StreamInfo>,
    /// What the subjects of its records begin with: one of these.
    begins: Arc<[Vec<u8>]>,
}

/// Somebody who waits until so much was read.
struct Asked {
    wanted: Vec<(StreamId, PartitionId, Offset)>,
    /// The follower met it before.
    is_met: bool,
    answer: oneshot::Sender<()>,
}

/// All of it. Subscribers look, the shard says which streams there are, one follower finds.
#[derive(Default)]
pub struct Lasts {
    offers: Mutex<Offers>,
    found: RwLock<HashMap<StreamId, OfStream>>,
    asked: Mutex<Vec<Asked>>,
    /// Wakes the follower.
    pub waiter: Arc<Waiter>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Offers {
    by_id: BTreeMap<StreamId, Offer>,
    /// Counts their changes.
    version: u64,
}

impl OfStream {
    /// From a checkpoint.
    pub fn load(&mut self, what: &LastChange) {
        match what {
            LastChange::ReadTo { partition, next: Some(next) } => drop(self.next.insert(*partition, *next)),
            LastChange::ReadTo { partition, next: None } => drop(self.next.remove(partition)),
            LastChange::Newest { subject, last: Some(last) } => drop(self.newest.insert(subject.clone(), *last)),
            LastChange::Newest { subject, last: None } => drop(self.newest.remove(subject)),
        }
    }

    fn value_of(&self, subject: &[u8]) -> Option<&Last> {
        self.newest.get(subject).filter(|last| !last.gone)
    }
}

impl Offer {
    fn of(info: &Arc<StreamInfo>) -> Offer {
        let own = subject_of_stream(&info.name).map(|subject| subject.as_bytes().to_vec()).ok();
        let by_name = default_capture(&info.name);
        let filters = info.policy.captures.iter().chain(&by_name);
        let begins = filters.map(literal_beginning).chain(own).collect();
        Offer { info: info.clone(), begins }
    }

    /// Whether a subject that begins so may be among those of the stream.
    fn may_have(&self, begin: &[u8]) -> bool {
        self.begins.iter().any(|own| own.starts_with(begin) || begin.starts_with(own))
    }
}

impl Lasts {
    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn found(&self) -> RwLockReadGuard<'_, HashMap<StreamId, OfStream>> {
        self.found.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn found_mut(&self) -> RwLockWriteGuard<'_, HashMap<StreamId, OfStream>> {
        self.found.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a checkpoint had. For before the first look.
    pub fn load(&self, found: HashMap<StreamId, OfStream>) {
        *self.found_mut() = found;
    }

    /// The stream is there, or changed.
    pub fn show(&self, info: &Arc<StreamInfo>) {
        let mut offers = self.offers();
        let before = offers.by_id.remove(&info.id);
        if info.policy.offers_last {
            offers.by_id.insert(info.id, Offer::of(info));
        }
        if before.is_some() || info.policy.offers_last {
            offers.version += 1;
            self.waiter.wake();
        }
    }

    pub fn hide(&self, stream: StreamId) {
        let mut offers = self.offers();
        if offers.by_id.remove(&stream).is_some() {
            offers.version += 1;
            self.waiter.wake();
        }
    }

    /// The streams that offer, if that changed since the version.
    pub(super) fn offers_since(&self, version: u64) -> Option<(u64, Vec<Offer>)> {
        let offers = self.offers();
        (offers.version != version).then(|| (offers.version, offers.by_id.values().cloned().collect()))
    }

    fn relevant(&self, filter: &Filter) -> Vec<Offer> {
        let offers = self.offers();
        if offers.by_id.is_empty() {
            return Vec::new();
        }
        let begin = literal_beginning(filter);
        offers.by_id.values().filter(|offer| offer.may_have(&begin)).cloned().collect()
    }

    /// True when everything that is durable now was read; false: nobody reads it. `None`: no stream offers what the filter might match.
    pub fn ready(&self, filter: &Filter, end_of: impl Fn(PartitionId) -> Option<Offset>) -> Option<BoxFuture<'static, bool>> {
        let offers = self.relevant(filter);
        if offers.is_empty() {
            return None;
        }
        let ends = |offer: &Offer| {
            let id = offer.info.id;
            let ends = offer.info.partitions.iter().filter_map(|partition| Some((id, *partition, end_of(*partition)?)));
            ends.filter(|(.., end)| *end > Offset(0)).collect::<Vec<_>>()
        };
        let wanted: Vec<_> = offers.iter().flat_map(ends).collect();
        if self.is_read(&wanted) {
            return Some(Box::pin(std::future::ready(true)));
        }
        let (answer, answered) = oneshot::channel();
        self.asked().push(Asked { wanted, is_met: false, answer });
        self.waiter.wake();
        // A follower that ended answers nobody: what it found before is what there is.
        Some(Box::pin(async move { answered.await.is_ok() }))
    }

    fn is_read(&self, wanted: &[(StreamId, PartitionId, Offset)]) -> bool {
        let found = self.found();
        let next = |stream, partition| found.get(stream).and_then(|of: &OfStream| of.next.get(partition).copied());
        wanted.iter().all(|(stream, partition, end)| next(stream, partition).is_some_and(|next| next >= *end))
    }

    /// After a look: answers who has what it waited for, and who asked before a look that found no more to read.
    pub(super) fn answer(&self, all_read: bool) {
        let mut asked = self.asked();
        for one in std::mem::take(&mut *asked) {
            if one.is_met && all_read || self.is_read(&one.wanted) {
                // Who does not wait any more needs no answer.
                let _ = one.answer.send(());
            } else if !one.answer.is_closed() {
                asked.push(Asked { is_met: true, ..one });
            }
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        !self.asked().is_empty()
    }

    /// Where the newest records lie whose subjects match. Each subject once: of several streams' the newest.
    pub fn find(&self, filter: &Filter, from: Option<&LastsFrom>, at_most: usize) -> LastValues {
        let offers = self.relevant(filter);
        let begin = literal_beginning(filter);
        let found = self.found();
        let mut values = Vec::new();
        let mut visited = 0;
        for offer in offers.iter().filter(|offer| from.is_none_or(|from| offer.info.id >= from.stream)) {
            let id = offer.info.id;
            let Some(of) = found.get(&id) else { continue };
            let after = from.filter(|from| from.stream == id).and_then(|from| from.after.as_deref());
            let lower = after.map_or(Bound::Included(&begin[..]), Bound::Excluded);
            let under = of.newest.range::<[u8], _>((lower, Bound::Unbounded)).take_while(|(subject, _)| subject.starts_with(&begin));
            for (subject, last) in under {
                visited += 1;
                if !last.gone
                    && Subject::from_text(subject.clone()).is_ok_and(|subject| filter.matches(&subject))
                    && !is_superseded(&found, &offers, id, subject, last)
                {
                    values.push(LastValue { subject: subject.clone(), partition: last.partition, offset: last.offset, retained: None });
                }
                if values.len() >= at_most || visited >= LAST_VALUES_LOOK {
                    return LastValues { values, next: Some(LastsFrom { stream: id, after: Some(subject.clone()) }) };
                }
            }
        }
        LastValues { values, next: None }
    }

    pub fn has(&self, subject: &[u8]) -> bool {
        let offers = self.offers();
        if offers.by_id.is_empty() {
            return false;
        }
        let found = self.found();
        offers.by_id.keys().any(|id| found.get(id).is_some_and(|of| of.value_of(subject).is_some()))
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.waiter.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Whether another stream has a newer record of the subject.
fn is_superseded(found: &HashMap<StreamId, OfStream>, offers: &[Offer], of: StreamId, subject: &[u8], last: &Last) -> bool {
    let others = offers.iter().filter(|offer| offer.info.id != of);
    let mut values = others.filter_map(|offer| Some((offer.info.id, found.get(&offer.info.id)?.value_of(subject)?)));
    values.any(|(id, other)| other.is_newer_than(last) || (!last.is_newer_than(other) && id < of))
}
