//! One step on one group: what it may use, and how it leaves effects, answers and timers.

use std::sync::Arc;

use firth_gateway::answer::Answer;
use firth_gateway::groups::{GroupAnswer, Membership};
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_model::time::Millis;

use super::group::Group;
use super::pattern::Patterns;
use super::state::{GroupEffect, GroupRecord, MemberRecord};
use super::timers::{TimerKey, TimerKind, Timers};
use super::{Context, Out};

/// A member's record and a leader's bytes for one member may not be larger: each is one entry of the journal.
pub const MEMBER_BYTES_MAX: u64 = 1 << 20;

pub struct Turn<'t, 'c> {
    pub group: &'t mut Group,
    pub timers: &'t mut Timers,
    pub patterns: &'t mut Patterns,
    pub cx: &'t mut Context<'c>,
    pub out: &'t mut Out,
}

impl Turn<'_, '_> {
    /// Applies an effect and leaves it to be journalled.
    pub fn emit(&mut self, effect: GroupEffect) {
        self.group.apply(&effect);
        self.out.effects.push(effect);
    }

    /// Writes the header, if it changed.
    pub fn put_group(&mut self, record: GroupRecord) {
        if self.group.record.as_ref() != Some(&record) {
            self.emit(GroupEffect::PutGroup { group: self.group.name.clone(), record: Box::new(record) });
        }
    }

    /// The header, or what a group without one would have.
    pub fn record(&self) -> GroupRecord {
        self.group.record.clone().unwrap_or(GroupRecord {
            membership: Membership::Joining,
            kind: String::new(),
            epoch: 0,
            assignment_epoch: 0,
            settled: false,
            protocol: None,
            leader: None,
            empty_since: None,
            streams_mark: 0,
        })
    }

    /// Writes a member, if it changed.
    pub fn put_member(&mut self, member: &Arc<str>, record: MemberRecord) {
        if self.group.members.get(member) != Some(&record) {
            let group = self.group.name.clone();
            self.emit(GroupEffect::PutMember { group, member: member.clone(), record: Box::new(record) });
        }
    }

    pub fn drop_member(&mut self, member: &Arc<str>) {
        let group = self.group.name.clone();
        if self.group.targets.contains_key(member) {
            self.emit(GroupEffect::DropTarget { group: group.clone(), member: member.clone() });
        }
        if self.group.members.contains_key(member) {
            self.emit(GroupEffect::DropMember { group, member: member.clone() });
        }
    }

    pub fn answer(&mut self, reply: ReplyTo, answer: GroupAnswer) {
        self.out.answers.push((reply, Ok(Answer::Group(answer))));
    }

    pub fn refuse(&mut self, reply: ReplyTo, refusal: Refusal) {
        self.out.answers.push((reply, Err(refusal)));
    }

    pub fn finish(&mut self, reply: ReplyTo, result: Result<GroupAnswer, Refusal>) {
        self.out.answers.push((reply, result.map(Answer::Group)));
    }

    pub fn key(&self, member: &str, kind: TimerKind) -> TimerKey {
        TimerKey { group: self.group.name.clone(), member: Arc::from(member), kind }
    }

    pub fn member_key(&self, member: &Arc<str>, kind: TimerKind) -> TimerKey {
        TimerKey { group: self.group.name.clone(), member: member.clone(), kind }
    }

    pub fn start_timer(&mut self, member: &Arc<str>, kind: TimerKind, span_ms: i64) {
        let key = self.member_key(member, kind);
        let due = self.after(span_ms);
        self.timers.set(key, due);
    }

    pub fn stop_timer(&mut self, member: &Arc<str>, kind: TimerKind) {
        let key = self.member_key(member, kind);
        self.timers.cancel(&key);
    }

    pub fn stop_member_timers(&mut self, member: &Arc<str>) {
        for kind in [TimerKind::Session, TimerKind::Revoke, TimerKind::Rejoin, TimerKind::Resync] {
            self.stop_timer(member, kind);
        }
    }

    pub fn after(&self, span_ms: i64) -> Millis {
        self.cx.now.plus(span_ms.max(0))
    }

    /// A fresh member id that begins with `stem`, or bare if that is empty.
    pub fn make_member_id(&mut self, stem: &str) -> Arc<str> {
        let id = uuid::Builder::from_random_bytes((self.cx.random)().to_be_bytes()).into_uuid();
        // Ids are keys on disk; a client may call itself anything.
        let mut cut = stem.len().min(1024);
        while !stem.is_char_boundary(cut) {
            cut -= 1;
        }
        if stem.is_empty() { id.to_string().into() } else { format!("{}-{id}", &stem[..cut]).into() }
    }
}
