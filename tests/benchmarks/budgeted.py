"""A call with a budget of seconds and its parts while they run: commands with a log and a limit, MPS, what is seen."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import HERE, environment

ROOT = HERE.parents[1]
THEIRS = (
    "STUDY_HOME",
    "STUDY_DATA",
    "MLFLOW_TRACKING_URI",
    "RAY_ADDRESS",
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_LOG_DIRECTORY",
)

TINY = """
from dataclasses import replace
from search_spaces import sampler_search, table9
from search_spaces.shared.protocol import bases, trial

SHORT = {"backbone": "resnet8", "epochs": 4, "milestones": (1,), "warmup": 1}


def space(request, **more):
    (config,) = bases(request, ())
    cell = replace(config, first="IB", switch="CR", S=1, **{**SHORT, **more})
    made = trial(cell, cell.combination, {"first": "IB", "switch": "CR", "S": 1}, {})
    return replace(table9.space(request), name="tiny", trials=(made,))


def long(request):
    return space(request, epochs=120)


def search(request):
    whole = sampler_search.space(request)

    def point(values):
        made = whole.search.point({**values, "S": 0})
        return replace(made, config={**made.config, **SHORT, "milestones": [1]})

    base = {**whole.search.base, **SHORT, "milestones": [1]}
    return replace(whole, name="tiny-search", search=replace(whole.search, point=point, base=base, fresh=1))
"""


class Skipped(Exception):
    """A part that cannot be done here; it says why."""


class Failed(Exception):
    """A part whose command failed, or took longer than it may."""


@dataclass
class Call:
    """What was asked for, and how far it is.

    Attributes:
        end: when the budget ends, of the monotonic clock.
        scratch: a folder that is removed at the end.
        served: MPS's variables, once its daemon runs.
        parts, skipped: what the summary says.
    """

    asked: argparse.Namespace
    device: str
    end: float
    scratch: Path
    served: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    measured_on: dict[str, Any] = field(default_factory=environment)

    @property
    def out(self) -> Path:
        return Path(self.asked.out)

    def left(self) -> float:
        """Seconds of the budget."""
        return self.end - time.monotonic()

    def summarise(self) -> None:
        """Write how each part ended."""
        command = shlex.join(["python", "tests/benchmarks/gpu.py", *sys.argv[1:]])
        found = {
            "command": command,
            "budget": self.asked.budget,
            "seconds_left": round(self.left(), 1),
            "device": self.device,
            "mps": bool(self.served),
            "parts": self.parts,
            "skipped": self.skipped,
            **self.measured_on,
        }
        fresh = self.out / "gpu.json.new"
        fresh.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fresh.replace(self.out / "gpu.json")


class Part:
    """One of them while it runs: its commands, their log and their limit."""

    def __init__(self, call: Call, name: str, limit: float, served: bool) -> None:
        self.call, self.name, self.limit = call, name, limit
        self.end = time.monotonic() + limit
        self.log = call.out / "logs" / f"{name}.log"
        self.figures: dict[str, Any] = {}
        own = {name: value for name, value in os.environ.items() if name not in THEIRS}
        paths = [*filter(None, [own.get("PYTHONPATH")]), str(ROOT)]
        self.environment = {
            **own,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **(call.served if served else {}),
        }

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.call.device == "cuda"

    def left(self) -> float:
        """Seconds until its limit."""
        return self.end - time.monotonic()

    def home(self) -> str:
        """A fresh home for a run."""
        return tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.call.scratch)

    def start(self, command: Sequence[str], into: Path | None = None) -> subprocess.Popen[bytes]:
        """A command in a process group of its own, its output in the log or a file."""
        with self.log.open("ab") as log, (into or self.log).open("wb" if into else "ab") as output:
            log.write(f"\n$ {shlex.join(map(str, command))}\n".encode())
            log.flush()
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *command: str, into: Path | None = None) -> float:
        """Seconds of a command; it fails if the command does, or if the part's limit comes first."""
        began, process = time.monotonic(), self.start(command, into)
        try:
            code = process.wait(max(1.0, self.left()))
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{shlex.join(command[-4:])}: not done within the part's {self.limit:.0f} s") from error
        finally:
            end(process)
        if code:
            raise Failed(f"{shlex.join(command[-4:])}: exit code {code}")
        return round(time.monotonic() - began, 1)

    def study(self, *words: str, into: str | None = None) -> float:
        """Seconds of a `study` command; its output may go into a file of the folder."""
        file = None if into is None else self.call.out / into
        fresh = None if file is None else self.call.scratch / file.name
        seconds = self.run(sys.executable, "-m", "study", *words, into=fresh)
        if file is not None and fresh is not None:
            shutil.copyfile(fresh, file)
        return seconds

    def status(self, run: str, home: str) -> dict[str, Any]:
        """How far a run is."""
        made = self.call.scratch / "status.json"
        self.run(sys.executable, "-m", "study", "status", run, "--json", "--home", home, into=made)
        found = json.loads(made.read_text())
        wanted = ("outcome", "complete", "failed", "waiting", "epochs_needed", "epochs_trained")
        return {name: found[name] for name in wanted if name in found}

    def share(self, share: str, steps: str | None = None) -> list[str]:
        """The options that say how much of a GPU a trial has, and how steps are given to it."""
        if not self.cuda:
            return ["--gpus-per-trial", "0"]
        return ["--gpus-per-trial", share, "--gpu-steps", steps or self.call.asked.gpu_steps]

    def tiny(self, function: str = "space") -> str:
        """A small space's file, for machines without a GPU."""
        file = self.call.scratch / "tiny.py"
        file.write_text(TINY, encoding="utf-8")
        return str(file) if function == "space" else f"{file}:{function}"


def end(process: subprocess.Popen[bytes], seconds: float = 3) -> None:
    """End what is left of a process group: asked first, then killed."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5)):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind


@contextmanager
def mps(scratch: Path) -> Iterator[dict[str, str]]:
    """A private MPS daemon: the variables by which processes find it.

    Raises:
        Skipped: if it does not start.
    """
    own = {}
    for name in ("PIPE", "LOG"):
        folder = scratch / f"mps-{name.lower()}"
        folder.mkdir()
        own[f"CUDA_MPS_{name}_DIRECTORY"] = str(folder)
    control = {"env": {**os.environ, **own}, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, timeout=15, **control)
    except (OSError, subprocess.SubprocessError) as error:
        raise Skipped(f"MPS does not start: {error}") from error
    try:
        yield own
    finally:
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["nvidia-cuda-mps-control"], input=b"quit\n", timeout=15, **control)
        _kill_daemon(Path(own["CUDA_MPS_PIPE_DIRECTORY"], "nvidia-cuda-mps-control.pid"))


def _kill_daemon(file: Path) -> None:
    """If it did not quit."""
    with suppress(OSError, ValueError):
        pid = int(file.read_text())
        if b"nvidia-cuda-mps" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@contextmanager
def watched(call: Call) -> Iterator[None]:
    """What the GPU does each second, beside the logs."""
    if call.device != "cuda" or not shutil.which("nvidia-smi"):
        yield
        return
    query = "--query-gpu=timestamp,utilization.gpu,memory.used,clocks.sm,power.draw"
    with (call.out / "logs" / "smi.csv").open("wb") as output:
        process = subprocess.Popen(
            ["nvidia-smi", query, "--format=csv", "-l", "1"], stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield
        finally:
            end(process)
