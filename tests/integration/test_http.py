"""HTTP as clients see it: endpoints, statuses, bodies, connections, and requests that are no HTTP."""

import json
import os
import shutil
import socket
import subprocess

import pytest

import harness
from harness import until


@pytest.fixture
def http(node):
    """http(method, path, **arguments) over one kept connection; path may be relative to the node only."""
    with harness.http_session() as session:
        yield lambda method, path, **arguments: session.request(method, node.url + path, timeout=harness.PATIENCE_S,
                                                                 **arguments)


class RawHttp:
    """A raw connection that reads whole answers."""

    def __init__(self, node):
        self.socket = socket.create_connection(("127.0.0.1", node.http_port), timeout=harness.PATIENCE_S)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def answer(self, head=False):
        """(status, headers, body) of the next answer."""
        line = self.stream.readline()
        if not line:
            raise EOFError("closed by the server")
        status = int(line.split(b" ")[1])
        headers = {}
        while (line := self.stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        size = 0 if head or status < 200 else int(headers.get("content-length", 0))
        return status, headers, self.stream.read(size)

    def closed(self):
        try:
            return self.stream.read(1) == b""
        except ConnectionError:
            return True


@pytest.fixture
def raw(node):
    with RawHttp(node) as raw:
        yield raw


def error_of(answer, status, code):
    """The JSON of an error answer, checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json()
    assert body["error"] == code and len(body["message"]) > 5, body
    return body


def test_put_get_delete(http):
    answer = http("PUT", "/put?key=greeting", data=b"hello ring")
    assert answer.status_code in (200, 201)
    version = answer.json()["version"]
    assert answer.headers["Rondo-Context"]
    got = http("GET", "/get?key=greeting")
    assert got.status_code == 200 and got.content == b"hello ring"
    assert got.headers["Rondo-Context"] == answer.headers["Rondo-Context"]
    assert http("POST", "/put?key=greeting", data=b"again").json()["version"] != version
    assert http("GET", "/get?key=greeting").content == b"again"
    deleted = http("DELETE", "/delete?key=greeting")
    assert deleted.status_code == 200 and deleted.json()["deleted"] is True and deleted.json()["version"]
    error_of(http("GET", "/get?key=greeting"), 404, "NOT_FOUND")
    assert http("DELETE", "/delete?key=greeting").json()["deleted"] is False


def test_keys_and_values_are_bytes(http, node):
    every_byte = bytes(range(256))
    encoded = "".join(f"%{byte:02X}" for byte in every_byte)
    assert http("PUT", f"/put?key={encoded}", data=every_byte).status_code in (200, 201)
    assert http("GET", f"/get?key={encoded}").content == every_byte
    assert node.client().get(every_byte) == every_byte
    assert http("PUT", "/put?key=a+b", data=b"space").ok
    assert node.client().get("a b") == b"space"
    assert http("GET", "/get?key=a%20b").content == b"space"
    assert http("PUT", "/put?key=empty", data=b"").ok
    empty = http("GET", "/get?key=empty")
    assert empty.status_code == 200 and empty.content == b""


def test_a_value_written_by_redis_is_read_by_http_and_back(http, node):
    node.client().set("both", b"\x00\xff")
    assert http("GET", "/get?key=both").content == b"\x00\xff"
    http("PUT", "/put?key=both", data=b"http")
    assert node.client().get("both") == b"http"


def test_parameters(http, node):
    for w in ("1", "one", "quorum", "all"):
        assert http("PUT", f"/put?key=w&w={w}&timeout=5000", data=b"v").ok
        assert http("GET", f"/get?key=w&r={w}&timeout=5000").ok
    assert http("PUT", "/put?key=ttl&ttl=1000", data=b"v").ok
    assert 990 <= node.client().ttl("ttl") <= 1000
    for path in ("/put?key=w&w=0", "/put?key=w&w=x", "/put?key=w&w=2", "/put?key=w&ttl=-1", "/put?key=w&ttl=x",
                 "/put?key=w&timeout=x", "/put", "/put?key=w&tll=60"):
        error_of(http("PUT", path, data=b"v"), 400, "BAD_REQUEST")
    error_of(http("PUT", "/put?key=w&key=x", data=b"v"), 400, "MALFORMED")
    for path in ("/get", "/get?r=1", "/get?key=w&r=9", "/get?key=w&r=2"):
        error_of(http("GET", path), 400, "BAD_REQUEST")
    error_of(http("DELETE", "/delete"), 400, "BAD_REQUEST")


def test_expired_values_are_not_found(http):
    assert http("PUT", "/put?key=short&ttl_ms=1", data=b"v").ok
    until(lambda: http("GET", "/get?key=short").status_code == 404, "a value of 1 ms to expire")


def test_wrong_paths_and_methods(http):
    error_of(http("GET", "/nothing"), 404, "NOT_FOUND")
    for method, path in (("POST", "/get?key=k"), ("GET", "/put?key=k"), ("PUT", "/delete?key=k"), ("PUT", "/status"),
                         ("DELETE", "/ring")):
        answer = http(method, path)
        assert answer.status_code == 405 and answer.headers["Allow"], (method, path, answer.text)


def test_head_answers_without_a_body(http):
    http("PUT", "/put?key=head", data=b"12345")
    answer = http("HEAD", "/get?key=head")
    assert answer.status_code == 200 and answer.content == b"" and answer.headers["Content-Length"] == "5"
    assert http("GET", "/get?key=head").content == b"12345"


def test_sizes(http):
    value = os.urandom(1 << 20) * 16
    assert http("PUT", "/put?key=big", data=value).ok
    assert http("GET", "/get?key=big").content == value
    http("DELETE", "/delete?key=big")
    assert http("PUT", f"/put?key={'k' * 16384}", data=b"v").ok
    assert http("PUT", f"/put?key={'k' * 16385}", data=b"v").status_code in (400, 413)


def test_a_body_over_the_limit_is_refused_before_it_is_sent(raw):
    raw.send(b"PUT /put?key=big HTTP/1.1\r\nHost: x\r\nContent-Length: 16777217\r\n\r\n")
    status, headers, body = raw.answer()
    assert status == 413 and json.loads(body)["error"] == "TOO_LARGE"
    assert headers["connection"] == "close" and raw.closed()


def test_headers_over_the_limit_are_refused(raw):
    raw.send(b"GET /get?key=k HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (65 << 10) + b"\r\n\r\n")
    status, _, body = raw.answer()
    assert status == 431 and json.loads(body)["error"] == "TOO_LARGE"
    assert raw.closed()


def test_keep_alive_and_close(raw):
    for _ in range(3):
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answer()[0] == 200
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert raw.answer()[0] == 200
    assert raw.closed()


def test_http_1_0_closes_unless_asked(node):
    with RawHttp(node) as raw:
        raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert raw.answer()[0] == 200
        assert raw.closed()
    with RawHttp(node) as raw:
        for _ in range(2):
            raw.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, headers, _ = raw.answer()
            assert status == 200 and headers["connection"].lower() == "keep-alive"


def test_pipelined_requests_are_answered_in_order(raw):
    count = 200
    requests = []
    for i in range(count):
        body = b"value %d" % i
        requests.append(b"PUT /put?key=p%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (i, len(body), body))
        requests.append(b"GET /get?key=p%d HTTP/1.1\r\nHost: x\r\n\r\n" % i)
        requests.append(b"GET /get?key=none%d HTTP/1.1\r\nHost: x\r\n\r\n" % i)
    raw.send(b"".join(requests))
    for i in range(count):
        assert raw.answer()[0] in (200, 201)
        assert raw.answer()[::2] == (200, b"value %d" % i)
        assert raw.answer()[0] == 404


def test_requests_fed_byte_by_byte(raw):
    put = b"PUT /put?key=slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow"
    for byte in put + b"GET /get?key=slow HTTP/1.1\r\nHost: x\r\n\r\n":
        raw.send(bytes([byte]))
    assert raw.answer()[0] in (200, 201)
    assert raw.answer()[::2] == (200, b"slow")


def test_chunked_bodies(raw, http):
    raw.send(b"PUT /put?key=chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
             b"5\r\nhello\r\n1;ext=1\r\n \r\n4\r\nring\r\n0\r\nTrailer: x\r\n\r\n")
    assert raw.answer()[0] in (200, 201)
    assert http("GET", "/get?key=chunks").content == b"hello ring"
    assert http("PUT", "/put?key=chunks", data=iter([b"a", b"b" * 100000, b"c"])).ok
    assert http("GET", "/get?key=chunks").content == b"a" + b"b" * 100000 + b"c"


def test_expect_continue(raw):
    raw.send(b"PUT /put?key=expect HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert raw.answer()[0] == 100
    raw.send(b"yes")
    assert raw.answer()[0] in (200, 201)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_uploads_with_expect_continue(node, tmp_path):
    file = tmp_path / "upload"
    file.write_bytes(os.urandom(3 << 20))
    base = ["curl", "-sS", "--noproxy", "*", "-m", str(int(harness.PATIENCE_S))]
    done = subprocess.run([*base, "-v", "-T", file, "-H", "Expect: 100-continue", f"{node.url}/put?key=curl"],
                          capture_output=True, check=True)
    assert b"HTTP/1.1 100 Continue" in done.stderr
    got = subprocess.run([*base, f"{node.url}/get?key=curl"], capture_output=True, check=True)
    assert got.stdout == file.read_bytes()


BAD_REQUESTS = [
    b"nonsense\r\n\r\n",
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
    b"*1\r\n$4\r\nPING\r\n",
    b"GET /get?key=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /get?key=k HTTP/9.9\r\n\r\n",
    b"PUT /put?key=k HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
    b"PUT /put?key=k HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    b"PUT /put?key=k HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /put?key=k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /get?key=k HTTP/1.1\r\nBad Header: x\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", BAD_REQUESTS, ids=lambda data: repr(data[:30]))
def test_bad_http_is_answered_with_a_reason_and_closed(raw, request_bytes):
    raw.send(request_bytes)
    status, headers, body = raw.answer()
    assert 400 <= status <= 505 and headers["connection"] == "close"
    assert json.loads(body)["message"]
    assert raw.closed()


def test_healthz(http):
    assert http("GET", "/healthz").status_code == 200


def test_status(http, node):
    status = http("GET", "/status").json()
    assert status["node"] == "n1" and status["state"] == "serving" and status["n"] == 1 and status["epoch"] == 1
    assert len(status["id"]) == 16 and len(status["cluster"]) == 32
    assert status["durability"] == "always" and status["shards"] >= 1 and status["version"]
    (only,) = status["nodes"]
    assert only["self"] and only["resp"] == node.resp_address and only["http"] == node.http_address
    assert only["peer"] == node.peer_address
    assert status["memory_used_bytes"] <= status["memory_budget_bytes"]
    assert status["quarantined_slots"] == 0 and status["clock_skew_ms"] == 0
    done = status["requests"]["done"]
    http("PUT", "/put?key=count", data=b"v")
    assert http("GET", "/status").json()["requests"]["done"] > done
    for name in ("not_applied", "unknown", "forwarded", "restamps", "write_backs", "overloads"):
        assert status["requests"][name] >= 0
    assert {"uptime_s", "keys", "rows", "dirty_rows"} <= set(status)


def test_ring(http):
    ring = http("GET", "/ring").json()
    assert ring["epoch"] == 1 and ring["n"] == 1
    assert ring["owners"] == [[0, 16383, "n1"]] and ring["client_map"] == [[0, 16383, "n1"]]
    (only,) = ring["nodes"]
    assert only["slots"] == 16384 and only["replicates"] == 16384 and only["reachable"] and only["weight"] == 1
