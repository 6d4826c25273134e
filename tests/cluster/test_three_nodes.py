"""Table 9 on a cluster of three machines: however it is started, its report has the bits of a local run's."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.conftest import Cluster
from cluster.nodes import PRIVATE, ROOT, SHARED, kill

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

    deadline = time.monotonic() + 120
    resume = ["study", "resume", "table9", *store]
    while (resumed := second.run(*resume, cwd=SHARED, code=None)).returncode == 2:
        assert "is being trained by process" in resumed.stderr  # for 30 s, since another machine cannot look for it
        assert time.monotonic() < deadline
        time.sleep(2)
    assert resumed.returncode == 0, resumed.stderr
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


def test_machines_that_do_not_see_the_store_are_left_out(cluster: Cluster, local_report: Callable[..., str]) -> None:
    head, driver, other = cluster.nodes
    shutil.copy(BRIEF, driver.folder / "work")
    home = ["--home", f"{PRIVATE}/own"]
    command = ["study", "run", "./brief.py", "--name", "brief", "--seeds", "1", "--address", "auto", *home]
    errors = driver.run(*command).stderr
    for node in (head, other):
        assert f"left out: node {node.name} ({node.address}): it does not see the store {PRIVATE}/own/store: " in errors
        assert not (node.folder / "work" / "own").exists()
    assert hosts(cluster, f"{PRIVATE}/own/store") == {"node2"}
    report = driver.run("study", "report", "brief", "--format", "json", *home).stdout
    assert report == local_report(str(BRIEF), "--name", "brief")


def test_a_machine_with_another_torch_is_left_out(cluster: Cluster, local_report: Callable[..., str]) -> None:
    variables = {"PYTHONPATH": f"{PRIVATE}/other:{ROOT}"}
    foreigner = cluster.network.add("foreigner", **cluster.servers.variables | variables)
    torch = foreigner.folder / "work" / "other" / "torch-2.11.0.dist-info"
    torch.mkdir(parents=True)
    (torch / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n")
    assert cluster.join(foreigner).wait(120) == 0

    driver = cluster.nodes[2]
    shutil.copy(BRIEF, driver.folder / "work")
    store = ["--store", cluster.servers.store("foreigner")]
    command = ["study", "run", "./brief.py", "--name", "brief", "--seeds", "1", "--address", cluster.address]
    try:
        errors = driver.run(*command, *store, *services(cluster)).stderr
    finally:
        foreigner.run("ray", "stop", "--force", code=None)
        foreigner.end()
    assert f"left out: node foreigner ({foreigner.address}): it has torch 2.11.0, and the driver has " in errors
    assert "foreigner" not in hosts(cluster, store[1])
    report = driver.run("study", "report", "brief", "--format", "json", *store).stdout
    assert report == local_report(str(BRIEF), "--name", "brief")
