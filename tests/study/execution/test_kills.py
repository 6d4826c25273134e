"""SIGKILLs of driver, worker and raylet at random moments lose nothing and double nothing."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
from benchmarks import kills
from helpers import MINI_SEARCH

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    draw = random.Random(seed := time.time_ns())
    print(f"seed {seed}")
    space = kills.write_space(tmp_path, epochs=100)
    expected = kills.undisturbed(space, tmp_path / "undisturbed")
    done: list[kills.Kill] = []
    while len(done) < 10:
        home = tmp_path / f"after{len(done)}"
        done += kills.disturb(space, home, 10 - len(done), draw)
        assert kills.everything(home) == expected, done
    assert {kill.victim for kill in done} <= {"driver", "worker", "raylet"}


def suggested(home: Path) -> list[tuple[object, ...]]:
    """Return Optuna's trials of the only study."""
    import optuna

    storage = f"sqlite:///{home / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return [(trial.number, trial.state.name, trial.params, trial.values) for trial in trials]


@pytest.mark.timeout(600)
def test_a_search_that_is_killed_goes_the_way_of_one_that_is_not(tmp_path: Path) -> None:
    draw = random.Random(seed := time.time_ns())
    print(f"seed {seed}")
    space = tmp_path / "mini.py"
    space.write_text(MINI_SEARCH)
    whole, home = tmp_path / "whole", tmp_path / "killed"
    arguments = ["run", str(space), "--trials", "20", "--workers", "1", "--name", "search"]
    output, _ = kills.study(*arguments, home=whole).communicate(timeout=300)
    expected = suggested(whole)
    assert [state for _, state, *_ in expected] == ["COMPLETE"] * 20, output

    for _ in range(2):
        process, wanted = kills.study(*arguments, home=home), draw.randint(1, 9)
        before = len(suggested(home)) if (home / "optuna.db").exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (home / "optuna.db").exists() and len(list(plans(home))) >= before + wanted:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["resume", "search", "--workers", "1"]
    output, _ = kills.study(*arguments, home=home).communicate(timeout=300)
    assert suggested(home) == expected, output
    reports = [
        json.loads(kills.study("report", "search", "--format", "json", home=each).communicate()[0])
        for each in (whole, home)
    ]
    assert reports[0]["searches"] == reports[1]["searches"]
    assert len(reports[0]["searches"][0]["champions"]) == 1


def plans(home: Path) -> list[dict[str, object]]:
    """Return the trials in the search's plan."""
    path = home / "store" / "runs" / "search" / "plan.json"
    if not path.exists():
        return []
    trials: list[dict[str, object]] = json.loads(path.read_text())["trials"]
    return trials
