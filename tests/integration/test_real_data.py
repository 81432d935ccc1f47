"""Real data: every stanza of `apt-cache dumpavail`, loaded through RedisCluster while a node is kill -9ed and
restarted, then read back from every node.

RONDO_STANZAS limits their number (0 = all of them).
"""

import os
import re
import shutil
import subprocess
import threading

import pytest

from harness import until

STANZAS = int(os.environ.get("RONDO_STANZAS", "0"))
THREADS = 8


def stanzas():
    """{package and version: stanza}."""
    if shutil.which("apt-cache") is None:
        pytest.skip("apt-cache is not here")
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    found = {}
    for stanza in text.split(b"\n\n"):
        fields = dict(re.findall(rb"^(Package|Version): (.*)$", stanza, re.MULTILINE))
        if len(fields) == 2:
            found[fields[b"Package"] + b"=" + fields[b"Version"]] = stanza
            if len(found) == STANZAS:
                break
    if len(found) < 100:
        pytest.skip("apt knows no packages here; apt-get update would fetch their lists")
    return found


class Loader(threading.Thread):
    """Sets its share of the stanzas; any error that its client does not retry by itself is a problem."""

    def __init__(self, cluster, items, loaded):
        super().__init__(daemon=True)
        self.client, self.items, self.loaded = cluster.redis_cluster(), items, loaded
        self.problem = None

    def run(self):
        try:
            for key, value in self.items:
                assert self.client.set(key, value)
                self.loaded.append(key)
        except Exception as error:  # told by the test
            self.problem = error


def test_no_acknowledged_stanza_is_lost_while_a_node_is_killed_and_restarted(make_cluster):
    cluster = make_cluster()
    data = stanzas()
    items = list(data.items())
    loaded = []
    loaders = [Loader(cluster, items[i::THREADS], loaded) for i in range(THREADS)]
    for loader in loaders:
        loader.start()

    def reached(part):
        until(lambda: len(loaded) >= part * len(items) or not any(loader.is_alive() for loader in loaders),
              f"{part:.0%} of the stanzas to be loaded", patience_s=600)

    victim = cluster.victim()
    reached(0.5)
    victim.kill()
    reached(0.6)
    cluster.start_node(victim)
    for loader in loaders:
        loader.join()
    problems = [loader.problem for loader in loaders if loader.problem is not None]
    assert not problems, problems
    assert len(loaded) == len(items)
    cluster.wait_whole()
    assert cluster.counter("forwarded") == 0
    keys = list(data)
    for node in cluster:
        with node.connection(r=2) as client:
            for start in range(0, len(keys), 200):
                part = keys[start:start + 200]
                for key, value in zip(part, client.mget(part)):
                    assert value == data[key], f"{key} at {node.name}"
    print(f"{len(items)} stanzas, {sum(map(len, data.values()))} bytes")
