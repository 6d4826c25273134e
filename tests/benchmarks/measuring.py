"""What stands beside every figure: when, on what, and with which versions it was measured."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from study.planning import commit


def environment() -> dict[str, Any]:
    """Date, hardware, versions and commit."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{len(os.sched_getaffinity(0))} cores of {cpu_model()} ({platform.machine()})",
        "versions": {
            "python": platform.python_version(),
            **{
                name: metadata.version(name) for name in ("longtail-study", "torch", "ray", "optuna", "mlflow", "numpy")
            },
        },
        "commit": commit(),
    }


def cpu_model() -> str:
    """What the processor calls itself."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def spread(values: list[float]) -> dict[str, float]:
    """Least, middle, most."""
    return {"min": round(min(values), 2), "median": round(statistics.median(values), 2), "max": round(max(values), 2)}
