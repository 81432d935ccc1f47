#!/usr/bin/env python3
"""Measures how two replicas become equal: three real nodes, one of them missing writes for a while.

    anti-entropy  hints off; a share of the keys is overwritten while a node is down. Bytes sent by repair against the
                  bytes of the records that differ (key and record), time, CPU of each process.
    hints         repair off; the same with hinted handoff alone.
    rebuild       the node's data directory is deleted.

    bench/repair.py                            1,000,000 keys, 1 % of them differing
    bench/repair.py --keys 100000 anti-entropy

RONDO_BUILD names the directory of the programs (default: build).
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "integration"))

from harness import Cluster, rondo, until  # noqa: E402

VALUE_BYTES = 100
# A record's head: kind, flags, stamp.
RECORD_HEAD_BYTES = 18


def key(number):
    return f"key:{number:012d}"


def fill(client, numbers, tag):
    numbers = list(numbers)
    for first in range(0, len(numbers), 2000):
        pipeline = client.pipeline(transaction=False)
        for number in numbers[first:first + 2000]:
            pipeline.set(key(number), (f"{tag} {number} " + "x" * VALUE_BYTES)[:VALUE_BYTES])
        pipeline.execute()


def cpu_s(node):
    fields = pathlib.Path(f"/proc/{node.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def repaired_bytes(cluster):
    told = [node.status()["repair"] for node in cluster]
    return sum(each["bytes_sent"] + each["bytes_received"] for each in told)


def dumps(cluster, directory):
    files = []
    for node in cluster:
        path = pathlib.Path(directory) / f"{node.name}.jsonl"
        path.unlink(missing_ok=True)
        done = rondo("dump", str(path), "--local", "--restart", host=node.http_address)
        if done.returncode != 0:
            return None
        files.append(path.read_bytes())
    return files


def check_identical(cluster, directory):
    files = dumps(cluster, directory)
    same = files is not None and files[0] == files[1] == files[2]
    print(f"  replicas identical by offline comparison: {'yes' if same else 'NO'}")
    return same


def settled(cluster, before, keys_total):
    """Every slot verified equal with every peer in an exchange that began after `before`."""
    def done():
        age_ms = (time.monotonic() - before) * 1000
        for node in cluster:
            told = node.status()
            for peer in told["repair"]["peers"]:
                if peer["never"] > 0 or peer.get("oldest_verified_ms_ago", 1e18) > age_ms:
                    return False
        return True
    until(done, "all slots verified equal", patience_s=600)


def run(kind, arguments, directory):
    differing = max(1, int(arguments.keys * arguments.percent / 100))
    flags = {"anti-entropy": ["--hints", "off", "--repair-interval", "60s"],
             "hints": ["--repair", "off"],
             "rebuild": ["--repair-interval", "10m"]}[kind]
    cluster = Cluster(pathlib.Path(directory), count=3, shards=arguments.shards, flags=flags)
    try:
        cluster.start()
        cluster.wait_whole()
        fill(cluster[0].client(), range(arguments.keys), "first")
        if kind == "anti-entropy":
            settled(cluster, time.monotonic(), arguments.keys)
        if kind == "rebuild":
            cluster[2].kill()
            shutil.rmtree(pathlib.Path(cluster[2].directory) / "data")
        else:
            cluster[2].kill()
            step = max(1, arguments.keys // differing)
            fill(cluster[0].client(), range(0, step * differing, step), "second")
        bytes_before = repaired_bytes(cluster.nodes[:2])
        cpu_before = [cpu_s(node) for node in cluster.nodes[:2]] + [0.0]
        began = time.monotonic()
        cluster.start_node(cluster[2])
        cluster.wait_node(cluster[2])
        if kind == "anti-entropy":
            settled(cluster, began, arguments.keys)
        elif kind == "hints":
            until(lambda: sum(node.status()["hints"]["count"] for node in cluster) == 0, "hints to drain", 600)
        else:
            until(lambda: cluster[2].status()["state"] == "serving", "the node to serve", 600)
        took = time.monotonic() - began
        cpu = [cpu_s(node) - before for node, before in zip(cluster.nodes, cpu_before)]
        print(f"{kind}: {arguments.keys} keys, {differing if kind != 'rebuild' else arguments.keys} differing")
        print(f"  {took:.1f} s; CPU {', '.join(f'{node.name} {used:.2f} s' for node, used in zip(cluster, cpu))}")
        if kind == "anti-entropy":
            moved = repaired_bytes(cluster) - bytes_before
            need = differing * (len(key(0)) + RECORD_HEAD_BYTES + VALUE_BYTES)
            told = [node.status()["repair"] for node in cluster]
            print("  begun by each: " + "; ".join(
                f"{each['exchanges']} exchanges, {each['bytes_sent']} + {each['bytes_received']} bytes, "
                f"{each['records_sent']} records sent, {each['records_received']} received" for each in told))
            print(f"  {moved} bytes for {need} bytes of differing records: {moved / need:.2f} x")
        return check_identical(cluster, directory)
    finally:
        cluster.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=[], metavar="anti-entropy|hints|rebuild")
    parser.add_argument("--keys", type=int, default=1000000)
    parser.add_argument("--percent", type=float, default=1.0)
    parser.add_argument("--shards", type=int, default=1)
    arguments = parser.parse_args()
    good = True
    for kind in arguments.kinds or ["hints", "anti-entropy", "rebuild"]:
        with tempfile.TemporaryDirectory(prefix="rondo-repair-") as directory:
            good = run(kind, arguments, directory) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
