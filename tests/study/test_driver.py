"""A run that is killed or interrupted ends, after `study resume`, as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from click.testing import Result

CELLS = (("IB", "IB"), ("IB", "CR"), ("CB", "CB"), ("CB", "CR"))


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four cells of 40 epochs: two trunks of 16, four branches of 24."""
    path = tmp_path_factory.mktemp("space") / "forty.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from search_spaces import table9\n"
        "from trainables.protocol import bases, trial\n"
        "def space(request):\n"
        "    table, trials = table9.space(request), []\n"
        "    for config in bases(request, ()):\n"
        f"        for first, switch in {CELLS}:\n"
        "            cell = replace(config, first=first, switch=switch, epochs=40, milestones=(15,), S=1)\n"
        "            axes = {'first': first, 'switch': switch, 'S': 1}\n"
        "            trials.append(trial(cell, cell.combination, axes, {}))\n"
        "    return replace(table, name='forty', trials=tuple(trials))\n"
    )
    return str(path)


@pytest.fixture(scope="module")
def whole(command: Callable[..., Result], space: str, one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the same run, undisturbed."""
    home = tmp_path_factory.mktemp("whole")
    command("run", space, "--seeds", "1", "--name", "forty", home=home)
    return home


def begin(space: str, home: Path) -> subprocess.Popen[str]:
    """Start the run in a process of its own, without Ray's sharing."""
    command = [sys.executable, "-m", "study", "run", space, "--seeds", "1", "--name", "forty", "--home", str(home)]
    # MLflow sets this in the process that sets a URI, which other tests have made this one do.
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def trained(home: Path) -> int:
    """Epochs that the latest start has recorded."""
    starts = sorted(home.glob("store/runs/forty/starts/*.json"))
    return json.loads(starts[-1].read_text())["epochs_trained"] if starts else 0


def wait_for(home: Path, epochs: int) -> None:
    deadline = time.monotonic() + 120
    while trained(home) < epochs:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def everything(home: Path) -> dict[str, object]:
    """What a user sees of a run: report, Optuna's trials, and every metric of every MLflow run, by replicate."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "forty"]
    metrics = {}
    for run in client.search_runs([experiment.experiment_id]):
        name = run.data.tags.get("study.trial", "parent")
        assert name not in metrics, "a run is doubled"
        metrics[name] = {
            key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        assert run.info.status == "FINISHED"
    storage = f"sqlite:///{home / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    return {
        "optuna": [(trial.number, trial.state.name, trial.params, trial.value) for trial in trials],
        "mlflow": metrics,
    }


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_end(
    how: signal.Signals, space: str, whole: Path, tmp_path: Path, study: Callable[..., Result]
) -> None:
    home = tmp_path / "stopped"
    moment = random.Random(seed := os.getpid() + how).randint(1, 60)
    print(f"seed {seed}: {how.name} after {moment} of 128 epochs")
    process = begin(space, home)
    wait_for(home, moment)
    process.send_signal(how)
    _, errors = process.communicate(timeout=90)
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, errors
        assert "workers end their epoch and save" in errors
        before = json.loads(study("status", "forty", "--home", str(home), "--json").stdout)
        assert before["outcome"] == "interrupted"

    study("resume", "forty", "--home", str(home))
    status = json.loads(study("status", "forty", "--home", str(home), "--json").stdout)
    assert (status["complete"], status["epochs_needed"], status["outcome"]) == (4, 128, "complete")
    assert status["epochs_trained"] >= 128
    if how != signal.SIGKILL:
        assert status["epochs_trained"] == 128, "a drain loses nothing"
    reports = [
        json.loads(study("report", "forty", "--home", str(each), "--format", "json").stdout)["rows"]
        for each in (home, whole)
    ]
    assert reports[0] == reports[1]
    assert everything(home) == everything(whole)
