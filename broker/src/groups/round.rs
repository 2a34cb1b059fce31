//! The rounds of joining groups: how they begin, complete and become durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use firth_gateway::groups::{GroupAnswer, JoinedMember};
use firth_gateway::refusal::Refusal;

use super::group::{Phase, Round, Seat};
use super::joining::protocols_of;
use super::state::MemberRecord;
use super::timers::TimerKind;
use super::turn::Turn;

impl Turn<'_, '_> {
    pub fn rebalance_or_complete(&mut self) {
        if self.group.round.phase == Phase::Joining { self.complete_if_all_joined() } else { self.prepare_rebalance() }
    }

    pub fn complete_if_all_joined(&mut self) {
        let round = &self.group.round;
        if round.phase == Phase::Joining && !round.from_empty && round.everybody_joined() {
            self.complete_join();
        }
    }

    /// Begins a round: everybody must join again.
    pub fn prepare_rebalance(&mut self) {
        if self.group.round.phase == Phase::Assigning {
            self.abandon_assignment();
        }
        self.group.round.unsynced.clear();
        let sync_key = self.key("", TimerKind::Sync);
        self.timers.cancel(&sync_key);
        let delay_ms = self.cx.settings.initial_rebalance_delay_ms;
        let round = &mut self.group.round;
        round.from_empty = round.phase == Phase::Empty;
        round.phase = Phase::Joining;
        if round.from_empty {
            round.more_came = false;
            round.delay_left_ms = (round.rebalance_timeout_ms() - delay_ms).max(0);
            self.start_round_timer(delay_ms);
        } else if round.everybody_joined() {
            self.complete_join();
        } else {
            let span_ms = round.rebalance_timeout_ms();
            self.start_round_timer(span_ms);
        }
    }

    fn start_round_timer(&mut self, span_ms: i64) {
        let key = self.key("", TimerKind::Round);
        let due = self.after(span_ms);
        self.timers.set(key, due);
    }

    /// The leader did not assign in time, or the roster changed: those who wait for it join again.
    fn abandon_assignment(&mut self) {
        let ids: Vec<Arc<str>> = self.group.round.seats.keys().cloned().collect();
        for id in ids {
            let Some(seat) = self.group.round.seats.get_mut(&id) else { continue };
            if let Some(part) = &mut seat.member.joining {
                part.assignment = None;
            }
            if let Some(reply) = seat.sync.take() {
                self.refuse(reply, Refusal::RebalanceInProgress);
                self.renew_session(&id);
            }
        }
    }

    /// The joining phase has lasted long enough.
    pub fn round_due(&mut self) {
        if self.group.is_beating() || self.group.round.phase != Phase::Joining {
            return;
        }
        let delay_ms = self.cx.settings.initial_rebalance_delay_ms;
        let round = &mut self.group.round;
        if round.from_empty && round.more_came && round.delay_left_ms > 0 && delay_ms > 0 {
            round.more_came = false;
            let next_ms = delay_ms.min(round.delay_left_ms);
            round.delay_left_ms = (round.delay_left_ms - delay_ms).max(0);
            return self.start_round_timer(next_ms);
        }
        self.complete_join();
    }

    /// Whoever has not synced in time is out.
    pub fn sync_due(&mut self) {
        let round = &self.group.round;
        if self.group.is_beating() || !matches!(round.phase, Phase::Assigning | Phase::Stable) || round.unsynced.is_empty() {
            return;
        }
        for id in round.unsynced.clone() {
            self.remove_seat(&id);
        }
        self.prepare_rebalance();
    }

    /// A session ended: of a member, or of somebody who was promised an id.
    pub fn joining_session_due(&mut self, id: &Arc<str>) {
        if self.group.round.promised.remove(id) {
            return self.complete_if_all_joined();
        }
        let Some(seat) = self.group.round.seats.get(id) else { return };
        // Who waits for a round is known to be there; only first-comers are held to their time.
        if !seat.is_fresh && (seat.join.is_some() || seat.sync.is_some()) {
            return;
        }
        self.remove_seat(id);
        match self.group.round.phase {
            Phase::Stable | Phase::Assigning => self.prepare_rebalance(),
            Phase::Joining => self.complete_if_all_joined(),
            Phase::Empty => {}
        }
    }

    pub fn renew_session(&mut self, id: &Arc<str>) {
        let part = self.group.round.seats.get(id).and_then(|seat| seat.member.joining.as_ref());
        if let Some(span_ms) = part.map(|part| part.session_timeout_ms) {
            self.start_timer(id, TimerKind::Session, span_ms);
        }
    }

    /// A member is gone. If it is in the durable roster, a restart must not believe that the generation still stands.
    pub fn remove_seat(&mut self, id: &Arc<str>) {
        let Some(seat) = self.group.round.seats.remove(id) else { return };
        for waiting in [seat.join, seat.sync].into_iter().flatten() {
            self.refuse(waiting, Refusal::UnknownMember);
        }
        self.stop_timer(id, TimerKind::Session);
        let round = &mut self.group.round;
        round.unsynced.remove(id);
        if round.leader.as_ref() == Some(id) {
            round.leader = round.seats.keys().next().cloned();
        }
        if self.group.members.contains_key(id) {
            let mut record = self.record();
            record.settled = false;
            self.put_group(record);
            self.drop_member(id);
        }
    }

    /// Ends the joining phase: the next generation begins with those who came.
    fn complete_join(&mut self) {
        let key = self.key("", TimerKind::Round);
        self.timers.cancel(&key);
        let missing = |seat: &Seat| seat.join.is_none() && seat.member.instance.is_none();
        let gone: Vec<Arc<str>> = self.group.round.seats.iter().filter(|(_, seat)| missing(seat)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove_seat(&id);
        }
        let round = &mut self.group.round;
        if !round.seats.is_empty() && !elect(round) {
            // Only static members are left and none of them is back yet.
            let span_ms = round.rebalance_timeout_ms();
            return self.start_round_timer(span_ms);
        }
        round.from_empty = false;
        if round.seats.is_empty() {
            return self.become_empty();
        }
        round.phase = Phase::Assigning;
        let protocol = self.vote();
        let mut record = self.record();
        record.epoch = record.epoch.checked_add(1).unwrap_or(1);
        record.protocol = protocol;
        record.empty_since = None;
        self.put_group(record);
        self.write_roster(false);
        let ids: Vec<Arc<str>> = self.group.round.seats.keys().cloned().collect();
        for id in ids {
            self.group.round.unsynced.insert(id.clone());
            let Some(seat) = self.group.round.seats.get_mut(&id) else { continue };
            seat.is_fresh = false;
            if let Some(reply) = seat.join.take() {
                let joined = self.joined(&id);
                self.answer(reply, GroupAnswer::Joined(joined));
            }
            self.renew_session(&id);
        }
        let key = self.key("", TimerKind::Sync);
        let due = self.after(self.group.round.rebalance_timeout_ms());
        self.timers.set(key, due);
    }

    fn become_empty(&mut self) {
        let round = &mut self.group.round;
        round.phase = Phase::Empty;
        round.leader = None;
        let mut record = self.record();
        record.kind.clone_from(&self.group.round.kind);
        record.epoch = record.epoch.checked_add(1).unwrap_or(1);
        record.protocol = None;
        record.leader = None;
        record.settled = false;
        record.empty_since = Some(self.cx.now);
        self.put_group(record);
    }

    /// Makes the live roster the durable one.
    pub fn write_roster(&mut self, settled: bool) {
        let mut record = self.record();
        record.kind.clone_from(&self.group.round.kind);
        record.leader.clone_from(&self.group.round.leader);
        record.settled = settled;
        self.put_group(record);
        let gone: Vec<Arc<str>> = self.group.members.keys().filter(|id| !self.group.round.seats.contains_key(*id)).cloned().collect();
        for id in gone {
            self.drop_member(&id);
        }
        let changed: Vec<(Arc<str>, MemberRecord)> = self
            .group
            .round
            .seats
            .iter()
            .filter(|(id, seat)| self.group.members.get(*id) != Some(&seat.member))
            .map(|(id, seat)| (id.clone(), seat.member.clone()))
            .collect();
        for (id, member) in changed {
            self.put_member(&id, member);
        }
    }

    /// The protocol that most members like best of those that all have; the leader decides a tie.
    pub fn vote(&self) -> Option<String> {
        let round = &self.group.round;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for seat in round.seats.values() {
            for protocol in protocols_of(&seat.member) {
                *counts.entry(protocol.name.as_str()).or_default() += 1;
            }
        }
        let everybodys = |name: &str| counts.get(name).is_some_and(|count| *count >= round.seats.len());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for seat in round.seats.values() {
            if let Some(best) = protocols_of(&seat.member).iter().find(|protocol| everybodys(&protocol.name)) {
                *votes.entry(best.name.as_str()).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let leader = round.leader.as_ref().and_then(|id| round.seats.get(id));
        let preferred = leader.into_iter().flat_map(|seat| protocols_of(&seat.member)).map(|protocol| protocol.name.as_str());
        preferred.chain(votes.keys().copied()).find(|name| votes.get(name) == Some(&most)).map(str::to_owned)
    }

    /// Everybody with what they said for `protocol`, for the leader.
    pub fn everybody(&self, protocol: Option<&str>) -> Vec<JoinedMember> {
        let metadata = |member: &MemberRecord| {
            let held = protocols_of(member).iter().find(|held| Some(held.name.as_str()) == protocol);
            held.map_or_else(Bytes::new, |held| held.metadata.clone())
        };
        let seats = self.group.round.seats.iter();
        seats
            .map(|(id, seat)| JoinedMember {
                member: id.to_string(),
                instance: seat.member.instance.clone(),
                metadata: metadata(&seat.member),
            })
            .collect()
    }

    /// After a restart: the durable roster is the live one, everybody has a full session, and an unsettled round starts over.
    pub fn resume(&mut self) {
        let record = self.record();
        let members: Vec<(Arc<str>, MemberRecord)> = self.group.members.iter().map(|(id, member)| (id.clone(), member.clone())).collect();
        self.group.round = Round { kind: record.kind.clone(), leader: record.leader.clone(), ..Round::default() };
        for (id, member) in members {
            self.group.round.seats.insert(id.clone(), Seat { member, is_fresh: false, join: None, sync: None });
            self.renew_session(&id);
        }
        let round = &mut self.group.round;
        if round.seats.is_empty() {
            return;
        }
        let led = round.leader.as_ref().is_some_and(|leader| round.seats.contains_key(leader));
        if record.settled && led {
            round.phase = Phase::Stable;
            return;
        }
        if !led {
            round.leader = round.seats.keys().next().cloned();
        }
        round.phase = Phase::Joining;
        let span_ms = round.rebalance_timeout_ms();
        self.start_round_timer(span_ms);
    }
}

/// A leader that has joined, if anybody has.
fn elect(round: &mut Round) -> bool {
    let here = |id: &Arc<str>| round.seats.get(id).is_some_and(|seat| seat.join.is_some());
    if round.leader.as_ref().is_some_and(here) {
        return true;
    }
    match round.seats.iter().find(|(_, seat)| seat.join.is_some()) {
        Some((id, _)) => {
            round.leader = Some(id.clone());
            true
        }
        None => false,
    }
}
