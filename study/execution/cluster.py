"""The connection to Ray: of this machine or a cluster; that it has died is noticed, and said."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Before Ray is imported. Under `uv run`, Ray's own hook would keep trials from ever starting.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # the first Ctrl-C drains; see `interruptible`

import psutil
import ray

from study import modules
from study.errors import Refusal, one_line
from study.planning.stored import Resources

WATCH_SECONDS = 2.0
PATIENCE = 45  # times that, without an answer, before Ray counts as dead


@contextmanager
def connected(resources: Resources, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it, Ray runs on this machine or is the cluster that `resources` names; a Ray of the caller's is used.

    The modules that the user named and that are not installed are brought to the workers, in Ray's runtime environment.

    Args:
        resources: name the cluster.
        lost: called, in a thread, when the part of Ray on this machine has died, or Ray has not answered for 90 s. Ray
            itself would end this process some seconds later, without a word that helps.

    Raises:
        Refusal: if there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of its token at every start
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if not resources.address:
        options |= {"include_dashboard": False, "object_store_memory": 128 << 20}
    try:
        with TemporaryDirectory(prefix="study-") as folder:
            own = modules.to_ship(Path(folder))
            options |= {"runtime_env": {"py_modules": own}} if own else {}
            ray.init(address=resources.address or "local", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if not resources.address:
            raise
        raise Refusal("--address", resources.address, f"a running Ray cluster would do ({one_line(error)})") from error
    ended = threading.Event()
    node = ray.get_runtime_context().get_node_id()
    watcher = threading.Thread(target=_watch, args=(node, _own_parts(), ended, lost), name="watch Ray", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(5)  # a question that is asked while Ray shuts down makes Ray end this process
        ray.shutdown()


def _own_parts() -> list[psutil.Process]:
    """The processes of a Ray that this one has started, none of which it survives."""
    parts = []
    for part in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # another child, that has ended meanwhile
            if part.name() in ("gcs_server", "raylet") and not _has_ended(part):
                parts.append(part)
    return parts


def _watch(
    node: str,
    parts: Sequence[psutil.Process],
    ended: threading.Event,
    lost: Callable[[], None],
    patience: int = PATIENCE,
) -> None:
    answers = [0]

    def ask() -> None:
        """Until Ray says that its part here is dead; if it says nothing, the question hangs for a minute."""
        while _lives(node) and not ended.wait(WATCH_SECONDS):
            answers[0] += 1

    asker = threading.Thread(target=ask, name="ask Ray", daemon=True)
    asker.start()
    seen, silent = 0, 0  # counted, for a process that was stopped for a while has had no time to listen
    while not ended.wait(WATCH_SECONDS):
        seen, silent = answers[0], 0 if answers[0] != seen else silent + 1
        if not asker.is_alive() or silent > patience or any(_has_ended(part) for part in parts):
            if not ended.is_set():
                lost()
            return
    asker.join(5)


def _has_ended(part: psutil.Process) -> bool:
    try:
        return bool(part.status() == psutil.STATUS_ZOMBIE)  # a child that nobody has waited for
    except psutil.NoSuchProcess:
        return True


def _lives(node: str) -> bool:
    try:
        return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())
    except Exception:  # noqa: BLE001  whatever Ray raises, it does not answer
        return False
