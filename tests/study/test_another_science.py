"""The platform under a science that it knows nothing of: `elsewhere.iris`, scikit-learn's classifiers of iris."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from study.store.states import Store

HERE = Path(__file__).parent

pytestmark = pytest.mark.slow


def study(*arguments: str, home: Path, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from study.cli import main; main()", *arguments, "--home", str(home)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE / "elsewhere" / "no_torch"), str(HERE), *sys.path]),
        **more,
    }
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answered(*arguments: str, home: Path) -> str:
    process = study(*arguments, home=home)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("undisturbed")
    report = json.loads(answered("run", "elsewhere.iris", "--seeds", "2", "--json", home=home))
    return {"home": home, "report": report}


def test_it_is_planned_and_equal_prefixes_are_counted_once(tmp_path: Path) -> None:
    plan = json.loads(answered("run", "elsewhere.iris", "--seeds", "2", "--dry-run", "--json", home=tmp_path / "none"))
    assert (plan["epochs_naive"], plan["epochs_needed"]) == (96, 72)  # of both rates, the first six are the same
    one = answered("run", "elsewhere.iris", "-o", "losses=hinge", "--dry-run", "--json", home=tmp_path / "none")
    assert {trial["config"]["loss"] for trial in json.loads(one)["trials"]} == {"hinge"}
    assert not (tmp_path / "none").exists()


def test_its_report_speaks_its_own_words(undisturbed: dict[str, Any]) -> None:
    report = undisturbed["report"]
    assert {row["measure"] for row in report["rows"]} == {"unseen/accuracy"}
    for row in report["rows"]:
        assert (row["n"], row["Fisher"], row["provenance"]) == (2, 97.0, "°")
        assert 50 < row["mean"] <= 100
        assert row["setosa"] > 90
    assert list(report["versions"])[:3] == ["python", "longtail-study", "scikit-learn"]
    assert report["hardware"] == ["a desk"]
    shown = answered("report", "iris", home=undisturbed["home"])
    assert "Fisher: n = 1; ° read off a figure." in shown
    assert not any(word in shown.lower() for word in ("paper", "shot", "few", "sampler"))


def test_mlflow_and_optuna_have_it(undisturbed: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{undisturbed['home'] / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name.startswith("iris")]
    assert "To compare, group the runs below by `loss`." in experiment.tags["mlflow.note.content"]
    runs = client.search_runs([experiment.experiment_id], "tags.`study.kind` = 'replicate'")
    assert len(runs) == 8
    for run in runs:
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "unseen/accuracy")) == 12
        assert len(client.get_metric_history(run.info.run_id, "unseen/setosa")) == 1  # the last epoch's
        assert {f"unseen/kind/{kind:04d}" for kind in range(3)} <= run.data.metrics.keys()
        assert run.outputs.model_outputs
    storage = f"sqlite:///{undisturbed['home'] / 'optuna.db'}"
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    means = {row["trial"]: row["mean"] for row in undisturbed["report"]["rows"]}
    assert {trial.user_attrs["trial"]: trial.value for trial in trials} == pytest.approx(means)


def test_killed_and_resumed_it_ends_as_if_it_had_not_been(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    driver = study("run", "elsewhere.iris", "--seeds", "2", home=tmp_path, IRIS_SECONDS="0.2")
    deadline = time.monotonic() + 60
    while not (tmp_path / "store").is_dir() or not Store(str(tmp_path / "store"), create=False).keys():
        assert time.monotonic() < deadline
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert 0 < len(Store(str(tmp_path / "store")).keys()) < 12
    resumed = json.loads(answered("resume", "iris", "--json", home=tmp_path))
    for part in ("rows", "tables", "notices"):
        assert resumed[part] == undisturbed["report"][part]


def test_optuna_searches_it_and_workers_get_what_stands_in_a_file_of_no_package(tmp_path: Path) -> None:
    report = json.loads(answered("run", f"{HERE / 'elsewhere' / 'iris.py'}:search", "--json", home=tmp_path))
    (search,) = report["searches"]
    assert (search["ended"], len(search["champions"])) == (4, 1)
    assert (search["distinct"], search["importances"]) == (4, {})  # too few to say


def test_options_of_other_spaces_are_refused(tmp_path: Path) -> None:
    process = study("run", "elsewhere.iris", "--data", "digits", home=tmp_path / "none")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "error: --data must be left out (got 'digits'). Space iris does not take this option\n"
