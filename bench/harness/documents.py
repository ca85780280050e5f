"""The documents that all peers carry: sale lines of a shop's till, 273 bytes of JSON on average.

    python3 documents.py COUNT > sales.jsonl

The same seed gives the same bytes everywhere, so that figures of different machines and years compare. The order in
which the random numbers are drawn is therefore fixed for good.
"""
import json
import pathlib
import random
import sys

SEED = 7
FIRST_SALE_MS = 1_760_000_000_000
ARTICLES = (
    "Espresso|Lungo|Cappuccino|Croissant|Panini prosciutto"
    "|Acqua 0.5l|Spremuta|Toast|Brioche vegana|The verde"
).split("|")
REMARKS = (
    "|takeaway|no sugar|customer asked for receipt|loyalty card applied"
    "|manager override: price|table 12, split bill|cold milk on the side"
).split("|")


def sales(count):
    """The first `count` documents as JSON text."""
    draw = random.Random(SEED)
    for number in range(count):
        created = FIRST_SALE_MS + number * 1370 + draw.randrange(1000)
        sale = {"id": f"sale-{number:08d}", "sku": f"SKU-{draw.randrange(20000):06d}"}
        sale["name"] = draw.choice(ARTICLES)
        sale["qty"] = draw.randrange(1, 9)
        sale["price"] = round(draw.random() * 40 + 0.5, 2)
        sale["vat"] = draw.choice([4, 10, 22])
        sale["store"] = f"store-{draw.randrange(40):03d}"
        sale["till"] = f"till-{draw.randrange(8):02d}"
        sale["cashier"] = f"cashier-{draw.randrange(300):04d}"
        sale["createdAt"] = created
        sale["updatedAt"] = created + draw.randrange(90_000)
        sale["receipt"] = f"{draw.getrandbits(64):016x}"
        sale["note"] = f"{draw.choice(REMARKS)} {draw.getrandbits(48):012x}"
        yield json.dumps(sale, separators=(",", ":"))


def file_of(count, folder):
    """A file in `folder` with at least `count` documents, one a line; written if it is not there."""
    path = pathlib.Path(folder) / f"sales-{count}.jsonl"
    if not path.exists():
        with open(path, "w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(text + "\n" for text in sales(count))
    return path


if __name__ == "__main__":
    for text in sales(int(sys.argv[1])):
        print(text)
