"""Three and five nodes as clients see them: routing, quorums, nodes that die and come back."""

import re
import shutil
import signal
import subprocess

import pytest
import redis

import harness
from harness import RawResp, until

NEEDS_TOOLS = pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-tools is not installed")
BOTH_SHARDS = pytest.mark.parametrize("shards", [1, 3], ids=["K=1", "K=3"])


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=harness.PATIENCE_S * 2,
                          check=False)
    assert done.returncode == 0, done
    return done.stdout.decode()


def raw_reply(node, *words):
    with RawResp(node.resp_port) as raw:
        return raw.reply(*words)


def slots_of(node):
    """{slot: port} as CLUSTER SLOTS gives it, checked for holes and overlaps."""
    slots = {}
    for first, last, *replicas in raw_reply(node, "CLUSTER", "SLOTS"):
        assert len(replicas) == 1 and replicas[0][0] == b"127.0.0.1"
        for slot in range(first, last + 1):
            assert slot not in slots
            slots[slot] = replicas[0][1]
    assert len(slots) == 16384
    return slots


# ---- a whole cluster -------------------------------------------------------------------------------------------


def test_all_nodes_have_the_same_ring(cluster):
    rings = [node.ring() for node in cluster]
    for ring in rings:
        assert ring["cluster"] == rings[0]["cluster"] and ring["owners"] == rings[0]["owners"]
        assert ring["epoch"] == 1 and ring["n"] == 3
        assert [node["replicates"] for node in ring["nodes"]] == [16384] * 3
        assert sum(node["slots"] for node in ring["nodes"]) == 16384
        assert max(node["slots"] for node in ring["nodes"]) <= 1.01 * 16384 / 3
        covered = [slot for first, last, _ in ring["owners"] for slot in range(first, last + 1)]
        assert covered == list(range(16384))


def test_a_write_at_any_node_is_read_at_any_node(cluster):
    for writer in cluster:
        key = f"from:{writer.name}"
        assert writer.client().set(key, writer.name)
        for reader in cluster:
            assert reader.client().get(key) == writer.name.encode()
            assert reader.http("GET", f"/get?key={key}").content == writer.name.encode()
    for deleter in cluster:
        assert deleter.client().delete(f"from:{deleter.name}") == 1
        assert [reader.client().get(f"from:{deleter.name}") for reader in cluster] == [None] * 3


def test_cluster_slots_shards_and_nodes_agree(cluster):
    by_port = {node.resp_port: node for node in cluster}
    slots = slots_of(cluster[0])
    assert set(slots.values()) == set(by_port)
    for node in cluster:
        assert slots_of(node) == slots
        lines = raw_reply(node, "CLUSTER", "NODES").decode().splitlines()
        assert len(lines) == 3 and sum("myself" in line for line in lines) == 1
        listed = {}
        for line in lines:
            fields = line.split(" ")
            assert re.fullmatch(r"[0-9a-f]{40}", fields[0]) and "master" in fields[2] and fields[7] == "connected"
            port = int(re.fullmatch(r"127\.0\.0\.1:(\d+)@\d+(,.*)?", fields[1]).group(1))
            for ranges in fields[8:]:
                first, _, last = ranges.partition("-")
                listed.update(dict.fromkeys(range(int(first), int(last or first) + 1), port))
        assert listed == slots
        sharded = {}
        for shard in raw_reply(node, "CLUSTER", "SHARDS"):
            shard = dict(zip(shard[::2], shard[1::2]))
            (only,) = shard[b"nodes"]
            only = dict(zip(only[::2], only[1::2]))
            assert only[b"role"] == b"master" and only[b"health"] == b"online" and only[b"endpoint"] == b"127.0.0.1"
            for first, last in zip(shard[b"slots"][::2], shard[b"slots"][1::2]):
                sharded.update(dict.fromkeys(range(first, last + 1), only[b"port"]))
        assert sharded == slots
        info = dict(line.split(":") for line in raw_reply(node, "CLUSTER", "INFO").decode().split())
        assert info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


def test_redis_cluster_client(cluster):
    before = cluster.counter("forwarded")
    client = cluster.redis_cluster()
    keys = [f"rc:{i}" for i in range(500)]
    for key in keys:
        assert client.set(key, key)
    assert [client.get(key) for key in keys] == [key.encode() for key in keys]
    assert client.mget_nonatomic(keys) == [key.encode() for key in keys]
    assert client.delete(*keys) == 500
    assert cluster.counter("forwarded") == before
    client.close()


@NEEDS_TOOLS
def test_redis_cli(cluster):
    for i, node in enumerate(cluster):
        port = node.resp_port
        assert run("redis-cli", "-p", port, "SET", f"cli:{i}", "v") == "OK\n"
        assert run("redis-cli", "-c", "-p", port, "GET", f"cli:{i}") == "v\n"
        assert run("redis-cli", "-c", "-3", "-p", port, "GET", f"cli:{i}") == "v\n"
        assert "cluster_enabled:1" in run("redis-cli", "-p", port, "INFO")
    assert "[OK] All 16384 slots covered" in run("redis-cli", "--cluster", "check", cluster[0].resp_address)


@NEEDS_TOOLS
@pytest.mark.parametrize("flags", [(), ("--cluster",), ("-P", "16")], ids=["plain", "cluster", "pipelined"])
def test_redis_benchmark(cluster, flags):
    out = run("redis-benchmark", "-p", cluster[0].resp_port, "-t", "ping,set,get,mset", "-n", 2000, "-c", 10,
              "-r", 1000, "-q", *flags)
    for name in ("SET", "GET"):
        assert re.search(rf"{name}: [\d.]+ requests per second", out), out
    assert "rror" not in out, out


def test_consistency_levels(cluster):
    for w in ("1", "2", "3", "one", "quorum", "all"):
        with cluster[0].connection(w=w, r=w) as client:
            assert client.set("levels", w) and client.get("levels") == w.encode()
    for word, path in (("PUT", "/put?key=k&w=4"), ("GET", "/get?key=k&r=4")):
        answer = cluster[0].http(word, path, data=b"v")
        assert answer.status_code == 400 and "3" in answer.json()["message"], answer.text


# ---- nodes that die --------------------------------------------------------------------------------------------


@BOTH_SHARDS
def test_reads_and_writes_go_on_while_a_node_is_killed_and_returns(make_cluster, shards):
    cluster = make_cluster(shards=shards)
    client, victim = cluster.redis_cluster(), cluster.victim()
    written = {}
    for i in range(3000):
        if i == 1000:
            victim.kill()
        if i == 2000:
            cluster.start_node(victim)
        assert client.set(f"k:{i}", i)
        written[f"k:{i}"] = str(i).encode()
        assert client.get(f"k:{i // 2}") == str(i // 2).encode()
    cluster.wait_whole()
    for node in cluster:
        with node.connection(r=2) as reader:
            assert reader.mget(list(written)) == list(written.values())
    client.close()


def test_a_dead_node_leaves_the_client_map_and_returns_to_it(make_cluster):
    cluster = make_cluster()
    everyone = slots_of(cluster[0])
    cluster[2].kill()
    dead = cluster[2].resp_port
    for node in cluster.nodes[:2]:
        until(lambda node=node: dead not in slots_of(node).values(), "the dead node to leave the client map")
        assert set(slots_of(node).values()) == {cluster[0].resp_port, cluster[1].resp_port}
        assert b"cluster_state:ok" in raw_reply(node, "CLUSTER", "INFO")
        (entry,) = [other for other in node.status()["nodes"] if other["name"] == "n3"]
        assert entry["reachable"] is False
    cluster.start_node(cluster[2])
    cluster.wait_whole()
    for node in cluster:
        until(lambda node=node: slots_of(node) == everyone, "the client map to be whole again")


def test_clients_of_five_nodes_reach_a_replica_directly(make_cluster):
    cluster = make_cluster(count=5)
    client = cluster.redis_cluster()
    for i in range(1000):
        assert client.set(f"five:{i}", i)
        assert client.get(f"five:{i}") == str(i).encode()
    assert cluster.counter("forwarded") == 0
    # Any other node serves every key too, as a coordinator that does not replicate it.
    for node in cluster:
        assert node.client().mget([f"five:{i}" for i in range(1000)]) == [str(i).encode() for i in range(1000)]
    assert cluster.counter("forwarded") > 0
    client.close()


def test_without_a_quorum_nothing_is_applied_and_the_answer_says_so(make_cluster):
    cluster = make_cluster()
    one = cluster[0]
    assert one.client().set("k", "before")
    cluster[1].kill()
    cluster[2].kill()
    cluster.wait_whole()
    assert one.http("GET", "/healthz").status_code == 503
    put = one.http("PUT", "/put?key=k", data=b"after")
    assert put.status_code == 503, put.text
    assert put.json()["error"] == "UNAVAILABLE" and put.json()["needed"] == 2 and put.json()["acks"] < 2
    get = one.http("GET", "/get?key=k")
    assert get.status_code == 503 and get.json()["error"] == "UNAVAILABLE" and get.json()["needed"] == 2
    with pytest.raises(redis.exceptions.ResponseError, match="CLUSTERDOWN|UNAVAILABLE"):
        one.client().set("k", "after")
    # One replica is here: those who ask for one get their answer, and it shows that nothing was applied.
    assert one.http("GET", "/get?key=k&r=1").content == b"before"
    assert one.http("PUT", "/put?key=one&w=1", data=b"v").ok
    counters = one.status()["requests"]
    assert counters["not_applied"] >= 3 and counters["unknown"] == 0
    for node in cluster.nodes[1:]:
        cluster.start_node(node)
    cluster.wait_whole()
    assert [node.client().get("k") for node in cluster] == [b"before"] * 3
    assert [node.client().get("one") for node in cluster] == [b"v"] * 3


def test_replicas_that_are_silent_leave_the_outcome_unknown(make_cluster):
    cluster = make_cluster()
    one, others = cluster[0], cluster.nodes[1:]
    assert one.client().set("k", "before")
    for node in others:
        node.process.send_signal(signal.SIGSTOP)
    try:
        put = one.http("PUT", "/put?key=k&timeout=300", data=b"after")
        assert put.status_code == 504, put.text
        assert put.json()["error"] == "UNKNOWN" and put.json()["needed"] == 2 and put.json()["acks"] == 1
        assert "may" in put.json()["message"]
        get = one.http("GET", "/get?key=k&timeout=300")
        assert get.status_code == 504 and get.json()["error"] == "TIMEOUT", get.text
        with one.connection(timeout_ms=300) as client:
            with pytest.raises(redis.exceptions.ResponseError, match="UNKNOWN"):
                client.set("k", "after")
            with pytest.raises(redis.exceptions.ResponseError, match="TIMEOUT"):
                client.get("k")
        assert one.http("PUT", "/put?key=one&w=1&timeout=5000", data=b"v").ok
        assert one.http("GET", "/get?key=one&r=1").content == b"v"
        assert one.status()["requests"]["unknown"] >= 2
    finally:
        for node in others:
            node.process.send_signal(signal.SIGCONT)
    cluster.wait_whole()
    assert len({node.client().get("k") for node in cluster}) == 1
    assert one.client().get("k") in (b"before", b"after")


# ---- restarts --------------------------------------------------------------------------------------------------


def test_a_data_directory_opens_with_any_number_of_shards(make_cluster):
    cluster = make_cluster(shards=1)
    keys = [f"move:{i}" for i in range(2000)]
    client = cluster[0].client()
    for shards, killed in ((3, False), (2, True), (1, False)):
        client.mset({key: f"{key}:{shards}" for key in keys})
        for node in cluster:
            node.kill() if killed else node.stop()
        cluster.start(shards=shards)
        for node in cluster:
            assert node.status()["shards"] == shards
            assert node.client().mget(keys) == [f"{key}:{shards}".encode() for key in keys]


@BOTH_SHARDS
def test_an_emptied_directory_takes_writes_and_counts_towards_no_read(make_cluster, shards):
    cluster = make_cluster(shards=shards)
    one, two, three = cluster
    assert one.client().set("k", "v")
    # Without n1 it cannot be repaired: a slot is compared with all its other replicas first.
    three.kill()
    one.kill()
    shutil.rmtree(three.data)
    cluster.start_node(three)
    cluster.wait_whole(state=None)
    until(lambda: three.status()["state"] == "amnesiac", "n3 to find out that it lost its data")
    assert "no R" in three.log()
    for node in (two, three):
        # It takes writes: one that needs both replicas is acknowledged.
        until(lambda node=node: node.http("PUT", "/put?key=w&w=2", data=b"w").ok, "a write to be taken")
        # It counts towards no R: one replica can answer, never two.
        until(lambda node=node: node.http("GET", "/get?key=k").status_code == 503, "a quorum without n3 to be missed")
        assert node.http("GET", "/get?key=w&r=1").content == b"w"
    # It does not forget what it is.
    three.stop()
    cluster.start_node(three)
    cluster.wait_node(three)
    until(lambda: three.status()["state"] == "amnesiac", "n3 to say it again after a restart")
    cluster.start_node(one)
    cluster.wait_whole(state="serving")
    for node in cluster:
        assert node.http("GET", "/get?key=k&r=3").content == b"v"


def test_a_peer_of_another_cluster_is_refused(make_cluster, tmp_path):
    cluster = make_cluster()
    stranger = harness.Node("n4", tmp_path / "stranger")
    stranger.start(["--name", "n4", "--data", stranger.data, "--initial-cluster",
                    f"n1={cluster[0].peer_address},n4={stranger.peer_address}", *stranger.listen_flags()])
    try:
        until(lambda: re.search(r"(?i)another cluster|WRONG_CLUSTER", stranger.log()), "the stranger to be refused")
        assert re.search(r"n[234]", stranger.log())
        until(lambda: re.search(r"(?i)another cluster|WRONG_CLUSTER", cluster[0].log()), "n1 to say so too")
    finally:
        stranger.kill()
    cluster.wait_whole()
    assert cluster[0].client().set("still", "fine")
