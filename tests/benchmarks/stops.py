"""A driver is stopped by SIGSTOP, another one takes its run over, and the first wakes up: it must be as if it had not.

    python tests/benchmarks/stops.py --stops 20 --out tests/benchmarks/results/stops.json

Half of the runs are tables and half are open searches. A driver is stopped at a random moment: of every second run
inside a call to MLflow. When its record is stale, `study resume` takes the run over, and at a random moment the first
driver is woken up. So that this takes seconds, a record is stale after `STALE_SECONDS` instead of 30. Prints whether
the report, every MLflow metric and every Optuna trial equal those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kills
from measuring import environment

from study.execution.driver import EXIT_CODES

STALE_SECONDS = 4.0
SEARCH = """
from dataclasses import replace
from search_spaces import sampler_search

def space(request):
    whole = sampler_search.space(request)
    return replace(whole, search=replace(whole.search, trials=5, fresh=2))
"""
DRIVER = """
import sys, time
import study.store.starts as starts
from study import cli

starts.BEAT_SECONDS, starts.FRESH_SECONDS, starts.LEASE_SECONDS = 0.5, {stale}, {stale} / 2
sys.argv = ["study", *sys.argv[1:]]
if __name__ == "__main__":
    cli.main()
"""


def study(*arguments: str, home: Path, driver: Path) -> subprocess.Popen[str]:
    """Start the command with quick heartbeats, in a process group of its own."""
    theirs = ("MLFLOW_TRACKING_URI", "STUDY_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in theirs}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path.cwd()), environment.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, str(driver), *arguments, "--home", str(home)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def write_driver(folder: Path) -> Path:
    path = folder / "driver.py"
    path.write_text(DRIVER.format(stale=STALE_SECONDS))
    return path


def write_search(folder: Path) -> str:
    path = folder / "search.py"
    path.write_text(SEARCH)
    return str(path)


def in_mlflow(pid: int) -> bool:
    """Return whether a process has its MLflow database open for writing: SQLite's journal is there."""
    journals = ("mlflow.db-journal", "mlflow.db-wal")
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(link).endswith(journals) for link in folder.iterdir())
    except OSError:
        return False


def start_and_stop(
    arguments: list[str], home: Path, driver: Path, seconds: float, within_mlflow: bool
) -> subprocess.Popen[str] | None:
    """Stop a run so many seconds after its plan is stored, if asked at its next write to MLflow.

    Return None if it ended before, or was stopped just after the write.
    """
    process = study("run", *arguments, home=home, driver=driver)
    plan = home / "store" / "runs" / kills.RUN / "plan.json"
    wait(lambda: plan.exists() or process.poll() is not None, 120)
    time.sleep(seconds)
    if within_mlflow:
        wait(lambda: in_mlflow(process.pid) or process.poll() is not None, 60, pause=0.0)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGSTOP)
        if in_mlflow(process.pid) or not within_mlflow:
            return process
        process.kill()
    process.communicate()
    return None


def disturb(
    arguments: list[str], home: Path, driver: Path, draw: random.Random, within_mlflow: bool, seconds: float
) -> dict[str, Any]:
    """Let a run be taken over from a stopped driver, which is then woken up. Return what happened.

    If the driver ended before it could be stopped, this is done again.
    """
    while (first := start_and_stop(arguments, home, driver, draw.uniform(0, 0.8 * seconds), within_mlflow)) is None:
        shutil.rmtree(home, ignore_errors=True)  # its workers may just be ending
    at = time.monotonic()
    time.sleep(STALE_SECONDS + 1)
    second = study("resume", kills.RUN, home=home, driver=driver)
    claims = home / "store" / "runs" / kills.RUN / "starts"  # the first one, woken before, would still have the run
    wait(lambda: len(list(claims.glob("*.json"))) > 1 or second.poll() is not None, 120)
    time.sleep(draw.uniform(0, 1.5 * seconds))
    woken, ended_before = time.monotonic() - at, second.poll() is not None
    os.kill(first.pid, signal.SIGCONT)
    output, _ = first.communicate(timeout=300)
    taken, _ = second.communicate(timeout=300)
    assert first.returncode in (0, 130), output
    assert second.returncode in (0, EXIT_CODES["behind"]), taken
    if second.returncode:  # the stopped driver had locked MLflow's database for too long
        third = study("resume", kills.RUN, home=home, driver=driver)
        again, _ = third.communicate(timeout=300)
        assert third.returncode == 0, again
    return {
        "stopped_in_mlflow": within_mlflow,
        "woken_after_seconds": round(woken, 1),
        "second_had_ended": ended_before,
        "second_code": second.returncode,
        "first": output.replace(str(home), "HOME").strip().splitlines()[-3:],
        "first_code": first.returncode,
    }


def wait(condition: Callable[[], object], seconds: float, pause: float = 0.02) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(pause)


def everything(home: Path) -> dict[str, object]:
    """Return what a user sees of a run, without Optuna's trials that are marked as twins."""
    shown = kills.everything(home)
    shown["optuna"] = [trial[1:] for trial in shown["optuna"] if "twin_of" not in trial[4]]  # type: ignore[attr-defined]
    return shown


def main() -> None:
    """Do so many stops; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    draw, rounds = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        driver = write_driver(folder)
        table = [kills.write_space(folder, asked.epochs), "--seeds", str(kills.SEEDS), "--name", kills.RUN]
        search = [write_search(folder), "--name", kills.RUN, "--workers", "1"]
        expected, seconds = [], []
        for number, arguments in enumerate((table, search)):
            began, home = time.monotonic(), folder / f"undisturbed{number}"
            process = study("run", *arguments, home=home, driver=driver)
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output
            expected.append(everything(home))
            seconds.append(time.monotonic() - began)
        for number in range(asked.stops):
            kind = number % 2
            home = folder / f"round{number}"
            happened = disturb((table, search)[kind], home, driver, draw, number % 4 >= 2, seconds[kind])
            seen = everything(home)
            lost, doubled = kills.difference(expected[kind], seen)
            rounds.append(
                {
                    "run": ("table", "search")[kind],
                    **happened,
                    "equal": seen == expected[kind],
                    "lost": lost,
                    "doubled": doubled,
                }
            )
            print(json.dumps(rounds[-1], ensure_ascii=False), flush=True)
            if asked.out:
                record = {"command": " ".join(["python", *sys.argv]), "seed": asked.seed, **environment()}
                asked.out.write_text(json.dumps({**record, "rounds": rounds}, indent=1, ensure_ascii=False) + "\n")
    same = sum(each["equal"] for each in rounds)
    print(f"seed {asked.seed}: {len(rounds)} takeovers, {same} of them equal an undisturbed run")
    sys.exit(same != len(rounds))


if __name__ == "__main__":
    main()
