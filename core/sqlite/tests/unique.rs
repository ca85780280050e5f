//! Rows written apart that collide on a UNIQUE constraint end the same everywhere.

mod common;

use std::collections::BTreeMap;

use common::{Node, Remote, converge};
use entgldb_replica::store::ProblemKind;
use proptest::prelude::*;

const USERS: &str = "CREATE TABLE users(id TEXT PRIMARY KEY, email TEXT UNIQUE, phone TEXT, UNIQUE(phone))";

#[test]
fn of_two_rows_with_the_same_email_the_younger_stays_on_both_nodes_and_the_other_comes_back_when_it_goes() {
    let mut nodes = [Node::new(1, USERS, &["users"]), Node::new(2, USERS, &["users"])];
    nodes[0].sql("INSERT INTO users VALUES('a', 'same', '1')");
    nodes[0].capture();
    std::thread::sleep(std::time::Duration::from_millis(3));
    nodes[1].sql("INSERT INTO users VALUES('b', 'same', '2')");
    converge(&mut nodes);
    for node in &nodes {
        assert_eq!(node.query("SELECT id FROM users"), ["b"]);
        assert_eq!(
            node.problems.iter().map(|problem| problem.kind).collect::<Vec<_>>(),
            [ProblemKind::Collided]
        );
    }
    nodes[0].sql("UPDATE users SET email = 'other' WHERE id = 'b'");
    converge(&mut nodes);
    for node in &mut nodes {
        assert_eq!(node.query("SELECT id, email FROM users ORDER BY id"), ["a|same", "b|other"]);
        assert_eq!(node.problems.last().unwrap().kind, ProblemKind::CameBack);
        assert_eq!(node.echo_of("users"), 0);
    }
}

#[test]
fn values_swapped_between_rows_in_one_unit_arrive_swapped() {
    let (mut a, mut b) = (Node::new(1, USERS, &["users"]), Node::new(2, USERS, &["users"]));
    a.sql("INSERT INTO users VALUES('a', 'one', '1'), ('b', 'two', '2'), ('c', 'three', '3')");
    b.pull(&mut a, 100);
    a.sql("BEGIN; UPDATE users SET email = NULL; UPDATE users SET email = CASE id WHEN 'a' THEN 'two' WHEN 'b' THEN 'three' ELSE 'one' END; COMMIT");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT id, email FROM users ORDER BY id"), ["a|two", "b|three", "c|one"]);
    assert_eq!((b.problems.clone(), b.echo_of("users")), (vec![], 0));
}

#[test]
fn keys_that_are_equal_only_to_the_tables_collation_collide_too() {
    let schema = "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT)";
    let mut nodes = [Node::new(1, schema, &["t"]), Node::new(2, schema, &["t"])];
    nodes[0].sql("INSERT INTO t VALUES('abc', 'older')");
    nodes[0].capture();
    std::thread::sleep(std::time::Duration::from_millis(3));
    nodes[1].sql("INSERT INTO t VALUES('ABC', 'younger')");
    converge(&mut nodes);
    for node in &nodes {
        assert_eq!(node.query("SELECT * FROM t"), ["ABC|younger"]);
    }
    nodes[0].sql("DELETE FROM t");
    converge(&mut nodes);
    for node in &mut nodes {
        assert_eq!(node.query("SELECT * FROM t"), ["abc|older"]);
        assert_eq!(node.echo_of("t"), 0);
    }
}

#[test]
fn partial_and_expression_indexes_and_generated_columns_are_settled_the_same_way() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, a TEXT, on_ INTEGER, g TEXT AS (upper(a)) VIRTUAL);
        CREATE UNIQUE INDEX part ON t(on_) WHERE on_ > 10; CREATE UNIQUE INDEX gen ON t(g, on_)";
    let mut node = Node::new(1, schema, &["t"]);
    let mut remote = Remote::new(9);
    let mut put = |key: &str, a: &str, on: u32, hlc: u64| {
        let content = format!(r#"{{"a":"{a}","k":"{key}","on_":{on}}}"#);
        node.receive(&mut remote, "t", key, Some(&content), hlc);
    };
    put("1", "x", 5, 10);
    put("2", "y", 5, 11);
    put("3", "X", 5, 12);
    put("4", "a", 20, 13);
    put("5", "b", 20, 9);
    put("6", "c", 5, 14);
    assert_eq!(node.query("SELECT k FROM t ORDER BY k"), ["2", "3", "4", "6"]);
    assert_eq!(node.query("SELECT key FROM _entgldb_set_aside ORDER BY key"), ["1", "5"]);
}

/// Documents by key: their time, and email and phone unless deleted.
type Rows = BTreeMap<u8, (u64, Option<(u8, u8)>)>;

/// What the table must hold: all live rows from the youngest to the oldest, without those that collide.
fn oracle(rows: &Rows) -> Vec<String> {
    let mut order: Vec<_> =
        rows.iter().filter_map(|(key, (time, row))| row.map(|row| (*time, *key, row))).collect();
    order.sort_by(|a, b| b.cmp(a));
    let mut kept: Vec<(u8, (u8, u8))> = Vec::new();
    for (_, key, row) in order {
        if kept.iter().all(|(_, other)| other.0 != row.0 && other.1 != row.1) {
            kept.push((key, row));
        }
    }
    kept.sort_unstable();
    kept.into_iter().map(|(key, (email, phone))| format!("k{key}|{email}|{phone}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_order_of_arrival_the_table_is_as_if_filled_from_the_youngest_down(
        writes in prop::collection::vec((0u8..6, prop::option::weighted(0.8, (0u8..4, 0u8..4)), 1usize..4), 1..24),
        order in any::<u64>(),
    ) {
        let mut node = Node::new(1, USERS, &["users"]);
        let mut remote = Remote::new(9);
        let mut latest: Rows = BTreeMap::new();
        let mut docs: Vec<(String, Option<String>, u64)> = Vec::new();
        for (number, (key, row, _)) in writes.iter().enumerate() {
            // Some share a stamp, as the documents of one unit do; a document is in a unit once.
            let mut time = 100 + (number / 2) as u64;
            if latest.get(key).is_some_and(|(last, _)| *last >= time) {
                time = 100 + writes.len() as u64 + number as u64;
            }
            latest.insert(*key, (time, *row));
            let content = row.map(|(email, phone)| format!(r#"{{"email":"{email}","id":"k{key}","phone":"{phone}"}}"#));
            docs.push((format!("k{key}"), content, time));
        }
        let mut seed = order | 1;
        for place in (1..docs.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            docs.swap(place, (seed >> 33) as usize % (place + 1));
        }
        let (mut at, mut batch) = (0, 0);
        while at < docs.len() {
            let size = writes[batch % writes.len()].2;
            let mut taken: Vec<(&str, &str, Option<&str>, u64)> = Vec::new();
            for (key, content, time) in &docs[at..(at + size).min(docs.len())] {
                taken.retain(|(_, other, _, earlier)| *other != key || earlier > time);
                if taken.iter().all(|(_, other, ..)| other != key) {
                    taken.push(("users", key, content.as_deref(), *time));
                }
            }
            node.receive_all(&mut remote, &taken);
            at += size;
            batch += 1;
        }
        prop_assert_eq!(node.query("SELECT id, email, phone FROM users ORDER BY id"), oracle(&latest));
        prop_assert_eq!(node.echo_of("users"), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nodes_that_write_colliding_rows_apart_end_with_the_same_table(
        steps in prop::collection::vec((0usize..3, 0u8..6, 0u8..5, 0u8..4, 0u8..4, prop::option::weighted(0.3, 0usize..3)), 1..30)
    ) {
        let mut nodes = [1, 2, 3].map(|seed| Node::new(seed, USERS, &["users"]));
        for (at, what, id, email, phone, pulled) in steps {
            let row = format!("'k{id}', '{email}', '{phone}'");
            nodes[at].sql(&match what {
                0 | 1 => format!("INSERT OR REPLACE INTO users VALUES({row})"),
                2 => format!("INSERT OR IGNORE INTO users VALUES({row})"),
                3 => format!("DELETE FROM users WHERE id = 'k{id}'"),
                4 => format!("UPDATE OR IGNORE users SET email = '{email}' WHERE id = 'k{id}'"),
                _ => format!("UPDATE OR REPLACE users SET id = 'k{id}', phone = NULL WHERE phone = '{phone}'"),
            });
            if let Some(from) = pulled && from != at {
                let (left, right) = nodes.split_at_mut(from.max(at));
                if at < from { left[at].pull(&mut right[0], 3) } else { right[0].pull(&mut left[from], 3) }
            }
        }
        converge(&mut nodes);
        let first = nodes[0].query("SELECT * FROM users ORDER BY id");
        let aside = nodes[0].query("SELECT key FROM _entgldb_set_aside ORDER BY key");
        for node in &mut nodes {
            prop_assert_eq!(node.query("SELECT * FROM users ORDER BY id"), first.clone());
            prop_assert_eq!(node.query("SELECT key FROM _entgldb_set_aside ORDER BY key"), aside.clone());
            prop_assert_eq!(entgldb_sqlite::verify(&node.path, &mut |_| {}).unwrap().faults, vec![]);
            prop_assert_eq!(node.echo_of("users"), 0);
        }
    }
}
