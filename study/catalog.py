"""Where spaces are found: installed ones, by name; a user's own, by path or by the name of a module."""

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
    """The spaces that installed packages declare by entry points of the group ``study.spaces``; b2 before b10."""
    return sorted(_installed(), key=lambda name: [part.zfill(3) for part in re.split(r"(\d+)", name)])


@cache
def _installed() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="study.spaces")}


@cache
def options() -> Mapping[str, Option]:
    """The options that installed packages declare by entry points of the group ``study.options``, by name.

    Raises:
        Refusal: if one cannot be imported, or two have the same name.
    """
    found: dict[str, Option] = {}
    for point in entry_points(group="study.options"):
        try:
            declared = list(point.load())
        except Exception as error:
            raise Refusal(
                "study.options", point.value, f"it cannot be imported: {one_line(error, named=True)}"
            ) from error
        for option in declared:
            if option.name in found:
                raise Refusal("study.options", point.value, f"--{option.name} is declared by another package, too")
            found[option.name] = option
    return found


def typed(name: str, value: Value) -> tuple[str, str]:
    """An option of spaces as the user gave it: ``--NAME`` or ``-o NAME``, and its value in words."""
    words = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return (f"--{name}" if name in options() else f"-o {name}"), words


def find(reference: str) -> tuple[SpaceFunction, Path]:
    """The function behind a reference, and its file.

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
    found = getattr(module, function, None)
    if not callable(found):
        raise Refusal("space", reference, f"must be a file or module with a function `{function}(request)`")
    return found, Path(str(module.__file__))


def view(reference: str) -> tuple[Callable[[Any], Any] | None, Path]:
    """The function ``view(results)`` of the file that a space's function is in, if it has one; and that file.

    Raises:
        Refusal: as `find` does.
    """
    module = _module(reference, reference.partition(":")[0])
    return getattr(module, "view", None), Path(str(module.__file__))


def call(function: SpaceFunction, reference: str, request: Request) -> Space:
    """The space that a function makes of a request.

    Raises:
        Refusal: if it raises, returns no Space, or gives it a name that could not be a folder's.
    """
    try:
        space: object = function(request)
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        file = getattr(getattr(function, "__code__", None), "co_filename", "")
        raise Refusal("space", reference, f"its function raised {modules.said(error, file)}") from error
    if not isinstance(space, Space):
        raise Refusal("space", reference, f"a function that returns a Space would do, not {type(space).__name__}")
    if not isinstance(space.name, str) or not _NAME.fullmatch(space.name):
        remedy = "1 to 64 letters, digits, dots, dashes and underscores would do, a letter or digit first"
        raise Refusal(f"space {reference}: name", space.name, remedy)
    return space


def _module(reference: str, where: str) -> ModuleType:
    if where in _installed():
        return modules.find(_installed()[where].module, "space", reference, installed=True)
    if not modules.held(where) and not modules.is_file(where) and not modules.is_dotted(where):
        raise _unknown(reference, where)
    return modules.find(where, "space", reference)


def _unknown(reference: str, where: str) -> Refusal:
    if os.sep in where or Path(where).suffix:
        what = " (is a folder)" if _is_folder(Path(where)) else ""
        remedy = "must be the path of a Python file, FILE.py, or the dotted name of a module that Python finds"
        return Refusal("space", reference, f"{remedy}{what}")
    close = difflib.get_close_matches(where, names(), 1)
    ways = "the path of a Python file, or the dotted name of a module"
    meant = f" (did you mean {close[0]}?)" if close else ""
    return Refusal(
        "space", reference, f"must be one of {', '.join(names()) or 'none that is installed'}, {ways}{meant}"
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # its name is too long
        return False
