"""Passwords are in nothing that a run writes, shows or starts, whether its services answer or not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers import content, refused_place, s3_url
from test_server import end, free_port, serve

from study.store.states import Store

# Each in its own service; PostgreSQL's is that of the fixture.
MARKS = {"PostgreSQL": "hunter2-postgres", "MLflow": "Mk-MLflow-77", "S3": "Mk-S3-77", "Ray": "ab77" * 16}

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a path that is short enough for Ray."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a tracking server, and the folder in which it keeps everything."""
    kept, port = tmp_path_factory.mktemp("mlflow"), free_port()
    process = serve(kept, port)
    yield f"127.0.0.1:{port}", kept
    end(process)


@pytest.fixture
def environment(folder: Path, postgres: str, s3: str, mlflow_server: tuple[str, Path]) -> dict[str, str]:
    """The environment of a run with a password for each service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "STUDY_"))}
    (folder / "ray").mkdir()
    return kept | {
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": MARKS["Ray"],
        "AWS_ENDPOINT_URL": f"http://{s3}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": MARKS["S3"],
        "STUDY_HOME": str(folder / "home"),
        "STUDY_STORE": f"s3://key:{MARKS['S3']}@bucket/secrets-{os.getpid()}",
        "STUDY_STORAGE": postgres,
        "MLFLOW_TRACKING_URI": f"http://me:{MARKS['MLflow']}@{mlflow_server[0]}",
    }


class Watch:
    """A thread that looks for marks in the arguments of all processes, and in the files below a folder.

    A file that grew since it was read is read again. Ray removes its logs when it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.found: set[str] = set()
        self.seen_files: set[str] = set()
        self._folder, self._sizes, self._ended = folder, dict[Path, tuple[int, int]](), threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._look()

    def _look(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # the process has ended
                arguments = path.read_bytes()
                self.found |= {f"arguments: {arguments!r}" for _ in marked(arguments)}
        for path in self._folder.rglob("*"):
            try:
                status = path.stat()
                is_new = self._sizes.get(path) != (status.st_size, status.st_mtime_ns)
                if not path.is_file() or not is_new:
                    continue
                self._sizes[path] = (status.st_size, status.st_mtime_ns)
                content = path.read_bytes()
            except OSError:  # it has gone
                continue
            self.seen_files.add(path.name)
            self.found |= {f"{path}: {service}" for service in marked(content)}


def marked(text: str | bytes) -> list[str]:
    """The services whose password is in a text."""
    plain = text.encode() if isinstance(text, str) else text
    return [service for service, mark in MARKS.items() if mark.encode() in plain]


def study(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "study", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_no_password_is_written_shown_or_among_the_arguments_of_a_process(
    environment: dict[str, str],
    small_space: Callable[..., str],
    folder: Path,
    s3: str,
    postgres: str,
    mlflow_server: tuple[str, Path],
) -> None:
    with Watch(folder) as watch:
        done = study("run", small_space(), "--seeds", "1", "--name", "mine", environment=environment)
        assert done.returncode == 0, done.stderr
        again = study("resume", "mine", environment=environment)
        assert again.returncode == 0, again.stderr
    assert watch.found == set()
    assert {"runtime_env_agent.log", "raylet.out", "gcs_server.out"} <= watch.seen_files
    for each in (done, again):
        assert marked(each.stdout) == marked(each.stderr) == []
    store = Store(s3_url(s3, f"secrets-{os.getpid()}"), create=False)
    objects = {each.path: content(store, each.path) for each in store.objects()}
    assert len(store.keys()) >= 2
    assert "runs/mine/plan.json" in objects
    assert [name for name, stored in objects.items() if marked(stored)] == []
    records = [path for path in mlflow_server[1].rglob("*") if path.is_file()]
    assert {"server.db", "plan.json"} <= {path.name for path in records}
    assert [path for path in records if marked(path.read_bytes())] == []
    dumped = subprocess.run(["pg_dump", "--data-only", postgres], capture_output=True, check=True).stdout
    assert b"mine/small" in dumped
    assert marked(dumped) == []


def test_workers_without_variables_get_the_driver_s_keys(
    environment: dict[str, str], small_space: Callable[..., str], folder: Path, s3: str
) -> None:
    """The Ray of a cluster was started without them."""
    bare = {name: value for name, value in environment.items() if not name.startswith(("AWS_", "STUDY_"))}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = [
        *ray,
        "start",
        "--head",
        "--port=0",
        "--include-dashboard=false",
        "--num-cpus=2",
        "--node-ip-address=127.0.0.1",
    ]
    environment["STUDY_STORE"] = f"s3://bucket/carried-{os.getpid()}"
    with Watch(folder) as watch:
        try:
            with (folder / "start").open("wb") as log:  # no pipe: Ray's processes would hold it
                subprocess.run(start, env=bare, stdout=log, stderr=log, timeout=300, check=True)
            run = ("run", small_space(), "--seeds", "1", "--name", "mine", "--address", "auto")
            done = study(*run, environment=environment)
        finally:
            stop_ray(folder / "ray")
    assert done.returncode == 0, done.stderr
    assert "Incomplete" not in done.stdout
    assert watch.found == set()
    assert "runtime_env_agent.log" in watch.seen_files


def stop_ray(folder: Path) -> None:
    """End the processes whose files are in a folder."""
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            process.kill()


@pytest.mark.parametrize("away", ["STUDY_STORE", "STUDY_STORAGE", "MLFLOW_TRACKING_URI"])
def test_no_password_is_in_the_message_about_a_service_that_is_away(
    environment: dict[str, str], small_space: Callable[..., str], refusing: str, away: str
) -> None:
    environment |= {
        "STUDY_STORE": {"AWS_ENDPOINT_URL": f"http://{refusing}"},
        "STUDY_STORAGE": {"STUDY_STORAGE": f"postgresql://me:{MARKS['PostgreSQL']}@{refusing}/optuna"},
        "MLFLOW_TRACKING_URI": {"MLFLOW_TRACKING_URI": f"http://me:{MARKS['MLflow']}@{refusing}"},
    }[away]
    done = study("run", small_space(), "--seeds", "1", environment=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "***" in done.stderr
    assert marked(done.stdout) == marked(done.stderr) == []


def test_the_words_of_a_refused_store_have_no_password(s3: str) -> None:
    said = refused_place(s3_url(s3, "x", bucket="no-such-bucket", user=f"key:{MARKS['S3']}@"))
    assert marked(said) == []
