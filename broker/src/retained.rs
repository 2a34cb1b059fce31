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

    /// The offsets whose subjects match, in the order of the subjects.
    pub fn matching(&self, filter: &Filter) -> Vec<Offset> {
        let begin = literal_beginning(filter);
        let from = self.newest.range::<[u8], _>((Bound::Included(&begin[..]), Bound::Unbounded));
        let under = from.take_while(|(subject, _)| subject.starts_with(&begin));
        let matches = |subject: &Bytes| Subject::from_text(subject.clone()).is_ok_and(|subject| filter.matches(&subject));
        under.filter(|(subject, _)| matches(subject)).map(|(_, at)| *at).collect()
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
        let found = |filter: &str| retained.matching(&Filter::parse(filter).expect("a filter")).iter().map(|at| at.0).collect::<Vec<_>>();
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
