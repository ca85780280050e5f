"""Migrations that build a table anew while its application and sync go on.

SQLite can't alter much of a table in place, so most tools create another one, copy the rows, drop the old table and rename. With
the old table go all its triggers, the engine's too (knex issue 6142, atlas issue 2700).
"""
import subprocess
import sys
import time

from field.mesh import Field
from field.shapes import SHAPES, statements

OLD = "id TEXT PRIMARY KEY, v TEXT, n INTEGER"
NEW = "id TEXT PRIMARY KEY, v TEXT, n INTEGER, extra TEXT"
COLUMNS = "id, v, n"


def rebuild(node, table, shape="django", definition=NEW):
    node.write(*statements(shape, table, COLUMNS, definition), foreign_keys=False)


class EachToolsShape(Field):
    """One table for each tool. The application writes to it right after its migration, without waiting for anybody."""

    ROWS = 60

    def setUp(self):
        super().setUp()
        self.tables = {f"t_{shape}": shape for shape in SHAPES}
        schema = "".join(f"CREATE TABLE {table}({OLD});" for table in self.tables)
        self.a, self.b = self.pair(schema, list(self.tables))
        for table in self.tables:
            rows = [(f"k{n}", "first", n) for n in range(self.ROWS)]
            self.a.write_all(f"INSERT INTO {table} VALUES(?, ?, ?)", rows)
        self.level(self.a, self.b)

    def edit(self, node, table, offset):
        """What an application does right after its migration."""
        node.write(
            f"UPDATE {table} SET v = 'edited on {node.name}' WHERE id = 'k{offset}'",
            f"DELETE FROM {table} WHERE id = 'k{offset + 1}'",
            f"INSERT INTO {table}(id, v) VALUES('new on {node.name}', 'x')",
            f"UPDATE {table} SET id = 'moved on {node.name}' WHERE id = 'k{offset + 2}'",
        )

    def expected(self, *edits):
        rows = {f"k{n}": ("first", n) for n in range(self.ROWS)}
        for name, offset in edits:
            rows[f"k{offset}"] = (f"edited on {name}", offset)
            del rows[f"k{offset + 1}"]
            rows[f"new on {name}"] = ("x", None)
            rows[f"moved on {name}"] = rows.pop(f"k{offset + 2}")
        return [(key, *row) for key, row in rows.items()]

    def all_tables(self, *edits):
        self.level(self.a, self.b)
        for table, shape in self.tables.items():
            with self.subTest(shape):
                self.same([self.a, self.b], f"SELECT {COLUMNS} FROM {table}", self.expected(*edits))

    def test_while_sync_runs(self):
        for table, shape in self.tables.items():
            rebuild(self.a, table, shape)
            self.edit(self.a, table, 5)
            self.edit(self.b, table, 25)
        self.all_tables(("a", 5), ("b", 25))
        for table, shape in self.tables.items():
            rebuild(self.b, table, shape)
            self.b.write(f"UPDATE {table} SET extra = 'filled on b', v = 'second' WHERE id = 'k40'")
            self.a.write(f"UPDATE {table} SET extra = 'filled on a' WHERE id = 'k41'")
        self.level(self.a, self.b)
        for table, shape in self.tables.items():
            with self.subTest(shape):
                query = f"SELECT id, v, extra FROM {table} WHERE id IN ('k40', 'k41', 'k42')"
                self.same([self.a, self.b], query, [("k40", "second", "filled on b"), ("k41", "first", "filled on a"), ("k42", "first", None)])
        self.all_clean(self.a, self.b)
        self.quiet(self.a, self.b)

    def test_while_the_node_is_stopped(self):
        self.a.stop()
        for table, shape in self.tables.items():
            self.edit(self.b, table, 25)
            rebuild(self.a, table, shape)
            self.edit(self.a, table, 5)
        self.a.start(self.b)
        self.all_tables(("a", 5), ("b", 25))
        self.all_clean(self.a, self.b)


class OlderEditsElsewhere(Field):
    """The other machine was away and comes back with edits that are older than what was written right after the migration. The
    newer ones must stand, on both, although no trigger noted them."""

    ROWS = 3000

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(f"CREATE TABLE t({OLD});", ["t"])
        self.a.write_all("INSERT INTO t VALUES(?, 'first', ?)", [(f"k{n:06}", n) for n in range(self.ROWS)])
        self.level(self.a, self.b)
        self.keys = [f"k{n:06}" for n in range(0, self.ROWS, self.ROWS // 50)]

    def edit(self, node, value):
        node.write_all("UPDATE t SET v = ? WHERE id = ?", [(value, key) for key in self.keys])

    def newer_stand(self):
        a, b = self.a, self.b
        query = "SELECT v, count(*) FROM t GROUP BY v"
        self.ends_with([a, b], query, [("first", self.ROWS - len(self.keys)), ("newer, on a", len(self.keys))])
        self.all_clean(a, b)

    def test_after_a_rebuild_while_sync_runs(self):
        a, b = self.a, self.b
        b.stop()
        self.edit(b, "older, on b")
        time.sleep(1.1)  # clocks of notes are in milliseconds; a second is no doubt
        rebuild(a, "t")
        self.edit(a, "newer, on a")
        b.start(a)
        self.newer_stand()

    def test_after_a_rebuild_while_the_node_was_stopped(self):
        a, b = self.a, self.b
        a.stop()
        self.edit(b, "older, on b")
        self.until(lambda: b.value("SELECT count(*) FROM _entgldb_outbox") == 0, "b has captured its edits")
        time.sleep(1.1)
        rebuild(a, "t")
        self.edit(a, "newer, on a")
        a.start(b)
        self.newer_stand()

    def test_while_the_engine_is_slow(self):
        """The engine does nothing for a while, as on a machine that is overloaded: everything happens before its next look."""
        a, b = self.a, self.b
        b.stop()
        self.edit(b, "older, on b")
        time.sleep(1.1)
        with a.frozen():
            rebuild(a, "t")
            self.edit(a, "newer, on a")
            b.start(a, wait=False)
            b.wait_for("started")
        self.newer_stand()

    def test_deletes_and_inserts_while_the_engine_is_slow(self):
        a, b = self.a, self.b
        b.write_all("UPDATE t SET v = 'on b' WHERE id = ?", [(key,) for key in self.keys])
        self.level(a, b)
        with a.frozen():
            rebuild(a, "t")
            a.write_all("DELETE FROM t WHERE id = ?", [(key,) for key in self.keys])
            a.write_all("INSERT INTO t(id, v) VALUES(?, 'new')", [(f"new {n}",) for n in range(400)])
        self.ends_with([a, b], "SELECT v, count(*) FROM t GROUP BY v", [("first", self.ROWS - len(self.keys)), ("new", 400)])
        self.all_clean(a, b)


class ARemoteEditInTheMiddle(Field):
    """A tool without transactions commits each step: for a moment the table is not there. Just then an edit arrives from
    another machine. Its user expects it on all machines in the end."""

    def test_between_drop_and_rename(self):
        a, b = self.pair(f"CREATE TABLE t({OLD});", ["t"])
        rows = [(f"k{n}", "first", n) for n in range(100)]
        a.write_all("INSERT INTO t VALUES(?, ?, ?)", rows)
        self.level(a, b)
        steps = statements("alembic_autocommit", "t", COLUMNS, NEW)
        for step in steps[:3]:
            a.write(step, foreign_keys=False)
        b.write("UPDATE t SET v = 'edited on b' WHERE id = 'k1'", "DELETE FROM t WHERE id = 'k2'", "INSERT INTO t VALUES('new', 'on b', 1)")
        self.same_marker(a, b)
        a.write(steps[3], foreign_keys=False)
        expected = [("k1", "edited on b", 1), ("new", "on b", 1), *(row for row in rows if row[0] not in ("k1", "k2"))]
        self.ends_with([a, b], f"SELECT {COLUMNS} FROM t", expected)
        self.all_clean(a, b)
        self.until(lambda: not a.problems(), lambda: f"nothing is left to say: {a.problems()}")

    def test_between_copy_and_drop(self):
        """The copy does not have what is written into the old table after it. That is the tool's loss, without a sync layer too; but
        an edit that came from elsewhere is not undone everywhere because of it."""
        a, b = self.pair(f"CREATE TABLE t({OLD});", ["t"])
        rows = [(f"k{n}", "first", n) for n in range(100)]
        a.write_all("INSERT INTO t VALUES(?, ?, ?)", rows)
        self.level(a, b)
        steps = statements("alembic_autocommit", "t", COLUMNS, NEW)
        for step in steps[:2]:
            a.write(step, foreign_keys=False)
        b.write("UPDATE t SET v = 'edited on b' WHERE id = 'k1'")
        self.same([a], "SELECT v FROM t WHERE id = 'k1'", [("edited on b",)])
        for step in steps[2:]:
            a.write(step, foreign_keys=False)
        self.ends_with([a, b], f"SELECT {COLUMNS} FROM t", [("k1", "edited on b", 1), *(row for row in rows if row[0] != "k1")])
        self.all_clean(a, b)

    def same_marker(self, a, b):
        b.write("INSERT INTO marker VALUES('after the edit', 1)")
        self.same([a, b], "SELECT count(*) FROM marker WHERE id = 'after the edit'", [(1,)])


COUNTER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for n in range(1, int(sys.argv[2]) + 1):
    connection.execute("UPDATE t SET n = n + 1 WHERE id = ?", (f"k{n % 20}",))
    connection.execute("INSERT INTO t(id, v, n) VALUES(?, 'fresh', 0)", (f"{sys.argv[3]} {n}",))
    time.sleep(0.002)
"""


class AnApplicationThatNeverPauses(Field):
    """The table is built anew five times while programs write on both machines. Each write is in the end on both."""

    WRITES = 300

    def test_each_write_arrives(self):
        a, b = self.pair(f"CREATE TABLE t({OLD});", ["t"])
        a.write_all("INSERT INTO t VALUES(?, 'counter', 0)", [(f"k{n}",) for n in range(20)])
        self.level(a, b)
        programs = [subprocess.Popen([sys.executable, "-c", COUNTER, str(a.database), str(self.WRITES), "a"])]
        # On b other rows, so that the counters have one writer and their sum is known.
        fresh = COUNTER.replace("UPDATE t SET n = n + 1 WHERE id = ?", "SELECT ?")
        programs.append(subprocess.Popen([sys.executable, "-c", fresh, str(b.database), str(self.WRITES), "b"]))
        self.ends += [lambda one=one: (one.kill(), one.wait()) for one in programs]
        for turn in range(5):
            time.sleep(0.1)
            rebuild(a, "t", "django", NEW + f", turn_{turn} TEXT")
        for one in programs:
            self.assertEqual(one.wait(120), 0, "no write of the application failed")
        query = "SELECT count(*), sum(n) FROM t"
        self.ends_with([a, b], query, [(20 + 2 * self.WRITES, self.WRITES)])
        self.same([a, b], f"SELECT {COLUMNS} FROM t")
        self.all_clean(a, b)
        self.assertEqual(b.conflicts(), [])


class TheApplicationsOwnTriggers(Field):
    """Its full-text index hangs on triggers that its migrations drop and create together with the table, while remote edits
    come in all the time."""

    TRIGGERS = [
        "CREATE TRIGGER n_insert AFTER INSERT ON note BEGIN INSERT INTO note_fts(rowid, body) VALUES (new.rid, new.body); END",
        "CREATE TRIGGER n_delete AFTER DELETE ON note BEGIN INSERT INTO note_fts(note_fts, rowid, body) VALUES('delete', old.rid, old.body); END",
        "CREATE TRIGGER n_update AFTER UPDATE ON note BEGIN INSERT INTO note_fts(note_fts, rowid, body) VALUES('delete', old.rid, old.body);"
        " INSERT INTO note_fts(rowid, body) VALUES (new.rid, new.body); END",
    ]
    DEFINITION = "rid INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, body TEXT"
    SCHEMA = f"CREATE TABLE note({DEFINITION}); CREATE VIRTUAL TABLE note_fts USING fts5(body, content='note', content_rowid='rid');"
    WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for n in range(120):
    connection.execute("INSERT INTO note VALUES(?, ?, ?)", (1000 + n, f"b{n}", f"beta {n}"))
    connection.execute("UPDATE note SET body = ? WHERE id = ?", (f"gamma {n}", f"b{n // 2}"))
    time.sleep(0.005)
"""

    def test_its_index_stays_right(self):
        a, b = self.pair(self.SCHEMA + ";".join(self.TRIGGERS) + ";", ["note"])
        self.level(a, b)
        writer = subprocess.Popen([sys.executable, "-c", self.WRITER, str(b.database)])
        self.ends.append(lambda: (writer.kill(), writer.wait()))
        for turn in range(4):
            time.sleep(0.2)
            drops = [f"DROP TRIGGER {trigger.split()[2]}" for trigger in self.TRIGGERS]
            copy = ["INSERT INTO new_note(rid, id, body) SELECT rid, id, body FROM note", "DROP TABLE note", "ALTER TABLE new_note RENAME TO note"]
            create = f"CREATE TABLE new_note({self.DEFINITION}, turn_{turn} TEXT)"
            a.transaction(*drops, create, *copy, *self.TRIGGERS, foreign_keys=False)
            a.write(f"INSERT INTO note(rid, id, body) VALUES({turn + 1}, 'a{turn}', 'alpha')", f"UPDATE note SET body = 'alpha edited' WHERE id = 'a{turn}'")
        self.assertEqual(writer.wait(120), 0)
        self.ends_with([a, b], "SELECT rid, id, body FROM note")
        self.assertEqual(a.value("SELECT count(*) FROM note"), 124)
        for node in (a, b):
            for word in ("alpha", "beta", "gamma"):
                found = node.value("SELECT count(*) FROM note_fts WHERE note_fts MATCH ?", word)
                self.assertEqual(found, node.value("SELECT count(*) FROM note WHERE body LIKE ?", f"{word}%"), f"{word} on {node.name}")
            node.write("INSERT INTO note_fts(note_fts, rank) VALUES('integrity-check', 1)")
        self.all_clean(a, b)
