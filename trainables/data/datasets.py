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
    """The names of our data sets, but for folders."""
    return tuple(name.replace("_", "-") for name in references.names(DATASET) if name != FOLDER)


def facts(name: str) -> Dataset:
    """A data set; a folder of images, ``folder:PATH``, is looked at.

    Raises:
        Refusal: if there is none of that name, or the folder is not as it should be.
    """
    if name.startswith(_FOLDER):
        return _folder(name)
    if name in (FOLDER, "") or not (name in names() or ":" in name or modules.is_file(name)):
        known = f"{', '.join(names())}, {_FOLDER}PATH, package.module:Name or ./file.py:Name"
        raise Refusal("dataset", name, f"must be {known}")
    return _found(modules.absolute(name))


@cache
def _found(name: str) -> Dataset:
    kind = references.find(DATASET, name)
    references.check_place(DATASET, kind, name)
    missing = [fact for fact in _DECLARED if not hasattr(kind, fact)]
    if missing:
        raise Refusal("dataset", name, f"must declare {', '.join(missing)}")
    try:
        found: Dataset = kind()
    except Refusal:
        raise
    except Exception as error:
        raise Refusal("dataset", name, f"it must be made without arguments, and raised {one_line(error)}") from error
    if not (is_whole(found.classes, 2) and is_whole(found.largest, 1)):
        raise Refusal("dataset", name, "must have whole numbers as classes, at least 2, and largest, at least 1")
    if not len(found.mean) == len(found.std) == found.channels:
        raise Refusal("dataset", name, f"must have a mean and a std for each of its {found.channels} channels")
    return found


@cache
def _folder(name: str) -> Dataset:
    from trainables.data.folder import Folder

    path = Path(name.removeprefix(_FOLDER))
    if not path.is_absolute():  # workers run elsewhere
        raise Refusal("dataset", name, f"must be an absolute path: {_FOLDER}{path.expanduser().absolute()}")
    return Folder(path)


def label(name: str) -> str:
    """What tables and Optuna call a data set: the short name, ``folder``, or the class of one of the user's own."""
    return (
        type(facts(name)).__name__ if name not in names() and not name.startswith(_FOLDER) else name.partition(":")[0]
    )
