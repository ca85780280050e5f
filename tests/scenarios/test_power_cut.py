"""The power is cut under a node and its application, again and again: ext4 in a file, shut down without its journal.

The long form (`cargo xtask soak`) sets ENTGLDB_POWER_CUTS and, to repeat a run, ENTGLDB_SEED.
"""
import os
import random
import time

import machine
import shop
from cluster import Scenario, wait_until
from ledger import Ledger, faults, invented, own_faults

CUTS = int(os.environ.get("ENTGLDB_POWER_CUTS", 3))
SEED = int(os.environ.get("ENTGLDB_SEED", random.SystemRandom().randrange(1 << 32)))


def positions(database):
    """How far each log goes, by author, incarnation and table. Nothing, if even the engine's tables were lost."""
    if not shop.read(database, "SELECT 1 FROM sqlite_schema WHERE name = '_entgldb_logs'"):
        return {}
    return {head[:3]: head[3] for head in shop.vector(database)[0]}


class PowerCut(Scenario):
    def setUp(self):
        machine.needs("mkfs.ext4", "mount")
        super().setUp()
        print(f"(seed {SEED}) ", end="", flush=True)
        self.chance = random.Random(SEED)
        self.disk = machine.PowerCutDisk(self.folder)
        self.addCleanup(self.disk.end)
        self.b = self.engine("B", listens=True).start()
        self.b.wait_for("started")
        self.a = self.engine("A", peers=[self.b.address], disk=self.disk.place)
        self.at_a, self.at_b = self.writer(self.a, SEED), self.writer(self.b, SEED)

    def cut(self):
        """Cuts the power of A's machine: the disk first, then the processes, which may notice and end by themselves."""
        noted = self.at_a.ledger.stat().st_size if self.at_a.ledger.exists() else 0
        self.disk.cut()
        self.a.end()
        self.at_a.end()
        self.forget_acknowledgements(self.at_a.ledger, noted)
        self.disk.unmount()
        self.disk.mount()

    def forget_acknowledgements(self, ledger, noted):
        """What was acknowledged after the disk had gone was acknowledged by a machine without power. (The kernel does:
        a sync that waits for the journal while that is given up may end well.) It counts as begun, and unknown."""
        if not ledger.exists():
            return  # it had not even begun
        text = ledger.read_bytes()
        before, after = text[:noted], text[noted:].splitlines(keepends=True)
        ledger.write_bytes(before + b"".join(line for line in after if b'"ended"' not in line))

    def ledgers(self):
        return [Ledger(writer.ledger, writer.name) for writer in (self.at_a, self.at_b)]

    def alarms(self):
        """A disk that is gone may be noticed, and so may a lock when a node is stopped; nothing else."""
        return [alarm for alarm in self.a.alarms + self.b.alarms if alarm["event"] != "store_error"]

    def check_all(self):
        for writer in (self.at_a, self.at_b):
            writer.stop()
        self.settle([self.a, self.b])
        for engine in (self.a, self.b):
            self.assertEqual(invented(self.ledgers(), engine.database), [], engine.name)
            self.assertEqual(shop.read(engine.database, "PRAGMA foreign_key_check"), [])
            engine.stop()
            self.verify(engine)

    def test_with_full_durability_nothing_acknowledged_is_lost(self):
        self.at_b.start()
        for _ in range(CUTS):
            self.a.start()
            self.at_a.start()
            self.a.wait_for("peer_up", name="B", seconds=90)
            time.sleep(self.chance.uniform(0.05, 1.2))
            # What a reader sees is committed, and synced before the node speaks of the next commit. What B has of A's own
            # entries is checked to the last moment by the alarm that it would raise: `rolled_back`.
            seen = positions(self.a.database)
            self.next_commit()
            self.cut()
            after = positions(self.a.database)
            lost = {log: (seq, after.get(log, 0)) for log, seq in seen.items() if after.get(log, 0) < seq}
            self.assertEqual(lost, {}, "entries that were there before the power cut")
            ledger, rows = Ledger(self.at_a.ledger, "A"), shop.written(self.a.database)
            for (table, key), states in ledger.last_states().items():
                if table != "products":
                    self.assertEqual(own_faults(ledger, rows, (table, key), states), [])
        self.a.start()
        self.at_a.start()
        time.sleep(1)
        self.check_all()
        databases = [engine.database for engine in (self.a, self.b)]
        self.assertEqual(faults(self.ledgers(), databases), [])
        self.assertEqual(self.alarms(), [])
        committed = [len(ledger.committed) for ledger in self.ledgers()]
        print(f"{CUTS} power cuts, {committed[0]} transactions acknowledged on the machine, {committed[1]} on the other ",
              end="", flush=True)

    def next_commit(self):
        """Waits for a commit of A's engine that began after this call: the second one that it reports."""
        known = self.commits()
        wait_until(lambda: self.commits() >= known + 2, 30, "A captures or applies something more")

    def commits(self):
        return sum(event["event"] in ("captured", "applied") for event in self.a.events)

    def entries_of_its_own(self):
        """Entries that A has made since its start."""
        return sum(event["changes"] for event in self.a.events if event["event"] == "captured")

    def test_with_normal_durability_the_nodes_agree_again_on_what_is_left(self):
        self.a.options = ["--durability", "normal"]
        self.at_a.options = ["synchronous = NORMAL"]
        self.at_b.start()
        entries_lost = brought_back = 0
        for _ in range(CUTS):
            # Half the time the application writes on before any peer can say what was lost.
            alone = self.chance.random() < 0.5
            if alone:
                self.b.stop()
            self.a.start()
            self.at_a.start()
            self.a.wait_for("started")
            if alone:
                wait_until(lambda: self.entries_of_its_own() > 0, 20, "A captures something while it is alone")
                self.b.start().wait_for("started")
            self.a.wait_for("peer_up", name="B", seconds=90)
            time.sleep(self.chance.uniform(0.05, 0.6))
            # Syncs what is there so far; what comes later is not.
            shop.read(self.a.database, "PRAGMA wal_checkpoint(FULL)")
            time.sleep(self.chance.uniform(0.05, 0.6))
            seen = positions(self.a.database)
            self.cut()
            after, at_b = positions(self.a.database), positions(self.b.database)
            entries_lost += sum(max(seq - after.get(log, 0), 0) for log, seq in seen.items())
            brought_back += sum(max(min(seq, at_b.get(log, 0)) - after.get(log, 0), 0) for log, seq in seen.items())
        self.a.start()
        self.at_a.start()
        self.check_all()
        self.assertEqual(self.alarms(), [])
        print(f"{CUTS} power cuts, {entries_lost} entries lost on the machine, {brought_back} of them came back from "
              "the peer ", end="", flush=True)
