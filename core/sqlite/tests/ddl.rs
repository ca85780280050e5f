//! No statement by which the application changes its schema fails because of our triggers, whether the node looks in
//! between or not, and what is written before, between and after is captured.

mod common;

use common::{Node, converge};
use entgldb_replica::store::Store;

/// A table with a unique index whose column is dropped.
struct Case {
    name: &'static str,
    table: &'static str,
    schema: &'static str,
    /// Statements that write rows while the index is there.
    before: &'static str,
    /// What the application's migration says.
    migration: &'static [&'static str],
    /// Statements that write rows when the column is gone.
    after: &'static str,
}

const PLAIN_AFTER: &str =
    "INSERT INTO t(k, v) VALUES('3', 'after'); INSERT OR REPLACE INTO t(k, v) VALUES('1', 'replaced');
    UPDATE t SET v = v || '!' WHERE k = '2'; UPDATE OR REPLACE t SET k = '4' WHERE k = '3'";

const CASES: &[Case] = &[
    Case {
        name: "a plain index",
        table: "t",
        schema: "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u TEXT); CREATE UNIQUE INDEX i ON t(u)",
        before: "INSERT INTO t VALUES('1', 'a', 'u1'), ('2', 'b', 'u2')",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN u"],
        after: PLAIN_AFTER,
    },
    Case {
        name: "two columns of one index, and a second index",
        table: "t",
        schema: "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u INTEGER, w TEXT, x REAL);
            CREATE UNIQUE INDEX i ON t(u, w DESC); CREATE UNIQUE INDEX j ON t(x)",
        before: "INSERT INTO t VALUES('1', 'a', 1, 'w', 1.5), ('2', 'b', 1, 'x', NULL)",
        migration: &[
            "DROP INDEX i",
            "ALTER TABLE t DROP COLUMN w",
            "ALTER TABLE t DROP COLUMN u",
            "DROP INDEX j",
            "ALTER TABLE t DROP COLUMN x",
        ],
        after: PLAIN_AFTER,
    },
    Case {
        name: "one of two indexes stays",
        table: "t",
        schema:
            "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u TEXT, w TEXT); CREATE UNIQUE INDEX i ON t(u, w);
            CREATE UNIQUE INDEX j ON t(w)",
        before: "INSERT INTO t VALUES('1', 'a', 'u1', 'w1'), ('2', 'b', 'u2', 'w2'), ('9', 'z', 'u9', 'w9')",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN u"],
        after:
            "INSERT OR REPLACE INTO t(k, v, w) VALUES('3', 'displaces 9', 'w9'); DELETE FROM t WHERE k = '3';
            UPDATE OR REPLACE t SET w = 'w1' WHERE k = '2'",
    },
    Case {
        name: "a partial index whose condition names another column",
        table: "t",
        schema: "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u TEXT, gone INTEGER);
            CREATE UNIQUE INDEX i ON t(u) WHERE gone IS NULL AND u <> ''",
        before: "INSERT INTO t VALUES('1', 'a', 'u', 1), ('2', 'b', 'u', NULL)",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN gone", "ALTER TABLE t DROP COLUMN u"],
        after: PLAIN_AFTER,
    },
    Case {
        name: "an index on an expression",
        table: "t",
        schema: "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u TEXT, w TEXT);
            CREATE UNIQUE INDEX i ON t(lower(u) || '-' || coalesce(w, ''))",
        before: "INSERT INTO t VALUES('1', 'a', 'u', 'w'), ('2', 'b', 'U', 'x')",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN u", "ALTER TABLE t DROP COLUMN w"],
        after: PLAIN_AFTER,
    },
    Case {
        name: "an index on a generated column",
        table: "t",
        schema: "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u TEXT, g TEXT AS (upper(u)) VIRTUAL);
            CREATE UNIQUE INDEX i ON t(g)",
        before: "INSERT INTO t VALUES('1', 'a', 'u'), ('2', 'b', 'w')",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN g", "ALTER TABLE t DROP COLUMN u"],
        after: PLAIN_AFTER,
    },
    Case {
        name: "without rowid, a key that does not tell capitals",
        table: "t",
        schema: "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v TEXT, u TEXT, w TEXT) WITHOUT ROWID;
            CREATE UNIQUE INDEX i ON t(u); CREATE UNIQUE INDEX j ON t(w COLLATE RTRIM)",
        before: "INSERT INTO t VALUES('1', 'a', 'u1', 'w1'), ('2', 'b', 'u2', 'w2')",
        migration: &[
            "DROP INDEX i",
            "DROP INDEX j",
            "ALTER TABLE t DROP COLUMN u",
            "ALTER TABLE t DROP COLUMN w",
        ],
        after: PLAIN_AFTER,
    },
    Case {
        name: "a key of two columns, without a text",
        table: "t",
        schema: "CREATE TABLE t(v TEXT, a INTEGER, b BLOB, u TEXT, PRIMARY KEY(b, a)); CREATE UNIQUE INDEX i ON t(u)",
        before: "INSERT INTO t VALUES('x', 1, x'00', 'u1'), ('y', 2, x'00', 'u2')",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN u"],
        after: "INSERT INTO t(a, b, v) VALUES(3, 'text', 'after'); UPDATE t SET a = 9 WHERE a = 1; DELETE FROM t WHERE a = 2",
    },
    Case {
        name: "an integer as key",
        table: "t",
        schema: "CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT, u TEXT); CREATE UNIQUE INDEX i ON t(u)",
        before: "INSERT INTO t VALUES(1, 'a', 'u1'), (2, 'b', 'u2')",
        migration: &["DROP INDEX i", "ALTER TABLE t DROP COLUMN u"],
        after: "INSERT INTO t(v) VALUES('after'); INSERT OR REPLACE INTO t VALUES(1, 'replaced'); UPDATE t SET k = 9 WHERE k = 2",
    },
    Case {
        name: "names that need quoting",
        table: "odd \"name\"; --",
        schema: r#"CREATE TABLE "odd ""name""; --"("the ""key""" TEXT PRIMARY KEY, v TEXT, "select a'b" TEXT, "x]y" TEXT);
            CREATE UNIQUE INDEX "i 'n' ""x""" ON "odd ""name""; --"("select a'b")"#,
        before: r#"INSERT INTO "odd ""name""; --"("the ""key""", v, "select a'b") VALUES('1', 'a', 'u1'), ('2', 'b', 'u2')"#,
        migration: &[
            r#"DROP INDEX "i 'n' ""x""""#,
            r#"ALTER TABLE "odd ""name""; --" DROP COLUMN "select a'b""#,
        ],
        after: r#"INSERT INTO "odd ""name""; --"("the ""key""", v) VALUES('3', 'after');
            UPDATE "odd ""name""; --" SET v = v || '!'"#,
    },
    Case {
        name: "a table and columns that are called as the words of triggers are",
        table: "new",
        schema: r#"CREATE TABLE "new"(k TEXT PRIMARY KEY, v TEXT, old TEXT, "key" TEXT, evicted TEXT);
            CREATE UNIQUE INDEX i ON "new"(old, "key"); CREATE UNIQUE INDEX name ON "new"(evicted) WHERE "key" IS NOT NULL"#,
        before: r#"INSERT INTO "new" VALUES('1', 'a', 'o1', 'k', 'e1'), ('2', 'b', 'o2', 'k', 'e2')"#,
        migration: &[
            "DROP INDEX i",
            r#"ALTER TABLE "new" DROP COLUMN old"#,
            "DROP INDEX name",
            r#"ALTER TABLE "new" DROP COLUMN "key""#,
            r#"ALTER TABLE "new" DROP COLUMN evicted"#,
        ],
        after: r#"INSERT INTO "new" VALUES('3', 'after'); UPDATE "new" SET v = v || '!'"#,
    },
];

/// How a migration is carried out, and whether the node looks in between.
#[derive(Clone, Copy, Debug)]
enum Way {
    OneTransaction,
    Autocommit,
    LookedAtEachStatement,
    NodeOff,
}

fn migrate(node: &mut Node, way: Way, case: &Case) {
    let run = |node: &Node, sql: &str| {
        let done = node.app.execute_batch(sql);
        assert!(done.is_ok(), "{}, {way:?}: {sql}: {}", case.name, done.unwrap_err());
    };
    match way {
        Way::OneTransaction => {
            run(node, &format!("BEGIN; {}; {}; COMMIT", case.migration.join("; "), case.after));
        }
        Way::Autocommit | Way::NodeOff => {
            case.migration.iter().for_each(|sql| run(node, sql));
            run(node, case.after);
        }
        Way::LookedAtEachStatement => {
            for sql in case.migration {
                run(node, sql);
                node.capture();
            }
            run(node, case.after);
        }
    }
    if matches!(way, Way::NodeOff) {
        node.reopen();
    }
}

#[test]
fn an_index_and_the_columns_it_named_can_be_dropped_in_whatever_way() {
    for case in CASES {
        for way in [Way::OneTransaction, Way::Autocommit, Way::LookedAtEachStatement, Way::NodeOff] {
            let mut nodes =
                [Node::new(1, case.schema, &[case.table]), Node::new(2, case.schema, &[case.table])];
            nodes[0].sql(case.before);
            converge(&mut nodes);
            migrate(&mut nodes[0], way, case);
            nodes[0].capture();
            assert!(!nodes[0].store.is_scanning().unwrap(), "{}, {way:?}", case.name);
            for sql in case.migration {
                nodes[1].sql(sql);
            }
            converge(&mut nodes);
            let rows = format!("SELECT * FROM \"{}\" ORDER BY 1, 2", case.table.replace('"', "\"\""));
            assert_eq!(nodes[0].query(&rows), nodes[1].query(&rows), "{}, {way:?}", case.name);
            assert_eq!(nodes[0].echo_of(case.table), 0, "{}, {way:?}", case.name);
            let problems: Vec<_> = nodes.iter().flat_map(|node| node.problems.clone()).collect();
            assert_eq!(problems, vec![], "{}, {way:?}", case.name);
        }
    }
}

/// What `verify` says of a database's triggers.
fn said_of_triggers(node: &Node) -> Vec<&'static str> {
    let report = entgldb_sqlite::verify(&node.path, &mut |_| {}).unwrap();
    let faults = report.faults.iter().map(|fault| &fault.what);
    let texts: Vec<&String> =
        report.notes.iter().chain(faults).filter(|text| text.contains("triggers")).collect();
    let kinds = ["will be renewed at the next start", "do not note all rows", "not as the engine makes them"];
    kinds.into_iter().filter(|kind| texts.iter().any(|text| text.contains(kind))).collect()
}

#[test]
fn renamed_columns_and_tables_keep_their_triggers_working_and_nothing_is_looked_through() {
    let schema =
        "CREATE TABLE z(z); CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT, a TEXT, gone INTEGER, v TEXT);
        CREATE UNIQUE INDEX i ON t(u); CREATE UNIQUE INDEX j ON t(lower(a)) WHERE gone = 0";
    // The new row displaces row 2, by one index or the other.
    let (by_u, by_a) = ("'4', 'u2', 'E', 0, 'y'", "'4', 'u4', 'b', 0, 'y'");
    let renames = [
        ("ALTER TABLE t RENAME COLUMN u TO \"the u\"", by_u),
        ("ALTER TABLE t RENAME COLUMN a TO b", by_a),
        ("ALTER TABLE t RENAME COLUMN gone TO \"a\"\"b\"", by_a),
        ("ALTER TABLE t RENAME COLUMN k TO \"key\"", by_u),
        ("ALTER TABLE t RENAME COLUMN k TO \"new\"", by_a),
        ("ALTER TABLE t RENAME TO \"other \"\"t\"; ALTER TABLE \"other \"\"t\" RENAME TO t", by_u),
        ("ALTER TABLE t RENAME TO new; ALTER TABLE new RENAME TO T", by_a),
        (
            "BEGIN; ALTER TABLE t RENAME COLUMN u TO x; ALTER TABLE t RENAME COLUMN a TO u; ALTER TABLE t RENAME COLUMN x TO a; COMMIT",
            by_a,
        ),
        (
            "DROP INDEX i; ALTER TABLE t RENAME COLUMN v TO w; ALTER TABLE t DROP COLUMN u; ALTER TABLE t RENAME COLUMN w TO u",
            "'4', 'b', 0, 'y'",
        ),
        ("DROP TABLE z; VACUUM", by_a),
        ("DROP INDEX i", by_a),
    ];
    for (rename, row) in renames {
        let mut a = Node::new(1, schema, &["t"]);
        a.sql("INSERT INTO t VALUES('1', 'u1', 'A', 0, 'x'), ('2', 'u2', 'B', 0, 'x'), ('3', 'u3', 'C', 0, 'x')");
        a.capture();
        let done = a.app.execute_batch(rename);
        assert!(done.is_ok(), "{rename}: {done:?}");
        let said = said_of_triggers(&a);
        assert!(matches!(said.as_slice(), [] | ["will be renewed at the next start"]), "{rename}: {said:?}");
        a.sql(&format!("INSERT OR REPLACE INTO t VALUES({row})"));
        let drain = a.store.captured(&common::limits()).unwrap();
        assert!(!a.store.is_scanning().unwrap(), "{rename}");
        let mut noted: Vec<_> = drain.changes.iter().map(|change| change.doc.1.as_str()).collect();
        noted.sort_unstable();
        assert_eq!(noted, ["2", "4"], "{rename}");
        a.capture();
        assert_eq!(a.content("t", "2"), None, "{rename}");
    }
}

#[test]
fn an_application_that_takes_no_text_in_double_quotes_can_write_where_an_index_has_one() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, a TEXT, b TEXT, c TEXT);
        CREATE UNIQUE INDEX i ON t(a || \"it's\"); CREATE UNIQUE INDEX j ON t(b) WHERE a <> \"none\"";
    let mut a = Node::new(1, schema, &["t"]);
    a.sql("INSERT INTO t VALUES('1', 'a', 'b', 'c'), ('2', 'none', 'b', 'd')");
    a.capture();
    use rusqlite::config::DbConfig::{SQLITE_DBCONFIG_DQS_DDL, SQLITE_DBCONFIG_DQS_DML};
    a.app.set_db_config(SQLITE_DBCONFIG_DQS_DDL, false).unwrap();
    a.app.set_db_config(SQLITE_DBCONFIG_DQS_DML, false).unwrap();
    a.sql("INSERT OR REPLACE INTO t VALUES('3', 'x', 'b', NULL); DELETE FROM t WHERE k = '3'");
    a.capture();
    assert_eq!(a.content("t", "1"), None, "it was displaced");
    a.sql("DROP INDEX i; DROP INDEX j; ALTER TABLE t DROP COLUMN b; ALTER TABLE t DROP COLUMN c; ALTER TABLE t DROP COLUMN a");
}

/// How many rows a statement steps over in tables that it reads without an index, in triggers too.
fn steps(app: &rusqlite::Connection, sql: &str) -> i32 {
    let mut statement = app.prepare(sql).unwrap();
    statement.execute([]).unwrap();
    statement.get_status(rusqlite::StatementStatus::FullscanStep)
}

#[test]
fn a_write_reads_no_whole_table_whether_the_indexes_are_there_or_not() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, w TEXT, x INTEGER NOT NULL DEFAULT 1, y TEXT UNIQUE, z TEXT COLLATE NOCASE);
        CREATE UNIQUE INDEX i ON t(u) WHERE w IS NOT NULL; CREATE UNIQUE INDEX j ON t(lower(w || \"-\"), x);
        CREATE UNIQUE INDEX k ON t(x, y DESC); CREATE UNIQUE INDEX l ON t(z);
        CREATE TABLE c(k TEXT COLLATE NOCASE PRIMARY KEY, u TEXT) WITHOUT ROWID; CREATE UNIQUE INDEX m ON c(u);
        WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) INSERT INTO t(u, w, y, z) SELECT n, n, n, n FROM n;
        INSERT INTO c SELECT u, w FROM t";
    let writes = [
        "INSERT INTO t(u, w, y, z) VALUES('new', 'new', 'new', 'new')",
        "INSERT OR REPLACE INTO t(id, u, w, y, z) VALUES(1, '5', '6', '7', '8')",
        "UPDATE t SET u = 'other', w = 'w' WHERE id = 10",
        "UPDATE OR REPLACE t SET u = '20', z = '30', y = '40' WHERE id = 11",
        "INSERT OR REPLACE INTO c VALUES('13', '14')",
        "UPDATE c SET k = 'new' WHERE k = '15'",
    ];
    let a = Node::new(1, schema, &["t", "c"]);
    for sql in writes {
        assert_eq!(steps(&a.app, sql), 0, "{sql}");
    }
    a.sql("DROP INDEX i; DROP INDEX j; DROP INDEX k; DROP INDEX l; DROP INDEX m");
    let objects: i32 = a.query("SELECT count(*) FROM sqlite_schema")[0].parse().unwrap();
    for sql in writes {
        // Once for each index that is not in its place.
        let steps = steps(&a.app, &sql.replace("'new'", "'newer'"));
        assert!(steps <= 4 * objects && steps < 500, "{sql}: {steps} steps, {objects} in the schema");
    }
}

#[test]
fn a_trigger_before_a_write_that_somebody_altered_is_made_again_and_what_it_missed_is_found() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT); CREATE UNIQUE INDEX i ON t(u)";
    let alterations = [
        "DROP TRIGGER _entgldb_before_insert_1",
        "DROP TRIGGER _entgldb_before_insert_1;
            CREATE TRIGGER _entgldb_before_insert_1 BEFORE INSERT ON t BEGIN SELECT 1; END",
        "PRAGMA writable_schema = ON;
            UPDATE sqlite_schema SET sql = replace(sql, '= (SELECT NEW.\"u\")', '= (SELECT NEW.\"k\")') WHERE type = 'trigger';
            PRAGMA writable_schema = RESET; CREATE TABLE x(x)",
    ];
    for alteration in alterations {
        let mut a = Node::new(1, schema, &["t"]);
        a.sql("INSERT INTO t VALUES('1', 'a'), ('2', 'b')");
        a.capture();
        a.sql(alteration);
        assert_eq!(said_of_triggers(&a), ["do not note all rows"], "{alteration}");
        a.sql("INSERT OR REPLACE INTO t VALUES('3', 'a'); DELETE FROM t WHERE k = '3'");
        a.capture();
        assert_eq!(a.content("t", "1"), None, "{alteration}");
        a.sql("INSERT OR REPLACE INTO t VALUES('3', 'b'); DELETE FROM t WHERE k = '3'");
        a.capture();
        assert_eq!((a.content("t", "2"), a.problems.len()), (None, 0), "{alteration}");
        assert!(!a.store.is_scanning().unwrap());
    }
}

#[test]
fn changes_of_others_are_applied_under_the_applications_triggers_whatever_it_does_to_the_schema() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT, v TEXT, n INTEGER); CREATE UNIQUE INDEX i ON t(u);
        CREATE UNIQUE INDEX j ON t(lower(v)) WHERE n > 0; CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT);
        CREATE TRIGGER app AFTER INSERT ON t BEGIN INSERT INTO log(what) VALUES(NEW.k); UPDATE t SET n = n + 1 WHERE k = 'sum'; END";
    let changes = [
        "DROP INDEX i; ALTER TABLE t DROP COLUMN u",
        "DROP INDEX i; DROP INDEX j; BEGIN; ALTER TABLE t DROP COLUMN u; ALTER TABLE t DROP COLUMN v; COMMIT",
        "ALTER TABLE t RENAME COLUMN v TO w; ALTER TABLE t RENAME COLUMN w TO v; CREATE UNIQUE INDEX l ON t(v, u)",
        "ALTER TABLE t RENAME TO new; ALTER TABLE new RENAME TO t; ALTER TABLE t ADD COLUMN more",
        "DROP TRIGGER app; DROP INDEX i; ALTER TABLE t DROP COLUMN u;
            CREATE TRIGGER app BEFORE UPDATE ON t BEGIN UPDATE t SET n = n + 1 WHERE k = 'sum'; END",
        "CREATE TABLE other(k TEXT PRIMARY KEY, u TEXT, v TEXT, n INTEGER); INSERT INTO other SELECT * FROM t; DROP TABLE t; ALTER TABLE other RENAME TO t",
        "DROP TABLE log; DROP TRIGGER app",
    ];
    for change in changes {
        let (mut a, mut b) = (Node::new(1, schema, &["t"]), Node::new(2, schema, &["t"]));
        a.sql("INSERT INTO t VALUES('sum', 'u0', 'v0', 0), ('1', 'u1', 'v1', 1), ('2', 'u2', 'v2', 1)");
        b.pull(&mut a, 100);
        let done = b.app.execute_batch(change);
        assert!(done.is_ok(), "{change}: {done:?}");
        a.sql("UPDATE t SET n = 5 WHERE k = '1'; DELETE FROM t WHERE k = '2'; INSERT INTO t VALUES('3', 'u2', 'v2', 1)");
        b.pull(&mut a, 100);
        assert_eq!(
            b.query("SELECT k, n FROM t ORDER BY k"),
            a.query("SELECT k, n FROM t ORDER BY k"),
            "{change}"
        );
        b.sql("INSERT INTO t(k, n) VALUES('4', 1); UPDATE t SET n = 7 WHERE k = '3'");
        a.pull(&mut b, 100);
        assert_eq!(a.query("SELECT n FROM t WHERE k IN ('3', '4') ORDER BY k"), ["7", "1"], "{change}");
        assert_eq!((&a.problems, &b.problems), (&vec![], &vec![]), "{change}");
    }
}

#[test]
fn an_application_that_attaches_the_database_is_captured_and_may_change_its_schema() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT, v TEXT); CREATE UNIQUE INDEX i ON t(u); CREATE UNIQUE INDEX j ON t(v)";
    let mut a = Node::new(1, schema, &["t"]);
    a.sql("INSERT INTO t VALUES('1', 'u1', 'v1'), ('2', 'u2', 'v2')");
    a.capture();
    let other = rusqlite::Connection::open_in_memory().unwrap();
    other.execute("ATTACH ?1 AS app", [a.path.to_str().unwrap()]).unwrap();
    other
        .execute_batch(
            "CREATE TABLE main.t(k, u); CREATE TABLE main._entgldb_outbox(x);
             INSERT OR REPLACE INTO app.t VALUES('3', 'u1', 'v3'); DELETE FROM app.t WHERE k = '3';
             DROP INDEX app.i; ALTER TABLE app.t DROP COLUMN u; REPLACE INTO app.t VALUES('4', 'v2'); DELETE FROM app.t WHERE k = '4'",
        )
        .unwrap();
    a.capture();
    assert_eq!((a.content("t", "1"), a.content("t", "2")), (None, None));
}

#[test]
fn a_table_renamed_in_the_old_way_takes_writes_again_once_the_node_has_looked() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT); CREATE UNIQUE INDEX i ON t(u)";
    let mut a = Node::new(1, schema, &["t"]);
    a.sql("PRAGMA legacy_alter_table = ON; ALTER TABLE t RENAME TO other");
    let refused = a.app.execute_batch("INSERT INTO other VALUES('1', 'u')").unwrap_err();
    assert!(refused.to_string().contains("no such table: main.t"), "{refused}");
    a.capture();
    // SQLite reads the schema again with the next statement, and only then knows the triggers as they are now.
    a.query("SELECT count(*) FROM sqlite_schema");
    a.sql("INSERT INTO other VALUES('1', 'u')");
}
