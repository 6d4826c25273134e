"""Options of the command line: those that several verbs have, and those that installed spaces declare."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from study import modules
from study.errors import Refusal, StudyError, one_line
from study.home import Home
from study.space import Option, Value

Function = TypeVar("Function", bound=Callable[..., Any])


def places(function: Function) -> Function:
    """Where a home and its store are."""
    store = click.option("--store", metavar="URL", help="Where states lie: a folder or URL. [default: HOME/store]")
    home = click.option(
        "--home",
        default="./studies",
        envvar="STUDY_HOME",
        show_default=True,
        show_envvar=True,
        help="Folder for states, MLflow, Optuna and artefacts.",
    )
    return home(store(function))


def machines(function: Function) -> Function:
    """Where and how wide a run is executed."""
    workers = click.option("--workers", type=click.IntRange(min=1), help="Stages at a time. [default: what fits]")
    address = click.option(
        "--address",
        metavar="ADDR",
        help="A Ray cluster (auto, or HOST:PORT), or local. [default: local; of resume: where the run was begun]",
    )
    return workers(address(function))


def gpu_steps(default: str | None, otherwise: str) -> Callable[[Function], Function]:
    """How a GPU is given its steps; `otherwise` is the default in words."""
    return click.option(
        "--gpu-steps",
        type=click.Choice(["auto", "eager", "recorded"]),
        default=default,
        help="For runs on GPUs. recorded: a step is recorded once, as a CUDA graph, and replayed. eager: its "
        "operations are launched one by one, several times slower; to look for a fault. auto: recorded. Steps on image "
        "files or of several ranks are always eager. States have the same names and bits either way. "
        f"[default: {otherwise}]",
    )


def services(function: Function) -> Function:
    """Where a run's records go."""
    tracking = click.option(
        "--tracking-uri", metavar="URI", help="MLflow. [default: MLFLOW_TRACKING_URI, else HOME/mlflow.db]"
    )
    storage = click.option("--storage", metavar="URL", help="Optuna. [default: sqlite:///HOME/optuna.db]")
    return tracking(storage(function))


def run_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the runs of the home."""
    from study.store import records

    try:
        store = Home(os.environ.get("STUDY_HOME", "./studies"), None).store_if_any()
        plans = [] if store is None else records.all_plans(store)
    except StudyError:  # nothing is said while a user types
        return []
    return [plan.run for plan in plans if plan.run.startswith(incomplete)]


def space_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completion: the installed spaces."""
    from study import catalog

    return [name for name in catalog.names() if name.startswith(incomplete)]


class OfSpaces(click.Command):
    """A command that has, behind its first parameter, the options that installed spaces declare."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """All parameters; what is declared is looked up only when the command is used."""
        from study import catalog

        first, *others = super().get_params(ctx)
        own = {parameter.name for parameter in (first, *others)}
        for name in catalog.options():
            if name.replace("-", "_") in own:
                raise Refusal("option", name, "must have another name: `study run` has one of this name")
        return [first, *map(_declared, catalog.options().values()), *others]


def _declared(option: Option) -> click.Option:
    flag = option.kind == "flag"
    kind = click.Choice(option.choices) if option.choices else float if option.kind == "number" else str
    return click.Option(
        [f"--{option.name}"],
        is_flag=flag,
        multiple=option.repeatable,
        type=None if flag else kind,
        metavar=None if flag or option.choices else option.metavar,
        help=option.help,
    )


def of_spaces(given: Mapping[str, Any], named: Sequence[str]) -> dict[str, Value]:
    """The options of spaces that were given.

    Args:
        given: the declared ones, as click has them.
        named: each ``-o``: NAME=VALUE, or NAME=@FILE, which is the file's content and stored with the plan.
    """
    from study import catalog

    found: dict[str, Value] = {}
    for name in catalog.options():
        value = given[name.replace("-", "_")]
        if value is not None and value is not False and value != ():
            found[name] = tuple(dict.fromkeys(value)) if isinstance(value, tuple) else value
            if catalog.options()[name].reference:
                found[name] = _absolute(found[name])
    for each in named:
        name, equals, value = each.partition("=")
        if not name or not equals or name in found:
            raise Refusal("-o", each, "must be NAME=VALUE, each name once")
        if name in catalog.options():
            raise Refusal("-o", each, f"must be given as --{name}")
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise Refusal(
                    "-o", each, f"must be NAME=@FILE with a text file that can be read ({one_line(error)})"
                ) from error
        found[name] = value
    return found


def _absolute(value: Value) -> Value:
    """References as they are found from any folder."""
    if isinstance(value, tuple):
        return tuple(modules.absolute(str(each)) for each in value)
    return modules.absolute(str(value))
