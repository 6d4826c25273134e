"""What the platform itself costs, within one run.

    python tests/benchmarks/costs.py stages --out tests/benchmarks/results/cost_stages.json
    python tests/benchmarks/costs.py table9 --out tests/benchmarks/results/cost_table9.json

``stages``: stages that do nothing, through the whole platform (store, Optuna, MLflow, report) and through bare Ray
Tune, side by side, at 100 and 1,000; our cost is the difference, a stage. ``table9``: digits Table 9 through the whole
platform, and the same stages through Ray alone, its states kept as bare files in memory; both in a process of their
own, timed from its start.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import environment, spread
from ray import cloudpickle, tune
from ray.tune import Trainable
from trainable_forms import Silent

from study import driver, execute, planning, runs, tree
from study.home import Home
from study.plan import (
    Integer,
    Json,
    Machine,
    Plan,
    PlannedSpace,
    PlannedTrial,
    Request,
    Resolved,
    Resources,
    Space,
    Trial,
    Work,
)
from study.store import Store

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file on their path


class Nothing(Trainable):
    """A stage that does nothing but save what it was given."""

    def setup(self, config: dict[str, Any], job: execute.Job) -> None:
        self.store = Store(job.store) if job.store else None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.stage = new_config["stage"]
        return True

    def step(self) -> dict[str, Any]:
        key = self.stage.key
        part = {"from_epoch": 0, "run": "costs", "host": "here", "device_model": "none"}
        header = {"key": key, "epochs": 1, "measures": [{"test/top1": 50.0, "lr": 0.1}], "wall_seconds": [0.0]}
        self.store.save(key, {**header, "provenance": [part]}, b"")
        return {"position": 1, "saved": key, "done": True}


def bare(config: dict[str, Any]) -> None:
    """The same for Ray Tune alone, in the form whose actors it reuses."""
    tune.report({"done": True})


def resolve(config: Json, replicate: int, machine: Machine) -> Resolved:
    return Resolved({}, (config,), ("0" * 40, f"{config['number'] + 1:040x}"))


def exporter(_config: Json) -> Any:
    """A model directory that holds MLflow's own file."""
    return lambda _payload, folder, model: model.save(str(folder / "MLmodel"))


WORK = Work(
    resolve=resolve, sources=dict, prepare=lambda *_: None, trainable=lambda: Nothing,
    parameters=lambda config, _: dict(config), exporter=exporter,
)  # fmt: skip


def through_us(count: int) -> float:
    """Wall seconds of so many stages that do nothing."""
    trials = tuple(Trial(f"{n}", "nothing", {"number": n}, {"number": n}) for n in range(count))
    space = Space("nothing", "Nothing", trials, {"number": Integer(0, count)}, WORK)
    planned = PlannedSpace("nothing", "Nothing", "", space.objectives, (), space.domain, "", "")
    listed = [
        PlannedTrial("nothing", t.label, t.row, t.column, t.config, t.axes, None, "", 1, ("",), "test/top1")
        for t in trials
    ]
    plan = Plan(
        "costs",
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
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder, None)
        store = home.make()
        began = time.perf_counter()
        draft = planning.Draft(plan, [space], listed)
        runs.save_plan(store, draft.plan)
        services = driver.Services(home.tracking_uri(""), home.artifacts, home.storage(""))
        code = driver.start(draft, store, services, Resources(workers=2), [], lambda: None)
        seconds = time.perf_counter() - began
        assert code == driver.COMPLETE
        assert len(store.keys()) == count
    return seconds


def through_ray(count: int) -> float:
    """Wall seconds of as many trials that do nothing in bare Ray Tune, actors reused."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tune.Tuner(
            tune.with_resources(bare, {"cpu": max(1, (os.cpu_count() or 2) // 2)}),  # two at a time
            param_space={"number": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=count, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        return time.perf_counter() - began


def stages(repeats: int) -> dict[str, Any]:
    """Our cost a stage at 100 and 1,000."""
    found: dict[str, Any] = {}
    with execute.connected(Resources()):
        through_us(10), through_ray(10)  # imports, first actors
        for count in (100, 1000):
            rounds = [(through_us(count), through_ray(count)) for _ in range(repeats)]
            found[str(count)] = {
                "ours_ms": spread([1000 * ours / count for ours, _ in rounds]),
                "ray_ms": spread([1000 * ray / count for _, ray in rounds]),
                "beyond_ray_ms": spread([1000 * (ours - ray) / count for ours, ray in rounds]),
            }
            print(count, json.dumps(found[str(count)]), flush=True)
    small, large = (found[count]["beyond_ray_ms"]["median"] for count in ("100", "1000"))
    return {"unit": "ms a stage, two at a time", "n": repeats, **found, "ratio_1000_to_100": round(large / small, 3)}


def ray_alone() -> None:
    """Digits Table 9's stages through Ray; a state is a bare file in memory, and nothing else is kept."""
    from trainables.trainable import StageTrainable

    class InMemory(Store):
        def save(self, key: str, header: Json, payload: bytes) -> None:
            Path(self.url, key).write_bytes(json.dumps(dict(header)).encode() + b"\n" + payload)

        def load(self, key: str) -> tuple[dict[str, Any], bytes]:
            header, _, payload = Path(self.url, key).read_bytes().partition(b"\n")
            return json.loads(header), payload

    class Kept(StageTrainable):
        def _begin(self) -> None:
            import trainables.trainable

            trainables.trainable.Store = InMemory
            super()._begin()

    draft = planning.draft(["table9"], Request(), 3, Machine("cpu", 1), Resources())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, execute.connected(Resources()):
        execute.execute(
            tree.stages(list(draft.recipes.values()), set()), execute.Job("alone", folder, ""), Resources(), Kept,
            execute.Drain(), Silent(),
        )  # fmt: skip
        ends = {recipe.keys[-1] for recipe in draft.recipes.values()}
        assert ends <= set(os.listdir(folder))


def table9(repeats: int) -> dict[str, Any]:
    """Wall seconds of digits Table 9, three replicates, through the platform and through Ray alone, in turn."""
    found: dict[str, list[float]] = {"platform": [], "ray_alone": []}
    for number in range(repeats):
        order = ["platform", "ray_alone"]
        for which in order if number % 2 == 0 else reversed(order):
            with tempfile.TemporaryDirectory() as home:
                ours = [sys.executable, "-m", "study", "run", "table9", "--home", home]
                command = ours if which == "platform" else [sys.executable, __file__, "ray-alone"]
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                found[which].append(round(time.perf_counter() - began, 2))
            print(which, found[which][-1], flush=True)
    added = [100 * (ours / alone - 1) for ours, alone in zip(found["platform"], found["ray_alone"], strict=True)]
    return {"unit": "s of wall time, process start to end", "n": repeats, **found, "added_percent": spread(added)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["stages", "table9", "ray-alone"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.what == "ray-alone":
        ray_alone()
        return
    measured = stages(asked.repeats) if asked.what == "stages" else table9(asked.repeats)
    result = {"command": " ".join(["python", *sys.argv]), **measured, **environment()}
    print(json.dumps(result, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
