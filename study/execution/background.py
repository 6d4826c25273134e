"""Starts in the background: ``study resume`` in a process of its own on this machine, or as a job of a Ray cluster.

The plan is stored before, so a job needs no file of this machine. It gets this project by Ray's runtime environment,
and needs only the dependencies. No password is in its command line or its runtime environment, which Ray shows to
everyone: the cluster's nodes have passwords in their environment.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from study import modules, scratch
from study.errors import Refusal, StudyError, one_line
from study.execution.address import token_if_wanted
from study.services import within
from study.store.starts import starts
from study.store.states import Store

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# For the process to claim the run: Ray may have to start a worker for the job first, and the process may have to wait
# for `FRESH_SECONDS` until a driver on another host counts as dead.
BEGIN_SECONDS = 150.0
CONNECT_SECONDS = 30.0  # for the job server's answer
_LOOK_SECONDS = 0.3
T = TypeVar("T")

# The arguments come by stdin, because 'ps' shows a command line to everyone, and a URL may have a password.
_PROGRAM = """
import json, os, sys
sys.path[:], sys.argv[1:] = json.load(sys.stdin)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
from study.cli import main
main()
"""


class Begun(Protocol):
    """What was started in the background."""

    def last_words(self) -> str:
        """Return the last line that it printed, now that it has ended."""

    def exit_code(self) -> int | None:
        """Return its exit code, if it has ended; None if it has not, or cannot be asked now."""

    def stop(self) -> None:
        """End it."""


class Process:
    """A process of this machine that outlives the terminal and the shell.

    Args:
        run: the name of the run.
        arguments: of the command `study`.
        output: the file for what the process prints.
    """

    def __init__(self, run: str, arguments: Sequence[str], output: Path) -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, run],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([sys.path, list(arguments)]).encode())
        self._process.stdin.close()

    def last_words(self) -> str:
        """Return the last line that the process printed."""
        return _last_error(self._output.read_text(encoding="utf-8", errors="replace"))

    def exit_code(self) -> int | None:
        """Return the exit code of the process, if it has ended; None if it has not."""
        return self._process.poll()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


class Job:
    """A job of a Ray cluster.

    Args:
        run: the name of the run.
        arguments: of the command `study`.
        address: the address of the cluster.
        packages: packages that the run needs besides this project's.

    Raises:
        Refusal: if the cluster takes no jobs.
    """

    def __init__(self, run: str, arguments: Sequence[str], address: str, packages: Collection[str] = ()) -> None:
        self._client = _client(address)
        words = f"-m study {shlex.join(arguments)}"
        here = shlex.quote(sys.executable)  # also the cluster's, if its machines have one image
        command = f"if [ -x {here} ]; then exec {here} {words}; else exec python {words}; fi"
        self._name = f"study-{run}-{secrets.token_hex(3)}"
        deadline = time.monotonic() + BEGIN_SECONDS
        with scratch.folder() as folder:
            brought = {"py_modules": modules.to_ship(folder, {"study", *packages}, modules.PROJECT)}
            while True:
                try:
                    self._client.submit_job(entrypoint=command, submission_id=self._name, runtime_env=brought.copy())
                    return
                except Exception as error:  # of any type, as the server answers
                    is_starting = "No available agent" in str(error)  # of a cluster that was started just now
                    if not is_starting or time.monotonic() > deadline:
                        raise _refused(address, one_line(error)) from error
                time.sleep(_LOOK_SECONDS)

    def last_words(self) -> str:
        """Return the last line that the job printed or, without one, Ray's message."""
        logs = self._asked(self._client.get_job_logs)
        return _last_error(logs or "") or str(getattr(self._asked(self._client.get_job_info), "message", ""))

    def exit_code(self) -> int | None:
        """Return the exit code of the job, if it has ended; None if it has not, or the job server does not answer."""
        job = self._asked(self._client.get_job_info)
        if job is None or not job.status.is_terminal():
            return None
        return 1 if job.driver_exit_code is None else int(job.driver_exit_code)  # None if Ray could not start it

    def stop(self) -> None:
        """End the job, if the job server answers."""
        self._asked(self._client.stop_job)

    def _asked(self, question: Callable[[str], T]) -> T | None:
        """Return what the job server says of this job; None if it is busy or away. Its client waits for ever."""
        answers: list[T] = []

        def ask() -> str:
            with suppress(RuntimeError, OSError):
                answers.append(question(self._name))
            return ""

        within([ask], CONNECT_SECONDS)
        return answers[0] if answers else None


def wait(begun: Begun, store: Store, run: str, earlier: int, hint: str = "") -> None:
    """Wait until a start in the background trains, or has ended well without training.

    Args:
        begun: what was started.
        store: the store of the run.
        run: the name of the run.
        earlier: the number of starts that the run had.
        hint: what the user reads with the reason why it did not begin.

    Raises:
        Refusal: if it was refused before, with the last line that it printed, or has not claimed the run in time.
        StudyError: if it ended before for another reason.
    """
    try:
        deadline = time.monotonic() + BEGIN_SECONDS
        while True:
            code = begun.exit_code()
            records = starts(store, run)[earlier:]  # after the exit code: a start writes its record before it ends
            if code in (0, 3) or any(start.checked for start in records):  # without checks, nothing was to be trained
                return
            if code is not None:
                words = begun.last_words() or f"the start of run {run!r} ended without a message"
                raise Refusal("--detach", run, words, hint) if code == 2 else StudyError(words)
            if time.monotonic() > deadline and not records:
                words = f"run {run!r} has not begun within {BEGIN_SECONDS:g} s, and its start was ended"
                raise Refusal("--detach", run, words, hint="The machines may be busy: give the command again")
            time.sleep(_LOOK_SECONDS)
    except BaseException:
        begun.stop()
        raise


def _client(address: str) -> JobSubmissionClient:
    """Return the client of a cluster's job server, which is a part of its dashboard."""
    import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
    from ray.job_submission import JobSubmissionClient

    clients: list[JobSubmissionClient] = []

    def connect() -> str:
        try:
            clients.append(JobSubmissionClient(address))
        except Exception as error:  # noqa: BLE001  of any type, as packages or servers are missing
            return one_line(error)
        return ""

    # Ray prefers the variable to the address that is given.
    variable = None if address == "auto" else os.environ.pop("RAY_ADDRESS", None)
    try:
        with token_if_wanted(address):
            (reason,) = within([connect], CONNECT_SECONDS)
    finally:
        if variable is not None:
            os.environ["RAY_ADDRESS"] = variable
    if reason:
        raise _refused(address, reason)
    return clients[0]


def _refused(address: str, reason: str) -> StudyError:
    words = f"--detach: the Ray cluster at {address} takes no jobs ({reason.rstrip('.')})"
    hint = "Its head and this machine need 'pip install \"ray[default]\"', and the head must be started again"
    return Refusal("--detach", address, words, hint=hint)


def _last_error(text: str) -> str:
    """Return the last line of an output, or the last one that begins with ``error: ``, without these words."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]
