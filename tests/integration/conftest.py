"""Fixtures: clusters of real processes, ended and checked when the test (or module) is over."""

import pytest

import harness


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
