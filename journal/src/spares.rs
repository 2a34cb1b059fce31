//! Allocated files that wait to become extents.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firth_model::ids::ExtentNumber;

use crate::disk::{Disk, FileName};
use crate::extent::ExtentHeader;
use crate::reader::Reader;

/// Spares beyond the reserve: one, so that the writer never waits for zeros to be written.
const READY: usize = 1;
/// Zeros written under one hold of the lock: short enough that a writer does not feel it.
const ZEROS_AT_ONCE: u64 = 256 << 10;
/// What a first start zeroes before it serves; the rest follows while it serves.
const FIRST_ZEROS: u32 = 1 << 20;
/// Free space that is left alone: others write to the volume too, and file systems are slow when nearly full.
const FREE_BYTES_MIN: u64 = 16 << 20;

/// How much may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Plenty,
    /// Only the reserve is left, for what frees space.
    Reserve,
}

pub struct Spares {
    disk: Arc<dyn Disk>,
    extent_bytes: u32,
    reserve: usize,
    state: Mutex<State>,
    /// Bytes of entries that were handed over and are not written.
    waiting: AtomicU64,
    ahead: Mutex<Option<Ahead>>,
}

/// An extent that is written while zeros are still written ahead of it.
struct Ahead {
    extent: ExtentNumber,
    /// Everything before holds zeros or groups.
    zeroed: u64,
}

#[derive(Default)]
struct State {
    numbers: Vec<u64>,
    next: u64,
    /// Extents whose files are damaged in size: nothing can be written there.
    misfits: Vec<ExtentNumber>,
    /// What the volume had for extents when it was last looked at, in bytes of whole extents.
    volume_room: u64,
    /// The volume gives no more, and somebody was told.
    starved: bool,
}

impl Spares {
    pub fn found(disk: Arc<dyn Disk>, extent_bytes: u32, reserve: u32, numbers: Vec<u64>) -> Spares {
        let next = numbers.iter().max().map_or(0, |last| last + 1);
        let state = Mutex::new(State { numbers, next, ..State::default() });
        let spares = Spares { disk, extent_bytes, reserve: reserve as usize, state, waiting: AtomicU64::new(0), ahead: Mutex::default() };
        // A node that starts on a full volume refuses publishers from its first turn on. A volume that cannot be asked is full.
        let volume_room = spares.volume_room().unwrap_or(0);
        spares.state().volume_room = volume_room;
        spares
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The extent's file is not to be used again.
    pub(crate) fn misfit(&self, extent: ExtentNumber) {
        self.state().misfits.push(extent);
    }

    /// Zeros to write before the first extent is used.
    pub fn first_zeros(&self) -> u64 {
        u64::from(FIRST_ZEROS.min(self.extent_bytes / 4))
    }

    pub fn room(&self) -> Room {
        if self.room_bytes() == 0 { Room::Reserve } else { Room::Plenty }
    }

    /// Bytes of entries that may be handed over before the reserve is touched, what waits to be written taken off.
    pub fn room_bytes(&self) -> u64 {
        let extents = {
            let state = self.state();
            // Spares taken from the reserve while the volume still gave are to be made again from what it gives.
            let spares = state.numbers.len() as u64 * u64::from(self.extent_bytes);
            (spares + state.volume_room).saturating_sub(self.reserve as u64 * u64::from(self.extent_bytes))
        };
        // An entry may be half an extent, so half of each extent is certain to be used.
        (extents / 2).saturating_sub(self.waiting.load(Ordering::Relaxed))
    }

    pub(crate) fn handed_over(&self, bytes: u64) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Called by the one thread that writes.
    pub(crate) fn written(&self, bytes: u64) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.waiting.fetch_sub(bytes.min(waiting), Ordering::Relaxed);
    }

    /// Makes a spare the extent that `header` describes. The header is durable before the name is.
    pub fn become_extent(&self, header: &ExtentHeader, zeroed: u64) -> io::Result<()> {
        let taken = self.state().numbers.pop();
        let (spare, zeroed) = match taken {
            Some(number) => (number, u64::from(self.extent_bytes)),
            None => (self.create(zeroed)?, zeroed),
        };
        // Looked at here, not only by the thread that replenishes: it may be slower than the writer.
        self.look()?;
        let file = FileName::Spare(spare);
        self.disk.write(file, 0, &[&header.encode()])?;
        self.disk.sync(file)?;
        self.disk.rename(file, FileName::Extent(header.number))?;
        self.disk.sync_names()?;
        *self.ahead() = (zeroed < u64::from(self.extent_bytes)).then_some(Ahead { extent: header.number, zeroed });
        Ok(())
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before groups are written: what lies before `end` is theirs, and no zeros are written there any more.
    pub fn claim(&self, extent: ExtentNumber, end: u64) {
        if let Some(ahead) = self.ahead().as_mut().filter(|ahead| ahead.extent == extent) {
            ahead.zeroed = ahead.zeroed.max(end);
        }
    }

    /// Writes some more zeros into the extent that a first start began before all of it was zeroed. False: there is nothing to do.
    ///
    /// Holds the lock while it writes, so that no group can have been written where zeros go.
    pub fn zero_ahead(&self) -> io::Result<bool> {
        let mut held = self.ahead();
        let Some(ahead) = held.as_mut() else { return Ok(false) };
        let bytes = u64::from(self.extent_bytes).saturating_sub(ahead.zeroed).min(ZEROS_AT_ONCE);
        if bytes == 0 {
            *held = None;
            return Ok(false);
        }
        let zeros = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let (file, at) = (FileName::Extent(ahead.extent), ahead.zeroed);
        ahead.zeroed += bytes;
        self.disk.write(file, at, &[&zeros])?;
        Ok(true)
    }

    /// What the volume has for extents, in bytes of whole extents.
    fn volume_room(&self) -> io::Result<u64> {
        let (free, volume) = (self.disk.free_bytes()?, self.disk.volume_bytes()?);
        let room = free.saturating_sub(FREE_BYTES_MIN.min(volume / 16) + volume / 100);
        let extent_bytes = u64::from(self.extent_bytes).max(1);
        Ok(room / extent_bytes * extent_bytes)
    }

    /// Looks at the volume. True: it has space for another extent.
    fn look(&self) -> io::Result<bool> {
        let room = self.volume_room()?;
        self.state().volume_room = room;
        Ok(room > 0)
    }

    fn create(&self, zeroed: u64) -> io::Result<u64> {
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next - 1
        };
        self.disk.create(FileName::Spare(number), u64::from(self.extent_bytes), zeroed)?;
        Ok(number)
    }

    /// Gives back retired extents that no reader is in, then makes spares up to the reserve and one more.
    ///
    /// True: some extents wait for their readers, so this should be called again.
    pub fn replenish(&self, reader: &Reader, retired: &mut Vec<ExtentNumber>) -> io::Result<bool> {
        retired.extend(reader.take_unheld());
        for extent in retired.drain(..) {
            self.give_back(extent)?;
        }
        let mut gives = self.look()?;
        while gives && self.state().numbers.len() < self.reserve + READY {
            match self.create(u64::from(self.extent_bytes)) {
                Ok(number) => self.state().numbers.push(number),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
            gives = self.look()?;
        }
        self.say_whether_starved();
        Ok(reader.has_retired())
    }

    fn say_whether_starved(&self) {
        let starved = self.room() == Room::Reserve;
        if std::mem::replace(&mut self.state().starved, starved) != starved {
            if starved {
                tracing::warn!("no space for another extent: publishing is refused until space comes back");
            } else {
                tracing::warn!("space came back: publishing goes on");
            }
        }
    }

    /// Recycles an extent, or deletes it if there are spares enough.
    pub fn give_back(&self, extent: ExtentNumber) -> io::Result<()> {
        let keep = {
            let state = self.state();
            state.numbers.len() < self.reserve + 2 * READY && !state.misfits.contains(&extent)
        };
        if keep {
            let number = {
                let mut state = self.state();
                state.next += 1;
                state.next - 1
            };
            self.disk.rename(FileName::Extent(extent), FileName::Spare(number))?;
            self.disk.sync_names()?;
            self.state().numbers.push(number);
        } else {
            self.disk.delete(FileName::Extent(extent))?;
            self.disk.sync_names()?;
        }
        Ok(())
    }
}
