//! Stories too rare to wait for a seed, told step by step.

use bytes::Bytes;
use entgldb_replica::Input;
use entgldb_replica::id::Key;

use crate::clock::Time;
use crate::options::{Dialling, Options, Topology};
use crate::setting::collection;
use crate::world::World;

/// Two nodes, level, whose applications do only what they are told.
fn pair() -> World {
    let mut options = Options::calm(1);
    options.nodes = 2;
    options.collections = 1;
    options.uniform = true;
    options.topology = Topology::Line;
    options.dialling = Dialling::OneSide;
    options.load.transactions_max = 0;
    options.restart_ms = 0;
    options.latency_ms = 2;
    options.clock_grain_ms = 1;
    options.safety_ms = 60_000;
    let mut world = World::new(options, true);
    world.run_until(Time(10_000)).expect("nothing is wrong yet");
    world
}

fn write(world: &mut World, node: usize, content: &'static str) {
    let doc = (collection(0), Key::new("k").expect("a short key"));
    let wall = world.clocks(node).wall;
    let transaction = world.nodes[node].store.inner().application.next_transaction();
    world.nodes[node].store.inner().disk.write(
        transaction,
        doc,
        Some(Bytes::from_static(content.as_bytes())),
        wall,
    );
    world.input(node, Input::LocalChange).expect("nothing is wrong yet");
}

#[test]
fn a_stamp_that_a_wiped_node_gives_twice_splits_nobody() {
    let mut world = pair();
    write(&mut world, 0, "before the wipe");
    world.run_until(Time(20_000)).expect("nothing is wrong yet");
    world.network.block(&[(0, 1), (1, 0)]);
    world.wipe(0);
    world.nodes[0].clock.step(-15_000);
    // The clock shows again what it showed at the first write.
    world.run_until(Time(25_000)).expect("nothing is wrong yet");
    write(&mut world, 0, "after the wipe");
    world.network.unblock(world.now, &[(0, 1), (1, 0)]);
    world.schedule_pumps();
    let stopped = world.run().is_err();
    assert!(!stopped, "{:?}", world.violation);
}
