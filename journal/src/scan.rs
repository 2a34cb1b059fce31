//! Walks the groups of one extent, while they follow.

use std::io;

use bytes::Bytes;

use firth_model::ids::{ExtentNumber, Position};

use crate::disk::{Disk, FileName};
use crate::extent::{BLOCK_BYTES, ExtentHeader};
use crate::group::{GroupHeader, GroupKind, HEADER_BYTES, Located, body_holds, contents};

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
        Scan { disk, extent, at: BLOCK_BYTES, link, broken: false }
    }

    /// The next group. `None`: the groups end here, or what is here is no whole group of this chain.
    pub fn next_group(&mut self) -> io::Result<Option<Group>> {
        if self.at + BLOCK_BYTES > self.extent.extent_bytes {
            return Ok(None);
        }
        let file = FileName::Extent(self.extent.number);
        let mut head = vec![0; BLOCK_BYTES as usize];
        self.disk.read(file, u64::from(self.at), &mut head)?;
        let Some(header) = GroupHeader::decode(&head) else {
            return Ok(None);
        };
        let room = (self.extent.extent_bytes - self.at) as usize;
        let follows = self.link.is_none_or(|link| link.number + 1 == header.number && link.digest == header.previous);
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
        self.link = Some(Link { number: header.number, digest: GroupHeader::digest(&bytes[..HEADER_BYTES]) });
        self.at += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(Some(Group { header, position, bytes: Bytes::from(bytes) }))
    }

    /// Looks at every block from here to the end: calls `each` with its place and its first bytes.
    pub fn each_block(&self, mut each: impl FnMut(u32, &[u8])) -> io::Result<()> {
        let mut from = self.at;
        while from < self.extent.extent_bytes {
            let end = from.saturating_add(WINDOW_BYTES).min(self.extent.extent_bytes);
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

/// The batches of an extent by its groups' own tables of contents. `None`: its header cannot be read.
pub(crate) fn contents_of(disk: &dyn Disk, number: ExtentNumber) -> io::Result<Option<Vec<Located>>> {
    let Some(header) = extent_header(disk, number)? else { return Ok(None) };
    let mut scan = Scan::of(disk, header, None);
    let mut rows = Vec::new();
    while let Some(group) = scan.next_group()? {
        rows.extend(contents(&group.header, group.position, &group.bytes));
    }
    Ok(Some(rows))
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
