"""The engine as a neighbour of an application that does not know of it: nothing fails that did not fail, nothing is told otherwise."""
import sqlite3
import subprocess
import sys
import time

from field.mesh import Field

SCHEMA = "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT, n INTEGER);"


class WhatTheDriverTells(Field):
    """ORMs check what a statement says of itself: rowcount, lastrowid, RETURNING, changes() in their own triggers (expo issue
    3163, turso issue 5869: "optimistic lock: changes must be 1")."""

    SCHEMA = """
CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE, n INTEGER); CREATE TABLE log(id INTEGER PRIMARY KEY, ref INTEGER, ch INTEGER);
CREATE TABLE k(a TEXT COLLATE NOCASE PRIMARY KEY, v TEXT); CREATE TABLE s(id TEXT PRIMARY KEY, v ANY) STRICT;
CREATE TRIGGER t_inserted AFTER INSERT ON t BEGIN INSERT INTO log(ref, ch) VALUES(last_insert_rowid(), changes()); END;
"""
    STATEMENTS = [
        "INSERT INTO t(v, n) VALUES('a', 1), ('b', 2), ('c', 3)", "INSERT INTO t(id, v, n) VALUES(1000, 'z', 9)",
        "UPDATE t SET n = n + 1 WHERE n < 3", "UPDATE t SET n = n WHERE id = -1", "INSERT INTO t(v, n) VALUES('d', 4) RETURNING id, v",
        "INSERT INTO t(id, v, n) VALUES(1, 'a2', 5) ON CONFLICT(id) DO UPDATE SET v = excluded.v RETURNING id, v, n",
        "INSERT OR IGNORE INTO t(v) VALUES('b')", "INSERT OR REPLACE INTO t(v, n) VALUES('b', 77)", "REPLACE INTO t(id, v) VALUES(1000, 'c')",
        "UPDATE OR REPLACE t SET v = 'd' WHERE id = 1", "UPDATE OR IGNORE t SET v = 'd' WHERE id = 2", "DELETE FROM t WHERE n > 3 RETURNING v",
        "INSERT INTO k VALUES('Key', '1')", "INSERT INTO k VALUES('KEY', '2') ON CONFLICT DO UPDATE SET v = excluded.v", "UPDATE k SET a = 'kEY'",
        "DELETE FROM k", "INSERT INTO s VALUES('1', x'00')", "UPDATE s SET v = 1.5", "SELECT ref, ch FROM log ORDER BY id",
        "INSERT INTO t(v) VALUES('b')", "INSERT INTO t(v) SELECT v || '-copy' FROM t", "SELECT count(*) FROM t",
    ]  # fmt: skip

    def told(self, connection):
        answers = []
        for statement in self.STATEMENTS:
            try:
                cursor = connection.execute(statement)
                rows = cursor.fetchall()
                last = cursor.lastrowid if statement.startswith(("INSERT", "REPLACE")) else None
                answers.append((statement, cursor.rowcount, last, rows, connection.execute("SELECT changes()").fetchone()))
            except sqlite3.IntegrityError as error:
                answers.append((statement, str(error)))
        return answers

    def test_it_is_what_it_was(self):
        plain = sqlite3.connect(":memory:", isolation_level=None)
        plain.executescript(self.SCHEMA)
        expected = self.told(plain)
        plain.close()
        a, b = self.pair(self.SCHEMA, ["t", "k", "s"])
        connection = a.connect(foreign_keys=False)
        got = self.told(connection)
        connection.close()
        for one, other in zip(got, expected):
            self.assertEqual(one, other)
        self.ends_with([a, b], "t")
        self.same([a, b], "s")
        self.all_clean(a, b)


class TransactionsAsApplicationsMakeThem(Field):
    """A deferred transaction that reads first can't write once anybody else has committed: SQLite answers `database is locked` at once,
    whatever the timeout (django_sqlite_benchmark issue 6, wagtail issue 14361). With the engine beside it that must stay rare."""

    PROGRAM = """
import sqlite3, sys, time
database, timeout, begin, seconds = sys.argv[1], float(sys.argv[2]), sys.argv[3], float(sys.argv[4])
connection = sqlite3.connect(database, timeout=timeout, isolation_level=None)
done = failed = 0
end = time.monotonic() + seconds
while time.monotonic() < end:
    try:
        if begin:
            connection.execute(begin)
            n = connection.execute("SELECT n FROM t WHERE id = 'counter'").fetchone()[0]
            time.sleep(0.003)
            connection.execute("UPDATE t SET n = ? WHERE id = 'counter'", (n + 1,))
            connection.execute("COMMIT")
        else:
            connection.execute("UPDATE t SET n = n + 1 WHERE id = 'counter'")
        done += 1
    except sqlite3.OperationalError:
        failed += 1
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    time.sleep(0.02)
print(done, failed)
"""
    SECONDS = 3

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(SCHEMA, ["t"])
        self.a.write("INSERT INTO t VALUES('counter', 'x', 0)")
        self.level(self.a, self.b)

    def run_program(self, timeout, begin):
        command = [sys.executable, "-c", self.PROGRAM, str(self.a.database), str(timeout), begin, str(self.SECONDS)]
        done, failed = map(int, subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.split())
        return done, failed

    def test_immediate_transactions_with_a_timeout_never_fail(self):
        done, failed = self.run_program(5, "BEGIN IMMEDIATE")
        self.assertEqual(failed, 0)
        self.ends_with([self.a, self.b], "SELECT n FROM t", [(done,)])

    def test_single_statements_with_a_timeout_never_fail(self):
        done, failed = self.run_program(5, "")
        self.assertEqual(failed, 0)
        self.ends_with([self.a, self.b], "SELECT n FROM t", [(done,)])

    def test_no_write_that_failed_is_there_and_each_that_succeeded_is(self):
        """Whatever the rate of failures: what the application was told is true."""
        total = 0
        for timeout, begin in ((0, ""), (0, "BEGIN"), (5, "BEGIN"), (0, "BEGIN IMMEDIATE")):
            done, failed = self.run_program(timeout, begin)
            total += done
            print(f"({timeout} s, {begin or 'autocommit'}: {failed} of {done + failed} failed) ", end="", flush=True)
        self.ends_with([self.a, self.b], "SELECT n FROM t", [(total,)])
        self.all_clean(self.a, self.b)


class LargeAndSmall(Field):
    def test_a_hundred_thousand_rows_by_one_statement(self):
        a, b = self.pair(SCHEMA, ["t"])
        b.write("INSERT INTO t VALUES('on b', 'x', 0)")
        self.level(a, b)
        count = "WITH RECURSIVE q(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM q WHERE n < 50000)"
        a.write(f"{count} INSERT INTO t SELECT printf('k%06d', n), 'v', n FROM q")
        a.write("INSERT INTO t SELECT 'copy ' || id, v, n FROM t WHERE id LIKE 'k%'")
        b.write("UPDATE t SET v = 'while it comes' WHERE id = 'on b'")
        self.ends_with([a, b], "SELECT count(*), sum(n) FROM t", [(100_001, 50_000 * 50_001)])
        a.write("UPDATE t SET n = n + 1 WHERE id < 'k'", "DELETE FROM t WHERE id LIKE 'copy%'")
        self.ends_with([a, b], "SELECT count(*), sum(n) FROM t", [(50_001, 25_000 * 50_001)])
        self.assertEqual(b.value("SELECT v FROM t WHERE id = 'on b'"), "while it comes")
        self.all_clean(a, b)

    def test_a_table_is_emptied_without_where(self):
        """SQLite empties a table in one go if no trigger is there; with the engine's triggers each row is noted."""
        a, b = self.pair(SCHEMA, ["t"])
        a.write_all("INSERT INTO t VALUES(?, 'x', 1)", ((f"k{n}",) for n in range(3000)))
        self.level(a, b)
        a.write("DELETE FROM t")
        self.ends_with([a, b], "t", [])
        self.all_clean(a, b)

    def test_a_report_keeps_its_snapshot_open(self):
        """A long read holds up no writer, and sync goes on beside it (litestream issues 724 and 1536)."""
        a, b = self.pair(SCHEMA, ["t"])
        a.write_all("INSERT INTO t VALUES(?, 'x', 1)", ((f"k{n}",) for n in range(500)))
        self.level(a, b)
        report = a.connect()
        report.execute("BEGIN")
        self.assertEqual(report.execute("SELECT sum(n) FROM t").fetchone(), (500,))
        for n in range(500):
            a.write((f"UPDATE t SET v = ?, n = 2 WHERE id = 'k{n}'", ("y" * 1000,)))
        self.same([b], "SELECT sum(n) FROM t", [(1000,)])
        b.write("UPDATE t SET n = 3 WHERE id = 'k1'")
        self.same([a], "SELECT sum(n) FROM t", [(1001,)])
        self.assertEqual(report.execute("SELECT sum(n) FROM t").fetchone(), (500,))
        report.execute("COMMIT")
        report.close()
        self.level(a, b)
        self.all_clean(a, b)


class WritesThatFireNoTrigger(Field):
    """There are ways to change a row past all triggers: `sqlite3_blob_write`, a connection with triggers switched off. The row
    itself is the truth: what was written is not lost when somebody else edits the row."""

    def blob_write(self, node, key, content):
        connection = node.connect()
        rowid = connection.execute("SELECT rowid FROM photo WHERE id = ?", (key,)).fetchone()[0]
        with connection.blobopen("photo", "data", rowid) as blob:
            blob.write(content)
        connection.close()

    def setUp(self):
        super().setUp()
        if not hasattr(sqlite3.Connection, "blobopen"):
            self.skipTest("this Python's sqlite3 can't open a BLOB: 3.11 or later does")
        self.a, self.b = self.pair("CREATE TABLE photo(id TEXT PRIMARY KEY, name TEXT, data BLOB);", ["photo"])
        self.a.write("INSERT INTO photo VALUES('1', 'cat', zeroblob(100)), ('2', 'dog', zeroblob(100))")
        self.level(self.a, self.b)

    def test_a_later_edit_elsewhere_does_not_destroy_it(self):
        a, b = self.a, self.b
        self.blob_write(a, "1", b"written past the triggers")
        b.write("UPDATE photo SET name = 'renamed on b' WHERE id = '1'")
        self.level(a, b)
        self.same([a, b], "photo")
        stands = a.value("SELECT data FROM photo WHERE id = '1'").startswith(b"written past")
        kept = "d3JpdHRlbiBwYXN0" in str([node.conflicts() for node in (a, b)])
        self.assertTrue(stands or kept, f"{a.rows('photo')}, {a.conflicts()}")
        self.all_clean(a, b)

    def test_a_touch_of_the_row_makes_it_travel(self):
        a, b = self.a, self.b
        self.blob_write(a, "2", b"written past the triggers")
        a.write("UPDATE photo SET name = name WHERE id = '2'")
        self.ends_with([a, b], "photo")
        self.assertTrue(b.value("SELECT data FROM photo WHERE id = '2'").startswith(b"written past"))
        self.all_clean(a, b)


class TheSchemaIsEditedByHand(Field):
    """`PRAGMA writable_schema` to drop a NOT NULL, as SQLite's own FAQ shows."""

    def test_it_is_seen(self):
        a, b = self.pair("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT NOT NULL);", ["t"])
        a.write("INSERT INTO t VALUES('1', 'x')")
        self.level(a, b)
        for node in (a, b):
            version = node.value("PRAGMA schema_version")
            node.write(
                "PRAGMA writable_schema = ON", "BEGIN",
                "UPDATE sqlite_schema SET sql = 'CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT, w TEXT)' WHERE name = 't' AND type = 'table'",
                f"PRAGMA schema_version = {version + 1}", "COMMIT",
            )  # fmt: skip
        a.write("UPDATE t SET v = NULL, w = 'new'")
        self.ends_with([a, b], "t", [("1", None, "new")])
        self.all_clean(a, b)


class SavepointsOfAnOrm(Field):
    """An ORM's session: nested blocks are savepoints, an error undoes the inner one only."""

    def test_what_was_undone_does_not_travel(self):
        a, b = self.pair(SCHEMA, ["t"])
        connection = a.connect()
        for n in range(30):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES(?, 'outer', ?)", (f"o{n}", n))
            connection.execute("SAVEPOINT inner")
            connection.execute("INSERT INTO t VALUES(?, 'inner', ?)", (f"i{n}", n))
            connection.execute("UPDATE t SET v = 'undone' WHERE id = ?", (f"o{n}",))
            connection.execute("ROLLBACK TO inner" if n % 3 else "RELEASE inner")
            if n % 3:
                connection.execute("RELEASE inner")
            connection.execute("ROLLBACK" if n % 5 == 4 else "COMMIT")
            time.sleep(0.005)
        connection.close()
        expected = []
        for n in (n for n in range(30) if n % 5 != 4):
            expected.append((f"o{n}", "outer" if n % 3 else "undone", n))
            expected += [] if n % 3 else [(f"i{n}", "inner", n)]
        self.ends_with([a, b], "t", expected)
        self.all_clean(a, b)
        self.quiet(a, b)
