"""The node's log: every line can be read by a machine, in both formats, and levels are kept to."""

import json
import re

import pytest

LINE = re.compile(r'ts=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) level=(error|warning|info|debug) node=(\S+) '
                  r'shard=(\d+) msg="((?:[^"\\]|\\.)*)"')


def lines(node):
    """(time, level, node, shard, message) of every line, whatever its format."""
    found = []
    for line in node.log().splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            assert list(fields) == ["ts", "level", "node", "shard", "msg"], line
            found.append((fields["ts"], fields["level"], fields["node"], fields["shard"], fields["msg"]))
        else:
            match = LINE.fullmatch(line)
            assert match, line
            found.append((match[1], match[2], match[3], int(match[4]), match[5]))
    return found


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_every_line_names_time_level_node_and_shard(make_cluster, form):
    cluster = make_cluster(flags=["--log-format", form])
    cluster.stop()
    for node in cluster:
        said = lines(node)
        assert all(line.startswith("{") == (form == "json") for line in node.log().splitlines())
        assert {name for _, _, name, _, _ in said} == {node.name}
        assert any("listening" in message for *_, message in said)
        assert any("SIGTERM" in message for *_, message in said)
        assert [time for time, *_ in said] == sorted(time for time, *_ in said)


def test_lines_below_the_level_are_not_written(make_cluster):
    cluster = make_cluster(count=1, flags=["--log-level", "error"])
    cluster.stop()
    assert cluster[0].log() == ""


def test_name_is_known_from_the_directory_when_it_is_not_given(make_cluster):
    cluster = make_cluster(count=1)
    node = cluster[0]
    node.stop()
    before = len(node.log().splitlines())
    node.start(["--data", node.data, *node.listen_flags()])
    cluster.wait_node(node)
    node.stop()
    said = node.log().splitlines()[before:]
    listening = [line for line in said if "listening" in line]
    assert len(listening) == 1 and f"node={node.name} " in listening[0]
