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
            assert!(!nodes[0].store.is_scanning().unwrap());
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

#[test]
fn renamed_columns_and_tables_keep_their_triggers_working_and_nothing_is_looked_through() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, u TEXT, a TEXT, gone INTEGER, v TEXT);
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
    ];
    for (rename, row) in renames {
        let mut a = Node::new(1, schema, &["t"]);
        a.sql("INSERT INTO t VALUES('1', 'u1', 'A', 0, 'x'), ('2', 'u2', 'B', 0, 'x'), ('3', 'u3', 'C', 0, 'x')");
        a.capture();
        let done = a.app.execute_batch(rename);
        assert!(done.is_ok(), "{rename}: {done:?}");
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
