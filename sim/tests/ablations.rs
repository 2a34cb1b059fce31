//! Tests of the tests: each rule that is switched off is noticed within few seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use firth_sim::ablation::Ablations;
use firth_sim::damage::{Came, Rested};
use firth_sim::machine::Machine;
use firth_sim::run::lives_on;

/// Seeds of which at least one notices.
const FEW: u64 = 40;

/// The first seed whose run notices.
fn noticed_by(prepare: impl Fn(&mut Machine)) -> Option<u64> {
    (0..FEW).find(|seed| {
        let mut machine = Machine::of_seed(*seed);
        prepare(&mut machine);
        catch_unwind(AssertUnwindSafe(|| lives_on(machine, *seed, 6, 400))).is_err()
    })
}

fn broken(broken: Ablations) -> Option<u64> {
    noticed_by(|machine| machine.broken = broken)
}

#[test]
fn a_missing_sync() {
    assert!(noticed_by(|machine| machine.disk.lie()).is_some());
}

#[test]
fn an_acknowledgement_before_the_sync() {
    assert!(broken(Ablations { late_sync: true, ..Ablations::default() }).is_some());
}

#[test]
fn an_extent_recycled_under_a_reader() {
    assert!(broken(Ablations { recycle_under_readers: true, ..Ablations::default() }).is_some());
}

#[test]
fn extents_given_back_before_the_replacement_is_durable() {
    assert!(broken(Ablations { give_back_early: true, ..Ablations::default() }).is_some());
}

#[test]
fn a_segment_deleted_that_an_older_checkpoint_names() {
    assert!(broken(Ablations { delete_early: true, ..Ablations::default() }).is_some());
}

/// Damage within what was acknowledged is taken for what a crash tore.
#[test]
fn a_wrong_rule_for_torn_tails() {
    let cut = Ablations { cut_damaged: true, ..Ablations::default() };
    let noticed = (0..FEW).find(|seed| {
        let mut rested = Rested::of_seed(*seed, cut);
        catch_unwind(AssertUnwindSafe(|| rested.last_group_damaged(*seed))).is_err()
    });
    assert!(noticed.is_some());
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
    let noticed = (0..FEW).find(|seed| {
        let mut rested = Rested::of_seed(*seed, none);
        catch_unwind(AssertUnwindSafe(|| rested.last_group_damaged(*seed))).is_err()
    });
    assert!(noticed.is_some());
}
