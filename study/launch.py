"""The start of a run: it is planned and checked, and only then trained, here or in the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from study import detached
from study.errors import Away, StudyError
from study.execution.address import Cluster
from study.execution.progress import Progress
from study.home import Home
from study.intent import Given, Ready, intend
from study.planning import tree
from study.planning.draft import Draft
from study.planning.growth import drawn_again, taken_up
from study.store import records
from study.store.starts import refuse_second
from study.store.states import Store
from study.whereabouts import data_dir_of, home_of, recorded
from study.wish import Machines, Wish, check_gpu_steps


@dataclass(frozen=True)
class Where:
    """The home, store and name of a run.

    Attributes:
        outcome: how its start ended: complete, failed or interrupted; "" before the end, or in the background.
    """

    home: Home
    store: Store
    run: str
    outcome: str = ""


@dataclass(frozen=True)
class Listener:
    """The user's view of a start.

    Attributes:
        progress: shows the progress of training.
        trained: called when training has ended and the report can be made; MLflow may not have all records yet.
        detached: whether the user does not wait for the training, which goes on in the background.
    """

    progress: Progress
    trained: Callable[[Where], None]
    detached: bool = False


def run(
    wish: Wish, home: Home, services: Given, listener: Listener, download: bool, verify: bool, retrain: bool
) -> Where:
    """Begin a run, continue it, or let it grow.

    Args:
        wish: the user's choices.
        home: where the run's files are.
        services: the URLs of its records.
        listener: the user's view.
        download: fetch data sets that are missing.
        verify: read all data completely, to find damaged files.
        retrain: start a stored run anew, because the sources have changed.
    """
    intent = intend(wish, home, services, download, verify, retrain, listener.progress.say, listener.detached)
    note_left_out(intent.drafted, listener.progress)
    for check in intent.checks:
        check()
    if intent.damage is not None:
        listener.progress.say(f"damaged: {intent.damage}; the plan is made again")
    return _begin(intent.ready(), listener, Machines())


def resume(
    name: str,
    home: Home,
    services: Given,
    listener: Listener,
    machines: Machines,
    retry_failed: bool,
    retrain: bool,
) -> Where:
    """Continue a run whose plan is stored.

    Args:
        name: the name of the run or of one of its spaces, or a unique prefix of the run's name.
        home: where the run's files are.
        services: the URLs of its records, if they have moved.
        listener: the user's view.
        machines: the machines and resources, if they differ from the plan's.
        retry_failed: train the replicates again whose training raised an exception.
        retrain: start the run anew, because the sources have changed.
    """
    store = home.existing_store(name)
    plan, _ = records.find(store, name)
    refuse_second(store, plan.run, listener.progress.say, briefly=listener.detached)
    chosen = recorded(plan, *services)
    machines = replace(machines, data_dir=machines.data_dir or data_dir_of(plan, home))
    changes = {field: value for field, value in asdict(machines).items() if value is not None}
    resources = replace(plan.resources, **changes)
    check_gpu_steps(resources.gpu_steps, plan.machine)
    home = home_of(plan, home, chosen)
    Cluster(resources.address).check()
    drafted = taken_up(plan, drawn_again(plan), retrain)
    home.check_services(*chosen, may_be_away=True)
    if tree.missing(drafted.recipes.values(), store.keys()):  # else the data are not needed
        drafted.work.prepare(drafted.configs, Path(resources.data_dir), False)
    home.make(store)
    return _begin(Ready(drafted, plan, store, home, chosen, resources, retry_failed), listener, machines)


def _begin(ready: Ready, listener: Listener, machines: Machines) -> Where:
    ready.drafted.plan = replace(ready.drafted.plan, home=str(ready.home.path))  # it may have been moved
    where = Where(ready.home, ready.store, ready.run)
    try:
        if listener.detached:
            detached.begin(ready, machines, listener.progress.say)
            return where
        return _train(ready, where, listener)
    except BaseException as error:
        if not isinstance(error, StudyError) or isinstance(error, Away):
            error.add_note(ready.advice(error))
        raise


def _train(ready: Ready, where: Where, listener: Listener) -> Where:
    from study.execution import driver
    from study.execution.projection import Services

    home, (tracking, storage) = ready.home, ready.chosen
    listener.progress.note(f"run {ready.run}")
    for _, problem, advice in home.shared_databases(tracking, storage):
        listener.progress.say(f"warning: {problem}. {advice}")
    outcome = driver.start(
        ready.drafted,
        ready.before,
        ready.store,
        Services(home.tracking_uri(tracking), home.artifacts, home.storage(storage)),
        ready.resources,
        lambda: listener.trained(where),
        listener.progress,
        ready.retry_failed,
        home.options(),
    )
    return replace(where, outcome=outcome)


def note_left_out(drafted: Draft, progress: Progress) -> None:
    """Print the spaces that `all` leaves out, with the reasons."""
    for name, reason in drafted.left_out.items():
        progress.note(f"left out: {name}: {reason}")
