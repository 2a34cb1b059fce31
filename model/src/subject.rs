//! The hierarchical name an event is published under.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::escape::{CANONICAL, Part};
use crate::limits::{SUBJECT_BYTES_MAX, SUBJECT_LEVELS_MAX};

/// A name of one or more levels, kept as its canonical text: levels joined by `/`, as `order/init/1.1`.
///
/// A level is a string of any bytes, also none. In canonical text the bytes that a level cannot hold there read as `escape.rs` says, and
/// the text is valid UTF-8. Two subjects are the same exactly when their texts are. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Bytes);

/// Why a text is no subject or no filter. `at` counts the bytes of the text before the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectError {
    TooLong {
        bytes_max: usize,
    },
    TooDeep {
        levels: usize,
        levels_max: usize,
    },
    NotUtf8 {
        at: usize,
    },
    /// A byte that no level can hold in this spelling.
    Character {
        at: usize,
    },
    /// The spelling has no empty level, or no empty text.
    EmptyLevel {
        at: usize,
    },
    /// A wildcard in a subject, or in a filter at a place where it cannot stand.
    Wildcard {
        at: usize,
    },
}

impl Subject {
    /// Reads canonical text.
    pub fn parse(text: &str) -> Result<Subject, SubjectError> {
        Subject::from_text(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Takes canonical text as it was stored or sent, without copying it.
    pub fn from_text(text: Bytes) -> Result<Subject, SubjectError> {
        if text.len() > SUBJECT_BYTES_MAX {
            return Err(SubjectError::TooLong { bytes_max: SUBJECT_BYTES_MAX });
        }
        if let Err(error) = std::str::from_utf8(&text) {
            return Err(SubjectError::NotUtf8 { at: error.valid_up_to() });
        }
        let mut start = 0;
        for (index, level) in text.split(|&byte| byte == b'/').enumerate() {
            if index == SUBJECT_LEVELS_MAX {
                return Err(too_deep(&text));
            }
            if level.ends_with(b"*") || matches!(level, b">" | b"#") {
                return Err(SubjectError::Wildcard { at: start + level.len() - 1 });
            }
            start += level.len() + 1;
        }
        Ok(Subject(text))
    }

    /// The same subject in memory of its own: what is kept long must not keep the buffer that it came in.
    pub fn detached(&self) -> Subject {
        Subject(Bytes::copy_from_slice(&self.0))
    }

    /// Joins levels of any bytes. Of no levels: the subject of one empty level.
    pub fn from_levels<'a>(levels: impl IntoIterator<Item = &'a [u8]>) -> Result<Subject, SubjectError> {
        let mut text = Vec::new();
        for (index, level) in levels.into_iter().enumerate() {
            if index == SUBJECT_LEVELS_MAX {
                return Err(SubjectError::TooDeep { levels: index + 1, levels_max: SUBJECT_LEVELS_MAX });
            }
            if index > 0 {
                text.push(b'/');
            }
            CANONICAL.write(level, Part::Level, &mut text);
            if text.len() > SUBJECT_BYTES_MAX {
                return Err(SubjectError::TooLong { bytes_max: SUBJECT_BYTES_MAX });
            }
        }
        Subject::from_text(text.into())
    }

    /// The canonical text, as it is stored: the key of a record published by subject.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when the subject was made")
    }

    /// The levels as canonical text, at least one. Equal texts are equal levels, so matching needs no more.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.0.split(|&byte| byte == b'/')
    }

    /// The levels as the bytes that they hold.
    pub fn raw_levels(&self) -> impl DoubleEndedIterator<Item = Cow<'_, [u8]>> + Clone {
        self.levels().map(raw_level)
    }

    /// Whether the first level begins with `$`: no leading wildcard of MQTT matches it. Source: MQTT 5.0 section 4.7.2.
    pub fn begins_with_dollar(&self) -> bool {
        self.0.first() == Some(&b'$')
    }

    /// Whether the first level begins with `$` or `_`: names that protocols keep for themselves.
    pub fn is_reserved(&self) -> bool {
        matches!(self.0.first(), Some(b'$' | b'_'))
    }
}

/// The bytes of a level that is given in canonical text.
pub fn raw_level(level: &[u8]) -> Cow<'_, [u8]> {
    if !level.contains(&b'%') {
        return Cow::Borrowed(level);
    }
    let mut raw = Vec::with_capacity(level.len());
    CANONICAL.read(level, Part::Level, |piece| raw.extend_from_slice(piece));
    Cow::Owned(raw)
}

fn too_deep(text: &[u8]) -> SubjectError {
    let levels = text.iter().filter(|&&byte| byte == b'/').count() + 1;
    SubjectError::TooDeep { levels, levels_max: SUBJECT_LEVELS_MAX }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl std::error::Error for SubjectError {}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubjectError::TooLong { bytes_max } => write!(f, "longer than {bytes_max} bytes"),
            SubjectError::TooDeep { levels, levels_max } => write!(f, "{levels} levels, more than {levels_max}"),
            SubjectError::NotUtf8 { at } => write!(f, "no UTF-8 at byte {at}"),
            SubjectError::Character { at } => write!(f, "the character at byte {at} is not allowed"),
            SubjectError::EmptyLevel { at } => write!(f, "empty level at byte {at}"),
            SubjectError::Wildcard { at } => write!(f, "the wildcard at byte {at} cannot stand there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Vec<Vec<u8>> {
        Subject::parse(text).unwrap().raw_levels().map(Cow::into_owned).collect()
    }

    #[test]
    fn levels_come_apart_and_together() {
        let subject = Subject::parse("order/init/1.1/icecream").unwrap();
        assert_eq!(subject.levels().collect::<Vec<_>>(), [&b"order"[..], b"init", b"1.1", b"icecream"]);
        assert_eq!(subject.to_string(), "order/init/1.1/icecream");
        assert_eq!(raw(""), [b""]);
        assert_eq!(raw("/"), [b"", b""]);
        assert_eq!(raw("a%2Fb//%252F/%2A"), [&b"a/b"[..], b"", b"%2F", b"*"]);
        let levels = [&b"a/b"[..], b"", b"\xFF", b">"];
        assert_eq!(Subject::from_levels(levels).unwrap().as_str(), "a%2Fb//%FF/%3E");
        assert_eq!(Subject::from_levels([]).unwrap().as_str(), "");
    }

    #[test]
    fn limits_hold() {
        assert!(Subject::parse(&"/".repeat(200)).is_ok());
        assert_eq!(Subject::parse(&"/".repeat(201)), Err(SubjectError::TooDeep { levels: 202, levels_max: 201 }));
        assert!(Subject::parse(&"x".repeat(8192)).is_ok());
        assert_eq!(Subject::parse(&"x".repeat(8193)), Err(SubjectError::TooLong { bytes_max: 8192 }));
        assert_eq!(Subject::from_levels([&[0xFF; 3000][..]]), Err(SubjectError::TooLong { bytes_max: 8192 }));
        assert!(Subject::from_levels([&b"a"[..]; 201]).is_ok());
        assert!(matches!(Subject::from_levels([&b"a"[..]; 202]), Err(SubjectError::TooDeep { .. })));
        assert_eq!(Subject::from_text(Bytes::from_static(b"a\xFF")), Err(SubjectError::NotUtf8 { at: 1 }));
    }

    #[test]
    fn wildcards_are_no_subjects() {
        for (text, at) in [("a/*", 2), ("pre*/b", 3), (">", 0), ("a/#/b", 2)] {
            assert_eq!(Subject::parse(text), Err(SubjectError::Wildcard { at }), "{text}");
        }
        assert!(Subject::parse("a*b/>a/##").is_ok());
    }

    #[test]
    fn reserved_names_are_known_by_their_first_byte() {
        let first = |text| Subject::parse(text).map(|subject| (subject.begins_with_dollar(), subject.is_reserved()));
        assert_eq!(first("$SYS/a"), Ok((true, true)));
        assert_eq!(first("_INBOX/a"), Ok((false, true)));
        assert_eq!(first("a/$b/_c"), Ok((false, false)));
        assert_eq!(first(""), Ok((false, false)));
    }
}
