//! Whether a store keeps what the archive relies on.
//!
//! Some servers accept the header that forbids overwriting and ignore it. The probe cannot prove atomicity across several gateways of
//! one store, only show its absence.

use std::io;
use std::thread;

use crate::store::Store;

const RACERS: u8 = 16;
const BYTES: usize = 512;

/// Makes, races, reads, lists and deletes objects under a name of its own.
///
/// Errors: those of the store, and `Unsupported` when it answered but not as it must; the message says where.
pub fn probe(store: &dyn Store) -> io::Result<()> {
    let name = format!("probe/{}", uuid::Uuid::new_v4().simple());
    let single = format!("{name}-single");
    let raced = format!("{name}-raced");
    let verdict = check_single(store, &single).and_then(|()| check_race(store, &raced));
    if verdict.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return verdict;
    }
    // Also when the store is not fit; what the check found is worth more than whether tidying worked.
    let deleted = store.delete(&single).and_then(|()| store.delete(&raced));
    verdict?;
    deleted?;
    match store.get(&single)? {
        None => Ok(()),
        Some(_) => Err(unfit("an object is still there after it was deleted")),
    }
}

fn check_single(store: &dyn Store, name: &str) -> io::Result<()> {
    store.put(name, &[1; BYTES])?;
    match store.put(name, &[2; BYTES]) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Ok(()) => return Err(unfit("it overwrote an object it was asked to create (If-None-Match is ignored)")),
        Err(error) => return Err(error),
    }
    match store.get(name)? {
        Some(held) if held[..] == [1; BYTES] => {}
        Some(_) => return Err(unfit("an object changed after it was created")),
        None => return Err(unfit("an object cannot be read right after it was created")),
    }
    if store.get_range(name, 7, 9)?[..] != [1; 9] || store.size(name)? != Some(BYTES as u64) {
        return Err(unfit("a part of an object, or its size, is not right"));
    }
    if !store.list("probe/")?.iter().any(|listed| listed == name) {
        return Err(unfit("an object is not listed right after it was created"));
    }
    Ok(())
}

fn check_race(store: &dyn Store, name: &str) -> io::Result<()> {
    let outcomes: Vec<io::Result<()>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || store.put(name, &[racer; BYTES]))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap_or_else(|_| Err(io::Error::other("a racer panicked")))).collect()
    });
    let mut winner = None;
    for (racer, outcome) in (0..RACERS).zip(outcomes) {
        match outcome {
            Ok(()) if winner.is_none() => winner = Some(racer),
            Ok(()) => return Err(unfit("two of several creators of one object were both told that they made it")),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let winner = winner.ok_or_else(|| unfit("of several creators of one object none made it"))?;
    match store.get(name)? {
        Some(held) if held[..] == [winner; BYTES] => Ok(()),
        _ => Err(unfit("after a race the object does not hold the winner's bytes")),
    }
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the store is not fit for segments: {what}"))
}
