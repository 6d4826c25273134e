"""Why Ray lost a process: its errors in one line."""

from __future__ import annotations

import re
from pathlib import Path

import ray

from study import scratch
from study.errors import one_line

LOST_HINT = "It may have run out of memory: use fewer --workers, or search the system log for the cause"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_PROCESS = re.compile(r"\bpid[:=] ?(\d+)")
_ADDRESS = re.compile(r"\bip[:=] ?([\w.:]+)")


def cause_of(error: BaseException) -> tuple[str, str]:
    """Return why a process of Ray was lost, in one line: the cause at the end of Ray's text, with the process.

    Return also the name of its machine, or "".
    """
    cause = getattr(error, "cause", None)
    text = _COLOUR.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(cause, BaseException):
        reason = one_line(cause, named=True)
    elif "Worker exit detail: " in text:
        reason = text.partition("Worker exit detail: ")[2].partition(". Some common causes")[0].splitlines()[0]
        reason = f"{reason.rstrip('.')}. {LOST_HINT}"
    else:  # after a traceback, the last line names the error
        reason = one_line(RuntimeError(lines[-1] if any(line.startswith("File ") for line in lines) else lines[0]))
    process, address = _PROCESS.search(text), _ADDRESS.search(text)
    if process is None or address is None:
        return reason, ""
    host = _host(address[1])
    logs = _logs()
    files = f"; its logs: {logs}/*-{process[1]}.* there" if logs else ""
    return f"{reason.rstrip('.')} (on {host}, process {process[1]}{files})", host


def _logs() -> str:
    """Return the folder of Ray's logs on each node; "" for a Ray of this process alone, which is removed at its end."""
    node = ray._private.worker._global_node  # None for ray://
    if node is None:
        return "/tmp/ray/session_latest/logs"  # noqa: S108  Ray's default
    session = Path(node.get_session_dir_path())
    return "" if (session / scratch.OWNER_FILE).exists() else str(session / "logs")


def _host(address: str) -> str:
    """Return the name of the machine with an address of Ray, or the address if Ray does not know it."""
    try:
        names = [node["NodeManagerHostname"] for node in ray.nodes() if node["NodeManagerAddress"] == address]
    except Exception:  # noqa: BLE001  Ray has ended
        names = []
    return names[0] if names else address
