"""Writers and readers that run across faults, and the oracle for what they saw.

Each key has one writer, which writes 1, 2, 3, … to it; so any two values of a key say which one is newer. Every
operation is remembered with its interval (one clock: all clients are threads of this process), and its outcome: done,
not applied, or unknown. `violations` then judges by real time alone:

 - once a number was acknowledged or read, no read that starts later returns a lower one (so no acknowledged write is
   lost, and reads never go back);
 - a read returns nothing that was not written by its end, and nothing whose writer was told "not applied".
"""

import random
import threading
import time

import redis

from harness import RawResp, until

KEYS_PER_WRITER = 8

# Between two operations of one thread: all of them and the nodes share few cores.
PAUSE_S = 0.002

# After an unknown outcome. The write may take effect later; the next one has the higher stamp, at whatever node, once
# the clock has moved on. That it is one clock is what makes the plain order of numbers an exact oracle.
PAUSE_UNKNOWN_S = 0.01

# Codes of answers after which nothing was applied (docs/resp.md); whatever else is no "OK" leaves it open.
NOT_APPLIED = ("CLUSTERDOWN", "TRYAGAIN", "TIMEOUT", "OVERLOADED", "CLOCK_SKEW")

DONE, NOT_DONE, UNKNOWN = "done", "not applied", "unknown"


class Operation:
    __slots__ = ("node", "key", "number", "write", "start", "end", "outcome", "error")

    def __init__(self, node, key, number, write):
        self.node, self.key, self.number, self.write = node, key, number, write
        self.start, self.end, self.outcome, self.error = time.monotonic(), None, None, None

    def __repr__(self):
        verb = "write" if self.write else "read"
        return f"{verb} of {self.number} at {self.node} [{self.start:.4f}, {self.end:.4f}] {self.outcome}"


class Client:
    """A thread's connections, one per node, at R = W = 2. Not to be shared."""

    def __init__(self):
        self.connections = {}

    def _connection(self, node):
        if node.name not in self.connections:
            raw = RawResp(node.resp_port, node.client_host)
            self.connections[node.name] = raw
            assert raw.reply("RONDO.CONSISTENCY", "R", 2, "W", 2) == b"OK"
        return self.connections[node.name]

    def run(self, node, key, number=None):
        """Writes the number, or reads without one. Returns the finished operation."""
        operation = Operation(node.name, key, number, number is not None)
        try:
            raw = self._connection(node)
            reply = raw.reply("SET", key, number) if operation.write else raw.reply("GET", key)
        except (OSError, EOFError) as error:
            self.close(node)
            reply = error
        operation.end = time.monotonic()
        if not isinstance(reply, Exception):
            operation.outcome = DONE
            if not operation.write:
                operation.number = int(reply or 0)
            return operation
        answered = isinstance(reply, redis.exceptions.ResponseError)
        operation.error = str(reply) or repr(reply)
        not_applied = answered and operation.error.startswith(NOT_APPLIED)
        operation.outcome = NOT_DONE if not_applied else UNKNOWN
        return operation

    def close(self, node=None):
        for name in [node.name] if node else list(self.connections):
            raw = self.connections.pop(name, None)
            if raw:
                raw.socket.close()


class Worker(threading.Thread):
    """One writer or reader, at one node or (node None) at a random one each time."""

    def __init__(self, workload, name, node, keys, seed):
        super().__init__(name=name, daemon=True)
        self.workload, self.node, self.keys = workload, node, keys
        self.numbers = dict.fromkeys(keys, 0)
        self.random = random.Random(seed)
        self.operations = []
        self.done_count = 0

    def run(self):
        client = Client()
        nodes = self.workload.cluster.nodes
        readable = self.workload.keys
        while not self.workload.stopping.is_set():
            node = self.node or self.random.choice(nodes)
            if self.keys:
                key = self.random.choice(self.keys)
                self.numbers[key] += 1
                operation = client.run(node, key, self.numbers[key])
            else:
                operation = client.run(node, self.random.choice(readable))
            self.operations.append(operation)
            self.done_count += operation.outcome == DONE
            time.sleep(PAUSE_UNKNOWN_S if operation.outcome == UNKNOWN else PAUSE_S)
        client.close()


class Workload:
    """A writer and a reader at each node, and a writer that goes from node to node."""

    def __init__(self, cluster, seed=1):
        self.cluster = cluster
        self.stopping = threading.Event()
        self.final_reads = []
        self.workers = []
        writers = [*cluster.nodes, None]
        names = [f"writer-{node.name if node else 'roaming'}" for node in writers]
        keys = [[f"{name}:{i}" for i in range(KEYS_PER_WRITER)] for name in names]
        self.keys = [key for some in keys for key in some]
        for i, (name, node) in enumerate(zip(names, writers)):
            self.workers.append(Worker(self, name, node, keys[i], f"{seed} {name}"))
        for node in cluster.nodes:
            name = f"reader-{node.name}"
            self.workers.append(Worker(self, name, node, [], f"{seed} {name}"))

    def start(self):
        for worker in self.workers:
            worker.start()
        self.wait_done(self.cluster.nodes, 20)
        return self

    def at(self, nodes):
        return [worker for worker in self.workers if worker.node in nodes]

    def wait_done(self, nodes, count):
        """Until the writer and the reader of each of these nodes have done `count` more operations."""
        for worker, before in [(worker, worker.done_count) for worker in self.at(nodes)]:
            until(lambda worker=worker, before=before: worker.done_count >= before + count,
                  f"{worker.name} to do {count} operations; its last ones: {worker.operations[-3:]}")

    def wait_tried(self, nodes, count):
        """The same, whatever comes out."""
        for worker, before in [(worker, len(worker.operations)) for worker in self.at(nodes)]:
            until(lambda worker=worker, before=before: len(worker.operations) >= before + count,
                  f"{worker.name} to try {count} operations")

    def stop(self):
        self.stopping.set()
        for worker in self.workers:
            worker.join()

    def read_all(self):
        """Every key at every node: what the acknowledged writes left. Each read must succeed."""
        client = Client()
        for node in self.cluster.nodes:
            for key in self.keys:
                operation = client.run(node, key)
                assert operation.outcome == DONE, f"the cluster is whole, but {operation}: {operation.error}"
                self.final_reads.append(operation)
        client.close()

    def operations(self):
        """All that have ended, in the order of their ends."""
        found = [operation for worker in self.workers for operation in list(worker.operations)]
        return sorted(found + self.final_reads, key=lambda operation: operation.end)

    def errors(self, since=0.0, nodes=None):
        names = None if nodes is None else {node.name for node in nodes}
        return [operation for operation in self.operations()
                if operation.outcome != DONE and operation.end >= since and (names is None or operation.node in names)]

    def violations(self):
        by_key = {key: [] for key in self.keys}
        for operation in self.operations():
            by_key[operation.key].append(operation)
        return [problem for key, operations in by_key.items() for problem in violations_of_key(key, operations)]


def violations_of_key(key, operations):
    """What the operations on one key, in the order of their ends, show to be wrong."""
    found = []
    writes = {operation.number: operation for operation in operations if operation.write}
    reads = [operation for operation in operations if not operation.write and operation.outcome == DONE]
    known = [operation for operation in operations if operation.outcome == DONE]
    floor, at = None, 0
    for read in sorted(reads, key=lambda operation: operation.start):
        while at < len(known) and known[at].end < read.start:
            if floor is None or known[at].number > floor.number:
                floor = known[at]
            at += 1
        if floor is not None and read.number < floor.number:
            found.append(f"{key}: {read} after {floor}")
        write = writes.get(read.number)
        if read.number > 0 and (write is None or write.start > read.end):
            found.append(f"{key}: {read}, which nobody had written")
        elif write is not None and write.outcome == NOT_DONE:
            found.append(f"{key}: {read}, but {write}: {write.error}")
    return found
