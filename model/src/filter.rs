//! A pattern over subjects.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::escape::{CANONICAL, Part, level_begins_with};
use crate::limits::{FILTER_BYTES_MAX, FILTER_LEVELS_MAX};
use crate::subject::{Subject, SubjectError};

/// A list of level patterns; the wildcards of every protocol compile to it.
///
/// Canonical text: levels joined by `/`; `*` matches one level, `pre*` one level that begins with `pre`, `>` one or more levels at the
/// end, `#` none or more levels anywhere. A level that is none of these is a literal, written as in the text of a subject. A clone
/// shares the list. Two filters are equal when their texts and their rules for reserved subjects are; they may still match the same.
#[derive(Clone)]
pub struct Filter {
    text: Bytes,
    levels: Arc<[FilterLevel]>,
    reserved: Reserved,
}

/// What one level of a filter matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FilterLevel {
    /// This level, in canonical text.
    Literal(Bytes),
    /// One level whose bytes begin with these: bytes, not canonical text.
    Prefix(Bytes),
    /// One level, also an empty one.
    One,
    /// One or more levels; only at the end.
    Rest,
    /// None or more levels.
    Any,
}

/// Which subjects a filter whose first level is `*`, `>` or `#` does not match. A filter that names the first level, or its beginning,
/// is not concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reserved {
    /// It matches all: NATS, AMQP.
    Matched,
    /// None whose first level begins with `$`. Source: [MQTT-4.7.2-1].
    DollarHidden,
    /// None whose first level begins with `$` or `_`: captures, and whatever is asked in canonical text.
    Hidden,
}

impl Filter {
    /// Reads canonical text. The filter is `Reserved::Hidden`.
    pub fn parse(text: &str) -> Result<Filter, SubjectError> {
        Filter::from_text(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Takes canonical text as it was stored or sent, without copying it. The filter is `Reserved::Hidden`.
    pub fn from_text(text: Bytes) -> Result<Filter, SubjectError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(SubjectError::TooLong { bytes_max: FILTER_BYTES_MAX });
        }
        if let Err(error) = std::str::from_utf8(&text) {
            return Err(SubjectError::NotUtf8 { at: error.valid_up_to() });
        }
        let count = text.iter().filter(|&&byte| byte == b'/').count() + 1;
        if count > FILTER_LEVELS_MAX {
            return Err(SubjectError::TooDeep { levels: count, levels_max: FILTER_LEVELS_MAX });
        }
        let mut levels = Vec::with_capacity(count);
        let mut start = 0;
        for level in text.split(|&byte| byte == b'/') {
            let level = FilterLevel::read(text.slice(start..start + level.len()), &mut start);
            if level == FilterLevel::Rest && levels.len() + 1 < count {
                return Err(SubjectError::Wildcard { at: start - 2 });
            }
            levels.push(level);
        }
        Ok(Filter { text, levels: levels.into(), reserved: Reserved::Hidden })
    }

    /// The same patterns with another rule for reserved subjects.
    pub fn with_reserved(self, reserved: Reserved) -> Filter {
        Filter { reserved, ..self }
    }

    pub fn reserved(&self) -> Reserved {
        self.reserved
    }

    pub fn levels(&self) -> &[FilterLevel] {
        &self.levels
    }

    /// How often `#` stands before the end.
    pub fn inner_hashes(&self) -> usize {
        let inner = self.levels.split_last().map_or(&[][..], |(_, inner)| inner);
        inner.iter().filter(|level| **level == FilterLevel::Any).count()
    }

    /// The canonical text.
    pub fn as_bytes(&self) -> &Bytes {
        &self.text
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("checked when the filter was made")
    }

    /// Whether the filter matches the subject. Allocates nothing; compares a level of the subject with a level of the filter at most
    /// once for each such pair, whatever the filter.
    pub fn matches(&self, subject: &Subject) -> bool {
        self.sees(subject) && levels_match(&self.levels, subject.as_bytes(), &mut 0)
    }

    /// Whether the filter's rule for reserved subjects lets it match this one.
    pub fn sees(&self, subject: &Subject) -> bool {
        let wildcard_first = matches!(self.levels.first(), Some(FilterLevel::One | FilterLevel::Rest | FilterLevel::Any));
        let hidden = match self.reserved {
            Reserved::Matched => false,
            Reserved::DollarHidden => subject.begins_with_dollar(),
            Reserved::Hidden => subject.is_reserved(),
        };
        !(wildcard_first && hidden)
    }
}

impl FilterLevel {
    /// Compiles one level of canonical text, and moves `start` behind it and its separator.
    fn read(text: Bytes, start: &mut usize) -> FilterLevel {
        *start += text.len() + 1;
        match &text[..] {
            b"*" => FilterLevel::One,
            b">" => FilterLevel::Rest,
            b"#" => FilterLevel::Any,
            [prefix @ .., b'*'] => {
                if !prefix.contains(&b'%') {
                    return FilterLevel::Prefix(text.slice(..prefix.len()));
                }
                let mut raw = Vec::with_capacity(prefix.len());
                CANONICAL.read(prefix, Part::Beginning, |piece| raw.extend_from_slice(piece));
                FilterLevel::Prefix(raw.into())
            }
            _ => FilterLevel::Literal(text),
        }
    }

    /// Whether this pattern matches exactly this one level, given in canonical text.
    pub fn matches_one(&self, level: &[u8]) -> bool {
        match self {
            FilterLevel::Literal(text) => text == level,
            FilterLevel::Prefix(prefix) => level_begins_with(level, prefix),
            FilterLevel::One | FilterLevel::Rest | FilterLevel::Any => true,
        }
    }
}

/// Matches from left to right. After a `#` the first place where what follows it fits is as good as any later one until the next `#`,
/// so only the last `#` seen is ever tried again, each time one level later: at most levels times levels steps, which are counted.
fn levels_match(levels: &[FilterLevel], subject: &[u8], steps: &mut usize) -> bool {
    let mut at = 0;
    let mut rest = Some(subject);
    let mut again = None;
    loop {
        *steps += 1;
        match levels.get(at) {
            Some(FilterLevel::Any) if at + 1 == levels.len() => return true,
            Some(FilterLevel::Any) => {
                at += 1;
                again = Some((at, rest));
                continue;
            }
            Some(FilterLevel::Rest) if rest.is_some() => return true,
            Some(level) => {
                if let Some((first, later)) = rest.map(split_first)
                    && level.matches_one(first)
                {
                    at += 1;
                    rest = later;
                    continue;
                }
            }
            None if rest.is_none() => return true,
            None => {}
        }
        let Some((behind, Some(text))) = again else { return false };
        let (_, later) = split_first(text);
        again = Some((behind, later));
        (at, rest) = (behind, later);
    }
}

/// The first level, and the text behind its separator if there is one.
fn split_first(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&byte| byte == b'/') {
        Some(end) => (&text[..end], Some(&text[end + 1..])),
        None => (text, None),
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        self.text == other.text && self.reserved == other.reserved
    }
}

impl Eq for Filter {}

impl std::hash::Hash for Filter {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.text, self.reserved).hash(state);
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.as_str(), self.reserved)
    }
}

#[cfg(test)]
mod tests;
