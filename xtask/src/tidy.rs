//! Habits a program can check: captions, lengths, names, links.

use std::fs;
use std::path::Path;

use crate::shell::quiet;
use crate::source::{code_only, functions};

const CAPTION_LETTERS_MAX: usize = 60;
const LINE_COLUMNS_MAX: usize = 140;
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Words that name nothing.
const EMPTY_WORDS: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];
/// Folders of one person's machine; written in two parts, so that this file may lie in the repository.
const PRIVATE_FOLDERS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

pub fn faults(root: &Path) -> Vec<String> {
    let files = match quiet(root, "git", &["ls-files", "--cached", "--others", "--exclude-standard"]) {
        Ok(files) => files,
        Err(error) => return vec![error],
    };
    let ratchet = fs::read_to_string(root.join("xtask/ratchet.txt")).unwrap_or_default();
    let ratchet: Vec<&str> = ratchet.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let mut long = Vec::new();
    let mut faults = Vec::new();
    for file in files.lines() {
        let path = root.join(file);
        let Ok(bytes) = fs::read(&path) else { continue }; // removed, and not yet told to git
        if bytes.len() as u64 > FILE_BYTES_MAX {
            faults.push(format!("{file}: {} bytes, more than {FILE_BYTES_MAX}", bytes.len()));
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        faults.extend(anywhere(file, &text));
        if file.ends_with(".md") {
            faults.extend(links(file, &text, &|target| path.parent().is_some_and(|folder| folder.join(target).exists())));
        }
        if file.ends_with(".rs") {
            faults.extend(rust(file, &text));
            long.extend(long_functions(file, &text));
        }
    }
    faults.extend(against_ratchet(&long, &ratchet));
    faults
}

/// What holds for any text file.
fn anywhere(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name_parts = file.split(['/', '.', '_', '-']);
    faults.extend(name_parts.filter(|part| EMPTY_WORDS.contains(part)).map(|part| format!("{file}: \"{part}\" names nothing")));
    for (number, line) in text.lines().enumerate() {
        for folder in PRIVATE_FOLDERS {
            let begins = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '}' | '~' | '*'));
            if line.match_indices(folder).any(|(at, _)| begins(at)) {
                faults.push(format!("{file}:{}: a path of somebody's machine", number + 1));
            }
        }
    }
    faults
}

fn rust(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    match text.lines().next().and_then(|line| line.strip_prefix("//! ")) {
        None => faults.push(format!("{file}: does not open with a //! caption")),
        Some(first) => {
            let caption = caption(first);
            if caption.chars().count() >= CAPTION_LETTERS_MAX {
                faults.push(format!("{file}: a caption has fewer than {CAPTION_LETTERS_MAX} letters"));
            }
            if [concat!("e", ".g."), concat!("i", ".e.")].iter().any(|short| first.contains(short)) {
                faults.push(format!("{file}: a caption has no abbreviation, whose full stop would cut it"));
            }
        }
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !text.lines().take(15).any(|line| line.contains("long because")) {
        faults.push(format!("{file}: {lines} lines; above {FILE_LINES_MAX} the first comment says \"long because …\""));
    }
    for (number, line) in text.lines().enumerate() {
        if line.chars().count() > LINE_COLUMNS_MAX {
            faults.push(format!("{file}:{}: longer than {LINE_COLUMNS_MAX} columns", number + 1));
        }
    }
    faults.extend(unfinished(file, text));
    faults.extend(names(file, &code_only(text)));
    faults
}

/// The first sentence of a file's first line; of one with a colon or semicolon, what stands before it.
fn caption(first: &str) -> &str {
    let end = [". ", ": ", "; "].iter().filter_map(|stop| first.find(stop)).min().unwrap_or(first.len());
    first[..end].trim_end_matches('.')
}

/// Marks of unfinished work. The words are split here, so that the rule does not find itself.
fn unfinished(file: &str, text: &str) -> Vec<String> {
    let banned = [concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimpl", "emented!(")];
    let later = concat!("TO", "DO");
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        faults.extend(banned.iter().filter(|word| line.contains(*word)).map(|word| format!("{file}:{number}: {word}")));
        if line.match_indices(later).any(|(at, _)| !line[at + later.len()..].starts_with("(#")) {
            faults.push(format!("{file}:{number}: {later} without the number of its issue"));
        }
    }
    faults
}

/// Names that are declared: functions, types, modules.
fn names(file: &str, code: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2).filter(|pair| ["fn", "struct", "enum", "trait", "mod", "type", "const"].contains(&pair[0])) {
            let snake = snake(pair[1]);
            if snake.split('_').any(|part| EMPTY_WORDS.contains(&part)) || (pair[0] == "fn" && snake.starts_with("new_")) {
                faults.push(format!("{file}:{}: the name {} says nothing", number + 1, pair[1]));
            }
        }
    }
    faults
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Functions that are too long, as `file:function lines`.
fn long_functions(file: &str, text: &str) -> Vec<String> {
    let found = functions(&code_only(text)).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    found.map(|function| format!("{file}:{} {}", function.name, function.lines)).collect()
}

/// The ratchet lists what is too long today; it may only shrink, so an entry that is no longer true fails as well.
fn against_ratchet(long: &[String], ratchet: &[&str]) -> Vec<String> {
    let added = long.iter().filter(|entry| !ratchet.contains(&entry.as_str()));
    let added = added.map(|entry| format!("{entry} lines, more than {FUNCTION_LINES_MAX}"));
    let gone = ratchet.iter().filter(|entry| !long.iter().any(|found| found == *entry));
    added.chain(gone.map(|entry| format!("xtask/ratchet.txt: {entry} is no longer so: take the line out"))).collect()
}

/// Links to files that are not there. `exists` is asked for a path relative to the file.
fn links(file: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split([')', ' ', '\n']).next().unwrap_or_default();
        let target = target.split('#').next().unwrap_or_default();
        if !target.is_empty() && !target.contains(':') && !exists(target) {
            faults.push(format!("{file}: the link to {target} is dead"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, word: &str) {
        let found = rust("x.rs", text);
        assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
    }

    #[test]
    fn good_source_passes() {
        assert!(rust("x.rs", "//! A good file.\n\nfn main() {}\n").is_empty());
        assert!(rust("x.rs", &format!("//! The caption: {}.\n", "what it holds, ".repeat(6))).is_empty());
    }

    #[test]
    fn each_rule_can_fail() {
        check("fn main() {}\n", "caption");
        check(&format!("//! {}\n", "word ".repeat(13)), "fewer than");
        check(concat!("//! Things, e", ".g. this.\n"), "abbreviation");
        check(&format!("//! Caption.\n// {}\n", "x".repeat(140)), "columns");
        check(&format!("//! Caption.\n{}", "//\n".repeat(500)), "long because");
        check(concat!("//! Caption.\n// FIX", "ME later\n"), "x.rs:2");
        check(concat!("//! Caption.\nfn f() { todo", "!() }\n"), "x.rs:2");
        check(concat!("//! Caption.\n// TO", "DO: later\n"), "issue");
        check("//! Caption.\nstruct LinkManager;\n", "LinkManager");
        check("//! Caption.\nmod utils;\n", "utils");
        check("//! Caption.\nfn new_thing() {}\n", "new_thing");
    }

    #[test]
    fn exceptions_hold() {
        assert!(rust("x.rs", &format!("//! Caption.\n//! long because it is a table\n{}", "//\n".repeat(500))).is_empty());
        assert!(rust("x.rs", concat!("//! Caption.\n// TO", "DO(#12): later\nfn uncommon() { let helper = \"\"; }\n")).is_empty());
    }

    #[test]
    fn file_names_and_private_paths_are_seen() {
        assert_eq!(anywhere("a/utils.rs", "").len(), 1);
        assert_eq!(anywhere("a/b.rs", concat!("see /wo", "rk/x")).len(), 1);
        assert!(anywhere("a/b.rs", concat!("frame", "wo", "rk/x and a/wo", "rk/y")).is_empty());
    }

    #[test]
    fn the_ratchet_only_shrinks() {
        let long = long_functions("x.rs", &format!("fn f() {{{}}}", "\n".repeat(70)));
        assert_eq!(long, ["x.rs:f 71"]);
        assert_eq!(against_ratchet(&long, &[]).len(), 1);
        assert!(against_ratchet(&long, &["x.rs:f 71"]).is_empty());
        assert!(against_ratchet(&[], &["x.rs:f 71"])[0].contains("no longer"));
    }

    #[test]
    fn dead_links_are_seen() {
        let exists = |target: &str| target == "there.md";
        let text = concat!("[a](there.md#x) [b](https", "://e.org) [c](#here) [d](gone.md)");
        assert_eq!(links("x.md", text, &exists), ["x.md: the link to gone.md is dead"]);
    }
}
