"""The cluster heals by itself: hints alone, anti-entropy alone, deletes across an outage.

Replicas are compared offline, by what each node says it holds (`rondo dump --local`)."""

import json

from harness import rondo, until

QUICK = ["--repair-interval", "2s", "--request-timeout-max", "2s", "--request-timeout", "1s"]


def local_rows(cluster, tmp_path):
    """What each node holds, as bytes of the dump file."""
    files = []
    for node in cluster:
        path = tmp_path / f"{node.name}.jsonl"
        path.unlink(missing_ok=True)
        done = rondo("dump", str(path), "--local", "--restart", host=node.http_address)
        assert done.returncode == 0, done.stderr
        files.append(path.read_bytes())
    return files


def identical(cluster, tmp_path):
    files = local_rows(cluster, tmp_path)
    return files[0] == files[1] == files[2]


def write(client, keys, value="value {} " + "x" * 80):
    for first in range(0, len(keys), 1000):
        pipeline = client.pipeline(transaction=False)
        for key in keys[first:first + 1000]:
            pipeline.set(key, value.format(key))
        pipeline.execute()


def delete(client, keys):
    for first in range(0, len(keys), 1000):
        pipeline = client.pipeline(transaction=False)
        for key in keys[first:first + 1000]:
            pipeline.delete(key)
        pipeline.execute()


def counter(cluster, *path):
    """Of /status, summed over the nodes."""
    total = 0
    for node in cluster:
        value = node.status()
        for name in path:
            value = value[name]
        total += value
    return total


def test_hints_alone_bring_a_node_up_to_date(make_cluster, tmp_path):
    cluster = make_cluster(flags=["--repair", "off"])
    keys = [f"key:{i}" for i in range(20000)]
    write(cluster[0].client(), keys[:10000])
    cluster[2].kill()
    write(cluster[0].client(), keys[5000:15000], "while {} was missed")
    write(cluster[1].client(), keys[10000:], "by the other coordinator {}")
    delete(cluster[1].client(), keys[:2000])
    held = counter([cluster[0], cluster[1]], "hints", "count")
    assert held > 15000
    cluster.start_node(cluster[2])
    cluster.wait_node(cluster[2])
    until(lambda: counter(cluster, "hints", "count") == 0, "hints to drain")
    until(lambda: identical(cluster, tmp_path), "identical replicas")
    assert counter(cluster, "repair", "exchanges") == 0
    assert cluster[2].client().get(keys[100]) is None
    assert cluster[2].client().get(keys[19999]) == f"by the other coordinator {keys[19999]}".encode()


def test_hints_survive_their_holder(make_cluster, tmp_path):
    cluster = make_cluster(flags=["--repair", "off"], shards=2)
    keys = [f"key:{i}" for i in range(5000)]
    cluster[2].kill()
    write(cluster[0].client(), keys)
    # A hint is no part of what was acknowledged: it may follow its write into the log.
    until(lambda: counter([cluster[0]], "hints", "count") == len(keys), "hints to be kept")
    until(lambda: cluster[0].metric("rondo_log_not_durable_bytes") == 0, "hints to be durable")
    cluster[0].kill()
    cluster.start_node(cluster[0], shards=1)  # and with other shards
    cluster.wait_node(cluster[0])
    cluster.start_node(cluster[2])
    cluster.wait_node(cluster[2])
    until(lambda: counter(cluster, "hints", "count") == 0, "hints to drain")
    until(lambda: identical(cluster, tmp_path), "identical replicas")


def test_anti_entropy_alone_brings_a_node_up_to_date(make_cluster, tmp_path):
    cluster = make_cluster(flags=["--hints", "off", *QUICK], shards=2)
    keys = [f"key:{i}" for i in range(30000)]
    write(cluster[0].client(), keys)
    cluster[2].kill()
    write(cluster[0].client(), keys[:300], "while {} was missed")
    write(cluster[1].client(), [f"new:{i}" for i in range(100)])
    cluster.start_node(cluster[2])
    cluster.wait_node(cluster[2])
    until(lambda: identical(cluster, tmp_path), "identical replicas")
    assert counter(cluster, "hints", "replayed") == 0
    assert counter(cluster, "repair", "exchanges") > 0


def tombstones(cluster, tmp_path):
    """How many rows without a value each node holds."""
    return [sum(1 for line in rows.splitlines() if b'"tombstone":true' in line)
            for rows in local_rows(cluster, tmp_path)]


def test_deletes_hold_across_an_outage_and_are_purged_after_it(make_cluster, tmp_path):
    cluster = make_cluster(flags=QUICK)
    keys = [f"gone:{i}" for i in range(100000)]
    write(cluster[0].client(), keys, "alive {}")
    until(lambda: identical(cluster, tmp_path), "all writes everywhere")
    cluster[2].kill()
    delete(cluster[0].client(), keys)
    write(cluster[0].client(), ["stays"], "{}")
    both = [cluster[0], cluster[1]]
    # Old enough, and compared with each other again and again: only the node that is down keeps them.
    for node in both:
        until(lambda node=node: [blocker["node"] for blocker in node.status()["tombstones"]["blockers"]] ==
              [cluster[2].name], f"{node.name} to name what blocks the purge")
    rounds = [node.status()["repair"]["rounds"] for node in both]
    until(lambda: all(node.status()["repair"]["rounds"] > before + 3 for node, before in zip(both, rounds)),
          "rounds of comparisons without the third node")
    for node in both:
        told = node.status()["tombstones"]
        assert told["count"] == 100000 and told["purged_total"] == 0, told
    cluster.start_node(cluster[2])
    cluster.wait_node(cluster[2])
    until(lambda: counter(cluster, "tombstones", "count") == 0, "tombstones to go")
    until(lambda: tombstones(cluster, tmp_path) == [0, 0, 0], "tombstones to go from all disks")
    rows = local_rows(cluster, tmp_path)
    assert rows[0] == rows[1] == rows[2]
    left = [json.loads(line) for line in rows[0].splitlines()]
    assert [row["key"] for row in left] == ["stays"]
    for node in cluster:
        client = node.client()
        for first in range(0, len(keys), 5000):
            assert client.mget(keys[first:first + 100]) == [None] * 100
    for node in cluster:
        node.stop()
    cluster.start()
    cluster.wait_whole()
    for node in cluster:
        until(lambda node=node: node.client().mget(keys[:100] + ["stays"]) == [None] * 100 + [b"stays"],
              f"{node.name} to read after the restart")
