"""What a method is: a function from a protocol to the method's own configuration, found by reference. Pure: no torch.

By default all follow the base's protocol, the paper's (``recipe = common``), and share the cross-entropy trunk wherever
they begin like it: deferral begins at m + S, second stages have 30 epochs. What a method's own code does instead stands
in its file (`sourced`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from study import modules
from study.errors import Refusal
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.references import known_names

Method = Callable[[Config], Config]
Settings = Mapping[str, Any]  # fields of a `Config`

_FOLDER = Path(__file__).parent / "methods"


@dataclass(frozen=True)
class Sources:
    """The constants of a method's own code (``recipe = source``), by the data that it has them for.

    Attributes:
        cifar: on CIFAR.
        large: on iNaturalist, which stand in for those on ImageNet-LT and Places-LT.
        long: the same where training is longer than 90 epochs; None for `large`.
        second_stages: of a second stage, by data set; the first stage is the common one.
        paper: whether it is the paper's own method, which has no other constants.
    """

    cifar: Settings | None = None
    large: Settings | None = None
    long: Settings | None = None
    second_stages: Mapping[str, Settings] = field(default_factory=dict)
    paper: bool = False


def sourced(**sources: Any) -> Callable[[Method], Method]:
    """Give a method the constants of its own code; see `Sources`."""

    def decorate(method: Method) -> Method:
        method.sources = Sources(**sources)  # type: ignore[attr-defined]
        return method

    return decorate


@cache
def names() -> tuple[str, ...]:
    """The names of our methods."""
    return tuple(path.stem for path in sorted(_FOLDER.glob("[a-z]*.py")) if _own(path.stem) is not None)


def _own(name: str) -> Method | None:
    module = importlib.import_module(f"trainables.methods.{name}")
    found = getattr(module, name, None)
    return found if inspect.isfunction(found) else None


def find(reference: str) -> Method:
    """A method by reference: a name of ours, ``package.module:function`` or ``./file.py:function``.

    Raises:
        Refusal: if there is none.
    """
    where, _, name = reference.partition(":")
    if modules.is_file(where) or modules.is_dotted(where):
        found = getattr(modules.find(where, "method", reference, ships=True), name, None)
        if not name or not callable(found):
            raise Refusal("method", reference, f"must be {where}:FUNCTION, a function from a Config to a Config")
        return _checked(found, reference, name)
    if reference not in names():
        raise Refusal("method", reference, f"must be {known_names(reference, names(), 'function')}")
    own = _own(reference)
    assert own is not None
    return own


def _checked(function: Method, reference: str, name: str) -> Method:
    """A user's function, whose mistakes are refused; its configurations are called by its name, if by no other."""

    def method(base: Config) -> Config:
        try:
            made: object = function(base)
        except Refusal:
            raise
        except Exception as error:
            file = getattr(getattr(function, "__code__", None), "co_filename", "")
            raise Refusal("method", reference, f"it raised {modules.said(error, file)}") from error
        if not isinstance(made, Config):
            raise Refusal("method", reference, f"must return a Config, not {type(made).__name__}")
        for kept in ("dataset", "imbalance"):
            if getattr(made, kept) != getattr(base, kept):
                remedy = (
                    f"must keep the {kept} of the protocol, {getattr(base, kept)}, and returns {getattr(made, kept)}"
                )
                raise Refusal("method", reference, remedy)
        return replace(made, method=name) if made.method == base.method else made

    method.sources = getattr(function, "sources", None)  # type: ignore[attr-defined]
    return method


def source(method: Method, made: Config) -> tuple[Config, str] | None:
    """A method's configuration with the constants of its own code, and in words what these are of it.

    Where a code has none for these data, those for the most similar data are taken, and the words say whose they are:
    CIFAR's for data that are made long-tailed, iNaturalist's for ImageNet-LT and Places-LT. The words name a number of
    epochs that is not the table's.

    Returns:
        None if the method's code has none for such data. The paper's own method has the common protocol and no words.
    """
    known: Sources = getattr(method, "sources", None) or Sources()
    if known.paper:
        return made, ""
    settings: Settings | None = None
    words = "source"
    if facts(made.dataset).natural is None:
        settings = known.cifar
        words += "" if made.dataset in ("cifar10", "cifar100") else ": CIFAR's"
    elif made.dataset in known.second_stages:
        settings, words = known.second_stages[made.dataset], "second stage: source"
    elif facts(made.dataset).lists is not None:  # no folders, whose size may be any
        settings = known.long if made.epochs > 90 and known.long is not None else known.large
        words += "" if made.dataset == "inaturalist2018" else ": iNaturalist's"
    if settings is None:
        return None
    own = replace(made, protocol="source", **settings)
    return own, words if own.epochs == made.epochs else f"{words}, {own.epochs} epochs"
