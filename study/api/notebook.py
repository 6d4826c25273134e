"""Functions as spaces: one of a module by its reference, one of a notebook by its source, which the plan then holds."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from study import modules
from study.errors import Refusal, one_line


def reference(function: Callable[..., Any]) -> str:
    """Return a reference to a function: ``package.module:name``, ``/path/file.py:name``, or one to its stored source.

    Raises:
        Refusal: if the function is defined in a notebook, a script or another function, and is not self-contained.
    """
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", None) or "__main__"
    if inspect.isfunction(function) and name.isidentifier() and module != "__main__":
        if modules.is_dotted(module):
            return f"{module}:{name}"
        file = getattr(sys.modules.get(module), "__file__", None)
        if file and Path(file).is_file():
            return f"{Path(file).absolute()}:{name}"
    return f"{modules.hold(source(function))}:{getattr(function, '__name__', '')}"


def source(function: Callable[..., Any]) -> str:
    """Return the source of a function as a self-contained file: the imports and constants that it needs, and itself.

    Raises:
        Refusal: if it uses a name that is neither imported nor a plain value, or if its source is not known.
    """
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        raise _refused(function, "it is not a function with a name. Write 'def space(request): …'")
    try:
        body = textwrap.dedent(inspect.getsource(function))
        code = compile(body, "<space>", "exec", dont_inherit=True)
    except (OSError, SyntaxError) as error:
        raise _refused(function, f"its source is not known ({one_line(error)}). Write it to a file") from error
    values = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    lines = []
    for used in sorted({*_names(code)} - {name, *vars(builtins)}):
        if used not in values:
            raise _refused(function, f"it uses {used!r}, which is not defined")
        lines.append(_definition(function, used, values[used]))
    return "".join(f"{line}\n" for line in lines) + ("\n\n" if lines else "") + body


def _definition(function: Callable[..., Any], name: str, value: object) -> str:
    """Return the line that defines a global name of a function."""
    if isinstance(value, ModuleType) and not _is_of_this_process(value.__name__):
        return "\n".join([f"import {value.__name__} as {name}", *_submodules(function, name, value)])
    if _is_plain(value):
        return f"{name} = {value!r}"
    origin = getattr(value, "__module__", None)
    qualified_name = getattr(value, "__qualname__", name)
    for module, attribute in ((origin, qualified_name), *((each, name) for each in sorted(sys.modules))):
        if (
            module
            and not _is_of_this_process(module)
            and getattr(sys.modules.get(module), str(attribute), None) is value
        ):
            return f"from {module} import {attribute} as {name}"
    raise _refused(
        function,
        f"it uses {name!r}, which is defined outside of it. Define it inside the function, or write both to a file",
    )


def _is_of_this_process(module: str) -> bool:
    """Return whether a module's name means nothing to another process: a notebook's, or that of a space's file."""
    is_main = sys.modules.get(module) is sys.modules.get("__main__")  # also under another name
    return is_main or module == "__main__" or module.startswith((modules.BY_PATH, modules.BY_TEXT))


def _submodules(function: Callable[..., Any], name: str, module: ModuleType) -> Iterator[str]:
    """Yield imports of the submodules that a function reaches from a module, such as `xml.etree` from `xml`."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        parts = ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []
        dotted = ".".join([module.__name__, *parts[1:]])
        if parts[:1] == [name] and dotted in sys.modules:
            yield f"import {dotted}"


def _is_plain(value: object) -> bool:
    """Return whether a value is a literal: a number, a string, None, or a tuple, list, set or map of such."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that code looks up outside of its functions."""
    instructions = list(dis.get_instructions(code))
    stored = {instruction.argval for instruction in instructions if instruction.opname == "STORE_NAME"}  # of a class
    for instruction in instructions:
        looks_up = instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        if looks_up and (instruction.opname == "LOAD_GLOBAL" or instruction.argval not in stored):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _refused(function: object, reason: str) -> Refusal:
    name = getattr(function, "__name__", repr(function))
    return Refusal("space", name, f"the function {name!r} cannot be stored with the plan: {reason}")
