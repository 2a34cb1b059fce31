//! Checkpoints: a base and deltas, complete or not at all.
//!
//! Checkpoint number n is the object `ckpt/<n>/base` or `ckpt/<n>/delta` and, written last, `ckpt/<n>/done`, which names the chain of
//! parts that make up the state: a base and the deltas after it. Nothing is overwritten. The two newest complete checkpoints are kept,
//! and the journal from the older one's position on: damage to what only the newest has costs a longer replay. A base that both share
//! is a single copy; damage to it refuses the start.
//!
//! ```text
//! done: magic 8 "FIRTHDN1", number u64, lsn u64, position u64, parts u32, then for each part: number u64,
//!       kind u8 (0 base, 1 delta), bytes u64, XXH3-128 of the part 16; at the end XXH3-128 of everything before 16
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use firth_model::ids::{Lsn, Position};

use crate::part::{self, PartDamage, checksum};
use crate::store::Store;

const MAGIC: &[u8; 8] = b"FIRTHDN1";
const PREFIX: &str = "ckpt/";
/// Deltas are not merged before they reach this size together: small states are written often and cheaply.
const MERGE_BYTES_MIN: u64 = 1 << 20;
/// Parts of one chain: start-up reads each.
const CHAIN_MAX: usize = 64;
const KEPT: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("no checkpoint can be read: {0}")]
    Damaged(String),
}

/// State as one checkpoint holds it.
pub struct Loaded {
    pub at: Lsn,
    pub position: Position,
    /// In the order of keys.
    pub entries: Vec<(Bytes, Bytes)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Base,
    Delta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    number: u64,
    kind: Kind,
    bytes: u64,
    checksum: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Done {
    number: u64,
    at: Lsn,
    position: Position,
    parts: Vec<Part>,
}

pub struct Checkpoints {
    store: Arc<dyn Store>,
    /// Complete ones, oldest first; at most `KEPT`.
    complete: Vec<Done>,
    /// Never used by any object, not even by one of an attempt that failed.
    next_number: u64,
}

impl Checkpoints {
    /// Finds the newest checkpoint that is whole. One that is damaged is reported and passed over.
    pub fn open(store: Arc<dyn Store>) -> Result<(Checkpoints, Option<Loaded>), ArchiveError> {
        let mut complete = Vec::new();
        let mut loaded = None;
        let mut damage = Vec::new();
        for number in done_numbers(&*store)?.into_iter().rev() {
            let done = match read_done(&*store, number) {
                Ok(done) => done,
                Err(what) => {
                    damage.push(what);
                    continue;
                }
            };
            if loaded.is_some() {
                complete.push(done);
                continue;
            }
            match load(&*store, &done) {
                Ok(entries) => {
                    loaded = Some(Loaded { at: done.at, position: done.position, entries });
                    complete.push(done);
                }
                Err(what) => damage.push(what),
            }
        }
        for what in &damage {
            tracing::error!(damage = what, "a checkpoint is damaged; an older one is used");
        }
        if loaded.is_none() && !damage.is_empty() {
            return Err(ArchiveError::Damaged(damage.join("; ")));
        }
        complete.truncate(KEPT);
        complete.reverse();
        let next_number = next_number(&*store)?;
        Ok((Checkpoints { store, complete, next_number }, loaded))
    }

    /// The journal from here on is needed to recover, whichever of the kept checkpoints is used.
    pub fn keep_from(&self) -> Position {
        if self.complete.len() < KEPT { Position(0) } else { self.complete.first().map_or(Position(0), |done| done.position) }
    }

    /// Makes a checkpoint of the state right after `at` from what changed since the one before.
    ///
    /// On an error nothing has changed: give the same changes, and newer ones over them, to the next call.
    pub fn take(&mut self, at: Lsn, position: Position, changes: &BTreeMap<Bytes, Option<Bytes>>) -> Result<(), ArchiveError> {
        let mut parts = self.complete.last().map(|done| done.parts.clone()).unwrap_or_default();
        let (kind, bytes) = if wants_base(&parts) {
            let mut state = read_parts(&*self.store, &parts).map_err(ArchiveError::Damaged)?;
            apply(&mut state, changes.iter().map(|(key, value)| (key.clone(), value.clone())));
            parts.clear();
            (Kind::Base, part::write(state.iter().map(|(key, value)| (key, Some(value)))))
        } else {
            (Kind::Delta, part::write(changes.iter().map(|(key, value)| (key, value.as_ref()))))
        };
        let number = self.next_number;
        self.next_number += 1;
        self.store.put(&part_name(number, kind), &bytes)?;
        parts.push(Part { number, kind, bytes: bytes.len() as u64, checksum: checksum(&bytes) });
        let done = Done { number, at, position, parts };
        self.store.put(&done_name(number), &done.encode())?;
        self.complete.push(done);
        if self.complete.len() > KEPT {
            self.complete.remove(0);
        }
        if let Err(error) = self.collect() {
            tracing::warn!(%error, "old checkpoints stay for now");
        }
        Ok(())
    }

    /// Deletes what no kept checkpoint reaches: first what says that one is complete, then parts.
    fn collect(&self) -> io::Result<()> {
        let mut reached = BTreeSet::new();
        for done in &self.complete {
            reached.insert(done_name(done.number));
            reached.extend(done.parts.iter().map(|part| part_name(part.number, part.kind)));
        }
        let mut names = self.store.list(PREFIX)?;
        names.sort_by_key(|name| !name.ends_with("/done"));
        for name in names.iter().filter(|name| !reached.contains(*name)) {
            self.store.delete(name)?;
        }
        Ok(())
    }
}

fn wants_base(parts: &[Part]) -> bool {
    let Some((base, deltas)) = parts.split_first() else {
        return true;
    };
    let delta_bytes: u64 = deltas.iter().map(|part| part.bytes).sum();
    parts.len() >= CHAIN_MAX || delta_bytes > base.bytes.max(MERGE_BYTES_MIN)
}

fn part_name(number: u64, kind: Kind) -> String {
    let kind = if kind == Kind::Base { "base" } else { "delta" };
    format!("{PREFIX}{number:020}/{kind}")
}

fn done_name(number: u64) -> String {
    format!("{PREFIX}{number:020}/done")
}

fn done_numbers(store: &dyn Store) -> io::Result<Vec<u64>> {
    let names = store.list(PREFIX)?;
    let number = |name: &String| name.strip_prefix(PREFIX)?.strip_suffix("/done")?.parse().ok();
    Ok(names.iter().filter_map(number).collect())
}

fn next_number(store: &dyn Store) -> io::Result<u64> {
    let names = store.list(PREFIX)?;
    let number = |name: &String| name.strip_prefix(PREFIX)?.split('/').next()?.parse::<u64>().ok();
    Ok(names.iter().filter_map(number).max().map_or(1, |last| last + 1))
}

fn read_done(store: &dyn Store, number: u64) -> Result<Done, String> {
    let name = done_name(number);
    let bytes = store.get(&name).map_err(|error| format!("{name}: {error}"))?.ok_or(format!("{name} is gone"))?;
    Done::decode(&bytes).filter(|done| done.number == number).ok_or(format!("{name} is damaged"))
}

fn load(store: &dyn Store, done: &Done) -> Result<Vec<(Bytes, Bytes)>, String> {
    Ok(read_parts(store, &done.parts)?.into_iter().collect())
}

fn read_parts(store: &dyn Store, parts: &[Part]) -> Result<BTreeMap<Bytes, Bytes>, String> {
    let mut state = BTreeMap::new();
    for part in parts {
        let name = part_name(part.number, part.kind);
        let bytes = store.get(&name).map_err(|error| format!("{name}: {error}"))?.ok_or(format!("{name} is missing"))?;
        if bytes.len() as u64 != part.bytes || checksum(&bytes) != part.checksum {
            return Err(format!("{name}: its checksum does not match"));
        }
        let mut rows = Vec::new();
        part::read(&bytes, |row| rows.push(row)).map_err(|damage: PartDamage| format!("{name} {damage}"))?;
        apply(&mut state, rows.into_iter());
    }
    Ok(state)
}

fn apply(state: &mut BTreeMap<Bytes, Bytes>, rows: impl Iterator<Item = (Bytes, Option<Bytes>)>) {
    for (key, value) in rows {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

impl Done {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&self.position.0.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.parts.len()).expect("a chain is short").to_le_bytes());
        for part in &self.parts {
            out.extend_from_slice(&part.number.to_le_bytes());
            out.push(u8::from(part.kind == Kind::Delta));
            out.extend_from_slice(&part.bytes.to_le_bytes());
            out.extend_from_slice(&part.checksum);
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Done> {
        let (fields, sum) = bytes.split_last_chunk::<16>()?;
        if checksum(fields) != *sum {
            return None;
        }
        let mut rest = fields.strip_prefix(MAGIC)?;
        let (number, at) = (take_u64(&mut rest)?, Lsn(take_u64(&mut rest)?));
        let position = Position(take_u64(&mut rest)?);
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut parts = Vec::new();
        for _ in 0..u32::from_le_bytes(*count) {
            let part_number = take_u64(&mut rest)?;
            let (kind, after) = rest.split_first()?;
            rest = after;
            let part_bytes = take_u64(&mut rest)?;
            let (sum, after) = rest.split_first_chunk::<16>()?;
            rest = after;
            let kind = if *kind == 0 { Kind::Base } else { Kind::Delta };
            parts.push(Part { number: part_number, kind, bytes: part_bytes, checksum: *sum });
        }
        rest.is_empty().then_some(Done { number, at, position, parts })
    }
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (eight, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*eight))
}

/// What an offline check of all checkpoints found.
pub struct ArchiveReport {
    pub checkpoints: usize,
    pub damage: Vec<String>,
}

impl ArchiveReport {
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

impl fmt::Display for ArchiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive: {} checkpoints", self.checkpoints)?;
        self.damage.iter().try_for_each(|damage| write!(f, "\n  damaged: {damage}"))
    }
}

/// Reads every part of every complete checkpoint.
pub fn verify(store: &dyn Store) -> ArchiveReport {
    let mut report = ArchiveReport { checkpoints: 0, damage: Vec::new() };
    match done_numbers(store) {
        Err(error) => report.damage.push(error.to_string()),
        Ok(numbers) => {
            for number in numbers {
                report.checkpoints += 1;
                let outcome = read_done(store, number).and_then(|done| load(store, &done));
                report.damage.extend(outcome.err());
            }
        }
    }
    report
}

#[cfg(test)]
#[path = "checkpoints_tests.rs"]
mod tests;
