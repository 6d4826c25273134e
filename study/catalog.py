"""Where spaces are found: those shipped in `search_spaces`, by name; a user's own, by path."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from study.plan import Request, Space
from study.refusal import Refusal

SpaceFunction = Callable[[Request], Space]


def names() -> list[str]:
    """The shipped spaces."""
    package = importlib.import_module("search_spaces")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


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


def _module(reference: str, where: str) -> ModuleType:
    if where in names():
        return importlib.import_module(f"search_spaces.{where}")
    path = Path(where)
    if path.suffix != ".py" or not path.is_file():
        known = ", ".join(names())
        raise Refusal("space", reference, f"one of {known}, or the path of a Python file with a space, would do")
    spec = importlib.util.spec_from_file_location(f"study_space_{path.stem}", path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(
            "space", reference, f"its file could not be imported ({type(error).__name__}: {error})"
        ) from error
    return module
