//! One run from one seed: lives and crashes of a node under load.

use firth_archive::store::MemoryStore;
use firth_journal::simdisk::Dice;

use crate::check::{Seen, check};
use crate::clients::Clients;
use crate::world::{Machine, World};

/// What a run did, for comparing two of the same seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub acknowledged: usize,
    pub crashes: usize,
    pub disk_steps: u64,
    /// Of everything that happened, in order.
    pub digest: u64,
}

/// Several lives of a node. Panics, naming the seed, when an invariant breaks.
pub fn lives(seed: u64, lives: u32, steps: u64) -> Outcome {
    lives_on(Machine::of_seed(seed), seed, lives, steps)
}

/// The same on a machine that was prepared, as one whose disk lies.
pub fn lives_on(mut machine: Machine, seed: u64, lives: u32, steps: u64) -> Outcome {
    let (mut clients, mut seen, mut outcome) = (Clients::fresh(), Seen::new(), Outcome::default());
    for life in 0..lives {
        let context = format!("seed={seed} life={life}");
        let mut world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
        adopt(&mut clients, &world);
        check(&world, &clients, &mut seen, &context);
        let crash_at = machine.disk.steps() + 1 + machine.dice.below(steps);
        machine.disk.crash_at((machine.dice.below(4) > 0).then_some(crash_at));
        if machine.dice.below(6) == 0 {
            machine.disk.fail_sync(1 + machine.dice.below(20));
        }
        live(&mut world, &mut machine, &mut clients, &mut outcome, steps);
        check_alive(&world, &clients, &mut seen, &context);
        let settled = world.shard.is_settled().then(|| world.shard.state().dump());
        drop(world);
        crash(&mut machine, &mut outcome);
        if let Some(before) = settled.filter(|_| outcome.crashes % 2 == 0) {
            compare_states(&mut machine, before, &context);
        }
    }
    outcome.acknowledged = clients.producers.iter().map(|producer| producer.acknowledged.len()).sum();
    outcome.disk_steps = machine.disk.steps();
    outcome
}

/// A stream whose declaration was not answered may be there all the same.
fn adopt(clients: &mut Clients, world: &World) {
    clients.stream = world.shard.state().catalog.by_name("events").cloned().or(clients.stream.take());
}

/// A crash at the given step of the disk, in an otherwise fixed short run. True if the run got that far.
pub fn crash_at_step(seed: u64, step: u64) -> bool {
    let mut machine = Machine::of_seed(seed);
    let (mut clients, mut seen, mut outcome) = (Clients::fresh(), Seen::new(), Outcome::default());
    machine.disk.crash_at(Some(step));
    if let Ok(mut world) = World::start(&mut machine) {
        clients.reconnect(&mut world);
        live(&mut world, &mut machine, &mut clients, &mut outcome, 120);
        check_alive(&world, &clients, &mut seen, &format!("seed={seed} step={step}"));
    }
    let crashed = machine.disk.is_crashed();
    machine.disk.restart(&mut machine.dice);
    let context = format!("seed={seed} crash at step {step}");
    let world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
    adopt(&mut clients, &world);
    check(&world, &clients, &mut seen, &context);
    crashed
}

fn live(world: &mut World, machine: &mut Machine, clients: &mut Clients, outcome: &mut Outcome, steps: u64) {
    clients.reconnect(world);
    world.find_segments();
    for _ in 0..steps {
        let dice = &mut machine.dice;
        match dice.below(10) {
            0..=4 => clients.act(world, dice),
            5..=6 => world.turn(machine.now),
            7..=8 => world.commit(machine.now),
            _ => errand(world, dice, machine.now, &machine.segments),
        }
        machine.now = machine.now.plus(machine.dice.below(200) as i64);
        if world.dead {
            return;
        }
        clients.hear(world);
        let acknowledged: usize = clients.producers.iter().map(|producer| producer.acknowledged.len()).sum();
        note(outcome, machine.now.0.cast_unsigned() ^ acknowledged as u64);
    }
    // The end of a life without a crash: everything asked is answered.
    for _ in 0..4 {
        world.turn(machine.now);
        world.commit(machine.now);
        world.turn(machine.now);
        if world.dead {
            return;
        }
        clients.hear(world);
    }
}

fn errand(world: &mut World, dice: &mut Dice, now: firth_model::time::Millis, segments: &MemoryStore) {
    match dice.below(10) {
        0 => world.shard.checkpoint(),
        1 | 2 => world.write_checkpoints(),
        3 => world.recycle(),
        4..=7 => world.archive(),
        8 => match dice.below(4) {
            0 => segments.lose_answers(1),
            1 => segments.fail_after(Some(dice.below(3))),
            _ => segments.fail_after(None),
        },
        _ => world.mark(now),
    }
}

fn note(outcome: &mut Outcome, what: u64) {
    outcome.digest = outcome.digest.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what;
}

/// While the process lives, what it shows is checked too: nothing may be visible that a crash can take back.
fn check_alive(world: &World, clients: &Clients, seen: &mut Seen, context: &str) {
    if !world.dead {
        check(world, clients, seen, &format!("{context} (alive)"));
    }
}

fn crash(machine: &mut Machine, outcome: &mut Outcome) {
    outcome.crashes += usize::from(machine.disk.is_crashed());
    // Sometimes only the process dies, and the page cache lives.
    if machine.dice.below(3) == 0 {
        machine.disk.restart_process();
    } else {
        machine.disk.restart(&mut machine.dice);
    }
}

/// I5: replay gives the state that was live.
fn compare_states(machine: &mut Machine, before: std::collections::BTreeMap<bytes::Bytes, bytes::Bytes>, context: &str) {
    let world = World::start(machine).unwrap_or_else(|error| panic!("{context}: {error}"));
    let after = world.shard.state().dump();
    assert!(after == before, "{context}: replay differs from the live state");
    drop(world);
    machine.disk.restart_process();
}
