"""What some scenarios need of the machine: root, tools, file systems and networks of their own.

Everything made here is seen by the tests and their children alone (a mount namespace of their own) or named after this
process, and gone at the end. Where something is missing the scenario is skipped and says why.
"""
import ctypes
import fcntl
import os
import shutil
import subprocess
import unittest

CLONE_NEWNS = 0x20000
EXT4_SHUTDOWN, WITHOUT_LOG_FLUSH = 0x8004587D, 2


def needs(*tools, root=True):
    """Skips the scenario where it can't run."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        raise unittest.SkipTest(f"needs {', '.join(missing)}")
    if root and (not hasattr(os, "geteuid") or os.geteuid() != 0):
        raise unittest.SkipTest("needs root")


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


def allowed(*words):
    """Runs a command that a machine may forbid even to root, in a container for example."""
    try:
        return run(*words)
    except RuntimeError as error:
        raise unittest.SkipTest(f"this machine does not allow it: {error}") from error


def own_mounts():
    """From here on, what this thread and its children mount is seen by nobody else, and goes when they end."""
    if not own_mounts.done:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
            raise unittest.SkipTest(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
        allowed("mount", "--make-rprivate", "/")
        own_mounts.done = True


own_mounts.done = False


def clock_set(offset):
    """The environment of a process whose time of day is off, such as by `+30d`. Waits are measured as ever.

    The `faketime` command itself stays between us and the process, where signals don't reach it.
    """
    needs("faketime", root=False)
    lines = run("faketime", "-m", "-f", offset, "env").splitlines()
    preload = dict(line.split("=", 1) for line in lines if line.startswith("LD_PRELOAD="))
    monotonic = {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return {**preload, **monotonic, "FAKETIME": offset}


class PowerCutDisk:
    """An ext4 file system whose power can be cut: whatever was not synced is gone."""

    def __init__(self, folder, megabytes=64):
        own_mounts()
        self.image, self.place = folder / "disk.ext4", folder / "disk"
        self.place.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", self.image)
        self.mount()

    def mount(self):
        allowed("mount", "-o", "loop", self.image, self.place)

    def cut(self):
        """From this call on nothing reaches the disk, not even the file system's own journal."""
        place = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(place, EXT4_SHUTDOWN, WITHOUT_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(place)

    def unmount(self):
        run("umount", self.place)

    def end(self):
        subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False)


class SmallDisk:
    """A file system in memory that is soon full, until it is given more room."""

    def __init__(self, folder, megabytes):
        own_mounts()
        self.place = folder / "small"
        self.place.mkdir()
        allowed("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", self.place)

    def grow(self, megabytes):
        run("mount", "-o", f"remount,size={megabytes}m", self.place)

    def free_bytes(self):
        state = os.statvfs(self.place)
        return state.f_bavail * state.f_frsize

    def end(self):
        subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False)


class Hosts:
    """Hosts on a network of their own: a network namespace each, and a cable from the first to every other."""

    def __init__(self, names):
        needs("ip", "nft")
        self.names, self.made = names, []
        try:
            for name in names:
                allowed("ip", "netns", "add", self.host(name))
                self.made.append(name)
                self.on(name, "ip", "link", "set", "lo", "up")
                allowed(*self.inside(name), "nft", "add", "table", "inet", "entgldb")
            for number, name in enumerate(names[1:], 1):
                self.cable(number, name)
        except BaseException:
            self.end()
            raise

    def host(self, name):
        return f"entgldb-{os.getpid()}-{name}"

    def cable(self, number, name):
        hub, end = f"to-{name}", "to-hub"
        allowed("ip", "link", "add", hub, "netns", self.host(self.names[0]), "type", "veth",
                "peer", "name", end, "netns", self.host(name))
        self.on(self.names[0], "ip", "address", "add", f"10.77.{number}.1/24", "dev", hub)
        self.on(self.names[0], "ip", "link", "set", hub, "up")
        self.on(name, "ip", "address", "add", f"10.77.{number}.2/24", "dev", end)
        self.on(name, "ip", "link", "set", end, "up")

    def hub_address(self, name):
        """The hub's address as `name` sees it."""
        return f"10.77.{self.names.index(name)}.1"

    def address(self, name):
        return f"10.77.{self.names.index(name)}.2"

    def inside(self, name):
        """The words that make a command run on that host."""
        return ["ip", "netns", "exec", self.host(name)]

    def on(self, name, *words):
        return run(*self.inside(name), *words)

    def filter(self, name, *rules):
        """Replaces what that host does to packets that arrive there."""
        chain = "chain arriving {\ntype filter hook input priority 0; policy accept;\n" + "\n".join(rules) + "\n}"
        text = "table inet entgldb\ndelete table inet entgldb\ntable inet entgldb {\n" + chain + "\n}\n"
        command = [*self.inside(name), "nft", "-f", "-"]
        subprocess.run(command, input=text, text=True, timeout=60, check=True)

    def dropped(self, name):
        """Packets dropped on that host by the rules of now that count."""
        words = self.on(name, "nft", "list", "table", "inet", "entgldb").split()
        return sum(int(words[at + 1]) for at, word in enumerate(words) if word == "packets")

    def plug(self, name, is_in):
        self.on(self.names[0], "ip", "link", "set", f"to-{name}", "up" if is_in else "down")

    def end(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "delete", self.host(name)], capture_output=True, check=False)
        self.made = []
