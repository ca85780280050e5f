"""The checks themselves: each kind of fault is found where there is one, and none where there is none."""
import json
import pathlib
import tempfile
import unittest

import shop
from ledger import Ledger, faults, invented


class Checks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.database = pathlib.Path(folder.name) / "a.db"
        self.path = pathlib.Path(folder.name) / "a.ledger"
        shop.create(self.database)
        self.execute("CREATE TABLE _entgldb_oplog(id INTEGER PRIMARY KEY, key TEXT, payload BLOB)")
        self.execute("CREATE TABLE _entgldb_collections(no INTEGER PRIMARY KEY, name TEXT)")
        self.execute("INSERT INTO _entgldb_collections VALUES(1, 'orders')")
        self.execute("CREATE TABLE _entgldb_logs(no INTEGER PRIMARY KEY, collection_no INTEGER)")
        self.execute("INSERT INTO _entgldb_logs VALUES(0, 1)")

    def execute(self, statement, *arguments):
        connection = shop.connect(self.database)
        connection.execute(statement, arguments)
        connection.close()

    def note(self, n, table, key, put=True, end="committed"):
        with open(self.path, "a", encoding="utf-8") as ledger:
            ledger.write(json.dumps({"n": n, "begun": [[table, key, put]]}) + "\n")
            if end:
                ledger.write(json.dumps({"n": n, "ended": end}) + "\n")

    def write_order(self, n, journal=True):
        self.execute("REPLACE INTO orders VALUES('A-1', '', 'A', ?)", n)
        if journal:
            self.execute("INSERT INTO _entgldb_oplog(key, payload) VALUES('A-1', ?)", json.dumps({"writer": "A", "n": n}))

    def faults(self):
        ledgers = [Ledger(self.path, "A")]
        return faults(ledgers, [self.database]) + invented(ledgers, self.database)

    def test_a_write_that_is_where_it_belongs_is_no_fault(self):
        self.note(1, "orders", "A-1")
        self.write_order(1)
        self.assertEqual(self.faults(), [])

    def test_a_committed_write_that_is_missing_is_found(self):
        self.note(1, "orders", "A-1")
        self.assertEqual(len(self.faults()), 2, "neither row nor entry")

    def test_an_older_version_in_its_place_is_found(self):
        self.note(1, "orders", "A-1")
        self.note(2, "orders", "A-1")
        self.write_order(1)
        self.assertEqual(len(self.faults()), 2)

    def test_a_row_without_its_entry_is_found(self):
        self.note(1, "orders", "A-1")
        self.write_order(1, journal=False)
        self.assertIn("lacks", self.faults()[0])

    def test_a_deleted_row_that_came_back_is_found(self):
        self.note(1, "orders", "A-1")
        self.note(2, "orders", "A-1", put=False)
        self.write_order(1)
        self.assertEqual(len(self.faults()), 1)

    def test_a_write_that_was_rolled_back_and_is_there_is_found(self):
        self.note(1, "orders", "A-1", end="rolled back")
        self.write_order(1)
        self.assertEqual(self.faults(), [("A-1", "A", 1)])

    def test_after_a_kill_both_outcomes_of_the_last_transaction_are_right(self):
        self.note(1, "orders", "A-1")
        self.note(2, "orders", "A-1", end=None)
        self.write_order(1)
        self.assertEqual(self.faults(), [])
        self.write_order(2)
        self.assertEqual(self.faults(), [])

    def test_a_shared_row_that_is_nobodys_last_version_is_found(self):
        self.note(1, "products", "product-1")
        self.execute("INSERT INTO _entgldb_oplog(key, payload) VALUES('product-1', ?)", json.dumps({"writer": "A", "n": 1}))
        self.execute("INSERT INTO products VALUES('product-1', 1, 1, 'B', 9)")
        self.assertEqual(len(self.faults()), 2, "nobody's last, and nobody's at all")
