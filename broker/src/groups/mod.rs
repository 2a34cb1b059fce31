//! Groups of consumers: who is a member, who works on what, and how far they are.
//!
//! `machine` takes moves and time, `turn` is one step on one group, and each further file adds the steps of one subject: `joining`
//! and `round` (members agree in rounds), `beating`, `reconcile` and `targets` (the node assigns), `mixed` (both kinds in a
//! group), `cursors`, `report`. `group` is what is remembered; only its `apply` changes the durable part, from the effects of
//! `state`, live and in recovery.

pub mod assign;
mod beating;
mod cursors;
mod group;
mod joining;
pub mod machine;
mod mixed;
mod pattern;
mod reconcile;
mod report;
mod round;
pub mod state;
mod targets;
mod timers;
mod turn;

#[cfg(test)]
mod tests;

use firth_gateway::answer::Answer;
use firth_gateway::outbox::ReplyTo;
use firth_gateway::refusal::Refusal;
use firth_model::limits;
use firth_model::time::Millis;

use crate::catalog::Catalog;

/// What a step may look at, and its chance.
pub struct Context<'a> {
    pub now: Millis,
    pub catalog: &'a Catalog,
    pub settings: &'a GroupSettings,
    /// For the ids of members.
    pub random: &'a mut dyn FnMut() -> u128,
}

#[derive(Clone, Debug)]
pub struct GroupSettings {
    pub session_timeout_min_ms: i64,
    pub session_timeout_max_ms: i64,
    /// How long the first round of an empty group waits for more members.
    pub initial_rebalance_delay_ms: i64,
    /// A member that has not joined its first round yet is forgotten after this.
    pub joining_member_timeout_ms: i64,
    pub consumer_session_timeout_ms: i64,
    pub consumer_heartbeat_interval_ms: i32,
    /// Cursors live this long after their group became empty.
    pub offsets_retention_ms: i64,
    /// How often old cursors are looked for.
    pub offsets_check_interval_ms: i64,
    pub members_max: usize,
}

impl Default for GroupSettings {
    /// Apache Kafka's defaults, but for the initial delay.
    fn default() -> GroupSettings {
        GroupSettings {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            joining_member_timeout_ms: 300_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_check_interval_ms: 600_000,
            members_max: limits::GROUP_MEMBERS_MAX,
        }
    }
}

/// What a step leaves: effects that are applied already and must be journalled, and answers that may leave when they are durable.
#[derive(Debug, Default)]
pub struct Out {
    pub effects: Vec<state::GroupEffect>,
    pub answers: Vec<(ReplyTo, Result<Answer, Refusal>)>,
}
