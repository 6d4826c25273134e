"""Nodes that cannot train a run: `study doctor` names each with its faults, and a run goes on without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cluster.conftest import Cluster
from cluster.nodes import PRIVATE, ROOT, SHARED, Node

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

# A space whose data are a folder that each machine may have or lack.
SPACE = f'''
from dataclasses import replace
from pathlib import Path

from search_spaces import figure2
from study.errors import Refusal


def prepare(configs, folder, download):
    if not Path("{PRIVATE}/data").is_dir():
        raise Refusal("data", "{PRIVATE}/data", "must be a folder", hint="Copy the data")


def space(request):
    whole = figure2.space(request)
    return replace(whole, name="needy", work=replace(whole.work, prepare=prepare))
'''


@pytest.fixture
def stranger(cluster: Cluster) -> Iterator[Node]:
    """A fourth node: it has another torch, no data, and a GPU that only Ray knows of."""
    variables = {"PYTHONPATH": f"{PRIVATE}/other:{ROOT}"}
    node = cluster.network.add("stranger", **cluster.servers.variables | variables)
    torch = node.folder / "work" / "other" / "torch-2.11.0.dist-info"
    torch.mkdir(parents=True)
    (torch / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n")
    try:
        assert cluster.join(node, "--num-gpus=1").wait(240) == 0
        yield node
    finally:
        node.run("ray", "stop", "--force", code=None)
        node.end()


@pytest.fixture(autouse=True)
def files(cluster: Cluster) -> None:
    """All nodes of the cluster but the stranger have the data; the driver's has the space."""
    for node in cluster.nodes:
        (node.folder / "work" / "data").mkdir(exist_ok=True)
    (cluster.nodes[1].folder / "work" / "needy.py").write_text(SPACE)


def examined(driver: Node, *options: str) -> dict[tuple[str, str], str]:
    """Return what `study doctor` says of each error, by its topic and the name of its machine."""
    done = driver.run("study", "doctor", "./needy.py", "--json", *options, code=None)
    assert done.stdout, done.stderr
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(finding["do"] for finding in findings if finding["level"] == "error" and finding["topic"] != "Ray")
    errors = [finding for finding in findings if finding["level"] == "error"]
    assert done.returncode == (2 if errors else 0)
    return {(each["topic"], each["where"].partition(" ")[0]): each["what"] for each in errors}


def test_a_folder_of_the_same_name_is_not_taken_for_the_store(cluster: Cluster) -> None:
    driver = cluster.nodes[1]
    for node in cluster.nodes:
        (node.folder / "work" / "same" / "store").mkdir(parents=True)
    errors = examined(driver, "--address", "auto", "--home", f"{PRIVATE}/same")
    words = f"it does not see the store {PRIVATE}/same/store: another folder has this path there"
    for node in ("node1", "node3"):
        assert errors["store", node] == words
    assert list((driver.folder / "work" / "same" / "store").rglob("*.json")) == []


def test_a_node_that_does_not_answer_is_named(cluster: Cluster) -> None:
    driver, frozen = cluster.nodes[1:]
    frozen.freeze()
    try:
        errors = examined(driver, "--address", "auto", "--home", f"{SHARED}/frozen")
    finally:
        frozen.thaw()
    assert errors == {("answer", "node3"): "it does not answer within 30 s"}


def test_a_sound_cluster_has_no_errors(cluster: Cluster) -> None:
    driver, store = cluster.nodes[1], cluster.servers.store("sound")
    servers = ["--store", store, "--storage", cluster.servers.storage, "--tracking-uri", cluster.servers.tracking]
    assert examined(driver, "--address", cluster.address, *servers) == {}


def test_a_machine_outside_of_the_cluster_is_told_what_to_do(cluster: Cluster) -> None:
    outside = cluster.network.services
    done = outside.run("study", "run", "figure2", "--address", cluster.address, code=2, cwd=SHARED)
    assert done.stderr == (
        f"error: --address: '{cluster.address}' is a cluster without a node on this machine, and only a driver on a "
        "node can use it so. Run the command on one of its nodes, or give ray://HOST:10001, or use 'ray job submit'\n"
    )


def test_a_run_from_outside_by_ray_client_trains_on_the_nodes(cluster: Cluster) -> None:
    outside = cluster.network.services
    (outside.folder / "shared").mkdir(exist_ok=True)
    address = f"ray://{cluster.nodes[0].address}:10001"
    store = cluster.servers.store("client")
    variables = cluster.servers.variables
    command = ["study", "run", "figure2", "--seeds", "1", "--precision", "fp32", "--home", f"{PRIVATE}/client"]
    outside.run(*command, "--store", store, "--address", address, **variables)
    status = outside.run("study", "status", "--json", "--store", store, **variables)
    (run,) = json.loads(status.stdout)
    assert (run["outcome"], run["complete"]) == ("complete", 2)


def test_each_fault_of_a_node_is_named(cluster: Cluster, stranger: Node) -> None:
    driver = cluster.nodes[1]
    home = f"{PRIVATE}/private"
    errors = examined(driver, "--address", "auto", "--home", home, "--gpus-per-trial", "1")
    unseen = f"it does not see the store {home}/store: there is no such directory"
    assert {key: what for key, what in errors.items() if key[0] != "packages"} == {  # of the node with a GPU
        ("store", "stranger"): unseen,
        ("data", "stranger"): f"data must be a folder (got '{PRIVATE}/data'). Copy the data",
        ("GPUs", "stranger"): "it declares 1 GPU to Ray, and CUDA finds 0",
    }
    assert errors["packages", "stranger"].startswith("it has torch 2.11.0, and the driver has ")
    assert not (driver.folder / "work" / "private").exists()
