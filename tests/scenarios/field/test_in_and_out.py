"""Before the first sync, a start that fails, and the way out again."""
import json
import re
import subprocess

from cluster import program
from field.mesh import PATIENCE_SECONDS, Field

SCHEMA = """CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);
    CREATE UNIQUE INDEX t_v ON t(v) WHERE v IS NOT NULL;
    CREATE TRIGGER t_own AFTER DELETE ON t BEGIN SELECT 1; END;
    CREATE VIEW shown AS SELECT * FROM t;"""


def schema_of(node):
    """Everything there is in the schema, to the byte, and where it stands in it."""
    return node.read("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"), node.value("PRAGMA user_version")


class AStartThatFails(Field):
    """Somebody makes a mistake on the command line, corrects it, or gives up on sync. The database must be as it was."""

    def setUp(self):
        super().setUp()
        self.a = self.node("a", SCHEMA + "CREATE TABLE keyless(v TEXT);", ["t"], wal=False)
        self.a.write("INSERT INTO t VALUES('1', 'x')")

    def leaves_no_trace(self, **changes):
        before = schema_of(self.a), self.a.database.read_bytes(), sorted(self.folder.iterdir())
        for name, value in changes.items():
            setattr(self.a, name, value)
        self.a.start(wait=False)
        code = self.a.process.wait(60)
        text = self.a.log.read_text()
        self.assertIn(code, (2, 3), text)
        self.assertEqual(self.a.read("PRAGMA journal_mode"), [("delete",)])
        self.assertEqual(before[0], schema_of(self.a))
        self.assertEqual(before[1], self.a.database.read_bytes())
        left = set(self.folder.iterdir()) - set(before[2]) - {self.a.log}
        self.assertEqual(left, set(), "no folder either")
        self.assertIn("try:", text)
        return text

    def test_an_address_that_is_not_here(self):
        self.a.host = "203.0.113.7"  # of a range for documentation
        self.assertIn("203.0.113.7", self.leaves_no_trace())

    def test_a_port_that_is_taken(self):
        b = self.node("b", SCHEMA, ["t"]).start()
        self.leaves_no_trace(port=b.port)

    def test_a_table_that_is_not_there(self):
        self.assertIn("itmes", self.leaves_no_trace(tables=["t", "itmes"]))

    def test_a_table_without_a_key(self):
        self.assertIn("keyless", self.leaves_no_trace(tables=["t", "keyless"]))

    def test_a_secret_that_is_no_secret(self):
        bad = self.folder / "bad.secret"
        bad.write_text("hello\n")
        bad.chmod(0o600)
        self.leaves_no_trace(secret=bad)

    def test_a_peer_without_a_port(self):
        self.leaves_no_trace(peers=["first-machine"])

    def test_the_database_is_not_a_database(self):
        self.a.database.write_bytes(b"no database at all" * 100)
        self.a.start(wait=False)
        self.assertEqual(self.a.process.wait(60), 3)
        self.assertEqual(self.a.database.read_bytes(), b"no database at all" * 100)


class TheWayOut(Field):
    """A database leaves: `entgldb detach` takes everything of the engine out of it."""

    def test_the_schema_is_what_it_was(self):
        a, b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        before = schema_of(a)
        a.start()
        b.start(a)
        a.write("INSERT INTO t VALUES('1', 'x')")
        b.write("INSERT INTO t VALUES('2', 'y')")
        self.ends_with([a, b], "t", [("1", "x"), ("2", "y")])
        code, text = a.run("detach", str(a.database), "--data-dir", str(a.data), "--yes")
        self.assertNotEqual(code, 0, "not while its node runs")
        self.assertTrue(a.is_running())
        a.stop()
        code, text = a.run("detach", str(a.database), "--data-dir", str(a.data), "--yes")
        self.assertEqual(code, 0, text)
        self.assertEqual(schema_of(a), before)
        self.assertEqual(a.read("PRAGMA integrity_check"), [("ok",)])
        a.write("INSERT INTO t VALUES('3', 'z')", "DELETE FROM t WHERE id = '1'")
        self.assertEqual(a.rows("t"), [("2", "y"), ("3", "z")])
        self.assertTrue(b.is_running())
        # And in again, as a database with data of its own.
        a.start(b)
        self.ends_with([a, b], "SELECT id FROM t WHERE id > '1'", [("2",), ("3",)])
        self.all_clean(a, b)


class BeforeTheFirstSync(Field):
    """`entgldb doctor` looks a database over: what can be watched, what can't, and why. Its exit code is for scripts."""

    def doctor(self, node, *options):
        code, lines = node.ask("doctor", *options)
        return code, json.dumps(lines)

    def test_a_database_that_is_ready(self):
        a = self.node("a", SCHEMA, ["t"])
        before = a.database.read_bytes()
        code, text = self.doctor(a, "--watch", "t")
        self.assertEqual(code, 0, text)
        self.assertEqual(a.database.read_bytes(), before, "looking changes nothing")

    def test_what_is_in_the_way_is_named(self):
        schema = """CREATE TABLE good(id TEXT PRIMARY KEY);
            CREATE TABLE keyless(v TEXT);
            CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
            CREATE TABLE null_key(id TEXT PRIMARY KEY, v TEXT);
            CREATE TABLE large(id TEXT PRIMARY KEY, v BLOB);
            CREATE VIRTUAL TABLE search USING fts5(v);"""
        a = self.node("a", schema, ["good"])
        a.write("INSERT INTO null_key VALUES(NULL, 'x')", "INSERT INTO large VALUES('1', zeroblob(3000000))")
        code, text = self.doctor(a)
        self.assertNotEqual(code, 0, text)
        for word in ("keyless", "counted", "null_key", "large", "good", "AUTOINCREMENT", "NULL"):
            self.assertIn(word, text)


class TheSameWordsEverywhere(Field):
    """Whoever has learned one command can use the others."""

    def test_data_dir_and_json_on_all_commands_about_a_database(self):
        a = self.node("a", SCHEMA, ["t"]).start()
        a.write("INSERT INTO t VALUES('1', 'x')")
        self.level(a)
        for command in ("status", "peers", "members", "conflicts", "problems", "verify", "schema", "doctor"):
            with self.subTest(command):
                words = [program(), command, str(a.database), "--data-dir", str(a.data), "--json"]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                for line in done.stdout.splitlines():
                    json.loads(line)

    def test_the_database_on_the_command_line_with_a_configuration_file(self):
        a = self.node("a", SCHEMA, ["t"])
        config = self.folder / "a.json"
        config.write_text(json.dumps({"secret_file": str(self.secret), "watch": ["t"]}))
        a.options += ["--config", str(config)]
        a.start()
        self.assertTrue(a.is_running())

    def test_status_counts_problems_that_are_there(self):
        a = self.node("a", "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"]).start()
        a.write("INSERT INTO t VALUES(?, 'too long a key')".replace("?", f"'{'x' * 5000}'"))
        self.until(a.problems, "the problem is listed")
        self.until(lambda: has_problems(a), lambda: f"the status counts it: {a.status()}")
        a.write("DELETE FROM t")
        self.until(lambda: not a.problems(), lambda: f"it is gone from the list: {a.problems()}")
        self.until(lambda: not has_problems(a), lambda: f"the status counts none: {a.status()}")

    def test_errors_say_what_fits(self):
        """A database whose own pages are damaged, or the engine's tables: the hint must not speak of something else."""
        a = self.node("a", "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"]).start()
        a.write("INSERT INTO t VALUES('1', 'x')")
        self.level(a)
        a.stop()
        a.write("DELETE FROM _entgldb_meta WHERE name = 'format'")
        for command in ("verify", "problems", "conflicts"):
            with self.subTest(command):
                code, text = a.run(command, str(a.database))
                self.assertNotEqual(code, 0)
                self.assertNotIn("Query returned no rows", text)
                self.assertNotIn("check the path", text)

    def test_a_damaged_engine_is_repaired(self):
        """`doctor --repair` brings a database whose engine tables are damaged back into sync, the application's untouched."""
        schema = "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);"
        a, b = self.pair(schema, ["t"])
        a.write("INSERT INTO t VALUES('1', 'x'), ('2', 'y')")
        self.level(a, b)
        a.stop()
        a.write("DELETE FROM _entgldb_authors", "DELETE FROM _entgldb_logs", "UPDATE t SET v = 'edited while damaged' WHERE id = '1'")
        b.write("UPDATE t SET v = 'edited on b' WHERE id = '2'")
        code, text = a.run("doctor", str(a.database), "--repair", "--data-dir", str(a.data))
        self.assertEqual(code, 0, text)
        a.start(b)
        self.ends_with([a, b], "t", [("1", "edited while damaged"), ("2", "edited on b")])
        self.all_clean(a, b)


def has_problems(node):
    """Whatever shape the count has."""
    return bool(re.search(r'"problems": ?([1-9]|\[[^]])', json.dumps(node.status())))


class LongWork(Field):
    """The first capture of a large table takes a while: it is seen, and nobody says "in sync" before it is done."""

    def test_in_sync_is_not_said_while_rows_are_still_to_be_captured(self):
        a, b = self.node("a", "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"]), self.node("b", "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"])
        a.write_all("INSERT INTO t VALUES(?, 'x')", ((f"k{n}",) for n in range(30_000)))
        b.start()
        a.start(b)
        self.linked(a, b)
        caught_up = b.wait_for("caught_up", PATIENCE_SECONDS)
        self.same([a, b], "SELECT count(*) FROM t", [(30_000,)])
        self.assertIsNotNone(caught_up)
        progress = [event for event in a.events if event["event"] == "looking_through"]
        self.assertTrue(progress, f"an event shows how far it is: {sorted({event['event'] for event in a.events})}")
