"""Values and keys as applications have them: what is in a row on one machine is in it on all, to the bit."""
import math

from field.mesh import Field


class KeysAsPeopleHaveThem(Field):
    """A declared primary key is all that is asked for (Anki's tags and fields, UUIDs as BLOB)."""

    TABLES = {
        "blob_rowid": ("id BLOB PRIMARY KEY, v", "", [b"\x00\x01"]),
        "blob": ("id BLOB PRIMARY KEY, v", "WITHOUT ROWID", [b"\x00\x01"]),
        "blob_strict": ("id BLOB PRIMARY KEY, v ANY", "STRICT, WITHOUT ROWID", [b"\xff\x00"]),
        "nocase_rowid": ("id TEXT COLLATE NOCASE PRIMARY KEY, v", "", ["Key"]),
        "nocase": ("id TEXT COLLATE NOCASE PRIMARY KEY, v", "WITHOUT ROWID", ["Key"]),
        "rtrim": ("id TEXT COLLATE RTRIM PRIMARY KEY, v", "WITHOUT ROWID", ["Key  "]),
        "untyped": ("id PRIMARY KEY, v", "WITHOUT ROWID", ["Key"]),
        "untyped_integer": ("id PRIMARY KEY, v", "WITHOUT ROWID", [7]),
        "pair_blob": ("a INTEGER, id BLOB, v, PRIMARY KEY(a, id)", "WITHOUT ROWID", [1, b"\x00"]),
        "pair_text": ("a TEXT, id TEXT, v, PRIMARY KEY(a, id)", "WITHOUT ROWID", ["x", "y"]),
        "text": ("id TEXT PRIMARY KEY, v", "WITHOUT ROWID", ["k"]),
        "integer": ("id INTEGER PRIMARY KEY, v", "", [9007199254740993]),
        "integer_desc": ("id INTEGER PRIMARY KEY DESC, v", "", [1]),
    }

    def test_each_kind(self):
        schema = "".join(f"CREATE TABLE {name}({columns}) {options};" for name, (columns, options, _) in self.TABLES.items())
        a, b = self.pair(schema, list(self.TABLES))
        for name, (_, _, key) in self.TABLES.items():
            a.write((f"INSERT INTO {name} VALUES({', '.join('?' * (len(key) + 1))})", (*key, "first")))
        self.level(a, b)
        for name, (_, _, key) in self.TABLES.items():
            with self.subTest(name):
                self.same([a, b], name, [(*key, "first")])
                b.write(f"UPDATE {name} SET v = 'second'")
                self.same([a, b], name, [(*key, "second")])
                a.write(f"DELETE FROM {name}")
                self.same([a, b], name, [])
        self.all_clean(a, b)
        self.quiet(a, b)

    def test_odd_long_and_foreign_texts(self):
        a, b = self.pair("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"])
        keys = [
            "", " ", "a b", "quote ' and \"", "back\\slash", "[\"like\",\"json\"]", "{}", "null", "1", "1.0", "-0", "é", "e\u0301", "ß", "ẞ",
            "日本語", "עברית", "👩‍👩‍👧‍👦", "🏳️‍🌈", "\U0010ffff", "\u200b", "\ufeff", "line\nbreak", "tab\t", "\x01", "\x7f", "%", "_", "../../etc", "x" * 1024,
        ]  # fmt: skip
        a.write_all("INSERT INTO t VALUES(?, ?)", [(key, f"number {n}") for n, key in enumerate(keys)])
        empty = [("", "number 0")]  # the one that can't travel, and is said
        expected = [(key, f"number {n}") for n, key in enumerate(keys) if key]
        self.level(a, b)
        self.same([b], "SELECT * FROM t WHERE id <> ''", expected)
        if b.read("SELECT * FROM t WHERE id = ''") != empty:
            self.assertTrue(a.problems(), "what can't travel is said")
        b.write_all("UPDATE t SET v = v || ', edited' WHERE id = ?", [(key,) for key in keys if key])
        self.ends_with([a, b], "SELECT * FROM t WHERE id <> ''", [(key, f"{value}, edited") for key, value in expected])
        a.write("DELETE FROM t WHERE id <> ''")
        self.same([a, b], "SELECT * FROM t WHERE id <> ''", [])
        self.all_clean(a, b)

    def test_a_key_that_cant_be_one_holds_up_nothing(self):
        """NULL keys (SQLite allows them), keys too long or with a NUL, and a number where others have text."""
        a, b = self.pair("CREATE TABLE t(id PRIMARY KEY, v TEXT);", ["t"])
        keys = [None, "x" * 5000, "nul\0inside", 1.5, 7, b"\x00\xff", "7", "good"]
        a.write_all("INSERT INTO t VALUES(?, 'v')", [(key,) for key in keys])
        self.same([b], "SELECT * FROM t WHERE id = 'good'", [("good", "v")])
        self.level(a, b)
        missing = {repr(row) for row in a.rows("t")} - {repr(row) for row in b.rows("t")}
        said = a.problems()
        self.assertEqual(len(missing), len(said), f"each row that can't travel is said: {missing}, {said}")
        for node in (a, b):
            self.assertTrue(node.is_running())
        a.write("UPDATE t SET v = 'edited' WHERE id = 'good'")
        self.same([b], "SELECT v FROM t WHERE id = 'good'", [("edited",)])

    def test_a_key_that_changes_only_in_its_case(self):
        a, b = self.pair("CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY, v TEXT);", ["t"])
        a.write("INSERT INTO t VALUES('strasse', '1')")
        self.level(a, b)
        a.write("UPDATE t SET id = 'Strasse'")
        self.ends_with([a, b], "t", [("Strasse", "1")])
        b.write("INSERT INTO t VALUES('STRASSE', '2') ON CONFLICT DO UPDATE SET v = excluded.v")
        self.ends_with([a, b], "t", [("Strasse", "2")])
        b.write("INSERT OR REPLACE INTO t VALUES('STRASSE', '3')")
        self.ends_with([a, b], "t", [("STRASSE", "3")])
        a.write("DELETE FROM t WHERE id = 'strasse'")
        self.ends_with([a, b], "t", [])
        self.all_clean(a, b)
        self.quiet(a, b)

    def test_keys_that_move(self):
        """Two rows swap their keys in one transaction, a whole table is renumbered."""
        a, b = self.pair("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);", ["t"])
        a.write("INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three')")
        self.level(a, b)
        a.transaction("UPDATE t SET id = -1 WHERE id = 1", "UPDATE t SET id = 1 WHERE id = 2", "UPDATE t SET id = 2 WHERE id = -1")
        self.ends_with([a, b], "t", [(1, "two"), (2, "one"), (3, "three")])
        b.write("UPDATE t SET id = id + 100")
        self.ends_with([a, b], "t", [(101, "two"), (102, "one"), (103, "three")])
        self.all_clean(a, b)


class ValuesAsPeopleHaveThem(Field):
    ANY = [
        0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 0.1, -0.0, 1e308, 5e-324, 1e15, 123456789.123456789, math.inf, -math.inf, "", "text", "1", "1.0",
        "\0", "nul\0inside", "🙂", "\\u0000", "{\"$blob\": \"AA==\"}", b"", b"\x00", bytes(range(256)), None, "x" * 100_000, "9" * 50,
    ]  # fmt: skip
    SCHEMA = """CREATE TABLE anything(id INTEGER PRIMARY KEY, v);
        CREATE TABLE affinity(id INTEGER PRIMARY KEY, i INTEGER, r REAL, n NUMERIC, t TEXT, b BLOB, d DATE, f BOOLEAN);
        CREATE TABLE strict_one(id INTEGER PRIMARY KEY, i INTEGER, r REAL, t TEXT, b BLOB, a ANY) STRICT;"""

    def test_they_are_the_same_to_the_bit(self):
        a, b = self.pair(self.SCHEMA, ["anything", "affinity", "strict_one"])
        a.write_all("INSERT INTO anything VALUES(?, ?)", enumerate(self.ANY))
        a.write_all("INSERT INTO affinity VALUES(?, ?, ?, ?, ?, ?, ?, ?)", ((n, *[value] * 7) for n, value in enumerate(self.ANY)))
        a.write_all(
            "INSERT INTO strict_one VALUES(?, ?, ?, ?, ?, ?)",
            [(1, 2**63 - 1, 5e-324, "nul\0inside", b"\x00", "1"), (2, None, -0.0, "", b"", 1.5), (3, -(2**63), 1e308, "🙂", b"\xff" * 1000, 7)],
        )
        self.level(a, b)
        for table, columns in {"anything": "v", "affinity": "i r n t b d f", "strict_one": "i r t b a"}.items():
            shown = ", ".join(f"typeof({column}), quote({column})" for column in columns.split())
            for each in a.read(f"SELECT id, {shown} FROM {table}"):
                with self.subTest(table, number=each[0]):
                    self.assertEqual(b.read(f"SELECT id, {shown} FROM {table} WHERE id = ?", each[0]), [each])
        self.all_clean(a, b)
        self.quiet(a, b)

    def test_an_update_that_changes_nothing_travels_nowhere(self):
        a, b = self.pair(self.SCHEMA, ["anything"])
        a.write("INSERT INTO anything VALUES(1, 'x')")
        self.level(a, b)
        count = "SELECT coalesce(sum(seq), 0) FROM _entgldb_logs"
        before = a.value(count)
        a.write("UPDATE anything SET v = v", "UPDATE anything SET v = 'x'", "INSERT OR REPLACE INTO anything VALUES(1, 'x')")
        self.level(a, b)
        self.assertLessEqual(a.value(count) - before, 4, "the marker's writes and what a node says of itself, nothing else")
        self.all_clean(a, b)

    def test_text_in_utf_16(self):
        schema = "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);"
        a = self.node("a", schema, ["t"], wal=False).start()
        b = self.node("b", "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"]).start(a)
        self.assertEqual(a.value("PRAGMA encoding"), "UTF-16le")
        a.write(("INSERT INTO t VALUES(?, ?)", ("🙂 on a", "ÄÖÜ 日本")))
        b.write(("INSERT INTO t VALUES(?, ?)", ("🙂 on b", "ÄÖÜ 日本")))
        self.ends_with([a, b], "t", [("🙂 on a", "ÄÖÜ 日本"), ("🙂 on b", "ÄÖÜ 日本")])
        self.all_clean(a, b)


class ColumnsThatCompute(Field):
    def test_generated_columns_checks_defaults_and_expression_indexes(self):
        a, b = self.pair(
            """CREATE TABLE line(id TEXT PRIMARY KEY, price INTEGER CHECK (price >= 0), amount INTEGER DEFAULT 1,
                 total INTEGER GENERATED ALWAYS AS (price * amount) STORED, label TEXT AS (upper(id)) VIRTUAL,
                 made TEXT DEFAULT CURRENT_TIMESTAMP);
               CREATE UNIQUE INDEX line_label ON line(label); CREATE INDEX line_total ON line(total) WHERE total > 10;
               CREATE UNIQUE INDEX line_text ON line(lower(id) || '-' || price);""",
            ["line"],
        )
        a.write("INSERT INTO line(id, price) VALUES('a', 5)", "INSERT INTO line(id, price, amount) VALUES('b', 7, 3)")
        self.level(a, b)
        self.same([a, b], "line")
        b.write("UPDATE line SET amount = 10 WHERE id = 'a'")
        self.ends_with([a, b], "SELECT id, total, label FROM line", [("a", 50, "A"), ("b", 21, "B")])
        a.write("INSERT OR REPLACE INTO line(id, price) VALUES('B', 1)")  # displaces 'b' by its label
        self.ends_with([a, b], "SELECT id, total FROM line", [("a", 50), ("B", 1)])
        a.write("ALTER TABLE line ADD COLUMN double INTEGER AS (price * 2) VIRTUAL")
        b.write("UPDATE line SET price = 6 WHERE id = 'a'")
        self.ends_with([a], "SELECT id, total, double FROM line", [("a", 60, 12), ("B", 1, 2)])
        self.same([a, b], "SELECT id, price, total, made FROM line")
        self.all_clean(a, b)
        self.quiet(a, b)


class RowsOverTheLimit(Field):
    """A photo that is larger than what may travel (couchdb issues 1734 and 3085)."""

    SCHEMA = "CREATE TABLE photo(id TEXT PRIMARY KEY, name TEXT, data BLOB);"

    def start_with_limit(self, node, limit, *peers):
        node.options = node.options[:2]
        if limit:
            config = self.folder / f"{node.name}.json"
            frame = max(4 << 20, limit + (2 << 20))
            limits = f'"payload_bytes_max": {limit}, "frame_bytes_max": {frame}'
            config.write_text(f'{{"database": "{node.database}", "secret_file": "{self.secret}", {limits}}}')
            node.options += ["--config", str(config)]
        return node.start(*peers)

    def test_it_travels_as_soon_as_the_limit_allows_it(self):
        """It is reported; the user raises the limit on all machines, starts them again, and expects it to arrive untouched."""
        a, b = self.pair(self.SCHEMA, ["photo"])
        a.write("INSERT INTO photo VALUES('small', 's', randomblob(700000))", "INSERT INTO photo VALUES('big', 'b', randomblob(900000))")
        self.same([b], "SELECT id FROM photo", [("small",)])
        self.until(lambda: any(each["key"] == "big" for each in a.problems()), "a reports it")
        for node in (a, b):
            node.stop()
        self.start_with_limit(a, 2 << 20)
        self.start_with_limit(b, 2 << 20, a)
        self.ends_with([a, b], "photo")
        self.assertEqual(b.value("SELECT length(data) FROM photo WHERE id = 'big'"), 900000)
        self.until(lambda: a.problems() == [], lambda: f"it is no problem any more: {a.problems()}")
        self.all_clean(a, b)

    def test_a_receiver_with_a_smaller_limit_takes_it(self):
        """`payload_bytes_max` limits what a machine writes itself. It takes what others wrote, and says so if it is to write such a
        row on."""
        a, b = self.node("a", self.SCHEMA, ["photo"]), self.node("b", self.SCHEMA, ["photo"])
        self.start_with_limit(a, 2 << 20)
        self.start_with_limit(b, None, a)
        a.write("INSERT INTO photo VALUES('big', 'b', randomblob(900000))", "INSERT INTO photo VALUES('after', 'x', NULL)")
        self.same([b], "SELECT id, length(data) FROM photo", [("after", None), ("big", 900000)])
        self.same([a, b], "photo")
        self.assertEqual(b.problems(), [])
        b.write("UPDATE photo SET name = 'edited on b' WHERE id = 'big'")
        self.until(lambda: any(each.get("key") == "big" for each in b.problems()), "b says that its edit does not travel")
        self.assertEqual(b.value("SELECT name FROM photo WHERE id = 'big'"), "edited on b")

    def test_a_row_that_fits_no_frame_of_the_receiver_is_said_on_both_sides(self):
        """A history has no holes, so what its author wrote later waits too; other tables and others' rows go on."""
        schema = self.SCHEMA + "CREATE TABLE note(id TEXT PRIMARY KEY, v TEXT);"
        a, b = self.node("a", schema, ["photo", "note"]), self.node("b", schema, ["photo", "note"])
        self.start_with_limit(a, 6 << 20)
        b.start(a)
        a.write("INSERT INTO photo VALUES('before', 'x', NULL)")
        self.same([b], "SELECT id FROM photo", [("before",)])
        a.write("INSERT INTO photo VALUES('big', 'b', randomblob(4000000))")
        self.until(lambda: any("frame_bytes_max" in each["reason"] for each in a.blocked()), lambda: f"a says it: {a.status()}")
        b.write("INSERT INTO note VALUES('1', 'of b')")
        self.same([a], "note", [("1", "of b")])
        self.until(lambda: any("do not come" in each["reason"] for each in b.blocked()), lambda: f"b says it: {b.status()}")
        # Allowed by the receiver, it comes.
        b.stop()
        self.start_with_limit(b, 6 << 20, a)
        self.same([a, b], "SELECT id, length(data) FROM photo", [("before", None), ("big", 4000000)])
        self.until(lambda: a.blocked() == [] and b.blocked() == [], lambda: f"nothing waits any more: {a.blocked()}, {b.blocked()}")
        self.all_clean(a, b)

    def test_a_remote_edit_does_not_destroy_it(self):
        """A row that was synced gets a photo over the limit, then somebody renames the row elsewhere. The photo stays, or is kept as the
        version that lost; the README says that no remote change overwrites a local one that was not seen."""
        a, b = self.pair(self.SCHEMA, ["photo"])
        a.write("INSERT INTO photo VALUES('1', 'cat', NULL)")
        self.level(a, b)
        a.write("UPDATE photo SET data = zeroblob(2000000) WHERE id = '1'")
        self.until(a.problems, "a reports it")
        b.write("UPDATE photo SET name = 'dog' WHERE id = '1'")
        self.level(a, b)
        kept = a.value(
            "SELECT count(*) FROM _entgldb_conflicts WHERE length(winner_content) > 2000000 OR length(loser_content) > 2000000"
        )
        stands = a.value("SELECT length(data) FROM photo") == 2_000_000
        self.assertTrue(stands or kept, f"{a.read('SELECT name, length(data) FROM photo')}, {a.conflicts()}")
        # Made smaller by the application, all is well again.
        a.write("UPDATE photo SET data = x'01' WHERE id = '1'")
        self.ends_with([a, b], "SELECT data FROM photo", [(b"\x01",)])
        self.until(lambda: a.problems() == [], lambda: f"it is no problem any more: {a.problems()}")
        self.all_clean(a, b)

    def test_rows_that_compress_well(self):
        """One text, a BLOB of zeros: what is sent must not be taken for an attack by its receiver."""
        a, b = self.pair(self.SCHEMA, ["photo"])
        a.write("INSERT INTO photo VALUES('zeros', 'z', zeroblob(700000))")
        a.write(("INSERT INTO photo VALUES('text', ?, NULL)", ("x" * 900_000,)))
        a.write_all("INSERT INTO photo VALUES(?, ?, NULL)", ((f"many {n}", "the same " * 2700) for n in range(180)))
        self.ends_with([a, b], "SELECT id, length(name), length(data) FROM photo")
        self.assertEqual(b.value("SELECT count(*) FROM photo"), 182)
        self.assertEqual([each for node in (a, b) for each in node.alarms], [])
        self.all_clean(a, b)
