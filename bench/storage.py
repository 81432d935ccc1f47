#!/usr/bin/env python3
"""More data than memory: fills one node with more keys than its budget holds, then measures.

    memory      the process's greatest resident set against --memory plus a constant; how much of the resident set is
                keys and values of rows in memory
    reads       every key is there; how many reads of the cold tier a uniform read costs
    latency     p99.9 of GET at a fixed rate: quiet; beside writes to few keys, which leave flush and compaction
                almost nothing to do; and beside as many writes to all keys, which keep both running
    overwrites  --minutes of them: disk use once a second against the live data

    bench/storage.py                                        5,000,000 keys in 256 MiB, 20 minutes of overwrites
    bench/storage.py --keys 300000 --memory 64M --minutes 1  small
"""

import argparse
import os
import pathlib
import shutil
import sys
import time

from measured import MIB, Measured, Verdicts, bytes_of, finish, say

KEY_BYTES = 16
VALUE_BYTES = 100
P999_RATIO_MAX = 5
DENSITY_MIN = 0.6
QUIET_KEYS = 1000
# What may wait for compaction however little the data is (COLD_LEVEL0_BYTES).
LEVEL0_BYTES = 2 << 30
SETTLE_S = 300


def wait_quiet(node):
    """Until no flush or compaction changed anything for some seconds."""
    deadline = time.monotonic() + SETTLE_S
    last, same = None, 0
    while same < 3 and time.monotonic() < deadline:
        figures = node.metrics()
        now = [figures[name] for name in ("rondo_flushes_total", "rondo_cold_tier_bytes",
                                          "rondo_cold_tier_level0_files")]
        same = same + 1 if now == last else 0
        last = now
        time.sleep(2.1)  # the cold tier's figures are read every two seconds


def fill(node, keys, verdicts):
    """Writes every key; where the node answers OVERLOADED, again with less at once."""
    began = time.monotonic()
    for attempt, depth in enumerate((16, 16, 8, 4, 2, 1)):
        told = node.bench("--keys", keys, "--requests", keys, "--reads", 0, "--distribution", "sequential",
                          "--depth", depth, "--size", VALUE_BYTES)
        failed = sum(told["errors"].values()) + told["unanswered"]
        if failed == 0:
            took = time.monotonic() - began
            verdicts.figure("filling", f"{keys / told['seconds']:,.0f} keys/s in the last of {attempt + 1} attempts, "
                            f"{took:.0f} s in all", round(keys / told["seconds"]))
            return
        say(f"  filling: {failed} writes failed at depth {depth}: {told['errors']}")
    raise RuntimeError("the node does not take every key, even one at a time")


def read_all(node, keys, verdicts, when):
    told = node.bench("--keys", keys, "--requests", keys, "--reads", 100, "--distribution", "sequential", "--depth", 4)
    bad = told["misses"] + sum(told["errors"].values()) + told["unanswered"]
    verdicts.judge(f"every key readable, {when}", f"{told['reads']['count'] - told['misses']:,} of {keys:,} "
                   f"({told['per_second']:,}/s), errors {told['errors']}", bad, "all", bad == 0)


def cold_reads(node, keys, verdicts):
    requests = min(keys, 1_000_000)
    before = node.metrics()
    told = node.bench("--keys", keys, "--requests", requests, "--reads", 100)
    after = node.metrics()
    grown = {name: after[name] - before[name] for name in ("rondo_cold_reads_total", "rondo_cold_read_seconds_count")}
    each = grown["rondo_cold_reads_total"] / told["reads"]["count"]
    verdicts.judge("cold reads for each uniform read", f"{each:.3f} ({told['per_second']:,} reads/s, p50 "
                   f"{told['reads']['p50_us']:.0f} us, p99 {told['reads']['p99_us']:.0f} us)", each, "<= 1", each <= 1)


def density(node, verdicts):
    """After enough reads that memory is full of rows."""
    data, resident = node.metrics()["rondo_rows"] * (KEY_BYTES + VALUE_BYTES), node.memory("VmRSS")
    verdicts.judge("keys and values in memory", f"{data / MIB:,.0f} MiB of {resident / MIB:,.0f} MiB resident = "
                   f"{data / resident:.3f}", data / resident, f">= {DENSITY_MIN}", data / resident >= DENSITY_MIN)



def reads_beside(node, arguments, write_keys):
    """p99.9 of GET in us at a fixed rate, beside writes to the first write_keys (0: none); the flushes meanwhile."""
    before = node.metrics()["rondo_flushes_total"]
    writer = None
    if write_keys > 0:
        writer = node.bench_start("--reads", 0, "--keys", write_keys, "--rate", arguments.write_rate, "--duration",
                                  arguments.seconds + 4, "--connections", 8, "--depth", 64, "--size", VALUE_BYTES)
        time.sleep(2)
    told = node.bench("--reads", 100, "--keys", arguments.keys, "--rate", arguments.read_rate, "--duration",
                      arguments.seconds, "--connections", 8, "--depth", 64)
    if writer is not None:
        finish(writer)
    flushes = node.metrics()["rondo_flushes_total"] - before
    say(f"  reads: {told['per_second']}/s, p99.9 {told['reads']['p999_us']:.0f} us, unsent {told['unsent']}, "
        f"{flushes:.0f} flushes")
    return told["reads"]["p999_us"], flushes


def latency(node, arguments, verdicts):
    wait_quiet(node)
    quiet, _ = reads_beside(node, arguments, 0)
    few, few_flushes = reads_beside(node, arguments, QUIET_KEYS)
    wait_quiet(node)
    busy, flushes = reads_beside(node, arguments, arguments.keys)
    verdicts.figure("p99.9 of GET, nothing else", f"{quiet / 1000:.2f} ms at {arguments.read_rate} reads/s", quiet)
    verdicts.figure("p99.9 of GET, writes to few keys", f"{few / 1000:.2f} ms, {few_flushes:.0f} flushes", few)
    verdicts.judge("p99.9 of GET, flush and compaction run", f"{busy / 1000:.2f} ms = {busy / few:.1f} x that, "
                   f"{busy / quiet:.1f} x with nothing else; {flushes:.0f} flushes", busy / few,
                   f"<= {P999_RATIO_MAX} x, and flushes happened", busy <= P999_RATIO_MAX * few and flushes > 0)


def overwrites(node, arguments, verdicts):
    live = arguments.keys * (KEY_BYTES + VALUE_BYTES)
    seconds = round(arguments.minutes * 60)
    writer = node.bench_start("--reads", 0, "--keys", arguments.keys, "--duration", seconds, "--depth", 4, "--size",
                              VALUE_BYTES)
    samples = []
    while writer.poll() is None:
        taken = node.disk()
        samples.append((sum(taken.values()), taken.get("cold", 0) + taken.get("cold-tmp", 0), taken.get("log", 0)))
        time.sleep(1)
    told = finish(writer)
    half = len(samples) // 2
    whole, cold, log = (max(sample[i] for sample in samples) for i in range(3))
    first, second = max(sample[0] for sample in samples[:half]), max(sample[0] for sample in samples[half:])
    verdicts.figure("overwrites", f"{told['per_second']:,}/s for {seconds} s ("
                    f"{told['answered'] / arguments.keys:.1f} x the data), errors {told['errors']}", told["per_second"])
    verdicts.figure("disk: log, at most", f"{log / MIB:,.0f} MiB", log)
    verdicts.judge("disk: cold tier, at most", f"{cold / MIB:,.0f} MiB = {cold / live:.2f} x the live data",
                   cold / live, f"<= {arguments.disk_ratio} x and the {LEVEL0_BYTES / MIB:,.0f} MiB of a burst",
                   cold <= arguments.disk_ratio * live + LEVEL0_BYTES)
    verdicts.judge("disk: all, at most", f"{whole / MIB:,.0f} MiB = {whole / live:.2f} x the live data; second half of "
                   f"the time {second / first:.2f} x the first", second / first, "second half <= 1.25 x the first",
                   second <= 1.25 * first)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--memory", default="256M", help="budget of the node")
    parser.add_argument("--constant", default="32M", help="what the resident set may take beside the budget")
    parser.add_argument("--minutes", type=float, default=20, help="of overwrites; 0 leaves them out")
    parser.add_argument("--seconds", type=int, default=30, help="of each measurement of latency")
    parser.add_argument("--read-rate", type=int, default=4000, help="reads per second while latency is measured")
    parser.add_argument("--write-rate", type=int, default=10000, help="writes per second beside them")
    parser.add_argument("--disk-ratio", type=float, default=3, help="goal: cold tier to live data")
    parser.add_argument("--shards", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    parser.add_argument("--durability", default="os")
    parser.add_argument("--directory", default=pathlib.Path(__file__).resolve().parents[1] / "build" / "bench-data")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON, or write it to FILE")
    arguments = parser.parse_args()
    budget, constant = bytes_of(arguments.memory), bytes_of(arguments.constant)
    directory = pathlib.Path(arguments.directory).resolve() / "storage"
    shutil.rmtree(directory, ignore_errors=True)
    verdicts = Verdicts()
    node = Measured(directory, budget, ["--durability", arguments.durability])
    try:
        node.start(arguments.shards)
        fill(node, arguments.keys, verdicts)
        wait_quiet(node)
        read_all(node, arguments.keys, verdicts, "after filling")
        cold_reads(node, arguments.keys, verdicts)
        density(node, verdicts)
        latency(node, arguments, verdicts)
        if arguments.minutes > 0:
            overwrites(node, arguments, verdicts)
            read_all(node, arguments.keys, verdicts, "after overwrites")
        peak = node.memory("VmHWM")
        verdicts.judge("greatest resident set", f"{peak / MIB:,.0f} MiB of a budget of {budget / MIB:,.0f} MiB", peak,
                       f"<= budget + {constant / MIB:.0f} MiB", peak <= budget + constant)
    finally:
        node.close()
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.json != "-":
        verdicts.print(f"{arguments.keys:,} keys, --memory {arguments.memory}, {arguments.shards} shards, durability "
                       f"{arguments.durability}, {os.cpu_count()} cores")
    if arguments.json:
        verdicts.write_json(arguments.json, {"keys": arguments.keys, "memory_bytes": budget, "cores": os.cpu_count()})
    return 0 if verdicts.good() else 1


if __name__ == "__main__":
    sys.exit(main())
