//! Rust source as code only: comments and literals blanked.

/// The same text with comments, strings and character literals replaced by spaces, so that braces and words in it are code.
/// Line breaks stay, so that line numbers do too.
pub fn code_only(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(&bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => until(text, at, |rest| rest[0] == '\n'),
        '/' if next == Some('*') => block_comment_end(text, at),
        '"' => string_end(text, at + 1),
        'r' if !word_before(text, at) && matches!(next, Some('"' | '#')) => raw_string_end(text, at),
        '\'' => character_end(text, at),
        _ => at,
    }
}

fn until(text: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..text.len()).find(|&at| stop(&text[at..])).unwrap_or(text.len())
}

fn word_before(text: &[char], at: usize) -> bool {
    // `br"…"` is a raw string too
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_') && text[at - 1] != 'b'
}

fn block_comment_end(text: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0usize, from);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

fn string_end(text: &[char], from: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string_end(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|&&c| c == '#').count();
    if text.get(at + 1 + hashes) != Some(&'"') {
        return at; // r#word is an identifier
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let end = until(text, at + 2 + hashes, |rest| rest.starts_with(&close));
    (end + close.len()).min(text.len())
}

/// A character literal, or nothing when the quote begins a lifetime.
fn character_end(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), Some(_)) => (until(text, at + 3, |rest| rest[0] == '\'') + 1).min(text.len()),
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// One function: its name, the line it begins in (from 1) and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// All functions with a body, those inside others included. `code` comes from [`code_only`].
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let name: String = code[at + 3..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(&code[at..]) {
            let line = code[..at].matches('\n').count() + 1;
            found.push(Function { name, line, lines: code[at..at + end].matches('\n').count() + 1 });
        }
    }
    found
}

/// The byte behind the closing brace of the first body; none for a declaration that ends with a semicolon.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0usize, 0i32);
    for (at, c) in code.char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces = braces.checked_sub(1)?,
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            // the semicolon of `[u8; 4]` in a signature ends nothing
            ';' if braces == 0 && others == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blank() {
        let text = "let a = \"{ \\\" }\"; // {\nlet b = '{'; let c: &'a str = r#\"{\"#; /* { /* } */ */ {";
        let code = code_only(text);
        assert_eq!(code.matches('{').count(), 1);
        assert_eq!(code.matches('\n').count(), 1);
        assert!(code.contains("&'a str"));
    }

    #[test]
    fn functions_are_measured() {
        let text = "fn one() { 1 }\nfn declared(a: [u8; 4]);\nimpl X {\n  fn two(\n    a: [u8; 4],\n  ) {\n    if a { }\n  }\n}\n";
        let found = functions(&code_only(text));
        let plain: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(plain, [("one", 1, 1), ("two", 4, 5)]);
    }
}
