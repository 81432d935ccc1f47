"""rondo, the command-line client: against a real node, and (for what a healthy node never says) against a fake."""

import base64
import contextlib
import http.server
import json
import threading

import pytest

import harness
from harness import rondo


@pytest.fixture
def cli(node):
    return lambda *words, **arguments: rondo(*words, host=node.http_address, **arguments)


def one_line(done, code):
    """The error of a finished command: its code, and one line on standard error."""
    assert done.returncode == code, done
    text = done.stderr.decode()
    assert done.stdout == b"" and text.startswith("rondo: ") and text.count("\n") == 1, done
    return text


def test_put_get_del(cli, node):
    done = cli("put", "greeting", "hello ring")
    assert done.returncode == 0 and done.stdout.startswith(b"stored, version ")
    assert node.client().get("greeting") == b"hello ring"
    got = cli("get", "greeting")
    assert got.returncode == 0 and got.stdout == b"hello ring", "no newline into a pipe"
    assert cli("del", "greeting").stdout.startswith(b"deleted")
    assert "not found" in one_line(cli("get", "greeting"), 1)
    again = cli("del", "greeting")
    assert again.returncode == 0 and b"nothing to delete" in again.stdout


def test_values_from_standard_input_are_bytes(cli):
    every_byte = bytes(range(256)) * 100
    for words in (("put", "stdin", "-"), ("put", "stdin")):
        assert cli(*words, stdin=every_byte).returncode == 0
        assert cli("get", "stdin").stdout == every_byte
    assert cli("put", "stdin", stdin=b"").returncode == 0
    assert cli("get", "stdin").stdout == b""
    big = bytes(16 << 20)
    assert cli("put", "big", stdin=big).returncode == 0
    assert cli("get", "big").stdout == big
    assert "TOO_LARGE" in one_line(cli("put", "big", stdin=big + b"x"), 3)
    cli("del", "big")


def test_keys_of_any_characters(cli, node):
    for key in ("a b", "a&b=c", "100%", "a+b", "ключ", "{tag}x", "?#/", "-"):
        assert cli("put", "--", key, f"<{key}>").returncode == 0
        assert node.client().get(key) == f"<{key}>".encode()
        assert cli("get", "--", key).stdout == f"<{key}>".encode()


def test_options(cli, node):
    assert cli("put", "options", "v", "--w", "all", "--ttl", "1000", "--timeout=5000").returncode == 0
    assert 990 <= node.client().ttl("options") <= 1000
    assert cli("get", "--r", "one", "options").stdout == b"v"
    assert cli("put", "--", "negative", "-5").returncode == 0
    assert cli("get", "negative").stdout == b"-5"
    assert "BAD_REQUEST" in one_line(cli("put", "options", "v", "--w", "9"), 2)


def test_json(cli):
    put = cli("--json", "put", "json", "text")
    version = json.loads(put.stdout)["version"]
    got = json.loads(cli("get", "json", "--json").stdout)
    assert got["key"] == "json" and got["value"] == "text" and got["version"]
    cli("put", "json", stdin=b"\xff\x00")
    assert base64.b64decode(json.loads(cli("get", "json", "--json").stdout)["value_base64"]) == b"\xff\x00"
    assert json.loads(cli("--json", "del", "json").stdout)["deleted"] is True
    missing = cli("--json", "get", "json")
    assert missing.returncode == 1 and json.loads(missing.stdout)["error"] == "NOT_FOUND" and missing.stderr == b""
    assert json.loads(cli("--json", "status").stdout)["node"] == "n1"
    assert json.loads(cli("--json", "ring").stdout)["owners"] == [[0, 16383, "n1"]]
    assert json.loads(cli("--json", "version").stdout)["version"]
    assert [command["name"] for command in json.loads(cli("--json", "help").stdout)["commands"]][:2] == ["put", "get"]
    bad = cli("--json", "gett")
    assert bad.returncode == 2 and "get" in json.loads(bad.stdout)["message"]
    assert version


def test_status_and_ring(cluster):
    one = cluster[0]
    status = rondo("status", host=one.http_address).stdout.decode()
    for node in cluster:
        assert node.name in status and node.resp_address in status and node.peer_address in status
    assert "n1 is serving" in status and "this node" in status and status.count("reachable") == 2
    for width in (40, 80, 200):
        out = rondo("ring", host=one.http_address, env={"COLUMNS": str(width), "LC_ALL": "C"}).stdout.decode()
        lines = out.splitlines()
        assert all(len(line) <= max(width, 80) for line in lines), out
        cells = "".join(line.split()[1] for line in lines if line[:6].strip().isdigit())
        assert len(cells) == 1024 and set(cells) == {"A", "B", "C"}
        # Neighbours on the ring are other nodes: of three successive positions no two have the same owner.
        assert all(a != b for a, b in zip(cells, cells[1:]))
        for node in cluster:
            assert f" {node.name} " in out
        assert "\033" not in out and "#" in out
    assert "3 ranges" in out


def test_usage_errors_say_what_to_do(cli):
    for words, said in ((["gett", "k"], "did you mean 'get'"), (["set", "k", "v"], "'put'"), (["qqqqqq"], "rondo help"),
                        (["get"], "KEY"), (["get", "a", "b"], "too many"), (["put", "a", "b", "c"], "quote"),
                        (["get", "k", "--w", "1"], "--w"), (["get", "k", "--x"], "--x"), (["get", "k", "--r"], "--r"),
                        (["status", "x"], "too many"), (["help", "nothing"], "rondo help")):
        assert said in one_line(cli(*words), 2), words


def test_help_and_version(cli):
    everything = cli("help")
    assert everything.returncode == 0 and rondo().stdout == everything.stdout == cli("--help").stdout
    for name in ("put", "get", "del", "status", "ring", "help", "version"):
        assert name in everything.stdout.decode()
        done = cli("help", name)
        assert done.returncode == 0 and b"Examples:" in done.stdout and done.stdout == cli(name, "--help").stdout
    assert cli("version").stdout.startswith(b"rondo ") and cli("--version").stdout == cli("version").stdout


def test_the_node_comes_from_the_option_the_variable_or_the_default(node):
    env = {"RONDO_HOST": node.http_address}
    assert rondo("put", "env", "v", env=env).returncode == 0
    assert rondo("get", "env", env=env).stdout == b"v"
    nowhere = f"127.0.0.1:{harness.free_port()}"
    text = one_line(rondo("get", "env", host=nowhere, env=env), 5)
    assert nowhere in text and "rondod" in text
    for bad in ("no port:x", "127.0.0.1:0", "127.0.0.1:70000", "http://127.0.0.1:7380", "::1"):
        assert "HOST:HTTPPORT" in one_line(rondo("get", "k", host=bad), 2)


def test_proxies_of_the_environment_are_ignored(node):
    env = {"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    assert rondo("put", "proxy", "v", host=node.http_address, env=env).returncode == 0


# ---- a node that says what healthy ones never say --------------------------------------------------------------


@contextlib.contextmanager
def fake_node(status, body, content_type="application/json", truncate=False):
    """Answers everything with this; with truncate it closes in the middle of the body."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body) + (10 if truncate else 0)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def error_body(error, message="said the node", **members):
    return json.dumps({"error": error, "message": message, **members}).encode()


@pytest.mark.parametrize("status, error, words, code, said", [
    (503, "UNAVAILABLE", ("put", "k", "v"), 3, "not applied"),
    (503, "OVERLOADED", ("del", "k"), 3, "try again"),
    (503, "UNAVAILABLE", ("get", "k"), 3, "try again"),
    (504, "UNKNOWN", ("put", "k", "v"), 4, "outcome unknown"),
    (504, "UNKNOWN", ("del", "k"), 4, "read the key"),
    (504, "TIMEOUT", ("get", "k"), 3, "try again"),
    (400, "BAD_REQUEST", ("get", "k"), 2, "rondo help"),
    (404, "NOT_FOUND", ("get", "k"), 1, "not found"),
    (413, "TOO_LARGE", ("put", "k", "v"), 3, "TOO_LARGE"),
])
def test_exit_codes_tell_the_outcomes_apart(status, error, words, code, said):
    with fake_node(status, error_body(error, needed=2, acks=1)) as host:
        text = one_line(rondo(*words, host=host), code)
        assert said in text and (error in text or code == 1) and "needed 2, got 1" in text, text
        done = rondo("--json", *words, host=host)
        assert done.returncode == code and json.loads(done.stdout)["error"] == error and done.stderr == b""


def test_an_answer_that_breaks_off_leaves_a_write_unknown():
    with fake_node(200, b'{"version":', truncate=True) as host:
        assert "may have taken effect" in one_line(rondo("put", "k", "v", host=host), 4)
        assert "try again" in one_line(rondo("get", "k", host=host), 5)


def test_something_else_on_that_port():
    with fake_node(200, b"<html>", "text/html") as host:
        assert "HTTP port" in one_line(rondo("status", host=host), 3)
        assert "HTTP port" in one_line(rondo("put", "k", "v", host=host), 4)
    with fake_node(500, b"oops", "text/plain") as host:
        assert "HTTP port" in one_line(rondo("get", "k", host=host), 3)


def test_status_warns(tmp_path):
    body = {"node": "n3", "state": "amnesiac", "quarantined_slots": 7, "nodes": [], "uptime_s": 100000}
    with fake_node(200, json.dumps(body).encode()) as host:
        out = rondo("status", host=host).stdout.decode()
        assert "WARNING" in out and "no R" in out and "7 slots" in out
