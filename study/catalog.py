"""Spaces by reference: an installed space by its name, a user's own by the path or the name of a module."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from study import modules
from study.errors import Refusal, StudyError, one_line
from study.space import Option, Request, Space, Value

SpaceFunction = Callable[[Request], Space]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def names() -> list[str]:
    """Return the names of the spaces which packages declare as entry points ``study.spaces``, b2 before b10."""
    return sorted(_installed(), key=lambda name: [part.zfill(3) for part in re.split(r"(\d+)", name)])


@cache
def _installed() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="study.spaces")}


@cache
def options() -> Mapping[str, Option]:
    """Return the options that installed packages declare by entry points of the group ``study.options``, by name.

    Raises:
        Refusal: if one cannot be imported, or two have the same name.
    """
    options: dict[str, Option] = {}
    for point in entry_points(group="study.options"):
        try:
            declared = list(point.load())
        except Exception as error:
            words = f"the options {point.value!r} of an installed package cannot be imported: "
            raise Refusal("study.options", point.value, words + one_line(error, named=True)) from error
        for option in declared:
            if option.name in options:
                words = f"two installed packages declare --{option.name}; one is {point.value!r}. Uninstall one"
                raise Refusal("study.options", point.value, words)
            options[option.name] = option
    return options


def typed(name: str, value: Value) -> tuple[str, str]:
    """Return an option of spaces as the user gave it: ``--NAME`` or ``-o NAME``, and its value in words."""
    words = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return (f"--{name}" if name in options() else f"-o {name}"), words


def find(reference: str) -> tuple[SpaceFunction, Path]:
    """Return the function that a reference names, and its file.

    Args:
        reference: an installed space's name, the path of a Python file, or the name of a module; ``:function`` may
            follow (default: space).

    Raises:
        Refusal: if there is no such space, or its file cannot be imported.
    """
    where, _, function = reference.partition(":")
    module = _module(reference, where)
    point = _installed().get(where)
    function = function or (point.attr if point is not None else "") or "space"
    candidate = getattr(module, function, None)
    if not callable(candidate):
        raise Refusal("space", reference, f"must be a file or module with a function {function}(request)")
    return candidate, Path(str(module.__file__))


def view(reference: str) -> tuple[Callable[[Any], Any] | None, Path]:
    """Return the function ``view(results)`` in the file of a space's function, or None; and that file.

    Raises:
        Refusal: see `find`.
    """
    module = _module(reference, reference.partition(":")[0])
    return getattr(module, "view", None), Path(str(module.__file__))


def call(function: SpaceFunction, reference: str, request: Request) -> Space:
    """Return the space that a function makes from a request.

    Raises:
        Refusal: if the function raises or does not return a Space, or if the Space's name cannot be a folder's name.
    """
    try:
        space: object = function(request)
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        words = f"the function of space {reference!r} raised {modules.said(error)}"
        raise Refusal("space", reference, words) from error
    if not isinstance(space, Space):
        words = f"the function of space {reference!r} must return a Space, but returned {type(space).__name__}"
        raise Refusal("space", reference, words)
    if not isinstance(space.name, str) or not _NAME.fullmatch(space.name):
        words = "must be 1 to 64 letters, digits, dots, dashes and underscores, with a letter or digit first"
        raise Refusal(f"the name of space {reference}", space.name, words)
    return space


def _module(reference: str, where: str) -> ModuleType:
    if where in _installed():
        return modules.find(_installed()[where].module, "space", reference, installed=True)
    if not modules.held(where) and not modules.is_file(where) and not modules.is_dotted(where):
        raise _unknown(reference, where)
    return modules.find(where, "space", reference)


def _unknown(reference: str, where: str) -> Refusal:
    if os.sep in where or Path(where).suffix:
        words = "must be the path of a Python file, FILE.py, or the dotted name of a module that Python finds"
        return Refusal("space", reference, words, hint="It is a folder" if _is_folder(Path(where)) else "")
    close = difflib.get_close_matches(where, names(), 1)
    ways = "a space is a name, the path of a Python file, or the dotted name of a module"
    hint = f"Did you mean {close[0]!r}? 'study list' shows all" if close else f"'study list' shows all; {ways}"
    return Refusal("space", reference, f"unknown space {reference!r}. {hint}")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long
        return False
