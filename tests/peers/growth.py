#!/usr/bin/env python3
"""Growth: F2 with more and more files: `growth.py HARNESS_FOLDER OUT.jsonl [COUNT,COUNT..] [CONTESTANT]`.

Usually 5,000, 20,000 and 80,000 files of F2's sizes (log-normal around 8 KiB), a hundred to a folder. For each number, in a
vault of its own: `know_s` and `know_cpu` until A has recorded them, `s` and `cpu` of both from the start of B until it
says that it is in sync and the trees are equal, the peaks of memory, and both in microseconds a file. A straight line
has the same microseconds a file for every number. CPU seconds are the steadier figure on a machine that is not quiet.
"""
import json
import math
import os
import random
import shutil
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, sys.argv[1])
import contestants
import lab as peers

PER_FOLDER = 100


def data(count):
    """The same files for every run; made once."""
    root = f"{peers.DATA}/growth{count}"
    if not os.path.exists(f"{root}/.done"):
        shutil.rmtree(root, ignore_errors=True)
        chance = random.Random(7)
        folders = max(1, count // PER_FOLDER)
        for folder in range(folders):
            os.makedirs(f"{root}/t/top/d{folder:04d}")
        for number in range(count):
            size = max(1, int(chance.lognormvariate(math.log(8192), 1.0)))
            with open(f"{root}/t/top/d{number % folders:04d}/f{number:06d}.dat", "wb") as file:
                file.write(chance.randbytes(size))
        open(f"{root}/.done", "w").close()
        peers.sh("sync")
    return f"{root}/t"


def measured(contestant, count):
    contestant.setup()
    peers.sh(["cp", "-a", data(count) + "/.", contestant.a])
    peers.sh("sync")
    begun = time.perf_counter()
    contestant.prepare()
    known, know_cpu = time.perf_counter(), contestant.cpu()
    before = contestant.lab.bytes()
    time.sleep(1)
    cpu, start = contestant.cpu(), time.perf_counter()
    end = contestant.transfer(1200)
    cpu = contestant.cpu() - cpu
    up = contestant.lab.bytes()[0] - before[0]
    equal = peers.digest_tree(contestant.a, contestant.ignore) == peers.digest_tree(contestant.b, contestant.ignore)
    return {"files": count, "ok": equal, "know_s": round(known - begun, 2), "know_cpu": round(know_cpu, 2),
            "s": round(end - start, 2), "cpu": round(cpu, 2), "up": up, "peak": contestant.peak(),
            "know_cpu_us_a_file": round(1e6 * know_cpu / count), "cpu_us_a_file": round(1e6 * cpu / count)}


def main():
    out = open(sys.argv[2], "a")
    counts = [int(count) for count in (sys.argv[3] if len(sys.argv) > 3 else "5000,20000,80000").split(",")]
    name = sys.argv[4] if len(sys.argv) > 4 else os.path.join(HERE, "coffer")
    for count in counts:
        data(count)
    for count in counts:
        work = f"{peers.BASE}/w{peers.PFX}/{os.path.basename(name)}"
        with peers.Lab() as lab:
            contestant = contestants.make(name, lab, work)
            try:
                peers.quiet()
                row = {"scen": "growth", "c": contestant.name, **measured(contestant, count), "t": round(time.time(), 1),
                       "load": open("/proc/loadavg").read().split()[0]}
                print(row, flush=True)
                out.write(json.dumps(row) + "\n")
                out.flush()
            finally:
                contestant.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
