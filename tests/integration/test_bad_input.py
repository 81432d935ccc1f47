"""Bad flags, files, directories and peers: each ends in a message that says what is wrong and what to do, and
changes nothing."""

import contextlib
import os
import re
import socket
import struct
import subprocess

import pytest
import redis

import harness
from harness import until


def refused(*flags, cwd=None):
    """Runs rondod, which must end by itself with an error; returns what it said."""
    done = subprocess.run([str(harness.RONDOD), *map(str, flags)], stdin=subprocess.DEVNULL, capture_output=True,
                          cwd=cwd, timeout=harness.PATIENCE_S, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode not in (0, None) and done.returncode > 0, (done.returncode, said)
    assert not harness.SANITIZER_REPORT.search(said), said
    assert said.strip(), "it said nothing"
    return said


@pytest.fixture
def alone(tmp_path):
    """A node that is not started, and the flags that would start it."""
    node = harness.Node("n1", tmp_path / "alone")
    return node, ["--name", "n1", "--data", node.data, *node.listen_flags()]


def test_help_and_version():
    for flag in ("--help", "--version"):
        done = subprocess.run([str(harness.RONDOD), flag], capture_output=True, check=True,
                              timeout=harness.PATIENCE_S)
        assert b"rondod" in done.stdout
    assert "--initial-cluster" in subprocess.run([str(harness.RONDOD), "--help"], capture_output=True, text=True,
                                                 check=True, timeout=harness.PATIENCE_S).stdout


@pytest.mark.parametrize("flags, named", [
    (["--no-such-flag"], "--no-such-flag"),
    (["--durabilty", "always"], "--durability"),
    (["stray"], "stray"),
    (["--name"], "--name"),
    (["--name", "a b"], "name"),
    (["--resp", "nonsense"], "--resp"),
    (["--resp", "127.0.0.1:99999"], "--resp"),
    (["--http", "127.0.0.1:x"], "--http"),
    (["--peer", ":"], "--peer"),
    (["--durability", "sometimes"], "--durability"),
    (["--durability", "interval:x"], "--durability"),
    (["--memory", "lots"], "--memory"),
    (["--memory", "1"], "--memory"),
    (["--shards", "0"], "--shards"),
    (["--shards", "65"], "--shards"),
    (["--clock-skew-max", "-1"], "--clock-skew-max"),
    (["--initial-cluster", "n1"], "--initial-cluster"),
    (["--initial-cluster", "n1=127.0.0.1:1,n1=127.0.0.1:2"], "n1"),
    (["--initial-cluster", "n7=127.0.0.1:1,n8=127.0.0.1:2"], "n1"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_bad_flags_name_the_flag(alone, flags, named):
    node, good = alone
    said = refused(*good, *flags)
    assert named in said, said
    assert not node.data.exists(), "a refused start must leave nothing behind"


def test_other_than_loopback_needs_insecure(alone):
    node, good = alone
    for flag in ("--resp", "--http", "--peer"):
        said = refused(*good, flag, f"0.0.0.0:{harness.free_port()}")
        assert "--insecure" in said and flag in said, said


def test_a_port_in_use_is_named(alone):
    node, good = alone
    for flag, port in (("--resp", node.resp_port), ("--http", node.http_port), ("--peer", node.peer_port)):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            said = refused(*good)
            assert str(port) in said and flag in said and "in use" in said, said


# ---- configuration files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, named", [
    ("no equals sign\n", "1"),
    ("durability = sometimes\n", "durability"),
    ("name = n1\nno-such-setting = 1\n", "no-such-setting"),
    ("memory = lots\n", "memory"),
])
def test_errors_of_a_configuration_file_name_file_and_setting(alone, tmp_path, text, named):
    file = tmp_path / "rondo.conf"
    file.write_text(text)
    said = refused(*alone[1], "--config", file)
    assert "rondo.conf" in said and named in said, said


def test_a_missing_configuration_file_is_named(alone):
    assert "/no/such/file" in refused(*alone[1], "--config", "/no/such/file")


def test_flags_win_over_the_file_and_print_config_says_so(alone, tmp_path):
    node, good = alone
    file = tmp_path / "rondo.conf"
    file.write_text("# a comment\ndurability = os\nclock-skew-max = 400\nname = from-file\n")
    out = subprocess.run([str(harness.RONDOD), *map(str, good), "--config", str(file), "--print-config"], check=True,
                         capture_output=True, text=True, timeout=harness.PATIENCE_S).stdout
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert re.search(r"\bos\b.*rondo\.conf", lines["durability"])
    assert re.search(r"\b400\b.*rondo\.conf", lines["clock-skew-max"])
    assert re.search(r"\bn1\b.*flag|\bn1\b.*--name|\bn1\b.*command line", lines["name"])
    assert re.search("default", lines["memory"])
    assert not node.data.exists()


# ---- data directories ------------------------------------------------------------------------------------------


def test_a_directory_in_use_is_refused(make_cluster, alone):
    cluster = make_cluster(count=1)
    said = refused("--name", "n1", "--data", cluster[0].data, *alone[0].listen_flags(), "--initial-cluster",
                   cluster.initial_cluster())
    assert str(cluster[0].data) in said and "use" in said, said
    assert cluster[0].client().ping()


def test_a_directory_of_another_name_or_cluster_is_refused(make_cluster):
    cluster = make_cluster(count=2)
    one = cluster[0]
    one.client().set("k", "v")
    cluster.stop()
    members = cluster.initial_cluster()
    said = refused("--name", "n2", "--data", one.data, "--initial-cluster", members, *one.listen_flags())
    assert "n1" in said and "n2" in said, said
    said = refused("--name", "n1", "--data", one.data, *one.listen_flags(), "--initial-cluster",
                   members + f",n3=127.0.0.1:{harness.free_port()}")
    assert "cluster" in said and "n3" in said, said
    cluster.start()
    assert one.client().get("k") == b"v"


def test_a_file_instead_of_a_directory_is_refused(alone):
    node, good = alone
    node.data.write_text("not a directory")
    assert str(node.data) in refused(*good)


def test_a_foreign_directory_is_refused_and_left_alone(alone):
    node, good = alone
    node.data.mkdir()
    (node.data / "meta").write_bytes(b"these bytes are no meta file of ours")
    said = refused(*good)
    assert "meta" in said, said
    assert (node.data / "meta").read_bytes() == b"these bytes are no meta file of ours"


@contextlib.contextmanager
def mounted(path, options):
    """A tmpfs; skips the test where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path],
                                           capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a file system of a chosen size")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=False)


def test_a_read_only_directory_is_refused(alone):
    node, good = alone
    with mounted(node.data, "size=1m,ro"):
        said = refused(*good)
        assert str(node.data) in said and re.search("(?i)read-only", said), said


def test_a_directory_without_room_for_the_cold_tier_is_refused(alone):
    node, good = alone
    with mounted(node.data, "size=16k"):
        said = refused(*good)
        assert str(node.data) in said and re.search("(?i)no (room|space)", said), said


def test_a_directory_without_room_for_the_log_serves_and_refuses_writes(make_cluster):
    cluster = make_cluster(count=1, start=False)
    node = cluster[0]
    with mounted(node.data, "size=1m"):
        cluster.start()
        answer = node.http("PUT", "/put?key=k&timeout=5000", data=b"v")
        assert answer.status_code in (503, 507), answer.text
        assert node.http("GET", "/get?key=k").status_code == 404
        until(lambda: re.search("(?i)full|no room|no space", node.log()), "a line about the full disk")
        node.kill()


def test_a_disk_that_fills_up_refuses_writes_and_goes_on_reading(make_cluster):
    cluster = make_cluster(count=1, start=False)
    node = cluster[0]
    with mounted(node.data, "size=200m"):
        cluster.start()
        client = node.client()
        value = os.urandom(1 << 20)
        stored, refusals = [], []
        for i in range(400):
            try:
                assert client.set(f"full:{i}", value + str(i).encode())
                stored.append(i)
            except redis.exceptions.ResponseError as error:
                refusals.append(str(error))
                # What was on its way when the disk became full is unknown; from then on nothing is applied.
                if not refusals[-1].startswith("UNKNOWN"):
                    break
        assert refusals, "400 MB went into 200 MB"
        assert re.match("DISK_FULL|OVERLOADED|UNAVAILABLE", refusals[-1]), refusals
        assert stored and node.running()
        for i in stored[:3] + stored[-3:]:
            assert client.get(f"full:{i}") == value + str(i).encode()
        answer = node.http("PUT", "/put?key=one-more", data=value)
        assert answer.status_code in (503, 507), answer.text
        assert node.http("GET", "/get?key=one-more").status_code == 404
        assert re.search("(?i)full|no room|no space", node.log()), node.log()
        # Room again: it goes on by itself.
        subprocess.run(["mount", "-o", "remount,size=1g", node.data], check=True)
        until(lambda: client.set("room", "again"), "writes to be taken again")
        node.stop()


# ---- peers -----------------------------------------------------------------------------------------------------


def hello(version):
    """A peer's greeting as far as its version: u32 size, type 1, shards, zero, request, epoch, magic, version."""
    body = struct.pack("<IH", 0x4F444E52, version) + bytes(200)
    return struct.pack("<IBBBBQQ", 20 + len(body), 1, 0, 0, 0, 0, 1) + body


PEER_GARBAGE = {
    "random": os.urandom(4096),
    "zeros": bytes(4096),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "RESP": harness.encode("PING"),
    "huge frame": struct.pack("<IBBBBQQ", 0xFFFFFFF0, 1, 0, 0, 0, 0, 1),
    "no greeting": struct.pack("<IBBBBQQ", 20, 4, 0, 0, 0, 0, 1),
    "other version": hello(999),
    "short greeting": struct.pack("<IBBBBQQ", 22, 1, 0, 0, 0, 0, 1) + b"ab",
}


@pytest.mark.parametrize("kind", PEER_GARBAGE)
def test_a_peer_that_speaks_something_else_is_cut_off(node, kind):
    with socket.create_connection(("127.0.0.1", node.peer_port), timeout=harness.PATIENCE_S) as peer:
        peer.sendall(PEER_GARBAGE[kind])
        said = b""
        with contextlib.suppress(ConnectionError):
            while data := peer.recv(4096):
                said += data
    if kind == "other version":
        assert b"version" in said, said
    assert node.client().ping()
    assert node.client().set("after", kind)


def test_the_log_says_what_a_bad_peer_did(node):
    with socket.create_connection(("127.0.0.1", node.peer_port), timeout=harness.PATIENCE_S) as peer:
        peer.sendall(PEER_GARBAGE["HTTP"])
        with contextlib.suppress(ConnectionError):
            while peer.recv(4096):
                pass
    until(lambda: re.search("(?i)peer|protocol", node.log()), "a line about it")


def test_a_node_whose_peer_answers_garbage_keeps_serving(make_cluster):
    """The member n2 is a program that answers every greeting with noise."""
    cluster = make_cluster(count=2, start=False)
    with socket.socket() as fake:
        fake.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fake.bind(("127.0.0.1", cluster[1].peer_port))
        fake.listen()
        fake.settimeout(harness.PATIENCE_S)
        cluster.start_node(cluster[0])
        for answer in (b"SSH-2.0-OpenSSH_9.2\r\n", os.urandom(500), bytes(100)):
            connection, _ = fake.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.sendall(answer)
                connection.settimeout(harness.PATIENCE_S)
                while connection.recv(65536):
                    pass
        until(lambda: cluster[0].client().ping(), "n1 to answer clients")
        (other,) = [entry for entry in cluster[0].status()["nodes"] if not entry["self"]]
        assert other["reachable"] is False
        assert cluster[0].http("PUT", "/put?key=k&w=2", data=b"v").status_code == 503
