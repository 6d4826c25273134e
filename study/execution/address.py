"""Whether the address of a Ray cluster can be used: found out before all else, and without importing Ray."""

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
    """Refuse the address of a Ray cluster that is malformed or does not answer; does not import Ray."""
    if address in ("", "local"):
        return
    if address == "auto":
        _check_auto(option)
        return
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[1]) < 1 << 16:
        raise Refusal(option, address, "auto, local, HOST:PORT or ray://HOST:PORT would do")
    parts = urlsplit("//" + address.removeprefix("ray://"))
    (reason,) = within([lambda: ask_port(parts.hostname or "", int(found[1]))])
    if reason:
        raise Refusal(option, address, f"a Ray cluster that answers within {SECONDS:g} s would do ({reason})")


def _check_auto(option: str) -> None:
    """What Ray does with ``auto``: the environment's address, else a node here, else the one that was last begun."""
    named = os.environ.get("RAY_ADDRESS", "")
    if named and named != "auto":
        check_address(named, "RAY_ADDRESS")
        return
    if any(b"raylet" in line.partition(b"\0")[0].rpartition(b"/")[2] for line in _command_lines()):
        return
    folder = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR")) or "/tmp"  # noqa: S108
    try:
        last = (Path(folder) / "ray" / "ray_current_cluster").read_text().strip()
    except (OSError, ValueError):
        last = ""
    if last and _ADDRESS.fullmatch(last):
        check_address(last, f"{option} auto")
    elif sys.platform == "linux":
        raise Refusal(option, "auto", "no Ray cluster runs on this machine: HOST:PORT, or `ray start --head`, would do")


def _command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:  # it has ended
            continue
    return lines
