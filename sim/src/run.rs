//! One run from one seed: lives and crashes of a node under load.

use std::collections::BTreeMap;

use bytes::Bytes;

use firth_journal::simdisk::Dice;
use firth_journal::spares::Room;

use crate::check::check;
use crate::clients::Clients;
use crate::machine::Machine;
use crate::thinned::Removals;
use crate::walker::{LongRead, Walker};
use crate::world::World;

const HOUR_MS: i64 = 3_600_000;
const TEN_YEARS_MS: i64 = 10 * 365 * 24 * HOUR_MS;
/// Rounds in which space must come back after everything was trimmed.
const ROUNDS_UNTIL_ROOM: usize = 200;

/// Rounds at the end of a life in which nobody asks for anything: what expires does, and its segments are written anew.
const QUIET_ROUNDS: usize = 30;

/// What a run did, for comparing two of the same seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub acknowledged: usize,
    pub crashes: usize,
    pub disk_steps: u64,
    pub full: usize,
    /// Records that went one by one.
    pub removals: Removals,
    /// Of everything that happened, in order, and of every byte at the end.
    pub digest: u64,
}

/// Several lives of a node. Panics, naming the seed, when an invariant breaks.
pub fn lives(seed: u64, lives: u32, steps: u64) -> Outcome {
    lives_on(Machine::of_seed(seed), seed, lives, steps)
}

/// The same on a machine that was prepared, as one whose disk lies.
pub fn lives_on(mut machine: Machine, seed: u64, lives: u32, steps: u64) -> Outcome {
    let (mut clients, mut outcome) = (Clients::fresh(), Outcome::default());
    for life in 0..lives {
        let context = format!("seed={seed} life={life}");
        machine.history.begins(life);
        set_clock(&mut machine, &mut clients);
        let mut world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
        clients.adopt(&world, &context);
        check(&world, &mut clients, &machine, &context);
        let crash_at = machine.disk.steps() + 1 + machine.dice.below(steps);
        machine.disk.crash_at((machine.dice.below(4) > 0).then_some(crash_at));
        if machine.dice.below(6) == 0 {
            machine.disk.fail_sync(1 + machine.dice.below(20));
        }
        live(&mut world, &mut machine, &mut clients, &mut outcome, steps, &context);
        check_alive(&world, &machine, &mut clients, &context);
        let settled = world.shard.is_settled().then(|| world.shard.state().dump());
        machine.acknowledged_to = world.acknowledged_to();
        drop(world);
        crash(&mut machine, &mut outcome);
        let missing = machine.unreachable_segments();
        assert!(missing.is_empty(), "{context}: a checkpoint refers to segments that are gone: {missing:?}");
        if let Some(before) = settled.filter(|_| outcome.crashes % 2 == 0) {
            compare_states(&mut machine, &before, &context);
        }
    }
    outcome.acknowledged = clients.memory.acknowledged();
    outcome.removals = clients.memory.removals;
    outcome.disk_steps = machine.disk.steps();
    note(&mut outcome, machine.digest());
    outcome
}

/// Between two lives the clock is put right, or set wrong.
fn set_clock(machine: &mut Machine, clients: &mut Clients) {
    if machine.dice.below(12) == 0 {
        jump(machine);
    } else if machine.dice.below(4) > 0 {
        machine.set_clock_ahead(0);
    }
    // A process that begins takes the clock as it is; what an earlier one wrote by another clock then looks older or younger.
    clients.memory.ages_unsure |= machine.was_clock_set();
}

fn jump(machine: &mut Machine) {
    let ahead = [HOUR_MS, -HOUR_MS, TEN_YEARS_MS, -TEN_YEARS_MS][machine.dice.below(4) as usize];
    machine.history.note("clock", format_args!("\"ahead_ms\":{ahead}"));
    machine.set_clock_ahead(ahead);
}

/// A crash at the given step of the disk, in an otherwise fixed short run. True if the run got that far.
pub fn crash_at_step(seed: u64, step: u64) -> bool {
    let mut machine = Machine::of_seed(seed);
    let (mut clients, mut outcome) = (Clients::fresh(), Outcome::default());
    let context = format!("seed={seed} step={step}");
    machine.disk.crash_at(Some(step));
    if let Ok(mut world) = World::start(&mut machine) {
        live(&mut world, &mut machine, &mut clients, &mut outcome, 250, &context);
        check_alive(&world, &machine, &mut clients, &context);
        machine.acknowledged_to = world.acknowledged_to();
    }
    let crashed = machine.disk.is_crashed();
    machine.disk.restart(&mut machine.dice);
    machine.mend_stores();
    let world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
    clients.adopt(&world, &context);
    check(&world, &mut clients, &machine, &context);
    crashed
}

/// What is slow or broken for a while.
#[derive(Clone, Copy, Default)]
struct Weather {
    disk_slow: bool,
    store_slow: bool,
    unreachable: bool,
}

pub(crate) fn live(world: &mut World, machine: &mut Machine, clients: &mut Clients, outcome: &mut Outcome, steps: u64, context: &str) {
    clients.reconnect(world, machine);
    world.find_segments();
    let mut weather = Weather { disk_slow: machine.dice.below(6) == 0, store_slow: machine.dice.below(6) == 0, unreachable: false };
    let reader = world.reader();
    let (mut walker, mut long) = (Walker::default(), None);
    for _ in 0..steps {
        machine.history.step();
        match machine.dice.below(12) {
            0..=4 => clients.act(world, machine),
            5..=6 => world.turn(),
            7..=8 if weather.disk_slow && machine.dice.below(4) > 0 => {}
            7..=8 => world.commit(),
            9 | 10 => walker.step(&world.view, clients, machine, !weather.unreachable, context),
            _ => errand(world, machine, &mut weather),
        }
        let span_ms = machine.dice.below(200).cast_signed();
        machine.pass(span_ms);
        if world.is_dead() {
            return died(world, machine, context);
        }
        match (&long, machine.dice.below(30)) {
            (None, 0) => long = LongRead::begin(&reader, machine, world.open_extent()),
            (Some(read), 0) => {
                read.look(machine, context);
                long = None;
            }
            _ => {}
        }
        clients.hear(world, machine);
        note(outcome, machine.steady_ms().cast_unsigned() ^ clients.memory.acknowledged() as u64);
    }
    if let Some(read) = long.take() {
        read.look(machine, context);
    }
    machine.mend_stores();
    settle(world, machine, clients);
    if machine.dice.below(3) == 0 {
        (0..QUIET_ROUNDS).for_each(|_| everybody(world, machine, clients, 1_000));
    }
    if world.is_dead() {
        return died(world, machine, context);
    }
    outcome.full += clients.refused_full;
    if !world.is_dead() && world.room() == Room::Reserve {
        space_comes_back(world, machine, clients, context);
    }
}

/// The end of a life without a crash: everything asked is answered.
fn settle(world: &mut World, machine: &mut Machine, clients: &mut Clients) {
    for _ in 0..4 {
        world.turn();
        world.commit();
        world.turn();
        if world.is_dead() {
            return;
        }
        clients.hear(world, machine);
    }
}

/// Time passes, and everybody does what is due.
fn everybody(world: &mut World, machine: &mut Machine, clients: &mut Clients, span_ms: i64) {
    if world.is_dead() {
        return;
    }
    machine.pass(span_ms);
    world.turn();
    world.commit();
    world.turn();
    world.write_checkpoints();
    world.archive();
    world.recycle();
    if !world.is_dead() {
        clients.hear(world, machine);
    }
}

/// A disk that says no ends the process; one that is full must not.
fn died(world: &World, machine: &mut Machine, context: &str) {
    machine.mend_stores();
    if let Some(error) = &world.death {
        machine.history.note("died", format_args!("\"error\":\"{error}\""));
        assert!(error.kind() != std::io::ErrorKind::StorageFull, "{context}: a full disk ended the process");
    }
}

/// On a full disk: once everything is trimmed there is room again.
fn space_comes_back(world: &mut World, machine: &mut Machine, clients: &mut Clients, context: &str) {
    for (_, partition) in clients.memory.partitions() {
        clients.trim(world, machine, partition, 4);
    }
    for _ in 0..ROUNDS_UNTIL_ROOM {
        everybody(world, machine, clients, 500);
        if world.is_dead() {
            return died(world, machine, context);
        }
        if world.room() == Room::Plenty {
            return settle(world, machine, clients);
        }
    }
    panic!("{context}: the disk stays full though everything was trimmed");
}

fn errand(world: &mut World, machine: &mut Machine, weather: &mut Weather) {
    let dice = &mut machine.dice;
    match dice.below(12) {
        0 => world.shard.checkpoint(),
        1 | 2 => world.write_checkpoints(),
        3 => world.recycle(),
        4..=7 if weather.store_slow && dice.below(4) > 0 => {}
        4..=7 => world.archive(),
        8 => weather.unreachable = stores_fail(machine, weather.unreachable),
        9 if machine.dice.below(4) == 0 => jump(machine),
        9 if machine.dice.below(2) == 0 => machine.set_clock_ahead(0),
        _ => world.mark(),
    }
}

/// Begins or ends a fault of the stores. True: that of segments cannot be reached.
fn stores_fail(machine: &mut Machine, unreachable: bool) -> bool {
    let dice: &mut Dice = &mut machine.dice;
    match dice.below(6) {
        0 => machine.segments.lose_answers(1),
        1 => machine.segments.fail_after(Some(dice.below(3))),
        2 => machine.store.fail_after(Some(dice.below(3))),
        3 if !unreachable => {
            machine.segments.unreachable(true);
            return true;
        }
        _ => {
            machine.mend_stores();
            return false;
        }
    }
    unreachable
}

fn note(outcome: &mut Outcome, what: u64) {
    outcome.digest = outcome.digest.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what;
}

/// While the process lives, what it shows is checked too: nothing may be visible that a crash can take back.
fn check_alive(world: &World, machine: &Machine, clients: &mut Clients, context: &str) {
    if !world.is_dead() {
        check(world, clients, machine, &format!("{context} (alive)"));
    }
}

fn crash(machine: &mut Machine, outcome: &mut Outcome) {
    outcome.crashes += usize::from(machine.disk.is_crashed());
    machine.mend_stores();
    // Sometimes only the process dies, and the page cache lives.
    let process = machine.dice.below(3) == 0;
    machine.history.note("ended", format_args!("\"power_lost\":{}", !process));
    if process {
        machine.disk.restart_process();
    } else {
        machine.disk.restart(&mut machine.dice);
    }
}

/// I5: replay gives the state that was live.
pub(crate) fn compare_states(machine: &mut Machine, before: &BTreeMap<Bytes, Bytes>, context: &str) {
    let world = World::start(machine).unwrap_or_else(|error| panic!("{context}: {error}"));
    let after = world.shard.state().dump();
    let keys = before.keys().chain(after.keys());
    let differ: Vec<_> = keys.filter(|key| before.get(*key) != after.get(*key)).map(|key| (key, before.get(key), after.get(key))).collect();
    assert!(differ.is_empty(), "{context}: replay differs from the live state: {differ:?}");
    drop(world);
    machine.disk.restart_process();
}
