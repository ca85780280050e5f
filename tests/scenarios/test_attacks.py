"""Attacks on running nodes that need a process of its own to see: what it holds open, writes and makes of odd names."""
import base64
import collections
import os
import pathlib
import secrets
import select
import socket
import subprocess
import sys
import time

import shop
from cluster import Scenario, program, wait_until

STRANGERS = int(os.environ.get("ENTGLDB_STRANGERS", "10000"))
PRE_AUTH_MAX = 64  # as docs/protocol/transport.md says
HELD = 400  # connections that the flooder keeps open at a time
# Becomes the engine, with the log at its loudest.
LOUD = [sys.executable, "-c", "import os, sys; a = sys.argv[1:]; a[a.index('--log') + 1] = 'trace'; os.execv(a[0], a)"]


def add_product(engine, key, writer="test"):
    connection = shop.connect(engine.database)
    connection.execute("INSERT INTO products VALUES(?, 1, 0.5, ?, 1)", (key, writer))
    connection.close()


def has_product(engine, key):
    return bool(shop.read(engine.database, "SELECT 1 FROM products WHERE id = ?", key))


def descriptors(engine):
    return len(os.listdir(f"/proc/{engine.process.pid}/fd"))


def connect_from(number, address):
    """From one of many loopback addresses."""
    stranger = socket.socket()
    stranger.settimeout(10)
    stranger.bind((f"127.0.{1 + number // 250 % 250}.{1 + number % 250}", 0))
    stranger.connect(address)
    return stranger


class Attacks(Scenario):
    def setUp(self):
        super().setUp()
        if not os.path.isdir("/proc/self/fd"):
            self.skipTest("needs /proc, to see what a process holds open")

    @staticmethod
    def close(strangers):
        for stranger in strangers:
            stranger.close()

    def test_connection_flood_ten_thousand_strangers_hold_few_descriptors_and_hold_up_no_member(self):
        b = self.engine("B", listens=True).start()
        b.wait_for("started")
        before, most, open_ones = descriptors(b), 0, collections.deque()
        self.addCleanup(self.close, open_ones)
        member = self.engine("A", peers=[b.address])
        begun, joined = time.monotonic(), None
        for number in range(STRANGERS):
            stranger = connect_from(number, ("127.0.0.1", b.port))
            if number % 2:
                try:
                    stranger.sendall(b"\x00\x30" + os.urandom(48))
                except ConnectionError:
                    pass
            open_ones.append(stranger)
            if len(open_ones) > HELD:
                open_ones.popleft().close()
            if number % 50 == 0:
                most = max(most, descriptors(b))
            if number == STRANGERS // 4:
                add_product(member, "during-the-flood")
                member.start()
                joined = time.monotonic()
        took = time.monotonic() - begun
        wait_until(lambda: has_product(b, "during-the-flood"), 30, "a member's row arrives")
        print(
            f"flood: {STRANGERS} connections in {took:.1f} s, descriptors of the node {before} before, {most} at most; "
            f"a member that joined meanwhile was heard after {time.monotonic() - joined:.1f} s at the latest",
            file=sys.stderr,
        )
        self.assertLessEqual(most, before + 3 * PRE_AUTH_MAX + 16)
        self.close(open_ones)
        wait_until(lambda: descriptors(b) <= before + 8, 20, "the strangers' descriptors are given back")

    def test_when_descriptors_run_short_no_connections_are_taken_until_they_are_back_and_links_live_on(self):
        b = self.engine("B", listens=True)
        b.prefix = ["sh", "-c", 'ulimit -n 80; exec "$@"', "sh"]
        b.start().wait_for("started")
        a = self.engine("A", peers=[b.address]).start()
        a.wait_for("peer_up", name="B")
        before = descriptors(b)
        self.assertLess(before, 50, "the node itself needs so many that this test says nothing")
        strangers = [connect_from(number * 250, ("127.0.0.1", b.port)) for number in range(60)]
        self.addCleanup(self.close, strangers)
        paused = b.wait_for("listen_paused")
        self.assertEqual(paused["descriptors_max"], 80)
        self.assertLess(descriptors(b), 70, "a quarter is left free")
        add_product(a, "while-paused")
        wait_until(lambda: has_product(b, "while-paused"), 10, "the link lives on")
        self.close(strangers)
        b.wait_for("listen_resumed", seconds=30)
        late = self.engine("C", peers=[b.address]).start()
        late.wait_for("peer_up", name="B", seconds=30)
        wait_until(lambda: has_product(late, "while-paused"), 20, "whoever comes later is let in")

    def test_a_stranger_that_dribbles_is_cut_off_at_the_deadline_for_the_whole_handshake(self):
        b = self.engine("B", listens=True).start()
        b.wait_for("started")
        stranger = socket.create_connection(("127.0.0.1", b.port))
        begun = time.monotonic()
        with stranger:
            while time.monotonic() - begun < 20:
                try:
                    stranger.sendall(b"\x00")
                except ConnectionError:
                    break
                if select.select([stranger], [], [], 0.2)[0] and stranger.recv(1) == b"":
                    break
        self.assertLess(time.monotonic() - begun, 15, "5 s are allowed")


class Secrets(Scenario):
    """A canary in every place where a secret is put; then everything that nodes leave behind is searched for it."""

    def forms(self, name, raw):
        """What a leaked secret may look like."""
        lower, upper = raw.hex(), raw.hex().upper()
        base32 = base64.b32encode(raw).decode().rstrip("=")
        listed = ", ".join(str(byte) for byte in raw)
        texts = [lower, upper, base32, base32.lower(), base64.b64encode(raw).decode().rstrip("="), listed]
        return [(name, raw), *((name, text.encode()) for text in texts)]

    def test_no_secret_is_in_a_log_at_trace_an_event_or_any_file_but_its_own(self):
        generated = self.secret.read_text(encoding="utf-8").strip().splitlines()[-1]
        digits = generated.removeprefix("entgldb1-").replace("-", "").upper()
        raw = base64.b32decode(digits + "=" * (-len(digits) % 8))[:32]
        passphrase = f"canary {secrets.token_hex(8)} marble otter"
        phrase_file = self.folder / "phrase.secret"
        phrase_file.write_text(f"passphrase: {passphrase}\n", encoding="utf-8")
        phrase_file.chmod(0o600)
        document = f"canary-of-a-document-{secrets.token_hex(8)}"

        said = []
        pairs = [("A", "B", self.secret), ("C", "D", phrase_file)]
        folders, words = {self.secret, phrase_file}, [("passphrase", passphrase.encode()), *self.forms("secret", raw)]
        words += [("secret", generated.encode()), ("secret", digits.encode()), ("secret", digits.lower().encode())]
        for first, second, secret in pairs:
            one = self.engine(first, listens=True, secret=secret)
            two = self.engine(second, peers=[one.address], secret=secret)
            stranger = self.engine(f"stranger-{first}", peers=[one.address], secret=self.new_secret(f"other-{first}"))
            for engine in (one, two, stranger):
                engine.prefix = LOUD
                engine.start().wait_for("started")
            add_product(two, document)
            wait_until(lambda: has_product(one, document), 30, "the document arrives")
            stranger.wait_for("dial_failed")
            for engine in (one, two):
                code, text = engine.run("status", str(engine.database))
                said.append(text)
                identity = pathlib.Path(f"{engine.database}-entgldb") / "identity"
                folders.add(identity)
                for line in identity.read_text(encoding="utf-8").splitlines():
                    kind, _, key = line.partition(" ")
                    if kind in ("signing", "noise"):
                        key = key.strip()
                        words += self.forms(f"{kind} key", base64.b32decode(key + "=" * (-len(key) % 8)))
                said.append(repr(engine.events))
                command = pathlib.Path(f"/proc/{engine.process.pid}")
                said += [(command / name).read_text(errors="replace") for name in ("cmdline", "environ") if command.is_dir()]
            # At TRACE, the libraries have their say too; without this line nothing was looked at.
            self.assertIn("TRACE", one.log.read_text(encoding="utf-8"))
            for engine in (one, two, stranger):
                self.assertNotIn(document, engine.log.read_text(encoding="utf-8"), "a document in a log")
                engine.stop()

        files = [path for path in self.folder.rglob("*") if path.is_file() and path not in folders and path.suffix != ".secret"]
        self.assertGreater(len(files), 10)
        for path in files:
            content = path.read_bytes()
            for name, word in words:
                self.assertNotIn(word, content, f"the {name} in {path.name}")
        for text in said:
            for name, word in words:
                self.assertNotIn(word.decode(errors="replace"), text, f"the {name} was said")


CORES = [
    "../../../../tmp/entgldb-evil-cli", "/tmp/entgldb-evil-cli", "..\\..\\evil", "C:\\evil", "file:evil.db?mode=rwc", ".", "..",
    "./evil", "~/evil", "$HOME/evil", "%2e%2e%2fevil", "CON", "-rf", "--data-dir=evil", "'; DROP TABLE products; --",
    "\"; DROP TABLE products; --", "`; DROP TABLE products; --", "]; DROP TABLE products; --", "1 OR 1=1",
    "' UNION SELECT sql FROM sqlite_schema --", "ATTACH DATABASE 'evil' AS e", "load_extension('evil')", "/* evil */", "?1", ":name",
    "select", "main.sqlite_schema", "$(touch evil)", "`touch evil`", "| touch evil", "& touch evil &", "> evil", "*", "{\"a\":1}",
    "<script>alert(1)</script>", "{{7*7}}${7*7}", "%s%n%x", "\u202egpj.evil", "e\u0301vil", "\ufeffevil", "\U0001f4a3evil", "\x1b[2J",
    "a\nb", "a\rb", "\t", "", " ", "x" * 300, "\\\\host\\share", "evil\x7f",
]
FRAMES = ["{}", "'{}'", '"{}"', "`{}`", "[{}]", " {} ", "a.{}.b", "\\{}\\", '""{};', "({})--"]


class EvilNames(Scenario):
    """Five hundred names that mean something to a shell, to SQL or to a file system, given to each command."""

    def listing(self):
        # A command that reads a database in WAL mode leaves SQLite's own two files beside it; no name on the command line is in them.
        sqlites = [f"B.db{suffix}" for suffix in ("-wal", "-shm")]
        found = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        return sorted(name for name in found if name not in sqlites)

    def test_five_hundred_evil_names_on_the_command_line_make_no_file_and_change_no_schema(self):
        names = [frame.replace("{}", core) for core in CORES for frame in FRAMES]
        self.assertEqual(len(set(names)), 500)
        engine, other = self.engine("A"), self.engine("B")
        for node in (engine, other):
            node.start().wait_for("started")
            node.stop()
        work = self.folder / "work" / "inner"
        work.mkdir(parents=True)
        schema = "SELECT name, sql FROM sqlite_schema ORDER BY name"
        before = [self.listing(), shop.read(engine.database, schema), shop.read(other.database, schema)]
        commands = [
            lambda name: ["status", name],
            lambda name: ["verify", name],
            lambda name: ["conflicts", name],
            lambda name: ["peers", str(other.database), "--forget", name],
            lambda name: ["conflicts", str(other.database), "--data-dir", name],
            lambda name: ["sync", str(engine.database), "--secret-file", name, "--watch", "products"],
            lambda name: ["sync", str(engine.database), "--secret-file", str(self.secret), f"--watch={name}"],
        ]
        outcomes = collections.Counter()
        for number, name in enumerate(names):
            command = commands[number % len(commands)](name)
            done = subprocess.run([program(), *command], cwd=work, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
            self.assertIn(done.returncode, range(0, 126), f"{command}: {done.stderr[-500:]}")
            self.assertNotIn(b"panicked", done.stderr, command)
            outcomes[command[0], done.returncode] += 1
        print(f"evil names: {dict(outcomes)}", file=sys.stderr)
        after = [self.listing(), shop.read(engine.database, schema), shop.read(other.database, schema)]
        for was, now in zip(before, after):
            self.assertEqual(was, now)
        self.assertFalse(os.path.exists("/tmp/entgldb-evil-cli"))
