"""A database that is put back to an older copy of itself again and again, while programs write it and its peer.

Once the database alone, as from a backup of it; once with the node's folder, as when a whole machine is put back; and a copied machine.
The long form (`cargo xtask soak`) sets ENTGLDB_RESTORES and, to repeat a run, ENTGLDB_SEED.
"""
import os
import pathlib
import random
import shutil
import sqlite3
import time

import shop
from cluster import Scenario, wait_until
from ledger import Ledger, own_faults

RESTORES = int(os.environ.get("ENTGLDB_RESTORES", 4))
SEED = int(os.environ.get("ENTGLDB_SEED", random.SystemRandom().randrange(1 << 32)))


class Backup:
    """A copy of a database, made while it is in use, and of its node's folder."""

    def __init__(self, engine, folder):
        self.engine, self.copy = engine, folder / "backup.db"
        self.folder = pathlib.Path(f"{engine.database}-entgldb")
        self.copied_folder = folder / "backup-entgldb"

    def take(self):
        self.copy.unlink(missing_ok=True)
        shutil.rmtree(self.copied_folder, ignore_errors=True)
        # The folder first: its mark of the oplog is not ahead of the database that comes with it.
        shutil.copytree(self.folder, self.copied_folder)
        source, target = shop.connect(self.engine.database), sqlite3.connect(self.copy)
        source.backup(target)
        source.close()
        target.close()

    def put_back(self, whole):
        for end in ("", "-wal", "-shm"):
            pathlib.Path(f"{self.engine.database}{end}").unlink(missing_ok=True)
        shutil.copy(self.copy, self.engine.database)
        if whole:
            shutil.rmtree(self.folder)
            shutil.copytree(self.copied_folder, self.folder)


class ADatabaseIsPutBack(Scenario):
    def setUp(self):
        super().setUp()
        print(f"(seed {SEED}) ", end="", flush=True)
        self.b = self.engine("B", listens=True)
        self.a = self.engine("A", peers=[self.b.address])
        self.writers = [self.writer(engine, SEED) for engine in (self.a, self.b)]
        self.chance = random.Random(SEED)
        self.seen_on_b = set()

    def put_back_again_and_again(self, whole):
        """Versions that B acknowledged are noted before each time."""
        writer = self.writers[0]
        for one in (self.a, self.b, *self.writers):
            one.start()
        self.a.wait_for("caught_up")
        anew = 0
        for _ in range(RESTORES):
            backup = Backup(self.a, self.folder)
            backup.take()
            time.sleep(self.chance.uniform(0.1, 1))
            self.a.kill()
            writer.kill()
            self.seen_on_b |= shop.journal(self.b.database)
            backup.put_back(whole)
            writer.start()
            time.sleep(self.chance.choice([0, 0.2]))
            self.a.start()
            self.a.wait_for("started")
            time.sleep(self.chance.choice([0.05, 0.5, 1.5]))
            anew += any(event["event"] in ("started_anew", "rolled_back") for event in self.a.events)
        for one in self.writers:
            one.stop()
        self.assertGreater(anew, 0, "the node noticed it")
        print(f"{RESTORES} times, noticed {anew} times, {len(self.seen_on_b)} versions on the peer ", end="", flush=True)

    def rows_of(self, engine):
        return {table: shop.rows(engine.database, table) for table in shop.TABLES}

    def rows_that_differ(self):
        ours, theirs = self.rows_of(self.a), self.rows_of(self.b)
        differ = {table: set(ours[table].items()) ^ set(theirs[table].items()) for table in shop.TABLES}
        return {table: (len(rows), sorted(rows)[:4]) for table, rows in differ.items()}

    def check_b(self):
        """What the peer's own program wrote is as it left it."""
        ledger = Ledger(self.writers[1].ledger, "B")
        rows = shop.written(self.b.database)
        states = ledger.last_states().items()
        places = [(place, left) for place, left in states if place[0] != "products"]
        self.assertEqual([fault for place, left in places for fault in own_faults(ledger, rows, place, left)], [])

    def test_a_database_that_is_put_back_alone_forks_no_log(self):
        self.put_back_again_and_again(whole=False)
        self.settle([self.a, self.b])
        for engine in (self.a, self.b):
            lost = self.seen_on_b - shop.journal(engine.database)
            self.assertEqual(lost, set(), f"{engine.name} lacks what the peer had acknowledged")
        self.check_b()
        for engine in (self.a, self.b):
            engine.stop()
            self.assertEqual(engine.alarms, [], engine.name)
        for engine in (self.a, self.b):
            self.verify(engine)

    def test_a_machine_that_is_put_back_as_a_whole_ends_with_the_same_rows(self):
        self.put_back_again_and_again(whole=True)
        wait_until(
            lambda: self.rows_of(self.a) == self.rows_of(self.b), 120,
            lambda: f"the same rows, not {self.rows_that_differ()}",
        )
        self.assertEqual(self.seen_on_b - shop.journal(self.b.database), set(), "what was acknowledged stays")
        self.check_b()
        for engine in (self.a, self.b):
            engine.stop()
            kinds = {event["event"] for event in engine.alarms}
            self.assertLessEqual(kinds, {"rolled_back", "forked", "refused", "refused_by_peer"}, engine.name)
        for engine in (self.a, self.b):
            self.verify(engine)


class AMachineIsCopied(Scenario):
    def test_both_are_told_apart_from_one_node_and_neither_is_let_in(self):
        b = self.engine("B", listens=True).start()
        a = self.engine("A", peers=[b.address]).start()
        a.wait_for("caught_up")
        a.stop()
        copy = self.engine("copy", peers=[b.address])
        shutil.copy(a.database, copy.database)
        shutil.copytree(f"{a.database}-entgldb", f"{copy.database}-entgldb")
        a.start()
        b.wait_for("peer_up", name="A")
        copy.start()
        told = b.wait_for("copied", 60)
        self.assertEqual(told["node"], a.wait_for("started")["node"])
        for engine in (a, copy):
            # Whoever was linked is told at once, the other when it comes again.
            wait_until(
                lambda: any("identity" in event.get("reason", "") for event in engine.events), 60,
                lambda: f"{engine.name} is told: {engine.events[-3:]}",
            )
        b.stop()
