"""Starts in the background: ``study resume`` in a process of its own on this machine, or as a job of a Ray cluster.

The plan is stored before. So a job needs no file of this machine, and no password is in its command line or its runtime
environment, which Ray shows to everyone: the cluster's nodes have passwords in their environment.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from study.errors import Refusal, StudyError, one_line
from study.services import within
from study.store.states import Store

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

BEGIN_SECONDS = 120.0  # for the process to claim the run; Ray may have to start a worker for the job first
CONNECT_SECONDS = 30.0  # for the job server's answer
_LOOK_SECONDS = 0.3

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

    def last_words(self) -> str | None:
        """Return the last line that it printed, if it has ended; None if it has not, or cannot be asked now."""

    def has_succeeded(self) -> bool:
        """Return whether it has ended with exit code 0."""

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

    def last_words(self) -> str | None:
        """Return the last line that the process printed, if it has ended; None if it has not."""
        if self._process.poll() is None:
            return None
        return _last_error(self._output.read_text(encoding="utf-8", errors="replace"))

    def has_succeeded(self) -> bool:
        """Return whether the process has ended with exit code 0."""
        return self._process.poll() == 0

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

    Raises:
        Refusal: if the cluster takes no jobs.
    """

    def __init__(self, run: str, arguments: Sequence[str], address: str) -> None:
        self._client = _client(address)
        words = f"-m study {shlex.join(arguments)}"
        here = shlex.quote(sys.executable)  # also the cluster's, if its machines have one image
        command = f"if [ -x {here} ]; then exec {here} {words}; else exec python {words}; fi"
        self._name = f"study-{run}-{secrets.token_hex(3)}"
        deadline = time.monotonic() + BEGIN_SECONDS
        while True:
            try:
                self._client.submit_job(entrypoint=command, submission_id=self._name)
                return
            except Exception as error:  # of any type, as the server answers
                is_starting = "No available agent" in str(error)  # of a cluster that was started just now
                if not is_starting or time.monotonic() > deadline:
                    raise _refused(address, one_line(error)) from error
            time.sleep(_LOOK_SECONDS)

    def last_words(self) -> str | None:
        """Return the last line that the job printed, if it has ended; None if it has not."""
        with suppress(RuntimeError):  # the job server is busy: it is asked again
            if self._client.get_job_status(self._name).is_terminal():
                message = str(self._client.get_job_info(self._name).message)
                return _last_error(self._client.get_job_logs(self._name)) or message
        return None

    def has_succeeded(self) -> bool:
        """Return whether the job has ended with exit code 0."""
        with suppress(RuntimeError):
            return str(self._client.get_job_status(self._name).value) == "SUCCEEDED"
        return False

    def stop(self) -> None:
        """End the job."""
        with suppress(RuntimeError):  # the reason why it is stopped says more
            self._client.stop_job(self._name)


def wait(begun: Begun, store: Store, run: str, starts_before: int, hint: str = "") -> None:
    """Wait until a start in the background has claimed its run.

    Args:
        begun: what was started.
        store: the store of the run.
        run: the name of the run.
        starts_before: the number of starts that the run had.
        hint: what the user reads with the reason why it did not begin.

    Raises:
        Refusal: if it ended before, with the last line that it printed.
    """
    try:
        deadline = time.monotonic() + BEGIN_SECONDS
        while count_starts(store, run) == starts_before:
            words = begun.last_words()
            if begun.has_succeeded():  # so fast that a file system on the network does not show its start yet
                return
            if words is not None and count_starts(store, run) == starts_before:
                raise Refusal("--detach", run, words or f"the start of run {run!r} ended without a message", hint)
            if time.monotonic() > deadline:
                words = f"run {run!r} has not begun within {BEGIN_SECONDS:g} s, and its start was ended"
                raise Refusal("--detach", run, words, hint="The machines may be busy: give the command again")
            time.sleep(_LOOK_SECONDS)
    except BaseException:
        begun.stop()
        raise


def count_starts(store: Store, run: str) -> int:
    """Return the number of starts of a run."""
    return len(store.records(f"runs/{run}/starts"))


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
