"""A node's disk fills up with what its peers send, and is given room again."""
import random
import time

import machine
import shop
from cluster import Scenario, wait_until
from ledger import Ledger, faults

SMALL, LARGE = 64, 512  # MiB
IMAGE_BYTES = 8000
IMAGES = 5000  # as documents and as rows, more than the small disk holds


def add_images(database, first, count):
    """Orders with an image each, in transactions of a hundred, like a till that is synced for the first time."""
    chance = random.Random(first)
    connection = shop.connect(database)
    connection.execute("INSERT OR IGNORE INTO products VALUES('painting', 1, 1, 'images', 1)")
    for start in range(first, first + count, 100):
        connection.execute("BEGIN")
        for number in range(start, start + 100):
            order = f"image-{number}"
            connection.execute("INSERT INTO orders VALUES(?, '', 'images', 1)", (order,))
            image = chance.randbytes(IMAGE_BYTES)
            connection.execute("INSERT INTO order_lines VALUES(?, 0, 'painting', ?, 'images', 1)", (order, image))
        connection.execute("COMMIT")
    connection.close()


class FullDisk(Scenario):
    def test_it_stops_intake_first_takes_local_writes_and_goes_on_by_itself_when_there_is_room(self):
        machine.needs("mount")
        disk = machine.SmallDisk(self.folder, SMALL)
        self.ends.append(disk.end)
        b = self.engine("B", listens=True).start()
        a = self.engine("A", peers=[b.address], disk=disk.place).start()
        a.wait_for("peer_up", name="B")
        add_images(b.database, 0, IMAGES)
        told = a.wait_for("store_error", seconds=60)
        self.assertTrue(told["retry"], told)
        time.sleep(2)
        held, free = len(shop.rows(a.database, "orders")), disk.free_bytes()
        self.assertLess(held, IMAGES, "the disk was to be too small")

        # The till goes on selling, and what it sells still leaves it.
        writer = self.writer(a, "full disk").start()
        time.sleep(2)
        writer.stop()
        ledger = Ledger(writer.ledger, "A")
        self.assertGreater(len(ledger.committed), 20, "local writes are taken while intake has stopped")
        last = max(n for n in ledger.committed)
        wait_until(lambda: any(n == last for _, n in shop.written(b.database).values()) or self.journalled(b, last),
                   60, "what is written on the full machine reaches the other")
        stopped = [event for event in a.events if event["event"] == "store_error"]
        # A checkpoint may give room back for a moment, which is told too.
        self.assertLess(len(stopped), 4, f"it is told when it begins, not at every attempt: {stopped}")

        disk.grow(LARGE)
        self.settle([a, b])
        self.assertGreaterEqual(len(shop.rows(a.database, "orders")), IMAGES)
        others = "products painting is images's version 1, which is no writer's last"
        self.assertEqual([fault for fault in faults([ledger], [a.database, b.database]) if fault != others][:5], [])
        for engine in (a, b):
            engine.stop()
            self.verify(engine)
        print(f"{held} of {IMAGES} orders taken in with {free >> 10} KiB left, {len(ledger.committed)} local "
              "transactions meanwhile ", end="", flush=True)

    def journalled(self, engine, n):
        return any(writer == "A" and number == n for _, writer, number in shop.journal(engine.database))
