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

/// What the application may do that displaces rows: name, schema (the same on both nodes), rows to begin with, writes.
const DISPLACING: &[(&str, &str, &str, &str)] = &[
    (
        "two rows by two constraints, and the new row is written again",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, w TEXT, v TEXT); CREATE UNIQUE INDEX w ON t(w)",
        "INSERT INTO t VALUES(1, 'a', 'x', ''), (2, 'b', 'y', ''), (3, 'c', 'z', '')",
        "REPLACE INTO t(u, w, v) VALUES('a', 'y', 'new'); UPDATE t SET u = 'other', w = 'other', id = 9 WHERE v = 'new'",
    ),
    (
        "the new row is deleted again",
        "CREATE TABLE t(id TEXT PRIMARY KEY, u TEXT UNIQUE)",
        "INSERT INTO t VALUES('1', 'a'), ('2', 'b')",
        "INSERT OR REPLACE INTO t VALUES('3', 'a'); DELETE FROM t WHERE id = '3'",
    ),
    (
        "one update of several rows",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, UNIQUE(a, b))",
        "INSERT INTO t VALUES(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, NULL)",
        "UPDATE OR REPLACE t SET a = 2 WHERE id <> 2; UPDATE t SET a = 7",
    ),
    (
        "rows of one statement displace each other",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE)",
        "INSERT INTO t VALUES(1, 'a')",
        "INSERT OR REPLACE INTO t(u) SELECT 'a' FROM (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3)",
    ),
    (
        "a constraint that replaces by itself",
        "CREATE TABLE t(id TEXT PRIMARY KEY, u TEXT UNIQUE ON CONFLICT REPLACE, w TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'x' UNIQUE ON CONFLICT REPLACE)",
        "INSERT INTO t VALUES('1', 'a', 'w'), ('2', 'b', 'x'), ('3', 'c', 'y')",
        "INSERT INTO t VALUES('4', 'a', NULL); UPDATE t SET u = 'c' WHERE id = '4'; DELETE FROM t WHERE id = '4'",
    ),
    (
        "a NULL that becomes the default",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT '07', u TEXT NOT NULL DEFAULT 'it''s');
            CREATE UNIQUE INDEX n ON t(n) WHERE u <> ''; CREATE UNIQUE INDEX u ON t(upper(u))",
        "INSERT INTO t VALUES(1, 7, 'a'), (2, 8, 'IT''s')",
        "INSERT OR REPLACE INTO t VALUES(3, NULL, 'b'); DELETE FROM t WHERE id = 3; UPDATE OR REPLACE t SET n = 9, u = NULL WHERE n = 8;
            INSERT OR REPLACE INTO t VALUES(4, 10, NULL); UPDATE t SET u = 'c' WHERE id = 4",
    ),
    (
        "inside the application's triggers",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, n INTEGER); CREATE TABLE log(id INTEGER PRIMARY KEY, u TEXT);
            CREATE TRIGGER after_log AFTER INSERT ON log BEGIN INSERT OR REPLACE INTO t(u, n) VALUES(NEW.u, 3); UPDATE t SET u = 'moved' WHERE u = NEW.u; END;
            CREATE TRIGGER after_t AFTER INSERT ON t WHEN NEW.n = 1 BEGIN INSERT OR REPLACE INTO t(u, n) VALUES('b', 2); DELETE FROM t WHERE u = 'b'; END;
            CREATE TRIGGER before_t BEFORE INSERT ON t WHEN NEW.n = 5 BEGIN UPDATE OR REPLACE t SET u = NEW.u WHERE u = 'e'; END",
        "INSERT INTO t VALUES(1, 'a', 0), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0), (5, 'e', 0)",
        "INSERT INTO log VALUES(1, 'a'); INSERT INTO t VALUES(60, 'x', 1); INSERT OR REPLACE INTO t VALUES(70, 'd', 5); DELETE FROM t WHERE id = 70",
    ),
    (
        "children of a displaced row go with it",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE); CREATE TABLE log(id INTEGER PRIMARY KEY, t INTEGER REFERENCES t ON DELETE CASCADE)",
        "INSERT INTO t VALUES(1, 'a'), (2, 'b'); INSERT INTO log VALUES(10, 1), (20, 2)",
        "PRAGMA foreign_keys = ON; INSERT OR REPLACE INTO t VALUES(3, 'a'); PRAGMA foreign_keys = OFF",
    ),
    (
        "keys that the table takes for equal",
        "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT); CREATE TABLE log(k TEXT COLLATE RTRIM PRIMARY KEY, v TEXT) WITHOUT ROWID",
        "INSERT INTO t VALUES('Key', '1'), ('b', '2'); INSERT INTO log VALUES('k', '1'), ('l ', '2')",
        "INSERT OR REPLACE INTO t VALUES('KEY', '3'); DELETE FROM t WHERE k = 'key'; UPDATE OR REPLACE t SET k = 'B';
            REPLACE INTO log VALUES('k  ', '3'); UPDATE log SET v = '4'; UPDATE log SET k = 'l' WHERE k = 'l'",
    ),
    (
        "keys without a type, and of two columns",
        "CREATE TABLE t(k PRIMARY KEY, v TEXT) WITHOUT ROWID; CREATE TABLE log(a TEXT COLLATE NOCASE, b, PRIMARY KEY(b, a), UNIQUE(a))",
        "INSERT INTO t VALUES(1, 'int'), ('1', 'text'); INSERT INTO log VALUES('a', 1), ('b', 1)",
        "INSERT OR REPLACE INTO t VALUES(1.0, 'real'); DELETE FROM t WHERE k = 1; REPLACE INTO log VALUES('A', 1.0); DELETE FROM log WHERE a = 'a'",
    ),
    (
        "a key that SQLite draws, in the condition of an index",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT); CREATE UNIQUE INDEX u ON t(u) WHERE id > 10",
        "INSERT INTO t VALUES(1, 'a'), (11, 'a'), (12, 'b')",
        "INSERT OR REPLACE INTO t(u) VALUES('a'); UPDATE t SET u = 'c' WHERE id = 13",
    ),
    (
        "indexes written in other ways",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, w TEXT, x TEXT, \"if\" INTEGER);
            CREATE UNIQUE INDEX i ON t(lower(u) -- a comment
            ) WHERE t.\"if\" = 1 -- another
            ; CREATE UNIQUE INDEX j ON t([w], `x` COLLATE nocase) WHERE \"if\" IN (1, 2) /* end */;
            CREATE UNIQUE INDEX k ON t((w || \"it's\") COLLATE RTRIM DESC)",
        "INSERT INTO t VALUES(1, 'a', 'b', 'c', 1), (2, 'b', 'c', 'd', 2), (3, 'c', 'd', 'e', 0)",
        "INSERT OR REPLACE INTO t VALUES(4, 'A', 'x', 'x', 1); DELETE FROM t WHERE id = 4;
            INSERT OR REPLACE INTO t VALUES(4, 'x', 'c', 'D', 1); DELETE FROM t WHERE id = 4;
            INSERT OR REPLACE INTO t VALUES(4, 'x', 'd', 'D', 0); DELETE FROM t WHERE id = 4",
    ),
    (
        "expressions that compare",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, s INTEGER, c TEXT, n TEXT COLLATE NOCASE, r REAL, e TEXT);
            CREATE UNIQUE INDEX i ON t(CASE WHEN s = '1' THEN e END); CREATE UNIQUE INDEX j ON t(c = 5, (n IN ('x')));
            CREATE UNIQUE INDEX k ON t(CASE r WHEN '1' THEN e ELSE NULL END); CREATE UNIQUE INDEX l ON t((1)) WHERE e = 'single'",
        "INSERT INTO t VALUES(1, 1, '5', 'X', 2, 'a'), (2, 2, '6', 'y', 1, 'b'), (3, x'00', '7', 'X', 1, 'c'), (4, 'text', x'05', NULL, 1, 'd'), (5, NULL, NULL, NULL, 3, 'single')",
        "INSERT OR REPLACE INTO t VALUES(10, '1', NULL, NULL, 2, 'a'); DELETE FROM t WHERE id = 10;
            INSERT OR REPLACE INTO t VALUES(10, 9, NULL, NULL, 1, 'b'); DELETE FROM t WHERE id = 10;
            INSERT OR REPLACE INTO t VALUES(10, 9, NULL, NULL, 3, 'single'); DELETE FROM t WHERE id = 10;
            INSERT OR REPLACE INTO t VALUES(10, 9, x'06', 'x', 3, 'g'); DELETE FROM t WHERE id = 10;
            INSERT OR REPLACE INTO t VALUES(11, 9, 5, 'x', 3, 'h'); INSERT OR REPLACE INTO t VALUES(12, 9, '5', 'X', 3, 'i'); DELETE FROM t WHERE id = 12",
    ),
    (
        "an index that is there since the last look",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, w TEXT); CREATE UNIQUE INDEX w ON t(w)",
        "INSERT INTO t VALUES(1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')",
        "CREATE UNIQUE INDEX u ON t(u); INSERT OR REPLACE INTO t VALUES(4, 'a', '1'); DELETE FROM t WHERE id = 4;
            DROP INDEX w; CREATE UNIQUE INDEX w ON t(lower(w)); INSERT OR REPLACE INTO t VALUES(4, 'q', 'Y'); DELETE FROM t WHERE id = 4",
    ),
    (
        "an index that was dropped and is there again, and a vacuum",
        "CREATE TABLE z(id INTEGER PRIMARY KEY); CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, w TEXT); CREATE INDEX w ON t(w); CREATE UNIQUE INDEX u ON t(u)",
        "INSERT INTO t VALUES(1, 'a', ''), (2, 'b', ''), (3, 'c', '')",
        "DROP INDEX u; DROP INDEX w; DROP TABLE z; CREATE UNIQUE INDEX U ON t(u); VACUUM; INSERT OR REPLACE INTO t VALUES(4, 'a', ''); DELETE FROM t WHERE id = 4",
    ),
];

/// How two nodes differ, or one from what it knows, after an application wrote on the first; empty if all is well.
fn differences(schema: &str, rows: &str, writes: &str, recursive: &str) -> String {
    let tables: &[&str] = if schema.contains("TABLE log") { &["t", "log"] } else { &["t"] };
    let mut nodes = [Node::new(1, schema, tables), Node::new(2, schema, tables)];
    nodes[0].sql(&format!("PRAGMA recursive_triggers = {recursive}"));
    nodes[0].sql(rows);
    converge(&mut nodes);
    nodes[0].sql(writes);
    converge(&mut nodes);
    let mut found = String::new();
    let mut compare = |what: &str, one: Vec<String>, other: Vec<String>| {
        if one != other {
            found.push_str(&format!("{what}: {one:?} and {other:?}; "));
        }
    };
    for table in tables {
        let sql = format!("SELECT * FROM {table} ORDER BY 1, 2");
        compare("the nodes' rows differ", nodes[0].query(&sql), nodes[1].query(&sql));
        compare("captured again", vec![nodes[0].echo_of(table).to_string()], vec!["0".to_owned()]);
    }
    let present: Vec<_> = tables.iter().map(|table| format!("(SELECT count(*) FROM {table})")).collect();
    let known = nodes[0].query("SELECT count(*) FROM _entgldb_rows WHERE hash IS NOT NULL");
    compare("not as many rows as known", known, nodes[0].query(&format!("SELECT {}", present.join(" + "))));
    let problems = nodes.iter().flat_map(|node| &node.problems);
    compare("problems", problems.map(|problem| format!("{problem:?}")).collect(), vec![]);
    found
}

#[test]
fn every_row_that_the_application_displaces_is_captured_whatever_its_settings() {
    let mut wrong = Vec::new();
    for (name, schema, rows, writes) in DISPLACING {
        for recursive in ["OFF", "ON"] {
            let found = differences(schema, rows, writes, recursive);
            if !found.is_empty() {
                wrong.push(format!("{name} (recursive_triggers {recursive}): {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tables for random writes: the key's definition, what follows the columns, and what the application has besides.
const RANDOM: [(&str, &str, &str); 4] = [
    ("k INTEGER PRIMARY KEY", "", ""),
    ("k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL", " WITHOUT ROWID", ""),
    ("k NOT NULL PRIMARY KEY ON CONFLICT REPLACE", "", ""),
    (
        "k INTEGER PRIMARY KEY",
        "",
        "CREATE TRIGGER app AFTER INSERT ON t WHEN NEW.n > 2 BEGIN UPDATE OR REPLACE t SET w = NEW.w, n = 1 WHERE k <> NEW.k; END",
    ),
];

/// One of the application's statements.
fn random_statement(what: u8, k: u8, u: u8, w: u8, n: u8, column: &str) -> String {
    let key = ["'a'", "'A'", "1", "1.0", "'b'", "7"][usize::from(k)];
    let n = ["NULL", "1", "2", "3"][usize::from(n)];
    let row = format!("'{}', '{w}', {n}", ["x", "X", "y", "z"][usize::from(u)]);
    match what {
        0 | 1 => format!("REPLACE INTO t VALUES({key}, {row})"),
        2 => format!("INSERT OR REPLACE INTO t({column}, w, n) VALUES({row})"),
        3 => format!("UPDATE OR REPLACE t SET ({column}, w, n) = ({row}) WHERE w = '{}'", (w + 1) % 4),
        4 => format!("UPDATE OR REPLACE t SET k = {key} WHERE w = '{w}'"),
        5 => format!(
            "INSERT INTO t VALUES({key}, {row}) ON CONFLICT(k) DO UPDATE SET {column} = excluded.{column}, n = {n}"
        ),
        6 => format!("DELETE FROM t WHERE k = {key}"),
        7 => format!("INSERT OR IGNORE INTO t VALUES({key}, {row})"),
        8 => "DROP INDEX IF EXISTS j".to_owned(),
        9 => format!("CREATE UNIQUE INDEX j ON t(lower({column})) WHERE n > 1"),
        10 => "DROP INDEX IF EXISTS i; VACUUM".to_owned(),
        11 => "CREATE UNIQUE INDEX i ON t(w, n)".to_owned(),
        _ => format!("PRAGMA recursive_triggers = {}", u % 2),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_written_the_tables_rows_are_those_that_are_known(
        table in 0usize..RANDOM.len(),
        steps in prop::collection::vec((0u8..15, 0u8..6, 0u8..4, 0u8..4, 0u8..4), 1..40)
    ) {
        let (key, tail, more) = RANDOM[table];
        let schema = format!("CREATE TABLE t({key}, u TEXT UNIQUE, w TEXT, n INTEGER NOT NULL DEFAULT 1){tail};
            CREATE UNIQUE INDEX i ON t(w, n); CREATE UNIQUE INDEX j ON t(lower(u)) WHERE n > 1; {more}");
        let mut node = Node::new(1, &schema, &["t"]);
        let (mut column, mut other) = ("u", "\"u 2\"");
        for (what, k, u, w, n) in steps {
            // Statements that a constraint refuses are part of it.
            let done = match what {
                13 => {
                    node.capture();
                    Ok(())
                }
                14 => {
                    std::mem::swap(&mut column, &mut other);
                    node.app.execute_batch(&format!("ALTER TABLE t RENAME COLUMN {other} TO {column}"))
                }
                _ => {
                    // An index that came and went between two looks has left no trace.
                    if what == 8 || what == 10 {
                        node.capture();
                    }
                    node.app.execute_batch(&random_statement(what, k, u, w, n, column))
                }
            };
            let text = done.map_or_else(|error| error.to_string(), |()| String::new());
            prop_assert!(!text.contains("_entgldb_") && !text.contains("no such"), "{}", text);
        }
        node.capture();
        let report = entgldb_sqlite::verify(&node.path, &mut |_| {}).unwrap();
        prop_assert_eq!(report.faults, vec![]);
        let known = node.query("SELECT count(*) FROM _entgldb_rows WHERE hash IS NOT NULL");
        prop_assert_eq!(known, node.query("SELECT count(*) FROM t"));
        prop_assert_eq!(node.echo_of("t"), 0);
    }
}
