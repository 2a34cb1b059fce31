//! Names that people give, checked once at the door.

use std::fmt;
use std::sync::Arc;

/// Name of a stream: 1 to 249 bytes of `A-Z a-z 0-9 . _ -`, not `.` or `..`.
///
/// These are the names that Apache Kafka allows for a topic, the narrowest of the protocols we speak.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong { bytes: usize, bytes_max: usize },
    Reserved,
    Character { at: usize },
}

impl StreamName {
    pub const BYTES_MAX: usize = 249;

    pub fn parse(text: &str) -> Result<StreamName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len(), bytes_max: Self::BYTES_MAX });
        }
        if text == "." || text == ".." {
            return Err(NameError::Reserved);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match text.bytes().position(|byte| !allowed(byte)) {
            Some(at) => Err(NameError::Character { at }),
            None => Ok(StreamName(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for StreamName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kafka_topics_are_names() {
        for good in ["a", "orders.eu", "A_b-9", &"x".repeat(249)] {
            assert_eq!(StreamName::parse(good).map(|name| name.as_str().to_owned()), Ok(good.to_owned()));
        }
        assert_eq!(StreamName::parse(""), Err(NameError::Empty));
        assert_eq!(StreamName::parse(".."), Err(NameError::Reserved));
        assert_eq!(StreamName::parse("../x"), Err(NameError::Character { at: 2 }));
        assert_eq!(StreamName::parse("ä"), Err(NameError::Character { at: 0 }));
        assert!(matches!(StreamName::parse(&"x".repeat(250)), Err(NameError::TooLong { .. })));
    }
}
