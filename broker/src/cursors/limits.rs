//! How much a queue may hold, and what it loses.

use std::collections::{BinaryHeap, VecDeque};

use firth_model::ids::Offset;
use firth_model::limits::{MQTT_IN_FLIGHT_MAX, QUEUE_BYTES_MAX, QUEUE_DROPS_AT_ONCE, QUEUE_RECORDS_MAX};
use firth_model::removed::RunSet;

use crate::index::{Index, Piece};

/// The end of a queue that loses what is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drops {
    #[default]
    Oldest,
    Newest,
}

/// Of every queue cursor. A record on several legs counts once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    pub records: u64,
    pub bytes: u64,
    pub drops: Drops,
    /// The oldest so many of each leg of an attached cursor neither count nor are dropped: they may have been handed out.
    pub in_flight: u64,
}

impl Default for QueueLimits {
    fn default() -> QueueLimits {
        let in_flight = u64::from(MQTT_IN_FLIGHT_MAX);
        QueueLimits { records: QUEUE_RECORDS_MAX, bytes: QUEUE_BYTES_MAX, drops: Drops::Oldest, in_flight }
    }
}

/// What is unsettled of one leg.
pub struct Backlog {
    gaps: VecDeque<(u64, u64)>,
    pub records: u64,
}

impl Backlog {
    /// From `from` to before `end`, without what is settled and without the first `spared`.
    pub fn of(from: Offset, end: Offset, settled: &RunSet, mut spared: u64) -> Backlog {
        let mut gaps = VecDeque::new();
        let mut at = from.0;
        let mut records = 0;
        let ends = settled.iter().chain(std::iter::once(end.0..end.0));
        for run in ends {
            let to = run.start.min(end.0);
            if at < to {
                let passed = spared.min(to - at);
                spared -= passed;
                if at + passed < to {
                    gaps.push_back((at + passed, to));
                    records += to - at - passed;
                }
            }
            at = at.max(run.end);
        }
        Backlog { gaps, records }
    }

    pub fn gaps(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.gaps.iter().copied()
    }

    /// Bytes of it, about.
    pub fn bytes(&self, index: &Index) -> u64 {
        self.gaps.iter().map(|(from, to)| index.bytes_in(Offset(*from), Offset(*to))).sum()
    }

    /// What goes next, and the piece that it lies in.
    fn next(&self, index: &Index, drops: Drops) -> Option<(u64, u64, Option<Piece>)> {
        match drops {
            Drops::Oldest => {
                let (from, to) = *self.gaps.front()?;
                let piece = index.piece_from(Offset(from));
                Some((from, piece.map_or(to, |piece| piece.end.0.clamp(from + 1, to)), piece))
            }
            Drops::Newest => {
                let (from, to) = *self.gaps.back()?;
                let piece = index.piece_before(Offset(to));
                Some((piece.map_or(from, |piece| piece.base.0.clamp(from, to - 1)), to, piece))
            }
        }
    }

    fn take(&mut self, from: u64, to: u64, drops: Drops) {
        let gap = match drops {
            Drops::Oldest => self.gaps.pop_front(),
            Drops::Newest => self.gaps.pop_back(),
        };
        let Some((first, end)) = gap else { return };
        self.records -= to - from;
        match drops {
            Drops::Oldest if to < end => self.gaps.push_front((to, end)),
            Drops::Newest if first < from => self.gaps.push_back((first, from)),
            _ => {}
        }
    }
}

/// From the first offset to before the second.
pub type Runs = Vec<(Offset, Offset)>;

/// The runs that each leg of a queue loses so that it is within its limits: none if it is. In the order in which the journal took them,
/// from the one end or the other, neighbours together; and how many pieces they are.
pub fn lost(legs: &mut [(Backlog, &Index)], limits: &QueueLimits) -> (Vec<Runs>, usize) {
    let mut lost = vec![Vec::new(); legs.len()];
    let mut pieces = 0;
    let records: u64 = legs.iter().map(|(backlog, _)| backlog.records).sum();
    let mut over_records = records.saturating_sub(limits.records);
    // What the partitions hold says at once of most queues that they are small.
    let at_most: u64 = legs.iter().map(|(_, index)| index.bytes()).sum();
    let bytes = if at_most > limits.bytes { legs.iter().map(|(backlog, index)| backlog.bytes(index)).sum() } else { 0 };
    let mut over_bytes = bytes.saturating_sub(limits.bytes);
    if over_records == 0 && over_bytes == 0 {
        return (lost, pieces);
    }
    let rank = |leg: usize, legs: &[(Backlog, &Index)]| {
        let (backlog, index) = legs.get(leg)?;
        let (.., piece) = backlog.next(index, limits.drops)?;
        let (at, position) = piece.map_or((i64::MIN, 0), |piece| (piece.order.0.0, piece.order.1.0));
        // The largest goes first.
        Some(match limits.drops {
            Drops::Oldest => (!at, !position, leg),
            Drops::Newest => (at, position, leg),
        })
    };
    let mut heap: BinaryHeap<_> = (0..legs.len()).filter_map(|leg| rank(leg, legs)).collect();
    for _ in 0..QUEUE_DROPS_AT_ONCE {
        if over_records == 0 && over_bytes == 0 {
            break;
        }
        let Some((.., leg)) = heap.pop() else { break };
        let (backlog, index) = &mut legs[leg];
        let Some((mut from, mut to, piece)) = backlog.next(index, limits.drops) else { continue };
        // Of a large piece only as much as is over.
        let wanted = over_records.max(piece.map_or(1, |piece| piece.records_of(over_bytes))).max(1);
        if to - from > wanted {
            match limits.drops {
                Drops::Oldest => to = from + wanted,
                Drops::Newest => from = to - wanted,
            }
        }
        backlog.take(from, to, limits.drops);
        over_records = over_records.saturating_sub(to - from);
        let bytes = piece.map_or(0, |piece| piece.bytes_of(to - from));
        over_bytes = over_bytes.saturating_sub(bytes.max(1));
        pieces += 1;
        match lost[leg].last_mut() {
            Some((_, end)) if *end == Offset(from) => *end = Offset(to),
            Some((first, _)) if *first == Offset(to) => *first = Offset(from),
            _ => lost[leg].push((Offset(from), Offset(to))),
        }
        heap.extend(rank(leg, legs));
    }
    (lost, pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Row;
    use firth_model::ids::Position;
    use firth_model::time::Millis;

    /// Single records of 10 bytes at these positions.
    fn index(positions: impl IntoIterator<Item = u64>) -> Index {
        let mut index = Index::default();
        for (at, position) in positions.into_iter().enumerate() {
            let (base, position, appended) = (Offset(at as u64), Position(position), Millis(0));
            index.push(Row { base, records: 1, bytes: 10, shared_bytes: 0, position, max_timestamp: 0, appended });
        }
        index
    }

    fn run(range: std::ops::Range<u64>) -> RunSet {
        std::iter::once(range).collect()
    }

    fn limits(records: u64, bytes: u64, drops: Drops) -> QueueLimits {
        QueueLimits { records, bytes, drops, in_flight: 0 }
    }

    fn runs(lost: &[(Offset, Offset)]) -> RunSet {
        lost.iter().map(|(from, to)| from.0..to.0).collect()
    }

    fn one(index: &Index, settled: RunSet, limits: &QueueLimits, spared: u64) -> RunSet {
        let end = Offset(index.rows().len() as u64);
        runs(&lost(&mut [(Backlog::of(Offset(2), end, &settled, spared), index)], limits).0[0])
    }

    #[test]
    fn either_end_loses_what_is_too_much() {
        let index = index((0..20).map(|at| at * 10));
        let settled = || RunSet::from_iter([4..6, 10..12]);
        // Unsettled are 2 and 3, 6 to 9, 12 to 19.
        assert!(one(&index, settled(), &limits(14, 1000, Drops::Oldest), 0).is_empty());
        assert_eq!(one(&index, settled(), &limits(11, 1000, Drops::Oldest), 0), [2..4, 6..7].into_iter().collect());
        assert_eq!(one(&index, settled(), &limits(11, 1000, Drops::Newest), 0), run(17..20));
        assert_eq!(one(&index, settled(), &limits(3, 1000, Drops::Newest), 0), [7..10, 12..20].into_iter().collect());
        assert_eq!(one(&index, settled(), &limits(100, 100, Drops::Oldest), 0), [2..4, 6..8].into_iter().collect());
        // What may be with the client neither counts nor goes.
        assert_eq!(one(&index, settled(), &limits(11, 1000, Drops::Oldest), 3), RunSet::default());
        assert_eq!(one(&index, settled(), &limits(9, 1000, Drops::Oldest), 3), run(7..9));
        assert_eq!(one(&index, settled(), &limits(0, 1000, Drops::Newest), 3), [7..10, 12..20].into_iter().collect());
    }

    #[test]
    fn of_several_legs_the_journal_says_which_record_is_older() {
        let (first, second) = (index([0, 30, 40]), index([10, 20, 50]));
        let legs = |drops, records| {
            let whole = |index: &Index| Backlog::of(Offset(0), Offset(index.rows().len() as u64), &RunSet::default(), 0);
            let (lost, _) = lost(&mut [(whole(&first), &first), (whole(&second), &second)], &limits(records, 1000, drops));
            (runs(&lost[0]), runs(&lost[1]))
        };
        assert_eq!(legs(Drops::Oldest, 3), (run(0..1), run(0..2)));
        assert_eq!(legs(Drops::Newest, 3), (run(1..3), run(2..3)));
    }

    #[test]
    fn batches_are_cut_where_the_limit_is() {
        let mut batches = Index::default();
        for at in 0..3u64 {
            let (base, position) = (Offset(at * 10), Position(at));
            batches.push(Row { base, records: 10, bytes: 100, shared_bytes: 0, position, max_timestamp: 0, appended: Millis(0) });
        }
        let lost = |drops| {
            runs(&lost(&mut [(Backlog::of(Offset(0), Offset(30), &RunSet::default(), 0), &batches)], &limits(15, 9999, drops)).0[0])
        };
        assert_eq!(lost(Drops::Oldest), run(0..15));
        assert_eq!(lost(Drops::Newest), run(15..30));
    }

    /// A sealed extent is one piece: a queue that is over by little loses little of it, in one run.
    #[test]
    fn of_a_large_piece_only_what_is_over_goes() {
        let place = crate::index::Place::Extent(firth_model::ids::ExtentNumber(0));
        let span = crate::index::Span { place, base: Offset(0), end: Offset(1000), bytes: 10_000, max_timestamp: 0, appended: Millis(0) };
        let sealed = Index::of_spans(vec![span]);
        let lost =
            |bytes, drops| lost(&mut [(Backlog::of(Offset(0), Offset(1000), &RunSet::default(), 0), &sealed)], &limits(5000, bytes, drops));
        assert_eq!(lost(9_991, Drops::Oldest), (vec![vec![(Offset(0), Offset(1))]], 1));
        assert_eq!(lost(9_000, Drops::Newest), (vec![vec![(Offset(900), Offset(1000))]], 1));
        assert_eq!(lost(10_000, Drops::Oldest), (vec![vec![]], 0));
    }
}
