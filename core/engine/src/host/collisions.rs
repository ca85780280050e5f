//! Documents that can't both stand in the application's store: of those that collide the youngest stays, on both sides, whenever
//! a process ends, and what had to go comes back when there is room.

use std::collections::BTreeMap;

use entgldb_replica::id::DocId;
use entgldb_replica::resolve::Row;
use entgldb_replica::store::Store;

use super::crash::common::{Cut, Manners, doc};
use super::crash::{Dice, World, seeds};

fn manners() -> Manners {
    Manners { transactions: true, outbox: true, unique: true, ..Manners::default() }
}

fn with_email(email: &str, n: u64) -> String {
    format!(r#"{{"email":"{email}","n":{n}}}"#)
}

/// What both stores must show: all that was not deleted, from the youngest down, without what collides.
fn expected(world: &mut World, docs: &[DocId]) -> BTreeMap<DocId, String> {
    let side = &mut world.sides[0];
    let store = side.replica.as_mut().unwrap().store();
    let rows = store.rows(docs).unwrap();
    let mut rows: Vec<(Row, &DocId)> =
        rows.into_iter().zip(docs).filter_map(|(row, doc)| Some((row?, doc))).collect();
    rows.retain(|(row, _)| row.content.is_some());
    rows.sort_by(|a, b| (b.0.stamp, b.1).cmp(&(a.0.stamp, a.1)));
    let mut shown: BTreeMap<DocId, String> = BTreeMap::new();
    for (row, doc) in rows {
        let version = store.version(doc, &row.stamp).unwrap().unwrap();
        let content = String::from_utf8(version.content().unwrap().to_vec()).unwrap();
        let email = |content: &str| content.split(',').next().unwrap().to_owned();
        if shown.values().all(|other| email(other) != email(&content)) {
            shown.insert(doc.clone(), content);
        }
    }
    shown
}

fn shows(world: &World, at: usize) -> BTreeMap<DocId, String> {
    let docs = world.sides[at].memory.all();
    docs.into_iter().map(|(doc, content)| (doc, String::from_utf8(content.to_vec()).unwrap())).collect()
}

#[test]
fn of_two_that_collide_the_younger_stays_on_both_sides_and_the_other_comes_back_when_it_goes() {
    let mut world = World::new(&manners());
    world.settle();
    let (left, right) = (world.sides[0].memory.clone(), world.sides[1].memory.clone());
    left.write(doc("left"), Some(&with_email("a", 1)));
    world.mono += 10;
    right.write(doc("right"), Some(&with_email("a", 2)));
    world.settle();
    for memory in [&left, &right] {
        assert_eq!(memory.all().keys().collect::<Vec<_>>(), [&doc("right")]);
    }
    let told: Vec<&str> = world.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(told.len(), 2, "one on each side: {told:?}");
    left.write(doc("right"), None);
    world.settle();
    for memory in [&left, &right] {
        assert_eq!(memory.get(&doc("left")), Some(with_email("a", 1)));
        assert_eq!(memory.all().len(), 1);
    }
}

#[test]
fn values_that_are_swapped_in_one_unit_arrive_swapped() {
    let mut world = World::new(&manners());
    let (left, right) = (world.sides[0].memory.clone(), world.sides[1].memory.clone());
    left.write(doc("one"), Some(&with_email("a", 1)));
    left.write(doc("two"), Some(&with_email("b", 1)));
    world.settle();
    left.write(doc("one"), Some(&with_email("b", 2)));
    left.write(doc("two"), Some(&with_email("a", 2)));
    world.settle();
    assert_eq!(right.all(), left.all());
    assert_eq!(right.all().len(), 2);
}

#[test]
fn a_store_that_cannot_undo_just_refuses() {
    let mut world = World::new(&Manners { transactions: false, ..manners() });
    world.settle();
    let (left, right) = (world.sides[0].memory.clone(), world.sides[1].memory.clone());
    left.write(doc("left"), Some(&with_email("a", 1)));
    right.write(doc("right"), Some(&with_email("a", 2)));
    world.settle();
    assert_eq!(left.all().keys().collect::<Vec<_>>(), [&doc("left")]);
    assert_eq!(right.all().keys().collect::<Vec<_>>(), [&doc("right")]);
    assert_eq!(world.problems.len(), 2, "each is in a quarantine list");
}

fn run(seed: u64, cut: Option<(usize, Cut)>) -> usize {
    let what = format!("seed {seed}, cut {cut:?}");
    let mut world = World::new(&manners());
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let docs: Vec<DocId> = (0..6).map(|number| doc(&format!("d{number}"))).collect();
    let victim = (seed % 2) as usize;
    world.cut_off(victim, cut);
    for n in 0..30 {
        let (at, doc) = (dice.roll(2) as usize, &docs[dice.roll(6) as usize]);
        let memory = world.sides[at].memory.clone();
        let content = (dice.roll(5) > 0).then(|| with_email(["a", "b", "c"][dice.roll(3) as usize], n));
        if content.as_ref().is_none_or(|content| memory.takes(doc, content)) {
            memory.write(doc.clone(), content.as_deref());
        }
        world.mono += 50;
        match dice.roll(4) {
            0 => world.deliver(1 + dice.roll(4) as usize),
            1 => world.step(),
            2 if dice.roll(6) == 0 => world.crash(at),
            _ => {}
        }
    }
    let calls = world.sides[victim].memory.state().calls.len();
    world.sides[victim].memory.state().cut = None;
    world.settle();
    let expected = expected(&mut world, &docs);
    assert_eq!(shows(&world, 0), expected, "{what}: the left store");
    assert_eq!(shows(&world, 1), expected, "{what}: the right store");
    calls
}

#[test]
fn whatever_collides_both_sides_end_with_the_same_wherever_a_store_is_cut_off() {
    let more = seeds().end;
    for seed in 0..30 * more {
        let calls = run(seed, None);
        if seed < 2 * more {
            for number in (1..=calls).step_by(3) {
                run(seed, Some((number, [Cut::Before, Cut::Middle, Cut::After][number % 3])));
            }
        }
    }
}
