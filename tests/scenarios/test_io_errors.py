"""The n-th write or sync of a node's database fails, for one n after the other: the disk is broken, or full.

Each n starts from the same two nodes: A, whose system calls on its database are tampered with, and B, its peer. Rows are
written on both; then A is started again on a sound disk. ENTGLDB_IO_FAULTS says how many n are tried of each kind of
fault, spread over all there are; 0 tries them all (`cargo xtask soak`).
"""
import os
import shutil
import subprocess
import time

import machine
import shop
from cluster import Scenario

FAULTS = int(os.environ.get("ENTGLDB_IO_FAULTS", 3))
WRITES, SYNCS = "pwrite64,ftruncate,fallocate", "fsync,fdatasync"
KINDS = [(WRITES, "EIO"), (SYNCS, "EIO"), (WRITES, "ENOSPC"), (SYNCS, "ENOSPC")]
ROWS = 6
CLEAN_EXITS = {0: "stopped", 3: "could not start", 4: "the database gave an error"}


class IoErrors(Scenario):
    def setUp(self):
        machine.needs("strace", root=False)
        super().setUp()
        probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
        if probe.returncode:
            self.skipTest(f"strace may not trace here: {probe.stderr.strip()}")
        self.round = 0
        self.ended = {}

    def pair(self):
        """Two nodes, each time on new files; A not started yet."""
        self.round += 1
        self.b = self.engine(f"B{self.round}", listens=True).start()
        self.a = self.engine(f"A{self.round}", peers=[self.b.address])

    def trace(self, words):
        """A's system calls on its database go through strace, which stands beside A instead of above it (-D)."""
        files = [str(self.a.database) + suffix for suffix in ("", "-wal", "-shm")]
        paths = [word for file in files for word in ("-P", file)]
        self.calls = self.folder / f"calls-{self.round}"
        self.a.prefix = ["strace", "-D", "-f", "-qq", "-o", str(self.calls), *paths, *words]

    def live(self):
        """Rows are written on both sides while A runs, or has ended. Every one of them is acknowledged."""
        self.a.start()
        for number in range(ROWS):
            for engine in (self.a, self.b):
                connection = shop.connect(engine.database)
                connection.execute(f"INSERT INTO products VALUES('{engine.name}-{number}', 1, 0.5, ?, ?)",
                                   (engine.name, number))
                connection.close()
            time.sleep(0.05)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and self.a.process.poll() is None and not self.is_level():
            time.sleep(0.05)
        if self.a.process.poll() is None:
            self.a.stop()
            return 0
        code = self.a.process.returncode
        self.a.end()
        return code

    def is_level(self):
        rows = [shop.rows(engine.database, "products") for engine in (self.a, self.b)]
        return rows[0] == rows[1] and len(rows[0]) == 2 * ROWS

    def count(self, calls):
        """How often an undisturbed A makes these calls, by the thread that makes most of them."""
        self.pair()
        self.trace(["-e", f"trace={calls}"])
        self.assertEqual(self.live(), 0)
        self.finish()
        threads = [line.split()[0] for line in self.calls.read_text().splitlines() if "(" in line]
        return max((threads.count(thread) for thread in set(threads)), default=0)

    def finish(self):
        """On a sound disk A goes on, has all that was acknowledged, and so has B."""
        self.a.prefix, self.a.alarms = [], []
        self.a.start()
        self.settle([self.a, self.b])
        self.assertEqual(len(shop.rows(self.a.database, "products")), 2 * ROWS)
        for engine in (self.a, self.b):
            engine.stop()
            self.verify(engine)
            self.assertEqual(engine.alarms, [], engine.name)
            for file in self.folder.glob(f"{engine.name}.db*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def fail_at(self, calls, error, n):
        self.pair()
        self.trace(["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={n}"])
        code = self.live()
        said = self.a.log.read_text()
        self.assertIn(code, CLEAN_EXITS, said)
        self.assertNotIn("panicked", said)
        if code:
            self.assertIn("error: ", said, "it says what is wrong")
            self.assertIn("try: ", said, "and what to do")
        self.ended[code] = self.ended.get(code, 0) + 1
        self.finish()
        return "INJECTED" in self.calls.read_text()

    def test_each_of_them_ends_the_node_with_a_clear_word_or_not_at_all_and_loses_nothing(self):
        injected = tried = 0
        for calls, error in KINDS:
            total = self.count(calls)
            self.assertGreater(total, 5, f"the script makes hardly any {calls}")
            some = range(1, total + 1) if FAULTS == 0 else sorted({1 + total * at // FAULTS for at in range(FAULTS)})
            for n in some:
                with self.subTest(calls=calls, error=error, n=n, of=total):
                    injected += self.fail_at(calls, error, n)
                    tried += 1
        self.assertGreater(injected, tried / 2, "most faults were to happen")
        ways = ", ".join(f"{count} {CLEAN_EXITS[code]}" for code, count in sorted(self.ended.items()))
        print(f"{injected} faults in {tried} runs: {ways} ", end="", flush=True)
