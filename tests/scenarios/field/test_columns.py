"""Columns that come, go and change their name or type while nodes with the old and with the new schema live side by side."""
from field.mesh import Field

PERSON = "CREATE TABLE person(id TEXT PRIMARY KEY, name TEXT, age INTEGER);"
PERSON_RENAMED = "CREATE TABLE person(id TEXT PRIMARY KEY, full_name TEXT, age INTEGER);"
RENAME = "ALTER TABLE person RENAME COLUMN name TO full_name"


class AColumnIsRenamed(Field):
    """A team renames a column on every machine, one after the other; nobody touches the old rows (cr-sqlite issues 16 and 74).
    They expect the values under the new name everywhere, also on a machine that is set up later."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(PERSON, ["person"])
        self.people = [(f"p{n}", f"name {n}", n) for n in range(50)]
        self.a.write_all("INSERT INTO person VALUES(?, ?, ?)", self.people)
        self.same([self.a, self.b], "person", self.people)

    def test_a_machine_that_joins_later_has_the_values(self):
        a, b = self.a, self.b
        a.write(RENAME)
        self.level(a, b)
        b.write(RENAME)
        self.level(a, b)
        c = self.node("c", PERSON_RENAMED, ["person"]).start(a)
        self.ends_with([a, b, c], "person", self.people)
        c.write("UPDATE person SET age = 101 WHERE id = 'p1'")
        self.ends_with([a, b, c], "person", [*(row for row in self.people if row[0] != "p1"), ("p1", "name 1", 101)])
        self.all_clean(a, b, c)
        self.quiet(a, b, c)

    def test_a_machine_that_joins_a_rename_half_done_has_the_values(self):
        a, b = self.a, self.b
        a.write(RENAME)
        self.level(a, b)
        c = self.node("c", PERSON_RENAMED, ["person"]).start(a, b)
        self.ends_with([a, c], "person", self.people)
        c.write("UPDATE person SET full_name = 'edited on c' WHERE id = 'p2'")
        self.same([b], "SELECT name FROM person WHERE id = 'p2'", [("edited on c",)])
        b.write("UPDATE person SET name = 'edited on b' WHERE id = 'p3'")
        self.same([a, c], "SELECT full_name FROM person WHERE id = 'p3'", [("edited on b",)])
        self.all_clean(a, b, c)

    def test_edits_on_both_sides_of_the_rename_are_kept(self):
        a, b = self.a, self.b
        a.write(RENAME, "UPDATE person SET full_name = 'edited on a' WHERE id = 'p1'")
        b.write("UPDATE person SET name = 'edited on b' WHERE id = 'p2'", "UPDATE person SET age = 102 WHERE id = 'p3'")
        self.same([a], "SELECT full_name FROM person WHERE id IN ('p1', 'p2', 'p3')", [("edited on a",), ("edited on b",), ("name 3",)])
        self.same([b], "SELECT name FROM person WHERE id IN ('p1', 'p2', 'p3')", [("edited on a",), ("edited on b",), ("name 3",)])
        self.level(a, b)
        b.write(RENAME)
        self.ends_with([a, b], "SELECT id, full_name, age FROM person WHERE id IN ('p1', 'p2', 'p3')",
                       [("p1", "edited on a", 1), ("p2", "edited on b", 2), ("p3", "name 3", 102)])  # fmt: skip
        self.all_clean(a, b)

    def test_a_rename_while_the_node_is_stopped_loses_nothing(self):
        a, b = self.a, self.b
        a.stop()
        a.write(RENAME, "UPDATE person SET age = 101 WHERE id = 'p1'")
        a.start(b)
        self.same([b], "SELECT name, age FROM person WHERE id = 'p1'", [("name 1", 101)])
        b.stop()
        b.write(RENAME)
        b.start(a)
        expected = [*(row for row in self.people if row[0] != "p1"), ("p1", "name 1", 101)]
        self.ends_with([a, b], "person", expected)
        self.all_clean(a, b)

    def test_two_teams_choose_different_names_and_both_keep_the_values(self):
        a, b = self.a, self.b
        a.write(RENAME)
        b.write("ALTER TABLE person RENAME COLUMN name TO display_name")
        self.level(a, b)
        a.write("UPDATE person SET full_name = 'edited on a' WHERE id = 'p1'")
        self.same([b], "SELECT display_name FROM person WHERE id = 'p1'", [("edited on a",)])
        b.write("UPDATE person SET age = 102 WHERE id = 'p2'")
        self.same([a], "SELECT full_name, age FROM person WHERE id = 'p2'", [("name 2", 102)])
        self.all_clean(a, b)


class AColumnIsDropped(Field):
    """A migration drops a unique index and then its column, as drizzle-kit and hand-written migrations do (turso issue 6146).
    They expect it to work as it does without a sync layer."""

    SCHEMA = """CREATE TABLE item(id TEXT PRIMARY KEY, name TEXT, sku TEXT);
        CREATE UNIQUE INDEX item_sku ON item(sku);"""
    MIGRATION = ["DROP INDEX item_sku", "ALTER TABLE item DROP COLUMN sku"]

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(self.SCHEMA, ["item"])
        self.a.write("INSERT INTO item VALUES('1', 'x', 's1'), ('2', 'y', 's2')")
        self.level(self.a, self.b)

    def goes_on(self):
        """An old and a new node side by side, then both new."""
        a, b = self.a, self.b
        a.write("UPDATE item SET name = 'edited on a' WHERE id = '1'", "INSERT INTO item VALUES('3', 'z')")
        self.same([b], "item", [("1", "edited on a", "s1"), ("2", "y", "s2"), ("3", "z", None)])
        b.write("UPDATE item SET name = 'edited on b' WHERE id = '2'", *self.MIGRATION)
        self.ends_with([a, b], "item", [("1", "edited on a"), ("2", "edited on b"), ("3", "z")])
        self.all_clean(a, b)
        self.quiet(a, b)

    def test_one_statement_after_the_other(self):
        self.a.write(*self.MIGRATION)
        self.goes_on()

    def test_in_one_transaction(self):
        self.a.transaction(*self.MIGRATION)
        self.goes_on()

    def test_while_the_node_is_stopped(self):
        self.a.stop()
        self.a.write(*self.MIGRATION)
        self.a.start(self.b)
        self.goes_on()

    def test_rows_that_a_replace_displaces_travel_before_and_after(self):
        a, b = self.a, self.b
        a.write("INSERT OR REPLACE INTO item VALUES('9', 'took the code of 1', 's1')")
        self.ends_with([a, b], "item", [("2", "y", "s2"), ("9", "took the code of 1", "s1")])
        with a.frozen():  # the row that was displaced is written again before anybody looks
            a.write("INSERT OR REPLACE INTO item VALUES('1', 'again', 's2')", "INSERT INTO item VALUES('2', 'y again', 's7')")
        self.ends_with([a, b], "item", [("1", "again", "s2"), ("2", "y again", "s7"), ("9", "took the code of 1", "s1")])
        self.all_clean(a, b)


class AColumnIsAddedAgainWithAnotherType(Field):
    """`size TEXT` with 'large' is dropped; later a column `size INTEGER` is added for something else. Nobody wants to see
    'large' in it, nor a row that is refused because of it."""

    def test_the_new_column_starts_with_what_the_migration_gives_it(self):
        a, b = self.pair("CREATE TABLE shoe(id TEXT PRIMARY KEY, size TEXT, name TEXT);", ["shoe"])
        a.write("INSERT INTO shoe VALUES('1', 'large', 'boot'), ('2', 'small', 'slipper')")
        self.level(a, b)
        migration = ["ALTER TABLE shoe DROP COLUMN size", "ALTER TABLE shoe ADD COLUMN size INTEGER DEFAULT 42"]
        a.write(*migration)
        self.level(a, b)
        self.same([a], "SELECT id, size, name FROM shoe", [("1", 42, "boot"), ("2", 42, "slipper")])
        self.same([b], "SELECT id, size, name FROM shoe", [("1", "large", "boot"), ("2", "small", "slipper")])
        a.write("UPDATE shoe SET size = 45 WHERE id = '1'")
        b.write("UPDATE shoe SET name = 'mule' WHERE id = '2'")
        self.same([a], "SELECT id, size, name FROM shoe", [("1", 45, "boot"), ("2", 42, "mule")])
        self.level(a, b)
        b.write(*migration)
        self.ends_with([a, b], "SELECT id, size, name FROM shoe", [("1", 45, "boot"), ("2", 42, "mule")])
        self.all_clean(a, b)
        for node in (a, b):
            self.assertEqual(node.problems(), [], node.name)


class AColumnIsAdded(Field):
    SCHEMA = "CREATE TABLE product(id TEXT PRIMARY KEY, name TEXT, stock INTEGER);"
    ADD = "ALTER TABLE product ADD COLUMN color TEXT NOT NULL DEFAULT 'none'"

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair(self.SCHEMA, ["product"])
        self.a.write_all("INSERT INTO product VALUES(?, ?, 1)", [(f"p{n}", f"product {n}") for n in range(30)])
        self.level(self.a, self.b)

    def test_what_a_migration_fills_in_undoes_nobodys_edit(self):
        """A laptop is upgraded offline; nobody edits anything there, while people edit on the other machine, which was upgraded
        before (WatermelonDB issue 430). They expect their ten edits to be on both."""
        a, b = self.a, self.b
        b.stop()
        a.write(self.ADD)
        self.level(a)
        a.write(*(f"UPDATE product SET name = 'edited on a', color = 'red' WHERE id = 'p{n}'" for n in range(10)))
        b.write(self.ADD)
        b.start(a)
        expected = [(f"p{n}", "edited on a", 1, "red") for n in range(10)]
        expected += [(f"p{n}", f"product {n}", 1, "none") for n in range(10, 30)]
        self.ends_with([a, b], "product", expected)
        self.all_clean(a, b)
        self.quiet(a, b)

    def test_a_value_that_came_from_another_node_beats_the_default(self):
        a, b = self.a, self.b
        a.write(self.ADD, "UPDATE product SET color = 'red' WHERE id = 'p1'")
        self.level(a, b)
        b.write("UPDATE product SET stock = 7 WHERE id = 'p1'")  # by a program that does not know the column
        self.same([a], "SELECT stock, color FROM product WHERE id = 'p1'", [(7, "red")])
        b.write(self.ADD)
        query = "SELECT id, stock, color FROM product WHERE id IN ('p1', 'p2')"
        self.ends_with([a, b], query, [("p1", 7, "red"), ("p2", 1, "none")])
        self.all_clean(a, b)

    def test_a_row_from_a_node_without_the_column_gets_the_default(self):
        a, b = self.a, self.b
        a.write(self.ADD)
        self.level(a, b)
        b.write("INSERT INTO product VALUES('new', 'made by the old program', 3)")
        self.same([a], "SELECT name, color FROM product WHERE id = 'new'", [("made by the old program", "none")])
        a.write("UPDATE product SET color = 'blue' WHERE id = 'new'")
        self.level(a, b)
        b.write(self.ADD)
        self.ends_with([a, b], "SELECT name, color FROM product WHERE id = 'new'", [("made by the old program", "blue")])
        self.all_clean(a, b)

    def test_an_edit_of_another_column_resets_nothing(self):
        """The column was filled by a computed value: an edit that comes from a node without the column must not put it back."""
        a, b = self.a, self.b
        a.write("ALTER TABLE product ADD COLUMN label TEXT", "UPDATE product SET label = 'label of ' || id")
        self.level(a, b)
        b.write("UPDATE product SET stock = 9 WHERE id = 'p4'")
        self.same([a], "SELECT stock, label FROM product WHERE id = 'p4'", [(9, "label of p4")])
        self.all_clean(a, b)

    def test_not_null_without_a_default_is_said_and_holds_up_nothing_else(self):
        """A table is rebuilt with a column that every row must have. The other machine still makes rows without it."""
        a, b = self.a, self.b
        rebuild = [
            "CREATE TABLE new_product(id TEXT PRIMARY KEY, name TEXT, stock INTEGER, code TEXT NOT NULL)",
            "INSERT INTO new_product SELECT id, name, stock, 'code of ' || id FROM product",
            "DROP TABLE product", "ALTER TABLE new_product RENAME TO product",
        ]  # fmt: skip
        a.transaction(*rebuild, foreign_keys=False)
        self.level(a, b)
        b.write("INSERT INTO product VALUES('new', 'made by the old program', 3)", "UPDATE product SET stock = 8 WHERE id = 'p2'")
        self.same([a], "SELECT stock, code FROM product WHERE id = 'p2'", [(8, "code of p2")])
        self.until(lambda: any(each["key"] == "new" for each in a.problems()), "a says that it can't take the row")
        b.transaction(*rebuild, foreign_keys=False)
        # What a migration computes is no write: the value travels with the row's next one.
        b.write("UPDATE product SET stock = 4 WHERE id = 'new'")
        query = "SELECT id, stock, code FROM product WHERE id IN ('new', 'p2')"
        self.ends_with([a, b], query, [("new", 4, "code of new"), ("p2", 8, "code of p2")])
        self.until(lambda: a.problems() == [], lambda: f"nothing is set aside any more: {a.problems()}")
        self.all_clean(a, b)


class AColumnChangesItsType(Field):
    """`pages INTEGER` becomes `pages TEXT` by a rebuild of the table, on one machine after the other (Alembic's alter_column)."""

    REBUILD = [
        "CREATE TABLE _alembic_tmp_book(id TEXT PRIMARY KEY, title TEXT, pages TEXT NOT NULL)",
        "INSERT INTO _alembic_tmp_book SELECT id, title, pages FROM book",
        "DROP TABLE book", "ALTER TABLE _alembic_tmp_book RENAME TO book",
    ]  # fmt: skip

    def test_values_are_the_same_by_each_ones_type(self):
        a, b = self.pair("CREATE TABLE book(id TEXT PRIMARY KEY, title TEXT, pages INTEGER);", ["book"])
        a.write_all("INSERT INTO book VALUES(?, 'title', ?)", [(f"b{n}", n) for n in range(40)])
        self.level(a, b)
        a.transaction(*self.REBUILD)
        self.level(a, b)
        a.write("UPDATE book SET pages = '300' WHERE id = 'b1'", "UPDATE book SET title = 'edited on a' WHERE id = 'b2'")
        b.write("UPDATE book SET pages = 400 WHERE id = 'b3'", "INSERT INTO book VALUES('b40', 'new', 500)")
        # The one with the wider type may hold what the other can't.
        a.write("UPDATE book SET pages = 'about 10' WHERE id = 'b4'")
        query = "SELECT id, title, CAST(pages AS TEXT) FROM book"
        changed = {"b1": ("title", "300"), "b2": ("edited on a", "2"), "b3": ("title", "400"), "b4": ("title", "about 10"), "b40": ("new", "500")}
        expected = [(f"b{n}", *changed.get(f"b{n}", ("title", str(n)))) for n in range(41)]
        self.ends_with([a, b], query, expected)
        b.transaction(*self.REBUILD)
        self.ends_with([a, b], "book", expected)
        self.assertEqual({row[0] for row in a.read("SELECT typeof(pages) FROM book")}, {"text"})
        self.all_clean(a, b)


class NamesDifferInTheirCase(Field):
    """One version of a program made `Items(Name)`, another `items(name)`; to SQLite they are the same (EF Core and Rails programs
    on one database). They expect the same of sync."""

    has_equal_vectors = False

    def test_tables(self):
        a = self.node("a", "CREATE TABLE Items(id TEXT PRIMARY KEY, v TEXT);", ["items"]).start()
        b = self.node("b", "CREATE TABLE items(id TEXT PRIMARY KEY, v TEXT);", ["items"]).start(a)
        a.write("INSERT INTO items VALUES('1', 'x')")
        b.write("INSERT INTO items VALUES('2', 'y')")
        self.ends_with([a, b], "items", [("1", "x"), ("2", "y")])

    def test_columns(self):
        a = self.node("a", "CREATE TABLE items(id TEXT PRIMARY KEY, Name TEXT);", ["items"]).start()
        b = self.node("b", "CREATE TABLE items(ID TEXT PRIMARY KEY, name TEXT);", ["items"]).start(a)
        a.write("INSERT INTO items VALUES('1', 'x')")
        b.write("INSERT INTO items VALUES('2', 'y')")
        self.ends_with([a, b], "items", [("1", "x"), ("2", "y")])
        b.write("UPDATE items SET name = 'edited on b' WHERE id = '1'")
        self.ends_with([a, b], "items", [("1", "edited on b"), ("2", "y")])
        self.all_clean(a, b)

    def test_a_rename_that_changes_only_the_case(self):
        a, b = self.pair("CREATE TABLE items(id TEXT PRIMARY KEY, name TEXT);", ["items"])
        a.write("INSERT INTO items VALUES('1', 'x')")
        self.level(a, b)
        a.write("ALTER TABLE items RENAME COLUMN name TO Name", "ALTER TABLE items RENAME TO Items2", "ALTER TABLE Items2 RENAME TO Items")
        self.level(a, b)
        b.write("UPDATE items SET name = 'edited on b'")
        self.ends_with([a, b], "items", [("1", "edited on b")])
        a.write("INSERT INTO items VALUES('2', 'y')")
        self.ends_with([a, b], "items", [("1", "edited on b"), ("2", "y")])
        self.all_clean(a, b)


class ATableIsRenamed(Field):
    """`product` becomes `goods` on a machine whose node runs (Django's AlterModelTable). Nothing of it travels any more under the
    old name; its user expects to be told, all other tables to go on, and to lose nothing when the node is started with the new name."""

    has_equal_vectors = False

    def test_it_is_said_at_once_and_the_rows_are_there_under_the_new_name(self):
        a, b = self.pair("CREATE TABLE product(id TEXT PRIMARY KEY, name TEXT);", ["product"])
        a.write("INSERT INTO product VALUES('1', 'one'), ('2', 'two')")
        self.level(a, b)
        a.write("ALTER TABLE product RENAME TO goods", "UPDATE goods SET name = 'edited after' WHERE id = '1'")
        self.until(lambda: "product" in str(a.problems()), lambda: f"a says that the table is gone: {a.problems()}")
        self.until(lambda: "product" in str(a.status()), lambda: f"the status says it too: {a.status()}")
        b.write("UPDATE product SET name = 'edited on b' WHERE id = '2'")
        self.same_marker(a, b)
        b.write("ALTER TABLE product RENAME TO goods")
        for node in (a, b):
            node.stop()
            node.tables = ["goods", "marker"]
        a.start()
        b.start(a)
        self.same([a, b], "SELECT id FROM goods", [("1",), ("2",)])
        self.level(a, b)
        names = dict(a.read("SELECT id, name FROM goods"))
        self.assertIn(names["2"], ("edited on b", "two"))
        self.all_clean(a, b)

    def test_a_table_that_is_dropped_and_made_again_empty_deletes_nothing_elsewhere(self):
        a, b = self.pair("CREATE TABLE product(id TEXT PRIMARY KEY, name TEXT);", ["product"])
        products = [(f"p{n}", f"product {n}") for n in range(40)]
        a.write_all("INSERT INTO product VALUES(?, ?)", products)
        self.level(a, b)
        a.write("DROP TABLE product")
        self.until(lambda: "product" in str(a.problems()), lambda: f"a says that the table is gone: {a.problems()}")
        self.same_marker(a, b)
        self.same([b], "product", products)
        a.write("CREATE TABLE product(id TEXT PRIMARY KEY, name TEXT)", "INSERT INTO product VALUES('new', 'written after')")
        self.same([b], "product", [*products, ("new", "written after")])
        self.level(a, b)
        self.same([b], "product", [*products, ("new", "written after")])
        b.write("UPDATE product SET name = 'edited on b' WHERE id = 'new'")
        self.same([a, b], "SELECT name FROM product WHERE id = 'new'", [("edited on b",)])

    def same_marker(self, a, b):
        a.write("INSERT INTO marker VALUES('other table, a', 1)")
        b.write("INSERT INTO marker VALUES('other table, b', 1)")
        self.same([a, b], "SELECT count(*) FROM marker WHERE id LIKE 'other%'", [(2,)])
