"""A driver that was stopped while another one took its run over wakes up, and leaves no trace."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kills
import stops

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("within_mlflow", [False, True])
def test_a_driver_that_wakes_up_late_changes_nothing(tmp_path: Path, within_mlflow: bool) -> None:
    """The benchmark `stops.py` does this with searches, too, and more often."""
    draw = random.Random(seed := time.time_ns())
    print(f"seed {seed}")
    driver = stops.write_driver(tmp_path)
    run = [kills.write_space(tmp_path, 20), "--seeds", "1", "--name", kills.RUN]
    began = time.monotonic()
    undisturbed = stops.study("run", *run, home=tmp_path / "undisturbed", driver=driver)
    output, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, output
    seconds = time.monotonic() - began
    happened = stops.disturb(run, tmp_path / "home", driver, draw, within_mlflow, seconds)
    print(happened)
    assert stops.everything(tmp_path / "home") == stops.everything(tmp_path / "undisturbed")
