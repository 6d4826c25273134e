"""Checks of what `study cluster` writes into files: `study run` would refuse it on the cluster, perhaps hours later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from study import arguments
from study.errors import Refusal
from study.execution.address import Cluster
from study.home import Home
from study.masking import without_password


@dataclass(frozen=True)
class _Later(Cluster):
    """A cluster that will be started, and has as many GPUs as are asked for."""

    gpus: int = 0

    @cached_property
    def resources(self) -> Mapping[str, float]:
        """The GPUs of one machine."""
        return {"GPU": self.gpus}


def check_words(words: Sequence[str], gpus: int, volume: str | None) -> None:
    """Check the spaces and options of `study run`, and plan the run. No data are read, but for those in a folder.

    Args:
        words: the spaces and options.
        gpus: the GPUs of each machine.
        volume: a folder that only the cluster has. What is refused, if a word names it, may be there.

    Raises:
        Refusal: if `study run` refuses them, or if an option is one that a recipe gives.
        click.UsageError: if `study run` has no such option.
    """
    from study.api import calls

    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    context = root.command.commands["run"].make_context("run", list(words), parent=root)
    given = "This command gives it to 'study run' itself; some of its own options stand before SPACE"
    ended = "A job that ends before the run does would stop Ray"
    hints = dict.fromkeys(("address", "home", "store", "data_dir", "tracking_uri", "storage"), given)
    for name, hint in {**hints, "detach": ended, "dry_run": ended}.items():
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            value = context.params[name]
            shown = without_password(value) if isinstance(value, str) else value
            raise Refusal(f"--{name.replace('_', '-')}", shown, "must not come after SPACE", hint=hint)
    choices = {name: value for name, value in context.params.items() if name not in hints}
    spaces, named = choices.pop("spaces"), choices.pop("named")
    options = arguments.declared(named, choices)
    chosen = {name: value for name, value in choices.items() if name in calls.WISHES}
    try:
        wish = calls.wish_of(spaces, Home(os.sep, None), options=options, address="auto", **chosen)
        wish.draft(_Later("auto", gpus)).plan.check()
    except Refusal:
        if volume is None or not any(f"{volume}/" in word for word in words):
            raise


def check_records(tracking_uri: str | None, storage: str | None, home: str, in_image: bool) -> None:
    """Check the URLs of MLflow and Optuna; no server is asked.

    Args:
        tracking_uri, storage: the URLs; None for what `study run` takes by default.
        home: the folder of the run, which may not exist yet.
        in_image: whether an image has the drivers of databases, and not this environment.

    Raises:
        Refusal: if one is malformed, or its driver is missing.
    """
    from study import services

    checks = (("--tracking-uri", tracking_uri, services.check_tracking), ("--storage", storage, services.check_storage))
    for option, url, check in checks:
        try:
            if url is not None:
                check(option, url, Path(home))
        except Refusal as refusal:
            if not (in_image and isinstance(refusal.__cause__, ImportError)):
                raise
    if tracking_uri is not None and storage is not None:
        services.check_apart("--storage", storage, tracking_uri)
