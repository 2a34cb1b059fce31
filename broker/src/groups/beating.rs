//! Steps of members that report what they hold.
//!
//! Source: KIP-848 (ConsumerGroupHeartbeat), KIP-1082 (members make their own ids).

use std::collections::BTreeSet;
use std::sync::Arc;

use firth_gateway::groups::{ConsumerBeat, ConsumerBeaten, GroupAnswer, StreamPartition};
use firth_gateway::refusal::Refusal;

use super::assign::Assignor;
use super::state::{GroupEffect, MemberRecord, NAME_BYTES_MAX, Standing};
use super::timers::TimerKind;
use super::turn::{MEMBER_BYTES_MAX, Turn};

/// The epoch of a member that joins.
const JOINS: i32 = 0;
/// The epoch of a member that leaves for good.
const LEAVES: i32 = -1;
/// The epoch of a static member that leaves for a while.
const PAUSES: i32 = -2;

impl Turn<'_, '_> {
    pub fn consumer_beat(&mut self, ask: ConsumerBeat) -> Result<GroupAnswer, Refusal> {
        self.check_beat(&ask)?;
        if matches!(ask.epoch, LEAVES | PAUSES) {
            return self.leave_or_pause(&ask);
        }
        let id = if ask.member.is_empty() { self.make_member_id("") } else { Arc::from(ask.member.as_str()) };
        // From here on nothing refuses if the group was not a beating one: its members have places to take over, or none.
        self.become_beating();
        let seat = self.find_member(&id, &ask)?;
        if self.group.members.len() >= self.cx.settings.members_max && matches!(seat, Found::Nobody) {
            return Err(Refusal::GroupFull);
        }
        let is_new = matches!(seat, Found::Nobody);
        if let Found::Other(old) = seat {
            self.take_over(&old, &id);
        }
        let before = self.group.members.get(&id).cloned().unwrap_or_default();
        let next = updated(before.clone(), &ask);
        let changed = is_new || differs(&next, &before);
        for kind in [TimerKind::Rejoin, TimerKind::Resync] {
            if before.joining.is_some() {
                self.stop_timer(&id, kind);
            }
        }
        self.put_member(&id, next);
        self.refresh(changed);
        self.reconcile(&id, ask.owned.as_deref());
        self.start_timer(&id, TimerKind::Session, self.cx.settings.consumer_session_timeout_ms);
        let record = self.group.members.get(&id).ok_or(Refusal::UnknownMember)?;
        let asked_anew = ask.rebalance_timeout_ms.is_some() && (ask.streams.is_some() || ask.pattern.is_some()) && ask.owned.is_some();
        // A member behind its epoch has not heard the last answer.
        let behind = ask.epoch < before.epoch;
        let tell = ask.epoch == JOINS || asked_anew || behind || record.assigned != before.assigned;
        Ok(GroupAnswer::ConsumerBeaten(ConsumerBeaten {
            member: id.to_string(),
            epoch: record.epoch,
            interval_ms: self.cx.settings.consumer_heartbeat_interval_ms,
            assignment: tell.then(|| record.assigned.iter().cloned().collect()),
        }))
    }

    fn check_beat(&mut self, ask: &ConsumerBeat) -> Result<(), Refusal> {
        let malformed = |what| Err(Refusal::Malformed { what });
        if ask.member.len() > NAME_BYTES_MAX {
            return malformed("member id too long");
        }
        if ask.instance.as_deref() == Some("") {
            return malformed("empty instance id");
        }
        if ask.rack.as_deref() == Some("") {
            return malformed("empty rack id");
        }
        if ask.member.is_empty() && (ask.makes_own_id || ask.epoch != JOINS) {
            return malformed("empty member id");
        }
        match ask.epoch {
            JOINS if ask.rebalance_timeout_ms.is_none() => return malformed("no rebalance timeout in a first heartbeat"),
            JOINS if ask.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                return malformed("partitions owned in a first heartbeat");
            }
            JOINS if ask.streams.is_none() && ask.pattern.is_none() => return malformed("no subscription in a first heartbeat"),
            PAUSES if ask.instance.is_none() => return malformed("no instance id"),
            epoch if epoch < PAUSES => return malformed("member epoch"),
            _ => {}
        }
        if ask.assignor.as_deref().is_some_and(|name| Assignor::named(name).is_none()) {
            return Err(Refusal::UnknownAssignor);
        }
        if let Some(pattern) = ask.pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            self.patterns.check(pattern)?;
        }
        let bytes = ask.streams.iter().flatten().map(|name| name.len() as u64).sum();
        if bytes > MEMBER_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes, bytes_max: MEMBER_BYTES_MAX });
        }
        if !self.group.is_beating() { self.check_conversion(ask.epoch == JOINS) } else { Ok(()) }
    }

    /// Whose place the heartbeat is for.
    fn find_member(&self, id: &Arc<str>, ask: &ConsumerBeat) -> Result<Found, Refusal> {
        let joins = ask.epoch == JOINS;
        let found = match &ask.instance {
            None if self.group.members.contains_key(id) => Found::Itself,
            None if joins => Found::Nobody,
            None => return Err(Refusal::UnknownMember),
            Some(instance) => match self.holder_of(id, instance) {
                None if joins => Found::Nobody,
                None => return Err(Refusal::UnknownMember),
                Some(holder) if holder == *id => Found::Itself,
                Some(_) if !joins => return Err(Refusal::InstanceFenced),
                Some(holder) => {
                    let there = |member: &MemberRecord| member.joining.is_none() && member.epoch != PAUSES;
                    if self.group.members.get(&holder).is_some_and(there) {
                        return Err(Refusal::InstanceInUse);
                    }
                    Found::Other(holder)
                }
            },
        };
        if let (Found::Itself, Some(member)) = (&found, self.group.members.get(id))
            && !joins
        {
            check_epoch(member, ask)?;
        }
        Ok(found)
    }

    /// The member that has `instance`; the usual one is asked first.
    pub fn holder_of(&self, id: &Arc<str>, instance: &str) -> Option<Arc<str>> {
        let usual = self.group.members.get(id).is_some_and(|member| member.instance.as_deref() == Some(instance));
        if usual { Some(id.clone()) } else { self.group.member_with_instance(instance) }
    }

    /// A static member comes back as another process: it takes over what the old one had, from epoch 0.
    pub fn take_over(&mut self, old: &Arc<str>, id: &Arc<str>) {
        let Some(mut record) = self.group.members.get(old).cloned() else { return };
        let target = self.group.targets.get(old).cloned();
        self.stop_member_timers(old);
        self.drop_member(old);
        record.epoch = 0;
        record.previous_epoch = 0;
        self.put_member(id, record);
        if let Some(target) = target {
            self.emit(GroupEffect::PutTarget { group: self.group.name.clone(), member: id.clone(), target });
        }
    }

    fn leave_or_pause(&mut self, ask: &ConsumerBeat) -> Result<GroupAnswer, Refusal> {
        let id: Arc<str> = Arc::from(ask.member.as_str());
        match &ask.instance {
            None if !self.group.members.contains_key(&id) => return Err(Refusal::UnknownMember),
            None => {}
            Some(instance) => match self.holder_of(&id, instance) {
                None => return Err(Refusal::UnknownMember),
                Some(holder) if holder != id => return Err(Refusal::InstanceFenced),
                Some(_) => {}
            },
        }
        if ask.epoch == PAUSES {
            if let Some(mut record) = self.group.members.get(&id).cloned() {
                // Its partitions stay its own until its session ends.
                record.previous_epoch = record.epoch;
                record.epoch = PAUSES;
                record.revoking.clear();
                self.stop_timer(&id, TimerKind::Revoke);
                self.put_member(&id, record);
            }
        } else {
            self.fence(&id);
        }
        Ok(GroupAnswer::ConsumerBeaten(ConsumerBeaten {
            member: ask.member.clone(),
            epoch: ask.epoch,
            interval_ms: self.cx.settings.consumer_heartbeat_interval_ms,
            assignment: None,
        }))
    }

    /// A member of a beating group is out.
    pub fn fence(&mut self, id: &Arc<str>) {
        if !self.group.members.contains_key(id) {
            return;
        }
        if self.can_downgrade_without(id) {
            return self.downgrade_without(id);
        }
        self.remove_members(&BTreeSet::from([id.clone()]));
    }

    /// Removes members and raises the group's epoch; targets follow with the next heartbeat.
    pub fn remove_members(&mut self, ids: &BTreeSet<Arc<str>>) {
        if ids.is_empty() {
            return;
        }
        for id in ids {
            self.stop_member_timers(id);
            self.drop_member(id);
        }
        let mut record = self.record();
        record.epoch = record.epoch.saturating_add(1);
        if self.group.members.is_empty() {
            record.empty_since = Some(self.cx.now);
        }
        self.put_group(record);
    }

    /// A timer of a member of a beating group ended.
    pub fn beating_due(&mut self, id: &Arc<str>, kind: TimerKind) {
        let out = match (kind, self.group.members.get(id)) {
            (_, None) => false,
            (TimerKind::Revoke, Some(member)) => member.standing == Standing::Unrevoked,
            (_, Some(_)) => true,
        };
        if out {
            self.fence(id);
        }
    }

    /// After a restart: everybody has a full session, whoever must let go its full time for that.
    pub fn resume_beating(&mut self) {
        let usual_ms = self.cx.settings.consumer_session_timeout_ms;
        let times = |(id, member): (&Arc<str>, &MemberRecord)| {
            let session_ms = member.joining.as_ref().map_or(usual_ms, |part| part.session_timeout_ms);
            let revokes = member.standing == Standing::Unrevoked && member.joining.is_none();
            (id.clone(), session_ms, revokes.then_some(member.rebalance_timeout_ms))
        };
        let members: Vec<(Arc<str>, i64, Option<i64>)> = self.group.members.iter().map(times).collect();
        for (id, session_ms, revoke_ms) in members {
            self.start_timer(&id, TimerKind::Session, session_ms);
            if let Some(revoke_ms) = revoke_ms {
                self.start_timer(&id, TimerKind::Revoke, revoke_ms);
            }
        }
    }
}

enum Found {
    /// Nobody yet: a new member.
    Nobody,
    Itself,
    /// A static member whose place it takes.
    Other(Arc<str>),
}

/// A member may be one step behind if its last answer was lost, and then holds no more than it was given.
fn check_epoch(member: &MemberRecord, ask: &ConsumerBeat) -> Result<(), Refusal> {
    if ask.epoch == member.epoch {
        return Ok(());
    }
    let within = |owned: &Vec<StreamPartition>| owned.iter().all(|partition| member.assigned.contains(partition));
    let resent = ask.epoch < member.epoch && ask.epoch == member.previous_epoch && ask.owned.as_ref().is_some_and(within);
    if resent { Ok(()) } else { Err(Refusal::MemberEpochFenced) }
}

/// The record with everything that the heartbeat says.
fn updated(mut record: MemberRecord, ask: &ConsumerBeat) -> MemberRecord {
    record.client.clone_from(&ask.client);
    if record.joining.take().is_some() && record.standing == Standing::Unknown {
        // It starts anew and holds nothing.
        record.standing = Standing::Stable;
        record.epoch = 0;
        record.previous_epoch = 0;
    }
    if ask.epoch == JOINS && record.epoch == PAUSES {
        record.epoch = 0;
        record.previous_epoch = 0;
    }
    if let Some(instance) = &ask.instance {
        record.instance = Some(instance.clone());
    }
    if let Some(rack) = &ask.rack {
        record.rack = Some(rack.clone());
    }
    if let Some(span_ms) = ask.rebalance_timeout_ms {
        record.rebalance_timeout_ms = span_ms;
    }
    if let Some(streams) = &ask.streams {
        let sorted: BTreeSet<&String> = streams.iter().collect();
        record.streams = sorted.into_iter().cloned().collect();
    }
    if let Some(pattern) = &ask.pattern {
        record.pattern = Some(pattern.clone()).filter(|pattern| !pattern.is_empty());
    }
    if let Some(assignor) = &ask.assignor {
        record.assignor = Some(assignor.clone());
    }
    record
}

/// Whether two records subscribe to different things.
pub fn differs(one: &MemberRecord, other: &MemberRecord) -> bool {
    one.streams != other.streams || one.pattern != other.pattern
}
