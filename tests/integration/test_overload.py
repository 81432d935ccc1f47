"""Clients that ask for too much: who does not read, does not finish a request, or idles is cut off; memory stays
bounded, and everybody else is served."""

import select
import socket

import pytest

from harness import PATIENCE_S, until

MIB = 1 << 20

# What a process takes beside its budget at 64M: code, threads' stacks, libraries, fragmentation. Sanitizers take more,
# and their builds are not measured.
MEMORY_BESIDE = 64 * MIB


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def peak_resident(node):
    with open(f"/proc/{node.process.pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def sanitized(node):
    with open(f"/proc/{node.process.pid}/maps", encoding="ascii", errors="replace") as maps:
        return "asan" in maps.read()


def send_while_possible(connection, data):
    """Sends, never reading, until the other side stops reading or ends the connection. True: ended."""
    connection.settimeout(2)
    try:
        while True:
            connection.sendall(data)
    except TimeoutError:
        return False
    except OSError:
        return True


def ended(connection):
    """Whether the other side has ended the connection; answers before that are thrown away."""
    connection.settimeout(0.05)
    try:
        return connection.recv(1 << 16) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_client_that_never_reads_is_stopped_then_cut_off_and_memory_stays_bounded(make_cluster):
    cluster = make_cluster(count=1, shards=2, flags=["--memory", "64M", "--client-output-timeout", "2s"])
    node = cluster[0]
    client = node.client()
    assert client.set("large", b"x" * 100_000)
    greedy = [connect(node.resp_port) for _ in range(20)]
    for connection in greedy:
        send_while_possible(connection, b"GET large\r\n" * 1000)
    until(lambda: node.metric('rondo_clients_cut_total{reason="output"}') >= len(greedy),
          "all that do not read to be cut off")
    assert client.get("large") == b"x" * 100_000
    assert node.metric("rondo_connection_buffer_bytes") <= node.metric("rondo_connection_buffer_budget_bytes")
    assert "did not take their answers" in node.log()
    if not sanitized(node):
        assert peak_resident(node) < 64 * MIB + MEMORY_BESIDE
    for connection in greedy:
        connection.close()


def reset(connection):
    """Whether the connection is gone; reads nothing of what came before."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def test_client_that_never_reads_hears_that_it_was_cut_off(make_cluster):
    """All that it asked for was read, so that the end of the connection would stand behind answers that fill its
    buffers, and the node's."""
    cluster = make_cluster(count=1, shards=1, flags=["--client-output-timeout", "1s"])
    node = cluster[0]
    assert node.client().set("large", b"x" * 100_000)
    with connect(node.resp_port) as connection:
        connection.sendall(b"GET large\r\n" * 300)
        until(lambda: node.metric('rondo_clients_cut_total{reason="output"}') == 1, "the client to be cut off")
        until(lambda: reset(connection), "its connection to be gone")


def test_slow_reader_gets_everything(make_cluster):
    """Slow is not stopped: the bound of time is that of no progress."""
    cluster = make_cluster(count=1, flags=["--client-output-timeout", "1s"])
    node = cluster[0]
    assert node.client().set("large", b"y" * 100_000)
    with connect(node.resp_port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(b"GET large\r\n" * 300)
        left = 300 * (len(b"$100000\r\n") + 100_000 + 2)
        while left > 0:
            data = connection.recv(1 << 14)
            assert data, f"ended with {left} bytes left"
            left -= len(data)
    assert node.metric('rondo_clients_cut_total{reason="output"}') == 0


def test_output_bound_ends_a_client(make_cluster):
    """Answers that were asked for before the client was stopped may be more than fit."""
    cluster = make_cluster(count=1, flags=["--client-output-max", "1M", "--value-bytes-max", "1M",
                                           "--client-output-timeout", "0"])
    node = cluster[0]
    assert node.client().set("large", b"z" * 900_000)
    with connect(node.resp_port) as connection:
        connection.sendall(b"MGET" + b" large" * 60 + b"\r\n")
        until(lambda: node.metric('rondo_clients_cut_total{reason="output"}') == 1, "the client to be cut off")
        until(lambda: ended(connection), "its connection to end")


@pytest.mark.parametrize("half", [
    b"*2\r\n$3\r\nGET\r\n$3\r\nab", b"SET k",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nxx"])
def test_half_sent_command_is_cut_off(make_cluster, half):
    cluster = make_cluster(count=1, flags=["--client-request-timeout", "1s"])
    node = cluster[0]
    with connect(node.resp_port) as idle, connect(node.resp_port) as connection:
        connection.sendall(b"PING\r\n" + half)
        assert connection.recv(100) == b"+PONG\r\n"
        until(lambda: ended(connection), "it to be cut off")
        until(lambda: node.metric('rondo_clients_cut_total{reason="request"}') == 1, "it to be counted")
        # Who asks for nothing may stay.
        idle.sendall(b"PING\r\n")
        assert idle.recv(100) == b"+PONG\r\n"


@pytest.mark.parametrize("half", [b"GET /stat", b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"])
def test_half_sent_http_request_is_answered_408(make_cluster, half):
    cluster = make_cluster(count=1, flags=["--client-request-timeout", "1s"])
    node = cluster[0]
    with connect(node.http_port) as connection:
        connection.sendall(half)
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 408 ") and b"Connection: close" in head
    assert f"Content-Length: {len(body)}".encode() in head and b'"TIMEOUT"' in body


def test_large_value_that_comes_slowly_is_taken(make_cluster):
    """Longer than the time for a request, but it goes on."""
    cluster = make_cluster(count=1, flags=["--client-request-timeout", "5s"])
    node = cluster[0]
    value = b"v" * 400_000
    with connect(node.resp_port) as connection:
        connection.sendall(b"*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$%d\r\n" % len(value))
        for at in range(0, len(value), 100_000):
            connection.sendall(value[at:at + 100_000])
            # Facts are gathered every two seconds: all pieces together take longer than five.
            before = node.metric("process_cpu_seconds_total")
            until(lambda before=before: node.metric("process_cpu_seconds_total") != before, "facts to be newer")
        connection.sendall(b"\r\n")
        assert connection.recv(100) == b"+OK\r\n"


def test_idle_clients_are_ended_where_that_is_asked_for(make_cluster):
    cluster = make_cluster(count=1, flags=["--client-idle-timeout", "1s", "--http-idle-timeout", "1s"])
    node = cluster[0]
    for port in (node.resp_port, node.http_port):
        with connect(port) as connection:
            until(lambda connection=connection: ended(connection), "the idle client to be ended")
    until(lambda: node.metric('rondo_clients_cut_total{reason="idle"}') >= 2, "both to be counted")
    assert "were idle" in node.log()


def test_clients_past_the_bound_are_refused_with_words(make_cluster):
    cluster = make_cluster(count=1, shards=2, flags=["--clients-max", "5"])
    node = cluster[0]

    def accepted():
        """A connection; None while one of the harness's own, which come and go, has its place."""
        connection = connect(node.resp_port)
        connection.sendall(b"PING\r\n")
        if connection.recv(100) == b"+PONG\r\n":
            return connection
        connection.close()
        return None

    held = [until(accepted, "the harness's own connections to be gone") for _ in range(5)]
    with connect(node.resp_port) as refused:
        assert refused.recv(100) == b"-ERR max number of clients reached\r\n"
        assert refused.recv(100) == b""
    with connect(node.http_port) as refused:
        answer = b""
        while data := refused.recv(1 << 16):
            answer += data
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answer
    for connection in held:
        connection.close()
    until(lambda: node.http("GET", "/metrics").ok, "the node to see that they are gone")
    until(lambda: node.metric("rondo_clients_refused_total") >= 2, "the refusals to be counted")


def test_many_pipelining_clients_with_little_memory_all_get_their_answers(make_cluster):
    """Far more is asked for at once than the memory for requests holds: clients wait, or hear OVERLOADED; none is cut
    off, and nothing is answered twice or not at all."""
    cluster = make_cluster(count=1, shards=2, flags=["--memory", "64M"])
    node = cluster[0]
    count, depth = 300, 200
    connections = [connect(node.resp_port) for _ in range(count)]
    for number, connection in enumerate(connections):
        connection.sendall(b"".join(b"SET k:%d:%d %d\r\n" % (number, i, i) for i in range(depth)))
    done = 0
    for connection in connections:
        answer = b""
        while answer.count(b"\r\n") < depth:
            data = connection.recv(1 << 16)
            assert data, answer
            answer += data
        lines = answer.split(b"\r\n")[:-1]
        assert len(lines) == depth
        assert all(line == b"+OK" or line.startswith(b"-OVERLOADED ") for line in lines), set(lines)
        done += lines.count(b"+OK")
        connection.close()
    assert done > count * depth // 2
    assert node.metric('rondo_clients_cut_total{reason="output"}') == 0
    if not sanitized(node):
        assert peak_resident(node) < 64 * MIB + MEMORY_BESIDE
