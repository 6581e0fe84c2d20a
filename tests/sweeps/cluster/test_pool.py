"""Where the runs of the nodes of a cluster may be."""

import platform

import pytest

pytest.importorskip("ray")

from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from sweeps.cluster import pool
from sweeps.cluster.connection import Head, Node
from sweeps.cluster.place import Place


@pytest.fixture
def of_hosts(tmp_path, monkeypatch):
    """Return a function that makes a pool of a cluster with these hosts, without agents."""

    def make(*hosts):
        found = [Node(host, host, "10.0.0.1", (4.0, 0.0), (4.0, 0.0)) for host in hosts]
        monkeypatch.setattr(Head, "nodes", lambda _: found)
        return pool.ClusterPool(Place("auto"), tmp_path)

    return make


def test_a_database_file_is_refused_if_a_node_is_on_another_machine(of_hosts, uri):
    with pytest.raises(UserError, match=r"is a file of this machine, which far, node7 cannot reach: .* MLflow server"):
        of_hosts(platform.node(), "node7", "far", "far").check_store(Store(uri))


def test_a_database_file_is_fine_for_nodes_on_this_machine_and_a_server_for_all(of_hosts, uri):
    of_hosts(platform.node(), platform.node()).check_store(Store(uri))
    of_hosts(platform.node(), "node7").check_store(Store("http://127.0.0.1:9", opened=False))
