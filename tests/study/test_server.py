"""A real MLflow server on loopback: runs and models reach it, and a resume goes on without it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import Result

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a tracking server with artefacts of its own, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--artifacts-destination", str(tmp_path)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.3)
    yield address, process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_gets_everything_and_is_not_needed_to_resume(
    server: tuple[str, subprocess.Popen[bytes]],
    study: Callable[..., Result],
    small_space: Callable[..., str],
    one_ray: None,
) -> None:
    import mlflow
    import numpy as np

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
    again = study("resume", "mine")  # the plan knows the server, and does without it
    assert "MLflow is away" in again.stderr
    assert "IB⇒CR" in again.stdout
