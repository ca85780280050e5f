"""Five nodes forget their history; a sixth comes, and whoever gives or takes the snapshot is killed in the middle.

The long form sets ENTGLDB_FORGETTING_ROWS.
"""
import json
import os
import time

import shop
from cluster import Scenario, wait_until

ROWS = int(os.environ.get("ENTGLDB_FORGETTING_ROWS", 6000))
# Two seconds.
RETENTION = ["--retention-hours", "0.0005"]


def entries(engine):
    """Entries that the engine of a database still has."""
    return len(shop.journal(engine.database))


class FiveNodesForget(Scenario):
    def setUp(self):
        super().setUp()
        self.hub = self.engine("hub", listens=True)
        self.others = [self.engine(name, peers=[self.hub.address], listens=True) for name in "ABCD"]
        self.five = [self.hub, *self.others]
        self.late = self.engine("late", peers=[self.others[0].address, self.hub.address])
        for engine in [*self.five, self.late]:
            engine.options = RETENTION

    def write(self, engine, statement):
        connection = shop.connect(engine.database)
        connection.execute(statement)
        connection.close()

    def grow_old(self):
        """Rows are written and some deleted, all five hold them, and all their history goes."""
        for engine in self.five:
            engine.start()
        self.write(
            self.others[0],
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
            " INSERT INTO products SELECT 'product-' || i, i, i / 8.0, 'A', i FROM n",
        )
        self.settle(self.five)
        self.write(self.others[3], "DELETE FROM products WHERE stock % 4 = 0")
        self.settle(self.five)
        wait_until(
            lambda: not any(entries(engine) for engine in self.five), 60,
            lambda: f"all history to go: {[entries(engine) for engine in self.five]}",
        )

    def rows_here(self):
        return len(shop.rows(self.late.database, "products"))

    def begin_to_join(self):
        """Until some rows have come and, unless it was too quick to see, not all."""
        self.late.start()
        deadline = time.monotonic() + 30
        while self.rows_here() <= 100:  # closer than `wait_until` looks
            self.assertLess(time.monotonic(), deadline, "the first rows of the snapshot")

    def finish(self):
        """The sixth node has every row, no deleted one, and its own; and all that it wrote reaches the others."""
        everybody = [*self.five, self.late]
        self.settle(everybody)
        self.assertEqual(self.rows_here(), ROWS - ROWS // 4 + 1)
        self.assertIn("own", shop.rows(self.hub.database, "products"))
        code, text = self.hub.run("members", str(self.hub.database), "--json")
        self.assertEqual(code, 0, text)
        wait_until(lambda: self.count_members() == 6, 20, "the hub to know all six members")
        for engine in everybody:
            engine.stop()
            self.assertEqual(engine.alarms, [], engine.name)
        for engine in everybody:
            self.verify(engine)

    def count_members(self):
        _, text = self.hub.run("members", str(self.hub.database), "--json")
        return len([line for line in text.splitlines() if not json.loads(line)["removed"]])

    def test_a_sixth_node_that_is_killed_while_it_joins_ends_with_all_rows_and_no_deleted_one(self):
        self.grow_old()
        self.write(self.late, "INSERT INTO products VALUES ('own', 1, 1.0, 'late', 1)")
        self.begin_to_join()
        self.late.kill()
        print(f"(killed at {self.rows_here()} of {ROWS - ROWS // 4} rows) ", end="", flush=True)
        self.write(self.late, "UPDATE products SET n = 2 WHERE id = 'own'")
        self.late.start()
        self.finish()

    def test_who_gives_the_snapshot_may_be_killed_too(self):
        self.grow_old()
        self.write(self.late, "INSERT INTO products VALUES ('own', 1, 1.0, 'late', 1)")
        self.begin_to_join()
        giver = self.others[0]
        giver.kill()
        time.sleep(0.5)
        giver.start()
        self.finish()
