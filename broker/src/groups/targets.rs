//! The target of a beating group: what it subscribes to, when that changed, and who is to work on what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firth_gateway::groups::StreamPartition;
use firth_model::ids::StreamId;

use super::assign::{Assignor, Candidate, Sizes, assign};
use super::reconcile::{Goal, step};
use super::state::{GroupEffect, Holding, MemberRecord, Standing};
use super::timers::TimerKind;
use super::turn::Turn;

impl Turn<'_, '_> {
    /// The streams that are there now and that the member asked for, by name or by pattern.
    pub fn subscribed(&mut self, member: &Arc<str>) -> BTreeSet<StreamId> {
        let catalog = self.cx.catalog;
        let Some(member) = self.group.members.get(member) else { return BTreeSet::new() };
        let mut streams: BTreeSet<StreamId> = member.streams.iter().filter_map(|name| catalog.by_name(name)).map(|info| info.id).collect();
        if let Some(pattern) = &member.pattern {
            streams.extend(self.patterns.matches(pattern, catalog));
        }
        streams
    }

    /// Raises the group's epoch if the subscriptions changed, or the streams behind them, and makes targets for the epoch.
    pub fn refresh(&mut self, subscriptions_changed: bool) {
        let version = self.cx.catalog.version();
        let streams_may_differ = subscriptions_changed || self.group.catalog_seen != Some(version);
        let record = self.record();
        if !streams_may_differ && record.epoch == record.assignment_epoch {
            return;
        }
        let members: Vec<Arc<str>> = self.group.members.keys().cloned().collect();
        let wanted: Vec<BTreeSet<StreamId>> = members.iter().map(|member| self.subscribed(member)).collect();
        let sizes = self.sizes(&wanted);
        self.group.catalog_seen = Some(version);
        let mark = fingerprint(&sizes);
        let mut next = record;
        if subscriptions_changed || mark != next.streams_mark {
            next.epoch = next.epoch.saturating_add(1);
            next.streams_mark = mark;
        }
        if next.epoch > next.assignment_epoch {
            self.make_targets(&members, wanted, &sizes);
            next.assignment_epoch = next.epoch;
        }
        if !members.is_empty() {
            next.empty_since = None;
        }
        self.put_group(next);
    }

    fn sizes(&self, wanted: &[BTreeSet<StreamId>]) -> Sizes {
        let all: BTreeSet<StreamId> = wanted.iter().flatten().copied().collect();
        let size = |stream: StreamId| {
            let info = self.cx.catalog.by_id(stream)?;
            Some((stream, u32::try_from(info.partitions.len()).ok()?))
        };
        all.into_iter().filter_map(size).collect()
    }

    fn make_targets(&mut self, members: &[Arc<str>], wanted: Vec<BTreeSet<StreamId>>, sizes: &Sizes) {
        let candidates: Vec<Candidate> = members
            .iter()
            .zip(wanted)
            .map(|(member, streams)| Candidate {
                member: member.clone(),
                instance: self.group.members.get(member).and_then(|record| record.instance.clone()),
                streams,
                before: self.group.targets.get(member).cloned().unwrap_or_default(),
            })
            .collect();
        let group = self.group.name.clone();
        for (member, target) in assign(self.assignor(), &candidates, sizes) {
            let before = self.group.targets.get(&member);
            if target.is_empty() {
                if before.is_some() {
                    self.emit(GroupEffect::DropTarget { group: group.clone(), member });
                }
            } else if before != Some(&target) {
                self.emit(GroupEffect::PutTarget { group: group.clone(), member, target });
            }
        }
    }

    /// The assignor that most members ask for; `uniform` if none does.
    pub fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for name in self.group.members.values().filter_map(|member| member.assignor.as_deref()) {
            if let Some(assignor) = Assignor::named(name) {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        let most = votes.values().copied().max();
        votes.into_iter().find(|(_, count)| Some(*count) == most).map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }

    /// Brings a member one step nearer to its target.
    pub fn reconcile(&mut self, member: &Arc<str>, owned: Option<&[StreamPartition]>) {
        let Some(record) = self.group.members.get(member) else { return };
        let epoch = self.group.record.as_ref().map_or(0, |record| record.assignment_epoch);
        if record.standing == Standing::Stable && record.epoch == epoch {
            return;
        }
        let blocked = self.blocked_for(member);
        let none = Holding::new();
        let target = self.group.targets.get(member).unwrap_or(&none);
        let Some(record) = self.group.members.get(member) else { return };
        let holders = &self.group.holders;
        let is_free = |partition: &StreamPartition| {
            !blocked.contains(&partition.stream) && holders.get(partition).is_none_or(|holder| holder == member)
        };
        let Some(next) = step(record, &Goal { epoch, target, owned }, is_free) else { return };
        if next.joining.is_none() {
            if next.standing == Standing::Unrevoked {
                self.start_timer(member, TimerKind::Revoke, next.rebalance_timeout_ms);
            } else {
                self.stop_timer(member, TimerKind::Revoke);
            }
        }
        self.put_member(member, next);
    }

    /// Streams of which another member may hold partitions that nobody knows of.
    pub fn blocked_for(&mut self, member: &Arc<str>) -> BTreeSet<StreamId> {
        let unknown = |(id, record): &(&Arc<str>, &MemberRecord)| *id != member && record.standing == Standing::Unknown;
        let ids: Vec<Arc<str>> = self.group.members.iter().filter(unknown).map(|(id, _)| id.clone()).collect();
        ids.iter().flat_map(|id| self.subscribed(id)).collect()
    }
}

/// FNV-1a, 64 bits, over the ids and sizes in order. Persisted: must stay as it is.
fn fingerprint(sizes: &Sizes) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = sizes.iter().flat_map(|(stream, size)| stream.0.into_bytes().into_iter().chain(size.to_le_bytes()));
    bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_stay_as_they_are() {
        assert_eq!(fingerprint(&Sizes::new()), 0xcbf2_9ce4_8422_2325);
        let one = Sizes::from([(StreamId(uuid::Uuid::from_u128(7)), 3)]);
        assert_eq!(fingerprint(&one), 0x75ad_c8ec_cac0_5633);
    }
}
