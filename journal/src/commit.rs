//! The commit thread: one write and one sync for all that waits.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firth_model::ids::{ExtentNumber, Lsn};
use firth_model::time::{Clock, Millis};

use crate::core::{Core, Write};
use crate::disk::{Disk, FileName};
use crate::entry::Entry;
use crate::extent::ExtentHeader;
use crate::group::Built;
use crate::reader::Reader;
use crate::spares::{Room, Spares};

/// Idle time after which a marker says that the last group is durable.
const MARKER_AFTER: Duration = Duration::from_millis(20);
/// How often retired extents are looked at while readers hold them.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What one sync made durable.
#[derive(Debug)]
pub struct Completed {
    /// Every entry up to here is durable.
    pub durable: Lsn,
    pub groups: Vec<Built>,
    /// An extent that got its directory: it is finished.
    pub sealed: Option<ExtentNumber>,
    pub append_ms: Millis,
}

/// Does what the core decides. In a node the commit thread turns it; in a simulation, the simulation does.
pub struct Driver {
    pub core: Core,
    pub disk: Arc<dyn Disk>,
    pub reader: Arc<Reader>,
    pub spares: Arc<Spares>,
    /// Of the extent that is written now; the next one has the next number.
    pub header: ExtentHeader,
    /// Gives the incarnations of extents.
    pub random: Box<dyn FnMut() -> [u8; 16] + Send>,
    pub durable: Lsn,
    /// Told when a spare was taken. `None`: whoever turns this driver replenishes.
    pub upkeep: Option<Arc<Upkeep>>,
}

impl Driver {
    /// Makes everything durable that is queued; calls `completed` after each sync. An error is final: nothing after it is durable.
    pub fn turn(&mut self, now: Millis, completed: &mut dyn FnMut(Completed)) -> io::Result<()> {
        loop {
            if self.core.wants_extent() && self.core.queued_bytes() > 0 {
                self.roll()?;
            }
            let queued = self.core.queued_bytes();
            let Some(write) = self.core.next_write(now) else {
                return Ok(());
            };
            let taken = queued - self.core.queued_bytes();
            self.perform(write, completed)?;
            self.spares.written(taken as u64);
        }
    }

    /// Finishes the extent that is written now, if it holds entries.
    pub fn finish_extent(&mut self, now: Millis, completed: &mut dyn FnMut(Completed)) -> io::Result<()> {
        match self.core.finish(now) {
            Some(write) => self.perform(write, completed),
            None => Ok(()),
        }
    }

    /// Says on disk what is durable, if it was not said.
    pub fn mark(&mut self, now: Millis) -> io::Result<()> {
        match self.core.marker(now) {
            Some(write) => self.perform(write, &mut |_| ()),
            None => Ok(()),
        }
    }

    pub(crate) fn perform(&mut self, write: Write, completed: &mut dyn FnMut(Completed)) -> io::Result<()> {
        let slices: Vec<&[u8]> = write.groups.iter().flat_map(Built::slices).collect();
        let file = FileName::Extent(write.extent);
        let carries_entries = write.groups.iter().any(|group| group.last_lsn >= group.first_lsn);
        if carries_entries {
            tracing::trace!(target: "path", hop = "Disk::write");
        }
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        self.spares.claim(write.extent, u64::from(write.at) + bytes as u64);
        self.disk.write(file, u64::from(write.at), &slices)?;
        self.disk.sync(file)?;
        if carries_entries {
            tracing::trace!(target: "path", hop = "Disk::sync");
        }
        self.core.completed(&write);
        let append_ms = self.core.append_ms();
        if write.seals {
            if let Some(group) = write.groups.first() {
                self.reader.remember_sealed(write.extent, &group.bytes);
            }
            completed(Completed { durable: self.durable, groups: Vec::new(), sealed: Some(write.extent), append_ms });
        } else if let Some(last) = write.groups.last().map(|group| group.last_lsn) {
            self.durable = self.durable.max(last);
            completed(Completed { durable: self.durable, groups: write.groups, sealed: None, append_ms });
        }
        Ok(())
    }

    /// Goes on in a fresh extent.
    pub(crate) fn roll(&mut self) -> io::Result<()> {
        self.header.number = ExtentNumber(self.header.number.0 + 1);
        self.header.incarnation = (self.random)();
        self.spares.become_extent(&self.header, u64::from(self.header.extent_bytes))?;
        self.reader.born(self.header.number, self.header.incarnation);
        self.core.begin(self.header);
        if let Some(upkeep) = &self.upkeep {
            upkeep.ring();
        }
        Ok(())
    }
}

/// What lies between the shard and the commit thread.
#[derive(Default)]
pub struct Handover {
    state: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    entries: Vec<Entry>,
    /// The extent is to be finished behind what waits.
    finish: bool,
    stopping: bool,
    asleep: bool,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds entries; wakes the thread if it sleeps.
    pub fn push(&self, entries: &mut Vec<Entry>) {
        let mut waiting = self.lock();
        if waiting.entries.is_empty() {
            std::mem::swap(&mut waiting.entries, entries);
        } else {
            waiting.entries.append(entries);
        }
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.bell.notify_one();
        }
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.bell.notify_one();
    }

    pub fn finish_extent(&self) {
        self.lock().finish = true;
        self.bell.notify_one();
    }

    /// Takes what waits, into an empty list. Sleeps while there is nothing, at most `patience`.
    fn take(&self, into: &mut Vec<Entry>, patience: Option<Duration>) -> Taken {
        let mut waiting = self.lock();
        if waiting.entries.is_empty() && !waiting.stopping && !waiting.finish {
            waiting.asleep = true;
            waiting = match patience {
                Some(patience) => self.bell.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner).0,
                None => self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
            waiting.asleep = false;
        }
        std::mem::swap(into, &mut waiting.entries);
        Taken { finish: std::mem::take(&mut waiting.finish), stopping: waiting.stopping }
    }
}

/// What is asked beside the entries.
struct Taken {
    finish: bool,
    stopping: bool,
}

/// The thread's loop, until it is stopped and everything queued is durable.
pub fn run(mut driver: Driver, handover: &Handover, clock: &Clock, mut completed: impl FnMut(Completed)) -> io::Result<()> {
    let mut entries = Vec::new();
    let mut marked = true;
    loop {
        let Taken { finish, stopping } = handover.take(&mut entries, (!marked).then_some(MARKER_AFTER));
        if entries.is_empty() && !finish {
            // Idle, or about to end: the last group is still without evidence that it is durable.
            driver.mark(clock())?;
            marked = true;
            if stopping {
                return Ok(());
            }
            continue;
        }
        driver.core.enqueue(entries.drain(..));
        driver.turn(clock(), &mut completed)?;
        if finish {
            driver.finish_extent(clock(), &mut completed)?;
        }
        marked = false;
    }
}

/// Retires extents and keeps spares ready, beside the commit thread.
#[derive(Default)]
pub struct Upkeep {
    state: Mutex<Errands>,
    bell: Condvar,
}

#[derive(Default)]
struct Errands {
    due: bool,
    stopping: bool,
}

impl Upkeep {
    fn lock(&self) -> MutexGuard<'_, Errands> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ring(&self) {
        self.lock().due = true;
        self.bell.notify_one();
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.bell.notify_one();
    }

    /// The first extent of a node's life is zeroed while it is written.
    fn zero_ahead(&self, spares: &Spares) {
        while !self.lock().stopping {
            match spares.zero_ahead() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::error!(%error, "zeros cannot be written ahead"),
            }
        }
    }

    pub fn run(&self, spares: &Spares, reader: &Reader) {
        let mut again;
        loop {
            self.zero_ahead(spares);
            match spares.replenish(reader, &mut Vec::new()) {
                Ok(waits) => again = waits || spares.room() == Room::Reserve,
                Err(error) => {
                    tracing::error!(%error, "extents cannot be prepared");
                    again = true;
                }
            }
            let mut errands = self.lock();
            while !errands.due && !errands.stopping {
                if again {
                    errands = self.bell.wait_timeout(errands, RETRY_AFTER).unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
                errands = self.bell.wait(errands).unwrap_or_else(PoisonError::into_inner);
            }
            if errands.stopping {
                return;
            }
            errands.due = false;
        }
    }
}
