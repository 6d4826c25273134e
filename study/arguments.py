"""The command line's options: their types, their groups in the help, and those that installed spaces declare."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from study.errors import Refusal, StudyError, one_line, show_tracebacks
from study.machine import GPU_STEPS
from study.space import Option

Function = TypeVar("Function", bound=Callable[..., Any])

WHAT, HOW_MUCH, WHERE, MACHINE, RECORDS, OTHER = "What", "How much", "Where", "Machine", "Records", "Other"
NARROW = 80  # columns of a terminal; a narrower one gives more of them to the words
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}  # of every command
GROUPS = (WHAT, HOW_MUCH, WHERE, MACHINE, RECORDS, OTHER)


class Whole(click.ParamType):  # type: ignore[type-arg]
    """A whole number; its range is checked where it is used."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, _ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            return int(value)
        except ValueError:
            _refuse(param, value, "must be a whole number")


class Number(click.ParamType):  # type: ignore[type-arg]
    """A number; its range is checked where it is used."""

    name = "X"

    def convert(self, value: Any, param: click.Parameter | None, _ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            return float(value)
        except ValueError:
            _refuse(param, value, "must be a number")


class OneOf(click.Choice[str]):
    """One of several words, which shells complete."""

    def convert(self, value: Any, param: click.Parameter | None, _ctx: click.Context | None) -> str:
        """Return the word."""
        if value not in self.choices:
            *others, last = self.choices
            _refuse(param, value, f"must be {', '.join(others)} or {last}")
        return str(value)


def _refuse(param: click.Parameter | None, value: object, words: str) -> NoReturn:
    name = max(param.opts, key=len) if isinstance(param, click.Option) else str(param and param.human_readable_name)
    raise Refusal(name, value, words)


class Grouped(click.Option):
    """An option in a group of a command's help."""

    def __init__(self, *declarations: Any, group: str = OTHER, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.group = group


def option(*names: str, group: str = OTHER, **settings: Any) -> Callable[[Function], Function]:
    """Declare an option in a group."""
    return click.option(*names, cls=Grouped, group=group, **settings)


class Command(click.Command):
    """A command whose help shows options in groups, if they are in several."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        records: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                records.setdefault(getattr(parameter, "group", OTHER), []).append(record)
        for group in GROUPS:
            if group in records:
                with formatter.section(group if len(records) > 1 else "Options"):
                    formatter.write_dl(records[group], col_max=30 if formatter.width > NARROW else 20)


class SpacesCommand(Command):
    """A command with the options that installed spaces declare, after its first parameter."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all parameters; the declared ones are looked up only when the command is used."""
        from study import catalog

        first, *parameters = super().get_params(ctx)
        taken = {parameter.name for parameter in (first, *parameters)}
        for name in catalog.options():
            if name.replace("-", "_") in taken:
                words = f"the option {name!r} of an installed package is already an option of 'study run'"
                raise Refusal("option", name, words)
        return [first, *map(_declared, catalog.options().values()), *parameters]


def _declared(option: Option) -> click.Option:
    flag = option.kind == "flag"
    kind = OneOf(option.choices) if option.choices else Number() if option.kind == "number" else str
    return Grouped(
        [f"--{option.name}"],
        group=WHAT,
        is_flag=flag,
        multiple=option.repeatable,
        type=None if flag else kind,
        metavar=None if flag or option.choices else option.metavar,
        help=option.help,
    )


class Verbs(click.Group):
    """A group of commands that names the closest one when a command is unknown."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, and what follows it."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.commands, 1)
            hint = f"Did you mean {close[0]!r}?" if close else "'study --help' shows all"
            raise Refusal("command", args[0], f"unknown command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


def places(function: Function) -> Function:
    """Declare where a home and its store are."""
    store = option(
        "--store",
        group=WHERE,
        metavar="URL",
        envvar="STUDY_STORE",
        show_envvar=True,
        help="Folder or URL for states. [default: HOME/store]",
    )
    home = option(
        "--home",
        group=WHERE,
        metavar="DIR",
        envvar="STUDY_HOME",
        show_default="./studies",
        show_envvar=True,
        help="Folder for states, MLflow, Optuna and artefacts.",
    )
    return home(store(function))


def machines(function: Function) -> Function:
    """Declare where and how wide a run is executed."""
    workers = option(
        "--workers",
        group=MACHINE,
        type=Whole(),
        help="Number of stages at the same time; on a cluster, those that do not fit wait for machines that join. "
        "[default: as many as fit]",
    )
    address = option(
        "--address",
        group=MACHINE,
        metavar="ADDR",
        help="Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local for this machine. [default: RAY_ADDRESS, else "
        "local, or for resume as the run began]",
    )
    return workers(address(function))


def named(function: Function) -> Function:
    """Declare options of single spaces."""
    return option(
        "-o",
        "named",
        group=WHAT,
        multiple=True,
        metavar="NAME=VALUE",
        help="Option of a single space, as 'study show' lists it; @FILE stands for the content of a file; repeatable.",
    )(function)


def seeds(function: Function) -> Function:
    """Declare the number of replicates."""
    return option(
        "--seeds",
        group=HOW_MUCH,
        type=Whole(),
        help="Replicates of each trial. [default: 3; 9 if they are crossed; 1 per point of an open search]",
    )(function)


def data_dir(function: Function) -> Function:
    """Declare where the data are."""
    return option(
        "--data-dir",
        group=WHERE,
        metavar="DIR",
        envvar="STUDY_DATA",
        show_envvar=True,
        help="Folder of data sets. [default: HOME/data]",
    )(function)


def shares(function: Function) -> Function:
    """Declare the CPUs and GPUs of a stage."""
    cpus = option(
        "--cpus-per-trial",
        group=MACHINE,
        type=Number(),
        show_default="1",
        help="CPUs of a stage, for its threads and for the decoding of images; its ranks share them. For a stage on a "
        "GPU, images are decoded by the GPU's share of its machine's CPUs, if that is more.",
    )
    gpus = option(
        "--gpus-per-trial",
        group=MACHINE,
        type=Number(),
        help="GPUs of a stage: 0 to 1, or a whole number. From 2 on, each GPU has one process, which trains on its "
        "share of every batch. Stages on one GPU take turns, unless NVIDIA's MPS serves them. [default: 1 if this "
        "machine or the cluster has a GPU and a space trains faster on it; else 0]",
    )
    return cpus(gpus(function))


def detach(function: Function) -> Function:
    """Declare whether a start goes on in the background."""
    words = "Train in the background, on a cluster as a job of Ray, and return when all checks have passed: "
    words += "print the name of the run on stdout."
    return option("--detach", group=MACHINE, is_flag=True, help=words)(function)


def gpu_steps(default: str) -> Callable[[Function], Function]:
    """Declare how a GPU runs a training step; `default` is in words."""
    return option(
        "--gpu-steps",
        group=MACHINE,
        type=OneOf(GPU_STEPS),
        help="How a GPU runs a training step: recorded (as a CUDA graph), eager (operation by operation, several times "
        "slower, for debugging) or auto (recorded). Training on image files or with several ranks is always eager. The "
        f"bits are the same. [default: {default}]",
    )


def services(function: Function) -> Function:
    """Declare where a run's records go."""
    storage = option(
        "--storage",
        group=RECORDS,
        metavar="URL",
        help="Optuna's database. [default: STUDY_STORAGE, else HOME/optuna.db]",
    )
    return tracking(storage(function))


def tracebacks(function: Function) -> Function:
    """Declare whether errors of the user's code are shown with their traceback."""

    def enable(_context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
        if wanted:
            show_tracebacks()

    words = "Also write the traceback of an error, to stderr."
    return option("--traceback", is_flag=True, expose_value=False, callback=enable, help=words)(function)


def tracking(function: Function) -> Function:
    """Declare where MLflow is."""
    return option(
        "--tracking-uri",
        group=RECORDS,
        metavar="URI",
        help="MLflow's server or database. [default: MLFLOW_TRACKING_URI, else HOME/mlflow.db]",
    )(function)


def run_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a run of the home."""
    from study.api.calls import home_at
    from study.store import records

    try:
        store = home_at(None, None).store_if_any()
        plans = [] if store is None else records.all_plans(store)
    except StudyError:  # a user who types gets no message
        return []
    return [plan.run for plan in plans if plan.run.startswith(incomplete)]


def space_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of an installed space."""
    from study import catalog

    return [name for name in catalog.names() if name.startswith(incomplete)]


def declared(named: Sequence[str], choices: dict[str, Any]) -> dict[str, Any]:
    """Take the options of spaces, and those that were not given, out of the choices of a command.

    Args:
        named: the values of ``-o``.
        choices: by name; what is left are arguments of `study.run`.

    Returns:
        The options of spaces by name.
    """
    from study import catalog

    options = {name: choices.pop(name.replace("-", "_")) for name in catalog.options()}
    for name in [name for name, value in choices.items() if value is None]:
        del choices[name]
    return {**options, **named_options(named)}


def named_options(given: Sequence[str]) -> dict[str, str]:
    """Return the options of single spaces.

    Args:
        given: the values of ``-o``: NAME=VALUE, or NAME=@FILE. The content of the file is stored with the plan.
    """
    from study import catalog

    options: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals or name in options:
            raise Refusal("-o", each, "must be NAME=VALUE, with a different NAME in each -o")
        if name.replace("_", "-") in catalog.options():
            raise Refusal("-o", each, f"must be given as --{name.replace('_', '-')}")
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise Refusal("-o", each, "must be NAME=@FILE with a readable text file", one_line(error)) from error
        options[name] = value
    return options
