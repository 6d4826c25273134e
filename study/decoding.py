"""From JSON to dataclasses, checked by pydantic, which MLflow brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


def decoded(kind: type[T], plain: Any) -> T:
    """Return an object of a dataclass from its JSON: lists become tuples, dictionaries dataclasses.

    Raises:
        ValueError: if a field is missing or has another type.
    """
    value: T = _adapter(kind).validate_python(plain)  # type: ignore[arg-type]
    return value


@lru_cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # here, for it takes 0.2 s to import, which most commands do not need

    return TypeAdapter(kind)
