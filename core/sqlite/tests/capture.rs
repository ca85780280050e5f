//! What the application writes is captured: all of it, once, with its exact values.

mod common;

use common::Node;
use entgldb_replica::store::{ProblemKind, Store};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT, n INTEGER)";

#[test]
fn a_row_travels_to_another_node_and_changes_and_deletes_follow() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    let mut b = Node::new(2, NOTES, &["notes"]);
    a.sql("INSERT INTO notes VALUES('x', 'hello', 1), ('y', 'there', 2)");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT * FROM notes ORDER BY id"), ["x|hello|1", "y|there|2"]);
    a.sql("UPDATE notes SET body = 'changed' WHERE id = 'x'; DELETE FROM notes WHERE id = 'y'");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT * FROM notes"), ["x|changed|1"]);
    assert_eq!((a.authored, b.authored), (4, 0), "applying is not captured again");
    assert_eq!(b.echo_of("notes"), 0);
    assert_eq!(a.content("notes", "x").unwrap(), r#"{"body":"changed","id":"x","n":1}"#);
}

#[test]
fn a_rolled_back_transaction_emits_nothing() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    a.sql("BEGIN; INSERT INTO notes VALUES('x', 'hello', 1); ROLLBACK");
    assert!(a.store.outbox_is_empty().unwrap());
    assert!(a.capture_unit().is_none());
    assert_eq!(a.problems.iter().filter(|problem| problem.kind == ProblemKind::NotCaptured).count(), 0);
}

#[test]
fn rows_that_were_there_before_the_first_start_are_all_captured() {
    let many = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT);
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5000) INSERT INTO notes SELECT 'k' || n, n FROM c";
    let mut a = Node::new(1, many, &["notes"]);
    a.capture_unit();
    a.reopen();
    assert!(a.store.is_scanning().unwrap(), "it goes on where it stopped");
    a.capture();
    assert!(!a.store.is_scanning().unwrap());
    assert_eq!(a.authored, 5000);
    let mut b = Node::new(2, NOTES, &["notes"]);
    b.sql("ALTER TABLE notes DROP COLUMN n");
    b.pull(&mut a, 1024);
    assert_eq!(b.query("SELECT count(*), sum(body) FROM notes"), ["5000|12502500"]);
    a.reopen();
    a.capture();
    assert_eq!(a.authored, 5000, "a second start captures nothing again");
}

/// One table of every kind that matters, the same on all nodes.
const KINDS: &str = r#"
    CREATE TABLE pairs(b INTEGER, a TEXT, v TEXT, PRIMARY KEY(a, b));
    CREATE TABLE ints(id INTEGER PRIMARY KEY, v TEXT, u TEXT UNIQUE);
    CREATE TABLE slim(k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
    CREATE TABLE vals(k TEXT PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, x);
    CREATE TABLE blobs(id BLOB PRIMARY KEY, v TEXT);
    CREATE TABLE gen(id INTEGER PRIMARY KEY, w INTEGER, h INTEGER, area INTEGER AS (w * h) STORED, twice AS (w + w));
    CREATE TABLE "odd ""name""; --"("the key" TEXT PRIMARY KEY, "a ""b"" c" TEXT, "select" INTEGER);
"#;
const KIND_NAMES: [&str; 7] = ["pairs", "ints", "slim", "vals", "blobs", "gen", "odd \"name\"; --"];

/// All tables of both nodes are equal, and nothing more comes of touching every row.
fn check_equal(a: &mut Node, b: &mut Node) {
    b.pull(a, 1000);
    a.pull(b, 1000);
    for table in KIND_NAMES {
        let sql = format!("SELECT * FROM \"{}\" ORDER BY 1, 2", table.replace('"', "\"\""));
        assert_eq!(a.query(&sql), b.query(&sql), "{table}");
        assert_eq!((a.echo_of(table), b.echo_of(table)), (0, 0), "{table}");
    }
    assert_eq!((&a.problems, &b.problems), (&vec![], &vec![]));
}

#[test]
fn every_kind_of_table_and_value_arrives_exactly() {
    let (mut a, mut b) = (Node::new(1, KINDS, &KIND_NAMES), Node::new(2, KINDS, &KIND_NAMES));
    a.sql(
        r#"INSERT INTO pairs VALUES(1, 'x', 'v'), (-9223372036854775808, 'it''s, "here"', NULL), (2, '', '');
        INSERT INTO ints VALUES(9223372036854775807, 'max', NULL), (-1, '', 'u'), (0, NULL, NULL);
        INSERT INTO slim VALUES('i', 1), ('r', 1.0), ('t', '1'), ('b', x'00ff'), ('n', NULL);
        INSERT INTO vals VALUES
            ('ints', 9223372036854775807, 1, 'text', x'', 12, 1), ('mins', -9223372036854775808, -0.0, '', x'00', 1.5, 1.0),
            ('reals', 1.5, 1e300, '1', NULL, '2024-01-01', '1.0'), ('inf', 9e999, -9e999, 'a' || char(0) || 'b', 'text', 'x', 9e999),
            ('odd', 'abc', 'abc', CAST(x'ff00' AS TEXT), 12, x'01', CAST(x'80' AS TEXT)), ('tiny', NULL, 5e-324, '日本', zeroblob(3), 0.1, 0.30000000000000004);
        INSERT INTO blobs VALUES(x'0001', 'blob'), ('text', 'text'), (1, 'int'), (2.5, 'real');
        INSERT INTO gen(w, h) VALUES(2, 3), (4, 5);
        INSERT INTO "odd ""name""; --" VALUES('k''1', 'v"', 1), ('k 2', NULL, NULL);"#,
    );
    check_equal(&mut a, &mut b);
    assert_eq!(a.authored, 25);
    assert_eq!(b.query("SELECT area, twice FROM gen"), ["6|4", "20|8"]);
    assert_eq!(b.content("pairs", r#"["x",1]"#).unwrap(), r#"{"a":"x","b":1,"v":"v"}"#);
    let vals = b.query(
        "SELECT typeof(i), typeof(r), typeof(t), typeof(b), typeof(n), typeof(x) FROM vals WHERE k = 'inf'",
    );
    assert_eq!(vals, ["real|real|text|text|text|real"]);
    b.sql("UPDATE pairs SET b = 7 WHERE a = 'x'; UPDATE ints SET id = 5 WHERE id = 0; DELETE FROM blobs WHERE v = 'blob'; UPDATE gen SET w = 9 WHERE w = 2");
    check_equal(&mut a, &mut b);
    assert_eq!(a.query("SELECT id FROM ints ORDER BY id"), ["-1", "5", "9223372036854775807"]);
    assert_eq!(a.query("SELECT area FROM gen ORDER BY area"), ["20", "27"]);
}

#[test]
fn replace_upsert_and_key_changes_lose_no_row_that_they_evict() {
    for recursive in ["OFF", "ON"] {
        let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, e TEXT, v TEXT);
            CREATE UNIQUE INDEX lower_e ON t(lower(e)) WHERE e <> ''; CREATE TABLE c(k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT)";
        let (mut a, mut b) = (Node::new(1, schema, &["t", "c"]), Node::new(2, schema, &["t", "c"]));
        a.sql(&format!("PRAGMA recursive_triggers = {recursive}"));
        a.sql("INSERT INTO t VALUES(1, 'a', 'E', 'one'), (2, 'b', '', 'two'), (3, 'c', '', 'three'), (4, 'd', 'F', 'four')");
        a.sql("INSERT INTO c VALUES('abc', '1'), ('x', '1')");
        b.pull(&mut a, 100);
        a.sql("INSERT OR REPLACE INTO t VALUES(2, 'a', 'x', 'evicts 1 by u, replaces 2')");
        a.sql("UPDATE OR REPLACE t SET id = 4 WHERE id = 3");
        a.sql("INSERT INTO t VALUES(9, 'a', 'g', 'nine') ON CONFLICT(u) DO UPDATE SET v = 'upserted'");
        a.sql("INSERT OR REPLACE INTO t VALUES(10, 'z', 'X', 'evicts 2 by expression')");
        a.sql("INSERT OR IGNORE INTO t VALUES(11, 'c', 'h', 'ignored')");
        a.sql("INSERT OR REPLACE INTO c VALUES('ABC', '2'); UPDATE c SET k = 'X' WHERE k = 'x'");
        b.pull(&mut a, 100);
        assert_eq!(
            a.query("SELECT id, v FROM t ORDER BY id"),
            ["4|three", "10|evicts 2 by expression"],
            "{recursive}"
        );
        for sql in ["SELECT * FROM t ORDER BY id", "SELECT * FROM c ORDER BY k"] {
            assert_eq!(a.query(sql), b.query(sql), "{recursive}");
        }
        assert_eq!(b.query("SELECT k FROM c ORDER BY k"), ["ABC", "X"]);
        assert_eq!((a.echo_of("t"), b.echo_of("t"), b.echo_of("c")), (0, 0, 0));
        assert_eq!(b.problems, vec![]);
    }
}

#[test]
fn deleting_a_hundred_thousand_rows_flows_in_units_of_bounded_size() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)";
    let mut a = Node::new(1, schema, &["t"]);
    a.capture();
    a.sql("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) INSERT INTO t SELECT n, 'v' FROM c");
    let mut units = 0;
    while let Some(drain) = a.capture_unit() {
        assert!(drain.changes.len() <= 4096);
        units += usize::from(!drain.changes.is_empty());
    }
    assert!((90..120).contains(&units), "{units}");
    a.sql("DELETE FROM t");
    a.capture();
    assert_eq!(a.authored, 200_000);
}

#[test]
fn foreign_keys_with_cascade_are_captured_where_they_act_and_do_not_act_again() {
    let schema = "CREATE TABLE p(id TEXT PRIMARY KEY); CREATE TABLE c(id TEXT PRIMARY KEY, p TEXT REFERENCES p(id) ON DELETE CASCADE ON UPDATE CASCADE)";
    let (mut a, mut b) = (Node::new(1, schema, &["c", "p"]), Node::new(2, schema, &["c", "p"]));
    a.sql("PRAGMA foreign_keys = ON");
    a.sql(
        "BEGIN; INSERT INTO p VALUES('p1'), ('p2'); INSERT INTO c VALUES('c1', 'p1'), ('c2', 'p2'); COMMIT",
    );
    b.pull(&mut a, 100);
    assert_eq!(b.problems, vec![], "parent and child come in one unit");
    b.sql("INSERT INTO c VALUES('late', 'p1')");
    b.capture();
    a.sql("DELETE FROM p WHERE id = 'p1'; UPDATE p SET id = 'p3' WHERE id = 'p2'");
    a.pull(&mut b, 100);
    b.pull(&mut a, 100);
    assert_eq!(a.query("SELECT * FROM c ORDER BY id"), ["c2|p3", "late|p1"]);
    assert_eq!(b.query("SELECT * FROM c ORDER BY id"), ["c2|p3", "late|p1"]);
    let dangling: Vec<_> =
        a.problems.iter().filter(|problem| problem.kind == ProblemKind::Dangling).collect();
    assert_eq!(dangling.len(), 1, "the child whose parent went meanwhile is reported");
    assert_eq!(dangling[0].key, "late");
}

#[test]
fn what_cannot_travel_is_reported_and_holds_nothing_up() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT)";
    let (mut a, mut b) = (Node::new(1, schema, &["t"]), Node::new(2, schema, &["t"]));
    a.sql("INSERT INTO t VALUES(NULL, 'null'), ('', 'empty'), ('big', printf('%.*c', 1048570, 'x')), (printf('%.*c', 1025, 'k'), 'long'), ('ok', 'fine')");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT k FROM t"), ["ok"]);
    let mut reported: Vec<_> = a.problems.iter().map(|problem| (problem.kind, problem.key.len())).collect();
    reported.sort_by_key(|(_, length)| *length);
    assert_eq!(reported.len(), 4, "{reported:?}");
    let stored = a.query("SELECT count(*) FROM _entgldb_problems");
    assert_eq!(stored, ["4"], "they are kept for status");
    a.sql("UPDATE t SET v = 'small' WHERE k = 'big'");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT k FROM t ORDER BY k"), ["big", "ok"]);
    assert_eq!(a.query("SELECT count(*) FROM _entgldb_problems"), ["3"], "one is no problem any more");
}

#[test]
fn a_table_made_anew_by_a_migration_is_watched_again_and_its_changes_are_found() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    let mut b = Node::new(2, NOTES, &["notes"]);
    let fill = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100) INSERT INTO notes SELECT 'k' || n, 'v', n FROM c";
    a.sql(fill);
    b.pull(&mut a, 1000);
    a.sql(
        "BEGIN; CREATE TABLE new(id TEXT PRIMARY KEY, body TEXT, n INTEGER, added TEXT DEFAULT 'd');
         INSERT INTO new(id, body, n) SELECT id, CASE id WHEN 'k5' THEN 'changed' ELSE body END, n FROM notes WHERE id <> 'k6';
         DROP TABLE notes; ALTER TABLE new RENAME TO notes; COMMIT; INSERT INTO notes(id) VALUES('later')",
    );
    b.pull(&mut a, 1000);
    assert_eq!(b.query("SELECT count(*) FROM notes"), ["100"]);
    assert_eq!(b.query("SELECT body FROM notes WHERE id = 'k5'"), ["changed"]);
    assert_eq!(
        b.query("SELECT count(*) FROM notes WHERE id = 'k6'"),
        ["0"],
        "the row that the migration left out is gone"
    );
    assert_eq!(b.query("SELECT count(*) FROM notes WHERE id = 'later'"), ["1"]);
}

#[test]
fn a_table_that_comes_back_empty_does_not_empty_the_others() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    let mut b = Node::new(2, NOTES, &["notes"]);
    a.sql("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100) INSERT INTO notes SELECT 'k' || n, 'v', n FROM c");
    b.pull(&mut a, 1000);
    a.sql(&format!("DROP TABLE notes; {NOTES}"));
    b.pull(&mut a, 1000);
    assert_eq!(b.query("SELECT count(*) FROM notes"), ["100"]);
    assert_eq!(a.query("SELECT count(*) FROM _entgldb_problems"), ["1"], "it is reported instead");
}

#[test]
fn a_backlog_keeps_its_old_times_and_a_row_written_again_belongs_to_its_last_write() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    a.capture();
    a.sql("INSERT INTO notes VALUES('old', '', 1), ('both', '', 1)");
    a.sql("UPDATE _entgldb_outbox SET at = at - 600000");
    a.sql("INSERT INTO notes VALUES('new', '', 1); UPDATE notes SET n = 2 WHERE id = 'both'");
    let first = a.capture_unit().unwrap();
    assert_eq!(first.changes.iter().map(|change| change.doc.1.as_str()).collect::<Vec<_>>(), ["old"]);
    assert!(first.more);
    let second = a.capture_unit().unwrap();
    assert_eq!(
        second.changes.iter().map(|change| change.doc.1.as_str()).collect::<Vec<_>>(),
        ["new", "both"]
    );
    assert!(second.changes[0].written.0 - first.changes[0].written.0 >= 599_000);
}

#[test]
fn vacuum_and_a_backup_copy_leave_everything_as_it_was() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    let mut b = Node::new(2, NOTES, &["notes"]);
    a.sql("INSERT INTO notes VALUES('x', 'hello', 1), ('y', 'there', 2); DELETE FROM notes WHERE id = 'x'");
    a.capture();
    a.sql("INSERT INTO notes VALUES('z', 'waits', 3); VACUUM");
    let copy = a.folder.path().join("copy.db");
    a.sql(&format!("VACUUM INTO '{}'", copy.display()));
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT id FROM notes ORDER BY id"), ["y", "z"]);
    assert_eq!(a.echo_of("notes"), 0);
    let copied = rusqlite::Connection::open(&copy).unwrap();
    assert_eq!(
        common::query(&copied, "SELECT count(*) FROM _entgldb_outbox"),
        ["1"],
        "the copy has the uncaptured note too"
    );
}

#[test]
fn a_table_dropped_while_it_is_watched_holds_nothing_up() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY); CREATE TABLE u(k TEXT PRIMARY KEY)";
    let (mut a, mut b) = (Node::new(1, schema, &["t", "u"]), Node::new(2, schema, &["t", "u"]));
    a.sql("INSERT INTO t VALUES('1'); DROP TABLE t; INSERT INTO u VALUES('2')");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT k FROM u"), ["2"]);
    b.sql("INSERT INTO t VALUES('from b')");
    a.pull(&mut b, 100);
    assert_eq!(a.problems.iter().filter(|problem| problem.kind == ProblemKind::SetAside).count(), 1);
    a.sql("CREATE TABLE t(k TEXT PRIMARY KEY)");
    a.store.tend(entgldb_replica::clock::WallMillis(0)).unwrap();
    assert_eq!(a.query("SELECT k FROM t"), ["from b"]);
}

#[test]
fn the_application_may_still_change_its_schema_as_it_likes() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, a TEXT, b TEXT, c TEXT); CREATE UNIQUE INDEX u ON t(lower(a)) WHERE a <> ''";
    let (mut a, mut b) = (Node::new(1, schema, &["t"]), Node::new(2, schema, &["t"]));
    a.sql("INSERT INTO t VALUES('x', 'a', 'b', 'c')");
    b.pull(&mut a, 100);
    a.sql("ALTER TABLE t DROP COLUMN b; ALTER TABLE t RENAME COLUMN a TO z; CREATE UNIQUE INDEX c ON t(c); ALTER TABLE t ADD COLUMN d");
    a.sql("INSERT INTO t VALUES('y', 'z', 'c2', 'd')");
    a.capture();
    a.sql("INSERT OR REPLACE INTO t VALUES('w', 'q', 'c2', 'd')");
    a.capture();
    assert_eq!(a.content("t", "y"), None, "the new index is known: y was evicted");
    a.sql("DROP INDEX u; DROP INDEX c");
    a.capture();
    a.sql("ALTER TABLE t DROP COLUMN z; ALTER TABLE t DROP COLUMN c; INSERT INTO t VALUES('last', 1)");
    a.capture();
    assert_eq!(a.content("t", "last").unwrap(), r#"{"d":1,"k":"last"}"#);
}

#[test]
fn a_table_whose_triggers_were_altered_is_looked_through() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    a.sql("INSERT INTO notes VALUES('x', 'hello', 1)");
    a.capture();
    a.sql("DROP TRIGGER _entgldb_update_1; CREATE TRIGGER _entgldb_update_1 AFTER UPDATE ON notes BEGIN SELECT 1; END");
    a.sql("UPDATE notes SET body = 'unnoticed'");
    a.reopen();
    a.capture();
    assert_eq!(a.content("notes", "x").unwrap(), r#"{"body":"unnoticed","id":"x","n":1}"#);
}

#[test]
fn a_unit_ends_before_it_has_too_many_bytes_and_a_large_document_is_taken_alone() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    a.capture();
    a.sql("BEGIN; INSERT INTO notes VALUES('a', printf('%.*c', 600, 'x'), 1), ('b', printf('%.*c', 600, 'x'), 1), ('c', 'x', 1), ('d', printf('%.*c', 5000, 'x'), 1); COMMIT");
    let limits = entgldb_replica::store::UnitLimits { bytes: 1000, ..common::limits() };
    let mut units = Vec::new();
    loop {
        let drain = a.store.captured(&limits).unwrap();
        let Some(mark) = drain.mark else { break };
        units.push(drain.changes.iter().map(|change| change.doc.1.as_str().to_owned()).collect::<String>());
        a.sql(&format!("DELETE FROM _entgldb_outbox WHERE id <= {}", mark.0));
    }
    assert_eq!(units, ["a", "bc", "d"]);
}

/// Statements after which a driver tells its program how many rows there were and which number a new one has.
const COUNTED: &[&str] = &[
    "INSERT INTO t(v, n) VALUES('a', 1), ('b', 2), ('c', 3)",
    "INSERT INTO t(id, v, n) VALUES(1000, 'z', 9)",
    "UPDATE t SET n = n + 1 WHERE n < 3",
    "UPDATE t SET n = n WHERE id = -1",
    "INSERT INTO t(v, n) VALUES('d', 4) RETURNING id, v, w",
    "INSERT INTO t(id, v, n) VALUES(1, 'a2', 5) ON CONFLICT(id) DO UPDATE SET v = excluded.v RETURNING id, v, n",
    "INSERT OR IGNORE INTO t(v) VALUES('b')",
    "INSERT OR REPLACE INTO t(v, n) VALUES('b', 77)",
    "REPLACE INTO t(id, v) VALUES(1000, 'c') RETURNING *",
    "UPDATE OR REPLACE t SET v = 'b' WHERE id = 1000 RETURNING n",
    "UPDATE t SET w = 'x' FROM k WHERE t.id = 1",
    "DELETE FROM t WHERE n > 3 RETURNING v",
    "INSERT INTO k VALUES('Key', '1')",
    "INSERT INTO k VALUES('KEY', '2') ON CONFLICT DO UPDATE SET v = excluded.v",
    "REPLACE INTO k VALUES('KEY', '3')",
    "UPDATE k SET a = 'kEY'",
    "DELETE FROM k",
    "INSERT INTO s VALUES('1', x'00')",
    "UPDATE s SET v = 1.5",
    "SELECT ref, ch FROM log ORDER BY id",
    "INSERT INTO t(v) VALUES('d')",
    "DELETE FROM t",
];

/// What a program sees of each statement: its rows, how many it changed, and the number of the last row inserted.
fn counted(app: &rusqlite::Connection) -> Vec<(String, u64, i64, String)> {
    let rows = |sql: &str| -> rusqlite::Result<Vec<String>> {
        let mut statement = app.prepare(sql)?;
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            (0..columns)
                .map(|column| Ok(format!("{:?}", row.get_ref(column)?)))
                .collect::<Result<String, _>>()
        };
        statement.query_map([], row)?.collect()
    };
    let run = |sql: &&str| {
        let rows = format!("{:?}", rows(sql));
        ((*sql).to_owned(), app.changes(), app.last_insert_rowid(), rows)
    };
    COUNTED.iter().map(run).collect()
}

#[test]
fn what_a_driver_counts_is_what_it_would_count_without_us() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE, n INTEGER, w TEXT); CREATE UNIQUE INDEX w ON t(lower(w)) WHERE n > 0;
        CREATE TABLE k(a TEXT COLLATE NOCASE PRIMARY KEY, v TEXT); CREATE TABLE s(id TEXT PRIMARY KEY, v ANY) STRICT;
        CREATE TABLE log(id INTEGER PRIMARY KEY, ref INTEGER, ch INTEGER);
        CREATE TRIGGER t_insert AFTER INSERT ON t BEGIN INSERT INTO log(ref, ch) VALUES(last_insert_rowid(), changes()); END;
        CREATE TRIGGER t_before BEFORE UPDATE ON t BEGIN INSERT INTO log(ref, ch) VALUES(last_insert_rowid(), changes()); END";
    for recursive in ["OFF", "ON"] {
        let pragma = format!("PRAGMA recursive_triggers = {recursive}");
        let alone = rusqlite::Connection::open_in_memory().unwrap();
        alone.execute_batch(schema).unwrap();
        alone.execute_batch(&pragma).unwrap();
        let node = Node::new(1, schema, &["t", "k", "s"]);
        node.sql(&pragma);
        assert_eq!(counted(&node.app), counted(&alone), "{recursive}");
    }
}
