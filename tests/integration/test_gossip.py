"""Gossip between real processes: a stopped process keeps its connections open, and requests do without it all the same.
"""

import contextlib
import re
import signal
import socket

import pytest
import redis

from harness import PATIENCE_S, until

BOTH_SHARDS = pytest.mark.parametrize("shards", [1, 3], ids=["K=1", "K=3"])


@contextlib.contextmanager
def stopped(node):
    """SIGSTOP: everything of the process stays as it is, and nothing answers."""
    node.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)


def seen(at, node):
    """What a node says of another."""
    return next(other for other in at.status()["nodes"] if other["name"] == node.name)


def wait_seen(at, node, liveness, reachable):
    def so():
        found = seen(at, node)
        return found["liveness"] == liveness and found["reachable"] == reachable
    until(so, f"{at.name} to hold {node.name} {liveness}")


def sum_of(nodes, name):
    return sum(node.status()["requests"][name] for node in nodes)


@BOTH_SHARDS
def test_a_stopped_process_is_done_without(make_cluster, shards):
    whole = make_cluster(shards=shards)
    others, victim = [whole[0], whole[1]], whole[2]
    first = {at.name: seen(at, victim)["incarnation"] for at in others}
    with stopped(victim):
        for at in others:
            wait_seen(at, victim, "dead", False)
            assert at.log().count(f"node {victim.name} is dead") == 1
        # What needs it is refused, not waited for; what does not goes on, and asks nobody else in its place.
        for at in others:
            with pytest.raises(redis.exceptions.ResponseError, match="2 of 3 needed replicas can answer"):
                at.connection(w=3, timeout_ms=60000).set("all", "1")
        hedges = sum_of(others, "hedges")
        for number in range(200):
            at = others[number % 2]
            assert at.client().set(f"key:{number}", number)
            assert at.client().get(f"key:{number}") == str(number).encode()
        assert sum_of(others, "hedges") - hedges <= 20, "reads waited for the stopped process"
        for at in others:
            assert {entry[2] for entry in at.ring()["client_map"]} == {other.name for other in others}
    for at in others:
        wait_seen(at, victim, "alive", True)
        assert seen(at, victim)["incarnation"] > first[at.name], "it has refuted"

    def all_of_three():
        return all(at.connection(w=3).set(f"back:{number}", "1") for at in whole for number in range(20))
    until(all_of_three, "writes to all three replicas, by all shards of all nodes")


def test_a_killed_node_is_dead_and_alive_again_with_a_new_incarnation(cluster):
    others, victim = [cluster[0], cluster[1]], cluster[2]
    before = until(lambda: seen(cluster[0], victim)["incarnation"], "an incarnation")
    victim.kill()
    for at in others:
        wait_seen(at, victim, "dead", False)
    cluster.start_node(victim)
    cluster.wait_whole()
    for at in others:
        wait_seen(at, victim, "alive", True)
        assert seen(at, victim)["incarnation"] > before


def test_datagrams_of_strangers_are_ignored(cluster):
    victim = cluster[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for size in range(0, 60000, 97):
            stranger.sendto(bytes([size % 251]) * size, ("127.0.0.1", victim.peer_port))
    assert victim.client().set("still", "here")

    def gossips():
        status = victim.status()
        return status["gossip"]["received"] > 0 and status["gossip"]["sent"] > 0
    until(gossips, "gossip to go on")
    assert all(node["liveness"] == "alive" for node in victim.status()["nodes"])


def test_a_udp_port_that_is_taken_is_refused_in_words(make_cluster):
    alone = make_cluster(count=1, start=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", alone[0].peer_port))
        alone.start_node(alone[0])
        code = alone[0].process.wait(timeout=PATIENCE_S)
    alone[0].process = None
    assert code != 0
    assert re.search(r"cannot listen on 127\.0\.0\.1:\d+ \(--peer, UDP\): address already in use; stop the other",
                     alone[0].log()), alone[0].log()
