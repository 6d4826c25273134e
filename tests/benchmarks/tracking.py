"""The driver's time for MLflow: Ray's own MLflowLoggerCallback against our Tracker, of the same metrics.

    python tests/benchmarks/tracking.py [--trials 2] [--epochs 100] [--repeats 3] [--out JSON]

39 metrics an epoch, into a new SQLite database that is set up before. The callback is called as Ray Tune calls it in
the driver: at a trial's start, for every report, at its end. Our Tracker is called as the driver calls it: when a state
is durable, here after half of the epochs and at the end (as a cell of Table 9 is). Ours also writes tags and a model's
record; the callback also writes its parameters, as ours does.

By design ours writes fewer rows: every epoch only the metrics that are read as curves, all with the last epoch, since
the store has them all. So it is measured that way (``ours``) and with all 39 every epoch (``ours, all rows``); the rows
in MLflow's tables ``metrics`` are counted.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import alternate, arguments, ratio, spread, write
from ray.air.integrations.mlflow import MLflowLoggerCallback
from scale import draft, header

from study.tracking import runs
from trainables.work import WORK

NAMES = (
    "train/loss",
    "train/top1",
    "lr",
    *(
        f"{part}/{m}"
        for part in ("test", "val", "holdout")
        for m in ("loss", "top1", "worst", "ece", "many", "medium", "few")
    ),
    *(
        f"{read_out}/{m}"
        for read_out in ("adjusted", "tau_normalised")
        for m in ("tau", "top1", "many", "medium", "few", "worst")
    ),
    "fit/loss",
    "fit/top1",
    "fit/worst",
)


def measures(epochs: int) -> list[dict[str, float]]:
    """Each epoch's metrics."""
    rng = random.Random(0)
    return [{name: rng.random() for name in NAMES} for _ in range(epochs)]


class TuneTrial:
    """What the callback looks at of a Tune trial."""

    def __init__(self, number: int) -> None:
        self.config = {"number": number, "epochs": 0}

    def __str__(self) -> str:
        return f"trial {self.config['number']}"


def callback(folder: Path, trials: int, found: list[dict[str, float]], _curves: tuple[str, ...]) -> Callable[[], None]:
    """Ray's, set up."""
    ray = MLflowLoggerCallback(f"sqlite:///{folder / 'mlflow.db'}", experiment_name="table9")
    ray.setup()

    def log() -> None:
        for number in range(trials):
            trial = TuneTrial(number)
            ray.log_trial_start(trial)
            for epoch, own in enumerate(found, 1):
                ray.log_trial_result(epoch, trial, {**own, "training_iteration": epoch})
            ray.log_trial_end(trial)

    return log


def tracker(folder: Path, trials: int, found: list[dict[str, float]], curves: tuple[str, ...]) -> Callable[[], None]:
    """Ours, set up."""
    planned = draft(trials, len(found), curves)
    ours = runs.Tracker(planned, f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
    ours.begin()

    def log() -> None:
        for trial in planned.plan.trials:
            for epochs in (len(found) // 2, len(found)):
                key = planned.recipes[trial.name, 0].keys[epochs]
                ours.project(trial, 0, header(key, found[:epochs]), bytes)

    return log


def measured(
    side: Callable[[Path, int, list[dict[str, float]], tuple[str, ...]], Callable[[], None]],
    curves: tuple[str, ...],
    trials: int,
    epochs: int,
) -> dict[str, float]:
    """CPU and wall seconds a trial in this process, and how many rows there are a trial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = side(folder, trials, measures(epochs), curves)
        wall, cpu = time.perf_counter(), time.process_time()
        log()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        with sqlite3.connect(folder / "mlflow.db") as database:
            (rows,) = database.execute("SELECT COUNT(*) FROM metrics").fetchone()
    return {"wall_seconds": wall / trials, "cpu_seconds": cpu / trials, "rows": rows / trials}


def main() -> None:
    """All three, in turn."""
    parser = arguments(__doc__, "tracking", repeats=3)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100)
    asked = parser.parse_args()
    assert len(NAMES) == 39
    few, every = WORK.curves, ("lr", "")
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "callback": lambda: measured(callback, few, asked.trials, asked.epochs),
        "ours": lambda: measured(tracker, few, asked.trials, asked.epochs),
        "ours, all rows": lambda: measured(tracker, every, asked.trials, asked.epochs),
    }
    for side, curves in ((callback, few), (tracker, few)):  # imports
        measured(side, curves, 1, 2)
    found = alternate(sides, asked.repeats)

    def values(side: str, what: str) -> list[float]:
        return [each[what] for each in found[side]]

    result = {
        "unit": "s of the driver a trial; ratio: callback / ours",
        "n": asked.repeats,
        "trials": asked.trials,
        "epochs": asked.epochs,
        "metrics": len(NAMES),
        "sides": {
            side: {
                "rows": values(side, "rows")[0],
                "wall_seconds": spread(values(side, "wall_seconds")),
                "cpu_seconds": spread(values(side, "cpu_seconds")),
            }
            for side in sides
        },
        "ratios": {
            f"{side}, {kind}": ratio(values("callback", f"{kind}_seconds"), values(side, f"{kind}_seconds"))
            for side in ("ours", "ours, all rows")
            for kind in ("wall", "cpu")
        },
    }
    write(asked.out, result)


if __name__ == "__main__":
    main()
