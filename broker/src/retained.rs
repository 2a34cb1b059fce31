//! The newest retained message of each subject: where it lies.
//!
//! The messages are in one hidden stream that is compacted by subject. This index is what subscribers ask; its entries are journalled in
//! the groups of their records, so it is there when the node is.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use firth_model::filter::{Filter, FilterLevel};
use firth_model::ids::Offset;
use firth_model::removed::RunSet;
use firth_model::subject::Subject;

/// Name of the hidden stream.
pub const RETAINED_STREAM: &str = "_retained";

/// By the text of the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    newest: BTreeMap<Bytes, Offset>,
}

impl Retained {
    /// `None`: nothing is retained for the subject any more.
    pub fn put(&mut self, subject: &Bytes, at: Option<Offset>) {
        match at {
            Some(at) => self.newest.insert(subject.clone(), at),
            None => self.newest.remove(subject),
        };
    }

    pub fn at(&self, subject: &Bytes) -> Option<Offset> {
        self.newest.get(subject).copied()
    }

    /// The subjects whose newest lies at one of these offsets.
    pub fn among(&self, offsets: &RunSet) -> Vec<Bytes> {
        self.newest.iter().filter(|(_, at)| offsets.contains(at.0)).map(|(subject, _)| subject.clone()).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = (&Bytes, Offset)> {
        self.newest.iter().map(|(subject, at)| (subject, *at))
    }

    /// Adds the offsets whose subjects match, in the order of the subjects, of the next `at_most` that come into question. Gives the
    /// subject behind which to go on; `None`: these were the last.
    pub fn matching(&self, filter: &Filter, after: Option<&Bytes>, at_most: usize, found: &mut Vec<Offset>) -> Option<Bytes> {
        let begin = literal_beginning(filter);
        let from = match after {
            Some(after) => Bound::Excluded(&after[..]),
            None => Bound::Included(&begin[..]),
        };
        let under = self.newest.range::<[u8], _>((from, Bound::Unbounded)).take_while(|(subject, _)| subject.starts_with(&begin));
        let (mut looked, mut last) = (0, None);
        for (subject, at) in under.take(at_most) {
            if Subject::from_text(subject.clone()).is_ok_and(|subject| filter.matches(&subject)) {
                found.push(*at);
            }
            (looked, last) = (looked + 1, Some(subject));
        }
        last.filter(|_| looked == at_most).cloned()
    }
}

/// What every subject that the filter matches begins with.
pub fn literal_beginning(filter: &Filter) -> Vec<u8> {
    let mut begin = Vec::new();
    for (at, level) in filter.levels().iter().enumerate() {
        let FilterLevel::Literal(text) = level else { break };
        if at > 0 {
            begin.push(b'/');
        }
        begin.extend_from_slice(text);
    }
    begin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_find_the_subjects_they_match() {
        let mut retained = Retained::default();
        for (at, subject) in ["a", "a/b", "a/b/c", "ab", "b/b", "a/c"].iter().enumerate() {
            retained.put(&Bytes::from_static(subject.as_bytes()), Some(Offset(at as u64)));
        }
        let found = |filter: &str| {
            let filter = Filter::parse(filter).expect("a filter");
            let by = |at_most| {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    after = retained.matching(&filter, after.as_ref(), at_most, &mut found);
                    if after.is_none() {
                        return found.iter().map(|at| at.0).collect::<Vec<_>>();
                    }
                }
            };
            assert!((1..8).all(|at_most| by(at_most) == by(100)), "in pieces and at once");
            by(100)
        };
        assert_eq!(found("a"), [0]);
        assert_eq!(found("a/#"), [0, 1, 2, 5]);
        assert_eq!(found("a/>"), [1, 2, 5]);
        assert_eq!(found("*/b"), [1, 4]);
        assert_eq!(found("#"), [0, 1, 2, 5, 3, 4]);
        assert_eq!(found("x/#"), [0; 0]);
        assert_eq!(retained.among(&[1..2, 2..3].into_iter().collect()), ["a/b", "a/b/c"]);
        retained.put(&Bytes::from_static(b"a/b"), None);
        assert_eq!((retained.all().count(), retained.at(&Bytes::from_static(b"a/b"))), (5, None));
    }
}
