//! The mapping of rows and documents is what `docs/protocol/mapping-vectors.json` says, for random rows too.

mod common;

use std::collections::BTreeMap;

use common::{Node, Remote};
use proptest::prelude::*;
use serde_json::Value;

const VECTORS: &str = include_str!("../../../docs/protocol/mapping-vectors.json");

#[test]
fn every_golden_vector_holds_in_both_directions() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let (key, content, name) = (text("key"), text("content"), text("name"));
        let mut a = Node::new(1, text("schema"), &["t"]);
        a.sql(text("insert"));
        a.capture();
        assert_eq!(a.problems, vec![], "{name}");
        assert_eq!(a.content("t", key).as_deref(), Some(content), "{name}");
        let mut b = Node::new(2, text("schema"), &["t"]);
        b.receive(&mut Remote::new(9), "t", key, Some(content), 5);
        assert_eq!(b.problems, vec![], "{name}");
        assert_eq!(a.query("SELECT quote(k), * FROM t"), b.query("SELECT quote(k), * FROM t"), "{name}");
        assert_eq!(b.echo_of("t"), 0, "{name}");
    }
}

/// A literal of some SQL value.
fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("NULL".to_owned()),
        any::<i64>().prop_map(|integer| if integer == i64::MIN { "0".into() } else { integer.to_string() }),
        any::<f64>()
            .prop_filter("SQL has no NaN", |real| real.is_finite())
            .prop_map(|real| format!("{real:e}")),
        "[a-c0-9.'\"\\\\ é-]{0,6}".prop_map(|text| format!("'{}'", text.replace('\'', "''"))),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| format!("x'{}'", hex(&bytes))),
        prop::collection::vec(any::<u8>(), 0..4)
            .prop_map(|bytes| format!("CAST(x'{}' AS TEXT)", hex(&bytes))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Statements on a table with two key columns and a unique one.
fn statement() -> impl Strategy<Value = String> {
    let key = || (0u8..3, "[ab]");
    prop_oneof![
        (key(), literal(), literal())
            .prop_map(|((a, b), v, u)| format!("INSERT OR REPLACE INTO t VALUES({a}, '{b}', {v}, {u}, 1)")),
        (key(), literal()).prop_map(|((a, b), v)| format!(
            "INSERT INTO t(a, b, v) VALUES({a}, '{b}', {v}) ON CONFLICT DO UPDATE SET v = excluded.v"
        )),
        (key(), key()).prop_map(|((a, b), (c, d))| format!(
            "UPDATE OR REPLACE t SET a = {c}, b = '{d}' WHERE a = {a} AND b = '{b}'"
        )),
        key().prop_map(|(a, b)| format!("DELETE FROM t WHERE a = {a} AND b = '{b}'")),
        literal().prop_map(|v| format!("UPDATE OR IGNORE t SET u = {v}")),
        Just("BEGIN; DELETE FROM t; ROLLBACK".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_sql_does_to_a_table_the_other_node_has_the_same_table(
        statements in prop::collection::vec((statement(), prop::bool::weighted(0.3)), 1..25)
    ) {
        let schema = "CREATE TABLE t(a INTEGER, b TEXT, v, u UNIQUE, n NUMERIC, PRIMARY KEY(a, b)); CREATE INDEX i ON t(v)";
        let (mut a, mut b) = (Node::new(1, schema, &["t"]), Node::new(2, schema, &["t"]));
        for (statement, synced) in &statements {
            a.sql(statement);
            if *synced {
                b.pull(&mut a, 5);
            }
        }
        b.pull(&mut a, 5);
        let sql = "SELECT quote(a), quote(b), typeof(v), quote(v), hex(v), typeof(u), quote(u), n FROM t ORDER BY a, b";
        prop_assert_eq!(a.query(sql), b.query(sql));
        prop_assert_eq!((a.echo_of("t"), b.echo_of("t")), (0, 0));
        prop_assert_eq!(&b.problems, &vec![]);
        for path in [&a.path, &b.path] {
            prop_assert_eq!(entgldb_sqlite::verify(path, &mut |_| {}).unwrap().faults, vec![]);
        }
    }

    #[test]
    fn the_order_of_the_columns_does_not_show(values in prop::collection::vec(literal(), 3)) {
        let mut contents = BTreeMap::new();
        for columns in ["b, k, a, Z", "Z, a, b, k", "k, b, Z, a"] {
            let typed = columns.replace('k', "k TEXT PRIMARY KEY");
            let mut node = Node::new(1, &format!("CREATE TABLE t({typed})"), &["t"]);
            node.sql(&format!("INSERT INTO t(k, a, b, Z) VALUES('x', {})", values.join(", ")));
            node.capture();
            contents.insert(columns, node.content("t", "x").unwrap());
        }
        prop_assert!(contents.values().all(|content| *content == contents["b, k, a, Z"]));
    }
}
