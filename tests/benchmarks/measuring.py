"""How a benchmark measures, and what stands beside every figure: when, on what and with which versions."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from study.planning import commit

HERE = Path(__file__).parent

_T = TypeVar("_T")


def environment() -> dict[str, Any]:
    """Date, hardware, versions and commit."""
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{len(os.sched_getaffinity(0))} cores of {cpu_model()} ({platform.machine()})",
        "versions": {
            "python": platform.python_version(),
            project["name"]: project["version"],  # an editable installation may still say another
            **{name: metadata.version(name) for name in ("torch", "ray", "optuna", "mlflow", "numpy")},
        },
        "commit": commit(),
    }


def cpu_model() -> str:
    """What the processor calls itself."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, middle, most."""
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: shortened(value) for name, value in found.items()}


def shortened(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def arguments(described: str, name: str, repeats: int) -> argparse.ArgumentParser:
    """A benchmark's command line: --repeats and --out, by default results/`name`.json."""
    parser = argparse.ArgumentParser(description=described, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=at_least_one, default=repeats)
    parser.add_argument("--out", type=_new_file, default=HERE / "results" / f"{name}.json")
    return parser


def at_least_one(text: str) -> int:
    """A number of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1 would do")
    return value


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: a file in a folder that exists would do")
    return path


def undisturbed() -> dict[str, str]:
    """The environment without what would lead a command elsewhere: another home, server, cluster, or a GPU."""
    theirs = ("STUDY_HOME", "STUDY_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    own = {name: value for name, value in os.environ.items() if name not in theirs}
    return own | {"CUDA_VISIBLE_DEVICES": "", "MLFLOW_DISABLE_TELEMETRY": "true"}


def seconds(act: Callable[[], object], times: int = 1) -> float:
    """Wall seconds of a call: the mean over so many."""
    began = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - began) / times


def alternate(sides: Mapping[str, Callable[[], _T]], repeats: int) -> dict[str, list[_T]]:
    """Measure each side so many times, in turn; whoever came first in one round comes last in the next."""
    found: dict[str, list[_T]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in sides if repeat % 2 == 0 else reversed(sides):
            found[name].append(sides[name]())
            print(f"round {repeat}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times less ours takes, round by round."""
    return spread([their / own for their, own in zip(theirs, ours, strict=True)])


def write(out: Path, result: Mapping[str, Any]) -> None:
    """Write a result, and print it, with the command that was given and what it was measured on."""
    script = Path(sys.argv[0]).resolve()
    command = shlex.join(["python", f"tests/benchmarks/{script.name}", *sys.argv[1:]])
    text = json.dumps({"command": command, **result, **environment()}, indent=1, ensure_ascii=False)
    out.write_text(text + "\n", encoding="utf-8")
    print(text)
