//! Both kinds of members in one group: a group is upgraded by its first beating member and downgraded when the last one leaves.
//!
//! Source: KIP-848, online upgrade and downgrade.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firth_gateway::groups::{Assignment, Beat, GroupAnswer, Join, Joined, Leave, Membership, StreamPartition, Subscription, Sync, Synced};
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_model::ids::PartitionIndex;
use firth_model::names::StreamName;

use super::beating::differs;
use super::group::{Phase, Round, Seat};
use super::joining::protocols_of;
use super::state::{GroupEffect, Holding, JoiningPart, MemberRecord, Standing};
use super::timers::TimerKind;
use super::turn::Turn;

/// The only kind of joining group whose members say what they subscribe to in words that we know.
pub const CONSUMER: &str = "consumer";

impl Turn<'_, '_> {
    /// Whether a heartbeat may turn this group, which has no beating members, into one that has.
    pub fn check_conversion(&self, joins: bool) -> Result<(), Refusal> {
        if !joins {
            return Err(if self.group.has_members() { Refusal::GroupKind } else { Refusal::UnknownMember });
        }
        if !self.group.has_members() {
            return Ok(());
        }
        let round = &self.group.round;
        let readable = |seat: &Seat| first_subscription(&seat.member).is_some();
        if round.kind != CONSUMER || !round.seats.values().all(readable) {
            return Err(Refusal::GroupKind);
        }
        if round.seats.len() >= self.cx.settings.members_max {
            return Err(Refusal::GroupFull);
        }
        Ok(())
    }

    /// Makes the group a beating one, with the joining members it has. What those hold is not known before they join again: until
    /// then nobody else is given partitions of their streams.
    pub fn become_beating(&mut self) {
        if self.group.is_beating() {
            return;
        }
        let round = std::mem::take(&mut self.group.round);
        for kind in [TimerKind::Round, TimerKind::Sync] {
            let key = self.key("", kind);
            self.timers.cancel(&key);
        }
        for id in &round.promised {
            self.stop_timer(id, TimerKind::Session);
        }
        let mut record = self.record();
        record.membership = Membership::Beating;
        record.kind = CONSUMER.to_owned();
        record.assignment_epoch = record.epoch;
        record.settled = false;
        record.protocol = None;
        record.leader = None;
        let epoch = record.epoch;
        self.put_group(record);
        let gone: Vec<Arc<str>> = self.group.members.keys().filter(|id| !round.seats.contains_key(*id)).cloned().collect();
        for id in gone {
            self.drop_member(&id);
        }
        for (id, seat) in round.seats {
            for waiting in [seat.join, seat.sync].into_iter().flatten() {
                self.refuse(waiting, Refusal::RebalanceInProgress);
            }
            let subscription = first_subscription(&seat.member).cloned().unwrap_or_default();
            let mut member = seat.member;
            let mut session_timeout_ms = self.cx.settings.consumer_session_timeout_ms;
            if let Some(part) = &mut member.joining {
                part.assignment = None;
                session_timeout_ms = part.session_timeout_ms;
            }
            take_subscription(&mut member, &subscription);
            member.epoch = epoch;
            member.previous_epoch = epoch;
            member.standing = Standing::Unknown;
            self.put_member(&id, member);
            self.start_timer(&id, TimerKind::Session, session_timeout_ms);
        }
        self.group.catalog_seen = None;
    }

    /// A joining member comes to a group with beating ones.
    pub fn join_beating(&mut self, ask: Join, reply: ReplyTo) {
        match self.try_join_beating(ask) {
            Ok(joined) => self.answer(reply, GroupAnswer::Joined(joined)),
            Err(refusal) => self.refuse(reply, refusal),
        }
    }

    fn try_join_beating(&mut self, ask: Join) -> Result<Joined, Refusal> {
        let unknown = ask.member.is_empty();
        let id = if unknown { self.make_member_id(&ask.client.client) } else { Arc::from(ask.member.as_str()) };
        if id.len() > super::state::NAME_BYTES_MAX {
            return Err(Refusal::UnknownMember);
        }
        let holder = ask.instance.as_deref().and_then(|instance| self.holder_of(&id, instance));
        let is_new = holder.is_none() && !self.group.members.contains_key(&id);
        if is_new && self.group.members.len() >= self.cx.settings.members_max {
            return Err(Refusal::GroupFull);
        }
        let subscription = self.readable_subscription(&ask)?;
        if unknown && ask.instance.is_none() && ask.member_id_required {
            return Err(Refusal::MemberIdRequired { member: id.to_string() });
        }
        let replaces = place_to_take(&ask, &id, holder)?;
        if let Some(old) = &replaces {
            self.take_over(old, &id);
        }
        let before = self.group.members.get(&id).cloned().unwrap_or_default();
        let mut next = before.clone();
        let owned = self.owned_by(&subscription);
        if next.standing == Standing::Unknown {
            // Now it says what it holds. Where it is wrong, whoever is known to hold the partition keeps it.
            let free = |partition: &&StreamPartition| !self.group.holders.contains_key(*partition);
            next.assigned = owned.iter().filter(free).cloned().collect();
            next.standing = Standing::Stable;
        }
        let session_timeout_ms = ask.session_timeout_ms;
        let rebalance_timeout_ms = if ask.rebalance_timeout_ms < 0 { session_timeout_ms } else { ask.rebalance_timeout_ms };
        take_subscription(&mut next, &subscription);
        next.instance = ask.instance.or(next.instance);
        next.client = ask.client;
        next.rebalance_timeout_ms = rebalance_timeout_ms;
        next.joining = Some(JoiningPart { session_timeout_ms, protocols: ask.protocols, assignment: None });
        let changed = is_new || differs(&next, &before);
        self.put_member(&id, next);
        self.refresh(changed);
        self.reconcile(&id, Some(&owned));
        self.stop_timer(&id, TimerKind::Rejoin);
        self.stop_timer(&id, TimerKind::Revoke);
        self.start_timer(&id, TimerKind::Session, session_timeout_ms);
        let record = self.group.members.get(&id).ok_or(Refusal::UnknownMember)?;
        let mut joined = Joined {
            generation: record.epoch,
            kind: CONSUMER.to_owned(),
            protocol: protocols_of(record).first().map(|protocol| protocol.name.clone()),
            leader: String::new(),
            member: id.to_string(),
            skip_assignment: false,
            members: Vec::new(),
        };
        if replaces.is_some() && self.group.members.values().all(|member| member.joining.is_some()) {
            // The last beating member came back as a joining one: if everybody works on its target, nobody has to join again.
            let epoch = self.record().assignment_epoch;
            let reached = |member: &MemberRecord| member.standing == Standing::Stable && member.epoch == epoch;
            let all_reached = epoch == self.group.epoch() && self.group.members.values().all(reached);
            self.become_joining_again(if all_reached { Phase::Stable } else { Phase::Joining });
            joined.generation = self.group.epoch();
        } else {
            self.start_timer(&id, TimerKind::Resync, rebalance_timeout_ms);
        }
        Ok(joined)
    }

    /// What the joiner subscribes to, if it speaks a protocol that all other joining members speak.
    fn readable_subscription(&self, ask: &Join) -> Result<Subscription, Refusal> {
        let joining = || self.group.members.values().filter(|member| member.joining.is_some());
        let everybody_has = |name: &str| joining().all(|member| protocols_of(member).iter().any(|held| held.name == name));
        if ask.kind != CONSUMER || !ask.protocols.iter().any(|protocol| everybody_has(&protocol.name)) {
            return Err(Refusal::InconsistentProtocol);
        }
        let subscription = ask.protocols.first().and_then(|protocol| protocol.subscription.clone());
        subscription.ok_or(Refusal::InconsistentProtocol)
    }

    fn owned_by(&self, subscription: &Subscription) -> Vec<StreamPartition> {
        let mut owned = Vec::new();
        for (name, indexes) in &subscription.owned {
            if let Some(info) = self.cx.catalog.by_name(name) {
                owned.extend(indexes.iter().map(|index| StreamPartition { stream: info.id, index: *index }));
            }
        }
        owned
    }

    /// The joining member that a request of its old protocol is for.
    fn joining_member(&self, member: &str, instance: Option<&str>, generation: i32) -> Result<Arc<str>, Refusal> {
        let id: Arc<str> = Arc::from(member);
        if let Some(instance) = instance {
            let holder = self.holder_of(&id, instance).ok_or(Refusal::UnknownMember)?;
            if holder != id {
                return Err(Refusal::InstanceFenced);
            }
        }
        let record = self.group.members.get(&id).filter(|record| record.joining.is_some()).ok_or(Refusal::UnknownMember)?;
        if record.epoch != generation {
            return Err(Refusal::IllegalGeneration);
        }
        Ok(id)
    }

    pub fn sync_beating(&mut self, ask: &Sync) -> Result<GroupAnswer, Refusal> {
        let id = self.joining_member(&ask.member, ask.instance.as_deref(), ask.generation)?;
        let record = self.group.members.get(&id).ok_or(Refusal::UnknownMember)?;
        let protocol = protocols_of(record).first().map(|protocol| protocol.name.clone()).unwrap_or_default();
        let other_kind = ask.kind.as_deref().is_some_and(|kind| kind != CONSUMER);
        if other_kind || ask.protocol.as_ref().is_some_and(|asked| *asked != protocol) {
            return Err(Refusal::InconsistentProtocol);
        }
        if self.group.epoch() > record.epoch && record.standing != Standing::Unrevoked {
            self.expect_rejoin(&id);
            return Err(Refusal::RebalanceInProgress);
        }
        let assignment = Assignment::Partitions(self.named(&record.assigned));
        self.stop_timer(&id, TimerKind::Resync);
        self.renew_joining_session(&id);
        Ok(GroupAnswer::Synced(Synced { kind: CONSUMER.to_owned(), protocol, assignment }))
    }

    pub fn beat_beating(&mut self, ask: &Beat) -> Result<GroupAnswer, Refusal> {
        let id = self.joining_member(&ask.member, ask.instance.as_deref(), ask.generation)?;
        self.renew_joining_session(&id);
        self.refresh(false);
        let record = self.group.members.get(&id).ok_or(Refusal::UnknownMember)?;
        let behind = record.epoch < self.group.epoch();
        let must_act = match record.standing {
            Standing::Stable => false,
            Standing::Unrevoked | Standing::Unknown => true,
            Standing::Unreleased => !self.waits_for_others(&id),
        };
        if behind || must_act {
            self.expect_rejoin(&id);
            return Err(Refusal::RebalanceInProgress);
        }
        Ok(GroupAnswer::Beaten)
    }

    /// Whether some partition of its target is still held by another.
    fn waits_for_others(&mut self, id: &Arc<str>) -> bool {
        let blocked = self.blocked_for(id);
        let Some(target) = self.group.targets.get(id) else { return false };
        let held = |partition: &StreamPartition| {
            blocked.contains(&partition.stream) || self.group.holders.get(partition).is_some_and(|holder| holder != id)
        };
        target.iter().any(held)
    }

    fn expect_rejoin(&mut self, id: &Arc<str>) {
        let span_ms = self.group.members.get(id).map_or(0, |record| record.rebalance_timeout_ms);
        let key = self.member_key(id, TimerKind::Rejoin);
        let due = self.after(span_ms);
        self.timers.set_if_absent(key, due);
    }

    fn renew_joining_session(&mut self, id: &Arc<str>) {
        let part = self.group.members.get(id).and_then(|record| record.joining.as_ref());
        if let Some(span_ms) = part.map(|part| part.session_timeout_ms) {
            self.start_timer(id, TimerKind::Session, span_ms);
        }
    }

    pub fn leave_beating(&mut self, ask: &Leave) -> Vec<Result<(), Refusal>> {
        let mut leaving = BTreeSet::new();
        let mut left = Vec::new();
        for (member, instance) in &ask.members {
            let id: Arc<str> = Arc::from(member.as_str());
            let found = match instance {
                None => Ok(id),
                Some(instance) => match self.holder_of(&id, instance) {
                    None => Err(Refusal::UnknownMember),
                    Some(holder) if !member.is_empty() && holder != id => Err(Refusal::InstanceFenced),
                    Some(holder) => Ok(holder),
                },
            };
            let joins = |id: &Arc<str>| self.group.members.get(id).is_some_and(|record| record.joining.is_some());
            left.push(match found {
                Ok(id) if joins(&id) => {
                    leaving.insert(id);
                    Ok(())
                }
                Ok(_) => Err(Refusal::UnknownMember),
                Err(refusal) => Err(refusal),
            });
        }
        self.remove_members(&leaving);
        left
    }

    /// Whether only joining members are left when this one goes.
    pub fn can_downgrade_without(&self, id: &Arc<str>) -> bool {
        let members = &self.group.members;
        let others = members.len().saturating_sub(1);
        let alone = |record: &MemberRecord| record.joining.is_none();
        others > 0
            && others <= self.cx.settings.members_max
            && members.get(id).is_some_and(alone)
            && members.iter().all(|(other, record)| other == id || record.joining.is_some())
    }

    pub fn downgrade_without(&mut self, id: &Arc<str>) {
        self.stop_member_timers(id);
        self.drop_member(id);
        self.become_joining_again(Phase::Joining);
    }

    /// All members join in rounds again. What they have now are their targets, named; in phase `Joining` they begin a round.
    fn become_joining_again(&mut self, phase: Phase) {
        let mut round = Round { phase: Phase::Stable, kind: CONSUMER.to_owned(), ..Round::default() };
        let members: Vec<(Arc<str>, MemberRecord)> = self.group.members.iter().map(|(id, member)| (id.clone(), member.clone())).collect();
        let mut record = self.record();
        record.membership = Membership::Joining;
        record.streams_mark = 0;
        self.put_group(record);
        for (id, member) in members {
            self.stop_member_timers(&id);
            let target = self.group.targets.get(&id).cloned().unwrap_or_default();
            let mut part = member.joining.unwrap_or_default();
            part.assignment = Some(Assignment::Partitions(self.named(&target)));
            self.drop_target(&id);
            let member = MemberRecord {
                instance: member.instance,
                client: member.client,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                joining: Some(part),
                ..MemberRecord::default()
            };
            round.seats.insert(id, Seat { member, is_fresh: false, join: None, sync: None });
        }
        round.leader = round.seats.keys().next().cloned();
        self.group.round = round;
        let mut record = self.record();
        record.protocol = self.vote();
        self.put_group(record);
        self.write_roster(phase == Phase::Stable);
        for id in self.group.round.seats.keys().cloned().collect::<Vec<_>>() {
            self.renew_session(&id);
        }
        if phase == Phase::Joining {
            self.prepare_rebalance();
        }
    }

    fn drop_target(&mut self, id: &Arc<str>) {
        if self.group.targets.contains_key(id) {
            self.emit(GroupEffect::DropTarget { group: self.group.name.clone(), member: id.clone() });
        }
    }

    /// Partitions by the names of their streams; those of streams that are gone are left out.
    pub fn named(&self, holding: &Holding) -> Vec<(StreamName, Vec<PartitionIndex>)> {
        let mut named: BTreeMap<StreamName, Vec<PartitionIndex>> = BTreeMap::new();
        for partition in holding {
            if let Some(info) = self.cx.catalog.by_id(partition.stream) {
                named.entry(info.name.clone()).or_default().push(partition.index);
            }
        }
        named.into_iter().collect()
    }
}

/// The static member whose place a joining one takes, if it comes as a new process.
fn place_to_take(ask: &Join, id: &Arc<str>, holder: Option<Arc<str>>) -> Result<Option<Arc<str>>, Refusal> {
    let unknown = ask.member.is_empty();
    match (&ask.instance, holder) {
        (None, _) => Ok(None),
        (Some(_), None) if unknown => Ok(None),
        (Some(_), None) => Err(Refusal::UnknownMember),
        (Some(_), Some(holder)) if holder == *id => Ok(None),
        (Some(_), Some(_)) if !unknown => Err(Refusal::InstanceFenced),
        (Some(_), Some(holder)) => Ok(Some(holder)),
    }
}

fn first_subscription(member: &MemberRecord) -> Option<&Subscription> {
    protocols_of(member).first().and_then(|protocol| protocol.subscription.as_ref())
}

fn take_subscription(member: &mut MemberRecord, subscription: &Subscription) {
    let sorted: BTreeSet<&String> = subscription.streams.iter().collect();
    member.streams = sorted.into_iter().cloned().collect();
    member.pattern = None;
    member.assignor = None;
    if subscription.rack.is_some() {
        member.rack.clone_from(&subscription.rack);
    }
}
