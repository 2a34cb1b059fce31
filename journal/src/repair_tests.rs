//! Damages journals, repairs them, and sees what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use firth_model::batch::prefix;
use firth_model::ids::{ExtentNumber, LeaderEpoch, Offset, PartitionId};

use super::*;
use crate::entry::{Entry, EntryKind, Row, Selection, Target, read_batch, read_given_up};
use crate::journal::{Opened, open};
use crate::simdisk::{Dice, SimDisk};
use crate::test_rig::{EXTENT, options};
use crate::verify::verify;

/// What a start reads: each entry's lsn with its kind and body, and what it says is given up.
type Read = BTreeMap<u64, (EntryKind, Bytes)>;

fn reopen(disk: &Arc<SimDisk>, seed: u64) -> Result<(Opened, Read), OpenError> {
    let mut read = Read::new();
    let opened = open(disk.clone(), options(seed), Position(0), &mut |entry| {
        assert!(read.insert(entry.lsn.0, (entry.kind, entry.body.clone())).is_none(), "lsn {} twice", entry.lsn.0);
        if entry.kind == EntryKind::Batch {
            let batch = read_batch(&entry.body).expect("a batch");
            let all = std::iter::once(batch.primary).chain(batch.targets.iter().map(|target| target.partition));
            assert!(all.eq(entry.placed.iter().map(|located| located.row.partition)), "a row for each partition that has it");
        }
    })?;
    Ok((opened, read))
}

/// A journal of several extents and starts, and all that is in it.
fn filled(dice: &mut Dice) -> (Arc<SimDisk>, Read) {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let mut next = [0u64; 3];
    for start in 0..3 {
        let (mut opened, _) = reopen(&disk, dice.roll()).expect("opens");
        let mut driver = opened.journal.take_driver().expect("driver");
        for _ in 0..10 + dice.below(20) {
            for _ in 0..=dice.below(6) {
                driver.core.enqueue([entry(dice, &mut next)]);
            }
            driver.turn(Millis(6), &mut |_| ()).expect("durable");
            if dice.below(4) == 0 {
                driver.mark(Millis(7)).expect("marked");
            }
        }
        if start == 2 || dice.below(2) == 0 {
            driver.mark(Millis(8)).expect("marked");
        }
        drop((opened, driver));
        disk.restart_process();
    }
    // One more start, which finishes what is open: read it from a copy.
    let copy = Arc::new(disk.copy());
    let (_, read) = reopen(&copy, dice.roll()).expect("opens");
    (disk, read)
}

fn entry(dice: &mut Dice, next: &mut [u64; 3]) -> Entry {
    if dice.below(4) == 0 {
        return Entry::state_put(&dice.roll().to_le_bytes(), Bytes::from(vec![3; usize::try_from(dice.below(200)).expect("small")]));
    }
    let partition = usize::try_from(dice.below(3)).expect("small");
    let mut place = |partition: usize| {
        next[partition] += 1;
        (PartitionId(partition as u32), Offset(next[partition] - 1))
    };
    let (_, base_offset) = place(partition);
    // One in four lies in other partitions too.
    let others = if dice.below(4) == 0 { 1 + usize::try_from(dice.below(2)).expect("small") } else { 0 };
    let targets: Vec<Target> = (1..=others)
        .map(|step| place((partition + step) % 3))
        .map(|(partition, base_offset)| Target { partition, base_offset, selection: Selection::All })
        .collect();
    let row = Row { partition: PartitionId(partition as u32), base_offset, records: 1, max_timestamp: 0 };
    // A header of format 2 with zeros but for what the journal looks at, and a value.
    let mut batch = vec![0; 61];
    batch[16] = 2;
    batch.resize(61 + usize::try_from(dice.below(6_000)).expect("small"), partition as u8 + 1);
    let bytes = u32::try_from(batch.len()).expect("small");
    Entry::batch(row, &targets, prefix(base_offset, bytes, LeaderEpoch(0)), Bytes::from(batch.split_off(16)))
}

/// Where every entry of a sound journal lies: lsn, extent, first byte, one past the last.
fn places(disk: &SimDisk) -> Vec<(u64, ExtentNumber, usize, usize)> {
    let mut places = Vec::new();
    for (file, _) in disk.list().expect("in memory") {
        let FileName::Extent(number) = file else { continue };
        let header = crate::scan::extent_header(disk, number).expect("in memory").expect("sound");
        let mut scan = crate::scan::Scan::of(disk, header, None);
        loop {
            let at = scan.at as usize;
            let Some(group) = scan.next_group().expect("in memory") else { break };
            let mut inside = HEADER_BYTES + group.header.contents_bytes as usize;
            for index in 0..u64::from(group.header.entries) {
                let (_, _, next) = crate::entry::open_entry(&group.bytes, inside).expect("sound");
                places.push((group.header.first_lsn.0 + index, number, at + inside, at + next));
                inside = next;
            }
        }
    }
    places
}

/// Harms one extent; gives it and the bytes that are harmed.
fn harm(disk: &SimDisk, dice: &mut Dice) -> (ExtentNumber, usize, usize) {
    let extents: Vec<ExtentNumber> = disk
        .list()
        .expect("in memory")
        .into_iter()
        .filter_map(|(file, _)| if let FileName::Extent(number) = file { Some(number) } else { None })
        .collect();
    let number = extents[usize::try_from(dice.below(extents.len() as u64)).expect("small")];
    let at = usize::try_from(dice.below(u64::from(EXTENT))).expect("small");
    match dice.below(5) {
        0 => {
            disk.damage(FileName::Extent(number), |bytes| bytes[at] ^= 1 << dice.below(8));
            (number, at, at + 1)
        }
        1 => {
            let from = at / 4096 * 4096;
            disk.damage(FileName::Extent(number), |bytes| bytes[from..from + 4096].fill(0));
            (number, from, from + 4096)
        }
        2 => {
            disk.truncate(FileName::Extent(number), at);
            (number, at, EXTENT as usize)
        }
        3 => {
            disk.delete(FileName::Extent(number)).expect("in memory");
            (number, 0, EXTENT as usize)
        }
        _ => {
            let (from, to) = (at / 4096 * 4096, (at + usize::try_from(dice.below(20_000)).expect("small")).min(EXTENT as usize));
            disk.damage(FileName::Extent(number), |bytes| bytes[from..to].iter_mut().for_each(|byte| *byte = dice.roll() as u8));
            (number, from, to)
        }
    }
}

fn wanted(seed: u64) -> Wanted {
    let mut dice = Dice(seed);
    Wanted { cluster_id: [7; 16], extent_bytes: EXTENT, at: Lsn(0), from: Position(0), random: Box::new(move || dice.sixteen()) }
}

fn said(repaired: &Repaired) -> String {
    let extents = repaired.extents.iter().map(|(extent, what)| format!("extent {}: {what}\n", extent.0));
    let name = |id: PartitionId| format!("partition {}", id.0);
    extents.chain(repaired.given_up.iter().map(|given_up| format!("given up: {}\n", given_up.describe(&name)))).collect()
}

fn one(seed: u64) {
    let mut dice = Dice(seed);
    let (disk, before) = filled(&mut dice);
    let places = places(&disk);
    let (number, from, to) = harm(&disk, &mut dice);
    let context = format!("seed {seed}: extent {} from {from} to {to}", number.0);
    let repaired = repair(&*disk, wanted(1), &mut |_| Ok(())).unwrap_or_else(|error| panic!("{context}: {error}"));
    let done = said(&repaired);
    let again = repair(&*disk, wanted(2), &mut |_| Ok(())).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(said(&again), "", "{context}: nothing is left to do; before: {done}");
    assert!(verify(&*disk).damage.is_empty(), "{context}: {} after {done}", verify(&*disk));
    let (mut opened, after) = reopen(&disk, 77).unwrap_or_else(|error| panic!("{context}: {error}; {done}"));
    let harmed: BTreeSet<u64> =
        places.iter().filter(|(_, extent, begins, ends)| *extent == number && *begins < to && *ends > from).map(|(lsn, ..)| *lsn).collect();
    // Where damage took the last groups and all that said they were durable, what is left looks as after a crash.
    let torn = repaired.given_up.is_empty() && places.last().is_some_and(|(_, last, ..)| *last == number);
    let mut lost = 0;
    for (lsn, entry) in &before {
        match after.get(lsn) {
            Some(found) if found == entry => {}
            Some((EntryKind::GivenUp, _)) | None => {
                assert!(harmed.contains(lsn) || torn, "{context}: entry {lsn} is whole and lost; {done}");
                lost += 1;
            }
            Some(_) => panic!("{context}: entry {lsn} is another one; {done}"),
        }
    }
    let told: u64 = repaired.given_up.iter().map(|given_up| given_up.entries.unwrap_or(lost)).sum();
    assert!(told >= lost || torn, "{context}: {lost} lost; {done}");
    assert!(opened.last_lsn.0 >= *before.keys().last().expect("entries") || lost > 0, "{context}");
    let mut driver = opened.journal.take_driver().expect("driver");
    driver.core.enqueue([Entry::partition_trim(PartitionId(1), Offset(1))]);
    driver.turn(Millis(9), &mut |_| ()).expect("durable");
    drop((opened, driver));
    disk.restart_process();
    let (_, last) = reopen(&disk, 78).unwrap_or_else(|error| panic!("{context}: {error}; {done}"));
    assert_eq!(last.len(), after.len() + 1, "{context}");
}

/// `FIRTH_REPAIRS` says how many seeds, `FIRTH_REPAIR_SEED` runs one of them again.
#[test]
fn whatever_is_damaged_the_rest_is_kept() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("FIRTH_REPAIR_SEED") {
        Some(seed) => one(seed),
        None => (0..number("FIRTH_REPAIRS").unwrap_or(400)).for_each(one),
    }
}

/// So that records that come later do not take the offsets of those that are lost, in any of the partitions that had them.
#[test]
fn what_is_lost_keeps_its_offsets() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    let mut driver = opened.journal.take_driver().expect("driver");
    for base in 0..3 {
        let row = Row { partition: PartitionId(0), base_offset: Offset(base), records: 1, max_timestamp: 0 };
        let target = Target { partition: PartitionId(1), base_offset: Offset(base + 40), selection: Selection::All };
        let mut tail = vec![0; 100];
        tail[0] = 2;
        driver.core.enqueue([Entry::batch(row, &[target], prefix(Offset(base), 116, LeaderEpoch(0)), Bytes::from(tail))]);
    }
    driver.turn(Millis(6), &mut |_| ()).expect("durable");
    driver.mark(Millis(7)).expect("marked");
    drop((opened, driver));
    disk.restart_process();
    let last = places(&disk).into_iter().next_back().expect("entries");
    disk.damage(FileName::Extent(last.1), |bytes| bytes[last.2 + 60] ^= 1);
    assert!(matches!(reopen(&disk, 2), Err(OpenError::Damaged(_))));
    disk.restart_process();
    let done = said(&repair(&*disk, wanted(1), &mut |_| Ok(())).expect("repairs"));
    assert!(done.contains("1 entry is lost; partition 0 offsets 2 to 2; partition 1 offsets 42 to 42"), "{done}");
    let (_, read) = reopen(&disk, 3).expect("opens");
    let (kind, body) = &read[&last.0];
    assert_eq!(*kind, EntryKind::GivenUp);
    assert_eq!(read_given_up(body).collect::<Vec<_>>(), [(PartitionId(0), Offset(3)), (PartitionId(1), Offset(43))]);
}
