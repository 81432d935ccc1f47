#!/usr/bin/env python3
"""Measures rondod against redis-server on this machine: GET and SET, pipeline depths 1 and 16.

Every server gets the same load from redis-benchmark: 50 connections, 100-byte values, random keys out of a fixed
number that are all there before the first GET. Servers take turns, one at a time and with an empty directory each
round; figures are medians over the rounds. CPU per command is the server's user and system time, all threads,
divided by the commands of the run: it does not depend on how fast the load generator is.

    bench/bench.py                     everything, three rounds
    bench/bench.py --rounds 5 --json   more rounds, for programs
    bench/bench.py --only rondo        skip redis-server
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
import time

import redis

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONNECTIONS = 50
VALUE_BYTES = 100
DEPTHS = (1, 16)
START_S = 60
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Server:
    """One configuration of one program."""

    def __init__(self, name, durability, words):
        self.name, self.durability, self.words = name, durability, words
        self.process, self.port, self.directory = None, None, None

    def start(self, directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        ports = free_ports(3)
        self.port = ports[0]
        words = [str(word).format(resp=ports[0], http=ports[1], peer=ports[2], directory=directory)
                 for word in self.words]
        with open(directory / "output", "wb") as output:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            cwd=directory)
        deadline = time.monotonic() + START_S
        client = redis.Redis(port=self.port)
        while True:
            try:
                client.set("ready", "yes")
                break
            except redis.exceptions.RedisError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"bench: {self.name} does not answer ({error}):\n"
                             + (directory / "output").read_text(errors="replace"))
                time.sleep(0.05)

    def fill(self, keys):
        """Every key that redis-benchmark -r can draw gets a value."""
        pipeline = redis.Redis(port=self.port).pipeline(transaction=False)
        for number in range(keys):
            pipeline.set(f"key:{number:012}", "x" * VALUE_BYTES)
            if number % 1000 == 999 or number == keys - 1:
                pipeline.execute()

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def run(self, command, depth, requests, keys):
        """(operations per second, microseconds of CPU per command) of one run."""
        before = self.cpu_s()
        out = subprocess.run(
            ["redis-benchmark", "-p", str(self.port), "-t", command, "-n", str(requests), "-c", str(CONNECTIONS),
             "-d", str(VALUE_BYTES), "-P", str(depth), "-r", str(keys), "--csv"],
            capture_output=True, text=True, check=True).stdout
        cpu_s = self.cpu_s() - before
        rows = {row["test"].lower(): row for row in csv.DictReader(io.StringIO(out))}
        return float(rows[command]["rps"]), cpu_s * 1e6 / requests

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


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
    if arguments.only != "redis":
        for shards in dict.fromkeys((1, os.cpu_count() or 1)):
            for durability in ("always", "os"):
                found.append(Server(f"rondo K={shards}", durability, [
                    rondod, "--name", "n1", "--data", "{directory}/data", "--resp", "127.0.0.1:{resp}",
                    "--http", "127.0.0.1:{http}", "--peer", "127.0.0.1:{peer}", "--shards", shards,
                    "--durability", durability]))
    return found


def measure(arguments):
    runs = {}
    all_servers = servers(arguments)
    for number in range(arguments.rounds):
        for server in all_servers:
            server.start(pathlib.Path(arguments.directory).resolve() / "server")
            try:
                server.fill(arguments.keys)
                for command in ("get", "set"):
                    for depth in DEPTHS:
                        requests = arguments.requests * (4 if depth > 1 else 1)
                        print(f"round {number + 1} of {arguments.rounds}: {server.name}, {server.durability}: "
                              f"{command.upper()} at depth {depth}", file=sys.stderr)
                        runs.setdefault((server.name, server.durability, command, depth), []).append(
                            server.run(command, depth, requests, arguments.keys))
            finally:
                server.stop()
    return [{"server": name, "durability": durability, "command": command.upper(), "depth": depth,
             "ops_per_s": round(statistics.median(run[0] for run in figures)),
             "cpu_us_per_command": round(statistics.median(run[1] for run in figures), 2)}
            for (name, durability, command, depth), figures in runs.items()]


def print_table(results):
    columns = [(command, depth) for command in ("GET", "SET") for depth in DEPTHS]
    print(f"{'':24}" + "".join(f"{f'{command} depth {depth}':>22}" for command, depth in columns))
    print(f"{'server, durability':24}" + f"{'ops/s':>12}{'CPU us':>10}" * len(columns))
    rows = {}
    for result in results:
        rows.setdefault((result["server"], result["durability"]), {})[result["command"], result["depth"]] = result
    for (name, durability), cells in rows.items():
        print(f"{name + ', ' + durability:24}" + "".join(
            f"{cells[column]['ops_per_s']:>12,}{cells[column]['cpu_us_per_command']:>10.2f}" for column in columns))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, of which the median is shown")
    parser.add_argument("--requests", type=int, default=100_000, help="commands of a run at depth 1; four times at 16")
    parser.add_argument("--keys", type=int, default=100_000, help="different keys")
    parser.add_argument("--only", choices=("rondo", "redis"), help="measure one program only")
    parser.add_argument("--build", default=ROOT / "build", help="where rondod is")
    parser.add_argument("--directory", default=ROOT / "build" / "bench-data",
                        help="for the servers' data: on a real disk, or the syncs cost nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    for program in ("redis-server", "redis-benchmark"):
        if shutil.which(program) is None:
            sys.exit(f"bench: {program} is not installed; ./dev setup installs it")
    results = measure(arguments)
    if arguments.json:
        print(json.dumps({"cores": os.cpu_count(), "connections": CONNECTIONS, "value_bytes": VALUE_BYTES,
                          "rounds": arguments.rounds, "results": results}, indent=2))
    else:
        print_table(results)


if __name__ == "__main__":
    main()
