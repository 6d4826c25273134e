"""Fields of configurations and parts, each declared on one line with default, bounds and help. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any

from study.errors import Refusal

Check = Callable[[Any], Any]  # a value → the value as it is kept; raises ValueError with the allowed values


def number(
    default: float,
    help: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> Any:
    """Declare a finite number, kept as a float: ≥ `least`, > `above`, ≤ `most` and < `below`."""

    def check(value: Any) -> float:
        converted = as_number(value)
        if not (math.isfinite(converted) and least <= converted <= most and above < converted < below):
            signs = (("≥", least), (">", above), ("≤", most), ("<", below))
            bounds = [f"{sign} {bound:g}" for sign, bound in signs if math.isfinite(bound)]
            raise ValueError(" ".join(("a finite number", " and ".join(bounds))).strip())
        return converted

    return parameter(default, help, check)


def whole(default: int, help: str, *, least: int | None = None, most: int | None = None) -> Any:
    """Declare a whole number from `least` to `most`, both included."""

    def check(value: Any) -> int:
        if not is_whole(value, least) or (most is not None and value > most):
            bounds = [f"{sign} {bound}" for sign, bound in (("≥", least), ("≤", most)) if bound is not None]
            raise ValueError(" ".join(("a whole number", " and ".join(bounds))).strip())
        return int(value)

    return parameter(default, help, check)


def flag(default: bool, help: str) -> Any:
    """Declare a field that is true or false."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    return parameter(default, help, check)


def choice(default: str, help: str, values: Sequence[str]) -> Any:
    """Declare a field that is one of several words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return value

    return parameter(default, help, check)


def some(default: tuple[str, ...], help: str, values: Sequence[str]) -> Any:
    """Declare a field of some of several words, kept in the order of `values`."""

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(each in values for each in value):
            raise ValueError(f"some of {', '.join(values)}")
        return tuple(each for each in values if each in value)

    return parameter(default, help, check)


def parameter(default: Any, help: str, check: Check) -> Any:
    """Declare a field of a dataclass whose values are checked by `check`.

    Args:
        default: the default value.
        help: the meaning of the field, in a few words.
        check: returns the value as it is kept, or raises ValueError with the allowed values ("a number > 0").
    """
    return field(default=default, metadata={"help": help, "check": check})


def check(instance: Any, prefix: str = "") -> None:
    """Check each field of a frozen dataclass and bring the values to one form, since equal values need equal names.

    A field that was declared without bounds keeps the type of its default: for a float, 1 becomes 1.0.

    Args:
        instance: an instance of the dataclass; its fields are set in place.
        prefix: the prefix of the fields' names in a refusal.

    Raises:
        Refusal: for the first value that is wrong.
    """
    for declared in fields(instance):
        value = getattr(instance, declared.name)
        try:
            kept = declared.metadata.get("check", _like(declared))(value)
        except ValueError as error:
            raise Refusal(prefix + declared.name, value, f"must be {error}") from None
        object.__setattr__(instance, declared.name, kept)


PLAIN = (float, bool, int, str)  # the types of defaults that need no declaration


def _like(declared: Field[Any]) -> Check:
    """Return the check of a field that declares none; it follows from the type of the default."""
    default = declared.default
    kinds = {float: number(0.0, ""), bool: flag(False, ""), int: whole(0, ""), str: parameter("", "", _text)}
    kind = kinds.get(type(default))
    return freeze if kind is None else kind.metadata["check"]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def freeze(value: Any) -> Any:
    """Return a value of JSON with its lists as tuples."""
    return tuple(map(freeze, value)) if isinstance(value, (list, tuple)) else value


def thaw(value: Any) -> Any:
    """Return a value with its tuples as lists, the reverse of `freeze`."""
    return list(map(thaw, value)) if isinstance(value, (list, tuple)) else value


def as_number(value: object) -> float:
    """Return a number as a float, or NaN for anything else; -0.0 becomes 0.0, since equal values need equal names."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf


def is_whole(value: object, least: int | None = None) -> bool:
    """Return whether a value is a whole number and, if `least` is given, at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
