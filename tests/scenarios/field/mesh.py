"""Nodes over any schema, and what a scenario asks of them."""
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time

import shop
from cluster import Engine, Scenario, free_port, program, wait_until

# A limit for what should take milliseconds; only a fault makes it matter.
PATIENCE_SECONDS = float(os.environ.get("ENTGLDB_FIELD_SECONDS", 60))
# Watched in every scenario: a row in it shows that everything written before it has been carried over.
MARKER = "marker"
MARKER_SCHEMA = f"CREATE TABLE {MARKER}(id TEXT PRIMARY KEY, n INTEGER);"


class Node(Engine):
    """An engine beside a database with a schema of the scenario's own. It listens, so that any other node may dial it."""

    def __init__(self, folder, name, secret, schema, tables, database=None, wal=True):
        self.schema, self.wal = schema, wal
        self.is_new = database is None
        super().__init__(folder, name, secret, port=free_port())
        self.tables = [*tables, MARKER]
        self.data = folder / f"{name}-data"
        self.database = database or self.database
        self.options = ["--data-dir", str(self.data)]

    def create(self):
        if self.is_new and self.schema is not None:
            connection = self.connect()
            if self.wal:
                connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(self.schema + MARKER_SCHEMA)
            connection.close()

    def start(self, *peers, wait=True):
        if peers:
            self.peers = [peer.address for peer in peers]
        super().start()
        if wait:
            self.wait_for("started", PATIENCE_SECONDS)
        return self

    def connect(self, timeout=60, foreign_keys=True):
        """A connection of the application."""
        connection = sqlite3.connect(self.database, timeout=timeout, isolation_level=None)
        if foreign_keys:
            connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def write(self, *statements, foreign_keys=True):
        """Each statement commits by itself, as in a driver without a transaction; `(sql, values)` has parameters."""
        with contextlib.closing(self.connect(foreign_keys=foreign_keys)) as connection:
            for statement in statements:
                sql, values = statement if isinstance(statement, tuple) else (statement, ())
                connection.execute(sql, values)

    def write_all(self, sql, rows):
        """One transaction."""
        with contextlib.closing(self.connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql, rows)
            connection.execute("COMMIT")

    def transaction(self, *statements, foreign_keys=True):
        self.write("BEGIN IMMEDIATE", *statements, "COMMIT", foreign_keys=foreign_keys)

    def read(self, sql, *values):
        return shop.read(self.database, sql, *values)

    def value(self, sql, *values):
        rows = self.read(sql, *values)
        return rows[0][0] if rows else None

    def rows(self, query):
        """The rows of a table, or of a SELECT, in one order everywhere."""
        return sorted_rows(self.read(query if query.upper().startswith("SELECT ") else f'SELECT * FROM "{query}"'))

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def frozen(self):
        """While this lasts the engine does nothing at all, as on a machine that is overloaded."""
        return Frozen(self)

    def ask(self, command, *options):
        """A command about this database as JSON lines; the exit code first."""
        return self.run_json(command, str(self.database), *options)

    def run_json(self, *words):
        command = [program(), *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return done.returncode, lines

    def problems(self):
        return self.ask("problems")[1]

    def blocked(self):
        """Peers with which something does not go on, as the list of problems has them."""
        return [each["blocked"] for each in self.ask("problems", "--data-dir", str(self.data))[1] if "blocked" in each]

    def conflicts(self):
        return self.ask("conflicts")[1]

    def status(self):
        _, lines = self.run_json("status", "--data-dir", str(self.data))
        return lines[0] if lines else {}

    def says(self, *words):
        """Whether an event, a problem or the status has all these words: how a person would learn of it."""
        texts = [json.dumps(each) for each in [*self.events, *self.problems(), self.status()]]
        return any(all(word.lower() in text.lower() for word in words) for text in texts)


class Frozen:
    def __init__(self, node):
        self.node = node

    def __enter__(self):
        # Not while it holds a lock: the application would wait for it.
        time.sleep(0.3)
        self.node.process.send_signal(signal.SIGSTOP)

    def __exit__(self, *_):
        self.node.process.send_signal(signal.SIGCONT)


class Field(Scenario):
    """A scenario over a schema of its own."""

    # Whether all nodes have the same logs in the end. Not if a table gets another name: what was written under the old one stays.
    has_equal_vectors = True

    def node(self, name, schema, tables, **options):
        node = Node(self.folder, name, self.secret, schema, tables, **options)
        self.ends.append(node.end)
        return node

    def pair(self, schema, tables):
        """Two nodes over the same schema, linked."""
        a, b = self.node("a", schema, tables), self.node("b", schema, tables)
        a.start()
        b.start(a)
        self.linked(a, b)
        return a, b

    def linked(self, *nodes):
        for node in nodes:
            node.wait_for("peer_up", PATIENCE_SECONDS)

    def until(self, condition, what, seconds=PATIENCE_SECONDS):
        def holds():
            try:
                return condition()
            except sqlite3.Error:
                return False

        wait_until(holds, seconds, what)

    def same(self, nodes, query, expected=None):
        """Waits until a table (or what a SELECT gives) is the same everywhere and, if they are given, has these rows."""

        def seen():
            return [node.rows(query) for node in nodes]

        def what():
            texts = []
            for node in nodes:
                try:
                    texts.append(f"{node.name}: {shortened(node.rows(query))}")
                except sqlite3.Error as error:
                    texts.append(f"{node.name}: {error}")
            wanted = "" if expected is None else f", wanted {shortened(sorted_rows(expected))}"
            return f"the same rows in {query}: {'; '.join(texts)}{wanted}"

        def holds():
            first, *others = seen()
            return all(other == first for other in others) and (
                expected is None or first == sorted_rows(expected)
            )

        self.until(holds, what)

    def level(self, *nodes):
        """Waits until all that was written on these nodes until now has been captured and carried to all of them."""
        for node in nodes:
            turn = (node.value(f"SELECT n FROM {MARKER} WHERE id = ?", node.name) or 0) + 1
            node.write((f"INSERT OR REPLACE INTO {MARKER} VALUES(?, ?)", (node.name, turn)))
        self.same(nodes, MARKER)
        # The marker may overtake rows that are found only by looking through a table.
        self.until(
            lambda: all(not is_looking_through(node) for node in nodes)
            and (not self.has_equal_vectors or len({json.dumps(vector(node)) for node in nodes}) == 1),
            lambda: f"level with each other: {[(node.name, is_looking_through(node), vector(node)) for node in nodes]}",
        )

    def ends_with(self, nodes, query, expected=None):
        """The same rows everywhere, and nothing under way that changes them again."""
        self.same(nodes, query, expected)
        self.level(*nodes)
        self.same(nodes, query, expected)

    def all_clean(self, *nodes):
        for node in nodes:
            code, text = node.run("verify", str(node.database))
            self.assertEqual(code, 0, f"verify {node.name}: {text}")

    def quiet(self, *nodes):
        """No reason to say anything to anybody."""
        for node in nodes:
            self.assertEqual(node.problems(), [], node.name)
            self.assertEqual(node.conflicts(), [], node.name)


def vector(node):
    heads, waiting = shop.vector(node.database)
    return [[author.hex(), incarnation, name, seq] for author, incarnation, name, seq, _ in heads], waiting


def is_looking_through(node):
    return node.value("SELECT EXISTS(SELECT 1 FROM _entgldb_collections WHERE scan <> 0)") == 1


def sorted_rows(rows):
    return sorted((tuple(row) for row in rows), key=repr)


def shortened(rows):
    text = repr(rows[:6]) + (f" and {len(rows) - 6} more" if len(rows) > 6 else "")
    return text if len(text) < 900 else text[:900] + "..."
