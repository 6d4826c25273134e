"""The digest of the code that a class or a function reaches, which a state's name holds. Pure: no torch.

What is reached are top-level definitions: those that its own code names, and so on, through the modules of
`trainables`, of its own package, and of whatever else is not installed. A definition counts as a syntax tree, without
docstrings, comments, annotations of functions, and what is said when something is raised. The parameters that a part
declares (`trainables.parameters`) do not count either, for their values are in the name by themselves. So a name
changes with what is executed: not with words, nor with a definition that nothing reaches, nor with the file that one is
in. Of other packages, what is imported counts and the version, but of those that every origin holds (`recipe.settled`).

A name in a string (``getattr``, ``importlib.import_module``) is not followed, nor are files that code reads.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

_OWN = "trainables"
_SETTLED = {_OWN, "study", "torch", "torchvision", "numpy"}  # whose versions, if any, an origin holds
_PARAMETERS = "trainables.parameters"
_DECLARING = {"number", "whole", "flag", "choice", "some", "parameter"}
# What finds parts, checks values and makes digests: of what it finds, the values and the code are in the name.
_BOUNDARY = {_PARAMETERS, "trainables.references", "trainables.digests", "trainables.data.datasets"}
_ROUNDS = 8  # so many steps of naming are told apart by what they lead to

Place = tuple[str, str]  # a module and the name of a definition in it; "" for what the module does by itself
_Name = tuple[str, ...]  # a name that code reads, and the attributes that it reads of it


@dataclass
class _Module:
    """A file: the statements behind each name, and what it imports by which name."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, set[Place]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Definition:
    """The digest of a definition's own code, "" if there is none; and what it names, by the name that it uses."""

    own: str
    targets: tuple[tuple[_Name, Place], ...]


@cache
def code_digest(module: str, name: str) -> str:
    """The digest of a definition and of all that it reaches.

    Each definition is told by its own code and, in rounds, by what its names lead to: two that change places are seen.
    """
    found = _reached(module, name)
    told = {place: each.own for place, each in found.items()}
    for _ in range(_ROUNDS):
        told = {
            place: digest(each.own + "".join(sorted(f"{'.'.join(by)}={told[to]}\n" for by, to in each.targets if by)))
            for place, each in found.items()
        }
    return digest(told[module, name] + "".join(sorted({told[place] for place, each in found.items() if each.own})))


@cache
def reached(module: str, name: str) -> Mapping[str, str]:
    """The digest of each definition that a definition reaches, by ``file.py: name``."""
    return {_label(*place): each.own for place, each in _reached(module, name).items() if each.own}


def is_readable(module: str, name: str) -> bool:
    """Whether a class or function is defined at the top of a file whose source can be read."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return any(isinstance(each, kinds) for each in _parsed(module).definitions.get(name, ()))


def digest(text: str) -> str:
    """160 bits of SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@cache
def _reached(module: str, name: str) -> Mapping[Place, _Definition]:
    todo: list[Place] = [(module, name), (module, "")]
    found: dict[Place, _Definition] = {}
    while todo:
        place = todo.pop()
        if place not in found:
            found[place] = _definition(*place, root=place == (module, name))
            todo += [target for _, target in found[place].targets]
            todo.append((place[0], ""))
    return found


@cache
def _definition(module: str, name: str, root: bool) -> _Definition:
    """A definition by itself; of the root, the parameters that it declares are left out."""
    parsed = _parsed(module)
    statements = [_Stripped(module, root).visit(_copy(each)) for each in parsed.definitions.get(name, ())]
    targets: list[tuple[_Name, Place]] = []
    outside = set()
    for by, target in _targets(module, parsed, (each for statement in statements for each in _names(statement))):
        if _is_followed(module, target[0]):
            targets.append((by, target))
        elif target[0] not in _BOUNDARY:
            outside.add(f"{'.'.join(by)}={target[0]}:{target[1]} {_version(target[0].partition('.')[0])}")
    if not name:
        targets += [((), place) for place in _effects(module, parsed)]
    elif not statements:
        # Imported from elsewhere; or made in a way that is not seen here: then anything in the module may have made it.
        targets += [((name,), place) for place in parsed.imports.get(name, ()) if _is_followed(module, place[0])]
        if name not in parsed.imports:
            targets += [((name,), (module, each)) for each in (*parsed.definitions, *parsed.imports)]
    code = "\n".join("".join(_dumped(statement)) for statement in statements)
    return _Definition(digest("\n".join((code, *sorted(outside)))) if code else "", tuple(targets))


def _effects(module: str, parsed: _Module) -> Iterator[Place]:
    """What is executed when a module is imported, beside its own statements.

    That is its packages, what it imports, and what decorators that are not of `trainables` do with its definitions,
    such as to register them.
    """
    parent = module.rpartition(".")[0]
    if parent:
        yield parent, ""
    for own, statements in parsed.definitions.items():
        decorators = [each for statement in statements for each in getattr(statement, "decorator_list", ())]
        names = [name for each in decorators for name in _names(each)]
        if any(
            _is_followed(module, place[0]) and not place[0].startswith(_OWN)
            for _, place in _targets(module, parsed, names)
        ):
            yield module, own
    for places in parsed.imports.values():
        for source, name in places:
            inner = f"{source}.{name}"
            if _is_followed(module, source):
                yield (inner if name and _file(inner) is not None else source), ""


def _is_followed(here: str, module: str) -> bool:
    """Whether what code names in a module is reached."""
    root = module.partition(".")[0]
    return module not in _BOUNDARY and (root == here.partition(".")[0] or _is_source(root))


@cache
def _is_source(package: str) -> bool:
    """Whether a package or file is `trainables` or somebody's own code, and no distribution that has a version."""
    if package == _OWN:
        return True
    if package in _SETTLED or package in sys.stdlib_module_names:
        return False
    spec = importlib.util.find_spec(package)
    if spec is None:
        return False
    installed = [Path(sysconfig.get_path(scheme)).resolve() for scheme in ("purelib", "platlib", "stdlib")]
    where = [Path(each).resolve() for each in spec.submodule_search_locations or [spec.origin or ""] if each]
    return bool(where) and not any(path.is_relative_to(folder) for path in where for folder in installed)


@cache
def _parsed(name: str) -> _Module:
    path = _file(name)
    found = _Module()
    if path is None:
        return found
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _walked(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.imports.setdefault("", set()).add((alias.name, ""))
                local = alias.asname or alias.name.partition(".")[0]
                found.imports.setdefault(local, set()).add((alias.name if alias.asname else local, ""))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.imports.setdefault(alias.asname or alias.name, set()).add((source, alias.name))
    for statement in tree.body:
        for bound in _bound(statement):
            found.definitions.setdefault(bound, []).append(statement)
    return found


def _walked(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but for what is imported for types only."""
    for child in ast.iter_child_nodes(tree):
        if not _is_for_types(child):
            yield child
            yield from _walked(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement defines; "" if it also does something else, or defines none."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return set()
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return set()  # a docstring
    if _is_for_types(statement):
        return set()
    kinds = (ast.Name, ast.Attribute, ast.Subscript)
    stored = [node for node in ast.walk(statement) if isinstance(node, kinds) and isinstance(node.ctx, ast.Store)]
    inner = {each.name for each in ast.walk(statement) if isinstance(each, (ast.FunctionDef, ast.ClassDef))}
    names = {node.id for node in stored if isinstance(node, ast.Name)} | inner
    only_names = names and len(names) == len({*inner, *(ast.dump(node) for node in stored)})
    assigns = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign))
    return names if assigns and only_names else {*names, ""}


def _targets(here: str, parsed: _Module, names: Iterable[_Name]) -> Iterator[tuple[_Name, Place]]:
    """What code names: definitions of its module, or of those that it imports."""
    for by in names:
        name, *path = by
        if name in parsed.definitions:
            yield (name,), (here, name)
        imported = parsed.imports.get(name, set())
        if not imported and name not in parsed.definitions:
            imported = {(source, name) for source, _ in parsed.imports.get("*", ()) if _has(source, name)}
        for source, attribute in imported:
            if not _is_followed(here, source):
                yield (name,), (source, attribute)
                continue
            rest = [*([attribute] if attribute else []), *path]
            while rest and _file(f"{source}.{rest[0]}") is not None:
                source = f"{source}.{rest.pop(0)}"
            yield by, (source, rest[0] if rest else "*")


def _has(module: str, name: str) -> bool:
    parsed = _parsed(module)
    return name in parsed.definitions or name in parsed.imports


def _names(node: ast.AST) -> Iterator[_Name]:
    """Each name that is read in a tree, with the attributes that are read of it."""
    path: list[str] = []
    below: ast.AST = node
    while isinstance(below, ast.Attribute):
        path.insert(0, below.attr)
        below = below.value
    if isinstance(below, ast.Name):
        if isinstance(below.ctx, ast.Load):
            yield below.id, *path
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
    if not below and spec.origin is not None:
        origin = Path(spec.origin)
        return origin if origin.suffix == ".py" and origin.is_file() else None
    paths = [folder.joinpath(*below) for folder in folders]
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


@cache
def _version(package: str) -> str:
    """Of a distribution that an origin does not hold."""
    if package in _SETTLED or package in sys.stdlib_module_names:
        return ""
    return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(_distributions().get(package, []))))


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _label(module: str, name: str) -> str:
    path = _file(module)
    file = module
    if path is not None and module.startswith(f"{_OWN}."):
        file = path.relative_to(Path(__file__).parent).as_posix()
    elif path is not None and "." not in module and path.name != "__init__.py":
        file = path.name
    return f"{file}: {name}" if name else file


def _copy(statement: ast.stmt) -> ast.stmt:
    """A tree that may be changed: `copy.deepcopy` takes three times as long."""

    def copied(value: object) -> object:
        if isinstance(value, ast.AST):
            return type(value)(**{name: copied(own) for name, own in ast.iter_fields(value)})
        return [copied(each) for each in value] if isinstance(value, list) else value

    made = copied(statement)
    assert isinstance(made, ast.stmt)
    return made


def _dumped(value: object) -> Iterator[str]:
    """A tree as text that is the same under any version of Python: what is empty is left out."""
    if isinstance(value, ast.AST):
        yield type(value).__name__ + "("
        for name, own in ast.iter_fields(value):
            if own not in (None, []) and name not in ("ctx", "kind", "type_comment"):
                yield name + "="
                yield from _dumped(own)
                yield ","
        yield ")"
    elif isinstance(value, list):
        for each in value:
            yield from _dumped(each)
            yield ";"
    else:
        yield repr(value)


class _Stripped(ast.NodeTransformer):
    """Takes away what changes nothing; `root` also the parameters that a class declares."""

    def __init__(self, module: str, root: bool) -> None:
        self._module, self._root = module, root
        self._in_function = False

    def _body(self, node: ast.AST) -> None:
        body: list[ast.stmt] = node.body  # type: ignore[attr-defined]
        first = body[0].value if body and isinstance(body[0], ast.Expr) else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            body = body[1:]
        node.body = body or [ast.Pass()]  # type: ignore[attr-defined]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if self._root:
            node.body = [each for each in node.body if not self._declares(each)]
        self._body(node)
        outside, self._in_function = self._in_function, False
        self.generic_visit(node)
        self._in_function = outside
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._body(node)
        node.returns = None
        outside, self._in_function = self._in_function, True
        self.generic_visit(node)
        self._in_function = outside
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """What is raised counts, not what it says."""
        called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(called, None)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._declares(node):
            assert isinstance(node.value, ast.Call)
            node.value = ast.Call(node.value.func, node.value.args[:1], [])  # the default
        if not self._in_function:
            return self.generic_visit(node)
        return None if node.value is None else self.generic_visit(ast.Assign([node.target], node.value))

    def _declares(self, statement: ast.stmt) -> bool:
        """Whether a line of a class declares a parameter."""
        called = statement.value if isinstance(statement, ast.AnnAssign) else None
        if not isinstance(called, ast.Call):
            return False
        named = list(_targets(self._module, _parsed(self._module), _names(called.func)))
        return any(place[0] == _PARAMETERS and (place[1] or by[-1]) in _DECLARING for by, place in named)
