//! Where archive objects lie: whole or not at all, never overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::OFlags;

/// A flat map of names to immutable objects. Names are made by the archive from numbers, never from what users say.
pub trait Store: Send + Sync + 'static {
    /// Makes an object, durably. An object of that name that is there already is an error of kind `AlreadyExists`.
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// `None`: there is no such object.
    fn get(&self, name: &str) -> io::Result<Option<Bytes>>;
    /// `bytes` of an object from `at` on. No such object is an error of kind `NotFound`, one that ends before of kind `UnexpectedEof`.
    fn get_range(&self, name: &str, at: u64, bytes: usize) -> io::Result<Bytes>;
    /// Bytes of an object. `None`: there is no such object.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;
    /// Names that begin with `prefix`, in order.
    fn list(&self, prefix: &str) -> io::Result<Vec<String>>;
    /// An object that is not there is deleted already.
    fn delete(&self, name: &str) -> io::Result<()>;
}

/// Objects as files of one directory; `/` in a name is `.` in the file's.
pub struct DirectoryStore {
    root: PathBuf,
    leaves_space: bool,
}

/// What a store that leaves space does not touch: the journal keeps twice as much free, and checkpoints must fit in between.
const LEFT_BYTES_MAX: u64 = 8 << 20;

const UNFINISHED: &str = ".tmp";
/// What reads past the page cache are multiples of, in the file and in memory.
const ALIGNED_BYTES: usize = 4096;
/// What is asked of the disk at once: a sync of the journal may have to wait for it.
const PIECE_BYTES: usize = 256 << 10;
/// Objects from this size on are written past the page cache, where nobody looks for them again and memory is needed for others.
const DIRECT_BYTES_MIN: usize = 1 << 20;

impl DirectoryStore {
    pub fn open(root: &Path) -> io::Result<DirectoryStore> {
        fs::create_dir_all(root)?;
        for entry in fs::read_dir(root)? {
            // What a crash left half written.
            let path = entry?.path();
            if path.to_str().is_some_and(|path| path.ends_with(UNFINISHED)) {
                fs::remove_file(path)?;
            }
        }
        Ok(DirectoryStore { root: root.to_owned(), leaves_space: false })
    }

    /// A store that another process owns: nothing is cleared away. For reading.
    pub fn beside(root: &Path) -> DirectoryStore {
        DirectoryStore { root: root.to_owned(), leaves_space: false }
    }

    /// The same store, refusing objects that would fill the volume: for what may wait.
    pub fn leaving_space(self) -> DirectoryStore {
        DirectoryStore { leaves_space: true, ..self }
    }

    fn has_space_for(&self, bytes: u64) -> io::Result<bool> {
        let volume = rustix::fs::statvfs(&self.root)?;
        let (free, total) = (volume.f_bavail * volume.f_frsize, volume.f_blocks * volume.f_frsize);
        Ok(free >= bytes + LEFT_BYTES_MAX.min(total / 32))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name.replace('/', "."))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }
}

/// Makes a file of these bytes, durably.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() >= DIRECT_BYTES_MIN {
        match open_direct(path, OpenOptions::new().write(true).create(true).truncate(true)).and_then(|file| write_aligned(&file, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            outcome => return outcome,
        }
    }
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Opens a file past the page cache. An error of kind `InvalidInput`: the file system cannot.
fn open_direct(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)
}

/// Writes whole blocks from memory that is aligned as they are, and cuts the file to its length.
fn write_aligned(file: &File, bytes: &[u8]) -> io::Result<()> {
    let mut memory = vec![0; PIECE_BYTES + ALIGNED_BYTES];
    let first = memory.as_ptr().align_offset(ALIGNED_BYTES);
    let mut at = 0;
    for piece in bytes.chunks(PIECE_BYTES) {
        let end = first + piece.len().next_multiple_of(ALIGNED_BYTES);
        memory[first..first + piece.len()].copy_from_slice(piece);
        memory[first + piece.len()..end].fill(0);
        file.write_all_at(&memory[first..end], at)?;
        at += piece.len() as u64;
    }
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

/// Reads whole blocks around what is asked for, into memory that is aligned as they are.
fn read_aligned(file: &File, at: u64, bytes: usize) -> io::Result<Bytes> {
    let before = usize::try_from(at % ALIGNED_BYTES as u64).unwrap_or(0);
    let mut memory = vec![0; (before + bytes).next_multiple_of(ALIGNED_BYTES) + ALIGNED_BYTES];
    let first = memory.as_ptr().align_offset(ALIGNED_BYTES);
    let end = first + (before + bytes).next_multiple_of(ALIGNED_BYTES);
    let (mut filled, mut from) = (first, at - before as u64);
    while filled < first + before + bytes {
        let piece = end.min(filled + PIECE_BYTES);
        let read = file.read_at(&mut memory[filled..piece], from)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (filled, from) = (filled + read, from + read as u64);
    }
    Ok(Bytes::from(memory).slice(first + before..first + before + bytes))
}

impl Store for DirectoryStore {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.leaves_space && !self.has_space_for(bytes.len() as u64)? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let path = self.path(name);
        let unfinished = self.root.join(format!("{}{UNFINISHED}", name.replace('/', ".")));
        let written = write_whole(&unfinished, bytes);
        // A link fails where a rename would overwrite.
        let linked = written.and_then(|()| fs::hard_link(&unfinished, &path));
        // Also after a failure: on a full disk the part that was written is space somebody needs.
        let removed = fs::remove_file(&unfinished);
        linked?;
        removed?;
        self.sync_directory()
    }

    fn get(&self, name: &str) -> io::Result<Option<Bytes>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Past the page cache where the file system can: what is worth keeping the caller keeps, and filling the page cache costs more
    /// than the read.
    fn get_range(&self, name: &str, at: u64, bytes: usize) -> io::Result<Bytes> {
        let path = self.path(name);
        let file = match open_direct(&path, OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => File::open(&path)?,
            outcome => outcome?,
        };
        // A damaged index may ask for anything: what is not there needs no buffer.
        if at.checked_add(bytes as u64).is_none_or(|end| file.metadata().is_ok_and(|held| held.len() < end)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_aligned(&file, at, bytes)
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.path(name)) {
            Ok(held) => Ok(Some(held.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let file_name = entry?.file_name();
            let Some(text) = file_name.to_str() else {
                continue;
            };
            let name = text.replace('.', "/");
            if name.starts_with(prefix) && !text.ends_with(UNFINISHED) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Objects in memory, for simulations and tests. Puts can be made to fail.
#[derive(Default)]
pub struct MemoryStore {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Bytes>,
    puts_left: Option<u64>,
    answers_lost: u64,
    unreachable: bool,
}

impl Held {
    fn reach(&self) -> io::Result<()> {
        if self.unreachable { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After `count` more puts every put fails; `None` ends that.
    pub fn fail_after(&self, count: Option<u64>) {
        self.lock().puts_left = count;
    }

    /// The next `count` puts succeed and are answered with an error, as when a connection breaks.
    pub fn lose_answers(&self, count: u64) {
        self.lock().answers_lost = count;
    }

    /// Whether every call fails, as when the network is gone.
    pub fn unreachable(&self, unreachable: bool) {
        self.lock().unreachable = unreachable;
    }

    /// Another store with the same objects.
    pub fn copy(&self) -> MemoryStore {
        let held = Held { objects: self.lock().objects.clone(), ..Held::default() };
        MemoryStore { held: Mutex::new(held) }
    }

    /// Changes an object in place, as a failing disk would.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut held = self.lock();
        if let Some(bytes) = held.objects.get_mut(name) {
            let mut changed = bytes.to_vec();
            change(&mut changed);
            *bytes = Bytes::from(changed);
        }
    }
}

impl Store for MemoryStore {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut held = self.lock();
        held.reach()?;
        match &mut held.puts_left {
            Some(0) => return Err(io::Error::other("no put succeeds now")),
            Some(left) => *left -= 1,
            None => {}
        }
        if held.objects.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        held.objects.insert(name.to_owned(), Bytes::copy_from_slice(bytes));
        if held.answers_lost > 0 {
            held.answers_lost -= 1;
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Option<Bytes>> {
        let held = self.lock();
        held.reach()?;
        Ok(held.objects.get(name).cloned())
    }

    fn get_range(&self, name: &str, at: u64, bytes: usize) -> io::Result<Bytes> {
        let whole = self.get(name)?.ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let to = from.checked_add(bytes).filter(|to| *to <= whole.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(whole.slice(from..to))
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        let held = self.lock();
        held.reach()?;
        Ok(held.objects.get(name).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let held = self.lock();
        held.reach()?;
        Ok(held.objects.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut held = self.lock();
        held.reach()?;
        held.objects.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects of every size come back whole and in part, whatever the places are multiples of, past the page cache or not.
    #[test]
    fn ranges_of_a_directory_are_what_was_put() {
        let root = std::env::temp_dir().join(format!("firth-store-{}", std::process::id()));
        let store = DirectoryStore::open(&root).expect("opens");
        for (number, bytes) in
            [1, 4095, 4096, 300_000, DIRECT_BYTES_MIN, DIRECT_BYTES_MIN + 1, 3 * DIRECT_BYTES_MIN - 777].iter().enumerate()
        {
            let name = format!("object/{number}");
            let content: Vec<u8> = (0..*bytes).map(|at| (at * 7 + at / 251) as u8).collect();
            store.put(&name, &content).expect("space");
            assert_eq!(store.size(&name).expect("reads"), Some(*bytes as u64));
            assert_eq!(store.get(&name).expect("reads").expect("is there"), content);
            for (from, to) in [(0, *bytes), (bytes / 3, bytes - bytes / 5), (bytes - 1, *bytes), (*bytes, *bytes)] {
                let range = store.get_range(&name, from as u64, to - from).expect("reads");
                assert!(range == content[from..to], "{bytes} bytes, {from} to {to}");
            }
            let beyond = store.get_range(&name, 1, *bytes).expect_err("ends before");
            assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(store.put(&name, b"again").expect_err("is there").kind(), io::ErrorKind::AlreadyExists);
        }
        fs::remove_dir_all(&root).expect("removes");
    }
}
