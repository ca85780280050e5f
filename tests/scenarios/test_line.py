"""Three nodes in a line, A-B-C: A and C never meet. A program writes each of the three databases all the while.

The long form (`cargo xtask soak`) sets ENTGLDB_KILLS, ENTGLDB_APART_SECONDS and, to repeat a run, ENTGLDB_SEED.
"""
import os
import random
import time

import shop
from cluster import Scenario, wait_until
from ledger import Ledger, faults, invented

KILLS = int(os.environ.get("ENTGLDB_KILLS", 6))
APART_SECONDS = float(os.environ.get("ENTGLDB_APART_SECONDS", 3))
SEED = int(os.environ.get("ENTGLDB_SEED", random.SystemRandom().randrange(1 << 32)))


class ThreeNodesInALine(Scenario):
    def setUp(self):
        super().setUp()
        print(f"(seed {SEED}) ", end="", flush=True)
        self.b = self.engine("B", listens=True)
        self.a = self.engine("A", peers=[self.b.address])
        self.c = self.engine("C", peers=[self.b.address])
        self.engines = [self.a, self.b, self.c]
        self.writers = [self.writer(engine, SEED) for engine in self.engines]

    def start(self, some):
        for one in some:
            one.start()

    def ledgers(self):
        return [Ledger(writer.ledger, writer.name) for writer in self.writers]

    def check(self):
        """Stops the writers, waits until the nodes are level, and compares everything with the ledgers."""
        wait_until(lambda: all(len(ledger.committed) > 20 for ledger in self.ledgers()), 60, "every writer writes")
        for writer in self.writers:
            writer.stop()
        self.settle(self.engines)
        databases = [engine.database for engine in self.engines]
        ledgers = self.ledgers()
        self.assertEqual(faults(ledgers, databases), [])
        for database in databases:
            self.assertEqual(invented(ledgers, database), [], database)
            self.assertEqual(shop.read(database, "PRAGMA foreign_key_check"), [])
        for engine in self.engines:
            engine.stop()
            self.assertEqual(engine.alarms, [], engine.name)
        for engine in self.engines:
            self.verify(engine)

    def test_what_each_side_writes_arrives_on_all(self):
        self.start(self.engines + self.writers)
        time.sleep(3)
        self.check()

    def test_rows_that_were_there_before_the_engine_arrive_on_all(self):
        self.start(self.writers)
        time.sleep(2)
        self.start(self.engines)
        self.check()

    def test_sides_that_were_apart_agree_and_keep_what_lost(self):
        self.start(self.engines)
        for end in (self.a, self.c):
            end.wait_for("peer_up", name="B")
        self.b.stop()
        self.start(self.writers)
        time.sleep(APART_SECONDS)
        self.b.start()
        self.check()
        _, conflicts = self.b.run("conflicts", str(self.b.database), "--json")
        self.assertIn('"product-', conflicts, "all sides wrote the same products while apart")

    def test_no_committed_write_is_missing_after_kills_at_any_moment(self):
        chance = random.Random(SEED)
        self.start(self.engines + self.writers)
        time.sleep(1)
        for _ in range(KILLS):
            victim = chance.choice(self.engines + self.writers)
            victim.kill()
            time.sleep(chance.uniform(0, 0.5))
            victim.start()
            # From far too early to well in the middle of its work.
            time.sleep(chance.choice([0.01, 0.1, 0.4, 1.0]) * chance.uniform(0.5, 1.5))
        self.check()
        committed = sum(len(ledger.committed) for ledger in self.ledgers())
        print(f"{KILLS} kills, {committed} transactions acknowledged ", end="", flush=True)
