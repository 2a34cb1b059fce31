//! The journal on a disk that crashes, lies and rots.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use firth_model::ids::{ExtentNumber, Lsn, Offset, PartitionId, Position};
use firth_model::time::Millis;

use super::*;
use crate::disk::{Disk, FileName};
use crate::entry::{Entry, Row, batch_at, open_entry};
use crate::simdisk::{Dice, SimDisk};
use crate::test_rig::{options, sample_header};
use crate::verify::verify;

/// A batch entry whose payload tells its number.
fn entry(number: u64, bytes: usize) -> Entry {
    let row = Row { partition: PartitionId((number % 3) as u32), base_offset: Offset(number), records: 1, max_timestamp: 9 };
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(bytes.max(8), number as u8);
    Entry::batch(row, &[], [0; 16], Bytes::from(payload))
}

fn tied(mut entry: Entry) -> Entry {
    entry.tied = true;
    entry
}

fn number_of(body: &Bytes) -> u64 {
    u64::from_le_bytes(body[28..36].try_into().expect("eight bytes"))
}

fn reopen(disk: &Arc<SimDisk>, seed: u64) -> Result<(Opened, Vec<u64>), OpenError> {
    let mut read = Vec::new();
    let opened = open(disk.clone(), options(seed), Position(0), &mut |replayed| {
        assert_eq!(replayed.lsn, Lsn(read.len() as u64 + 1));
        read.push(number_of(&replayed.body));
    })?;
    Ok((opened, read))
}

/// Appends `count` numbered entries in groups of a few, from `first` on; gives how many were acknowledged before an error.
fn write(opened: &mut Opened, first: u64, count: u64, dice: &mut Dice) -> u64 {
    let mut driver = opened.journal.take_driver().expect("not started");
    let mut acknowledged = first;
    let mut next = first;
    while next < first + count {
        for _ in 0..=dice.below(4).min(first + count - 1 - next) {
            let bytes = if dice.below(8) == 0 { 9000 } else { 60 };
            driver.core.enqueue([entry(next, bytes)]);
            next += 1;
        }
        let outcome = driver.turn(Millis(6), &mut |completed| acknowledged = completed.durable.0);
        if outcome.and_then(|()| if dice.below(5) == 0 { driver.mark(Millis(7)) } else { Ok(()) }).is_err() {
            break;
        }
    }
    acknowledged
}

#[test]
fn what_was_appended_is_read_back_after_clean_and_unclean_ends() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let mut dice = Dice(1);
    let mut expected = 0;
    for life in 0..12 {
        let (mut opened, read) = reopen(&disk, life).expect("opens");
        assert_eq!(read, (0..expected).collect::<Vec<_>>(), "life {life}");
        expected = write(&mut opened, expected, 40, &mut dice);
        assert_eq!(expected, (life + 1) * 40);
        disk.restart(&mut dice);
    }
    assert!(verify(&*disk).is_sound(), "{}", verify(&*disk));
}

/// I1, I3, I8: every crash point of a run, with every kind of loss the dice find.
#[test]
fn a_crash_at_any_step_loses_nothing_acknowledged_and_invents_nothing() {
    for seed in 0..6u64 {
        for crash_at in 1.. {
            let disk = Arc::new(SimDisk::of_bytes(1 << 30));
            let mut dice = Dice(seed * 1000 + crash_at);
            let mut acknowledged = 0;
            if let Ok((mut opened, _)) = reopen(&disk, seed) {
                write(&mut opened, 0, 10, &mut dice);
            }
            disk.restart_process();
            let before = disk.steps();
            disk.crash_at(Some(before + crash_at));
            if let Ok((mut opened, read)) = reopen(&disk, seed + 77) {
                acknowledged = write(&mut opened, read.len() as u64, 30, &mut dice).max(10);
            }
            let crashed = disk.is_crashed();
            disk.restart(&mut dice);
            let context = format!("seed {seed}, crash at step {crash_at}");
            let (_, read) = reopen(&disk, seed + 99).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(read, (0..read.len() as u64).collect::<Vec<_>>(), "{context}");
            assert!(read.len() as u64 >= acknowledged.max(10), "{context}: {} of {acknowledged}", read.len());
            assert!(read.len() <= 40, "{context}");
            if !crashed {
                break;
            }
        }
    }
}

/// Pairs of entries, many of them at the end of a group or an extent.
#[test]
fn tied_entries_are_never_parted_by_a_crash() {
    for crash_at in 1.. {
        let disk = Arc::new(SimDisk::of_bytes(1 << 30));
        let mut dice = Dice(crash_at);
        disk.crash_at(Some(crash_at));
        if let Ok((mut opened, _)) = reopen(&disk, 1) {
            let mut driver = opened.journal.take_driver().expect("not started");
            for first in (0..60).step_by(2) {
                let of = |dice: &mut Dice| dice.below(14_000) as usize;
                driver.core.enqueue([tied(entry(first, of(&mut dice))), entry(first + 1, of(&mut dice))]);
                let replenished = driver.spares.replenish(&driver.reader, &mut Vec::new()).is_ok();
                if !replenished || dice.below(3) == 0 && driver.turn(Millis(6), &mut |_| {}).is_err() {
                    break;
                }
            }
        }
        let crashed = disk.is_crashed();
        disk.restart(&mut dice);
        let (_, read) = reopen(&disk, 2).unwrap_or_else(|error| panic!("crash at step {crash_at}: {error}"));
        assert!(read.len().is_multiple_of(2), "crash at step {crash_at}: {} entries", read.len());
        if !crashed {
            assert!(read.len() > 40, "{} entries", read.len());
            break;
        }
    }
}

/// What is tied and larger than any group is parted; nothing waits for ever.
#[test]
fn tied_entries_larger_than_a_group_are_written_all_the_same() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    let mut driver = opened.journal.take_driver().expect("not started");
    driver.core.enqueue((0..10).map(|number| tied(entry(number, 20_000))));
    driver.core.enqueue([entry(10, 60)]);
    let mut durable = Lsn(0);
    driver.turn(Millis(6), &mut |completed| durable = completed.durable).expect("a whole disk");
    assert_eq!(durable, Lsn(11));
}

/// An ablation: if syncs keep nothing, the test above must see it.
#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let caught = (0..20u64).any(|seed| {
        let disk = Arc::new(SimDisk::of_bytes(1 << 30));
        let mut dice = Dice(seed);
        disk.lie();
        let (mut opened, _) = reopen(&disk, seed).expect("opens");
        let acknowledged = write(&mut opened, 0, 20, &mut dice);
        disk.restart(&mut dice);
        reopen(&disk, seed + 1).map_or(true, |(_, read)| (read.len() as u64) < acknowledged)
    });
    assert!(caught);
}

/// I8: what a failed sync should have kept is not acknowledged, and not served after a restart of the process as if it were durable.
#[test]
fn a_failed_sync_acknowledges_nothing_and_recovery_settles_what_it_left() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let mut dice = Dice(4);
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    let mut driver = opened.journal.take_driver().expect("not started");
    driver.core.enqueue([entry(0, 60)]);
    driver.turn(Millis(1), &mut |_| ()).expect("durable");
    disk.fail_sync(1);
    driver.core.enqueue([entry(1, 60)]);
    let mut acknowledged = 0;
    assert!(driver.turn(Millis(1), &mut |completed| acknowledged = completed.durable.0).is_err());
    assert_eq!(acknowledged, 0);
    disk.restart_process();
    // The page cache still shows the group. Whatever recovery gives must survive a power cut from now on.
    let (_, read) = reopen(&disk, 2).expect("opens");
    disk.restart(&mut dice);
    let (_, again) = reopen(&disk, 3).expect("opens");
    assert_eq!(read, again);
}

/// I7: any flipped byte is found; what is read back is a prefix without a wrong byte, and a loss of what others say was durable refuses.
#[test]
fn every_damaged_byte_is_found() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let mut dice = Dice(8);
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    write(&mut opened, 0, 12, &mut dice);
    disk.restart_process();
    let (mut opened, read) = reopen(&disk, 2).expect("opens");
    write(&mut opened, 12, 12, &mut dice);
    disk.restart_process();
    assert_eq!(read.len(), 12);
    let files = disk.list().expect("listed");
    for (file, bytes) in files.iter().filter(|(file, _)| matches!(file, FileName::Extent(_))) {
        for at in (0..*bytes).step_by(37) {
            let copy = Arc::new(disk.copy());
            let mut was_padding = false;
            copy.damage(*file, |content| {
                let at = usize::try_from(at).expect("small");
                was_padding = content[at] == 0;
                content[at] ^= 0x20;
            });
            let sound = verify(&*copy).is_sound() && verify(&*copy).torn.is_empty();
            match reopen(&copy, 5) {
                Err(OpenError::Damaged(_)) => {
                    assert!(!sound, "{file:?} byte {at}: refused but verified")
                }
                Err(error) => panic!("{file:?} byte {at}: {error}"),
                Ok((opened, read)) => {
                    assert_eq!(read, (0..read.len() as u64).collect::<Vec<_>>(), "{file:?} byte {at}");
                    // Only the youngest group may be taken for torn; padding and unused space say nothing.
                    assert!(read.len() == 24 || (read.len() >= 18 && opened.torn.is_some()), "{file:?} byte {at}: {}", read.len());
                    assert!(sound || !was_padding || opened.torn.is_some() || read.len() == 24);
                }
            }
        }
    }
}

#[test]
fn a_lost_middle_group_refuses_and_names_what_it_held() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    write(&mut opened, 0, 6, &mut Dice(3));
    disk.restart_process();
    disk.damage(FileName::Extent(ExtentNumber(0)), |content| content[2 * 4096 + 300] ^= 1);
    match reopen(&disk, 2) {
        Err(OpenError::Damaged(report)) => {
            assert!(report.to_string().contains("partition"), "{report}")
        }
        other => panic!("{:?}", other.map(|(_, read)| read)),
    }
}

#[test]
fn sealed_extents_are_read_through_their_directory_and_recycled_when_nobody_reads() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    let reader = opened.reader.clone();
    write(&mut opened, 0, 120, &mut Dice(3));
    let first = opened.journal.open_extent();
    let directory = reader.directory(first).expect("sealed");
    let mut seen = BTreeMap::new();
    for partition in 0..3 {
        for located in directory.rows(PartitionId(partition)) {
            let raw = reader.read(located.position, located.bytes).expect("there");
            open_entry(&raw, 0).expect("whole");
            let batch = batch_at(&raw, located.row.base_offset).expect("a batch");
            seen.insert(located.row.base_offset.0, batch.len());
        }
    }
    assert!(!seen.is_empty() && seen.keys().copied().eq(0..seen.len() as u64));
    let hold = reader.hold(first).expect("live");
    reader.retire(&[first]);
    assert!(reader.take_unheld().is_empty(), "a reader is in it");
    assert!(reader.hold(first).is_none(), "nobody new gets in");
    drop(hold);
    assert_eq!(reader.take_unheld(), [first]);
}

#[test]
fn restarts_without_traffic_take_no_space_and_epochs_rise() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let mut last_epoch = 0;
    for life in 0..20 {
        let (opened, _) = reopen(&disk, life).expect("opens");
        assert!(opened.epoch > last_epoch);
        last_epoch = opened.epoch;
        disk.restart_process();
    }
    let extents = disk.list().expect("listed").iter().filter(|(file, _)| matches!(file, FileName::Extent(_))).count();
    assert_eq!(extents, 1);
}

/// I9: a full disk is no reason not to start.
#[test]
fn a_full_disk_starts_and_refuses_before_the_reserve_is_gone() {
    let disk = Arc::new(SimDisk::of_bytes(1 << 30));
    let (mut opened, _) = reopen(&disk, 1).expect("opens");
    let spares = opened.journal.spares.clone();
    spares.replenish(&opened.reader, &mut Vec::new()).expect("made");
    write(&mut opened, 0, 5, &mut Dice(3));
    disk.set_free_bytes(0);
    disk.restart_process();
    let (opened, read) = reopen(&disk, 2).expect("opens on a full disk");
    assert_eq!(read.len(), 5);
    opened.journal.spares.replenish(&opened.reader, &mut Vec::new()).expect("asked");
    assert_eq!(opened.journal.room(), Room::Reserve);
}

/// Decoders of what lies on disk neither panic nor believe a length.
#[test]
fn arbitrary_bytes_are_no_group_and_no_entry() {
    let mut dice = Dice(0x5eed);
    for round in 0..20_000 {
        let mut bytes = vec![0; dice.below(600) as usize];
        bytes.iter_mut().for_each(|byte| *byte = dice.roll() as u8);
        fuzz_decode(&bytes);
        let good = crate::group::build_plain(crate::group::GroupHeader::decode(&[]).unwrap_or(sample_header()), Position(4096), &bytes);
        let mut changed = good.bytes.to_vec();
        let at = dice.below(changed.len() as u64) as usize;
        changed[at] ^= 1 << dice.below(8);
        fuzz_decode(&changed);
        assert!(round < 20_000);
    }
}
