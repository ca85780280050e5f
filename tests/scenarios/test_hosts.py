"""Three nodes on three hosts of a network that loses packets, lets them through one way only, and is unplugged.

The long form (`cargo xtask soak`) sets ENTGLDB_STORM_SECONDS, the length of each kind of weather, and ENTGLDB_SEED.
"""
import os
import random
import time

import machine
import shop
from cluster import Scenario
from ledger import Ledger, faults, invented

STORM_SECONDS = float(os.environ.get("ENTGLDB_STORM_SECONDS", 4))
SEED = int(os.environ.get("ENTGLDB_SEED", random.SystemRandom().randrange(1 << 32)))
LOSS = "numgen random mod 100 < 20 counter drop"


class ThreeHosts(Scenario):
    def setUp(self):
        machine.needs("ip", "nft")
        super().setUp()
        print(f"(seed {SEED}) ", end="", flush=True)
        self.chance = random.Random(SEED)
        self.hosts = machine.Hosts(["B", "A", "C"])
        self.addCleanup(self.hosts.end)
        self.b = self.engine("B", listens=True, host="0.0.0.0")
        self.a, self.c = [self.engine(name, [f"{self.hosts.hub_address(name)}:{self.b.port}"]) for name in "AC"]
        self.engines = [self.a, self.b, self.c]
        self.writers = [self.writer(engine, SEED) for engine in self.engines]
        for engine in self.engines:
            engine.prefix = self.hosts.inside(engine.name)
            engine.start()
        for engine in (self.a, self.c):
            engine.wait_for("peer_up", name="B")
        for writer in self.writers:
            writer.start()

    def check(self):
        """Under a clear sky: everybody ends with everything, and nobody raised an alarm."""
        for writer in self.writers:
            writer.stop()
        self.settle(self.engines, seconds=180)  # redials and retransmissions may have backed off to a minute
        databases = [engine.database for engine in self.engines]
        ledgers = [Ledger(writer.ledger, writer.name) for writer in self.writers]
        self.assertEqual(faults(ledgers, databases), [])
        for engine in self.engines:
            self.assertEqual(invented(ledgers, engine.database), [], engine.name)
            engine.stop()
            self.assertEqual(engine.alarms, [], engine.name)
            self.verify(engine)
        committed = sum(len(ledger.committed) for ledger in ledgers)
        print(f"{committed} transactions in {STORM_SECONDS:g} s of bad weather ", end="", flush=True)

    def entries(self, engine):
        return sum(head[3] for head in shop.vector(engine.database)[0])

    def test_a_network_that_loses_every_fifth_packet(self):
        for name in "ABC":
            self.hosts.filter(name, LOSS)
        before = self.entries(self.c)
        time.sleep(STORM_SECONDS)
        self.assertGreater(self.hosts.dropped("B"), 0, "no packet was lost")
        self.assertGreater(self.entries(self.c), before, "the rest gets through")
        for name in "ABC":
            self.hosts.filter(name)
        self.check()

    def test_a_network_that_lets_packets_through_one_way_only(self):
        self.hosts.filter("B", f"ip saddr {self.hosts.address('A')} counter drop")
        time.sleep(STORM_SECONDS)
        self.hosts.filter("B")
        self.hosts.filter("C", f"ip saddr {self.hosts.hub_address('C')} counter drop")
        time.sleep(STORM_SECONDS)
        self.assertGreater(self.hosts.dropped("C"), 0, "nothing was held back")
        self.hosts.filter("C")
        self.check()

    def test_cables_that_are_pulled_out_and_put_back(self):
        flaps, deadline = 0, time.monotonic() + STORM_SECONDS
        while time.monotonic() < deadline:
            name = self.chance.choice("AC")
            self.hosts.plug(name, False)
            time.sleep(self.chance.uniform(0, 0.4))
            self.hosts.plug(name, True)
            time.sleep(self.chance.uniform(0, 0.4))
            flaps += 1
        print(f"{flaps} times unplugged, ", end="", flush=True)
        self.check()
