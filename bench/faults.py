#!/usr/bin/env python3
"""Measures how soon clients stop seeing errors once a fault is over: three real nodes in network namespaces.

Each round of a fault runs under a writer and a reader at each node (R = W = 2), and one writer that goes from node to
node. Judged are
  - after healing: the last error that any client got, at most 1 s after it;
  - after a kill (kill -9, or a whole host gone without a word): the last error at the nodes left, at most 2 s after it;
  - all along: no acknowledged write lost, no read that goes back.
The slowest answers are shown too: of the nodes that have a quorum while the fault lasts, and of all nodes from 1 s
after its end.

    bench/faults.py                       every fault, three rounds
    bench/faults.py --rounds 10 cut       faults whose name begins so
    bench/faults.py --list

RONDO_BUILD names the directory of the programs (default: build). Needs root.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "integration"))

import netns  # noqa: E402
from workload import DONE, Workload  # noqa: E402

HEALED_S = 1.0
KILLED_S = 2.0

# How long a round is watched after its fault: past the default request timeout (2 s) with room.
WATCH_S = 5.0


def isolate(cluster):
    cluster.isolate(cluster[2])


def hears_nobody(cluster):
    for node in cluster.nodes[:2]:
        cluster.one_way(cluster[2], node)


def is_heard_by_nobody(cluster):
    for node in cluster.nodes[:2]:
        cluster.one_way(node, cluster[2])


def pair(cluster):
    cluster.partition(cluster[0], cluster[1])


def all_apart(cluster):
    for node in cluster:
        cluster.isolate(node)


def flap(cluster):
    for _ in range(5):
        isolate(cluster)
        time.sleep(0.4)
        cluster.heal()
        time.sleep(0.4)
    isolate(cluster)


def kill(cluster):
    cluster[2].kill()


def vanish(cluster):
    """Not even the end of its connections is heard."""
    isolate(cluster)
    kill(cluster)


# A fault lasts up to that much longer, so that its end meets the attempts to reconnect at any point of theirs.
SPREAD_S = 1.0

# name: (fault, seconds that it lasts, how many of the nodes keep a quorum and each other)
HEALED = {
    "cut-0.3s": (isolate, 0.3, 2),
    "cut-1s": (isolate, 1, 2),
    "cut-2s": (isolate, 2, 2),
    "cut-5s": (isolate, 5, 2),
    "cut-12s": (isolate, 12, 2),
    "all-apart-5s": (all_apart, 5, 0),
    "deaf-5s": (hears_nobody, 5, 2),
    "mute-5s": (is_heard_by_nobody, 5, 2),
    "pair-5s": (pair, 5, 3),
    "flap": (flap, 1, 2),
    "loss-30%-one": (lambda cluster: cluster.loss(cluster[2], 30), 6, 2),
    "loss-30%-all": (lambda cluster: cluster.loss(cluster.nodes, 30), 6, 3),
    "delay-200ms": (lambda cluster: cluster.delay(cluster[2], 200), 4, 2),
}
KILLED = {"kill-9": kill, "vanish": vanish}


def last_error_s(load, since, nodes, label):
    """How long after `since` the last error at these nodes came, with the errors of that time counted."""
    errors = load.errors(since=since, nodes=nodes)
    if errors and label:
        print(f"    the last of {len(errors)} at {errors[-1].node}, begun {errors[-1].start - since:+.2f} s: "
              f"{'write' if errors[-1].write else 'read'}: {errors[-1].error}")
    return errors[-1].end - since if errors else 0.0


def slowest_ms(load, since, until, nodes):
    names = {node.name for node in nodes}
    spans = [operation.end - operation.start for operation in load.operations()
             if operation.outcome == DONE and operation.node in names and since <= operation.start < until]
    return 1000 * max(spans, default=0.0)


def healed_round(cluster, load, fault, lasts_s, with_quorum, verbose):
    began = time.monotonic()
    fault(cluster)
    time.sleep(lasts_s + random.random() * SPREAD_S)
    cluster.heal()
    over = time.monotonic()
    time.sleep(WATCH_S)
    return (last_error_s(load, over, None, verbose),
            slowest_ms(load, began, over, cluster.nodes[:with_quorum]),
            slowest_ms(load, over + HEALED_S, time.monotonic(), cluster.nodes))


def killed_round(cluster, load, fault, verbose):
    left = cluster.nodes[:2]
    began = time.monotonic()
    fault(cluster)
    time.sleep(WATCH_S)
    over = time.monotonic()
    last_s = last_error_s(load, began, left, verbose)
    slowest = slowest_ms(load, began, over, left)
    cluster.heal()
    cluster.start_node(cluster[2])
    cluster.wait_whole()
    load.wait_done(cluster.nodes, 20)
    return last_s, slowest, slowest_ms(load, began + KILLED_S, over, left)


def run(name, rounds, verbose):
    """One fault on a cluster of its own; whether every figure held."""
    limit_s = HEALED_S if name in HEALED else KILLED_S
    results = []
    with tempfile.TemporaryDirectory(prefix="rondo-faults-") as directory:
        cluster = netns.NetnsCluster(directory, shards=2)
        try:
            cluster.start()
            load = Workload(cluster).start()
            try:
                for _ in range(rounds):
                    if name in HEALED:
                        results.append(healed_round(cluster, load, *HEALED[name], verbose))
                    else:
                        results.append(killed_round(cluster, load, KILLED[name], verbose))
                cluster.wait_whole()
            finally:
                load.stop()
            load.read_all()
            violations = load.violations()
        finally:
            cluster.close()
    last_s = [result[0] for result in results]
    good = max(last_s) <= limit_s and not violations
    print(f"{'PASS' if good else 'FAIL'}  {name:13} {' '.join(f'{one:5.2f}' for one in last_s)} s"
          f" (limit {limit_s:.0f} s)   slowest {max(result[1] for result in results):5.0f} ms with a quorum, "
          f"{max(result[2] for result in results):5.0f} ms afterwards   {len(load.operations())} operations, "
          f"{len(violations)} violations", flush=True)
    for violation in violations[:5]:
        print(f"    {violation}")
    return good


def main():
    names = [*HEALED, *KILLED]
    parser = argparse.ArgumentParser(description="How soon errors end after partitions, loss, delay and kills.")
    parser.add_argument("faults", nargs="*", help="beginnings of names; all if none is given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verbose", action="store_true", help="show the last error of each round")
    parser.add_argument("--list", action="store_true", help="list the faults")
    options = parser.parse_args()
    wanted = [name for name in names if not options.faults or name.startswith(tuple(options.faults))]
    if options.list:
        print("\n".join(names))
        return 0
    if not wanted:
        parser.error(f"no fault begins with {' or '.join(options.faults)}; --list lists them")
    reason = netns.unavailable()
    if reason:
        parser.exit(2, f"faults: {reason}\n")
    print("last error after the fault's end, one figure per round:")
    failed = [name for name in wanted if not run(name, options.rounds, options.verbose)]
    not_held = f"; not: {', '.join(failed)}" if failed else ""
    print(f"{len(wanted) - len(failed)} of {len(wanted)} figures hold{not_held}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
