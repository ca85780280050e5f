"""Those who do not belong: a wrong secret, a stranger, and members' hosts that fall silent."""
import os
import signal
import socket
import threading
import time

import shop
from cluster import Scenario, wait_until

HELLOS = {
    "nothing that makes sense": os.urandom(48),
    "a long random message": os.urandom(5000),
    "a record that claims to be as long as can be": b"\xff\xff" + os.urandom(200),
    "an empty record": b"\x00\x00",
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "silence": b"",
}


def add_product(engine, key, writer="test", n=1):
    connection = shop.connect(engine.database)
    connection.execute("INSERT INTO products VALUES(?, 1, 0.5, ?, ?)", (key, writer, n))
    connection.close()


def has_product(engine, key):
    return bool(shop.read(engine.database, "SELECT 1 FROM products WHERE id = ?", key))


class Strangers(Scenario):
    def setUp(self):
        super().setUp()
        self.b = self.engine("B", listens=True).start()
        self.b.wait_for("started")

    def meet(self, engine, key, seconds=20):
        """A row that one member writes arrives at B."""
        add_product(engine, key)
        wait_until(lambda: has_product(self.b, key), seconds, f"{key} arrives at B")

    def test_a_node_with_another_secret_gets_and_gives_nothing(self):
        add_product(self.b, "of-b")
        intruder = self.engine("D", peers=[self.b.address], secret=self.new_secret("other"))
        add_product(intruder, "of-d")
        intruder.start().wait_for("dial_failed", target=self.b.address)
        member = self.engine("A", peers=[self.b.address]).start()
        member.wait_for("peer_up", name="B")
        self.meet(member, "of-a")
        time.sleep(2)  # more tries of the intruder
        self.assertFalse(has_product(self.b, "of-d"))
        self.assertFalse(has_product(intruder, "of-b") or has_product(intruder, "of-a"))
        self.assertNotIn("peer_up", [event["event"] for event in intruder.events])
        intruder.stop()

    def test_a_stranger_is_not_answered_by_a_single_byte(self):
        answers = {}

        def call(name, hello):
            with socket.create_connection(("127.0.0.1", self.b.port), timeout=15) as stranger:
                try:
                    stranger.sendall(hello)
                    answers[name] = stranger.recv(1)
                except ConnectionError:
                    answers[name] = b""  # reset: closed with our words unread

        callers = [threading.Thread(target=call, args=item) for item in HELLOS.items()]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
        # A call that is not closed in time ends in an exception and leaves no answer.
        self.assertEqual(answers, {name: b"" for name in HELLOS})
        member = self.engine("A", peers=[self.b.address]).start()
        self.meet(member, "after-the-strangers")

    def test_a_silent_host_holds_up_nobody_else(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            peers = [f"127.0.0.1:{silent.getsockname()[1]}", self.b.address]
            member = self.engine("A", peers=peers).start()
            callers = [socket.create_connection(("127.0.0.1", self.b.port)) for _ in range(4)]
            accepted, _ = silent.accept()
            member.wait_for("peer_up", name="B", seconds=10)
            for number in range(5):
                self.meet(member, f"while-silent-{number}", seconds=5)
            accepted.close()
            for caller in callers:
                caller.close()

    def test_a_member_that_freezes_holds_up_nobody_else(self):
        frozen = self.engine("C", peers=[self.b.address]).start()
        frozen.wait_for("peer_up", name="B")
        member = self.engine("A", peers=[self.b.address]).start()
        member.wait_for("peer_up", name="B")
        frozen.process.send_signal(signal.SIGSTOP)  # its connections stay open and take nothing
        try:
            for number in range(5):
                self.meet(member, f"while-frozen-{number}", seconds=5)
        finally:
            frozen.process.send_signal(signal.SIGCONT)
        wait_until(lambda: has_product(frozen, "while-frozen-4"), 30, "C catches up once it goes on")
