"""A new release goes on with runs of the one before, unless what trained them has changed: then it says what."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TINY = """
import numpy as np

from trainables.data.facts import Images
from trainables.data.kinds import Small


class Tiny(Small):
    classes, largest, channels, side, scale = 3, 12, 1, 8, 16
    mean, std, crop, many, few = (0.3,), (0.4,), 1, 8, 5
    fingerprint = "tiny"
    settings = dict(backbone="resnet8", epochs=4, milestones=(2,), warmup=1, batch_size=8, retrain_epochs=1)

    def read(self, root, split_seed):
        labels = np.repeat(np.arange(3), 12)
        images = np.random.default_rng(0).integers(0, 16, (36, 1, 8, 8)).astype(np.uint8)
        return Images(images, labels, images, labels)
"""

pytestmark = pytest.mark.slow


class Release:
    """The program, of which `change` makes a later release; each command is a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tiny.py").write_text(TINY, encoding="utf-8")
        shutil.copytree(ROOT / "trainables", folder / "code/trainables", ignore=shutil.ignore_patterns("__pycache__"))

    def change(self, file: str, old: str, new: str) -> None:
        path = self.folder / "code/trainables" / file
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def study(self, *words: str, code: int = 0) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "code"), "STUDY_HOME": str(self.folder / "home")}
        command = [sys.executable, "-m", "study", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def run(self, *words: str, code: int = 0) -> str:
        return self.study("run", *words, "--data", "tiny.py:Tiny", "--imbalance", "3", code=code)

    def to_train(self, *words: str) -> int:
        found = re.search(r"(\d+) to train", self.run(*words, "--dry-run"))
        assert found is not None
        return int(found[1])


def test_a_run_goes_on_under_a_release_that_changes_nothing_of_what_trains_it(tmp_path: Path) -> None:
    release = Release(tmp_path)
    release.run("table9", "--seeds", "1", "--name", "mine")
    release.run("table1", "--seeds", "1")

    extra = (release.folder / "code/trainables/losses/focal.py").read_text().replace("class Focal(", "class Extra(")
    release.change("losses/extra.py", "", extra)  # a new loss
    release.change("steps.py", "of an instruction that a step depends on", "of an instruction that it needs")  # words
    release.change("steps.py", "def kind(", "def helper(x: int) -> int:\n    return x + 1\n\n\ndef kind(")  # a helper
    release.change("loop.py", "def _fit(learner: Learner", "def _fit(learner: object")  # types
    release.change(
        "team.py", "        self._others = []", '        print("closed")\n        self._others = []'
    )  # a log line
    release.change("work.py", 'group_by="combination"', 'group_by="method"')  # what MLflow groups by
    release.change("data/cifar10.py", "largest = 5000", "largest = 4999")  # other data
    assert release.to_train("table9", "--seeds", "1", "--name", "mine") == 0
    assert release.to_train("table1", "--seeds", "1") == 0
    assert "complete" in release.study("resume", "mine") + release.study("status", "mine")
    release.run("table9", "--seeds", "2", "--name", "mine")
    (mine,) = [each for each in json.loads(release.study("status", "--json")) if each["run"] == "mine"]
    assert (mine["complete"], mine["epochs_trained"]) == (18, mine["epochs_needed"])

    # A loss that is changed: its own rows alone are trained again, Focal and CB-Focal, four epochs each.
    release.change("losses/focal.py", "wrong**self.gamma * losses", "2 * wrong**self.gamma * losses")
    assert release.to_train("table9", "--seeds", "2", "--name", "mine") == 0
    assert release.to_train("table1", "--seeds", "1") == 8
    said = release.run("table1", "--seeds", "1", "--name", last_run(release, "table1"), code=2)
    name = last_run(release, "table1")
    assert said.startswith(
        f"error: these sources have changed since run {name!r} was planned: losses/focal.py: Focal. "
    )

    # What every epoch runs.
    release.change("steps.py", "KEPT = 4", "KEPT = 5")
    said = release.study("resume", "mine", code=2)
    assert said.startswith("error: these sources have changed since run 'mine' was planned: steps.py: KEPT. ")
    assert "--retrain" in said
    assert "complete" in release.study("status", "mine")
    assert "Table 9" in release.study("report", "mine")
    assert "0 states" in release.study("clean", "--dry-run")


def last_run(release: Release, study: str) -> str:
    return next(each["run"] for each in json.loads(release.study("status", "--json")) if each["study"] == study)
