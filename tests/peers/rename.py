#!/usr/bin/env python3
"""F5 from the rename itself: `rename.py HARNESS_FOLDER OUT.jsonl [CONTESTANT..]`, beside bench.py's F5.

bench.py renames first, then syncs the disks and rests for 0.3 s, then looks at the clock and the wire. A program that
notices the rename by itself is done by then, and its row shows only how long a rescan takes, and no bytes. Here the clock
and the byte counts start before the rename, and `folder rescan` is not called: `seen_s` until B's tree equals A's, `s`
until B says `idle` as well; bytes until the wire has been silent for a second. Contestants without a watcher of their
own (Syncthing's waits for 10 s) are told to rescan at once, as bench.py does.
"""
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, sys.argv[1])
import contestants
import lab as peers


def until(condition, limit, pause):
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > limit:
            raise TimeoutError("no convergence")
        time.sleep(pause)
    return time.perf_counter()


def renamed(contestant, old, new, watches):
    bytes_before, cpu_before, begun = contestant.lab.bytes(), contestant.cpu(), time.perf_counter()
    os.rename(f"{contestant.a}/{old}", f"{contestant.a}/{new}")
    idle = None
    if not watches:
        idle = contestant.resync(400)
    seen = until(lambda: os.path.isdir(f"{contestant.b}/{new}")
                 and peers.quick_tree(contestant.a, contestant.ignore) == peers.quick_tree(contestant.b, contestant.ignore), 60, 0.002)
    idle = idle or until(contestant.idleB, 60, 0.02)
    last, quiet_since = contestant.lab.bytes(), time.perf_counter()
    while time.perf_counter() - quiet_since < 1:
        time.sleep(0.05)
        now = contestant.lab.bytes()
        if now != last:
            if sum(now) - sum(last) > 500:
                quiet_since = time.perf_counter()
            last = now
    return {"seen_s": round(seen - begun, 3), "s": round(idle - begun, 3), "up": last[0] - bytes_before[0],
            "down": last[1] - bytes_before[1], "cpu": round(contestant.cpu() - cpu_before, 2)}


def main():
    out = open(sys.argv[2], "a")
    for name in sys.argv[3:] or [os.path.join(HERE, "coffer")]:
        work = f"{peers.BASE}/w{peers.PFX}/{os.path.basename(name)}"
        with peers.Lab() as lab:
            contestant = contestants.make(name, lab, work)
            try:
                peers.quiet()
                contestant.setup()
                peers.sh(["cp", "-a", f"{peers.DATA}/small20k/t/.", contestant.a])
                contestant.prepare()
                contestant.transfer(400)
                time.sleep(3)
                names = ["top", "top1x", "top2x", "top"]
                for i, (old, new) in enumerate(zip(names, names[1:])):
                    row = renamed(contestant, old, new, watches=name not in contestants.BUILTIN)
                    row = {"scen": "F5live", "c": contestant.name, "i": i, **row, "t": round(time.time(), 1),
                           "load": open("/proc/loadavg").read().split()[0]}
                    print(row, flush=True)
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    time.sleep(1)
            finally:
                contestant.stop()


if __name__ == "__main__":
    main()
