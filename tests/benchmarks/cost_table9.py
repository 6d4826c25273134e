"""What store, tracking and report add to digits Table 9: the platform against its own stages on Ray without them.

    python tests/benchmarks/cost_table9.py [--repeats 3] [--out JSON]

Three replicates, planned, trained and reported as ``study run table9`` does; and the same stages, in the same order, by
the same Trainable on Ray Tune, their states kept as bare files in memory. Both are processes of their own, timed from
start to end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import alternate, arguments, seconds, spread, undisturbed, write
from ray import cloudpickle
from trainable_forms import Silent

from study import cluster, execute, planning, tree
from study.plan import Resources
from study.space import Json, Machine, Request
from study.store import Store

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file on their path


def ray_alone(space: str) -> None:
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

    draft = planning.draft([space], Request(), 3, Machine("cpu", 1), Resources())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, cluster.connected(Resources()):
        execute.execute(
            tree.stages(list(draft.recipes.values()), set()), execute.Job("alone", folder, ""), Resources(), Kept,
            execute.Drain(), Silent(),
        )  # fmt: skip
        ends = {recipe.keys[-1] for recipe in draft.recipes.values()}
        assert ends <= set(os.listdir(folder))


def platform(space: str) -> float:
    """Seconds of ``study run``, cold."""
    with tempfile.TemporaryDirectory() as home:
        return timed("-m", "study", "run", space, "--home", home)


def alone(space: str) -> float:
    """Seconds of `ray_alone` in a process of its own."""
    return timed(__file__, "--ray-alone", "--space", space)


def timed(*arguments: str) -> float:
    """Seconds of a command of Python's."""
    command = [sys.executable, *arguments]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True, env=undisturbed()))


def main() -> None:
    """Both, in turn."""
    parser = arguments(__doc__, "cost_table9", repeats=3)
    parser.add_argument("--ray-alone", action="store_true", help="only that side, once, in this process")
    parser.add_argument("--space", default="table9", help="another one for a smoke test only")
    asked = parser.parse_args()
    if asked.ray_alone:
        ray_alone(asked.space)
        return
    sides = {"platform": lambda: platform(asked.space), "ray_alone": lambda: alone(asked.space)}
    found = alternate(sides, asked.repeats)
    pairs = zip(found["platform"], found["ray_alone"], strict=True)
    result = {
        "unit": "s of wall time, process start to end", "n": asked.repeats, **found,
        "added_percent": spread([100 * (ours / ray - 1) for ours, ray in pairs]),
    }  # fmt: skip
    write(asked.out, result)


if __name__ == "__main__":
    main()
