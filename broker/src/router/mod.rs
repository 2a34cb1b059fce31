//! Finds who wants a subject, among a million filters.
//!
//! `routes` is the router itself: one trie per shard of first levels, each behind its lock, and the versions that caches check. `trie`
//! adds and removes filters, `walk` matches a subject, `nodes` stores the nodes and finds a child, `pattern` is what of a filter counts
//! for matching, `token` what a match returns, `cache` what a connection keeps.

pub mod cache;
mod nodes;
mod pattern;
pub mod routes;
pub mod token;
mod trie;
pub mod walk;

#[cfg(test)]
mod tests;
