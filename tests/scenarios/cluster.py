"""Processes: engines (`entgldb sync`), writers, and a test case that starts them and sees that all of them end."""
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import shop

HERE = pathlib.Path(__file__).parent
SETTLE_SECONDS = 90  # dialling may have backed off to a minute
# What honest nodes on a sound disk never have reason to say.
ALARMS = {"diverged", "forked", "rolled_back", "refused", "refused_by_peer", "store_error", "clock_skew", "lost"}


def program():
    """The `entgldb` under test."""
    named = os.environ.get("ENTGLDB_PROGRAM")
    if not named:
        raise unittest.SkipTest("ENTGLDB_PROGRAM does not say which entgldb to test: run `cargo xtask test`")
    return named


def free_port():
    """A port to listen on, kept over restarts; below those the system hands out, so that no dialler takes it."""
    for port in random.SystemRandom().sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port in a hundred")


def wait_until(condition, seconds, what):
    """Polls; the limit only matters when something is broken."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)


class Engine:
    """One `entgldb sync` beside one database; started, killed and started again on the same files and port.

    `prefix` is a command that runs it somewhere else or under something, such as `ip netns exec NAME`: one that becomes
    the engine, so that a signal to it reaches the engine. `options` are added to the command line.
    """

    def __init__(self, folder, name, secret, peers=(), port=None, host="127.0.0.1", disk=None):
        self.name, self.secret, self.peers, self.port, self.host = name, secret, list(peers), port, host
        self.database = (disk or folder) / f"{name}.db"
        self.log = folder / f"{name}.log"
        self.prefix, self.options, self.environment = [], [], {}
        self.events, self.changed = [], threading.Condition()
        self.alarms = []
        self.process = None
        self.tables = shop.TABLES
        self.create()

    def create(self):
        """Makes the application's tables."""
        shop.create(self.database)

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def start(self):
        command = [*self.prefix, program(), "sync", str(self.database), "--secret-file", str(self.secret)]
        command += ["--name", self.name, *self.options]
        command += ["--json", "--stop-with-stdin", "--log", "info"]
        command += [word for table in self.tables for word in ("--watch", table)]
        command += [word for peer in self.peers for word in ("--peer", peer)]
        command += ["--listen", self.address] if self.port else []
        with open(self.log, "a", encoding="utf-8") as log:
            pipe = subprocess.PIPE
            environment = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=environment)
        self.events = []
        threading.Thread(target=self.collect, args=(self.process, self.events), daemon=True).start()
        return self

    def collect(self, process, events):
        with process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                with self.changed:
                    events.append(event)
                    self.alarms += [event] if event["event"] in ALARMS else []
                    self.changed.notify_all()

    def wait_for(self, kind, seconds=20, **fields):
        """The first event of this kind since the start that has these fields."""

        def fits(event):
            return event["event"] == kind and all(event.get(key) == value for key, value in fields.items())

        def found():
            return next((event for event in self.events if fits(event)), None)

        with self.changed:
            if not self.changed.wait_for(found, seconds):
                seen = sorted({event["event"] for event in self.events})
                raise AssertionError(f"{self.name}: no {kind} {fields} within {seconds} s; events were {seen}")
            return found()

    def kill(self):
        """kill -9. It must have been alive: an engine never ends by itself."""
        assert self.process.poll() is None, f"{self.name} ended by itself, exit code {self.process.returncode}"
        self.process.kill()
        self.end()

    def stop(self):
        """Asks it to stop, as a service manager does."""
        assert self.process.poll() is None, f"{self.name} ended by itself, exit code {self.process.returncode}"
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.end()
        assert code == 0, f"{self.name} stopped with exit code {code}"

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait(20)
            self.process.stdin.close()
            self.process = None

    def run(self, *arguments):
        """Another command about this database, such as `verify`; returns its exit code and its text."""
        done = subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr


class Writer:
    """One writer process beside one database. Its ledger lies beside the engine's log, whatever disk the database is on."""

    def __init__(self, engine, seed):
        self.database, self.name, self.seed = engine.database, engine.name, seed
        self.ledger = engine.log.with_suffix(".ledger")
        self.prefix, self.environment, self.options = [], {}, []
        self.starts, self.process = 0, None

    def start(self):
        self.starts += 1
        seed = f"{self.seed}-{self.name}-{self.starts}"
        command = [*self.prefix, sys.executable, str(HERE / "writer.py")]
        command += [str(self.database), str(self.ledger), self.name, seed, *self.options]
        with open(self.ledger.with_suffix(".writer.log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **self.environment}, stderr=log)
        return self

    def kill(self):
        assert self.process.poll() is None, f"writer {self.name} ended by itself: {self.process.returncode}"
        self.end()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(90)
        self.process = None
        assert code in (0, -signal.SIGTERM), f"writer {self.name} failed: {code}"

    def end(self):
        if self.process:
            self.process.kill()
            self.process.wait(20)
            self.process = None


class Scenario(unittest.TestCase):
    """A test with a folder, a secret, and processes that are all gone at the end, however it ends."""

    longMessage = True

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="entgldb-scenario-"))
        self.addCleanup(self.no_process_is_left)
        self.secret = self.new_secret("cluster")
        self.ends = []
        self.addCleanup(lambda: [end() for end in self.ends])

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        folder = getattr(self, "folder", None)
        if result and len(result.failures) + len(result.errors) > before and folder:
            print(f"\nkept for a look at the databases and logs: {folder}", file=sys.stderr)
        elif folder:
            shutil.rmtree(folder, ignore_errors=True)

    def new_secret(self, name):
        path = self.folder / f"{name}.secret"
        subprocess.run([program(), "keygen", str(path)], check=True, capture_output=True)
        return path

    def engine(self, name, peers=(), listens=False, secret=None, host="127.0.0.1", disk=None):
        port = free_port() if listens else None
        engine = Engine(self.folder, name, secret or self.secret, peers, port, host, disk)
        self.ends.append(engine.end)
        return engine

    def writer(self, engine, seed):
        writer = Writer(engine, seed)
        self.ends.append(writer.end)
        return writer

    def settle(self, engines, seconds=SETTLE_SECONDS):
        """Waits until all hold the same entries with nothing left to capture; then their tables must be equal."""
        for engine in engines:
            engine.wait_for("started")  # before that, a database may lack the engine's tables

        def state():
            vectors = [shop.vector(engine.database) for engine in engines]
            return vectors, all(vector == (vectors[0][0], 0) for vector in vectors)

        def difference():
            return {
                engine.name: {"entries": sum(head[3] for head in heads), "uncaptured": waiting}
                for engine, (heads, waiting) in zip(engines, state()[0])
            }

        wait_until(lambda: state()[1], seconds, lambda: f"level with each other: {difference()}")
        for table in shop.TABLES:
            first, *others = [shop.rows(engine.database, table) for engine in engines]
            for engine, rows in zip(engines[1:], others):
                self.assertEqual(first, rows, f"{table} of {engines[0].name} and of {engine.name}")

    def verify(self, engine):
        code, text = engine.run("verify", str(engine.database))
        self.assertEqual(code, 0, text)

    def no_process_is_left(self):
        """Looks for the folder's name in every command line: whoever still has it there is one of ours."""
        left = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline") if os.path.isdir("/proc/self") else ():
            try:
                words = entry.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if self.folder.name in words:
                left.append(words.replace("\0", " "))
        self.assertEqual(left, [], "processes left behind")
