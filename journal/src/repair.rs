//! Makes a damaged journal open again, by giving up the rest.
//!
//! Each stretch of unreadable groups becomes one [`GroupKind::Bridge`] that holds what was whole in it, so that the chain holds again and
//! opening needs no exceptions. Headers, sizes and directories of extents are made again from the groups. An extent is replaced as a
//! whole, by a rename: a repair that is interrupted is begun again.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;

use firth_model::ids::{ExtentNumber, Lsn, PartitionId, Position};
use firth_model::time::Millis;

use crate::disk::{Disk, FileName};
use crate::extent::{BLOCK_BYTES, ExtentHeader, padded};
use crate::group::{GroupHeader, GroupKind, HEADER_BYTES, Located, body_holds, build_plain, contents};
use crate::options::OpenError;
use crate::reader::{DIRECTORY_ROW_BYTES, encode_directory, find_directory};
use crate::report::ranges;
use crate::salvage::{Salvage, Stretch, narrow, salvage};
use crate::scan::Link;

/// What the repaired journal must fit to.
pub struct Wanted {
    pub cluster_id: [u8; 16],
    pub extent_bytes: u32,
    /// The checkpoint that will be loaded: its last entry, and where reading begins.
    pub at: Lsn,
    pub from: Position,
    /// Gives nonces and incarnations.
    pub random: Box<dyn FnMut() -> [u8; 16]>,
}

/// A stretch of the journal that is given up.
#[derive(Clone, Debug)]
pub struct GivenUp {
    pub extent: ExtentNumber,
    pub position: Position,
    pub bytes: u64,
    /// Batches that are lost, as far as something still names them, for each partition that had them.
    pub batches: Vec<Located>,
    /// Lost entries of any kind, the batches among them. `None`: nothing says how many.
    pub entries: Option<u64>,
}

impl GivenUp {
    /// In words, with partitions named by `name`.
    pub fn describe(&self, name: &dyn Fn(PartitionId) -> String) -> String {
        let GivenUp { extent, position, bytes, batches, entries } = self;
        let mut said = format!("extent {}, position {}, {bytes} bytes: ", extent.0, position.0);
        said.push_str(&match entries {
            Some(0) => "every entry in it is whole".to_owned(),
            Some(1) => "1 entry is lost".to_owned(),
            Some(count) => format!("{count} entries are lost"),
            None => "nothing says how many entries are lost".to_owned(),
        });
        for (partition, from, to) in ranges(batches) {
            said.push_str(&format!("; {} offsets {from} to {to}", name(PartitionId(partition))));
        }
        let unnamed = entries.unwrap_or(0).saturating_sub(entries_of(batches));
        if unnamed > 0 {
            said.push_str(&format!("; {unnamed} that nothing names"));
        }
        said
    }
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct Repaired {
    pub given_up: Vec<GivenUp>,
    /// Extents that were made again, with what was wrong.
    pub extents: Vec<(ExtentNumber, &'static str)>,
}

/// Goes through the whole journal. Before an extent is replaced `aside` is called with it. The journal must not be in use.
pub fn repair(disk: &dyn Disk, wanted: Wanted, aside: &mut dyn FnMut(ExtentNumber) -> io::Result<()>) -> Result<Repaired, OpenError> {
    let mut extents = Vec::new();
    for (file, bytes) in disk.list()? {
        if let FileName::Extent(number) = file {
            extents.push((number, bytes));
        }
    }
    let mut repair = Repair { disk, wanted, aside, chain: Chain::default(), told: Repaired::default() };
    let first = repair.first_missing(&extents);
    let mut work: Vec<(ExtentNumber, u64)> = first.into_iter().map(|number| (number, 0)).collect();
    work.extend(extents);
    let mut at = 0;
    while at < work.len() {
        let (number, bytes) = work[at];
        let following = work[at + 1..].iter().find(|(_, bytes)| *bytes > 0).map(|(number, _)| *number);
        let next = following.map(|next| repair.first_group(next)).transpose()?.flatten();
        repair.extent(number, bytes, following.is_some(), next)?;
        if let Some(missing) = repair.missing(number, following, next) {
            work.insert(at + 1, (missing, 0));
        }
        at += 1;
    }
    Ok(repair.told)
}

/// Where the journal stands behind what was repaired.
#[derive(Clone, Copy, Default)]
struct Chain {
    link: Option<Link>,
    next_lsn: Option<Lsn>,
    epoch: u64,
    append_ms: Millis,
    /// The highest position that any group says is durable.
    durable: Position,
}

struct Repair<'a> {
    disk: &'a dyn Disk,
    wanted: Wanted,
    aside: &'a mut dyn FnMut(ExtentNumber) -> io::Result<()>,
    chain: Chain,
    told: Repaired,
}

/// One extent on the bench.
struct Bench {
    header: ExtentHeader,
    raw: Vec<u8>,
    rows: Vec<Located>,
    /// Where the groups end that were read or bridged.
    at: usize,
    /// Not even its header and size were right.
    cut: bool,
    /// Why it must be written again.
    wrong: Option<&'static str>,
    /// The journal as it stood when the extent began.
    before: Chain,
    entries: u64,
    /// What its directory said, if it could be read, and where that begins.
    directory: Option<(Vec<Located>, usize, usize)>,
}

impl Bench {
    /// The whole group that begins at `at`, if it is of this life of the file.
    fn group(&self, at: usize) -> Option<GroupHeader> {
        let bytes = self.raw.get(at..)?;
        let header = GroupHeader::decode(bytes)?;
        let ours = header.incarnation == self.header.incarnation && header.cluster == self.header.cluster;
        (ours && header.kind != GroupKind::Directory && header.group_bytes() <= bytes.len() && body_holds(&header, bytes)).then_some(header)
    }

    fn is_empty(&self) -> bool {
        self.entries == 0 && self.wrong.is_none() && self.directory.is_none()
    }

    /// Where groups may lie at most.
    fn limit(&self) -> usize {
        self.directory.as_ref().map_or(self.raw.len(), |(_, data_end, _)| *data_end)
    }
}

impl Repair<'_> {
    /// The extent that reading begins with, if it is not there.
    fn first_missing(&self, extents: &[(ExtentNumber, u64)]) -> Option<ExtentNumber> {
        let from = ExtentNumber(self.wanted.from.0 / u64::from(self.wanted.extent_bytes));
        let there = extents.iter().any(|(number, _)| *number == from);
        (!there && extents.iter().any(|(number, _)| *number > from)).then_some(from)
    }

    /// The extent that must stand for what lies between this one and the one that follows, or behind the last.
    fn missing(&self, number: ExtentNumber, following: Option<ExtentNumber>, next: Option<GroupHeader>) -> Option<ExtentNumber> {
        let after = ExtentNumber(number.0 + 1);
        if let Some(following) = following {
            let goes_on = next.is_some_and(|next| self.chain.link.is_none_or(|link| link.leads_to(&next)));
            return (following > after && !goes_on).then_some(after);
        }
        let known = ExtentNumber(self.chain.durable.0.saturating_sub(1) / u64::from(self.wanted.extent_bytes));
        let short = self.chain.next_lsn.is_none_or(|next| next <= self.wanted.at);
        (known > number || short).then_some(known.max(after))
    }

    /// The header of the first group of an extent, if that is whole.
    fn first_group(&self, number: ExtentNumber) -> io::Result<Option<GroupHeader>> {
        let mut head = vec![0; HEADER_BYTES];
        if self.disk.read(FileName::Extent(number), u64::from(BLOCK_BYTES), &mut head).is_err() {
            return Ok(None);
        }
        let Some(header) = GroupHeader::decode(&head).filter(|header| header.cluster == self.wanted.cluster_id) else { return Ok(None) };
        let mut bytes = vec![0; header.group_bytes().min(self.wanted.extent_bytes as usize)];
        let whole = self.disk.read(FileName::Extent(number), u64::from(BLOCK_BYTES), &mut bytes).is_ok() && body_holds(&header, &bytes);
        let follows = self.chain.link.is_none_or(|link| header.number > link.number);
        Ok((whole && follows && header.kind != GroupKind::Directory).then_some(header))
    }

    fn extent(&mut self, number: ExtentNumber, bytes: u64, followed: bool, next: Option<GroupHeader>) -> Result<(), OpenError> {
        let mut bench = self.take(number, bytes)?;
        loop {
            self.whole_groups(&mut bench);
            let Some(to) = self.next_group(&bench) else { break };
            let behind = bench.group(to);
            self.bridge(&mut bench, to, to, behind);
        }
        if bench.is_empty()
            && let (Some(link), Some(next)) = (bench.before.link, next)
            && link.leads_to(&next)
        {
            // It was given up by a later start: what follows goes on from what was before it.
            self.chain = Chain { durable: self.chain.durable, ..bench.before };
            return Ok(());
        }
        let limit = bench.limit();
        if let Some((to, sure)) = self.tail(&bench, limit, followed, next) {
            self.bridge(&mut bench, to, sure, next);
        }
        self.finish(&mut bench, followed);
        if let Some(wrong) = bench.wrong {
            self.told.extents.push((number, wrong));
            (self.aside)(number)?;
            self.replace(&bench)?;
        }
        Ok(())
    }

    /// Reads an extent, in its right size and with a header.
    fn take(&mut self, number: ExtentNumber, bytes: u64) -> Result<Bench, OpenError> {
        let size = self.wanted.extent_bytes as usize;
        let held = usize::try_from(bytes).unwrap_or(usize::MAX).min(size);
        let mut raw = vec![0; held];
        if held > 0 {
            self.disk.read(FileName::Extent(number), 0, &mut raw)?;
        }
        raw.resize(size, 0);
        let mut wrong = match bytes {
            0 => Some("it is missing"),
            bytes if bytes != size as u64 => Some("its file has another size than the others"),
            _ => None,
        };
        let header = match ExtentHeader::decode(&raw).filter(|header| header.number == number && header.extent_bytes as usize == size) {
            Some(header) if header.cluster != self.wanted.cluster_id => return Err(OpenError::Cluster),
            Some(header) => header,
            None => {
                wrong = wrong.or(Some("its header cannot be read"));
                let header = self.header_of(&raw, number);
                raw[..BLOCK_BYTES as usize].copy_from_slice(&header.encode());
                header
            }
        };
        let mut directory = None;
        if bytes == size as u64
            && let Some(found) = find_directory(self.disk, number, header.extent_bytes, &header.incarnation)?
        {
            let begins = size - found.bytes.len();
            let data_end = (found.data_end as usize).clamp(BLOCK_BYTES as usize, begins);
            directory = Some((found.directory().all().to_vec(), data_end, begins));
        }
        Ok(Bench {
            header,
            raw,
            rows: Vec::new(),
            at: BLOCK_BYTES as usize,
            cut: wrong.is_some(),
            wrong,
            before: self.chain,
            entries: 0,
            directory,
        })
    }

    /// A header by what the extent's first groups say.
    fn header_of(&mut self, raw: &[u8], number: ExtentNumber) -> ExtentHeader {
        let (cluster, extent_bytes) = (self.wanted.cluster_id, self.wanted.extent_bytes);
        let later = |header: &GroupHeader| self.chain.link.is_none_or(|link| header.number > link.number);
        let blocks = raw.chunks(BLOCK_BYTES as usize).skip(1);
        let first = blocks.filter_map(GroupHeader::decode).find(|header| header.cluster == cluster && later(header));
        let incarnation = first.map_or_else(&mut self.wanted.random, |header| header.incarnation);
        ExtentHeader { extent_bytes, cluster, incarnation, number }
    }

    /// Goes over the groups that follow each other.
    fn whole_groups(&mut self, bench: &mut Bench) {
        while bench.at < bench.limit()
            && let Some(header) = bench.group(bench.at)
            && self.chain.link.is_none_or(|link| link.leads_to(&header))
        {
            let bytes = &bench.raw[bench.at..bench.at + header.group_bytes()];
            bench.rows.extend(contents(&header, bench.header.position(narrow(bench.at)), bytes));
            self.chain.link = Some(Link { number: header.number, digest: header.leads_to(bytes) });
            self.chain.next_lsn = Some(Lsn(header.first_lsn.0 + u64::from(header.entries)));
            self.chain.saw(&header);
            bench.entries += u64::from(header.entries) + u64::from(header.kind == GroupKind::Bridge);
            bench.at += header.group_bytes();
        }
    }

    /// The next whole group behind damage.
    fn next_group(&mut self, bench: &Bench) -> Option<usize> {
        let later = |header: &GroupHeader| self.chain.link.is_none_or(|link| header.number > link.number + 1);
        let places = (bench.at + BLOCK_BYTES as usize..bench.limit()).step_by(BLOCK_BYTES as usize);
        places.into_iter().find(|at| bench.group(*at).is_some_and(|header| later(&header)))
    }

    /// Where the damage ends that no whole group of the extent follows, and up to where all bytes are surely of this life. `None`:
    /// there is none.
    fn tail(&mut self, bench: &Bench, limit: usize, followed: bool, next: Option<GroupHeader>) -> Option<(usize, usize)> {
        let block = BLOCK_BYTES as usize;
        let (mut end, mut durable) = (bench.at, self.chain.durable);
        for at in (bench.at..limit).step_by(block) {
            let Some(header) = GroupHeader::decode(&bench.raw[at..]).filter(|header| header.incarnation == bench.header.incarnation) else {
                continue;
            };
            if header.kind != GroupKind::Directory && self.chain.link.is_none_or(|link| header.number > link.number) {
                end = end.max((at + header.group_bytes()).min(limit));
                durable = durable.max(header.durable);
            }
        }
        self.chain.durable = durable;
        if bench.directory.is_some() {
            return (limit > bench.at).then_some((limit, limit));
        }
        if followed {
            let goes_on = next.is_some_and(|next| self.chain.link.is_some_and(|link| link.leads_to(&next)));
            // Whatever lay here is lost, or its number would be followed by the next one's.
            let lost = !goes_on && (bench.cut || next.is_some());
            return self.within(bench, end.max(bench.at + block)).filter(|_| lost).map(|to| (to, bench.at));
        }
        let known = durable.0.saturating_sub(bench.header.position(0).0).min(limit as u64);
        let known = usize::try_from(known).unwrap_or(limit).next_multiple_of(block);
        // In an extent that is whole, what nothing says was durable is a torn tail, which opening deals with.
        let end = if bench.cut { known.max(end).max((bench.at + block).min(limit)) } else { known };
        self.within(bench, end).map(|to| (to, known))
    }

    /// As far as `to`, but for the room that whoever wrote the extent kept for its directory. `None`: no group can lie here.
    fn within(&self, bench: &Bench, to: usize) -> Option<usize> {
        let room = bench.raw.len() - padded(HEADER_BYTES + DIRECTORY_ROW_BYTES * bench.rows.len() + 64);
        Some(to.min(room)).filter(|to| *to > bench.at)
    }

    /// Puts a bridge in the place of what lies before `to`. `next` is the group that the chain goes on with, if it is whole.
    fn bridge(&mut self, bench: &mut Bench, to: usize, sure: usize, next: Option<GroupHeader>) {
        let (from, chain) = (bench.at, self.chain);
        let number_min = chain.link.map_or(0, |link| link.number + 1);
        let stretch = Stretch { from, to, sure, first_lsn: chain.next_lsn, next_lsn: next.map(|next| next.first_lsn), number_min };
        let raw = Bytes::copy_from_slice(&bench.raw);
        let mut saved = salvage(&raw, &bench.header, stretch);
        if next.is_none()
            && let Some(first) = chain.next_lsn
        {
            // Entries that the checkpoint holds already had lsns that must not come again.
            let known = usize::try_from((self.wanted.at.0 + 1).saturating_sub(first.0)).unwrap_or(usize::MAX);
            saved.there_are(known.min((to - from) / 64));
        }
        let first_lsn = chain.next_lsn.unwrap_or_else(|| {
            let known = next.map_or(Lsn(self.wanted.at.0 + 1), |next| next.first_lsn);
            Lsn(known.0.saturating_sub(saved.entries() as u64).max(1))
        });
        // What the group must be that stands for an extent behind which nothing is.
        let first_lsn = if next.is_none() && saved.entries() == 0 { first_lsn.max(self.wanted.at.next()) } else { first_lsn };
        let number = next.map_or(number_min, |next| next.number.saturating_sub(1)).max(number_min);
        let header = GroupHeader {
            kind: GroupKind::Bridge,
            cluster: self.wanted.cluster_id,
            incarnation: bench.header.incarnation,
            rows: 0,
            number,
            epoch: chain.epoch,
            writer: (self.wanted.random)(),
            first_lsn,
            entries: 0,
            contents_bytes: 0,
            body_bytes: 0,
            previous: chain.link.map_or([0; 16], |link| link.digest),
            durable: bench.header.position(narrow(from)),
            append_ms: next.map_or(chain.append_ms, |next| next.append_ms),
            body_checksum: [0; 16],
            after: next.map_or([0; 16], |next| next.previous),
        };
        let (bytes, rows) = saved.bridge(header, bench.header.position(narrow(from)), to - from);
        bench.raw[from..to].copy_from_slice(&bytes);
        self.tell(bench, &saved, stretch);
        bench.rows.extend(rows);
        bench.at = to;
        bench.wrong = bench.wrong.or(Some("groups in it cannot be read"));
        let header = GroupHeader::decode(&bytes).unwrap_or(header);
        self.chain.link = Some(Link { number, digest: header.leads_to(&bytes) });
        self.chain.next_lsn = Some(Lsn(first_lsn.0 + u64::from(header.entries)));
    }

    fn tell(&mut self, bench: &Bench, saved: &Salvage, stretch: Stretch) {
        let (from, to) = (bench.header.position(narrow(stretch.from)), bench.header.position(narrow(stretch.to)));
        let mut batches = saved.lost.clone();
        if let Some((rows, ..)) = &bench.directory {
            let here = rows.iter().filter(|row| row.position >= from && row.position < to && !saved.has(&row.row));
            let named: Vec<Located> = here.filter(|row| !batches.iter().any(|other| other.row == row.row)).copied().collect();
            batches.extend(named);
        }
        let counted = stretch.first_lsn.is_some() && stretch.next_lsn.is_some() || !(saved.unknown || bench.cut);
        let entries = counted.then(|| (saved.lost_entries() as u64).max(entries_of(&batches)));
        self.told.given_up.push(GivenUp { extent: bench.header.number, position: from, bytes: to.0 - from.0, batches, entries });
    }

    /// Writes the directory anew, if what it must say is not what it says.
    fn finish(&mut self, bench: &mut Bench, followed: bool) {
        let had = bench.directory.as_ref().map(|(rows, data_end, begins)| (rows.len(), *data_end, *begins));
        if had.is_none() && !followed {
            return;
        }
        let mut rows = std::mem::take(&mut bench.rows);
        if had.is_some_and(|(count, data_end, _)| count == rows.len() && data_end == bench.at) && bench.wrong.is_none() {
            return;
        }
        let body = encode_directory(narrow(bench.at), &mut rows);
        let begins = bench.raw.len() - padded(HEADER_BYTES + body.len());
        if begins < bench.at {
            // Opening makes it from the groups.
            return;
        }
        let header = directory_header(&self.chain, self.wanted.cluster_id, &bench.header, (self.wanted.random)());
        let built = build_plain(header, bench.header.position(narrow(begins)), &body);
        let old = had.map_or(begins, |(.., begins)| begins).min(begins).max(bench.at);
        bench.raw[old..].fill(0);
        bench.raw[begins..begins + built.bytes.len()].copy_from_slice(&built.bytes);
        bench.wrong = bench.wrong.or(Some("its directory cannot be read"));
    }

    fn replace(&self, bench: &Bench) -> io::Result<()> {
        let spares =
            self.disk.list()?.into_iter().filter_map(|(file, _)| if let FileName::Spare(number) = file { Some(number) } else { None });
        let spare = FileName::Spare(spares.max().map_or(0, |last| last + 1));
        self.disk.create(spare, bench.raw.len() as u64, 0)?;
        self.disk.write(spare, 0, &[&bench.raw])?;
        self.disk.sync(spare)?;
        self.disk.rename(spare, FileName::Extent(bench.header.number))?;
        self.disk.sync_names()
    }
}

/// How many entries hold them: a batch that several partitions have lies once.
fn entries_of(batches: &[Located]) -> u64 {
    batches.iter().map(|located| located.position).collect::<BTreeSet<_>>().len() as u64
}

impl Chain {
    fn saw(&mut self, header: &GroupHeader) {
        self.epoch = self.epoch.max(header.epoch);
        self.append_ms = self.append_ms.max(header.append_ms);
        self.durable = self.durable.max(header.durable);
    }
}

fn directory_header(chain: &Chain, cluster: [u8; 16], extent: &ExtentHeader, writer: [u8; 16]) -> GroupHeader {
    GroupHeader {
        kind: GroupKind::Directory,
        cluster,
        incarnation: extent.incarnation,
        rows: 0,
        number: chain.link.map_or(0, |link| link.number + 1),
        epoch: chain.epoch,
        writer,
        first_lsn: chain.next_lsn.unwrap_or(Lsn(1)),
        entries: 0,
        contents_bytes: 0,
        body_bytes: 0,
        previous: chain.link.map_or([0; 16], |link| link.digest),
        durable: extent.position(0),
        append_ms: chain.append_ms,
        body_checksum: [0; 16],
        after: [0; 16],
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
