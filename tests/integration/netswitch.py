#!/usr/bin/env python3
"""A network switch in a process of its own, with faults: what `tc netem` does, on any kernel, pair by pair.

Every host is a TUN device; the owner moves each into a network namespace, while this process keeps the other end and
carries IPv4 packets between them, TCP and UDP alike. A rule for an ordered pair of hosts gives the share of packets
lost and the delay of the others; a pair without a rule is a perfect wire. Cutting a pair is losing everything.

A netem qdisc would need a kernel that was built with it, and a class and a filter per pair of hosts; this needs only
/dev/net/tun, and draws its losses from a seed.

    netswitch.py SEED HOST=ADDRESS=DEVICE...     says "ready", then takes one command per line on stdin:
    {"n1>n2": [0.3, 200], ...}                   these are the rules now (loss 0 to 1, delay in ms); says "ok"

It ends with its stdin.
"""

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

PACKET_BYTES_MAX = 1 << 16
PACKETS_PER_TURN_MAX = 64  # of one host, before the next one's turn

# Delayed packets; past it they are lost, as in netem's own queue (its `limit`).
DELAYED_MAX = 10_000


def open_tun(device):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


class Switch:
    def __init__(self, seed, hosts):
        self.random = random.Random(seed)
        self.names = {}  # descriptor -> host
        self.by_address = {}  # the four bytes of an address -> (host, descriptor)
        self.rules = {}  # (from, to) -> (loss, delay_s)
        self.delayed = []  # (due, serial, descriptor, packet)
        self.serial = 0
        for name, address, device in hosts:
            descriptor = open_tun(device)
            self.names[descriptor] = name
            self.by_address[socket.inet_aton(address)] = (name, descriptor)

    @staticmethod
    def write(descriptor, packet):
        try:
            os.write(descriptor, packet)
        except OSError:
            pass  # its device is down or full: a lost packet

    def carry(self, source, packet):
        if len(packet) < 20 or packet[0] >> 4 != 4 or packet[16:20] not in self.by_address:
            return
        target, descriptor = self.by_address[packet[16:20]]
        loss, delay_s = self.rules.get((source, target), (0.0, 0.0))
        if loss > 0 and self.random.random() < loss:
            return
        if delay_s == 0:
            self.write(descriptor, packet)
        elif len(self.delayed) < DELAYED_MAX:
            self.serial += 1
            heapq.heappush(self.delayed, (time.monotonic() + delay_s, self.serial, descriptor, packet))

    def receive(self, descriptor):
        for _ in range(PACKETS_PER_TURN_MAX):
            try:
                packet = os.read(descriptor, PACKET_BYTES_MAX)
            except OSError:
                return  # nothing more, or its device is down
            self.carry(self.names[descriptor], packet)

    def deliver_due(self):
        """Delivers what is due; returns the milliseconds until the next, -1 for never."""
        while self.delayed:
            wait_s = self.delayed[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s * 1000
            _, _, descriptor, packet = heapq.heappop(self.delayed)
            self.write(descriptor, packet)
        return -1

    def run(self):
        poll = select.poll()
        for descriptor in [*self.names, 0]:
            poll.register(descriptor, select.POLLIN)
        print("ready", flush=True)
        while True:
            for descriptor, _ in poll.poll(self.deliver_due()):
                if descriptor != 0:
                    self.receive(descriptor)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                self.rules = {tuple(pair.split(">")): (loss, delay_ms / 1000)
                              for pair, (loss, delay_ms) in json.loads(line).items()}
                print("ok", flush=True)


if __name__ == "__main__":
    Switch(int(sys.argv[1]), [host.split("=") for host in sys.argv[2:]]).run()
