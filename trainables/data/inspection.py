"""The check of a data set's image files before anything is trained, and the files in which two states differ.

The results are cached in ``longtail-study/images`` below the user's cache folder (``XDG_CACHE_HOME``, by default
``~/.cache``). A result is valid while its file keeps its size and time. A record of all files is also kept by the
fingerprint of a folder: a plan holds only the fingerprint, and the two records name the files that have changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.errors import Away, Refusal
from trainables.data import decoding

SHOWN = 10  # files that a message names
KEPT = 8  # records by fingerprint that are kept of a folder


@dataclass(frozen=True)
class Record:
    """The files of a data set that can be decoded.

    Attributes:
        paths: their absolute paths, sorted: (N,) bytes.
        stamps: size in bytes and time in nanoseconds: (N, 2).
        digests: of the beginning of each file, see `decoding`: (N,).
        pixels: whether all pixels were decoded: (N,) bool.
    """

    paths: NDArray[np.bytes_]
    stamps: NDArray[np.int64]
    digests: NDArray[np.int64]
    pixels: NDArray[np.bool_]

    def find(self, paths: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the position of each path, and whether it is in the record."""
        if not len(self.paths):
            return np.zeros(len(paths), dtype=np.int64), np.zeros(len(paths), dtype=bool)
        at = np.minimum(np.searchsorted(self.paths, paths), len(self.paths) - 1)
        return at, self.paths[at] == paths


def check(base: Path, paths: NDArray[np.bytes_], pixels: bool = False, name: str = "") -> Record:
    """Check that files can be decoded, and return their record. Only files without a cached result are read.

    Args:
        base: the folder of the data set; a message names files relative to it.
        paths: the files, as absolute paths.
        pixels: decode all pixels; else only the headers.
        name: the name of the data set, if its folder has several.

    Raises:
        Refusal: if files cannot be decoded. The message names the first.
        Away: if a process that decodes has died.
    """
    paths = np.unique(paths)
    problems: dict[bytes, str] = {}
    stamps = np.asarray([_stamp(path, problems) for path in paths.tolist()], dtype=np.int64).reshape(-1, 2)
    file = _file(base / name)
    cached = _load(file)
    at, known = cached.find(paths)
    digests, decoded = np.zeros(len(paths), dtype=np.int64), np.zeros(len(paths), dtype=bool)
    known[known] = (cached.stamps[at[known]] == stamps[known]).all(axis=1)
    digests[known], decoded[known] = cached.digests[at[known]], cached.pixels[at[known]]
    readable = stamps[:, 0] > 0
    unknown = np.flatnonzero(readable & ~(known & (decoded | (not pixels))))
    try:
        results = decoding.examine(paths[unknown].tolist(), pixels)
    except ChildProcessError as error:
        raise Away(str(error)) from error
    for position, (digest, reason) in zip(unknown.tolist(), results, strict=True):
        digests[position], decoded[position] = digest, pixels
        if reason:
            problems[bytes(paths[position])] = reason
            readable[position] = False
    record = Record(paths[readable], stamps[readable], digests[readable], decoded[readable])
    if len(unknown) or not np.array_equal(record.paths, cached.paths):
        _save(file, record)
    if problems:
        raise _refusal(base, "image", problems)
    return record


def check_folders(base: Path, parts: Sequence[str]) -> None:
    """Check that every folder below parts of a data set can be read, and no link is broken: neither is an image less.

    Hidden files and folders are ignored. Broken links to images are left to `check`.

    Args:
        base: the folder of the data set.
        parts: the names of its parts; one that is missing is no matter here.

    Raises:
        Refusal: if a folder cannot be read. The message names the first.
    """
    problems: dict[bytes, str] = {}

    def note(error: OSError) -> None:
        if error.filename not in tops:
            problems[os.fsencode(error.filename)] = str(error.strerror).lower()

    tops = [os.path.join(base, part) for part in parts]
    for top in tops:
        for where, below, names in os.walk(top, followlinks=True, onerror=note):
            below[:] = [name for name in below if not name.startswith(".")]
            for name in names:
                path = os.path.join(where, name)
                if not name.startswith(".") and not Path(name).suffix and os.path.islink(path):
                    _stamp(os.fsencode(path), problems, is_image=False)
    if problems:
        raise _refusal(base, "folder", problems)


def keep(base: Path, fingerprint: str, record: Record) -> None:
    """Keep the record of a folder's files by its fingerprint, for `changes`."""
    path = _file(base, fingerprint)
    if path is None or path.exists():
        return
    _save(path, record)
    try:
        old = sorted(path.parent.glob(f"{path.name.partition('-')[0]}-*.npz"), key=lambda each: each.stat().st_mtime)
        for each in old[:-KEPT]:
            each.unlink()
    except OSError:
        pass  # another process removes them, too


def changes(base: Path, planned: str, current: str) -> str:
    """Return in words the files in which two states of a folder differ, by the fingerprints of these states.

    Without a record of one of them, the words name no files.
    """
    before, after = (_load(_file(base, fingerprint)) for fingerprint in (planned, current))
    if planned.partition("; ")[0] == current.partition("; ")[0]:
        return f"decoded by {current.partition('; ')[2]} instead of {planned.partition('; ')[2]}"
    if not len(before.paths) or not len(after.paths):
        return "its images have changed"
    at, known = before.find(after.paths)
    old, new = at[known], np.flatnonzero(known)
    resized = before.stamps[old, 0] != after.stamps[new, 0]
    differs = resized | (before.digests[old] != after.digests[new])
    if not differs.any() and len(old) == len(before.paths) == len(after.paths):
        differs = before.stamps[old, 1] != after.stamps[new, 1]  # a change behind the beginning that digests cover
    kinds = {
        "removed": np.delete(before.paths, old),
        "changed": after.paths[new[differs]],
        "added": after.paths[~known],
    }
    words, room = [], SHOWN
    for kind, paths in kinds.items():
        if len(paths) and room:
            words.append(f"{kind}: {', '.join(_name(base, path) for path in paths[:room].tolist())}")
            room -= min(room, len(paths))
    hidden = sum(map(len, kinds.values())) - SHOWN
    return "; ".join(words) + (f"; and {hidden} more" if hidden > 0 else "")


def _stamp(path: bytes, problems: dict[bytes, str], is_image: bool = True) -> tuple[int, int]:
    """Return a file's size and time, or add the reason why it is no image to `problems`."""
    try:
        status = os.stat(path)
    except OSError as error:
        problems[path] = str(error.strerror).lower()
        if isinstance(error, FileNotFoundError) and os.path.islink(path):
            problems[path] = f"broken link to '{os.fsdecode(os.readlink(path))}'"
        return 0, 0
    if is_image and not stat.S_ISREG(status.st_mode):
        problems[path] = "not a file"
        return 0, 0
    if is_image and status.st_size == 0:
        problems[path] = "empty file"
    return status.st_size, status.st_mtime_ns


def _refusal(base: Path, noun: str, problems: dict[bytes, str]) -> Refusal:
    paths = sorted(problems)
    named = [f"{_name(base, path)} ({problems[path]})" for path in paths[:SHOWN]]
    more = f"; and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    number = f"1 {noun}" if len(paths) == 1 else f"{len(paths)} {noun}s"
    words = f"{number} of '{base}' cannot be read: {'; '.join(named)}{more}"
    return Refusal(noun, str(base), words, "Replace or remove them" if len(paths) > 1 else "Replace or remove it")


def _name(base: Path, path: bytes) -> str:
    return os.fsdecode(path).removeprefix(f"{base}{os.sep}")


def _file(base: Path, fingerprint: str = "") -> Path | None:
    """Return the file of a data set's record, or of its record by fingerprint; None if there is no home folder."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    name = hashlib.sha256(os.fsencode(base)).hexdigest()[:20]
    if fingerprint:
        name += "-" + hashlib.sha256(fingerprint.encode()).hexdigest()[:20]
    return cache / "longtail-study" / "images" / f"{name}.npz"


def _load(path: Path | None) -> Record:
    """Return a record, empty if it is missing or damaged: then files are read again, or changes are not named."""
    try:
        if path is not None:
            with np.load(path) as entry:
                record = Record(*(entry[name] for name in Record.__dataclass_fields__))
                if len({len(record.paths), *(len(column) for column in asdict(record).values())}) == 1:
                    return record
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        pass
    empty = np.zeros(0, dtype=np.int64)
    return Record(np.zeros(0, dtype="S1"), np.zeros((0, 2), dtype=np.int64), empty, empty.astype(bool))


def _save(path: Path | None, record: Record) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **asdict(record))
        unfinished.replace(path)
    except OSError:
        pass  # without a cache the files are read again next time
