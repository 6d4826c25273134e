"""Runs from Python: started, grown, interrupted, resumed and planned, with the words of the command line."""

from __future__ import annotations

import _thread
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Study, parsed

import study
from study.api import calls
from study.planning.stored import Plan


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, which the environment names."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STUDY_DATA", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


def test_importing_study_imports_nothing_else_of_it_and_is_quick() -> None:
    program = (
        "import sys, time; begin = time.perf_counter(); import study; seconds = time.perf_counter() - begin\n"
        "print(seconds, sorted(name for name in sys.modules if name.startswith('study.') or name in "
        "('torch', 'ray', 'mlflow', 'optuna', 'pandas', 'numpy', 'click')))"
    )
    seconds = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        took, names = done.stdout.split(maxsplit=1)
        assert names.strip() == "[]"
        seconds.append(float(took))
    assert sorted(seconds)[2] < 0.2


def test_what_the_package_offers_is_listed_and_nothing_else_is_there() -> None:
    assert set(study.__all__) <= set(dir(study))
    assert all(getattr(study, name) is not None for name in study.__all__)
    with pytest.raises(AttributeError, match="module 'study' has no attribute 'rum'"):
        study.rum  # noqa: B018


def test_a_run_is_trained_grows_and_is_resumed(one_ray: None, small_space: Callable[..., str], home: Path) -> None:
    space, seen = small_space(), []
    run = study.run(space, seeds=1, name="mine", workers=1, progress=False, trained=seen.append)
    assert (run.name, run.status().outcome, run.status().epochs_trained) == ("mine", "complete", 4)
    assert [each.name for each in seen] == ["mine"]
    assert run.home == home
    assert run.outcome == "complete"
    planned = study.plan(space, seeds=2, name="mine")
    assert (planned.epochs_naive, planned.epochs_needed, planned.epochs_to_train) == (12, 8, 4)
    grown = study.run(space, seeds=2, name="mine", workers=1, progress=False)
    assert (grown.status().complete, grown.status().epochs_trained) == (4, 8)
    again = study.resume("mine", workers=1, progress=False)
    assert (again.status().outcome, again.status().epochs_trained_now) == ("complete", 0)
    assert study.load("small").name == study.load("mi").name == "mine"


def test_an_interrupted_run_is_returned_and_goes_on(
    one_ray: None, small_space: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.execution.driver import _Drive

    count = _Drive.trained

    def interrupt(drive: _Drive, *arguments: Any) -> None:
        count(drive, *arguments)
        _thread.interrupt_main()  # as a notebook's interrupt, or Ctrl-C

    monkeypatch.setattr(_Drive, "trained", interrupt)
    run = study.run(small_space(), seeds=2, name="mine", workers=1, progress=False)
    monkeypatch.setattr(_Drive, "trained", count)
    assert run.status().outcome == "interrupted"
    assert 0 < run.status().epochs_trained < 8
    run = study.resume("mine", workers=1, progress=False)
    assert (run.status().outcome, run.status().epochs_trained) == ("complete", 8)


def test_a_run_is_refused_outside_of_the_main_thread(home: Path) -> None:
    refusals: list[str] = []

    def start() -> None:
        try:
            study.run("table9")
        except study.Refusal as refusal:
            refusals.append(str(refusal))

    thread = threading.Thread(target=start, name="other")
    thread.start()
    thread.join(60)
    words = "a run must be started from the main thread, and this is 'other'. Start a process for it, with 'study run' "
    assert refusals == [f"{words}for example"]
    assert not home.exists()


def test_two_homes_in_one_process_keep_apart(one_ray: None, small_space: Callable[..., str], tmp_path: Path) -> None:
    space = small_space()
    for name in ("a", "b"):
        run = study.run(space, seeds=1, home=tmp_path / name, workers=1, progress=False)
        assert run.mlflow_experiment.name == run.name
        assert run._plan().tracking_uri == "", "the database of its home"
        assert (tmp_path / name / "mlflow.db").is_file()
        assert "MLFLOW_TRACKING_URI" not in os.environ


def test_an_exception_of_the_caller_s_ends_every_thread(one_ray: None, small_space: Callable[..., str]) -> None:
    def fail(_run: study.Run) -> None:
        raise ZeroDivisionError

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        study.run(small_space(), seeds=1, name="mine", workers=1, progress=False, trained=fail)
    deadline = time.monotonic() + 20
    while {"Optuna", "MLflow"} & {thread.name for thread in threading.enumerate()}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert signal.getsignal(signal.SIGTERM) is before
    assert study.resume("mine", workers=1, progress=False).outcome == "complete"


def test_the_progress_is_plain_lines_or_none(
    one_ray: None, small_space: Callable[..., str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.execution.progress.LINE_SECONDS", 0.0)
    space = small_space()
    run = study.run(space, seeds=1, workers=1)
    out, err = capfd.readouterr()
    first, *counts = err.splitlines()
    assert (out, first) == ("", f"run {run.name}")
    assert counts
    assert all(re.match(r"\d/4 epochs, \d/2 replicates", line) for line in counts)
    study.run(space, seeds=1, workers=1, progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("keywords", "arguments"),
    [
        ({}, []),
        ({"seeds": 2, "data": ["digits", "cifar10"]}, ["--seeds", "2", "--data", "digits", "--data", "cifar10"]),
        ({"data": "cifar10", "imbalance": 100, "paper": True}, ["--data=cifar10", "--imbalance=100", "--paper"]),
        ({"precision": "fp32", "cpus_per_trial": 2}, ["--precision", "fp32", "--cpus-per-trial", "2"]),
        ({"options": {"vary": ("seed", "subset")}, "name": "it"}, ["--vary", "seed", "--vary", "subset", "--name=it"]),
        ({"loss": "ldam(max_margin=0.3)"}, ["--loss", "ldam(max_margin=0.3)"]),
    ],
)
def test_keywords_are_the_options_of_the_command_line(
    study: Study, keywords: dict[str, Any], arguments: list[str]
) -> None:
    planned = calls.plan("table9", download=True, **keywords)
    assert planned.to_json() == parsed(study("run", "table9", *arguments, "--dry-run", "--json"))
    assert str(planned) + "\n" == study("run", "table9", *arguments, "--dry-run").stdout
    assert repr(planned) == str(planned)


def test_an_option_of_one_space_is_a_keyword(study: Study) -> None:
    planned = calls.plan("table1", recipe="source", seeds=1)
    assert planned.to_json() == parsed(
        study("run", "table1", "-o", "recipe=source", "--seeds=1", "--dry-run", "--json")
    )


def test_a_plan_is_a_frame_and_several_spaces_are_planned_together() -> None:
    planned = study.plan(["table7", "table9"], seeds=2)
    assert planned.to_json() == study.plan("table7", "table9", seeds=2).to_json()
    frame = planned.frame()
    assert planned.spaces == ("table7", "table9")
    assert list(frame["space"]) == ["table7"] * 3 + ["table9"] * 9
    assert (set(frame["replicates"]), set(frame["epochs"]), set(frame["complete"])) == ({2}, {100}, {0})
    assert len(planned.trials) == 12
    assert planned.epochs_naive == 12 * 200
    assert planned.seconds_to_train is None, "no epoch of it has been measured"


def test_a_plan_estimates_seconds_by_the_epochs_that_are_stored(one_ray: None, small_space: Callable[..., str]) -> None:
    space = small_space()
    run = study.run(space, seeds=1, name="mine", workers=1, progress=False)
    assert study.plan(space, seeds=1, name="mine").seconds_to_train == 0
    plan, store = run._plan(), run._store
    measured = sorted(s for trial in plan.trials for s in store.header(trial.ends[0])["wall_seconds"])
    seconds = study.plan(space, seeds=3, name="mine").seconds_to_train
    assert seconds is not None
    assert 8 * measured[0] <= seconds <= 8 * measured[-1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study.run(), "space must be a name, a path or a function (got None). 'study list' shows the names"),
        (lambda: study.run("table9", seeds=0), "--seeds must be between 1 and 999 (got 0)"),
        (lambda: study.run("table9", seeds=1000), "--seeds must be between 1 and 999 (got 1000)"),
        (lambda: study.run("table9", seeds=True), "--seeds must be a whole number (got True)"),
        (lambda: study.run("table9", seeds="2"), "--seeds must be a whole number (got '2')"),
        (lambda: study.run("table9", workers=0), "--workers must be at least 1 (got 0)"),
        (lambda: study.run("table9", precision="half"), "--precision must be auto, fp32, tf32 or bf16 (got 'half')"),
        (
            lambda: study.run("table9", cpus_per_trial="1"),
            "--cpus-per-trial must be a number (got '1')",
        ),
        (lambda: study.run("table9", gpus_per_trial="1"), "--gpus-per-trial must be a number (got '1')"),
        (lambda: study.run("table9", paper="yes"), "--paper must be true or false (got 'yes')"),
        (lambda: study.run("table9", imbalance="high"), "--imbalance must be a number (got 'high')"),
        (lambda: study.run("table9", data=10), "--data must be text (got 10)"),
        (lambda: study.plan("table9", vary="all of it"), "--vary must be seed, subset, split, all or crossed"),
        (lambda: study.run("table9", name=3), "--name must be text (got 3)"),
        (lambda: study.run("table9", home=3), "--home must be a path (got 3)"),
        (lambda: study.run("table9", store=3), "--store must be a path (got 3)"),
        (lambda: study.run("table9", download="no"), "--download must be true or false (got 'no')"),
        (lambda: study.run("table9", tracking_uri=3), "--tracking-uri must be text (got 3)"),
        (lambda: study.plan("table9", options=[1]), "options must be a map from names to values (got [1])"),
        (lambda: study.plan("table9", dtaa="digits"), "unknown option 'dtaa'. Did you mean 'data'?"),
        (lambda: study.run("table9", dry_run=True), "unknown option 'dry_run'. 'study.plan' plans without training"),
        (lambda: study.load(3), "RUN must be text (got 3)"),
        (lambda: study.run(None), "space must be a name, a path or a function (got None)"),
        (lambda: study.run("sampler_search", objectives=3), "--objectives must be names of measures (got 3)"),
        (lambda: study.plan("table9", data="digits", options={"data": "cifar10"}), "--data must be given once: "),
        (lambda: study.run("table9", downlaod=True), "unknown option 'downlaod'. Did you mean 'download'?"),
        (lambda: study.run("table9", sedes=3), "unknown option 'sedes'. Did you mean 'seeds'?"),
        (lambda: study.run("tabel9"), "unknown space 'tabel9'. Did you mean 'table9'? 'study list' shows all"),
        (lambda: study.load("table9"), "run 'table9' does not exist"),
        (lambda: study.resume("table9", gpu_steps="fast"), "--gpu-steps must be auto, eager or recorded (got 'fast')"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(call: Callable[[], object], message: str, home: Path) -> None:
    with pytest.raises(study.Refusal) as refused:
        call()
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
    assert not home.exists()


def outside(request: Any) -> Any:
    """Three offsets of Table 9's switch."""
    from dataclasses import replace

    from search_spaces import table9

    return replace(table9.space(request), name="outside")


def test_a_function_of_a_module_is_found_again_by_its_file(home: Path) -> None:
    planned = study.plan(outside, seeds=1)
    assert planned.spaces == ("outside",)
    (space,) = planned._draft.plan.spaces
    assert space.file == f"{Path(__file__).absolute()}:outside"


def test_a_function_of_a_package_is_found_again_by_its_module() -> None:
    from search_spaces import table7

    (space,) = study.plan(table7.space, seeds=1)._draft.plan.spaces
    assert (space.name, space.file) == ("table7", "search_spaces.table7:space")


def test_a_plan_with_source_is_read_again() -> None:
    from helpers import planned_run, planned_space

    held = {"study_text_0": "def mine(request):\n    return None\n"}
    plan = planned_run([planned_space(file="study_text_0:mine")], held=held)
    assert Plan.from_json(plan.to_json()).held == held
    plain = {name: value for name, value in plan.to_json().items() if name != "held"}
    (space,) = plain["spaces"]
    earlier = {**plain, "spaces": [{**space, "code": held["study_text_0"]}]}  # as before the source was in `held`
    assert Plan.from_json(earlier) == plan
