"""The shop that the scenarios sync: its tables, and how its databases are read and compared.

Every row says who wrote it and in which of their transactions, so that a row is traced to the ledger of its writer.
"""
import json
import sqlite3

TABLES = ["products", "orders", "order_lines"]
PRODUCTS = 12  # few, so that writers meet in them

SCHEMA = """
CREATE TABLE IF NOT EXISTS products(id TEXT PRIMARY KEY, stock INTEGER, price REAL, writer TEXT, n INTEGER);
CREATE TABLE IF NOT EXISTS orders(id TEXT PRIMARY KEY, note TEXT, writer TEXT NOT NULL, n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS order_lines(
  order_id TEXT NOT NULL REFERENCES orders(id) ON DELETE CASCADE, line INTEGER NOT NULL,
  product_id TEXT NOT NULL REFERENCES products(id), image BLOB, writer TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY(order_id, line)) WITHOUT ROWID;
"""


def connect(database):
    """An ordinary application's connection: its own SQLite, in Python's module, with nothing of EntglDb in it."""
    connection = sqlite3.connect(database, timeout=60, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def create(database):
    connection = connect(database)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(SCHEMA)
    connection.close()


def read(database, statement, *arguments):
    connection = connect(database)
    try:
        return connection.execute(statement, arguments).fetchall()
    finally:
        connection.close()


def rows(database, table):
    """All rows of a table as {key: row}, the key in the text form that documents have."""
    if table == "order_lines":
        found = read(database, "SELECT * FROM order_lines")
        return {json.dumps([row[0], row[1]], separators=(",", ":")): row for row in found}
    return {row[0]: row for row in read(database, f"SELECT * FROM {table}")}


def written(database):
    """Who wrote each row, and in which transaction: {(table, key): (writer, n)}."""
    return {(table, key): row[-2:] for table in TABLES for key, row in rows(database, table).items()}


def vector(database):
    """What the engine of this database holds: the head of each log; and how many changes it has not captured yet."""
    heads = read(
        database,
        "SELECT node_id, incarnation, name, seq, hash FROM _entgldb_logs"
        " JOIN _entgldb_authors AS author ON author.no = author_no"
        " JOIN _entgldb_collections AS collection ON collection.no = collection_no WHERE seq > 0 AND name <> '_entgldb_members'"
        " ORDER BY 1, 2, 3",
    )
    return heads, read(database, "SELECT count(*) FROM _entgldb_outbox")[0][0]


def journal(database):
    """All versions in the oplog: {(key, writer, n)}. Deletes carry no content and are left out, and so are the engine's own."""
    payloads = read(
        database,
        "SELECT key, payload FROM _entgldb_oplog JOIN _entgldb_logs AS log ON log.no = _entgldb_oplog.id >> 40"
        " JOIN _entgldb_collections AS collection ON collection.no = collection_no"
        " WHERE length(payload) > 0 AND name <> '_entgldb_members'",
    )
    versions = ((key, json.loads(payload)) for key, payload in payloads)
    return {(key, row["writer"], row["n"]) for key, row in versions}
