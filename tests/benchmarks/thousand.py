"""A thousand trials of three epochs on four workers: `study run` of a user's space against a plain Ray Tune script.

    python tests/benchmarks/thousand.py [--trials 1000] [--repeats 1] [--out JSON]

Both train digits-LT at so many learning rates, so that no two trials share an epoch, with half a CPU each and processes
that train many trials. Both record every epoch in MLflow, and keep the last state of each trial: ours in its store,
with a trial in Optuna and a model in MLflow, the script in files of torch. Each side is a process of its own in a new
folder; its CPU seconds and memory are those of this process, without Ray's. In the middle of our run, `study status` is
timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import psutil
from measuring import HERE, alternate, arguments, at_least_one, ratio, spread, undisturbed, write

LOOK_SECONDS = 0.5  # between two looks at a process
STATUS_SECONDS, LOOKS = 15.0, 3  # between two calls of `study status`, which takes CPU from the run; calls that count


def watched(command: list[str], meanwhile: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Execute a command; return its wall and CPU seconds, and its largest memory.

    Args:
        command: the command.
        meanwhile: called every half second.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=undisturbed())
        cpu, memory = 0.0, 0
        while process.poll() is None:
            with process.oneshot():
                try:
                    times, memory = process.cpu_times(), max(memory, process.memory_info().rss)
                except psutil.NoSuchProcess:
                    break
            cpu = times.user + times.system
            meanwhile()
            time.sleep(LOOK_SECONDS)
        took = time.perf_counter() - began
        if process.wait():
            errors.seek(0)
            raise SystemExit(f"{command}: exit code {process.returncode}\n{errors.read()[-3000:]}")
    return {"seconds": took, "driver_cpu_seconds": cpu, "driver_peak_rss_mib": memory / 2**20}


def ours(folder: str, count: int) -> dict[str, float]:
    """The platform, and the seconds of `study status` once half of the trials have ended."""
    status = [sys.executable, "-m", "study", "status", "thousand", "--json", "--home", folder]
    took: list[float] = []
    next_look = time.perf_counter() + STATUS_SECONDS

    def look() -> None:
        nonlocal next_look
        began = time.perf_counter()
        if len(took) < LOOKS and began >= next_look:
            done = subprocess.run(status, capture_output=True, text=True, env=undisturbed())
            ended = time.perf_counter()
            next_look = ended + STATUS_SECONDS
            if done.returncode == 0 and json.loads(done.stdout)["complete"] >= count // 2:
                took.append(ended - began)

    command = [sys.executable, "-m", "study", "run", str(HERE / "learning_rates.py"), "--name", "thousand"]
    sizes = ["--seeds", "1", "-o", f"count={count}", "--workers", "4", "--cpus-per-trial", "0.5", "--home", folder]
    found = watched([*command, *sizes], look)
    return {**found, "status_seconds": max(took, default=0.0)}


def plain(folder: str, count: int) -> dict[str, float]:
    """The script."""
    sizes = ["--rates", str(count), "--epochs", "3", "--cpus", "0.5", "--reuse-actors"]
    return watched([sys.executable, str(HERE / "plain_ray_tune.py"), folder, *sizes])


SIDES = {"ours": ours, "plain": plain}


def cold(side: str, count: int) -> dict[str, float]:
    """One side in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        return SIDES[side](folder, count)


def main() -> None:
    """Both sides, in turn."""
    parser = arguments(__doc__, "thousand", repeats=1)
    parser.add_argument("--trials", type=at_least_one, default=1000)
    asked = parser.parse_args()
    found = alternate({side: lambda side=side: cold(side, asked.trials) for side in SIDES}, asked.repeats)
    walls = {side: [each["seconds"] for each in own] for side, own in found.items()}
    result: dict[str, Any] = {
        "n": asked.repeats,
        "trials": asked.trials,
        **{side: {name: spread([each[name] for each in own]) for name in own[0]} for side, own in found.items()},
        "trials_a_minute": {side: spread([60 * asked.trials / wall for wall in own]) for side, own in walls.items()},
        "ratio": ratio(walls["plain"], walls["ours"]),
    }
    write(asked.out, result)


if __name__ == "__main__":
    main()
