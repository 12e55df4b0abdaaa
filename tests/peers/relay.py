#!/usr/bin/env python3
"""A host between two devices: `relay.py [--coffer PROGRAM] [--only NAMES] [--small]`, as root. One JSON row a line.

Two devices in namespaces of their own (relay_lab.py) and a host between them, release builds, each with its defaults:

F1, F2   A has 1 GiB in a file, or 20,000 files. `held_s`: from `folder add` on A, with reading and hashing, until `status`
         says that a host, known before, holds everything. `direct_s`: B fetches them from A, over a cable, until they are
         all there. `fill_s`: from `relay add` on A until a second, new host holds everything. `fetch_s`: A is off, and
         another device, C, fetches them from the first host, until they are all there. Then, with c = syncthing, the same
         with its untrusted (encrypted) device as host: `fill_s` from the start of the host, when A has read its files.
F5       all three connected, A and B only through the host; the folder of 20,000 files is renamed: until B has it so, and
         the bytes that A sent.
edits    all three connected, no circuits: one document after the other is edited at A, until B tells of it, which it does
         once it is durable; the host passes on what is durable there.
four     four vaults with F2's data each on one host: its peak, its memory and processor time at rest.

Names for --only: F1, F2 (and F5 with it), edits, four; --without-syncthing. --small: a hundredth, to try the script.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from relay_lab import CABLE, Lab, Process, files_in, inside, make, same, until
import relay_syncthing

HERE = os.path.dirname(os.path.abspath(__file__))
EDITS, BETWEEN_EDITS = 200, 0.05
DOCTYPE = "bench"


class Device:
    """One device of a vault."""

    def __init__(self, program, work, name, side):
        self.program, self.name, self.side = program, name, side
        self.data, self.folder, self.log = f"{work}/{name}", f"{work}/{name}-folder", f"{work}/{name}.log"
        self.node = None
        os.makedirs(self.folder, exist_ok=True)

    def command(self, *words):
        return [self.program, "--data-dir", self.data, *words]

    def run(self, *words):
        with open(self.log, "ab") as errors:
            done = subprocess.run(inside(self.side, self.command(*words)), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=errors)
        if done.returncode:
            raise RuntimeError(f"coffer {' '.join(words[:2])}: exit code {done.returncode}; {tail(self.log)}")
        return done.stdout

    def start(self, *options):
        self.node = Process(self.side, self.command("start", "--json", "--name", self.name, *options), self.log,
                            stdout=subprocess.PIPE)
        line = self.node.popen.stdout.readline()
        if b"ready" not in line:
            raise RuntimeError(f"{self.name} did not start: {line!r}; {tail(self.log)}")

    def stop(self):
        if self.node:
            self.node.end()
            self.node = None

    def status(self):
        return json.loads(self.run("status", "--json"))

    def invite(self):
        """Leaves an invitation waiting; gives it."""
        with open(self.log, "ab") as errors:
            pairing = subprocess.Popen(inside(self.side, self.command("pair", "--accept", "--json")), stderr=errors,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        return json.loads(pairing.stdout.readline())["invitation"], pairing

    def join(self, other):
        """Joins the vault of another device, which runs, and stays running."""
        self.start("--without-vault")
        invitation, pairing = other.invite()
        port = next(one for one in invitation["addresses"] if one.endswith("/tcp")).split("/")[0].rsplit(":", 1)[1]
        self.run("join", invitation["link"], "--at", f"{CABLE[other.side]}:{port}", "--name", self.name)
        pairing.wait(30)
        self.run("status", "--wait", "in-sync", "--timeout", "30", "--json")

    def sync(self):
        self.run("folder", "add", self.folder, "--to", "sync", "--yes")

    def knows(self, files):
        state = self.status()
        return state["idle"] and state["vault"]["files"] >= files

    def reaches_host(self):
        told = self.status().get("hosts") or []
        return any(one["reach"]["state"] == "connected" for one in told)

    def is_held_by(self, hosts):
        told = self.status().get("hosts") or []
        return sum(bool(one.get("holding", {}).get("everything")) for one in told) >= hosts


class Host:
    def __init__(self, program, work, name="host", port=26333, circuits=True):
        self.program, self.data, self.log = program, f"{work}/{name}", f"{work}/{name}.log"
        self.env = {"COFFER_RELAY_HTTP_LISTEN": "127.0.0.1:0", "COFFER_RELAY_NETWORK_PORT": str(port),
                    **({} if circuits else {"COFFER_RELAY_CIRCUITS_MAX": "0"})}
        self.process = Process("H", [program, "--data-dir", self.data, "relay", "start", "--init", "--json"], self.log,
                               self.env, stdout=subprocess.PIPE)
        if not self.process.popen.stdout.readline():
            raise RuntimeError(f"the host did not start: {tail(self.log)}")

    def invitation(self):
        with open(self.log, "ab") as errors:
            done = subprocess.run(inside("H", [self.program, "--data-dir", self.data, "relay", "invite", "--quota", "20GiB",
                                               "--json"]), stdout=subprocess.PIPE, stderr=errors, check=True)
        return json.loads(done.stdout)["invitation"]["link"]

    def rest(self, seconds):
        """Memory and processor time at rest."""
        time.sleep(20)
        before = self.process.cpu()
        time.sleep(seconds)
        used = self.process.cpu() - before
        return {"peak_mb": self.process.memory("VmHWM"), "rest_mb": self.process.memory("VmRSS"),
                "cpu_s_per_min": round(used * 60 / seconds, 3)}


def tail(path):
    with open(path, errors="replace") as log:
        return log.read()[-500:]


def say(row):
    print(json.dumps({**rounded(row), "load": float(open("/proc/loadavg").read().split()[0])}), flush=True)


def paired(options, work, lab, names, circuits=True):
    """Devices of one vault that know one host, the first running, and that host."""
    devices = [Device(options.coffer, work, name, "A" if name == "A" else "B") for name in names]
    first, others = devices[0], devices[1:]
    lab.cable()
    host = Host(options.coffer, work, circuits=circuits)
    first.start()
    first.run("relay", "add", host.invitation(), "--json")
    for device in others:
        device.join(first)
        device.sync()
        until(lambda: device.status().get("hosts"), "the other device knows the host")
        device.run("status", "--wait", "in-sync", "--timeout", "60", "--json")
        device.stop()
    return host, devices


def copied(kind, options, work, lab):
    """F1 or F2, and F5 after F2."""
    host, (a, b, c) = paired(options, work, lab, "ABC")
    row = {"row": kind, "c": "coffer", "files": make(kind, a.folder, options.small)}
    want = files_in(a.folder)
    host_cpu, begun = host.process.cpu(), time.perf_counter()
    a.sync()
    until(lambda: a.knows(row["files"]), "A knows its files", pause=0.1)
    row["know_s"] = time.perf_counter() - begun
    until(lambda: a.is_held_by(1), "the host holds everything")
    row["held_s"] = time.perf_counter() - begun
    row["host_cpu_s"] = host.process.cpu() - host_cpu

    lab.link("B", "down")
    begun = time.perf_counter()
    b.start()
    until(lambda: files_in(b.folder) == want, "B has everything directly", pause=0.1)
    row["direct_s"] = time.perf_counter() - begun
    b.stop()
    lab.link("B", "up")
    lab.cut()

    second = Host(options.coffer, work, "second", 26433)
    invitation, begun = second.invitation(), time.perf_counter()
    a.run("relay", "add", invitation, "--name", "second", "--json")
    until(lambda: a.is_held_by(2), "the new host holds everything")
    row["fill_s"] = time.perf_counter() - begun
    second.process.end()
    a.stop()

    begun = time.perf_counter()
    c.start()
    until(lambda: files_in(c.folder) == want, "C has everything from the host", pause=0.1)
    row["fetch_s"] = time.perf_counter() - begun
    row["fetch_by_direct"], row["fill_by_direct"] = row["fetch_s"] / row["direct_s"], row["fill_s"] / row["direct_s"]
    row.update(same=same(a.folder, c.folder), **{f"host_{k}": v for k, v in host.rest(1).items() if k.endswith("mb")})
    say(row)
    if kind == "F2":
        a.start()
        until(lambda: a.reaches_host() and a.knows(row["files"]), "A is there again", pause=0.2)
        until(lambda: c.status()["idle"], "C is at rest", pause=0.2)
        say(renamed("coffer", lab, a.folder, c.folder, lambda: None))
    for device in (a, c):
        device.stop()
    host.process.end()


def renamed(contestant, lab, a, b, notice):
    """F5, with whatever makes A look."""
    time.sleep(3)
    want = len(files_in(f"{a}/top"))
    sent, begun = lab.sent("A"), time.perf_counter()
    os.rename(f"{a}/top", f"{a}/renamed")
    notice()
    until(lambda: os.path.isdir(f"{b}/renamed") and len(files_in(f"{b}/renamed")) == want and not os.path.exists(f"{b}/top"),
          "the other device has the new name", pause=0.02)
    took = time.perf_counter() - begun
    time.sleep(3)
    return {"row": "F5", "c": contestant, "s": took, "a_sent_bytes": lab.sent("A") - sent}


def edits(options, work, lab):
    """Single edits, one after the other."""
    host, (a, b) = paired(options, work, lab, "AB", circuits=False)
    lab.cut()
    b.start()
    for device in (a, b):
        until(device.reaches_host, "both are connected with the host", pause=0.2)
    with open(a.log, "ab") as errors:
        put = subprocess.Popen(inside("A", a.command("doc", "put", "--lines", "-")), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=errors)
        told = subprocess.Popen(inside("B", b.command("events", "--doctype", DOCTYPE, "--values")),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    if json.loads(told.stdout.readline())["event"] != "listening":
        raise RuntimeError("no events")
    took, durable = [], []
    for number in range((20 if options.small else EDITS) + 5):
        line = {"doctype": DOCTYPE, "id": f"d{number % 10}", "value": {"revision": number, "text": "some words " * 10}}
        begun = time.perf_counter()
        put.stdin.write(json.dumps(line).encode() + b"\n")
        put.stdin.flush()
        put.stdout.readline()
        durable.append(time.perf_counter() - begun)
        while True:
            event = json.loads(told.stdout.readline())
            if event["event"] == "document" and (event.get("value") or {}).get("revision") == number:
                break
        took.append(time.perf_counter() - begun)
        time.sleep(BETWEEN_EDITS)
    put.stdin.close()
    told.terminate()
    took, durable = sorted(took[5:]), sorted(durable[5:])
    say({"row": "edits", "c": "coffer", "n": len(took), "p50_ms": statistics.median(took) * 1000,
         "p95_ms": took[int(len(took) * 0.95)] * 1000, "max_ms": took[-1] * 1000,
         "durable_at_a_p50_ms": statistics.median(durable) * 1000})
    for device in (a, b):
        device.stop()
    host.process.end()


def four(options, work, lab):
    """A family's host."""
    host, devices = Host(options.coffer, work), []
    for number in range(4):
        device = Device(options.coffer, work, f"V{number}", "A")
        devices.append(device)
        files = make("F2", device.folder, options.small)
        device.start()
        device.run("relay", "add", host.invitation(), "--json")
        device.sync()
        until(lambda: device.knows(files) and device.is_held_by(1), "the host holds everything", pause=0.2)
    say({"row": "four", "c": "coffer", "vaults": len(devices), **host.rest(10 if options.small else 60)})
    for device in devices:
        device.stop()
    host.process.end()


def rounded(row):
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coffer", default=os.path.join(HERE, "../../target/release/coffer"))
    parser.add_argument("--only", default="F1,F2,edits,four")
    parser.add_argument("--without-syncthing", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--work", default=None, help="where to work; /tmp by default")
    options = parser.parse_args()
    options.coffer = os.path.abspath(options.coffer)
    compares = not options.without_syncthing and shutil.which("syncthing")
    failed = False
    for name in options.only.split(","):
        runs = {"edits": [edits], "four": [four]}.get(name) or [
            lambda *rest: copied(name, *rest), *([lambda *rest: relay_syncthing.copied(name, *rest)] if compares else [])]
        for run in runs:
            before = set(Process.running)
            with tempfile.TemporaryDirectory(dir=options.work) as work, Lab() as lab:
                try:
                    run(options, work, lab)
                except (RuntimeError, TimeoutError, OSError, subprocess.CalledProcessError) as error:
                    failed = True
                    say({"row": name, "failed": f"{type(error).__name__}: {error}"})
                finally:
                    for process in set(Process.running) - before:
                        process.end()
    sys.exit(failed)


if __name__ == "__main__":
    main()
