//! Tests of the tests: each rule that is switched off is noticed within few seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use firth_sim::ablation::Ablations;
use firth_sim::damage::{Came, Rested};
use firth_sim::machine::Machine;
use firth_sim::run::lives_on;

/// Seeds of which at least one notices.
const FEW: u64 = 40;

/// What a run that notices says. A run that stops for another reason than a check of its own would be a fault of the test.
fn said(run: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_default())
}

/// Runs seeds until one notices; it must be by one of these reasons.
fn noticed(reasons: &[&str], run: impl Fn(u64)) {
    let (seed, text) = (0..FEW).find_map(|seed| Some((seed, said(|| run(seed))?))).expect("a seed notices");
    assert!(reasons.iter().any(|reason| text.contains(reason)), "seed {seed} stopped for another reason: {text}");
    println!("noticed by seed {seed}: {text}");
}

fn noticed_by(reasons: &[&str], prepare: impl Fn(&mut Machine)) {
    noticed(reasons, |seed| {
        let mut machine = Machine::of_seed(seed);
        prepare(&mut machine);
        lives_on(machine, seed, 6, 400);
    });
}

fn broken(reasons: &[&str], broken: Ablations) {
    noticed_by(reasons, |machine| machine.broken = broken);
}

#[test]
fn a_missing_sync() {
    noticed_by(&["cannot be read", "came back", "is gone"], |machine| machine.disk.lie());
}

#[test]
fn an_acknowledgement_before_the_sync() {
    broken(
        &["were acknowledged", "a group that may have been acknowledged cannot be read"],
        Ablations { late_sync: true, ..Ablations::default() },
    );
}

#[test]
fn an_extent_recycled_under_a_reader() {
    broken(&["changed under its reader"], Ablations { recycle_under_readers: true, ..Ablations::default() });
}

#[test]
fn extents_given_back_before_the_replacement_is_durable() {
    broken(&["the extent before is missing", "is gone"], Ablations { give_back_early: true, ..Ablations::default() });
}

#[test]
fn a_segment_deleted_that_an_older_checkpoint_names() {
    broken(&["segments that are gone"], Ablations { delete_early: true, ..Ablations::default() });
}

const UNEXCUSED: &str = "no rule lets it go";

#[test]
fn a_compaction_that_drops_the_newest_of_a_key() {
    broken(&[UNEXCUSED], Ablations { drop_newest: true, ..Ablations::default() });
}

#[test]
fn a_compaction_that_forgets_early_what_was_deleted() {
    broken(&[UNEXCUSED], Ablations { forget_deletes: true, ..Ablations::default() });
}

#[test]
fn a_record_that_expires_before_its_time() {
    broken(&[UNEXCUSED], Ablations { expire_early: true, ..Ablations::default() });
}

/// Damage within what was acknowledged is taken for what a crash tore.
#[test]
fn a_wrong_rule_for_torn_tails() {
    let cut = Ablations { cut_damaged: true, ..Ablations::default() };
    noticed(&["ends at"], |seed| {
        Rested::of_seed(seed, cut).last_group_damaged(seed);
    });
}

/// Without a marker damage to the last group cannot be told from a torn tail: only the clients notice.
#[test]
fn no_marker_after_the_last_group() {
    let refused = (0..FEW).filter(|seed| {
        let mut rested = Rested::of_seed(*seed, Ablations::default());
        // The others are of an extent that is not read again, and their records are refused.
        rested.last_group_damaged(*seed) == Came::Refused
    });
    assert!(refused.count() as u64 > FEW * 3 / 4, "the marker tells");
    let none = Ablations { no_markers: true, ..Ablations::default() };
    noticed(&["ends at"], |seed| {
        Rested::of_seed(seed, none).last_group_damaged(seed);
    });
}
