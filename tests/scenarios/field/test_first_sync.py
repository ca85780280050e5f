"""Machines that have data before they sync for the first time."""
import os
import shutil
import sqlite3
import threading

from field.mesh import Field

SCHEMA = "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);"
# A table that takes longer to capture than pages are held up for.
LARGE_ROWS = int(os.environ.get("ENTGLDB_FIELD_ROWS", 20_000))


def fill(node, count, value):
    node.write_all("INSERT INTO t VALUES(?, ?)", ((f"k{n:07}", value) for n in range(count)))


class ACopyFromBeforeSync(Field):
    """Machine 2 is set up with Sunday's copy of the database. Machine 1 starts its node on Monday and edits on Tuesday; machine 2 starts
    its node on Wednesday, and nobody has edited anything there (libsql issue 1145, Dotmim.Sync issue 342). They expect Tuesday's
    edits and deletions on both."""

    def join_late(self, count):
        a, b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        for node in (a, b):
            fill(node, count, "sunday")
        a.start()
        self.level(a)
        a.write_all("UPDATE t SET v = 'tuesday' WHERE id = ?", [(f"k{n:07}",) for n in range(10)])
        a.write_all("DELETE FROM t WHERE id = ?", [(f"k{n:07}",) for n in range(count - 5, count)])
        self.level(a)
        b.start(a)
        self.linked(a, b)
        expected = [(f"k{n:07}", "tuesday" if n < 10 else "sunday") for n in range(count - 5)]
        self.ends_with([a, b], "t", expected)
        self.all_clean(a, b)
        for node in (a, b):
            self.assertEqual(node.conflicts(), [], "an old copy is no version that lost")

    def test_a_small_table(self):
        self.join_late(30)

    def test_a_large_table(self):
        self.join_late(LARGE_ROWS)

    def test_it_is_edited_before_it_joins(self):
        """This time somebody works on machine 2 before its node starts: these edits are newer and stay."""
        a, b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        for node in (a, b):
            fill(node, 30, "sunday")
        a.start()
        self.level(a)
        a.write("UPDATE t SET v = 'tuesday' WHERE id = 'k0000001'")
        self.level(a)
        # Before the first watch nothing notes when: what differs from a's rows and is no old copy meets them as a conflict.
        b.write("UPDATE t SET v = 'written on b' WHERE id = 'k0000002'", "INSERT INTO t VALUES('new', 'written on b')")
        b.start(a)
        self.linked(a, b)
        self.ends_with([a, b], "SELECT v FROM t WHERE id IN ('k0000001', 'new')", [("tuesday",), ("written on b",)])
        self.same([a, b], "t")
        value = a.value("SELECT v FROM t WHERE id = 'k0000002'")
        self.assertIn(value, ("sunday", "written on b"))
        kept = str([node.conflicts() for node in (a, b)])
        self.assertTrue(value == "written on b" or "written on b" in kept, f"what lost is kept: {kept}")
        self.all_clean(a, b)


class TheSameRowsOnAllMachines(Field):
    """Three tills were installed from one image with the price list in it. Nothing has to travel, and there is no conflict."""

    def test_they_agree_at_once(self):
        nodes = [self.node(name, SCHEMA, ["t"]) for name in "abc"]
        for node in nodes:
            fill(node, 500, "from the image")
            node.start(*(other for other in nodes if other.is_running()))
        self.linked(*nodes)
        self.ends_with(nodes, "t", [(f"k{n:07}", "from the image") for n in range(500)])
        nodes[2].write("UPDATE t SET v = 'edited on c' WHERE id = 'k0000003'")
        nodes[0].write("DELETE FROM t WHERE id = 'k0000004'")
        expected = [(f"k{n:07}", "edited on c" if n == 3 else "from the image") for n in range(500) if n != 4]
        self.ends_with(nodes, "t", expected)
        self.all_clean(*nodes)
        self.quiet(*nodes)


class RowsThatOverlap(Field):
    """Two shops kept their own lists for years and connect them. Rows with one key and two contents: one stays, the same on both,
    and the other can be looked at."""

    def test_the_losing_row_is_kept(self):
        a, b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        fill(a, 20, "of shop a")
        fill(b, 30, "of shop b")
        a.start()
        self.level(a)
        b.start(a)
        self.linked(a, b)
        self.level(a, b)
        self.same([a, b], "t")
        self.assertEqual(a.value("SELECT count(*) FROM t"), 30)
        values = dict(a.read("SELECT id, v FROM t"))
        for key in (f"k{n:07}" for n in range(20)):
            lost = "of shop b" if values[key] == "of shop a" else "of shop a"
            kept = [each for node in (a, b) for each in node.conflicts() if each["key"] == key]
            self.assertTrue(any((each["loser"]["content"] or {}).get("v") == lost for each in kept), key)
        self.all_clean(a, b)


class ALargeTableIsWatchedForTheFirstTime(Field):
    """While the first capture of a large table takes its time, another machine edits rows that both have. Nobody's edit is
    lost without a word. The long form makes it take more than half a minute."""

    def test_remote_edits_of_rows_that_are_still_to_be_captured(self):
        a, b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        fill(b, LARGE_ROWS, "first")
        fill(a, LARGE_ROWS, "first")
        b.start()
        self.level(b)
        keys = [(f"k{n:07}",) for n in range(0, LARGE_ROWS, LARGE_ROWS // 100)]
        # Others than b edits, and some of them.
        a.write_all("UPDATE t SET v = 'on a, before its first watch' WHERE id = ?", keys[50:])
        a.start(b)
        b.write_all("UPDATE t SET v = 'on b, meanwhile' WHERE id = ?", keys[:75])
        self.linked(a, b)
        self.level(a, b)
        self.same([a, b], "t")
        self.same([a], "SELECT count(*) FROM t", [(LARGE_ROWS,)])
        for (key,) in keys[:50]:
            self.assertEqual(a.value("SELECT v FROM t WHERE id = ?", key), "on b, meanwhile", key)
        kept = {(each["key"], (each["loser"]["content"] or {}).get("v")) for node in (a, b) for each in node.ask("conflicts", "--limit", "1000")[1]}
        for (key,) in keys[50:75]:
            value = a.value("SELECT v FROM t WHERE id = ?", key)
            lost = {"on b, meanwhile", "on a, before its first watch"} - {value}
            self.assertEqual(len(lost), 1, f"{key}: {value}")
            self.assertIn((key, lost.pop()), kept, "the version that lost is kept")
        self.all_clean(a, b)

    def test_the_application_edits_while_it_is_captured(self):
        a, b = self.node("a", SCHEMA, ["t"]), self.node("b", SCHEMA, ["t"])
        fill(a, LARGE_ROWS, "first")
        b.start()
        a.start(b)
        edited = [f"k{n:07}" for n in range(0, LARGE_ROWS, LARGE_ROWS // 200)]
        for n, key in enumerate(edited):
            a.write(("UPDATE t SET v = 'edited' WHERE id = ?", (key,)) if n % 2 else ("DELETE FROM t WHERE id = ?", (key,)))
        query = "SELECT v, count(*) FROM t GROUP BY v"
        self.ends_with([a, b], query, [("edited", len(edited) // 2), ("first", LARGE_ROWS - len(edited))])
        self.all_clean(a, b)


class RowsThatWereFirstSeenAsDeleted(Field):
    """Machine 1 had synced and lost its database; it is set up again from a copy that machine 2 gave on a stick."""

    def test_a_copied_database_file_becomes_a_node_of_its_own(self):
        a, b = self.pair(SCHEMA, ["t"])
        fill(a, 20, "first")
        self.level(a, b)
        b.stop()
        c = self.node("c", None, ["t"])
        shutil.copy(b.database, c.database)  # with the engine's tables in it, without the data folder
        b.start(a)
        a.write("UPDATE t SET v = 'edited on a' WHERE id = 'k0000001'", "DELETE FROM t WHERE id = 'k0000002'")
        self.level(a, b)
        c.start(a)
        self.linked(c)
        expected = [(f"k{n:07}", "edited on a" if n == 1 else "first") for n in range(20) if n != 2]
        self.ends_with([a, b, c], "t", expected)
        c.write("UPDATE t SET v = 'edited on c' WHERE id = 'k0000003'")
        self.same([a, b, c], "SELECT v FROM t WHERE id = 'k0000003'", [("edited on c",)])
        self.all_clean(a, b, c)


class TablesThatComeLater(Field):
    def test_a_table_that_is_watched_later_gives_and_takes_all_its_rows(self):
        schema = SCHEMA + "CREATE TABLE later(id TEXT PRIMARY KEY, v TEXT);"
        a, b = self.pair(schema, ["t"])
        a.write("INSERT INTO later VALUES('a', 'was there on a')")
        b.write("INSERT INTO later VALUES('b', 'was there on b')", "INSERT INTO t VALUES('1', 'x')")
        self.same([a, b], "t", [("1", "x")])
        for node in (a, b):
            code, text = node.run("watch", str(node.database), "later", "--data-dir", str(node.data))
            self.assertEqual(code, 0, text)
        self.ends_with([a, b], "later", [("a", "was there on a"), ("b", "was there on b")])
        self.all_clean(a, b)


class AnApplicationThatFillsItsDatabaseAtFirstStart(Field):
    """Both machines' programs create their default rows at their first start, while sync already runs."""

    def test_default_rows_made_on_both(self):
        a, b = self.pair(SCHEMA, ["t"])
        threads = [threading.Thread(target=fill, args=(node, 200, "default")) for node in (a, b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ends_with([a, b], "t", [(f"k{n:07}", "default") for n in range(200)])
        self.all_clean(a, b)

    def test_a_dump_is_read_into_the_live_database(self):
        """`.dump` of an older database, `.read` into the live one: DROP, CREATE and INSERT of every row in one transaction."""
        a, b = self.pair(SCHEMA, ["t"])
        rows = [(f"k{n}", f"value {n}") for n in range(60)]
        a.write_all("INSERT INTO t VALUES(?, ?)", rows)
        self.level(a, b)
        script = ["DROP TABLE t", SCHEMA.rstrip(";"), *(("INSERT INTO t VALUES(?, ?)", (key, value if key != "k1" else "of the dump")) for key, value in rows)]
        a.transaction(*script, foreign_keys=False)
        expected = [row for row in rows if row[0] != "k1"] + [("k1", "of the dump")]
        self.ends_with([a, b], "t", expected)
        self.all_clean(a, b)

    def test_a_dump_with_the_engines_tables_becomes_a_database_that_syncs(self):
        """All of a database is dumped as SQL and read into an empty file, which takes its place while the node is stopped."""
        a, b = self.pair(SCHEMA, ["t"])
        fill(a, 30, "first")
        self.level(a, b)
        a.stop()
        old = a.connect()
        copy = a.database.with_suffix(".copy")
        new = sqlite3.connect(copy, isolation_level=None)
        new.executescript("\n".join(old.iterdump()))
        new.close()
        old.close()
        for end in ("", "-wal", "-shm"):
            a.database.with_name(a.database.name + end).unlink(missing_ok=True)
        copy.rename(a.database)
        b.write("UPDATE t SET v = 'edited on b' WHERE id = 'k0000001'")
        a.start(b)
        a.write("UPDATE t SET v = 'edited on a' WHERE id = 'k0000002'")
        changed = {1: "edited on b", 2: "edited on a"}
        self.ends_with([a, b], "t", [(f"k{n:07}", changed.get(n, "first")) for n in range(30)])
        self.all_clean(a, b)
