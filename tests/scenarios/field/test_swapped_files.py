"""The database file is replaced, restored or moved while a node runs beside it.

Each time the people involved expect that the node notices within seconds, that nobody's newer data is undone by the old copy,
and that all goes on, without a restart where that can be (litestream issues 781 and 87).
"""
import shutil
import sqlite3

from field.mesh import Field

SCHEMA = "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);"
FIRST = [(f"k{n}", "first") for n in range(20)]


class AnOlderCopyTakesItsPlace(Field):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        self.copy = self.folder / "copy.db"
        self.a.write_all("INSERT INTO t VALUES(?, ?)", FIRST)

    def backup(self):
        source, target = self.a.connect(), sqlite3.connect(self.copy)
        source.backup(target)
        target.close()
        source.close()

    def start_both(self):
        self.a.start()
        self.b.start(self.a)
        self.linked(self.a, self.b)
        self.level(self.a, self.b)

    def edit_both(self):
        self.b.write("UPDATE t SET v = 'newer, by b' WHERE id = 'k3'")
        self.a.write("UPDATE t SET v = 'newer, by a' WHERE id = 'k4'", "DELETE FROM t WHERE id = 'k5'", "INSERT INTO t VALUES('later', 'by a')")
        self.level(self.a, self.b)

    def goes_on(self):
        a, b = self.a, self.b
        self.until(lambda: a.write("INSERT OR REPLACE INTO t VALUES('new', 'after the restore')") is None, "the application can write")
        self.same([a, b], "SELECT v FROM t WHERE id = 'new'", [("after the restore",)])
        b.write("UPDATE t SET v = 'by b, after the restore' WHERE id = 'k6'")
        changed = {"k3": "newer, by b", "k4": "newer, by a", "k6": "by b, after the restore"}
        expected = [(key, changed.get(key, value)) for key, value in FIRST if key != "k5"] + [("later", "by a"), ("new", "after the restore")]
        self.ends_with([a, b], "t", expected)
        self.all_clean(a, b)
        self.assertTrue(a.is_running())
        a.stop()
        a.start()
        b.write("UPDATE t SET v = 'after the restart' WHERE id = 'k7'")
        self.same([a, b], "SELECT v FROM t WHERE id = 'k7'", [("after the restart",)])

    def restore_in_place(self):
        source, target = sqlite3.connect(self.copy), self.a.connect()
        source.backup(target)
        target.close()
        source.close()

    def test_restored_in_place_from_before_the_first_sync(self):
        """`.restore` writes a copy into the live file in which there is nothing of the engine."""
        self.backup()
        self.start_both()
        self.edit_both()
        self.restore_in_place()
        self.goes_on()

    def test_restored_in_place_from_a_moment_ago(self):
        self.start_both()
        self.backup()
        self.edit_both()
        self.restore_in_place()
        self.goes_on()

    def test_renamed_over(self):
        """`mv copy.db app.db`: programs that have the old file open go on writing to it, and nobody sees that."""
        self.start_both()
        self.backup()
        self.edit_both()
        for end in ("-wal", "-shm"):
            self.a.database.with_name(self.a.database.name + end).unlink()
        self.copy.rename(self.a.database)
        self.goes_on()

    def test_renamed_over_with_the_old_wal_left_behind(self):
        """The WAL of the old file must never be read into the new one. Whoever replaces a file should remove it; many do not know."""
        self.start_both()
        self.backup()
        self.edit_both()
        with self.a.frozen():  # so that nothing gets into the WAL any more
            self.a.write("PRAGMA wal_checkpoint(TRUNCATE)")
            self.copy.rename(self.a.database)
        self.goes_on()

    def test_deleted_and_put_there_again(self):
        self.start_both()
        self.backup()
        self.edit_both()
        for end in ("", "-wal", "-shm"):
            self.a.database.with_name(self.a.database.name + end).unlink(missing_ok=True)
        shutil.copy(self.copy, self.a.database)
        self.goes_on()


class TheSameContentInAnotherFile(Field):
    """`VACUUM INTO` and rename, the way to make a database smaller that needs the least room. Nothing is older; nothing may be lost."""

    def test_vacuum_into_and_rename(self):
        a, b = self.pair(SCHEMA, ["t"])
        a.write_all("INSERT INTO t VALUES(?, ?)", FIRST)
        self.level(a, b)
        smaller = self.folder / "smaller.db"
        a.write(f"VACUUM INTO '{smaller}'")
        smaller.rename(a.database)
        for end in ("-wal", "-shm"):
            a.database.with_name(a.database.name + end).unlink(missing_ok=True)
        self.until(lambda: a.write("UPDATE t SET v = 'after' WHERE id = 'k1'") is None, "the application can write")
        b.write("UPDATE t SET v = 'by b' WHERE id = 'k2'")
        changed = {"k1": "after", "k2": "by b"}
        self.ends_with([a, b], "t", [(key, changed.get(key, value)) for key, value in FIRST])
        self.all_clean(a, b)

    def test_the_file_is_moved(self):
        """It is not at its path any more: the node says so, and goes on when a file is there again."""
        a, b = self.pair(SCHEMA, ["t"])
        a.write_all("INSERT INTO t VALUES(?, ?)", FIRST)
        self.level(a, b)
        away = self.folder / "away.db"
        a.write("PRAGMA wal_checkpoint(TRUNCATE)")
        a.database.rename(away)
        self.until(lambda: a.status().get("state") != "running" or a.status().get("problems"), lambda: f"the status says it: {a.status()}")
        for end in ("-wal", "-shm"):
            a.database.with_name(a.database.name + end).unlink(missing_ok=True)
        away.rename(a.database)
        a.write("UPDATE t SET v = 'after' WHERE id = 'k1'")
        b.write("UPDATE t SET v = 'by b' WHERE id = 'k2'")
        changed = {"k1": "after", "k2": "by b"}
        self.ends_with([a, b], "t", [(key, changed.get(key, value)) for key, value in FIRST])
        self.all_clean(a, b)

    def test_an_empty_database_takes_its_place(self):
        """The application's "start over": it deletes its file and creates an empty one with the same tables. The other machines keep
        their rows and give them back; an empty database is no order to delete."""
        a, b = self.pair(SCHEMA, ["t"])
        a.write_all("INSERT INTO t VALUES(?, ?)", FIRST)
        self.level(a, b)
        for end in ("", "-wal", "-shm"):
            a.database.with_name(a.database.name + end).unlink(missing_ok=True)
        a.create()
        self.until(lambda: a.write("INSERT OR REPLACE INTO t VALUES('new', 'x')") is None, "the application can write")
        self.ends_with([a, b], "t", [*FIRST, ("new", "x")])
        self.all_clean(a, b)


class TheWalIsDeleted(Field):
    """Somebody tidies up and deletes `app.db-wal` under all programs. What was in it alone is gone from this machine; what others
    hold comes back, and all goes on."""

    def test_it_heals(self):
        a, b = self.pair(SCHEMA, ["t"])
        a.write_all("INSERT INTO t VALUES(?, ?)", FIRST)
        self.level(a, b)
        a.write("PRAGMA wal_checkpoint(TRUNCATE)")
        b.write("UPDATE t SET v = 'by b' WHERE id = 'k2'")
        self.level(a, b)
        for end in ("-wal", "-shm"):
            a.database.with_name(a.database.name + end).unlink(missing_ok=True)
        self.until(lambda: a.write("UPDATE t SET v = 'after' WHERE id = 'k1'") is None, "the application can write")
        changed = {"k1": "after", "k2": "by b"}
        self.ends_with([a, b], "t", [(key, changed.get(key, value)) for key, value in FIRST])
        self.all_clean(a, b)
