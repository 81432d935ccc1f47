"""How connections end: clients that end their side first, peers that never answer, and reads larger than a buffer."""

import os
import signal
import socket

from harness import PATIENCE_S, until


def talk(node, text, port=None):
    """Sends the text and our end, and reads until theirs."""
    with socket.create_connection(("127.0.0.1", port or node.resp_port), timeout=PATIENCE_S) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while True:
            data = connection.recv(1 << 16)
            if not data:
                return answer
            answer += data


def test_client_that_ends_its_side_gets_every_answer_and_then_the_end(make_cluster):
    cluster = make_cluster(count=1, shards=3)
    node = cluster[0]
    assert talk(node, b"") == b""
    assert talk(node, b"PING\r\n") == b"+PONG\r\n"
    assert talk(node, b"PING\r\n*2\r\n$3\r\nGET\r\n$1\r\n") == b"+PONG\r\n"
    # Far more commands than may be in flight, over all shards.
    assert talk(node, b"".join(b"SET half:%d %d\r\n" % (i, i) for i in range(10000))) == b"+OK\r\n" * 10000
    expected = b"".join(b"$%d\r\n%d\r\n" % (len(str(i)), i) for i in range(10000))
    assert talk(node, b"".join(b"GET half:%d\r\n" % i for i in range(10000))) == expected
    answer = talk(node, b"GET /get?key=half:7 HTTP/1.1\r\nHost: x\r\n\r\n", port=node.http_port)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"7")
    until(lambda: node.client(single_connection_client=True).info()["connected_clients"] <= 2,
          "the clients that have gone to be forgotten")


def test_client_that_ends_its_side_waits_for_a_slow_answer(make_cluster):
    """The second answer comes a request timeout after the first."""
    cluster = make_cluster(flags=["--request-timeout", "1000"])
    try:
        for node in cluster.nodes[1:]:
            os.kill(node.process.pid, signal.SIGSTOP)
        answer = talk(cluster[0], b"PING\r\nSET slow 1\r\nPING\r\n")
    finally:
        for node in cluster.nodes[1:]:
            os.kill(node.process.pid, signal.SIGCONT)
    first, second, third, rest = answer.split(b"\r\n")
    assert first == third == b"+PONG" and second.startswith(b"-") and rest == b"", answer


def test_peer_that_does_not_answer_the_greeting_is_dialled_again(make_cluster):
    cluster = make_cluster(start=False)
    node, mute, gone = cluster.nodes
    with socket.create_server(("127.0.0.1", mute.peer_port)) as server:
        server.settimeout(PATIENCE_S)
        cluster.start_node(node)
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                greeting = b""
                while data := connection.recv(1 << 16):
                    greeting += data
                assert greeting, "no HELLO"
    assert "does not answer the greeting" in node.log()
    assert gone.process is None


def test_values_larger_than_a_batch_of_cold_reads_come_back(make_cluster):
    cluster = make_cluster(count=1, flags=["--memory", "64M"])
    node = cluster[0]
    client = node.client()
    values = {f"cold:{i}": bytes([i]) * 700_000 for i in range(100)}
    for key, value in values.items():
        until(lambda key=key, value=value: client.set(key, value), f"{key} to be taken")
    # Wherever they are by now.
    keys = list(values)
    for at in range(0, len(keys), 10):
        pipeline = client.pipeline(transaction=False)
        for key in keys[at:at + 10]:
            pipeline.get(key)
        for key, value in zip(keys[at:at + 10], pipeline.execute()):
            assert value == values[key], key
    node.stop()
    cluster.start()
    for key in keys[::7]:
        assert node.client().get(key) == values[key], key
