//! Subscriptions by regular expression, and what they match.

use std::collections::{BTreeSet, HashMap};

use regex::{Regex, RegexBuilder};

use firth_gateway::refusal::Refusal;
use firth_model::ids::StreamId;

use crate::catalog::Catalog;

/// Bytes that one compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Bytes of an expression's text.
const TEXT_BYTES_MAX: usize = 4096;
/// Expressions kept; beyond it all are forgotten and made again when asked for.
const KEPT_MAX: usize = 256;

struct Kept {
    regex: Regex,
    version: u64,
    matches: BTreeSet<StreamId>,
}

/// The expressions of all groups, so that equal ones are matched once.
#[derive(Default)]
pub struct Patterns {
    kept: HashMap<String, Kept>,
}

impl Patterns {
    /// Refuses what is no expression, or too large a one.
    pub fn check(&self, text: &str) -> Result<(), Refusal> {
        if self.kept.contains_key(text) { Ok(()) } else { compile(text).map(|_| ()) }
    }

    /// The streams whose whole name matches. An expression that cannot be read matches none: it was checked before it was kept.
    pub fn matches(&mut self, text: &str, catalog: &Catalog) -> &BTreeSet<StreamId> {
        const NONE: &BTreeSet<StreamId> = &BTreeSet::new();
        if !self.kept.contains_key(text) {
            let Ok(regex) = compile(text) else { return NONE };
            if self.kept.len() >= KEPT_MAX {
                self.kept.clear();
            }
            let matches = find(&regex, catalog);
            self.kept.insert(text.to_owned(), Kept { regex, version: catalog.version(), matches });
        }
        let Some(kept) = self.kept.get_mut(text) else { return NONE };
        if kept.version != catalog.version() {
            kept.matches = find(&kept.regex, catalog);
            kept.version = catalog.version();
        }
        &kept.matches
    }
}

fn find(regex: &Regex, catalog: &Catalog) -> BTreeSet<StreamId> {
    catalog.all().filter(|info| !info.policy.hidden && regex.is_match(info.name.as_str())).map(|info| info.id).collect()
}

fn compile(text: &str) -> Result<Regex, Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::InvalidPattern { what: format!("longer than {TEXT_BYTES_MAX} bytes") });
    }
    // Alone first: joined with anchors, a text with an unmatched bracket could become valid.
    build(text)?;
    build(&format!("^(?:{text})$"))
}

fn build(text: &str) -> Result<Regex, Refusal> {
    RegexBuilder::new(text)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| Refusal::InvalidPattern { what: error.to_string() })
}
