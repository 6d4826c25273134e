"""Why Ray lost a process: its errors in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import ray
import ray.util.client

from study import scratch
from study.errors import one_line

KILLED = (
    "its process was killed or crashed. It may have run out of memory: use fewer --workers, or search the system log "
    "for the cause"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_PROCESS = re.compile(r"\bpid[:=] ?(\d+)")
_ADDRESS = re.compile(r"\bip[:=] ?([\w.:]+)")


@dataclass(frozen=True)
class Loss:
    """Why a process of Ray was lost.

    Attributes:
        reason: the cause, in one line.
        host: the name of its machine, or "".
        text: Ray's whole text, as of a traceback.
        node: Ray's identifier of its node, or "".
        is_of_machine: whether the machine was preempted or has ended, so that the process is not at fault.
        process: the process and its logs, or "".
    """

    reason: str
    host: str
    text: str
    node: str = ""
    is_of_machine: bool = False
    process: str = ""

    @property
    def where(self) -> str:
        """The machine and the process, as far as they are known."""
        return ", ".join(filter(None, (self.host and f"on {self.host}", self.process)))

    def __str__(self) -> str:
        """Return the reason and where the process was."""
        return f"{self.reason.rstrip('.')} ({self.where})" if self.where else self.reason


def loss_of(error: BaseException) -> Loss:
    """Return why a process was lost, from what Ray raised or wrote."""
    cause = getattr(error, "cause", None)
    text = _COLOUR.sub("", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(cause, BaseException):
        reason = one_line(cause, named=True)
    elif "Worker exit detail: " in text:
        detail = text.partition("Worker exit detail: ")[2].partition(". Some common causes")[0].splitlines()[0]
        # Ray's words for a process that ended without any: "connection error code 2. End of file".
        reason = KILLED if "connection error code" in detail else detail
    else:  # after a traceback, the last line names the error
        reason = one_line(RuntimeError(lines[-1] if any(line.startswith("File ") for line in lines) else lines[0]))
    is_of_machine = bool(getattr(error, "preempted", False)) or "its node has died" in text
    process, address = _PROCESS.search(text), _ADDRESS.search(text)
    if process is None or address is None:
        return Loss(reason, "", text, is_of_machine=is_of_machine)
    node, host = _node(address[1])
    logs = _logs()
    files = f"; its logs: {logs}/*-{process[1]}.* there" if logs else ""
    return Loss(reason, host, text, node, is_of_machine, f"process {process[1]}{files}")


def _logs() -> str:
    """Return the folder of Ray's logs on each node; "" for a Ray of this process alone, which is removed at its end."""
    if ray.util.client.ray.is_connected():  # by ray://: the session is another machine's
        return "/tmp/ray/session_latest/logs"  # noqa: S108  Ray's default
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    return "" if (session / scratch.OWNER_FILE).exists() else str(session / "logs")


def _node(address: str) -> tuple[str, str]:
    """Return the identifier and the machine's name of the last node with an address; "" and the address if unknown."""
    try:
        nodes = [node for node in ray.nodes() if node["NodeManagerAddress"] == address]
    except Exception:  # noqa: BLE001  Ray has ended
        nodes = []
    nodes.sort(key=lambda node: bool(node["Alive"]))
    return (nodes[-1]["NodeID"], nodes[-1]["NodeManagerHostname"]) if nodes else ("", address)
