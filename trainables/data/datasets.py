"""Data sets by reference: ``cifar10``, ``folder:PATH``, ``package.module:Name``, ``./file.py:Name``. Pure: no torch."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np

from study import modules
from study.errors import Refusal, one_line
from trainables import references
from trainables.data import inspection
from trainables.data.facts import Dataset
from trainables.data.kinds import Files
from trainables.parameters import is_whole
from trainables.references import Kind

DATASET = Kind("dataset", "data", Dataset)

FOLDER = "folder"
_DECLARED = ("classes", "largest", "channels", "side", "mean", "std", "fingerprint")
_FOLDER = f"{FOLDER}:"


def names() -> tuple[str, ...]:
    """Return the names of the built-in data sets, except folders."""
    return tuple(name.replace("_", "-") for name in references.names(DATASET) if name != FOLDER)


def facts(name: str) -> Dataset:
    """Return a data set by reference; the files of ``folder:PATH`` are listed, and their headers are decoded.

    Raises:
        Refusal: if there is no such data set, the folder has another structure, or its files cannot be decoded.
    """
    if name.startswith(_FOLDER):
        return _folder(name)
    if name in (FOLDER, "") or not (name in names() or ":" in name or modules.is_file(name)):
        known = f"{', '.join(names())}, {_FOLDER}PATH, package.module:Name or ./file.py:Name"
        raise Refusal("dataset", name, f"must be {known}")
    return _instance(modules.absolute(name))


@cache
def _instance(name: str) -> Dataset:
    kind = references.find(DATASET, name)
    references.check_place(DATASET, kind, name)
    missing = [fact for fact in _DECLARED if not hasattr(kind, fact)]
    if missing:
        raise Refusal("dataset", name, f"must declare the attributes {', '.join(missing)}")
    try:
        dataset: Dataset = kind()
    except Refusal:
        raise
    except Exception as error:
        words = f"data set '{name}' cannot be constructed without arguments: {one_line(error)}"
        raise Refusal("dataset", name, words) from error
    if not (is_whole(dataset.classes, 2) and is_whole(dataset.largest, 1)):
        raise Refusal("dataset", name, "must have a whole number classes ≥ 2 and a whole number largest ≥ 1")
    if not len(dataset.mean) == len(dataset.std) == dataset.channels:
        hint = f"It has {dataset.channels} channels"
        raise Refusal("dataset", name, "must have one value of mean and of std per channel", hint)
    return dataset


@cache
def _folder(name: str) -> Dataset:
    from trainables.data.folder import Folder, look

    path = Path(name.removeprefix(_FOLDER))
    if not path.is_absolute():  # workers run elsewhere
        hint = f"Use '{_FOLDER}{os.path.abspath(os.path.expanduser(path))}'"
        raise Refusal("dataset", name, "must be an absolute path", hint)
    try:
        inspection.check_folders(path, ("train", "test"))
        listing = look(path)
        record = inspection.check(path, np.concatenate((listing.train, listing.test)))
        folder = Folder(path)
    except OSError as error:  # a file that was removed meanwhile
        raise Refusal("dataset", name, f"data set {name!r} cannot be read ({one_line(error)})") from error
    inspection.keep(path, folder.fingerprint, record)
    return folder


def prepare(name: str, root: Path, download: bool) -> None:
    """Check that a data set is complete on disk, and that the headers of image files can be decoded.

    Args:
        name: its reference.
        root: the data folder.
        download: fetch a data set that is missing.

    Raises:
        Refusal: if not, or if a folder has changed since this process planned with it.
    """
    dataset = facts(name)
    _folder.cache_clear()  # a notebook's process may have looked at it long ago
    fingerprint = facts(name).fingerprint
    if fingerprint != dataset.fingerprint:
        words = f"data set {name!r} has changed while the run was planned ({changes(name, dataset.fingerprint)})"
        raise Refusal("dataset", name, words, "Give the same command again")
    dataset.prepare(root, download)
    if not name.startswith(_FOLDER):
        verify(name, root, pixels=False)


def verify(name: str, root: Path, pixels: bool = True) -> None:
    """Check that all image files of a data set can be decoded completely; others are checked when they are read.

    Raises:
        Refusal: if not. The message names the first.
    """
    dataset = facts(name)
    if isinstance(dataset, Files):
        listing = dataset.listing(root)
        paths = np.concatenate((listing.train, listing.test))
        if name.startswith(_FOLDER):
            inspection.check(Path(name.removeprefix(_FOLDER)), paths, pixels)
        else:
            inspection.check(root, paths, pixels, name)


def changes(name: str, planned: str) -> str:
    """Return in words how a folder differs from that of a plan, by the plan's fingerprint; "" for other data sets."""
    if not name.startswith(_FOLDER):
        return ""
    return inspection.changes(Path(name.removeprefix(_FOLDER)), planned, facts(name).fingerprint)


def label(name: str) -> str:
    """Return a data set's name in tables and Optuna: the short name, ``folder``, or the name of the user's class."""
    return (
        type(facts(name)).__name__ if name not in names() and not name.startswith(_FOLDER) else name.partition(":")[0]
    )
