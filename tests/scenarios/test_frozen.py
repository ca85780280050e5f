"""The node in the middle is frozen, as a laptop that is shut: its links stay open and take nothing.

The long form (`cargo xtask soak`) sets ENTGLDB_FROZEN_SECONDS to longer than a silent link is kept.
"""
import os
import signal
import time

from cluster import Scenario
from ledger import Ledger, faults, invented

FROZEN_SECONDS = float(os.environ.get("ENTGLDB_FROZEN_SECONDS", 3))
DROP_SECONDS = 90  # DROP_AFTER_MS


class Frozen(Scenario):
    def test_it_goes_on_where_it_stood(self):
        b = self.engine("B", listens=True)
        a, c = self.engine("A", peers=[b.address]), self.engine("C", peers=[b.address])
        engines = [b.start(), a.start(), c.start()]
        # None at B: an engine that is frozen in the middle of a transaction keeps its database locked.
        writers = [self.writer(engine, "frozen").start() for engine in (a, c)]
        for engine in (a, c):
            engine.wait_for("peer_up", name="B")
        time.sleep(1)
        b.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(FROZEN_SECONDS)
            if FROZEN_SECONDS > DROP_SECONDS + 20:
                for engine in (a, c):
                    engine.wait_for("peer_down", name="B")
        finally:
            b.process.send_signal(signal.SIGCONT)
        for writer in writers:
            writer.stop()
        self.settle(engines)
        ledgers = [Ledger(writer.ledger, writer.name) for writer in writers]
        self.assertEqual(faults(ledgers, [engine.database for engine in engines]), [])
        for engine in engines:
            self.assertEqual(invented(ledgers, engine.database), [], engine.name)
            engine.stop()
            self.assertEqual(engine.alarms, [], engine.name)
            self.verify(engine)
        committed = sum(len(ledger.committed) for ledger in ledgers)
        print(f"frozen for {FROZEN_SECONDS:g} s, {committed} transactions ", end="", flush=True)
