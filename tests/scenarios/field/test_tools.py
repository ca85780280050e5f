"""Real Django, Alembic, SQLAlchemy and drizzle-kit beside real nodes. In the soak only: they come from the network."""
import pathlib
import subprocess
import sys

from field import tools
from field.mesh import Field

TILL = ["till_category", "till_product"]


@tools.needs_python
class DjangoPrograms(Field):
    def start(self, count=30):
        a, b = self.node("a", "", TILL), self.node("b", "", TILL)
        for node in (a, b):
            tools.django(node, "0001", "migrate")
        a.start()
        b.start(a)
        self.linked(a, b)
        tools.django(a, "0001", f"for n in range({count}): Product.objects.create(id=uuid.UUID(int=n + 1), name=f'product {{n}}', stock=1)")
        self.level(a, b)
        return a, b

    def test_an_upgrade_offline_undoes_no_edits(self):
        """Laptop b is offline and upgraded; Django builds the table anew and fills the new column. Meanwhile people edit on a."""
        a, b = self.start()
        b.stop()
        tools.django(a, "0002", "migrate")
        self.level(a)
        tools.django(a, "0002", "for p in Product.objects.filter(name__startswith='product 1'): p.name, p.color = 'edited on a', 'red'; p.save()")
        self.level(a)
        tools.django(b, "0002", "migrate")
        b.start(a)
        query = "SELECT name, color, count(*) FROM till_product WHERE name = 'edited on a' GROUP BY 1, 2"
        self.ends_with([a, b], query, [("edited on a", "red", 11)])
        self.same([a, b], "till_product")
        self.all_clean(a, b)
        self.quiet(a, b)

    def test_all_releases_are_rolled_out_one_machine_after_the_other(self):
        a, b = self.start()
        for version in ("0002", "0003", "0004"):
            tools.django(a, version, "migrate")
            # The old program on b, the new one on a.
            name = "name" if version in ("0002",) else "title"
            tools.django(a, version, f"p = Product.objects.get(id=uuid.UUID(int=3)); p.{name} = 'new on a, {version}'; p.price += 1; p.save()")
            old = f"{int(version) - 1:04}"
            name = "name" if old in ("0001", "0002") else "title"
            tools.django(b, old, f"p = Product.objects.get(id=uuid.UUID(int=4)); p.{name} = 'old on b, {version}'; p.stock += 1; p.save()")
            self.level(a, b)
            tools.django(b, version, "migrate")
            self.level(a, b)
            self.same([a, b], "till_product")
        rows = dict(a.read("SELECT id, title || ', ' || price || ', ' || stock FROM till_product"))
        self.assertEqual(rows["0" * 31 + "3"], "new on a, 0004, 3, 1")
        self.assertEqual(rows["0" * 31 + "4"], "old on b, 0004, 0, 4")
        self.all_clean(a, b)

    def test_the_next_migration_works_beside_a_reference_that_dangles(self):
        """Kolibri issue 12138, django-wiki issue 1112: after a parent was deleted here while a child came there, Django refuses to migrate."""
        a, b = self.start()
        tools.django(a, "0001", "Category.objects.create(id=uuid.UUID(int=7), name='tools')")
        self.level(a, b)
        b.stop()
        tools.django(a, "0001", "Category.objects.get(id=uuid.UUID(int=7)).delete()")
        tools.django(b, "0001", "Product.objects.create(id=uuid.UUID(int=70), name='hammer', category_id=uuid.UUID(int=7))")
        b.start(a)
        self.level(a, b)
        self.same([a, b], "till_product")
        for node in (a, b):
            tools.django(node, "0002", "migrate")
        self.level(a, b)
        self.same([a, b], "till_product")

    def test_transactions_begun_immediately_do_not_fail(self):
        a, b = self.start()
        tools.django(a, "0001", "Product.objects.create(id=uuid.UUID(int=999), name='counter')")
        self.level(a, b)
        writer = subprocess.Popen([sys.executable, "-c", "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\nwhile True: c.execute('INSERT INTO till_category VALUES(lower(hex(randomblob(16))), hex(randomblob(16)))'); time.sleep(0.1)", str(b.database)])  # fmt: skip
        self.ends.append(lambda: (writer.kill(), writer.wait()))
        code = """
import time
failed = done = 0
end = time.monotonic() + 10
while time.monotonic() < end:
    try:
        with transaction.atomic():
            p = Product.objects.get(id=uuid.UUID(int=999)); time.sleep(0.005); p.stock += 1; p.save()
        done += 1
    except OperationalError: failed += 1
    time.sleep(0.02)
print(done, failed)
"""
        results = {mode or "DEFERRED": tools.django(a, "0001", code, DJANGO_TRANSACTION_MODE=mode).split() for mode in ("", "IMMEDIATE")}
        print(f"({', '.join(f'{mode}: {failed} of {int(done) + int(failed)} failed' for mode, (done, failed) in results.items())}) ", end="", flush=True)
        writer.kill()
        writer.wait()
        self.assertEqual(results["IMMEDIATE"][1], "0")
        expected = sum(int(done) for done, _ in results.values())
        self.ends_with([a, b], "SELECT stock FROM till_product WHERE name = 'counter'", [(expected,)])
        self.all_clean(a, b)


@tools.needs_python
class AlembicRevisions(Field):
    INITIAL = """
op.create_table('author', sa.Column('id', sa.Uuid, primary_key=True), sa.Column('name', sa.String(50), nullable=False, unique=True))
op.create_table('book', sa.Column('id', sa.String(36), primary_key=True), sa.Column('title', sa.String(100)), sa.Column('pages', sa.Integer),
  sa.Column('price', sa.Numeric(10, 2)), sa.Column('isbn', sa.String(20)), sa.Column('author_id', sa.Uuid, sa.ForeignKey('author.id', name='fk_author')))
op.create_index('ix_isbn', 'book', ['isbn'], unique=True)
"""
    REVISIONS = [
        "with op.batch_alter_table('book', recreate='always') as b: b.add_column(sa.Column('lang', sa.String(5), nullable=False, server_default='en'))",
        "with op.batch_alter_table('book') as b: b.alter_column('pages', type_=sa.String(10), nullable=False)",
        "with op.batch_alter_table('book') as b: b.alter_column('title', new_column_name='name')",
        "with op.batch_alter_table('book') as b: b.create_unique_constraint('uq_name', ['name'])",
        "with op.batch_alter_table('book') as b: b.drop_index('ix_isbn'); b.drop_column('isbn')",
        "op.add_column('book', sa.Column('note', sa.Text))",
        "op.create_index('ix_note', 'book', ['note'], unique=True); connection.execute(sa.text(\"UPDATE book SET note = id WHERE pages = '1'\"));"
        " connection.commit(); op.drop_index('ix_note', 'book'); op.drop_column('book', 'note')",
    ]

    def test_each_revision_on_both_while_people_write(self):
        a, b, control = self.node("a", "", ["author", "book"]), self.node("b", "", ["author", "book"]), self.node("control", "", [])
        for node in (a, b, control):
            done = tools.alembic(node, self.INITIAL)
            self.assertEqual(done.returncode, 0, done.stderr)
        a.start()
        b.start(a)
        self.linked(a, b)
        author = "0" * 31 + "1"
        a.write(("INSERT INTO author VALUES(?, 'A')", (author,)))
        a.write_all("INSERT INTO book VALUES(?, ?, ?, 1, ?, ?)", [(f"b{n}", f"t{n}", n, f"i{n}", author) for n in range(200)])
        self.level(a, b)
        for number, revision in enumerate(self.REVISIONS, start=1):
            with self.subTest(revision):
                expected = tools.alembic(control, revision).returncode
                for node in (a, b):
                    done = tools.alembic(node, revision)
                    self.assertEqual(done.returncode, expected, done.stderr[-800:])
                a.write("UPDATE book SET price = price + 1 WHERE id = 'b5'", foreign_keys=False)
                b.write("UPDATE book SET price = price + 1 WHERE id = 'b6'", foreign_keys=False)
                self.ends_with([a, b], "SELECT id, price FROM book WHERE id IN ('b5', 'b6')", [("b5", 1 + number), ("b6", 1 + number)])
        self.same([a, b], "book")
        self.all_clean(a, b)

    def test_autogenerate_leaves_the_engines_tables_alone_when_told_to(self):
        """Without a filter Alembic would drop them: it takes every table for its own. `docs/orm.md` shows the filter."""
        node = self.node("a", "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);", ["t"]).start()
        program = [tools.PYTHON, tools.PROGRAMS / "autogenerate_program.py", node.database]
        self.assertIn("remove_table", tools.run(*program))
        self.assertEqual(tools.run(*program, "filtered"), "[]")


SCHEMA_JS = """
const { sqliteTable, text, integer } = require("drizzle-orm/sqlite-core");
exports.item = sqliteTable("item", { id: text("id").primaryKey(), name: text("name")%s%s });
exports.marker = sqliteTable("marker", { id: text("id").primaryKey(), n: integer("n") });
"""


@tools.needs_node
class DrizzlePush(Field):
    def push(self, node, not_null="", column=""):
        pathlib.Path(tools.NODE, "schema.js").write_text(SCHEMA_JS % (not_null, column))
        done = tools.drizzle_push(node, "!_entgldb_*")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_its_rebuilds_while_sync_runs(self):
        a, b = self.node("a", "", ["item"]), self.node("b", "", ["item"])
        for node in (a, b):
            node.write("DROP TABLE marker")
            self.push(node)
        a.start()
        b.start(a)
        self.linked(a, b)
        a.write("INSERT INTO item VALUES('1', 'x'), ('2', 'y')")
        self.level(a, b)
        self.push(a, column=', amount: integer("amount")')
        a.write("UPDATE item SET amount = 7 WHERE id = '1'")
        b.write("UPDATE item SET name = 'edited on b' WHERE id = '2'")
        self.level(a, b)
        self.push(a, not_null=".notNull()", column=', amount: integer("amount")')
        a.write("INSERT INTO item VALUES('3', 'z', 9)")
        self.level(a, b)
        # One step after the other: drizzle-kit 0.31 can't add a column and rebuild its table in one push, with or without us.
        self.push(b, column=', amount: integer("amount")')
        self.push(b, not_null=".notNull()", column=', amount: integer("amount")')
        self.ends_with([a, b], "SELECT id, name, amount FROM item", [("1", "x", 7), ("2", "edited on b", None), ("3", "z", 9)])
        self.all_clean(a, b)
        self.quiet(a, b)
