"""Streams in any locale, closed or full, and terminals that close: a run ends as it should, and so do its records."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from helpers import call_study, nine, plan, write_space

from study.store import records
from study.store.records import GivenUp
from study.store.states import Store
from study.streams import readable

STUDY = f"{sys.executable} -m study"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in bash; a pipe's exit code is that of its first command."""
    script = f"{command}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", script], env={**os.environ, **environment}, capture_output=True, check=False, timeout=300
    )


def ended(home: Path) -> tuple[str, set[str]]:
    """How a run has ended by the store, and the status of its runs in MLflow."""
    status = json.loads(call_study("status", "mine", "--json", home=home).stdout)
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        tables = database.execute("select name from sqlite_master where name = 'runs'").fetchall()  # made by MLflow
        return status["outcome"], {each for (each,) in database.execute("select status from runs")} if tables else set()


@pytest.fixture(autouse=True)
def _hangups() -> Iterator[None]:
    """Let the commands take SIGHUP, though the suite may be run by ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def begin(tmp_path: Path) -> str:
    """The command that trains a small run, as a shell takes it."""
    return f"{STUDY} run {write_space(tmp_path)} --seeds 1 --name mine --workers 1 --home {tmp_path / 'home'}"


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("⇒", "->"),
        ("×", "x"),
        ("−", "-"),
        ("±", "+-"),
        ("…", "..."),
        ("é", "e"),
        ("µ", "mu"),
        ("ά", "alpha"),
        ("数", "?"),
    ],
)
def test_a_character_that_a_stream_cannot_show_is_replaced_by_a_readable_one(character: str, shown: str) -> None:
    assert readable(character) == shown


LOCALES = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
]


@pytest.mark.parametrize("environment", LOCALES)
def test_every_locale_shows_lists_pages_and_plans(environment: dict[str, str], tmp_path: Path) -> None:
    plan = shell(f"{STUDY} run table9 --seeds 1 --dry-run --home {tmp_path}", **environment)
    assert plan.returncode == 0, plan.stderr
    times = "\u00d7".encode("latin-1") if "latin-1" in environment.values() else b"x"
    assert b"table9/IB->CR (digits-LT IF 50)" in plan.stdout
    assert b"1 " + times + b" 100 epochs" in plan.stdout
    assert b"tables:" in shell(f"{STUDY} list -v", **environment).stdout
    assert b"IB->CR" in shell(f"{STUDY} show table9", **environment).stdout


@pytest.mark.parametrize("environment", LOCALES)
def test_every_locale_shows_reports_failures_and_refusals(environment: dict[str, str], tmp_path: Path) -> None:
    store, trials = Store(str(tmp_path / "store")), nine(replicates=1)
    records.save_plan(store, plan(trials))
    failed = GivenUp(trials[1].name, 0, "diverged (loss ≥ 10²⁰ at τ = 1)", "", "stage")
    records.save_failures(store, "r-0", {(failed.trial, 0): failed})
    status = shell(f"{STUDY} status r-0 --home {tmp_path}", **environment)
    assert (status.returncode, b"table9/IB->CB (digits) r0: diverged (loss >= 10" in status.stdout) == (0, True)
    assert b"tau = 1" in status.stdout
    assert b"Next: study resume r-0" in status.stderr
    for form in ("table", "csv"):
        report = shell(f"{STUDY} report r-0 --format {form} --home {tmp_path}", **environment)
        assert (report.returncode, b"IB->CB" in report.stdout) == (0, True), report.stderr
    refused = shell(f"{STUDY} resume é⇒ --home {tmp_path}", **environment)
    assert (refused.returncode, refused.stderr[:20]) == (2, b"error: unknown run '")


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("| true", 0, b""),
        (">&-", 0, b""),
        (">/dev/full", 1, b"error: stdout cannot be written: No space left on device\n"),
        ("2>/dev/full", 0, b""),
        ("2>&-", 0, b""),
    ],
)
def test_a_stream_that_cannot_be_written_is_no_error_unless_the_disk_is_full(
    redirection: str, code: int, message: bytes
) -> None:
    done = shell(f"{STUDY} show table9 {redirection}")
    assert (done.returncode, done.stderr.partition(b"error")[2]) == (code, message.partition(b"error")[2])
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "environment", "code"),
    [
        ("| true", {}, 0),
        (">/dev/full", {}, 1),
        (">&- 2>&-", {}, 0),
        ("", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 0),
    ],
)
def test_a_run_is_finished_and_closed_whatever_its_streams_are(
    begin: str, redirection: str, environment: dict[str, str], code: int, tmp_path: Path
) -> None:
    done = shell(f"{begin} {redirection}", **environment)
    assert done.returncode == code, done.stderr
    assert ended(tmp_path / "home") == ("complete", {"FINISHED"})
    if environment:
        assert b"IB->CR" in done.stdout


def in_terminal(command: str) -> tuple[int, int]:
    """Start a command as the foreground program of a new terminal; return its process and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execlp("bash", "bash", "-c", f"exec {command}")
    return pid, terminal


def wait_until_it_trains(terminal: int) -> None:
    shown, deadline = b"", time.monotonic() + 120
    while not any(b"%d/600 epochs" % number in shown for number in range(1, 30)):
        assert time.monotonic() < deadline, shown
        shown += os.read(terminal, 4096)


@pytest.fixture
def long(tmp_path: Path) -> str:
    """The command that trains for minutes."""
    space = Path(write_space(tmp_path, cells=(("IB", "IB"),)))
    space.write_text(space.read_text().replace('"epochs": 3', '"epochs": 600'))
    return f"{STUDY} run {space} --seeds 1 --name mine --workers 1 --home {tmp_path / 'home'}"


def exit_code(pid: int) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it did not end")


@pytest.mark.slow
def test_a_terminal_that_closes_stops_a_run_as_ctrl_c_does(long: str, tmp_path: Path) -> None:
    pid, terminal = in_terminal(long)
    wait_until_it_trains(terminal)
    os.close(terminal)  # the kernel sends SIGHUP to Ray's processes as well
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)  # as bash does once more
    assert exit_code(pid) == 130
    outcome, statuses = ended(tmp_path / "home")
    assert (outcome, statuses) == ("interrupted", {"KILLED"})
    status = json.loads(call_study("status", "mine", "--json", home=tmp_path / "home").stdout)
    assert status["epochs_trained"] > 0, "the epochs before the drain are saved"


@pytest.mark.slow
def test_a_run_under_nohup_outlives_its_terminal(begin: str, tmp_path: Path) -> None:
    pid, terminal = in_terminal(f"nohup {begin} >{tmp_path / 'log'} 2>&1")
    deadline = time.monotonic() + 60
    while not (tmp_path / "home/mlflow.db").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.close(terminal)
    assert exit_code(pid) == 0
    assert ended(tmp_path / "home") == ("complete", {"FINISHED"})


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_ray_starts_closes_the_records(number: int, begin: str, tmp_path: Path) -> None:
    process = subprocess.Popen(begin.split(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("home/store/runs/mine/plan.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"'study resume mine --home {tmp_path / 'home'}' continues the run" in errors or "stopping" in errors
    outcome, statuses = ended(tmp_path / "home")
    assert (outcome, "RUNNING" in statuses) == ("interrupted", False)


def test_ctrl_c_before_anything_is_stored_promises_no_resume(begin: str, tmp_path: Path) -> None:
    program = (
        "import signal\nfrom study import cli, launch\n"
        "launch.run = lambda *_: signal.raise_signal(signal.SIGINT)\ncli.main()"
    )
    command = [sys.executable, "-c", program, *begin.split()[3:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "stopped at once. Nothing was stored")
    assert not (tmp_path / "home").exists()
