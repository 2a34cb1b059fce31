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
use crate::group::{GroupHeader, GroupKind, HEADER_BYTES, Located, build_plain, contents};
use crate::options::{OpenError, Options, Replayed};
use crate::reader::{Reader, encode_directory, find_directory};
use crate::report::{DamageReport, TornReport};
use crate::scan::{Group, Link, Scan, header_of, is_zero};
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

impl Default for Found {
    fn default() -> Found {
        Found { link: None, next_lsn: Lsn(1), first_lsn: None, append_ms: Millis(0), epoch: 0, durable: Position(0), end: Position(0) }
    }
}

/// How an extent ends.
enum Ended {
    /// By its directory, which only its own bytes say was written.
    Finished {
        header: ExtentHeader,
        at: u32,
        directory: Bytes,
    },
    Open(Unfinished),
}

/// An extent that no directory ends: the last one, or one whose directory is damaged.
struct Unfinished {
    header: ExtentHeader,
    at: u32,
    rows: Vec<Located>,
    entries: u64,
    /// The chain as it stood when the extent began.
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
    visit: &mut dyn FnMut(Replayed<'_>),
) -> Result<TakenOver, OpenError> {
    let first = reader.extent_of(from);
    let headers = headers_of(&**disk, reader, spares, first, options)?;
    let mut found = before(&**disk, &headers, first)?;
    let known = found.link.is_some() || first == ExtentNumber(0);
    let (mut last, mut empty): (Option<Ended>, Vec<ExtentNumber>) = (None, Vec::new());
    let mut expected = first;
    for header in &headers {
        reader.born(header.number, header.incarnation);
        if header.number < first {
            continue;
        }
        let begins = if header.number == expected { Begins::Anyhow } else { Begins::WithFence };
        expected = ExtentNumber(header.number.0 + 1);
        let pending = if let Some(Ended::Open(pending)) = last.take() { Some(pending) } else { None };
        last = Some(read_extent(&**disk, *header, begins, &mut found, pending.as_ref(), visit)?);
        match pending {
            Some(pending) if pending.entries == 0 => empty.push(pending.header.number),
            Some(pending) => tracing::warn!(extent = pending.header.number.0, "the extent's directory is damaged; its groups are whole"),
            None => {}
        }
    }
    if found.first_lsn.is_none() && !known {
        return Err(damaged(first, from, &found, "the extents that the checkpoint needs are missing", Vec::new()));
    }
    let torn = settle_last(&**disk, last, &mut found, &mut empty, options)?;
    let extents: Vec<ExtentNumber> = headers.iter().map(|header| header.number).collect();
    fence(Fencing { disk, spares, reader, extent_bytes, found, extents, empty, torn }, options)
}

/// Makes certain of what only the last extent's own bytes say, and ends it.
fn settle_last(
    disk: &dyn Disk,
    last: Option<Ended>,
    found: &mut Found,
    empty: &mut Vec<ExtentNumber>,
    options: &mut Options,
) -> io::Result<Option<TornReport>> {
    match last {
        Some(Ended::Open(last)) => {
            let torn = settle(disk, &last, found)?;
            if last.entries == 0 {
                found.link = last.before;
                found.end = found.end.min(last.header.position(0));
                empty.push(last.header.number);
            } else {
                finish(disk, last, found, options)?;
            }
            Ok(torn)
        }
        Some(Ended::Finished { header, at, directory }) => {
            disk.write(FileName::Extent(header.number), u64::from(at), &[&directory])?;
            disk.sync(FileName::Extent(header.number))?;
            Ok(None)
        }
        None => Ok(None),
    }
}

/// How an extent must begin to belong to what was read before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    Anyhow,
    /// An extent before is missing. Only one without entries may be, and what follows such a one begins with a fence.
    WithFence,
}

/// The headers of all extents, in order. Before `first` an extent that cannot be read harms nobody but its own readers.
fn headers_of(
    disk: &dyn Disk,
    reader: &Reader,
    spares: &Spares,
    first: ExtentNumber,
    options: &Options,
) -> Result<Vec<ExtentHeader>, OpenError> {
    let (nothing, extent_bytes) = (Found::default(), reader.extent_bytes());
    let mut headers = Vec::new();
    for (file, bytes) in disk.list()? {
        let FileName::Extent(number) = file else { continue };
        let position = Position(number.0.saturating_mul(u64::from(extent_bytes)));
        let whole = bytes == u64::from(extent_bytes);
        let header = if bytes > u64::from(2 * BLOCK_BYTES) { header_of(disk, number, extent_bytes)? } else { None };
        let header = header.filter(|header| header.extent_bytes == extent_bytes);
        let what = if whole { "the extent's header cannot be read" } else { "the extent's file has another size than the others" };
        if number >= first && (header.is_none() || !whole) {
            return Err(damaged(number, position, &nothing, what, Vec::new()));
        }
        if !whole {
            spares.misfit(number);
        }
        let Some(header) = header else {
            tracing::error!(extent = number.0, what, "records in it cannot be read; see `firth repair`");
            reader.unreadable(number);
            continue;
        };
        if !whole {
            tracing::error!(extent = number.0, what, "some records in it cannot be read; see `firth repair`");
        }
        if header.cluster != options.cluster_id {
            return Err(OpenError::Cluster);
        }
        headers.push(header);
    }
    Ok(headers)
}

/// Where the journal stood when `first` began, by the directory of the extent before.
fn before(disk: &dyn Disk, headers: &[ExtentHeader], first: ExtentNumber) -> io::Result<Found> {
    let mut found = Found::default();
    let Some(header) = headers.iter().rev().find(|header| header.number < first) else { return Ok(found) };
    if let Some(directory) = find_directory(disk, header.number, header.extent_bytes, &header.incarnation)? {
        let says = directory.header;
        (found.next_lsn, found.epoch, found.append_ms) = (says.first_lsn, says.epoch, says.append_ms);
        found.end = header.position(directory.data_end);
        if header.number.0 + 1 == first.0 {
            found.link = Some(Link::before(&says));
        }
    }
    Ok(found)
}

fn damaged(extent: ExtentNumber, position: Position, found: &Found, what: &'static str, lost: Vec<Located>) -> OpenError {
    OpenError::Damaged(Box::new(DamageReport { extent, position, durable: found.durable, what, lost }))
}

/// Reads one extent. Gives what is to be settled at its end.
///
/// `pending` is the extent before, if no directory ends that: this one's existence says that everything in it was durable, so either
/// this one goes on where it ends, or its end is lost.
fn read_extent(
    disk: &dyn Disk,
    header: ExtentHeader,
    begins: Begins,
    found: &mut Found,
    pending: Option<&Unfinished>,
    visit: &mut dyn FnMut(Replayed<'_>),
) -> Result<Ended, OpenError> {
    const LOST: &str = "a group that may have been acknowledged cannot be read";
    let mut before = found.link;
    let mut scan = Scan::of(disk, header, before);
    let mut next = scan.next_group()?;
    if let Some(empty) = pending.filter(|pending| pending.entries == 0 && next.is_none()) {
        // An extent without entries is given up: what follows goes on from what was before it.
        before = empty.before;
        scan = Scan::of(disk, header, before);
        next = scan.next_group()?;
    }
    let (mut rows, mut entries, mut kept) = (Vec::new(), 0, Vec::new());
    let starts = next.as_ref().map(|group| (group.header.kind, Link::before(&group.header)));
    // Where the chain goes on, nothing is missing.
    if begins == Begins::WithFence && starts.is_none_or(|(kind, _)| kind != GroupKind::Fence && found.link.is_none()) {
        return Err(damaged(header.number, header.position(0), found, "the extent before is missing", Vec::new()));
    }
    while let Some(group) = next {
        found.durable = found.durable.max(group.header.durable);
        rows.extend(visit_group(&group, header.number, found, visit)?);
        // A bridge stands for what was there.
        entries += u64::from(group.header.entries) + u64::from(group.header.kind == GroupKind::Bridge);
        kept.push((scan.at - u32::try_from(group.bytes.len()).unwrap_or(0), group.bytes));
        // What a later group says is durable needs no settling.
        kept.retain(|(at, bytes): &(u32, Bytes)| header.position(*at).0 + bytes.len() as u64 > found.durable.0);
        next = scan.next_group()?;
    }
    let position = header.position(scan.at);
    let lost = evidence(&scan, found)?;
    if let Some(pending) = pending.filter(|_| starts.is_none()) {
        let end = pending.header.position(pending.at);
        if pending.entries > 0 || found.durable > end || scan.broken {
            return Err(damaged(pending.header.number, end, found, LOST, lost));
        }
    }
    found.link = if starts.is_some() { scan.link } else { before };
    if let Some(directory) = find_directory(disk, header.number, header.extent_bytes, &header.incarnation)? {
        if directory.data_end != scan.at {
            let lost = directory.directory().all().iter().filter(|located| located.position >= position).copied().collect();
            return Err(damaged(header.number, position, found, "a group that was finished cannot be read", lost));
        }
        found.end = position;
        let at = header.extent_bytes - u32::try_from(directory.bytes.len()).unwrap_or(0);
        return Ok(Ended::Finished { header, at, directory: Bytes::from(directory.bytes) });
    }
    if found.durable > position || scan.broken {
        return Err(damaged(header.number, position, found, LOST, lost));
    }
    found.end = position;
    let before = starts.map(|(_, link)| link).or(before);
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
            found.epoch = found.epoch.max(header.epoch);
            if block.len() >= HEADER_BYTES + header.contents_bytes as usize {
                lost.extend(contents(&header, scan.extent.position(at), block));
            }
        }
    })?;
    Ok(lost)
}

fn visit_group(
    group: &Group,
    extent: ExtentNumber,
    found: &mut Found,
    visit: &mut dyn FnMut(Replayed<'_>),
) -> Result<Vec<Located>, OpenError> {
    let header = &group.header;
    let rows = contents(header, group.position, &group.bytes);
    found.epoch = found.epoch.max(header.epoch);
    found.append_ms = found.append_ms.max(header.append_ms);
    found.first_lsn.get_or_insert(header.first_lsn);
    found.next_lsn = header.first_lsn;
    let mut at = HEADER_BYTES + header.contents_bytes as usize;
    let mut batches = &rows[..];
    for _ in 0..header.entries {
        let lsn = found.next_lsn;
        let (entry, body, next) = open_entry(&group.bytes, at).map_err(|damage| {
            let position = Position(group.position.0 + at as u64);
            damaged(extent, position, found, damage.what, Vec::new())
        })?;
        let Some(kind) = EntryKind::find(entry.kind) else {
            if entry.required {
                return Err(OpenError::UnknownKind { lsn, kind: entry.kind });
            }
            (found.next_lsn, at) = (lsn.next(), next);
            continue;
        };
        let here = Position(group.position.0 + at as u64);
        let (placed, behind) = batches.split_at(batches.iter().take_while(|located| located.position == here).count());
        batches = behind;
        visit(Replayed { lsn, append_ms: header.append_ms, kind, version: entry.version, body, placed });
        (found.next_lsn, at) = (lsn.next(), next);
    }
    Ok(rows)
}

/// Keeps a torn tail aside, and makes certain that the doubtful groups are on disk: after a sync that failed, the page cache may hold
/// what the disk does not. Writing the same bytes again, and syncing, settles it without a change.
fn settle(disk: &dyn Disk, last: &Unfinished, found: &Found) -> io::Result<Option<TornReport>> {
    let scan = Scan { at: last.at, ..Scan::of(disk, last.header, None) };
    let (mut torn_end, mut blank) = (None, false);
    scan.each_block(|at, block| {
        if at == last.at {
            blank = is_zero(block);
        }
        // No group leaves a block of zeros before other bytes, nor does an earlier life of the file: a header was lost here.
        let headless = blank && torn_end.is_none() && at > last.at && !is_zero(block);
        if headless || GroupHeader::resembles(block, &last.header.incarnation) {
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

/// Copies of torn groups that are kept: they are for a person who looks into the last crash, not for ever.
const TORN_KEPT: usize = 2;

fn keep_aside(disk: &dyn Disk, extent: ExtentNumber, bytes: &[u8]) -> io::Result<()> {
    let mut kept: Vec<FileName> = disk.list()?.into_iter().map(|(file, _)| file).filter(|file| matches!(file, FileName::Torn(_))).collect();
    kept.sort_unstable();
    for old in kept.iter().rev().skip(TORN_KEPT - 1) {
        disk.delete(*old)?;
    }
    let file = FileName::Torn(extent);
    disk.create(file, bytes.len() as u64, 0)?;
    disk.write(file, 0, &[bytes])?;
    disk.sync(file)?;
    disk.sync_names()
}

/// Ends the last extent with its directory.
fn finish(disk: &dyn Disk, mut last: Unfinished, found: &Found, options: &mut Options) -> io::Result<()> {
    let number = last.header.number;
    let header = GroupHeader {
        kind: GroupKind::Directory,
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
        after: [0; 16],
    };
    let body = encode_directory(last.at, &mut last.rows);
    let bytes = crate::extent::padded(HEADER_BYTES + body.len());
    let at = last.header.extent_bytes - u32::try_from(bytes).unwrap_or(last.header.extent_bytes);
    let built = build_plain(header, last.header.position(at), &body);
    disk.write(FileName::Extent(number), u64::from(at), &built.slices())?;
    disk.sync(FileName::Extent(number))
}

struct Fencing<'a> {
    disk: &'a Arc<dyn Disk>,
    spares: &'a Arc<Spares>,
    reader: &'a Arc<Reader>,
    extent_bytes: u32,
    found: Found,
    extents: Vec<ExtentNumber>,
    /// Those of them that hold no entry. They are given back once the new fence is durable, so that at every moment some fence says
    /// which lsn and epoch come next.
    empty: Vec<ExtentNumber>,
    torn: Option<TornReport>,
}

fn fence(parts: Fencing<'_>, options: &mut Options) -> Result<TakenOver, OpenError> {
    let Fencing { disk, spares, reader, extent_bytes, found, mut extents, empty, torn } = parts;
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
    let mut header = ExtentHeader { extent_bytes, cluster: options.cluster_id, incarnation: (options.random)(), number };
    reader.retire(&empty);
    extents.retain(|extent| !empty.contains(extent));
    // A first start does not wait for a whole extent of zeros.
    match spares.become_extent(&header, spares.first_zeros()) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull && !empty.is_empty() => {
            // Not even a spare is left: one of the empty extents has to serve. The number is its own, so that none is missing.
            give_back(spares, reader)?;
            header.number = empty.first().copied().unwrap_or(number);
            spares.become_extent(&header, spares.first_zeros())?;
        }
        outcome => outcome?,
    }
    reader.born(header.number, header.incarnation);
    let mut core = Core::after(writer, found.end);
    core.begin(header);
    let random = std::mem::replace(&mut options.random, Box::new(|| [0; 16]));
    let durable = Lsn(found.next_lsn.0.saturating_sub(1));
    let (disk, reader, spares) = (disk.clone(), reader.clone(), spares.clone());
    let mut driver = Driver { core, disk, reader, spares, header, random, durable, upkeep: None };
    let now = (options.clock)();
    if let Some(write) = driver.core.fence(now) {
        driver.perform(write, &mut |_| ())?;
    }
    give_back(&driver.spares, &driver.reader)?;
    let first_lsn = found.first_lsn.unwrap_or(found.next_lsn);
    Ok(TakenOver { driver, extents, torn, epoch, first_lsn })
}

fn give_back(spares: &Spares, reader: &Reader) -> io::Result<()> {
    // Newest first: a crash in between leaves no gap before an extent whose fence is torn.
    reader.take_unheld().into_iter().rev().try_for_each(|extent| spares.give_back(extent))
}
