"""One node of a peer: a process that is told what to do in JSON lines, and watched from outside.

A peer is a command; `--dir DIR --port PORT --name NAME` is added to it. It says `{"ready": 1}`, then answers each
command on its standard input with one JSON object on its standard output. Times are CLOCK_MONOTONIC nanoseconds, which
all processes of a machine share.

    {"c": "load", "n": N}             N documents in, as fast as can be; answered when the sync layer has them too
    {"c": "listen"}                   takes peers; may answer an "addr" for connect
    {"c": "connect", "addr": ..}      starts live sync with that peer
    {"c": "disconnect"}               stops it; the node stays up
    {"c": "waitcount", "n": N}        answers once N documents are visible here: {"ns": ..}
    {"c": "write1", "n": N, "from": K}  N transactions of one document: {"s": seconds}
    {"c": "plain1", "n": N}           the same N writes to the same kind of store without sync: {"s": seconds}
    {"c": "tick", "n": N, "from": K, "ms": 10}  one document every 10 ms: {"t": {id: ns of the commit}}
    {"c": "bulk", "n": N, "from": K}  N documents in one transaction: {"ns0": before, "ns": committed}
    {"c": "seen"}                     when each document became visible here: {"t": {id: ns}}
    {"c": "edit", "n": N, "tag": T}   sets the note of the first N documents to T
    {"c": "digest"}                   {"h": hash of all documents by id, "tags": how often each one-letter note}
    {"c": "quit"}
"""
import json
import os
import queue
import shutil
import subprocess
import threading

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Node:
    def __init__(self, command, folder, port, name):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.answers = folder, queue.Queue()
        with open(folder.with_suffix(".err"), "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*command, "--dir", str(folder), "--port", str(port), "--name", name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        threading.Thread(target=self.listen, daemon=True).start()
        self.helpers = self.answer(60).get("pids", [])

    def listen(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.answers.put(json.loads(line))

    def tell(self, command, **arguments):
        self.process.stdin.write(json.dumps({"c": command, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self, seconds):
        try:
            answer = self.answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"no answer in {seconds} s; see {self.folder.with_suffix('.err')}") from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, command, seconds=600, **arguments):
        self.tell(command, **arguments)
        return self.answer(seconds)

    def processes(self):
        """The node with its children, and the daemons that it named with theirs."""
        waiting, found = [self.process.pid, *self.helpers], set()
        while waiting:
            process = waiting.pop()
            found.add(process)
            for task in listing(f"/proc/{process}/task"):
                children = text(f"/proc/{process}/task/{task}/children").split()
                waiting += [int(child) for child in children if int(child) not in found]
        return found

    def memory_mb(self):
        """The most memory it had at one time."""
        lines = (line for process in self.processes() for line in text(f"/proc/{process}/status").splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def cpu_s(self):
        """Processor time so far."""
        fields = (text(f"/proc/{process}/stat").rpartition(")")[2].split() for process in self.processes())
        return sum(int(each[11]) + int(each[12]) for each in fields if each) / TICKS_PER_SECOND

    def quit(self):
        try:
            self.tell("quit")
            self.process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # that process has just ended
        return ""


def listing(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
