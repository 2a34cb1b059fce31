//! Runs many seeds: `--seeds N [--minutes M] [--from S]`.

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use firth_sim::run::lives;

const LIVES: u32 = 6;
const STEPS: u64 = 400;
/// Seeds between two lines of progress.
const SAID_EVERY: u64 = 1_000;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

struct Wanted {
    seeds: u64,
    minutes: Option<u64>,
    from: u64,
}

fn wanted(arguments: &[String]) -> Option<Wanted> {
    let mut wanted = Wanted { seeds: 1_000, minutes: None, from: 0 };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        let number = value.parse().ok()?;
        match name.as_str() {
            "--seeds" => wanted.seeds = number,
            "--minutes" => wanted.minutes = Some(number),
            "--from" => wanted.from = number,
            _ => return None,
        }
    }
    Some(wanted)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(wanted) = wanted(&arguments) else {
        eprintln!("usage: --seeds N [--minutes M] [--from S]");
        return ExitCode::from(64);
    };
    let plain = std::panic::take_hook();
    // The process ends with the first seed that breaks an invariant.
    std::panic::set_hook(Box::new(move |panic| {
        plain(panic);
        let seed = SEED.get();
        eprintln!("seed {seed} failed. Run it again: FIRTH_SIM_HISTORY=history.jsonl cargo xtask sim --seeds 1 --from {seed}");
        std::process::exit(1);
    }));
    let begun = Instant::now();
    let limit = wanted.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let (next, done) = (AtomicU64::new(wanted.from), AtomicU64::new(0));
    let end = wanted.from.saturating_add(wanted.seeds);
    let work = || {
        while limit.is_none_or(|limit| begun.elapsed() < limit) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            SEED.set(seed);
            lives(seed, LIVES, STEPS);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(SAID_EVERY) {
                println!("{done} seeds done in {} s", begun.elapsed().as_secs());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    println!("{} seeds from {} on hold the invariants, in {} s", done.into_inner(), wanted.from, begun.elapsed().as_secs());
    ExitCode::SUCCESS
}
