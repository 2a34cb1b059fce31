//! Strings and binary data: what a two-byte length can precede.

use std::fmt;

use bytes::Bytes;

/// The longest string or binary value ([MQTT-1.5.4], 1.5.6): its length has two bytes.
pub const FIELD_BYTES_MAX: usize = 65_535;

/// A UTF-8 string as MQTT allows it: well-formed ([MQTT-1.5.4-1]), without U+0000 ([MQTT-1.5.4-2]), at most 65,535 bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

/// Why bytes are no [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    #[error("a string is not well-formed UTF-8")]
    NotUtf8,
    #[error("a string contains U+0000")]
    Null,
    #[error("a string is longer than 65,535 bytes")]
    TooLong,
}

impl Text {
    /// Takes the bytes as they are; U+FEFF stays in them wherever it stands ([MQTT-1.5.4-3]).
    pub fn parse(bytes: Bytes) -> Result<Text, TextFault> {
        if bytes.len() > FIELD_BYTES_MAX {
            return Err(TextFault::TooLong);
        }
        if bytes.contains(&0) {
            return Err(TextFault::Null);
        }
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Text(bytes)),
            Err(_) => Err(TextFault::NotUtf8),
        }
    }

    /// A string of the program itself.
    ///
    /// # Panics
    /// If it is none that MQTT allows.
    pub fn fixed(text: &'static str) -> Text {
        Text::parse(Bytes::from_static(text.as_bytes())).expect("a string of the program is well-formed")
    }

    /// The same text in memory of its own: what is kept long must not keep the buffer that it came in.
    pub fn detached(&self) -> Text {
        Text(Bytes::copy_from_slice(&self.0))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when it was made")
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it holds what a receiver may refuse (section 1.5.4): control characters and code points that are no characters.
    pub fn has_refusable_letters(&self) -> bool {
        if self.0.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return false;
        }
        self.as_str().chars().any(|letter| letter.is_control() || is_no_character(letter))
    }
}

fn is_no_character(letter: char) -> bool {
    let code = u32::from(letter);
    (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// At most 65,535 bytes of anything (MQTT 5.0 section 1.5.6).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Binary(Bytes);

impl Binary {
    /// `None`: it is longer.
    pub fn parse(bytes: Bytes) -> Option<Binary> {
        (bytes.len() <= FIELD_BYTES_MAX).then_some(Binary(bytes))
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Passwords are binary: only the length shows.
impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Text, TextFault> {
        Text::parse(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn what_is_no_string_is_refused() {
        assert_eq!(parse(b"a\0b"), Err(TextFault::Null));
        assert_eq!(parse(b"a\xed\xa0\x80"), Err(TextFault::NotUtf8), "U+D800 of UTF-16");
        assert_eq!(parse(b"a\xc3"), Err(TextFault::NotUtf8));
        assert_eq!(parse(b"\xc0\x80"), Err(TextFault::NotUtf8), "an overlong zero");
        assert_eq!(parse(&vec![b'a'; FIELD_BYTES_MAX + 1]), Err(TextFault::TooLong));
        assert!(Binary::parse(Bytes::from(vec![0; FIELD_BYTES_MAX + 1])).is_none());
    }

    #[test]
    fn the_standards_examples_are_strings() {
        // Section 1.5.4: A and U+2A6D4; U+FEFF is kept.
        assert_eq!(parse(b"A\xf0\xaa\x9b\x94").map(|text| text.as_str().to_owned()), Ok("A\u{2a6d4}".to_owned()));
        assert_eq!(parse(b"\xef\xbb\xbfa").map(|text| text.as_bytes().len()), Ok(4));
        assert!(parse(&vec![b'a'; FIELD_BYTES_MAX]).is_ok());
    }

    #[test]
    fn control_characters_may_be_refused() {
        for letters in ["a\u{1}", "\u{1f}", "\u{7f}", "\u{9f}b", "\u{ffff}", "\u{fdd0}", "\u{1fffe}"] {
            assert!(Text::fixed(letters).has_refusable_letters(), "{letters:?}");
        }
        for letters in ["", "plain ~", "grün", "\u{2a6d4}", "\u{feff}", "\u{a0}"] {
            assert!(!Text::fixed(letters).has_refusable_letters(), "{letters:?}");
        }
    }
}
