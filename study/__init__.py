"""Launch, compare and resume studies from Python, with the names of the command line.

    import study

    run = study.run("table9", seeds=3)
    run.frame().groupby("trial")["test/top1"].mean()
    print(run.compare("IB⇒CR", "IB⇒IB"))

`run` trains, `resume` continues after an interruption, `load` opens a stored run, `runs` lists all stored runs, and
`plan` returns the cost of a run. `doctor` checks a set-up. `Run` has the results. A user's mistake raises `Refusal`,
with the message of the command line.

Importing this package imports nothing heavy: each name is imported when it is first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.api.calls import load, plan, resume, run, runs
    from study.api.doctor import Finding, doctor
    from study.api.results import Comparison, Run
    from study.errors import Refusal
    from study.preview import Plan

if os.path.expanduser("~") == "~":
    os.environ["HOME"] = "/"  # as Docker does: MLflow cannot be imported without a home directory

__all__ = ["Comparison", "Finding", "Plan", "Refusal", "Run", "doctor", "load", "plan", "resume", "run", "runs"]

_MODULES = {
    **dict.fromkeys(("load", "plan", "resume", "run", "runs"), "study.api.calls"),
    **dict.fromkeys(("Comparison", "Run"), "study.api.results"),
    **dict.fromkeys(("Finding", "doctor"), "study.api.doctor"),
    "Plan": "study.preview",
    "Refusal": "study.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'study' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
