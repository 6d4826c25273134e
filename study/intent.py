"""A run as it is about to start: its plan beside the one that is stored under its name, and what must be checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from study.errors import Damaged, Refusal, StudyError, one_line
from study.execution.address import Cluster
from study.home import Home
from study.machine import cpus, has_gpu
from study.masking import without_password
from study.planning.draft import Draft
from study.planning.growth import taken_up
from study.planning.stored import Plan, Resources
from study.store import records
from study.store.starts import refuse_second
from study.store.states import Store
from study.whereabouts import home_of, recorded
from study.wish import Wish

Given = tuple[str | None, str | None]  # the URLs of MLflow and Optuna as the user gave them


@dataclass(frozen=True)
class Intent:
    """A run as it is about to start: its plan beside the one that is stored, and where everything is.

    Attributes:
        drafted: the plan, with what is kept of the stored one.
        before: the stored plan, if there is one.
        damage: why the stored plan cannot be read, if it is damaged; it is made again.
        store: the store, if it has been made.
        home: where the run's files are.
        chosen: the URLs of MLflow and Optuna; "" for the home's databases.
        checks: what must hold on this machine and its servers before the run may start; each raises if it does not.
    """

    drafted: Draft
    before: Plan | None
    damage: Damaged | None
    store: Store | None
    home: Home
    chosen: tuple[str, str]
    checks: tuple[Callable[[], object], ...]

    def obstacles(self) -> list[str]:
        """Return why the run could not start now. Nothing is written."""
        reasons = []
        for check in self.checks:
            try:
                check()
            except (StudyError, OSError) as error:
                reasons.append(one_line(error))
        return reasons

    def ready(self) -> Ready:
        """Make the home and the store, which is the first that is written, and return the run that may begin now."""
        store, resources = self.home.make(self.store), self.drafted.plan.resources
        return Ready(self.drafted, self.before, store, self.home, self.chosen, resources)


@dataclass(frozen=True)
class Ready:
    """A run whose checks have passed, and which may begin.

    Attributes:
        drafted, before, home, chosen: see `Intent`.
        store: the store of its states.
        resources: where this start is executed, and the resources of a stage.
        retry_failed: whether to train the replicates again whose training raised an exception.
    """

    drafted: Draft
    before: Plan | None
    store: Store
    home: Home
    chosen: tuple[str, str]
    resources: Resources
    retry_failed: bool = False

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.drafted.plan.run

    def advice(self, error: BaseException) -> str:
        """Return what a start leaves that an error has ended, and how to go on."""
        before = self.before
        with suppress(StudyError, OSError):  # the store cannot be read: what was known at the start counts
            before = records.load_plan(self.store, self.run)
        if before is None:
            return "Nothing was stored"
        resume = f"'study resume {self.run}{self.home.options()}' continues the run"
        if isinstance(error, KeyboardInterrupt):
            return f"Saved states stay, and {resume}"
        return f"Saved states stay. When the cause is mended, {resume}"


def intend(
    wish: Wish,
    home: Home,
    services: Given,
    download: bool,
    verify: bool,
    retrain: bool,
    say: Callable[[str], None],
    briefly: bool = False,
    dry: bool = False,
) -> Intent:
    """Plan a run beside what is stored under its name, and list what must be checked before it starts.

    Args:
        wish: the user's choices.
        home: where the run's files are.
        services: the URLs of its records.
        download: fetch data sets that are missing, as one of the checks.
        verify: read all data completely, as one of the checks, to find damaged files.
        retrain: start a stored run anew, because the sources have changed.
        say: a function that shows a line to the user.
        briefly: see `refuse_second`.
        dry: let the checks download nothing: with `download`, data sets are then not checked.
    """
    cluster = Cluster(wish.resources.address)
    drafted = wish.draft(cluster, dry)
    resources, run = drafted.plan.resources, drafted.plan.run
    store = home.store_if_any()
    before, damage = _stored(store, run)
    if retrain and before is None and damage is None:
        words = f"--retrain needs a stored run, and there is no run {run!r} yet. Leave it out"
        raise Refusal("--retrain", run, words)
    chosen = home.chosen(*services) if before is None else recorded(before, *services)
    home = home if before is None else home_of(before, home, chosen)
    configs, work, data_dir = drafted.configs, drafted.work, Path(resources.data_dir)
    if verify and work.verify is None:
        words = f"--verify-images must be left out: the data of {drafted.plan.study} are no images"
        raise Refusal("--verify-images", "--verify-images", words)

    def check_data() -> None:
        if not (download and dry):
            work.prepare(configs, data_dir, download)
            if verify and work.verify is not None:
                work.verify(configs, data_dir)

    checks = (
        lambda: refuse_second(store, run, say, briefly) if store is not None else None,
        home.check_writable,
        lambda: home.check_services(*chosen),
        cluster.check,
        lambda: _check_machine(resources),
        check_data,  # the last one, because it may download
    )
    if before is None:
        kept = [without_password(url) for url in chosen]
        drafted.plan = replace(drafted.plan, tracking_uri=kept[0], storage=kept[1])
    else:
        drafted = taken_up(before, drafted, retrain)
    drafted.plan.check()
    return Intent(drafted, before, damage, store, home, chosen, checks)


def _check_machine(resources: Resources) -> None:
    if resources.address:
        return
    if resources.gpus and not has_gpu():
        raise Refusal("--gpus-per-trial", resources.gpus, "must be 0", hint="This machine has no NVIDIA GPU")
    if resources.cpus > cpus():
        words = f"must be at most {cpus()}, the CPUs of this machine that may be used"
        raise Refusal("--cpus-per-trial", resources.cpus, words)


def _stored(store: Store | None, run: str) -> tuple[Plan | None, Damaged | None]:
    """Return the plan that is stored under a name or, if it cannot be read, the reason: it can be made again.

    Raises:
        Refusal: if another version of this program wrote it.
    """
    try:
        return None if store is None else records.load_plan(store, run), None
    except Damaged as damage:
        return None, damage
