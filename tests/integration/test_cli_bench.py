"""rondo bench and rondo top against real nodes; what bench says of a server that answers wrongly."""

import contextlib
import json
import os
import pty
import socket
import subprocess
import threading

import pytest

import harness
from harness import rondo


def bench(node, *words):
    done = rondo("--json", "bench", node.resp_address, *words)
    return done.returncode, json.loads(done.stdout)


def test_bench_fills_loads_and_reads_everything_back(node):
    code, told = bench(node, "--fill", "--keys", 2000, "--requests", 5000, "--depth", 8, "--connections", 10,
                       "--threads", 2, "--size", "24-300", "--distribution", "zipf:0.9")
    assert code == 0 and told["answered"] == 5000 and told["misses"] == 0, told
    assert told["errors"] == {} and told["damaged_values"] == told["foreign_values"] == told["unanswered"] == 0
    assert told["reads"]["count"] + told["writes"]["count"] == 5000 and told["reads"]["count"] > 1000
    assert 0 < told["reads"]["p50_us"] <= told["reads"]["p9999_us"] <= told["reads"]["max_us"]
    keys = [key for key in node.client().mget([f"bench:{number:010d}" for number in range(2001)])]
    assert None not in keys[:2000] and keys[2000] is None and all(24 <= len(value) <= 300 for value in keys[:2000])
    code, told = bench(node, "--keys", 2100, "--requests", 2100, "--reads", 100, "--distribution", "sequential")
    assert code == 0 and told["reads"]["count"] == 2100 and told["misses"] == 100, "every key once"


def test_bench_finds_the_node_by_itself_and_prints_a_table(node):
    done = rondo("bench", "--requests", "2000", "--keys", "100", "--rate", "4000", host=node.http_address)
    text = done.stdout.decode()
    assert done.returncode == 0 and node.resp_address in text and "p99.99" in text and "wrong values 0" in text
    assert "writes" in text and done.stderr == b""


def test_bench_tells_wrong_values(node):
    client = node.client()
    assert bench(node, "--fill", "--requests", 0, "--keys", 10, "--prefix", "w:")[0] == 0
    values = [client.get(f"w:{number:014d}") for number in range(2)]
    client.set(f"w:{0:014d}", values[1])
    client.set(f"w:{1:014d}", values[1][:-1] + b"?")
    done = rondo("--json", "bench", node.resp_address, "--reads", 100, "--keys", 10, "--prefix", "w:",
                 "--distribution", "sequential", "--requests", 10)
    told = json.loads(done.stdout)
    assert done.returncode == 3 and told["foreign_values"] == 1 and told["damaged_values"] == 1, told


def test_bench_counts_errors_by_code(node):
    code, told = bench(node, "--requests", 100, "--reads", 0, "--size", (16 << 20) + 1, "--connections", 1)
    assert code == 3 and told["answered"] == 0
    assert sum(told["errors"].values()) + told["unanswered"] == 100, told


def test_bench_takes_consistency(cluster):
    code, told = bench(cluster[0], "--requests", 500, "--w", "all", "--r", "one")
    assert code == 0 and told["answered"] == 500
    done = rondo("bench", cluster[0].resp_address, "--requests", "5", "--w", "nine")
    assert done.returncode == 3 and b"--r or --w" in done.stderr


@pytest.mark.parametrize("words, said", [
    (["--size", "3"], "--size"), (["--size", "100-50"], "--size"), (["--distribution", "normal"], "zipf:THETA"),
    (["--distribution", "zipf:x"], "zipf:THETA"), (["--connections", "0"], "--connections"),
    (["--reads", "101"], "0 to 100"),
    (["--threads", "9", "--connections", "2"], "threads"), (["--requests", "0"], "--fill"), (["--rate"], "--rate"),
    (["--prefix", "x" * 300], "--prefix"), (["localhost"], "HOST:RESPPORT"),
    (["--depth", "1024", "--size", "67108864"], "MiB"),
    (["--ttl", "3"], "--ttl")])
def test_bench_explains_what_makes_no_sense(words, said):
    done = rondo("bench", "127.0.0.1:7379", *words)
    text = done.stderr.decode()
    assert done.returncode == 2 and said in text and text.count("\n") == 1 and done.stdout == b"", done


def test_bench_options_belong_to_bench(node):
    done = rondo("get", "k", "--depth", "3", host=node.http_address)
    assert done.returncode == 2 and b"--depth" in done.stderr


def test_bench_needs_a_server():
    nowhere = f"127.0.0.1:{harness.free_port()}"
    done = rondo("bench", nowhere)
    assert done.returncode == 5 and nowhere in done.stderr.decode()
    assert rondo("bench", host=nowhere).returncode == 5


@contextlib.contextmanager
def fake_server(answer):
    """Answers whatever comes with these bytes, or (None) with nothing."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                if answer is not None:
                    connection.sendall(answer)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.close()


def test_bench_refuses_what_is_not_the_protocol():
    with fake_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        done = rondo("bench", address, "--requests", "10")
        assert done.returncode == 3 and b"RESP port" in done.stderr


def test_bench_gives_up_on_silence():
    with fake_server(None) as address:
        done = rondo("bench", address, "--retry-for", "1")
        assert done.returncode == 3 and b"no answer for 1 s" in done.stderr


# ---- top -------------------------------------------------------------------------------------------------------


def test_top_shows_every_node_and_who_does_not_answer(cluster):
    rondo("bench", cluster[0].resp_address, "--requests", "500", "--fill", "--keys", "100")
    text = rondo("top", "--interval", "0.2", host=cluster[1].http_address).stdout.decode()
    for node in cluster:
        assert f"\n{node.name} " in text
    assert text.count("serving") == 3 and "\033" not in text
    told = json.loads(rondo("--json", "top", "--once", "--interval", "0.1", host=cluster[1].http_address).stdout)
    assert [each["node"] for each in told["nodes"]] == ["n1", "n2", "n3"]
    assert all(each["answered"] and each["memory_budget_bytes"] > 0 for each in told["nodes"])


def test_top_counts_what_happens_in_its_interval(node):
    load = subprocess.Popen([str(harness.RONDO), "bench", node.resp_address, "--rate", "500", "--duration", "6"],
                            stdout=subprocess.DEVNULL)
    try:
        def moving():
            told = json.loads(rondo("--json", "top", "--interval", "1", host=node.http_address).stdout)["nodes"][0]
            return told["reads_per_s"] > 100 and told["writes_per_s"] > 100 and told["write_p99_us"] > 0
        harness.until(moving, "top to see the load")
    finally:
        load.wait(timeout=harness.PATIENCE_S)


def test_top_names_a_node_that_is_down(tmp_path):
    cluster = harness.Cluster(tmp_path, count=3)
    try:
        cluster.start()
        cluster[2].kill()
        done = rondo("top", "--once", "--interval", "0.1", host=cluster[0].http_address)
        text = done.stdout.decode()
        assert done.returncode == 0 and "n3         NO ANSWER from " + cluster[2].http_address in text
        assert text.count("serving") == 2
    finally:
        cluster.close()


def test_top_redraws_on_a_terminal(node):
    ours, theirs = pty.openpty()
    top = subprocess.Popen([str(harness.RONDO), "-h", node.http_address, "top", "--interval", "0.1"],
                           stdout=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    seen = b""
    while seen.count(b"\033[H") < 3:
        seen += os.read(ours, 65536)
    top.terminate()
    with contextlib.suppress(OSError):
        while more := os.read(ours, 65536):
            seen += more
    assert top.wait(timeout=harness.PATIENCE_S) == 0
    assert seen.startswith(b"\033[2J") and seen.endswith(b"\033[?25h") and b"n1 " in seen
    os.close(ours)


def test_top_explains_a_bad_interval(node):
    done = rondo("top", "--interval", "soon", host=node.http_address)
    assert done.returncode == 2 and b"--interval" in done.stderr
