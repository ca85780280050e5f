"""Somebody with access to a relay's disk alters a document in its oplog."""
import shop
from cluster import Scenario, wait_until
from test_strangers import add_product, has_product


class Tampered(Scenario):
    def test_an_altered_payload_is_refused_by_the_next_node_and_named(self):
        relay = self.engine("B", listens=True)
        author = self.engine("A", peers=[relay.address])
        for number in range(5):
            add_product(author, f"product-{number}", "A", number)
        relay.start()
        author.start()
        self.settle([author, relay])
        author.stop()
        relay.stop()

        connection = shop.connect(relay.database)
        altered = connection.execute(
            "UPDATE _entgldb_oplog SET payload = CAST(replace(CAST(payload AS TEXT), '0.5', '9.5') AS BLOB)"
            " WHERE key = 'product-3'"
        )
        self.assertEqual(altered.rowcount, 1)
        connection.close()

        relay.start()
        reader = self.engine("C", peers=[relay.address]).start()
        refused = reader.wait_for("refused")
        self.assertIn("products", refused["detail"])
        self.assertIn("product-3", refused["detail"])
        told = relay.wait_for("refused_by_peer")
        self.assertIn("product-3", told["detail"])
        self.assertFalse(has_product(reader, "product-3"))

        # What the reader writes itself still travels, so the refusal stops that log and nothing else.
        connection = shop.connect(reader.database)
        connection.execute("INSERT INTO orders VALUES('C-1', '', 'C', 1)")
        connection.close()
        wait_until(lambda: shop.rows(relay.database, "orders"), 20, "the reader's own order arrives at the relay")

        code, text = relay.run("verify", str(relay.database))
        self.assertEqual(code, 1, text)
        self.assertIn("product-3", text)
        # The author still has what it wrote, and gives it to whom the relay could not.
        relay.stop()
        reader.stop()
        self.verify(reader)
        self.verify(author)
