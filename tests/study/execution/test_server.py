"""A real MLflow server on loopback gets runs and models, and a resume works without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers import exporter, free_port, wait_until
from test_projection import Run, close

from study.store.states import Store

pytestmark = pytest.mark.slow


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a tracking server with its database and artefacts in a folder."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        else:
            return process


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address and the process of a tracking server that stores artefacts itself."""
    port = free_port()
    process = serve(tmp_path, port)
    yield f"http://127.0.0.1:{port}", process
    end(process)


def test_a_server_gets_everything_and_is_not_needed_to_resume(
    server: tuple[str, subprocess.Popen[bytes]],
    study: Callable[..., Result],
    small_space: Callable[..., str],
    one_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow
    import numpy as np

    monkeypatch.setattr("study.execution.projection.PATIENCE_SECONDS", 1.0)

    address, process = server
    done = study("run", small_space(), "--seeds", "1", "--name", "mine", "--tracking-uri", address, "--json")
    assert json.loads(done.stdout)["run"] == "mine"

    client = mlflow.MlflowClient(address)
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    (switched,) = [run for run in runs if run.data.params.get("combination") == "IB⇒CR"]
    assert [metric.step for metric in client.get_metric_history(switched.info.run_id, "test/top1")] == [0, 1, 2]
    mlflow.set_tracking_uri(address)
    model = mlflow.pyfunc.load_model(f"runs:/{switched.info.run_id}/model")
    assert model.predict(np.zeros((2, 1, 8, 8), dtype=np.float32)).shape == (2, 10)
    parent = next(run for run in runs if run.info.run_name == "mine")
    assert "combination" not in parent.data.params
    assert "plan.json" in {file.path for file in client.list_artifacts(parent.info.run_id)}

    process.terminate()
    process.wait(30)
    again = study("resume", "mine", code=3)  # the plan knows the server, and does without it
    assert "MLflow is not up to date (" in again.stderr
    assert "'study resume mine --home" in again.stderr
    assert "IB⇒CR" in again.stdout


def records(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return everything that MLflow holds of a run: its parent, and its children by replicate."""
    import mlflow

    mlflow.set_tracking_uri(run.uri)
    client = mlflow.MlflowClient(run.uri)
    records_by_name = {}
    for each in client.search_runs([client.get_experiment_by_name(run.plan.run).experiment_id]):
        files = {file.path for file in client.list_artifacts(each.info.run_id)}
        found_tags = {name: value for name, value in each.data.tags.items() if name.startswith("study.")}
        unlike = {"study.finished", "study.run"}  # the plan has the run's name
        kept = {
            "status": each.info.status,
            "params": each.data.params,
            "name": each.data.tags.get("study.trial", ""),
            "tags": {name: value for name, value in found_tags.items() if name not in unlike},
            "files": {path: mlflow.artifacts.load_text(f"{each.info.artifact_uri}/{path}") for path in files},
            "models": len(each.outputs.model_outputs if each.outputs else ()),
            "metrics": {
                name: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(each.info.run_id, name)]
                for name in each.data.metrics
            },
        }
        kept["files"].pop("plan.json", None)
        name = f"{kept['name']} {kept['tags'].get('study.replicate', '')}"
        assert name not in records_by_name, "doubled"
        records_by_name[name] = kept
    parent = records_by_name.pop(" ")
    return parent, records_by_name


def recorded(run: Run) -> Run:
    """Return the same run, with models."""
    run.work = replace(run.work, exporter=exporter)
    run.space = replace(run.space, work=run.work)
    return run


def goes_away_in_the_creation_of_a_run(monkeypatch: pytest.MonkeyPatch, go: Callable[[], None]) -> None:
    """Let the server go at the creation of the fourth run, when the parent and two replicates exist."""
    from mlflow import MlflowClient

    create, calls = MlflowClient.create_run, count(1)

    def fatal(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 4:
            go()
        return create(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_run", fatal)


def test_a_server_that_goes_away_in_the_middle_and_comes_back_lacks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.execution.follower.RETRY_SECONDS", 0.2)
    monkeypatch.setattr("study.execution.projection.PATIENCE_SECONDS", 90.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    report = {"report.md": "| IB⇒CR |"}
    store = Store(str(tmp_path / "store"))
    undisturbed = recorded(Run(tmp_path, store))
    states = undisturbed.train()
    projection = undisturbed.driver()
    for key in states:
        projection.state(key)
    assert close(projection, "FINISHED", lambda: report) == ""

    port = free_port()
    process = serve(tmp_path, port)
    try:
        for how in (signal.SIGSTOP, signal.SIGKILL):
            disturbed = recorded(Run(tmp_path, store))
            disturbed.uri = f"http://127.0.0.1:{port}"
            with monkeypatch.context() as patch:
                goes_away_in_the_creation_of_a_run(patch, partial(os.killpg, process.pid, how))
                projection = disturbed.driver()
                for key in states:
                    projection.state(key)
                wait_until(lambda: disturbed.said)  # noqa: B023
            projection.check()  # the driver goes on
            if how == signal.SIGSTOP:
                os.killpg(process.pid, signal.SIGCONT)
            else:
                process.wait()
                process = serve(tmp_path, port)
            assert close(projection, "FINISHED", lambda: report) == ""
            assert disturbed.said[0].startswith("MLflow is unavailable (")
            assert disturbed.said[-1] == "MLflow is available again and catches up"
            time.sleep(0.5)  # for requests that it may have kept while it was stopped
            assert records(disturbed) == records(undisturbed)
    finally:
        end(process)
