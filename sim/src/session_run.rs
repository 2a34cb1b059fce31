//! Runs of a node whose clients have queue cursors.

use firth_broker::cursors::limits::{Drops, QueueLimits};
use firth_gateway::view::LogView;

use crate::machine::Machine;
use crate::run::compare_states;
use crate::sessions::{BRIEF, Sessions};
use crate::world::World;

/// Several lives of a node whose clients have queue cursors. Panics, naming the seed, when something guaranteed is lost, something
/// settled comes again, or replay differs.
pub fn session_lives(seed: u64, lives: u32, steps: u64) -> Sessions {
    let (mut machine, mut sessions) = (Machine::of_seed(seed), Sessions::fresh());
    // On every other machine queues soon lose records, from one end or the other.
    if machine.dice.below(2) == 0 {
        let drops = if machine.dice.below(2) == 0 { Drops::Oldest } else { Drops::Newest };
        let (records, in_flight) = (3 + machine.dice.below(40), machine.dice.below(4));
        machine.queue_limits = QueueLimits { records, in_flight, drops, ..QueueLimits::default() };
    }
    for life in 0..lives {
        let context = format!("seed={seed} life={life}");
        let mut world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
        sessions.adopt();
        let crash_at = machine.disk.steps() + 1 + machine.dice.below(steps);
        machine.disk.crash_at((machine.dice.below(4) > 0).then_some(crash_at));
        sessions.attach_all(&mut world);
        sessions.turn(&mut world, &context);
        live(&mut world, &mut machine, &mut sessions, steps, &context);
        let settled = world.shard.is_settled().then(|| world.shard.state().dump());
        machine.acknowledged_to = world.acknowledged_to();
        let died = world.is_dead();
        drop(world);
        machine.mend_stores();
        if machine.dice.below(3) == 0 {
            machine.disk.restart_process()
        } else {
            machine.disk.restart(&mut machine.dice)
        }
        if let Some(before) = settled.filter(|_| !died) {
            compare_states(&mut machine, &before, &context);
        }
    }
    // The end, without a crash: everything is compared once more.
    let context = format!("seed={seed} end");
    let mut world = World::start(&mut machine).unwrap_or_else(|error| panic!("{context}: {error}"));
    sessions.adopt();
    sessions.attach_all(&mut world);
    sessions.turn(&mut world, &context);
    settle(&mut world, &mut sessions, &context);
    what_is_over_is_gone(&mut world, &mut machine, &mut sessions, &context);
    sessions
}

/// With time: the detached cursor, streams without a leg, and records that no leg needs.
fn what_is_over_is_gone(world: &mut World, machine: &mut Machine, sessions: &mut Sessions, context: &str) {
    sessions.detach(world, BRIEF);
    settle(world, sessions, context);
    for _ in 0..3 {
        machine.pass(6_000);
        settle(world, sessions, context);
    }
    sessions.drop_brief(world);
    settle(world, sessions, context);
    let state = world.shard.state();
    for info in state.catalog.all().filter(|info| info.policy.hidden) {
        let partition = info.partitions[0];
        let floor = state.cursors.filters.smallest_floor(partition);
        let floor = floor.unwrap_or_else(|| panic!("{context}: {} is left without a leg", info.name));
        let log_start = world.view.bounds(partition).expect("of a stream that is there").log_start;
        assert_eq!(log_start, floor, "{context}: {} keeps what no leg needs", info.name);
    }
}

fn live(world: &mut World, machine: &mut Machine, sessions: &mut Sessions, steps: u64, context: &str) {
    world.find_segments();
    for _ in 0..steps {
        match machine.dice.below(12) {
            0..=5 => sessions.act(world, machine),
            6..=7 => sessions.turn(world, context),
            8..=9 => world.commit(),
            _ => match machine.dice.below(8) {
                0 => world.shard.checkpoint(),
                1 | 2 => world.write_checkpoints(),
                3 => world.recycle(),
                4..=6 => world.archive(),
                _ => world.mark(),
            },
        }
        let span_ms = machine.dice.below(400).cast_signed();
        machine.pass(span_ms);
        if let Some(error) = &world.death {
            assert!(error.kind() != std::io::ErrorKind::StorageFull, "{context}: a full disk ended the process");
            return;
        }
    }
    settle(world, sessions, context);
}

/// Everything asked is answered.
fn settle(world: &mut World, sessions: &mut Sessions, context: &str) {
    for _ in 0..4 {
        sessions.turn(world, context);
        world.commit();
        if world.is_dead() {
            return;
        }
        sessions.turn(world, context);
    }
}
