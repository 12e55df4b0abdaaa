"""Passes on the packets of a tunnel late, and loses some: what netem does where the kernel has it.

forward.py TUNNEL DELAY_MS LOSS SEED; says "ready", ends with its standard input. Packets come from the tunnel and go back into
it: the routes around it decide which ones, and where they go afterwards.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
# As a router drops what does not fit its queue.
MOST_WAITING = 10_000

name, delay_ms, loss, seed = sys.argv[1:5]
delay, loss, chance = float(delay_ms) / 1000, float(loss), random.Random(int(seed))
tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
print("ready", flush=True)
poll = select.poll()
poll.register(tunnel, select.POLLIN)
poll.register(0, select.POLLIN | select.POLLHUP)
waiting, count = [], 0
while True:
    left = None if not waiting else max(0, (waiting[0][0] - time.monotonic()) * 1000)
    for fd, _ in poll.poll(left):
        if fd == 0 and not os.read(0, 1):
            sys.exit(0)
    try:
        while fd_packet := os.read(tunnel, 65536):
            if chance.random() >= loss and len(waiting) < MOST_WAITING:
                count += 1
                heapq.heappush(waiting, (time.monotonic() + delay, count, fd_packet))
    except BlockingIOError:
        pass
    while waiting and waiting[0][0] <= time.monotonic():
        try:
            os.write(tunnel, heapq.heappop(waiting)[2])
        except OSError:
            # A full queue, or nobody to go to: a packet is lost.
            pass
