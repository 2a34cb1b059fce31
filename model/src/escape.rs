//! Bytes that a level cannot hold in one spelling, as `%XX`.
//!
//! A byte that a spelling bans is written `%XX`, upper case, and so is each byte that is no UTF-8. A literal text that already looks
//! like that, `%`, any number of `25`, and the two digits of such a byte, gets one more `25`. Everything else stays as it is. Reading
//! is the exact inverse, so levels and texts correspond one to one.
//!
//! Two corners make that true for every byte string:
//! - Escapes beside each other that together spell one valid UTF-8 character (`%C3%A9`, `%25C3%25A9`) are no escapes: a level that held
//!   those bytes is written with the character itself. So they stay as they are, in both directions.
//! - Where a level cannot be empty, `%00` stands for the empty level. Where the zero byte is banned as well, the lone zero byte then is
//!   `%2500`, and a literal `%00` gets two more `25`.

/// Where in a level a byte cannot stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ban {
    Nowhere,
    Anywhere,
    /// As the last byte of a level.
    Last,
    /// As the whole level.
    Alone,
}

/// Whether a spelling can write a level that has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    Written,
    /// Beside other levels only: a text is never empty.
    NotOnly,
    Never,
}

/// What of a text a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The only level of its text.
    Only,
    /// One level of several.
    Level,
    /// The beginning of a level, whose end is written otherwise.
    Beginning,
}

/// What the levels of one spelling can hold.
pub struct Alphabet {
    bans: [Ban; 256],
    empty: Empty,
}

/// A text that looks like an escape: `%`, some `25`, two digits of a byte other than `%`.
struct Token {
    end: usize,
    pairs: usize,
    byte: u8,
}

/// How the text of an empty level reads where a level has to have bytes.
const EMPTY_TEXT: &[u8] = b"%00";

/// Canonical text: levels joined by `/`. A level that would read as a wildcard of a filter is escaped in subjects too, so that the
/// text of a subject is the text of the filter that matches only it.
pub static CANONICAL: Alphabet =
    Alphabet::of(Empty::Written, &[(b'/', Ban::Anywhere), (b'*', Ban::Last), (b'>', Ban::Alone), (b'#', Ban::Alone)]);

impl Alphabet {
    pub const fn of(empty: Empty, list: &[(u8, Ban)]) -> Alphabet {
        let mut bans = [Ban::Nowhere; 256];
        let mut at = 0;
        while at < list.len() {
            bans[list[at].0 as usize] = list[at].1;
            at += 1;
        }
        Alphabet { bans, empty }
    }

    /// Whether the level reads the same in text and in bytes, at any place; `text` has to be valid UTF-8.
    pub fn is_plain(&self, level: &[u8]) -> bool {
        !level.is_empty() && level.iter().all(|&byte| byte != b'%' && self.bans[usize::from(byte)] == Ban::Nowhere)
    }

    /// Whether a text can hold an empty level as this part.
    pub fn writes_empty(&self, part: Part) -> bool {
        match self.empty {
            Empty::Written => true,
            Empty::NotOnly => part != Part::Only,
            Empty::Never => part == Part::Beginning,
        }
    }

    /// The first byte of the text of a level that cannot stand where it does.
    pub fn first_banned(&self, text: &[u8], part: Part) -> Option<usize> {
        (0..text.len()).find(|&at| self.bans(text[at], Spot::of(text, at, at + 1, part)))
    }

    /// Writes the bytes of a level as text. What is appended is valid UTF-8.
    pub fn write(&self, level: &[u8], part: Part, out: &mut Vec<u8>) {
        if level.is_empty() && !self.writes_empty(part) {
            out.extend_from_slice(EMPTY_TEXT);
        }
        let mut at = 0;
        for chunk in level.utf8_chunks() {
            let end = at + chunk.valid().len();
            while at < end {
                at = self.write_piece(level, at, part, out);
            }
            chunk.invalid().iter().for_each(|&byte| push_escape(byte, 0, out));
            at += chunk.invalid().len();
        }
    }

    /// Writes what begins at `at`; returns where it ends.
    fn write_piece(&self, level: &[u8], at: usize, part: Part, out: &mut Vec<u8>) -> usize {
        let byte = level[at];
        if let Some(token) = Token::at(level, at) {
            if let Some(end) = token.character(level) {
                out.extend_from_slice(&level[at..end]);
                return end;
            }
            out.push(b'%');
            for _ in 0..self.steps(token.byte, Spot::of(level, at, token.end, part), part) {
                out.extend_from_slice(b"25");
            }
            out.extend_from_slice(&level[at + 1..token.end]);
            return token.end;
        }
        let spot = Spot::of(level, at, at + 1, part);
        if self.bans(byte, spot) {
            push_escape(byte, self.steps(byte, spot, part) - 1, out);
        } else {
            out.push(byte);
        }
        at + 1
    }

    /// Reads the text of a level, which has to be valid UTF-8, and hands its bytes over piece by piece. Allocates nothing.
    pub fn read(&self, text: &[u8], part: Part, mut sink: impl FnMut(&[u8])) {
        let mut at = 0;
        while at < text.len() {
            let Some(token) = Token::at(text, at) else {
                let end = (at + 1..text.len()).find(|&end| text[end] == b'%').unwrap_or(text.len());
                sink(&text[at..end]);
                at = end;
                continue;
            };
            if let Some(end) = token.character(text) {
                sink(&text[at..end]);
                at = end;
                continue;
            }
            let spot = Spot::of(text, at, token.end, part);
            let steps = self.steps(token.byte, spot, part);
            if token.pairs >= steps {
                sink(b"%");
                sink(&text[at + 1 + 2 * steps..token.end]);
            } else if !(token.pairs == 0 && self.is_empty_text(token.byte, spot, part)) {
                sink(&[token.byte]);
            }
            at = token.end;
        }
    }

    fn bans(&self, byte: u8, spot: Spot) -> bool {
        match self.bans[usize::from(byte)] {
            Ban::Nowhere => false,
            Ban::Anywhere => true,
            Ban::Last => spot != Spot::Inside,
            Ban::Alone => spot == Spot::Alone,
        }
    }

    /// How many `25` a literal text with this byte gets here; 0 where it does not look like an escape.
    fn steps(&self, byte: u8, spot: Spot, part: Part) -> usize {
        usize::from(!byte.is_ascii() || self.bans(byte, spot)) + usize::from(self.is_empty_text(byte, spot, part))
    }

    fn is_empty_text(&self, byte: u8, spot: Spot, part: Part) -> bool {
        byte == 0 && spot == Spot::Alone && !self.writes_empty(part)
    }
}

/// Where in its level a piece stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spot {
    Inside,
    Last,
    Alone,
}

impl Spot {
    fn of(level: &[u8], start: usize, end: usize, part: Part) -> Spot {
        match part != Part::Beginning && end == level.len() {
            true if start == 0 => Spot::Alone,
            true => Spot::Last,
            false => Spot::Inside,
        }
    }
}

impl Token {
    fn at(text: &[u8], at: usize) -> Option<Token> {
        if text.get(at) != Some(&b'%') {
            return None;
        }
        let mut digits = at + 1;
        while text[digits..].starts_with(b"25") {
            digits += 2;
        }
        let byte = digit(*text.get(digits)?)? << 4 | digit(*text.get(digits + 1)?)?;
        Some(Token { end: digits + 2, pairs: (digits - at - 1) / 2, byte })
    }

    /// If this token and the following ones, with as many `25`, spell one character beyond ASCII: where the last of them ends.
    fn character(&self, text: &[u8]) -> Option<usize> {
        let length = match self.byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return None,
        };
        let mut bytes = [self.byte; 4];
        let mut end = self.end;
        for byte in &mut bytes[1..length] {
            let token = Token::at(text, end).filter(|token| token.pairs == self.pairs)?;
            *byte = token.byte;
            end = token.end;
        }
        std::str::from_utf8(&bytes[..length]).is_ok().then_some(end)
    }
}

/// Whether the bytes of a level in canonical text begin with `prefix`. Allocates nothing.
pub fn level_begins_with(level: &[u8], prefix: &[u8]) -> bool {
    if !level.contains(&b'%') {
        return level.starts_with(prefix);
    }
    let mut rest = prefix;
    let mut same = true;
    CANONICAL.read(level, Part::Level, |piece| {
        let (now, later) = rest.split_at(piece.len().min(rest.len()));
        same &= piece.starts_with(now);
        rest = later;
    });
    same && rest.is_empty()
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'A'..=b'F' => Some(letter - b'A' + 10),
        _ => None,
    }
}

fn push_escape(byte: u8, pairs: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'%');
    for _ in 0..pairs {
        out.extend_from_slice(b"25");
    }
    out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    static BARE: Alphabet = Alphabet::of(Empty::Never, &[(b'.', Ban::Anywhere), (b'*', Ban::Alone), (0, Ban::Anywhere)]);

    fn check(alphabet: &Alphabet, level: &[u8], text: &str) {
        let mut written = Vec::new();
        alphabet.write(level, Part::Level, &mut written);
        assert_eq!(String::from_utf8(written).unwrap(), text);
        let mut read = Vec::new();
        alphabet.read(text.as_bytes(), Part::Level, |piece| read.extend_from_slice(piece));
        assert_eq!(read, level);
    }

    #[test]
    fn levels_read_as_documented() {
        check(&CANONICAL, b"a/b", "a%2Fb");
        check(&CANONICAL, b"%2F", "%252F");
        check(&CANONICAL, b"%252F%2f%25", "%25252F%2f%25");
        check(&CANONICAL, b"a*", "a%2A");
        check(&CANONICAL, b"a*b%2A", "a*b%252A");
        check(&CANONICAL, b">", "%3E");
        check(&CANONICAL, b"%23", "%2523");
        check(&CANONICAL, b"#1%23", "#1%23");
        check(&CANONICAL, b"", "");
        check(&CANONICAL, b"%00", "%00");
        check(&CANONICAL, b"\xFF%FF\xC3\xA9", "%FF%25FFé");
        check(&CANONICAL, b"%C3%A9", "%C3%A9");
        check(&CANONICAL, b"\xC3%A9", "%C3%25A9");
        check(&CANONICAL, b"\xC3%C3%A9\xA9", "%C3%C3%A9%A9");
        check(&CANONICAL, b"\xED\xA0\x80", "%ED%A0%80");
        check(&BARE, b"", "%00");
        check(&BARE, b"\0", "%2500");
        check(&BARE, b"%00", "%252500");
        check(&BARE, b"a\0", "a%00");
        check(&BARE, b"a%00", "a%2500");
        check(&BARE, b"a*b", "a*b");
        check(&BARE, b"*", "%2A");
    }

    #[test]
    fn prefixes_are_of_bytes_not_of_text() {
        assert!(level_begins_with(b"x%2Fy", b"x/"));
        assert!(!level_begins_with(b"x%2Fy", b"x%"));
        assert!(level_begins_with(b"x%252Fy", b"x%2Fy"));
        assert!(!level_begins_with(b"x%2F", b"x/y"));
        assert!(level_begins_with("é".as_bytes(), b"\xC3"));
        assert!(level_begins_with(b"%", b""));
    }
}
