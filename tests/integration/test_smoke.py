"""A short walk through everything, also run with the sanitizers' builds."""

import shutil

from harness import rondo, until


def test_a_cluster_serves_loses_a_node_and_gets_it_back(make_cluster):
    cluster = make_cluster(shards=2)
    keys = [f"smoke:{i}" for i in range(300)]
    client = cluster.redis_cluster()
    for key in keys:
        assert client.set(key, key * 10)
    assert client.set("big", b"x" * (3 << 20))
    assert cluster[0].http("PUT", "/put?key=http", data=b"\x00\xff").ok
    victim = cluster.victim()
    victim.kill()
    for key in keys:
        assert client.get(key) == (key * 10).encode()
        assert client.set(key, key * 20)
    cluster.start_node(victim)
    cluster.wait_whole()
    for node in cluster:
        with node.connection(r=2) as reader:
            assert reader.mget(keys) == [(key * 20).encode() for key in keys]
            assert reader.get("big") == b"x" * (3 << 20)
        assert node.http("GET", "/get?key=http").content == b"\x00\xff"
    assert client.delete(*keys) == len(keys)
    cluster.stop()
    cluster.start()
    assert cluster[1].client().mget(keys[:10]) == [None] * 10
    client.close()


def test_a_node_with_an_emptied_directory(make_cluster):
    cluster = make_cluster(shards=2)
    cluster[0].client().set("k", "v")
    cluster[1].kill()
    shutil.rmtree(cluster[1].data)
    cluster.start_node(cluster[1])
    until(lambda: "this data directory lacks data" in cluster[1].log(), "n2 to find out")
    # Refused (which is "not yet") until both others, which hold the key, are connected to n2; never "not found".
    reader = cluster[1].client()
    assert until(lambda: reader.get("k") or b"not found", "n2 to reach both others") == b"v"


def test_the_command_line_client(make_cluster):
    cluster = make_cluster(count=1)
    host = cluster[0].http_address
    assert rondo("put", "k", "-", host=host, stdin=b"\x00v").returncode == 0
    assert rondo("get", "k", host=host).stdout == b"\x00v"
    assert rondo("del", "k", host=host).returncode == 0
    assert rondo("get", "k", host=host).returncode == 1
    assert b"n1 is serving" in rondo("status", host=host).stdout
    assert b"100.00%" in rondo("ring", host=host).stdout
