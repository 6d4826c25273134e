"""How one driver keeps up with 2, 32 and 128 workers whose stages sleep: the time until a free worker has its next one.

    python tests/benchmarks/crowd.py [--workers 2 32 128] [--sleep 20] [--rounds 5] [--repeats 1] [--out JSON]

Ours is the whole platform, with a space of the user's own: once with all trials listed, and once as an open search
whose points Optuna suggests. Bare Ray Tune runs as many trials of a class that sleeps as long, and keeps nothing. All
reuse their actors, and share this machine's CPUs, which sleeping stages do not need. Each measurement is a process of
its own that trains workers × rounds stages. A worker measures how long it is free: from the end of a stage until it
begins the next one. The first stage of a process is left out. CPU and memory are those of the driver's process, with
its threads and without Ray's processes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from measuring import alternate, arguments, at_least_one, shortened, spread, undisturbed, write
from scale import WORK as NOTHING
from scale import header

import study
from study.execution import cluster
from study.execution.job import Job
from study.planning.stored import Resources
from study.space import Choice, Integer, Json, OpenSearch, Option, Real, Request, Resolved, Space, Trial
from study.store.states import Store

from ray import tune  # isort: skip  # after the platform, which sets its environment

CPUS = 0.015  # of a stage: 128 fit on two
SAMPLERS = ("IB", "CB", "CR")


class Sleeper(tune.Trainable):
    """A stage that sleeps, and keeps for how long its process had none before."""

    def setup(self, config: dict[str, Any], job: Job) -> None:
        self.store, self.ended = Store(job.store), 0.0
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.stage = new_config["stage"]
        return True

    def step(self) -> dict[str, Any]:
        free = time.perf_counter() - self.ended if self.ended else -1.0
        (epoch,), key = self.stage.epochs, self.stage.key
        time.sleep(epoch["seconds"])
        self.store.save(key, header(key, [{"test/top1": epoch["worth"], "free": free}]), b"")
        self.ended = time.perf_counter()
        return {"position": 1, "saved": key, "done": True}


class BareSleeper(tune.Trainable):
    """The same for bare Ray Tune."""

    def setup(self, config: dict[str, Any]) -> None:
        self.ended = 0.0
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.seconds = new_config["seconds"]
        return True

    def step(self) -> dict[str, Any]:
        free = time.perf_counter() - self.ended if self.ended else -1.0
        time.sleep(self.seconds)
        self.ended = time.perf_counter()
        return {"free": free, "done": True}


def resolve(config: Json, replicate: int, _machine: object) -> Resolved:
    """One epoch. Its state has the configuration's name, so that equal points are trained once."""
    name = sha256(json.dumps([dict(config), replicate], sort_keys=True).encode()).hexdigest()
    worth = 90 - abs(config["q"] + 1) * 10 - config["S"]
    return Resolved({}, ({"seconds": config["seconds"], "worth": worth},), ("0" * 40, name[:40]))


WORK = replace(NOTHING, resolve=resolve, trainable=lambda: Sleeper, curves=("test/top1",))
OPTIONS = (Option("count", "trials", "number"), Option("sleep", "seconds of a trial", "number"))
DOMAIN = {"q": Real(-2.0, 2.0), "S": Integer(0, 9), "switch": Choice(SAMPLERS)}


def listed(request: Request) -> Space:
    """So many trials as the option `count` says."""
    count, sleep = int(request.options["count"]), float(request.options["sleep"])
    points = [{"q": 4 * n / count - 2, "S": n % 10, "switch": SAMPLERS[n % 3]} for n in range(count)]
    trials = [Trial(f"{n}", "", {**point, "seconds": sleep}, point) for n, point in enumerate(points)]
    return Space("crowd", "Sleep", tuple(trials), DOMAIN, WORK, ("test/top1",), options=OPTIONS)


def searched(request: Request) -> Space:
    """The same number of points, by Optuna."""
    whole, sleep = listed(request), float(request.options["sleep"])

    def point(values: Json) -> Trial:
        return Trial("", "", {**values, "seconds": sleep}, dict(values))

    base = {"q": 0.0, "S": 0, "switch": "IB", "seconds": sleep}
    search = OpenSearch(point, base, int(request.options["count"]), ("test/top1",), fresh=1)
    return replace(whole, trials=(), search=search)


def through_us(space: str, workers: int, count: int, sleep: float) -> dict[str, Any]:
    """So many stages through the whole platform, in a new home."""
    with tempfile.TemporaryDirectory() as home:
        options = {"count": count, "sleep": sleep}
        run = study.run(
            f"{__file__}:{space}", home=home, seeds=1, workers=workers, cpus_per_trial=CPUS, options=options
        )
        assert run.outcome == "complete"
        store = Store(str(Path(home, "store")))
        free = [store.header(key)["measures"][-1]["free"] for key in sorted(store.keys())]
        distinct = len(free) - (space == "searched")  # without the champion
        return {"free": free, "distinct": distinct}


def through_ray(workers: int, count: int, sleep: float) -> dict[str, Any]:
    """As many trials in bare Ray Tune."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder, cluster.connected(Resources()):
        found = tune.Tuner(
            tune.with_resources(BareSleeper, {"cpu": cores / workers}),  # so many at a time
            param_space={"seconds": sleep, "number": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=count, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()
        return {"free": [result.metrics["free"] for result in found], "distinct": count}


SIDES = {
    "listed": lambda *sizes: through_us("listed", *sizes),
    "searched": lambda *sizes: through_us("searched", *sizes),
    "ray": through_ray,
}


def alone(side: str, workers: int, asked: Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    sizes = ["--workers", str(workers), "--rounds", str(asked.rounds), "--sleep", str(asked.sleep)]
    done = subprocess.run(
        [sys.executable, __file__, "--alone", side, *sizes], capture_output=True, text=True, env=undisturbed()
    )
    if done.returncode:
        raise SystemExit(f"{side}, {workers} workers: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compared(workers: int, asked: Namespace) -> dict[str, Any]:
    """All sides with so many workers."""
    found = alternate({side: lambda side=side: alone(side, workers, asked) for side in SIDES}, asked.repeats)
    return {side: {name: spread([each[name] for each in own]) for name in own[0]} for side, own in found.items()}


def measured(side: str, workers: int, asked: Namespace) -> dict[str, float]:
    """One side, in this process."""
    count = workers * asked.rounds
    began, cpu = time.perf_counter(), time.process_time()
    found = SIDES[side](workers, count, asked.sleep)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    free = sorted(seconds for seconds in found["free"] if seconds >= 0)
    return {
        "seconds": shortened(took),
        "free_median": shortened(free[len(free) // 2]),
        "free_p95": shortened(free[len(free) * 95 // 100]),
        "free_max": shortened(free[-1]),
        "driver_cpu_seconds": shortened(cpu),
        "driver_cpu_ms_a_stage": shortened(1000 * cpu / count),
        "driver_peak_rss_mib": shortened(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),  # Linux: KiB
        "distinct_percent": shortened(100 * found["distinct"] / count),
    }


def main() -> None:
    """Every number of workers; or, in a process of its own, one side with one number."""
    parser = arguments(__doc__, "crowd", repeats=1)
    parser.add_argument("--workers", type=at_least_one, nargs="+", default=[2, 32, 128])
    parser.add_argument("--rounds", type=at_least_one, default=5, help="stages of each worker")
    parser.add_argument("--sleep", type=float, default=20.0, help="seconds of a stage")
    parser.add_argument("--alone", choices=SIDES, help="print one measurement of the first number")
    asked = parser.parse_args()
    if asked.alone:
        print(json.dumps(measured(asked.alone, asked.workers[0], asked)))
        return
    found: dict[int, dict[str, Any]] = {}
    for workers in asked.workers:  # what was measured stays if the next one is stopped
        found[workers] = compared(workers, asked)
        write(asked.out, {"n": asked.repeats, "sleep_seconds": asked.sleep, "rounds": asked.rounds, "workers": found})


if __name__ == "__main__":
    main()
