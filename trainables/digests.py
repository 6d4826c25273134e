"""Digests of the code that a class or a function reaches, which are a part of states' names. Pure: no torch.

A definition reaches the top-level definitions that its code names, those that their code names, and so on: through the
modules of `trainables`, of its package, and of all other code that is not installed. A definition enters the digest as
a syntax tree without docstrings, comments, annotations of functions, and messages of exceptions. The parameters that a
part declares (`trainables.parameters`) are left out, since a name includes their values. So a name changes if
the executed code changes. It does not change with the words in the code, with a definition that nothing reaches, or
with the file of a definition. For other packages, the digest includes the imported names and the version, except
versions that every origin includes (`recipe.settled`).

Names in strings (``getattr``, ``importlib.import_module``) are not followed, nor are files that code reads.
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

from study.modules import is_installed

_PACKAGE = "trainables"
_SETTLED = {_PACKAGE, "study", "torch", "torchvision", "numpy"}  # packages whose versions an origin includes
_PARAMETERS = "trainables.parameters"
_DECLARING = {"number", "whole", "flag", "choice", "some", "parameter"}
# Modules that find parts, check values and make digests: the values and the code of their results are in the name.
_BOUNDARY = {_PARAMETERS, "trainables.references", "trainables.digests", "trainables.data.datasets"}
_ROUNDS = 8  # definitions are distinguished by the definitions that they reach in up to so many steps

_Key = tuple[str, str]  # a module and the name of a definition in it; "" for the module's other statements
_Name = tuple[str, ...]  # a name that code reads, and the attributes that it reads of it


@dataclass
class _Module:
    """A file: the statements that define each name, and the imported definitions by local name."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, set[_Key]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Definition:
    """The digest of a definition's code, "" if it has none; and the definitions that it names, with the local names."""

    digest: str
    targets: tuple[tuple[_Name, _Key], ...]


@cache
def code_digest(module: str, name: str) -> str:
    """Return the digest of a definition and of all that it reaches.

    The digest of each definition depends on its code and, in rounds, on the digests of the definitions that it names.
    So the digest changes if two definitions change places.
    """
    definitions = _reached(module, name)
    digests = {key: definition.digest for key, definition in definitions.items()}
    for _ in range(_ROUNDS):
        digests = {
            key: digest(
                definition.digest
                + "".join(sorted(f"{'.'.join(by)}={digests[to]}\n" for by, to in definition.targets if by))
            )
            for key, definition in definitions.items()
        }
    with_code = {digests[key] for key, definition in definitions.items() if definition.digest}
    return digest(digests[module, name] + "".join(sorted(with_code)))


@cache
def reached(module: str, name: str) -> Mapping[str, str]:
    """Return the digest of each definition that a definition reaches, by ``file.py: name``."""
    definitions = _reached(module, name).items()
    return {_label(*key): definition.digest for key, definition in definitions if definition.digest}


def is_readable(module: str, name: str) -> bool:
    """Return whether a class or function is defined at the top level of a file whose source can be read."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    return any(isinstance(statement, kinds) for statement in _parsed(module).definitions.get(name, ()))


def digest(text: str) -> str:
    """Return 160 bits of SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@cache
def _reached(module: str, name: str) -> Mapping[_Key, _Definition]:
    todo: list[_Key] = [(module, name), (module, "")]
    definitions: dict[_Key, _Definition] = {}
    while todo:
        key = todo.pop()
        if key not in definitions:
            definitions[key] = _definition(*key, root=key == (module, name))
            todo += [target for _, target in definitions[key].targets]
            todo.append((key[0], ""))
    return definitions


@cache
def _definition(module: str, name: str, root: bool) -> _Definition:
    """Return a definition; the root is without the parameters that it declares."""
    parsed = _parsed(module)
    statements = [_Stripped(module, root).visit(_copy(each)) for each in parsed.definitions.get(name, ())]
    targets: list[tuple[_Name, _Key]] = []
    outside = set()
    for by, target in _targets(module, parsed, (each for statement in statements for each in _names(statement))):
        if _is_followed(module, target[0]):
            targets.append((by, target))
        elif target[0] not in _BOUNDARY:
            outside.add(f"{'.'.join(by)}={target[0]}:{target[1]} {_version(target[0].partition('.')[0])}")
    if not name:
        targets += [((), target) for target in _effects(module, parsed)]
    elif not statements:
        # The name is imported, or made in an unknown way: then any definition of the module may have made it.
        targets += [((name,), target) for target in parsed.imports.get(name, ()) if _is_followed(module, target[0])]
        if name not in parsed.imports:
            targets += [((name,), (module, each)) for each in (*parsed.definitions, *parsed.imports)]
    code = "\n".join("".join(_dumped(statement)) for statement in statements)
    return _Definition(digest("\n".join((code, *sorted(outside)))) if code else "", tuple(targets))


def _effects(module: str, parsed: _Module) -> Iterator[_Key]:
    """Yield what an import of a module executes, beside its own statements.

    That is its packages, its imports, and its definitions with decorators from outside `trainables`, which may for
    example register them.
    """
    parent = module.rpartition(".")[0]
    if parent:
        yield parent, ""
    for local, statements in parsed.definitions.items():
        decorators = [node for statement in statements for node in getattr(statement, "decorator_list", ())]
        names = [name for node in decorators for name in _names(node)]
        if any(
            _is_followed(module, target[0]) and not target[0].startswith(_PACKAGE)
            for _, target in _targets(module, parsed, names)
        ):
            yield module, local
    for imported in parsed.imports.values():
        for source, name in imported:
            inner = f"{source}.{name}"
            if _is_followed(module, source):
                yield (inner if name and _file(inner) is not None else source), ""


def _is_followed(here: str, module: str) -> bool:
    """Return whether definitions of a module are followed from code in module `here`."""
    root = module.partition(".")[0]
    return module not in _BOUNDARY and (root == here.partition(".")[0] or _is_source(root))


@cache
def _is_source(package: str) -> bool:
    """Return whether a package or file is `trainables` or the user's code, and not an installed distribution."""
    if package == _PACKAGE:
        return True
    if package in _SETTLED or package in sys.stdlib_module_names or package == "__main__":
        return False
    spec = importlib.util.find_spec(package)
    if spec is None:
        return False
    paths = [
        Path(location).resolve() for location in spec.submodule_search_locations or [spec.origin or ""] if location
    ]
    return bool(paths) and not any(map(is_installed, paths))


@cache
def _parsed(name: str) -> _Module:
    path = _file(name)
    module = _Module()
    if path is None:
        return module
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _walked(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module.imports.setdefault("", set()).add((alias.name, ""))
                local = alias.asname or alias.name.partition(".")[0]
                module.imports.setdefault(local, set()).add((alias.name if alias.asname else local, ""))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                module.imports.setdefault(alias.asname or alias.name, set()).add((source, alias.name))
    for statement in tree.body:
        for bound in _bound(statement):
            module.definitions.setdefault(bound, []).append(statement)
    return module


def _walked(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes of a tree, except imports for types only."""
    for child in ast.iter_child_nodes(tree):
        if not _is_for_types(child):
            yield child
            yield from _walked(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement defines, and "" if it does anything else."""
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
    inner = {node.name for node in ast.walk(statement) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names = {node.id for node in stored if isinstance(node, ast.Name)} | inner
    only_names = names and len(names) == len({*inner, *(ast.dump(node) for node in stored)})
    assigns = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign))
    return names if assigns and only_names else {*names, ""}


def _targets(here: str, parsed: _Module, names: Iterable[_Name]) -> Iterator[tuple[_Name, _Key]]:
    """Yield the definitions behind names, in the module of the code or in modules that it imports."""
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
            remaining = [*([attribute] if attribute else []), *path]
            while remaining and _file(f"{source}.{remaining[0]}") is not None:
                source = f"{source}.{remaining.pop(0)}"
            yield by, (source, remaining[0] if remaining else "*")


def _has(module: str, name: str) -> bool:
    parsed = _parsed(module)
    return name in parsed.definitions or name in parsed.imports


def _names(node: ast.AST) -> Iterator[_Name]:
    """Yield each name that a tree reads, with the attributes that it reads of the name."""
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
    """Return the source file of a module, without importing it; None if no source can be read."""
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
    """Return the versions of a package's distributions; "" if an origin includes them."""
    if package in _SETTLED or package in sys.stdlib_module_names:
        return ""
    return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(_distributions().get(package, []))))


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _label(module: str, name: str) -> str:
    path = _file(module)
    file = module
    if path is not None and module.startswith(f"{_PACKAGE}."):
        file = path.relative_to(Path(__file__).parent).as_posix()
    elif path is not None and "." not in module and path.name != "__init__.py":
        file = path.name
    return f"{file}: {name}" if name else file


def _copy(statement: ast.stmt) -> ast.stmt:
    """Return a copy of a tree; `copy.deepcopy` takes three times as long."""

    def copied(value: object) -> object:
        if isinstance(value, ast.AST):
            return type(value)(**{name: copied(child) for name, child in ast.iter_fields(value)})
        return [copied(item) for item in value] if isinstance(value, list) else value

    copy = copied(statement)
    assert isinstance(copy, ast.stmt)
    return copy


def _dumped(value: object) -> Iterator[str]:
    """Yield a tree as text without empty fields, which is the same under any version of Python."""
    if isinstance(value, ast.AST):
        yield type(value).__name__ + "("
        for name, child in ast.iter_fields(value):
            if child not in (None, []) and name not in ("ctx", "kind", "type_comment"):
                yield name + "="
                yield from _dumped(child)
                yield ","
        yield ")"
    elif isinstance(value, list):
        for item in value:
            yield from _dumped(item)
            yield ";"
    else:
        yield repr(value)


class _Stripped(ast.NodeTransformer):
    """A transformer that removes code without effect and, of the root, the parameters that a class declares."""

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
        """Keep the type of an exception, and drop its message."""
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(kind, None)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._declares(node):
            assert isinstance(node.value, ast.Call)
            node.value = ast.Call(node.value.func, node.value.args[:1], [])  # the default
        if not self._in_function:
            return self.generic_visit(node)
        return None if node.value is None else self.generic_visit(ast.Assign([node.target], node.value))

    def _declares(self, statement: ast.stmt) -> bool:
        """Return whether a line of a class declares a parameter."""
        value = statement.value if isinstance(statement, ast.AnnAssign) else None
        if not isinstance(value, ast.Call):
            return False
        targets = list(_targets(self._module, _parsed(self._module), _names(value.func)))
        return any(module == _PARAMETERS and (name or by[-1]) in _DECLARING for by, (module, name) in targets)
