"""Tests, times of steps and real runs on a GPU, in one call with a budget of seconds.

    python tests/benchmarks/gpu.py --budget 450 [--out FOLDER] [--home FOLDER] [--data-dir FOLDER] [--mps] [PART ...]

PART, all by default, in this order:

    card      what nvidia-smi, torch, `study` and Ray see of the GPU
    tests     the tests that need one
    step      step.py, into step.json; with --compile, the compiled step, too
    step_mps  with --mps: its processes once more, under MPS, into step_mps.json
    table9    `study run table9 --seeds 1` on digits, four trials a GPU, and its report: table9.json
    kill      a recorded run of table7 on digits, SIGKILL to its driver, `study resume`, and the report
    search    `study run sampler_search --trials 8`, four trials a GPU, and its report: search.json
    cifar     the --spaces (by default table9) on CIFAR-10-LT, IF 50, by the paper's protocol, one replicate, nine
              trials a GPU, in bf16: until 25 s before its limit, when it is stopped as by Ctrl-C. Its report so far:
              cifar-table9.json; its figures and its home without weights: cifar-table9.tgz. The next call with the
              same --home goes on with it

Each part has commands, a log and a limit of its own (--limits step=200,cifar=300), and stops no other. gpu.json,
written after each part, says how each ended and why one was skipped; the logs are packed at the end. --mps serves
step_mps and the runs by a private MPS daemon, which is ended whatever happens; nothing changes the card's settings.
Without a GPU all of it is tiny, to rehearse it. The exit code is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from budgeted import Call, Failed, Part, Skipped, end, mps, watched
from measuring import HERE

from study.machine import gpus, gpus_have_bf16, has_gpu

RESERVE = 10  # seconds of the budget: for what ends the call
LEAST = 15  # seconds that a part is begun with
STOPS = ((25, signal.SIGINT), (12, signal.SIGINT), (8, signal.SIGKILL))  # of a run: seconds before its part's limit
CIFAR_FILES = "cifar-10-batches-py"


# The parts


def card(part: Part) -> None:
    """What everyone sees of it."""
    if shutil.which("nvidia-smi"):
        with suppress(Failed):  # torch's word counts
            part.run("nvidia-smi")
            part.run(
                "nvidia-smi", "--format=csv", "--query-gpu=name,driver_version,memory.total,compute_mode,clocks.sm"
            )
    part.run(sys.executable, __file__, "--look", part.call.device)


def look(expected: str) -> int:
    """The card, as torch, `study` and Ray see it; 1 if there should be one and somebody does not."""
    import torch
    from ray._private.accelerators import NvidiaGPUAcceleratorManager as Ray

    there = torch.cuda.is_available()
    print(f"Python {sys.version}; {os.cpu_count()} CPUs, of which {len(os.sched_getaffinity(0))} may be used")
    print(f"torch {torch.__version__}: CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}: {there}")
    print(torch.cuda.get_device_properties(0) if there else "no device")
    print(f"study.home: {gpus()}, bf16 {gpus_have_bf16()}")
    seen = Ray.get_current_node_num_accelerators()
    print(f"Ray: {seen}, {Ray.get_current_node_accelerator_type()}")
    return int(expected == "cuda" and not (there and has_gpu() and seen))


def tests(part: Part) -> None:
    """Those marked gpu; a warning fails none."""
    words = "-n 0 -q -p no:cacheprovider -W default --timeout 100 -m gpu tests/trainables"
    part.run(sys.executable, "-m", "pytest", *words.split())


def step(part: Part) -> None:
    """Every mode of a training step."""
    more = ["--compile"] * part.call.asked.compile if part.cuda else ["networks", "--steps", "1", "--repeats", "1"]
    _step(part, *more)


def step_mps(part: Part) -> None:
    """Processes under MPS."""
    if not part.call.served:
        raise Skipped("MPS does not run")
    _step(part, "processes")


def _step(part: Part, *more: str) -> None:
    limit, out = str(round(max(1.0, part.left() - 20))), part.call.out / f"{part.name}.json"
    try:
        part.run(sys.executable, str(HERE / "step.py"), "--out", str(out), "--limit", limit, *more)
    finally:
        with suppress(OSError, ValueError):
            found = json.loads(out.read_text(encoding="utf-8"))
            part.figures |= {name: found[name] for name in ("skipped", "failed") if found.get(name)}


def table9(part: Part) -> None:
    """Table 9 on digits."""
    space, home = "table9" if part.cuda else part.tiny(), part.home()
    words = ("--seeds", "1", "--name", "gpu-table9", "--home", home, *part.share("0.25"))
    part.figures["wall_seconds"] = part.study("run", space, *words)
    part.figures |= part.status("gpu-table9", home)
    part.study("report", "gpu-table9", "--format", "json", "--home", home, into="table9.json")


def kill(part: Part) -> None:
    """A driver that is killed while it trains, and what `study resume` makes of the rest."""
    space, home = "table7" if part.cuda else part.tiny("long"), part.home()
    words = ("--seeds", "1", "--name", "gpu-kill", "--home", home, *part.share("0.25", "recorded"))
    process = part.start([sys.executable, "-m", "study", "run", space, *words])
    try:
        while (trained := _trained(home, "gpu-kill")) < 10:
            if process.poll() is not None:
                raise Failed(f"it ended with exit code {process.returncode} before it was killed")
            if part.left() < 20:
                raise Failed(f"it trained {trained} epochs until 20 s before the part's {part.limit:.0f} s were over")
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        end(process)
    part.figures["epochs_before_the_kill"] = trained
    part.figures["seconds_of_resume"] = part.study("resume", "gpu-kill", "--home", home)
    part.figures |= part.status("gpu-kill", home)
    part.study("report", "gpu-kill", "--home", home)


def _trained(home: str, run: str) -> int:
    """Epochs in all starts, as recorded."""
    try:
        starts = Path(home).glob(f"store/runs/{run}/starts/*.json")
        return sum(json.loads(each.read_text())["epochs_trained"] for each in starts)
    except (OSError, ValueError):  # read in the middle of a move
        return 0


def search(part: Part) -> None:
    """An open search with parallel trials."""
    space, home = "sampler_search" if part.cuda else part.tiny("search"), part.home()
    trials = "8" if part.cuda else "2"
    words = ("--trials", trials, "--name", "gpu-search", "--home", home, *part.share("0.25"))
    part.figures["wall_seconds"] = part.study("run", space, *words)
    part.figures |= part.status("gpu-search", home)
    part.study("report", "gpu-search", "--format", "json", "--home", home, into="search.json")


def cifar(part: Part) -> None:
    """Tables on CIFAR-10-LT, as far as the time goes."""
    folder = part.call.asked.data_dir
    if folder is None or not Path(folder, CIFAR_FILES).is_dir():
        raise Skipped(f"no {CIFAR_FILES} in --data-dir" if folder else "no --data-dir")
    if part.left() < 2 * STOPS[0][0]:
        raise Skipped(f"{part.left():.0f} s left, and it must have {2 * STOPS[0][0]}; give a larger --budget")
    home, run = part.call.asked.home or part.home(), f"cifar-{'-'.join(part.call.asked.spaces)}"
    words = ["--data", "cifar10", "--imbalance", "50", "--data-dir", folder, "--seeds", "1", "--name", run]
    space = [*part.call.asked.spaces, "--paper", "--precision", "bf16"] if part.cuda else [part.tiny()]
    process = part.start(
        [sys.executable, "-m", "study", "run", *space, *words, "--home", home, *part.share("0.11", "recorded")]
    )
    code = stopped(process, part)
    part.figures |= {"exit_code_of_the_run": code, **part.status(run, home)}
    part.study("report", run, "--format", "json", "--home", home, into=f"{run}.json")
    figures = part.call.scratch / "figures"
    part.study("report", run, "--figures", str(figures), "--home", home)
    with tarfile.open(part.call.out / f"{run}.tgz", "w:gz") as packed:
        packed.add(home, "home", filter=without_weights)
        packed.add(figures, "figures")
    if code not in (0, 130):
        raise Failed(f"the run ended with exit code {code}")


def without_weights(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out a home's states and models: they are large, and its report and MLflow's database do without them."""
    return None if Path(member.name).name in ("states", "models") else member


def stopped(process: subprocess.Popen[bytes], part: Part) -> int:
    """The exit code of a run that is asked to stop in time, then told to, then killed."""
    began, sent = time.monotonic(), []
    try:
        for before, number in STOPS:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, part.left() - before))
                break
            sent.append(f"{number.name} after {time.monotonic() - began:.1f} s")
            process.send_signal(number)
        code = process.wait(5)
        part.figures |= {"wall_seconds": round(time.monotonic() - began, 1), "signals": sent}
        return code
    finally:
        end(process)


@dataclass(frozen=True)
class Kind:
    """A part: what it does, its seconds at most, and whether MPS serves it."""

    act: Callable[[Part], None]
    limit: float
    served: bool = False


PARTS = {
    "card": Kind(card, 45),
    "tests": Kind(tests, 90),
    "step": Kind(step, 210),
    "step_mps": Kind(step_mps, 75, True),
    "table9": Kind(table9, 90, True),
    "kill": Kind(kill, 90, True),
    "search": Kind(search, 90, True),
    "cifar": Kind(cifar, 3600, True),
}


# The call


def attempt(call: Call, name: str) -> None:
    """One part; whatever happens in it, the next one begins."""
    kind = PARTS[name]
    limit = min(call.asked.limits.get(name, kind.limit), call.left() - RESERVE)
    if limit < LEAST:
        call.skipped[name] = f"{max(0.0, call.left()):.0f} s left"
        return
    part, began, code = Part(call, name, limit, kind.served), time.monotonic(), 0
    try:
        kind.act(part)
    except Skipped as reason:
        call.skipped[name] = str(reason)
        return
    except Exception as error:  # noqa: BLE001  whatever it is, the others go on
        code, part.figures["error"] = 1, str(error) if isinstance(error, Failed) else repr(error)[:300]
        with part.log.open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
    seconds = round(time.monotonic() - began, 1)
    served = bool(kind.served and call.served)
    call.parts[name] = {"exit": code, "seconds": seconds, "limit": round(limit), "mps": served, **part.figures}


def told(call: Call, name: str) -> str:
    """A part's line."""
    if name in call.skipped:
        return f"{name}: skipped, {call.skipped[name]}"
    found = call.parts[name]
    line = f"{name}: exit {found['exit']} after {found['seconds']} s of {found['limit']} ({call.left():.0f} s left)"
    log = call.out / "logs" / f"{name}.log"
    if found["exit"] and log.is_file():
        line += f"; {found['error']}\n" + "\n".join(f"    {each[:200]}" for each in _tail(log))
    return line


def _tail(log: Path, lines: int = 8) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-lines:]


def everything(call: Call) -> None:
    """The parts, in their order, each with its line."""
    wanted = [name for name in PARTS if name in call.asked.parts]
    with ExitStack() as open_until_the_end:
        open_until_the_end.enter_context(watched(call))
        for name in wanted:
            if call.asked.mps and PARTS[name].served and not call.served and "mps" not in call.skipped:
                try:
                    if call.device == "cpu":
                        raise Skipped("no CUDA device")
                    call.served = open_until_the_end.enter_context(mps(call.scratch))
                except Skipped as reason:
                    call.skipped["mps"] = str(reason)
                    print(f"mps: skipped, {reason}", flush=True)
            attempt(call, name)
            call.summarise()
            print(told(call, name), flush=True)


def pack(folder: Path) -> None:
    """The logs, as one file."""
    logs = folder / "logs"
    with tarfile.open(folder / "logs.tgz", "w:gz") as packed:
        packed.add(logs, "logs")
    shutil.rmtree(logs)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--budget", type=_seconds, default=450.0, help="seconds in all")
    parser.add_argument("--out", type=Path, default=None, help="a folder for what is found [default: a new one]")
    parser.add_argument("--home", help="where the run on CIFAR lies, for a later call to go on with it")
    parser.add_argument("--data-dir", help=f"where {CIFAR_FILES} lies")
    parser.add_argument(
        "--spaces", type=lambda text: text.split(","), default=["table9"], metavar="NAME,…", help="of the run on CIFAR"
    )
    parser.add_argument("--mps", action="store_true", help="runs and step_mps under a private MPS daemon")
    parser.add_argument("--compile", action="store_true", help="the compiled step, too")
    parser.add_argument(
        "--gpu-steps", choices=["auto", "eager", "recorded"], default="auto", help="of table9 and search"
    )
    parser.add_argument("--limits", type=_limits, default={}, metavar="PART=SECONDS,…", help="of single parts")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if has_gpu() else "cpu")
    parser.add_argument("--look", choices=["cpu", "cuda"], help="for `card`: what this process sees")
    return parser


def _seconds(text: str) -> float:
    value, least = float(text), RESERVE + LEAST
    if not least <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of seconds, at least {least} (got {text})")
    return value


def _limits(text: str) -> dict[str, float]:
    try:
        found = {name: float(seconds) for name, _, seconds in (each.partition("=") for each in text.split(","))}
    except ValueError:
        found = {"": 0.0}
    if set(found) - set(PARTS) or not all(LEAST <= seconds < math.inf for seconds in found.values()):
        raise argparse.ArgumentTypeError(
            f"must be PART=SECONDS,… with at least {LEAST} seconds for each of {', '.join(PARTS)} (got {text})"
        )
    return found


def main() -> int:
    """Every part that was asked for; the exit code."""
    parser = arguments()
    asked = parser.parse_args()
    if asked.look:
        return look(asked.look)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"PART must be among {', '.join(PARTS)} (got {', '.join(sorted(unknown))})")
    if asked.out is None:
        asked.out = Path(tempfile.mkdtemp(prefix="gpu-found-"))
        print(f"what is found is in {asked.out}", flush=True)
    asked.parts = asked.parts or [name for name in PARTS if name != "step_mps" or asked.mps]
    asked.out = asked.out.absolute()
    for name in ("home", "data_dir"):
        setattr(asked, name, getattr(asked, name) and str(Path(getattr(asked, name)).absolute()))
    end_at = time.monotonic() + asked.budget
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        (asked.out / "logs").mkdir(parents=True)
    except OSError as error:
        parser.error(
            f"--out must be a folder that can be written and holds no logs (got {asked.out}: {error.strerror})"
        )
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as scratch:
        call = Call(asked, asked.device, end_at, Path(scratch))
        if call.device == "cpu":
            call.skipped["recorded steps"] = "no CUDA device"
        try:
            everything(call)
        except KeyboardInterrupt:
            call.skipped |= {name: "interrupted" for name in asked.parts if name not in call.parts}
            print("stopped: what was found is kept", file=sys.stderr)
            return 130
        finally:
            call.summarise()
            pack(asked.out)
    return int(any(part["exit"] for part in call.parts.values()))


if __name__ == "__main__":
    sys.exit(main())
