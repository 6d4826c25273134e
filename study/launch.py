"""How a run begins: planned, compared with what is stored under its name, checked, and only then started."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from study.growth import anew, grown, redraft
from study.home import Home, gpus_have_bf16, has_bf16, has_gpu
from study.masking import without_password
from study.plan import Plan, Resources
from study.planning import Draft, draft
from study.refusal import Damaged, Refusal
from study.services import check_address
from study.space import Json, Machine, Request
from study.store import Store

Services = tuple[str | None, str | None]  # the URLs of MLflow and Optuna as the user gave them


@dataclass(frozen=True)
class Wish:
    """What the user asks of `study run`.

    Attributes:
        spaces: names or paths.
        request: data, scale and points.
        replicates: of each trial; None for the default, see `planning.draft`.
        resources: where and how wide.
        name: of the run, if the user gave one.
        precision, ranks: of the machine; see `study.space.Machine`.
    """

    spaces: Sequence[str]
    request: Request
    replicates: int | None
    resources: Resources
    name: str | None
    precision: str = "auto"
    ranks: int = 1

    def draft(self) -> Draft:
        """The plan of it."""
        from study import runs

        if self.name is not None:
            runs.check_name(self.name)
        each = self.resources
        threads = max(1, int(each.cpus / self.ranks))
        here = gpus_have_bf16 if each.gpus else has_bf16
        bf16 = not each.address and here()  # what a cluster's machines have is not known
        machine = Machine("cuda" if each.gpus else "cpu", 1 if each.gpus else threads, self.precision, bf16, self.ranks)
        _check_gpu_steps(each.gpu_steps, machine)
        drawn = draft(self.spaces, self.request, self.replicates, machine, each)
        if self.name is not None:
            drawn.plan = drawn.plan.named(self.name)
        return drawn


@dataclass(frozen=True)
class Machines:
    """What may differ from start to start of a run; None for what its plan says."""

    workers: int | None = None
    address: str | None = None
    gpu_steps: str | None = None


def run(wish: Wish, place: Home, services: Services, download: bool, retrain: bool, as_json: bool) -> int:
    """Begin a run, go on with it, or let it grow; returns the exit code."""
    from study import presence, runs

    drawn = wish.draft()
    _say_left_out(drawn)
    resources = wish.resources
    known = _known(place, drawn.plan.run)
    chosen = place.chosen(*services) if known is None else recorded(known, *services)
    place = place if known is None else _home_of(known, place, chosen)
    place.check_services(*chosen)
    check_address(resources.address)
    if resources.gpus and not resources.address and not has_gpu():
        raise Refusal("--gpus-per-trial", resources.gpus, "0 would do: this machine shows no NVIDIA GPU")
    if not resources.address and resources.cpus > (os.cpu_count() or 1):
        raise Refusal("--cpus-per-trial", resources.cpus, f"at most {os.cpu_count()}, what this machine has, would do")
    _prepare(drawn, resources, download)
    store = place.make()
    presence.refuse_second(store, drawn.plan.run)
    before = runs.take_plan(store, drawn.plan.run, _say)
    if before is None:
        kept = [without_password(url) for url in chosen]
        drawn.plan = replace(drawn.plan, tracking_uri=kept[0], storage=kept[1])
    else:
        drawn = _anew_if_changed(before, drawn) if retrain else grown(before, drawn)
    return _start(drawn, before, store, place, chosen, resources, as_json=as_json)


def resume(
    called: str,
    place: Home,
    services: Services,
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
    from study import presence, runs

    plan, _ = runs.find(place.existing_store(called), called)
    presence.refuse_second(place.existing_store(called), plan.run)
    chosen = recorded(plan, *services)
    others = {name: value for name, value in asdict(machines).items() if value is not None}
    resources = replace(plan.resources, **others)
    _check_gpu_steps(resources.gpu_steps, plan.machine)
    place = _home_of(plan, place, chosen)
    check_address(resources.address)
    if retrain:
        spaces = [space.file for space in plan.spaces]
        drawn = _anew_if_changed(plan, draft(spaces, plan.request, plan.replicates, plan.machine, plan.resources))
    else:
        drawn = redraft(plan)
    place.check_services(*chosen, may_be_away=True)
    store = place.make()
    return _start(drawn, plan, store, place, chosen, resources, retry_failed=retry_failed, as_json=as_json)


def _known(place: Home, run: str) -> Plan | None:
    """The plan that is stored under a name, if there is one that can be read."""
    from study import runs

    try:
        return runs.load_plan(place.existing_store(), run)
    except (Refusal, Damaged):
        return None


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


def _anew_if_changed(before: Plan, drawn: Draft) -> Draft:
    if before.sources == drawn.plan.sources and before.digest == drawn.plan.digest:
        raise Refusal("--retrain", before.run, "without it: nothing has changed that its states depend on")
    return anew(before, drawn)


def _check_gpu_steps(gpu_steps: str, machine: Machine) -> None:
    if gpu_steps == "recorded" and machine.device == "cpu":
        raise Refusal("--gpu-steps", gpu_steps, "must be auto or eager: the run is trained on CPUs")


def _bases(drawn: Draft) -> list[Json]:
    """The configurations that stand for all points of its open searches."""
    return [space.search.base for space in drawn.spaces.values() if space.search is not None]


def _prepare(drawn: Draft, resources: Resources, download: bool) -> None:
    """See that the data are there."""
    configs = [*(trial.config for trial in drawn.plan.trials), *_bases(drawn)]
    drawn.work.prepare(configs, Path(resources.data_dir), download)


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
    from study import driver, runs
    from study.report import Report

    _say(f"run {drawn.plan.run}")
    if before is not None and before.generation != drawn.plan.generation:
        runs.save_failures(store, drawn.plan.run, {})
    drawn.plan = replace(drawn.plan, home=str(place.path))  # it may have been moved
    runs.remember(store, drawn.plan.run)
    runs.save_plan(store, drawn.plan)
    replicates = {(trial.name, number) for trial in before.trials for number in trial.by_replicate} if before else ()
    services = driver.Services(place.tracking_uri(chosen[0]), place.artifacts, place.storage(chosen[1]))

    def answer() -> None:
        click.echo(Report.of(store, drawn.plan).render("json" if as_json else "table").rstrip("\n"))

    known = [replicate for replicate in replicates if replicate in drawn.recipes]
    code = driver.start(drawn, store, services, resources, known, answer, retry_failed)
    run, own = drawn.plan.run, place.options()
    verb = {driver.INTERRUPTED: "resume", driver.FAILED: "status"}.get(code, "report")
    more = " --format markdown" if verb == "report" else ""
    _say(f"\nNext: study {verb} {run}{more}{own} · study ui{own} (compare in MLflow) · study list")
    return code


def print_plan(wish: Wish, place: Home, retrain: bool, as_json: bool) -> None:
    """Print what a run would do. Reads the store if there is one; writes nothing."""
    from study import replication, runs, tree

    drawn, stored = wish.draft(), set()
    _say_left_out(drawn)
    record: dict[str, Any]
    try:
        store = place.existing_store()
    except Refusal:
        pass
    else:
        stored = store.keys()
        before = runs.load_plan(store, drawn.plan.run)
        if before is not None:
            drawn = _anew_if_changed(before, drawn) if retrain else grown(before, drawn)
    plan, recipes = drawn.plan, list(drawn.recipes.values())
    searches = {space.name: space.search.trials for space in plan.spaces if space.search is not None}
    points = [drawn.work.resolve(config, 0, plan.machine) for config in _bases(drawn)]
    precisions = {recipe.origin["precision"] for recipe in (*recipes, *points)}
    record = {
        "study": plan.study,
        "run": plan.run,
        "trials": [
            {
                "trial": trial.name,
                "config": trial.config,
                "axes": trial.axes,
                "replicates": list(trial.by_replicate),
                "seeds": list(trial.seeds),
                "epochs": trial.epochs,
            }
            for trial in plan.trials
        ],
        "spaces": {space.name: _cost(drawn, space.name) for space in plan.spaces},
        "searches": searches,
        "trials_total": len(recipes),
        "trials_distinct": len({recipe.keys[-1] for recipe in recipes}),
        "epochs_naive": sum(len(recipe.epochs) for recipe in recipes),
        "epochs_needed": plan.epochs_needed,
        "epochs_to_train": len(tree.missing(recipes, stored)),
        "device": plan.machine.device,
        "gpus": plan.resources.gpus,
        "threads": plan.machine.threads,
        "ranks": plan.machine.ranks,
        "precision": sorted(precisions),
        "left_out": drawn.left_out,
    }
    if as_json:
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    for trial in plan.trials:
        there = sum(end in stored for end in trial.ends)
        click.echo(f"{trial.name:50} {len(trial.ends)} × {trial.epochs} epochs, {there} complete")
    for space in plan.spaces:
        own = [trial for trial in plan.trials if trial.space == space.name]
        own += [] if space.search is None else drawn.expected(space)
        for line in replication.lines(own, searched=space.search is not None):
            click.echo(f"{space.name}: {line}")
        if space.search is not None:
            asked = len(plan.points(space))
            dimensions = ", ".join(f"{name}: {dimension}" for name, dimension in space.domain.items())
            click.echo(f"{space.name}: {searches[space.name]} points, {asked} of them planned, of {dimensions}")
    if len(plan.spaces) > 1:
        for name, cost in record["spaces"].items():
            click.echo(f"{name}: {cost['epochs_naive']} epochs, {cost['epochs_needed']} after sharing prefixes")
    click.echo(
        f"run {plan.run}: {record['trials_total']} trainings ({record['trials_distinct']} distinct), "
        f"{record['epochs_naive']} epochs, {record['epochs_needed']} after sharing prefixes, "
        f"{record['epochs_to_train']} to train"
    )
    gpus = f", {plan.resources.gpus:g} GPUs a trial" if plan.resources.gpus else ""
    click.echo(f"device {plan.machine.device}{gpus}, precision {', '.join(record['precision'])}")


def _cost(drawn: Draft, space: str) -> dict[str, int]:
    """What a space of a plan would cost by itself."""
    from study import tree

    own = [recipe for replicate, recipe in drawn.recipes.items() if drawn.trial(replicate).space == space]
    naive = sum(len(recipe.epochs) for recipe in own)
    return {"trainings": len(own), "epochs_naive": naive, "epochs_needed": len(tree.nodes(own))}


def _say_left_out(drawn: Draft) -> None:
    for name, reason in drawn.left_out.items():
        _say(f"left out: {name}: {reason}")


def _say(line: str) -> None:
    click.echo(line, err=True)
