"""What the programs that judge a node share: one node and its figures, `rondo bench`, and verdicts."""

import json
import pathlib
import subprocess
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "integration"))

import harness  # noqa: E402

MIB = 1 << 20


def say(text):
    print(text, file=sys.stderr, flush=True)


def bytes_of(text):
    """"256MB", "1G", "64m" or a number, as rondod reads it (powers of 1024)."""
    text = text.strip().upper().removesuffix("B")
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    return int(text if unit == 1 else text[:-1]) * unit


class Measured:
    """One rondod on this machine."""

    def __init__(self, directory, memory_bytes, flags=()):
        self.cluster = harness.Cluster(directory, count=1, flags=["--memory", memory_bytes, *flags])
        self.node = self.cluster[0]
        self.memory_bytes = memory_bytes

    def start(self, shards):
        self.cluster.shards = shards
        self.cluster.start()

    def close(self):
        self.cluster.close()

    def metrics(self):
        """Every sample of /metrics whose name has no labels, and histograms' counts."""
        with urllib.request.urlopen(self.node.url + "/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def memory(self, name):
        """VmHWM (the greatest resident set so far) or VmRSS, in bytes."""
        for line in pathlib.Path(f"/proc/{self.node.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise KeyError(name)

    def disk(self):
        """Bytes that the data directory takes, by its parts."""
        taken = {}
        for path in self.node.data.rglob("*"):
            try:
                if path.is_file():
                    part = path.relative_to(self.node.data).parts[0]
                    taken[part] = taken.get(part, 0) + path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return taken

    def command(self, *words):
        return [str(harness.RONDO), "--json", "bench", self.node.resp_address, *map(str, words)]

    def bench(self, *words):
        """What `rondo bench --json` told."""
        return told(subprocess.run(self.command(*words), capture_output=True, text=True, check=False))

    def bench_start(self, *words):
        return subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def told(done):
    """The JSON of a finished rondo bench; wrong values end everything: no figure matters then."""
    if not done.stdout:
        raise RuntimeError(f"rondo bench ended with {done.returncode}: {done.stderr}")
    found = json.loads(done.stdout)
    if found.get("damaged_values", 0) + found.get("foreign_values", 0) > 0:
        raise RuntimeError(f"WRONG VALUES: {found}")
    return found


def finish(process):
    out, error = process.communicate()
    return told(subprocess.CompletedProcess(process.args, process.returncode, out, error))


class Verdicts:
    """Figures and whether they reach their goals."""

    def __init__(self):
        self.lines = []

    def figure(self, name, text, value):
        self.lines.append({"what": name, "figure": text, "value": value})
        say(f"  {name}: {text}")

    def judge(self, name, text, value, goal, good):
        self.lines.append({"what": name, "figure": text, "value": value, "goal": goal, "pass": bool(good)})
        say(f"  {'PASS' if good else 'FAIL'}  {name}: {text} (goal: {goal})")

    def print(self, title):
        print(title)
        for line in self.lines:
            verdict = "" if "pass" not in line else "PASS" if line["pass"] else "FAIL"
            goal = f"   (goal: {line['goal']})" if "goal" in line else ""
            print(f"{verdict:5} {line['what']:44} {line['figure']}{goal}")

    def write_json(self, path, facts):
        text = json.dumps({**facts, "results": self.lines}, indent=2)
        if path == "-":
            print(text)
        else:
            pathlib.Path(path).write_text(text + "\n")

    def good(self):
        return all(line.get("pass", True) for line in self.lines)
