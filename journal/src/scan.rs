//! Walks the groups of one extent, while they follow.

use std::io;

use bytes::Bytes;

use firth_model::ids::{ExtentNumber, Position};

use crate::disk::{Disk, FileName};
use crate::extent::{BLOCK_BYTES, ExtentHeader};
use crate::group::{GroupHeader, GroupKind, Located, body_holds, contents};

/// What is read at once when the rest of an extent is searched.
const WINDOW_BYTES: u32 = 1 << 20;

/// Where the chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub number: u64,
    pub digest: [u8; 16],
}

impl Link {
    /// What the group with this header goes on from.
    pub fn before(header: &GroupHeader) -> Link {
        Link { number: header.number.saturating_sub(1), digest: header.previous }
    }

    /// Whether the group with this header is the next. A bridge stands for several and has the number of the last.
    pub fn leads_to(&self, header: &GroupHeader) -> bool {
        let numbered = if header.kind == GroupKind::Bridge { header.number > self.number } else { header.number == self.number + 1 };
        numbered && self.digest == header.previous
    }
}

/// One whole group.
pub struct Group {
    pub header: GroupHeader,
    pub position: Position,
    pub bytes: Bytes,
}

pub struct Scan<'a> {
    pub disk: &'a dyn Disk,
    pub extent: ExtentHeader,
    pub at: u32,
    /// Where the extent ends, or its file if that is shorter.
    pub end: u32,
    /// `None`: whatever the first group says.
    pub link: Option<Link>,
    /// The walk ended at a header that is whole and follows something else: no crash leaves that.
    pub broken: bool,
}

/// Reads the first block of an extent. `None`: it is damaged.
pub fn extent_header(disk: &dyn Disk, number: ExtentNumber) -> io::Result<Option<ExtentHeader>> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    disk.read(FileName::Extent(number), 0, &mut block)?;
    Ok(ExtentHeader::decode(&block).filter(|header| header.number == number))
}

impl<'a> Scan<'a> {
    pub fn of(disk: &'a dyn Disk, extent: ExtentHeader, link: Option<Link>) -> Scan<'a> {
        Scan { disk, extent, at: BLOCK_BYTES, end: extent.extent_bytes, link, broken: false }
    }

    /// The next group. `None`: the groups end here, or what is here is no whole group of this chain.
    pub fn next_group(&mut self) -> io::Result<Option<Group>> {
        if self.at + BLOCK_BYTES > self.end {
            return Ok(None);
        }
        let file = FileName::Extent(self.extent.number);
        let mut head = vec![0; BLOCK_BYTES as usize];
        self.disk.read(file, u64::from(self.at), &mut head)?;
        let Some(header) = GroupHeader::decode(&head) else {
            return Ok(None);
        };
        let room = (self.end - self.at) as usize;
        let follows = self.link.is_none_or(|link| link.leads_to(&header));
        let ours = header.incarnation == self.extent.incarnation && header.cluster == self.extent.cluster;
        self.broken = ours && !follows && header.kind != GroupKind::Directory;
        if !ours || !follows || header.kind == GroupKind::Directory || header.group_bytes() > room {
            return Ok(None);
        }
        let mut bytes = head;
        if header.group_bytes() > bytes.len() {
            let first = bytes.len();
            bytes.resize(header.group_bytes(), 0);
            self.disk.read(file, u64::from(self.at) + first as u64, &mut bytes[first..])?;
        }
        if !body_holds(&header, &bytes) {
            return Ok(None);
        }
        let position = self.extent.position(self.at);
        self.link = Some(Link { number: header.number, digest: header.leads_to(&bytes) });
        self.at += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(Some(Group { header, position, bytes: Bytes::from(bytes) }))
    }

    /// Looks at every block from here to the end: calls `each` with its place and its first bytes.
    pub fn each_block(&self, mut each: impl FnMut(u32, &[u8])) -> io::Result<()> {
        let mut from = self.at;
        while from < self.end {
            let end = from.saturating_add(WINDOW_BYTES).min(self.end);
            let mut window = vec![0; (end - from) as usize];
            self.disk.read(FileName::Extent(self.extent.number), u64::from(from), &mut window)?;
            for (index, block) in window.chunks(BLOCK_BYTES as usize).enumerate() {
                each(from + u32::try_from(index).unwrap_or(u32::MAX) * BLOCK_BYTES, block);
            }
            from = end;
        }
        Ok(())
    }
}

/// As `extent_header`, or the same from the first group, with a warning: that repeats all but what the file's name and the other files
/// say.
pub(crate) fn header_of(disk: &dyn Disk, number: ExtentNumber, extent_bytes: u32) -> io::Result<Option<ExtentHeader>> {
    if let Some(header) = extent_header(disk, number)? {
        return Ok(Some(header));
    }
    let mut head = vec![0; BLOCK_BYTES as usize];
    disk.read(FileName::Extent(number), u64::from(BLOCK_BYTES), &mut head)?;
    let Some(group) = GroupHeader::decode(&head) else { return Ok(None) };
    let header = ExtentHeader { extent_bytes, cluster: group.cluster, incarnation: group.incarnation, number };
    let whole = Scan::of(disk, header, None).next_group()?.is_some();
    if whole {
        tracing::warn!(extent = number.0, "the extent's header is damaged; its first group says the same");
    }
    Ok(whole.then_some(header))
}

/// The batches of an extent by its groups' own tables of contents, as far as groups can be read. `None`: not even how to read them is
/// known. What cannot be read is passed over: the caller must see by the offsets that something is missing.
pub(crate) fn contents_of(disk: &dyn Disk, number: ExtentNumber, extent_bytes: u32) -> io::Result<Option<Vec<Located>>> {
    let held = disk.list()?.into_iter().find(|(file, _)| *file == FileName::Extent(number)).map_or(0, |(_, bytes)| bytes);
    let end = u32::try_from(held).unwrap_or(u32::MAX).min(extent_bytes) / BLOCK_BYTES * BLOCK_BYTES;
    if end <= BLOCK_BYTES {
        return Ok(None);
    }
    let Some(header) = header_of(disk, number, extent_bytes)? else { return Ok(None) };
    let mut scan = Scan { end, ..Scan::of(disk, header, None) };
    let mut rows = Vec::new();
    loop {
        while let Some(group) = scan.next_group()? {
            rows.extend(contents(&group.header, group.position, &group.bytes));
        }
        let Some(next) = behind_damage(&scan)? else { return Ok(Some(rows)) };
        scan = Scan { at: next, link: None, ..scan };
    }
}

/// Where behind the end of a scan another group of the extent begins.
fn behind_damage(scan: &Scan<'_>) -> io::Result<Option<u32>> {
    let mut next = None;
    scan.each_block(|at, block| {
        let ours = |header: GroupHeader| header.incarnation == scan.extent.incarnation && header.kind != GroupKind::Directory;
        if next.is_none() && at > scan.at && GroupHeader::decode(block).is_some_and(ours) {
            next = Some(at);
        }
    })?;
    Ok(next)
}

/// Where in an extent its whole groups end now, as far as they follow each other. `None`: its header cannot be read.
///
/// For copies while the extent is written: what lies before is final.
pub fn groups_end(disk: &dyn Disk, number: ExtentNumber) -> io::Result<Option<u32>> {
    let Some(header) = extent_header(disk, number)? else { return Ok(None) };
    let mut scan = Scan::of(disk, header, None);
    while scan.next_group()?.is_some() {}
    Ok(Some(scan.at))
}

/// Whether nothing was ever written here, or what was is gone.
pub(crate) fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}
