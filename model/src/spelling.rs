//! How each protocol writes subjects and filters.
//!
//! A table of facts about texts, no protocol: separator, wildcards, and the bytes that a level cannot hold there. Within one spelling
//! subjects and texts correspond one to one, by the escapes of `escape.rs`. All texts are UTF-8.

use crate::escape::{Alphabet, Ban, CANONICAL, Empty, Part};
use crate::filter::{Filter, FilterLevel, Reserved};
use crate::limits::{FILTER_BYTES_MAX, FILTER_LEVELS_MAX, SUBJECT_BYTES_MAX, SUBJECT_LEVELS_MAX};
use crate::subject::{Subject, SubjectError, raw_level};

/// Whose text it is. Names of streams are in `stream_subject.rs`: they know no escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spelling {
    /// `/`, with `*`, `pre*`, `>`, `#`: our own text, also that of HTTP.
    Canonical,
    /// `/`, with `+` for one level and `#` at the end for none or more. `+`, `#` and U+0000 never stand in a level, and a text has at
    /// least one character: the subject of one empty level is `%00`. Source: MQTT 5.0 section 4.7.
    Mqtt,
    /// `.`, with `*` for one level and `>` at the end for one or more, as whole levels; `a*b` is a name. White space, U+0000 and empty
    /// levels do not exist. Source: the NATS documentation of subjects, and ADR-6.
    Nats,
    /// `.`, with `*` for one level and `#` anywhere for none or more, as whole levels. U+0000 does not exist.
    /// Source: AMQP 0-9-1 section 3.1.3.3 for wildcards, 4.2.5.3 for short strings.
    Amqp,
}

static MQTT: Alphabet =
    Alphabet::of(Empty::NotOnly, &[(b'/', Ban::Anywhere), (b'+', Ban::Anywhere), (b'#', Ban::Anywhere), (0, Ban::Anywhere)]);

static NATS: Alphabet = Alphabet::of(
    Empty::Never,
    &[
        (b'.', Ban::Anywhere),
        (b'*', Ban::Alone),
        (b'>', Ban::Alone),
        (b' ', Ban::Anywhere),
        (b'\t', Ban::Anywhere),
        (b'\r', Ban::Anywhere),
        (b'\n', Ban::Anywhere),
        (b'\x0C', Ban::Anywhere),
        (0, Ban::Anywhere),
    ],
);

static AMQP: Alphabet = Alphabet::of(Empty::Written, &[(b'.', Ban::Anywhere), (b'*', Ban::Alone), (b'#', Ban::Alone), (0, Ban::Anywhere)]);

/// What a text is read as, with the bounds of the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Subject,
    Filter,
}

impl Spelling {
    pub const ALL: [Spelling; 4] = [Spelling::Canonical, Spelling::Mqtt, Spelling::Nats, Spelling::Amqp];

    /// Reads a subject: a topic name, a subject, a routing key. A text with a wildcard in it is none.
    pub fn subject(self, text: &[u8]) -> Result<Subject, SubjectError> {
        Subject::from_text(self.canonical(text, Kind::Subject)?.into())
    }

    /// Reads a filter: a topic filter, a subject with wildcards, a binding key. What it matches of reserved subjects is its protocol's
    /// rule.
    pub fn filter(self, text: &[u8]) -> Result<Filter, SubjectError> {
        let filter = Filter::from_text(self.canonical(text, Kind::Filter)?.into())?;
        Ok(filter.with_reserved(match self {
            Spelling::Canonical => Reserved::Hidden,
            Spelling::Mqtt => Reserved::DollarHidden,
            Spelling::Nats | Spelling::Amqp => Reserved::Matched,
        }))
    }

    /// Appends the subject's text, which is UTF-8. It can be longer than the protocol's own limit for such a text.
    pub fn write_subject(self, subject: &Subject, out: &mut Vec<u8>) {
        if self == Spelling::Canonical {
            out.extend_from_slice(subject.as_bytes());
            return;
        }
        let part = if subject.as_bytes().contains(&b'/') { Part::Level } else { Part::Only };
        for (index, level) in subject.levels().enumerate() {
            if index > 0 {
                out.push(self.separator());
            }
            self.write_level(level, part, out);
        }
    }

    pub fn subject_text(self, subject: &Subject) -> String {
        let mut out = Vec::with_capacity(subject.as_bytes().len());
        self.write_subject(subject, &mut out);
        String::from_utf8(out).expect("every spelling writes UTF-8")
    }

    /// The filter's text, if the spelling has the wildcards for it. `>` is written `+/#` in MQTT and `*.#` in AMQP, which matches the
    /// same. The text does not tell what the filter does with reserved subjects.
    pub fn filter_text(self, filter: &Filter) -> Option<String> {
        if self == Spelling::Canonical {
            return Some(filter.as_str().to_owned());
        }
        let levels = filter.levels();
        let part = if levels.len() > 1 { Part::Level } else { Part::Only };
        let mut out = Vec::with_capacity(filter.as_bytes().len() + 2);
        for (index, level) in levels.iter().enumerate() {
            if index > 0 {
                out.push(self.separator());
            }
            match level {
                FilterLevel::Literal(text) => self.write_level(text, part, &mut out),
                pattern => out.extend_from_slice(self.wildcard_text(pattern, index + 1 == levels.len())?),
            }
        }
        Some(String::from_utf8(out).expect("every spelling writes UTF-8"))
    }

    fn alphabet(self) -> &'static Alphabet {
        match self {
            Spelling::Canonical => &CANONICAL,
            Spelling::Mqtt => &MQTT,
            Spelling::Nats => &NATS,
            Spelling::Amqp => &AMQP,
        }
    }

    fn separator(self) -> u8 {
        match self {
            Spelling::Canonical | Spelling::Mqtt => b'/',
            Spelling::Nats | Spelling::Amqp => b'.',
        }
    }

    /// The canonical text of a level that is a wildcard.
    fn wildcard(self, level: &[u8]) -> Option<&'static [u8]> {
        match (self, level) {
            (Spelling::Mqtt, b"+") | (Spelling::Nats | Spelling::Amqp, b"*") => Some(b"*"),
            (Spelling::Mqtt | Spelling::Amqp, b"#") => Some(b"#"),
            (Spelling::Nats, b">") => Some(b">"),
            _ => None,
        }
    }

    fn wildcard_text(self, pattern: &FilterLevel, last: bool) -> Option<&'static [u8]> {
        match (self, pattern) {
            (Spelling::Mqtt, FilterLevel::One) => Some(b"+"),
            (Spelling::Mqtt, FilterLevel::Any) if last => Some(b"#"),
            (Spelling::Mqtt, FilterLevel::Rest) => Some(b"+/#"),
            (Spelling::Nats | Spelling::Amqp, FilterLevel::One) => Some(b"*"),
            (Spelling::Nats, FilterLevel::Rest) => Some(b">"),
            (Spelling::Amqp, FilterLevel::Any) => Some(b"#"),
            (Spelling::Amqp, FilterLevel::Rest) => Some(b"*.#"),
            _ => None,
        }
    }

    /// Translates a text to canonical text. Work and memory are bounded by the bounds of the result plus the text.
    fn canonical(self, text: &[u8], kind: Kind) -> Result<Vec<u8>, SubjectError> {
        let (bytes_max, levels_max) = match kind {
            Kind::Subject => (SUBJECT_BYTES_MAX, SUBJECT_LEVELS_MAX),
            Kind::Filter => (FILTER_BYTES_MAX, FILTER_LEVELS_MAX),
        };
        if self == Spelling::Canonical {
            return if text.len() > bytes_max { Err(SubjectError::TooLong { bytes_max }) } else { Ok(text.to_vec()) };
        }
        if let Err(error) = std::str::from_utf8(text) {
            return Err(SubjectError::NotUtf8 { at: error.valid_up_to() });
        }
        let separator = self.separator();
        let levels = text.iter().filter(|&&byte| byte == separator).count() + 1;
        if levels > levels_max {
            return Err(SubjectError::TooDeep { levels, levels_max });
        }
        let part = if levels > 1 { Part::Level } else { Part::Only };
        let mut out = Vec::with_capacity(text.len().min(bytes_max));
        let mut start = 0;
        for (index, level) in text.split(|&byte| byte == separator).enumerate() {
            if index > 0 {
                out.push(b'/');
            }
            match self.wildcard(level).filter(|_| kind == Kind::Filter) {
                Some(b"#") if self == Spelling::Mqtt && index + 1 < levels => return Err(SubjectError::Wildcard { at: start }),
                // Checked here as well as by the filter, which would count in the canonical text.
                Some(b">") if index + 1 < levels => return Err(SubjectError::Wildcard { at: start }),
                Some(wildcard) => out.extend_from_slice(wildcard),
                None => self.read_level(level, part, &mut out).map_err(|error| moved(error, start))?,
            }
            if out.len() > bytes_max {
                return Err(SubjectError::TooLong { bytes_max });
            }
            start += level.len() + 1;
        }
        Ok(out)
    }

    /// Appends a level in canonical text. Positions in errors count from the beginning of the level.
    fn read_level(self, level: &[u8], part: Part, out: &mut Vec<u8>) -> Result<(), SubjectError> {
        let alphabet = self.alphabet();
        if alphabet.is_plain(level) && CANONICAL.is_plain(level) {
            out.extend_from_slice(level);
            return Ok(());
        }
        if level.is_empty() && !alphabet.writes_empty(part) {
            return Err(SubjectError::EmptyLevel { at: 0 });
        }
        if let Some(at) = alphabet.first_banned(level, part) {
            let wildcard = self.wildcard(&level[at..at + 1]).is_some();
            return Err(if wildcard { SubjectError::Wildcard { at } } else { SubjectError::Character { at } });
        }
        let mut raw = Vec::with_capacity(level.len());
        alphabet.read(level, part, |piece| raw.extend_from_slice(piece));
        CANONICAL.write(&raw, part, out);
        Ok(())
    }

    /// Appends the text of a level that is given in canonical text.
    fn write_level(self, level: &[u8], part: Part, out: &mut Vec<u8>) {
        if self.alphabet().is_plain(level) {
            out.extend_from_slice(level);
        } else {
            self.alphabet().write(&raw_level(level), part, out);
        }
    }
}

/// The error with its position counted from `start` bytes earlier.
fn moved(error: SubjectError, start: usize) -> SubjectError {
    match error {
        SubjectError::NotUtf8 { at } => SubjectError::NotUtf8 { at: at + start },
        SubjectError::Character { at } => SubjectError::Character { at: at + start },
        SubjectError::EmptyLevel { at } => SubjectError::EmptyLevel { at: at + start },
        SubjectError::Wildcard { at } => SubjectError::Wildcard { at: at + start },
        SubjectError::TooLong { .. } | SubjectError::TooDeep { .. } => error,
    }
}

/// For fuzzing: reads the bytes as a subject and as a filter in every spelling. What can be read has to come back as it was, and a
/// subject's text has to match as a filter.
pub fn fuzz_decode(bytes: &[u8]) {
    for spelling in Spelling::ALL {
        let subject = spelling.subject(bytes);
        if let Ok(subject) = &subject {
            assert_eq!(spelling.subject_text(subject).as_bytes(), bytes, "{spelling:?}");
            for other in Spelling::ALL {
                assert_eq!(other.subject(other.subject_text(subject).as_bytes()).as_ref(), Ok(subject), "{other:?}");
            }
        }
        let Ok(filter) = spelling.filter(bytes) else {
            assert!(subject.is_err(), "{spelling:?} reads a subject that is no filter");
            continue;
        };
        assert_eq!(Spelling::Canonical.filter(filter.as_bytes()).map(|again| again.levels() == filter.levels()), Ok(true));
        if let Ok(subject) = subject {
            assert!(filter.with_reserved(Reserved::Matched).matches(&subject), "{spelling:?}");
        }
    }
}

#[cfg(test)]
mod tests;
