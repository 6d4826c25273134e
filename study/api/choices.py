"""The user's choices in Python: their types and ranges, and the options that spaces declare."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from numbers import Integral, Real
from typing import Any

from study import catalog, modules
from study.errors import Refusal
from study.space import Option, Value


def objectives_of(objectives: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of objectives, given as a list or with commas between them."""
    if objectives is None:
        return ()
    words = objectives.split(",") if isinstance(objectives, str) else objectives
    if not isinstance(words, Iterable) or not all(isinstance(word, str) for word in words):
        raise Refusal("--objectives", objectives, "must be names of measures")
    names = tuple(word.strip() for word in words)
    if "" in names or len(set(names)) < len(names):
        raise Refusal("--objectives", objectives, "must be different names with commas between them")
    return names


def merged(options: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options by name; a keyword has underscores where a name has dashes."""
    declared = catalog.options()
    names = {key: name for key in keywords if (name := key.replace("_", "-")) in declared}
    if options is not None and not isinstance(options, Mapping):
        raise Refusal("options", options, "must be a map from names to values")
    merged = dict(options or {})
    for key, value in keywords.items():
        name = names.get(key, key)
        if name in merged:
            raise Refusal(f"--{name}", value, f"must be given once: {name!r} is in options, too")
        merged[name] = value
    return merged


def options_of(given: Mapping[str, Any]) -> dict[str, Value]:
    """Return the options of spaces, checked against their declarations.

    Args:
        given: by name; None, False and () mean that an option is not given. The value of an option that no installed
            package declares, which is ``-o NAME=VALUE`` for the command line, becomes text.
    """
    declared, options = catalog.options(), {}
    for name, value in given.items():
        if (
            value is None
            or value is False
            or (isinstance(value, Sized) and not isinstance(value, str) and not len(value))
        ):
            continue
        options[name] = _value(declared[name], value) if name in declared else str(value)
    return options


def _value(option: Option, value: Any) -> Value:
    """Return the value of a declared option as a request holds it."""
    if option.kind == "flag":
        if value is not True:
            raise Refusal(f"--{option.name}", value, "must be true or false")
        return True
    if option.repeatable:
        values = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        return tuple(dict.fromkeys(_single(option, each) for each in values))  # type: ignore[return-value]
    return _single(option, value)


def _single(option: Option, value: Any) -> str | float:
    if option.kind == "number":
        if not is_number(value):
            raise Refusal(f"--{option.name}", value, "must be a number")
        return float(value)
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise Refusal(f"--{option.name}", value, "must be text")
    if option.choices:
        check_one_of(f"--{option.name}", text, option.choices)
    return modules.absolute(text) if option.reference else text


def check_text(option: str, value: object) -> None:
    """Check that a value is text or None."""
    if value is not None and not isinstance(value, str):
        raise Refusal(option, value, "must be text")


def check_path(option: str, value: object) -> None:
    """Check that a value is a path or None."""
    if value is not None and not isinstance(value, str | os.PathLike):
        raise Refusal(option, value, "must be a path")


def check_flag(option: str, value: object) -> None:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise Refusal(option, value, "must be true or false")


def is_number(value: object) -> bool:
    """Return whether a value is a real number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_at_least(option: str, value: int | None, least: int) -> None:
    """Check that a value is a whole number of at least `least`, or None."""
    if value is not None and not _is_whole(value):
        raise Refusal(option, value, "must be a whole number")
    if value is not None and value < least:
        raise Refusal(option, value, f"must be at least {least}")


def check_between(option: str, value: int | None, least: int, most: int) -> None:
    """Check that a value is a whole number from `least` to `most`, or None."""
    if value is not None and not _is_whole(value):
        raise Refusal(option, value, "must be a whole number")
    if value is not None and not least <= value <= most:
        raise Refusal(option, value, f"must be between {least} and {most}")


def check_one_of(option: str, value: str | None, choices: Sequence[str]) -> None:
    """Check that a value is one of the choices, or None."""
    if value not in (None, *choices):
        *others, last = choices
        raise Refusal(option, value, f"must be {', '.join(others)} or {last}")
