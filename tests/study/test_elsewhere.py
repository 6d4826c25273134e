"""A run is resumed elsewhere: the user's own files are gone, and the plan holds their sources."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Study, parsed

from study.store import records
from study.store.states import Store

pytestmark = pytest.mark.slow

LOSS = """
from dataclasses import dataclass
from trainables.parameters import number
from trainables.parts import Loss

@dataclass(frozen=True)
class Own(Loss):
    by: float = number(1.0, "the factor", least=0.0)
    head = "../heads/own.py:Wide"

    def build(self, counts):
        import torch.nn.functional as F

        return lambda z, y, w: self.by * F.cross_entropy(z, y, w)
"""
HEAD = """
from dataclasses import dataclass
from trainables.networks.linear import Linear

@dataclass(frozen=True)
class Wide(Linear):
    pass
"""
DATA = """
import numpy as np

from trainables.data.facts import Images
from trainables.data.kinds import Small


class Tiny(Small):
    classes, largest = 8, 60
    channels, side, scale = 1, 16, 255
    mean, std = (0.3,), (0.25,)
    crop, many, few = 1, 30, 10
    fingerprint = "tiny, version 1"
    settings = {"backbone": "resnet8", "epochs": 6, "milestones": (3,), "warmup": 1, "retrain_epochs": 2}

    def read(self, root, split_seed):
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(8), 80)
        images = (rng.integers(0, 100, (640, 1, 16, 16)) + 10 * labels[:, None, None, None]).astype(np.uint8)
        test = np.arange(640) % 80 >= 60
        return Images(images[~test], labels[~test], images[test], labels[test])
"""
FILES = {"losses/mine.py": LOSS, "heads/own.py": HEAD, "tiny.py": DATA}


def test_a_run_of_a_user_s_own_files_is_resumed_where_none_of_them_is(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, other = tmp_path / "lab", tmp_path / "other"
    other.mkdir()
    for name, text in FILES.items():
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text(text)
    space = Path(small_space(cells=(("IB", "CR"),))).rename(lab / "small.py")
    monkeypatch.chdir(lab)
    own = ("--loss", "./losses/mine.py:Own(by=0.5)", "--data", "./tiny.py:Tiny", "--imbalance", "20")
    study("run", "./small.py", "--seeds", "1", "--name", "mine", *own)
    store = Store(str(tmp_path / "home/store"))
    plan = records.load_plan(store, "mine")
    assert plan is not None
    here = {path: text for path, text in plan.held.items() if Path(path).is_relative_to(lab)}
    losses, heads, data = FILES.values()
    assert here == {
        str(space): space.read_text(),
        f"{lab}/losses/mine.py": losses,
        f"{lab}/losses/../heads/own.py": heads,
        f"{lab}/tiny.py": data,
    }
    report = study("report", "mine").stdout
    ((end,),) = [trial.ends for trial in plan.trials]
    for path in (tmp_path / "home").rglob(f"{end}*"):
        path.unlink()
    (tmp_path / "home").rename(other / "home")
    lab.rename(tmp_path / "gone")

    def elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "study", *arguments, "--home", "home"]
        environment = {**os.environ, "TMPDIR": str(other), "RAY_TMPDIR": "/tmp"}
        return subprocess.run(command, cwd=other, env=environment, capture_output=True, text=True, check=False)

    done = elsewhere("resume", "mine", "--workers", "1")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(other)
    shown = parsed(study("status", "mine", "--json", home=other / "home"))
    assert (shown["outcome"], shown["epochs_trained_now"] > 0) == ("complete", True)
    again = elsewhere("report", "mine")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.splitlines()[1:] == report.splitlines()[1:]
    after = records.load_plan(Store("home/store"), "mine")
    assert after is not None
    assert after.trials == plan.trials
    assert after.held == here, "what another process of the tests had executed is no longer held"
    assert [path.name for path in other.iterdir() if path.name.startswith("study-")] == []

    lab.mkdir()
    (lab / "losses").mkdir()
    (lab / "losses/mine.py").write_text(losses.replace("self.by *", "2 * self.by *"))
    refused = elsewhere("resume", "mine")  # a file that is there again has precedence
    assert refused.returncode == 2
    assert "have changed since run 'mine' was planned: mine.py: Own" in refused.stderr
