//! Seeds of nodes whose clients have queue cursors.

use firth_sim::session_run::session_lives;

/// How many seeds: `FIRTH_SIM_SEEDS`, from `FIRTH_SIM_FROM` on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let from = number("FIRTH_SIM_FROM", 0);
    from..from + number("FIRTH_SIM_SEEDS", 300)
}

#[test]
fn nothing_guaranteed_is_lost_and_nothing_settled_comes_again() {
    let range = seeds();
    println!("seeds {range:?}; run one again with FIRTH_SIM_FROM=<seed> FIRTH_SIM_SEEDS=1 cargo test -p firth-sim nothing_guaranteed");
    let (mut acknowledged, mut checked, mut delivered, mut counted, mut lost) = (0, 0, 0, 0, 0);
    for seed in range.clone() {
        let sessions = session_lives(seed, 6, 400);
        acknowledged += sessions.acknowledged();
        checked += sessions.checked;
        delivered += sessions.delivered;
        counted += sessions.counted;
        lost += sessions.lost;
    }
    let count = usize::try_from(range.end - range.start).expect("few");
    println!("{acknowledged} messages acknowledged, {delivered} delivered and settled, {checked} legs checked");
    println!("{lost} records lost to limits, {counted} counts of attempts checked");
    assert!(
        acknowledged > 20 * count && checked > 5 * count && delivered > 20 * count && counted > 0 && lost > 0,
        "the runs did something"
    );
}
