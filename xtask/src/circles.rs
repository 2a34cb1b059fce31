//! Import circles between the files of one crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::source::code_only;

/// Which file imports which, by module path (`""` is the crate's root).
pub type Imports = BTreeMap<String, BTreeSet<String>>;

/// The circles in `crate_folder/src`, each as a sentence.
pub fn faults(crate_folder: &Path, name: &str) -> Vec<String> {
    let mut files = BTreeMap::new();
    collect(&crate_folder.join("src"), "", &mut files);
    circles(&imports(&files)).into_iter().map(|circle| format!("{name}: files import each other: {}", circle.join(" -> "))).collect()
}

/// Module path to code, test files left out: a test may look at whatever it wants.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            collect(&path, &joined(prefix, &stem), files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "tests" && !stem.ends_with("_tests") {
            let module = if matches!(stem.as_str(), "lib" | "main" | "mod") { prefix.to_owned() } else { joined(prefix, &stem) };
            files.insert(module, fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") }
}

/// Reads the imports out of each file; tests come last in a file, so what follows the first `#[cfg(test)]` does not count.
pub fn imports(files: &BTreeMap<String, String>) -> Imports {
    let mut imports = Imports::new();
    for (module, text) in files {
        let code = code_only(text);
        let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let targets = paths(code, module).into_iter().filter_map(|path| owner(&path, files));
        let targets: BTreeSet<String> = targets.filter(|target| target != module).collect();
        imports.insert(module.clone(), targets);
    }
    imports
}

/// Absolute paths (without `crate::`) that the code names by `crate::`, `super::` or `self::`.
fn paths(code: &str, module: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    let mut consumed = 0;
    while let Some(at) = rest.find("::") {
        let word_start = rest[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |position| position + 1);
        let base = match &rest[word_start..at] {
            "crate" => Some(String::new()),
            "super" => Some(parent(module)),
            "self" => Some(module.to_owned()),
            _ => None,
        };
        let mut next = at + 2;
        if let Some(base) = base {
            let (names, length) = tree(&rest[next..]);
            found.extend(names.iter().map(|name| resolve(&base, name)));
            next += length;
        }
        consumed += next;
        rest = &code[consumed..];
    }
    found
}

fn parent(module: &str) -> String {
    module.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned())
}

/// `base` and a path that may itself begin with `super`.
fn resolve(base: &str, name: &str) -> String {
    match name.strip_prefix("super::") {
        Some(rest) => resolve(&parent(base), rest),
        None => joined(base, name),
    }
}

/// The paths of a use tree such as `a::{b, c::d}` and how many bytes it is long.
fn tree(code: &str) -> (Vec<String>, usize) {
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(code.len());
    let stem = &code[..end];
    if !code[end..].starts_with('{') || !(stem.is_empty() || stem.ends_with("::")) {
        return (vec![stem.trim_end_matches(':').to_owned()], end);
    }
    let mut names = Vec::new();
    let mut at = end + 1;
    while let Some(c) = code[at..].chars().next() {
        match c {
            '}' => return (names, at + 1),
            c if c.is_alphanumeric() || c == '_' || c == '{' => {
                let (inner, length) = tree(&code[at..]);
                names.extend(inner.into_iter().map(|name| format!("{stem}{name}")));
                at += length.max(1);
            }
            c => at += c.len_utf8(),
        }
    }
    (names, at)
}

/// The file that a path leads into: the longest prefix that is a module. The root holds docs and `mod` lines only, so it is none.
fn owner(path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut path = path;
    loop {
        if files.contains_key(path) && !path.is_empty() {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// One circle through each group of files that reach each other.
pub fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in imports.keys() {
        if found.iter().any(|circle| circle.contains(start)) {
            continue;
        }
        found.extend(way_back(imports, start));
    }
    found
}

/// The shortest way from a file back to itself.
fn way_back(imports: &Imports, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().map(String::as_str).unwrap_or_default();
            for target in imports.get(last).into_iter().flatten() {
                let mut more = way.clone();
                more.push(target.clone());
                if target == start {
                    return Some(more);
                }
                if seen.insert(target.clone()) {
                    longer.push(more);
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        circles(&imports(&files))
    }

    #[test]
    fn a_circle_is_found() {
        let found =
            check(&[("a", "use crate::b::Thing;"), ("b", "use crate::{c::Other, d};"), ("c", "fn f() { crate::a::go() }"), ("d", "")]);
        assert_eq!(found, [["a", "b", "c", "a"]]);
    }

    #[test]
    fn super_and_self_are_followed() {
        assert_eq!(check(&[("g", "pub use self::x::{Y};"), ("g::x", "use super::Z;")]), [["g", "g::x", "g"]]);
        assert_eq!(check(&[("g::x", "use super::y::A;"), ("g::y", "use super::{x::{B, C}};")]), [["g::x", "g::y", "g::x"]]);
    }

    #[test]
    fn lines_of_one_direction_tests_and_comments_are_none() {
        assert!(
            check(&[("a", "use crate::b::X;"), ("b", "// use crate::a::Y;\nfn f() {}\n#[cfg(test)]\nmod tests { use crate::a::Y; }")])
                .is_empty()
        );
        assert!(check(&[("", "use crate::a::X;"), ("a", "use crate::Root;")]).is_empty());
    }
}
