"""How a benchmark measures, and what stands beside every figure: when, on what and with which versions."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from study.planning.drafting import commit

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
            **{name: _version(name) for name in ("torch", "ray", "optuna", "mlflow", "numpy")},
        },
        "commit": commit(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def gpu() -> dict[str, Any]:
    """The first GPU: its name and memory, and the versions of what drives it. It imports torch."""
    import torch

    device = torch.cuda.get_device_properties(0)
    return {
        "name": torch.cuda.get_device_name(),
        "memory_MiB": device.total_memory >> 20,
        "processors": device.multi_processor_count,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _driver() -> str:
    try:
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return said.stdout.partition("\n")[0].strip() or "unknown"


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
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {text})")
    return value


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder (got {text})")
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


def alternate(
    sides: Mapping[str, Callable[[], _T]],
    repeats: int,
    record: Record | None = None,
    found: dict[str, list[_T]] | None = None,
) -> dict[str, list[_T]]:
    """Measure each side so many times, in turn; whoever came first in one round comes last in the next.

    With a record, a side that fails is left out, no round but the first begins when no time is left, and what there is
    is written after each measurement; `found`, which is filled, may be a part of it.
    """
    found = {} if found is None else found
    found.update({name: [] for name in sides})
    for repeat in range(repeats):
        if repeat and record is not None and record.late:
            break
        for name in [name for name in (sides if repeat % 2 == 0 else reversed(sides)) if name in found]:
            with nullcontext() if record is None else record.guarded(name):
                found[name].append(sides[name]())
            if len(found[name]) > repeat:
                print(f"round {repeat}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
            else:
                del found[name]
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times less ours takes, round by round."""
    return spread([their / own for their, own in zip(theirs, ours, strict=True)])


def write(out: Path, result: Mapping[str, Any]) -> None:
    """Write a result, and print it, with the command that was given and what it was measured on."""
    print(_save(out, result, environment()))


def _save(out: Path, result: Mapping[str, Any], measured_on: Mapping[str, Any]) -> str:
    script = Path(sys.argv[0]).resolve()
    command = shlex.join(["python", f"tests/benchmarks/{script.name}", *sys.argv[1:]])
    text = json.dumps({"command": command, **result, **measured_on}, indent=1, ensure_ascii=False)
    fresh = out.with_name(out.name + ".new")
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(out)
    return text


class Record:
    """A result that is written as it comes, in parts: one that fails, or has no time left, loses no other.

    Args:
        out: the file.
        result: what is known of it; each part is put into it.
        limit: seconds from now after which no part begins.

    Attributes:
        failed: what raised, and what it said.
        skipped: what was not measured, and why.
    """

    def __init__(self, out: Path, result: dict[str, Any], limit: float = math.inf) -> None:
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self._out, self._end, self._environment = out, time.monotonic() + limit, environment()
        self.result = {**result, "skipped": self.skipped, "failed": self.failed}

    @property
    def late(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() > self._end

    @contextmanager
    def guarded(self, part: str) -> Iterator[None]:
        """A part that may fail; what there is is written in any case."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever it is, the others go on
            traceback.print_exc()
            self.failed[part] = f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            self.save()

    def take(self, part: str, measure: Callable[[], _T]) -> _T | None:
        """What a part gives; None if it failed, or if there was no time for it."""
        if self.late:
            self.skipped[part] = "no time left"
            return None
        found = None
        began = time.perf_counter()
        with self.guarded(part):
            found = measure()
        print(f"{part}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        return found

    def save(self) -> str:
        """Write what there is."""
        return _save(self._out, self.result, self._environment)

    def finish(self) -> int:
        """Write and print it; the exit code, 1 if a part failed."""
        print(self.save())
        return int(bool(self.failed))
