"""The clock of one machine of five is a month ahead, for its engine and its application alike."""
import time

import machine
import shop
from cluster import Scenario
from ledger import Ledger, faults, invented

MONTH_SECONDS = 30 * 24 * 3600
MAX_SKEW_SECONDS = 300  # the default of `max_skew_ms`


def clock_seconds(engine):
    """The time that the next write of this node is at least stamped with."""
    (clock,) = shop.read(engine.database, "SELECT value FROM _entgldb_meta WHERE name = 'clock'")[0]
    return (clock >> 16) / 1000


class AMonthAhead(Scenario):
    def setUp(self):
        self.month_ahead = machine.clock_set("+30d")
        super().setUp()
        hub = self.engine("A", listens=True)
        others = [self.engine(name, peers=[hub.address]) for name in "BCDE"]
        self.engines = [hub, *others]
        self.right, self.wrong = self.engines[:4], self.engines[4]
        self.writers = [self.writer(engine, "clock") for engine in self.engines]

    def test_it_moves_nobody_elses_clock_is_told_and_its_writes_arrive_once_their_time_has_come(self):
        self.wrong.environment = self.writers[4].environment = self.month_ahead
        for one in self.engines + self.writers:
            one.start()
        self.right[0].wait_for("clock_skew")
        self.wrong.wait_for("clock_skew")
        time.sleep(3)
        for writer in self.writers:
            writer.stop()
        self.settle(self.right)
        ahead = max(clock_seconds(engine) - time.time() for engine in self.right)
        self.assertLessEqual(ahead, MAX_SKEW_SECONDS)
        self.assertGreater(clock_seconds(self.wrong) - time.time(), MONTH_SECONDS - 3600)
        for engine in self.right:
            self.assertNotIn("E", {writer for writer, _ in shop.written(engine.database).values()}, engine.name)
        ledgers = [Ledger(writer.ledger, writer.name) for writer in self.writers]
        self.assertGreater(len(ledgers[4].committed), 20)

        # The month has passed for everybody: what was refused was only waiting.
        for engine in self.engines:
            engine.stop()
            self.assertEqual({alarm["event"] for alarm in engine.alarms} - {"clock_skew"}, set(), engine.name)
            engine.alarms = []
            engine.environment = self.month_ahead
            engine.start()
        self.settle(self.engines)
        self.assertEqual(faults(ledgers, [engine.database for engine in self.engines]), [])
        for engine in self.engines:
            self.assertEqual(invented(ledgers, engine.database), [], engine.name)
            engine.stop()
            self.assertEqual(engine.alarms, [], engine.name)
            self.verify(engine)
        print(f"the others' clocks were at most {max(ahead, 0):.1f} s ahead ", end="", flush=True)
