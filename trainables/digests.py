"""The digest of the code that a function or a class reaches, which a state's name holds. Pure: no torch.

What is reached are top-level definitions: those that its own code names, and so on, through the modules of `trainables`
and of the package or file that it is in. Each is taken as a syntax tree without docstrings, comments, annotations of
functions, and lines that declare parameters (`trainables.parameters`), whose values are in the name by themselves. So a
name changes with what is executed: not with a definition that nothing reaches, nor with the file that one is in. Of
other packages the imports count, and the version, but of those that every origin holds (`recipe.settled`).

What code reaches by a name in a string it does not reach here: a part that an instruction names is in the instruction.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

_OWN = "trainables"
_SETTLED = {_OWN, "study", "torch", "torchvision", "numpy"}  # whose versions, if any, an origin holds
_PARAMETERS = "trainables.parameters"
# What finds parts, checks values and makes digests: of what it finds, the values and the code are in the name.
_BOUNDARY = {_PARAMETERS, "trainables.references", "trainables.digests", "trainables.data.datasets"}

_Name = tuple[str, list[str]]  # a name, and the attributes that are read of it
Place = tuple[str, str]  # a module and the name of a definition in it; "" for what the module does by itself


@dataclass
class _Module:
    """A file: the statements behind each name, with the names that they read; and what it imports by which name."""

    definitions: dict[str, list[tuple[ast.stmt, list[_Name]]]] = field(default_factory=dict)
    imports: dict[str, set[Place]] = field(default_factory=dict)


def code_digest(module: str, name: str) -> str:
    """The digest of a definition and of all that it reaches."""
    own, _ = _definition(module, name)
    return digest(own + "".join(sorted(set(reached(module, name).values()))))


@cache
def reached(module: str, name: str) -> Mapping[str, str]:
    """The digest of each definition that a definition reaches, by ``file.py: name``."""
    todo: list[Place] = [(module, name), (module, "")]
    seen: set[Place] = set()
    found: dict[str, str] = {}
    while todo:
        place = todo.pop()
        if place not in seen:
            seen.add(place)
            own, targets = _definition(*place)
            todo += targets
            if own:
                found[f"{_label(place[0])}: {place[1] or 'module'}"] = own
    return found


@cache
def _definition(module: str, name: str) -> tuple[str, tuple[Place, ...]]:
    """The digest of a definition by itself, and what it names; "" where there is nothing to execute."""
    parsed = _parsed(module)
    if name not in parsed.definitions:
        # Imported from elsewhere; or made in a way that is not seen here, by anything in the module.
        here = () if name in parsed.imports or not name else tuple((module, each) for each in parsed.definitions)
        return "", (*here, *(place for place in parsed.imports.get(name, ()) if _is_followed(module, place[0])))
    statements = parsed.definitions[name]
    inside: list[Place] = []
    outside = set()
    for target in _targets(module, parsed, [each for _, names in statements for each in names]):
        if _is_followed(module, target[0]):
            inside += [target, (target[0], "")]
        elif target[0] not in _BOUNDARY:
            outside.add(f"{target[0]}:{target[1]} {_version(target[0].partition('.')[0])}")
    code = "\n".join(filter(None, (ast.unparse(statement) for statement, _ in statements)))
    return digest("\n".join((code, *sorted(outside)))) if code else "", tuple(inside)


def _is_followed(module: str, other: str) -> bool:
    """Whether what code of one module names in another is reached: in `trainables`, and in its own package."""
    return other not in _BOUNDARY and other.partition(".")[0] in (_OWN, module.partition(".")[0])


def digest(text: str) -> str:
    """160 bits of SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@cache
def _parsed(name: str) -> _Module:
    path = _file(name)
    found = _Module()
    if path is None:
        return found
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                found.imports.setdefault(local, set()).add((alias.name if alias.asname else local, ""))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.imports.setdefault(alias.asname or alias.name, set()).add((source, alias.name))
    names = [list(_names(statement)) for statement in tree.body]
    _Stripped(found).visit(tree)
    for statement, own in zip(tree.body, names, strict=True):
        for bound in _bound(statement):
            found.definitions.setdefault(bound, []).append((statement, own))
    return found


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement defines; "" for one that does something else."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return set()
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return set()  # a docstring
    stored = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    inner = {
        name
        for block in ("body", "orelse", "finalbody")
        for each in getattr(statement, block, [])
        for name in _bound(each)
    }
    only_imports = isinstance(statement, ast.If) and not stored | inner
    return (stored | inner) or (set() if only_imports else {""})


def _targets(here: str, parsed: _Module, names: Iterable[_Name]) -> Iterator[Place]:
    """What code names: definitions of its module, or of those that it imports."""
    for name, path in names:
        if name in parsed.definitions:
            yield here, name
        for source, attribute in parsed.imports.get(name, ()):
            if not _is_followed(here, source):
                yield source, attribute
                continue
            rest = [*([attribute] if attribute else []), *path]
            while rest and _file(f"{source}.{rest[0]}") is not None:
                source = f"{source}.{rest.pop(0)}"
            yield source, rest[0] if rest else "*"


def _names(node: ast.AST) -> Iterator[_Name]:
    """Each name that is read in a tree, with the attributes that are read of it."""
    path: list[str] = []
    below: ast.AST = node
    while isinstance(below, ast.Attribute):
        path.insert(0, below.attr)
        below = below.value
    if isinstance(below, ast.Name):
        if isinstance(below.ctx, ast.Load):
            yield below.id, path
        return
    for child in ast.iter_child_nodes(below):
        yield from _names(child)


@cache
def _file(module: str) -> Path | None:
    """The source of a module, found without importing anything; None if it has none that can be read."""
    root, *below = module.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    paths = [folder.joinpath(*below) for folder in folders]
    if not below and spec.origin is not None:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


@cache
def _version(package: str) -> str:
    """Of a distribution that an origin does not hold."""
    if package in _SETTLED or package in sys.stdlib_module_names:
        return ""
    names = metadata.packages_distributions().get(package, [])
    return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names)))


def _label(module: str) -> str:
    path = _file(module)
    if path is None or not module.startswith(f"{_OWN}."):
        return module if path is None or "." in module else path.name
    return path.relative_to(Path(__file__).parent).as_posix()


class _Stripped(ast.NodeTransformer):
    """Takes away what changes nothing: docstrings, annotations of functions, lines that declare parameters."""

    def __init__(self, parsed: _Module) -> None:
        self._parameters = {
            name for name, places in parsed.imports.items() if any(module == _PARAMETERS for module, _ in places)
        }
        self._functions = 0

    def _body(self, node: ast.AST) -> None:
        body: list[ast.stmt] = node.body  # type: ignore[attr-defined]
        first = body[0].value if body and isinstance(body[0], ast.Expr) else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            body[:1] = []
        node.body = body or [ast.Pass()]  # type: ignore[attr-defined]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [each for each in node.body if not self._declares(each)]
        self._body(node)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._body(node)
        node.returns = None
        self._functions += 1
        self.generic_visit(node)
        self._functions -= 1
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._functions:
            if node.value is None:
                return None
            return self.generic_visit(ast.copy_location(ast.Assign([node.target], node.value), node))
        return self.generic_visit(node)

    def _declares(self, statement: ast.stmt) -> bool:
        called = statement.value if isinstance(statement, ast.AnnAssign) else None
        return isinstance(called, ast.Call) and any(name in self._parameters for name, _ in _names(called.func))
