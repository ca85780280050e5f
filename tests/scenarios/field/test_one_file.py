"""Two engines on one database file: a service and somebody's terminal, or the old and the new container of a rolling deploy
(litestream issues 422, 1119 and 1301). Their user expects the second to be refused with a clear word, and nothing to happen to the data."""
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys

from field.mesh import PATIENCE_SECONDS, Field

SCHEMA = "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);"


class ASecondEngine(Field):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(SCHEMA, ["t"])
        self.a.write_all("INSERT INTO t VALUES(?, 'first')", [(f"k{n}",) for n in range(20)])
        self.level(self.a, self.b)

    def is_refused(self, path):
        """Another data folder, so that no lock in the folder is in the way."""
        second = self.node("second", None, ["t"], database=pathlib.Path(path))
        second.start(self.b, wait=False)
        code = second.process.wait(PATIENCE_SECONDS)
        text = second.log.read_text()
        self.assertEqual(code, 3, text)
        self.assertRegex(text, "(?i)already|another|running", "it says why")
        self.goes_on()

    def goes_on(self):
        a, b = self.a, self.b
        self.assertTrue(a.is_running(), "the first one goes on")
        a.write("INSERT INTO t VALUES('on a', 'after')", "UPDATE t SET v = 'edited on a' WHERE id = 'k1'")
        b.write("INSERT INTO t VALUES('on b', 'after')", "UPDATE t SET v = 'edited on b' WHERE id = 'k2'")
        changed = {"k1": "edited on a", "k2": "edited on b"}
        expected = [(f"k{n}", changed.get(f"k{n}", "first")) for n in range(20)] + [("on a", "after"), ("on b", "after")]
        self.ends_with([a, b], "t", expected)
        self.all_clean(a, b)
        a.stop()
        a.start()
        b.write("UPDATE t SET v = 'after the restart' WHERE id = 'k3'")
        self.same([a, b], "SELECT v FROM t WHERE id = 'k3'", [("after the restart",)])
        self.all_clean(a, b)
        for node in (a, b):
            self.assertEqual(node.alarms, [], node.name)

    def test_with_another_data_folder(self):
        self.is_refused(self.a.database)

    def test_through_a_symbolic_link(self):
        link = self.folder / "link.db"
        link.symlink_to(self.a.database)
        self.is_refused(link)

    def test_through_a_folder_that_is_a_symbolic_link(self):
        (self.folder / "elsewhere").symlink_to(self.folder)
        self.is_refused(self.folder / "elsewhere" / self.a.database.name)

    def test_through_a_hard_link(self):
        """SQLite itself can't work through two names of one file: they have two WALs. So nothing but a refusal will do."""
        link = self.folder / "hard.db"
        os.link(self.a.database, link)
        self.is_refused(link)

    def test_after_a_kill_there_is_no_wait(self):
        """What a killed engine left must not be taken for one that runs."""
        self.a.kill()
        other = self.node("other", None, ["t"], database=self.a.database)
        other.start(self.b)
        other.write("INSERT INTO t VALUES('on a', 'after the kill')")
        self.same([other, self.b], "SELECT v FROM t WHERE id = 'on a'", [("after the kill",)])
        self.all_clean(other, self.b)

    def test_an_engine_that_was_taken_for_dead_stops(self):
        """The first is frozen, as in a suspended container; its successor starts on the file. When the first wakes up, only one
        of them may go on writing."""
        a, b = self.a, self.b
        with a.frozen():
            second = self.node("second", None, ["t"], database=a.database)
            second.start(b)
            second.write("INSERT INTO t VALUES('meanwhile', 'x')")
            self.same([second, b], "SELECT v FROM t WHERE id = 'meanwhile'", [("x",)])
        second.write("INSERT INTO t VALUES('after', 'y')")
        b.write("INSERT INTO t VALUES('after, on b', 'z')")
        self.same([second, b], "t")
        self.until(lambda: a.process.poll() is not None or a.status().get("state") != "running", "the first gives up")
        a.end()
        self.ends_with([second, b], "SELECT count(*) FROM t", [(23,)])
        self.all_clean(second, b)


class OtherProgramsOnTheFile(Field):
    """What people do to a live SQLite file, and what SQLite allows."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(SCHEMA, ["t"])
        self.rows = [(f"k{n}", "x" * 500) for n in range(200)]
        self.a.write_all("INSERT INTO t VALUES(?, ?)", self.rows)
        self.level(self.a, self.b)

    def goes_on(self, change=()):
        a, b = self.a, self.b
        a.write("INSERT INTO t VALUES('on a', 'after')")
        b.write("INSERT INTO t VALUES('on b', 'after')")
        changed = dict(change)
        rows = [(key, changed.get(key, value)) for key, value in self.rows if changed.get(key, value) is not None]
        self.ends_with([a, b], "t", [*rows, ("on a", "after"), ("on b", "after")])
        self.all_clean(a, b)
        for node in (a, b):
            self.assertEqual(node.alarms, [], node.name)
        self.quiet(a, b)

    def test_vacuum(self):
        self.a.write("DELETE FROM t WHERE id >= 'k2' AND id < 'k3'", "VACUUM")
        self.goes_on((key, None) for key, _ in self.rows if "k2" <= key < "k3")

    def test_vacuum_after_a_change_of_the_page_size(self):
        self.a.write("PRAGMA page_size = 8192", "VACUUM", "PRAGMA incremental_vacuum")
        self.goes_on()

    def test_checkpoints_by_the_application(self):
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            self.a.write(f"PRAGMA wal_checkpoint({mode})", f"UPDATE t SET v = '{mode}' WHERE id = 'k1'")
        self.goes_on([("k1", "TRUNCATE")])

    def test_reindex_analyze_and_integrity_check(self):
        self.a.write("REINDEX", "ANALYZE", "PRAGMA optimize", "PRAGMA integrity_check", "PRAGMA foreign_key_check")
        self.goes_on()

    def test_a_change_of_user_version_and_application_id(self):
        self.a.write("PRAGMA user_version = 7", "PRAGMA application_id = 42")
        self.goes_on()
        self.assertEqual(self.a.value("PRAGMA user_version"), 7)

    def test_a_copy_with_cp_while_it_runs_does_not_disturb(self):
        """A copy with `cp` may be torn; that is its maker's risk. The database itself must not notice."""
        subprocess.run(["cp", self.a.database, self.folder / "copy.db"], check=True)
        self.goes_on()

    def test_a_savepoint_in_a_long_transaction(self):
        connection = self.a.connect()
        for statement in (
            "BEGIN", "UPDATE t SET v = 'one' WHERE id = 'k1'", "SAVEPOINT s", "UPDATE t SET v = 'two' WHERE id = 'k2'",
            "INSERT INTO t VALUES('undone', 'x')", "ROLLBACK TO s", "SAVEPOINT s2", "UPDATE t SET v = 'three' WHERE id = 'k3'", "RELEASE s2",
        ):  # fmt: skip
            connection.execute(statement)
        self.b.write("UPDATE t SET v = 'on b' WHERE id = 'k4'")  # arrives when the lock is given up
        connection.execute("COMMIT")
        connection.close()
        self.goes_on([("k1", "one"), ("k3", "three"), ("k4", "on b")])

    def test_a_transaction_that_is_killed(self):
        program = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('PRAGMA cache_spill = 1');"
            "c.execute('BEGIN IMMEDIATE'); c.execute(\"UPDATE t SET v = 'never'\"); print('written', flush=True); input()"
        )
        one = subprocess.Popen([sys.executable, "-c", program, str(self.a.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(one.stdout.readline(), "written\n")
        one.send_signal(signal.SIGKILL)
        one.wait()
        one.stdin.close()
        one.stdout.close()
        self.goes_on()

    def test_a_writer_that_has_it_attached(self):
        other = sqlite3.connect(self.folder / "reports.db", timeout=60, isolation_level=None)
        other.execute("ATTACH ? AS shop", (str(self.a.database),))
        other.execute("CREATE TABLE own(id TEXT PRIMARY KEY)")
        other.execute("BEGIN")
        other.execute("INSERT INTO own SELECT id FROM shop.t")
        other.execute("UPDATE shop.t SET v = 'attached' WHERE id = 'k1'")
        other.execute("COMMIT")
        # A temporary table of the same name is another table.
        other.execute("CREATE TEMP TABLE t(id TEXT PRIMARY KEY, v TEXT)")
        other.execute("INSERT INTO t VALUES('k2', 'not for anybody')")
        other.execute("DELETE FROM shop.t WHERE id = 'k5'")
        other.close()
        self.goes_on([("k1", "attached"), ("k5", None)])

    def test_temporary_triggers_and_tables_of_the_application(self):
        connection = self.a.connect()
        connection.execute("CREATE TEMP TABLE seen(id TEXT)")
        connection.execute("CREATE TEMP TRIGGER watch_t AFTER UPDATE ON main.t BEGIN INSERT INTO seen VALUES(NEW.id); END")
        connection.execute("UPDATE t SET v = 'y' WHERE id = 'k1'")
        self.assertEqual(connection.execute("SELECT id FROM seen").fetchall(), [("k1",)])
        connection.close()
        self.goes_on([("k1", "y")])

    def test_the_journal_mode_is_set_at_each_connect(self):
        """`PRAGMA journal_mode=DELETE` at each connect is a habit of some programs and Android's default (Tribler issue 8037). They go
        on as before, whatever SQLite answers."""
        for mode in ("DELETE", "TRUNCATE", "PERSIST", "WAL"):
            connection = self.a.connect(timeout=5)
            try:
                connection.execute(f"PRAGMA journal_mode = {mode}")
            except sqlite3.OperationalError as error:
                # SQLite says so to any program while another connection is open; documented.
                self.assertIn("locked", str(error))
            connection.execute("UPDATE t SET v = ? WHERE id = 'k1'", (mode,))
            connection.close()
        self.goes_on([("k1", "WAL")])

    def test_the_journal_mode_is_changed_while_the_node_is_stopped(self):
        self.a.stop()
        connection = self.a.connect()
        self.assertEqual(connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0], "delete")
        connection.execute("UPDATE t SET v = 'in DELETE mode' WHERE id = 'k1'")
        connection.close()
        self.a.start()
        self.goes_on([("k1", "in DELETE mode")])

    def test_an_application_keeps_the_file_for_itself_for_a_while(self):
        """`PRAGMA locking_mode = EXCLUSIVE` (litestream issue 58): the node waits, says so, and goes on after it."""
        a = self.a
        a.stop()
        connection = a.connect()
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("UPDATE t SET v = 'exclusive' WHERE id = 'k1'")
        a.start(wait=False)
        connection.execute("UPDATE t SET v = 'exclusive too' WHERE id = 'k2'")
        connection.close()
        try:
            a.wait_for("started", 15)
        except AssertionError:
            a.end()
            a.start()
        self.goes_on([("k1", "exclusive"), ("k2", "exclusive too")])
