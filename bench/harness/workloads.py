"""The workloads: what two nodes A and B of one peer are put through, and what is measured of it."""
import pathlib
import statistics
import subprocess
import sys
import threading
import time

APPLICATION = pathlib.Path(__file__).with_name("application.py")


def catch_up(a, b, count):
    """W1: an empty node takes everything that another one has."""
    a.ask("load", n=count)
    address = a.ask("listen").get("addr")
    time.sleep(0.5)
    cpu_a, cpu_b, wire = a.cpu_s(), b.cpu_s(), wire_bytes()
    begin = time.monotonic_ns()
    b.ask("connect", addr=address)
    seconds = (b.ask("waitcount", n=count)["ns"] - begin) / 1e9
    return {
        "seconds": seconds,
        "documents_per_s": count / seconds,
        "wire_mb": megabytes(wire_bytes(), wire),
        "memory_a_mb": a.memory_mb(),
        "memory_b_mb": b.memory_mb(),
        "cpu_a_s": a.cpu_s() - cpu_a,
        "cpu_b_s": b.cpu_s() - cpu_b,
    }


def local_writes(a, b, count):
    """W2: what an application's own write costs, one document a transaction."""
    address = a.ask("listen").get("addr")
    plain = a.ask("plain1", n=count)["s"]
    alone = a.ask("write1", n=count, **{"from": 0})["s"]
    b.ask("connect", addr=address)
    b.ask("waitcount", n=count)
    connected = a.ask("write1", n=count, **{"from": count})["s"]
    return {
        "plain_us": plain / count * 1e6,
        "alone_us": alone / count * 1e6,
        "connected_us": connected / count * 1e6,
        "alone_over_plain": alone / plain,
        "connected_over_plain": connected / plain,
    }


def latency(a, b, count):
    """W3: from the commit on A until B's application can see it, one document each 10 ms."""
    few_and_connected(a, b)
    cpu_a, cpu_b, wire = a.cpu_s(), b.cpu_s(), wire_bytes()
    committed = a.ask("tick", n=count, ms=10, **{"from": 10})["t"]
    b.ask("waitcount", n=10 + count)
    seen = all_seen(b, committed)
    taken = sorted((seen[key] - committed[key]) / 1e6 for key in committed)
    return {
        "p50_ms": statistics.median(taken),
        "p99_ms": taken[min(count - 1, int(count * 0.99))],
        "max_ms": taken[-1],
        "wire_b_per_document": None if wire is None else (wire_bytes() - wire) / count,
        "cpu_a_s": a.cpu_s() - cpu_a,
        "cpu_b_s": b.cpu_s() - cpu_b,
    }


def large_transaction(a, b, count):
    """W4: many documents in one transaction, live."""
    few_and_connected(a, b)
    b.tell("waitcount", n=count + 10)
    written = a.ask("bulk", n=count, **{"from": 10})
    visible = b.answer(600)["ns"]
    return {
        "commit_s": (written["ns"] - written["ns0"]) / 1e9,
        "seconds": (visible - written["ns"]) / 1e9,
    }


def conflicts(a, b, count):
    """W5: both sides edit the same documents while apart; until both are the same again."""
    address = a.ask("listen").get("addr")
    a.ask("load", n=count)
    b.ask("connect", addr=address)
    b.ask("waitcount", n=count)
    time.sleep(1)
    b.ask("disconnect")
    a.ask("edit", n=count, tag="A")
    b.ask("edit", n=count, tag="B")
    wire, begin = wire_bytes(), time.monotonic()
    b.ask("connect", addr=address)
    while True:
        of_a, of_b = a.ask("digest"), b.ask("digest")
        seconds = time.monotonic() - begin
        if of_a["h"] == of_b["h"]:
            return {"seconds": seconds, "winners": of_a.get("tags"), "wire_mb": megabytes(wire_bytes(), wire)}
        if seconds > 90:
            raise TimeoutError("not the same after 90 s")
        time.sleep(0.02)


def idle(a, b, seconds):
    """W6: two connected nodes with nothing to do."""
    few_and_connected(a, b)
    time.sleep(3)
    cpu_a, cpu_b, wire = a.cpu_s(), b.cpu_s(), wire_bytes()
    time.sleep(seconds)
    return {
        "cpu_a_percent": (a.cpu_s() - cpu_a) / seconds * 100,
        "cpu_b_percent": (b.cpu_s() - cpu_b) / seconds * 100,
        "wire_b_per_s": None if wire is None else (wire_bytes() - wire) / seconds,
    }


def neighbour(a, b, count):
    """W8: an unchanged application beside A; how many of its transactions fail, in percent. Then the same while a peer writes
    one document every 50 ms."""
    address = b.ask("listen").get("addr")
    a.ask("load", n=10)
    b.ask("load", n=20)
    figures = application_fails(a, count, "alone")
    a.ask("connect", addr=address)
    a.ask("waitcount", n=20)
    writes = int(count * 6 * 0.03 / 0.05) + 20  # for about as long as the application takes
    ticking = threading.Thread(target=b.ask, args=("tick",), kwargs={"n": writes, "from": 20, "ms": 50})
    ticking.start()
    figures |= application_fails(a, count, "peer")
    ticking.join()
    return figures


def application_fails(node, count, when):
    """Percent of the transactions, for each way to begin one and each timeout."""
    figures = {}
    for begin in ("NONE", "DEFERRED", "IMMEDIATE"):
        for timeout in (0, 5):
            command = [sys.executable, str(APPLICATION), str(node.folder / "data.db"), begin, str(timeout), str(count)]
            failed = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)
            name = "autocommit" if begin == "NONE" else begin.lower()
            figures[f"{when}_{name}_{timeout}s_percent"] = failed / count * 100
    return figures


WORKLOADS = {
    "W1": catch_up,
    "W2": local_writes,
    "W3": latency,
    "W4": large_transaction,
    "W5": conflicts,
    "W6": idle,
    "W8": neighbour,
}


def all_seen(node, keys):
    """When each of these was seen; a peer may count a document before it tells its application of it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        seen = node.ask("seen")["t"]
        if all(key in seen for key in keys):
            return seen
        time.sleep(0.1)
    raise TimeoutError("some documents were counted and never seen")


def few_and_connected(a, b):
    address = a.ask("listen").get("addr")
    a.ask("load", n=10)
    b.ask("connect", addr=address)
    b.ask("waitcount", n=10)
    time.sleep(2)


wire_is_ours = False  # whether nobody else's bytes cross this loopback; set by bench.py


def wire_bytes():
    """What has crossed the loopback of this network namespace, headers included; None where others use it too."""
    if not wire_is_ours:
        return None
    with open("/proc/net/dev", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def megabytes(after, before):
    return None if before is None else (after - before) / 1e6
