"""Timelines of requests: Rondo-Trace over HTTP and RONDO.TRACE, whichever shard and node coordinates."""

import re

import pytest
import redis

import harness

EVENT = re.compile(r"(\d+)us (.+)")


def check(events, node):
    """The words of a timeline: it begins at its node, ends with its outcome, and time does not go back."""
    parsed = [EVENT.fullmatch(event) for event in events]
    assert all(parsed), events
    times = [int(match[1]) for match in parsed]
    assert times == sorted(times) and times[0] == 0
    words = [match[2] for match in parsed]
    assert re.fullmatch(rf"begun at {node.name} shard \d+", words[0])
    return words


def http_words(answer, node):
    assert answer.headers["Rondo-Trace"].count("begun") == 1
    return check(answer.headers["Rondo-Trace"].split(", "), node)


def resp_words(connection, node, *command):
    reply, events = connection.reply("RONDO.TRACE", *command)
    return reply, check([event.decode() for event in events], node)


def test_http_put_get_and_delete_tell_every_replicas_part(cluster):
    """Many keys: some are coordinated by the shard that has the connection, some by a sibling."""
    node, shards = cluster[0], set()
    for i in range(20):
        put = node.http("PUT", f"/put?key=traced{i}&w=all", data=b"value", headers={"Rondo-Trace": "1"})
        words = http_words(put, node)
        shards.add(words[0])
        assert words[-1] == "done"
        for other in cluster:
            assert f"sent {other.name}" in words
            assert any(re.fullmatch(rf"durable at {other.name} OK {put.headers['Rondo-Context']}", word)
                       for word in words)
        get = node.http("GET", f"/get?key=traced{i}", headers={"Rondo-Trace": "1"})
        assert get.content == b"value"
        words = http_words(get, node)
        assert "asked n1" in words and words[-1] == "done"
        assert sum(word.startswith("answered") for word in words) >= 2
        delete = node.http("DELETE", f"/delete?key=traced{i}", headers={"Rondo-Trace": "1"})
        assert delete.json()["deleted"] and http_words(delete, node)[-1] == "done"
    assert len(shards) == node.status()["shards"]


def test_resp_commands_answer_as_ever_and_tell(cluster):
    node = cluster[1]
    with harness.RawResp(node.resp_port) as connection:
        for i in range(10):
            key = f"resp{i}"
            for command, expected in ((("SET", key, "v"), b"OK"), (("GET", key), b"v"), (("EXPIRE", key, "100"), 1),
                                      (("TTL", key), 100), (("EXISTS", key), 1), (("STRLEN", key), 1),
                                      (("MGET", key), [b"v"]), (("DEL", key), 1), (("GET", key), None)):
                reply, words = resp_words(connection, node, *command)
                assert reply == expected and words[-1] == "done", command
        assert connection.reply("PING") == b"PONG"


def test_untraced_requests_have_no_timeline(cluster):
    node = cluster[0]
    assert "Rondo-Trace" not in node.http("PUT", "/put?key=k", data=b"v").headers
    assert "Rondo-Trace" not in node.http("GET", "/get?key=k", headers={"Rondo-Trace": "0"}).headers
    assert "Rondo-Trace" not in node.http("GET", "/status", headers={"Rondo-Trace": "1"}).headers


def test_bad_use_is_refused_with_a_reason(cluster):
    answer = cluster[0].http("GET", "/get?key=k", headers={"Rondo-Trace": "yes"})
    assert answer.status_code == 400 and "Rondo-Trace must be 1" in answer.json()["message"]
    with harness.RawResp(cluster[0].resp_port) as connection:
        for words in (("PING", "x"), ("MGET", "a", "b"), ("RONDO.TRACE", "GET", "k"), ("INFO", "all")):
            reply = connection.reply("RONDO.TRACE", *words)
            assert isinstance(reply, redis.exceptions.ResponseError) and "on one key" in str(reply), words


@pytest.mark.parametrize("shards", [1, 2])
def test_request_without_a_quorum_tells_why(make_cluster, shards):
    cluster = make_cluster(shards=shards)
    cluster[1].kill()
    cluster[2].kill()
    node = cluster[0]
    harness.until(lambda: sum(other["reachable"] for other in node.status()["nodes"] if not other["self"]) == 0,
                  "n1 to miss the others")
    answer = node.http("PUT", "/put?key=k", data=b"v", headers={"Rondo-Trace": "1"})
    assert answer.status_code == 503 and http_words(answer, node)[-1] == "not applied: UNAVAILABLE"
    with harness.RawResp(node.resp_port) as connection:
        reply, words = resp_words(connection, node, "GET", "k")
        assert str(reply).startswith("CLUSTERDOWN") and words[-1] == "not applied: UNAVAILABLE"
