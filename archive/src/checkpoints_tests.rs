//! Checkpoints against a plain map, with failures.

use super::*;
use crate::store::{DirectoryStore, MemoryStore};

fn change(key: u32, value: Option<u32>) -> (Bytes, Option<Bytes>) {
    (Bytes::from(key.to_be_bytes().to_vec()), value.map(|value| Bytes::from(vec![value as u8; 20_000])))
}

fn opened(store: &Arc<MemoryStore>) -> (Checkpoints, Option<Loaded>) {
    Checkpoints::open(store.clone()).expect("opens")
}

#[test]
fn base_and_deltas_give_the_newest_value_of_each_key() {
    let store = Arc::new(MemoryStore::default());
    let (mut checkpoints, none) = opened(&store);
    assert!(none.is_none());
    let mut expected = BTreeMap::new();
    for round in 1..200u32 {
        let changes: BTreeMap<_, _> = [change(round % 17, Some(round)), change((round * 7) % 23, (round % 3 != 0).then_some(round))].into();
        for (key, value) in &changes {
            match value {
                Some(value) => expected.insert(key.clone(), value.clone()),
                None => expected.remove(key),
            };
        }
        checkpoints.take(Lsn(u64::from(round)), Position(u64::from(round) * 10), &changes).expect("taken");
        let (again, loaded) = opened(&store);
        let loaded = loaded.expect("complete");
        assert_eq!((loaded.at, loaded.position), (Lsn(u64::from(round)), Position(u64::from(round) * 10)));
        assert!(loaded.entries.into_iter().eq(expected.clone()), "round {round}");
        assert_eq!(again.keep_from(), Position(if round == 1 { 0 } else { u64::from(round - 1) * 10 }));
    }
    assert!(store.list(PREFIX).expect("listed").len() < 2 * (2 * CHAIN_MAX + 4), "old parts are deleted");
    assert!(verify(&*store).is_sound());
}

#[test]
fn a_failed_put_leaves_the_one_before_and_can_be_tried_again() {
    for puts in 0..3 {
        let store = Arc::new(MemoryStore::default());
        let (mut checkpoints, _) = opened(&store);
        checkpoints.take(Lsn(1), Position(0), &[change(1, Some(1))].into()).expect("taken");
        store.fail_after(Some(puts));
        assert!(checkpoints.take(Lsn(2), Position(0), &[change(2, Some(2))].into()).is_err());
        assert_eq!(opened(&store).1.map(|loaded| loaded.at), Some(Lsn(1)));
        store.fail_after(None);
        checkpoints.take(Lsn(2), Position(0), &[change(2, Some(2))].into()).expect("tried again");
        assert_eq!(opened(&store).1.map(|loaded| loaded.entries.len()), Some(2));
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_damage_to_all_refuses() {
    let store = Arc::new(MemoryStore::default());
    let (mut checkpoints, _) = opened(&store);
    checkpoints.take(Lsn(1), Position(1), &[change(1, Some(1))].into()).expect("taken");
    checkpoints.take(Lsn(2), Position(2), &[change(2, Some(2))].into()).expect("taken");
    for name in ["ckpt/00000000000000000002/delta", "ckpt/00000000000000000002/delta2"] {
        store.damage(name, |bytes| bytes[30] ^= 1);
    }
    assert_eq!(opened(&store).1.map(|loaded| loaded.at), Some(Lsn(1)));
    assert!(!verify(&*store).is_sound());
    for name in ["ckpt/00000000000000000001/base", "ckpt/00000000000000000001/base2"] {
        store.damage(name, |bytes| bytes.truncate(40));
    }
    assert!(matches!(Checkpoints::open(store), Err(ArchiveError::Damaged(_))));
}

fn three_taken() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    let (mut checkpoints, _) = opened(&store);
    for key in 1..4u32 {
        checkpoints.take(Lsn(u64::from(key)), Position(0), &[change(key, Some(key))].into()).expect("taken");
    }
    store
}

#[test]
fn any_one_object_may_be_lost_or_damaged() {
    let names = three_taken().list(PREFIX).expect("listed");
    assert_eq!(names.len(), 2 * (1 + 2 + 2), "a base, two deltas and what says that two are complete, twice each: {names:?}");
    let kept = opened(&three_taken()).1.expect("complete").entries;
    for name in &names {
        for lost in [false, true] {
            let store = three_taken();
            if lost {
                store.delete(name).expect("memory");
            } else {
                store.damage(name, |bytes| *bytes.last_mut().expect("not empty") ^= 1);
            }
            let report = verify(&*store);
            let said = report.damage.iter().chain(&report.noted).filter(|what| what.split([' ', ':']).any(|word| word == name)).count();
            assert_eq!((said, report.damage.len() + report.noted.len()), (1, 1), "{name}: {report}");
            assert!(lost || !report.is_sound(), "{name}: {report}");
            let loaded = opened(&store).1.expect("the other copy");
            assert_eq!((loaded.at, &loaded.entries), (Lsn(3), &kept), "{name}");
            // A first copy is needed to start: it is written anew. A second one is not read while the first is whole.
            assert!(name.ends_with('2') || verify(&*store).is_sound(), "{name}");
        }
    }
}

/// As versions wrote it that kept one copy of everything.
#[test]
fn single_copies_of_old_still_open() {
    let store = Arc::new(MemoryStore::default());
    let bytes = part::write([(&change(1, None).0, Some(&Bytes::from_static(b"one")))].into_iter());
    let part = Part { number: 1, kind: Kind::Base, copied: false, bytes: bytes.len() as u64, checksum: checksum(&bytes) };
    store.put("ckpt/00000000000000000001/base", &bytes).expect("memory");
    let done = Done { number: 1, at: Lsn(5), position: Position(0), parts: vec![part] };
    store.put("ckpt/00000000000000000001/done", &done.encode()).expect("memory");
    let report = verify(&*store);
    assert!(report.is_sound() && report.noted.is_empty(), "{report}");
    let (mut checkpoints, loaded) = opened(&store);
    assert_eq!(loaded.map(|loaded| loaded.at), Some(Lsn(5)));
    checkpoints.take(Lsn(6), Position(0), &[change(2, Some(2))].into()).expect("taken");
    assert_eq!(opened(&store).1.map(|loaded| loaded.entries.len()), Some(2));
    assert!(verify(&*store).is_sound());
}

#[test]
fn a_directory_keeps_objects_and_never_overwrites() {
    let root = std::env::temp_dir().join(format!("firth-archive-{}", std::process::id()));
    let store = DirectoryStore::open(&root).expect("opens");
    store.put("ckpt/1/base", b"one").expect("put");
    assert_eq!(store.put("ckpt/1/base", b"two").map_err(|error| error.kind()), Err(io::ErrorKind::AlreadyExists));
    assert_eq!(store.get("ckpt/1/base").expect("read"), Some(Bytes::from_static(b"one")));
    assert_eq!(store.list("ckpt/").expect("listed"), ["ckpt/1/base"]);
    store.delete("ckpt/1/base").expect("deleted");
    assert_eq!(store.get("ckpt/1/base").expect("read"), None);
    std::fs::remove_dir_all(root).expect("removed");
}

/// Found by a simulation: sealed extents change partitions without a new entry, so two checkpoints may be of the same lsn.
#[test]
fn two_checkpoints_of_one_lsn_are_two() {
    let store = Arc::new(MemoryStore::default());
    let (mut checkpoints, _) = opened(&store);
    for key in 0..3 {
        checkpoints.take(Lsn(7), Position(0), &[change(key, Some(key))].into()).expect("taken");
    }
    assert_eq!(opened(&store).1.map(|loaded| loaded.entries.len()), Some(3));
}

#[test]
fn nothing_half_written_stays() {
    let root = std::env::temp_dir().join(format!("firth-archive-left-{}", std::process::id()));
    DirectoryStore::open(&root).expect("opens");
    std::fs::write(root.join("ckpt.1.base.tmp"), b"half").expect("written");
    let store = DirectoryStore::open(&root).expect("opens");
    assert_eq!(std::fs::read_dir(&root).expect("listed").count(), 0);
    store.put("ckpt/1/base", b"one").expect("put");
    assert!(store.put("ckpt/1/base", b"two").is_err());
    assert_eq!(std::fs::read_dir(&root).expect("listed").count(), 1);
    std::fs::remove_dir_all(root).expect("removed");
}
