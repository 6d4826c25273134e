"""What a stage costs beyond bare Ray Tune, and what memory the driver takes, at 10 to 10,000 stages that do nothing.

    python tests/benchmarks/scale.py [--counts 10 100 1000 10000] [--repeats 2] [--out JSON]

Ours is the whole platform: store, Optuna's and MLflow's databases, a model a replicate, the report. Bare Ray Tune runs
as many trials of a function that reports once, and keeps nothing. Both run two at a time, reuse their actors, and have
Tune's own log files off. Each measurement is a process of its own: seconds from a connected Ray that has run ten before
(imports, first actors) to the end, in a new home; and the process's largest resident memory. A count of more than 1,000
is measured once. ``marginal_ms`` is what each further stage costs between two counts: it is free of what is paid once
a run, which makes 100 stages look dearer than they are.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from typing import Any

from measuring import alternate, arguments, at_least_one, seconds, shortened, spread, write
from ray import cloudpickle, tune
from ray.tune import Trainable

from study.execution import cluster, driver
from study.execution.job import Job
from study.execution.progress import Progress
from study.execution.projection import Services
from study.home import Home
from study.machine import Machine
from study.planning.draft import Draft
from study.planning.stored import Plan, PlannedSpace, PlannedTrial, Resources
from study.space import Integer, Json, Request, Resolved, Space, Work
from study.space import Trial as Point
from study.store.states import Store
from trainables.work import WORK as REAL

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file on their path

ONCE = 1000  # counts above it are measured once


class Nothing(Trainable):
    """A stage that does nothing but save what it was given."""

    def setup(self, config: dict[str, Any], job: Job) -> None:
        self.store = Store(job.store)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.stage = new_config["stage"]
        return True

    def step(self) -> dict[str, Any]:
        key = self.stage.key
        self.store.save(key, header(key, [{"test/top1": 50.0, "lr": 0.1}]), b"")
        return {"position": 1, "saved": key, "done": True}


def header(key: str, measures: list[dict[str, float]]) -> dict[str, Any]:
    """Of a state after so many epochs."""
    part = {"from_epoch": 0, "run": "nothing", "host": "here", "device_model": "none"}
    seconds_each = [0.0] * len(measures)
    return {
        "key": key,
        "epochs": len(measures),
        "measures": measures,
        "wall_seconds": seconds_each,
        "provenance": [part],
    }


def resolve(config: Json, _replicate: int, _machine: Machine) -> Resolved:
    """So many epochs, each with a state's name of its own."""
    keys = [f"{config['number'] + 1:020x}{epoch + 1:020x}" for epoch in range(config["epochs"])]
    return Resolved({}, tuple({"epoch": key} for key in keys), ("0" * 40, *keys))


def exporter(_config: Json) -> Any:
    """A model directory that holds MLflow's own file."""
    return lambda _payload, folder, model: model.save(str(folder / "MLmodel"))


WORK = Work(
    resolve=resolve,
    prepare=lambda *_: None,
    trainable=lambda: Nothing,
    parameters=lambda config, *_: dict(config),
    exporter=exporter,
    wants_gpu=lambda _: False,
    curves=REAL.curves,
)


def draft(count: int, epochs: int = 1, curves: tuple[str, ...] = REAL.curves) -> Draft:
    """So many trials of one replicate whose training does nothing."""
    points = [Point(f"{n}", "nothing", {"number": n, "epochs": epochs}, {"number": n}) for n in range(count)]
    space = Space(
        "nothing", "Nothing", tuple(points), {"number": Integer(0, count)}, replace(WORK, curves=curves), ("test/top1",)
    )
    planned = PlannedSpace("nothing", "Nothing", space.objectives, space.domain, "", "")
    listed = [PlannedTrial("nothing", replace(point, measure="test/top1"), epochs, ("",)) for point in points]
    plan = Plan(
        "nothing",
        Request(),
        Machine("cpu", 1),
        Resources(),
        1,
        (planned,),
        (),
        {},
        0,
        created="2026-01-01T00:00:00+00:00",
    )
    return Draft(plan, [space], listed)


def through_us(count: int) -> None:
    """So many stages through the whole platform, in a new home."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder, None)
        store = home.make()
        planned = draft(count)
        services = Services(home.tracking_uri(""), home.artifacts, home.storage(""))
        outcome = driver.start(
            planned, None, store, services, Resources(workers=2), lambda: None, Progress(shown=False)
        )
        assert outcome == "complete"
        assert len(store.keys()) == count


def bare(_config: dict[str, Any]) -> None:
    """A trial that does nothing, in the form whose actors Ray reuses."""
    tune.report({"done": True})


def through_ray(count: int) -> None:
    """As many trials in bare Ray Tune."""
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(bare, {"cpu": max(1, (os.cpu_count() or 2) // 2)}),  # two at a time
            param_space={"number": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=count, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()


SIDES = {"ours": through_us, "ray": through_ray}


def alone(side: str, count: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--alone", side, "--counts", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side}, {count} stages: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compared(count: int, repeats: int) -> dict[str, Any]:
    """Both sides at one count."""
    found = alternate({side: lambda side=side: alone(side, count) for side in SIDES}, repeats)
    took = {side: [1000 * each["seconds"] / count for each in own] for side, own in found.items()}
    return {
        "n": repeats,
        **{f"{side}_ms": spread(own) for side, own in took.items()},
        "beyond_ray_ms": spread([ours - ray for ours, ray in zip(took["ours"], took["ray"], strict=True)]),
        **{f"{side}_peak_rss_mib": spread([each["peak_rss_mib"] for each in own]) for side, own in found.items()},
    }


def main() -> None:
    """Every count; or, in a process of its own, one side of one."""
    parser = arguments(__doc__, "scale", repeats=2)
    parser.add_argument("--counts", type=at_least_one, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--alone", choices=SIDES, help="print one measurement of the first count")
    asked = parser.parse_args()
    if asked.alone:
        run = SIDES[asked.alone]
        with cluster.connected(Resources()):
            run(10)
            took = seconds(lambda: run(asked.counts[0]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
        print(json.dumps({"seconds": took, "peak_rss_mib": peak}))
        return
    found = {count: compared(count, asked.repeats if count <= ONCE else 1) for count in asked.counts}
    beyond = {count: own["beyond_ray_ms"]["median"] for count, own in found.items()}
    marginal = {
        f"{few} to {many}": shortened((many * beyond[many] - few * beyond[few]) / (many - few))
        for few, many in pairwise(asked.counts)
    }
    result = {"unit": "ms a stage, two at a time", "stages": found, "marginal_ms": marginal}
    if {100, 10_000} <= beyond.keys():
        result["ratio_10000_to_100"] = shortened(beyond[10_000] / beyond[100])
    write(asked.out, result)


if __name__ == "__main__":
    main()
