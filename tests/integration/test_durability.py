"""What is acknowledged is on the disk: kill -9 at random moments, torn tails, and damage that is never silent.

RONDO_KILLS is the number of kills (default 5); RONDO_SEED makes their moments the same again.
"""

import os
import random
import shutil
import struct
import threading

import pytest
import redis

from harness import until

KILLS = int(os.environ.get("RONDO_KILLS", "5"))
SEED = int(os.environ.get("RONDO_SEED", str(random.randrange(1 << 32))))

LOG_HEADER_BYTES = 4096
BATCH_HEADER_BYTES = 72
BATCH_MAGIC = 0x48425452


class Writer(threading.Thread):
    """Writes rising numbers to keys of its own until the connection breaks, and remembers what was acknowledged."""

    KEYS = 100
    DEPTH = 8

    def __init__(self, number, node, acknowledged, attempted):
        super().__init__(name=f"writer {number}", daemon=True)
        self.number, self.node = number, node
        self.acknowledged, self.attempted = acknowledged, attempted
        self.problem = None

    def run(self):
        client = self.node.client(single_connection_client=True)
        chance = random.Random(self.number)
        while True:
            keys = [f"w{self.number}:{chance.randrange(self.KEYS)}" for _ in range(self.DEPTH)]
            pipeline = client.pipeline(transaction=False)
            values = []
            for key in keys:
                self.attempted[key] = self.attempted.get(key, 0) + 1
                values.append(self.attempted[key])
                pipeline.set(key, self.attempted[key])
            try:
                answers = pipeline.execute(raise_on_error=False)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
                return
            for key, value, answer in zip(keys, values, answers):
                if answer is True:
                    self.acknowledged[key] = max(value, self.acknowledged.get(key, 0))
                elif isinstance(answer, redis.exceptions.ResponseError):
                    self.problem = answer
                    return


def check_acknowledged(node, acknowledged, attempted):
    keys = list(acknowledged)
    for key, value in zip(keys, node.client().mget(keys)):
        assert value is not None, f"{key} is gone, {acknowledged[key]} was acknowledged"
        assert acknowledged[key] <= int(value) <= attempted[key], (
            f"{key} is {value}, {acknowledged[key]} was acknowledged, {attempted[key]} the last attempt")


@pytest.mark.parametrize("shards", [1, 3], ids=["K=1", "K=3"])
def test_every_acknowledged_write_survives_kill_9_under_load(make_cluster, shards):
    print(f"RONDO_SEED={SEED}")
    chance = random.Random(SEED)
    cluster = make_cluster(count=1, shards=shards, flags=["--durability", "always"])
    node = cluster[0]
    acknowledged, attempted = {}, {}
    total = 0
    for _ in range((KILLS + 1) // 2):
        # One dictionary for all: keys are each writer's own.
        writers = [Writer(number, node, acknowledged, attempted) for number in range(4)]
        base = sum(acknowledged.values())
        for writer in writers:
            writer.start()
        wanted = base + 1 + chance.randrange(3000)
        until(lambda wanted=wanted: sum(list(acknowledged.values())) >= wanted or not any(
            writer.is_alive() for writer in writers), "some writes to be acknowledged")
        node.kill()
        for writer in writers:
            writer.join()
            assert writer.problem is None, f"{writer.name}: {writer.problem}"
        total = sum(acknowledged.values())
        cluster.start()
        check_acknowledged(node, acknowledged, attempted)
    print(f"{(KILLS + 1) // 2} kills, {total} writes acknowledged")


# ---- the log's bytes -------------------------------------------------------------------------------------------


def newest_segment(node):
    """The segment with the highest number in its header (spare ones have older headers or none)."""
    best = None
    for path in sorted((node.data / "log").glob("*.log")):
        head = path.open("rb").read(16)
        if len(head) == 16 and struct.unpack("<Q", head[8:])[0] == int(path.stem):
            best = path
    assert best is not None, list((node.data / "log").iterdir())
    return best


def batches(path):
    """[(offset, size)] of the batches of a segment, by its magic numbers alone."""
    data = path.read_bytes()
    found, at = [], LOG_HEADER_BYTES
    while at + BATCH_HEADER_BYTES <= len(data):
        magic, size, segment = struct.unpack_from("<IIQ", data, at)
        if magic != BATCH_MAGIC or segment != int(path.stem):
            break
        whole = BATCH_HEADER_BYTES + (size + 7) // 8 * 8
        found.append((at, whole))
        at += whole
    return found


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def noise(kind, path, found):
    """Bytes for past the last synced one, as a crash in the middle of a write leaves them."""
    chance = random.Random(SEED)
    offset, size = found[-1]
    last = path.read_bytes()[offset:offset + size]
    return {"random": chance.randbytes(5000), "half a batch": last[:size // 2], "old batch": last,
            "header only": last[:BATCH_HEADER_BYTES] + chance.randbytes(100)}[kind]


@pytest.mark.parametrize("kind", ["random", "half a batch", "old batch", "header only"])
def test_noise_past_the_last_synced_byte_is_cut_off(make_cluster, kind):
    cluster = make_cluster(count=1)
    node = cluster[0]
    client = node.client()
    for i in range(200):
        assert client.set(f"noise:{i}", f"value {i}")
    node.kill()
    path = newest_segment(node)
    found = batches(path)
    assert found
    overwrite(path, sum(found[-1]), noise(kind, path, found))
    for _ in range(2):
        cluster.start()
        assert [node.client().get(f"noise:{i}") for i in range(200)] == [b"value %d" % i for i in range(200)]
        assert node.status()["quarantined_slots"] == 0
        assert node.client().set("after", "noise")
        node.kill()
    cluster.start()
    assert node.client().get("after") == b"noise"


def damage(node, text):
    """Changes a byte of the batch that holds the text."""
    for path in sorted((node.data / "log").glob("*.log")):
        at = path.read_bytes().find(text)
        if at >= 0:
            overwrite(path, at, b"\xa5")
            return path
    raise AssertionError(f"{text} is not in the log")


def test_damage_is_named_and_its_keys_answer_an_error_never_not_found(make_cluster):
    cluster = make_cluster(count=1)
    node = cluster[0]
    client = node.client()
    for i in range(300):
        assert client.set(f"damage:{i}:", f"value {i}")
    node.kill()
    path = damage(node, b"damage:150:")
    cluster.start_node(node)
    cluster.wait_node(node)
    log = node.log()
    assert "damage" in log.lower() and path.name in log, log
    assert node.status()["quarantined_slots"] > 0
    with node.client() as reader:
        for i in range(300):
            try:
                value = reader.get(f"damage:{i}:")
            except redis.exceptions.ResponseError as error:
                assert "QUARANTINED" in str(error) or "UNAVAILABLE" in str(error)
                continue
            assert value == b"value %d" % i, f"damage:{i}: is {value}"
        with pytest.raises(redis.exceptions.ResponseError):
            reader.get("damage:150:")
    answer = node.http("GET", "/get?key=damage:150:")
    assert answer.status_code == 503 and answer.json()["error"] in ("QUARANTINED", "UNAVAILABLE"), answer.text
    # It is not forgotten by the next start.
    node.kill()
    cluster.start_node(node)
    cluster.wait_node(node)
    assert node.http("GET", "/get?key=damage:150:").status_code == 503


def test_damage_on_one_node_of_three_loses_nothing(make_cluster):
    cluster = make_cluster()
    client = cluster[0].client()
    for i in range(300):
        assert client.set(f"damage:{i}:", f"value {i}")
    # Until n3 has them all too: W = 2 did not wait for it.
    until(lambda: b"damage:299:" in b"".join(path.read_bytes() for path in (cluster[2].data / "log").glob("*.log")),
          "n3 to have logged the last write")
    cluster[2].kill()
    damage(cluster[2], b"damage:150:")
    cluster.start_node(cluster[2])
    cluster.wait_whole(state=None)
    assert cluster[2].status()["quarantined_slots"] > 0
    for node in cluster:
        assert node.client().mget([f"damage:{i}:" for i in range(300)]) == [b"value %d" % i for i in range(300)]
    # The quarantined slots count towards no R.
    answer = cluster[0].http("GET", "/get?key=damage:150:&r=3&timeout=2000")
    assert answer.status_code in (503, 504), answer.text


def test_a_clean_stop_and_start_keep_everything(make_cluster):
    cluster = make_cluster(count=1, flags=["--durability", "os"])
    node = cluster[0]
    keys = [f"clean:{i}" for i in range(5000)]
    node.client().mset(dict(zip(keys, keys)))
    node.client().delete(*keys[:100])
    node.client().set("ttl", "v", ex=5000)
    for _ in range(2):
        node.stop()
        cluster.start()
        assert node.client().mget(keys) == [None] * 100 + [key.encode() for key in keys[100:]]
        assert 4000 < node.client().ttl("ttl") <= 5000


def test_a_lost_log_is_not_taken_for_an_empty_one(make_cluster):
    cluster = make_cluster(count=1)
    node = cluster[0]
    assert node.client().set("k", "v")
    node.kill()
    shutil.rmtree(node.data / "log")
    cluster.start_node(node)
    try:
        until(lambda: node.process.poll() is not None or node.answers(), "n1 to refuse or to answer")
        if node.process.poll() is None:
            with pytest.raises(redis.exceptions.ResponseError):
                node.client().get("k")
        else:
            assert "log" in node.log()
            node.process = None
    finally:
        if node.running():
            node.kill()


@pytest.mark.parametrize("durability", ["interval:50", "os"])
def test_weaker_durability_survives_the_death_of_the_process(make_cluster, durability):
    cluster = make_cluster(count=1, flags=["--durability", durability])
    node = cluster[0]
    assert node.status()["durability"] == durability
    for i in range(300):
        assert node.client().set(f"weak:{i}", i)
    node.kill()
    cluster.start()
    assert node.client().mget([f"weak:{i}" for i in range(300)]) == [str(i).encode() for i in range(300)]


def lose_power(node):
    """As if the machine had been started anew: another boot id in what the last run noted."""
    node.kill()
    note = node.data / "durability"
    lines = note.read_text().splitlines()
    assert lines[0] == "interval" and lines[1].startswith("boot ")
    note.write_text("\n".join([lines[0], "boot of-yesterday", *lines[2:]]) + "\n")


def test_weaker_durability_after_a_power_loss_counts_as_a_lost_disk(make_cluster):
    cluster = make_cluster(count=3, flags=["--durability", "interval:50"])
    node = cluster[0]
    assert node.client().set("k", "v")
    lose_power(node)
    cluster.start_node(node)
    cluster.wait_node(node)
    assert "the machine went down" in node.log()
    until(lambda: node.status()["quarantined_slots"] == 16384, "n1 to say what it lacks")
    until(lambda: all(n["reachable"] for n in node.status()["nodes"]), "n1 to reach the others")
    assert node.client().get("k") == b"v"
    cluster[1].kill()
    for key in ("k", "never written"):
        with pytest.raises(redis.exceptions.ResponseError):
            node.client().get(key)


def test_a_node_alone_serves_what_it_has_after_a_power_loss(make_cluster):
    cluster = make_cluster(count=1, flags=["--durability", "interval:50"])
    node = cluster[0]
    assert node.client().set("k", "v")
    lose_power(node)
    cluster.start_node(node)
    cluster.wait_node(node)
    assert "the machine went down" in node.log()
    assert node.status()["quarantined_slots"] == 0
    assert node.client().get("k") == b"v"
