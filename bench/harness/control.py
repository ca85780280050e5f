"""The control: the same documents carried by a plain program, with no sync machinery at all.

Rows of one SQLite database go over a plain TCP socket, in batches of 5,000, into another one, each batch in one
transaction. One way, in order, without conflicts, encryption, identity or journal. It speaks the node commands of
`node.py`, so what EntglDb costs is its time divided by this one's in the same run.
"""
import argparse
import itertools
import json
import marshal
import os
import socket
import sqlite3
import struct
import sys
import threading
import time

BATCH_ROWS = 5000
LOAD_ROWS = 500
INSERT = "INSERT INTO d(id, doc) VALUES(?, ?) ON CONFLICT(id) DO UPDATE SET doc = excluded.doc"
LENGTH = struct.Struct("<I")


class Control:
    def __init__(self, options):
        self.options = options
        self.database = self.open("data.db")
        self.changed = threading.Condition(threading.RLock())
        self.seen = {}
        self.documents = []

    def open(self, name):
        connection = sqlite3.connect(f"{self.options.dir}/{name}", isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self.options.durability}")
        # The version is what the receiver asks by: everything past the last one that it has.
        connection.execute(
            "CREATE TABLE IF NOT EXISTS d(version INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, doc TEXT)"
        )
        return connection

    def rows(self, first, count):
        if len(self.documents) < first + count:
            with open(self.options.documents, encoding="utf-8") as lines:
                wanted = itertools.islice(lines, first + count)
                self.documents = [(line[7:20], line.rstrip("\n")) for line in wanted]
        return self.documents[first : first + count]

    # The link: the receiver says which version it has, the sender sends what follows, for as long as it stays up.

    def send(self, link):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        (version,) = marshal.loads(receive(link))
        reader = self.open("data.db")
        with link:
            while True:
                cursor = reader.execute("SELECT version, id, doc FROM d WHERE version > ? ORDER BY version", (version,))
                before = version
                while rows := cursor.fetchmany(BATCH_ROWS):
                    version = rows[-1][0]
                    send(link, rows)
                if version == before:
                    with self.changed:
                        self.changed.wait(0.5)

    def take(self, link):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send(link, [self.database.execute("SELECT coalesce(max(version), 0) FROM d").fetchone()[0]])
        while True:
            rows = marshal.loads(receive(link))
            with self.changed:
                self.database.execute("BEGIN IMMEDIATE")
                self.database.executemany("INSERT OR REPLACE INTO d VALUES(?, ?, ?)", rows)
                self.database.execute("COMMIT")
                now = time.monotonic_ns()
                for row in rows:
                    self.seen[row[1]] = now
                self.changed.notify_all()

    # The node commands.

    def load(self, command):
        with self.changed:
            for first in range(0, command["n"], LOAD_ROWS):
                self.insert_together(self.rows(first, min(LOAD_ROWS, command["n"] - first)))

    def listen(self, _):
        server = socket.create_server(("127.0.0.1", self.options.port))
        background(self.accept, server)
        return {"addr": self.options.port}

    def accept(self, server):
        while True:
            background(self.send, server.accept()[0])

    def connect(self, command):
        background(self.take, socket.create_connection(("127.0.0.1", command["addr"])))

    def waitcount(self, command):
        with self.changed:
            while self.database.execute("SELECT count(*) FROM d").fetchone()[0] < command["n"]:
                self.changed.wait(1)
            return {"ns": time.monotonic_ns()}

    def write1(self, command):
        rows = self.rows(command["from"], command["n"])
        begin = time.monotonic()
        for row in rows:
            self.insert(row)
        return {"s": time.monotonic() - begin}

    def plain1(self, command):
        rows, database = self.rows(0, command["n"]), self.open("plain.db")
        begin = time.monotonic()
        for row in rows:
            database.execute(INSERT, row)
        return {"s": time.monotonic() - begin}

    def tick(self, command):
        committed, begin = {}, time.monotonic()
        for number, row in enumerate(self.rows(command["from"], command["n"])):
            time.sleep(max(0, begin + number * command["ms"] / 1000 - time.monotonic()))
            committed[row[0]] = self.insert(row)
        return {"t": committed}

    def bulk(self, command):
        rows = self.rows(command["from"], command["n"])
        begin = time.monotonic_ns()
        return {"ns0": begin, "ns": self.insert_together(rows)}

    def seen_at(self, _):
        return {"t": self.seen}

    def insert(self, row):
        with self.changed:
            self.database.execute(INSERT, row)
            now = time.monotonic_ns()
            self.changed.notify_all()
        return now

    def insert_together(self, rows):
        with self.changed:
            self.database.execute("BEGIN")
            self.database.executemany(INSERT, rows)
            self.database.execute("COMMIT")
            now = time.monotonic_ns()
            self.changed.notify_all()
        return now


def send(link, rows):
    body = marshal.dumps(rows)
    link.sendall(LENGTH.pack(len(body)) + body)


def receive(link):
    (length,) = LENGTH.unpack(receive_exactly(link, LENGTH.size))
    return receive_exactly(link, length)


def receive_exactly(link, length):
    body = bytearray()
    while len(body) < length:
        part = link.recv(min(1 << 18, length - len(body)))
        if not part:
            raise EOFError("the other end is gone")
        body += part
    return bytes(body)


def background(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name")
    parser.add_argument("--documents", required=True)
    parser.add_argument("--durability", default="normal")
    control = Control(parser.parse_args())
    commands = {"seen": control.seen_at}
    print(json.dumps({"ready": 1}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command["c"] == "quit":
            break
        try:
            work = commands.get(command["c"]) or getattr(control, command["c"])
            print(json.dumps(work(command) or {}), flush=True)
        except Exception as error:  # whatever it is, the driver has to hear of it
            print(json.dumps({"error": repr(error)}), flush=True)
    os._exit(0)  # links end with the process, not one by one


if __name__ == "__main__":
    main()
