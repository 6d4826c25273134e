"""What store, tracking and report add to digits Table 9: the platform against Ray Tune alone on the same stages.

    python tests/benchmarks/cost_table9.py [--repeats 3] [--out JSON]

Three replicates, planned, trained and reported as ``study run table9`` does; and the same stages through Ray alone,
their states kept as bare files in memory. Both are processes of their own, timed from start to end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import alternate, arguments, seconds, spread, write
from ray import cloudpickle
from trainable_forms import Silent

from study import execute, planning, tree
from study.plan import Json, Machine, Request, Resources
from study.store import Store

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not have this file on their path


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


def platform() -> float:
    """Seconds of ``study run table9``, cold."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "study", "run", "table9", "--home", home]
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def alone() -> float:
    """Seconds of `ray_alone` in a process of its own."""
    command = [sys.executable, __file__, "--ray-alone"]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def main() -> None:
    """Both, in turn."""
    parser = arguments(__doc__, "cost_table9", repeats=3)
    parser.add_argument("--ray-alone", action="store_true", help="only that side, once, in this process")
    asked = parser.parse_args()
    if asked.ray_alone:
        ray_alone()
        return
    found = alternate({"platform": platform, "ray_alone": alone}, asked.repeats)
    pairs = zip(found["platform"], found["ray_alone"], strict=True)
    result = {
        "unit": "s of wall time, process start to end", "n": asked.repeats, **found,
        "added_percent": spread([100 * (ours / ray - 1) for ours, ray in pairs]),
    }  # fmt: skip
    write(asked.out, result)


if __name__ == "__main__":
    main()
