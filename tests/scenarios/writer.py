"""A program that writes a shop's database, as any application would, and keeps a ledger of what it committed.

    python3 writer.py DATABASE LEDGER NAME SEED [PRAGMA]

PRAGMA is a setting of its connection, such as `synchronous = NORMAL`; SQLite's default is FULL.

Before a transaction it notes in the ledger what it is about to write, afterwards how it ended. A note outlives the
process's death at any moment (it is with the operating system), so what is noted as committed was acknowledged, and
what is only begun is unknown. Ends at SIGTERM, after the transaction at hand.
"""
import json
import os
import random
import select
import signal
import sys

import shop


class Writer:
    def __init__(self, database, ledger, name, seed, pragma="synchronous = FULL"):
        self.name = name
        self.random = random.Random(seed)
        self.connection = shop.connect(database)
        self.connection.execute(f"PRAGMA {pragma}")
        self.n = last_number(ledger)
        self.ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.own = [row[0] for row in self.connection.execute("SELECT id FROM orders WHERE writer = ?", (name,))]
        self.running = True

    def stop(self, *_):
        self.running = False

    def run(self):
        while self.running:
            self.one_transaction()
            # Not time.sleep: libfaketime takes the moment at which that ends for the time of day.
            select.select([], [], [], self.random.uniform(0.002, 0.04))

    def one_transaction(self):
        self.n += 1
        plan = self.random.choices([self.new, self.change, self.delete, self.reprice], [5, 5, 1, 4])[0]()
        rolled_back = self.random.random() < 0.05
        self.note({"n": self.n, "begun": [[table, key, put] for table, key, put, _, _ in plan]})
        self.connection.execute("BEGIN IMMEDIATE")
        for _, _, _, statement, arguments in plan:
            self.connection.execute(statement, arguments)
        self.connection.execute("ROLLBACK" if rolled_back else "COMMIT")
        self.note({"n": self.n, "ended": "rolled back" if rolled_back else "committed"})
        self.own = [row[0] for row in self.connection.execute("SELECT id FROM orders WHERE writer = ?", (self.name,))]

    def note(self, line):
        os.write(self.ledger, json.dumps(line).encode() + b"\n")

    # Each of these plans one kind of transaction: a list of (table, key, whether it is a put, statement, arguments).

    def new(self):
        order = f"{self.name}-{self.n}"
        plan = [self.product(self.random.randrange(shop.PRODUCTS))]
        plan.append(("orders", order, True, "INSERT INTO orders VALUES(?, ?, ?, ?)", (order, "new", self.name, self.n)))
        product = plan[0][1]
        return plan + [self.line(order, line, product) for line in range(self.random.randrange(1, 4))]

    def change(self):
        if not self.own:
            return self.new()
        order = self.random.choice(self.own)
        statement = "UPDATE orders SET note = ?, n = ? WHERE id = ?"
        product = self.product(self.random.randrange(shop.PRODUCTS))
        changed = ("orders", order, True, statement, (f"changed in {self.n}", self.n, order))
        return [product, changed, self.line(order, 0, product[1])]

    def delete(self):
        if not self.own:
            return self.new()
        order = self.random.choice(self.own)
        lines = self.connection.execute("SELECT line FROM order_lines WHERE order_id = ?", (order,)).fetchall()
        # The lines go by the cascade of the foreign key.
        plan = [("order_lines", line_key(order, line), False, "SELECT 1", ()) for (line,) in lines]
        return plan + [("orders", order, False, "DELETE FROM orders WHERE id = ?", (order,))]

    def reprice(self):
        return [self.product(number) for number in self.random.sample(range(shop.PRODUCTS), 2)]

    def product(self, number):
        key = f"product-{number}"
        statement = (
            "INSERT INTO products VALUES(?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " stock = stock - 1, price = excluded.price, writer = excluded.writer, n = excluded.n"
        )
        return ("products", key, True, statement, (key, 1000, self.n / 8, self.name, self.n))

    def line(self, order, line, product):
        image = self.random.randbytes(self.random.randrange(40))
        arguments = (order, line, product, image, self.name, self.n)
        return ("order_lines", line_key(order, line), True, "REPLACE INTO order_lines VALUES(?, ?, ?, ?, ?, ?)", arguments)


def line_key(order, line):
    return json.dumps([order, line], separators=(",", ":"))


def last_number(ledger):
    try:
        with open(ledger, encoding="utf-8") as lines:
            return max((json.loads(line)["n"] for line in lines), default=0)
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    writer = Writer(*sys.argv[1:])
    signal.signal(signal.SIGTERM, writer.stop)
    writer.run()
