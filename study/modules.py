"""Python modules by reference: of an installed package, or of a file that is part of none."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType

from study.errors import Refusal, StudyError, one_line

BY_PATH = "study_file_"  # the modules of files that are no part of a package are called so
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_named: set[str] = set()  # the modules that a user has named, by their names


def is_file(where: str) -> bool:
    """Whether a reference's first part is the path of a Python file."""
    return where.endswith(".py")


def is_dotted(where: str) -> bool:
    """Whether a reference's first part is the dotted name of a module."""
    return _DOTTED.fullmatch(where) is not None


def absolute(reference: str) -> str:
    """The reference as it is found from any folder: with the whole path of a file."""
    where, colon, name = reference.partition(":")
    return (str(Path(where).absolute()) if is_file(where) else where) + colon + name


def find(where: str, field: str, reference: str, installed: bool = False) -> ModuleType:
    """The module that a user names. A file is executed once a process, and again if its content has changed.

    Args:
        where: the path of a Python file, or the name of a module, dotted unless `installed`.
        field, reference: what the refusal calls it.
        installed: whether an installed package has declared it: then workers have it, too.

    Raises:
        Refusal: if there is no such file or module, or it cannot be imported.
    """
    if not is_file(where) and not is_dotted(where) and not installed:
        raise Refusal(field, reference, "must be the path of a Python file, or the dotted name of a module")
    path = _here(Path(where).absolute())
    if is_file(where) and not _exists(path):
        raise Refusal(field, reference, f"must be the path of a Python file: there is none at {path}")
    try:
        module = _executed(path) if is_file(where) else importlib.import_module(where)
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{where}.".startswith(f"{error.name}."):
            remedy = f"must be the dotted name of a module that Python finds (there is no module {error.name})"
            raise Refusal(field, reference, remedy) from error
        raise Refusal(field, reference, f"its file could not be imported: {said(error, str(path))}") from error
    if not installed:
        _named.add(module.__name__)
    return module


def reference_of(kind: type) -> str:
    """The reference by which a class is found again: ``/path/file.py:Name`` or ``package.module:Name``."""
    module = sys.modules[kind.__module__]
    where = str(module.__file__) if module.__name__.startswith(BY_PATH) else module.__name__
    return f"{where}:{kind.__qualname__}"


def to_ship() -> list[str]:
    """The files and packages of the modules that were named, but for those that are installed: for Ray's workers.

    Raises:
        Refusal: for two of one name: workers find them by it.
    """
    installed = [Path(sysconfig.get_path(scheme)).resolve() for scheme in ("purelib", "platlib", "stdlib")]
    paths: dict[str, Path] = {}
    for name in _named:
        module = sys.modules.get(name if name.startswith(BY_PATH) else name.partition(".")[0])
        file = getattr(module, "__file__", None)
        if module is None or file is None:
            continue
        path = Path(file).resolve()
        path = path.parent if path.name == "__init__.py" else path
        if any(path.is_relative_to(folder) for folder in installed):
            continue
        other = paths.setdefault(path.name, path)
        if other != path:
            raise Refusal("module", str(path), f"must have another name: {other} has it, and workers find them by name")
    return sorted(map(str, paths.values()))


def said(error: BaseException, file: str) -> str:
    """An error with the last line of the user's file that it passed; a syntax error's text has its own."""
    said = one_line(error, named=True, whole=True)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return said if isinstance(error, SyntaxError) or not lines else f"{said} ({Path(file).name}, line {lines[-1]})"


def _here(path: Path) -> Path:
    """Where a file that was named on another machine is on this one: what Ray brought, or else the same path."""
    folders = (Path(folder) for folder in sys.path if "py_modules_files" in Path(folder).parts)
    return next((folder / path.name for folder in folders if (folder / path.name).is_file()), path)


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False


def _executed(path: Path) -> ModuleType:
    """The module of a file that is no part of a package."""
    digest = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:8]
    name = BY_PATH + re.sub(r"\W", "_", path.stem) + f"_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
