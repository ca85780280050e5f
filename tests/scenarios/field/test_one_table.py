"""Trouble with one table is the trouble of this table: it waits, with a reason, and all others go on."""
import sqlite3

from field.mesh import MARKER_SCHEMA, Field


def unicase(one, other):
    one, other = one.casefold(), other.casefold()
    return (one > other) - (one < other)


class ACollationThatOnlyTheApplicationHas(Field):
    """Anki's collection has `tags(tag TEXT PRIMARY KEY COLLATE unicase)`, Android a LOCALIZED collation (ankisync2 issue 3,
    sqlitebrowser issue 54): no other program can compare such values."""

    SCHEMA = """
CREATE TABLE notes(id INTEGER PRIMARY KEY, guid TEXT NOT NULL, flds TEXT NOT NULL);
CREATE TABLE tags(tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, usn INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE decks(id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL COLLATE unicase);
CREATE UNIQUE INDEX idx_decks_name ON decks(name);
CREATE TABLE fields(ntid INTEGER NOT NULL, ord INTEGER NOT NULL, name TEXT NOT NULL COLLATE unicase, config BLOB,
  PRIMARY KEY(ntid, ord)) WITHOUT ROWID;
"""

    def connect(self, node):
        connection = sqlite3.connect(node.database, timeout=60, isolation_level=None)
        connection.create_collation("unicase", unicase)
        return connection

    def execute(self, node, *statements):
        connection = self.connect(node)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    def start(self, tables):
        nodes = [self.node(name, None, tables) for name in "ab"]
        for node in nodes:
            connection = self.connect(node)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(self.SCHEMA + MARKER_SCHEMA)
            connection.close()
            node.start(*(other for other in nodes if other.is_running()))
        return nodes

    def others_go_on(self, a, b):
        self.execute(a, "INSERT INTO notes VALUES(1, 'g', 'front')")
        self.same([a, b], "notes", [(1, "g", "front")])
        self.execute(b, "UPDATE notes SET flds = 'edited on b'")
        self.same([a, b], "notes", [(1, "g", "edited on b")])
        for node in (a, b):
            self.assertTrue(node.is_running())
            self.assertEqual(node.status().get("state"), "running")

    def test_a_table_that_is_ordered_by_it_is_refused_by_name(self):
        for table in ("decks", "tags", "fields"):
            with self.subTest(table):
                node = self.node(f"with-{table}", None, ["notes", table])
                connection = self.connect(node)
                connection.executescript(self.SCHEMA + MARKER_SCHEMA)
                connection.close()
                node.start(wait=False)
                self.until(lambda: not node.is_running(), "the node refuses to start")
                refused = node.log.read_text(encoding="utf-8")
                self.assertIn("unicase", refused)
                self.assertIn(table, refused)
                # Nothing of ours stands in the way of the application.
                self.execute(node, "INSERT INTO tags VALUES('Leech', 0)", "UPDATE tags SET usn = 1 WHERE tag = 'LEECH'", "DELETE FROM tags")

    def test_a_function_in_an_index_that_only_the_application_has(self):
        tables = ["plain", "indexed"]
        schema = "CREATE TABLE plain(id TEXT PRIMARY KEY, v TEXT); CREATE TABLE indexed(id TEXT PRIMARY KEY, v TEXT);"
        a, b = self.node("a", schema, tables), self.node("b", schema, tables)
        for node in (a, b):
            connection = node.connect()
            connection.create_function("soundex_of", 1, lambda text: text and text[0], deterministic=True)
            connection.execute("CREATE UNIQUE INDEX indexed_v ON indexed(soundex_of(v))")
            connection.close()
        a.start()
        b.start(a)
        connection = a.connect()
        connection.create_function("soundex_of", 1, lambda text: text and text[0], deterministic=True)
        connection.execute("INSERT INTO indexed VALUES('1', 'x')")
        connection.close()
        a.write("INSERT INTO plain VALUES('1', 'x')")
        self.same([a, b], "plain", [("1", "x")])
        b.write("UPDATE plain SET v = 'edited on b'")
        self.same([a, b], "plain", [("1", "edited on b")])
        self.until(lambda: b.read("SELECT id FROM indexed NOT INDEXED") or a.says("soundex_of") or b.says("soundex_of"), "it is said why the rows wait")


class AnApplicationThatSaysNo(Field):
    """Triggers with RAISE, CHECKs and views: what one machine's schema refuses waits there and is said; it stops nobody."""

    def test_a_trigger_that_refuses_some_rows(self):
        schema = "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER); CREATE TABLE other(id TEXT PRIMARY KEY, v TEXT);"
        a, b = self.pair(schema, ["t", "other"])
        for way, key in (("ABORT", "a"), ("FAIL", "f"), ("ROLLBACK", "r"), ("IGNORE", "i")):
            message = "" if way == "IGNORE" else f", 'not here ({way})'"
            b.write(f"CREATE TRIGGER no_{way} BEFORE INSERT ON t WHEN NEW.id LIKE '{key}%' BEGIN SELECT RAISE({way}{message}); END")
        a.transaction(*(f"INSERT INTO t VALUES('{key}', 1)" for key in ("a1", "f1", "good", "r1", "i1")), "INSERT INTO other VALUES('1', 'x')")
        self.same([b], "SELECT id FROM t", [("good",)])
        self.same([b], "other", [("1", "x")])
        self.until(lambda: {each["key"] for each in b.problems()} >= {"a1", "f1", "r1"}, lambda: f"b says which: {b.problems()}")
        self.level(a, b)
        b.write("UPDATE t SET n = 2 WHERE id = 'good'", *(f"DROP TRIGGER no_{way}" for way in ("ABORT", "FAIL", "ROLLBACK", "IGNORE")))
        self.ends_with([a, b], "t", [("a1", 1), ("f1", 1), ("good", 2), ("i1", 1), ("r1", 1)])
        self.until(lambda: b.problems() == [], lambda: f"nothing waits any more: {b.problems()}")
        self.all_clean(a, b)

    def test_views_with_instead_of_triggers(self):
        schema = """CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER);
            CREATE VIEW upper_t AS SELECT upper(id) AS id, n AS n FROM t;
            CREATE TRIGGER upper_insert INSTEAD OF INSERT ON upper_t BEGIN INSERT INTO t VALUES(lower(NEW.id), NEW.n); END;
            CREATE TRIGGER upper_delete INSTEAD OF DELETE ON upper_t BEGIN DELETE FROM t WHERE id = lower(OLD.id); END;"""
        a, b = self.pair(schema, ["t"])
        a.write("INSERT INTO upper_t VALUES('ONE', 1), ('TWO', 2)", "DELETE FROM upper_t WHERE id = 'TWO'")
        self.ends_with([a, b], "t", [("one", 1)])
        b.write("ALTER TABLE t RENAME COLUMN n TO number", "INSERT INTO upper_t VALUES('THREE', 3)", "DROP VIEW upper_t")
        self.ends_with([a, b], "t", [("one", 1), ("three", 3)])
        self.all_clean(a, b)

    def test_triggers_that_count_and_touch(self):
        """A stock level kept by a trigger, an `updated_at`, an audit log: each is done once where it happened, not again where
        it arrives."""
        schema = """CREATE TABLE product(id TEXT PRIMARY KEY, stock INTEGER, updated_by TEXT);
            CREATE TABLE sale(id TEXT PRIMARY KEY, product TEXT, n INTEGER);
            CREATE TABLE audit(id INTEGER PRIMARY KEY, what TEXT);
            CREATE TRIGGER sold AFTER INSERT ON sale BEGIN UPDATE product SET stock = stock - NEW.n WHERE id = NEW.product;
              INSERT INTO audit(what) VALUES(NEW.id); END;
            CREATE TRIGGER touched AFTER UPDATE OF stock ON product BEGIN UPDATE product SET updated_by = 'trigger' WHERE id = NEW.id; END;"""
        a, b = self.pair(schema, ["product", "sale"])
        a.write("INSERT INTO product VALUES('p', 100, 'a')")
        self.level(a, b)
        a.write("INSERT INTO sale VALUES('s1', 'p', 3)")
        self.ends_with([a, b], "product", [("p", 97, "trigger")])
        b.write("INSERT INTO sale VALUES('s2', 'p', 5)", "INSERT INTO sale VALUES('s3', 'p', 7)")
        self.ends_with([a, b], "product", [("p", 85, "trigger")])
        for node in (a, b):
            self.assertEqual(node.read("SELECT what FROM audit ORDER BY what"), [("s1",), ("s2",), ("s3",)], node.name)
        self.all_clean(a, b)


class ForeignKeysAsOrmsUseThem(Field):
    SCHEMA = """
CREATE TABLE p(id TEXT PRIMARY KEY, v TEXT);
CREATE TABLE c(id TEXT PRIMARY KEY, pid TEXT REFERENCES p(id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE g(id TEXT PRIMARY KEY, cid TEXT REFERENCES c(id) ON DELETE SET NULL);
CREATE TABLE tree(id TEXT PRIMARY KEY, up TEXT REFERENCES tree(id) ON DELETE CASCADE);
CREATE TABLE d(id TEXT PRIMARY KEY, pid TEXT REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED);
"""
    TABLES = ["p", "c", "g", "tree", "d"]

    def test_cascades_happen_once_and_travel(self):
        a, b = self.pair(self.SCHEMA, self.TABLES)
        nodes = [a, b]
        a.write(
            "INSERT INTO p VALUES('1', 'x'), ('2', 'y'), ('3', 'z')", "INSERT INTO c VALUES('c1', '1'), ('c2', '1'), ('c3', '2')",
            "INSERT INTO g VALUES('g1', 'c1'), ('g3', 'c3')", "INSERT INTO tree VALUES('r', NULL)",
            *(f"INSERT INTO tree VALUES('t{n}', '{'r' if n == 0 else f't{n - 1}'}')" for n in range(30)),
            "BEGIN", "INSERT INTO d VALUES('d1', 'later')", "INSERT INTO p VALUES('later', 'x')", "COMMIT",
        )  # fmt: skip
        self.ends_with(nodes, "tree")
        self.same(nodes, "d", [("d1", "later")])
        a.write("INSERT OR REPLACE INTO p VALUES('1', 'replaced')")
        self.ends_with(nodes, "c", [("c3", "2")])
        a.write("UPDATE p SET id = 'two' WHERE id = '2'")
        self.ends_with(nodes, "c", [("c3", "two")])
        b.write("DELETE FROM tree WHERE id = 'r'")
        self.ends_with(nodes, "tree", [])
        b.write("DELETE FROM p WHERE id = 'two'")
        self.ends_with(nodes, "g", [("g1", None), ("g3", None)])
        self.all_clean(a, b)

    def test_foreign_keys_switched_on_and_off_by_the_application(self):
        """A program imports with `PRAGMA foreign_keys = OFF`, children first, and switches it on again."""
        a, b = self.pair(self.SCHEMA, self.TABLES)
        a.write(
            "PRAGMA foreign_keys = OFF", "INSERT INTO g VALUES('g', 'c')", "INSERT INTO c VALUES('c', 'p')", "INSERT INTO p VALUES('p', 'x')",
            "PRAGMA foreign_keys = ON", "UPDATE p SET v = 'y'",
        )  # fmt: skip
        self.ends_with([a, b], "p", [("p", "y")])
        self.same([a, b], "c", [("c", "p")])
        self.same([a, b], "g", [("g", "c")])
        for node in (a, b):
            self.assertEqual(node.read("PRAGMA foreign_key_check"), [])
        self.all_clean(a, b)

    def test_a_parent_deleted_here_while_a_child_comes_there(self):
        """Kolibri issue 12138, Yamtrack issue 1190: later the ORM refuses to migrate because of a row without its parent. Which of the
        two users is right nobody but them can tell, so nothing is removed or brought back: the row is the same on both, and both say
        what is to be done, until it is done."""
        a, b = self.pair(self.SCHEMA, self.TABLES)
        a.write("INSERT INTO p VALUES('1', 'x'), ('2', 'y')")
        self.level(a, b)
        b.stop()
        a.write("DELETE FROM p")
        b.write("INSERT INTO c VALUES('child', '1')", "INSERT INTO tree VALUES('t', NULL)", "INSERT INTO c VALUES('other', '2')")
        b.start(a)
        self.ends_with([a, b], "c", [("child", "1"), ("other", "2")])
        self.same([a, b], "p", [])
        for node in (a, b):
            said = sorted((each["collection"], each["key"], each["kind"]) for each in node.problems())
            self.assertEqual(said, [("c", "child", "dangling"), ("c", "other", "dangling")], node.name)
        b.write("INSERT INTO p VALUES('1', 'again')")
        a.write("DELETE FROM c WHERE id = 'other'")
        self.ends_with([a, b], "c", [("child", "1")])
        self.same([a, b], "p", [("1", "again")])
        for node in (a, b):
            self.assertEqual(node.problems(), [], node.name)
            self.assertEqual(node.read("PRAGMA foreign_key_check"), [], node.name)
        self.all_clean(a, b)


class ManyTables(Field):
    """An ERP-like schema with 200 tables; a migration then alters each of them."""

    def test_two_hundred(self):
        tables = [f"t{n}" for n in range(200)]
        schema = "BEGIN;" + "".join(f"CREATE TABLE {table}(id TEXT PRIMARY KEY, v TEXT, w TEXT UNIQUE);" for table in tables) + "COMMIT;"
        a, b = self.pair(schema, tables)
        a.transaction(*(f"INSERT INTO {table} VALUES('1', 'x', 'u')" for table in tables))
        query = "SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
        self.ends_with([a, b], query, [(200,)])
        for node in (a, b):
            node.write(*(f"ALTER TABLE {table} ADD COLUMN x TEXT" for table in tables))
        a.transaction(*(f"UPDATE {table} SET x = 'new'" for table in tables))
        self.ends_with([a, b], query.replace("count(*)", "count(x)"), [(200,)])
        self.all_clean(a, b)

    def test_too_many_are_refused_by_number(self):
        tables = [f"t{n}" for n in range(300)]
        node = self.node("a", "".join(f"CREATE TABLE {table}(id TEXT PRIMARY KEY);" for table in tables), tables)
        node.start(wait=False)
        self.assertEqual(node.process.wait(60), 3)
        self.assertIn("256", node.log.read_text())
        self.assertEqual(node.read("SELECT name FROM sqlite_schema WHERE name LIKE '\\_entgldb%' ESCAPE '\\'"), [])
