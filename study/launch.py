"""The start of a run: it is planned, compared with the plan stored under its name, checked, and only then trained."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from study.errors import Away, Damaged, Refusal, StudyError, one_line
from study.execution.address import Cluster
from study.execution.progress import Progress
from study.home import Home
from study.machine import Machine, gpus_have_bf16, has_bf16, has_gpu
from study.masking import without_password
from study.planning.draft import Draft
from study.planning.drafting import call, draft
from study.planning.growth import drawn_again, taken_up
from study.planning.stored import Plan, Resources
from study.space import Request
from study.store import records
from study.store.starts import refuse_second
from study.store.states import Store

Given = tuple[str | None, str | None]  # the URLs of MLflow and Optuna as the user gave them


@dataclass(frozen=True)
class Wish:
    """The user's choices for a run; see `study.run`.

    Attributes:
        spaces: names, paths or modules.
        request: the choices that the spaces' functions get.
        replicates: the number for each trial; None for the default, see `study.planning.drafting`.
        resources: where the run is executed, and the resources of a stage; `gpus` below replaces its `gpus`.
        gpus: the GPUs of a stage; None for 1 if the machine or the cluster has a GPU and a space trains faster on it.
        ranks: processes that train a replicate together; None for one per GPU.
        name: the name of the run, if the user gave one.
        precision: see `study.machine.Machine`.
    """

    spaces: Sequence[str]
    request: Request
    replicates: int | None
    resources: Resources
    gpus: float | None = None
    ranks: int | None = None
    name: str | None = None
    precision: str = "auto"

    def draft(self, cluster: Cluster, dry: bool = False) -> Draft:
        """Plan the run; nothing is read from a store, and nothing is written.

        Args:
            cluster: the cluster of `resources`. It is asked only if the GPUs of a stage depend on it.
            dry: take a cluster that cannot be asked for one without GPUs; the checks of a start say why it cannot.
        """
        if self.name is not None:
            records.check_name(self.name)
        called = call(self.spaces, self.request)
        gpus = self.gpus
        if gpus is None:
            gpus = float(called.wants_gpu and (_has_gpu(cluster, dry) if cluster.address else has_gpu()))
        elif not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
            raise Refusal("--gpus-per-trial", gpus, "must be between 0 and 1, or a whole number from 2 on")
        ranks = self.ranks or max(1, int(gpus))
        if gpus and ranks != max(1, int(gpus)):
            words = f"must be {max(1, int(gpus))}, one process per GPU"
            raise Refusal("--ranks-per-trial", ranks, words, hint="Leave the option out")
        resources = replace(self.resources, gpus=gpus)
        here = gpus_have_bf16 if gpus else has_bf16
        bf16 = not resources.address and here()  # the processors of a cluster are not known here
        threads = 1 if gpus else max(1, int(resources.cpus / ranks))
        machine = Machine("cuda" if gpus else "cpu", threads, self.precision, bf16, ranks)
        _check_gpu_steps(resources.gpu_steps, machine)
        drafted = draft(called, self.replicates, machine, resources)
        if self.name is not None:
            drafted.plan = drafted.plan.named(self.name)
        return drafted


def _has_gpu(cluster: Cluster, dry: bool) -> bool:
    try:
        return cluster.resources.get("GPU", 0) >= 1
    except Refusal:
        if not dry:
            raise
        return False


@dataclass(frozen=True)
class Machines:
    """Resources that may differ from start to start of a run; None for those of its plan."""

    workers: int | None = None
    address: str | None = None
    gpu_steps: str | None = None
    data_dir: str | None = None

    def options(self) -> list[str]:
        """Return them as options of the command line."""
        given = {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items() if value is not None}
        return [word for option, value in given.items() for word in (option, str(value))]


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


def intend(
    wish: Wish, home: Home, services: Given, download: bool, verify: bool, retrain: bool, dry: bool = False
) -> Intent:
    """Plan a run beside what is stored under its name, and list what must be checked before it starts.

    Args:
        wish: the user's choices.
        home: where the run's files are.
        services: the URLs of its records.
        download: fetch data sets that are missing, as one of the checks.
        verify: read all data completely, as one of the checks, to find damaged files.
        retrain: start a stored run anew, because the sources have changed.
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
        lambda: refuse_second(store, run) if store is not None else None,
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
    if resources.cpus > (os.cpu_count() or 1):
        raise Refusal("--cpus-per-trial", resources.cpus, f"must be at most {os.cpu_count()}, the CPUs of this machine")


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
    intent = intend(wish, home, services, download, verify, retrain)
    note_left_out(intent.drafted, listener.progress)
    for check in intent.checks:
        check()
    if intent.damage is not None:
        listener.progress.say(f"damaged: {intent.damage}; the plan is made again")
    drafted, home = intent.drafted, intent.home
    store, resources = home.make(intent.store), drafted.plan.resources
    if listener.detached:
        return _detach(drafted, intent.before, store, home, intent.chosen, resources, Machines())
    return _start(drafted, intent.before, store, home, intent.chosen, resources, listener)


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
    refuse_second(store, plan.run)
    chosen = recorded(plan, *services)
    machines = replace(machines, data_dir=machines.data_dir or data_dir_of(plan, home))
    changes = {field: value for field, value in asdict(machines).items() if value is not None}
    resources = replace(plan.resources, **changes)
    _check_gpu_steps(resources.gpu_steps, plan.machine)
    home = home_of(plan, home, chosen)
    Cluster(resources.address).check()
    drafted = taken_up(plan, drawn_again(plan), retrain)
    home.check_services(*chosen, may_be_away=True)
    home.make(store)
    if listener.detached:
        return _detach(drafted, plan, store, home, chosen, resources, machines, retry_failed)
    return _start(drafted, plan, store, home, chosen, resources, listener, retry_failed)


def _stored(store: Store | None, run: str) -> tuple[Plan | None, Damaged | None]:
    """Return the plan that is stored under a name or, if it cannot be read, the reason: it can be made again.

    Raises:
        Refusal: if another version of this program wrote it.
    """
    try:
        return None if store is None else records.load_plan(store, run), None
    except Damaged as damage:
        return None, damage


def recorded(plan: Plan, tracking_uri: str | None = None, storage: str | None = None) -> tuple[str, str]:
    """Return the URLs of MLflow and Optuna that hold a run's records; "" for the home's own databases.

    An option changes the URLs. The environment does not, but it may have the password that is not stored.
    """
    urls = []
    for option, given, kept, variable in (
        ("--tracking-uri", tracking_uri, plan.tracking_uri, "MLFLOW_TRACKING_URI"),
        ("--storage", storage, plan.storage, "STUDY_STORAGE"),
    ):
        url, environment = given or kept, os.environ.get(variable, "")
        if "***" in url:
            if without_password(environment) != kept:
                hint = f"Give the whole URL again, in {variable} or with {option}"
                raise Refusal(option, kept, f"{option}: the password of {kept!r} is not stored", hint)
            url = environment
        urls.append(url)
    return urls[0], urls[1]


def home_of(plan: Plan, home: Home, chosen: tuple[str, str]) -> Home:
    """Return the home whose databases hold a run's records: the one in which it began, even if only its store is named.

    A store inside its home moves with the home.
    """
    if all(chosen) or not plan.home or plan.home == str(home.path) or home.store_url == str(home.path / "store"):
        return home
    needed = [name for name, url in zip(("mlflow.db", "optuna.db"), chosen, strict=True) if not url]
    for folder in (plan.home, home.path):
        if all(Path(folder, name).is_file() for name in needed):
            return Home(str(folder), home.store_url)
    words = f"must be {plan.home}, which holds the records of {plan.run}"
    raise Refusal("--home", str(home.path), words, hint="Or give both --tracking-uri and --storage")


def data_dir_of(plan: Plan, home: Home) -> str | None:
    """Return the folder of data for a run that is resumed where the plan's folder is not; None for the plan's."""
    if Path(plan.resources.data_dir).is_dir():
        return None
    given = os.environ.get("STUDY_DATA")
    if given:
        return str(Path(given).expanduser().absolute())
    was_in_home = plan.resources.data_dir == str(Path(plan.home, "data"))
    here = home.path / "data"
    return str(here) if was_in_home and here.is_dir() else None


def _check_gpu_steps(gpu_steps: str, machine: Machine) -> None:
    if gpu_steps == "recorded" and machine.device == "cpu":
        raise Refusal("--gpu-steps", gpu_steps, "must be auto or eager", hint="The run is trained on CPUs")


def _start(
    drafted: Draft,
    before: Plan | None,
    store: Store,
    home: Home,
    chosen: tuple[str, str],
    resources: Resources,
    listener: Listener,
    retry_failed: bool = False,
) -> Where:
    from study.execution import driver
    from study.execution.projection import Services

    where = Where(home, store, drafted.plan.run)
    listener.progress.note(f"run {where.run}")
    for _, problem, advice in home.shared_databases(*chosen):
        listener.progress.say(f"warning: {problem}. {advice}")
    drafted.plan = replace(drafted.plan, home=str(home.path))  # it may have been moved
    services = Services(home.tracking_uri(chosen[0]), home.artifacts, home.storage(chosen[1]))
    try:
        outcome = driver.start(
            drafted,
            before,
            store,
            services,
            resources,
            lambda: listener.trained(where),
            listener.progress,
            retry_failed,
            home.options(),
        )
    except StudyError as error:
        if isinstance(error, Away):
            error.add_note(_advice(where, before))
        raise
    except BaseException as error:
        error.add_note(_advice(where, before))
        raise
    return replace(where, outcome=outcome)


def _detach(
    drafted: Draft,
    before: Plan | None,
    store: Store,
    home: Home,
    chosen: tuple[str, str],
    resources: Resources,
    machines: Machines,
    retry_failed: bool = False,
) -> Where:
    """Store the plan, and let ``study resume`` train it in the background; return when it has claimed the run.

    Raises:
        Refusal: if it was refused before it claimed the run. Of a first start no plan stays then. What is refused
            later is in the run's log.
    """
    from study.execution import background, driver

    run = drafted.plan.run
    drafted.plan = replace(drafted.plan, home=str(home.path))
    refuse_second(store, run)  # the checks since the last look may have taken minutes
    driver.store_plan(drafted, before, store)
    count = background.count_starts(store, run)
    begun: background.Begun
    hint = ""
    try:
        arguments = ["resume", run, "--home", str(home.path), *(["--retry-failed"] if retry_failed else [])]
        if resources.address not in ("", "local"):
            arguments += replace(machines, address="auto").options()  # from within the cluster
            arguments += _without_passwords(drafted.plan, store, chosen)
            begun = background.Job(run, arguments, resources.address)
            if any(url != without_password(url) for url in (store.url, *chosen)):
                hint = "Passwords are not given to the job: set MLFLOW_TRACKING_URI, STUDY_STORAGE or STUDY_STORE with "
                hint += "the whole URL where 'ray start' runs"
        else:
            arguments += [*replace(machines, address="local").options(), "--store", store.url]
            for option, url in zip(("--tracking-uri", "--storage"), chosen, strict=True):
                arguments += [option, url] if url else []
            begun = background.Process(run, arguments, home.path / "detached" / f"{run}.log")
        background.wait(begun, store, run, count, hint)
    except BaseException as error:
        if before is None and background.count_starts(store, run) == count:
            records.delete_plan(store, run)
        if not isinstance(error, StudyError) or isinstance(error, Away):
            error.add_note(_advice(Where(home, store, run), before))
        raise
    return Where(home, store, run)


def _without_passwords(plan: Plan, store: Store, chosen: tuple[str, str]) -> list[str]:
    """Return the options that tell a job on a cluster where its store, MLflow and Optuna are.

    The command line of a job is shown to everyone. A URL with a password is left out: the plan has it without, or the
    environment of the cluster's nodes names it.

    Raises:
        Refusal: if MLflow or Optuna moved to a URL with a password.
    """
    options = ["--store", store.url] if store.url == store.shown else []
    kept = (plan.tracking_uri, plan.storage)
    for option, url, known in zip(("--tracking-uri", "--storage"), chosen, kept, strict=True):
        if without_password(url) == known:
            continue
        if url != without_password(url):
            hint = "Leave out --detach, or give a URL without a password"
            words = f"{option}: a job on a cluster cannot be given the password of {without_password(url)!r}"
            raise Refusal(option, without_password(url), words, hint=hint)
        options += [option, url]
    return options


def _advice(where: Where, before: Plan | None) -> str:
    """Return what a start that did not reach its end leaves, and how to go on."""
    with suppress(StudyError, OSError):  # the store cannot be read: what was known at the start counts
        before = records.load_plan(where.store, where.run)
    if before is None:
        return "Nothing was stored"
    return f"Saved states stay, and 'study resume {where.run}{where.home.options()}' continues the run"


def note_left_out(drafted: Draft, progress: Progress) -> None:
    """Print the spaces that `all` leaves out, with the reasons."""
    for name, reason in drafted.left_out.items():
        progress.note(f"left out: {name}: {reason}")
