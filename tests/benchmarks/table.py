"""`study run table9 --seeds 1` against a plain Ray Tune script: the same nine cells, data and network, one seed.

    python tests/benchmarks/table.py [--repeats 3] [--out JSON]
    python tests/benchmarks/table.py --plain="--reuse-actors --without-mlflow" \\
        --out tests/benchmarks/results/table_favoured.json

The second favours the script: its processes train many cells, which Ray does only if told, and it records nothing.
Each run is a process of its own in a new folder, nothing stored: the wall seconds are those of the whole command,
until it has exited. The two alternate, and take turns at being first.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from measuring import HERE, alternate, arguments, ratio, spread, undisturbed, write

from study.store import records
from study.store.starts import starts
from study.store.states import Store

STUDY = (sys.executable, "-m", "study")
SEEDS = ("--seeds", "1")


def command(*words: str) -> str:
    """Run a command from the checkout's root; what it printed."""
    done = subprocess.run(words, cwd=HERE.parents[1], env=undisturbed(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def timed(*words: str) -> tuple[dict[str, Any], str]:
    """Wall seconds of a command and the machine's load before it; what it printed."""
    load = round(os.getloadavg()[0], 2)
    began = time.perf_counter()
    printed = command(*words)
    return {"wall_seconds": round(time.perf_counter() - began, 2), "load_before": load}, printed


def ours(home: str, space: str) -> dict[str, Any]:
    """Our platform, cold: its time, and from its store the status, the epochs' seconds and the cells' top-1."""
    plan = json.loads(command(*STUDY, "run", space, *SEEDS, "--home", home, "--dry-run", "--json"))
    found, _ = timed(*STUDY, "run", space, *SEEDS, "--home", home)
    status = json.loads(command(*STUDY, "status", plan["run"], "--home", home, "--json"))
    assert status["outcome"] == "complete", status
    report = json.loads(command(*STUDY, "report", plan["run"], "--home", home, "--format", "json"))
    store = Store(f"{home}/store")
    headers = [store.header(end) for trial in records.find(store, plan["run"])[0].trials for end in trial.ends]
    start = starts(store, plan["run"])[0]
    started, ended = (datetime.fromisoformat(str(each)) for each in (start.started, start.ended))
    found["where"] = {
        "epochs_naive": plan["epochs_naive"],
        "epochs_trained": status["epochs_trained"],
        "execute_seconds": (ended - started).total_seconds(),  # Ray's start and end included
        # The median, for a shared trunk, with its first epoch, is in several headers.
        "median_seconds_an_epoch": statistics.median(s for head in headers for s in head["wall_seconds"]),
    }
    found["top1"] = {row["combination"]: row["values"][0] for row in report["rows"]}
    return found


def plain(folder: str, arguments: list[str]) -> dict[str, Any]:
    """The plain script, cold: its time, and what it says of it."""
    found, printed = timed(sys.executable, str(HERE / "plain_ray_tune.py"), folder, *arguments)
    said = json.loads(printed.strip().splitlines()[-1])
    return {**found, "top1": said.pop("top1"), "where": said}


def parts(found: list[dict[str, Any]]) -> dict[str, float]:
    """Where the time goes: the median over the repeats of each part."""
    return {part: round(statistics.median(each["where"][part] for each in found), 4) for part in found[0]["where"]}


def main() -> None:
    parser = arguments(__doc__, "table", repeats=3)
    parser.add_argument("--epochs", type=int, default=100, help="of the plain script; below 100 for a smoke test only")
    parser.add_argument("--space", default="table9", help="ours; another one for a smoke test only")
    parser.add_argument("--plain", default="", help="further arguments of the plain script")
    options = parser.parse_args()
    further = ["--epochs", str(options.epochs), *shlex.split(options.plain)]

    def cold(side: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="table9-") as folder:
            return side(folder)

    sides = {
        "ours": lambda: cold(lambda folder: ours(folder, options.space)),
        "plain": lambda: cold(lambda folder: plain(folder, further)),
    }
    measured = alternate(sides, options.repeats)
    walls = {which: [each["wall_seconds"] for each in found] for which, found in measured.items()}
    result = {
        "commands": {
            "ours": f"study run {options.space} {' '.join(SEEDS)} --home NEW",
            "plain": f"python tests/benchmarks/plain_ray_tune.py NEW {shlex.join(further)}",
        },
        "unit": "wall seconds of the whole command, cold; ratio: plain / ours",
        "n": options.repeats,
        "ours": spread(walls["ours"]),
        "plain": spread(walls["plain"]),
        "ratio": ratio(walls["plain"], walls["ours"]),
        "where_the_time_goes": {which: parts(found) for which, found in measured.items()},
        "top1": {
            cell: {which: found[-1]["top1"].get(cell) for which, found in measured.items()}
            for cell in measured["ours"][-1]["top1"]
        },
        "repeats": measured,
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
