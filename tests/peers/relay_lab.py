"""Three network namespaces for relay.py: A and B each have a cable to the host H, and one to each other while it is wanted.

Root is needed. Also here: what both contestants share (data, processes, clocks, bytes on the cables).
"""
import os
import random
import subprocess
import time

NAME = {side: f"cr{os.getpid()}{side}" for side in "AHB"}
AT_HOST = {"A": "10.78.1.1", "B": "10.78.2.1"}      # where A and B reach the host
IP = {"A": "10.78.1.2", "B": "10.78.2.2"}
CABLE = {"A": "10.78.3.1", "B": "10.78.3.2"}
TICK = os.sysconf("SC_CLK_TCK")


def ip(*words, check=True):
    subprocess.run(["ip", *words], check=check, stdout=subprocess.DEVNULL,
                   stderr=None if check else subprocess.DEVNULL)


def inside(side, command):
    return ["ip", "netns", "exec", NAME[side], *command]


class Lab:
    def __enter__(self):
        for name in NAME.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for side in "AB":
            ip("-n", NAME[side], "link", "add", "name", "host", "type", "veth", "peer", "name", "to" + side,
               "netns", NAME["H"])
            ip("-n", NAME["H"], "addr", "add", AT_HOST[side] + "/24", "dev", "to" + side)
            ip("-n", NAME["H"], "link", "set", "to" + side, "up")
            ip("-n", NAME[side], "addr", "add", IP[side] + "/24", "dev", "host")
            ip("-n", NAME[side], "link", "set", "host", "up")
        return self

    def __exit__(self, *_):
        for name in NAME.values():
            ip("netns", "del", name, check=False)

    def cable(self):
        """Joins A and B."""
        ip("-n", NAME["A"], "link", "add", "name", "cable", "type", "veth", "peer", "name", "cable", "netns", NAME["B"])
        for side in "AB":
            ip("-n", NAME[side], "addr", "add", CABLE[side] + "/24", "dev", "cable")
            ip("-n", NAME[side], "link", "set", "cable", "up")

    def cut(self):
        ip("-n", NAME["A"], "link", "del", "cable")

    def link(self, side, state):
        """Takes a side's cable to the host out, or puts it in again."""
        ip("-n", NAME[side], "link", "set", "host", state)

    def sent(self, side):
        """Bytes that a side has sent to the host."""
        path = "/sys/class/net/host/statistics/tx_bytes"
        return int(subprocess.run(inside(side, ["cat", path]), capture_output=True, check=True).stdout)


class Process:
    """A program that runs in a namespace until it is ended."""

    running = set()

    def __init__(self, side, command, log, env=None, **more):
        with open(log, "ab") as errors:
            self.popen = subprocess.Popen(inside(side, command), stdin=subprocess.DEVNULL, stderr=errors,
                                          env={**os.environ, **(env or {})}, **{"stdout": errors, **more})
        self.running.add(self)

    def end(self):
        self.running.discard(self)
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(60)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()

    def cpu(self):
        """Processor seconds, with those of its children."""
        return sum(cpu_of(pid) for pid in family(self.popen.pid))

    def memory(self, what):
        """Of /proc/PID/status, in MB, of the largest of its processes."""
        return max((status_of(pid, what) for pid in family(self.popen.pid)), default=0)


def family(pid):
    """A process and those that it has started, from whichever of its threads."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                for child in children.read().split():
                    found += family(int(child))
    except OSError:
        pass
    return found


def cpu_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK
    except OSError:
        return 0


def status_of(pid, what):
    try:
        with open(f"/proc/{pid}/status") as status:
            line = next(line for line in status if line.startswith(what + ":"))
        return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except (OSError, StopIteration):
        return 0


def until(condition, what, limit=900, pause=0.05):
    """Seconds until something is so."""
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > limit:
            raise TimeoutError(what)
        time.sleep(pause)
    return time.perf_counter() - begun


def make(kind, folder, small=False):
    """F1: 1 GiB in one file; F2: 20,000 files around 8 KiB in 200 folders, like those of the harness. Gives their number."""
    chance = random.Random(5)
    os.makedirs(folder, exist_ok=True)
    if kind == "F1":
        with open(f"{folder}/big.bin", "wb") as out:
            for _ in range(64 if small else 1024):
                out.write(chance.randbytes(1 << 20))
        return 1
    count = 10 if small else 200
    for number in range(count):
        os.makedirs(f"{folder}/top/d{number:03}")
        for file in range(100):
            size = int(min(1 << 20, max(100, chance.lognormvariate(9.01, 1.0))))
            with open(f"{folder}/top/d{number:03}/f{file:03}.bin", "wb") as out:
                out.write(chance.randbytes(size))
    return count * 100


def files_in(folder):
    """Names and sizes, without what belongs to a program itself."""
    found = {}
    for base, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if one not in (".vault", ".stfolder", ".stversions")]
        for name in files:
            path = os.path.join(base, name)
            try:
                found[os.path.relpath(path, folder)] = os.stat(path).st_size
            except OSError:
                pass
    return found


def same(a, b):
    """Whether two folders hold the same, byte for byte."""
    names = files_in(a)
    if names != files_in(b):
        return False
    for name in names:
        with open(f"{a}/{name}", "rb") as one, open(f"{b}/{name}", "rb") as other:
            while True:
                some = one.read(1 << 20)
                if some != other.read(1 << 20):
                    return False
                if not some:
                    break
    return True
