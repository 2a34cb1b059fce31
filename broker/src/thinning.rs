//! Segments of which most was removed since they were written.

use std::collections::HashMap;

use firth_model::ids::{Offset, PartitionId, SegmentId};
use firth_model::removed::RunSet;
use firth_model::time::Millis;

use crate::index::{Place, Span};

/// What is known of segments beside what readers see.
pub(crate) struct Thinning {
    due: Millis,
    every_ms: i64,
    /// Offsets of a span that were removed when it was written, or when the process began: their bytes are not counted on. Spans without
    /// any are not here.
    left_out: HashMap<(PartitionId, SegmentId, Offset), u64>,
}

impl Thinning {
    /// They are looked for every so many milliseconds.
    pub fn starting(now: Millis, every_ms: i64) -> Thinning {
        Thinning { due: now.plus(every_ms), every_ms, left_out: HashMap::new() }
    }

    /// The span was written, without what was removed.
    pub fn wrote(&mut self, partition: PartitionId, span: &Span, removed: &RunSet) {
        if let Place::Segment(segment) = span.place
            && let left_out @ 1.. = removed.count_in(span.base.0..span.end.0)
        {
            self.left_out.insert((partition, segment, span.base), left_out);
        }
    }

    /// Segments are to be looked at now, and then for a while not. What is known of those that nothing `holds` any more is forgotten.
    pub fn is_due(&mut self, now: Millis, holds: impl Fn(SegmentId) -> bool) -> bool {
        if self.due > now {
            return false;
        }
        self.due = now.plus(self.every_ms);
        self.left_out.retain(|(_, segment, _), _| holds(*segment));
        true
    }

    /// Bytes of the span, about, that were removed since it was written.
    pub fn gone(&self, partition: PartitionId, segment: SegmentId, span: &Span, removed: &RunSet) -> u64 {
        let offsets = span.end.0.saturating_sub(span.base.0);
        let before = self.left_out.get(&(partition, segment, span.base)).copied().unwrap_or(0).min(offsets);
        let since = removed.count_in(span.base.0..span.end.0).saturating_sub(before);
        let share = u128::from(span.bytes) * u128::from(since) / u128::from(offsets - before).max(1);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_before_is_not_counted_again() {
        let (partition, segment) = (PartitionId(3), SegmentId(7));
        let span = Span {
            place: Place::Segment(segment),
            base: Offset(100),
            end: Offset(200),
            bytes: 1_000,
            max_timestamp: 0,
            appended: Millis(0),
        };
        let mut thinning = Thinning::starting(Millis(0), 1);
        let mut removed = RunSet::default();
        removed.insert(0..110);
        assert_eq!(thinning.gone(partition, segment, &span, &removed), 100, "ten of a hundred offsets");
        removed.insert(0..190);
        let span = Span { bytes: 500, ..span };
        thinning.wrote(partition, &span, &removed);
        assert_eq!(thinning.gone(partition, segment, &span, &removed), 0);
        removed.insert(190..196);
        assert_eq!(thinning.gone(partition, segment, &span, &removed), 300, "six of the ten that were left");
        removed.insert(196..300);
        assert_eq!(thinning.gone(partition, segment, &span, &removed), 500);
        removed.trim_below(200);
        assert_eq!(thinning.gone(partition, segment, &span, &removed), 0, "what was trimmed is no reason");
    }
}
