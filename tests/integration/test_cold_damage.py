"""Damage in the tables of one node's cold tier: never a wrong answer, repaired from the other replicas while the node
runs, and gone after the next restart."""

import hashlib

import redis

from harness import until
from test_healing import QUICK, identical

KEYS = 30000


def value_of(number):
    return hashlib.sha256(b"%d" % number).hexdigest().encode()


def with_consistency(client, letter, count):
    """A pipeline: it has a connection of its own, so it says itself what it wants."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command("RONDO.CONSISTENCY", letter, count, "TIMEOUT", 2000)
    return pipeline


def write_all(node, w):
    client = node.client()
    for first in range(0, KEYS, 1000):
        pipeline = with_consistency(client, "W", w)
        for number in range(first, first + 1000):
            pipeline.set(f"key:{number}", value_of(number))
        pipeline.execute()


def read_all(node, r, least=0):
    """Every key answers its value or, `least` of them excepted, an error; never nothing, never something else."""
    client = node.client()
    errors = []
    for first in range(0, KEYS, 1000):
        numbers = range(first, min(first + 1000, KEYS))
        pipeline = with_consistency(client, "R", r)
        for number in numbers:
            pipeline.get(f"key:{number}")
        for number, found in zip(numbers, pipeline.execute(raise_on_error=False)[1:]):
            if isinstance(found, redis.exceptions.RedisError):
                errors.append(found)
            else:
                assert found == value_of(number), (number, found)
    assert KEYS - len(errors) >= least, errors[:3]
    return len(errors)


def wait_until_cold(cluster):
    """Dirty rows are flushed by age."""
    for node in cluster:
        until(lambda node=node: node.metric("rondo_cold_tier_bytes") > KEYS * 40, f"{node.name} to flush", 60)


def damage_tables(node):
    """Flips bytes within data blocks of all tables."""
    damaged = 0
    for table in (node.data / "cold").glob("*.sst"):
        content = bytearray(table.read_bytes())
        for part in range(2, 8):
            at = len(content) * part // 10
            for offset in range(at, min(at + 64, len(content) * 8 // 10)):
                content[offset] ^= 0x5A
                damaged += 1
        table.write_bytes(content)
    assert damaged > 64


def healthy(node):
    status = node.status()
    return status["state"] == "serving" and status["quarantined_slots"] == 0


def test_a_damaged_cold_tier_heals_and_is_rebuilt_by_a_restart(make_cluster, tmp_path):
    cluster = make_cluster(shards=2, flags=[*QUICK, "--memory", "512M"])
    _, _, three = cluster
    write_all(cluster[0], 3)
    wait_until_cold(cluster)
    three.stop()
    damage_tables(three)
    cluster.start_node(three)
    cluster.wait_whole()
    # At R=1 a damaged row is an error or the value of another replica; at R=2 the other two have it.
    for r in (1, 2, 1):
        read_all(three, r, KEYS // 2)
    until(lambda: "is DAMAGED; its slots are repaired" in three.log(), "the damage to be told")
    assert (three.data / "cold-damaged").exists()
    until(lambda: healthy(three), "the slots of n3 to be repaired", 120)
    for r in (1, 2):
        assert read_all(three, r, KEYS) == 0
    assert three.log().count("is DAMAGED; its slots are repaired") == 1

    three.stop()
    cluster.start_node(three)
    cluster.wait_whole()
    assert "it is deleted and rebuilt from the other replicas" in three.log()
    assert not (three.data / "cold-damaged").exists()
    read_all(three, 2, KEYS)
    until(lambda: healthy(three), "n3 to be rebuilt", 120)
    until(lambda: identical(cluster, tmp_path), "the replicas to be identical", 60)
    for other in cluster:
        if other is not three:
            other.kill()
    assert read_all(three, 1, KEYS) == 0
