//! Rules that can be switched off, to see that a run notices.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use firth_broker::archiver::Job;
use firth_journal::disk::{Disk, FileName};
use firth_journal::simdisk::SimDisk;
use firth_model::removed::RunSet;

/// What is broken on purpose. Nothing, by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ablations {
    /// Commits are acknowledged before their sync.
    pub late_sync: bool,
    /// Whatever cannot be read at the end of a journal is taken for a torn tail.
    pub cut_damaged: bool,
    /// Nothing says that the last group is durable.
    pub no_markers: bool,
    /// Extents are recycled while somebody reads them.
    pub recycle_under_readers: bool,
    /// Extents are given back before the entry that says where their records went is durable.
    pub give_back_early: bool,
    /// Segments are deleted as soon as the live state does not need them.
    pub delete_early: bool,
    /// Compaction leaves out a record that nothing replaces.
    pub drop_newest: bool,
    /// Compaction keeps the record that says a key is deleted no longer than others.
    pub forget_deletes: bool,
    /// Records expire before their time.
    pub expire_early: bool,
}

impl Ablations {
    /// Breaks the rules of compaction in what is to be done.
    pub fn spoil(&self, job: &mut Job) {
        for part in &mut job.parts {
            let Some(cleaning) = &mut part.cleaning else { continue };
            if self.drop_newest {
                let mut removed = RunSet::clone(&part.removed);
                removed.insert(cleaning.until.0 - 1..cleaning.until.0);
                part.removed = Arc::new(removed);
            }
            if self.forget_deletes {
                cleaning.delete_retention_ms = 0;
            }
        }
    }
}

/// A disk whose syncs answer at once and are done when the next one is asked for.
pub struct LateSync {
    inner: Arc<SimDisk>,
    owed: Mutex<Option<FileName>>,
}

impl LateSync {
    pub fn over(inner: Arc<SimDisk>) -> LateSync {
        LateSync { inner, owed: Mutex::default() }
    }
}

impl Disk for LateSync {
    fn lock(&self) -> io::Result<bool> {
        self.inner.lock()
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        self.inner.list()
    }

    fn create(&self, file: FileName, bytes: u64, zeroed: u64) -> io::Result<()> {
        self.inner.create(file, bytes, zeroed)
    }

    fn write(&self, file: FileName, position: u64, slices: &[&[u8]]) -> io::Result<()> {
        self.inner.write(file, position, slices)
    }

    fn read(&self, file: FileName, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read(file, position, into)
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner).replace(file);
        // The file may have another name by now.
        match owed.map(|owed| self.inner.sync(owed)) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        self.inner.sync(from)?;
        self.inner.rename(from, to)
    }

    fn delete(&self, file: FileName) -> io::Result<()> {
        self.inner.delete(file)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        self.inner.volume_bytes()
    }
}
