"""A home of an earlier version is read: its plans do not say what replicates vary, nor know of a short protocol."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import Study, call_study, downgraded

from study.store.states import Store

UNKNOWN = "The plan does not record in which seeds the replicates differ."
KNOWN = "2 replicates vary split (0, 1), subset (0, 1) and training seed (0, 1)."


# What a configuration of cross-entropy had in fields of its own.
FIELDS = {
    "bilateral": False,
    "focal_gamma": 1.0,
    "max_margin": 0.5,
    "tau": 1.0,
    "smoothing": [0.4, 0.1],
    "mixup": 0.0,
}


def old(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as version 0.2 stored it: parts are names, their parameters fields."""
    kept = {name: value for name, value in config.items() if name not in ("protocol", "warmup_from", "crossed")}
    assert (kept.pop("mixture"), kept["loss"]) == (None, {"part": "cross_entropy"})
    return {**kept, "loss": "cross_entropy", "backbone": kept["backbone"]["part"], **FIELDS}


def age(home: Path) -> None:
    """The home's run as the version before planned it: other sources, no seeds, and not the requests of today."""
    store = Store(str(home / "store"))
    plan = store.read_record("runs/mine/plan.json")
    assert plan is not None
    plan = downgraded(plan)
    del plan["request"]["short"], plan["request"]["vary"]
    for trial in plan["trials"]:
        assert len(trial.pop("seeds")) == 2
        trial["config"] = old(trial["config"])
    plan["sources"] = {"losses.py": "0" * 40}  # by files
    store.write_record("runs/mine/plan.json", plan)


@pytest.fixture
def aged(finished: tuple[Study, Path, str], tmp_path: Path) -> tuple[Study, Path]:
    """The command on a copy of a finished home that an earlier version made."""
    _, folder, _ = finished
    home = tmp_path / "home"
    shutil.copytree(folder / "home", home)
    age(home)
    return partial(call_study, home=home), home


def test_its_runs_have_a_status(aged: tuple[Study, Path], finished: tuple[Study, Path, str]) -> None:
    then, now = (json.loads(study("status", "mine", "--json").stdout) for study in (aged[0], finished[0]))
    assert (then["run"], then["complete"], then["outcome"]) == ("mine", 4, "complete")
    assert then == now
    assert "mine  complete" in aged[0]("status").stdout


def test_its_runs_are_reported_and_what_is_not_known_is_said(
    aged: tuple[Study, Path], finished: tuple[Study, Path, str]
) -> None:
    then, now = (json.loads(study("report", "mine", "--format", "json").stdout) for study in (aged[0], finished[0]))
    assert then["notices"]["small"] == [UNKNOWN, *now["notices"]["small"][1:]]
    assert now["notices"]["small"][0] == KNOWN
    assert [row.pop("seeds") for row in then["rows"]] == [[], []]
    assert [len(row.pop("seeds")) for row in now["rows"]] == [2, 2]
    assert {**then, "notices": {}} == {**now, "notices": {}}
    for form in ("table", "markdown", "html"):
        assert UNKNOWN in aged[0]("report", "mine", "--format", form).stdout


@pytest.mark.parametrize("verb", [["resume", "mine"], ["run", "SPACE", "--seeds", "3", "--name", "mine"]])
def test_they_are_not_gone_on_with_for_their_states_would_be_others(
    aged: tuple[Study, Path], finished: tuple[Study, Path, str], verb: list[str]
) -> None:
    study, home = aged
    before = (home / "store/runs/mine/plan.json").read_bytes()
    arguments = [finished[2] if word == "SPACE" else word for word in verb]
    message = str(study(*arguments, code=2).exception)
    assert message.startswith("these sources have changed since run 'mine' was planned: losses.py. ")
    assert "--retrain" in message
    assert "\n" not in message
    assert (home / "store/runs/mine/plan.json").read_bytes() == before


def test_a_dry_run_says_what_training_them_anew_would_cost(
    aged: tuple[Study, Path], finished: tuple[Study, Path, str]
) -> None:
    store = Store(str(aged[1] / "store"))
    plan = store.read_record("runs/mine/plan.json")
    assert plan is not None
    trials = [{**trial, "ends": ["0" * 40] * len(trial["ends"])} for trial in plan["trials"]]
    store.write_record("runs/mine/plan.json", {**plan, "trials": trials})  # its states had other names
    said = aged[0]("run", finished[2], "--seeds", "2", "--name", "mine", "--retrain", "--dry-run").stdout
    assert KNOWN in said
    assert "run mine: 4 trainings" in said
