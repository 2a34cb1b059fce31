//! Checks a whole journal offline: every checksum, and the chain.

use std::fmt;
use std::io;

use firth_model::ids::{ExtentNumber, Position};

use crate::disk::{Disk, FileName};
use crate::entry::open_entry;
use crate::extent::{BLOCK_BYTES, ExtentHeader};
use crate::group::{GroupHeader, HEADER_BYTES, contents};
use crate::reader::find_directory;
use crate::report::DamageReport;
use crate::scan::{Group, Link, Scan, extent_header, is_zero};

/// What a check found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    pub extents: u64,
    pub groups: u64,
    pub entries: u64,
    pub bytes: u64,
    pub damage: Vec<DamageReport>,
    /// An unreadable end that nothing says was acknowledged: a crash leaves one, and so does damage that is younger than the last
    /// marker group.
    pub torn: Vec<Position>,
    pub errors: Vec<String>,
}

impl VerifyReport {
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.errors.is_empty()
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerifyReport { extents, groups, entries, bytes, .. } = self;
        write!(f, "journal: {extents} extents, {groups} groups, {entries} entries, {bytes} bytes")?;
        self.damage.iter().try_for_each(|damage| write!(f, "\n  damaged: {damage}"))?;
        self.torn.iter().try_for_each(|at| {
            write!(f, "\n  torn by a crash, or damaged before anything said that it was acknowledged: position {}", at.0)
        })?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  cannot be read: {error}"))
    }
}

/// Reads every extent. Changes nothing.
pub fn verify(disk: &dyn Disk) -> VerifyReport {
    let mut report = VerifyReport::default();
    if let Err(error) = verify_all(disk, &mut report) {
        report.errors.push(error.to_string());
    }
    report
}

/// An extent that no directory ends.
struct Open {
    extent: ExtentNumber,
    /// Where its last whole group ends.
    end: Position,
    entries: u32,
    /// The chain as it stood when it began.
    before: Option<Link>,
    /// Whether something of its own lies behind the end.
    something: bool,
}

const LOST: &str = "a group that may have been acknowledged cannot be read";

fn verify_all(disk: &dyn Disk, report: &mut VerifyReport) -> io::Result<()> {
    let mut link: Option<Link> = None;
    let mut before: Option<ExtentNumber> = None;
    let mut open: Option<Open> = None;
    for (file, bytes) in disk.list()? {
        let FileName::Extent(number) = file else { continue };
        report.extents += 1;
        let header = if bytes >= u64::from(BLOCK_BYTES) { extent_header(disk, number)? } else { None };
        let Some(header) = header.filter(|header| u64::from(header.extent_bytes) == bytes) else {
            let position = Position(number.0.saturating_mul(bytes));
            report.damage.push(damage(number, position, Position(0), "the extent's header or size is wrong"));
            (link, before, open) = (None, None, None);
            continue;
        };
        if before.is_none_or(|before| before.0 + 1 != number.0) {
            // Extents between were recycled: the chain begins anew.
            (link, open) = (None, None);
        }
        (link, open) = verify_extent(disk, header, link, open, report)?;
        before = Some(number);
    }
    report.torn.extend(open.filter(|open| open.something).map(|open| open.end));
    Ok(())
}

/// Gives the chain after this extent, and the extent itself if no directory ends it.
fn verify_extent(
    disk: &dyn Disk,
    header: ExtentHeader,
    link: Option<Link>,
    pending: Option<Open>,
    report: &mut VerifyReport,
) -> io::Result<(Option<Link>, Option<Open>)> {
    let mut before = link;
    let mut scan = Scan::of(disk, header, link);
    let mut next = scan.next_group()?;
    if let Some(empty) = pending.as_ref().filter(|pending| pending.entries == 0 && next.is_none()) {
        before = empty.before;
        scan = Scan::of(disk, header, before);
        next = scan.next_group()?;
    }
    let follows = next.as_ref().map(|group| Link::before(&group.header));
    let (mut durable, mut entries) = (Position(0), 0);
    while let Some(group) = next {
        durable = durable.max(group.header.durable);
        entries += group.header.entries;
        verify_group(&group, header.number, report);
        next = scan.next_group()?;
    }
    let end = header.position(scan.at);
    report.bytes += end.0 - header.position(0).0;
    let (mut something, mut blank, mut lost) = (false, false, Vec::new());
    scan.each_block(|at, block| {
        blank |= at == scan.at && is_zero(block);
        something |= GroupHeader::resembles(block, &header.incarnation) || blank && !is_zero(block);
        let Some(group) = GroupHeader::decode(block).filter(|group| group.incarnation == header.incarnation) else { return };
        durable = durable.max(group.durable);
        if block.len() >= HEADER_BYTES + group.contents_bytes as usize {
            lost.extend(contents(&group, header.position(at), block));
        }
    })?;
    if let Some(pending) = pending {
        let ends_here = follows.is_some();
        if !ends_here && (pending.entries > 0 || durable > pending.end || scan.broken) {
            report.damage.push(damage(pending.extent, pending.end, durable, LOST));
        } else if pending.entries > 0 {
            report.damage.push(damage(pending.extent, pending.end, durable, "the directory cannot be read; the groups are whole"));
        }
    }
    let after = if follows.is_some() { scan.link } else { before };
    if let Some(directory) = find_directory(disk, header.number, header.extent_bytes, &header.incarnation)? {
        if directory.data_end != scan.at {
            let lost = directory.directory().all().iter().filter(|located| located.position >= end).copied().collect();
            let what = "a group that was finished cannot be read";
            report.damage.push(DamageReport { lost, ..damage(header.number, end, durable, what) });
        }
        return Ok((after, None));
    }
    if durable > end || scan.broken {
        report.damage.push(DamageReport { lost, ..damage(header.number, end, durable, LOST) });
    }
    let before = follows.or(before);
    Ok((after, Some(Open { extent: header.number, end, entries, before, something })))
}

fn verify_group(group: &Group, extent: ExtentNumber, report: &mut VerifyReport) {
    report.groups += 1;
    let mut at = HEADER_BYTES + group.header.contents_bytes as usize;
    for _ in 0..group.header.entries {
        match open_entry(&group.bytes, at) {
            Ok((_, _, next)) => at = next,
            Err(what) => {
                report.damage.push(damage(extent, Position(group.position.0 + at as u64), group.header.durable, what.what));
                return;
            }
        }
        report.entries += 1;
    }
}

fn damage(extent: ExtentNumber, position: Position, durable: Position, what: &'static str) -> DamageReport {
    DamageReport { extent, position, durable, what, lost: Vec::new() }
}
