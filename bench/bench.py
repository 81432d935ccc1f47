#!/usr/bin/env python3
"""Measures rondod against redis-server on this machine, or what healing costs a cluster: GET and SET, pipeline
depths 1 and 16.

Every server gets the same load from redis-benchmark (or, with --load rondo, from `rondo bench`, which also checks
what it reads): 50 connections, 100-byte values, random keys out of a fixed number that are all there before the first
GET. Servers take turns, one at a time and with an empty directory each round, and who goes first changes; figures are
medians over the rounds. Before it is measured each overwrites for a while (--warm), so that flush, compaction and
rewriting of append-only files are under way. CPU per command is the server's user and system time, all threads (of
three nodes: all three), divided by the commands of the run: it does not depend on how fast the load generator is.
Ratios are to Redis of the same promise: "always" to "always", "os" to "no"; three nodes (W = R = 2) have none.

    bench/bench.py                         everything, five rounds
    bench/bench.py --rounds 3 --requests 50000 --json figures.json
    bench/bench.py --only rondo            skip redis-server; --only single: skip the three nodes

What healing costs: three nodes at W = R = 2 whose replicas are equal, as they come (gossip, hints, repair, /metrics of
each node read once a second), against the same program with hints and repair off and nobody reading; and against
another build, if one is named. The clusters run side by side and take turns under load, so each round gives a ratio
of figures that are seconds apart; the load goes to one node, CPU is the sum of the three. Durability is "os": syncs
cost little CPU and would gather commands into batches that hide what each of them costs.

    bench/bench.py cluster
    bench/bench.py cluster --baseline /tmp/build-before --rounds 9
"""

import argparse
import csv
import io
import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import redis

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONNECTIONS = 50
VALUE_BYTES = 100
DEPTHS = (1, 16)
START_S = 60
NODES = 3
SCRAPE_S = 1
# Of the shards' timers, the slowest that has work right after a start is due by then.
SETTLE_S = 3
# What each promise of ours is compared with.
REDIS_LIKE = {"always": "always", "os": "no"}


class Server:
    """One configuration of one program."""

    def __init__(self, name, durability, words):
        self.name, self.durability, self.words = name, durability, words
        self.process, self.port, self.http_port, self.directory = None, None, None, None

    def start(self, directory):
        self.launch(directory, free_ports(3))
        self.wait()

    def launch(self, directory, ports, **more):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self.port, self.http_port, peer = ports
        words = [str(word).format(resp=self.port, http=self.http_port, peer=peer, directory=directory, **more)
                 for word in self.words]
        with open(directory / "output", "wb") as output:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            cwd=directory)

    def wait(self):
        deadline = time.monotonic() + START_S
        client = redis.Redis(port=self.port)
        while True:
            try:
                client.set("ready", "yes")
                break
            except redis.exceptions.RedisError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"bench: {self.name} does not answer ({error}):\n"
                             + (self.directory / "output").read_text(errors="replace"))
                time.sleep(0.05)

    def fill(self, keys):
        """Every key that the load can draw gets a value."""
        if load.by == "rondo":
            rondo_bench(self.port, "--fill", "--requests", 0, "--keys", keys)
            return
        pipeline = redis.Redis(port=self.port).pipeline(transaction=False)
        for number in range(keys):
            pipeline.set(f"key:{number:012}", "x" * VALUE_BYTES)
            if number % 1000 == 999 or number == keys - 1:
                pipeline.execute()

    def cpu_s(self):
        """User and system time of all threads, to the nanosecond: the process's CPU clock (clock_getcpuclockid)."""
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def run(self, command, depth, requests, keys):
        return load(self, self.port, command, depth, requests, keys)

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Cluster:
    """Three nodes of one program; with `scraped` somebody reads the metrics of each once a second."""

    def __init__(self, name, build, words, scraped=False, durability="os"):
        self.name, self.scraped, self.durability = name, scraped, durability
        rondod = pathlib.Path(build).resolve() / "rondod"
        self.nodes = [Server(f"{name}, n{number}", durability, [
            rondod, "--name", f"n{number}", "--data", "{directory}/data", "--resp", "127.0.0.1:{resp}",
            "--http", "127.0.0.1:{http}", "--initial-cluster", "{members}", "--shards", 1, "--durability", durability,
            *words]) for number in range(1, NODES + 1)]
        self.over, self.scraper = None, None

    def start(self, directory):
        ports = free_ports(3 * NODES)
        members = ",".join(f"n{number + 1}=127.0.0.1:{ports[3 * number + 2]}" for number in range(NODES))
        for number, node in enumerate(self.nodes):
            node.launch(directory / f"n{number + 1}", ports[3 * number:3 * number + 3], members=members)
        for node in self.nodes:
            node.wait()
        if self.scraped:
            self.over = threading.Event()
            self.scraper = threading.Thread(target=self.scrape, daemon=True)
            self.scraper.start()

    def scrape(self):
        while not self.over.wait(SCRAPE_S):
            for node in self.nodes:
                with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/metrics", timeout=START_S) as answer:
                    answer.read()

    def fill(self, keys):
        self.nodes[0].fill(keys)

    def cpu_s(self):
        return sum(node.cpu_s() for node in self.nodes)

    def run(self, command, depth, requests, keys):
        return load(self, self.nodes[0].port, command, depth, requests, keys)

    def stop(self):
        if self.scraper is not None:
            self.over.set()
            self.scraper.join()
            self.scraper = None
        for node in self.nodes:
            node.stop()


def redis_benchmark(port, command, depth, requests, keys):
    """Operations per second."""
    out = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-t", command, "-n", str(requests), "-c", str(CONNECTIONS),
         "-d", str(VALUE_BYTES), "-P", str(depth), "-r", str(keys), "--csv"],
        capture_output=True, text=True, check=True).stdout
    rows = {row["test"].lower(): row for row in csv.DictReader(io.StringIO(out))}
    return float(rows[command]["rps"])


def rondo_bench(port, *words):
    """What `rondo bench` told; wrong values and errors end everything."""
    done = subprocess.run([str(load.program), "--json", "bench", f"127.0.0.1:{port}", "--connections", str(CONNECTIONS),
                           "--size", str(VALUE_BYTES), *map(str, words)], capture_output=True, text=True, check=False)
    told = json.loads(done.stdout) if done.stdout else {}
    if done.returncode != 0 or told["errors"] or told["misses"]:
        sys.exit(f"bench: rondo bench ended with {done.returncode}: {told or done.stderr}")
    return told


def load(server, port, command, depth, requests, keys):
    """(operations per second, microseconds of CPU per command) of one run."""
    before = server.cpu_s()
    if load.by == "rondo":
        ops_per_s = rondo_bench(port, "--reads", 100 if command == "get" else 0, "--depth", depth, "--requests",
                                requests, "--keys", keys)["per_second"]
    else:
        ops_per_s = redis_benchmark(port, command, depth, requests, keys)
    return ops_per_s, (server.cpu_s() - before) * 1e6 / requests


load.by, load.program = "redis", None


def free_ports(count):
    """Ports below the ephemeral range, so that the load's own connections cannot take them."""
    found = []
    while len(found) < count:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def servers(arguments):
    rondod = pathlib.Path(arguments.build).resolve() / "rondod"
    found = []
    if arguments.only != "rondo":
        for fsync in ("always", "no"):
            found.append(Server("redis", fsync, [
                "redis-server", "--port", "{resp}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
                "--appendfsync", fsync, "--dir", "{directory}"]))
    if arguments.only == "redis":
        return found
    for shards in dict.fromkeys((1, os.cpu_count() or 1)):
        for durability in ("always", "os"):
            found.append(Server(f"rondo K={shards}", durability, [
                rondod, "--name", "n1", "--data", "{directory}/data", "--resp", "127.0.0.1:{resp}",
                "--http", "127.0.0.1:{http}", "--peer", "127.0.0.1:{peer}", "--shards", shards,
                "--durability", durability, *arguments.flag]))
    if arguments.only != "single":
        for durability in ("always", "os"):
            found.append(Cluster("three nodes", arguments.build, arguments.flag, durability=durability))
    return found


def measure(arguments):
    runs = {}
    all_servers = servers(arguments)
    for number in range(arguments.rounds):
        first = number % len(all_servers)
        for server in all_servers[first:] + all_servers[:first]:
            server.start(pathlib.Path(arguments.directory).resolve() / "server")
            try:
                server.fill(arguments.keys)
                if arguments.warm > 0:
                    server.run("set", max(DEPTHS), arguments.warm, arguments.keys)
                for command in ("get", "set"):
                    for depth in DEPTHS:
                        requests = arguments.requests * (4 if depth > 1 else 1)
                        print(f"round {number + 1} of {arguments.rounds}: {server.name}, {server.durability}: "
                              f"{command.upper()} at depth {depth}", file=sys.stderr)
                        runs.setdefault((server.name, server.durability, command, depth), []).append(
                            server.run(command, depth, requests, arguments.keys))
            finally:
                server.stop()
    return [single_result(runs, *kind) for kind in sorted(runs)]


def medians(figures):
    return statistics.median(run[0] for run in figures), statistics.median(run[1] for run in figures)


def single_result(runs, name, durability, command, depth):
    ops, cpu = medians(runs[name, durability, command, depth])
    result = {"server": name, "durability": durability, "command": command.upper(), "depth": depth,
              "ops_per_s": round(ops), "cpu_us_per_command": round(cpu, 2)}
    redis_kind = ("redis", REDIS_LIKE[durability], command, depth) if durability in REDIS_LIKE else None
    if redis_kind in runs and name.startswith("rondo"):
        redis_ops, redis_cpu = medians(runs[redis_kind])
        result["ops_to_redis"] = round(ops / redis_ops, 3)
        result["cpu_to_redis"] = round(cpu / redis_cpu, 3)
    return result


# ---- what healing costs ------------------------------------------------------------------------------------


def clusters(arguments):
    found = [Cluster("healing", arguments.build, [], scraped=True),
             Cluster("hints and repair off", arguments.build, ["--hints", "off", "--repair", "off"])]
    if arguments.baseline is not None:
        found.append(Cluster("baseline", arguments.baseline, []))
    return found


def measure_clusters(arguments):
    runs = {}
    all_clusters = clusters(arguments)
    directory = pathlib.Path(arguments.directory).resolve()
    for number in range(arguments.rounds):
        try:
            for cluster in all_clusters:
                cluster.start(directory / f"cluster-{cluster.name.replace(' ', '-')}")
                cluster.fill(arguments.keys)
            time.sleep(SETTLE_S)
            for command in ("get", "set"):
                for depth in DEPTHS:
                    requests = arguments.requests * (4 if depth > 1 else 1)
                    print(f"round {number + 1} of {arguments.rounds}: {command.upper()} at depth {depth}",
                          file=sys.stderr)
                    # Who goes first changes, so that nobody always finds the machine as the same other left it.
                    first = number % len(all_clusters)
                    for cluster in all_clusters[first:] + all_clusters[:first]:
                        runs.setdefault((cluster.name, command, depth), []).append(
                            cluster.run(command, depth, requests, arguments.keys))
        finally:
            for cluster in all_clusters:
                cluster.stop()
    return [cluster_result(runs, *kind) for kind in runs]


def cluster_result(runs, name, command, depth):
    figures, healing = runs[name, command, depth], runs["healing", command, depth]
    result = {"server": name, "command": command.upper(), "depth": depth,
              "ops_per_s": round(statistics.median(run[0] for run in figures)),
              "cpu_us_per_command": round(statistics.median(run[1] for run in figures), 2)}
    if name != "healing":
        result["healing_ops_ratio"] = round(statistics.median(
            mine[0] / other[0] for mine, other in zip(healing, figures)), 3)
        result["healing_cpu_ratio"] = round(statistics.median(
            mine[1] / other[1] for mine, other in zip(healing, figures)), 3)
    return result


def print_cluster_table(results):
    print(f"{'':12}{'cluster':24}{'ops/s':>10}{'CPU us':>10}   {'healing / this: ops':>20}{'CPU':>8}")
    for result in sorted(results, key=lambda each: (each["command"], each["depth"])):
        ratios = (f"   {result['healing_ops_ratio']:>20.3f}{result['healing_cpu_ratio']:>8.3f}"
                  if "healing_ops_ratio" in result else "")
        print(f"{result['command'] + ' ' + str(result['depth']):12}{result['server']:24}"
              f"{result['ops_per_s']:>10,}{result['cpu_us_per_command']:>10.2f}{ratios}")


def cell(result):
    """One server's figures for one command and depth; the ratios behind them are to Redis."""
    if result is None:
        return f"{'':>32}"
    ratios = (f"{result['ops_to_redis']:>7.2f}{result['cpu_to_redis']:>7.2f}" if "cpu_to_redis" in result
              else f"{'':>14}")
    return f"{result['ops_per_s']:>10,}{result['cpu_us_per_command']:>8.2f}{ratios}"


def print_table(results):
    columns = [(command, depth) for command in ("GET", "SET") for depth in DEPTHS]
    print(f"{'':22}" + "".join(f"{f'{command} depth {depth}':>32}" for command, depth in columns))
    print(f"{'server, durability':22}" + f"{'ops/s':>10}{'CPU us':>8}{'x ops':>7}{'x CPU':>7}" * len(columns))
    rows = {}
    for result in results:
        rows.setdefault((result["server"], result["durability"]), {})[result["command"], result["depth"]] = result
    for (name, durability), cells in rows.items():
        print(f"{name + ', ' + durability:22}" + "".join(cell(cells.get(column)) for column in columns))
    ratios = [result["cpu_to_redis"] for result in results if "cpu_to_redis" in result]
    if ratios:
        good = sum(ratio <= 1 for ratio in ratios)
        print(f"\nCPU per command not above Redis's: {good} of {len(ratios)} cases "
              f"(x: to Redis of the same promise; below 1 is better for CPU, above 1 for ops)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("servers", "cluster"), default="servers",
                        help="single servers (the default), or what healing costs a cluster")
    parser.add_argument("--rounds", type=int,
                        help="runs of each kind, of which the median is shown (5)")
    parser.add_argument("--requests", type=int, default=100_000, help="commands of a run at depth 1; four times at 16")
    parser.add_argument("--keys", type=int, default=100_000, help="different keys")
    parser.add_argument("--warm", type=int, default=200_000, help="overwrites before each server is measured")
    parser.add_argument("--load", choices=("redis", "rondo"), default="redis",
                        help="who makes the load: redis-benchmark or rondo bench")
    parser.add_argument("--flag", action="append", default=[], metavar="FLAG", help="one more word for rondod")
    parser.add_argument("--only", choices=("rondo", "redis", "single"),
                        help="one program only, or no clusters of three")
    parser.add_argument("--build", default=ROOT / "build", help="where rondod is")
    parser.add_argument("--baseline", metavar="BUILD", help="cluster: where another rondod is, to compare with")
    parser.add_argument("--directory", default=ROOT / "build" / "bench-data",
                        help="for the servers' data: on a real disk, or the syncs cost nothing")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE",
                        help="print JSON instead of the table, or write it to FILE beside it")
    arguments = parser.parse_args()
    for program in ("redis-server", "redis-benchmark"):
        if shutil.which(program) is None:
            sys.exit(f"bench: {program} is not installed; ./dev setup installs it")
    if arguments.rounds is None:
        arguments.rounds = 5
    load.by, load.program = arguments.load, pathlib.Path(arguments.build).resolve() / "rondo"
    results = measure(arguments) if arguments.part == "servers" else measure_clusters(arguments)
    text = json.dumps({"cores": os.cpu_count(), "connections": CONNECTIONS, "value_bytes": VALUE_BYTES,
                       "rounds": arguments.rounds, "load": arguments.load, "results": results}, indent=2)
    if arguments.json == "-":
        print(text)
        return
    if arguments.json:
        pathlib.Path(arguments.json).write_text(text + "\n")
    if arguments.part == "servers":
        print_table(results)
    else:
        print_cluster_table(results)


if __name__ == "__main__":
    main()
