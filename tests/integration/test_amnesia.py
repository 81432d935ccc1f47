"""A node that comes back with less than it had: an empty data directory, or an older copy of it.

Under load with W = R = 2 no read may miss, or see an older value than, a write that was acknowledged; and the node
rebuilds everything from the others by itself.
"""

import shutil
import threading

import pytest
import redis

from harness import until

BOTH_SHARDS = pytest.mark.parametrize("shards", [1, 3])
KEYS = 1500


class Load:
    """Writers and readers on every node. Each key has one writer and values that count up; after an acknowledged
    value every read must give it or a later one. Errors are allowed: a node is down."""

    def __init__(self, nodes):
        self.nodes = list(nodes)
        self.acked = {}
        self.wrong = []
        self.reads = 0
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(node, at)) for at, node in enumerate(self.nodes)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()
        assert not self.wrong, self.wrong[:5]

    def run(self, node, at):
        count = 0
        connection = None
        while not self.ending.is_set():
            count += 1
            try:
                connection = connection or node.connection(r=2, w=2, timeout_ms=1000)
                self.write(connection, f"load:{at}:{count % 100}", count)
                for other in range(len(self.nodes)):
                    self.read(connection, f"load:{other}:{count * 7 % 100}")
                self.read_old(connection, count * 13 % KEYS)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
                connection = None
            except redis.exceptions.ResponseError:
                pass

    def write(self, connection, key, value):
        connection.set(key, value)
        self.acked[key] = value

    def read(self, connection, key):
        least = self.acked.get(key)
        found = connection.get(key)
        self.reads += 1
        if least is not None and (found is None or int(found) < least):
            self.wrong.append((key, found, least))

    def read_old(self, connection, number):
        found = connection.get(f"old:{number}")
        self.reads += 1
        if found != b"new %d" % number:
            self.wrong.append((f"old:{number}", found, f"new {number}"))

    def settle(self, times=300):
        """Until so many more reads were answered."""
        wanted = self.reads + times
        until(lambda: self.reads >= wanted, "reads to go on")


def write_old_keys(node, text):
    client = node.connection(r=2, w=2)
    for number in range(KEYS):
        assert client.set(f"old:{number}", f"{text} {number}")


def expect_rebuilt(node):
    def serving():
        status = node.status()
        return status["state"] == "serving" and status["quarantined_slots"] == 0
    until(serving, f"{node.name} to be repaired")
    assert "serves reads again" in node.log()


def expect_everything_on(cluster, node):
    """The others end: what this node answers is what it holds."""
    for other in cluster:
        if other is not node:
            other.kill()
    client = node.connection(r=1)
    assert [client.get(f"old:{number}") for number in range(KEYS)] == [b"new %d" % number for number in range(KEYS)]


@BOTH_SHARDS
def test_an_emptied_directory_is_rebuilt_under_load_and_no_read_misses_a_write(make_cluster, shards):
    cluster = make_cluster(shards=shards)
    one, _, three = cluster
    write_old_keys(one, "new")
    with Load(cluster) as load:
        load.settle()
        three.kill()
        shutil.rmtree(three.data)
        cluster.start_node(three)
        cluster.wait_node(three)
        until(lambda: "this data directory lacks data" in three.log(), "n3 to find out that it lost its data")
        load.settle()
        expect_rebuilt(three)
        load.settle()
    # It stays repaired, also when it is greeted anew.
    three.stop()
    cluster.start_node(three)
    cluster.wait_whole()
    assert three.log().count("this data directory lacks data") == 1
    expect_everything_on(cluster, three)


@BOTH_SHARDS
def test_an_older_copy_of_a_directory_is_rebuilt_under_load_and_no_read_is_stale(make_cluster, tmp_path, shards):
    cluster = make_cluster(shards=shards)
    one, _, three = cluster
    write_old_keys(one, "old")
    three.stop()
    copy = tmp_path / "copy"
    shutil.copytree(three.data, copy)
    cluster.start_node(three)
    cluster.wait_whole()
    write_old_keys(one, "new")
    with Load(cluster) as load:
        load.settle()
        three.kill()
        shutil.rmtree(three.data)
        shutil.copytree(copy, three.data)
        cluster.start_node(three)
        cluster.wait_node(three)
        until(lambda: "a newer state of this one" in three.log(), "n3 to be told that its directory is old")
        load.settle()
        expect_rebuilt(three)
        load.settle()
    # The repaired directory is the newest one from now on; the copy is not, however often it is put back.
    three.stop()
    cluster.start_node(three)
    cluster.wait_whole()
    assert three.log().count("this data directory lacks data") == 1
    three.kill()
    shutil.rmtree(three.data)
    shutil.copytree(copy, three.data)
    cluster.start_node(three)
    cluster.wait_node(three)
    until(lambda: three.log().count("this data directory lacks data") == 2, "n3 to be told once more")
    expect_rebuilt(three)
    expect_everything_on(cluster, three)
