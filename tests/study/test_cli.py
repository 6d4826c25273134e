"""The verbs, on a real Ray, a real MLflow database and a real Optuna storage."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import Study, call_study, parsed

from study.planning.stored import Plan
from study.planning.tree import Stage
from study.store import records
from study.store.states import Store


def test_the_way_of_stepping_is_stored_and_is_no_part_of_the_work(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.execution import tune
    from study.execution.job import Job

    told, train = [], tune.execute

    def listen(stages: Sequence[Stage], job: Job, *others: Any) -> None:
        told.append(job.resources.gpu_steps)
        train(stages, job, *others)

    monkeypatch.setattr(tune, "execute", listen)

    def stored() -> Plan:
        return records.find(Store(str(tmp_path / "home" / "store")), "mine")[0]

    space = small_space()
    study("run", space, "--seeds", "1", "--name", "mine", "--gpu-steps", "eager")
    before = stored()
    assert [before.resources.gpu_steps] == told == ["eager"]
    study("resume", "mine", "--gpu-steps", "auto")
    message = str(study("resume", "mine", "--gpu-steps", "recorded", code=2).exception)
    assert message == "--gpu-steps must be auto or eager (got 'recorded'). The run is trained on CPUs"
    assert stored().resources.gpu_steps == "eager"
    study("run", space, "--seeds", "1", "--name", "mine")
    assert stored().resources.gpu_steps == "auto"
    assert (stored().digest, stored().trials) == (before.digest, before.trials)


OWN_PARTS = """
from dataclasses import dataclass

from trainables.parameters import number, whole
from trainables.parts import Backbone, Loss


@dataclass(frozen=True)
class Own(Loss):
    by: float = number(1.0, "a factor", above=0.0)

    def build(self, counts):
        import torch

        return lambda logits, labels, weights: self.by * torch.nn.functional.cross_entropy(logits, labels)


@dataclass(frozen=True)
class Small(Backbone):
    width: int = whole(8, "channels", least=1)

    def layers(self, channels):
        from torch import nn

        return [nn.Conv2d(channels, self.width, 3), nn.ReLU()], self.width
"""


def test_a_loss_and_a_network_of_the_user_s_own_are_trained(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    import mlflow

    (tmp_path / "parts.py").write_text(OWN_PARTS)
    own = ("--loss", "./parts.py:Own(by=2.0)", "--backbone", "./parts.py:Small(width=4)")
    study("run", small_space(cells=(("IB", "CR"),)), "--seeds", "1", "--name", "mine", *own)
    assert parsed(study("status", "mine", "--json"))["outcome"] == "complete"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'home/mlflow.db'}")
    experiment = client.get_experiment_by_name("mine").experiment_id
    (run,) = client.search_runs([experiment], "tags.`study.kind` = 'replicate'")
    shown = {name: run.data.params[name] for name in ("loss", "loss.by", "backbone", "backbone.width")}
    assert shown == {"loss": "parts.py:Own", "loss.by": "2.0", "backbone": "parts.py:Small", "backbone.width": "4"}


def test_two_processes_train_each_replicate_together(
    study: Study, small_space: Callable[..., str], one_ray: None
) -> None:
    study("run", small_space(), "--seeds", "1", "--ranks-per-trial", "2", "--cpus-per-trial", "2")
    (status,) = parsed(study("status", "--json"))
    assert (status["complete"], status["failed"], status["epochs_trained"]) == (2, 0, status["epochs_needed"])


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from study.cli import cli\n"
        "result = CliRunner().invoke(cli, ['--help']); assert result.exit_code == 0\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'pyarrow', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


Finished = tuple[Study, Path, str]


def test_a_run_is_reported_recorded_and_not_trained_twice(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    study, folder, space = finished
    status = parsed(study("status", "mine", "--json"))
    assert {"complete": 4, "running": 0, "failed": 0, "waiting": 0}.items() <= status.items()
    assert status["epochs_needed"] == status["epochs_trained"] == status["epochs_trained_now"] == 2 * (2 + 1 + 1)

    report = parsed(study("report", "mine", "--format", "json"))
    assert (report["study"], report["run"]) == ("small", "mine")
    assert [(row["first"], row["switch"], row["S"], row["n"]) for row in report["rows"]] == [
        ("IB", "IB", 1, 2),
        ("IB", "CR", 1, 2),
    ]
    assert all(0 <= value <= 100 for row in report["rows"] for value in row["values"])
    lines = csv.DictReader(io.StringIO(study("report", "mine", "--format", "csv").stdout))
    lines = [line for line in lines if line["column"] == "digits-LT IF 50" and line["value"]]
    assert [float(line["value"]) for line in lines] == [value for row in report["rows"] for value in row["values"]]
    assert "| IB⇒CR |" in study("report", "mine", "--format", "markdown").stdout

    _check_mlflow(folder / "home", report)
    _check_optuna(folder / "home", report)

    from study.execution import cluster

    def refuse(*_arguments: object) -> None:
        raise AssertionError("Ray was started with nothing to train")

    monkeypatch.setattr(cluster, "connected", refuse)
    again = study("run", space, "--seeds", "2", "--name", "mine", "--json")
    assert parsed(again)["rows"] == report["rows"]
    assert parsed(study("status", "mine", "--json"))["epochs_trained_now"] == 0
    _check_mlflow(folder / "home", report)


def test_records_that_cannot_be_used_are_refused_before_the_report_though_nothing_is_left_to_train(
    finished: Finished, tmp_path: Path
) -> None:
    _, folder, _ = finished
    home = tmp_path / "home"
    shutil.copytree(folder / "home", home)
    with closing(sqlite3.connect(home / "optuna.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    refused = call_study("resume", "mine", home=home, code=2)
    assert "was written by another version of Optuna" in str(refused.exception)
    assert refused.stdout == ""

    shutil.copy(folder / "home/optuna.db", home)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'mine'")
    refused = call_study("resume", "mine", home=home, code=2)
    assert "the MLflow experiment 'mine' was deleted" in str(refused.exception)
    assert refused.stdout == ""


def test_a_first_start_that_is_refused_leaves_no_run(finished: Finished, tmp_path: Path) -> None:
    _, folder, space = finished
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(folder / "home/mlflow.db", home)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'mine'")
    refused = call_study("run", space, "--name", "mine", home=home, code=2)
    assert "the MLflow experiment 'mine' was deleted" in str(refused.exception)
    assert "unknown run 'mine'" in str(call_study("status", "mine", home=home, code=2).exception)


def _check_mlflow(home: Path, report: dict) -> None:
    """One parent, one FINISHED run a replicate, each metric once a step, a model that predicts."""
    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(report["run"])
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert {file.path for file in client.list_artifacts(parents[0].info.run_id)} >= {
        "plan.json",
        "report.md",
        "report.csv",
    }
    assert len(runs) == 1 + sum(row["n"] for row in report["rows"])
    for row in report["rows"]:
        found = client.search_runs([experiment.experiment_id], f"params.combination = '{row['combination']}'")
        assert sorted(run.data.metrics["test/top1"] for run in found) == sorted(row["values"])
        assert {run.data.params["seed"] for run in found} == {"0", "1"}
        assert {run.data.params["switch_q"] for run in found} == {{"IB": "1.0", "CR": "-1.0"}[row["switch"]]}
        for run in found:
            for name in ("train/loss", "test/top1", "val/top1", "lr"):
                steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
                assert steps == [0, 1, 2], name
        (logged,) = found[0].outputs.model_outputs
        model = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
        assert model.predict(np.random.default_rng().random((3, 1, 8, 8), dtype=np.float32)).shape == (3, 10)


def _check_optuna(home: Path, report: dict) -> None:
    """Every cell one COMPLETE trial with the mean of its replicates."""
    storage = f"sqlite:///{home / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * len(report["rows"])
    assert [trial.value for trial in trials] == pytest.approx([row["mean"] for row in report["rows"]])
    assert trials[1].params == {"dataset": "digits", "imbalance": 50.0, "first": "IB", "switch": "CR", "S": 1}


def test_what_another_run_trained_is_not_trained_again(finished: Finished, small_space: Callable[..., str]) -> None:
    study, _, _ = finished
    grown = small_space("grown", (("IB", "IB"), ("IB", "CR"), ("IB", "CB")))
    plan = parsed(study("run", grown, "--seeds", "2", "--dry-run", "--json"))
    assert (plan["epochs_needed"], plan["epochs_to_train"]) == (10, 2)
    study("run", grown, "--seeds", "2")
    status = parsed(study("status", "grown", "--json"))
    assert (status["complete"], status["epochs_trained"]) == (6, 2)


def test_a_run_grows_under_its_name_by_what_is_new(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    space = small_space(cells=(("IB", "IB"),))
    study("run", space, "--seeds", "1", "--name", "mine")
    record = tmp_path / "home/store/runs/mine/plan.json"
    created = json.loads(record.read_text())["created"]
    small_space(cells=(("IB", "IB"), ("IB", "CR")))
    plan = parsed(study("run", space, "--seeds", "2", "--name", "mine", "--dry-run", "--json"))
    assert (plan["epochs_needed"], plan["epochs_to_train"]) == (8, 7)  # of the trunk, only the end is kept
    report = parsed(study("run", space, "--seeds", "2", "--name", "mine", "--json"))
    status = parsed(study("status", "mine", "--json"))
    assert (status["complete"], status["waiting"], status["epochs_needed"]) == (4, 0, 8)
    assert (status["epochs_trained"], status["epochs_trained_now"], status["outcome"]) == (8 + 2, 7, "complete")
    assert json.loads(record.read_text())["created"] == created
    _check_mlflow(tmp_path / "home", report)
    # Optuna's trial of the first cell was told one replicate, and keeps what it was told.
    first, second = report["rows"]
    told = {**report, "rows": [{**first, "mean": first["values"][0]}, second]}
    _check_optuna(tmp_path / "home", told)


def test_a_run_is_not_narrowed_under_its_name(finished: Finished) -> None:
    study, folder, space = finished
    record = folder / "home/store/runs/mine/plan.json"
    before = record.read_bytes()
    for arguments in ([space, "--seeds", "1"], ["table9", "--seeds", "2"], [space, "--seeds", "2", "--retrain"]):
        for dry in ([], ["--dry-run"]):
            if "--retrain" in arguments and dry:
                continue
            message = str(study("run", *arguments, "--name", "mine", *dry, code=2).exception)
            assert "mine" in message
            assert "\n" not in message
    assert "1 replicate instead of 2" in str(study("run", space, "--seeds", "1", "--name", "mine", code=2).exception)
    assert "nothing has changed" in str(study("resume", "mine", "--retrain", code=2).exception)
    assert record.read_bytes() == before


def test_a_run_is_called_by_name_space_or_prefix(finished: Finished) -> None:
    study, _, space = finished
    study("run", space, "--seeds", "1", "--name", "minor")
    assert parsed(study("status", "small", "--json"))["run"] == "minor"  # the space's latest
    assert parsed(study("status", "mino", "--json"))["run"] == "minor"
    assert "several runs begin with 'min'" in str(study("status", "min", code=2).exception)


def test_a_failed_replicate_is_reported_and_the_rest_goes_on(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    space = Path(small_space())
    text = space.read_text().replace("small(config, first, switch)", "small(config, first, switch, lr=LR[switch])")
    space.write_text(text + '\n\nLR = {"IB": 0.1, "CR": 1e30}\n')
    done = study("run", str(space), "--seeds", "1", "--name", "mine", code=1)
    reason = r"diverged in epoch \d \(training loss (nan|inf) at lr 1e\+30\)"
    assert re.search(rf"^ +IB⇒CR +{reason}", done.stdout, re.MULTILINE)
    status = parsed(study("status", "mine", "--json"))
    assert (status["complete"], status["failed"]) == (1, 1)
    shown = study("status", "mine")
    assert re.search(reason, shown.stdout)
    next_step = "Next: study resume mine --retry-failed"  # a plain resume would train nothing
    assert next_step in done.stderr
    assert next_step in shown.stderr
    storage = f"sqlite:///{tmp_path / 'home' / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    failed = optuna.load_study(study_name=summary.study_name, storage=storage).trials[1]
    assert failed.state.name == "FAIL"
    assert "diverged in epoch" in failed.user_attrs["failed_because"]
    assert re.search(rf"  failed: small/IB⇒CR \(digits-LT IF 50\) r0: {reason}\n", study("logs", "mine").stdout)
    heading, *traceback = study("logs", "mine", "IB⇒CR", "r0").stdout.splitlines()
    assert re.fullmatch(
        rf".{{19}}  small/IB⇒CR \(digits-LT IF 50\) r0 on {re.escape(platform.node())}: {reason}", heading
    )
    assert (traceback[0], "Diverged" in traceback[-1]) == ("Traceback (most recent call last):", True)

    resumed = study("resume", "mine", code=1)  # what raised is not tried again by itself
    assert next_step in resumed.stderr
    assert parsed(study("status", "mine", "--json"))["epochs_trained_now"] == 0
    study("resume", "mine", "--retry-failed", code=1)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert trials[2].user_attrs["retry_of"] == 1


def test_a_report_that_raises_after_training_leaves_whole_records(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from study import cli

    def raise_error(*_arguments: object) -> None:
        raise UnicodeEncodeError("latin-1", "⇒", 0, 1, "ordinal not in range(256)")

    monkeypatch.setattr(cli, "_print_report", raise_error)
    with pytest.raises(UnicodeEncodeError):
        study("run", small_space(cells=(("IB", "CR"),)), "--seeds", "1", "--name", "mine")
    assert parsed(study("status", "mine", "--json")).items() >= {"outcome": "complete", "behind": ""}.items()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'home/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2


def test_a_plan_that_is_damaged_is_made_anew(finished: Finished, tmp_path: Path) -> None:
    _, folder, space = finished
    home = tmp_path / "home"
    shutil.copytree(folder / "home", home)
    path = home / "store/runs/mine/plan.json"
    before = json.loads(path.read_text())
    path.write_bytes(path.read_bytes()[:-40])
    again = call_study("run", space, "--seeds", "2", "--name", "mine", home=home)
    assert "damaged: " in again.stderr
    assert "runs/mine/plan.json is not the record that was written; the plan is made again" in again.stderr
    plan = records.load_plan(Store(str(home / "store")), "mine")
    assert plan is not None
    assert [list(trial.ends) for trial in plan.trials] == [trial["ends"] for trial in before["trials"]]
    status = parsed(call_study("status", "mine", "--json", home=home))
    assert (status["outcome"], status["complete"], status["epochs_trained_now"]) == ("complete", 4, 0)
    assert "damaged: " not in call_study("resume", "mine", home=home).stderr


def test_changed_sources_refuse_a_resume_and_name_the_files(finished: Finished) -> None:
    study, folder, _ = finished
    plan = json.loads((folder / "home/store/runs/mine/plan.json").read_text())
    del plan["sha256"]
    plan["sources"]["loop.py: evaluate"] = "0" * 40  # as if it had been planned with another
    Store(str(folder / "home/store")).write_record("runs/other/plan.json", {**plan, "run": "other"})
    message = str(study("resume", "other", code=2).exception)
    assert "loop.py: evaluate" in message
    assert "--retrain" in message


def test_a_run_is_begun_anew_when_its_sources_have_changed_and_its_old_records_stay(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    import mlflow

    study("run", small_space(cells=(("IB", "CR"),)), "--seeds", "1", "--name", "mine")
    assert "nothing has changed" in str(study("resume", "mine", "--retrain", code=2).exception)
    store = Store(str(tmp_path / "home/store"))
    plan = store.read_record("runs/mine/plan.json")
    assert plan is not None
    changed = {**plan, "sources": {**plan["sources"], "loop.py: evaluate": "0" * 40}}
    store.write_record("runs/mine/plan.json", changed)
    message = str(study("resume", "mine", "--retrain", code=2).exception)
    assert message.startswith("these sources have changed, but the names of the states have not: loop.py: evaluate. ")
    trials = [{**trial, "ends": ["0" * 40]} for trial in plan["trials"]]
    store.write_record("runs/mine/plan.json", {**changed, "trials": trials})

    study("resume", "mine", code=2)
    study("resume", "mine", "--retrain")
    assert parsed(study("status", "mine", "--json"))["outcome"] == "complete"
    assert study("resume", "mine").exit_code == 0

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'home/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert sorted(run.data.tags["study.generation"] for run in runs) == ["0", "0", "1", "1"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = sorted(optuna.get_all_study_names(f"sqlite:///{tmp_path / 'home/optuna.db'}"))
    assert len(names) == 2
    assert names[1] == f"{names[0]}-1"


def test_a_status_says_how_large_the_states_are(finished: Finished) -> None:
    study, folder, _ = finished
    status = parsed(study("status", "mine", "--json"))
    states = {path: path.stat().st_size for path in (folder / "home/store").rglob("*") if path.is_file()}
    assert 0 < status["bytes"] < sum(states.values())
    shown = study("status", "mine").stdout
    assert f"  final states: {status['bytes'] / 1e6:.1f} MB" in shown
    assert "\nstore: " in shown


def test_nobody_is_asked_to_stop_a_run_that_nobody_trains(finished: Finished) -> None:
    study, _, _ = finished
    message = str(study("stop", "mine", code=2).exception)
    assert message == (
        "run 'mine' is not being trained, so there is nothing to stop. 'study status' shows its progress"
    )


def test_a_run_that_a_driver_trains_is_not_trained_by_a_second_one(finished: Finished) -> None:
    study, folder, space = finished
    from study.store import starts

    study("run", space, "--seeds", "1", "--name", "busy")
    start = starts.Start(Store(str(folder / "home/store")), "busy", 0, lambda _: None)
    try:
        for arguments in (
            ["run", space, "--seeds", "1", "--name", "busy"],
            ["resume", "busy"],
            ["clean", "busy", "--forget"],
        ):
            message = str(study(*arguments, code=2).exception)
            assert f"'study stop busy --store {folder / 'home/store'}'" in message
            assert "\n" not in message
    finally:
        start.end("complete", 0)
    study("resume", "busy")


def test_a_current_folder_that_was_removed_is_said_in_one_line(tmp_path: Path) -> None:
    program = "import os, sys; os.rmdir(os.getcwd()); sys.argv[1:] = ['list']; from study.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the current folder no longer exists. Change to another folder\n"
