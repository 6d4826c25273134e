"""CONTRIBUTING's examples run as printed, from a directory outside, and leave what was trained before alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pages import ENVIRONMENT, blocks, run

pytestmark = pytest.mark.slow

LOAD = """
import mlflow
import numpy as np

mlflow.set_tracking_uri("{uri}")
model = mlflow.pyfunc.load_model("models:/{model}")
print(model.predict(np.zeros((2, 1, 8, 8), dtype=np.float32)).shape)
"""


def texts(language: str) -> list[str]:
    """Return the texts of the blocks of a language, in their order."""
    return [block.text for block in blocks("CONTRIBUTING.md", language)]


def status(where: Path) -> dict[str, Any]:
    """Return the status of each run, by its spaces."""
    return {each["study"]: each for each in json.loads(run("study status --json", where))}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with the files of the examples."""
    for block in texts("python"):
        first, _, _ = block.partition("\n")
        (tmp_path / first.removeprefix("# ")).write_text(block, encoding="utf-8")
    return tmp_path


def test_every_example_but_the_first_is_trained_as_printed(outside: Path) -> None:
    _, *commands = texts("bash")
    assert len(commands) == 3
    printed = [run(command.strip(), outside) for command in commands]
    assert all("Rings-LT IF 20" in each for each in printed)
    assert re.search(r"Focal, then CB +\d", printed[1])
    found = status(outside)
    assert set(found) == {"table6+table9", "table1", "gammas+steep"}
    assert all(each["failed"] == each["waiting"] == 0 for each in found.values())


def test_parts_of_one_s_own_are_killed_resumed_exported_and_retrain_nothing_else(outside: Path) -> None:
    """The loss and the backbone, in Table 9's nine cells; the shipped Table 9 is there before, and complete after."""
    shipped = "study run table9 --seeds 1 --name shipped"
    run(shipped, outside)
    command = texts("bash")[0].strip() + " --name own"
    driver = subprocess.Popen(
        shlex.split(command),
        cwd=outside,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    trained = 0
    for _ in range(600):
        time.sleep(0.2)
        own = [each for each in json.loads(run("study status --json", outside)) if each["run"] == "own"]
        trained = own[0]["epochs_trained"] if own else 0
        if trained:
            break
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert 0 < trained < 594

    run("study resume own", outside)
    found = {each["run"]: each for each in json.loads(run("study status --json", outside))}
    assert (found["own"]["complete"], found["own"]["epochs_needed"]) == (9, 594)
    client = MlflowClient(f"sqlite:///{outside}/studies/mlflow.db")
    experiment = client.get_experiment_by_name("own")
    cells = [each for each in client.search_runs([experiment.experiment_id]) if "loss" in each.data.params]
    assert len({each.data.params["combination"] for each in cells}) == len(cells) == 9
    for each in cells:
        shown = {name: each.data.params[name] for name in ("loss", "loss.margin", "backbone", "backbone.width")}
        assert list(shown.values()) == ["mine.py:Margin", "3.0", "mine.py:Plain", "8"]
        assert (each.info.status, len(client.get_metric_history(each.info.run_id, "test/top1"))) == ("FINISHED", 100)
    (logged,) = cells[0].outputs.model_outputs
    uri = f"sqlite:///{outside}/studies/mlflow.db"
    assert run(f"{sys.executable} -c '{LOAD.format(uri=uri, model=logged.model_id)}'", outside).strip() == "(2, 10)"

    assert (found["shipped"]["complete"], found["shipped"]["epochs_trained"]) == (9, 594)
    assert "594 after sharing prefixes, 0 to train" in run(f"{shipped} --dry-run", outside)
