"""The connection to Ray, on this machine or a cluster, and a watcher that notices when Ray dies."""

from __future__ import annotations

import gc
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

# Set before Ray is imported. Under `uv run`, Ray's hook would keep trials from starting.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # `_started` keeps what a job brings
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")  # a snapshot takes 24 kB a stage, and nothing reads it
os.environ["RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE"] = "1"  # else Tune itself begins a preempted trial again
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # the first Ctrl-C drains; see `interruptible`
os.environ.pop("TUNE_RESULT_DIR", None)  # Tune reads neither of these two, but raises if one is set
os.environ.pop("RAY_AIR_LOCAL_CACHE_DIR", None)

import psutil
import ray
from ray._private import ray_constants
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader

from study import modules, scratch
from study.errors import Away, Refusal, StudyError, one_line
from study.execution.address import CLIENT_ATTEMPTS, is_lost_client, option_of, token_if_wanted
from study.machine import cpus
from study.planning.stored import Resources

WATCH_SECONDS = 2.0
ANSWER_SECONDS = 60.0  # for the call to Ray under way when it is to shut down
PATIENCE = 45  # intervals of WATCH_SECONDS without an answer before Ray counts as dead
# How long the cluster's head (its GCS) may take no connections before Ray counts as dead. Ray itself ends a process
# after 60 s (`gcs_rpc_server_reconnect_timeout_s`), and a driver that closes its records needs some seconds.
GONE_SECONDS = 44.0
CONNECT_SECONDS = 1.0  # for a connection to it; a head that is only slow takes connections


@contextmanager
def connected(
    resources: Resources, lost: Callable[[], None] = lambda: None, definitions: Sequence[Any] = ()
) -> Iterator[None]:
    """Connect to Ray within the context: to the cluster that `resources` names, or to a new Ray on this machine.

    If the caller is already connected to Ray, this connection is used. Otherwise, the modules that the user named and
    that are not installed are sent to the workers in Ray's runtime environment. The nodes of a cluster also get the
    driver's own source of the platform and of `definitions`, so all train with the same source, and need not have it.

    Args:
        resources: names the cluster.
        lost: called in a thread when Ray's processes on this machine have died, the cluster's head has taken no
            connections for 44 s, or Ray has not answered for 90 s. Ray itself would end this process some seconds
            later, without a helpful message.
        definitions: the class that executes stages, and the functions that nodes call.

    Raises:
        Refusal: if there is no such cluster, or the folder for temporary files has a path too long for Ray.
        Away: if Ray does not start on this machine.
    """
    for definition in definitions:
        if definition.__module__.startswith(modules.BY_PATH):  # workers cannot import it
            ray.cloudpickle.register_pickle_by_value(sys.modules[definition.__module__])
    if ray.is_initialized():
        yield
        return
    packages = {each.__module__.partition(".")[0] for each in definitions} | {"study"} if resources.address else set()
    with _ray_token(resources), _silent(), _started(resources, lost, packages):
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """Within this context, let Ray print nothing about its processes. It has no option for this.

    It would print to stdout, where a report in JSON may go. The driver itself tells of each process that is lost.
    """
    printing = ray._private.worker.print_to_stdstream
    ray._private.worker.print_to_stdstream = lambda *_arguments, **_named: None
    try:
        yield
    finally:
        ray._private.worker.print_to_stdstream = printing


@contextmanager
def _ray_token(resources: Resources) -> Iterator[None]:
    """Give a new Ray on this machine a token, unless the user gives one; use a cluster's token if it asks for one.

    Ray would write a token of its own to ``~/.ray``, but a user of a container may have no home directory.
    """
    if resources.address or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        with token_if_wanted(resources.address):
            yield
        return
    loader = AuthenticationTokenLoader.instance()
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    loader.reset_cache()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        loader.reset_cache()


@contextmanager
def _started(resources: Resources, lost: Callable[[], None], packages: Collection[str]) -> Iterator[None]:
    on_sigterm = signal.getsignal(signal.SIGTERM)
    scratch.remove_of_dead_processes()
    logging.getLogger("ray").setLevel(logging.ERROR)  # otherwise it logs its token at every start
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if not resources.address:
        scratch.remove_of_dead_processes(Path(ray._common.utils.get_default_ray_temp_dir()), "session_*")
        number = min(cpus(), int(ray._private.utils.get_num_cpus()))  # Ray knows the limits of containers
        options |= {"include_dashboard": False, "object_store_memory": 128 << 20, "num_cpus": number}
    with scratch.folder() as folder:
        py_modules = modules.to_ship(folder, packages)
        if py_modules:
            job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
            of_job = job.get("runtime_env", {}).get("py_modules") or []  # of 'ray job submit', else replaced by ours
            options |= {"runtime_env": {"py_modules": [*of_job, *py_modules]}}
        # Ray's processes inherit this: they outlive a terminal that closes, so that the driver can drain.
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            with nullcontext() if resources.address else _private_ray():
                _init(_resolved(resources.address), options)
        except Exception as error:
            raise _why_not_started(error, resources.address) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    session = None if resources.address else Path(ray._private.worker._global_node.get_session_dir_path())
    if session is not None:
        scratch.mark(session)
    ended = threading.Event()
    node = ray.get_runtime_context().get_node_id()
    # A client outside the cluster cannot reach the head, but its connection to Ray ends with it.
    watched_head = "" if resources.address.startswith("ray://") else head()
    arguments = (node, _ray_processes(), ended, lost, watched_head)
    watcher = threading.Thread(target=_watch, args=arguments, name="watch Ray", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()  # a call to Ray while it shuts down makes Ray end this process
        _shut_down()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has set a handler of its own


def head() -> str:
    """Return the address of the head of the cluster that is connected."""
    return str(ray.get_runtime_context().gcs_address)


def _shut_down() -> None:
    """Shut Ray down, with Python's collector of cycles at rest.

    Ray ends a process in which another thread drops a reference to one of Ray's objects meanwhile. Tune leaves such
    objects in cycles, and the collector runs in whichever thread allocates.
    """
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _private_ray() -> Iterator[None]:
    """Within this context, let Ray start for this process alone. Ray has no public options for this.

    Its processes listen on loopback instead of every address, which is Ray's default on macOS and Windows. Its agent
    starts without the servers of a dashboard, as it does where `ray[default]` is not installed. Three processes that it
    does not need do not start: for the output of workers, which nobody reads here, for Ray's autoscaler, and for
    reports of usage.
    """
    parameters = partial(ray._private.parameter.RayParams, include_log_monitor=False, no_monitor=True)
    ours: list[tuple[ModuleType, str, Any]] = [
        (ray._private.parameter, "RayParams", parameters),
        (ray._private.services, "start_api_server", lambda *_arguments, **_named: (None, None)),
        (ray_constants, "ENABLE_RAY_CLUSTER", False),
        (ray._private.utils, "get_dashboard_dependency_error", lambda: ImportError("not wanted")),
    ]
    rays = [getattr(module, name) for module, name, _ in ours]
    for module, name, value in ours:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(ours, rays, strict=True):
            setattr(module, name, value)


def _init(address: str, options: dict[str, Any]) -> None:
    for attempt in range(1, CLIENT_ATTEMPTS + 1):
        try:
            ray.init(address=address, **options)
            return
        except ConnectionError as error:
            if attempt == CLIENT_ATTEMPTS or not is_lost_client(str(error)):
                raise


def _resolved(address: str) -> str:
    """Return the address as Ray takes it. With ``auto``, Ray would use a token also if the cluster has none."""
    if address == "auto":
        return str(ray._private.services.canonicalize_bootstrap_address_or_die("auto"))
    return address or "local"


def _why_not_started(error: Exception, address: str) -> StudyError:
    """Return what the user reads if Ray raised an error at its start. The error may be of any type."""
    if isinstance(error, OSError) and "AF_UNIX" in str(error):
        variable = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        words = "must be a folder with a short path, because Ray makes sockets in it (at most 107 characters in all)"
        return Refusal(variable, os.environ.get(variable), words)
    if address and isinstance(error, (ConnectionError, ValueError, RuntimeError)):
        words = "must be the address of a running Ray cluster"
        return Refusal(option_of(address), address, words, hint=f"Reason: {one_line(error)}")
    return Away(f"Ray did not start: {one_line(error).rstrip('.')}. Give the command again")


def _ray_processes() -> list[psutil.Process]:
    """Return the processes of Ray that this process has started. It does not survive the end of any of them."""
    processes = []
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # another child, which has ended meanwhile
            if process.name() in ("gcs_server", "raylet") and not _has_ended(process):
                processes.append(process)
    return processes


def _watch(
    node: str,
    processes: Sequence[psutil.Process],
    ended: threading.Event,
    lost: Callable[[], None],
    head: str = "",
    patience: int = PATIENCE,
) -> None:
    answers = [0]

    def ask() -> None:
        """Ask Ray repeatedly until it reports that the node is dead. A call without an answer hangs for a minute."""
        while _is_alive(node) and not ended.wait(WATCH_SECONDS):
            answers[0] += 1

    asker = threading.Thread(target=ask, name="ask Ray", daemon=True)
    asker.start()
    # Intervals are counted, not measured by the clock: a process that was stopped for a while could not listen.
    seen, silent, reached = 0, 0, time.monotonic()
    while not ended.wait(WATCH_SECONDS):
        seen, silent = answers[0], 0 if answers[0] != seen else silent + 1
        if not silent or not head or _takes_connections(head):
            reached = time.monotonic()
        is_gone = time.monotonic() - reached > GONE_SECONDS
        if not asker.is_alive() or silent > patience or is_gone or any(map(_has_ended, processes)):
            if not ended.is_set():
                lost()
            return
    asker.join(ANSWER_SECONDS)


def _takes_connections(address: str) -> bool:
    """Return whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)  # an ended child whose exit code was not read
    except psutil.NoSuchProcess:
        return True


def _is_alive(node_id: str) -> bool:
    try:
        return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
    except Exception:  # noqa: BLE001  any error means that Ray does not answer
        return False
