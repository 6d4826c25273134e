"""Python modules by reference: a module of an installed package, a file, or a source that a plan holds."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import linecache
import re
import sys
import sysconfig
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType

from study import scratch
from study.errors import Refusal, StudyError, one_line

PROJECT = "longtail-study"  # the name of our distribution
BY_PATH = "study_file_"  # the modules of files that are no part of a package begin with this
BY_TEXT = "study_text_"  # and so do those of sources that a plan holds
_OURS = Path(__file__).parent  # the folder of this package
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_shipped: set[str] = set()  # the modules that workers need, by their names
_paths: dict[str, Path] = {}  # of the modules of files, as the user named them
_contents: dict[Path, bytes] = {}  # of these files, when they were found last
_held: dict[str, str] = {}  # sources that plans hold: by the names of their modules, or by the paths of files


def is_file(where: str) -> bool:
    """Return whether a reference's first part is the path of a Python file."""
    return where.endswith(".py")


def is_dotted(where: str) -> bool:
    """Return whether a reference's first part is the dotted name of a module."""
    return _DOTTED.fullmatch(where) is not None


def is_text(where: str) -> bool:
    """Return whether a reference's first part is the name that `hold` gave to a source."""
    return where.startswith(BY_TEXT)


def hold(text: str) -> str:
    """Register a source, and return the name by which `find` finds its module in this process."""
    name = f"{BY_TEXT}{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    _held[name] = text
    return name


def hold_all(sources: Mapping[str, str]) -> None:
    """Register the sources that a plan holds. Those of files are used where there is no such file."""
    _held.update(sources)


def held(where: str) -> str:
    """Return the registered source of the module that a reference's first part names; "" if there is none."""
    return _held.get(where, "")


def files() -> dict[str, str]:
    """Return the sources of the files that this process has executed, by path, except files that are not in UTF-8."""
    sources = {}
    for path, content in _contents.items():
        with suppress(UnicodeDecodeError):
            sources[str(path)] = content.decode()
    return sources


def is_here(where: str) -> bool:
    """Return whether this machine has the file of a reference."""
    return _exists(Path(where).absolute())


def defines(text: str, name: str) -> bool:
    """Return whether a source may define a name. The source is not executed."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:  # of another version of Python
        return True
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return bool(names & {name, "*"})


def absolute(reference: str) -> str:
    """Return the reference with the absolute path of its file, so that it is found from any folder."""
    where, colon, name = reference.partition(":")
    return (str(Path(where).absolute()) if is_file(where) else where) + colon + name


def find(where: str, field: str, reference: str, installed: bool = False, ships: bool = False) -> ModuleType:
    """Return the module that a user names. A file is executed once per process, and again if its content has changed.

    Args:
        where: the path of a Python file, or the name of a module, dotted unless `installed`.
        field, reference: the field and the value that a refusal names.
        installed: whether an installed package has declared it.
        ships: whether workers need it; see `to_ship`.

    Raises:
        Refusal: if there is no such file or module, or it cannot be imported.
    """
    if is_text(where) and where in _held:
        return _executed_text(where, field, reference)
    if not is_file(where) and not is_dotted(where) and not installed:
        raise Refusal(field, reference, "must be the path of a Python file, FILE.py, or the dotted name of a module")
    path = Path(where).absolute()
    if is_file(where) and not _exists(_here(path)):
        raise Refusal(field, reference, "must be the path of a Python file", hint=f"There is no file {path}")
    try:
        module = _executed(path) if is_file(where) else importlib.import_module(where)
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and not is_file(where) and f"{where}.".startswith(f"{error.name}."):
            words, hint = "must be the dotted name of a module that Python finds", f"There is no module {error.name}"
            raise Refusal(field, reference, words, hint) from error
        words = f"{field} {reference!r} cannot be imported: {said(error, str(path))}"
        raise Refusal(field, reference, words) from error
    if ships:
        _shipped.add(module.__name__)
    return module


def reference_of(kind: type) -> str:
    """Return a reference that finds a class in all processes: ``/path/file.py:Name`` or ``package.module:Name``."""
    name = kind.__module__
    _shipped.add(name)
    return f"{_paths.get(name, name)}:{kind.__qualname__}"


def folder_of(kind: type) -> Path:
    """Return the folder of the file that defines a class: where the user named it, not where it was brought to."""
    module = kind.__module__
    return _paths.get(module, Path(str(sys.modules[module].__file__))).parent


def to_ship(folder: Path, packages: Collection[str] = (), distribution: str = "") -> list[str]:
    """Return the files and packages that workers need, except installed ones: for Ray's runtime environment.

    Args:
        folder: the folder for copies of files. They get unique names, because a ``queue.py`` would shadow Python's.
        packages: packages that workers get even if they are installed here.
        distribution: likewise a whole distribution: the packages of its entry points, and their declarations.
    """
    paths = set[Path]()
    with suppress(metadata.PackageNotFoundError):  # it is no installed distribution, but in a folder of Python's path
        declared = metadata.distribution(distribution or "none")
        packages = {*packages, *(point.module.partition(".")[0] for point in declared.entry_points)}
        paths |= {Path(str(file.locate())).parent for file in declared.files or () if file.name == "METADATA"}
    for name in packages:
        paths |= {Path(each).resolve() for each in getattr(importlib.import_module(name), "__path__", ())}
    for name in _shipped:
        if name in _paths:
            copy = folder / _brought(_paths[name])
            copy.write_bytes(_contents[_paths[name]])
            paths.add(copy)
            continue
        for each in getattr(sys.modules.get(name.partition(".")[0]), "__path__", ()):
            path = Path(each).resolve()
            ours = path.parent == Path(__file__).resolve().parents[1]
            if not ours and not is_installed(path):
                paths.add(path)
    return sorted(map(str, paths))


def is_installed(path: Path) -> bool:
    """Return whether a resolved path is that of a package which was installed, or a part of Python.

    A virtual environment may also use the packages of the system or of another environment.
    """
    installed = [Path(sysconfig.get_path(scheme)).resolve() for scheme in ("purelib", "platlib", "stdlib")]
    return any(map(path.is_relative_to, installed)) or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def said(error: BaseException, file: str = "") -> str:
    """Return an error in words, with the last line of the user's file in its traceback.

    Args:
        error: the exception.
        file: the user's file; "" for the first file in the traceback that is not of this package.
    """
    words = one_line(error, named=True, whole=True)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = (frame.filename for frame in frames if not Path(frame.filename).is_relative_to(_OURS))
    file = file or next(theirs, "")
    lines = [frame.lineno for frame in frames if frame.filename == file]
    has_line = isinstance(error, SyntaxError)  # in its own text
    return words if has_line or not lines else f"{words} ({Path(file).name}, line {lines[-1]})"


def line_of(error: BaseException) -> str:
    """Return the last line of a user's file in an error's traceback, such as `` (mine.py, line 3)``, or ""."""
    specs = {path: getattr(sys.modules.get(name), "__spec__", None) for name, path in _paths.items()}
    files = {str(spec.origin): path for path, spec in specs.items() if spec is not None}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f" ({files[lines[-1].filename].name}, line {lines[-1].lineno})" if lines else ""


def _here(path: Path) -> Path:
    """Return the path here of a file that was named on another machine.

    That is the copy that Ray brought, or the same path, or a new file with the source that a plan holds.
    """
    folders = (Path(folder) for folder in sys.path if "py_modules_files" in Path(folder).parts)
    name = _brought(path)
    brought = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if brought is not None or _exists(path) or str(path) not in _held:
        return brought or path
    content = _held[str(path)].encode()
    copy = scratch.lasting() / _called(path, str(path).encode() + b"\0" + content) / path.name
    if not copy.exists():
        copy.parent.mkdir()
        copy.write_bytes(content)
    return copy


def _brought(path: Path) -> str:
    """Return the name of a file's copy that Ray brings to workers."""
    return f"{_called(path, str(path).encode())}.py"


def _called(path: Path, told: bytes) -> str:
    return BY_PATH + re.sub(r"\W", "_", path.stem) + f"_{hashlib.sha256(told).hexdigest()[:8]}"


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False


def _executed_text(name: str, field: str, reference: str) -> ModuleType:
    """Return the module of a registered source."""
    if name not in sys.modules:
        text, module = _held[name], ModuleType(name)
        module.__file__ = file = f"<{name}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # for tracebacks
        try:
            exec(compile(text, file, "exec", dont_inherit=True), vars(module))  # noqa: S102
        except Exception as error:
            words = f"the source of {reference!r} cannot be executed: {one_line(error, named=True)}"
            raise Refusal(field, reference, words) from error
        sys.modules[name] = module
    return sys.modules[name]


def _executed(path: Path) -> ModuleType:
    """Return the module of a file that is not part of a package."""
    here = _here(path)
    content = here.read_bytes()
    name = _called(path, str(path).encode() + b"\0" + content)
    _contents[path] = content
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, here)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not by the loader: its cache of compiled files misses an edit within the same second.
        exec(compile(content, str(here), "exec", dont_inherit=True), vars(module))  # noqa: S102
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _paths[name] = path
    return module
