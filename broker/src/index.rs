//! Where the batches of one partition lie.
//!
//! Batches in recent extents have a row each; a sealed extent or a segment is one span, whose rows are in its own directory. So memory
//! follows the number of extents and segments a partition lives in, not the number of its batches.

use std::collections::VecDeque;

use firth_model::ids::{ExtentNumber, Offset, Position, SegmentId};
use firth_model::time::Millis;

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub base: Offset,
    pub records: u32,
    /// Bytes of the whole journal entry at `position`.
    pub bytes: u32,
    /// Those of them that name other partitions: they count for nobody.
    pub shared_bytes: u32,
    pub position: Position,
    pub max_timestamp: i64,
    pub appended: Millis,
}

impl Row {
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.records))
    }

    /// What the partition is charged.
    pub fn own_bytes(&self) -> u64 {
        u64::from(self.bytes.saturating_sub(self.shared_bytes))
    }
}

/// What holds a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Extent(ExtentNumber),
    Segment(SegmentId),
}

/// All batches of the partition with offsets from `base` to before `end`, in one sealed extent or one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub place: Place,
    pub base: Offset,
    pub end: Offset,
    pub bytes: u64,
    pub max_timestamp: i64,
    /// When the newest of them was appended.
    pub appended: Millis,
}

/// A batch, or all batches of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub base: Offset,
    pub end: Offset,
    pub bytes: u64,
    /// Of pieces of several partitions: when each was appended, and where. What lies in spans has no position.
    pub order: (Millis, Position),
}

impl Piece {
    fn records(&self) -> u128 {
        u128::from(self.end.0.saturating_sub(self.base.0)).max(1)
    }

    /// Bytes of so many of its records, about.
    pub fn bytes_of(&self, records: u64) -> u64 {
        u64::try_from(u128::from(self.bytes) * u128::from(records) / self.records()).unwrap_or(u64::MAX)
    }

    /// How many of its records make so many bytes, about.
    pub fn records_of(&self, bytes: u64) -> u64 {
        let records = (u128::from(bytes) * self.records()).div_ceil(u128::from(self.bytes).max(1));
        u64::try_from(records).unwrap_or(u64::MAX)
    }
}

impl From<&Span> for Piece {
    fn from(span: &Span) -> Piece {
        Piece { base: span.base, end: span.end, bytes: span.bytes, order: (span.appended, Position(0)) }
    }
}

impl From<&Row> for Piece {
    fn from(row: &Row) -> Piece {
        Piece { base: row.base, end: row.end(), bytes: row.own_bytes(), order: (row.appended, row.position) }
    }
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// In a sealed extent or a segment: ask its directory.
    Span(Span),
    /// The row's place among the rows.
    Row(usize),
    /// At or behind the end.
    End,
}

#[derive(Debug, Default)]
pub struct Index {
    spans: VecDeque<Span>,
    rows: VecDeque<Row>,
    bytes: u64,
}

impl Index {
    /// An index without rows.
    pub fn of_spans(spans: Vec<Span>) -> Index {
        let bytes = spans.iter().map(|span| span.bytes).sum();
        Index { spans: spans.into(), rows: VecDeque::new(), bytes }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn rows(&self) -> &VecDeque<Row> {
        &self.rows
    }

    pub fn spans(&self) -> &VecDeque<Span> {
        &self.spans
    }

    pub fn push(&mut self, row: Row) {
        // A repair leaves gaps.
        debug_assert!(self.rows.back().is_none_or(|last| last.end() <= row.base));
        self.bytes += row.own_bytes();
        self.rows.push_back(row);
    }

    /// The batch that holds `offset`, or the first one after it.
    pub fn find(&self, offset: Offset) -> Spot {
        if let Some(span) = self.spans.get(self.spans.partition_point(|span| span.end <= offset)) {
            return Spot::Span(*span);
        }
        let at = self.rows.partition_point(|row| row.end() <= offset);
        if at < self.rows.len() { Spot::Row(at) } else { Spot::End }
    }

    /// The first piece with offsets at or above this one.
    pub fn piece_from(&self, offset: Offset) -> Option<Piece> {
        match self.find(offset) {
            Spot::Span(span) => Some(Piece::from(&span)),
            Spot::Row(at) => self.rows.get(at).map(Piece::from),
            Spot::End => None,
        }
    }

    /// The last piece with offsets below this one.
    pub fn piece_before(&self, offset: Offset) -> Option<Piece> {
        let row = self.rows.partition_point(|row| row.base < offset).checked_sub(1);
        if let Some(row) = row.and_then(|at| self.rows.get(at)) {
            return Some(Piece::from(row));
        }
        let span = self.spans.partition_point(|span| span.base < offset).checked_sub(1)?;
        self.spans.get(span).map(Piece::from)
    }

    /// Bytes of the batches between two offsets, about: parts of spans by their share, rows as if all were alike.
    pub fn bytes_in(&self, from: Offset, to: Offset) -> u64 {
        let share = |bytes: u64, base: Offset, end: Offset| {
            let part = to.0.min(end.0).saturating_sub(from.0.max(base.0));
            let whole = end.0.saturating_sub(base.0).max(1);
            u64::try_from(u128::from(bytes) * u128::from(part) / u128::from(whole)).unwrap_or(u64::MAX)
        };
        let spans: u64 = self.spans.iter().map(|span| share(span.bytes, span.base, span.end)).sum();
        let (Some(first), Some(last)) = (self.rows.front(), self.rows.back()) else { return spans };
        let in_rows = self.bytes - self.spans.iter().map(|span| span.bytes).sum::<u64>();
        spans + share(in_rows, first.base, last.end())
    }

    /// Folds the rows that lie in `extent` into a span. True if there were any.
    pub fn seal(&mut self, extent: ExtentNumber, extent_of: impl Fn(Position) -> ExtentNumber) -> bool {
        let mut span: Option<Span> = None;
        while let Some(row) = self.rows.front().copied() {
            if extent_of(row.position) > extent {
                break;
            }
            self.rows.pop_front();
            let grown = span.get_or_insert(Span {
                place: Place::Extent(extent),
                base: row.base,
                end: row.base,
                bytes: 0,
                max_timestamp: i64::MIN,
                appended: row.appended,
            });
            grown.end = row.end();
            grown.bytes += row.own_bytes();
            grown.max_timestamp = grown.max_timestamp.max(row.max_timestamp);
            grown.appended = grown.appended.max(row.appended);
        }
        if self.rows.is_empty() {
            // A partition that went quiet keeps no buffer.
            self.rows.shrink_to_fit();
        }
        match span {
            Some(span) => {
                self.spans.push_back(span);
                true
            }
            None => false,
        }
    }

    /// Drops what lies wholly below `log_start`; calls `gone` for each span, and for each extent in which no row is left.
    pub fn trim(&mut self, log_start: Offset, extent_of: impl Fn(Position) -> ExtentNumber, mut gone: impl FnMut(Place, u64)) {
        while let Some(span) = self.spans.front().copied().filter(|span| span.end <= log_start) {
            self.spans.pop_front();
            self.bytes -= span.bytes;
            gone(span.place, span.bytes);
        }
        self.pop_rows(|row| row.end() <= log_start, extent_of, gone);
    }

    fn pop_rows(&mut self, which: impl Fn(&Row) -> bool, extent_of: impl Fn(Position) -> ExtentNumber, mut gone: impl FnMut(Place, u64)) {
        while let Some(row) = self.rows.front().copied().filter(&which) {
            self.rows.pop_front();
            self.bytes -= row.own_bytes();
            let extent = extent_of(row.position);
            if self.rows.front().is_none_or(|next| extent_of(next.position) != extent) {
                gone(Place::Extent(extent), 0);
            }
        }
    }

    /// Puts `spans`, which lie between `base` and `end`, in the place of everything that does. Calls `gone` as `trim` does.
    ///
    /// What is replaced is whole: no span or row reaches over `base` or `end`, but for a first one that was trimmed since.
    pub fn replace(
        &mut self,
        (base, end): (Offset, Offset),
        spans: &[Span],
        extent_of: impl Fn(Position) -> ExtentNumber,
        mut gone: impl FnMut(Place, u64),
    ) {
        let from = self.spans.partition_point(|span| span.end <= base);
        let to = self.spans.partition_point(|span| span.base < end).max(from);
        for span in self.spans.drain(from..to) {
            self.bytes -= span.bytes;
            gone(span.place, span.bytes);
        }
        self.pop_rows(|row| row.base < end && row.base >= base, extent_of, gone);
        for (at, span) in spans.iter().enumerate() {
            self.bytes += span.bytes;
            self.spans.insert(from + at, *span);
        }
    }

    /// The smallest log start that age and size ask for. `None`: nothing to remove.
    ///
    /// Whole spans and whole rows only; size never removes what would bring the partition below `bytes_max`, as Apache Kafka does
    /// with its segments.
    pub fn expired(&self, before: Option<Millis>, bytes_max: Option<u64>) -> Option<Offset> {
        let mut bytes = self.bytes;
        let mut start = None;
        let parts = self.spans.iter().map(|span| (span.end, span.bytes, span.appended));
        let rows = self.rows.iter().map(|row| (row.end(), row.own_bytes(), row.appended));
        for (end, part_bytes, appended) in parts.chain(rows) {
            let old = before.is_some_and(|before| appended < before);
            let over = bytes_max.is_some_and(|bytes_max| bytes - part_bytes >= bytes_max);
            if !old && !over {
                break;
            }
            bytes -= part_bytes;
            start = Some(end);
        }
        start
    }

    /// Bytes of the spans in segments.
    pub fn archived_bytes(&self) -> u64 {
        self.spans.iter().filter(|span| matches!(span.place, Place::Segment(_))).map(|span| span.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent_of(position: Position) -> ExtentNumber {
        ExtentNumber(position.0 / 100)
    }

    fn index(rows: u64) -> Index {
        let mut index = Index::default();
        for at in 0..rows {
            let position = Position(at * 20);
            let appended = Millis(at as i64);
            index.push(Row {
                base: Offset(at * 10),
                records: 10,
                bytes: 20,
                shared_bytes: 0,
                position,
                max_timestamp: at as i64,
                appended,
            });
        }
        index
    }

    #[test]
    fn rows_fold_into_spans_and_are_found() {
        let mut index = index(12);
        assert!(index.seal(ExtentNumber(0), extent_of));
        assert!(!index.seal(ExtentNumber(0), extent_of));
        assert_eq!(index.spans().len(), 1);
        assert_eq!((index.spans()[0].base, index.spans()[0].end, index.spans()[0].bytes), (Offset(0), Offset(50), 100));
        assert_eq!(index.find(Offset(49)), Spot::Span(index.spans()[0]));
        assert_eq!(index.find(Offset(50)), Spot::Row(0));
        assert_eq!(index.find(Offset(119)), Spot::Row(6));
        assert_eq!(index.find(Offset(120)), Spot::End);
        assert_eq!(index.bytes(), 240);
    }

    #[test]
    fn trimming_frees_an_extent_once_nothing_is_left_in_it() {
        let mut index = index(12);
        index.seal(ExtentNumber(0), extent_of);
        let mut gone = Vec::new();
        index.trim(Offset(49), extent_of, |place, _| gone.push(place));
        assert!(gone.is_empty());
        index.trim(Offset(60), extent_of, |place, _| gone.push(place));
        assert_eq!(gone, [Place::Extent(ExtentNumber(0))]);
        index.trim(Offset(120), extent_of, |place, _| gone.push(place));
        assert_eq!(gone, [0, 1, 2].map(|extent| Place::Extent(ExtentNumber(extent))));
        assert_eq!(index.bytes(), 0);
    }

    #[test]
    fn age_and_size_remove_whole_parts_from_the_front() {
        let mut index = index(12);
        index.seal(ExtentNumber(0), extent_of);
        assert_eq!(index.expired(None, None), None);
        assert_eq!(index.expired(Some(Millis(4)), None), None, "the span's newest batch is not old enough");
        assert_eq!(index.expired(Some(Millis(6)), None), Some(Offset(60)));
        assert_eq!(index.expired(None, Some(240)), None);
        assert_eq!(index.expired(None, Some(139)), Some(Offset(60 - 10)), "a span of 100 goes, then a row would go below");
        assert_eq!(index.expired(None, Some(0)), Some(Offset(120)));
    }

    proptest::proptest! {
        /// Apache Kafka's documented rule for `retention.bytes`: the oldest segment goes while what is left without it is at least the
        /// limit. Offsets of what stays do not change.
        #[test]
        fn size_removes_what_kafka_would(sizes in proptest::collection::vec(1u64..500, 0..40), limit in 0u64..4000, sealed in 0usize..40) {
            let mut index = Index::default();
            let mut base = 0;
            for (at, bytes) in sizes.iter().enumerate() {
                let span = Span {
                    place: Place::Segment(SegmentId(at as u128)),
                    base: Offset(base),
                    end: Offset(base + 7),
                    bytes: *bytes,
                    max_timestamp: 0,
                    appended: Millis(0),
                };
                if at < sealed {
                    index.replace((span.base, span.end), &[span], extent_of, |_, _| ());
                } else {
                    let bytes = u32::try_from(*bytes).expect("small");
                    let position = Position(at as u64 * 100);
                    let row = Row { base: span.base, records: 7, bytes, shared_bytes: 0, position, max_timestamp: 0, appended: Millis(0) };
                    index.push(row);
                }
                base += 7;
            }
            let mut model: VecDeque<u64> = sizes.iter().copied().collect();
            while model.front().is_some_and(|first| model.iter().sum::<u64>() - first >= limit) {
                model.pop_front();
            }
            let removed = sizes.len() - model.len();
            let expected = (removed > 0).then(|| Offset(removed as u64 * 7));
            proptest::prop_assert_eq!(index.expired(None, Some(limit)), expected);
            index.trim(expected.unwrap_or_default(), extent_of, |_, _| ());
            proptest::prop_assert_eq!(index.bytes(), model.iter().sum::<u64>());
            let first = index.find(expected.unwrap_or_default());
            proptest::prop_assert_eq!(first == Spot::End, model.is_empty());
        }
    }
}
