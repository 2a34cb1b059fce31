//! Seeds, crash points, and tests of the tests.

use firth_sim::run::{crash_at_step, lives, lives_on};
use firth_sim::machine::Machine;

/// How many seeds: `FIRTH_SIM_SEEDS`, from `FIRTH_SIM_FROM` on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let from = number("FIRTH_SIM_FROM", 0);
    from..from + number("FIRTH_SIM_SEEDS", 150)
}

#[test]
fn seeds_hold_the_invariants() {
    let range = seeds();
    println!("seeds {range:?}; run one again with FIRTH_SIM_FROM=<seed> FIRTH_SIM_SEEDS=1 cargo test -p firth-sim seeds_hold");
    let mut acknowledged = 0;
    for seed in range.clone() {
        acknowledged += lives(seed, 6, 400).acknowledged;
    }
    assert!(acknowledged as u64 > range.end - range.start, "the runs did something");
}

/// Seeds that once found something are run for ever.
#[test]
fn seeds_that_found_something_hold() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        lives(line.trim().parse().expect("a seed a line"), 6, 400);
    }
}

#[test]
fn a_crash_at_every_step_of_a_short_run() {
    for seed in 0..8 {
        let mut step = 1;
        while crash_at_step(seed, step) {
            step += 1;
        }
        assert!(step > 20, "the run is long enough to mean something: {step} steps");
    }
}

#[test]
fn a_seed_reproduces_its_run_exactly() {
    for seed in 0..20 {
        assert_eq!(lives(seed, 4, 300), lives(seed, 4, 300), "seed={seed}");
    }
}

/// An ablation: without syncs that keep anything, the runs must find the loss.
#[test]
fn a_disk_that_lies_is_caught() {
    let caught = (0..10).filter(|seed| {
        let run = || {
            let machine = Machine::of_seed(*seed);
            machine.disk.lie();
            lives_on(machine, *seed, 4, 300)
        };
        std::panic::catch_unwind(run).is_err()
    });
    assert!(caught.count() >= 5);
}
