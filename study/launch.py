"""How a run begins: planned, compared with what is stored under its name, checked, and only then started."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from study.errors import Damaged, Refusal
from study.execution.address import check_address
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
    """What the user asks of `study run`.

    Attributes:
        spaces: names, paths or modules.
        request: what is chosen of them.
        replicates: of each trial; None for the default, see `study.planning.drafting`.
        resources: where and how wide; see `gpus`.
        gpus: of a stage; None for one, if this machine has a GPU and a space wants it.
        ranks: processes that train a replicate together; None for one a GPU.
        name: of the run, if the user gave one.
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

    def draft(self) -> Draft:
        """The plan of it."""
        if self.name is not None:
            records.check_name(self.name)
        called = call(self.spaces, self.request)
        gpus = self.gpus
        if gpus is None:
            gpus = float(not self.resources.address and called.wants_gpu and has_gpu())
        elif not 0 <= gpus < math.inf or (gpus > 1 and gpus != int(gpus)):
            raise Refusal("--gpus-per-trial", gpus, "must be 0 to 1, or a whole number from 2 on")
        ranks = self.ranks or max(1, int(gpus))
        if gpus and ranks != max(1, int(gpus)):
            remedy = f"must be {max(1, int(gpus))}, one a GPU; leave the option out"
            raise Refusal("--ranks-per-trial", ranks, remedy)
        resources = replace(self.resources, gpus=gpus)
        here = gpus_have_bf16 if gpus else has_bf16
        bf16 = not resources.address and here()  # what a cluster's machines have is not known
        threads = 1 if gpus else max(1, int(resources.cpus / ranks))
        machine = Machine("cuda" if gpus else "cpu", threads, self.precision, bf16, ranks)
        _check_gpu_steps(resources.gpu_steps, machine)
        drawn = draft(called, self.replicates, machine, resources)
        if self.name is not None:
            drawn.plan = drawn.plan.named(self.name)
        return drawn


@dataclass(frozen=True)
class Machines:
    """What may differ from start to start of a run; None for what its plan says."""

    workers: int | None = None
    address: str | None = None
    gpu_steps: str | None = None


def run(wish: Wish, place: Home, services: Given, download: bool, retrain: bool, as_json: bool) -> int:
    """Begin a run, go on with it, or let it grow; returns the exit code."""
    drawn = wish.draft()
    say_left_out(drawn)
    resources = drawn.plan.resources
    store = place.store_if_any()
    before, damage = _stored(store, drawn.plan.run)
    if store is not None:
        refuse_second(store, drawn.plan.run)  # at once, and not after a download; the start's claim decides
    if retrain and before is None and damage is None:
        raise Refusal("--retrain", drawn.plan.run, "must be left out: there is no such run yet")
    chosen = place.chosen(*services) if before is None else recorded(before, *services)
    place = place if before is None else _home_of(before, place, chosen)
    place.check_services(*chosen)
    check_address(resources.address)
    if resources.gpus and not resources.address and not has_gpu():
        raise Refusal("--gpus-per-trial", resources.gpus, "must be 0: this machine shows no NVIDIA GPU")
    if not resources.address and resources.cpus > (os.cpu_count() or 1):
        raise Refusal("--cpus-per-trial", resources.cpus, f"must be at most {os.cpu_count()}, what this machine has")
    drawn.work.prepare(drawn.configs, Path(resources.data_dir), download)
    if damage is not None:
        say(f"damaged: {damage}; the plan is made anew")
    if before is None:
        kept = [without_password(url) for url in chosen]
        drawn.plan = replace(drawn.plan, tracking_uri=kept[0], storage=kept[1])
    else:
        drawn = taken_up(before, drawn, retrain)
    drawn.plan.check()
    return _start(drawn, before, place.make(store), place, chosen, resources, as_json=as_json)


def resume(
    called: str,
    place: Home,
    services: Given,
    machines: Machines,
    retry_failed: bool,
    retrain: bool,
    as_json: bool,
) -> int:
    """Go on with a run whose plan is stored; returns the exit code.

    Args:
        called: the run, as the user calls it.
        place: where it lies.
        services: where its records go, if elsewhere than before.
        machines: where and how, if not as before.
        retry_failed, retrain, as_json: see `study resume --help`.
    """
    store = place.existing_store(called)
    plan, _ = records.find(store, called)
    refuse_second(store, plan.run)
    chosen = recorded(plan, *services)
    others = {name: value for name, value in asdict(machines).items() if value is not None}
    resources = replace(plan.resources, **others)
    _check_gpu_steps(resources.gpu_steps, plan.machine)
    place = _home_of(plan, place, chosen)
    check_address(resources.address)
    drawn = taken_up(plan, drawn_again(plan), retrain)
    place.check_services(*chosen, may_be_away=True)
    return _start(drawn, plan, place.make(store), place, chosen, resources, retry_failed=retry_failed, as_json=as_json)


def _stored(store: Store | None, run: str) -> tuple[Plan | None, Damaged | None]:
    """The plan that is stored under a name; or, if it cannot be read, why: it can be made again.

    Raises:
        Refusal: if another version of this program wrote it.
    """
    try:
        return None if store is None else records.load_plan(store, run), None
    except Damaged as damage:
        return None, damage


def recorded(plan: Plan, tracking_uri: str | None, storage: str | None) -> tuple[str, str]:
    """Where a run's records lie, unless an option says otherwise: MLflow's and Optuna's URL, "" for the home's.

    The environment moves no run, but it may know the password that is not stored.
    """
    found = []
    for option, given, kept, environment in (
        ("--tracking-uri", tracking_uri, plan.tracking_uri, os.environ.get("MLFLOW_TRACKING_URI", "")),
        ("--storage", storage, plan.storage, ""),
    ):
        url = given or kept
        if "***" in url:
            if without_password(environment) != kept:
                raise Refusal(option, kept, "a password is not stored: the whole URL, given again, would do")
            url = environment
        found.append(url)
    return found[0], found[1]


def _home_of(plan: Plan, place: Home, chosen: tuple[str, str]) -> Home:
    """The home whose databases hold a run's records: where it was begun, also if only its store is named now.

    A store that lies in its home moves with it.
    """
    if all(chosen) or not plan.home or plan.home == str(place.path) or place.store_url == str(place.path / "store"):
        return place
    needed = [name for name, url in zip(("mlflow.db", "optuna.db"), chosen, strict=True) if not url]
    for folder in (plan.home, place.path):
        if all(Path(folder, name).is_file() for name in needed):
            return Home(str(folder), place.store_url)
    remedy = f"{plan.home}, which holds the records of {plan.run}, would do, or --tracking-uri and --storage"
    raise Refusal("--home", str(place.path), remedy)


def _check_gpu_steps(gpu_steps: str, machine: Machine) -> None:
    if gpu_steps == "recorded" and machine.device == "cpu":
        raise Refusal("--gpu-steps", gpu_steps, "must be auto or eager: the run is trained on CPUs")


def _start(
    drawn: Draft,
    before: Plan | None,
    store: Store,
    place: Home,
    chosen: tuple[str, str],
    resources: Resources,
    as_json: bool,
    retry_failed: bool = False,
) -> int:
    from study.execution import driver
    from study.execution.projection import Services
    from study.report.report import Report

    say(f"run {drawn.plan.run}")
    drawn.plan = replace(drawn.plan, home=str(place.path))  # it may have been moved
    services = Services(place.tracking_uri(chosen[0]), place.artifacts, place.storage(chosen[1]))

    def answer() -> None:
        click.echo(Report.of(store, drawn.plan).render("json" if as_json else "table").rstrip("\n"))

    code = driver.start(drawn, before, store, services, resources, answer, retry_failed)
    own = place.options()
    verb = {driver.INTERRUPTED: "resume", driver.FAILED: "status"}.get(code, "report")
    more = " --format markdown" if verb == "report" else ""
    say(f"\nNext: study {verb} {drawn.plan.run}{more}{own} · study ui{own} (compare in MLflow) · study list")
    return code


def say_left_out(drawn: Draft) -> None:
    """Say which spaces `all` leaves out, and why."""
    for name, reason in drawn.left_out.items():
        say(f"left out: {name}: {reason}")


def say(line: str) -> None:
    """A line for the user, beside the results."""
    click.echo(line, err=True)
