//! Spans and their replacement, as state and journal hold them.
//!
//! ```text
//! span         kind u8 (0 extent, 1 segment), extent u64 or segment 16, base u64, end u64, bytes u64, largest time i64, appended i64
//! replacement  partition u32, base u64, end u64, cleaned to u64, spans
//! body of a SegmentsReplaced entry: version u8, replacements
//! ```

use bytes::Bytes;

use firth_journal::entry::{Entry, EntryKind};
use firth_model::ids::{ExtentNumber, Offset, PartitionId, SegmentId};
use firth_model::time::Millis;

use crate::index::{Place, Span};
use crate::layout::{Reader, StateDamage, Writer, begin_value, open_value};

/// What one partition had between two offsets now lies in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    pub partition: PartitionId,
    /// Whole spans were replaced: the first one's base, the last one's end.
    pub base: Offset,
    pub end: Offset,
    /// In the order of offsets; none if nothing was worth keeping.
    pub spans: Vec<Span>,
    /// Below this offset only the newest record of each key is left. 0: nothing was cleaned.
    pub cleaned_to: Offset,
}

/// Largest part of an entry that one replacement without spans takes, and each span of it: for bounding entries.
pub const REPLACED_BYTES: usize = 32;
pub const SPAN_BYTES: usize = 57;

impl Replaced {
    pub fn bytes(&self) -> usize {
        REPLACED_BYTES + self.spans.len() * SPAN_BYTES
    }

    /// The segments that the spans lie in.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.spans.iter().filter_map(|span| if let Place::Segment(id) = span.place { Some(id) } else { None })
    }

    /// What `spans`, in the order of offsets, become.
    pub fn apply_to(&self, spans: &mut Vec<Span>) {
        let from = spans.partition_point(|span| span.end <= self.base);
        let to = spans.partition_point(|span| span.base < self.end).max(from);
        spans.splice(from..to, self.spans.iter().copied());
    }
}

pub fn write_spans(out: &mut Writer, spans: &[Span]) {
    out.count(spans.len());
    for span in spans {
        match span.place {
            Place::Extent(number) => out.u8(0).u64(number.0),
            Place::Segment(id) => out.u8(1).raw(&id.0.to_le_bytes()),
        };
        out.u64(span.base.0).u64(span.end.0).u64(span.bytes).i64(span.max_timestamp).i64(span.appended.0);
    }
}

pub fn read_spans(from: &mut Reader<'_>) -> Result<Vec<Span>, StateDamage> {
    let mut spans = Vec::new();
    for _ in 0..from.count(49)? {
        let place = match from.u8()? {
            0 => Place::Extent(ExtentNumber(from.u64()?)),
            1 => Place::Segment(SegmentId(u128::from_le_bytes(from.sixteen()?))),
            _ => return Err(StateDamage { what: "kind of place" }),
        };
        spans.push(span_in(place, from)?);
    }
    Ok(spans)
}

/// As checkpoints of the first version hold them: all in extents.
pub fn read_extent_spans(from: &mut Reader<'_>) -> Result<Vec<Span>, StateDamage> {
    let mut spans = Vec::new();
    for _ in 0..from.count(48)? {
        let place = Place::Extent(ExtentNumber(from.u64()?));
        spans.push(span_in(place, from)?);
    }
    Ok(spans)
}

fn span_in(place: Place, from: &mut Reader<'_>) -> Result<Span, StateDamage> {
    Ok(Span {
        place,
        base: Offset(from.u64()?),
        end: Offset(from.u64()?),
        bytes: from.u64()?,
        max_timestamp: from.i64()?,
        appended: Millis(from.i64()?),
    })
}

pub fn entry(replaced: &[Replaced]) -> Entry {
    let mut out = begin_value();
    out.count(replaced.len());
    for part in replaced {
        out.u32(part.partition.0).u64(part.base.0).u64(part.end.0).u64(part.cleaned_to.0);
        write_spans(&mut out, &part.spans);
    }
    Entry::reserved(EntryKind::SegmentsReplaced, out.done())
}

pub fn read_entry(body: &Bytes) -> Result<Vec<Replaced>, StateDamage> {
    let mut from = open_value(body)?;
    let mut replaced = Vec::new();
    for _ in 0..from.count(REPLACED_BYTES)? {
        replaced.push(Replaced {
            partition: PartitionId(from.u32()?),
            base: Offset(from.u64()?),
            end: Offset(from.u64()?),
            cleaned_to: Offset(from.u64()?),
            spans: read_spans(&mut from)?,
        });
    }
    from.end()?;
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(place: Place, base: u64, end: u64) -> Span {
        Span { place, base: Offset(base), end: Offset(end), bytes: 9, max_timestamp: -1, appended: Millis(4) }
    }

    #[test]
    fn replacements_survive_their_bytes() {
        let spans = vec![span(Place::Segment(SegmentId(1 << 100 | 7)), 5, 9), span(Place::Extent(ExtentNumber(3)), 9, 12)];
        let parts = vec![
            Replaced { partition: PartitionId(8), base: Offset(5), end: Offset(12), spans, cleaned_to: Offset(9) },
            Replaced { partition: PartitionId(9), base: Offset(0), end: Offset(1), spans: Vec::new(), cleaned_to: Offset(0) },
        ];
        let mut raw = Vec::new();
        entry(&parts).write(&mut raw);
        let (_, body, _) = firth_journal::entry::open_entry(&Bytes::from(raw), 0).expect("own bytes");
        assert_eq!(read_entry(&body).expect("own body"), parts);
        for cut in 0..body.len() {
            assert!(read_entry(&body.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_lies_between_is_replaced_and_nothing_else() {
        let extent = |number, base, end| span(Place::Extent(ExtentNumber(number)), base, end);
        let mut spans = vec![extent(1, 0, 10), extent(2, 10, 20), extent(3, 20, 30)];
        let kept = span(Place::Segment(SegmentId(5)), 3, 20);
        let part = Replaced { partition: PartitionId(1), base: Offset(0), end: Offset(20), spans: vec![kept], cleaned_to: Offset(0) };
        part.apply_to(&mut spans);
        assert_eq!(spans, [kept, extent(3, 20, 30)]);
        Replaced { base: Offset(3), spans: Vec::new(), ..part }.apply_to(&mut spans);
        assert_eq!(spans, [extent(3, 20, 30)]);
    }
}
