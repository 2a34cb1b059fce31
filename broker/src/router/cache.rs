//! What a connection keeps of the router's answers.

use std::collections::HashMap;
use std::sync::Arc;

use firth_model::subject::Subject;

use super::routes::Router;
use super::token::Token;
use super::walk::Scratch;

/// The tokens of subjects published lately, each as long as no change can concern it.
///
/// Two generations: what is asked for moves to the young one, and when that has half of what the cache may hold, the old one goes.
pub struct Cache {
    young: Generation,
    old: Generation,
    entries_max: usize,
    bytes_max: usize,
    scratch: Scratch,
    found: Vec<Token>,
}

#[derive(Default)]
struct Generation {
    known: HashMap<Box<[u8]>, Known, foldhash::fast::RandomState>,
    bytes: usize,
}

struct Known {
    version: u64,
    tokens: Arc<[Token]>,
}

/// An entry without its subject and tokens, with its share of a table that is not full.
const ENTRY_BYTES: usize = 2 * size_of::<(Box<[u8]>, Known)>() + 2 * size_of::<usize>();
/// Room for found tokens that is kept between matches.
const FOUND_KEPT_MAX: usize = 4096;

impl Cache {
    pub fn with_bounds(entries_max: usize, bytes_max: usize) -> Cache {
        let (young, old) = Default::default();
        Cache { young, old, entries_max, bytes_max, scratch: Scratch::default(), found: Vec::new() }
    }

    /// What `Router::matches` finds, each token once and in order.
    pub fn matches(&mut self, router: &Router, subject: &Subject) -> Arc<[Token]> {
        let version = router.version(subject.levels().next().unwrap_or_default());
        let key = &subject.as_bytes()[..];
        if let Some(known) = self.young.known.get(key)
            && known.version == version
        {
            return known.tokens.clone();
        }
        let tokens = match self.old.take(key) {
            Some(known) if known.version == version => known.tokens,
            _ => self.ask(router, subject),
        };
        self.keep(key, Known { version, tokens: tokens.clone() });
        tokens
    }

    /// Bytes held for answers.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Subjects known.
    pub fn entries(&self) -> usize {
        self.young.known.len() + self.old.known.len()
    }

    fn ask(&mut self, router: &Router, subject: &Subject) -> Arc<[Token]> {
        self.found.clear();
        router.matches(subject, &mut self.scratch, &mut self.found);
        self.found.sort_unstable();
        self.found.dedup();
        let tokens = self.found[..].into();
        self.found.clear();
        self.found.shrink_to(FOUND_KEPT_MAX);
        tokens
    }

    fn keep(&mut self, key: &[u8], known: Known) {
        self.young.take(key);
        let bytes = entry_bytes(key, &known);
        if bytes > self.bytes_max / 2 || self.entries_max < 2 {
            return;
        }
        if self.young.bytes + bytes > self.bytes_max / 2 || self.young.known.len() >= self.entries_max / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += bytes;
        self.young.known.insert(key.into(), known);
    }
}

impl Generation {
    fn take(&mut self, key: &[u8]) -> Option<Known> {
        let known = self.known.remove(key)?;
        self.bytes -= entry_bytes(key, &known);
        Some(known)
    }
}

fn entry_bytes(key: &[u8], known: &Known) -> usize {
    ENTRY_BYTES + key.len() + size_of_val(&known.tokens[..])
}
