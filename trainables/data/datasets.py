"""Data sets by reference: ``cifar10``, ``folder:PATH``, ``package.module:Name``, ``./file.py:Name``. Pure: no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from study import modules
from study.errors import Refusal, one_line
from trainables import references
from trainables.data.facts import Dataset
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
    """Return a data set by reference; the files of ``folder:PATH`` are listed.

    Raises:
        Refusal: if there is no such data set, or the folder has another structure.
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
    from trainables.data.folder import Folder

    path = Path(name.removeprefix(_FOLDER))
    if not path.is_absolute():  # workers run elsewhere
        hint = f"Use '{_FOLDER}{path.expanduser().absolute()}'"
        raise Refusal("dataset", name, "must be an absolute path", hint)
    return Folder(path)


def label(name: str) -> str:
    """Return a data set's name in tables and Optuna: the short name, ``folder``, or the name of the user's class."""
    return (
        type(facts(name)).__name__ if name not in names() and not name.startswith(_FOLDER) else name.partition(":")[0]
    )
