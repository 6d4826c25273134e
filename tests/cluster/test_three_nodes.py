"""Table 9 on a cluster of three machines: however it is started, its report has the bits of a local run's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cluster.conftest import Cluster
from cluster.nodes import Node

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]


def where(cluster: Cluster, folder: str) -> list[str]:
    """Return the options that name the cluster's servers, with a store of the test's own."""
    servers = cluster.servers
    return ["--store", servers.store(folder), "--storage", servers.storage, "--tracking-uri", servers.tracking]


def report(cluster: Cluster, node: Node, folder: str, run: str) -> str:
    """Return the report of a run, made on a machine that reaches the store."""
    options = ["--store", cluster.servers.store(folder), "--format", "json"]
    return node.run("study", "report", run, *options).stdout


HOSTS = """
import json, sys
from study.store import records
from study.store.states import Store

store = Store(sys.argv[1], create=False)
keys = store.keys()
print(json.dumps([store.header(key) for key in keys]))
"""


def headers(cluster: Cluster, folder: str) -> list[dict[str, Any]]:
    """Return the headers of all states of a store."""
    output = cluster.nodes[0].run("python", "-c", HOSTS, cluster.servers.store(folder)).stdout
    found: list[dict[str, Any]] = json.loads(output)
    return found


def test_a_driver_on_one_node_trains_on_all_three(cluster: Cluster, local_report: str) -> None:
    driver, reader = cluster.nodes[1:]
    options = [*where(cluster, "address"), "--address", cluster.address]
    driver.run("study", "run", "table9", "--seeds", "1", *options)
    assert report(cluster, reader, "address", "table9") == local_report
    hosts = {each["host"] for header in headers(cluster, "address") for each in header["provenance"]}
    assert hosts == {"node1", "node2", "node3"}
