"""Parts by reference: ``ldam``, ``package.module:Name`` or ``./file.py:Name``, with parameters in parentheses. Pure.

A short name stands for a file in the folder of its kind and for the class in it that has the file's name: ``ldam`` is
``LDAM`` of ``trainables/losses/ldam.py``. To add a part, add a file.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from study import modules
from study.errors import Refusal
from trainables import parameters
from trainables.digests import code_digest, is_readable
from trainables.parts import Backbone, Head, Loss, Mixture

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Kind:
    """A kind of parts.

    Attributes:
        name: the kind's name in a refusal.
        folder: the folder of the built-in parts, below `trainables`.
        base: the base class of its classes.
    """

    name: str
    folder: str
    base: type


LOSS = Kind("loss", "losses", Loss)
BACKBONE = Kind("backbone", "networks", Backbone)
HEAD = Kind("head", "networks", Head)
MIXTURE = Kind("mixture", "methods", Mixture)


@cache
def names(kind: Kind) -> tuple[str, ...]:
    """Return the short names of the built-in parts of a kind."""
    files = sorted((_HERE / kind.folder).glob("[a-z]*.py"))
    return tuple(path.stem for path in files if _built_in(kind, path.stem) is not None)


def _built_in(kind: Kind, name: str) -> type | None:
    """Return the class of the built-in part with this short name; None if its file defines none."""
    class_name = name.replace("_", "")
    text = (_HERE / kind.folder / f"{name}.py").read_text(encoding="utf-8")
    if not any(match.lower() == class_name for match in re.findall(r"^class (\w+)", text, re.MULTILINE)):
        return None  # without an import: some files beside the data sets need torch
    module = importlib.import_module(f"trainables.{kind.folder}.{name}")
    for attribute, value in vars(module).items():
        if attribute.lower() == class_name and isinstance(value, type) and issubclass(value, kind.base):
            return value
    return None


def find(kind: Kind, reference: str) -> type:
    """Return the class of a part.

    Args:
        kind: the kind that the part must have.
        reference: a short name, ``package.module:Name`` or ``./file.py:Name``.

    Raises:
        Refusal: if there is no such part, or the part is of another kind.
    """
    where, _, name = reference.partition(":")
    if not modules.is_file(where) and not modules.is_dotted(where):
        stem = where.replace("-", "_")
        has_file = stem.isidentifier() and (_HERE / kind.folder / f"{stem}.py").is_file()
        built_in = _built_in(kind, stem) if has_file else None
        if built_in is None or name:
            hint = suggestion(where, names(kind))
            if has_file and not name:
                hint = f"trainables/{kind.folder}/{stem}.py defines no {kind.name} of that name"
            raise Refusal(kind.name, reference, f"must be {known_names(names(kind), 'Name')}", hint)
        return built_in
    module = modules.find(where, kind.name, reference, ships=True)
    if not name:
        choices = [
            f"{where}:{attribute}"
            for attribute, value in vars(module).items()
            if _is_a(kind, value) and value.__module__ == module.__name__
        ]
        hint = f"Choose {' or '.join(choices)}" if choices else f"The file defines no {kind.name}"
        raise Refusal(kind.name, reference, f"must name a {kind.name} of the file", hint)
    part_class = getattr(module, name, None)
    if not _is_a(kind, part_class):
        base = f"{kind.base.__module__}.{kind.base.__name__}"
        raise Refusal(kind.name, reference, f"must be a subclass of {base} that defines all abstract methods")
    return part_class  # type: ignore[return-value]


def known_names(known: Sequence[str], placeholder: str) -> str:
    """Return the allowed references as a list in words: the known names, then the forms of other references."""
    return f"{', '.join(known)}, package.module:{placeholder} or ./file.py:{placeholder}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return a hint with the known name that is closest to `name`; "" if none is close."""
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _is_a(kind: Kind, value: object) -> bool:
    return isinstance(value, type) and issubclass(value, kind.base) and not inspect.isabstract(value)


def construct(kind: Kind, value: Any) -> Any:
    """Return a part from any description of it, with checked parameters.

    Args:
        kind: the kind of the part.
        value: a part, a reference with or without parameters, or a dictionary of `to_json`.

    Raises:
        Refusal: if there is no such part, or a parameter is wrong.
    """
    if isinstance(value, kind.base):
        part = value
        _check_class(kind, type(value), type(value).__name__)
    elif isinstance(value, str):
        reference, arguments = _parsed(kind, value)
        part = _instance(kind, reference, arguments)
    elif isinstance(value, Mapping) and isinstance(value.get("part"), str):
        arguments = {
            name: parameters.freeze(argument) for name, argument in value.items() if name not in ("part", "code")
        }
        part = _instance(kind, value["part"], arguments)
        if "code" in value and value["code"] != code(part):
            field = f"code of {kind.name} {value['part']} of the worker"
            hint = "Install the code of the plan on every machine"
            raise Refusal(field, code(part), f"must be {value['code']}, as in the plan", hint)
    else:
        raise Refusal(kind.name, value, f"must name a {kind.name}", f"Known names are {', '.join(names(kind))}")
    parameters.check(part, f"{kind.name}.")
    try:
        json.dumps(plain(part), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Refusal(kind.name, title(part), "must have parameters that JSON can hold", str(error)) from error
    return part


def _instance(kind: Kind, reference: str, arguments: Mapping[str, Any]) -> Any:
    part_class = find(kind, reference)
    _check_class(kind, part_class, reference)
    known = [field.name for field in dataclasses.fields(part_class)]
    for name in arguments:
        if name not in known:
            field = f"parameter of {kind.name} {reference}"
            if not known:
                raise Refusal(field, name, "must be left out", f"The {kind.name} has no parameters")
            raise Refusal(field, name, f"must be {'one of ' if len(known) > 1 else ''}{', '.join(known)}")
    try:
        return part_class(**arguments)
    except Refusal:
        raise
    except Exception as error:
        reason = modules.said(error, _file_of(part_class))
        raise Refusal(kind.name, reference, f"{kind.name} '{reference}' cannot be constructed: {reason}") from error


def _check_class(kind: Kind, part_class: type, reference: str) -> None:
    """Check that a part can be found by its name, and compared, hashed and stored by its fields."""
    check_place(kind, part_class, reference)
    own_attributes = vars(part_class)
    options = own_attributes.get("__dataclass_params__")
    if options is None or not (options.frozen and options.eq) or "__eq__" not in own_attributes:
        raise Refusal(kind.name, reference, "must be a class with @dataclass(frozen=True)")
    for field in dataclasses.fields(part_class):
        if field.default is dataclasses.MISSING:
            hint = f"Parameter {field.name} has none"
            raise Refusal(kind.name, reference, "must have a default for each parameter", hint)
        if not (field.init and field.compare) or field.name in ("part", "code"):
            hint = "A parameter may not be named part or code, nor be declared with init=False or compare=False"
            raise Refusal(kind.name, reference, f"must not have the parameter {field.name}", hint)
        if "check" not in field.metadata and type(field.default) not in parameters.PLAIN:
            words = f"must declare parameter {field.name} with a function of trainables.parameters"
            raise Refusal(kind.name, reference, words, "Its default is neither a number nor text")


def check_place(kind: Kind, part_class: type, reference: str) -> None:
    """Check that workers can import a class, and that the code digest in a state's name can include it.

    Raises:
        Refusal: if the class is not at the top level of a readable Python file.
    """
    module, name = sys.modules[part_class.__module__], part_class.__qualname__
    at_top_level = vars(module).get(name) is part_class and is_readable(module.__name__, name)
    if module.__name__ == "__main__" or not at_top_level:
        hint = "Workers import it from there"
        raise Refusal(kind.name, reference, "must be a class at the top level of a Python file", hint)


def _parsed(kind: Kind, text: str) -> tuple[str, dict[str, Any]]:
    """Return the reference and the parameters of a text such as ``ldam(max_margin=0.3)``."""
    reference, bracket, arguments = text.partition("(")
    if not bracket:
        return text, {}
    try:
        call = ast.parse(f"_({arguments}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        return reference.strip(), {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError):
        raise Refusal(kind.name, text, "must have the form NAME(parameter=value, …)") from None


def head(part: Any) -> Any:
    """Return the head that a loss or a mixture asks for; a path is relative to the folder of the part's file."""
    description = part.head
    if isinstance(description, str) and modules.is_file(description.partition(":")[0]):
        description = str(modules.folder_of(type(part)) / description)
    return construct(HEAD, description)


def _file_of(kind: type) -> str:
    return str(sys.modules[kind.__module__].__file__)


def reference(part: Any) -> str:
    """Return the shortest name that finds a part again, without its parameters."""
    kind = type(part)
    package, _, file = kind.__module__.rpartition(".")
    if package.startswith("trainables.") and kind.__name__.lower() == file.replace("_", ""):
        return file
    return modules.reference_of(kind)


def label(part: Any) -> str:
    """Return a part's reference without the folder of its file, which differs between machines."""
    where, colon, name = reference(part).partition(":")
    return Path(where).name + colon + name


def title(part: Any) -> str:
    """Return a part's name in tables: its short name or its class's name, with the parameters that are not default."""
    short_name = reference(part)
    name = type(part).__name__ if ":" in short_name else short_name
    arguments = [
        f"{field.name}={getattr(part, field.name)!r}"
        for field in dataclasses.fields(part)
        if getattr(part, field.name) != field.default
    ]
    return f"{name}({', '.join(arguments)})" if arguments else name


def plain(part: Any) -> dict[str, Any]:
    """Return a part as a dictionary for JSON: its reference and its parameters."""
    return {"part": reference(part), **{name: parameters.thaw(value) for name, value in values(part).items()}}


def values(part: Any) -> dict[str, Any]:
    """Return a part's parameters by name."""
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}


def with_code(part: Any) -> dict[str, Any]:
    """Return `plain` with the digest of the part's code, which together determine its work on every machine."""
    return {**plain(part), "code": code(part)}


def code(part: Any) -> str:
    """Return the digest of a part's code; see `digests`."""
    return code_digest(type(part).__module__, type(part).__qualname__)
