"""A cluster of three machines: however a run is started, its report has the bits of a local run's.

And nodes that cannot train: `study doctor` names each with its faults, and a run goes on without them.

All are in one file, because the cluster takes memory and time from other tests: it ends with the file.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster.machines import Cluster
from cluster.nodes import PRIVATE, ROOT, SHARED, Node, kill

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

BRIEF = Path(__file__).parent / "brief.py"
HOSTS = """
import json, sys
from study.store.states import Store

store = Store(sys.argv[1], create=False)
provenance = [step for key in store.keys() for step in store.header(key)["provenance"]]
print(json.dumps(sorted({step["host"] for step in provenance})))
"""
RECORDS = """
import json, sys
import mlflow, optuna

run, storage, uri = sys.argv[1:]
client = mlflow.MlflowClient(uri)
experiment = client.get_experiment_by_name(run).experiment_id
runs = client.search_runs([experiment], "tags.`study.kind` = 'replicate'")
(name,) = [name for name in optuna.get_all_study_names(storage) if run in name]
trials = optuna.load_study(study_name=name, storage=storage).trials
print(json.dumps([[run.info.status for run in runs], [trial.state.name for trial in trials]]))
"""


# A space whose data are a folder that each machine may have or lack.
NEEDY = f'''
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


def services(cluster: Cluster) -> list[str]:
    """Return the options that name PostgreSQL and MLflow."""
    return ["--storage", cluster.servers.storage, "--tracking-uri", cluster.servers.tracking]


def hosts(cluster: Cluster, store: str) -> set[str]:
    """Return the machines that trained the states of a store; a folder is looked at from the second machine."""
    return set(json.loads(cluster.nodes[1].run("python", "-c", HOSTS, store).stdout))


def records(cluster: Cluster, run: str) -> Any:
    """Return the states of a run's replicates in MLflow, and those of its trials in Optuna."""
    arguments = [run, cluster.servers.storage, cluster.servers.tracking]
    return json.loads(cluster.nodes[0].run("python", "-c", RECORDS, *arguments).stdout)


@contextmanager
def further(cluster: Cluster, name: str, torch: str = "", *options: str) -> Iterator[Node]:
    """Add a node; with `torch`, it claims to have this version of torch."""
    paths = f"{PRIVATE}/other:{ROOT}" if torch else str(ROOT)
    variables = cluster.servers.variables | {"PYTHONPATH": paths}
    node = cluster.network.add(f"{name}{len(cluster.network.nodes)}", **variables)
    if torch:
        metadata = node.folder / "work" / "other" / f"torch-{torch}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n")
    try:
        assert cluster.join(node, *options).wait(240) == 0
        yield node
    finally:
        node.run("ray", "stop", code=None)  # the head is told, and does not wait for an answer
        node.end()


@pytest.fixture
def stranger(cluster: Cluster) -> Iterator[Node]:
    """A fourth node: it has another torch, no data, and a GPU that only Ray knows of."""
    with further(cluster, "stranger", "2.11.0", "--num-gpus=1") as node:
        yield node


def wait_until(condition: Callable[[], object], log: Path, node: Node, seconds: float = 400.0) -> None:
    """Wait for something; if it does not come, show a log, to which the drivers on the node add where they are."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            for driver in node.running("study"):
                driver.send_signal(signal.SIGABRT)  # see PYTHONFAULTHANDLER
            time.sleep(2)
            raise AssertionError(log.read_text())
        time.sleep(1)


def test_machines_that_join_are_used_or_left_out_and_one_that_ends_is_not_waited_for(cluster: Cluster) -> None:
    user = cluster.nodes[1]
    store, log = ["--store", cluster.servers.store("elastic")], user.folder / "elastic.log"
    command = ["study", "run", "table9", "--seeds", "3", *store, "--address", cluster.address, *services(cluster)]
    driver = user.popen(command, log, PYTHONFAULTHANDLER="1")
    try:
        wait_until(lambda: " epochs, " in log.read_text(), log, user)  # in a line of progress
        with further(cluster, "late") as late, further(cluster, "odd", "2.11.0") as odd:
            wait_until(lambda: late.training() and f"left out: node {odd.name}" in log.read_text(), log, user)
            late.crash()
            assert driver.wait(600) == 0, log.read_text()
            assert odd.name not in hosts(cluster, store[1])
        said = log.read_text()
        assert f"{late.name} ({late.address}) has joined: room for 4 at a time" in said
        assert f"left out: node {odd.name} ({odd.address}): it has torch 2.11.0, and the driver has " in said
        assert f"{late.name} ({late.address}) has left: room for 3 at a time" in said
        assert "failed: " not in said
    finally:
        kill(driver)
        driver.wait()
    (run,) = json.loads(user.run("study", "status", "--json", *store).stdout)
    assert (run["outcome"], run["complete"]) == ("complete", 27)
    assert records(cluster, run["run"]) == [["FINISHED"] * 27, ["COMPLETE"] * 9]


def test_a_killed_driver_s_table_is_resumed_on_another_machine(
    cluster: Cluster, local_report: Callable[..., str]
) -> None:
    first, second = cluster.nodes[1:]
    store = ["--store", cluster.servers.store("table9")]
    cluster_options = ["--address", cluster.address, *services(cluster)]
    command = ["study", "run", "table9", "--seeds", "1", *store, *cluster_options]
    driver = first.popen(command, first.folder / "driver.log")

    deadline, complete = time.monotonic() + 400, 0
    try:
        while complete < 2:
            assert driver.poll() is None, (first.folder / "driver.log").read_text()
            assert time.monotonic() < deadline, (first.folder / "driver.log").read_text()
            time.sleep(1)
            status = second.run("study", "status", "table9", "--json", *store, code=None)  # 2 while there is no plan
            complete = json.loads(status.stdout)["complete"] if status.returncode == 0 else 0
    finally:
        kill(driver)
        driver.wait()
    assert complete < 9

    resumed = second.run("study", "resume", "table9", *store, cwd=SHARED)  # which waits until the driver counts as dead
    assert "on node2 may still train run" in resumed.stderr
    report = second.run("study", "report", "table9", "--format", "json", *store, cwd=SHARED).stdout
    assert report == local_report("table9")
    assert hosts(cluster, store[1]) == {"node1", "node2", "node3"}
    run = json.loads(report)["run"]
    assert records(cluster, run) == [["FINISHED"] * 9, ["COMPLETE"] * 9]


def test_a_job_s_report_is_the_local_run_s(cluster: Cluster, local_report: Callable[..., str]) -> None:
    user = cluster.nodes[2]
    shutil.copy(BRIEF, user.folder / "work")
    store = ["--store", cluster.servers.store("job")]
    command = ["study", "run", "./brief.py", "--name", "brief", "--seeds", "1", *store]
    dashboard = ["--address", f"http://{cluster.nodes[0].address}:8265", "--working-dir", PRIVATE]
    user.run("ray", "job", "submit", *dashboard, "--", *command, *services(cluster))
    report = user.run("study", "report", "brief", "--format", "json", *store).stdout
    assert report == local_report(str(BRIEF), "--name", "brief")


def test_a_detached_run_s_report_is_the_local_run_s(cluster: Cluster, local_report: Callable[..., str]) -> None:
    _, user, other = cluster.nodes
    shutil.copy(BRIEF, user.folder / "work")
    store = ["--store", cluster.servers.store("detached")]
    command = ["study", "run", "./brief.py", "--name", "brief", "--seeds", "1", *store, *services(cluster)]
    begun = user.run(*command, "--address", cluster.address, "--detach")
    assert begun.stdout == "brief\n"
    (user.folder / "work" / BRIEF.name).unlink()
    watched = other.run("study", "status", "brief", "--watch", *store).stdout
    assert "brief  complete\n" in watched
    report = other.run("study", "report", "brief", "--format", "json", *store).stdout
    assert report == local_report(str(BRIEF), "--name", "brief")


def test_ranks_on_two_machines_one_of_which_is_lost_have_the_bits_of_ranks_on_one(
    cluster: Cluster, local_report: Callable[..., str]
) -> None:
    """Gloo would listen where a node's name leads: to 127.0.1.1, which the other node does not reach."""
    user = cluster.nodes[1]
    log = user.folder / "ranks.log"
    assert user.run("python", "-c", "import socket; print(socket.gethostbyname('node2'))").stdout == "127.0.1.1\n"
    store = ["--store", cluster.servers.store("ranks")]
    ranks = ["--ranks-per-trial", "2", "--cpus-per-trial", "2"]  # and each node has one CPU
    command = ["study", "run", "figure2", "--seeds", "1", *ranks, *store, "--address", cluster.address]
    driver = user.popen([*command, *services(cluster)], log, PYTHONFAULTHANDLER="1")
    try:
        wait_until(lambda: " epochs, " in log.read_text(), log, user)
        second, *_ = (rank for node in cluster.nodes for rank in node.running("ray::Member"))
        second.kill()
        assert driver.wait(300) == 0, log.read_text()
    finally:
        kill(driver)
        driver.wait()
    assert re.search(r"trying again: .*: RankLost: another training process", log.read_text()), log.read_text()
    report = user.run("study", "report", "figure2", "--format", "json", *store).stdout
    assert report == local_report("figure2", *ranks)


def test_machines_that_do_not_see_the_store_are_left_out(cluster: Cluster, local_report: Callable[..., str]) -> None:
    head, driver, other = cluster.nodes
    shutil.copy(BRIEF, driver.folder / "work")
    home = ["--home", f"{PRIVATE}/own"]
    command = ["study", "run", "./brief.py", "--name", "brief", "--seeds", "1", "--address", "auto", *home]
    errors = driver.run(*command).stderr
    assert f"training on the Ray cluster at {head.address}:6379 (--address auto)\n" in errors
    for node in (head, other):
        assert f"left out: node {node.name} ({node.address}): it does not see the store {PRIVATE}/own/store: " in errors
        assert not (node.folder / "work" / "own").exists()
    assert hosts(cluster, f"{PRIVATE}/own/store") == {"node2"}
    report = driver.run("study", "report", "brief", "--format", "json", *home).stdout
    assert report == local_report(str(BRIEF), "--name", "brief")


# Nodes that cannot train


@pytest.fixture
def needy(cluster: Cluster) -> None:
    """All nodes of the cluster but the stranger have the data of the space NEEDY; the driver's has the space."""
    for node in cluster.nodes:
        (node.folder / "work" / "data").mkdir(exist_ok=True)
    (cluster.nodes[1].folder / "work" / "needy.py").write_text(NEEDY)


def examined(driver: Node, *options: str) -> dict[tuple[str, str], str]:
    """Return what `study doctor` says of each error, by its topic and the name of its machine."""
    done = driver.run("study", "doctor", "./needy.py", "--json", *options, code=None)
    assert done.stdout, done.stderr
    findings: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(finding["do"] for finding in findings if finding["level"] == "error" and finding["topic"] != "Ray")
    errors = [finding for finding in findings if finding["level"] == "error"]
    assert done.returncode == (2 if errors else 0)
    return {(each["topic"], each["where"].partition(" ")[0]): each["what"] for each in errors}


@pytest.mark.usefixtures("needy")
def test_a_folder_of_the_same_name_is_not_taken_for_the_store(cluster: Cluster) -> None:
    driver = cluster.nodes[1]
    for node in cluster.nodes:
        (node.folder / "work" / "same" / "store").mkdir(parents=True)
    errors = examined(driver, "--address", "auto", "--home", f"{PRIVATE}/same")
    words = f"it does not see the store {PRIVATE}/same/store: another folder has this path there"
    for node in ("node1", "node3"):
        assert errors["store", node] == words
    assert list((driver.folder / "work" / "same" / "store").rglob("*.json")) == []


@pytest.mark.usefixtures("needy")
def test_a_node_that_does_not_answer_is_named(cluster: Cluster) -> None:
    driver, frozen = cluster.nodes[1:]
    frozen.freeze()
    try:
        errors = examined(driver, "--address", "auto", "--home", f"{SHARED}/frozen")
    finally:
        frozen.thaw()
    assert errors == {("answer", "node3"): "it does not answer within 30 s"}


@pytest.mark.usefixtures("needy")
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


@pytest.mark.usefixtures("needy")
def test_each_fault_of_a_node_is_named(cluster: Cluster, stranger: Node) -> None:
    driver = cluster.nodes[1]
    home = f"{PRIVATE}/private"
    errors = examined(driver, "--address", "auto", "--home", home, "--gpus-per-trial", "1")
    unseen = f"it does not see the store {home}/store: there is no such directory"
    assert {key: what for key, what in errors.items() if key[0] != "packages"} == {  # of the node with a GPU
        ("store", stranger.name): unseen,
        ("data", stranger.name): f"data must be a folder (got '{PRIVATE}/data'). Copy the data",
        ("GPUs", stranger.name): "it declares 1 GPU to Ray, and CUDA finds 0",
    }
    assert errors["packages", stranger.name].startswith("it has torch 2.11.0, and the driver has ")
    assert not (driver.folder / "work" / "private").exists()


def test_a_machine_with_another_torch_is_left_out(
    cluster: Cluster, stranger: Node, local_report: Callable[..., str]
) -> None:
    driver = cluster.nodes[2]
    shutil.copy(BRIEF, driver.folder / "work")
    store = ["--store", cluster.servers.store("stranger")]
    command = ["study", "run", "./brief.py", "--name", "brief", "--seeds", "1", "--address", cluster.address]
    errors = driver.run(*command, *store, *services(cluster)).stderr
    assert f"left out: node {stranger.name} ({stranger.address}): it has torch 2.11.0, and the driver has " in errors
    assert stranger.name not in hosts(cluster, store[1])
    report = driver.run("study", "report", "brief", "--format", "json", *store).stdout
    assert report == local_report(str(BRIEF), "--name", "brief")
