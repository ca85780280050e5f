"""An unchanged application beside the engine: how many of its transactions fail because the database is locked.

    python3 application.py DATABASE BEGIN TIMEOUT COUNT

Every 20 ms it changes one row. With BEGIN `DEFERRED` or `IMMEDIATE` it reads the row first, computes for 5 ms and writes it back, as
an ORM does in a transaction; with `NONE` it is one statement that commits by itself. TIMEOUT is that of its connection, in
seconds. A transaction that fails is undone, counted, and not tried again. Prints how many failed.
"""
import sqlite3
import sys
import time

PAUSE_SECONDS, COMPUTE_SECONDS = 0.02, 0.005
ROWS = 10


def run(database, begin, timeout, count):
    connection = sqlite3.connect(database, timeout=timeout, isolation_level=None)
    ids = [row[0] for row in connection.execute("SELECT id FROM d ORDER BY id LIMIT ?", (ROWS,))]
    failed = 0
    for number in range(count):
        try:
            change(connection, begin, ids[number % len(ids)], number)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            failed += 1
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        time.sleep(PAUSE_SECONDS)
    return failed


def change(connection, begin, key, number):
    if begin == "NONE":
        connection.execute("UPDATE d SET doc = json_set(doc, '$.note', ?) WHERE id = ?", (str(number), key))
        return
    connection.execute(f"BEGIN {begin}")
    (doc,) = connection.execute("SELECT json_set(doc, '$.note', ?) FROM d WHERE id = ?", (str(number), key)).fetchone()
    time.sleep(COMPUTE_SECONDS)
    connection.execute("UPDATE d SET doc = ? WHERE id = ?", (doc, key))
    connection.execute("COMMIT")


if __name__ == "__main__":
    print(run(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
