//! Who is to work on which partitions: the node's own assignors.
//!
//! `uniform` spreads all partitions evenly and moves as few as it can; `range` gives each member neighbouring partitions of every
//! stream, the same ones of equally sized streams. Source: KIP-848, server-side assignors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firth_gateway::groups::StreamPartition;
use firth_model::ids::{PartitionIndex, StreamId};

use super::state::Holding;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    Uniform,
    Range,
}

impl Assignor {
    pub fn named(name: &str) -> Option<Assignor> {
        match name {
            "uniform" => Some(Assignor::Uniform),
            "range" => Some(Assignor::Range),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }
}

/// A member as an assignor sees it. Members come in the order of their ids.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub member: Arc<str>,
    pub instance: Option<String>,
    pub streams: BTreeSet<StreamId>,
    /// Its target so far.
    pub before: Holding,
}

/// Partitions of each subscribed stream.
pub type Sizes = BTreeMap<StreamId, u32>;

/// A target for every candidate. Each partition of a stream with a subscriber goes to exactly one of its subscribers.
pub fn assign(assignor: Assignor, candidates: &[Candidate], sizes: &Sizes) -> BTreeMap<Arc<str>, Holding> {
    let targets = match assignor {
        Assignor::Uniform => uniform(candidates, sizes),
        Assignor::Range => range(candidates, sizes),
    };
    candidates.iter().map(|candidate| candidate.member.clone()).zip(targets).collect()
}

fn range(candidates: &[Candidate], sizes: &Sizes) -> Vec<Holding> {
    // Static members first, by instance: their ranges survive a new member id.
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|at| {
        let candidate = &candidates[*at];
        (candidate.instance.is_none(), candidate.instance.clone(), candidate.member.clone())
    });
    let mut targets = vec![Holding::new(); candidates.len()];
    for (stream, size) in sizes {
        let takers: Vec<usize> = order.iter().copied().filter(|at| candidates[*at].streams.contains(stream)).collect();
        let Ok(count) = u32::try_from(takers.len()) else { continue };
        if count == 0 {
            continue;
        }
        let (share, more) = (size / count, size % count);
        let mut next = 0;
        for (turn, at) in (0_u32..).zip(takers) {
            let end = next + share + u32::from(turn < more);
            targets[at].extend((next..end).map(|index| StreamPartition { stream: *stream, index: PartitionIndex(index) }));
            next = end;
        }
    }
    targets
}

fn uniform(candidates: &[Candidate], sizes: &Sizes) -> Vec<Holding> {
    let alike = candidates.windows(2).all(|pair| pair[0].streams == pair[1].streams);
    let (mut targets, free) = keep(candidates, sizes);
    if alike {
        fill_alike(&mut targets, free)
    } else {
        fill_unlike(&mut targets, free, candidates)
    }
    targets
}

/// What everybody keeps, and what nobody has.
fn keep(candidates: &[Candidate], sizes: &Sizes) -> (Vec<Holding>, Vec<StreamPartition>) {
    let mut taken = BTreeSet::new();
    let targets = candidates
        .iter()
        .map(|candidate| {
            let valid = |partition: &&StreamPartition| {
                candidate.streams.contains(&partition.stream) && sizes.get(&partition.stream).is_some_and(|size| partition.index.0 < *size)
            };
            let mut kept = Holding::new();
            for partition in candidate.before.iter().filter(valid) {
                if taken.insert(partition.clone()) {
                    kept.insert(partition.clone());
                }
            }
            kept
        })
        .collect();
    let wanted = |stream: &StreamId| candidates.iter().any(|candidate| candidate.streams.contains(stream));
    let free = sizes
        .iter()
        .filter(|(stream, _)| wanted(stream))
        .flat_map(|(stream, size)| (0..*size).map(|index| StreamPartition { stream: *stream, index: PartitionIndex(index) }))
        .filter(|partition| !taken.contains(partition))
        .collect();
    (targets, free)
}

/// Everybody may take everything: shares differ by one at most.
fn fill_alike(targets: &mut [Holding], mut free: Vec<StreamPartition>) {
    let total = free.len() + targets.iter().map(Holding::len).sum::<usize>();
    if targets.is_empty() {
        return;
    }
    let (share, mut more) = (total / targets.len(), total % targets.len());
    // The larger shares go to those who hold most: fewer partitions move.
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(targets[*at].len()));
    let mut shares = vec![share; targets.len()];
    for at in order {
        if more == 0 {
            break;
        }
        shares[at] += 1;
        more -= 1;
    }
    for (target, share) in targets.iter_mut().zip(&shares) {
        while target.len() > *share {
            free.extend(target.pop_last());
        }
    }
    free.sort();
    let mut free = free.into_iter();
    for (target, share) in targets.iter_mut().zip(&shares) {
        let missing = share - target.len();
        target.extend(free.by_ref().take(missing));
    }
}

/// Members differ in what they may take: free partitions go to the least loaded who may have them, those with the fewest takers
/// first; then partitions move from the most loaded to somebody with at least two fewer, until no such move is left.
fn fill_unlike(targets: &mut [Holding], free: Vec<StreamPartition>, candidates: &[Candidate]) {
    let mut takers: BTreeMap<StreamId, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        for stream in &candidate.streams {
            takers.entry(*stream).or_default().push(at);
        }
    }
    let mut free = free;
    free.sort_by_key(|partition| (takers.get(&partition.stream).map_or(0, Vec::len), partition.clone()));
    for partition in free {
        let able = takers.get(&partition.stream).map_or(&[][..], Vec::as_slice);
        if let Some(at) = able.iter().copied().min_by_key(|at| (targets[*at].len(), *at)) {
            targets[at].insert(partition);
        }
    }
    // Every move lessens the sum of squares of the loads, so this ends; the bound only keeps a very large group from holding up
    // everybody else.
    let mut moves_left: usize = targets.iter().map(Holding::len).sum();
    let mut order: Vec<usize> = (0..targets.len()).collect();
    let mut moved = true;
    while moved && moves_left > 0 {
        moved = false;
        order.sort_by_key(|at| std::cmp::Reverse(targets[*at].len()));
        for from in order.clone() {
            moves_left = moves_left.saturating_sub(1);
            if let Some((partition, to)) = best_move(targets, &takers, from) {
                targets[from].remove(&partition);
                targets[to].insert(partition);
                moved = true;
                break;
            }
        }
    }
}

/// A partition of `from` and the least loaded member that may have it and holds at least two fewer.
fn best_move(targets: &[Holding], takers: &BTreeMap<StreamId, Vec<usize>>, from: usize) -> Option<(StreamPartition, usize)> {
    let load = targets[from].len();
    let mut best: Option<(usize, StreamPartition, usize)> = None;
    let mut after: Option<StreamId> = None;
    // One look per stream is enough: partitions of a stream have the same takers.
    for partition in &targets[from] {
        if after == Some(partition.stream) {
            continue;
        }
        after = Some(partition.stream);
        let able = takers.get(&partition.stream).map_or(&[][..], Vec::as_slice);
        let Some(to) = able.iter().copied().min_by_key(|at| (targets[*at].len(), *at)) else { continue };
        let other = targets[to].len();
        if other + 2 <= load && best.as_ref().is_none_or(|(least, _, _)| other < *least) {
            best = Some((other, partition.clone(), to));
        }
    }
    best.map(|(_, partition, to)| (partition, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: u128) -> StreamId {
        StreamId(uuid::Uuid::from_u128(number))
    }

    fn candidate(member: &str, streams: &[u128], before: Holding) -> Candidate {
        Candidate { member: member.into(), instance: None, streams: streams.iter().map(|number| stream(*number)).collect(), before }
    }

    fn sizes(pairs: &[(u128, u32)]) -> Sizes {
        pairs.iter().map(|(number, size)| (stream(*number), *size)).collect()
    }

    /// "member: stream/index …" for each member.
    fn shown(targets: &BTreeMap<Arc<str>, Holding>) -> Vec<String> {
        let one = |partition: &StreamPartition| format!("{}/{}", partition.stream.0.as_u128(), partition.index.0);
        targets.iter().map(|(member, target)| format!("{member}: {}", target.iter().map(one).collect::<Vec<_>>().join(" "))).collect()
    }

    #[test]
    fn ranges_are_neighbours() {
        let candidates = [candidate("a", &[1, 2], Holding::new()), candidate("b", &[1], Holding::new())];
        let targets = assign(Assignor::Range, &candidates, &sizes(&[(1, 3), (2, 2)]));
        assert_eq!(shown(&targets), ["a: 1/0 1/1 2/0 2/1", "b: 1/2"]);
    }

    #[test]
    fn static_members_have_the_first_ranges() {
        let mut fixed = candidate("z", &[1], Holding::new());
        fixed.instance = Some("i".into());
        let targets = assign(Assignor::Range, &[candidate("a", &[1], Holding::new()), fixed], &sizes(&[(1, 3)]));
        assert_eq!(shown(&targets), ["a: 1/2", "z: 1/0 1/1"]);
    }

    #[test]
    fn few_partitions_leave_some_idle() {
        for assignor in [Assignor::Range, Assignor::Uniform] {
            let candidates = ["a", "b", "c"].map(|member| candidate(member, &[1], Holding::new()));
            assert_eq!(shown(&assign(assignor, &candidates, &sizes(&[(1, 2)]))), ["a: 1/0", "b: 1/1", "c: "]);
        }
    }

    #[test]
    fn nobody_and_nothing_are_fine() {
        for assignor in [Assignor::Range, Assignor::Uniform] {
            assert!(assign(assignor, &[], &sizes(&[(1, 2)])).is_empty());
            let targets = assign(assignor, &[candidate("a", &[9], Holding::new())], &sizes(&[(1, 2)]));
            assert_eq!(shown(&targets), ["a: "]);
        }
    }

    #[test]
    fn a_newcomer_takes_only_its_share() {
        let first = assign(Assignor::Uniform, &[candidate("b", &[1], Holding::new())], &sizes(&[(1, 5)]));
        let before = first.into_values().next().unwrap_or_default();
        let candidates = [candidate("a", &[1], Holding::new()), candidate("b", &[1], before)];
        let targets = assign(Assignor::Uniform, &candidates, &sizes(&[(1, 5)]));
        assert_eq!(shown(&targets), ["a: 1/3 1/4", "b: 1/0 1/1 1/2"]);
    }

    #[test]
    fn unlike_subscriptions_are_balanced_as_far_as_they_go() {
        let candidates =
            [candidate("a", &[1, 2], Holding::new()), candidate("b", &[2], Holding::new()), candidate("c", &[2], Holding::new())];
        let targets = assign(Assignor::Uniform, &candidates, &sizes(&[(1, 4), (2, 4)]));
        assert_eq!(shown(&targets), ["a: 1/0 1/1 1/2 1/3", "b: 2/0 2/2", "c: 2/1 2/3"]);
    }

    proptest::proptest! {
        /// Whatever came before: one owner for each wanted partition, only subscribers own, and uniform shares are even and sticky.
        #[test]
        fn assignments_are_whole_and_fair(
            wants in proptest::collection::vec(proptest::collection::btree_set(0_u128..4, 0..4), 1..6),
            counts in proptest::collection::vec(0_u32..9, 4),
            rounds in proptest::collection::vec((0_usize..6, proptest::bool::ANY), 0..4),
        ) {
            let all = sizes(&(0..4).zip(counts).collect::<Vec<_>>());
            let mut candidates: Vec<Candidate> = wants
                .iter()
                .enumerate()
                .map(|(at, wants)| candidate(&format!("m{at}"), &wants.iter().copied().collect::<Vec<_>>(), Holding::new()))
                .collect();
            for (gone, uniform) in rounds.into_iter().chain([(usize::MAX, true)]) {
                let assignor = if uniform { Assignor::Uniform } else { Assignor::Range };
                let targets = assign(assignor, &candidates, &all);
                check_whole(&candidates, &targets, &all);
                for candidate in &mut candidates {
                    candidate.before = targets.get(&candidate.member).cloned().unwrap_or_default();
                }
                if uniform {
                    assert_eq!(assign(assignor, &candidates, &all), targets, "nothing moves when nothing changed");
                    check_even(&candidates);
                }
                if gone < candidates.len() && candidates.len() > 1 {
                    candidates.remove(gone);
                }
            }
        }
    }

    fn check_whole(candidates: &[Candidate], targets: &BTreeMap<Arc<str>, Holding>, all: &Sizes) {
        let mut owned = BTreeSet::new();
        for candidate in candidates {
            for partition in &targets[&candidate.member] {
                assert!(candidate.streams.contains(&partition.stream) && owned.insert(partition.clone()));
            }
        }
        let wanted = |stream: &StreamId| candidates.iter().any(|candidate| candidate.streams.contains(stream));
        let count: u32 = all.iter().filter(|(stream, _)| wanted(stream)).map(|(_, size)| *size).sum();
        assert_eq!(owned.len(), count as usize);
    }

    /// Nobody holds a partition that somebody with two fewer could have.
    fn check_even(candidates: &[Candidate]) {
        for rich in candidates {
            for poor in candidates.iter().filter(|poor| poor.before.len() + 1 < rich.before.len()) {
                assert!(!rich.before.iter().any(|partition| poor.streams.contains(&partition.stream)), "{rich:?} {poor:?}");
            }
        }
    }
}
