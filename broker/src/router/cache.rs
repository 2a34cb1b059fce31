//! What a connection keeps of the router's answers.

use std::collections::HashMap;
use std::sync::Arc;

use firth_model::subject::Subject;

use super::routes::Router;
use super::token::Token;
use super::walk::Scratch;

/// What was made of the tokens of subjects published lately, each as long as no change can concern it.
///
/// Two generations: what is asked for moves to the young one, and when that has half of what the cache may hold, the old one goes.
pub struct Cache<T> {
    young: Generation<T>,
    old: Generation<T>,
    entries_max: usize,
    bytes_max: usize,
    scratch: Scratch,
    found: Vec<Token>,
}

struct Generation<T> {
    known: HashMap<Box<[u8]>, Known<T>, foldhash::fast::RandomState>,
    bytes: usize,
}

impl<T> Default for Generation<T> {
    fn default() -> Generation<T> {
        Generation { known: HashMap::default(), bytes: 0 }
    }
}

struct Known<T> {
    version: u64,
    made: Arc<T>,
    /// Of what was made.
    bytes: usize,
}

/// An entry without its subject and what was made, with its share of a table that is not full.
const ENTRY_BYTES: usize = 2 * size_of::<(Box<[u8]>, Known<()>)>() + 2 * size_of::<usize>();
/// Room for found tokens that is kept between matches.
const FOUND_KEPT_MAX: usize = 4096;

impl<T> Cache<T> {
    pub fn with_bounds(entries_max: usize, bytes_max: usize) -> Cache<T> {
        let (young, old) = Default::default();
        Cache { young, old, entries_max, bytes_max, scratch: Scratch::default(), found: Vec::new() }
    }

    /// What `make` made of what `Router::matches` finds, each token once and in order, and of the version that was asked for before.
    /// `make` says too how many bytes that takes.
    pub fn get(&mut self, router: &Router, subject: &Subject, make: impl FnOnce(u64, &[Token]) -> (T, usize)) -> Arc<T> {
        let version = router.version(subject.levels().next().unwrap_or_default());
        let key = &subject.as_bytes()[..];
        if let Some(known) = self.young.known.get(key)
            && known.version == version
        {
            return known.made.clone();
        }
        let (made, bytes) = match self.old.take(key) {
            Some(known) if known.version == version => (known.made, known.bytes),
            _ => {
                let (made, bytes) = self.ask(router, subject, |tokens| make(version, tokens));
                (Arc::new(made), bytes)
            }
        };
        self.keep(key, Known { version, made: made.clone(), bytes });
        made
    }

    /// Bytes held for answers.
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Subjects known.
    pub fn entries(&self) -> usize {
        self.young.known.len() + self.old.known.len()
    }

    fn ask<R>(&mut self, router: &Router, subject: &Subject, make: impl FnOnce(&[Token]) -> R) -> R {
        self.found.clear();
        router.matches(subject, &mut self.scratch, &mut self.found);
        self.found.sort_unstable();
        self.found.dedup();
        let made = make(&self.found);
        self.found.clear();
        self.found.shrink_to(FOUND_KEPT_MAX);
        made
    }

    fn keep(&mut self, key: &[u8], known: Known<T>) {
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

impl<T> Generation<T> {
    fn take(&mut self, key: &[u8]) -> Option<Known<T>> {
        let known = self.known.remove(key)?;
        self.bytes -= entry_bytes(key, &known);
        Some(known)
    }
}

fn entry_bytes<T>(key: &[u8], known: &Known<T>) -> usize {
    ENTRY_BYTES + key.len() + known.bytes
}

/// A cache of the tokens themselves.
impl Cache<Vec<Token>> {
    pub fn matches(&mut self, router: &Router, subject: &Subject) -> Arc<Vec<Token>> {
        self.get(router, subject, |_, tokens| (tokens.to_vec(), size_of_val(tokens)))
    }
}
