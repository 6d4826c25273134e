"""Functions that start, resume, load and plan runs. The command line calls them and prints their results."""

from __future__ import annotations

import difflib
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from study import catalog, launch
from study.api import choices, notebook
from study.api.results import Run
from study.errors import Refusal
from study.execution.progress import Progress
from study.home import Home
from study.launch import Listener, Where
from study.machine import GPU_STEPS, PRECISIONS
from study.planning.stored import Resources
from study.preview import Plan
from study.space import Request
from study.store import records
from study.wish import Machines, Wish

SpaceLike = str | os.PathLike[str] | catalog.SpaceFunction
HOME = "./studies"  # unless STUDY_HOME names another folder


def run(
    *spaces: SpaceLike | Sequence[SpaceLike],
    seeds: int | None = None,
    name: str | None = None,
    trials: int | None = None,
    objectives: str | Sequence[str] | None = None,
    early_stop: int | None = None,
    home: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
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
    verify_images: bool = False,
    retrain: bool = False,
    detach: bool = False,
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
        store: folder or URL for states; by default STUDY_STORE, else ``HOME/store``.
        tracking_uri: MLflow's server or database; by default MLFLOW_TRACKING_URI, else ``HOME/mlflow.db``.
        storage: Optuna's database; by default STUDY_STORAGE, else ``HOME/optuna.db``.
        workers: the number of stages at the same time; by default as many as fit. On a cluster, those that do not fit
            wait for machines that join.
        address: the address of a Ray cluster (``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``), or ``local`` for this
            machine; by default RAY_ADDRESS, else ``local``.
        cpus_per_trial: the number of CPUs of a stage.
        gpus_per_trial: the number of GPUs of a stage, 0 to 1 or a whole number; by default 1 if this machine or the
            cluster has a GPU and a space trains faster on it.
        ranks_per_trial: the number of processes that train a replicate together; by default one per GPU.
        precision: auto, fp32, tf32 or bf16.
        gpu_steps: auto, eager or recorded.
        data_dir: folder of data sets; by default STUDY_DATA, else ``HOME/data``.
        download: fetch data sets that are missing.
        verify_images: decode all image files completely before training, not only their headers.
        retrain: start the run `name` anew, if the sources have changed.
        detach: train in the background, on a cluster as a job of Ray, and return when all checks have passed.
        options: options of the spaces by name; `study run --help` and `study show` list them.
        progress: whether to show progress: a bar on a terminal, one line in a notebook, else a line every ten seconds.
        trained: a function that is called with the run when training has ended; MLflow may not have all records yet.
        more_options: options of the spaces as keywords: ``data="cifar10"`` is ``options={"data": "cifar10"}``.

    Raises:
        Refusal: if a choice is refused. The message names options as the command line does. Nothing has been written
            then, unless Ray, MLflow or Optuna refuses its address when it starts.
    """
    chosen_home = home_at(home, store)
    choices.check_text("--tracking-uri", tracking_uri)
    choices.check_text("--storage", storage)
    choices.check_flag("--download", download)
    choices.check_flag("--verify-images", verify_images)
    choices.check_flag("--retrain", retrain)
    wish = wish_of(
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
        options=choices.merged(options, more_options),
    )
    listener = _listener(progress, trained, detach)
    with _misspelt(more_options):
        services = (tracking_uri, storage)
        return _run(launch.run(wish, chosen_home, services, listener, download, verify_images, retrain))


def plan(
    *spaces: SpaceLike | Sequence[SpaceLike],
    home: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    storage: str | None = None,
    download: bool = False,
    verify_images: bool = False,
    retrain: bool = False,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Plan:
    """Return the plan and cost of `run` with the same arguments; nothing is trained, written or downloaded.

    If the run could not start now (a server does not answer, or data are missing), `Plan.obstacles` says why. With
    `download`, missing data are no obstacle.

        print(study.plan("table9", paper=True, seeds=1))

    Args:
        spaces, home, store, tracking_uri, storage, download, verify_images, retrain, options: see `run`.
        more: the other arguments of `run` that say what is trained and where, and options of the spaces.

    Raises:
        Refusal: as `run`, except for what this machine, its servers or its data lack.
    """
    chosen_home = home_at(home, store)
    chosen = {key: more.pop(key) for key in WISHES if key in more}
    for key in ("progress", "trained", "detach"):  # they change no plan
        more.pop(key, None)
    choices.check_text("--tracking-uri", tracking_uri)
    choices.check_text("--storage", storage)
    choices.check_flag("--download", download)
    choices.check_flag("--verify-images", verify_images)
    choices.check_flag("--retrain", retrain)
    wish = wish_of(spaces, chosen_home, options=choices.merged(options, more), **chosen)
    with _misspelt(more):
        return Plan.of(wish, chosen_home, (tracking_uri, storage), download, verify_images, retrain)


def resume(
    name: str,
    *,
    home: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    gpu_steps: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
    retrain: bool = False,
    detach: bool = False,
    progress: bool = True,
    trained: Callable[[Run], None] | None = None,
) -> Run:
    """Continue a run after an interruption, and return it. Its plan is stored, so no other argument is needed.

    Args:
        name: the name of the run, the name of one of its spaces (for the latest run), or a unique prefix of the run's
            name.
        home, store, tracking_uri, storage, workers, address, gpu_steps, progress, trained: see `run`; by default as the
            run began.
        data_dir: folder of data sets; by default as the run began or, if this machine has no such folder, STUDY_DATA.
        retry_failed: train the replicates again whose training raised an exception; each is a new Optuna trial.
        retrain: start the run anew, if the sources have changed; the old records stay.
        detach: train in the background; see `run`.

    Raises:
        Refusal: if there is no such run, another process trains it, or its sources have changed.

    A plan names the files of its own spaces, losses and the like, and holds their sources, as it holds those of a
    notebook's functions. To resume a run executes them. Resume only the runs of people whom you trust.
    """
    for option, text in (
        ("RUN", name),
        ("--tracking-uri", tracking_uri),
        ("--storage", storage),
        ("--address", address),
    ):
        choices.check_text(option, text)
    choices.check_flag("--retry-failed", retry_failed)
    choices.check_flag("--retrain", retrain)
    choices.check_one_of("--gpu-steps", gpu_steps, GPU_STEPS)
    choices.check_at_least("--workers", workers, 1)
    choices.check_path("--data-dir", data_dir)
    folder = None if data_dir is None else str(Path(data_dir).expanduser().absolute())
    machines = Machines(workers, address_of(address), gpu_steps, folder)
    listener = _listener(progress, trained, detach)
    services = (tracking_uri, storage)
    return _run(launch.resume(name, home_at(home, store), services, listener, machines, retry_failed, retrain))


def load(name: str, *, home: str | os.PathLike[str] | None = None, store: str | os.PathLike[str] | None = None) -> Run:
    """Return a stored run, complete or not; nothing is trained.

        study.load("table9").frame()

    Args:
        name: the name of the run, the name of one of its spaces (for the latest run), or a unique prefix of the run's
            name. If it is the name of one space of several, the `Run` is limited to that space.
        home, store: see `run`.

    Raises:
        Refusal: if there is no such run.
    """
    choices.check_text("RUN", name)
    chosen_home = home_at(home, store)
    opened = chosen_home.existing_store(name)
    stored, space = records.find(opened, name)
    return Run(chosen_home, opened, stored.run, space)


def runs(*, home: str | os.PathLike[str] | None = None, store: str | os.PathLike[str] | None = None) -> list[Run]:
    """Return every stored run, the newest last; without those whose plan cannot be read.

    Args:
        home, store: see `run`.
    """
    chosen_home = home_at(home, store)
    opened = chosen_home.store_if_any()
    return [] if opened is None else [Run(chosen_home, opened, each.run) for each in records.all_plans(opened)]


def home_at(home: str | os.PathLike[str] | None, store: str | os.PathLike[str] | None) -> Home:
    """Return the home that the user, or else the environment, names."""
    choices.check_path("--home", home)
    choices.check_path("--store", store)
    store = os.environ.get("STUDY_STORE") or None if store is None else os.fspath(store)
    return Home(os.fspath(home) if home is not None else os.environ.get("STUDY_HOME") or HOME, store)


def _listener(progress: bool, trained: Callable[[Run], None] | None, detach: bool) -> Listener:
    """Return the user's view of a start.

    Raises:
        Refusal: in a thread: signals, which stop a run, reach the main thread only.
    """
    choices.check_flag("--detach", detach)
    thread = threading.current_thread()
    if thread is not threading.main_thread():
        words = f"a run must be started from the main thread, and this is {thread.name!r}"
        raise Refusal("thread", thread.name, words, hint="Start a process for it, with 'study run' for example")

    def tell(where: Where) -> None:
        if trained is not None:
            trained(_run(where))

    return Listener(Progress(progress), tell, detach)


def _run(where: Where) -> Run:
    return Run(where.home, where.store, where.run, outcome=where.outcome)


def wish_of(
    spaces: Sequence[SpaceLike | Sequence[SpaceLike]],
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
    listed: list[Any] = [space for each in spaces for space in (each if isinstance(each, list | tuple) else [each])]
    if not listed:
        raise Refusal("space", None, "must be a name, a path or a function", hint="'study list' shows the names")
    choices.check_text("--name", name)
    choices.check_text("--address", address)
    choices.check_path("--data-dir", data_dir)
    choices.check_between("--seeds", seeds, 1, 999)
    choices.check_at_least("--trials", trials, 1)
    choices.check_at_least("--early-stop", early_stop, 1)
    choices.check_at_least("--workers", workers, 1)
    choices.check_at_least("--ranks-per-trial", ranks_per_trial, 1)
    choices.check_one_of("--precision", precision, PRECISIONS)
    choices.check_one_of("--gpu-steps", gpu_steps, GPU_STEPS)
    if not choices.is_number(cpus_per_trial):
        raise Refusal("--cpus-per-trial", cpus_per_trial, "must be a number")
    if gpus_per_trial is not None and not choices.is_number(gpus_per_trial):
        raise Refusal("--gpus-per-trial", gpus_per_trial, "must be a number")
    request = Request(choices.options_of(options), trials or 0, choices.objectives_of(objectives), early_stop or 0)
    data = data_dir if data_dir is not None else os.environ.get("STUDY_DATA")
    folder = str(Path(data).expanduser().absolute() if data else home.path / "data")
    resources = Resources(
        workers or 0, float(cpus_per_trial), address=address_of(address) or "", data_dir=folder, gpu_steps=gpu_steps
    )
    references = [_reference(space) for space in listed]
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


def address_of(address: str | None) -> str | None:
    """Return the address of a cluster that the user, or else Ray's variable, names: "" for this machine, or None."""
    chosen = address or os.environ.get("RAY_ADDRESS") or None
    return "" if chosen == "local" else chosen


def _reference(space: SpaceLike) -> str:
    if callable(space):
        return notebook.reference(space)
    if not isinstance(space, str | os.PathLike):
        raise Refusal("space", space, "must be a name, a path or a function")
    return os.fspath(space)


WISHES = tuple(wish_of.__kwdefaults__ or ())  # the arguments of `run` that change its plan


@contextmanager
def _misspelt(keywords: Mapping[str, Any]) -> Iterator[None]:
    """Within this context, suggest an argument of `run` or an option if an unknown keyword has a similar name."""
    try:
        yield
    except Refusal as refusal:
        name = str(refusal.value).partition("=")[0]
        if refusal.field != "-o" or name not in keywords:
            raise
        arguments = set(inspect.signature(run).parameters) - {"spaces", "more_options"}
        close = difflib.get_close_matches(name, [*catalog.options(), *sorted(arguments)], 1)
        hint = f"Did you mean {close[0]!r}?" if close else refusal.hint
        if name == "dry_run":
            hint = "'study.plan' plans without training"
        raise Refusal("-o", refusal.value, f"unknown option {name!r}", hint) from refusal
