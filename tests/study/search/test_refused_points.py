"""An open search whose space refuses some points, end to end on a real Ray, Optuna and MLflow."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import MINI_SEARCH, Study
from mlflow import MlflowClient

pytestmark = pytest.mark.slow

REFUSES = """
    def point(values):
        if values["S"] {refused}:
            raise Refusal("S", values["S"], "must be at most 1")
"""
REASON = "S must be at most 1 (got 2)"


def write_search(folder: Path, refused: str) -> str:
    """Write a search whose `point` refuses some values of S."""
    path = folder / "mini.py"
    text = MINI_SEARCH.replace("from study.space", "from study.errors import Refusal\nfrom study.space")
    path.write_text(text.replace("\n    def point(values):\n", REFUSES.format(refused=refused)))
    return str(path)


def optuna_trials(home: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{home / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials


def mlflow_runs(home: Path) -> dict[str, Any]:
    """The runs in MLflow, by their names."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine").experiment_id
    return {run.info.run_name: run for run in client.search_runs([experiment])}


def test_refused_points_fail_with_their_reason_and_are_tried_again_after_the_space_was_mended(
    one_ray: None, command: Study, tmp_path: Path
) -> None:
    space, home = write_search(tmp_path, "== 2"), tmp_path / "home"
    study = partial(command, home=home)
    done = study("run", space, "--name", "mine", "--trials", "4", "--json")  # the exit code is 0
    (search,) = json.loads(done.stdout)["searches"]
    refused = [f"#{n}" for n, trial in enumerate(optuna_trials(home)) if trial.params["S"] == 2]
    assert 0 < len(refused) < 4
    assert [(point["trial"], point["reasons"]) for point in search["failed"]] == [
        (label, {"0": REASON}) for label in refused
    ]
    assert f"{len(refused)} of 4 points of mini failed: {', '.join(refused)}" in done.stderr
    states = {trial.user_attrs["trial"]: trial for trial in optuna_trials(home)}
    assert [label for label, trial in states.items() if trial.state.name == "FAIL"] == refused
    assert {states[label].user_attrs["failed_because"] for label in refused} == {REASON}
    runs = mlflow_runs(home)
    statuses = {f"#{n} r0": "FAILED" if f"#{n}" in refused else "FINISHED" for n in range(4)}
    statuses |= {f"champion {search['best'][0]} r{number}": "FINISHED" for number in (1000, 1001)} | {
        "mine": "FINISHED"
    }
    assert {name: run.info.status for name, run in runs.items()} == statuses
    first = runs[f"{refused[0]} r0"]
    assert (first.data.tags["study.failed_because"], first.data.params["S"]) == (REASON, "2")

    status = json.loads(study("status", "mine", "--json").stdout)
    assert (status["outcome"], status["failed"], status["waiting"]) == ("complete", len(refused), 0)
    shown = study("status", "mine")
    assert f"  failed: mini/{refused[0]} r0: {REASON}" in shown.stdout
    assert "Next: study report mine" in shown.stderr

    study("resume", "mine")
    again = json.loads(study("status", "mine", "--json").stdout)
    assert again == {**status, "epochs_trained_now": 0}
    assert len(optuna_trials(home)) == 4

    write_search(tmp_path, "> 9")
    study("resume", "mine")
    assert len(optuna_trials(home)) == 4, "a plain resume does not try them again"
    study("resume", "mine", "--retry-failed", "--workers", "1")
    trials = optuna_trials(home)[4:]
    assert [(trial.user_attrs["trial"], trial.state.name) for trial in trials] == [
        (label, "COMPLETE") for label in refused
    ]
    assert [trial.user_attrs["retry_of"] for trial in trials] == [int(label[1:]) for label in refused]
    (search,) = json.loads(study("report", "mine", "--format", "json").stdout)["searches"]
    assert (search["ended"], search["failed"]) == (4, [])
    tried_again = mlflow_runs(home)[f"{refused[0]} r0"]
    assert (tried_again.info.status, tried_again.info.run_id) == ("FINISHED", first.info.run_id)
    other = next(run for name, run in runs.items() if name[0] == "#" and run.info.status == "FINISHED")
    assert tried_again.data.params.keys() == other.data.params.keys()
