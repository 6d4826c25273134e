"""Fields of configurations and parts that carry their default, bounds and help on one line. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import Field, field, fields
from typing import Any

from study.errors import Refusal

Check = Callable[[Any], Any]  # a value → the value as it is kept; raises ValueError with what it must be


def number(
    default: float,
    help: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> Any:
    """A finite number, kept as a float: at least `least`, more than `above`, at most `most`, and less than `below`."""

    def check(value: Any) -> float:
        found = as_number(value)
        if not (math.isfinite(found) and least <= found <= most and above < found < below):
            signs = (("≥", least), (">", above), ("≤", most), ("<", below))
            bounds = [f"{sign} {bound:g}" for sign, bound in signs if math.isfinite(bound)]
            raise ValueError(" ".join(("a finite number", " and ".join(bounds))).strip())
        return found

    return parameter(default, help, check)


def whole(default: int, help: str, *, least: int | None = None, most: int | None = None) -> Any:
    """A whole number from `least` to `most`, both included."""

    def check(value: Any) -> int:
        if not is_whole(value, least) or (most is not None and value > most):
            bounds = [f"{sign} {bound}" for sign, bound in (("≥", least), ("≤", most)) if bound is not None]
            raise ValueError(" ".join(("a whole number", " and ".join(bounds))).strip())
        return int(value)

    return parameter(default, help, check)


def flag(default: bool, help: str) -> Any:
    """True or false."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    return parameter(default, help, check)


def choice(default: str, help: str, values: Sequence[str]) -> Any:
    """One of several words."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return value

    return parameter(default, help, check)


def some(default: tuple[str, ...], help: str, values: Sequence[str]) -> Any:
    """Some of several words, kept in the order of `values`."""

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(each in values for each in value):
            raise ValueError(f"some of {', '.join(values)}")
        return tuple(each for each in values if each in value)

    return parameter(default, help, check)


def parameter(default: Any, help: str, check: Check) -> Any:
    """A field of a dataclass whose values `check` takes.

    Args:
        default: its value, if nothing else is said.
        help: what it means, in a few words.
        check: returns a value as it is kept, or raises ValueError with what it must be ("a number > 0").
    """
    return field(default=default, metadata={"help": help, "check": check})


def check(instance: Any, prefix: str = "") -> None:
    """Check each field of a frozen dataclass and keep the values in one form, for equal values need equal names.

    A field that was declared without bounds keeps the type of its default: of a float, 1 becomes 1.0.

    Args:
        instance: of the dataclass; its fields are set in place.
        prefix: of the fields' names in a refusal.

    Raises:
        Refusal: for the first value that is wrong.
    """
    for each in fields(instance):
        value = getattr(instance, each.name)
        try:
            kept = each.metadata.get("check", _like(each))(value)
        except ValueError as error:
            raise Refusal(prefix + each.name, value, f"must be {error}") from None
        object.__setattr__(instance, each.name, kept)


PLAIN = (float, bool, int, str)  # the types of defaults that need no declaration


def _like(declared: Field[Any]) -> Check:
    """The check of a field that has none: as its default is."""
    default = declared.default
    kinds = {float: number(0.0, ""), bool: flag(False, ""), int: whole(0, ""), str: parameter("", "", _text)}
    found = kinds.get(type(default))
    return freeze if found is None else found.metadata["check"]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def freeze(value: Any) -> Any:
    """A value of JSON with its lists as tuples."""
    return tuple(map(freeze, value)) if isinstance(value, (list, tuple)) else value


def thaw(value: Any) -> Any:
    """The reverse of `freeze`."""
    return list(map(thaw, value)) if isinstance(value, (list, tuple)) else value


def as_number(value: object) -> float:
    """A number as a float, -0.0 as 0.0, for one value needs one name; NaN for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf


def is_whole(value: object, least: int | None = None) -> bool:
    """Whether a value is a whole number, and at least so much."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
