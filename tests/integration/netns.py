"""A cluster whose nodes live in network namespaces of their own, with faults between them.

    test process ── veth ── n1 ┐
                 ── veth ── n2 ┤ TUN ── netswitch.py: partitions, loss, delay
                 ── veth ── n3 ┘

Nodes reach each other (TCP and UDP) only through the switch. Clients have wires of their own, which no fault touches:
a test sees every node at all times. Needs root and /dev/net/tun, else `unavailable()` says what is missing.

Everything is named after the process that made it, so that runs side by side do not meet, and what a killed run left
behind is found and removed by the next one.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import redis

import harness

PREFIX = "rondo"
NAMESPACE = re.compile(rf"{PREFIX}-(\d+)-n\d+")

# RFC 2544's network for benchmarks: nobody else's. A run has 64 addresses of it for its clients' wires.
CLIENT_NETWORK = "198.18"
NODES_MAX = 16
SUBNETS = 256 * 4


def ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def unavailable():
    """Why there can be no namespaces here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "ip (package iproute2) is not installed"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun"
    name = f"{PREFIX}-{os.getpid()}-probe"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except OSError as error:
        return f"network namespaces are not allowed here ({error})"
    return None


def remove_namespace(name):
    """With its processes and, by that, its devices."""
    for pid in ip("netns", "pids", name).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    ip("netns", "del", name)


def remove_stale():
    """What runs that were killed left behind."""
    for line in ip("netns", "list").splitlines():
        match = NAMESPACE.match(line)
        if match and not pathlib.Path(f"/proc/{match.group(1)}").exists():
            remove_namespace(match.group(0))


class NetnsNode(harness.Node):
    """A node of a namespace: clients use client_host, peers use peer_host."""

    def __init__(self, name, directory, namespace, client_host, peer_host):
        super().__init__(name, directory)
        self.namespace, self.client_host, self.peer_host = namespace, client_host, peer_host
        self.prefix = ["ip", "netns", "exec", namespace]

    @property
    def http_address(self):
        return f"{self.client_host}:{self.http_port}"

    @property
    def resp_address(self):
        return f"{self.client_host}:{self.resp_port}"

    @property
    def peer_address(self):
        return f"{self.peer_host}:{self.peer_port}"

    def client(self, **arguments):
        return redis.Redis(host=self.client_host, port=self.resp_port, socket_timeout=harness.PATIENCE_S, **arguments)


class NetnsCluster(harness.Cluster):
    """Nodes n1, n2, … in namespaces. close() removes them, whatever happened."""

    def __init__(self, directory, count=3, shards=1, flags=(), seed=1):
        assert count <= NODES_MAX
        super().__init__(directory, 0, shards, ["--insecure", *flags])  # nodes listen on no loopback
        remove_stale()
        self.switch = None
        self.rules = {}
        self.namespaces = []
        try:
            self._build(directory, count, seed)
        except BaseException:
            self._remove()
            raise

    def _build(self, directory, count, seed):
        subnet = self._free_subnet()
        for i in range(count):
            self._add_node(pathlib.Path(directory), i + 1, subnet)
        hosts = [f"{node.name}={node.peer_host}={self._device('t', node)}" for node in self.nodes]
        self.switch = subprocess.Popen([sys.executable, str(pathlib.Path(__file__).with_name("netswitch.py")),
                                        str(seed), *hosts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.switch.stdout.readline() == "ready\n", "the switch did not start; its error is above"
        for node in self.nodes:
            device = self._device("t", node)
            ip("link", "set", device, "netns", node.namespace)
            ip("-n", node.namespace, "addr", "add", f"{node.peer_host}/24", "dev", device)
            ip("-n", node.namespace, "link", "set", device, "up")

    @staticmethod
    def _device(kind, node):
        """At most 15 bytes: a process id has 7 digits."""
        return f"r{kind}{os.getpid()}{node.name}"

    @staticmethod
    def _free_subnet():
        """Number of a subnet of 64 addresses that no other run on this machine uses."""
        used = ip("-4", "-o", "addr", "show")
        for attempt in range(SUBNETS):
            subnet = (os.getpid() + attempt) % SUBNETS
            if f" {CLIENT_NETWORK}.{subnet // 4}.{subnet % 4 * 64 + 1}/" not in used:
                return subnet
        raise OSError(f"every subnet of {CLIENT_NETWORK}.0.0/16 is in use")

    def _add_node(self, directory, number, subnet):
        """A namespace, and the wire on which clients reach it: 4 addresses each."""
        host = f"{CLIENT_NETWORK}.{subnet // 4}.{{}}"
        first = subnet % 4 * 64 + (number - 1) * 4
        name = f"n{number}"
        namespace = f"{PREFIX}-{os.getpid()}-{name}"
        node = NetnsNode(name, directory / name, namespace, host.format(first + 2), f"10.0.0.{number}")
        ip("netns", "add", namespace)
        self.namespaces.append(namespace)
        ours = self._device("v", node)
        ip("link", "add", ours, "type", "veth", "peer", "name", "clients", "netns", namespace)
        ip("addr", "add", f"{host.format(first + 1)}/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", namespace, "addr", "add", f"{node.client_host}/30", "dev", "clients")
        ip("-n", namespace, "link", "set", "clients", "up")
        ip("-n", namespace, "link", "set", "lo", "up")
        self.nodes.append(node)

    # ---- faults --------------------------------------------------------------------------------------------

    def _apply(self):
        lines = {f"{source}>{target}": rule for (source, target), rule in self.rules.items()}
        self.switch.stdin.write(json.dumps(lines) + "\n")
        self.switch.stdin.flush()
        assert self.switch.stdout.readline() == "ok\n", "the switch ended"

    def _rule(self, source, target):
        return self.rules.setdefault((source.name, target.name), [0, 0])

    def _others(self, node):
        return [other for other in self.nodes if other is not node]

    def one_way(self, deaf, source):
        """`deaf` hears nothing of `source` any more; the other direction stays."""
        self._rule(source, deaf)[0] = 1
        self._apply()

    def partition(self, side, other_side):
        """No packet passes between the two groups of nodes (or single nodes)."""
        for a in side if isinstance(side, list) else [side]:
            for b in other_side if isinstance(other_side, list) else [other_side]:
                self._rule(a, b)[0] = self._rule(b, a)[0] = 1
        self._apply()

    def isolate(self, node):
        self.partition(node, self._others(node))

    def loss(self, nodes, percent):
        """Each packet that one of these nodes sends or is sent is lost with this probability."""
        for node in nodes if isinstance(nodes, list) else [nodes]:
            for other in self._others(node):
                self._rule(node, other)[0] = self._rule(other, node)[0] = percent / 100
        self._apply()

    def delay(self, node, delay_ms):
        """What the node sends takes that long, as with netem on its interface."""
        for other in self._others(node):
            self._rule(node, other)[1] = delay_ms
        self._apply()

    def heal(self):
        self.rules.clear()
        self._apply()

    # ---- the end -------------------------------------------------------------------------------------------

    def _remove(self):
        if self.switch is not None:
            self.switch.stdin.close()
            self.switch.wait()
            self.switch.stdout.close()
            self.switch = None
        for node in self.nodes:
            subprocess.run(["ip", "link", "del", self._device("v", node)], capture_output=True, check=False)
        for namespace in self.namespaces:
            remove_namespace(namespace)
        self.namespaces.clear()

    def close(self):
        try:
            super().close()
        finally:
            self._remove()
