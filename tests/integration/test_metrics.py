"""GET /metrics: the text format to the letter, and counters that move as they should.

The parser below takes version 0.0.4 of the text exposition format and refuses whatever a strict reader could: it knows
nothing of Rondo.
"""

import math
import re

import pytest

import harness
from harness import until

METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]Inf|NaN")
TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
ESCAPES = {"\\": "\\", '"': '"', "n": "\n"}
SUFFIXES = ("_bucket", "_sum", "_count")


class Family:
    def __init__(self, name, help_text):
        self.name, self.help, self.type = name, help_text, None
        self.samples = {}  # (name, labels as a sorted tuple of pairs) -> number


def parse_number(text):
    assert NUMBER.fullmatch(text), f"no number: {text!r}"
    return float(text.replace("Inf", "inf").replace("NaN", "nan"))


def parse_labels(text):
    """The labels between the braces at the start of text, and the rest after them."""
    labels = {}
    at = 1
    while text[at] != "}":
        name = LABEL_NAME.match(text, at)
        assert name, f"no label name at {text[at:]!r}"
        assert not name.group().startswith("__"), f"reserved label {name.group()}"
        at = name.end()
        assert text[at:at + 2] == '="', f"no value at {text[at:]!r}"
        at += 2
        value = ""
        while text[at] != '"':
            if text[at] == "\\":
                at += 1
                value += ESCAPES[text[at]]
            else:
                value += text[at]
            at += 1
        at += 1
        assert name.group() not in labels, f"label {name.group()} twice"
        labels[name.group()] = value
        if text[at] == ",":
            at += 1
            assert text[at] != "}", "a comma before the brace"
        else:
            assert text[at] == "}", f"neither comma nor brace at {text[at:]!r}"
    return labels, text[at + 1:]


def parse_sample(line):
    name = METRIC_NAME.match(line)
    assert name, f"no metric name: {line!r}"
    rest = line[name.end():]
    labels = {}
    if rest.startswith("{"):
        labels, rest = parse_labels(rest)
    assert rest.startswith(" "), f"no space before the number: {line!r}"
    return name.group(), labels, parse_number(rest[1:])


def family_of(families, name):
    """The family of a sample: all lines of one stand together, so it is the last."""
    assert families, f"{name} has no HELP"
    last = list(families.values())[-1]
    names = [last.name + suffix for suffix in SUFFIXES] if last.type == "histogram" else [last.name]
    assert name in names, f"{name} is not under its own HELP and TYPE, but under those of {last.name}"
    return last


def parse(text):
    """name -> Family. Asserts what the format asks for."""
    families = {}
    assert text.endswith("\n"), "the last line has no end"
    assert "\r" not in text
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, help_text = line[len("# HELP "):].split(" ", 1)
            assert METRIC_NAME.fullmatch(name), line
            assert name not in families, f"{name} has two HELP lines, or its lines do not stand together"
            assert help_text.strip() and not re.search(r"\\[^\\n]", help_text), line
            families[name] = Family(name, help_text)
        elif line.startswith("# TYPE "):
            name, kind = line[len("# TYPE "):].split(" ")
            assert kind in TYPES, line
            assert families and name == list(families)[-1], f"TYPE of {name} does not follow its HELP"
            family = families[name]
            assert family.type is None and not family.samples, f"TYPE of {name} comes twice or late"
            family.type = kind
        else:
            name, labels, number = parse_sample(line)
            family = family_of(families, name)
            assert family.type is not None, f"{name} has no TYPE"
            key = (name, tuple(sorted(labels.items())))
            assert key not in family.samples, f"{key} twice"
            family.samples[key] = number
    for family in families.values():
        check_family(family)
    return families


def check_family(family):
    """What the type and the conventions for names ask for."""
    assert family.type is not None, f"{family.name} has no TYPE"
    assert family.name.endswith("_total") == (family.type == "counter"), f"{family.name} is a {family.type}"
    assert not re.search(r"_(milliseconds|microseconds|ms|us|kilobytes|megabytes|percent)(_total)?$", family.name)
    if family.type == "counter":
        assert all(number >= 0 for number in family.samples.values()), family.name
    if family.type == "histogram":
        check_histogram(family)


def check_histogram(family):
    series = {}
    for (name, labels), number in family.samples.items():
        labels = dict(labels)
        edge = labels.pop("le", None)
        assert (edge is not None) == name.endswith("_bucket"), f"le of {name}"
        one = series.setdefault(tuple(sorted(labels.items())), {"buckets": []})
        if edge is not None:
            one["buckets"].append((parse_number(edge), number))
        else:
            one[name[len(family.name):]] = number
    assert series, f"{family.name} has no series"
    for one in series.values():
        edges = [edge for edge, _ in one["buckets"]]
        counts = [count for _, count in one["buckets"]]
        assert edges == sorted(set(edges)) and edges[-1] == math.inf, f"edges of {family.name}"
        assert counts == sorted(counts), f"{family.name} is not cumulative"
        assert counts[-1] == one["_count"] and one["_sum"] >= 0, f"count of {family.name}"


def scrape(node):
    answer = node.http("GET", "/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


def value(families, name, **labels):
    """The value of one sample; 0 for a labelled one that is not shown."""
    family_name = name
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name not in families:
            family_name = name[:-len(suffix)]
    samples = families[family_name].samples
    key = (name, tuple(sorted(labels.items())))
    return samples.get(key, 0) if labels else samples[key]


def now(node, name, **labels):
    return value(scrape(node), name, **labels)


def nodes_by_state(node):
    return {state: now(node, "rondo_nodes", state=state) for state in ("alive", "suspect", "dead")}


def total(cluster, name, **labels):
    return sum(value(scrape(node), name, **labels) for node in cluster if node.running())


# ---- the parser itself --------------------------------------------------------------------------------------

WELL = '# HELP a_total x\n# TYPE a_total counter\na_total{k="v\\"\\\\\\n"} 1\n'


def test_parser_takes_what_is_well_formed():
    assert parse(WELL)["a_total"].samples == {("a_total", (("k", 'v"\\\n'),)): 1}


@pytest.mark.parametrize("text", [
    WELL[:-1],
    WELL + 'a_total{k="v\\"\\\\\\n"} 1\n',
    WELL.replace("a_total", "a"),
    WELL.replace(" 1", " one"),
    WELL.replace(" 1", ""),
    WELL.replace('k="', '1k="'),
    WELL.replace("# TYPE a_total counter\n", ""),
    WELL.replace("# HELP a_total x\n", ""),
    WELL.replace("a_total{", "b_total{"),
    WELL + "\n",
    WELL + WELL,
    '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n',
    '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n',
    '# HELP h x\n# TYPE h histogram\nh_bucket{le="+Inf"} 2\nh_sum 1\nh_count 1\n',
])
def test_parser_refuses_what_is_not(text):
    with pytest.raises((AssertionError, ValueError, KeyError, IndexError)):
        parse(text)


# ---- what a node shows --------------------------------------------------------------------------------------

def test_every_node_shows_well_formed_metrics_from_its_start(cluster):
    for node in cluster:
        families = scrape(node)
        status = node.status()
        assert value(families, "rondo_build_info", version=status["version"]) == 1
        assert value(families, "rondo_node_info", node=node.name, id=status["id"], cluster=status["cluster"],
                     durability=status["durability"]) == 1
        assert value(families, "rondo_ring_epoch") == status["epoch"]
        assert value(families, "rondo_shards") == status["shards"]
        assert value(families, "rondo_serving") == 1
        assert 0 < value(families, "rondo_memory_used_bytes") < value(families, "rondo_memory_budget_bytes")
        assert value(families, "process_start_time_seconds") > 1.6e9
        peers = families["rondo_peer_reachable"].samples
        assert {dict(labels)["peer"]: number for (_, labels), number in peers.items()} == {
            other.name: 1 for other in cluster if other is not node}


def test_disk_and_process_are_known_soon(cluster):
    def known():
        families = scrape(cluster[0])
        return (value(families, "process_resident_memory_bytes") > 1 << 20
                and value(families, "rondo_disk_free_bytes") > 0)
    until(known, "facts of the disk and the process")
    cluster[0].client().set("facts", "x")
    until(lambda: value(scrape(cluster[0]), "rondo_log_written_bytes_total") > 0, "the log's bytes")
    assert value(scrape(cluster[0]), "rondo_log_segments") > 0


def test_head_has_no_body_and_other_methods_are_refused(cluster):
    assert cluster[0].http("HEAD", "/metrics").content == b""
    assert cluster[0].http("POST", "/metrics").status_code == 405
    assert cluster[0].http("GET", "/metrics?x=1").status_code == 400


@pytest.mark.parametrize("words, labels", [
    (("RONDO.PUT", "k", "v", "W", "all"), {"operation": "put", "consistency": "all"}),
    (("RONDO.PUT", "k", "v"), {"operation": "put", "consistency": "quorum"}),
    (("RONDO.PUT", "k", "v", "W", "1"), {"operation": "put", "consistency": "one"}),
    (("RONDO.GET", "k", "R", "one"), {"operation": "get", "consistency": "one"}),
    (("RONDO.GET", "k", "R", "2"), {"operation": "get", "consistency": "2"}),
    (("EXPIRE", "k", "100"), {"operation": "expire", "consistency": "quorum"}),
    (("DEL", "k"), {"operation": "delete", "consistency": "quorum"}),
])
def test_requests_are_counted_by_operation_outcome_and_consistency(cluster, words, labels):
    before = scrape(cluster[1])
    cluster[1].client().execute_command(*words)
    after = scrape(cluster[1])
    changed = {key for key, number in after["rondo_requests_total"].samples.items()
               if number != before["rondo_requests_total"].samples.get(key, 0)}
    assert changed == {("rondo_requests_total", tuple(sorted({**labels, "outcome": "done"}.items())))}
    assert value(after, "rondo_requests_total", outcome="done", **labels) == 1 + value(
        before, "rondo_requests_total", outcome="done", **labels)
    operation = "read" if labels["operation"] == "get" else "write"
    for name in ("rondo_request_duration_seconds_count", "rondo_replica_wait_seconds_count"):
        assert value(after, name, operation=operation) == value(before, name, operation=operation) + 1


def test_request_for_more_replicas_than_there_are_is_not_applied(cluster):
    labels = {"operation": "put", "outcome": "not_applied", "consistency": "5"}
    before = value(scrape(cluster[0]), "rondo_requests_total", **labels)
    assert cluster[0].http("PUT", "/put?key=k&w=5", data=b"v").status_code == 400
    assert value(scrape(cluster[0]), "rondo_requests_total", **labels) == before + 1


def test_writes_take_time_and_make_batches(cluster):
    before = scrape(cluster[0])
    client = cluster[0].client()
    for i in range(50):
        client.set(f"timed{i}", "v")
    after = scrape(cluster[0])
    assert value(after, "rondo_request_duration_seconds_sum", operation="write") > value(
        before, "rondo_request_duration_seconds_sum", operation="write")
    assert value(after, "rondo_log_durable_seconds_count") > value(before, "rondo_log_durable_seconds_count")
    assert value(after, "rondo_rows") > value(before, "rondo_rows")


def test_clients_are_counted_while_they_are_connected(cluster):
    node = cluster[2]
    until(lambda: value(scrape(node), "rondo_clients_connected") == 1, "only the one that asks")
    with harness.RawResp(node.resp_port) as one, harness.RawResp(node.resp_port) as other:
        assert one.reply("PING") and other.reply("PING")
        assert value(scrape(node), "rondo_clients_connected") == 3
    until(lambda: value(scrape(node), "rondo_clients_connected") == 1, "the others to have left")


def test_shortfalls_and_reachability_when_nodes_are_gone(make_cluster):
    cluster = make_cluster()
    node = cluster[0]
    assert value(scrape(node), "rondo_quorum_shortfalls_total") == 0
    cluster[1].kill()
    cluster[2].kill()
    until(lambda: sum(scrape(node)["rondo_peer_reachable"].samples.values()) == 0, "n1 to miss the others")
    assert node.http("PUT", "/put?key=k", data=b"v").status_code == 503
    assert node.http("GET", "/get?key=k").status_code == 503
    families = scrape(node)
    assert value(families, "rondo_quorum_shortfalls_total") == 2
    for operation in ("get", "put"):
        assert value(families, "rondo_requests_total", operation=operation, outcome="not_applied",
                     consistency="quorum") == 1
    cluster.start()
    until(lambda: sum(scrape(node)["rondo_peer_reachable"].samples.values()) == 2, "all to be back")


def test_missed_writes_are_hints_until_their_nodes_are_back(make_cluster):
    cluster = make_cluster()
    cluster[1].kill()
    cluster[2].kill()
    until(lambda: sum(scrape(cluster[0])["rondo_peer_reachable"].samples.values()) == 0, "n1 to be alone")
    assert cluster[0].http("PUT", "/put?key=k&w=1", data=b"v").status_code == 200
    until(lambda: now(cluster[0], "rondo_hints") == 2, "a hint for each of the others")
    assert now(cluster[0], "rondo_hints_stored_total") == 2 and now(cluster[0], "rondo_hint_bytes") > 0
    cluster.start()
    until(lambda: now(cluster[0], "rondo_hints") == 0, "the hints to be replayed")
    assert now(cluster[0], "rondo_hints_replayed_total") == 2 and now(cluster[0], "rondo_hint_bytes") == 0


def test_gossip_tells_which_nodes_are_dead(make_cluster):
    cluster = make_cluster()
    until(lambda: nodes_by_state(cluster[0]) == {"alive": 3, "suspect": 0, "dead": 0}, "all to be alive")
    until(lambda: now(cluster[0], "rondo_gossip_messages_sent_total") > 0, "gossip to be sent")
    until(lambda: now(cluster[0], "rondo_gossip_messages_received_total") > 0, "gossip to come")
    cluster[2].kill()
    until(lambda: nodes_by_state(cluster[0]) == {"alive": 2, "suspect": 0, "dead": 1}, "n3 to be dead")
