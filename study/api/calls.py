"""Functions that start, resume, load and plan runs. The command line calls them and prints their results."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from study import catalog, launch, modules
from study.api import notebook
from study.api.results import Run
from study.errors import Refusal
from study.execution.progress import Progress
from study.home import Home
from study.launch import Listener, Machines, Where, Wish
from study.planning.stored import Resources
from study.preview import Plan
from study.space import Option, Request, Value
from study.store import records

SpaceLike = str | os.PathLike[str] | catalog.SpaceFunction
HOME = "./studies"  # unless STUDY_HOME names another folder

_PRECISIONS = ("auto", "fp32", "tf32", "bf16")
_GPU_STEPS = ("auto", "eager", "recorded")


def run(
    *spaces: SpaceLike,
    seeds: int | None = None,
    name: str | None = None,
    trials: int | None = None,
    objectives: str | Sequence[str] | None = None,
    early_stop: int | None = None,
    home: str | os.PathLike[str] | None = None,
    store: str | None = None,
    tracking_uri: str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float | None = None,
    ranks_per_trial: int | None = None,
    precision: str = "auto",
    gpu_steps: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    retrain: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: bool = True,
    trained: Callable[[Run], None] | None = None,
    **more_options: Any,
) -> Run:
    """Train one or more spaces, planned together, and return the run.

    Equal prefixes are trained once. The same call continues a run where its last start ended. With more replicates,
    data or points, a call with the same `name` trains what is new. After Ctrl-C, or a notebook's interrupt, the workers
    finish their epoch and save, and the run is returned with the outcome "interrupted"; `study.resume` continues it. A
    second Ctrl-C stops at once and raises `KeyboardInterrupt`.

        run = study.run("table9", seeds=3)
        run = study.run("table6", "table7", data="cifar10", short=True, download=True)
        run = study.run("./mine.py:other", home="/shared/studies")

    Args:
        spaces: the name of an installed space, ``all``, the path of a Python file, the name of a module (both may end
            with ``:function``), or a function from a request to a `study.space.Space`. The source of a function that is
            defined in a notebook is stored in the plan, so the function must be self-contained.
        seeds: the number of replicates of each trial; by default 3, 9 if they are crossed, or 1 per point of an open
            search.
        name: the name of the run; by default it is made from its content.
        trials: the total number of points of an open search.
        objectives: the measures that an open search maximises.
        early_stop: for an open search: this many epochs after the last epoch in which points branch, the points below
            the median end.
        home: folder for states, MLflow, Optuna and artefacts; by default STUDY_HOME, else ``./studies``.
        store: folder or URL for states; by default ``HOME/store``.
        tracking_uri: MLflow's server or database; by default MLFLOW_TRACKING_URI, else ``HOME/mlflow.db``.
        storage: Optuna's database; by default ``HOME/optuna.db``.
        workers: the number of stages at the same time; by default as many as fit.
        address: the address of a Ray cluster (``auto`` or ``HOST:PORT``); by default this machine.
        cpus_per_trial: the number of CPUs of a stage.
        gpus_per_trial: the number of GPUs of a stage, 0 to 1 or a whole number; by default 1 if this machine has a GPU
            and a space trains faster on it.
        ranks_per_trial: the number of processes that train a replicate together; by default one per GPU.
        precision: auto, fp32, tf32 or bf16.
        gpu_steps: auto, eager or recorded.
        data_dir: folder of data sets; by default STUDY_DATA, else ``HOME/data``.
        download: fetch data sets that are missing.
        retrain: start the run `name` anew, if the sources have changed.
        options: options of the spaces by name; `study run --help` and `study show` list them.
        progress: whether to show progress: a bar on a terminal, one line in a notebook, else a line every ten seconds.
        trained: a function that is called with the run when training has ended; MLflow may not have all records yet.
        more_options: options of the spaces as keywords: ``data="cifar10"`` is ``options={"data": "cifar10"}``.

    Raises:
        Refusal: if a choice is refused; nothing is written then. The message names options as the command line does.
    """
    chosen_home = home_at(home, store)
    wish = _wish(
        spaces,
        chosen_home,
        seeds=seeds,
        name=name,
        trials=trials,
        objectives=objectives,
        early_stop=early_stop,
        workers=workers,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        ranks_per_trial=ranks_per_trial,
        precision=precision,
        gpu_steps=gpu_steps,
        data_dir=data_dir,
        options={**(options or {}), **more_options},
    )
    listener = _listener(progress, trained)
    with _misspelt_keywords():
        return _run(launch.run(wish, chosen_home, (tracking_uri, storage), listener, download, retrain))


def plan(
    *spaces: SpaceLike,
    home: str | os.PathLike[str] | None = None,
    store: str | None = None,
    retrain: bool = False,
    options: Mapping[str, Any] | None = None,
    **choices: Any,
) -> Plan:
    """Return the plan and cost of `run` with the same arguments; nothing is trained or written.

        print(study.plan("table9", paper=True, seeds=1))

    Args:
        spaces, home, store, retrain, options: see `run`.
        choices: the other arguments of `run`, and options of the spaces.

    Raises:
        Refusal: if the run would be refused.
    """
    chosen_home = home_at(home, store)
    chosen = {key: choices.pop(key) for key in _WISHES if key in choices}
    for key in ("tracking_uri", "storage", "download", "progress", "trained"):  # they change no plan
        choices.pop(key, None)
    wish = _wish(spaces, chosen_home, options={**(options or {}), **choices}, **chosen)
    with _misspelt_keywords():
        return Plan.of(wish, chosen_home, retrain)


def resume(
    name: str,
    *,
    home: str | os.PathLike[str] | None = None,
    store: str | None = None,
    tracking_uri: str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    gpu_steps: str | None = None,
    retry_failed: bool = False,
    retrain: bool = False,
    progress: bool = True,
    trained: Callable[[Run], None] | None = None,
) -> Run:
    """Continue a run after an interruption, and return it. Its plan is stored, so no other argument is needed.

    Args:
        name: the name of the run, the name of one of its spaces (for the latest run), or a unique prefix of the run's
            name.
        home, store, tracking_uri, storage, workers, address, gpu_steps, progress, trained: see `run`; by default as the
            run began.
        retry_failed: train the replicates again whose training raised an exception; each is a new Optuna trial.
        retrain: start the run anew, if the sources have changed; the old records stay.

    Raises:
        Refusal: if there is no such run, another process trains it, or its sources have changed.
    """
    _one_of("--gpu-steps", gpu_steps, _GPU_STEPS)
    _at_least("--workers", workers, 1)
    machines = Machines(workers, address, gpu_steps)
    listener = _listener(progress, trained)
    services = (tracking_uri, storage)
    return _run(launch.resume(name, home_at(home, store), services, listener, machines, retry_failed, retrain))


def load(name: str, *, home: str | os.PathLike[str] | None = None, store: str | None = None) -> Run:
    """Return a stored run, complete or not; nothing is trained.

        study.load("table9").frame()

    Args:
        name: the name of the run, the name of one of its spaces (for the latest run), or a unique prefix of the run's
            name. If it is the name of one space of several, the `Run` is limited to that space.
        home, store: see `run`.

    Raises:
        Refusal: if there is no such run.
    """
    chosen_home = home_at(home, store)
    opened = chosen_home.existing_store(name)
    stored, space = records.find(opened, name)
    return Run(chosen_home, opened, stored.run, space)


def runs(*, home: str | os.PathLike[str] | None = None, store: str | None = None) -> list[Run]:
    """Return every stored run whose plan can be read, the newest last.

    Args:
        home, store: see `run`.
    """
    chosen_home = home_at(home, store)
    opened = chosen_home.store_if_any()
    return [] if opened is None else [Run(chosen_home, opened, each.run) for each in records.all_plans(opened)]


def home_at(home: str | os.PathLike[str] | None, store: str | None) -> Home:
    """Return the home that the user names, or else the environment."""
    return Home(os.fspath(home) if home is not None else os.environ.get("STUDY_HOME", HOME), store)


def _listener(progress: bool, trained: Callable[[Run], None] | None) -> Listener:
    def tell(where: Where) -> None:
        if trained is not None:
            trained(_run(where))

    return Listener(Progress(progress), tell)


def _run(where: Where) -> Run:
    return Run(where.home, where.store, where.run)


def _wish(
    spaces: Sequence[SpaceLike],
    home: Home,
    *,
    options: Mapping[str, Any],
    seeds: int | None = None,
    name: str | None = None,
    trials: int | None = None,
    objectives: str | Sequence[str] | None = None,
    early_stop: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float | None = None,
    ranks_per_trial: int | None = None,
    precision: str = "auto",
    gpu_steps: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
) -> Wish:
    """Return the checked choices of a run; see `run`."""
    if not spaces:
        raise Refusal("space", None, "must be a name, a path or a function", hint="'study list' shows the names")
    _between("--seeds", seeds, 1, 999)
    _at_least("--trials", trials, 1)
    _at_least("--early-stop", early_stop, 1)
    _at_least("--workers", workers, 1)
    _at_least("--ranks-per-trial", ranks_per_trial, 1)
    _one_of("--precision", precision, _PRECISIONS)
    _one_of("--gpu-steps", gpu_steps, _GPU_STEPS)
    if not _is_number(cpus_per_trial) or cpus_per_trial <= 0 or not math.isfinite(cpus_per_trial):
        raise Refusal("--cpus-per-trial", cpus_per_trial, "must be a finite number above 0")
    if gpus_per_trial is not None and not _is_number(gpus_per_trial):
        raise Refusal("--gpus-per-trial", gpus_per_trial, "must be a number")
    request = Request(options_of(options), trials or 0, _objectives(objectives), early_stop or 0)
    data = data_dir if data_dir is not None else os.environ.get("STUDY_DATA")
    folder = str(Path(data).expanduser().absolute() if data else home.path / "data")
    resources = Resources(
        workers or 0, float(cpus_per_trial), address=address or "", data_dir=folder, gpu_steps=gpu_steps
    )
    references = [notebook.reference(space) if callable(space) else os.fspath(space) for space in spaces]
    return Wish(
        references,
        request,
        seeds,
        resources,
        gpus=None if gpus_per_trial is None else float(gpus_per_trial),
        ranks=ranks_per_trial,
        name=name,
        precision=precision,
    )


_WISHES = tuple(_wish.__kwdefaults__ or ())  # the arguments of `run` that change its plan


@contextmanager
def _misspelt_keywords() -> Iterator[None]:
    """Within this context, suggest an argument of `run` if an unknown option has a similar name."""
    try:
        yield
    except Refusal as refusal:
        name = str(refusal.value).partition("=")[0]
        close = difflib.get_close_matches(name, _WISHES, 1) if refusal.field == "-o" else []
        if not close:
            raise
        raise Refusal("-o", refusal.value, f"unknown option {name!r}. Did you mean {close[0]!r}?") from refusal


def _objectives(objectives: str | Sequence[str] | None) -> tuple[str, ...]:
    if objectives is None:
        return ()
    words = objectives.split(",") if isinstance(objectives, str) else objectives
    names = tuple(word.strip() for word in words)
    if "" in names or len(set(names)) < len(names):
        raise Refusal("--objectives", objectives, "must be different names with commas between them")
    return names


def options_of(given: Mapping[str, Any]) -> dict[str, Value]:
    """Return the options of spaces, checked against their declarations.

    Args:
        given: values by name, with dashes or underscores; None, False and () mean that an option is not given. If no
            installed package declares an option (``-o NAME=VALUE`` on the command line), its value becomes text.
    """
    declared, options = catalog.options(), {}
    for key, value in given.items():
        name = key if key in declared else key.replace("_", "-")
        if value is None or value is False or value == () or value == []:
            continue
        options[name if name in declared else key] = _value(declared[name], value) if name in declared else str(value)
    return options


def _value(option: Option, value: Any) -> Value:
    """Return the value of a declared option as a request holds it."""
    if option.kind == "flag":
        if value is not True:
            raise Refusal(f"--{option.name}", value, "must be true or false")
        return True
    if option.repeatable:
        values = value if isinstance(value, list | tuple) else (value,)
        return tuple(dict.fromkeys(_single(option, each) for each in values))  # type: ignore[return-value]
    return _single(option, value)


def _single(option: Option, value: Any) -> str | float:
    if option.kind == "number":
        if not _is_number(value):
            raise Refusal(f"--{option.name}", value, "must be a number")
        return float(value)
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise Refusal(f"--{option.name}", value, "must be text")
    if option.choices:
        _one_of(f"--{option.name}", text, option.choices)
    return modules.absolute(text) if option.reference else text


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and (not _is_whole(value) or value < least):
        raise Refusal(option, value, f"must be a whole number, at least {least}")


def _between(option: str, value: int | None, least: int, most: int) -> None:
    if value is not None and (not _is_whole(value) or not least <= value <= most):
        raise Refusal(option, value, f"must be between {least} and {most}")


def _one_of(option: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        *others, last = choices
        raise Refusal(option, value, f"must be {', '.join(others)} or {last}")
