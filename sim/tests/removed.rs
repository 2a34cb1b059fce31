//! Bytes of records that were removed are given back.

use std::collections::BTreeMap;

use firth_archive::store::Store;
use firth_gateway::answer::{Answer, Event, Tag};
use firth_gateway::request::{Declare, Publish, Request, Wait};
use firth_gateway::stored;
use firth_gateway::streams::Policy;
use firth_gateway::view::LogView;
use firth_model::ids::{Offset, PartitionId};
use firth_model::names::StreamName;
use firth_model::subject::Subject;
use firth_model::time::Millis;
use firth_sim::machine::Machine;
use firth_sim::messages::plain;
use firth_sim::world::World;

const BATCHES: u64 = 40;
const RECORDS: u64 = 10;

fn ask(world: &mut World, request: Request) -> Answer {
    world.submit(Tag(0), request);
    world.turn();
    world.commit();
    world.turn();
    match world.events().pop() {
        Some(Event::Reply { result: Ok(answer), .. }) => answer,
        other => panic!("answered {other:?}"),
    }
}

/// Time passes, and everybody does what is due.
fn pass(world: &mut World, machine: &Machine, seconds: usize) {
    for _ in 0..seconds {
        machine.pass(1_000);
        world.turn();
        world.commit();
        world.turn();
        for _ in 0..4 {
            world.archive();
            world.turn();
            world.commit();
        }
        world.write_checkpoints();
        world.recycle();
    }
}

fn segment_bytes(machine: &Machine) -> u64 {
    let names = machine.segments.list("").expect("in memory");
    names.iter().filter_map(|name| machine.segments.size(name).expect("in memory")).sum()
}

fn publish(world: &mut World, partition: PartitionId, expires: Millis) {
    for _ in 0..BATCHES {
        let message = plain(Subject::parse("a").expect("a subject"), vec![7; 1_000]);
        let batch = stored::batch(std::iter::repeat_n(&message, usize::try_from(RECORDS).expect("few")));
        let expires = (1..u32::try_from(RECORDS).expect("few")).map(|at| (at, expires)).collect();
        ask(world, Request::Publish(vec![Publish { partition, batch, wait: Wait::Durable, expires, captured: Vec::new() }]));
    }
}

fn readable(world: &World, partition: PartitionId) -> Vec<u64> {
    let end = world.view.bounds(partition).expect("there").durable_end;
    let (mut next, mut found) = (Offset(0), Vec::new());
    while next < end {
        let records = world.view.read_here(partition, next, 20_000).expect("between the bounds");
        for batch in &records.batches {
            for message in stored::messages(batch, next, &Subject::parse("a").expect("a subject")).expect("whole") {
                found.push(message.offset.0);
            }
        }
        let last = found.last().copied().unwrap_or(0);
        next = Offset((last / RECORDS + 1) * RECORDS);
    }
    found
}

#[test]
fn segments_of_which_most_expired_are_written_anew() {
    let mut machine = Machine::of_seed(1);
    let mut world = World::start(&mut machine).expect("starts");
    let declare =
        Declare { name: StreamName::parse("a").expect("a name"), partitions: 1, policy: Policy::default(), settings: BTreeMap::new() };
    let Answer::Stream(info) = ask(&mut world, Request::Declare(Box::new(declare))) else { panic!("not made") };
    let partition = info.partitions[0];
    let due = machine.hands.wall()().plus(60_000);
    publish(&mut world, partition, due);
    pass(&mut world, &machine, 30);
    let before = segment_bytes(&machine);
    assert!(before > 300_000, "{before} bytes are in segments");
    pass(&mut world, &machine, 200);
    let after = segment_bytes(&machine);
    assert!(after < before / 4, "of {before} bytes {after} are left");
    assert_eq!(readable(&world, partition), (0..BATCHES).map(|at| at * RECORDS).collect::<Vec<_>>());
    let untouched = machine.segments.list("").expect("in memory");
    pass(&mut world, &machine, 200);
    assert_eq!(machine.segments.list("").expect("in memory"), untouched, "what was written anew is left as it is");
}
