"""Parts by reference: ``ldam``, ``package.module:Name`` or ``./file.py:Name``, with parameters in parentheses. Pure.

A short name is a file of ours in the folder of its kind, and the class in it that is called like the file: ``ldam`` is
``LDAM`` of ``trainables/losses/ldam.py``. To add a part is to add a file.
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
        name: what a refusal calls it.
        folder: of ours, below `trainables`.
        base: what its classes derive from.
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
    """The short names of our parts of a kind."""
    files = sorted((_HERE / kind.folder).glob("[a-z]*.py"))
    return tuple(path.stem for path in files if _own(kind, path.stem) is not None)


def _own(kind: Kind, name: str) -> type | None:
    """Our part of this short name."""
    wanted = name.replace("_", "")
    text = (_HERE / kind.folder / f"{name}.py").read_text(encoding="utf-8")
    if not any(found.lower() == wanted for found in re.findall(r"^class (\w+)", text, re.MULTILINE)):
        return None  # before it is imported: beside data sets lies what needs torch
    module = importlib.import_module(f"trainables.{kind.folder}.{name}")
    for own, value in vars(module).items():
        if own.lower() == wanted and isinstance(value, type) and issubclass(value, kind.base):
            return value
    return None


def find(kind: Kind, reference: str) -> type:
    """The class of a part.

    Args:
        kind: what it has to be.
        reference: a short name of ours, ``package.module:Name`` or ``./file.py:Name``.

    Raises:
        Refusal: if there is none, or it is of another kind.
    """
    where, _, name = reference.partition(":")
    if not modules.is_file(where) and not modules.is_dotted(where):
        own = where.replace("-", "_")
        found = _own(kind, own) if own.isidentifier() and (_HERE / kind.folder / f"{own}.py").is_file() else None
        if found is None or name:
            remedy = "must be " + known_names(where, names(kind), "Name")
            if own.isidentifier() and (_HERE / kind.folder / f"{own}.py").is_file() and not name:
                remedy += f" (trainables/{kind.folder}/{own}.py has no {kind.name} that is called like the file)"
            raise Refusal(kind.name, reference, remedy)
        return found
    module = modules.find(where, kind.name, reference, ships=True)
    if not name:
        known = [
            each for each, value in vars(module).items() if _is_a(kind, value) and value.__module__ == module.__name__
        ]
        remedy = f"must say which {kind.name} of the file: " + (
            ", ".join(f"{where}:{each}" for each in known) or "it has none"
        )
        raise Refusal(kind.name, reference, remedy)
    found = getattr(module, name, None)
    if not _is_a(kind, found):
        remedy = (
            f"must be a class that derives from {kind.base.__module__}.{kind.base.__name__}, and defines its methods"
        )
        raise Refusal(kind.name, reference, remedy)
    return found  # type: ignore[return-value]


def known_names(name: str, known: Sequence[str], own: str) -> str:
    """What a reference may be, and which of the known names is close to it."""
    close = difflib.get_close_matches(name, known, 1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"{', '.join(known)}, package.module:{own} or ./file.py:{own}{meant}"


def _is_a(kind: Kind, value: object) -> bool:
    return isinstance(value, type) and issubclass(value, kind.base) and not inspect.isabstract(value)


def made(kind: Kind, value: Any) -> Any:
    """A part of whatever names it: itself, a reference with or without parameters, or a dictionary of `to_json`.

    Raises:
        Refusal: if there is none of that name, or a parameter is wrong, naming it.
    """
    if isinstance(value, kind.base):
        part = value
        _check_class(kind, type(value), type(value).__name__)
    elif isinstance(value, str):
        reference, given = _parsed(kind, value)
        part = _instance(kind, reference, given)
    elif isinstance(value, Mapping) and isinstance(value.get("part"), str):
        given = {name: parameters.freeze(own) for name, own in value.items() if name not in ("part", "code")}
        part = _instance(kind, value["part"], given)
        if "code" in value and value["code"] != code(part):
            remedy = f"must be {value['code']}, as in the plan"
            raise Refusal(f"code of {kind.name} {value['part']} of the worker", code(part), remedy)
    else:
        raise Refusal(kind.name, value, f"must name a {kind.name}: {', '.join(names(kind))}")
    parameters.check(part, f"{kind.name}.")
    try:
        json.dumps(plain(part), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Refusal(kind.name, title(part), f"must have parameters that JSON holds ({error})") from error
    return part


def _instance(kind: Kind, reference: str, given: Mapping[str, Any]) -> Any:
    found = find(kind, reference)
    _check_class(kind, found, reference)
    known = [each.name for each in dataclasses.fields(found)]
    for name in given:
        if name not in known:
            remedy = f"must be {', '.join(known)}" if known else "must be left out: it has no parameters"
            raise Refusal(f"{kind.name} {reference}: parameter", name, remedy)
    try:
        return found(**given)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(kind.name, reference, f"it raised {modules.said(error, _file_of(found))}") from error


def _check_class(kind: Kind, found: type, reference: str) -> None:
    """A part is found by its name, and compared, hashed and written down by its fields."""
    check_place(kind, found, reference)
    declared = getattr(found, "__dataclass_params__", None) if "__dataclass_params__" in vars(found) else None
    if declared is None or not (declared.frozen and declared.eq) or "__eq__" not in vars(found):
        raise Refusal(kind.name, reference, "must be a class with @dataclass(frozen=True)")
    for each in dataclasses.fields(found):
        if each.default is dataclasses.MISSING:
            raise Refusal(kind.name, reference, f"must have a default for each parameter, and has none for {each.name}")
        if not (each.init and each.compare) or each.name in ("part", "code"):
            remedy = f"must not have a parameter {each.name} that is left out of comparisons, or called part or code"
            raise Refusal(kind.name, reference, remedy)
        if "check" not in each.metadata and type(each.default) not in parameters.PLAIN:
            remedy = (
                f"must declare its parameter {each.name} with trainables.parameters: its default is no number or text"
            )
            raise Refusal(kind.name, reference, remedy)


def check_place(kind: Kind, found: type, reference: str) -> None:
    """Refuse a class that workers would not find, or whose code a state's name could not hold."""
    module = sys.modules[found.__module__]
    at_the_top = vars(module).get(found.__qualname__) is found and is_readable(module.__name__, found.__qualname__)
    if module.__name__ == "__main__" or not at_the_top:
        raise Refusal(kind.name, reference, "must be a class at the top of a Python file, where workers find it")


def _parsed(kind: Kind, text: str) -> tuple[str, dict[str, Any]]:
    """A reference and its parameters: ``ldam(max_margin=0.3)``."""
    reference, bracket, rest = text.partition("(")
    if not bracket:
        return text, {}
    try:
        call = ast.parse(f"_({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(each.arg is None for each in call.keywords):
            raise ValueError
        return reference.strip(), {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (ValueError, SyntaxError):
        remedy = "must have its parameters in the form NAME(parameter=value, …)"
        raise Refusal(kind.name, text, remedy) from None


def head(part: Any) -> Any:
    """The head that a loss or a mixture asks for; a path in it is from the part's own folder."""
    asked = part.head
    if isinstance(asked, str) and modules.is_file(asked.partition(":")[0]):
        asked = str(Path(_file_of(type(part))).parent / asked)
    return made(HEAD, asked)


def _file_of(kind: type) -> str:
    return str(sys.modules[kind.__module__].__file__)


def reference(part: Any) -> str:
    """The shortest name by which a part is found again, without its parameters."""
    kind = type(part)
    package, _, file = kind.__module__.rpartition(".")
    if package.startswith("trainables.") and kind.__name__.lower() == file.replace("_", ""):
        return file
    return modules.reference_of(kind)


def label(part: Any) -> str:
    """The same without the folder of a file, which is another on every machine."""
    where, colon, name = reference(part).partition(":")
    return Path(where).name + colon + name


def title(part: Any) -> str:
    """What tables call a part: a short name of ours, or a class's name; with parameters that are not the default."""
    own = reference(part)
    name = type(part).__name__ if ":" in own else own
    given = [
        f"{each.name}={getattr(part, each.name)!r}"
        for each in dataclasses.fields(part)
        if getattr(part, each.name) != each.default
    ]
    return f"{name}({', '.join(given)})" if given else name


def plain(part: Any) -> dict[str, Any]:
    """A part as a dictionary that JSON holds: how it is found again, and its parameters."""
    return {"part": reference(part), **{name: parameters.thaw(own) for name, own in values(part).items()}}


def values(part: Any) -> dict[str, Any]:
    """A part's parameters."""
    return {each.name: getattr(part, each.name) for each in dataclasses.fields(part)}


def with_code(part: Any) -> dict[str, Any]:
    """The same with the digest of its code: what determines its work, wherever it lies."""
    return {**plain(part), "code": code(part)}


def code(part: Any) -> str:
    """The digest of a part's code; see `digests`."""
    return code_digest(type(part).__module__, type(part).__qualname__)
