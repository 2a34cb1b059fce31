//! Decides what is written where; does no I/O itself.
//!
//! A driver asks `next_write`, does it, syncs, and says `completed`: the commit thread in a node, a loop that can crash between any two
//! steps in a simulation.

use std::collections::VecDeque;

use firth_model::ids::{ExtentNumber, Lsn, Position};
use firth_model::limits::GROUP_BYTES_MAX;
use firth_model::time::Millis;

use crate::entry::Entry;
use crate::extent::{BLOCK_BYTES, ExtentHeader, padded};
use crate::group::{Built, GroupHeader, GroupKind, HEADER_BYTES, Located, build, build_plain, group_bytes};
use crate::reader::{DIRECTORY_ROW_BYTES, encode_directory};

/// Bytes written with one sync at most: bounds what a crash can tear and how long an acknowledgement waits for others.
const WRITE_BYTES_MAX: usize = 32 << 20;

/// Who writes, and where the chain stands.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    pub cluster: [u8; 16],
    pub epoch: u64,
    pub nonce: [u8; 16],
    /// Number and header digest of the last group.
    pub number: u64,
    pub digest: [u8; 16],
    pub next_lsn: Lsn,
    pub append_ms: Millis,
}

/// The extent that is written now.
struct Active {
    header: ExtentHeader,
    /// Where the next group begins.
    at: u32,
    rows: Vec<Located>,
    holds_entries: bool,
}

/// One write to one extent, to be followed by a sync of it.
pub struct Write {
    pub extent: ExtentNumber,
    /// Offset in the extent; the groups lie one behind the other.
    pub at: u32,
    pub groups: Vec<Built>,
    /// This write finishes the extent.
    pub seals: bool,
}

pub struct Core {
    writer: Writer,
    active: Option<Active>,
    queue: VecDeque<Entry>,
    queued_bytes: usize,
    /// Everything below is durable.
    durable: Position,
    /// Whether the last group written says so already.
    marked: bool,
}

impl Core {
    pub fn after(writer: Writer, durable: Position) -> Core {
        Core { writer, active: None, queue: VecDeque::new(), queued_bytes: 0, durable, marked: false }
    }

    /// Largest entry that fits an extent of this size.
    pub fn entry_bytes_max(extent_bytes: u32) -> usize {
        extent_bytes as usize / 2
    }

    /// Room that the queued entries take.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Takes entries in the order of their lsns.
    pub fn enqueue(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.queued_bytes += entry.room_bytes();
            self.queue.push_back(entry);
        }
    }

    /// Whether a fresh extent must be given with `begin` before anything else can be written.
    pub fn wants_extent(&self) -> bool {
        self.active.is_none()
    }

    /// Goes on in an extent whose header is on disk.
    pub fn begin(&mut self, header: ExtentHeader) {
        debug_assert!(self.active.is_none());
        self.active = Some(Active { header, at: BLOCK_BYTES, rows: Vec::new(), holds_entries: false });
    }

    /// The first group of a writer, for a fresh extent.
    pub fn fence(&mut self, now: Millis) -> Option<Write> {
        self.plain(GroupKind::Fence, now)
    }

    /// A group that only says what is durable. `None`: the last one said so, or there is no room for it.
    pub fn marker(&mut self, now: Millis) -> Option<Write> {
        if self.marked || !self.queue.is_empty() {
            return None;
        }
        let active = self.active.as_ref()?;
        let room = data_end(&active.header, active.rows.len()).saturating_sub(active.at);
        if (room as usize) < padded(HEADER_BYTES) {
            return None;
        }
        self.plain(GroupKind::Marker, now)
    }

    fn plain(&mut self, kind: GroupKind, now: Millis) -> Option<Write> {
        let (position, at, extent) = {
            let active = self.active.as_ref()?;
            (active.header.position(active.at), active.at, active.header.number)
        };
        let built = build_plain(self.header(kind, now)?, position, &[]);
        self.wrote(&built);
        self.marked = true;
        Some(Write { extent, at, groups: vec![built], seals: false })
    }

    /// What to write next. `None`: nothing waits, or an extent is wanted first.
    pub fn next_write(&mut self, now: Millis) -> Option<Write> {
        let active = self.active.as_ref()?;
        let (extent, at, active_bytes) = (active.header.number, active.at, active.header.extent_bytes);
        let mut groups = Vec::new();
        let mut bytes = 0;
        while !self.queue.is_empty() && bytes < WRITE_BYTES_MAX {
            let Some(built) = self.next_group(now) else {
                break;
            };
            bytes += built.room_bytes();
            groups.push(built);
        }
        if !groups.is_empty() {
            self.marked = false;
            return Some(Write { extent, at, groups, seals: false });
        }
        let front = self.queue.front()?.bytes();
        // Else every fresh extent would be sealed without an entry until the volume is full.
        assert!(front <= Core::entry_bytes_max(active_bytes), "an entry of {front} bytes fits no extent: its owner checks the limit");
        self.seal(now)
    }

    /// As many queued entries as fit into one group here, tied ones together. `None`: not even the first fit any more.
    fn next_group(&mut self, now: Millis) -> Option<Built> {
        let active = self.active.as_ref()?;
        let group_bytes_max = (GROUP_BYTES_MAX as usize).min(active.header.extent_bytes as usize / 2);
        let (mut entry_bytes, mut rows, mut seen) = (0, 0, 0);
        // Up to the last entry that is not tied to the one behind it.
        let mut taken = 0;
        for entry in &self.queue {
            let entry_bytes_then = entry_bytes + entry.bytes();
            let rows_then = rows + entry.row_count();
            let bytes = group_bytes(entry_bytes_then, rows_then);
            let fits_extent = active.at as usize + bytes <= data_end(&active.header, active.rows.len() + rows_then) as usize;
            let fits_group = seen == 0 || bytes <= group_bytes_max;
            if taken == 0 && !fits_group {
                // Tied entries that fit no group: they are parted here.
                taken = seen;
            }
            if !fits_extent || !fits_group {
                break;
            }
            (entry_bytes, rows, seen) = (entry_bytes_then, rows_then, seen + 1);
            if !entry.tied || seen == self.queue.len() {
                taken = seen;
            }
        }
        if taken == 0 && active.at <= BLOCK_BYTES {
            // Another fresh extent would have no more room.
            taken = seen;
        }
        if taken == 0 {
            return None;
        }
        let position = active.header.position(active.at);
        let header = self.header(GroupKind::Data, now)?;
        let entries: Vec<Entry> = self.queue.drain(..taken).collect();
        self.queued_bytes -= entries.iter().map(Entry::room_bytes).sum::<usize>();
        let built = build(header, position, &entries);
        self.writer.next_lsn = Lsn(self.writer.next_lsn.0 + taken as u64);
        self.wrote(&built);
        Some(built)
    }

    /// As `seal`, for an extent that holds entries.
    pub fn finish(&mut self, now: Millis) -> Option<Write> {
        let holds = self.active.as_ref().is_some_and(|active| active.at > BLOCK_BYTES && active.holds_entries);
        if holds { self.seal(now) } else { None }
    }

    /// The directory at the end of the active extent. Needs no room that a group could have had.
    pub fn seal(&mut self, now: Millis) -> Option<Write> {
        let header = self.header(GroupKind::Directory, now)?;
        let active = self.active.as_mut()?;
        let body = encode_directory(active.at, &mut active.rows);
        let bytes = padded(HEADER_BYTES + body.len());
        let at = active.header.extent_bytes - u32::try_from(bytes).expect("room for the directory is kept");
        debug_assert!(at >= active.at);
        let built = build_plain(header, active.header.position(at), &body);
        let extent = active.header.number;
        self.active = None;
        // A directory is not part of the chain: it can be made again from what is.
        Some(Write { extent, at, groups: vec![built], seals: true })
    }

    /// The write and its sync succeeded.
    pub fn completed(&mut self, write: &Write) {
        if let Some(last) = write.groups.last().filter(|_| !write.seals) {
            self.durable = last.end();
        }
    }

    pub fn durable(&self) -> Position {
        self.durable
    }

    pub fn append_ms(&self) -> Millis {
        self.writer.append_ms
    }

    fn header(&mut self, kind: GroupKind, now: Millis) -> Option<GroupHeader> {
        let active = self.active.as_ref()?;
        self.writer.append_ms = self.writer.append_ms.max(now);
        Some(GroupHeader {
            kind,
            cluster: self.writer.cluster,
            incarnation: active.header.incarnation,
            rows: 0,
            number: self.writer.number + 1,
            epoch: self.writer.epoch,
            writer: self.writer.nonce,
            first_lsn: self.writer.next_lsn,
            entries: 0,
            contents_bytes: 0,
            body_bytes: 0,
            previous: self.writer.digest,
            durable: self.durable,
            append_ms: self.writer.append_ms,
            body_checksum: [0; 16],
            after: [0; 16],
        })
    }

    fn wrote(&mut self, built: &Built) {
        self.writer.number += 1;
        self.writer.digest = GroupHeader::digest(&built.bytes);
        if let Some(active) = &mut self.active {
            active.at += u32::try_from(built.room_bytes()).expect("a group fits an extent");
            active.rows.extend_from_slice(&built.batches);
            active.holds_entries |= built.last_lsn >= built.first_lsn;
        }
    }
}

/// Where groups must end so that a directory of `rows` rows still fits behind them.
fn data_end(header: &ExtentHeader, rows: usize) -> u32 {
    let directory = padded(HEADER_BYTES + DIRECTORY_ROW_BYTES * rows + 64);
    header.extent_bytes.saturating_sub(u32::try_from(directory).unwrap_or(u32::MAX))
}
