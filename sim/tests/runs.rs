//! Seeds, crash points, damage at rest.

use firth_sim::ablation::Ablations;
use firth_sim::damage::{Came, Kind, Rested};
use firth_sim::run::{crash_at_step, lives};
use firth_sim::thinned::Removals;

/// How many seeds: `FIRTH_SIM_SEEDS`, from `FIRTH_SIM_FROM` on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let from = number("FIRTH_SIM_FROM", 0);
    from..from + number("FIRTH_SIM_SEEDS", 1000)
}

#[test]
fn seeds_hold_the_invariants() {
    let range = seeds();
    println!("seeds {range:?}; run one again with FIRTH_SIM_FROM=<seed> FIRTH_SIM_SEEDS=1 cargo test -p firth-sim seeds_hold");
    let (mut acknowledged, mut full, mut removals) = (0, 0, Removals::default());
    for seed in range.clone() {
        let outcome = lives(seed, 6, 400);
        acknowledged += outcome.acknowledged;
        full += usize::from(outcome.full > 0);
        removals.add(outcome.removals);
    }
    let count = usize::try_from(range.end - range.start).expect("few");
    println!("{acknowledged} batches acknowledged; {full} runs met a full disk");
    println!("records that went one by one: {removals:?}");
    assert!(acknowledged > count, "the runs did something");
    assert!(removals.replaced > count && removals.expired > count && removals.deleted > count / 100, "too few records went: {removals:?}");
    assert!(full >= count / 100, "too few runs met a full disk: {full}");
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

/// The test of the tests' own foundation: the same seed leaves the same bytes on disk and stores.
#[test]
fn a_seed_reproduces_its_run_exactly() {
    for seed in 0..20 {
        assert_eq!(lives(seed, 6, 300), lives(seed, 6, 300), "seed={seed}");
    }
}

#[test]
fn a_thousand_damages_are_refused_or_read_around() {
    let (mut refused, mut lacking, mut whole, mut cut) = (0, 0, 0, 0);
    for base in 0..40 {
        let mut rested = Rested::of_seed(base, Ablations::default());
        for seed in 0..25 {
            let (_, kind, came) = rested.damaged(base * 1000 + seed);
            cut += usize::from(matches!(kind, Kind::Cut(_)));
            match came {
                Came::Refused => refused += 1,
                Came::Served { lacking: 0 } => whole += 1,
                Came::Served { .. } => lacking += 1,
            }
        }
    }
    println!("of 1000 damages {refused} refused the start, {lacking} took records, {whole} none; {cut} were truncations");
    assert!(refused > 25 && lacking > 50 && whole > 50, "the damages are of every kind: {refused} {lacking} {whole}");
}
