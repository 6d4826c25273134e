"""What store, tracking and report add to digits Table 9: the platform against its own stages on Ray without them.

    python tests/benchmarks/cost_table9.py [--workers 2 1] [--repeats 3] [--out JSON]

Three replicates, planned, trained and reported as ``study run table9`` does; and the same stages, in the same order, by
the same Trainable on Ray Tune, their states kept as bare files in memory. Both are processes of their own, timed from
start to end. Once with a stage on every core, so that all of the platform's work is taken from training, and once with
one core left to it, as it is where GPUs train.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import alternate, arguments, at_least_one, seconds, spread, undisturbed, write
from ray import cloudpickle
from trainable_forms import Silent

from study.execution import cluster, tune
from study.execution.interrupts import Drain
from study.execution.job import Job
from study.machine import Machine
from study.planning import drafting, tree
from study.planning.stored import Resources
from study.space import Json, Request
from study.store.states import Store

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file on their path


def ray_alone(space: str, workers: int) -> None:
    """A space's stages through Ray; a state is a bare file in memory, and nothing else is kept."""
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

    draft = drafting.draft(drafting.call([space], Request()), 3, Machine("cpu", 1), Resources())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, cluster.connected(Resources()):
        tune.execute(
            tree.stages(list(draft.recipes.values()), set()),
            Job("alone", folder, Resources(workers=workers)),
            Kept,
            Drain(),
            Silent(),
        )
        ends = {recipe.keys[-1] for recipe in draft.recipes.values()}
        assert ends <= set(os.listdir(folder))


def platform(space: str, workers: int) -> float:
    """Seconds of ``study run``, cold."""
    with tempfile.TemporaryDirectory() as home:
        return timed("-m", "study", "run", space, "--home", home, "--workers", str(workers))


def alone(space: str, workers: int) -> float:
    """Seconds of `ray_alone` in a process of its own."""
    return timed(__file__, "--ray-alone", str(workers), "--space", space)


def compared(space: str, workers: int, repeats: int) -> dict[str, Any]:
    """Both, in turn."""
    sides = {"platform": lambda: platform(space, workers), "ray_alone": lambda: alone(space, workers)}
    found = alternate(sides, repeats)
    pairs = zip(found["platform"], found["ray_alone"], strict=True)
    added = [100 * (ours / ray - 1) for ours, ray in pairs]
    return {"workers": workers, **{side: spread(own) for side, own in found.items()}, "added_percent": spread(added)}


def timed(*arguments: str) -> float:
    """Seconds of a command of Python's."""
    command = [sys.executable, *arguments]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True, env=undisturbed()))


def main() -> None:
    """With a worker a core, and with one fewer."""
    parser = arguments(__doc__, "cost_table9", repeats=3)
    parser.add_argument("--ray-alone", type=int, metavar="WORKERS", help="only that side, once, in this process")
    parser.add_argument("--space", default="table9", help="another one for a smoke test only")
    cores = len(os.sched_getaffinity(0))
    each = [cores, max(1, cores - 1)]
    parser.add_argument(
        "--workers", type=at_least_one, nargs="+", default=each, help="by default all cores, and one less"
    )
    asked = parser.parse_args()
    if asked.ray_alone:
        ray_alone(asked.space, asked.ray_alone)
        return
    cases = [compared(asked.space, workers, asked.repeats) for workers in asked.workers]
    write(
        asked.out, {"unit": "s of wall time, process start to end", "n": asked.repeats, "cores": cores, "cases": cases}
    )


if __name__ == "__main__":
    main()
