//! Cases that the other tests do not reach.
use std::sync::Arc;

use bytes::Bytes;
use firth_model::ids::{ExtentNumber, Offset, PartitionId, Position};
use firth_model::time::Millis;

use super::*;
use crate::disk::{Disk, FileName};
use crate::entry::{Entry, Row};
use crate::simdisk::{Dice, SimDisk};
use crate::test_rig::{EXTENT, options};
use crate::verify::verify;

fn entry(number: u64, bytes: usize) -> Entry {
    let row = Row { partition: PartitionId((number % 3) as u32), base_offset: Offset(number), records: 1, max_timestamp: 9 };
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(bytes.max(8), number as u8);
    Entry::batch(row, &[], [0; 16], Bytes::from(payload))
}

fn reopen(disk: &Arc<SimDisk>, seed: u64, from: Position) -> Result<(Opened, Vec<u64>), OpenError> {
    let mut read = Vec::new();
    let opened = open(disk.clone(), options(seed), from, &mut |replayed| read.push(replayed.lsn.0))?;
    Ok((opened, read))
}

/// One group for each entry; says how many were acknowledged.
fn write_each(driver: &mut crate::commit::Driver, first: u64, count: u64, bytes: usize) -> u64 {
    let mut acknowledged = 0;
    for number in first..first + count {
        driver.core.enqueue([entry(number, bytes)]);
        driver.turn(Millis(6), &mut |completed| acknowledged = completed.durable.0).expect("durable");
    }
    acknowledged
}

fn disk() -> Arc<SimDisk> {
    Arc::new(SimDisk::of_bytes(1 << 30))
}

/// Damage to a directory, which is derived, must not keep whole records away.
#[test]
fn a_damaged_directory_loses_nothing() {
    let disk = disk();
    let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    let mut driver = opened.journal.take_driver().expect("driver");
    let acknowledged = write_each(&mut driver, 0, 40, 60);
    assert_eq!(driver.header.number, ExtentNumber(2));
    disk.restart_process();
    disk.damage(FileName::Extent(ExtentNumber(0)), |content| content[EXTENT as usize - 4096 + 200] ^= 1);
    let (_, read) = reopen(&disk, 2, Position(0)).map_err(|error| panic!("{error}")).expect("opens");
    assert_eq!(read.len() as u64, acknowledged);
    assert!(!verify(&*disk).is_sound(), "a check says so");
}

/// One stretch of damage over the last groups of a finished extent and its directory.
#[test]
fn damage_over_last_group_and_directory_is_never_a_torn_tail() {
    for behind in 1..6u64 {
        for marked in [false, true] {
            let disk = disk();
            let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
            let mut driver = opened.journal.take_driver().expect("driver");
            let mut count = 0;
            while driver.header.number == ExtentNumber(0) {
                write_each(&mut driver, count, 1, 60);
                count += 1;
            }
            let acknowledged = write_each(&mut driver, count, behind - 1, 60).max(count);
            if marked {
                driver.mark(Millis(7)).expect("marked");
            }
            disk.restart_process();
            disk.damage(FileName::Extent(ExtentNumber(0)), |content| content[EXTENT as usize - 4 * 4096..].fill(0));
            match reopen(&disk, 2, Position(0)) {
                Err(OpenError::Damaged(_)) => {}
                Err(error) => panic!("{error}"),
                Ok((_, read)) => panic!("behind {behind} marked {marked}: opened with {} of {acknowledged}", read.len()),
            }
        }
    }
}

/// A checkpoint lies at the start of an extent that holds only a fence.
#[test]
fn a_fence_only_extent_at_the_checkpoint_keeps_lsns_and_the_chain() {
    let disk = disk();
    let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    let mut driver = opened.journal.take_driver().expect("driver");
    write_each(&mut driver, 0, 5, 60);
    drop((opened, driver));
    disk.restart_process();
    let (opened, _) = reopen(&disk, 2, Position(0)).expect("opens");
    assert_eq!(opened.journal.open_extent(), ExtentNumber(1));
    drop(opened);
    disk.restart_process();
    let from = Position(u64::from(EXTENT));
    let (mut opened, read) = reopen(&disk, 3, from).expect("opens");
    assert!(read.is_empty());
    assert_eq!((opened.last_lsn, opened.epoch), (Lsn(5), 3));
    let mut driver = opened.journal.take_driver().expect("driver");
    assert_eq!(write_each(&mut driver, 5, 3, 60), 8);
    drop((opened, driver));
    disk.restart_process();
    assert!(verify(&*disk).is_sound(), "{}", verify(&*disk));
    let (_, read) = reopen(&disk, 4, Position(0)).map_err(|error| panic!("{error}")).expect("opens from the older checkpoint");
    assert_eq!(read.len(), 8);
}

/// The same, with the process killed at every step of the start.
#[test]
fn a_kill_while_opening_never_restarts_lsns() {
    for step in 1..12 {
        let disk = disk();
        let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
        let mut driver = opened.journal.take_driver().expect("driver");
        write_each(&mut driver, 0, 5, 60);
        drop((opened, driver));
        disk.restart_process();
        drop(reopen(&disk, 2, Position(0)).expect("opens"));
        disk.restart_process();
        let from = Position(u64::from(EXTENT));
        disk.crash_at(Some(disk.steps() + step));
        drop(reopen(&disk, 3, from));
        disk.restart_process();
        let (opened, _) = reopen(&disk, 4, from).map_err(|error| panic!("step {step}: {error}")).expect("opens");
        assert_eq!(opened.last_lsn, Lsn(5), "step {step}");
        assert!(opened.epoch >= 3, "step {step}: epoch {}", opened.epoch);
    }
}

/// The journal that a checkpoint needs is gone.
#[test]
fn missing_extents_at_the_checkpoint_are_damage() {
    let disk = disk();
    let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    let mut driver = opened.journal.take_driver().expect("driver");
    write_each(&mut driver, 0, 60, 60);
    disk.restart_process();
    disk.delete(FileName::Extent(ExtentNumber(1))).expect("deleted");
    let outcome = reopen(&disk, 2, Position(u64::from(EXTENT)));
    assert!(matches!(outcome, Err(OpenError::Damaged(_))), "{:?}", outcome.map(|(_, read)| read));
}

/// A first start that was killed leaves an empty spare.
#[test]
fn an_empty_spare_fixes_no_size() {
    let disk = disk();
    disk.create(FileName::Spare(0), 0, 0).expect("made");
    assert_eq!(extent_bytes(&*disk, &options(1)).expect("size"), EXTENT);
    reopen(&disk, 1, Position(0)).expect("opens");
}

/// Writing on, the disk becomes full: spares are asked for, and room says so, before the writer meets the end.
#[test]
fn a_disk_that_fills_up_is_seen_before_the_writer_fails() {
    let disk = Arc::new(SimDisk::of_bytes(u64::from(EXTENT) * 40 + (64 << 20)));
    let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    let mut journal = opened.journal;
    let (failed, failure) = std::sync::mpsc::channel();
    let (done, durable) = std::sync::mpsc::channel();
    let completed = move |completed: crate::commit::Completed| done.send(completed.durable).unwrap_or(());
    journal.start(completed, move |error| failed.send(error).unwrap_or(())).expect("starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // Somebody else takes the volume once the first spares are made.
    while disk.list().expect("listed").len() < 3 && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    disk.set_free_bytes(0);
    let mut number = 0;
    while journal.room() == Room::Plenty && std::time::Instant::now() < deadline {
        let last = journal.append(&mut vec![entry(number, 6000)]);
        number += 1;
        loop {
            match durable.recv_timeout(std::time::Duration::from_millis(200)) {
                Ok(durable) if durable >= last => break,
                Ok(_) => {}
                Err(_) => match failure.try_recv() {
                    Ok(error) => panic!("the writer failed after {number} entries: {error}"),
                    Err(_) => assert!(std::time::Instant::now() < deadline),
                },
            }
        }
    }
    assert_eq!(journal.room(), Room::Reserve);
    opened.torn = None;
    journal.drain();
    disk.restart_process();
    assert!(reopen(&disk, 9, Position(0)).is_ok(), "a full disk starts");
}

/// Restarts on a full disk.
#[test]
fn restarts_on_a_full_disk_do_not_eat_the_reserve() {
    let disk = disk();
    let (opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    opened.journal.spares.replenish(&opened.reader, &mut Vec::new()).expect("made");
    drop(opened);
    disk.set_free_bytes(0);
    for life in 2..10 {
        disk.restart_process();
        disk.set_free_bytes(0);
        let (_opened, _) = reopen(&disk, life, Position(0)).map_err(|error| panic!("life {life}: {error}")).expect("opens");
    }
}

/// More than an extent can hold: ends the process at once instead of filling the disk with empty extents.
#[test]
#[should_panic(expected = "fits no extent")]
fn an_entry_that_fits_no_extent_does_not_eat_the_disk() {
    let disk = disk();
    let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    assert_eq!(opened.journal.entry_bytes_max(), EXTENT as usize / 2);
    let mut driver = opened.journal.take_driver().expect("driver");
    driver.core.enqueue([entry(0, EXTENT as usize)]);
    driver.turn(Millis(1), &mut |_| ()).expect("never");
}

/// Many lives on one disk: kills, power cuts and failed syncs at any step, also while opening; checkpoints move on. No life may lose
/// what was acknowledged, count lsns anew, or take the traces of a crash for damage.
#[test]
fn many_lives_lose_nothing_and_are_never_taken_for_damage() {
    for seed in 0..150u64 {
        let (disk, mut dice) = (disk(), Dice(seed));
        let (mut acknowledged, mut epoch, mut from, mut at) = (0, 0, Position(0), 0);
        for life in 0..14 {
            let context = format!("seed {seed}, life {life}, from {}", from.0);
            let harmless = dice.below(3) == 0;
            if !harmless {
                disk.crash_at(Some(disk.steps() + 1 + dice.below(30)));
            }
            match reopen(&disk, seed * 100 + life, from) {
                Ok((mut opened, read)) => {
                    let last = opened.last_lsn.0;
                    assert!(last >= acknowledged, "{context}: {last} of {acknowledged}");
                    assert!(read.is_empty() || read.iter().copied().eq(read[0]..=last), "{context}");
                    assert!(opened.first_lsn.0 <= at + 1 && opened.epoch > epoch, "{context}: epoch {} after {epoch}", opened.epoch);
                    (acknowledged, epoch) = (last, opened.epoch);
                    let first = opened.journal.open_extent();
                    let mut driver = opened.journal.take_driver().expect("driver");
                    for _ in 0..dice.below(25) {
                        let number = driver.durable.0;
                        driver.core.enqueue([entry(number, 60 + dice.below(5) as usize * 2000)]);
                        let mut turned = driver.turn(Millis(6), &mut |completed| acknowledged = completed.durable.0);
                        if dice.below(4) == 0 {
                            turned = turned.and_then(|()| driver.mark(Millis(7)));
                        }
                        if turned.is_err() {
                            break;
                        }
                    }
                    if dice.below(3) == 0 {
                        // A checkpoint of what is durable now; the journal is read again from the extent that was open then.
                        let extent = if dice.below(2) == 0 { first } else { driver.header.number };
                        if !disk.is_crashed() && disk.list().expect("listed").iter().any(|(file, _)| *file == FileName::Extent(extent)) {
                            (from, at) = (Position(extent.0 * u64::from(EXTENT)), acknowledged);
                        }
                    }
                }
                Err(OpenError::Io(error)) => assert!(disk.is_crashed(), "{context}: {error}"),
                Err(error) => panic!("{context}: {error}"),
            }
            if dice.below(2) == 0 {
                disk.restart(&mut dice)
            } else {
                disk.restart_process()
            }
            assert!(verify(&*disk).is_sound(), "{context}: {}", verify(&*disk));
        }
    }
}

/// The head of the last group is gone, and nothing says that it was acknowledged: that is told, though it refuses no start.
#[test]
fn a_last_group_without_its_head_is_reported() {
    let disk = disk();
    let (mut opened, _) = reopen(&disk, 1, Position(0)).expect("opens");
    let mut driver = opened.journal.take_driver().expect("driver");
    write_each(&mut driver, 0, 3, 60);
    let before = driver.core.durable();
    write_each(&mut driver, 3, 1, 12_000);
    drop((opened, driver));
    disk.restart_process();
    let at = usize::try_from(before.0).expect("small");
    disk.damage(FileName::Extent(ExtentNumber(0)), |content| content[at..at + 4096].fill(0));
    let told = verify(&*disk);
    assert!(told.is_sound() && told.torn == [before], "{told}");
    let (opened, read) = reopen(&disk, 2, Position(0)).map_err(|error| panic!("{error}")).expect("opens");
    assert_eq!(read.len(), 3);
    assert_eq!(opened.torn.expect("a report").position, before);
}
