//! A disk in memory that loses what was not synced.
//!
//! A crash keeps any subset of the unsynced writes, sector by sector, and any prefix of the unsynced changes of names. The disk can be
//! told to crash at its n-th step, to fail a sync, or to be full.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, FileName};

/// What a real disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// SplitMix64 (Steele, Lea, Flood 2014): the chance of simulations.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `limit - 1`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    pub fn sixteen(&mut self) -> [u8; 16] {
        (u128::from(self.roll()) << 64 | u128::from(self.roll())).to_le_bytes()
    }
}

#[derive(Clone, Default)]
struct SimFile {
    /// As a process reads it.
    bytes: Vec<u8>,
    /// As it is after a crash that loses everything unsynced.
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Create(FileName),
    Rename(FileName, FileName),
    Delete(FileName),
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<FileName, u64>,
    durable_names: BTreeMap<FileName, u64>,
    changes: Vec<(NameChange, u64)>,
    next_file: u64,
    steps: u64,
    crash_at: Option<u64>,
    fail_sync_at: Option<u64>,
    syncs: u64,
    free_bytes: u64,
    volume_bytes: u64,
    crashed: bool,
    locked: bool,
    /// Syncs do nothing: to see that a test finds it.
    lying: bool,
}

pub struct SimDisk {
    state: Mutex<State>,
}

impl SimDisk {
    pub fn of_bytes(free_bytes: u64) -> SimDisk {
        SimDisk { state: Mutex::new(State { free_bytes, volume_bytes: free_bytes, ..State::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps (writes, syncs, changes of names) done so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Every call from the `step`-th step on fails, as if the process were gone.
    pub fn crash_at(&self, step: Option<u64>) {
        self.state().crash_at = step;
    }

    /// The `sync`-th sync from now on fails, and loses what it should have kept.
    pub fn fail_sync(&self, sync: u64) {
        let mut state = self.state();
        state.fail_sync_at = Some(state.syncs + sync);
    }

    /// Syncs succeed and keep nothing: an ablation.
    pub fn lie(&self) {
        self.state().lying = true;
    }

    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.state().free_bytes = free_bytes;
    }

    /// Of all that a process would find: names and bytes.
    pub fn digest(&self) -> u64 {
        let state = self.state();
        let mut digest = state.steps;
        for (name, id) in &state.names {
            let (kind, number) = match name {
                FileName::Extent(number) => (1, number.0),
                FileName::Spare(number) => (2, *number),
                FileName::Torn(number) => (3, number.0),
            };
            digest = mix(mix(digest, kind), number);
            for eight in state.files.get(id).map_or(&[][..], |file| &file.bytes).chunks(8) {
                let mut word = [0; 8];
                word[..eight.len()].copy_from_slice(eight);
                digest = mix(digest, u64::from_le_bytes(word));
            }
        }
        digest
    }

    /// The power comes back: what was synced is there, of the rest a part that `dice` picks.
    pub fn restart(&self, dice: &mut Dice) {
        let mut state = self.state();
        let named_before = state.named_bytes();
        let changes = std::mem::take(&mut state.changes);
        let kept = dice.below(changes.len() as u64 + 1);
        let mut names = state.durable_names.clone();
        for (change, file) in changes.into_iter().take(usize::try_from(kept).unwrap_or(0)) {
            apply(&mut names, &change, file);
        }
        state.names.clone_from(&names);
        state.durable_names = names;
        for file in state.files.values_mut() {
            let mut bytes = file.durable.clone();
            for (at, sector) in file.dirty.drain(..) {
                if dice.below(2) == 1 {
                    bytes[at..at + sector.len()].copy_from_slice(&sector);
                }
            }
            file.durable.clone_from(&bytes);
            file.bytes = bytes;
        }
        let named: std::collections::BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        state.free_bytes = (state.free_bytes + named_before).saturating_sub(state.named_bytes());
        state.crash_at = None;
        state.fail_sync_at = None;
        state.crashed = false;
        state.locked = false;
    }

    /// The process dies and the machine does not: everything written is there.
    pub fn restart_process(&self) {
        let mut state = self.state();
        state.crash_at = None;
        state.fail_sync_at = None;
        state.crashed = false;
        state.locked = false;
    }

    /// Changes bytes in place, as a failing disk would.
    pub fn damage(&self, file: FileName, change: impl FnOnce(&mut [u8])) {
        let mut state = self.state();
        let Some(id) = state.names.get(&file).copied() else {
            return;
        };
        if let Some(held) = state.files.get_mut(&id) {
            change(&mut held.bytes);
            held.durable.clone_from(&held.bytes);
        }
    }

    /// Loses the end of a file, as a failing file system would.
    pub fn truncate(&self, file: FileName, bytes: usize) {
        let mut state = self.state();
        let Some(id) = state.names.get(&file).copied() else {
            return;
        };
        if let Some(held) = state.files.get_mut(&id) {
            held.bytes.truncate(bytes);
            held.durable.clone_from(&held.bytes);
        }
    }

    /// Another disk with the same content.
    pub fn copy(&self) -> SimDisk {
        let state = self.state();
        let copy = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable_names: state.names.clone(),
            next_file: state.next_file,
            free_bytes: state.free_bytes,
            volume_bytes: state.volume_bytes,
            ..State::default()
        };
        SimDisk { state: Mutex::new(copy) }
    }
}

fn apply(names: &mut BTreeMap<FileName, u64>, change: &NameChange, file: u64) {
    match change {
        NameChange::Create(name) => {
            names.insert(*name, file);
        }
        NameChange::Rename(from, to) => {
            names.remove(from);
            names.insert(*to, file);
        }
        NameChange::Delete(name) => {
            names.remove(name);
        }
    }
}

fn mix(digest: u64, word: u64) -> u64 {
    (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl State {
    fn named_bytes(&self) -> u64 {
        self.names.values().filter_map(|id| self.files.get(id)).map(|file| file.bytes.len() as u64).sum()
    }

    fn step(&mut self) -> io::Result<()> {
        self.alive()?;
        self.steps += 1;
        if self.crash_at.is_some_and(|at| self.steps >= at) {
            self.crashed = true;
            return self.alive();
        }
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the simulated machine is off")) } else { Ok(()) }
    }

    fn id(&self, file: FileName) -> io::Result<u64> {
        self.names.get(&file).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange, file: u64) {
        apply(&mut self.names, &change, file);
        self.changes.push((change, file));
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> io::Result<bool> {
        let mut state = self.state();
        Ok(!std::mem::replace(&mut state.locked, true))
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let state = self.state();
        state.alive()?;
        let bytes = |id: &u64| state.files.get(id).map_or(0, |file| file.bytes.len() as u64);
        Ok(state.names.iter().map(|(name, id)| (*name, bytes(id))).collect())
    }

    fn create(&self, file: FileName, bytes: u64, _zeroed: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if bytes > state.free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.free_bytes -= bytes;
        let id = state.next_file;
        state.next_file += 1;
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
        state.files.insert(id, SimFile { bytes: zeros.clone(), durable: zeros, dirty: Vec::new() });
        state.change(NameChange::Create(file), id);
        Ok(())
    }

    fn write(&self, file: FileName, position: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut state = self.state();
        let crashes = state.step();
        let id = state.names.get(&file).copied();
        let held = id.and_then(|id| state.files.get_mut(&id)).ok_or(io::ErrorKind::NotFound)?;
        let mut at = usize::try_from(position).unwrap_or(usize::MAX);
        let mut cut = slices.concat();
        if crashes.is_err() {
            // The last thing before the power goes may be half a write.
            cut.truncate(cut.len() / 2 / SECTOR_BYTES * SECTOR_BYTES);
        }
        for sector in cut.chunks(SECTOR_BYTES) {
            let Some(room) = held.bytes.get_mut(at..at + sector.len()) else {
                return Err(io::ErrorKind::StorageFull.into());
            };
            room.copy_from_slice(sector);
            held.dirty.push((at, sector.to_vec()));
            at += sector.len();
        }
        crashes
    }

    fn read(&self, file: FileName, position: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        state.alive()?;
        let held = state.files.get(&state.id(file)?).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        let bytes = at.checked_add(into.len()).and_then(|end| held.bytes.get(at..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.syncs += 1;
        let fails = state.fail_sync_at == Some(state.syncs);
        if state.lying {
            return Ok(());
        }
        let id = state.id(file)?;
        let held = state.files.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        if fails {
            // The kernel marks the pages clean: they can be read, and never reach the disk.
            held.dirty.clear();
            return Err(io::Error::other("the simulated sync failed"));
        }
        for (at, sector) in std::mem::take(&mut held.dirty) {
            held.durable[at..at + sector.len()].copy_from_slice(&sector);
        }
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let id = state.id(from)?;
        state.change(NameChange::Rename(from, to), id);
        Ok(())
    }

    fn delete(&self, file: FileName) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let id = state.id(file)?;
        state.free_bytes += state.files.get(&id).map_or(0, |file| file.bytes.len() as u64);
        state.change(NameChange::Delete(file), id);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if !state.lying {
            let names = state.names.clone();
            state.durable_names = names;
            state.changes.clear();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free_bytes)
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        Ok(self.state().volume_bytes)
    }
}
