"""Where spaces are found: those shipped in `search_spaces`, by name; a user's own, by path."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from study.errors import Refusal, StudyError, one_line
from study.space import Request, Space

SpaceFunction = Callable[[Request], Space]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def names() -> list[str]:
    """The shipped spaces: table2 before table10."""
    package = importlib.import_module("search_spaces")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(found, key=lambda name: [part.zfill(3) for part in re.split(r"(\d+)", name)])


def find(reference: str) -> tuple[SpaceFunction, Path]:
    """The function behind a reference, and its file.

    Args:
        reference: a shipped space's name, or the path of a Python file; ``:function`` may follow (default: space).

    Raises:
        Refusal: if there is no such space, or its file cannot be imported.
    """
    where, _, function = reference.partition(":")
    module = _module(reference, where)
    found = getattr(module, function or "space", None)
    if not callable(found):
        raise Refusal("space", reference, f"a function `{function or 'space'}(request)` in {where} would do")
    return found, Path(str(module.__file__))


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
        raise Refusal("space", reference, f"its function raised {said(error, file)}") from error
    if not isinstance(space, Space):
        raise Refusal("space", reference, f"a function that returns a Space would do, not {type(space).__name__}")
    if not isinstance(space.name, str) or not _NAME.fullmatch(space.name):
        remedy = "1 to 64 letters, digits, dots, dashes and underscores would do, a letter or digit first"
        raise Refusal(f"space {reference}: name", space.name, remedy)
    return space


def said(error: BaseException, file: str) -> str:
    """An error with the last line of the user's file that it passed; a syntax error's text has its own."""
    said = one_line(error, named=True)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return said if isinstance(error, SyntaxError) or not lines else f"{said} ({Path(file).name}, line {lines[-1]})"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False


def _module(reference: str, where: str) -> ModuleType:
    if where in names():
        return importlib.import_module(f"search_spaces.{where}")
    path = Path(where)
    if path.suffix == ".py" and not _is_file(path):
        remedy = f"there is no such file as {path.absolute()}: the path of a Python file with a space would do"
        raise Refusal("space", reference, remedy)
    if path.suffix != ".py":
        known = ", ".join(names())
        raise Refusal("space", reference, f"one of {known}, or the path of a Python file with a space, would do")
    spec = importlib.util.spec_from_file_location(f"study_space_{path.stem}", path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(spec.name, None)
        if isinstance(error, Refusal) or not isinstance(error, Exception | SystemExit):
            raise
        raise Refusal(
            "space", reference, f"its file could not be imported: {said(error, str(path.absolute()))}"
        ) from error
    return module
