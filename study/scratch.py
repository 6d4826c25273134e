"""Temporary folders, which the next start removes if the process that made them was killed."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

PREFIX = "study-"
_lasting: list[TemporaryDirectory[str]] = []
OWNER_FILE = "study-owner"  # in a temporary folder: its process, when that began, and the machine


@contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty temporary folder, and remove it at the end."""
    with TemporaryDirectory(prefix=PREFIX) as marked:
        mark(Path(marked))
        inside = Path(marked, "files")
        inside.mkdir()
        yield inside


def lasting() -> Path:
    """Return a temporary folder that lasts until this process ends; always the same one."""
    if not _lasting or not Path(_lasting[-1].name).is_dir():  # a cleaner of temporary files may have removed it
        temporary = TemporaryDirectory(prefix=PREFIX)
        mark(Path(temporary.name))
        _lasting.append(temporary)
    return Path(_lasting[-1].name)


def end() -> None:
    """Remove the lasting folder, if there is one. Python does it at the end of a process, but not with `os._exit`."""
    while _lasting:
        _lasting.pop().cleanup()


def mark(marked: Path) -> None:
    """Note in a folder that it belongs to this process."""
    import psutil  # here, because most commands need no such folder

    process = psutil.Process()
    (marked / OWNER_FILE).write_text(f"{process.pid} {process.create_time()} {platform.node()}")


def remove_of_dead_processes(parent: Path | None = None, names: str = f"{PREFIX}*") -> None:
    """Remove folders that a `kill -9` of their process has left.

    Only folders with an `OWNER_FILE` of this user on this machine are removed, once the process has ended and no other
    process names the folder in its command line: Ray outlives its driver for a moment.

    Args:
        parent: the folder that holds them, by default that for temporary files.
        names: a pattern of their names.
    """
    for note in (parent or Path(gettempdir())).glob(f"{names}/{OWNER_FILE}"):
        try:
            pid, began, host = note.read_text().split()
            is_ours = note.stat().st_uid == os.getuid() and host == platform.node()  # the parent may be shared
            if is_ours and not _is_same_process(int(pid), float(began)) and not _is_in_use(note.parent):
                shutil.rmtree(note.parent, ignore_errors=True)
        except (OSError, ValueError):  # another process removes it, or is just writing the file
            continue


def _is_same_process(pid: int, began: float) -> bool:
    import psutil

    try:
        return bool(abs(psutil.Process(pid).create_time() - began) < 1.0)
    except psutil.NoSuchProcess:
        return False


def _is_in_use(marked: Path) -> bool:
    import psutil

    lines = (process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"]))
    return any(marked.name in word for line in lines for word in line)
