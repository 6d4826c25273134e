"""The check of a Ray cluster's address. It runs before anything else, and does not import Ray."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from study.errors import Refusal
from study.services import SECONDS, ask_port, within

_ADDRESS = re.compile(r"(?:ray://)?(?:[\w.-]+|\[[\da-fA-F:.]+\]):(\d{1,5})", re.ASCII)


def check_address(address: str, option: str = "--address") -> None:
    """Check that the address of a Ray cluster is well-formed and answers.

    Raises:
        Refusal: if it is malformed or does not answer.
    """
    if address in ("", "local"):
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
        raise Refusal(option, address, words, hint=f"Reason: {reason}")


def _check_auto(option: str) -> None:
    """Check the cluster that Ray chooses for ``auto``.

    It is that of the environment variable, else that of a node on this machine, else the cluster that was last started.
    """
    from_environment = os.environ.get("RAY_ADDRESS", "")
    if from_environment and from_environment != "auto":
        check_address(from_environment, "RAY_ADDRESS")
        return
    if any(b"raylet" in line.partition(b"\0")[0].rpartition(b"/")[2] for line in _command_lines()):
        return
    folder = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR")) or "/tmp"  # noqa: S108
    try:
        last = (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        last = ""
    if last and _ADDRESS.fullmatch(last):
        check_address(last, f"the last cluster's address ({option} auto)")
    elif sys.platform == "linux":
        words = f"{option} auto finds no Ray cluster on this machine"
        raise Refusal(option, "auto", words, hint="Start one with 'ray start --head', or give HOST:PORT")


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:  # the process has ended
            continue
    return lines
