"""Sloppy requests between real processes: a fallback's durable hint stands in for a replica that cannot be reached."""

import pytest
import redis

from harness import until


def slot_of(node, key):
    return node.client().execute_command("CLUSTER", "KEYSLOT", key)


def replicates(node, slot):
    return node.http("GET", f"/local/rows?slot={slot}").status_code == 200


def hints(cluster):
    return sum(node.status()["hints"]["count"] for node in cluster if node.running())


@pytest.mark.parametrize("shards", [1, 3], ids=["K=1", "K=3"])
def test_sloppy_writes_go_on_where_strict_ones_are_refused(make_cluster, shards):
    cluster = make_cluster(count=5, shards=shards)
    key = "cart"
    slot = slot_of(cluster[0], key)
    replicas = [node for node in cluster if replicates(node, slot)]
    others = [node for node in cluster if node not in replicas]
    assert len(replicas) == 3
    answer = others[0].http("GET", f"/local/rows?slot={slot}")
    assert answer.status_code == 404 and answer.json()["error"] == "NOT_FOUND"

    victims, at = replicas[1:], others[0]
    for node in victims:
        node.kill()
    names = {node.name for node in victims}

    def known_dead():
        return all(not other["reachable"] for node in cluster if node.running()
                   for other in node.status()["nodes"] if other["name"] in names)
    until(known_dead, f"{sorted(names)} to be known as unreachable")

    strict = at.connection(w=2, r=2)
    with pytest.raises(redis.exceptions.ResponseError, match="[01] of 2 needed replicas can answer"):
        strict.set(key, "strict")
    sloppy = at.connection(w=2, r=2)
    assert sloppy.execute_command("RONDO.CONSISTENCY", "SLOPPY", "yes") in (b"OK", "OK")
    assert sloppy.set(key, "sloppy")
    assert hints(cluster) >= 1
    assert sloppy.get(key) == b"sloppy"
    with pytest.raises(redis.exceptions.ResponseError, match="[01] of 2 needed replicas can answer"):
        strict.get(key)
    # The same over HTTP, and through another node.
    assert at.http("PUT", "/put?key=cart&w=2", data=b"no").status_code == 503
    answer = cluster[0] if cluster[0].running() else others[1]
    assert answer.http("PUT", "/put?key=cart&w=2&sloppy=yes", data=b"http").status_code == 200
    assert answer.http("GET", "/get?key=cart&r=2&sloppy=yes").content == b"http"
    assert answer.http("GET", "/get?key=cart&r=2").status_code == 503

    for node in victims:
        cluster.start_node(node)
    cluster.wait_whole()
    until(lambda: hints(cluster) == 0, "hints to be handed over")
    for node in cluster:
        assert node.connection(r=3).get(key) == b"http"
    for node in victims:
        rows = node.http("GET", f"/local/rows?slot={slot}").text.splitlines()
        assert '"key":"cart","value":"http"' in rows[0]
