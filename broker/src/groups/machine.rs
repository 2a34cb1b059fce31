//! All groups of the node: takes moves, time and changes of the catalog, and leaves effects and answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use firth_gateway::answer::Answer;
use firth_gateway::groups::{GroupAnswer, GroupMove};
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_model::time::Millis;

use super::cursors::{has_orphans, positions};
use super::group::Group;
use super::pattern::Patterns;
use super::report::{line, passes, report};
use super::state::{GroupEffect, NAME_BYTES_MAX};
use super::timers::{TimerKey, TimerKind, Timers};
use super::turn::Turn;
use super::{Context, Out};

/// Cursors that one sweep may drop, so that nobody waits long behind it.
const SWEEP_DROPS_MAX: usize = 2_000;
/// The pause before a sweep that stopped early goes on.
const SWEEP_PAUSE_MS: i64 = 100;

#[derive(Default)]
pub struct Groups {
    groups: BTreeMap<Arc<str>, Group>,
    timers: Timers,
    patterns: Patterns,
    /// When old cursors are looked for next.
    sweep: Option<Millis>,
}

impl Groups {
    /// Takes a move. Its answer is in `out`, or comes with a later call (joins and syncs wait for others).
    pub fn decide(&mut self, cx: &mut Context<'_>, ask: GroupMove, reply: ReplyTo, out: &mut Out) {
        if self.sweep.is_none() {
            self.sweep = Some(cx.now.plus(cx.settings.offsets_check_interval_ms));
        }
        if let Some((group, needs_name)) = one_group(&ask)
            && (group.len() > NAME_BYTES_MAX || needs_name && group.is_empty())
        {
            return out.answers.push((reply, Err(Refusal::InvalidGroup)));
        }
        match ask {
            GroupMove::Join(mut ask) => {
                let group = std::mem::take(&mut ask.group);
                self.turn(cx, out, &group, |turn| turn.join(ask, reply));
            }
            GroupMove::Sync(mut ask) => {
                let group = std::mem::take(&mut ask.group);
                self.turn(cx, out, &group, |turn| turn.sync(ask, reply));
            }
            GroupMove::Beat(ask) => self.simple(cx, out, reply, &ask.group, |turn| turn.beat(&ask)),
            GroupMove::Leave(ask) => self.simple(cx, out, reply, &ask.group, |turn| turn.leave(&ask)),
            GroupMove::ConsumerBeat(mut ask) => {
                let group = std::mem::take(&mut ask.group);
                self.simple(cx, out, reply, &group, |turn| turn.consumer_beat(ask));
            }
            GroupMove::Commit(mut ask) => {
                let group = std::mem::take(&mut ask.group);
                self.simple(cx, out, reply, &group, |turn| turn.commit(ask));
            }
            GroupMove::DropPositions { group, partitions } => {
                self.simple(cx, out, reply, &group, |turn| turn.drop_positions(partitions));
            }
            GroupMove::DropGroups(names) => {
                let dropped = names.iter().map(|name| self.turn(cx, out, name, |turn| turn.drop_group())).collect();
                out.answers.push((reply, Ok(Answer::Group(GroupAnswer::GroupsDropped(dropped)))));
            }
            GroupMove::Positions(asks) => {
                let found = asks.iter().map(|ask| positions(self.groups.get(ask.group.as_str()), ask)).collect();
                out.answers.push((reply, Ok(Answer::Group(GroupAnswer::Positions(found)))));
            }
            GroupMove::List { states, kinds } => {
                let lines = self.groups.values().map(line).filter(|line| passes(line, &states, &kinds)).collect();
                out.answers.push((reply, Ok(Answer::Group(GroupAnswer::Listed(lines)))));
            }
            GroupMove::Describe(names) => {
                let reports = names
                    .iter()
                    .map(|name| {
                        if !self.groups.contains_key(name.as_str()) {
                            return Err(Refusal::GroupNotFound);
                        }
                        let assignor = self.turn(cx, out, name, |turn| turn.assignor());
                        self.groups.get(name.as_str()).map(|group| report(group, assignor)).ok_or(Refusal::GroupNotFound)
                    })
                    .collect();
                out.answers.push((reply, Ok(Answer::Group(GroupAnswer::Described(reports)))));
            }
        }
    }

    /// Everything that is due by `cx.now`.
    pub fn tick(&mut self, cx: &mut Context<'_>, out: &mut Out) {
        while let Some(key) = self.timers.pop(cx.now) {
            self.turn(cx, out, &key.group.clone(), |turn| due(turn, &key));
        }
        if self.sweep.is_some_and(|due| due <= cx.now) {
            self.sweep_cursors(cx, out);
        }
    }

    /// Nothing is due before this moment.
    pub fn next_deadline(&self) -> Option<Millis> {
        match (self.timers.next(), self.sweep) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Streams were made, grown or dropped: cursors of dropped ones go now, beating groups notice with their next heartbeat.
    pub fn catalog_changed(&mut self, cx: &mut Context<'_>, out: &mut Out) {
        let touched = |(_, group): &(&Arc<str>, &Group)| has_orphans(group, cx.catalog);
        let names: Vec<Arc<str>> = self.groups.iter().filter(touched).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.turn(cx, out, &name, |turn| turn.drop_orphans());
        }
    }

    /// The only code that changes durable state. Cannot refuse.
    pub fn apply(&mut self, effect: &GroupEffect) {
        let name = effect.group();
        match self.groups.get_mut(name) {
            Some(group) => group.apply(effect),
            None => self.groups.entry(name.clone()).or_insert_with(|| Group::named(name.clone())).apply(effect),
        }
        if self.groups.get(name).is_some_and(Group::is_nothing) {
            self.groups.remove(name);
        }
    }

    /// After replay: what a restart forgets is made anew, and every member has a full session from now.
    pub fn recovered(&mut self, cx: &mut Context<'_>) {
        self.timers.clear();
        self.sweep = (!self.groups.is_empty()).then(|| cx.now.plus(cx.settings.offsets_check_interval_ms));
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        // Nothing durable changes here, so nothing is left in it.
        let mut out = Out::default();
        for name in names {
            self.turn(cx, &mut out, &name, |turn| if turn.group.is_beating() { turn.resume_beating() } else { turn.resume() });
        }
        debug_assert!(out.effects.is_empty() && out.answers.is_empty(), "recovery only reads what is durable");
    }

    /// Everything durable as effects, in the order of groups: for checks that compare two states.
    pub fn dump(&self) -> Vec<GroupEffect> {
        self.groups.values().flat_map(Group::dump).collect()
    }

    fn simple(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Out,
        reply: ReplyTo,
        group: &str,
        step: impl FnOnce(&mut Turn<'_, '_>) -> Result<GroupAnswer, Refusal>,
    ) {
        let result = self.turn(cx, out, group, step);
        out.answers.push((reply, result.map(Answer::Group)));
    }

    /// One step on one group; a group of which nothing is left afterwards is as if it never was.
    fn turn<T>(&mut self, cx: &mut Context<'_>, out: &mut Out, name: &str, step: impl FnOnce(&mut Turn<'_, '_>) -> T) -> T {
        if !self.groups.contains_key(name) {
            let name: Arc<str> = Arc::from(name);
            self.groups.insert(name.clone(), Group::named(name));
        }
        let group = self.groups.get_mut(name).expect("it was there, or was put there above");
        let result = step(&mut Turn { group, timers: &mut self.timers, patterns: &mut self.patterns, cx, out });
        if group.is_nothing() {
            self.groups.remove(name);
        }
        result
    }

    fn sweep_cursors(&mut self, cx: &mut Context<'_>, out: &mut Out) {
        let mut left = SWEEP_DROPS_MAX;
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for name in names {
            left -= self.turn(cx, out, &name, |turn| turn.expire(left));
            if left == 0 {
                self.sweep = Some(cx.now.plus(SWEEP_PAUSE_MS));
                return;
            }
        }
        self.sweep = (!self.groups.is_empty()).then(|| cx.now.plus(cx.settings.offsets_check_interval_ms));
    }
}

/// The group that a move is about, if it is one, and whether that needs a name. Positions may be kept under the empty name, as old
/// clients do.
fn one_group(ask: &GroupMove) -> Option<(&str, bool)> {
    match ask {
        GroupMove::Join(ask) => Some((&ask.group, true)),
        GroupMove::Sync(ask) => Some((&ask.group, true)),
        GroupMove::Beat(ask) => Some((&ask.group, true)),
        GroupMove::Leave(ask) => Some((&ask.group, true)),
        GroupMove::ConsumerBeat(ask) => Some((&ask.group, true)),
        GroupMove::Commit(ask) => Some((&ask.group, false)),
        GroupMove::DropPositions { group, .. } => Some((group, true)),
        GroupMove::DropGroups(_) | GroupMove::Positions(_) | GroupMove::List { .. } | GroupMove::Describe(_) => None,
    }
}

fn due(turn: &mut Turn<'_, '_>, key: &TimerKey) {
    match key.kind {
        TimerKind::Round => turn.round_due(),
        TimerKind::Sync => turn.sync_due(),
        TimerKind::Session if !turn.group.is_beating() => turn.joining_session_due(&key.member),
        TimerKind::Session | TimerKind::Revoke | TimerKind::Rejoin | TimerKind::Resync => {
            turn.beating_due(&key.member, key.kind);
        }
    }
}
