//! Allocated files that wait to become extents.

use std::io;
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
    /// The volume gives no more.
    starved: bool,
}

impl Spares {
    pub fn found(disk: Arc<dyn Disk>, extent_bytes: u32, reserve: u32, numbers: Vec<u64>) -> Spares {
        let next = numbers.iter().max().map_or(0, |last| last + 1);
        let state = Mutex::new(State { numbers, next, starved: false });
        Spares { disk, extent_bytes, reserve: reserve as usize, state, ahead: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zeros to write before the first extent is used.
    pub fn first_zeros(&self) -> u64 {
        u64::from(FIRST_ZEROS.min(self.extent_bytes / 4))
    }

    pub fn room(&self) -> Room {
        let state = self.state();
        if state.starved && state.numbers.len() <= self.reserve { Room::Reserve } else { Room::Plenty }
    }

    /// Makes a spare the extent that `header` describes. The header is durable before the name is.
    pub fn become_extent(&self, header: &ExtentHeader, zeroed: u64) -> io::Result<()> {
        let taken = self.state().numbers.pop();
        let (spare, zeroed) = match taken {
            Some(number) => (number, u64::from(self.extent_bytes)),
            None => (self.create(zeroed)?, zeroed),
        };
        if !self.volume_gives()? {
            // Said here, not by the thread that replenishes: it may be slower than the writer.
            self.state().starved = true;
        }
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

    /// Whether the volume has space for another extent.
    fn volume_gives(&self) -> io::Result<bool> {
        let (free, volume) = (self.disk.free_bytes()?, self.disk.volume_bytes()?);
        Ok(free >= u64::from(self.extent_bytes) + FREE_BYTES_MIN.min(volume / 16) + volume / 100)
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
        while self.state().numbers.len() < self.reserve + READY {
            let enough = self.volume_gives()?;
            let made = if enough { self.create(u64::from(self.extent_bytes)) } else { Err(io::ErrorKind::StorageFull.into()) };
            let mut state = self.state();
            match made {
                Ok(number) => {
                    state.numbers.push(number);
                    state.starved = false;
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    if !std::mem::replace(&mut state.starved, true) {
                        tracing::warn!("no space for another extent: publishing is refused when only the reserve is left");
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(reader.has_retired())
    }

    /// Recycles an extent, or deletes it if there are spares enough.
    pub fn give_back(&self, extent: ExtentNumber) -> io::Result<()> {
        let keep = self.state().numbers.len() < self.reserve + 2 * READY;
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
