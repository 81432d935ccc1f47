"""Strings and expiry: reply for reply what a redis-server of this machine answers, on one node and on three."""

import random
import shlex
import shutil
import subprocess

import pytest
import redis

from harness import RawResp, encode, free_port, key_slot, until

FAR_S = 4102444800  # 2100-01-01
FAR_MS = FAR_S * 1000 + 250

# In this order, on keys that nothing else uses. Times are absolute where an answer shows them.
SETTING = [
    "SETEX s:a 1000 v", "GET s:a", "SETEX s:a 0 v", "SETEX s:a -1 v", "SETEX s:a abc v", "SETEX s:a 10",
    "SETEX s:a 9223372036854775807 v", "PSETEX s:a 1000000 w", "GET s:a", "PSETEX s:a 0 v", "PSETEX s:a abc v",
    "PSETEX",
    "PSETEX s:a 9223372036854775807 v",
    "SET s:b hello", "GETRANGE s:b 0 -1", "GETRANGE s:b 1 3", "GETRANGE s:b -3 -1", "GETRANGE s:b -3 2",
    "GETRANGE s:b 3 1", "GETRANGE s:b -1 -3", "GETRANGE s:b -100 100", "GETRANGE s:b -100 -50",
    "GETRANGE s:b -50 -100",
    "GETRANGE s:b 5 10", "GETRANGE s:b 9223372036854775807 -9223372036854775808",
    "GETRANGE s:b -9223372036854775808 9223372036854775807", "GETRANGE s:b 0 9223372036854775808", "GETRANGE s:b a 1",
    "GETRANGE s:b 1 1.5", "GETRANGE s:none 0 -1", "GETRANGE s:none a 1", "GETRANGE s:b 1", "SUBSTR s:b 1 2",
    "SUBSTR s:b",
    "SET s:empty ''", "GETRANGE s:empty 0 -1", "GETRANGE s:empty -1 0", "STRLEN s:empty",
    "TYPE s:b", "TYPE s:none", "TYPE", "TYPE a b", "TOUCH s:b s:b s:none", "TOUCH", "TOUCH s:none",
    f"SET s:c v EXAT {FAR_S}", "EXPIRETIME s:c", "PEXPIRETIME s:c", f"SET s:c v PXAT {FAR_MS}", "PEXPIRETIME s:c",
    "EXPIRETIME s:c", f"SET s:c v PXAT {FAR_MS + 500}", "EXPIRETIME s:c", "EXPIRETIME s:b", "PEXPIRETIME s:b",
    "EXPIRETIME s:none", "PEXPIRETIME s:none", "EXPIRETIME", "PEXPIRETIME a b",
    f"SET s:c v EX 10 EX 20 EXAT {FAR_S}", f"SET s:c v EXAT 4000000000 EXAT {FAR_S}", "EXPIRETIME s:c",
    "SET s:c v KEEPTTL EX 10", "SET s:c v EX 10 KEEPTTL", "SET s:c v PERSIST", "SET s:c v KEEPTTL extra",
    "SET s:c kept KEEPTTL", "EXPIRETIME s:c", "GET s:c", "SET s:c kept KEEPTTL keepttl", "EXPIRETIME s:c",
    "SET s:c plain", "EXPIRETIME s:c", "SET s:c still KEEPTTL", "EXPIRETIME s:c", "SET s:new v KEEPTTL", "TTL s:new",
    "GET s:new", "SET s:c v EXAT 1", "SET s:c again KEEPTTL", "EXPIRETIME s:c", "GET s:c",
]

EXPIRING = [
    "SET e:a v", f"EXPIREAT e:a {FAR_S}", "EXPIRETIME e:a", f"PEXPIREAT e:a {FAR_MS}", "PEXPIRETIME e:a",
    "PEXPIRE e:a 1000000000000", "PEXPIRE e:a abc", "PEXPIRE e:a 9223372036854775807",
    "EXPIREAT e:a 9223372036854775807",
    "PEXPIREAT e:a 9223372036854775807", "PEXPIRETIME e:a", "PEXPIREAT e:a 9223372036854775808", "EXPIRE e:a",
    "EXPIRE e:a -9223372036854775808", "EXPIREAT e:a", "PEXPIREAT", "PEXPIRE e:none 10", "EXPIREAT e:none 1",
    "PEXPIREAT e:none -1", "PERSIST e:a", "PEXPIRETIME e:a",
    "EXPIRE e:a 10 NX XX", "EXPIRE e:a 10 NX GT", "EXPIRE e:a 10 LT NX", "EXPIRE e:a 10 GT LT",
    "EXPIRE e:a abc GT LT",
    "EXPIRE e:a 10 FOO", "EXPIRE e:a abc FOO", "EXPIREAT e:a 10 NX FOO", "PEXPIREAT e:a 10 NX NX XX",
    # Without an expiry.
    f"EXPIREAT e:a {FAR_S} XX", f"EXPIREAT e:a {FAR_S} GT", f"EXPIREAT e:a {FAR_S} XX GT",
    f"EXPIREAT e:a {FAR_S} XX LT",
    "EXPIRETIME e:a", f"EXPIREAT e:a {FAR_S} LT", "EXPIRETIME e:a", "PERSIST e:a", f"EXPIREAT e:a {FAR_S} NX",
    # With one.
    f"EXPIREAT e:a {FAR_S + 1} NX", f"EXPIREAT e:a {FAR_S} GT", f"EXPIREAT e:a {FAR_S} LT",
    f"EXPIREAT e:a {FAR_S - 1} GT",
    f"EXPIREAT e:a {FAR_S + 1} LT", "EXPIRETIME e:a", f"EXPIREAT e:a {FAR_S + 1} GT", f"EXPIREAT e:a {FAR_S + 2} XX",
    f"PEXPIREAT e:a {FAR_MS} LT XX", "PEXPIRETIME e:a", f"EXPIREAT e:none {FAR_S} NX", "EXPIRE e:none 10 XX",
    # Times that have passed.
    "EXPIREAT e:a 1 GT", "EXISTS e:a", "EXPIREAT e:a 1 NX", "EXISTS e:a", "EXPIREAT e:a 1 LT", "EXISTS e:a",
    "GET e:a",
    "TTL e:a", "TYPE e:a", "PEXPIRETIME e:a", "EXPIREAT e:a 1 LT", "SET e:a again", "GET e:a", "TTL e:a",
    "EXPIRE e:a -1 XX", "EXPIRE e:a 0", "EXPIRE e:a 0", "GET e:a", "SET e:a v", "PEXPIREAT e:a -5", "EXISTS e:a",
    "SET e:a v", "PEXPIRE e:a -9223372036854775808", "EXISTS e:a", "SET e:a v", "EXPIREAT e:a 0 LT", "EXISTS e:a",
]

GETEX = [
    "GETEX g:none", "GETEX g:none EX 10", "GETEX g:none PERSIST", "GETEX g:none EX abc", "GETEX g:none EX 0", "GETEX",
    "SET g:a value", "GETEX g:a", "TTL g:a", f"GETEX g:a EXAT {FAR_S}", "EXPIRETIME g:a", f"GETEX g:a PXAT {FAR_MS}",
    "PEXPIRETIME g:a", "GETEX g:a", "PEXPIRETIME g:a", "GETEX g:a PERSIST", "TTL g:a", "GETEX g:a PERSIST persist",
    "GETEX g:a EX abc", "GETEX g:a EX 0", "GETEX g:a PX -1", "GETEX g:a EX 9223372036854775807", "GETEX g:a EX",
    "GETEX g:a FOO", "GETEX g:a KEEPTTL", "GETEX g:a NX", "GETEX g:a PERSIST EX 10", "GETEX g:a EX 10 PERSIST",
    "GETEX g:a EX 10 PX 10", f"GETEX g:a EXAT 10 EXAT {FAR_S}", "EXPIRETIME g:a", "GETEX g:a EXAT 1", "GET g:a",
    "EXISTS g:a", "GETEX g:a", "SET g:a v", f"GETEX g:a PXAT {FAR_MS}", "SET g:a w KEEPTTL", "PEXPIRETIME g:a",
    "GETEX g:a",
]

ABOUT_KEYS = [
    *(f"OBJECT {what} o:none" for what in ("ENCODING", "FREQ", "IDLETIME", "REFCOUNT")), "MEMORY USAGE o:none",
    "SET o:a hello", "OBJECT FREQ o:a", "OBJECT REFCOUNT o:a", "object encoding o:a",
    *(word for value in ("0", "-1", "123", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
                         "-9223372036854775809", "-0", "007", "+5", "' 5'", "1.5", "''", "-",
    "x" * 44, "x" * 45, "1" * 20)
      for word in (f"SET o:b {value}", "OBJECT ENCODING o:b")),
    "OBJECT", "OBJECT FOO o:a", "OBJECT ENCODING", "OBJECT ENCODING a b", "OBJECT FREQ", "OBJECT HELP extra",
    "MEMORY", "MEMORY FOO", "MEMORY USAGE", "MEMORY USAGE o:a SAMPLES", "MEMORY USAGE o:a SAMPLES -1",
    "MEMORY USAGE o:a SAMPLES abc", "MEMORY USAGE o:none SAMPLES abc", "MEMORY USAGE o:a FOO 1",
    "MEMORY USAGE o:none SAMPLES 5",
    "COMMAND GETKEYS OBJECT ENCODING o:a", "COMMAND GETKEYS MEMORY USAGE o:a SAMPLES 5",
    "COMMAND GETKEYS OBJECT HELP",
    "COMMAND GETKEYS GETEX o:a EX 10", "COMMAND GETKEYS TOUCH a b",
    "EXPIRE o:a 010", "EXPIRE o:a -0", "EXPIRE o:a +5", "GETRANGE o:a 00 1",
]

GROUPS = {"about_keys": ABOUT_KEYS, "setting": SETTING, "expiring": EXPIRING, "getex": GETEX}


def differences(connections, redis_port, lines):
    """Each line goes to the next of the connections, and to Redis."""
    different = []
    with RawResp(redis_port) as reference:
        for i, line in enumerate(lines):
            words = shlex.split(line)
            ours, theirs = connections[i % len(connections)].command(*words), reference.command(*words)
            if ours != theirs:
                different.append(f"{line}: {ours!r}, Redis: {theirs!r}")
    return "\n".join(different)


@pytest.mark.parametrize("group", GROUPS)
def test_one_node_answers_as_redis(node, redis_port, group):
    with RawResp(node.resp_port) as raw, RawResp(redis_port) as reference:
        reference.command("FLUSHALL")
        assert not differences([raw], redis_port, GROUPS[group])


@pytest.fixture
def everywhere(cluster):
    """A connection to each node."""
    connections = [RawResp(node.resp_port) for node in cluster]
    yield connections
    for connection in connections:
        connection.socket.close()


@pytest.mark.parametrize("group", GROUPS)
def test_three_nodes_in_turn_answer_as_redis(everywhere, redis_port, group):
    with RawResp(redis_port) as reference:
        reference.command("FLUSHALL")
    assert not differences(everywhere, redis_port, GROUPS[group])


# ---- pipelines -------------------------------------------------------------------------------------------------


def random_command(chooser, keys):
    """A command whose answer does not depend on the time at which it is carried out."""
    key, other = chooser.choice(keys), chooser.choice(keys)
    value = str(chooser.randrange(1000))
    when = FAR_S + chooser.randrange(5)
    return chooser.choice([
        ["SET", key, value], ["SET", key, value, "KEEPTTL"], ["SET", key, value, "EXAT", when],
        ["GET", key], ["GETRANGE", key, 0, 1], ["STRLEN", key], ["EXPIRETIME", key], ["MGET", key, other],
        ["EXPIREAT", key, when], ["EXPIREAT", key, when, chooser.choice(["NX", "XX", "GT", "LT"])],
        ["EXPIREAT", key, 1, chooser.choice(["NX", "GT", "LT"])], ["PERSIST", key], ["GETEX", key, "EXAT", when],
        ["GETEX", key, "PERSIST"], ["GETEX", key, "EXAT", 1], ["GETEX", key], ["DEL", key], ["DEL", key, other],
        ["MSET", key, value, other, value + "x"], ["EXISTS", key, other], ["PING", value],
    ])


@pytest.mark.parametrize("seed", range(6))
def test_a_pipeline_is_answered_as_redis_answers_it(cluster, redis_port, seed):
    """All of a pipeline is sent before the first answer is read: no command may overtake one on the same key."""
    chooser = random.Random(seed)
    keys = [f"pipe{seed}:{i}" for i in range(3)]
    commands = [random_command(chooser, keys) for _ in range(600)]
    answers = []
    for port in (cluster[seed % 3].resp_port, redis_port):
        with RawResp(port) as raw:
            raw.send(b"".join(encode(*words) for words in commands))
            answers.append([raw.raw_reply() for _ in commands])
    different = [f"{i}: {words}: {ours!r}, Redis: {theirs!r}"
                 for i, (words, ours, theirs) in enumerate(zip(commands, *answers)) if ours != theirs]
    assert not different, "\n".join(different[:20])


# ---- facts about keys ------------------------------------------------------------------------------------------


def test_memory_usage_is_that_of_a_row(node):
    with RawResp(node.resp_port) as raw:
        raw.command("SET", "usage", "v" * 1000)
        small = raw.reply("MEMORY", "USAGE", "usage")
        assert 1000 + len("usage") < small < 1100
        raw.command("SET", "usage", "v" * 5000)
        # Rows of like sizes take the same, in steps of at most a quarter.
        assert small + 3900 < raw.reply("MEMORY", "USAGE", "usage", "SAMPLES", 0) < 1.25 * (small + 4000)
        raw.command("EXPIRE", "usage", 1000)
        assert raw.reply("MEMORY", "USAGE", "usage") > small + 4000


def test_idle_times_are_refused_in_words(node):
    with RawResp(node.resp_port) as raw:
        raw.command("SET", "idle", "v")
        assert "do not note when a key was read" in str(raw.reply("OBJECT", "IDLETIME", "idle"))


SLOTS = [
    *(f"CLUSTER {what} {rest}" for what, rests in {
        "GETKEYSINSLOT": ("abc 1", "1 abc", "-1 1", "16384 1", "1 -1", "1 0", "1", "1 2 3", "1.5 1", "5000 10"),
        "COUNTKEYSINSLOT": ("abc", "-1", "16384", "99999999999999999999", "1 2", "5000")}.items() for rest in rests),
    "RANDOMKEY extra",
]


def test_keys_of_slots_are_asked_for_as_in_redis_cluster(node, tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    # Its own choice for the cluster's bus, 10,000 above, may be taken by an outgoing connection.
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--cluster-enabled", "yes",
         "--cluster-port", str(free_port())],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: redis.Redis(port=port).ping(), "redis-server")
        with RawResp(node.resp_port) as raw:
            assert not differences([raw], port, SLOTS)
    finally:
        process.kill()
        process.wait()


def test_each_replica_gives_out_its_keys(cluster):
    keys = [f"{{of{i % 20}}}:{i}".encode() for i in range(100)]
    cluster[0].client().mset({key: b"v" for key in keys})
    cluster[0].client().delete(keys[0])
    slots = {}
    for key in keys[1:]:
        slots.setdefault(key_slot(key), set()).add(key)
    for node in cluster:
        with RawResp(node.resp_port) as raw:
            for slot, expected in slots.items():
                until(lambda: set(raw.reply("CLUSTER", "GETKEYSINSLOT", slot, 1000)) == expected, "all keys")
                some = raw.reply("CLUSTER", "GETKEYSINSLOT", slot, 2)
                assert len(some) == min(2, len(expected)) and set(some) <= expected
            assert raw.reply("EXISTS", raw.reply("RANDOMKEY")) == 1


def test_random_keys_are_of_all_shards(make_cluster):
    cluster = make_cluster(count=1, shards=3)
    client = cluster[0].client()
    assert client.randomkey() is None
    client.mset({f"random:{i}": "v" for i in range(5)})
    seen = set()
    until(lambda: seen.add(client.randomkey()) or len(seen) == 5, "each of five keys to be drawn")
    assert seen == {f"random:{i}".encode() for i in range(5)}


# ---- client libraries ------------------------------------------------------------------------------------------


def typed_calls(client):
    """redis-py's own methods, whose answers it takes apart."""
    assert client.setex("typed", 1000, "value") and 990 <= client.ttl("typed") <= 1000
    assert client.psetex("typed", 1_000_000, "value") and client.pttl("typed") > 990_000
    assert client.getrange("typed", 1, 3) == b"alu" and client.substr("typed", -2, -1) == b"ue"
    assert client.type("typed") == b"string" and client.type("typed:none") == b"none"
    assert client.touch("typed", "typed:none") == 1
    assert client.expireat("typed", FAR_S) and client.expiretime("typed") == FAR_S
    assert client.pexpireat("typed", FAR_MS) and client.pexpiretime("typed") == FAR_MS
    assert not client.expire("typed", 10, nx=True) and not client.expire("typed", 10, gt=True)
    assert client.expire("typed", 1000, lt=True) and not client.pexpire("typed", 2_000_000, lt=True)
    assert client.pexpire("typed", 2_000_000, xx=True) and client.expireat("typed", FAR_S, gt=True)
    assert client.set("typed", "kept", keepttl=True) and client.expiretime("typed") == FAR_S
    assert client.getex("typed", persist=True) == b"kept" and client.ttl("typed") == -1
    assert client.getex("typed", ex=1000) == b"kept" and client.ttl("typed") > 0
    assert client.getex("typed", pxat=FAR_MS) == b"kept" and client.pexpiretime("typed") == FAR_MS
    assert client.getex("typed") == b"kept" and client.getex("typed:none", ex=10) is None
    assert client.set("typed", "12", exat=FAR_S) and client.expiretime("typed") == FAR_S
    assert client.set("typed", "12", pxat=FAR_MS) and client.persist("typed")
    assert client.object("encoding", "typed") == b"int" and client.object("refcount", "typed") == 1
    assert client.memory_usage("typed") > 7 and client.memory_usage("typed:none", samples=5) is None
    assert client.randomkey() is not None
    assert client.delete("typed") == 1


def test_typed_calls_of_redis_py(node):
    with node.client() as client:
        typed_calls(client)
        client.set("typed:slot", "v")
        assert client.execute_command("CLUSTER GETKEYSINSLOT", key_slot("typed:slot"), 10) == ["typed:slot"]


def test_typed_calls_of_redis_py_on_a_cluster(cluster):
    client = cluster.redis_cluster()
    typed_calls(client)
    client.set("typed:slot", "v")
    slot = key_slot("typed:slot")
    until(lambda: client.cluster_get_keys_in_slot(slot, 10) == ["typed:slot"], "the replica that is asked to hold it")
    with client.pipeline() as pipeline:
        pipeline.set("typed:pipe", "v").expireat("typed:pipe", FAR_S).expiretime("typed:pipe")
        pipeline.getex("typed:pipe", persist=True).ttl("typed:pipe")
        assert pipeline.execute() == [True, True, FAR_S, b"v", -1]


COMMANDS = ["randomkey", "setex", "psetex", "getrange", "substr", "type", "touch", "pexpire", "expireat",
            "pexpireat", "expiretime", "pexpiretime", "getex", "object", "memory", "get", "set", "mget", "mset",
            "del", "unlink", "exists", "expire", "ttl", "pttl", "persist", "strlen"]


def test_the_command_table_says_of_keys_what_redis_says(node, redis_port):
    def entry(reply):
        name, arity, flags, first, last, step = reply[:6]
        names = (b"object|encoding", b"object|freq", b"object|idletime", b"object|refcount", b"memory|usage")
        subcommands = sorted((entry(sub) for sub in reply[9] if sub[0] in names), key=lambda sub: sub[0])
        return name, arity, sorted(flags), first, last, step, subcommands

    with RawResp(node.resp_port) as ours, RawResp(redis_port) as theirs:
        mine, reference = (raw.reply("COMMAND", "INFO", *COMMANDS) for raw in (ours, theirs))
    for ours, theirs in zip(mine, reference):
        assert entry(ours) == entry(theirs)


# ---- inline commands -------------------------------------------------------------------------------------------

INLINE = [
    rb'SET i "a\x41\tb\n\r\a\b\\\"c"', b"STRLEN i", b"GET i", b"SET i 'it\\'s \\n'", b"GET i", b'SET i ""', b"GET i",
    b"SET i ''",
    b"STRLEN i", b"  GET   i  ", b"\tGET\ti\t", b"GET i\r", b"get i", b'SET i a"b c"', b"GET i", b"SET i a'b c'",
    b"GET i", rb'SET i "\xg1\q"', b"GET i", rb'SET i "\x4"', b"GET i", b"SET i \x80\xff", b"GET i", b"SET i a EX",
    b"NOSUCH 'a b'",
    b"GETRANGE i 0 0", b"SETEX i 100 'a b'", b"GET i", b"GETEX i PERSIST", b"MGET i i", b"TYPE i extra",
    b"OBJECT ENCODING i",
    b'"GET" i', b"SET 'i j' k", b'GET "i j"', b"PING\x0b", b"ECHO 'a'\x0c",
]
INLINE_ENDS = [b"SET i a'b", b'SET i "open', b"SET i 'open", b"SET i 'a'b", b'SET i "a"b', rb'SET i "a\"',
               b"SET i 'a\\'"]


def test_inline_commands_are_taken_apart_as_in_redis(node, redis_port):
    different = []
    with RawResp(node.resp_port) as ours, RawResp(redis_port) as theirs:
        for line in INLINE:
            answers = []
            for raw in (ours, theirs):
                raw.send(line + b"\r\n")
                answers.append(raw.raw_reply())
            if answers[0] != answers[1]:
                different.append(f"{line!r}: {answers[0]!r}, Redis: {answers[1]!r}")
    for line in INLINE_ENDS:
        answers = []
        for port in (node.resp_port, redis_port):
            with RawResp(port) as raw:
                raw.send(b"PING\r\n" + line + b"\r\nQUIT\r\n")
                assert raw.closed()
                answers.append(raw.bytes)
        if answers[0] != answers[1]:
            different.append(f"{line!r}: {answers[0]!r}, Redis: {answers[1]!r}")
    assert not different, "\n".join(different)
