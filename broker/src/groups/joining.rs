//! Steps of members that agree in rounds: join, sync, heartbeat, leave.
//!
//! Source: Apache Kafka's group membership protocol (JoinGroup, SyncGroup, Heartbeat, LeaveGroup; KIP-345 static members, KIP-394
//! known member ids, KIP-814 skipped assignments).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::groups::{Assignment, Beat, GroupAnswer, Join, JoinProtocol, Joined, Leave, Membership, Sync, Synced};
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;

use super::group::{Phase, Seat};
use super::state::{JoiningPart, MemberRecord};
use super::timers::TimerKind;
use super::turn::{MEMBER_BYTES_MAX, Turn};

impl Turn<'_, '_> {
    pub fn join(&mut self, ask: Join, reply: ReplyTo) {
        let settings = self.cx.settings;
        if !(settings.session_timeout_min_ms..=settings.session_timeout_max_ms).contains(&ask.session_timeout_ms) {
            return self.refuse(reply, Refusal::InvalidSession);
        }
        let bytes: u64 = ask.protocols.iter().map(|protocol| (protocol.metadata.len() + protocol.name.len()) as u64).sum();
        if bytes > MEMBER_BYTES_MAX {
            return self.refuse(reply, Refusal::TooLarge { bytes, bytes_max: MEMBER_BYTES_MAX });
        }
        if self.group.is_beating() {
            if self.group.has_members() {
                return self.join_beating(ask, reply);
            }
            self.become_joining();
        }
        self.join_round(ask, reply)
    }

    /// An empty beating group starts over with rounds; its epoch goes on rising.
    fn become_joining(&mut self) {
        let mut record = self.record();
        record.membership = Membership::Joining;
        record.settled = false;
        record.streams_mark = 0;
        self.put_group(record);
    }

    fn join_round(&mut self, ask: Join, reply: ReplyTo) {
        let round = &self.group.round;
        let given = self.group.is_nothing();
        if !ask.member.is_empty() && given {
            return self.refuse(reply, Refusal::UnknownMember);
        }
        if !self.has_room_for(&ask.member) {
            if self.group.round.seats.contains_key(ask.member.as_str()) {
                self.remove_seat(&Arc::from(ask.member.as_str()));
            }
            return self.refuse(reply, Refusal::GroupFull);
        }
        if !supports(round.phase, &round.kind, &round.seats, &ask) {
            return self.refuse(reply, Refusal::InconsistentProtocol);
        }
        if !ask.member.is_empty() {
            return self.join_known(ask, reply);
        }
        let id = self.make_member_id(ask.instance.as_deref().unwrap_or(&ask.client.client));
        let holder = ask.instance.as_deref().and_then(|instance| self.group.round.member_with_instance(instance));
        match (holder, &ask.instance) {
            (Some(holder), _) => self.replace_static(&holder, id, ask, reply),
            (None, None) if ask.member_id_required => {
                self.start_timer(&id, TimerKind::Session, ask.session_timeout_ms);
                self.group.round.promised.insert(id.clone());
                self.refuse(reply, Refusal::MemberIdRequired { member: id.to_string() });
            }
            (None, _) => self.add_member(id, ask, reply),
        }
    }

    fn has_room_for(&self, member: &str) -> bool {
        let max = self.cx.settings.members_max;
        let round = &self.group.round;
        match round.phase {
            Phase::Empty => round.promised.len() < max || round.promised.contains(member),
            Phase::Joining => {
                let waits = |seat: &Seat| seat.join.is_some();
                round.seats.len() < max
                    || round.seats.get(member).is_some_and(waits)
                    || round.seats.values().filter(|seat| waits(seat)).count() < max
            }
            Phase::Assigning | Phase::Stable => round.seats.contains_key(member) || round.seats.len() < max,
        }
    }

    fn join_known(&mut self, ask: Join, reply: ReplyTo) {
        let id: Arc<str> = Arc::from(ask.member.as_str());
        if self.group.round.promised.remove(&id) {
            return self.add_member(id, ask, reply);
        }
        if let Err(refusal) = self.check_seat(&id, ask.instance.as_deref()) {
            return self.refuse(reply, refusal);
        }
        let round = &self.group.round;
        let same = round.seats.get(&id).is_some_and(|seat| protocols_of(&seat.member) == ask.protocols.as_slice());
        let is_leader = round.leader.as_ref() == Some(&id);
        let again = match round.phase {
            Phase::Joining => true,
            Phase::Assigning => !same,
            Phase::Stable => is_leader || !same,
            Phase::Empty => return self.refuse(reply, Refusal::UnknownMember),
        };
        if !again {
            let joined = self.joined(&id);
            return self.answer(reply, GroupAnswer::Joined(joined));
        }
        self.update_seat(&id, ask, Some(reply));
        self.rebalance_or_complete();
    }

    /// Who may act as `member`: refuses strangers, and a static member that another process replaced.
    pub fn check_seat(&self, member: &str, instance: Option<&str>) -> Result<(), Refusal> {
        let seat = self.group.round.seats.get(member);
        match instance {
            None => seat.map(|_| ()).ok_or(Refusal::UnknownMember),
            Some(instance) if seat.is_some_and(|seat| seat.member.instance.as_deref() == Some(instance)) => Ok(()),
            Some(instance) => match self.group.round.member_with_instance(instance) {
                Some(_) => Err(Refusal::InstanceFenced),
                None => Err(Refusal::UnknownMember),
            },
        }
    }

    fn add_member(&mut self, id: Arc<str>, ask: Join, reply: ReplyTo) {
        let round = &mut self.group.round;
        if round.seats.is_empty() {
            round.kind.clone_from(&ask.kind);
            round.leader = Some(id.clone());
        }
        if round.phase == Phase::Joining && round.from_empty {
            round.more_came = true;
        }
        round.promised.remove(&id);
        let member = member_of(ask);
        round.seats.insert(id.clone(), Seat { member, is_fresh: true, join: Some(reply), sync: None });
        self.start_timer(&id, TimerKind::Session, self.cx.settings.joining_member_timeout_ms);
        self.rebalance_or_complete();
    }

    /// Takes what a member says of itself when it joins again; its assignment stays.
    fn update_seat(&mut self, id: &Arc<str>, ask: Join, reply: Option<ReplyTo>) {
        let Some(seat) = self.group.round.seats.get_mut(id) else { return };
        let before = seat.member.joining.take();
        let instance = seat.member.instance.take();
        seat.member = member_of(ask);
        seat.member.instance = instance;
        if let (Some(part), Some(before)) = (&mut seat.member.joining, before) {
            part.assignment = before.assignment;
        }
        if let Some(superseded) = std::mem::replace(&mut seat.join, reply) {
            self.refuse(superseded, Refusal::RebalanceInProgress);
        }
    }

    /// A process comes with the instance of an old member: it takes the seat under a new id.
    fn replace_static(&mut self, old: &Arc<str>, id: Arc<str>, ask: Join, reply: ReplyTo) {
        let Some(mut seat) = self.group.round.seats.remove(old) else { return };
        for superseded in [seat.join.take(), seat.sync.take()].into_iter().flatten() {
            self.refuse(superseded, Refusal::InstanceFenced);
        }
        self.stop_timer(old, TimerKind::Session);
        let round = &mut self.group.round;
        let was_leader = round.leader.as_ref() == Some(old);
        if was_leader {
            round.leader = Some(id.clone());
        }
        round.unsynced.remove(old);
        round.seats.insert(id.clone(), seat);
        let session_timeout_ms = ask.session_timeout_ms;
        let may_skip = ask.may_skip_assignment;
        self.update_seat(&id, ask, Some(reply));
        self.start_timer(&id, TimerKind::Session, session_timeout_ms);
        match self.group.round.phase {
            Phase::Stable if self.vote() == self.record().protocol => {
                self.write_roster(true);
                let mut joined = self.joined(&id);
                if may_skip {
                    joined.skip_assignment = was_leader;
                } else {
                    // It may not assign, and must not believe that it leads.
                    joined.members.clear();
                    if was_leader {
                        joined.leader = old.to_string();
                    }
                }
                let waiting = self.group.round.seats.get_mut(&id).and_then(|seat| seat.join.take());
                if let Some(reply) = waiting {
                    self.answer(reply, GroupAnswer::Joined(joined));
                }
            }
            Phase::Stable => self.rebalance_or_complete(),
            Phase::Assigning => self.prepare_rebalance(),
            Phase::Joining | Phase::Empty => self.complete_if_all_joined(),
        }
    }

    pub fn sync(&mut self, ask: Sync, reply: ReplyTo) {
        if self.group.is_beating() {
            let result = self.sync_beating(&ask);
            return self.finish(reply, result);
        }
        if let Err(refusal) = self.check_sync(&ask) {
            return self.refuse(reply, refusal);
        }
        let id: Arc<str> = Arc::from(ask.member.as_str());
        match self.group.round.phase {
            Phase::Empty => self.refuse(reply, Refusal::UnknownMember),
            Phase::Joining => self.refuse(reply, Refusal::RebalanceInProgress),
            Phase::Stable => {
                self.synced_one(&id);
                let synced = self.synced(&id);
                self.answer(reply, GroupAnswer::Synced(synced));
            }
            Phase::Assigning => {
                self.synced_one(&id);
                let superseded = self.group.round.seats.get_mut(&id).and_then(|seat| seat.sync.replace(reply));
                if let Some(superseded) = superseded {
                    self.refuse(superseded, Refusal::RebalanceInProgress);
                }
                if self.group.round.leader.as_ref() == Some(&id) {
                    self.settle(ask.assignments);
                }
            }
        }
    }

    fn check_sync(&self, ask: &Sync) -> Result<(), Refusal> {
        if !self.group.has_members() {
            return Err(Refusal::UnknownMember);
        }
        self.check_seat(&ask.member, ask.instance.as_deref())?;
        if ask.generation != self.group.epoch() {
            return Err(Refusal::IllegalGeneration);
        }
        let record = self.record();
        let other_kind = ask.kind.as_deref().is_some_and(|kind| kind != self.group.round.kind);
        let other_protocol = match (&ask.protocol, &record.protocol) {
            (Some(asked), Some(ours)) => asked != ours,
            _ => false,
        };
        if other_kind || other_protocol {
            return Err(Refusal::InconsistentProtocol);
        }
        let bytes = ask.assignments.iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap_or(0);
        if bytes > MEMBER_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes, bytes_max: MEMBER_BYTES_MAX });
        }
        Ok(())
    }

    fn synced_one(&mut self, id: &Arc<str>) {
        self.group.round.unsynced.remove(id);
        if self.group.round.unsynced.is_empty() {
            let key = self.key("", TimerKind::Sync);
            self.timers.cancel(&key);
        }
    }

    /// The leader has assigned: everybody who waits gets its part, and the round is durable.
    fn settle(&mut self, assignments: Vec<(String, Bytes)>) {
        let mut given: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        for (id, seat) in &mut self.group.round.seats {
            if let Some(part) = &mut seat.member.joining {
                part.assignment = Some(Assignment::Opaque(given.remove(&**id).unwrap_or_default()));
            }
        }
        self.group.round.phase = Phase::Stable;
        self.write_roster(true);
        let ids: Vec<Arc<str>> = self.group.round.seats.keys().cloned().collect();
        for id in ids {
            let waiting = self.group.round.seats.get_mut(&id).and_then(|seat| seat.sync.take());
            if let Some(reply) = waiting {
                let synced = self.synced(&id);
                self.answer(reply, GroupAnswer::Synced(synced));
                self.renew_session(&id);
            }
        }
    }

    fn synced(&self, id: &Arc<str>) -> Synced {
        let part = self.group.round.seats.get(id).and_then(|seat| seat.member.joining.as_ref());
        let assignment = part.and_then(|part| part.assignment.clone()).unwrap_or(Assignment::Opaque(Bytes::new()));
        let record = self.record();
        Synced { kind: self.group.round.kind.clone(), protocol: record.protocol.unwrap_or_default(), assignment }
    }

    pub fn beat(&mut self, ask: &Beat) -> Result<GroupAnswer, Refusal> {
        if self.group.is_beating() {
            return self.beat_beating(ask);
        }
        self.check_seat(&ask.member, ask.instance.as_deref())?;
        if ask.generation != self.group.epoch() {
            return Err(Refusal::IllegalGeneration);
        }
        self.renew_session(&Arc::from(ask.member.as_str()));
        match self.group.round.phase {
            Phase::Empty => Err(Refusal::UnknownMember),
            Phase::Joining => Err(Refusal::RebalanceInProgress),
            Phase::Assigning | Phase::Stable => Ok(GroupAnswer::Beaten),
        }
    }

    pub fn leave(&mut self, ask: &Leave) -> Result<GroupAnswer, Refusal> {
        if self.group.is_beating() {
            return Ok(GroupAnswer::Left(self.leave_beating(ask)));
        }
        if self.group.is_nothing() {
            return Err(Refusal::UnknownMember);
        }
        let left: Vec<_> = ask.members.iter().map(|(member, instance)| self.leave_one(member, instance.as_deref())).collect();
        if left.iter().any(Result::is_ok) {
            match self.group.round.phase {
                Phase::Stable | Phase::Assigning => self.rebalance_or_complete(),
                Phase::Joining => self.complete_if_all_joined(),
                Phase::Empty => {}
            }
        }
        Ok(GroupAnswer::Left(left))
    }

    fn leave_one(&mut self, member: &str, instance: Option<&str>) -> Result<(), Refusal> {
        if member.is_empty() {
            let holder = instance.and_then(|instance| self.group.round.member_with_instance(instance));
            let holder = holder.ok_or(Refusal::UnknownMember)?;
            self.remove_seat(&holder);
            return Ok(());
        }
        let id: Arc<str> = Arc::from(member);
        if self.group.round.promised.remove(&id) {
            self.stop_timer(&id, TimerKind::Session);
            return Ok(());
        }
        self.check_seat(member, instance)?;
        self.remove_seat(&id);
        Ok(())
    }

    /// The answer to a member's join in the generation that is.
    pub fn joined(&self, id: &Arc<str>) -> Joined {
        let record = self.record();
        let round = &self.group.round;
        let is_leader = round.leader.as_ref() == Some(id);
        Joined {
            generation: record.epoch,
            kind: round.kind.clone(),
            protocol: record.protocol.clone(),
            leader: round.leader.as_deref().unwrap_or_default().to_owned(),
            member: id.to_string(),
            skip_assignment: false,
            members: if is_leader { self.everybody(record.protocol.as_deref()) } else { Vec::new() },
        }
    }
}

pub fn protocols_of(member: &MemberRecord) -> &[JoinProtocol] {
    member.joining.as_ref().map_or(&[], |part| part.protocols.as_slice())
}

/// Whether the joiner's kind is the group's, and some protocol of its is one of everybody's.
fn supports(phase: Phase, kind: &str, seats: &BTreeMap<Arc<str>, Seat>, ask: &Join) -> bool {
    if phase == Phase::Empty {
        return !ask.kind.is_empty() && !ask.protocols.is_empty();
    }
    let everybody_has = |name: &str| seats.values().all(|seat| protocols_of(&seat.member).iter().any(|held| held.name == name));
    kind == ask.kind && ask.protocols.iter().any(|protocol| everybody_has(&protocol.name))
}

fn member_of(ask: Join) -> MemberRecord {
    let rebalance_timeout_ms = if ask.rebalance_timeout_ms < 0 { ask.session_timeout_ms } else { ask.rebalance_timeout_ms };
    MemberRecord {
        instance: ask.instance,
        client: ask.client,
        rebalance_timeout_ms,
        joining: Some(JoiningPart { session_timeout_ms: ask.session_timeout_ms, protocols: ask.protocols, assignment: None }),
        ..MemberRecord::default()
    }
}
