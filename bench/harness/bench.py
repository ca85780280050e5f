"""EntglDb and its control through the same workloads, in turn, in one run.

    python3 bench.py [W1:10000 ...] --node PATH [--peers copy,entgldb] [--peer NAME=COMMAND] [--runs 3] [--json FILE]

Run as root, it moves into a network namespace of its own, and the bytes that crossed its loopback are counted. Each
figure is the median over the runs; a ratio is the median of the ratios to the control in the same run.
"""
import argparse
import fcntl
import json
import os
import pathlib
import shlex
import shutil
import socket
import struct
import sys
import tempfile

import documents
import report
import workloads
from node import Node

HERE = pathlib.Path(__file__).parent
USUAL = ["W1:10000", "W1:100000", "W2:10000", "W3:1000", "W4:10000", "W5:1000", "W6:20", "W8:300"]
ONE_WAY = {"copy": {"W5"}}  # the control carries nothing back, so it has no part in this
IN_NAMESPACE = "ENTGLDB_BENCH_IN_NAMESPACE"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=USUAL, metavar="WORKLOAD:SIZE")
    parser.add_argument("--node", help="entgldb-bench-node, as built")
    parser.add_argument("--peers", default="copy,entgldb")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND", help="see node.py")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--durability", default="normal", choices=["normal", "full"])
    parser.add_argument("--port", type=int, default=7801)
    parser.add_argument("--json", type=pathlib.Path, help="also write every run's figures there")
    return parser.parse_args()


def own_network():
    """Starts this program again in a network namespace of its own, if it may. Whether it is in one by now."""
    if os.environ.get(IN_NAMESPACE):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            request = struct.pack("16sh14x", b"lo", 0)
            flags = struct.unpack("16sh14x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
        return True
    if os.geteuid() == 0 and shutil.which("unshare"):
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    print("note: bytes on the wire are counted only as root on Linux, in a network namespace", file=sys.stderr)
    return False


def commands(options, sales):
    """The peers that take part, with the command that starts a node of each."""
    known = dict(each.split("=", 1) for each in options.peer)
    known = {name: shlex.split(command) for name, command in known.items()}
    ours = ["--documents", str(sales), "--durability", options.durability]
    known["copy"] = [sys.executable, str(HERE / "control.py"), *ours]
    if options.node:
        known["entgldb"] = [options.node, *ours]
    wanted = list(dict.fromkeys(options.peers.split(",") + [each.split("=")[0] for each in options.peer]))
    for name in wanted:
        if name not in known:
            sys.exit(f"how is a node of {name} started? Say it by --peer {name}=COMMAND (for entgldb: --node PATH)")
    return {name: known[name] for name in wanted}


def measure(command, folder, port, workload, size):
    """One run of one workload by two fresh nodes."""
    nodes = []
    try:
        for offset, name in enumerate("AB"):
            nodes.append(Node(command, folder / name, port + offset, name))
        return workloads.WORKLOADS[workload](*nodes, size)
    except (TimeoutError, RuntimeError, OSError, KeyError) as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    finally:
        for node in nodes:
            node.quit()


def main():
    options = arguments()
    workloads.wire_is_ours = own_network()
    plan = [(name, int(size)) for name, size in (each.split(":") for each in options.workloads)]
    results = []
    with tempfile.TemporaryDirectory(prefix="entgldb-bench-") as folder:
        folder = pathlib.Path(folder)
        sales = documents.file_of(max(5 * size + 60 for _, size in plan), folder)  # W2 writes twice its size, W8's peer four times
        peers = commands(options, sales)
        for workload, size in plan:
            for run in range(options.runs):
                for peer, command in peers.items():
                    if workload in ONE_WAY.get(peer, ()):
                        continue
                    figures = measure(command, folder, options.port, workload, size)
                    result = {"workload": workload, "size": size, "peer": peer, "run": run, **figures}
                    print(json.dumps(result), file=sys.stderr, flush=True)
                    results.append({**result, "load": os.getloadavg()[0]})
    if options.json:
        options.json.write_text("".join(json.dumps(result) + "\n" for result in results), encoding="utf-8")
    print(report.table(results))
    sys.exit(any("failed" in result for result in results))


if __name__ == "__main__":
    main()
