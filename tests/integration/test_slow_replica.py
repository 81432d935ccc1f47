"""A node whose network delays everything by half a second: what readers through the other nodes notice of it.

Times are printed, and only what no busy machine can change is asserted: hardly a read took as long as the slow node's
answers, and the extra reads stayed within their budget. The simulator asserts p99 (scenario slow-replica).
"""

import concurrent.futures
import time

import pytest

from harness import until

netns = pytest.importorskip("netns", reason="needs netns.py: nodes in network namespaces")
pytestmark = pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable()))

DELAY_MS = 500
KEYS = 200
READS = 1500  # by each reader
READERS = 2  # of each healthy node

# src/quorum/replica_choice.h: one extra read for 50, and the burst of each shard.
READS_PER_EXTRA = 50
BURST = 10
SHARDS = 2


@pytest.fixture
def cluster(tmp_path):
    made = netns.NetnsCluster(tmp_path, shards=SHARDS)
    try:
        made.start()
    except BaseException:
        made.close()
        raise
    yield made
    made.close()


def connection(node):
    client = node.client(single_connection_client=True)
    assert client.execute_command("RONDO.CONSISTENCY", "R", 2, "W", 2) in (b"OK", "OK")
    return client


def read(node):
    """Latencies in milliseconds."""
    client = connection(node)
    took = []
    for i in range(READS):
        begun = time.monotonic()
        assert client.get(f"key:{i % KEYS}") == b"v" * 100
        took.append(1000 * (time.monotonic() - begun))
    return took


def read_through(nodes, when):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        runs = [pool.submit(read, node) for node in nodes for _ in range(READERS)]
        took = sorted(one for run in runs for one in run.result())
    p50, p99, most = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
    print(f"{when}: {len(took)} reads at R=2, p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {most:.1f} ms")
    return took, p99


def counters(nodes, *names):
    return {name: sum(node.status()["requests"][name] for node in nodes) for name in names}


def test_a_slow_replica_does_not_slow_the_readers_of_the_others(cluster):
    *healthy, slow = cluster
    writer = connection(healthy[0])
    for i in range(KEYS):
        assert writer.set(f"key:{i}", b"v" * 100)
    _, healthy_p99 = read_through(healthy, "all well")
    before = counters(healthy, "hedges", "hedges_won", "hedges_refused", "read_probes")

    cluster.delay(slow, DELAY_MS)
    took, slow_p99 = read_through(healthy, f"{slow.name} slow")
    after = counters(healthy, *before)
    spent = {name: after[name] - before[name] for name in before}
    print(f"p99 {slow_p99 / healthy_p99:.2f} times the healthy one; {spent}")

    # Were the slow node asked like the others, half of all reads would wait for it.
    waited = sum(one >= DELAY_MS for one in took)
    assert waited <= len(took) // 100, f"{waited} of {len(took)} reads waited for the slow node"
    assert spent["hedges"] + spent["read_probes"] <= len(took) // READS_PER_EXTRA + BURST * SHARDS * len(healthy)

    cluster.heal()
    until(lambda: all(connection(slow).set(f"after:{i}", b"v") for i in range(10)), "the slow node to serve again")
    read_through(healthy, f"{slow.name} well again")
