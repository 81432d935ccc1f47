"""Partitions, loss and delay between nodes under load: nothing acknowledged is lost, and reads at R=2 never go back.

How soon errors end is measured by `./dev faults`; here it is printed only.
"""

import time

import pytest

import netns
from harness import until
from workload import Workload

pytestmark = pytest.mark.skipif(netns.unavailable() is not None, reason=str(netns.unavailable()))

OPERATIONS = 150  # of each node's writer and reader, for a phase to be one


@pytest.fixture
def cluster(tmp_path):
    made = netns.NetnsCluster(tmp_path, shards=2)
    try:
        made.start()
    except BaseException:
        made.close()
        raise
    yield made
    made.close()


@pytest.fixture
def load(cluster):
    """A running workload; at the end of the test everything is healed, and judged."""
    running = Workload(cluster).start()
    try:
        yield running
        cluster.heal()
        cluster.wait_whole()
        running.wait_done(cluster.nodes, OPERATIONS)
    finally:
        running.stop()
    running.read_all()
    assert not running.violations()


def reachable(node):
    return {other["name"] for other in node.status()["nodes"] if other["reachable"] and not other["self"]}


def heal(cluster, load):
    healed = time.monotonic()
    cluster.heal()
    cluster.wait_whole()
    load.wait_done(cluster.nodes, OPERATIONS)
    errors = load.errors(since=healed)
    last_s = max((one.end - healed for one in errors), default=0)
    print(f"the last of {len(errors)} errors {last_s:.2f} s after healing")


def test_one_node_is_cut_off(cluster, load):
    *others, alone = cluster
    cluster.isolate(alone)
    until(lambda: not reachable(alone), "the lonely node to notice")
    for other in others:
        until(lambda other=other: alone.name not in reachable(other), "the others to notice")
    load.wait_done(others, OPERATIONS)
    load.wait_tried([alone], OPERATIONS)
    assert load.errors(nodes=[alone]), "it had no quorum"
    heal(cluster, load)


def test_every_node_is_cut_off_in_turn_for_less_than_it_takes_to_notice(cluster, load):
    for alone in cluster:
        cluster.isolate(alone)
        load.wait_done([node for node in cluster if node is not alone], OPERATIONS // 3)
        cluster.heal()
        load.wait_done([alone], OPERATIONS // 3)


def test_two_nodes_do_not_see_each_other_but_both_see_the_third(cluster, load):
    one, two, _ = cluster
    cluster.partition(one, two)
    until(lambda: two.name not in reachable(one) and one.name not in reachable(two), "both to notice")
    load.wait_done(cluster.nodes, OPERATIONS)
    heal(cluster, load)


@pytest.mark.parametrize("deaf", [True, False], ids=["hears nobody", "is heard by nobody"])
def test_one_direction_is_cut(cluster, load, deaf):
    *others, half = cluster
    for other in others:
        cluster.one_way(*((half, other) if deaf else (other, half)))
    for other in others:
        until(lambda other=other: half.name not in reachable(other), "the others to notice")
    until(lambda: not reachable(half), "the half-connected node to notice")
    load.wait_done(others, OPERATIONS)
    load.wait_tried([half], OPERATIONS)
    heal(cluster, load)


@pytest.mark.parametrize("everyone", [False, True], ids=["one node", "all nodes"])
def test_thirty_percent_loss(cluster, load, everyone):
    cluster.loss(cluster.nodes if everyone else cluster[2], 30)
    load.wait_tried(cluster.nodes, OPERATIONS // 10)
    heal(cluster, load)


def test_one_node_is_200_ms_away(cluster, load):
    cluster.delay(cluster[2], 200)
    load.wait_done(cluster.nodes[:2], OPERATIONS)
    load.wait_done([cluster[2]], OPERATIONS // 15)
    heal(cluster, load)


def test_a_node_is_killed_while_another_is_slow_and_lossy(cluster, load):
    cluster.loss(cluster[1], 5)
    cluster.delay(cluster[1], 20)
    cluster[2].kill()
    load.wait_done(cluster.nodes[:2], OPERATIONS // 3)
    cluster.start_node(cluster[2])
    cluster.wait_whole()
    heal(cluster, load)
