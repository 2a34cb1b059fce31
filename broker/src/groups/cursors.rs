//! Committed positions: commit, read, drop, expire.
//!
//! Source: Apache Kafka's OffsetCommit, OffsetFetch and OffsetDelete; KIP-496, KIP-211 (expiry once a group is empty), KIP-848.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use firth_gateway::groups::{Commit, CommitItem, Committed, GroupAnswer, Positions, StreamPartition};
use firth_gateway::refusal::Refusal;
use firth_model::ids::{PartitionIndex, StreamId};
use firth_model::limits::CURSOR_METADATA_BYTES_MAX;
use firth_model::time::Millis;

use crate::catalog::Catalog;

use super::group::{Group, Phase};
use super::joining::protocols_of;
use super::mixed::CONSUMER;
use super::state::{Cursor, GroupEffect, MemberRecord};
use super::turn::Turn;

impl Turn<'_, '_> {
    pub fn commit(&mut self, ask: Commit) -> Result<GroupAnswer, Refusal> {
        self.check_commit(&ask)?;
        if !self.group.is_beating() && matches!(self.group.round.phase, Phase::Stable | Phase::Joining) && !ask.member.is_empty() {
            self.renew_session(&Arc::from(ask.member.as_str()));
        }
        let committed = ask.items.into_iter().map(|item| self.commit_one(item)).collect();
        Ok(GroupAnswer::Committed(committed))
    }

    fn check_commit(&self, ask: &Commit) -> Result<(), Refusal> {
        let outside = ask.generation < 0;
        if self.group.is_nothing() {
            return if outside { Ok(()) } else { Err(Refusal::GroupNotFound) };
        }
        if self.group.is_beating() {
            if outside && self.group.members.is_empty() {
                return Ok(());
            }
            let member = self.group.members.get(ask.member.as_str()).ok_or(Refusal::UnknownMember)?;
            return check_member_epoch(member, ask.generation);
        }
        let phase = self.group.round.phase;
        if outside && phase == Phase::Empty {
            return Ok(());
        }
        if !outside || !ask.member.is_empty() || ask.instance.is_some() {
            self.check_seat(&ask.member, ask.instance.as_deref())?;
            if ask.generation != self.group.epoch() {
                return Err(Refusal::IllegalGeneration);
            }
        } else {
            return Err(Refusal::UnknownMember);
        }
        if phase == Phase::Assigning { Err(Refusal::RebalanceInProgress) } else { Ok(()) }
    }

    fn commit_one(&mut self, item: CommitItem) -> Result<(), Refusal> {
        let partition = item.partition.ok_or(Refusal::NotFound)?;
        if item.metadata.len() > CURSOR_METADATA_BYTES_MAX {
            return Err(Refusal::MetadataTooLarge);
        }
        // The view that resolved it may be older than the catalog.
        let there = self.cx.catalog.by_id(partition.stream).and_then(|info| info.partition(partition.index));
        there.ok_or(Refusal::NotFound)?;
        let cursor = Cursor { offset: item.offset, epoch: item.epoch, metadata: item.metadata, committed: self.cx.now };
        self.emit(GroupEffect::PutCursor { group: self.group.name.clone(), partition, cursor });
        Ok(())
    }

    pub fn drop_positions(&mut self, partitions: Vec<Option<StreamPartition>>) -> Result<GroupAnswer, Refusal> {
        if self.group.is_nothing() {
            return Err(Refusal::GroupNotFound);
        }
        if !self.group.is_beating() && self.group.has_members() && self.group.round.kind != CONSUMER {
            return Err(Refusal::GroupNotEmpty);
        }
        let busy = self.busy_streams();
        let dropped = partitions.into_iter().map(|partition| {
            let partition = partition.ok_or(Refusal::NotFound)?;
            if busy.has(partition.stream) {
                return Err(Refusal::SubscribedTo);
            }
            self.drop_cursor(partition);
            Ok(())
        });
        Ok(GroupAnswer::PositionsDropped(dropped.collect()))
    }

    pub fn drop_cursor(&mut self, partition: StreamPartition) {
        if self.group.cursors.contains_key(&partition) {
            self.emit(GroupEffect::DropCursor { group: self.group.name.clone(), partition });
        }
    }

    /// Removes a group that nobody is in, with its cursors.
    pub fn drop_group(&mut self) -> Result<(), Refusal> {
        if self.group.is_nothing() {
            return Err(Refusal::GroupNotFound);
        }
        if self.group.has_members() {
            return Err(Refusal::GroupNotEmpty);
        }
        let partitions: Vec<StreamPartition> = self.group.cursors.keys().cloned().collect();
        for partition in partitions {
            self.drop_cursor(partition);
        }
        self.drop_header();
        Ok(())
    }

    fn drop_header(&mut self) {
        for id in std::mem::take(&mut self.group.round.promised) {
            self.stop_member_timers(&id);
        }
        let members: Vec<Arc<str>> = self.group.members.keys().chain(self.group.targets.keys()).cloned().collect();
        for id in members {
            self.drop_member(&id);
        }
        if self.group.record.is_some() {
            self.emit(GroupEffect::DropGroup { group: self.group.name.clone() });
        }
    }

    /// The streams that the group's members subscribe to.
    fn busy_streams(&mut self) -> Busy {
        let ids: Vec<Arc<str>> = self.group.members.keys().cloned().collect();
        if self.group.is_beating() {
            return Busy::These(ids.iter().flat_map(|id| self.subscribed(id)).collect());
        }
        let round = &self.group.round;
        if round.phase == Phase::Empty || round.kind != CONSUMER {
            return Busy::These(BTreeSet::new());
        }
        let protocol = self.record().protocol;
        let mut streams = BTreeSet::new();
        for seat in round.seats.values() {
            let held = protocols_of(&seat.member).iter().find(|held| protocol.is_none() || Some(&held.name) == protocol.as_ref());
            let Some(subscription) = held.and_then(|held| held.subscription.as_ref()) else { return Busy::Unknown };
            let known = |name: &String| self.cx.catalog.by_name(name).map(|info| info.id);
            streams.extend(subscription.streams.iter().filter_map(known));
        }
        Busy::These(streams)
    }

    /// Drops up to `most` cursors that have expired, and the group itself when nothing is left of it. Returns how many.
    pub fn expire(&mut self, most: usize) -> usize {
        let retention_ms = self.cx.settings.offsets_retention_ms;
        let Some(old_before) = self.cx.now.0.checked_sub(retention_ms).map(Millis) else { return 0 };
        let record = self.group.record.as_ref();
        let empty_since = record.and_then(|record| record.empty_since).unwrap_or(Millis(i64::MIN));
        let has_members = self.group.has_members();
        let is_old = |cursor: &Cursor| cursor.committed.max(if has_members { cursor.committed } else { empty_since }) <= old_before;
        let some_old = self.group.cursors.values().any(is_old);
        let busy = match () {
            () if !some_old => None,
            () if !has_members => Some(Busy::These(BTreeSet::new())),
            () if self.group.is_beating() || self.group.round.phase == Phase::Stable && self.group.round.kind == CONSUMER => {
                Some(self.busy_streams())
            }
            () => None,
        };
        let mut dropped = 0;
        if let Some(busy) = busy {
            let old = |(partition, cursor): &(&StreamPartition, &Cursor)| !busy.has(partition.stream) && is_old(cursor);
            let gone: Vec<StreamPartition> =
                self.group.cursors.iter().filter(old).map(|(partition, _)| partition.clone()).take(most).collect();
            dropped = gone.len();
            for partition in gone {
                self.drop_cursor(partition);
            }
        }
        if !has_members && self.group.cursors.is_empty() && self.group.round.promised.is_empty() {
            self.drop_header();
        }
        dropped
    }

    /// Drops the cursors of streams that are no more.
    pub fn drop_orphans(&mut self) {
        let catalog = self.cx.catalog;
        let orphan = |partition: &&StreamPartition| catalog.by_id(partition.stream).is_none();
        let gone: Vec<StreamPartition> = self.group.cursors.keys().filter(orphan).cloned().collect();
        for partition in gone {
            self.drop_cursor(partition);
        }
    }
}

/// Whether the group has cursors of a stream that is no more. One look per stream.
pub fn has_orphans(group: &Group, catalog: &Catalog) -> bool {
    let mut next = group.cursors.keys().next();
    while let Some(partition) = next {
        if catalog.by_id(partition.stream).is_none() {
            return true;
        }
        let last = StreamPartition { stream: partition.stream, index: PartitionIndex(u32::MAX) };
        next = group.cursors.range((Bound::Excluded(last), Bound::Unbounded)).next().map(|(partition, _)| partition);
    }
    false
}

enum Busy {
    These(BTreeSet<StreamId>),
    /// Some member's subscription cannot be read: any stream may be in use.
    Unknown,
}

impl Busy {
    fn has(&self, stream: StreamId) -> bool {
        match self {
            Busy::These(streams) => streams.contains(&stream),
            Busy::Unknown => true,
        }
    }
}

fn check_member_epoch(member: &MemberRecord, epoch: i32) -> Result<(), Refusal> {
    match (member.epoch == epoch, &member.joining) {
        (true, _) => Ok(()),
        (false, Some(_)) => Err(Refusal::IllegalGeneration),
        (false, None) => Err(Refusal::MemberEpochStale),
    }
}

/// What a group has committed. A group that is not there has committed nothing.
pub fn positions(group: Option<&Group>, ask: &Positions) -> Result<Vec<Committed>, Refusal> {
    let Some(group) = group else { return Ok(Vec::new()) };
    if group.is_beating()
        && let Some((id, epoch)) = &ask.member
        && !(id.is_empty() && *epoch < 0)
    {
        let member = group.members.get(id.as_str()).ok_or(Refusal::UnknownMember)?;
        check_member_epoch(member, *epoch)?;
    }
    let shown = |partition: &StreamPartition, cursor: &Cursor| Committed {
        partition: partition.clone(),
        offset: cursor.offset,
        epoch: cursor.epoch,
        metadata: cursor.metadata.clone(),
    };
    Ok(match &ask.partitions {
        None => group.cursors.iter().map(|(partition, cursor)| shown(partition, cursor)).collect(),
        Some(asked) => {
            let found = asked.iter().filter_map(|partition| group.cursors.get(partition).map(|cursor| shown(partition, cursor)));
            found.collect()
        }
    })
}
