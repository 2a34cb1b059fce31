//! Checkpoints: a base and deltas, complete or not at all.
//!
//! Checkpoint number n is the object `ckpt/<n>/base` or `ckpt/<n>/delta` and, written last, `ckpt/<n>/done`, which names the chain of
//! parts that make up the state: a base and the deltas after it. Nothing is overwritten. The two newest complete checkpoints are kept,
//! and the journal from the older one's position on. Each object has a second copy, `base2`, `delta2`, `done2`, which is read when
//! the first is missing or damaged; directories of versions that wrote one copy still open.
//!
//! ```text
//! done: magic 8 "FIRTHDN1", number u64, lsn u64, position u64, parts u32, then for each part: number u64,
//!       kind u8 (bit 0: a delta and not a base, bit 1: there is a second copy), bytes u64, XXH3-128 of the part 16;
//!       at the end XXH3-128 of everything before 16
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
    /// Whether there is a second copy.
    copied: bool,
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
            let mut faults = Vec::new();
            let done = match read_done(&*store, number, &mut faults) {
                Ok(done) => done,
                Err(what) => {
                    damage.push(what);
                    continue;
                }
            };
            if loaded.is_some() {
                complete.push(done);
                mend(&*store, &faults);
                continue;
            }
            match load(&*store, &done, &mut faults) {
                Ok(entries) => {
                    loaded = Some(Loaded { at: done.at, position: done.position, entries });
                    complete.push(done);
                }
                Err(what) => damage.push(what),
            }
            mend(&*store, &faults);
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
            let mut state = read_parts(&*self.store, &parts, &mut Vec::new()).map_err(ArchiveError::Damaged)?;
            apply(&mut state, changes.iter().map(|(key, value)| (key.clone(), value.clone())));
            parts.clear();
            (Kind::Base, part::write(state.iter().map(|(key, value)| (key, Some(value)))))
        } else {
            (Kind::Delta, part::write(changes.iter().map(|(key, value)| (key, value.as_ref()))))
        };
        let number = self.next_number;
        self.next_number += 1;
        let part = Part { number, kind, copied: true, bytes: bytes.len() as u64, checksum: checksum(&bytes) };
        for name in part.names() {
            self.store.put(&name, &bytes)?;
        }
        parts.push(part);
        let done = Done { number, at, position, parts };
        for name in done_names(number) {
            self.store.put(&name, &done.encode())?;
        }
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
            reached.extend(done_names(done.number));
            reached.extend(done.parts.iter().flat_map(Part::names));
        }
        let mut names = self.store.list(PREFIX)?;
        names.sort_by_key(|name| done_number(name).is_none());
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

impl Part {
    /// Its copies, in the order they are read.
    fn names(&self) -> Vec<String> {
        let kind = if self.kind == Kind::Base { "base" } else { "delta" };
        let first = format!("{PREFIX}{:020}/{kind}", self.number);
        let second = self.copied.then(|| format!("{first}2"));
        [first].into_iter().chain(second).collect()
    }

    fn is_whole(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.bytes && checksum(bytes) == self.checksum
    }
}

fn done_names(number: u64) -> [String; 2] {
    [format!("{PREFIX}{number:020}/done"), format!("{PREFIX}{number:020}/done2")]
}

fn done_number(name: &str) -> Option<u64> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.strip_suffix("/done").or_else(|| rest.strip_suffix("/done2"))?.parse().ok()
}

/// In order. One copy is enough: what it says has been complete.
fn done_numbers(store: &dyn Store) -> io::Result<BTreeSet<u64>> {
    Ok(store.list(PREFIX)?.iter().filter_map(|name| done_number(name)).collect())
}

fn next_number(store: &dyn Store) -> io::Result<u64> {
    let names = store.list(PREFIX)?;
    let number = |name: &String| name.strip_prefix(PREFIX)?.split('/').next()?.parse::<u64>().ok();
    Ok(names.iter().filter_map(number).max().map_or(1, |last| last + 1))
}

/// A copy that cannot be used while another of the same object can.
struct Fault {
    name: String,
    what: String,
    whole: Bytes,
}

fn read_copy(store: &dyn Store, name: &str, is_whole: impl Fn(&[u8]) -> bool) -> Result<Bytes, String> {
    let bytes = store.get(name).map_err(|error| format!("{name}: {error}"))?.ok_or_else(|| format!("{name} is missing"))?;
    if is_whole(&bytes) { Ok(bytes) } else { Err(format!("{name}: its checksum does not match")) }
}

/// The first copy that is whole; an error names what is wrong with each.
fn read_any(store: &dyn Store, names: &[String], is_whole: impl Fn(&[u8]) -> bool, faults: &mut Vec<Fault>) -> Result<Bytes, String> {
    let mut wrong = Vec::new();
    for name in names {
        match read_copy(store, name, &is_whole) {
            Ok(whole) => {
                let fault = |(name, what): (&String, String)| Fault { name: name.clone(), what, whole: whole.clone() };
                faults.extend(names.iter().zip(wrong).map(fault));
                return Ok(whole);
            }
            Err(what) => wrong.push(what),
        }
    }
    Err(wrong.join("; "))
}

/// Writes copies anew. One that cannot be written is left as it is: the other is still read.
fn mend(store: &dyn Store, faults: &[Fault]) {
    for Fault { name, what, whole } in faults {
        tracing::error!(damage = what, "one of two copies cannot be used; the other is read and copied over it");
        if let Err(error) = store.delete(name).and_then(|()| store.put(name, whole)) {
            tracing::error!(%error, name, "the copy cannot be written again");
        }
    }
}

/// Writes every copy anew that cannot be used while the other can, the second ones too, which opening does not read.
pub fn mend_copies(store: &dyn Store) -> io::Result<()> {
    let mut faults = Vec::new();
    let backwards = |names: Vec<String>| names.into_iter().rev().collect::<Vec<_>>();
    for number in done_numbers(store)? {
        let Ok(done) = read_done(store, number, &mut faults) else { continue };
        let same = |bytes: &[u8]| Done::decode(bytes).as_ref() == Some(&done);
        // What neither copy has is another's to tell.
        let _ = read_any(store, &backwards(done_names(number).to_vec()), same, &mut faults);
        for part in &done.parts {
            let _ = read_any(store, &part.names(), |bytes| part.is_whole(bytes), &mut faults);
            let _ = read_any(store, &backwards(part.names()), |bytes| part.is_whole(bytes), &mut faults);
        }
    }
    mend(store, &faults);
    Ok(())
}

fn read_done(store: &dyn Store, number: u64, faults: &mut Vec<Fault>) -> Result<Done, String> {
    let decode = |bytes: &[u8]| Done::decode(bytes).filter(|done| done.number == number);
    let bytes = read_any(store, &done_names(number), |bytes| decode(bytes).is_some(), faults)?;
    decode(&bytes).ok_or_else(|| format!("checkpoint {number} is damaged"))
}

fn load(store: &dyn Store, done: &Done, faults: &mut Vec<Fault>) -> Result<Vec<(Bytes, Bytes)>, String> {
    Ok(read_parts(store, &done.parts, faults)?.into_iter().collect())
}

fn read_parts(store: &dyn Store, parts: &[Part], faults: &mut Vec<Fault>) -> Result<BTreeMap<Bytes, Bytes>, String> {
    let mut state = BTreeMap::new();
    for part in parts {
        let bytes = read_any(store, &part.names(), |bytes| part.is_whole(bytes), faults)?;
        let mut rows = Vec::new();
        part::read(&bytes, |row| rows.push(row)).map_err(|damage: PartDamage| format!("part {} {damage}", part.number))?;
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
            out.push(u8::from(part.kind == Kind::Delta) | u8::from(part.copied) << 1);
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
            let (kind, copied) = (if kind & 1 == 0 { Kind::Base } else { Kind::Delta }, kind & 2 != 0);
            parts.push(Part { number: part_number, kind, copied, bytes: part_bytes, checksum: *sum });
        }
        rest.is_empty().then_some(Done { number, at, position, parts })
    }
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (eight, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*eight))
}

/// The newest checkpoint that is whole, changing nothing. `None`: there is none.
pub fn newest(store: &dyn Store) -> Result<Option<Loaded>, ArchiveError> {
    let mut damage = Vec::new();
    for number in done_numbers(store)?.into_iter().rev() {
        let mut faults = Vec::new();
        let read = read_done(store, number, &mut faults).and_then(|done| Ok((load(store, &done, &mut faults)?, done)));
        match read {
            Ok((entries, done)) => return Ok(Some(Loaded { at: done.at, position: done.position, entries })),
            Err(what) => damage.push(what),
        }
    }
    if damage.is_empty() { Ok(None) } else { Err(ArchiveError::Damaged(damage.join("; "))) }
}

/// What an offline check of all checkpoints found.
pub struct ArchiveReport {
    pub checkpoints: usize,
    pub damage: Vec<String>,
    /// Second copies that are not there, as a crash leaves it.
    pub noted: Vec<String>,
}

impl ArchiveReport {
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

impl fmt::Display for ArchiveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive: {} checkpoints", self.checkpoints)?;
        self.damage.iter().try_for_each(|damage| write!(f, "\n  damaged: {damage}"))?;
        self.noted.iter().try_for_each(|noted| write!(f, "\n  noted: {noted}"))
    }
}

/// Reads every copy of every part of every complete checkpoint.
pub fn verify(store: &dyn Store) -> ArchiveReport {
    let mut report = ArchiveReport { checkpoints: 0, damage: Vec::new(), noted: Vec::new() };
    match done_numbers(store) {
        Err(error) => report.damage.push(error.to_string()),
        Ok(numbers) => {
            for number in numbers {
                report.checkpoints += 1;
                if let Err(what) = verify_one(store, number, &mut report) {
                    report.damage.push(what);
                }
            }
        }
    }
    // Checkpoints share parts.
    report.damage.sort_unstable();
    report.damage.dedup();
    report
}

fn verify_one(store: &dyn Store, number: u64, report: &mut ArchiveReport) -> Result<(), String> {
    let done = read_done(store, number, &mut Vec::new())?;
    let copies = if done.parts.last().is_some_and(|part| part.copied) { 2 } else { 1 };
    for name in done_names(number).iter().take(copies) {
        let Err(what) = read_copy(store, name, |bytes| Done::decode(bytes).as_ref() == Some(&done)) else { continue };
        // They are written, and deleted, one after the other: a crash between leaves one.
        let absent = store.size(name).is_ok_and(|size| size.is_none());
        if absent { &mut report.noted } else { &mut report.damage }.push(what);
    }
    load(store, &done, &mut Vec::new())?;
    for part in &done.parts {
        let wrong = part.names().into_iter().filter_map(|name| read_copy(store, &name, |bytes| part.is_whole(bytes)).err());
        report.damage.extend(wrong);
    }
    Ok(())
}

#[cfg(test)]
#[path = "checkpoints_tests.rs"]
mod tests;
