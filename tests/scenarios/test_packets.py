"""What somebody sees who listens to every packet between two nodes."""
import base64
import signal
import socket
import subprocess

import machine
import shop
from cluster import Scenario, free_port, wait_until

CANARIES = {
    "content": b"canary-in-the-content",
    "key": b"canary-in-the-key",
    "label": b"canary-in-the-label",
    "table": b"order_lines",
}
CONTROL = b"canary-that-is-sent-in-clear"


class Packets(Scenario):
    def setUp(self):
        machine.needs("tcpdump")
        super().setUp()

    def listen(self, *ports):
        """Starts to write down every packet from and to these ports."""
        self.capture = self.folder / "packets.pcap"
        ports = " or ".join(f"tcp port {port}" for port in ports)
        command = ["tcpdump", "-i", "lo", "-U", "-Z", "root", "-w", str(self.capture), ports]
        tcpdump = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.ends.append(tcpdump.kill)
        first = tcpdump.stderr.readline()
        if "listening" not in first:
            tcpdump.wait(10)
            self.skipTest(f"tcpdump may not listen here: {first.strip()}")
        return tcpdump

    def control(self, port):
        """The same word in clear: who does not find this one proves nothing about the others."""
        with socket.create_server(("127.0.0.1", port)) as server:
            with socket.create_connection(("127.0.0.1", port)) as caller:
                accepted, _ = server.accept()
                caller.sendall(CONTROL)
                accepted.recv(100)
                accepted.close()

    def test_neither_documents_nor_names_nor_the_secret_can_be_read_in_them(self):
        a = self.engine("canary-in-the-label-A", listens=True)
        b = self.engine("canary-in-the-label-B", peers=[a.address])
        control = free_port()
        tcpdump = self.listen(a.port, control)
        for engine in (a, b):
            connection = shop.connect(engine.database)
            for number in range(200):
                row = (f"canary-in-the-key-{engine.name}-{number}", "canary-in-the-content " * 5, engine.name, number)
                connection.execute("INSERT INTO orders VALUES(?, ?, ?, ?)", row)
            connection.close()
            engine.start()
        self.settle([a, b])
        self.assertEqual(len(shop.rows(b.database, "orders")), 400)
        for engine in (a, b):
            engine.stop()
        self.control(control)
        wait_until(lambda: CONTROL in self.capture.read_bytes(), 20, "tcpdump writes the word down that is sent in clear")
        tcpdump.send_signal(signal.SIGTERM)
        tcpdump.wait(10)
        tcpdump.stderr.close()

        seen = self.capture.read_bytes()
        self.assertGreater(len(seen), 5000, "the sync itself is in there")
        for what, word in {**CANARIES, **self.secrets()}.items():
            self.assertNotIn(word, seen, what)
            self.assertNotIn(base64.b64encode(word)[:-4], seen, f"{what}, as base64")
        print(f"{len(seen)} bytes of packets ", end="", flush=True)

    def secrets(self):
        """The secret as its file has it, and the first of the bytes that it stands for."""
        (written,) = [word for word in self.secret.read_text().split() if word.startswith("entgldb1-")]
        letters = written.removeprefix("entgldb1-").replace("-", "").upper()
        return {"secret": written[9:].encode(), "the secret's bytes": base64.b32decode(letters[:32])[:16]}
