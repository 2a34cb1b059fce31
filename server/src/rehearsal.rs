//! Opening what no node runs on: changes stay in memory.
//!
//! What a repair or a start would do is found by doing it, over files that are only read. Costs the bytes of what is changed: the last
//! extent, those that are damaged, and new segments.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use firth_archive::store::Store;
use firth_journal::disk::{Disk, FileName};
use firth_journal::options::Options;
use firth_model::time::Millis;

/// What is there is read; what is written, renamed or deleted is so for this disk only.
pub struct RehearsalDisk {
    real: Arc<dyn Disk>,
    /// Files that are other than the real ones. `None`: deleted.
    changed: Mutex<BTreeMap<FileName, Option<Vec<u8>>>>,
}

impl RehearsalDisk {
    pub fn over(real: Arc<dyn Disk>) -> RehearsalDisk {
        RehearsalDisk { real, changed: Mutex::default() }
    }

    fn changed(&self) -> MutexGuard<'_, BTreeMap<FileName, Option<Vec<u8>>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the real file.
    fn real_bytes(&self, file: FileName) -> io::Result<Vec<u8>> {
        let files = self.real.list()?;
        let (_, size) = files.into_iter().find(|(name, _)| *name == file).ok_or(ErrorKind::NotFound)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.real.read(file, 0, &mut bytes)?;
        Ok(bytes)
    }
}

/// The place of `bytes` from `position` on in a file of `size`.
fn range(size: usize, position: u64, bytes: usize) -> io::Result<std::ops::Range<usize>> {
    let from = usize::try_from(position).map_err(|_| ErrorKind::UnexpectedEof)?;
    let to = from.checked_add(bytes).filter(|to| *to <= size).ok_or(ErrorKind::UnexpectedEof)?;
    Ok(from..to)
}

impl Disk for RehearsalDisk {
    fn lock(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn list(&self) -> io::Result<Vec<(FileName, u64)>> {
        let mut files: BTreeMap<FileName, u64> = self.real.list()?.into_iter().collect();
        for (file, bytes) in &*self.changed() {
            match bytes {
                Some(bytes) => files.insert(*file, bytes.len() as u64),
                None => files.remove(file),
            };
        }
        Ok(files.into_iter().collect())
    }

    fn create(&self, file: FileName, bytes: u64, _zeroed: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        self.changed().insert(file, Some(vec![0; bytes]));
        Ok(())
    }

    fn write(&self, file: FileName, position: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut changed = self.changed();
        let bytes = match changed.entry(file).or_insert_with(|| self.real_bytes(file).ok()) {
            Some(bytes) => bytes,
            None => return Err(ErrorKind::NotFound.into()),
        };
        let mut at = usize::try_from(position).map_err(io::Error::other)?;
        for slice in slices {
            let end = at + slice.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(slice);
            at = end;
        }
        Ok(())
    }

    fn read(&self, file: FileName, position: u64, into: &mut [u8]) -> io::Result<()> {
        match self.changed().get(&file) {
            None => self.real.read(file, position, into),
            Some(None) => Err(ErrorKind::NotFound.into()),
            Some(Some(bytes)) => {
                into.copy_from_slice(&bytes[range(bytes.len(), position, into.len())?]);
                Ok(())
            }
        }
    }

    fn sync(&self, _file: FileName) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let mut changed = self.changed();
        let bytes = match changed.remove(&from) {
            Some(bytes) => bytes.ok_or(ErrorKind::NotFound)?,
            None => self.real_bytes(from)?,
        };
        changed.insert(from, None);
        changed.insert(to, Some(bytes));
        Ok(())
    }

    fn delete(&self, file: FileName) -> io::Result<()> {
        self.changed().insert(file, None);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.real.free_bytes()
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        self.real.volume_bytes()
    }
}

/// A store as [`RehearsalDisk`] is a disk.
pub struct RehearsalStore {
    real: Arc<dyn Store>,
    changed: Mutex<BTreeMap<String, Option<Bytes>>>,
}

impl RehearsalStore {
    pub fn over(real: Arc<dyn Store>) -> RehearsalStore {
        RehearsalStore { real, changed: Mutex::default() }
    }

    fn changed(&self) -> MutexGuard<'_, BTreeMap<String, Option<Bytes>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self, name: &str) -> Option<Option<Bytes>> {
        self.changed().get(name).cloned()
    }
}

impl Store for RehearsalStore {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.size(name)?.is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.changed().insert(name.to_owned(), Some(Bytes::copy_from_slice(bytes)));
        Ok(())
    }

    fn get(&self, name: &str) -> io::Result<Option<Bytes>> {
        self.own(name).map_or_else(|| self.real.get(name), Ok)
    }

    fn get_range(&self, name: &str, at: u64, bytes: usize) -> io::Result<Bytes> {
        match self.own(name) {
            None => self.real.get_range(name, at, bytes),
            Some(None) => Err(ErrorKind::NotFound.into()),
            Some(Some(whole)) => Ok(whole.slice(range(whole.len(), at, bytes)?)),
        }
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        self.own(name).map_or_else(|| self.real.size(name), |own| Ok(own.map(|bytes| bytes.len() as u64)))
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let changed = self.changed();
        let mut names: Vec<String> = self.real.list(prefix)?.into_iter().filter(|name| !changed.contains_key(name)).collect();
        names.extend(changed.iter().filter(|(name, bytes)| bytes.is_some() && name.starts_with(prefix)).map(|(name, _)| name.clone()));
        names.sort_unstable();
        Ok(names)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.changed().insert(name.to_owned(), None);
        Ok(())
    }
}

/// What a journal is opened with that no node runs on.
pub fn offline_options(cluster: uuid::Uuid) -> Options {
    Options {
        extent_bytes: None,
        clock: Arc::new(|| Millis(0)),
        cluster_id: *cluster.as_bytes(),
        reserve_extents: 0,
        random: Box::new(|| *uuid::Uuid::new_v4().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use firth_archive::store::MemoryStore;
    use firth_journal::simdisk::SimDisk;
    use firth_model::ids::ExtentNumber;

    use super::*;

    const EXTENT: FileName = FileName::Extent(ExtentNumber(1));
    const SPARE: FileName = FileName::Spare(2);

    fn first_bytes(disk: &dyn Disk, file: FileName) -> io::Result<[u8; 4]> {
        let mut bytes = [0; 4];
        disk.read(file, 0, &mut bytes).map(|()| bytes)
    }

    #[test]
    fn a_disk_rehearses() {
        let real = Arc::new(SimDisk::of_bytes(1 << 20));
        real.create(EXTENT, 4096, 4096).expect("made");
        real.write(EXTENT, 0, &[b"abcd"]).expect("written");
        let disk = RehearsalDisk::over(real.clone());
        disk.write(EXTENT, 1, &[b"X", b"Y"]).expect("written");
        assert_eq!(first_bytes(&disk, EXTENT).expect("read"), *b"aXYd");
        disk.create(SPARE, 8192, 0).expect("made");
        disk.write(SPARE, 0, &[b"spar"]).expect("written");
        disk.rename(SPARE, EXTENT).expect("renamed");
        assert_eq!(first_bytes(&disk, EXTENT).expect("read"), *b"spar");
        assert_eq!(disk.list().expect("listed"), [(EXTENT, 8192)]);
        assert!(disk.read(EXTENT, 8190, &mut [0; 4]).is_err(), "behind the end");
        disk.delete(EXTENT).expect("deleted");
        assert!(first_bytes(&disk, EXTENT).is_err() && disk.write(EXTENT, 0, &[b"x"]).is_err());
        assert_eq!(first_bytes(&*real, EXTENT).expect("read"), *b"abcd");
        assert_eq!(real.list().expect("listed"), [(EXTENT, 4096)]);
    }

    #[test]
    fn a_store_rehearses() {
        let real = Arc::new(MemoryStore::default());
        real.put("a/1", b"one").expect("put");
        real.put("a/2", b"two").expect("put");
        let store = RehearsalStore::over(real.clone());
        assert_eq!(store.put("a/1", b"again").expect_err("there").kind(), ErrorKind::AlreadyExists);
        store.delete("a/1").expect("deleted");
        store.put("a/3", b"three").expect("put");
        assert_eq!(store.list("a/").expect("listed"), ["a/2", "a/3"]);
        assert_eq!(store.get("a/1").expect("answered"), None);
        assert_eq!(&store.get_range("a/3", 1, 2).expect("read")[..], b"hr");
        store.put("a/1", b"again").expect("put");
        assert_eq!(store.size("a/1").expect("answered"), Some(5));
        assert_eq!(real.list("").expect("listed"), ["a/1", "a/2"]);
        assert_eq!(real.get("a/1").expect("read").as_deref(), Some(&b"one"[..]));
    }
}
