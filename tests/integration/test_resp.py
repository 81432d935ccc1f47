"""RESP as clients see it: every command, RESP2 and RESP3, errors, limits, pipelining. Where Redis gives an answer,
it is the reference: the same bytes are sent to a redis-server of this machine and both answers are compared."""

import os
import re
import shutil

import pytest
import redis

from harness import RawResp, encode, until

VERSION = re.compile(rb"\d+-\d+-[0-9a-f]{16}")
VALUE_BYTES_MAX = 16 << 20
KEY_BYTES_MAX = 16 << 10

NEEDS_REDIS = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


@pytest.fixture
def client(node):
    with node.client() as client:
        yield client


@pytest.fixture
def raw(node):
    with RawResp(node.resp_port) as raw:
        yield raw


# Commands whose answers must be Redis's to the byte, in this order, on an empty store.
SAME_AS_REDIS = [
    "PING", "PING hello", "PING a b", "ECHO x", "ECHO", "ECHO a b",
    "GET same:k", "GET", "GET a b", "SET same:k v", "GET same:k", "get same:k", "SET same:k", "SET", "STRLEN same:k",
    "STRLEN same:none", "STRLEN", "SET same:k v EX 0", "SET same:k v EX -1", "SET same:k v EX abc",
    "SET same:k v PX 0", "SET same:k v PXAT -5", "SET same:k v EX 10 PX 10", "SET same:k v BOGUS", "SET same:k v EX",
    "SET same:k v EX 9223372036854775807", "GET same:k",
    "SET same:e v EX 1000", "TTL same:e", "SET same:e v PX 1000000", "TTL same:e", "SET same:e v", "TTL same:e",
    "SET same:old v EXAT 1", "GET same:old", "SET same:old v PXAT 1000", "EXISTS same:old",
    "MSET same:a 1 same:b 2", "MGET same:a same:b same:none", "MGET", "MSET", "MSET same:a", "MSET same:a 1 same:b",
    "EXISTS same:a same:a same:none", "EXISTS", "DEL same:a same:none", "DEL same:a", "DEL", "UNLINK same:b", "UNLINK",
    "TTL same:none", "PTTL same:none", "TTL same:k", "PTTL same:k", "TTL", "PTTL a b",
    "EXPIRE same:none 10", "EXPIRE same:k 100", "TTL same:k", "PERSIST same:k", "PERSIST same:k", "PERSIST same:none",
    "PERSIST", "TTL same:k", "EXPIRE same:k abc", "EXPIRE same:k", "EXPIRE", "EXPIRE same:k -1", "EXISTS same:k",
    "SELECT 0", "SELECT abc", "SELECT", "AUTH secret", "AUTH user secret", "AUTH", "HELLO 4", "HELLO abc", "HELLO 1",
    "HELLO 3 BOGUS", "CLIENT", "CLIENT BOGUS", "CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME",
    "CLIENT SETNAME", "CLIENT ID extra", "CONFIG GET no-such-setting", "CONFIG", "CONFIG BOGUS", "CONFIG GET",
    "COMMAND BOGUS", "COMMAND INFO no-such-command", "CLUSTER", "DBSIZE extra", "READONLY extra", "ASKING extra",
    "NOSUCH", "NOSUCH a b", "nosuch 'a' b c d e f",
]


@NEEDS_REDIS
def test_answers_and_errors_are_those_of_redis(node, redis_port):
    different = []
    with RawResp(node.resp_port) as ours, RawResp(redis_port) as theirs:
        for line in SAME_AS_REDIS:
            words = line.split(" ")
            mine, reference = ours.command(*words), theirs.command(*words)
            if mine != reference:
                different.append((line, mine, reference))
    assert not different, "\n".join(f"{line}: {mine!r}, Redis: {reference!r}" for line, mine, reference in different)


# Byte streams that end in a closed connection; everything sent before that must be Redis's to the byte.
SAME_STREAMS = [
    b"PING\r\nQUIT\r\n",
    b"\r\n\r\nPING\r\nQUIT\r\n",
    b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n",
    b"SET inline 'a \\' b'\r\nGET inline\r\nSET inline \"\\x00\\n\\\"\"\r\nGET inline\r\nQUIT\r\n",
    b"PING\nPING\nQUIT\n",
    b"SET x \"unbalanced\r\n",
    b"SET x 'a'b\r\n",
    b"*abc\r\n",
    b"*1\r\n+PING\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*99999999999999999999\r\n",
    b"*2\r\n$4\r\nPING\r\n:5\r\n",
    b"A" * (70 << 10),
    encode("SET", "stream", "v") + encode("GET", "stream") + b"*1\r\n!\r\n" + encode("GET", "stream"),
]


@NEEDS_REDIS
@pytest.mark.parametrize("stream", SAME_STREAMS, ids=lambda stream: repr(stream[:24]))
def test_bad_streams_are_answered_and_closed_as_redis_does(node, redis_port, stream):
    answers = []
    for port in (node.resp_port, redis_port):
        with RawResp(port) as raw:
            raw.send(stream)
            assert raw.closed()
            answers.append(raw.bytes)
    assert answers[0] == answers[1]


def test_a_header_without_end_is_refused_and_closed(raw):
    raw.send(b"*" + b"1" * (70 << 10))
    assert raw.closed()
    assert raw.bytes.startswith(b"-ERR Protocol error: ")


def test_bytes_fed_one_by_one_give_the_same_answers(raw):
    for byte in encode("SET", "slow", "bytes") + encode("GET", "slow"):
        raw.send(bytes([byte]))
    assert raw.raw_reply() == b"+OK\r\n"
    assert raw.raw_reply() == b"$5\r\nbytes\r\n"


def test_pipelining_keeps_order(raw):
    count = 3000
    out = b"".join(encode("SET", f"pipe:{i}", i) + encode("GET", f"pipe:{i}") + encode("PING", i) for i in range(count))
    raw.send(out)
    for i in range(count):
        text = str(i).encode()
        bulk = b"$%d\r\n%s\r\n" % (len(text), text)
        assert raw.raw_reply() == b"+OK\r\n"
        assert raw.raw_reply() == bulk
        assert raw.raw_reply() == bulk


def test_binary_keys_and_values_are_untouched(client):
    every_byte = bytes(range(256))
    for key in (every_byte, b"\r\n", b"\x00", b"", b"{", b"{}x", b"a{b}c", "schlüssel".encode()):
        assert client.set(key, every_byte + key)
        assert client.get(key) == every_byte + key
    assert client.set("empty", b"")
    assert client.get("empty") == b""
    assert client.strlen("empty") == 0
    assert client.exists("empty") == 1


def test_a_value_of_16_mib_is_stored_and_one_byte_more_is_a_clear_error(node, client):
    value = os.urandom(1 << 20) * 16
    assert client.set("big", value)
    assert client.get("big") == value
    with pytest.raises(redis.exceptions.ResponseError, match="16777216"):
        client.set("big", value + b"x")
    with node.client() as other:
        assert other.get("big") == value
    client.delete("big")


def test_a_key_of_16_kib_is_stored_and_one_byte_more_is_a_clear_error(client):
    key = b"k" * KEY_BYTES_MAX
    assert client.set(key, "v")
    assert client.get(key) == b"v"
    for words in (("SET", key + b"x", "v"), ("GET", key + b"x"), ("DEL", "a", key + b"x")):
        with pytest.raises(redis.exceptions.ResponseError, match="16384"):
            client.execute_command(*words)
    assert client.ping()


def test_multi_key_commands_span_slots(client):
    mapping = {f"multi:{i}": str(i).encode() for i in range(500)}
    assert client.mset(mapping)
    assert client.mget(list(mapping)) == list(mapping.values())
    assert client.exists(*mapping) == 500
    assert client.delete(*mapping) == 500
    assert client.mget(list(mapping)) == [None] * 500
    client.mset({"twice": "1"})
    assert client.execute_command("MSET", "twice", "1", "twice", "2")
    assert client.get("twice") == b"2"


def test_expiry(client):
    client.set("gone", "v", px=1)
    until(lambda: client.get("gone") is None, "a value of 1 ms to expire")
    assert client.exists("gone") == 0 and client.ttl("gone") == -2
    client.set("later", "v", ex=1000)
    assert 990 <= client.ttl("later") <= 1000
    assert 990_000 <= client.pttl("later") <= 1_000_000
    assert client.persist("later") and client.ttl("later") == -1
    assert client.expire("later", 500) and 490 <= client.ttl("later") <= 500
    client.set("later", "again")
    assert client.ttl("later") == -1
    assert client.expire("later", 0) and client.get("later") is None
    client.execute_command("SET", "at", "v", "EXAT", 4102444800)
    assert client.ttl("at") > 10**8
    client.execute_command("SET", "at", "v", "PXAT", 4102444800000)
    assert client.pttl("at") > 10**11


READ_MODIFY_WRITE = [
    "INCR k", "DECR k", "INCRBY k 2", "DECRBY k 2", "INCRBYFLOAT k 1.5", "APPEND k x", "SETNX k v", "GETSET k v",
    "GETDEL k", "SETRANGE k 0 x", "SETBIT k 0 1", "MSETNX k v", "SET k v NX", "SET k v XX",
    "SET k v GET", "SET k v NX EX 10", "RENAME k l", "RENAMENX k l",
]


@pytest.mark.parametrize("line", READ_MODIFY_WRITE)
def test_what_needs_an_atomic_read_modify_write_answers_one_clear_error(client, line):
    client.set("k", "1")
    with pytest.raises(redis.exceptions.ResponseError, match="atomic"):
        client.execute_command(*line.split())
    assert client.get("k") == b"1"


def test_transactions_and_other_types_are_refused_in_words(client):
    for line in ("MULTI", "EXEC", "WATCH k", "LPUSH l x", "HSET h f v", "SADD s m", "ZADD z 1 m", "EVAL 'x' 0"):
        with pytest.raises(redis.exceptions.ResponseError) as error:
            client.execute_command(*line.split())
        assert len(str(error.value)) > 20, line


def test_hello_chooses_the_protocol(raw):
    two = raw.command("HELLO", "2")
    assert two.startswith(b"*14\r\n") and b"$5\r\nproto\r\n:2\r\n" in two
    three = raw.command("HELLO", "3")
    assert three.startswith(b"%7\r\n")
    for part in (b"$5\r\nproto\r\n:3\r\n", b"$4\r\nmode\r\n$7\r\ncluster\r\n", b"$4\r\nrole\r\n$6\r\nmaster\r\n",
                 b"$7\r\nmodules\r\n*0\r\n", b"$7\r\nversion\r\n"):
        assert part in three, part
    assert raw.command("GET", "no:such") == b"_\r\n"
    assert raw.command("MGET", "no:such", "no:such") == b"*2\r\n_\r\n_\r\n"
    assert raw.command("CONFIG", "GET", "no-such").startswith(b"%0")
    assert raw.command("HELLO").startswith(b"%7\r\n")
    assert raw.command("HELLO", "2", "SETNAME", "me").startswith(b"*14\r\n")
    assert raw.command("CLIENT", "GETNAME") == b"$2\r\nme\r\n"
    assert raw.command("GET", "no:such") == b"$-1\r\n"


def test_client_commands(node, client):
    with node.client() as other:
        assert client.client_id() != other.client_id()
    assert client.execute_command("CLIENT", "SETINFO", "LIB-NAME", "test") == b"OK"
    with pytest.raises(redis.exceptions.ResponseError, match="(?i)unknown|unrecognized"):
        client.execute_command("CLIENT", "SETINFO", "NO-SUCH", "test")
    with node.client(single_connection_client=True) as single:
        single.client_setname("tester")
        assert single.client_getname() == "tester"
        assert single.client_info()["name"] == "tester"


def test_command_introspection(client):
    commands = client.command()
    assert commands["get"]["arity"] == 2 and commands["get"]["step_count"] == 1
    assert commands["mset"]["step_count"] == 2 and commands["mset"]["last_key_pos"] == -1
    assert client.command_count() == len(commands)
    with RawResp(client.connection_pool.connection_kwargs["port"]) as raw:
        # Clients accept entries of 6 or 10 fields, and nothing else.
        entry = raw.command("COMMAND", "INFO", "get")
        assert entry.startswith((b"*1\r\n*6\r\n", b"*1\r\n*10\r\n"))
        assert raw.command("COMMAND", "DOCS", "get").startswith(b"*2\r\n$3\r\nget\r\n")


def test_info_serves_what_clients_look_for(client):
    info = client.info()
    assert info["cluster_enabled"] == 1 and info["loading"] == 0
    assert {"redis_version", "run_id", "role", "uptime_in_seconds"} <= set(info)
    assert info["role"] == "master"
    assert "redis_version" in client.info("server")


def test_config_get(client):
    assert "maxmemory" in client.config_get("maxmemory*")
    assert client.config_get("no-such-*") == {}
    assert client.config_get("save") is not None


def test_select_knows_one_database(client):
    assert client.execute_command("SELECT", "0")
    with pytest.raises(redis.exceptions.ResponseError, match="SELECT is not allowed in cluster mode|out of range"):
        client.execute_command("SELECT", "1")


def test_dbsize_estimates(client):
    before = client.dbsize()
    client.mset({f"size:{i}": "v" for i in range(100)})
    assert client.dbsize() >= before + 90


def test_cluster_of_one(client, node):
    assert client.execute_command("CLUSTER", "KEYSLOT", "foo") == 12182
    assert client.execute_command("CLUSTER", "KEYSLOT", "x{foo}y") == 12182
    assert client.execute_command("READONLY") and client.execute_command("READWRITE")
    assert client.execute_command("ASKING")
    with RawResp(node.resp_port) as raw:
        slots = raw.command("CLUSTER", "SLOTS")
        assert slots.startswith(b"*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:%d\r\n$40\r\n" % node.resp_port)
        myid = raw.command("CLUSTER", "MYID")
        assert re.fullmatch(rb"\$40\r\n[0-9a-f]{40}\r\n", myid)
        assert myid[5:] in slots
        assert b"cluster_state:ok\r\n" in raw.command("CLUSTER", "INFO")


def test_rondo_put_and_get_tell_the_version(client):
    version = client.execute_command("RONDO.PUT", "versioned", "one")
    assert VERSION.search(version)
    again = client.execute_command("RONDO.PUT", "versioned", "two", "W", "1")
    assert VERSION.search(again) and again != version
    answer = client.execute_command("RONDO.GET", "versioned")
    assert answer[0] == b"two" and again in answer
    assert client.execute_command("RONDO.GET", "versioned", "R", "one")[0] == b"two"
    missing = client.execute_command("RONDO.GET", "no:such:key")
    assert missing is None or missing[0] is None


def test_consistency_of_a_connection(node):
    with node.connection(r=1, w="all", timeout_ms=5000) as client:
        assert client.set("consistent", "v") and client.get("consistent") == b"v"
        assert client.execute_command("RONDO.CONSISTENCY")
        assert client.execute_command("RONDO.CONSISTENCY", "R", "quorum", "W", "default")
        for words in (("R", "0"), ("R", "8"), ("W", "lots"), ("R",), ("X", "1"), ("TIMEOUT", "-1")):
            with pytest.raises(redis.exceptions.ResponseError):
                client.execute_command("RONDO.CONSISTENCY", *words)
        assert client.get("consistent") == b"v"


def test_more_replicas_than_there_are_is_a_clear_error(node):
    with node.connection() as client:
        for words in (("RONDO.PUT", "k", "v", "W", "2"), ("RONDO.GET", "k", "R", "3")):
            with pytest.raises(redis.exceptions.ResponseError, match="1"):
                client.execute_command(*words)


def test_a_client_that_leaves_in_the_middle_harms_nobody(node, client):
    for part in (b"*3\r\n$3\r\nSET\r\n$4\r\ngone\r\n$1000\r\nabc", b"GET", encode("GET", "k") * 100):
        with RawResp(node.resp_port) as raw:
            raw.send(part)
    assert client.ping()
    assert client.get("gone") is None
