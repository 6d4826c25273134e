"""The check of a Ray cluster's address. It runs before anything is stored, and does not import Ray here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from study.errors import Refusal, named_by
from study.services import SECONDS, ask_port, within

_ADDRESS = re.compile(r"(?:ray://)?(?:[\w.-]+|\[[\da-fA-F:.]+\]):(\d{1,5})", re.ASCII)

_OTHER_LINE = re.compile(r"[\[ ]|Traceback|\d{4}-\d\d-\d\d ")  # of Ray's logs, or of a traceback
RAY_SECONDS = 15.0  # for another process to import Ray and connect; Ray itself tries for 80 s
_token_wanted: set[str] = set()  # the addresses of clusters that asked for a token when they were last asked
CLIENT_ATTEMPTS = 3  # at ray://: the process that the head starts for a client dies now and then (Ray's issue 63202)
CLIENT_SECONDS = 45.0  # for ray://, where the head node starts a process for each client
_CONNECT = """
import json
import sys
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
try:
    address = canonicalize_bootstrap_address_or_die("auto") if sys.argv[1] == "auto" else sys.argv[1]
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    print(json.dumps(ray.cluster_resources()))
except Exception as error:
    sys.exit(str(error).strip().partition("\\n")[0] or type(error).__name__)
"""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster at an address, which is asked once what it has.

    Attributes:
        address: as `study.run` takes it; "" for a new Ray on this machine, of which nothing is asked.
    """

    address: str

    @cached_property
    def resources(self) -> Mapping[str, float]:
        """The resources of all of its nodes by their names, such as CPU and GPU.

        Raises:
            Refusal: if the address is malformed, if nothing answers, if this machine is no node of the cluster, if no
                Ray answers or if it refuses this user's token.
        """
        check_address(self.address)
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            connected: Mapping[str, float] = ray.cluster_resources()
            return connected
        return _resources(self.address) if self.address else {}

    def check(self) -> None:
        """Check that a driver on this machine can use the cluster. Raise the error of `resources`."""
        _ = self.resources


def _resources(address: str) -> Mapping[str, float]:
    """Return a cluster's resources.

    Another process connects to it, because Ray repeats its messages and may end the process that it fails in.
    """
    option = option_of(address)
    if "://" not in address and not has_node():
        words = f"{address!r} is a cluster without a node on this machine, and only a driver on a node can use it so"
        hint = "Run the command on one of its nodes, or give ray://HOST:10001, or use 'ray job submit'"
        raise Refusal(option, address, f"{option}: {words}", hint=hint)
    seconds = CLIENT_SECONDS if "://" in address else RAY_SECONDS
    _token_wanted.discard(address)
    answer = _ask(address, seconds)
    if isinstance(answer, list) and _asks_for_token(answer) and "RAY_AUTH_MODE" not in os.environ:
        answer = _ask(address, seconds, RAY_AUTH_MODE="token")
        if not isinstance(answer, list):
            _token_wanted.add(address)
    if not isinstance(answer, list):
        return answer
    if _asks_for_token(answer):
        hint = "Give its token in RAY_AUTH_TOKEN or in the file ~/.ray/auth_token"
        raise Refusal(option, address, "must be a Ray cluster that accepts your token", hint=hint)
    messages = [line for line in answer if line and not _OTHER_LINE.match(line)]
    reason = (
        f"Reason: {messages[-1]}"
        if messages
        else "Something accepts connections there, but it does not answer as Ray does"
    )
    raise Refusal(option, address, f"must be a Ray cluster that answers within {seconds:g} s", hint=reason)


def option_of(address: str) -> str:
    """Return what a refusal of the address names: Ray's variable that gave it, or the option."""
    return named_by("--address", "RAY_ADDRESS", address)


@contextmanager
def token_if_wanted(address: str) -> Iterator[None]:
    """Within this context, let Ray use a token if the cluster asked for one when `Cluster` asked it.

    Ray would otherwise use none, or use one that the cluster does not know: its workers would not reach the driver.
    """
    wants = address in _token_wanted and "RAY_AUTH_MODE" not in os.environ
    if wants:
        os.environ["RAY_AUTH_MODE"] = "token"
    try:
        yield
    finally:
        if wants:
            del os.environ["RAY_AUTH_MODE"]


def _ask(address: str, seconds: float, **variables: str) -> Mapping[str, float] | list[str]:
    """Return a cluster's resources, or the lines that say why another process cannot connect to it."""
    for _ in range(CLIENT_ATTEMPTS - 1):
        answer = _ask_once(address, seconds, **variables)
        if not (isinstance(answer, list) and is_lost_client("\n".join(answer))):
            return answer
    return _ask_once(address, seconds, **variables)


def is_lost_client(reason: str) -> bool:
    """Return whether the process that the head node had started for a ray:// client died at once."""
    return "Initialization failure from server" in reason


def _ask_once(address: str, seconds: float, **variables: str) -> Mapping[str, float] | list[str]:
    environment = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"} | os.environ | variables
    command = [sys.executable, "-P", "-c", _CONNECT, address]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as expired:
        return (expired.stderr or b"").decode(errors="replace").splitlines()
    if done.returncode:
        return done.stderr.decode(errors="replace").splitlines()
    resources: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return resources


def _asks_for_token(lines: Sequence[str]) -> bool:
    return any("Unauthenticated" in line or "uthentication token" in line for line in lines)


def check_address(address: str, option: str = "") -> None:
    """Check that the address of a Ray cluster is well-formed, and that something listens there.

    Args:
        address: the address.
        option: what a refusal names; by default the option or Ray's variable.

    Raises:
        Refusal: if it is malformed or nothing listens.
    """
    option = option or option_of(address)
    if not address:
        return
    if address == "auto":
        _check_auto(option)
        return
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[1]) < 1 << 16:
        raise Refusal(option, address, "must be auto, local, HOST:PORT or ray://HOST:PORT")
    parts = urlsplit("//" + address.removeprefix("ray://"))
    (reason,) = within([lambda: ask_port(parts.hostname or "", int(match[1]))])
    if reason:
        words = f"must belong to a Ray cluster that answers within {SECONDS:g} s"
        way_out = ". Unset it, or name another cluster by --address" if option == "RAY_ADDRESS" else ""
        raise Refusal(option, address, words, hint=f"Reason: {reason}{way_out}")


def _check_auto(option: str) -> None:
    """Check the cluster that Ray chooses for ``auto``.

    It is that of the environment variable, else that of a node on this machine, else the cluster that was last started.
    """
    from_environment = os.environ.get("RAY_ADDRESS", "")
    if from_environment and from_environment != "auto":
        check_address(from_environment, "RAY_ADDRESS")
        return
    if has_node():
        return
    folder = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR")) or "/tmp"  # noqa: S108
    try:
        last = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        last = ""
    if last and _ADDRESS.fullmatch(last):
        check_address(last, f"the last cluster's address ({option} auto)")
    else:
        words = f"{option} auto finds no Ray cluster on this machine"
        raise Refusal(option, "auto", words, hint="Start one with 'ray start --head', or give HOST:PORT")


def has_node() -> bool:
    """Return whether a node of some Ray cluster runs on this machine."""
    return sys.platform != "linux" or any(
        b"raylet" in line.partition(b"\0")[0].rpartition(b"/")[2] for line in _command_lines()
    )


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:  # the process has ended
            continue
    return lines
