//! Takes a journal over: reads it, tells a torn tail from damage, settles what is doubtful, fences.
//!
//! The first group that cannot be read, at x, is a torn tail only if no group that can be read says "durable up to more than x" and no
//! finished extent says that groups reach further. Otherwise it may have been acknowledged, and opening is refused: nothing is
//! truncated, nothing altered.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use firth_model::ids::{ExtentNumber, Lsn, Position};
use firth_model::time::Millis;

use crate::commit::Driver;
use crate::core::{Core, Writer};
use crate::disk::{Disk, FileName};
use crate::entry::{EntryKind, open_entry};
use crate::extent::{BLOCK_BYTES, ExtentHeader};
use crate::group::{GroupHeader, HEADER_BYTES, Located, build_plain, contents};
use crate::journal::{OpenError, Options, Replayed};
use crate::reader::{Reader, encode_directory, find_directory};
use crate::report::{DamageReport, TornReport};
use crate::scan::{Group, Link, Scan, extent_header};
use crate::spares::Spares;

pub(crate) struct TakenOver {
    pub driver: Driver,
    pub extents: Vec<ExtentNumber>,
    pub torn: Option<TornReport>,
    pub epoch: u64,
    pub first_lsn: Lsn,
}

/// What reading has found so far.
struct Found {
    link: Option<Link>,
    next_lsn: Lsn,
    first_lsn: Option<Lsn>,
    append_ms: Millis,
    epoch: u64,
    /// The highest position that any group says is durable.
    durable: Position,
    /// End of the last whole group.
    end: Position,
}

const MAYBE_ACKNOWLEDGED: &str = "a group that may have been acknowledged cannot be read";

/// How an extent ends.
enum Ended {
    /// By its directory, which only its own bytes say was written.
    Finished { header: ExtentHeader, at: u32, directory: Bytes },
    Open(Unfinished),
}

/// The last extent, which no directory ends.
struct Unfinished {
    header: ExtentHeader,
    at: u32,
    rows: Vec<Located>,
    entries: u64,
    before: Option<Link>,
    /// Groups that only their own bytes say were written.
    doubtful: Vec<(u32, Bytes)>,
}

pub(crate) fn take_over(
    disk: &Arc<dyn Disk>,
    spares: &Arc<Spares>,
    reader: &Arc<Reader>,
    extent_bytes: u32,
    options: &mut Options,
    from: Position,
    visit: &mut dyn FnMut(Replayed),
) -> Result<TakenOver, OpenError> {
    let mut extents = extents_of(&**disk)?;
    let first = reader.extent_of(from);
    let mut found =
        Found { link: None, next_lsn: Lsn(1), first_lsn: None, append_ms: Millis(0), epoch: 0, durable: Position(0), end: Position(0) };
    let mut last: Option<Ended> = None;
    let mut previous: Option<ExtentNumber> = None;
    for number in &extents {
        let Some(header) = extent_header(&**disk, *number)? else {
            let position = Position(number.0 * u64::from(extent_bytes));
            return Err(damaged(*number, position, &found, "the extent's header cannot be read", Vec::new()));
        };
        if header.cluster != options.cluster_id {
            return Err(OpenError::Cluster);
        }
        reader.born(*number, header.incarnation);
        if *number < first {
            continue;
        }
        if previous.is_some_and(|previous| previous.0 + 1 != number.0) {
            let position = header.position(0);
            return Err(damaged(*number, position, &found, "the extent before is missing", Vec::new()));
        }
        previous = Some(*number);
        let before = if let Some(Ended::Open(before)) = &last { Some(before) } else { None };
        last = Some(read_extent(&**disk, header, &mut found, before, visit)?);
    }
    let mut torn = None;
    match last {
        Some(Ended::Open(last)) => {
            torn = settle(&**disk, &last, &found)?;
            finish(&**disk, last, &mut found, &mut extents, options)?;
        }
        Some(Ended::Finished { header, at, directory }) => {
            disk.write(FileName::Extent(header.number), u64::from(at), &[&directory])?;
            disk.sync(FileName::Extent(header.number))?;
        }
        None => {}
    }
    fence(disk, spares, reader, extent_bytes, options, found, extents, torn)
}

fn extents_of(disk: &dyn Disk) -> io::Result<Vec<ExtentNumber>> {
    let files = disk.list()?;
    Ok(files.into_iter().filter_map(|(file, _)| if let FileName::Extent(number) = file { Some(number) } else { None }).collect())
}

fn damaged(extent: ExtentNumber, position: Position, found: &Found, what: &'static str, lost: Vec<Located>) -> OpenError {
    OpenError::Damaged(Box::new(DamageReport { extent, position, durable: found.durable, what, lost }))
}

/// Reads one extent. Gives what is to be settled if no directory ends it.
fn read_extent(
    disk: &dyn Disk,
    header: ExtentHeader,
    found: &mut Found,
    unfinished_before: Option<&Unfinished>,
    visit: &mut dyn FnMut(Replayed),
) -> Result<Ended, OpenError> {
    let before = found.link;
    let mut scan = Scan::of(disk, header, found.link);
    let (mut rows, mut entries, mut kept) = (Vec::new(), 0, Vec::new());
    while let Some(group) = scan.next_group()? {
        found.durable = found.durable.max(group.header.durable);
        rows.extend(visit_group(&group, found, visit)?);
        entries += u64::from(group.header.entries);
        kept.push((scan.at - u32::try_from(group.bytes.len()).unwrap_or(0), group.bytes));
        // What a later group says is durable needs no settling.
        kept.retain(|(at, bytes): &(u32, Bytes)| header.position(*at).0 + bytes.len() as u64 > found.durable.0);
    }
    found.link = scan.link;
    let position = header.position(scan.at);
    let directory = find_directory(disk, header.number, header.extent_bytes, &header.incarnation)?;
    let lost = evidence(&scan, found)?;
    if let Some(before) = unfinished_before
        && scan.at == BLOCK_BYTES
        && found.durable > before.header.position(before.at)
    {
        // This extent does not follow from the one before, so that one reached further.
        let (extent, position) = (before.header.number, before.header.position(before.at));
        return Err(damaged(extent, position, found, MAYBE_ACKNOWLEDGED, lost));
    }
    if let Some(directory) = directory {
        if directory.data_end != scan.at {
            let lost = directory.directory().all().iter().filter(|located| located.position >= position).copied().collect();
            return Err(damaged(header.number, position, found, "a group that was finished cannot be read", lost));
        }
        found.end = position;
        let at = header.extent_bytes - u32::try_from(directory.bytes.len()).unwrap_or(0);
        return Ok(Ended::Finished { header, at, directory: Bytes::from(directory.bytes) });
    }
    if found.durable > position {
        return Err(damaged(header.number, position, found, MAYBE_ACKNOWLEDGED, lost));
    }
    found.end = position;
    Ok(Ended::Open(Unfinished { header, at: scan.at, rows, entries, before, doubtful: kept }))
}

/// Reads what lies behind the last whole group, for what it says is durable; gives the batches it knows of.
fn evidence(scan: &Scan<'_>, found: &mut Found) -> io::Result<Vec<Located>> {
    let mut lost = Vec::new();
    scan.each_block(|at, block| {
        let Some(header) = GroupHeader::decode(block) else {
            return;
        };
        if header.incarnation == scan.extent.incarnation && header.cluster == scan.extent.cluster {
            found.durable = found.durable.max(header.durable);
            if block.len() >= HEADER_BYTES + header.contents_bytes as usize {
                lost.extend(contents(&header, scan.extent.position(at), block));
            }
        }
    })?;
    Ok(lost)
}

fn visit_group(group: &Group, found: &mut Found, visit: &mut dyn FnMut(Replayed)) -> Result<Vec<Located>, OpenError> {
    let header = &group.header;
    let rows = contents(header, group.position, &group.bytes);
    found.epoch = found.epoch.max(header.epoch);
    found.append_ms = found.append_ms.max(header.append_ms);
    found.first_lsn.get_or_insert(header.first_lsn);
    found.next_lsn = header.first_lsn;
    let mut at = HEADER_BYTES + header.contents_bytes as usize;
    let mut batches = rows.iter();
    for _ in 0..header.entries {
        let lsn = found.next_lsn;
        let (entry, body, next) = open_entry(&group.bytes, at).map_err(|damage| {
            let position = Position(group.position.0 + at as u64);
            damaged(ExtentNumber(0), position, found, damage.what, Vec::new())
        })?;
        let Some(kind) = EntryKind::find(entry.kind) else {
            if entry.required {
                return Err(OpenError::UnknownKind { lsn, kind: entry.kind });
            }
            (found.next_lsn, at) = (lsn.next(), next);
            continue;
        };
        let batch_at = if kind == EntryKind::Batch { batches.next().copied() } else { None };
        visit(Replayed { lsn, append_ms: header.append_ms, kind, version: entry.version, body, batch_at });
        (found.next_lsn, at) = (lsn.next(), next);
    }
    Ok(rows)
}

/// Keeps a torn tail aside, and makes certain that the doubtful groups are on disk: after a sync that failed, the page cache may hold
/// what the disk does not. Writing the same bytes again, and syncing, settles it without a change.
fn settle(disk: &dyn Disk, last: &Unfinished, found: &Found) -> io::Result<Option<TornReport>> {
    let scan = Scan { disk, extent: last.header, at: last.at, link: None };
    let mut torn_end = None;
    scan.each_block(|at, block| {
        if GroupHeader::resembles(block, &last.header.incarnation) {
            let bytes = GroupHeader::decode(block).map_or(BLOCK_BYTES as usize, |header| header.group_bytes());
            torn_end = Some((at as usize + bytes).min(last.header.extent_bytes as usize));
        }
    })?;
    let mut report = None;
    if let Some(end) = torn_end {
        let mut bytes = vec![0; end - last.at as usize];
        let extent = last.header.number;
        disk.read(FileName::Extent(extent), u64::from(last.at), &mut bytes)?;
        report = Some(TornReport { extent, position: last.header.position(last.at), bytes: bytes.len() as u64 });
        if let Err(error) = keep_aside(disk, extent, &bytes) {
            // It is still in the extent; a full disk must not keep a node from starting.
            tracing::warn!(%error, "no copy of the torn group could be made");
        }
    }
    let doubtful = last.doubtful.iter().filter(|(at, bytes)| last.header.position(*at).0 + bytes.len() as u64 > found.durable.0);
    let mut any = false;
    for (at, bytes) in doubtful {
        disk.write(FileName::Extent(last.header.number), u64::from(*at), &[bytes])?;
        any = true;
    }
    if any {
        disk.sync(FileName::Extent(last.header.number))?;
    }
    Ok(report)
}

fn keep_aside(disk: &dyn Disk, extent: ExtentNumber, bytes: &[u8]) -> io::Result<()> {
    let file = FileName::Torn(extent);
    disk.create(file, bytes.len() as u64, 0)?;
    disk.write(file, 0, &[bytes])?;
    disk.sync(file)?;
    disk.sync_names()
}

/// Ends the last extent with its directory. One that holds no entry is given up instead, and its number used again: restarts without
/// traffic take no space.
fn finish(
    disk: &dyn Disk,
    mut last: Unfinished,
    found: &mut Found,
    extents: &mut Vec<ExtentNumber>,
    options: &mut Options,
) -> io::Result<()> {
    let number = last.header.number;
    if last.entries == 0 {
        disk.delete(FileName::Extent(number))?;
        extents.retain(|extent| *extent != number);
        found.link = last.before;
        found.end = found.end.min(last.header.position(0));
        return Ok(());
    }
    let header = GroupHeader {
        kind: crate::group::GroupKind::Directory,
        cluster: options.cluster_id,
        incarnation: last.header.incarnation,
        rows: 0,
        number: found.link.map_or(0, |link| link.number + 1),
        epoch: found.epoch,
        writer: (options.random)(),
        first_lsn: found.next_lsn,
        entries: 0,
        contents_bytes: 0,
        body_bytes: 0,
        previous: found.link.map_or([0; 16], |link| link.digest),
        durable: found.end,
        append_ms: found.append_ms,
        body_checksum: [0; 16],
    };
    let body = encode_directory(last.at, &mut last.rows);
    let bytes = crate::extent::padded(HEADER_BYTES + body.len());
    let at = last.header.extent_bytes - u32::try_from(bytes).unwrap_or(last.header.extent_bytes);
    let built = build_plain(header, last.header.position(at), &body);
    disk.write(FileName::Extent(number), u64::from(at), &[&built.bytes])?;
    disk.sync(FileName::Extent(number))
}

#[expect(clippy::too_many_arguments, reason = "the parts of one hand-over, each used once")]
fn fence(
    disk: &Arc<dyn Disk>,
    spares: &Arc<Spares>,
    reader: &Arc<Reader>,
    extent_bytes: u32,
    options: &mut Options,
    found: Found,
    extents: Vec<ExtentNumber>,
    torn: Option<TornReport>,
) -> Result<TakenOver, OpenError> {
    let epoch = found.epoch + 1;
    let writer = Writer {
        cluster: options.cluster_id,
        epoch,
        nonce: (options.random)(),
        number: found.link.map_or(0, |link| link.number),
        digest: found.link.map_or([0; 16], |link| link.digest),
        next_lsn: found.next_lsn,
        append_ms: found.append_ms,
    };
    let number = extents.last().map_or(ExtentNumber(0), |last| ExtentNumber(last.0 + 1));
    let header = ExtentHeader { extent_bytes, cluster: options.cluster_id, incarnation: (options.random)(), number };
    // A first start does not wait for a whole extent of zeros.
    spares.become_extent(&header, 1 << 20)?;
    reader.born(number, header.incarnation);
    let mut core = Core::after(writer, found.end);
    core.begin(header);
    let random = std::mem::replace(&mut options.random, Box::new(|| [0; 16]));
    let durable = Lsn(found.next_lsn.0 - 1);
    let mut driver = Driver { core, disk: disk.clone(), reader: reader.clone(), spares: spares.clone(), header, random, durable };
    let now = (options.clock)();
    if let Some(write) = driver.core.fence(now) {
        driver.perform(write, &mut |_| ())?;
    }
    let first_lsn = found.first_lsn.unwrap_or(found.next_lsn);
    Ok(TakenOver { driver, extents, torn, epoch, first_lsn })
}

/// The batches of an extent by its groups' own tables of contents.
pub(crate) fn contents_of(disk: &dyn Disk, number: ExtentNumber, extent_bytes: u32) -> Result<Vec<Located>, crate::reader::ReadError> {
    let position = Position(number.0 * u64::from(extent_bytes));
    let header = extent_header(disk, number)?;
    let header = header.ok_or(crate::reader::ReadError::Damaged { position, what: "the extent's header cannot be read" })?;
    let mut scan = Scan::of(disk, header, None);
    let mut rows = Vec::new();
    while let Some(group) = scan.next_group()? {
        rows.extend(contents(&group.header, group.position, &group.bytes));
    }
    Ok(rows)
}
