//! Reads extents, for whoever holds a position; and what lies in a finished one.
//!
//! ```text
//! body of a directory: end of the groups u32, rows u32, then rows of 36 sorted by partition and base offset: partition u32,
//! offsets u32, base offset u64, largest time i64, position u64, bytes u32
//! ```
//! The group lies at the very end of its extent.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use firth_model::ids::{ExtentNumber, Offset, PartitionId, Position};
use firth_model::limits::DIRECTORY_CACHE_BYTES;

use crate::disk::{Disk, FileName};
use crate::entry::Row;
use crate::extent::BLOCK_BYTES;
use crate::group::{GroupHeader, GroupKind, HEADER_BYTES, Located, body_holds, u32_at, u64_at};
use crate::scan::contents_of;

pub const DIRECTORY_ROW_BYTES: usize = 36;
const DIRECTORY_HEAD_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The extent was given back: nothing in it was needed any more.
    #[error("the extent is gone")]
    Gone,
    #[error("position {}: {what}", position.0)]
    Damaged { position: Position, what: &'static str },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All batches of a finished extent, by partition.
#[derive(Debug, Default)]
pub struct Directory {
    rows: Vec<Located>,
    partial: bool,
}

impl Directory {
    /// Of one partition, in the order of offsets.
    pub fn rows(&self, partition: PartitionId) -> &[Located] {
        let from = self.rows.partition_point(|located| located.row.partition < partition);
        let to = self.rows.partition_point(|located| located.row.partition <= partition);
        &self.rows[from..to]
    }

    pub fn all(&self) -> &[Located] {
        &self.rows
    }

    /// Whether batches of the extent may be missing here: it was made from what could be read of a damaged one.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    fn from_contents(mut rows: Vec<Located>) -> Directory {
        rows.sort_unstable_by_key(|located| (located.row.partition, located.row.base_offset));
        Directory { rows, partial: true }
    }
}

/// Sorts the rows and writes the body of a directory.
pub(crate) fn encode_directory(data_end: u32, rows: &mut Vec<Located>) -> Vec<u8> {
    rows.sort_unstable_by_key(|located| (located.row.partition, located.row.base_offset));
    let mut body = Vec::with_capacity(DIRECTORY_HEAD_BYTES + rows.len() * DIRECTORY_ROW_BYTES);
    body.extend_from_slice(&data_end.to_le_bytes());
    body.extend_from_slice(&u32::try_from(rows.len()).expect("rows fit their extent").to_le_bytes());
    for located in rows {
        let row = located.row;
        body.extend_from_slice(&row.partition.0.to_le_bytes());
        body.extend_from_slice(&row.records.to_le_bytes());
        body.extend_from_slice(&row.base_offset.0.to_le_bytes());
        body.extend_from_slice(&row.max_timestamp.to_le_bytes());
        body.extend_from_slice(&located.position.0.to_le_bytes());
        body.extend_from_slice(&located.bytes.to_le_bytes());
    }
    body
}

/// A directory group, as `find_directory` found it.
pub(crate) struct FoundDirectory {
    pub header: GroupHeader,
    pub bytes: Vec<u8>,
    /// Where in the extent groups end.
    pub data_end: u32,
}

/// Reads the directory at the end of an extent. `None`: the extent is not finished, or its directory is damaged.
///
/// The group ends where the extent does, and is the last of its incarnation: it is looked for backwards, block by block.
pub(crate) fn find_directory(
    disk: &dyn Disk,
    extent: ExtentNumber,
    extent_bytes: u32,
    incarnation: &[u8; 16],
) -> io::Result<Option<FoundDirectory>> {
    let mut end = extent_bytes;
    while end > BLOCK_BYTES {
        let from = end.saturating_sub(WINDOW_BYTES).max(BLOCK_BYTES);
        let mut window = vec![0; (end - from) as usize];
        match disk.read(FileName::Extent(extent), u64::from(from), &mut window) {
            // The file was cut, and its directory with it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        for at in (0..window.len()).step_by(BLOCK_BYTES as usize).rev() {
            let Some(header) = GroupHeader::decode(&window[at..]) else {
                continue;
            };
            if header.incarnation == *incarnation {
                let at = from + u32::try_from(at).expect("inside the window");
                return read_directory(disk, extent, extent_bytes, at, header);
            }
        }
        end = from;
    }
    Ok(None)
}

/// What is read at once when a directory is looked for.
const WINDOW_BYTES: u32 = 256 << 10;

fn read_directory(
    disk: &dyn Disk,
    extent: ExtentNumber,
    extent_bytes: u32,
    at: u32,
    header: GroupHeader,
) -> io::Result<Option<FoundDirectory>> {
    let ends_the_file = at as usize + header.group_bytes() == extent_bytes as usize;
    if header.kind != GroupKind::Directory || !ends_the_file {
        return Ok(None);
    }
    let mut bytes = vec![0; header.group_bytes()];
    disk.read(FileName::Extent(extent), u64::from(at), &mut bytes)?;
    let whole = body_holds(&header, &bytes) && header.body_bytes as usize >= DIRECTORY_HEAD_BYTES;
    let data_end = u32_at(&bytes, HEADER_BYTES);
    Ok(whole.then_some(FoundDirectory { header, bytes, data_end }))
}

impl FoundDirectory {
    pub fn directory(&self) -> Directory {
        let body = &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.body_bytes as usize];
        let located = |row: &[u8]| Located {
            row: Row {
                partition: PartitionId(u32_at(row, 0)),
                records: u32_at(row, 4),
                base_offset: Offset(u64_at(row, 8)),
                max_timestamp: u64_at(row, 16).cast_signed(),
            },
            position: Position(u64_at(row, 24)),
            bytes: u32_at(row, 32),
        };
        let rows = body.get(DIRECTORY_HEAD_BYTES..).unwrap_or_default();
        Directory { rows: rows.chunks_exact(DIRECTORY_ROW_BYTES).map(located).collect(), partial: false }
    }
}

/// Shared by connections and the threads that read for them.
pub struct Reader {
    disk: Arc<dyn Disk>,
    extent_bytes: u32,
    /// What the cache of directories may hold.
    directory_bytes_max: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Extents that may be read, with their incarnations.
    live: HashMap<ExtentNumber, [u8; 16]>,
    /// Readers at work in each extent.
    held: HashMap<ExtentNumber, u32>,
    retired: BTreeSet<ExtentNumber>,
    /// There, and nothing in them can be read.
    unreadable: BTreeSet<ExtentNumber>,
    cache: HashMap<ExtentNumber, Arc<Directory>>,
    cache_order: VecDeque<ExtentNumber>,
    cache_bytes: u64,
}

/// Keeps an extent from being recycled.
pub struct ExtentHold<'a> {
    reader: &'a Reader,
    extent: ExtentNumber,
}

impl Drop for ExtentHold<'_> {
    fn drop(&mut self) {
        let mut state = self.reader.state();
        if let Some(count) = state.held.get_mut(&self.extent) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.extent);
            }
        }
    }
}

impl Reader {
    pub(crate) fn over(disk: Arc<dyn Disk>, extent_bytes: u32) -> Reader {
        Reader { disk, extent_bytes, directory_bytes_max: AtomicU64::new(DIRECTORY_CACHE_BYTES), state: Mutex::default() }
    }

    /// Bounds the cache of directories, in bytes.
    pub fn directories_at_most(&self, bytes: u64) {
        self.directory_bytes_max.store(bytes, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn extent_bytes(&self) -> u32 {
        self.extent_bytes
    }

    pub fn extent_of(&self, position: Position) -> ExtentNumber {
        ExtentNumber(position.0 / u64::from(self.extent_bytes))
    }

    /// Keeps the extent as it is for as long as the hold lives. `None`: it is gone.
    pub fn hold(&self, extent: ExtentNumber) -> Option<ExtentHold<'_>> {
        let mut state = self.state();
        if !state.live.contains_key(&extent) {
            return None;
        }
        *state.held.entry(extent).or_default() += 1;
        Some(ExtentHold { reader: self, extent })
    }

    fn gone(&self, extent: ExtentNumber) -> ReadError {
        if self.state().unreadable.contains(&extent) {
            let position = Position(extent.0 * u64::from(self.extent_bytes));
            return ReadError::Damaged { position, what: "nothing in the extent can be read" };
        }
        ReadError::Gone
    }

    /// Bytes of one extent, as they are on disk.
    pub fn read(&self, position: Position, bytes: u32) -> Result<Bytes, ReadError> {
        let extent = self.extent_of(position);
        let _hold = self.hold(extent).ok_or_else(|| self.gone(extent))?;
        let at = position.0 % u64::from(self.extent_bytes);
        if at + u64::from(bytes) > u64::from(self.extent_bytes) {
            return Err(ReadError::Damaged { position, what: "a read beyond its extent" });
        }
        let mut into = vec![0; bytes as usize];
        self.disk.read(FileName::Extent(extent), at, &mut into)?;
        Ok(Bytes::from(into))
    }

    /// What lies in a finished extent, through the cache.
    pub fn directory(&self, extent: ExtentNumber) -> Result<Arc<Directory>, ReadError> {
        if let Some(directory) = self.state().cache.get(&extent) {
            return Ok(directory.clone());
        }
        let _hold = self.hold(extent).ok_or_else(|| self.gone(extent))?;
        let incarnation = self.state().live.get(&extent).copied().ok_or(ReadError::Gone)?;
        let found = find_directory(&*self.disk, extent, self.extent_bytes, &incarnation)?;
        let directory = Arc::new(match found {
            Some(found) => found.directory(),
            // A damaged directory costs time, not records: the tables of contents say the same.
            None => {
                let position = Position(extent.0 * u64::from(self.extent_bytes));
                let rows = contents_of(&*self.disk, extent, self.extent_bytes)?;
                Directory::from_contents(rows.ok_or(ReadError::Damaged { position, what: "nothing in the extent can be read" })?)
            }
        });
        self.remember(extent, directory.clone());
        Ok(directory)
    }

    pub(crate) fn remember(&self, extent: ExtentNumber, directory: Arc<Directory>) {
        let mut state = self.state();
        let bytes = |directory: &Directory| (directory.rows.len() * size_of::<Located>()) as u64;
        state.cache_bytes += bytes(&directory);
        if let Some(old) = state.cache.insert(extent, directory) {
            state.cache_bytes -= bytes(&old);
        } else {
            state.cache_order.push_back(extent);
        }
        while state.cache_bytes > self.directory_bytes_max.load(Ordering::Relaxed) && state.cache_order.len() > 1 {
            let Some(oldest) = state.cache_order.pop_front() else {
                break;
            };
            if let Some(old) = state.cache.remove(&oldest) {
                state.cache_bytes -= bytes(&old);
            }
        }
    }

    /// Takes the directory that was just written.
    pub(crate) fn remember_sealed(&self, extent: ExtentNumber, group: &[u8]) {
        if let Some(header) = GroupHeader::decode(group) {
            let found = FoundDirectory { header, bytes: group.to_vec(), data_end: 0 };
            self.remember(extent, Arc::new(found.directory()));
        }
    }

    pub(crate) fn has_retired(&self) -> bool {
        !self.state().retired.is_empty()
    }

    pub(crate) fn born(&self, extent: ExtentNumber, incarnation: [u8; 16]) {
        self.state().live.insert(extent, incarnation);
    }

    pub(crate) fn unreadable(&self, extent: ExtentNumber) {
        self.state().unreadable.insert(extent);
    }

    /// Nothing in these is needed: no new reader gets in.
    pub fn retire(&self, extents: &[ExtentNumber]) {
        let mut state = self.state();
        for extent in extents {
            if state.live.remove(extent).is_some() || state.unreadable.remove(extent) {
                state.retired.insert(*extent);
            }
        }
    }

    /// Retired extents that no reader is in.
    pub(crate) fn take_unheld(&self) -> Vec<ExtentNumber> {
        let mut state = self.state();
        let free: Vec<_> = state.retired.iter().filter(|extent| !state.held.contains_key(extent)).copied().collect();
        for extent in &free {
            state.retired.remove(extent);
            if let Some(old) = state.cache.remove(extent) {
                state.cache_bytes -= (old.rows.len() * size_of::<Located>()) as u64;
                state.cache_order.retain(|other| other != extent);
            }
        }
        free
    }
}
