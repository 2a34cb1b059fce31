//! The router: who subscribed to what, for every connection.
//!
//! Filters are spread over shards by their first level; those that begin with a wildcard or a prefix are in one more that every match
//! asks too. A shard is a trie behind a lock that a reader holds while it copies tokens into its own list, and a writer while it
//! changes a few nodes: no change copies or rehashes a whole shard, so neither waits longer than one match or one change takes. A
//! trie that is copied on write would spare readers the lock and cost each change a path of copies and each node a count; with a
//! cache before it, matching is too rare for that.
//!
//! A version counts changes. Each first level has one, shared with the few levels that its hash meets, and filters that may match
//! under any first level have one in common. Versions only grow, and so does the sum of two of them.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use firth_model::filter::Filter;
use firth_model::subject::Subject;

use super::nodes::Hashes;
use super::pattern::Pattern;
use super::token::Token;
use super::trie::Trie;
use super::walk::{Scratch, walk};

/// Enough that writers of different first levels seldom meet.
const SHARDS: usize = 64;
/// Enough that a change seldom concerns a cached subject of another first level: 32 KiB.
const VERSIONS: usize = 4096;

/// Which tokens stand at the filters that match a subject.
pub struct Router {
    /// For the shard and the version of a first level.
    hasher: foldhash::fast::RandomState,
    shards: Box<[RwLock<Trie>]>,
    /// Filters that begin with no literal.
    common: RwLock<Trie>,
    versions: Box<[AtomicU64]>,
    version_in_common: AtomicU64,
}

impl Default for Router {
    fn default() -> Router {
        let hashes = Hashes::random();
        let trie = || RwLock::new(Trie::with_hashes(hashes.clone()));
        Router {
            hasher: foldhash::fast::RandomState::default(),
            shards: (0..SHARDS).map(|_| trie()).collect(),
            common: trie(),
            versions: (0..VERSIONS).map(|_| AtomicU64::new(0)).collect(),
            version_in_common: AtomicU64::new(0),
        }
    }
}

impl Router {
    /// Adds the token to the filter. A match that begins after the return finds it. Returns false if it was there already. The same
    /// text with another rule for reserved subjects is another filter.
    pub fn subscribe(&self, filter: &Filter, token: Token) -> bool {
        self.change(filter, |trie, pattern| trie.add(filter, pattern, token))
    }

    /// Takes the token from the filter. Returns false if it was not there.
    pub fn unsubscribe(&self, filter: &Filter, token: Token) -> bool {
        self.change(filter, |trie, pattern| trie.remove(filter, pattern, token))
    }

    /// Appends the token of each filter that matches, once for each filter it stands at. No more is promised of the order.
    pub fn matches(&self, subject: &Subject, scratch: &mut Scratch, out: &mut Vec<Token>) {
        walk(&self.common.read().unwrap_or_else(PoisonError::into_inner), subject, scratch, out);
        let first = subject.levels().next().unwrap_or_default();
        walk(&self.shard(self.hasher.hash_one(first)).read().unwrap_or_else(PoisonError::into_inner), subject, scratch, out);
    }

    /// Grows with each change that can concern subjects of this first level. Whoever asks before a match and gets the same number
    /// later may use what was found again.
    pub fn version(&self, first_level: &[u8]) -> u64 {
        let own = self.version_of(self.hasher.hash_one(first_level)).load(Ordering::Acquire);
        own.wrapping_add(self.version_in_common.load(Ordering::Acquire))
    }

    /// Bytes allocated, as the sizes asked for.
    pub fn bytes(&self) -> usize {
        let tries = self.shards.iter().chain([&self.common]);
        let heap: usize = tries.map(|trie| trie.read().unwrap_or_else(PoisonError::into_inner).heap_bytes()).sum();
        heap + SHARDS * size_of::<RwLock<Trie>>() + VERSIONS * size_of::<AtomicU64>()
    }

    fn change(&self, filter: &Filter, change: impl FnOnce(&mut Trie, &Pattern<'_>) -> bool) -> bool {
        let pattern = Pattern::of(filter);
        let (shard, version) = match pattern.first_level() {
            Some(level) => {
                let hash = self.hasher.hash_one(level);
                (self.shard(hash), self.version_of(hash))
            }
            None => (&self.common, &self.version_in_common),
        };
        let mut trie = shard.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut trie, &pattern);
        if changed {
            // Under the lock: who sees the new version cannot match before the change.
            version.fetch_add(1, Ordering::Release);
        }
        changed
    }

    fn shard(&self, hash: u64) -> &RwLock<Trie> {
        &self.shards[hash as usize % SHARDS]
    }

    fn version_of(&self, hash: u64) -> &AtomicU64 {
        &self.versions[(hash >> 32) as usize % VERSIONS]
    }
}
