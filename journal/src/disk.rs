//! The one place where the real world can be swapped: numbered files of one directory.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firth_model::ids::ExtentNumber;

/// A file of the journal. Names are made from numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `<20 digits>.fj`
    Extent(ExtentNumber),
    /// `<20 digits>.spare`: allocated, of no content yet.
    Spare(u64),
    /// `<20 digits>.torn`: a copy of what a crash left at the end of an extent.
    Torn(ExtentNumber),
}

/// What the journal asks of a disk. Every call may be the last before a crash.
pub trait Disk: Send + Sync + 'static {
    /// Takes the directory for this process. False: another one has it.
    fn lock(&self) -> io::Result<bool>;
    /// All files with their sizes.
    fn list(&self) -> io::Result<Vec<(FileName, u64)>>;
    /// Makes a file with `bytes` allocated, of which the first `zeroed` are written with zeros.
    fn create(&self, file: FileName, bytes: u64, zeroed: u64) -> io::Result<()>;
    /// Writes all slices, one behind the other, from `position` on.
    fn write(&self, file: FileName, position: u64, slices: &[&[u8]]) -> io::Result<()>;
    /// Fills `into`; a file that ends before is an error.
    fn read(&self, file: FileName, position: u64, into: &mut [u8]) -> io::Result<()>;
    /// Makes all writes to the file durable. After an error nothing about the file may be believed.
    fn sync(&self, file: FileName) -> io::Result<()>;
    fn rename(&self, from: FileName, to: FileName) -> io::Result<()>;
    fn delete(&self, file: FileName) -> io::Result<()>;
    /// Makes names durable: creations, renames, deletions.
    fn sync_names(&self) -> io::Result<()>;
    fn free_bytes(&self) -> io::Result<u64>;
    fn volume_bytes(&self) -> io::Result<u64>;
}

/// Files of a directory on a real file system.
pub struct FileDisk {
    directory: PathBuf,
    open: Mutex<HashMap<FileName, Arc<File>>>,
    lock: Mutex<Option<File>>,
}

impl FileDisk {
    /// The journal of shard 0 under `root`; the directory is made if need be.
    pub fn open(root: &Path) -> io::Result<FileDisk> {
        let directory = root.join("0");
        fs::create_dir_all(&directory)?;
        Ok(FileDisk { directory, open: Mutex::default(), lock: Mutex::default() })
    }

    fn path(&self, file: FileName) -> PathBuf {
        self.directory.join(match file {
            FileName::Extent(number) => format!("{:020}.fj", number.0),
            FileName::Spare(number) => format!("{number:020}.spare"),
            FileName::Torn(number) => format!("{:020}.torn", number.0),
        })
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<FileName, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: FileName) -> io::Result<Arc<File>> {
        if let Some(handle) = self.handles().get(&file) {
            return Ok(handle.clone());
        }
        let handle = Arc::new(OpenOptions::new().read(true).write(true).open(self.path(file))?);
        self.handles().insert(file, handle.clone());
        Ok(handle)
    }
}

fn parse_name(text: &str) -> Option<FileName> {
    let (digits, kind) = text.split_once('.')?;
    if digits.len() != 20 {
        return None;
    }
    let number = digits.parse().ok()?;
    match kind {
        "fj" => Some(FileName::Extent(ExtentNumber(number))),
        "spare" => Some(FileName::Spare(number)),
        "torn" => Some(FileName::Torn(ExtentNumber(number))),
        _ => None,
    }
}

impl Disk for FileDisk {
    fn lock(&self) -> io::Result<bool> {
        let file = File::create(self.directory.join("lock"))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(file) = entry.file_name().to_str().and_then(parse_name) else { continue };
            match entry.metadata() {
                Ok(metadata) => files.push((file, metadata.len())),
                // It was renamed or deleted meanwhile, by the node that a backup reads beside.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn create(&self, file: FileName, bytes: u64, zeroed: u64) -> io::Result<()> {
        let handle = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(file))?;
        let made = match rustix::fs::fallocate(&handle, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot reserve is written to as it is.
            Err(rustix::io::Errno::OPNOTSUPP) => handle.set_len(bytes),
            made => made.map_err(io::Error::from),
        };
        let written = made.and_then(|()| write_zeros(&handle, zeroed)).and_then(|()| handle.sync_all());
        if written.is_err() {
            // What was reserved for a file that cannot be used is space somebody needs.
            fs::remove_file(self.path(file))?;
        } else {
            self.handles().insert(file, Arc::new(handle));
        }
        written
    }

    fn write(&self, file: FileName, position: u64, slices: &[&[u8]]) -> io::Result<()> {
        let handle = self.handle(file)?;
        if let [one] = slices {
            return handle.write_all_at(one, position);
        }
        let io_slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = loop {
            match rustix::io::pwritev(&handle, &io_slices, position) {
                Err(rustix::io::Errno::INTR) => continue,
                outcome => break outcome?,
            }
        };
        // A write that was cut short is rare: what is left goes slice by slice.
        let mut at = 0;
        for slice in slices {
            let end = at + slice.len();
            if written < end && written < total {
                handle.write_all_at(&slice[written - at..], position + written as u64)?;
                written = end;
            }
            at = end;
        }
        Ok(())
    }

    fn read(&self, file: FileName, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.handle(file)?.read_exact_at(into, position)
    }

    fn sync(&self, file: FileName) -> io::Result<()> {
        self.handle(file)?.sync_data()
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))?;
        let mut handles = self.handles();
        if let Some(handle) = handles.remove(&from) {
            handles.insert(to, handle);
        }
        Ok(())
    }

    fn delete(&self, file: FileName) -> io::Result<()> {
        self.handles().remove(&file);
        fs::remove_file(self.path(file))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(&self.directory)?;
        Ok(volume.f_bavail * volume.f_frsize)
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(&self.directory)?;
        Ok(volume.f_blocks * volume.f_frsize)
    }
}

fn write_zeros(handle: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(zeros.len() as u64);
        handle.write_all_at(&zeros[..usize::try_from(part).unwrap_or(zeros.len())], at)?;
        at += part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A backup lists the directory of a node that goes on renaming and deleting.
    #[test]
    fn files_may_go_while_they_are_listed() {
        let root = std::env::temp_dir().join(format!("firth-disk-{}", std::process::id()));
        let disk = FileDisk::open(&root).expect("opens");
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    for number in 0..20 {
                        disk.create(FileName::Spare(number), 4096, 0).expect("made");
                    }
                    for number in 0..20 {
                        disk.delete(FileName::Spare(number)).expect("deleted");
                    }
                }
            });
            let listed = (0..2_000).try_for_each(|_| disk.list().map(|_| ()));
            ended.store(true, Ordering::Relaxed);
            listed.expect("what is gone is not listed");
        });
        fs::remove_dir_all(&root).expect("removed");
    }
}
