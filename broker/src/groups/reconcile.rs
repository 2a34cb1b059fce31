//! How a member comes from what it holds to its target: it lets go first, then takes what others have let go.
//!
//! Source: KIP-848, the member's side of the assignment process.

use firth_gateway::groups::StreamPartition;

use super::state::{Holding, MemberRecord, Standing};

/// Where the member is to get.
pub struct Goal<'a> {
    pub epoch: i32,
    pub target: &'a Holding,
    /// What the member says it holds; `None` if it says nothing.
    pub owned: Option<&'a [StreamPartition]>,
}

/// The member one step further, or `None` if nothing changes. `is_free` tells whether no other member holds a partition.
pub fn step(member: &MemberRecord, goal: &Goal<'_>, is_free: impl Fn(&StreamPartition) -> bool) -> Option<MemberRecord> {
    let next = match member.standing {
        Standing::Stable if member.epoch == goal.epoch => return None,
        Standing::Stable | Standing::Unreleased => advance(member, member.epoch, goal, is_free),
        Standing::Unrevoked if still_owns(goal.owned, &member.revoking) => return None,
        Standing::Unrevoked => advance(member, member.epoch.saturating_add(1), goal, is_free),
        Standing::Unknown => return None,
    };
    (next != *member).then_some(next)
}

fn still_owns(owned: Option<&[StreamPartition]>, revoking: &Holding) -> bool {
    // Silence means that nothing has changed since the member was told.
    owned.is_none_or(|owned| owned.iter().any(|partition| revoking.contains(partition)))
}

fn advance(member: &MemberRecord, epoch: i32, goal: &Goal<'_>, is_free: impl Fn(&StreamPartition) -> bool) -> MemberRecord {
    let kept: Holding = member.assigned.intersection(goal.target).cloned().collect();
    let revoking: Holding = member.assigned.difference(&kept).cloned().collect();
    let mut next = member.clone();
    next.previous_epoch = member.epoch;
    if !revoking.is_empty() && still_owns(goal.owned, &revoking) {
        next.standing = Standing::Unrevoked;
        next.epoch = epoch;
        next.assigned = kept;
        next.revoking = revoking;
        return next;
    }
    let mut assigned = kept;
    let mut waits = false;
    for partition in goal.target {
        if assigned.contains(partition) {
            continue;
        }
        if is_free(partition) {
            assigned.insert(partition.clone());
        } else {
            waits = true;
        }
    }
    next.standing = if waits { Standing::Unreleased } else { Standing::Stable };
    next.epoch = goal.epoch;
    next.assigned = assigned;
    next.revoking = Holding::new();
    next
}
