"""rondo dump, dump --local and load against real clusters."""

import base64
import json
import random
import subprocess
import time

import pytest

from harness import PATIENCE_S, RONDO, until

ROWS = 20000


def rondo(node, *words):
    done = subprocess.run([str(RONDO), "-h", node.http_address, *map(str, words)], capture_output=True,
                          timeout=4 * PATIENCE_S, check=False)
    assert done.returncode == 0, (words, done.returncode, done.stdout[-500:], done.stderr[-500:])
    return done.stdout


def bytes_of(row, name):
    return row[name].encode() if name in row else base64.b64decode(row[name + "_base64"])


def random_rows(seed):
    """Keys and values of all sorts, by key: (value, ttl in seconds or None)."""
    rng = random.Random(seed)
    rows = {}
    while len(rows) < ROWS:
        number = len(rows)
        key = rng.choice([b"user:%d" % number, b"{tag%d}:%d" % (rng.randrange(50), number),
                          rng.randbytes(rng.randrange(1, 40)), f"ключ:{number}".encode(), b"\x00\xff%d" % number])
        value = rng.choice([b"", b"text %d" % number, rng.randbytes(rng.randrange(200)), b"\x01" * 20,
                            b'"quoted\\" \n%d' % number])
        rows[key] = (value, rng.choice([None, None, 86400, 1234567.5]))
    rows[b"large"] = (bytes(range(256)) * 12000, None)
    return rows


def line_of(key, value, ttl):
    row = {}
    for name, data in (("key", key), ("value", value)):
        try:
            row[name] = data.decode()
        except UnicodeDecodeError:
            row[name + "_base64"] = base64.b64encode(data).decode()
    if ttl is not None:
        row["ttl"] = ttl
    return json.dumps(row)


def read_rows(path):
    """A dump, by key."""
    rows = {}
    for line in path.read_bytes().splitlines():
        row = json.loads(line)
        key = bytes_of(row, "key")
        assert key not in rows
        rows[key] = row
    return rows


def check_dump(path, wanted):
    dumped = read_rows(path)
    assert dumped.keys() == wanted.keys()
    for key, (value, ttl) in wanted.items():
        row = dumped[key]
        assert bytes_of(row, "value") == value
        assert ("ttl" in row) == (ttl is not None)
        if ttl is not None:
            assert ttl - 10 * PATIENCE_S < row["ttl"] <= ttl


def wait_hints(cluster):
    until(lambda: sum(node.status()["hints"]["count"] for node in cluster) == 0, "hints to be handed over")


def local_dumps(cluster, tmp_path):
    """Each node's own rows, byte for byte."""
    files = []
    for node in cluster:
        path = tmp_path / f"local-{node.name}-{time.monotonic_ns()}"
        rondo(node, "dump", "--local", path)
        files.append(path.read_bytes())
    return files


@pytest.mark.parametrize("shards", [1, 3], ids=["K=1", "K=3"])
def test_what_is_loaded_is_dumped(make_cluster, tmp_path, shards):
    rows = random_rows(shards)
    given = tmp_path / "given"
    given.write_text("".join(line_of(key, *row) + "\n" for key, row in rows.items()))
    cluster = make_cluster(shards=shards)
    rondo(cluster[0], "load", given)
    check_dump_of(cluster[1], tmp_path / "dump", rows)
    wait_hints(cluster)
    files = local_dumps(cluster, tmp_path)
    assert files[0] == files[1] == files[2]
    assert files[0].count(b"\n") == len(rows)
    assert cluster[2].client().dbsize() == len(rows)

    # With one node away: deletes and writes that it misses, then its hints.
    cluster[2].kill()
    client = cluster[0].client()
    gone = [key for number, key in enumerate(rows) if number % 100 == 0]
    for key in gone:
        assert client.delete(key) == 1
        del rows[key]
    check_dump_of(cluster[1], tmp_path / "dump2", rows)
    assert client.dbsize() == len(rows)
    cluster.start_node(cluster[2])
    cluster.wait_whole()
    wait_hints(cluster)
    files = local_dumps(cluster, tmp_path)
    assert files[0] == files[1] == files[2]
    assert files[0].count(b'"tombstone":true') == len(gone)
    until(lambda: cluster[2].client().dbsize() == len(rows), "the node that came back to count its keys")
    slots = {}
    for key in rows:
        slot = client.execute_command("CLUSTER", "KEYSLOT", key)
        slots[slot] = slots.get(slot, 0) + 1
        if len(slots) > 200:
            break
    full = {}
    for key in list(rows):
        slot = client.execute_command("CLUSTER", "KEYSLOT", key)
        full[slot] = full.get(slot, 0) + 1
    for slot in slots:
        assert client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) == full[slot]

    # Tombstones are counted anew after a node was killed, with what it had not flushed.
    cluster[0].kill()
    cluster.start_node(cluster[0])
    cluster.wait_whole()
    until(lambda: cluster[0].client().dbsize() == len(rows), "the node that was killed to count its keys")
    assert cluster[0].status()["keys"] == len(rows)

    # A dump loads into another cluster.
    other = make_cluster(count=1, shards=shards)
    rondo(other[0], "load", tmp_path / "dump2")
    check_dump_of(other[0], tmp_path / "dump3", rows)


def check_dump_of(node, path, rows):
    rondo(node, "dump", path)
    check_dump(path, rows)
