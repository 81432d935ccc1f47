"""Real rondod processes for the integration tests: a Cluster of them in a directory of its own, on free ports.

Nothing here sleeps for a fixed time or measures one: `until` polls a condition, with a generous bound that only
a broken program reaches. RONDO_BUILD names the directory of the programs (default: build).
"""

import contextlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time

import redis
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("RONDO_BUILD", "build")).resolve()
RONDOD = BUILD / "rondod"
RONDO = BUILD / "rondo"

# A bound on waiting, in seconds: sanitizer builds on a busy machine are slow.
PATIENCE_S = float(os.environ.get("RONDO_PATIENCE_S", "60"))

SANITIZER_REPORT = re.compile(r"(Address|Leak|Thread|UndefinedBehavior)Sanitizer|runtime error:|Assertion .* failed")


def until(condition, what, patience_s=PATIENCE_S):
    """Polls until condition() is true (and returns what it returned). Connection errors count as false."""
    deadline = time.monotonic() + patience_s
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (redis.exceptions.RedisError, requests.exceptions.RequestException, OSError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"still waiting after {patience_s:.0f} s for: {what} (last: {last!r})")
        time.sleep(0.02)


_ports_given = set()

# Test runs at the same time have ports of their own: those whose number leaves this rest.
PORT_LANES = 4
PORT_LANE = int(os.environ.get("RONDO_PORT_LANE", "0"))


def free_port():
    """A port below the ephemeral range, so that no outgoing connection can take it in the meantime."""
    while True:
        port = random.randrange(20000 + PORT_LANE, 32000, PORT_LANES)
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port


def http_session():
    """A requests session that ignores the environment's proxies."""
    session = requests.Session()
    session.trust_env = False
    return session


class Node:
    """One rondod: its directory, its ports and, while it runs, its process."""

    def __init__(self, name, directory):
        self.name = name
        self.directory = pathlib.Path(directory)
        self.data = self.directory / "data"
        self.log_path = self.directory / "log"
        self.resp_port, self.http_port, self.peer_port = free_port(), free_port(), free_port()
        self.process = None
        self.prefix = []  # of the command that starts it
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def http_address(self):
        return f"127.0.0.1:{self.http_port}"

    @property
    def resp_address(self):
        return f"127.0.0.1:{self.resp_port}"

    @property
    def peer_address(self):
        return f"127.0.0.1:{self.peer_port}"

    @property
    def url(self):
        return f"http://{self.http_address}"

    def listen_flags(self):
        return ["--resp", self.resp_address, "--http", self.http_address, "--peer", self.peer_address]

    def start(self, flags):
        assert self.process is None, f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*self.prefix, str(RONDOD), *map(str, flags)], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM: an orderly end, with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=PATIENCE_S)
        self.process = None
        assert code == 0, f"{self.name} ended with {code}:\n{self.log()}"

    def running(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def http(self, method, path, **arguments):
        with http_session() as session:
            return session.request(method, self.url + path, timeout=PATIENCE_S, **arguments)

    def status(self):
        answer = self.http("GET", "/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def metric(self, name):
        """Of GET /metrics, one without labels."""
        for line in self.http("GET", "/metrics").text.splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def ring(self):
        answer = self.http("GET", "/ring")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def client(self, **arguments):
        return redis.Redis(port=self.resp_port, socket_timeout=PATIENCE_S, **arguments)

    def connection(self, r=None, w=None, timeout_ms=None):
        """A client of one connection, with its own consistency."""
        client = self.client(single_connection_client=True)
        words = []
        for name, value in (("R", r), ("W", w), ("TIMEOUT", timeout_ms)):
            if value is not None:
                words += [name, value]
        if words:
            assert client.execute_command("RONDO.CONSISTENCY", *words) in (b"OK", "OK")
        return client

    def answers(self):
        return self.running() and self.http("GET", "/status").status_code == 200


class Cluster:
    """Nodes n1, n2, … of one cluster."""

    def __init__(self, directory, count=3, shards=1, flags=()):
        self.nodes = [Node(f"n{i + 1}", pathlib.Path(directory) / f"n{i + 1}") for i in range(count)]
        self.shards = shards
        self.flags = list(flags)

    def __getitem__(self, index):
        return self.nodes[index]

    def __iter__(self):
        return iter(self.nodes)

    def initial_cluster(self):
        return ",".join(f"{node.name}={node.peer_address}" for node in self.nodes)

    def node_flags(self, node, shards=None):
        return ["--name", node.name, "--data", node.data, "--initial-cluster", self.initial_cluster(),
                *node.listen_flags(), "--shards", shards or self.shards, *self.flags]

    def start_node(self, node, shards=None, extra=()):
        node.start([*self.node_flags(node, shards), *extra])

    def start(self, shards=None):
        for node in self.nodes:
            if node.process is None:
                self.start_node(node, shards)
        self.wait_whole()
        return self

    def wait_node(self, node):
        """Until the node answers, or has ended (then its log is the error)."""
        def ready():
            assert node.process is not None and node.process.poll() is None, (
                f"{node.name} ended with {node.process.poll()}:\n{node.log()}")
            return node.answers()
        until(ready, f"{node.name} to answer on {node.http_address}")

    def wait_whole(self, state="serving"):
        """Until every running node answers and reaches exactly the running ones."""
        running = {node.name for node in self.nodes if node.process is not None}
        for node in self.nodes:
            if node.process is None:
                continue
            self.wait_node(node)

            def settled(node=node):
                status = node.status()
                seen = {other["name"] for other in status["nodes"] if other["self"] or other["reachable"]}
                return seen == running and (state is None or status["state"] == state)
            until(settled, f"{node.name} to reach exactly {sorted(running)} and be {state}")

    def redis_cluster(self, **arguments):
        """A RedisCluster client that knows every running node (as people configure theirs)."""
        nodes = [redis.cluster.ClusterNode("127.0.0.1", node.resp_port) for node in self.nodes if node.running()]
        return redis.cluster.RedisCluster(startup_nodes=nodes, socket_timeout=PATIENCE_S, **arguments)

    def victim(self):
        """The node to kill under a RedisCluster client. redis-py 4.3 (Debian 12) asks its nodes in the order of their
        first slot when it learns of a failure, and breaks on a dead one ("cannot pickle '_thread.lock' object",
        against any server); so the owner of slot 0 is spared."""
        first = self.nodes[0].ring()["client_map"][0][2]
        return next(node for node in reversed(self.nodes) if node.name != first)

    def counter(self, name):
        """The sum of a request counter over the running nodes."""
        return sum(node.status()["requests"][name] for node in self.nodes if node.running())

    def stop(self):
        for node in self.nodes:
            if node.running():
                node.stop()

    def close(self):
        """Ends everything and checks that nobody died on the way, nor a sanitizer said anything."""
        problems = []
        for node in self.nodes:
            if node.process is not None and node.process.poll() is not None:
                problems.append(f"{node.name} ended by itself with {node.process.poll()}:\n{node.log()[-3000:]}")
                node.process = None
            elif node.process is not None:
                try:
                    node.stop()
                except subprocess.TimeoutExpired:
                    node.kill()
                    problems.append(f"{node.name} did not end on SIGTERM")
                except AssertionError as error:
                    problems.append(str(error)[-3000:])
            if SANITIZER_REPORT.search(node.log()):
                problems.append(f"{node.name}: a sanitizer's report or failed assertion:\n{node.log()[-6000:]}")
        assert not problems, "\n".join(problems)


class RawResp:
    """A raw RESP connection: exact bytes out, parsed or exact replies in."""

    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bytes = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError("closed by the server")
        self.bytes += data

    def _line(self):
        while b"\r\n" not in self.bytes:
            self._more()
        line, self.bytes = self.bytes.split(b"\r\n", 1)
        return line

    def raw_reply(self):
        """The exact bytes of one reply."""
        line = self._line()
        reply = line + b"\r\n"
        kind, rest = line[:1], line[1:]
        if kind in b"$=" and rest != b"-1":
            size = int(rest) + 2
            while len(self.bytes) < size:
                self._more()
            reply += self.bytes[:size]
            self.bytes = self.bytes[size:]
        elif kind in b"*~>%" and rest != b"-1":
            for _ in range(int(rest) * (2 if kind == b"%" else 1)):
                reply += self.raw_reply()
        return reply

    def command(self, *words):
        """Sends a command and returns the exact bytes of its reply."""
        self.send(encode(*words))
        return self.raw_reply()

    def reply(self, *words):
        """Sends a command and returns its reply as Python values; an error is a redis ResponseError, returned."""
        return parse_reply(self.command(*words))[0]

    def closed(self):
        """Whether the server closed the connection, after everything that it still sent (kept in bytes)."""
        with contextlib.suppress(ConnectionError):
            while True:
                data = self.socket.recv(1 << 16)
                if not data:
                    break
                self.bytes += data
        return True


def parse_reply(data):
    """(value, rest) of one whole RESP2 reply: bytes, integers, lists, None, or an error as an exception."""
    line, rest = data.split(b"\r\n", 1)
    kind, text = line[:1], line[1:]
    if kind == b"-":
        return redis.exceptions.ResponseError(text.decode()), rest
    if kind == b"+":
        return text, rest
    if kind == b":":
        return int(text), rest
    if text == b"-1":
        return None, rest
    if kind == b"$":
        return rest[:int(text)], rest[int(text) + 2:]
    assert kind == b"*", line
    items = []
    for _ in range(int(text)):
        item, rest = parse_reply(rest)
        items.append(item)
    return items, rest


def encode(*words):
    """A command as RESP clients send it."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(out)


def key_slot(key):
    """Redis Cluster's slot of a key."""
    return redis.crc.key_slot(key if isinstance(key, bytes) else key.encode())


def rondo(*words, host=None, stdin=b"", env=None):
    """Runs the command-line client; returns the finished process with bytes in stdout and stderr."""
    environment = {key: value for key, value in os.environ.items() if key != "RONDO_HOST"}
    environment.update(env or {})
    host_words = ["-h", host] if host else []
    return subprocess.run([str(RONDO), *host_words, *map(str, words)], input=stdin, capture_output=True,
                          env=environment, timeout=PATIENCE_S * 2, check=False)
