"""A run in Python: its frames against the store, its model against the recorded accuracies, its records."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from scipy import stats

import study
from study.report.statistics import paired
from study.store import records
from study.store.states import Store

Finished = tuple[Callable[..., Result], Path, str]
IB, CR = "IB⇒IB", "IB⇒CR"


@pytest.fixture(scope="module")
def home(finished: Finished) -> Path:
    """The home of a complete small run of two cells and two replicates."""
    return finished[1] / "home"


@pytest.fixture
def run(home: Path) -> study.Run:
    return study.load("mine", home=home)


@pytest.fixture
def states(home: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The headers of the last states, read from the store, by the trial's row and the replicate."""
    store = Store(str(home / "store"), create=False)
    plan, _ = records.find(store, "mine")
    return {(trial.trial.row, n): store.header(end) for trial in plan.trials for n, end in trial.by_replicate.items()}


def test_a_frame_has_a_row_a_replicate_with_what_mlflow_shows(
    run: study.Run, states: dict[tuple[str, int], dict[str, Any]]
) -> None:
    frame = run.frame()
    assert list(frame.columns[:6]) == ["run", "space", "trial", "replicate", "state", "status"]
    assert list(zip(frame["combination"], frame["replicate"], strict=True)) == list(states)
    assert set(frame["run"]) == {"mine"}
    assert set(frame["status"]) == {"complete"}
    assert list(frame["state"]) == [header["key"] for header in states.values()]
    for row, header in zip(frame.to_dict("records"), states.values(), strict=True):
        last = header["measures"][-1]
        assert row["test/top1"] == last["test/top1"]
        assert row["test/class/0003"] == last["test/class_accuracy"][3]
    shown = _mlflow_runs(run)
    scalars = [name for name in shown[0].data.metrics if name in frame]
    assert {"test/few", "adjusted/tau", "lr", "test/class/0009"} <= set(scalars)
    for mlflow_run, row in zip(shown, frame.to_dict("records"), strict=True):
        assert {name: row[name] for name in scalars} == mlflow_run.data.metrics


def _mlflow_runs(run: study.Run) -> list[Any]:
    import mlflow

    experiment = run.mlflow_experiment
    found = mlflow.search_runs(
        [experiment.experiment_id], "tags.`study.kind` = 'replicate'", output_format="list", max_results=100
    )
    order = [(row["trial"], str(row["replicate"])) for row in run.frame().to_dict("records")]
    return sorted(found, key=lambda each: order.index((each.data.params["trial"], each.data.params["replicate"])))


def test_a_frame_has_the_parameters_that_differ_and_no_others(run: study.Run) -> None:
    frame = run.frame()
    assert {"first", "switch", "S"} <= set(frame.columns), "axes are there, also those that are the same in all rows"
    assert {"switch_q", "seed", "subset_seed"} <= set(frame.columns)
    assert not {"momentum", "batch_size", "first_q"} & set(frame.columns)


def test_curves_are_in_long_form(run: study.Run, states: dict[tuple[str, int], dict[str, Any]]) -> None:
    curves = run.curves("test/top1", "lr")
    assert list(curves.columns) == ["space", "trial", "replicate", "epoch", "measure", "value"]
    assert len(curves) == 2 * 2 * 2 * 3
    top1 = curves[curves["measure"] == "test/top1"]
    for (row, number), header in states.items():
        mine = top1[top1["trial"].str.startswith(row) & (top1["replicate"] == number)]
        assert list(mine["epoch"]) == [0, 1, 2]
        assert list(mine["value"]) == [epoch["test/top1"] for epoch in header["measures"]]
    assert set(run.curves()["measure"]) == {"test/top1"}
    assert run.curves(["test/top1", "lr"]).equals(curves)


def test_a_comparison_is_paired_over_replicates(run: study.Run, states: dict[tuple[str, int], dict[str, Any]]) -> None:
    found = run.compare(CR, IB)
    pairs = [
        states[CR, number]["measures"][-1]["test/top1"] - states[IB, number]["measures"][-1]["test/top1"]
        for number in (0, 1)
    ]
    assert (found.n, found.mean, found.p) == (2, pytest.approx(statistics.mean(pairs)), None)
    half = 12.7062047 * statistics.stdev(pairs) / math.sqrt(2)  # Student's t, one degree of freedom
    assert (found.low, found.high) == (pytest.approx(found.mean - half), pytest.approx(found.mean + half))
    assert str(found).startswith("IB⇒CR (digits-LT IF 50) − IB⇒IB (digits-LT IF 50), test/top1: ")
    other = run.compare(IB, CR, "test/few")
    assert other.mean == pytest.approx(-run.compare(CR, IB, "test/few").mean)


def test_with_five_pairs_there_is_a_p_value() -> None:
    values = dict(enumerate([1.0, 2.0, 3.0, 4.0, 6.0]))
    estimate = paired(values, dict.fromkeys(values, 0.0))
    assert estimate is not None
    assert estimate.p == pytest.approx(stats.ttest_1samp(list(values.values()), 0.0).pvalue)


def test_the_model_and_the_predictions_are_those_of_the_recorded_accuracy(
    run: study.Run, states: dict[tuple[str, int], dict[str, Any]]
) -> None:
    import torch

    from trainables.data.datasets import facts

    model = run.model(CR, replicate=1)
    assert not model.training
    frame = run.predictions(CR, replicate=1)
    assert list(frame.columns) == ["image", "label", "prediction", "correct"]
    recorded = states[CR, 1]["measures"][-1]["test/top1"]
    assert 100 * frame["correct"].mean() == pytest.approx(recorded)
    config = run._find(CR, "")[1].trial.config
    images = facts(config["dataset"]).read(Path("none"), config["split_seed"] + 1)
    with torch.no_grad():
        logits = model(torch.tensor(images.test / facts("digits").scale, dtype=torch.float32))
    assert np.mean(logits.argmax(1).numpy() == frame["prediction"].to_numpy()) > 0.995  # a tie may round otherwise


def test_the_report_has_every_format_and_a_notebook_shows_it(run: study.Run, finished: Finished) -> None:
    command, _, _ = finished
    for form in ("table", "markdown", "csv", "json", "html"):
        assert run.report(form).rstrip("\n") == command("report", "mine", "--format", form).stdout.rstrip("\n")
    assert json.loads(run.report("json"))["run"] == "mine"
    assert len(list(csv.reader(io.StringIO(run.report("csv"))))) > 4
    shown = run._repr_html_()
    assert shown.startswith("<section>")
    assert "<table>" in shown
    assert "<style>" not in shown, "a notebook has its own"
    with pytest.raises(study.Refusal, match=r"^format must be table, markdown, csv, json or html \(got 'pdf'\)$"):
        run.report("pdf")


def test_the_records_are_open_to_optuna_and_mlflow(run: study.Run) -> None:
    assert len(run.optuna_study.trials) == 2
    assert run.optuna_study.best_value == pytest.approx(run.frame().groupby("trial")["test/top1"].mean().max())
    assert run.mlflow_experiment.name == "mine"


def test_a_run_says_how_far_it_is(run: study.Run, home: Path) -> None:
    assert repr(run) == "<study.Run mine: complete>"
    assert (run.spaces, len(run.trials), run.failures()) == (["small"], 2, {})
    assert run.status().complete == 4
    assert next(each.name for each in study.runs(home=home)) == "mine"
    assert study.runs(home=home / "nothing") == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.compare("IB=>CR", IB), "unknown trial 'IB=>CR'. Did you mean 'IB⇒CR'?"),
        (lambda run: run.compare("?", IB), "unknown trial '?'. Known: IB⇒IB, IB⇒CR"),
        (lambda run: run.compare(CR, IB, "test/fwe"), "unknown measure 'test/fwe'. Did you mean 'test/few'?"),
        (lambda run: run.curves("test/fwe"), "unknown measure 'test/fwe'. Did you mean 'test/few'?"),
        (lambda run: run.compare(CR, IB, column="cifar10"), "unknown column 'cifar10'. Known: digits-LT IF 50"),
        (
            lambda run: run.model(CR, 7),
            "replicate must be one of the complete replicates of 'IB⇒CR (digits-LT IF 50)': 0 or 1 (got 7)",
        ),
        (lambda run: run.compare(1, IB), "unknown trial 1. Known: IB⇒IB, IB⇒CR"),
        (lambda run: run.best(), "run 'mine' has no open search. 'run.report()' shows its tables"),
        (lambda run: run.space("table9"), "run 'mine' has no space 'table9'. It has small"),
        (
            lambda run: run.stop(),
            "run 'mine' is not being trained, so there is nothing to stop. 'study status' shows its progress",
        ),
    ],
)
def test_a_mistake_is_refused_in_one_line(run: study.Run, call: Callable[[study.Run], object], message: str) -> None:
    with pytest.raises(study.Refusal) as refused:
        call(run)
    assert str(refused.value) == message


def test_a_measure_that_is_a_list_is_no_number_to_compare_or_draw(run: study.Run) -> None:
    for call in (lambda: run.compare(CR, IB, "test/class_accuracy"), lambda: run.curves("test/class_accuracy")):
        with pytest.raises(study.Refusal, match=r"^unknown measure 'test/class_accuracy'\. Known: adjusted/few, "):
            call()


def test_a_trial_is_called_by_name_label_or_row(run: study.Run) -> None:
    ends = {
        tuple(run._find(name, column)[1].planned.ends)
        for name, column in (
            ("small/IB⇒CR (digits-LT IF 50)", ""),
            ("IB⇒CR (digits-LT IF 50)", ""),
            (CR, ""),
            (CR, "digits-LT IF 50"),
        )
    }
    assert len(ends) == 1


def test_a_run_whose_space_s_file_is_gone_has_its_source_in_the_plan(finished: Finished, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished[1] / "home" / "store", tmp_path / "home" / "store")
    run = study.load("mine", home=tmp_path / "home")
    assert len(run.frame()) == 4
    space = Path(finished[2])
    hidden = space.with_suffix(".hidden")
    space.rename(hidden)
    try:
        assert "IB⇒CR" in run.report()
        assert len(run.curves("test/top1")) == 12
        assert not run.compiled().problems
        assert len(run.frame()) == 4
    finally:
        hidden.rename(space)


def test_a_planned_replicate_has_a_row_without_measures(one_ray: None, finished: Finished, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(finished[1] / "home", tmp_path / "home")
    run = study.load("mine", home=tmp_path / "home")
    end = run.frame()["state"][3]
    for path in (tmp_path / "home" / "store").rglob(f"{end}*"):
        path.unlink()
    frame = run.frame()
    assert list(frame["status"]) == ["complete", "complete", "complete", "waiting"]
    assert math.isnan(frame["test/top1"][3])
    assert run.status().outcome == "interrupted"
    assert run.compare(CR, IB).n == 1
