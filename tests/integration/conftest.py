"""Fixtures: clusters of real processes, ended and checked when the test (or module) is over."""

import shutil
import subprocess

import pytest
import redis

import harness


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory):
    """A real Redis, without persistence: the reference."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = harness.free_port()
    directory = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    harness.until(lambda: redis.Redis(port=port).ping(), "redis-server")
    yield port
    process.kill()
    process.wait()


@pytest.fixture
def make_cluster(tmp_path):
    """make_cluster(count=3, shards=1, flags=()) starts a cluster of the test's own; start=False only lays it out."""
    clusters = []

    def make(count=3, shards=1, flags=(), start=True):
        cluster = harness.Cluster(tmp_path / f"cluster{len(clusters)}", count, shards, flags)
        clusters.append(cluster)
        return cluster.start() if start else cluster

    yield make
    for cluster in clusters:
        cluster.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """One node that is a cluster by itself, shared by a module's tests."""
    cluster = harness.Cluster(tmp_path_factory.mktemp("one"), count=1)
    cluster.start()
    yield cluster[0]
    cluster.close()


@pytest.fixture(scope="module", params=[1, 3], ids=["K=1", "K=3"])
def cluster(request, tmp_path_factory):
    """Three nodes that all tests of a module share and leave whole."""
    cluster = harness.Cluster(tmp_path_factory.mktemp("three"), count=3, shards=request.param)
    cluster.start()
    yield cluster
    cluster.close()
