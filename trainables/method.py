"""Methods by reference: a method is a function from a protocol to the method's configuration. Pure: no torch.

By default, all methods follow the protocol that they are given, which is the paper's (``recipe = common``). They share
the first epochs of cross-entropy if these are the same: deferral begins at m + S, and second stages have 30 epochs. The
different constants of a method's published code are in the method's file (`sourced`).
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
from trainables.references import known_names, suggestion

Method = Callable[[Config], Config]
Settings = Mapping[str, Any]  # fields of a `Config`

_FOLDER = Path(__file__).parent / "methods"


@dataclass(frozen=True)
class Sources:
    """The constants of a method's published code (``recipe = source``), by data.

    Attributes:
        cifar: constants on CIFAR.
        large: constants on iNaturalist, which are also used on ImageNet-LT and Places-LT.
        long: constants like `large` for more than 90 epochs; None for those of `large`.
        second_stages: constants of the second stage, by data set; the first stage is the common one.
        paper: whether this is the paper's own method, which has no other constants.
    """

    cifar: Settings | None = None
    large: Settings | None = None
    long: Settings | None = None
    second_stages: Mapping[str, Settings] = field(default_factory=dict)
    paper: bool = False


def sourced(**sources: Any) -> Callable[[Method], Method]:
    """Return a decorator that attaches the constants of its published code to a method; see `Sources`."""

    def decorate(method: Method) -> Method:
        method.sources = Sources(**sources)  # type: ignore[attr-defined]
        return method

    return decorate


@cache
def names() -> tuple[str, ...]:
    """Return the names of the built-in methods."""
    return tuple(path.stem for path in sorted(_FOLDER.glob("[a-z]*.py")) if _built_in(path.stem) is not None)


def _built_in(name: str) -> Method | None:
    module = importlib.import_module(f"trainables.methods.{name}")
    function = getattr(module, name, None)
    return function if inspect.isfunction(function) else None


def find(reference: str) -> Method:
    """Return a method by reference.

    Args:
        reference: a name of `names`, ``package.module:function`` or ``./file.py:function``.

    Raises:
        Refusal: if there is no such method.
    """
    where, _, name = reference.partition(":")
    if modules.is_file(where) or modules.is_dotted(where):
        function = getattr(modules.find(where, "method", reference, ships=True), name, None)
        if not name or not callable(function):
            hint = "The function takes a Config and returns a Config"
            raise Refusal("method", reference, f"must have the form {where}:FUNCTION", hint)
        return _checked(function, reference, name)
    if reference not in names():
        hint = suggestion(reference, names())
        raise Refusal("method", reference, f"must be {known_names(names(), 'function')}", hint)
    built_in = _built_in(reference)
    assert built_in is not None
    return built_in


def _checked(function: Method, reference: str, name: str) -> Method:
    """Return a user's function with checks of its result; the method's name is the function's if it sets no other."""

    def method(base: Config) -> Config:
        try:
            config: object = function(base)
        except Refusal:
            raise
        except Exception as error:
            file = getattr(getattr(function, "__code__", None), "co_filename", "")
            words = f"method '{reference}' raised {modules.said(error, file)}"
            raise Refusal("method", reference, words) from error
        if not isinstance(config, Config):
            raise Refusal("method", reference, "must return a Config", f"It returned {type(config).__name__}")
        for attribute in ("dataset", "imbalance"):
            protocol, returned = getattr(base, attribute), getattr(config, attribute)
            if returned != protocol:
                hint = f"The protocol has {protocol}, the method returned {returned}"
                raise Refusal("method", reference, f"must keep the {attribute} of the protocol", hint)
        return replace(config, method=name) if config.method == base.method else config

    method.sources = getattr(function, "sources", None)  # type: ignore[attr-defined]
    return method


def source(method: Method, config: Config) -> tuple[Config, str] | None:
    """Return a method's configuration with the constants of its published code, and a description of them.

    Where a code has no constants for these data, those for the most similar data are taken, and the description names
    these data: CIFAR for data that are made long-tailed, iNaturalist for ImageNet-LT and Places-LT. The description
    also names a number of epochs that differs from the table's.

    Args:
        method: the method.
        config: the method's configuration under the common protocol.

    Returns:
        The configuration and the description, or None if the method's code has no constants for such data. The paper's
        own method has the common protocol and no description.
    """
    sources: Sources = getattr(method, "sources", None) or Sources()
    if sources.paper:
        return config, ""
    settings: Settings | None = None
    words = "source"
    if facts(config.dataset).natural is None:
        settings = sources.cifar
        words += "" if config.dataset in ("cifar10", "cifar100") else ": CIFAR's"
    elif config.dataset in sources.second_stages:
        settings, words = sources.second_stages[config.dataset], "second stage: source"
    elif facts(config.dataset).lists is not None:  # not for folders, whose size is unknown
        settings = sources.long if config.epochs > 90 and sources.long is not None else sources.large
        words += "" if config.dataset == "inaturalist2018" else ": iNaturalist's"
    if settings is None:
        return None
    changed = replace(config, protocol="source", **settings)
    return changed, words if changed.epochs == config.epochs else f"{words}, {changed.epochs} epochs"
