"""The fixtures that tests share: one Ray, a small space, servers, and the command line in this process."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from click.testing import Result
from helpers import Denying, call_study, write_space

# Ray, MLflow and torch leave sockets and files to the garbage collector, and warn of their own internals.
THEIRS = (
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning:(ray|mlflow|torch|pyarrow|sqlalchemy|alembic|google|pydantic|graphene|starlette|fastapi)",
    "ignore::FutureWarning:(ray|mlflow|torch)",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    """Files go to the processes in the order of the collection, not those of many tests first."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left with them at the end.

    Warnings of other people's packages are not ours to mend.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        for ignored in THEIRS:
            item.add_marker(pytest.mark.filterwarnings(ignored))


@pytest.fixture(scope="session")
def one_ray() -> Iterator[None]:
    """A Ray on this machine for all tests that train in this process."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from study import modules
    from study.execution import cluster
    from study.planning.stored import Resources

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules, "_shipped", set())
        with cluster.connected(Resources()):
            yield


@pytest.fixture(autouse=True)
def named_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test brings workers the modules that others have named, of which many have one name."""
    monkeypatch.setattr("study.modules._shipped", set())


@pytest.fixture(scope="session", autouse=True)
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In this process MLflow's empty database is made once, which takes seconds, and copied from then on."""
    from mlflow.store.db import utils

    empty, make = tmp_path_factory.mktemp("mlflow") / "empty.db", utils._initialize_tables

    def copy(engine: Any) -> None:
        path = Path(engine.url.database or "")
        if empty.exists():
            with closing(sqlite3.connect(empty)) as ours, closing(sqlite3.connect(path)) as theirs:
                ours.backup(theirs)
        else:
            make(engine)
            with closing(sqlite3.connect(path)) as theirs, closing(sqlite3.connect(f"{empty}.made")) as ours:
                theirs.backup(ours)
            Path(f"{empty}.made").rename(empty)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", copy)
        yield


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that trained, the CPUs of the one Ray are free again.

    When Tune lets go of an actor that is still being started, Ray now and then does not give back its CPU. A start of
    ours has a Ray of its own, but here the next test would wait for ever.
    """
    yield
    if "one_ray" not in request.fixturenames:
        return
    import ray

    deadline = time.monotonic() + 3
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            ray.shutdown()
            ray.init(address="local", log_to_driver=False, include_dashboard=False, object_store_memory=128 << 20)
            return
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def no_tracking_uri() -> Iterator[None]:
    """MLflow sets MLFLOW_TRACKING_URI where a URI is set; processes that later tests start must not see it."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture
def small_space(tmp_path: Path) -> Callable[..., str]:
    """Writes a small space file into the test's folder."""
    return partial(write_space, tmp_path)


@pytest.fixture(scope="session")
def command() -> Callable[..., Result]:
    """The command `study` on a home that each call names."""
    return call_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command `study` with a home of the test's own."""
    monkeypatch.chdir(tmp_path)
    return partial(call_study, home=tmp_path / "home")


@pytest.fixture(scope="session")
def finished(one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[..., Result], Path, str]:
    """A complete small run, `mine`, of two cells and two replicates: the command, its folder, its space's file."""
    folder = tmp_path_factory.mktemp("finished")
    space = write_space(folder)
    study = partial(call_study, home=folder / "home")
    study("run", space, "--seeds", "2", "--name", "mine")
    return study, folder, space


class Driver:
    """A stand-in for the library of NVIDIA's driver: so many GPUs, or the error that it begins with."""

    def __init__(self, capabilities: tuple[tuple[int, int], ...], error: int) -> None:
        self.capabilities, self.error = capabilities, error

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return self.error

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:  # noqa: N802
        value._obj.value = self.capabilities[device][(75, 76).index(attribute)]
        return 0


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives this machine GPUs by their compute capabilities, or a driver that cannot begin; None for no driver."""
    load = ctypes.CDLL

    def install(*capabilities: tuple[int, int] | None, error: int = 0) -> None:
        def find(name: str, *arguments: Any, **options: Any) -> Any:
            if name != "libcuda.so.1":
                return load(name, *arguments, **options)
            if None in capabilities:
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")
            return Driver(capabilities, error)

        monkeypatch.setattr(ctypes, "CDLL", find)

    return install


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server on loopback that has one bucket, `bucket`."""
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-W", "ignore", "-c", "from moto.server import main; main(['-p', '0'])"]
    with pytest.MonkeyPatch.context() as patch, log.open("wb") as output:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"Running on http://(127\.0\.0\.1:\d+)", log.read_text())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            urlopen(Request(f"http://{found[1]}/bucket", method="PUT"), timeout=10).close()
            yield found[1]
        finally:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL on loopback for its user `me`, whose password is `hunter2-postgres`."""
    pytest.importorskip("psycopg")
    programs = sorted([*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ["PATH"].split(":"))])
    binaries = [folder for folder in programs if (folder / "initdb").exists() and (folder / "postgres").exists()]
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as name:  # root's folders of tests are for root alone
        folder, data = Path(name), Path(name, "data")
        user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        (folder / "password").write_text("hunter2-postgres\n")
        folder.chmod(0o777)
        make = [binaries[-1] / "initdb", "-D", data, "-U", "me", "-A", "scram-sha-256", "--no-sync"]
        made = subprocess.run([*make, "--pwfile", folder / "password"], capture_output=True, text=True, **user)
        assert made.returncode == 0, made.stderr
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        options = ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off")
        serve = [
            binaries[-1] / "postgres",
            "-D",
            data,
            "-p",
            str(port),
            *(word for each in options for word in ("-c", each)),
        ]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log, **user)
        try:
            deadline = time.monotonic() + 60
            while "ready to accept connections" not in (folder / "log").read_text():
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"postgresql://me:hunter2-postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait()


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a server that is there, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address at which nobody listens: bound, so that nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


class _Denying(BaseHTTPRequestHandler):
    """Answers as a server that wants other credentials."""

    def do_GET(self) -> None:
        self.server.given.add(self.headers["Authorization"])  # type: ignore[attr-defined]
        self.send_error(401)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="session")
def denying() -> Iterator[Denying]:
    """A server that wants other credentials."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Denying) as listening:
        listening.given = set()  # type: ignore[attr-defined]
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield Denying(f"127.0.0.1:{listening.server_port}", listening.given)  # type: ignore[attr-defined]
        listening.shutdown()
