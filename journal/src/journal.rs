//! The journal as its owner holds it: append, room, release, drain.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use firth_model::ids::{ExtentNumber, Lsn, Position};
use firth_model::limits::{EXTENT_BYTES_MAX, EXTENT_BYTES_MIN};
use firth_model::time::{Clock, Millis};

use bytes::Bytes;

use crate::commit::{self, Completed, Driver, Handover, Upkeep};
use crate::core::Core;
use crate::disk::{Disk, FileName};
use crate::entry::Entry;
use crate::extent::BLOCK_BYTES;
use crate::options::{OpenError, Options, Replayed};
use crate::reader::Reader;
use crate::recovery;
use crate::report::TornReport;
use crate::scan::extent_header;
use crate::spares::{Room, Spares};

/// An open journal, fenced against every earlier writer.
pub struct Opened {
    pub journal: Journal,
    pub reader: Arc<Reader>,
    /// What a crash left at the end, if anything.
    pub torn: Option<TornReport>,
    pub epoch: u64,
    /// Of the last group.
    pub append_ms: Millis,
    /// The first entry that was read back, or the next one's if there was none.
    pub first_lsn: Lsn,
    pub last_lsn: Lsn,
}

pub struct Journal {
    /// Until the thread has it.
    driver: Option<Driver>,
    clock: Clock,
    handover: Arc<Handover>,
    upkeep: Arc<Upkeep>,
    spares: Arc<Spares>,
    reader: Arc<Reader>,
    last_lsn: Lsn,
    threads: Vec<JoinHandle<()>>,
    open_extent: ExtentNumber,
    extents: Vec<ExtentNumber>,
}

/// The size of this journal's extents: what is there, else what the options ask for.
pub fn extent_bytes(disk: &dyn Disk, options: &Options) -> io::Result<u32> {
    let mut bytes_max = None;
    // Only extents count: a crash at first start may leave a spare of any size.
    for (file, bytes) in disk.list()? {
        let FileName::Extent(number) = file else { continue };
        bytes_max = bytes_max.max(u32::try_from(bytes).ok());
        if bytes >= u64::from(BLOCK_BYTES)
            && let Some(header) = extent_header(disk, number)?
        {
            return Ok(header.extent_bytes.max(BLOCK_BYTES));
        }
    }
    if let Some(bytes) = bytes_max {
        // No header can be read: opening will say so, in positions that fit the files.
        return Ok(bytes.max(BLOCK_BYTES));
    }
    let sixteenth = u32::try_from(disk.volume_bytes()? / 16).unwrap_or(u32::MAX);
    let wanted = options.extent_bytes.unwrap_or(sixteenth.clamp(EXTENT_BYTES_MIN, EXTENT_BYTES_MAX));
    Ok(wanted.next_multiple_of(BLOCK_BYTES))
}

/// Opens the journal: reads what is there, from the extent of `from` on, and fences.
///
/// Every entry is given to `visit` in order. When this returns, everything visited is durable and a fence group of a new epoch is.
pub fn open(disk: Arc<dyn Disk>, mut options: Options, from: Position, visit: &mut dyn FnMut(Replayed<'_>)) -> Result<Opened, OpenError> {
    if !disk.lock()? {
        return Err(OpenError::InUse);
    }
    // A spare must not become an extent while its earlier name, of a process that was killed, could come back with a power cut.
    disk.sync_names()?;
    let extent_bytes = extent_bytes(&*disk, &options)?;
    let reader = Arc::new(Reader::over(disk.clone(), extent_bytes));
    let spares = Arc::new(Spares::found(disk.clone(), extent_bytes, options.reserve_extents, usable_spares(&*disk, extent_bytes)?));
    let taken = recovery::take_over(&disk, &spares, &reader, extent_bytes, &mut options, from, visit)?;
    let append_ms = taken.driver.core.append_ms();
    let journal = Journal {
        last_lsn: taken.driver.durable,
        open_extent: taken.driver.header.number,
        driver: Some(taken.driver),
        clock: options.clock,
        handover: Arc::default(),
        upkeep: Arc::default(),
        spares,
        reader: reader.clone(),
        threads: Vec::new(),
        extents: taken.extents,
    };
    let last_lsn = journal.last_lsn;
    Ok(Opened { journal, reader, torn: taken.torn, append_ms, epoch: taken.epoch, first_lsn: taken.first_lsn, last_lsn })
}

/// Spares of the right size; a crash while one was made may have left another.
fn usable_spares(disk: &dyn Disk, extent_bytes: u32) -> io::Result<Vec<u64>> {
    let mut usable = Vec::new();
    for (file, bytes) in disk.list()? {
        match file {
            FileName::Spare(number) if bytes == u64::from(extent_bytes) => usable.push(number),
            FileName::Spare(_) => disk.delete(file)?,
            FileName::Extent(_) | FileName::Torn(_) => {}
        }
    }
    Ok(usable)
}

impl Journal {
    /// Starts the threads. `completed` is called on the commit thread, in order, once a sync; `fatal` when a write or sync failed:
    /// it must end the process, because what was queued is neither durable nor known not to be.
    pub fn start(
        &mut self,
        completed: impl FnMut(Completed) + Send + 'static,
        fatal: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<()> {
        let Some(mut driver) = self.driver.take() else {
            return Ok(());
        };
        // Without it every extent after the first few would be zeroed while commits wait for it.
        driver.upkeep = Some(self.upkeep.clone());
        let (handover, clock) = (self.handover.clone(), self.clock.clone());
        let commit = std::thread::Builder::new().name("commit".to_owned()).spawn(move || {
            if let Err(error) = commit::run(driver, &handover, &clock, completed) {
                fatal(error);
            }
        })?;
        let (upkeep, spares, reader) = (self.upkeep.clone(), self.spares.clone(), self.reader.clone());
        let extents = std::thread::Builder::new().name("extents".to_owned()).spawn(move || upkeep.run(&spares, &reader))?;
        self.threads = vec![commit, extents];
        Ok(())
    }

    /// The part that writes, for who turns it himself instead of calling `start`.
    pub fn take_driver(&mut self) -> Option<Driver> {
        self.driver.take()
    }

    /// Largest entry this journal takes, in bytes as `Entry::bytes` counts them. A larger one ends the process.
    pub fn entry_bytes_max(&self) -> usize {
        Core::entry_bytes_max(self.reader.extent_bytes())
    }

    /// Queues entries, in order; gives the lsn of the last. Never waits. Leaves `entries` empty.
    pub fn append(&mut self, entries: &mut Vec<Entry>) -> Lsn {
        tracing::trace!(target: "path", hop = "Journal::append");
        self.last_lsn = Lsn(self.last_lsn.0 + entries.len() as u64);
        self.spares.handed_over(entries.iter().map(|entry| entry.room_bytes() as u64).sum());
        self.handover.push(entries);
        self.last_lsn
    }

    /// Has the extent that is written now finished, behind everything that was appended. Nothing happens if it holds no entry.
    pub fn finish_extent(&self) {
        self.handover.finish_extent();
    }

    pub fn room(&self) -> Room {
        self.spares.room()
    }

    /// Bytes of entries that may be handed over before the reserve is touched.
    pub fn room_bytes(&self) -> u64 {
        self.spares.room_bytes()
    }

    /// Nothing in these extents is needed: they are recycled once no reader is in them.
    pub fn release(&self, extents: &[ExtentNumber]) {
        self.reader.retire(extents);
        self.upkeep.ring();
    }

    /// The first extent that this process writes.
    pub fn open_extent(&self) -> ExtentNumber {
        self.open_extent
    }

    /// Extents that were there when the journal was opened.
    pub fn extents(&self) -> &[ExtentNumber] {
        &self.extents
    }

    /// Makes everything durable, says so on disk, and ends the threads.
    pub fn drain(mut self) {
        self.handover.stop();
        self.upkeep.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the journal ended by a broken invariant");
            }
        }
    }
}

/// For fuzzing: reads bytes as everything that lies on disk. Must not panic.
#[doc(hidden)]
pub fn fuzz_decode(bytes: &[u8]) {
    if let Some(header) = crate::group::GroupHeader::decode(bytes)
        && crate::group::body_holds(&header, bytes)
    {
        let _ = crate::group::contents(&header, Position(0), bytes);
    }
    let _ = crate::extent::ExtentHeader::decode(bytes);
    let raw = Bytes::copy_from_slice(bytes);
    if let Ok((_, body, _)) = crate::entry::open_entry(&raw, 0) {
        let _ = crate::entry::read_batch(&body);
        let _ = crate::entry::read_state_put(&body);
    }
    let _ = crate::entry::batch_at(&raw, firth_model::ids::Offset(0));
    let _ = crate::entry::read_batch(&raw);
    let _ = crate::entry::read_partition_trim(bytes);
    let _ = crate::entry::read_state_put(&raw);
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "adversary_tests.rs"]
mod adversary;
