"""`--detach`: a start is checked in the foreground, and goes on in the background, where no terminal can end it."""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import Denying, Study, free_port, wait_until, write_space

from study.errors import Refusal, StudyError
from study.execution import background
from study.store import records
from study.store.starts import Start, starts
from study.store.states import Store

ROOT = Path(__file__).parents[2]

# Runs a command in a terminal of its own, and closes the terminal when the command has ended.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def run(
    *arguments: str, cwd: Path, terminal: bool = False, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "study", *arguments]
    command = [sys.executable, "-c", TERMINAL, *command] if terminal else command
    everything = {**os.environ, "STUDY_HOME": str(cwd / "home"), **environment}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, cwd=cwd, env=everything, text=True, check=False, timeout=300, **streams)  # type: ignore[call-overload, no-any-return]


def store_of(folder: Path) -> Store:
    return Store(str(folder / "home/store"))


def ended(store: Store) -> str:
    """Wait for the end of the last start, and return its outcome."""
    wait_until(lambda: starts(store, "mine")[-1].outcome != "running", 300)
    return starts(store, "mine")[-1].outcome


class Background:
    """A start in the background that has ended with an exit code, or has not."""

    def __init__(self, code: int | None, words: str = "") -> None:
        self._code, self._words, self.was_stopped = code, words, False

    def exit_code(self) -> int | None:
        return self._code

    def last_words(self) -> str:
        return self._words

    def stop(self) -> None:
        self.was_stopped = True


@pytest.mark.slow
def test_it_returns_the_name_and_the_run_outlives_the_terminal(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    begun = run(
        *("run", space, "--seeds", "1", "--name", "mine", "--workers", "1", "--detach"), cwd=tmp_path, terminal=True
    )
    assert begun.returncode == 0, begun.stdout
    assert "mine" in begun.stdout.splitlines()  # a terminal has both streams
    places = f" --home {tmp_path / 'home'}"
    next_commands = (f"study {verb}{places}" for verb in ("status mine --watch", "logs mine -f", "stop mine"))
    assert f"Next: {' · '.join(next_commands)}" in begun.stdout
    (start,) = starts(store_of(tmp_path), "mine")
    assert os.getsid(start.pid) == start.pid
    watched = run("status", "mine", "--watch", cwd=tmp_path)
    assert watched.returncode == 0
    assert "mine  running  " in watched.stdout
    assert "mine  complete\n" in watched.stdout
    followed = run("logs", "mine", "--follow", cwd=tmp_path)
    assert followed.stdout.splitlines()[1].endswith("  run mine")
    assert ended(store_of(tmp_path)) == "complete"
    report = run("report", "mine", cwd=tmp_path).stdout
    assert report in (tmp_path / "home/detached/mine.log").read_text()


@pytest.mark.slow
def test_what_is_refused_in_the_background_is_refused_here_and_resume_detaches_too(tmp_path: Path) -> None:
    words = ("run", write_space(tmp_path), "--seeds", "1", "--name", "mine", "--workers", "1", "--detach")
    refused = run(*words, cwd=tmp_path, RAY_TMPDIR=str(tmp_path / ("x" * 90)))
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    assert "error: RAY_TMPDIR must be a folder with a short path" in refused.stderr
    assert records.load_plan(store_of(tmp_path), "mine") is None
    begun = run(*words, cwd=tmp_path)
    assert (begun.returncode, begun.stdout) == (0, "mine\n"), begun.stderr
    second = run("resume", "mine", "--detach", cwd=tmp_path)
    assert (second.returncode, "is being trained by process" in second.stderr) == (2, True)
    assert run("stop", "mine", "--now", cwd=tmp_path).returncode == 0
    assert ended(store_of(tmp_path)) == "interrupted"
    resumed = run("resume", "mine", "--workers", "1", "--detach", cwd=tmp_path)
    assert (resumed.returncode, resumed.stdout) == (0, "mine\n"), resumed.stderr
    assert ended(store_of(tmp_path)) == "complete"
    again = run("resume", "mine", "--detach", cwd=tmp_path)  # nothing is left to train
    assert (again.returncode, again.stdout) == (0, "mine\n"), again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "table9", "--data", "cifar10", "--name", "mine"), "cifar10 is missing or damaged"),
        (("run", "table9", "--name", "mine", "--tracking-uri", "http://127.0.0.1:1"), "does not answer within"),
        (("resume", "mine"), "run 'mine' does not exist"),
        (("run", "table9", "--json"), "--json must be left out with --detach"),
    ],
)
def test_what_is_refused_is_refused_in_the_foreground(
    arguments: tuple[str, ...], words: str, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "Process", lambda *_: pytest.fail("a process was started"))
    refused = study(*arguments, "--detach", code=2)
    assert words in str(refused.exception)
    assert not (tmp_path / "home").exists()


def test_a_run_that_is_refused_in_the_background_is_not_stored(
    study: Study, small_space: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def process(run: str, arguments: list[str], _output: Path) -> object:
        given.extend(arguments)
        assert records.load_plan(store_of(tmp_path), run) is not None
        return Background(2, "the file is gone")

    monkeypatch.setattr(background, "Process", process)
    refused = study("run", small_space(), "--name", "mine", "--detach", code=2)
    assert str(refused.exception) == "the file is gone"
    home, store = str(tmp_path / "home"), str(tmp_path / "home/store")
    assert given == ["resume", "mine", "--home", home, "--address", "local", "--store", store]
    assert records.load_plan(store_of(tmp_path), "mine") is None


def test_a_process_gets_its_arguments_where_ps_does_not_show_them(tmp_path: Path) -> None:
    url = "postgresql://me:told-by-stdin@127.0.0.1:1/optuna"
    process = background.Process("mine", ["resume", "mine", "--storage", url], tmp_path / "logs/mine.log")
    of_process = Path(f"/proc/{process._process.pid}")
    wait_until(lambda: b"\0mine\0" in of_process.joinpath("cmdline").read_bytes())
    for name in ("cmdline", "environ"):
        assert b"told-by-stdin" not in of_process.joinpath(name).read_bytes()
    assert process.exit_code() is None
    wait_until(lambda: process.exit_code() is not None, 60)
    assert process.exit_code() == 2
    assert "run 'mine' does not exist" in process.last_words()
    assert b"told-by-stdin" not in (tmp_path / "logs/mine.log").read_bytes()


def test_an_interrupt_before_it_has_begun_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Background(None)
    monkeypatch.setattr(background.time, "sleep", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        background.wait(begun, Store(str(tmp_path)), "mine", 0)
    assert begun.was_stopped


@pytest.mark.parametrize(("code", "kind"), [(2, Refusal), (1, StudyError), (130, StudyError)])
def test_what_ends_before_it_trains_is_told_with_its_last_words(tmp_path: Path, code: int, kind: type) -> None:
    start = Start(Store(str(tmp_path)), "mine", 0, print)
    start.end("interrupted", 0)
    with pytest.raises(StudyError, match="the disk is full") as told:
        background.wait(Background(code, "the disk is full"), Store(str(tmp_path)), "mine", 0)
    assert type(told.value) is kind


@pytest.mark.parametrize("code", [0, 3])
def test_what_ends_well_had_nothing_to_train(tmp_path: Path, code: int) -> None:
    background.wait(Background(code), Store(str(tmp_path)), "mine", 0)


def test_it_has_begun_when_all_checks_have_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    monkeypatch.setattr(background, "BEGIN_SECONDS", 0.0)
    with pytest.raises(Refusal, match="run 'mine' has not begun within 0 s"):
        background.wait(Background(None), store, "mine", 0)
    start = Start(store, "mine", 0, print)  # it has claimed the run: its checks may take longer
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            start.record.checked = True
            start.end("interrupted", 0)

    monkeypatch.setattr(background.time, "sleep", look)
    background.wait(Background(None), store, "mine", 0)
    assert len(looks) == 3


# On a cluster


class Head(NamedTuple):
    """A Ray cluster of one node.

    Attributes:
        address: its HOST:PORT.
        jobs: the URL of its job server.
        folder: the folder of its files.
        python: the interpreter that its jobs use.
    """

    address: str
    jobs: str
    folder: Path
    python: str


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has all dependencies, and not this project, unless PYTHONPATH names it."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib"))
    only = next(folder.glob("lib/python*/site-packages"))
    (only / "dependencies.pth").write_text(f"{packages}\n")  # whose own .pth files Python does not read
    python = str(folder / "bin" / "python")
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if not subprocess.run([python, "-c", "import study"], capture_output=True, env=bare, cwd=folder).returncode:
        pytest.skip("this project is installed as a copy beside its dependencies")
    return python


@pytest.fixture(scope="module")
def head(bare_python: str, denying: Denying, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A cluster of one node, which lacks this project, and whose environment has MLflow's password."""
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("the dashboard of Ray needs ray[default]")
    folder = Path("/tmp") / f"head-{os.getpid()}"
    port, jobs = free_port(), free_port()
    command = [bare_python, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += [f"--port={port}", f"--dashboard-port={jobs}", f"--ray-client-server-port={free_port()}"]
    # Jobs are started by the agent, whose usual port another Ray of this machine may have.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}"]
    command += ["--num-cpus=1", f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats"]
    log = tmp_path_factory.mktemp("head") / "log"
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"http://me:hunter2@{denying.address}",
        "RAY_AUTH_MODE": "disabled",
    }
    environment.pop("PYTHONPATH", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True, cwd=log.parent
        )
    try:
        wait_until(lambda: "This command will now block" in log.read_text() or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text()
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{jobs}", folder, bare_python)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def detached(folder: Path, head: Head, *more: str) -> subprocess.CompletedProcess[str]:
    words = ("run", "small.py", "--seeds", "1", "--name", "mine", "--workers", "1", "--address", head.address)
    variables = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    return run(*words, "--detach", *more, cwd=folder, python=head.python, **variables)


@pytest.mark.slow
def test_on_a_cluster_it_is_a_job_that_needs_no_file_of_this_machine(head: Head, tmp_path: Path) -> None:
    space = Path(write_space(tmp_path))
    begun = detached(tmp_path, head)
    assert (begun.returncode, begun.stdout) == (0, "mine\n"), begun.stderr
    space.unlink()
    assert ended(store_of(tmp_path)) == "complete"
    assert "mine  complete\n" in run("status", "mine", cwd=tmp_path).stdout


@pytest.mark.slow
def test_a_password_comes_from_the_environment_of_the_cluster_and_is_in_no_job(
    head: Head, denying: Denying, tmp_path: Path
) -> None:
    write_space(tmp_path)
    refused = detached(tmp_path, head, "--tracking-uri", f"http://you:hunter2@{denying.address}")
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    masked = f"http://you:***@{denying.address}"
    assert line.startswith(f"error: --tracking-uri: the password of {masked!r} is not stored. Give the whole URL again")
    assert "Passwords are not given to the job: set MLFLOW_TRACKING_URI, " in line
    assert records.load_plan(store_of(tmp_path), "mine") is None

    used = f"Basic {base64.b64encode(b'me:hunter2').decode()}"
    assert used not in denying.given
    refused = detached(tmp_path, head, "--tracking-uri", f"http://me:hunter2@{denying.address}")
    assert refused.returncode == 2, refused.stderr
    assert "--tracking-uri must be a tracking store or server that MLflow can use" in refused.stderr
    assert used in denying.given
    assert records.load_plan(store_of(tmp_path), "mine") is None
    for folder in (head.folder, tmp_path):
        leaks = [path for path in folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
        assert leaks == []
    from ray.job_submission import JobSubmissionClient

    jobs = JobSubmissionClient(head.jobs).list_jobs()
    assert len(jobs) >= 2
    assert not [job for job in jobs if "hunter2" in f"{job.entrypoint} {job.runtime_env} {job.metadata}"]


@pytest.mark.slow
def test_a_cluster_that_takes_no_jobs_is_refused(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import job_submission

    def away(_address: str) -> None:
        raise RuntimeError("The Ray jobs CLI & SDK require the ray[default] installation")

    monkeypatch.setattr(job_submission, "JobSubmissionClient", away)
    with pytest.raises(Refusal) as refused:
        background.Job("mine", ["resume", "mine"], head.address)
    assert str(refused.value).startswith(f"--detach: the Ray cluster at {head.address} takes no jobs (The Ray jobs CLI")
