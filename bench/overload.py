#!/usr/bin/env python3
"""More load than a node can take, and clients that misbehave.

    saturation  connections are doubled until throughput no longer grows: the best, and where it was reached
    twice       twice those connections; and commands that are due at twice the best rate, whatever the node does:
                throughput against the best, OVERLOADED answers, resident set
    slow        clients that ask for large values and never read: are they cut off, does memory stay, do others work
    half        clients that send half a command, and clients that send nothing

    bench/overload.py
    bench/overload.py --memory 128M --seconds 3 --patience 20     small
"""

import argparse
import os
import pathlib
import select
import shutil
import socket
import statistics
import sys
import time

from measured import MIB, Measured, Verdicts, bytes_of, finish, say

SHARE_MIN = 0.8
ROUNDS = 5
GROWTH_MIN = 1.05
LARGE_BYTES = 100_000
SLOW_CLIENTS = 50
SLOW_COMMANDS = 1000
QUIET_CLIENTS = 20
CONNECTIONS_MAX = 2048


def with_memory(node, run):
    """What run() returns, and the greatest resident set meanwhile."""
    process = run()
    peak = 0
    while process.poll() is None:
        peak = max(peak, node.memory("VmRSS"))
        time.sleep(0.1)
    return finish(process), peak


def saturate(node, arguments, verdicts):
    best, at, connections = 0, 0, 8
    while connections <= CONNECTIONS_MAX:
        told = node.bench(*arguments.load, "--connections", connections, "--duration", arguments.seconds)
        say(f"  {connections} connections: {told['per_second']:,}/s, errors {told['errors']}")
        if told["per_second"] > best * GROWTH_MIN:
            at = connections
        elif connections >= 4 * at:
            break
        best = max(best, told["per_second"])
        connections *= 2
    verdicts.figure("saturation", f"{best:,} commands/s, reached at {at} connections of depth {arguments.depth}", best)
    return at


def judge_load(node, name, arguments, verdicts, connections, words):
    """The load beside the one that saturates, in turn, so that both find the machine alike: the ratio of medians."""
    best, runs, peak = [], [], 0
    for _ in range(ROUNDS):
        best.append(node.bench(*arguments.load, "--connections", connections, "--duration",
                               arguments.seconds)["per_second"])
        told, resident = with_memory(node, lambda: node.bench_start(
            *arguments.load, "--connections", 2 * connections, *words(max(best)), "--duration", arguments.seconds))
        runs.append(told)
        peak = max(peak, resident)
    median = statistics.median(told["per_second"] for told in runs)
    share = median / statistics.median(best)
    counts = {key: sum(told[key] for told in runs) for key in ("unanswered", "unsent")}
    errors = [told["errors"] for told in runs if told["errors"]]
    verdicts.judge(name, f"{median:,}/s = {share:.0%} of the best; errors {errors}, unanswered "
                   f"{counts['unanswered']}, unsent {counts['unsent']}", share, f">= {SHARE_MIN:.0%}",
                   share >= SHARE_MIN)
    limit = node.memory_bytes + arguments.constant_bytes
    verdicts.judge(f"{name}: resident set", f"{peak / MIB:,.0f} MiB", peak, f"<= {limit / MIB:.0f} MiB", peak <= limit)


def open_client(node):
    client = socket.create_connection(("127.0.0.1", node.node.resp_port))
    client.setblocking(False)
    return client


def closed(client):
    """Whether the server has closed the connection; reads nothing of what it sent before."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def send_some(client, data):
    """Sends what the socket takes; the rest of data, or None once the connection is gone."""
    try:
        return data[client.send(data):]
    except BlockingIOError:
        return data
    except OSError:
        return None


def slow_clients(node, arguments, verdicts):
    """Each asks for far more than the output bound, and reads nothing."""
    large = open_client(node)
    large.setblocking(True)
    large.sendall(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$%d\r\n%s\r\n" % (LARGE_BYTES, b"x" * LARGE_BYTES))
    if large.recv(64) != b"+OK\r\n":
        raise RuntimeError("the large value was refused")
    large.close()
    clients = {open_client(node): b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n" * SLOW_COMMANDS for _ in range(SLOW_CLIENTS)}
    began, peak, gone = time.monotonic(), 0, {}
    others = node.bench_start(*arguments.load, "--connections", 20, "--duration", arguments.seconds)
    while len(gone) < len(clients) and time.monotonic() - began < arguments.patience:
        for client, left in clients.items():
            if client not in gone:
                left = send_some(client, left) if left else left
                clients[client] = left
                if left is None or closed(client):
                    gone[client] = time.monotonic() - began
        peak = max(peak, node.memory("VmRSS"))
        time.sleep(0.05)
    told = finish(others)
    for client in clients:
        client.close()
    longest = f", the last after {max(gone.values()):.1f} s" if gone else ""
    verdicts.judge("slow clients cut off", f"{len(gone)} of {len(clients)}{longest}", len(gone), "all",
                   len(gone) == len(clients))
    limit = node.memory_bytes + arguments.constant_bytes
    verdicts.judge("slow clients: resident set", f"{peak / MIB:,.0f} MiB for "
                   f"{SLOW_CLIENTS * SLOW_COMMANDS * LARGE_BYTES / MIB:,.0f} MiB of answers nobody reads", peak,
                   f"<= {limit / MIB:.0f} MiB", peak <= limit)
    verdicts.judge("slow clients: others meanwhile", f"{told['per_second']:,}/s, errors {told['errors']}",
                   told["per_second"], "answered, without errors", told["answered"] > 0 and not told["errors"])


def quiet_clients(node, arguments, verdicts, name, sent):
    clients = [open_client(node) for _ in range(QUIET_CLIENTS)]
    for client in clients:
        if sent:
            client.send(sent)
    began, last = time.monotonic(), 0
    gone = set()
    while len(gone) < len(clients) and time.monotonic() - began < arguments.patience:
        for client in clients:
            if client not in gone and closed(client):
                gone.add(client)
                last = time.monotonic() - began
        time.sleep(0.1)
    for client in clients:
        client.close()
    verdicts.judge(name, f"{len(gone)} of {len(clients)} closed" + (f", the last after {last:.1f} s" if gone else ""),
                   len(gone), f"all within {arguments.patience} s", len(gone) == len(clients))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--memory", default="256M", help="budget of the node")
    parser.add_argument("--constant", default="64M", help="what the resident set may take beside the budget")
    parser.add_argument("--seconds", type=int, default=10, help="of each run")
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--reads", type=int, default=50, help="percent")
    parser.add_argument("--patience", type=int, default=120,
                        help="seconds in which misbehaving clients must be cut off")
    parser.add_argument("--shards", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--durability", default="os")
    parser.add_argument("--flag", action="append", default=[], metavar="FLAG", help="one more word for rondod")
    parser.add_argument("--directory", default=pathlib.Path(__file__).resolve().parents[1] / "build" / "bench-data")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON, or write it to FILE")
    arguments = parser.parse_args()
    budget, arguments.constant_bytes = bytes_of(arguments.memory), bytes_of(arguments.constant)
    arguments.load = ["--keys", arguments.keys, "--depth", arguments.depth, "--reads", arguments.reads]
    directory = pathlib.Path(arguments.directory).resolve() / "overload"
    shutil.rmtree(directory, ignore_errors=True)
    verdicts = Verdicts()
    node = Measured(directory, budget, ["--durability", arguments.durability, *arguments.flag])
    try:
        node.start(arguments.shards)
        node.bench("--keys", arguments.keys, "--requests", arguments.keys, "--reads", 0, "--distribution", "sequential")
        connections = saturate(node, arguments, verdicts)
        judge_load(node, "twice the connections", arguments, verdicts, connections, lambda best: [])
        judge_load(node, "twice the rate", arguments, verdicts, connections, lambda best: ["--rate", 2 * best])
        refused = node.metrics()["rondo_overloads_total"]
        verdicts.figure("refusals counted by the node", f"{refused:,.0f}", refused)
        slow_clients(node, arguments, verdicts)
        quiet_clients(node, arguments, verdicts, "half a command, then nothing", b"*3\r\n$3\r\nSET\r\n$1")
        quiet_clients(node, arguments, verdicts, "half an HTTP-like line, then nothing", b"GE")
        peak = node.memory("VmHWM")
        limit = budget + arguments.constant_bytes
        verdicts.judge("greatest resident set of all", f"{peak / MIB:,.0f} MiB", peak, f"<= {limit / MIB:.0f} MiB",
                       peak <= limit)
    finally:
        node.close()
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.json != "-":
        verdicts.print(f"--memory {arguments.memory}, {arguments.shards} shards, durability {arguments.durability}, "
                       f"{os.cpu_count()} cores (the load generator is on one of them)")
    if arguments.json:
        verdicts.write_json(arguments.json, {"keys": arguments.keys, "memory_bytes": budget, "cores": os.cpu_count()})
    return 0 if verdicts.good() else 1


if __name__ == "__main__":
    sys.exit(main())
