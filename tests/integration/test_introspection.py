"""What a node says of its connections and of itself: CLIENT, RESET, INFO, CONFIG, SLOWLOG, LATENCY. Where Redis gives a
comparable answer, the same commands are sent to a redis-server of this machine."""

import re
import shutil
import subprocess
import time

import pytest
import redis

import harness
from harness import RawResp, encode, parse_reply, until

NEEDS_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
NEEDS_REDIS_CLI = pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory):
    """A real Redis, without persistence."""
    port = harness.free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: redis.Redis(port=port).ping(), "redis-server")
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """One node of three shards: what it says of itself must be the whole node's."""
    cluster = harness.Cluster(tmp_path_factory.mktemp("shards"), count=1, shards=3)
    cluster.start()
    yield cluster[0]
    cluster.close()


@pytest.fixture
def client(shards):
    with shards.client(single_connection_client=True) as client:
        yield client
        client.config_set("slowlog-log-slower-than", 10000)
        client.config_set("slowlog-max-len", 128)
        client.config_set("latency-monitor-threshold", 0)
        client.slowlog_reset()
        client.execute_command("LATENCY", "RESET")


def connections(node, count, **arguments):
    """Connections over all shards: the kernel spreads them, so as many as it takes are made."""
    clients = [node.client(single_connection_client=True, **arguments) for _ in range(count)]
    for client in clients:
        client.ping()
    return clients


def spread(node):
    """Connections of every shard: the last six bits of a connection's number are its shard."""
    clients = []

    def everywhere():
        clients.extend(connections(node, 4))
        return {client.client_id() & 63 for client in clients} == {0, 1, 2}
    until(everywhere, "connections at every shard")
    return clients


# Commands whose answers must be Redis's to the byte, in this order.
SAME_AS_REDIS = [
    "CLIENT LIST TYPE bogus", "CLIENT LIST TYPE master", "CLIENT LIST TYPE pubsub", "CLIENT LIST ID abc",
    "CLIENT LIST ID 0", "CLIENT LIST BOGUS", "CLIENT LIST TYPE", "CLIENT LIST ID",
    "CLIENT KILL", "CLIENT KILL 1.2.3.4:5", "CLIENT KILL ID 0", "CLIENT KILL ID abc", "CLIENT KILL ID 987654321",
    "CLIENT KILL TYPE bogus", "CLIENT KILL TYPE replica", "CLIENT KILL USER bob", "CLIENT KILL SKIPME maybe",
    "CLIENT KILL ADDR", "CLIENT KILL ADDR 1.2.3.4:5", "CLIENT KILL LADDR 1.2.3.4:5 SKIPME no", "CLIENT KILL a b",
    "CLIENT KILL ADDR 1.2.3.4:5 BOGUS", "CLIENT REPLY", "CLIENT REPLY BOGUS", "CLIENT REPLY ON",
    "CLIENT NO-EVICT", "CLIENT NO-EVICT BOGUS", "CLIENT NO-EVICT on", "CLIENT NO-EVICT off",
    "CLIENT TRACKING", "CLIENT TRACKING BOGUS", "CLIENT TRACKING off", "CLIENT TRACKINGINFO", "CLIENT GETREDIR",
    "CLIENT UNBLOCK", "CLIENT UNBLOCK abc", "CLIENT UNBLOCK 1", "CLIENT UNBLOCK 1 BOGUS", "CLIENT UNBLOCK 1 ERROR",
    "CLIENT UNPAUSE", "CLIENT PAUSE", "CLIENT SETNAME me", "RESET", "CLIENT GETNAME", "RESET now",
    "SLOWLOG", "SLOWLOG BOGUS", "SLOWLOG RESET", "SLOWLOG LEN", "SLOWLOG GET", "SLOWLOG GET -1", "SLOWLOG GET -2",
    "SLOWLOG GET abc", "SLOWLOG GET 1 2", "SLOWLOG LEN 1", "LATENCY", "LATENCY BOGUS", "LATENCY LATEST",
    "LATENCY HISTORY command", "LATENCY HISTORY no-such-event", "LATENCY HISTORY", "LATENCY RESET",
    "LATENCY RESET no-such-event", "LATENCY HISTOGRAM no-such-command", "CONFIG SET", "CONFIG SET a",
    "CONFIG SET a b c",
    "CONFIG SET no-such-setting 1", "CONFIG SET slowlog-max-len abc", "CONFIG SET slowlog-log-slower-than abc",
    "CONFIG SET slowlog-max-len 1 slowlog-max-len 2", "CONFIG SET slowlog-log-slower-than 10000 slowlog-max-len 128",
    "CONFIG GET slowlog-max-len", "CONFIG GET slowlog-log-slower-than", "CONFIG GET latency-monitor-threshold",
    "CONFIG GET databases appendonly no-such", "CONFIG RESETSTAT", "CONFIG RESETSTAT now", "INFO no-such-section",
    "INFO cluster-no modules", "INFO modules", "TIME now",
]


@NEEDS_REDIS
@pytest.mark.parametrize("proto", ["2", "3"])
def test_answers_and_errors_are_those_of_redis(shards, redis_port, proto):
    different = []
    redis.Redis(port=redis_port).config_set("appendonly", "yes")
    redis.Redis(port=redis_port).execute_command("CONFIG", "SET", "slowlog-log-slower-than", "10000")
    with RawResp(shards.resp_port) as ours, RawResp(redis_port) as theirs:
        for line in SAME_AS_REDIS:
            for raw in (ours, theirs):
                raw.command("HELLO", proto)
            words = line.split(" ")
            mine, reference = ours.command(*words), theirs.command(*words)
            # Redis has sixteen databases, Rondo one.
            reference = reference.replace(b"databases\r\n$2\r\n16", b"databases\r\n$1\r\n1")
            if sorted(mine) != sorted(reference):
                different.append((line, mine, reference))
    assert not different, "\n".join(f"{line}: {mine!r}, Redis: {reference!r}" for line, mine, reference in different)


def test_every_connection_of_the_node_is_listed(shards, client):
    clients = spread(shards)
    for number, other in enumerate(clients):
        other.client_setname(f"listed-{number}")
    listed = {int(entry["id"]): entry for entry in client.client_list()}
    for number, other in enumerate(clients):
        entry = listed[other.client_id()]
        local = other.connection._sock.getsockname()  # pylint: disable=protected-access
        assert entry["addr"] == f"127.0.0.1:{local[1]}" and entry["laddr"] == shards.resp_address
        assert entry["name"] == f"listed-{number}" and entry["flags"] == "N" and entry["user"] == "default"
        assert entry["cmd"] == "client|setname" and entry["resp"] == "2" and int(entry["fd"]) > 0
    assert listed[client.client_id()]["cmd"] == "client|list"
    assert len(client.client_list(_type="normal")) >= len(clients) and client.client_list(_type="replica") == []
    ids = [str(other.client_id()) for other in clients[:2]]
    with RawResp(shards.resp_port) as raw:
        found = re.findall(rb"^id=(\d+) ", raw.reply("CLIENT", "LIST", "ID", *ids, 999999), re.MULTILINE)
    assert sorted(found) == sorted(number.encode() for number in ids)
    # Redis's line has these fields in this order; a version of Redis newer than its number adds two.
    with RawResp(shards.resp_port) as raw:
        line = raw.reply("CLIENT", "INFO").decode()
    assert re.match("id=.* addr=.* laddr=.* fd=.* name=.* age=.* idle=.* flags=.* db=0 .* qbuf=.* omem=.* tot-mem=.* "
                    "events=r cmd=client.info user=default .* resp=2", line), line
    for other in clients:
        other.close()
        other.connection_pool.disconnect()
    until(lambda: not any(entry["name"].startswith("listed-") for entry in client.client_list()), "them to have left")


@NEEDS_REDIS
def test_a_line_of_the_list_has_the_fields_of_redis(client, redis_port):
    with redis.Redis(port=redis_port) as reference:
        theirs = list(reference.client_list()[0])
    mine = list(client.client_list()[0])
    assert [field for field in mine if field not in ("lib-name", "lib-ver")] == theirs


def test_killed_connections_are_closed_and_others_are_not(shards, client):
    def pair():
        victim, witness = connections(shards, 2)
        entry = next(entry for entry in client.client_list() if int(entry["id"]) == victim.client_id())
        return victim, witness, entry

    def dead(victim):
        return victim.connection._sock.recv(1) == b""  # pylint: disable=protected-access

    forms = [lambda entry: ("CLIENT", "KILL", entry["addr"]), lambda entry: ("CLIENT", "KILL", "ID", entry["id"]),
             lambda entry: ("CLIENT", "KILL", "ADDR", entry["addr"]),
             lambda entry: ("CLIENT", "KILL", "ID", entry["id"], "LADDR", entry["laddr"], "TYPE", "normal",
                            "USER", "default")]
    for form in forms:
        for _ in range(4):
            victim, witness, entry = pair()
            assert client.execute_command(*form(entry)) in (1, b"OK", "OK", True)
            assert dead(victim)
            assert witness.ping()
            assert int(entry["id"]) not in [int(other["id"]) for other in client.client_list()]
            witness.close()
    victim, witness, entry = pair()
    assert client.client_kill_filter(_id=int(entry["id"]), addr="1.2.3.4:5") == 0
    assert client.execute_command("CLIENT", "KILL", "ID", entry["id"], "MAXAGE", "100000") == 0
    assert victim.ping()
    # All others: whoever asks is spared.
    assert client.client_kill_filter(_type="normal") >= 2
    assert dead(victim) and dead(witness)
    assert client.ping()


def test_a_client_may_end_itself_and_hears_so(shards):
    for words in (("SKIPME", "no"), ("TYPE", "normal", "SKIPME", "no")):
        with RawResp(shards.resp_port) as raw:
            own = raw.reply("CLIENT", "ID")
            raw.send(encode("CLIENT", "KILL", "ID", own, *words) + encode("PING"))
            assert raw.raw_reply() == b":1\r\n"
            assert raw.closed() and raw.bytes == b""
    with RawResp(shards.resp_port) as raw:
        address = "127.0.0.1:%d" % raw.socket.getsockname()[1]
        assert raw.command("CLIENT", "KILL", address) == b"+OK\r\n"
        assert raw.closed() and raw.bytes == b""


def test_a_client_that_takes_no_answers_shows_what_waits_and_can_be_killed(shards, client):
    client.set("large", b"x" * (1 << 20))
    with RawResp(shards.resp_port) as raw:
        own = raw.reply("CLIENT", "ID")
        raw.send(encode("GET", "large") * 32)

        def waiting():
            entry = client.client_list(client_id=[str(own)])
            return entry and int(entry[0]["omem"]) > (1 << 20)
        until(waiting, "answers that wait")
        assert client.client_kill_filter(_id=own) == 1
        until(lambda: client.client_list(client_id=[str(own)]) == [], "the connection to be gone")


@NEEDS_REDIS
def test_silence_is_kept_as_redis_keeps_it(shards, redis_port):
    stream = b"".join(encode(*line.split(" ")) for line in [
        "PING 1", "CLIENT REPLY SKIP", "PING 2", "PING 3", "CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING 4", "PING 5",
        "CLIENT REPLY OFF", "PING 6", "SET quiet v", "NO-SUCH", "CLIENT REPLY SKIP", "PING 7", "CLIENT REPLY BOGUS",
        "CLIENT REPLY ON", "GET quiet", "CLIENT REPLY OFF", "PING 8", "RESET", "PING 9", "CLIENT REPLY OFF", "QUIT"])
    answers = []
    for port in (shards.resp_port, redis_port):
        with RawResp(port) as raw:
            raw.send(stream)
            assert raw.closed()
            answers.append(raw.bytes)
    assert answers[0] == answers[1]
    assert b"$1\r\nv\r\n" in answers[0]


def test_reset_makes_the_connection_as_new(shards):
    with RawResp(shards.resp_port) as raw:
        raw.command("HELLO", "3", "SETNAME", "somebody")
        raw.command("RONDO.CONSISTENCY", "R", "one", "W", "all", "TIMEOUT", "77", "SLOPPY", "yes")
        raw.command("CLIENT", "NO-EVICT", "ON")
        raw.command("CLIENT", "NO-TOUCH", "ON")
        assert b"flags=eT " in raw.command("CLIENT", "INFO")
        assert raw.command("RESET") == b"+RESET\r\n"
        assert raw.command("CLIENT", "GETNAME") == b"$-1\r\n"
        assert b"flags=N " in raw.command("CLIENT", "INFO")
        assert b"quorum" in raw.command("RONDO.CONSISTENCY") and b":77\r\n" not in raw.command("RONDO.CONSISTENCY")


def test_what_is_not_offered_says_why(client):
    for words, reason in (("DEBUG SLEEP 0", "DEBUG"), ("DEBUG OBJECT k", "DEBUG"), ("CLIENT PAUSE 100", "one node"),
                          ("CLIENT TRACKING ON", "client-side caches")):
        with pytest.raises(redis.exceptions.ResponseError, match=reason):
            client.execute_command(*words.split(" "))


def test_info_is_of_the_whole_node(shards, client):
    client.config_resetstat()
    clients = spread(shards)
    for number, other in enumerate(clients):
        other.set(f"info:{number}", "v")
        assert other.get(f"info:{number}") == b"v" and other.get("info:none") is None
        with pytest.raises(redis.exceptions.ResponseError):
            other.execute_command("NOSUCH")
        with pytest.raises(redis.exceptions.ResponseError):
            other.execute_command("GET")
    count = len(clients)
    info = client.info("all")
    assert info["connected_clients"] >= count + 1
    assert info["total_connections_received"] >= count
    assert info["keyspace_hits"] == count and info["keyspace_misses"] == count
    assert info["cmdstat_set"]["calls"] == count and info["cmdstat_get"]["calls"] == 2 * count
    assert info["cmdstat_get"]["rejected_calls"] == count and info["cmdstat_get"]["failed_calls"] == 0
    assert info["cmdstat_set"]["usec"] > 0
    assert info["errorstat_ERR"] in (f"count={2 * count}", {"count": 2 * count})
    assert info["total_error_replies"] == 2 * count
    assert info["total_net_input_bytes"] > 0 and info["total_net_output_bytes"] > 0
    assert info["role"] == "master" and info["connected_slaves"] == 0 and info["loading"] == 0
    assert info["maxmemory"] == 1 << 30 and info["used_memory"] > 0 and info["maxclients"] == 10000
    assert info["cluster_enabled"] == 1 and info["db0"]["keys"] >= count
    assert info["redis_version"] == client.execute_command("HELLO", "2")[3].decode()
    until(lambda: client.info("cpu")["used_cpu_user"] > 0 and client.info("memory")["used_memory_rss"] > 0,
          "facts of the process")
    client.config_resetstat()
    again = client.info("everything")
    assert again["keyspace_hits"] == 0 and "cmdstat_set" not in again and "errorstat_ERR" not in again
    assert again["total_commands_processed"] < info["total_commands_processed"]


@NEEDS_REDIS
def test_sections_of_info_are_those_of_redis(shards, redis_port):
    def titles(connection, *words):
        return re.findall(rb"^# (\w+)\r$", connection.command("INFO", *words), re.MULTILINE)
    with RawResp(redis_port) as reference, RawResp(shards.resp_port) as mine:
        for words in ((), ("default",), ("everything",), ("server", "clients"), ("Memory",), ("stats", "cpu", "stats"),
                      ("commandstats",), ("no-such",), ("keyspace", "no-such")):
            # Rondo has no section for latencies: LATENCY HISTOGRAM shows them.
            theirs = [title for title in titles(reference, *words) if title != b"Latencystats"]
            assert titles(mine, *words) == theirs, words


def test_expiring_keys_are_estimated(client):
    client.mset({f"stays:{i}": "v" for i in range(20)})
    for i in range(30):
        client.set(f"expires:{i}", "v", ex=1000)
    assert client.info("keyspace")["db0"]["expires"] >= 30


def test_config_shows_what_is_in_force(shards, client):
    everything = client.config_get("*")
    assert everything["port"] == str(shards.resp_port) and everything["bind"] == "127.0.0.1"
    assert everything["dir"] == str(shards.data) == everything["data"] and everything["shards"] == "3"
    assert everything["maxmemory"] == str(1 << 30) and everything["maxmemory-policy"] == "noeviction"
    assert everything["save"] == "" and everything["appendonly"] == "yes" and everything["appendfsync"] == "always"
    assert everything["maxclients"] == "10000" and everything["timeout"] == "0" and everything["databases"] == "1"
    assert everything["proto-max-bulk-len"] == everything["value-bytes-max"] == str(16 << 20)
    raw = client.execute_command("CONFIG", "GET", "max*", "time?ut", "p[o]rt", "MAXMEMORY")
    names = set(raw) if isinstance(raw, dict) else set(raw[0::2])
    assert {str(name, "ascii") if isinstance(name, bytes) else name for name in names} == {
        "maxmemory", "maxmemory-policy", "maxclients", "timeout", "port"}
    printed = subprocess.run([harness.RONDOD, "--print-config"], capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"^;? ?([a-z-]+)[ :]", printed, re.MULTILINE):
        assert name in everything, name


def test_config_set_is_for_the_watching_bounds_of_all_shards(shards, client):
    for name in ("maxmemory", "port", "shards", "appendfsync"):
        with pytest.raises(redis.exceptions.ResponseError, match="can't set immutable config"):
            client.config_set(name, "1")
    with pytest.raises(redis.exceptions.ResponseError, match="between -1 and"):
        client.execute_command("CONFIG", "SET", "latency-monitor-threshold", "7", "slowlog-log-slower-than", "-2")
    assert client.config_get("latency-monitor-threshold") == {"latency-monitor-threshold": "0"}
    client.execute_command("CONFIG", "SET", "slowlog-log-slower-than", "-1", "slowlog-max-len", "9",
                           "latency-monitor-threshold", "1234")
    for other in spread(shards):
        assert other.config_get("slowlog-*") == {"slowlog-log-slower-than": "-1", "slowlog-max-len": "9"}
        assert other.config_get("latency-*")["latency-monitor-threshold"] == "1234"
        other.close()


def test_slow_requests_of_all_shards_are_kept(shards, client):
    clients = spread(shards)
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    client.execute_command("AUTH", "default", "password")
    for number, other in enumerate(clients):
        other.client_setname(f"slow-{number}")
        other.set(f"slow:{number}", "x" * 200)
        other.get(f"slow:{number}")
    client.config_set("slowlog-log-slower-than", -1)
    entries = client.execute_command("SLOWLOG", "GET", "-1", NEVER_DECODE=True)
    raw_length = client.slowlog_len()
    assert raw_length == len(entries) == 3 * len(clients) + 1  # the RESET; not the CONFIG SET that ended it
    assert b"AUTH" not in [entry[3][0] for entry in entries]
    typed = client.slowlog_get(128)
    assert [entry["id"] for entry in typed] == [entry[0] for entry in entries]
    assert len({entry[0] for entry in entries}) == len(entries)
    for number, other in enumerate(clients):
        address = b"127.0.0.1:%d" % other.connection._sock.getsockname()[1]  # pylint: disable=protected-access
        mine = [entry for entry in entries if entry[4] == address]
        assert [entry[3][0] for entry in mine] == [b"GET", b"SET", b"CLIENT"]
        get, put, _ = mine
        assert get[3] == [b"GET", b"slow:%d" % number] and get[5] == b"slow-%d" % number
        assert put[3][2] == b"x" * 128 + b"... (72 more bytes)" and put[2] > 0
        assert get[1] >= put[1] > 1_700_000_000
        other.close()
    assert len(client.slowlog_get(3)) == 3 and len(client.slowlog_get()) == min(10, raw_length)
    client.config_set("slowlog-max-len", 4)
    assert client.slowlog_len() == 4 and [entry["id"] for entry in client.slowlog_get(10)] == [
        entry["id"] for entry in typed[:4]]
    assert client.slowlog_reset() and client.slowlog_len() == 0 and client.slowlog_get() == []


@NEEDS_REDIS
def test_arguments_of_slow_requests_are_trimmed_as_redis_does(shards, redis_port):
    commands = [["MSET", *(f"trim:{i}" for i in range(64))], ["DEL", *(f"trim:{i}" for i in range(31))],
                ["DEL", *(f"trim:{i}" for i in range(32))], ["SET", "trim", "y" * 128],
                ["SET", "trim", "y" * 129], ["GET", ""]]
    shown = []
    for port in (shards.resp_port, redis_port):
        with redis.Redis(port=port, single_connection_client=True) as connection:
            connection.config_set("slowlog-log-slower-than", 0)
            connection.slowlog_reset()
            for words in commands:
                connection.execute_command(*words)
            connection.config_set("slowlog-log-slower-than", 10000)
            entries = connection.execute_command("SLOWLOG", "GET", "-1", NEVER_DECODE=True)
            shown.append([entry[3] for entry in entries if entry[3][0] in (b"MSET", b"DEL", b"SET", b"GET")])
    assert len(shown[0]) == len(commands) and shown[0] == shown[1]


def test_slow_http_requests_are_kept_too(shards, client):
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    assert shards.http("PUT", "/put?key=slow-http", data=b"v").status_code == 200
    client.config_set("slowlog-log-slower-than", -1)
    commands = [entry[3] for entry in client.execute_command("SLOWLOG", "GET", "-1", NEVER_DECODE=True)]
    assert [b"PUT", b"/put?key=slow-http"] in commands


def test_latencies_are_watched_when_asked_for(shards, client):
    assert b"off" in client.execute_command("LATENCY", "DOCTOR")
    client.config_set("latency-monitor-threshold", 1)
    others = spread(shards)

    def noticed():
        for other in others:
            pipeline = other.pipeline(transaction=False)
            for i in range(200):
                pipeline.set(f"late:{i}", "v" * 10000)
            pipeline.execute()
        return [event for event in client.execute_command("LATENCY", "LATEST") if event[0] in (b"command", "command")]
    _, at_s, last_ms, most_ms = until(noticed, "a write of a millisecond")[0]
    history = client.execute_command("LATENCY", "HISTORY", "command")
    assert at_s > 1_700_000_000 and 1 <= last_ms <= most_ms
    assert history and len(history) <= 160 and [sample[0] for sample in history] == sorted({s[0] for s in history})
    assert max(sample[1] for sample in history) >= last_ms and most_ms >= 1
    assert b"command:" in client.execute_command("LATENCY", "DOCTOR")
    client.config_set("latency-monitor-threshold", 0)
    assert client.execute_command("LATENCY", "RESET", "no-such-event") == 0
    assert client.execute_command("LATENCY", "RESET", "command") == 1
    assert client.execute_command("LATENCY", "HISTORY", "command") == []
    client.execute_command("LATENCY", "RESET")
    assert client.execute_command("LATENCY", "LATEST") == []


def test_the_clock_is_told(client):
    before = time.time()
    seconds, microseconds = client.time()
    # Cut to the millisecond, and read once for each turn of the shard's loop.
    assert int(before) - 1 <= seconds <= time.time() and microseconds in range(0, 1000000, 1000)


def test_times_of_commands_are_shown(client):
    client.config_resetstat()
    for i in range(10):
        client.set("timed", i)
    def histogram(*words):
        flat = client.execute_command("LATENCY", "HISTOGRAM", *words, NEVER_DECODE=True)
        pairs = lambda items: items if isinstance(items, dict) else dict(zip(items[0::2], items[1::2]))
        return {name: {key: value for key, value in pairs(entry).items()} for name, entry in pairs(flat).items()}, pairs
    times, pairs = histogram("set", "no-such")
    assert list(times) == [b"set"] and times[b"set"][b"calls"] == 10
    buckets = pairs(times[b"set"][b"histogram_usec"])
    assert max(buckets.values()) == 10 and list(buckets.values()) == sorted(buckets.values())
    assert all(bound & (bound - 1) == 0 for bound in buckets)
    everything, _ = histogram()
    assert {b"set", b"config|resetstat"} <= set(everything)
    assert list(histogram("config")[0]) == [b"config|resetstat"]


def test_one_node_of_three_speaks_for_itself(cluster):
    first, second = cluster[0].client(single_connection_client=True), cluster[1].client(single_connection_client=True)
    first.client_setname("at-the-first")
    assert "at-the-first" in [entry["name"] for entry in first.client_list()]
    assert "at-the-first" not in [entry["name"] for entry in second.client_list()]
    first.config_set("slowlog-log-slower-than", 0)
    first.slowlog_reset()
    first.set("where", "here")
    first.config_set("slowlog-log-slower-than", 10000)
    entry = next(entry for entry in first.slowlog_get(10) if entry["command"].startswith(b"SET"))
    assert entry["command"] == b"SET where here" and entry["duration"] > 0
    assert b"where" not in b" ".join(entry["command"] for entry in second.slowlog_get(10))
    info = first.info()
    assert info["rondo_nodes"] == 3 and info["rondo_replicas"] == 3 and info["cluster_connections"] > 0
    assert first.config_get("initial-cluster")["initial-cluster"] == cluster.initial_cluster()
    first.slowlog_reset()
    with cluster.redis_cluster() as routed:
        assert routed.get("where") == b"here"


@NEEDS_REDIS_CLI
def test_redis_cli_shows_each(shards):
    def cli(*words):
        return subprocess.run(["redis-cli", "-p", str(shards.resp_port), *words], capture_output=True, text=True,
                              check=True, timeout=harness.PATIENCE_S).stdout
    assert "cmd=client|list" in cli("CLIENT", "LIST")
    assert cli("-3", "CLIENT", "LIST").startswith("id=")
    assert "# Server" in cli("INFO") and "redis_version" in cli("-3", "INFO", "server", "cpu")
    assert "maxmemory" in cli("CONFIG", "GET", "maxmemory*")
    assert cli("SLOWLOG", "LEN").strip().isdigit()
    assert "SLOWLOG" in cli("SLOWLOG", "HELP") and "LATENCY" in cli("LATENCY", "HELP")
    assert "latency monitor" in cli("LATENCY", "DOCTOR")
    assert cli("RESET").strip() == "RESET"


def test_the_bounds_are_settings(make_cluster):
    cluster = make_cluster(count=1, flags=["--slowlog-log-slower-than", "0", "--slowlog-max-len", "3",
                                           "--latency-monitor-threshold", "50"])
    with cluster[0].client(single_connection_client=True) as client:
        assert client.config_get("slowlog-*") == {"slowlog-log-slower-than": "0", "slowlog-max-len": "3"}
        assert client.config_get("latency-monitor*") == {"latency-monitor-threshold": "50"}
        for i in range(9):
            client.set("k", i)
        assert client.slowlog_len() == 3


def test_many_arguments_to_all_shards_are_bounded(shards, client):
    with pytest.raises(redis.exceptions.ResponseError, match="OVERLOADED"):
        client.execute_command("CLIENT", "LIST", "ID", *range(1, 3000))
    with RawResp(shards.resp_port) as raw:
        assert parse_reply(raw.command("PING"))[0] == b"PONG"
