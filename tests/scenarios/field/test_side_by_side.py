"""The old and the new version of an application at work side by side, while the new one is rolled out in any order.

Two machines work all the time; one is upgraded early, one late. A third was switched off with edits of its own and comes back near
the end. Each program writes only rows of its own, and keeps what it wrote last. The long form (`cargo xtask soak`) sets
ENTGLDB_FIELD_SIDE_BY_SIDE_SECONDS.
"""
import os
import random
import sqlite3
import threading
import time

from field.mesh import Field

SECONDS = float(os.environ.get("ENTGLDB_FIELD_SIDE_BY_SIDE_SECONDS", 4))
SEED = int(os.environ.get("ENTGLDB_SEED", random.SystemRandom().randrange(1 << 32)))

OLD = "CREATE TABLE item(id TEXT PRIMARY KEY, name TEXT, amount INTEGER, legacy TEXT);"
# A column renamed, one added, one dropped, one of another type: what half a year of releases does to a table.
MIGRATION = [
    "BEGIN IMMEDIATE",
    "CREATE TABLE new_item(id TEXT PRIMARY KEY, title TEXT, amount TEXT, color TEXT NOT NULL DEFAULT 'none')",
    "INSERT INTO new_item(id, title, amount) SELECT id, name, amount FROM item",
    "DROP TABLE item",
    "ALTER TABLE new_item RENAME TO item",
    "COMMIT",
]
# Alters in place what SQLite can alter in place, and leaves the type as it is.
MIGRATION_IN_PLACE = [
    "ALTER TABLE item RENAME COLUMN name TO title",
    "ALTER TABLE item ADD COLUMN color TEXT NOT NULL DEFAULT 'none'",
    "ALTER TABLE item DROP COLUMN legacy",
]


class Application(threading.Thread):
    """Writes its own rows without pause, and is upgraded when it is told to."""

    def __init__(self, node, migration, seed):
        super().__init__(daemon=True)
        self.node, self.migration, self.random = node, migration, random.Random(f"{seed}-{node.name}")
        self.left, self.is_new, self.failed = {}, False, None
        self.upgrade, self.end = threading.Event(), threading.Event()

    def run(self):
        connection = self.node.connect()
        try:
            while not self.end.is_set():
                if self.upgrade.is_set() and not self.is_new:
                    for statement in self.migration:
                        connection.execute(statement)
                    self.is_new = True
                self.write(connection)
                time.sleep(0.01)
        except sqlite3.Error as error:
            self.failed = error
        finally:
            connection.close()

    def write(self, connection):
        key = f"{self.node.name}{self.random.randrange(40)}"
        if key in self.left and self.random.random() < 0.1:
            connection.execute("DELETE FROM item WHERE id = ?", (key,))
            self.left[key] = None
            return
        name, amount = f"{self.node.name} {self.random.randrange(1000)}", self.random.randrange(1000)
        column, color = ("title", f"color {amount}") if self.is_new else ("name", None)
        known = self.left.get(key)
        if known is None:
            extra, mark = (", color", ", ?") if self.is_new else ("", "")
            values = (key, name, amount, color) if self.is_new else (key, name, amount)
            connection.execute(f"INSERT INTO item(id, {column}, amount{extra}) VALUES(?, ?, ?{mark})", values)
            self.left[key] = [name, str(amount), color or "none"]
        elif self.is_new:
            connection.execute("UPDATE item SET title = ?, color = ? WHERE id = ?", (name, color, key))
            known[0], known[2] = name, color
        else:
            connection.execute("UPDATE item SET name = ?, amount = ? WHERE id = ?", (name, amount, key))
            known[0], known[1] = name, str(amount)


class OldAndNewSideBySide(Field):
    def roll_out(self, migration):
        print(f"(seed {SEED}) ", end="", flush=True)
        nodes = [self.node(name, OLD, ["item"]) for name in "abc"]
        a, b, c = nodes
        a.start()
        b.start(a)
        c.start(a, b)
        self.linked(*nodes)
        seen = [(f"{node.name}-first", f"first of {node.name}", n, "old") for n, node in enumerate(nodes)]
        for node, row in zip(nodes, seen):
            node.write(("INSERT INTO item VALUES(?, ?, ?, ?)", row))
        self.level(*nodes)
        c.stop()
        applications = [Application(node, migration, SEED) for node in nodes]
        order = applications[:2]
        random.Random(SEED).shuffle(order)
        early, late = order
        for one in applications:
            one.start()
        c_application = applications[2]
        time.sleep(SECONDS / 4)
        early.upgrade.set()
        c_application.end.set()  # its machine is switched off, for three weeks
        c_application.join(60)
        time.sleep(SECONDS / 4)
        late.upgrade.set()
        time.sleep(SECONDS / 4)
        c.start()
        returned = Application(c, migration, SEED + 1)
        returned.left = c_application.left
        returned.start()
        time.sleep(SECONDS / 4)
        returned.upgrade.set()
        self.until(lambda: all(one.is_new for one in (early, late, returned)) or any(one.failed for one in applications), "all are upgraded")
        everybody = [early, late, c_application, returned]
        for one in everybody:
            one.end.set()
        for one in everybody:
            one.join(60)
            self.assertIsNone(one.failed, f"{one.node.name}: no statement of the application failed")
        expected = [(f"{node.name}-first", f"first of {node.name}", str(n), "none") for n, node in enumerate(nodes)]
        for one in (early, late, returned):
            expected += [(key, *row) for key, row in one.left.items() if row is not None]
        self.ends_with(nodes, "SELECT id, title, CAST(amount AS TEXT), color FROM item", expected)
        self.all_clean(*nodes)
        for node in nodes:
            self.assertEqual(node.conflicts(), [], f"{node.name}: each row has one writer")
            self.until(lambda node=node: node.problems() == [], lambda node=node: f"{node.name}: {node.problems()}")

    def test_with_a_table_that_is_built_anew(self):
        self.roll_out(MIGRATION)

    def test_with_columns_altered_in_place(self):
        self.roll_out(MIGRATION_IN_PLACE)
