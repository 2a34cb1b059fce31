//! Checks a whole journal offline: every checksum, and the chain.

use std::fmt;
use std::io;

use firth_model::ids::{ExtentNumber, Position};

use crate::disk::{Disk, FileName};
use crate::entry::open_entry;
use crate::extent::BLOCK_BYTES;
use crate::group::{GroupHeader, HEADER_BYTES, contents};
use crate::reader::find_directory;
use crate::report::DamageReport;
use crate::scan::{Group, Link, Scan, extent_header};

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
        self.torn.iter().try_for_each(|at| write!(f, "\n  torn, never known to be acknowledged: position {}", at.0))?;
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

fn verify_all(disk: &dyn Disk, report: &mut VerifyReport) -> io::Result<()> {
    let mut link: Option<Link> = None;
    let mut before: Option<ExtentNumber> = None;
    let mut open_end: Option<(ExtentNumber, Position)> = None;
    for (file, bytes) in disk.list()? {
        let FileName::Extent(number) = file else {
            continue;
        };
        report.extents += 1;
        let Some(header) = extent_header(disk, number)? else {
            let position = Position(number.0 * bytes);
            report.damage.push(damage(number, position, Position(0), "the extent's header cannot be read"));
            (link, before, open_end) = (None, None, None);
            continue;
        };
        if before.is_none_or(|before| before.0 + 1 != number.0) {
            // Extents between were recycled: the chain begins anew.
            link = None;
        }
        let mut durable = Position(0);
        let mut scan = Scan::of(disk, header, link);
        while let Some(group) = scan.next_group()? {
            durable = durable.max(group.header.durable);
            verify_group(&group, number, report);
        }
        let end = header.position(scan.at);
        if let Some((extent, position)) = open_end.take()
            && scan.at == BLOCK_BYTES
            && durable > position
        {
            report.damage.push(damage(extent, position, durable, "a group that may have been acknowledged cannot be read"));
        }
        verify_end(disk, &scan, durable, report, &mut open_end)?;
        report.bytes += end.0 - header.position(0).0;
        (link, before) = (scan.link, Some(number));
    }
    report.torn.extend(open_end.map(|(_, position)| position));
    Ok(())
}

/// What lies behind the last whole group of an extent.
fn verify_end(
    disk: &dyn Disk,
    scan: &Scan<'_>,
    mut durable: Position,
    report: &mut VerifyReport,
    open_end: &mut Option<(ExtentNumber, Position)>,
) -> io::Result<()> {
    let header = scan.extent;
    let end = header.position(scan.at);
    if let Some(directory) = find_directory(disk, header.number, header.extent_bytes, &header.incarnation)? {
        if directory.data_end != scan.at {
            let lost = directory.directory().all().iter().filter(|located| located.position >= end).copied().collect();
            let what = "a group that was finished cannot be read";
            report.damage.push(DamageReport { lost, ..damage(header.number, end, durable, what) });
        }
        return Ok(());
    }
    let (mut something, mut lost) = (false, Vec::new());
    scan.each_block(|at, block| {
        something |= GroupHeader::resembles(block, &header.incarnation);
        let Some(group) = GroupHeader::decode(block).filter(|group| group.incarnation == header.incarnation) else {
            return;
        };
        durable = durable.max(group.durable);
        if block.len() >= HEADER_BYTES + group.contents_bytes as usize {
            lost.extend(contents(&group, header.position(at), block));
        }
    })?;
    if durable > end {
        let what = "a group that may have been acknowledged cannot be read";
        report.damage.push(DamageReport { lost, ..damage(header.number, end, durable, what) });
    } else if something {
        *open_end = Some((header.number, end));
    }
    Ok(())
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
