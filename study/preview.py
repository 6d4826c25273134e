"""What spaces and runs would cost, printed: nothing is trained and nothing written."""

from __future__ import annotations

import json
from typing import Any

import click

from study import catalog
from study.home import Home
from study.launch import Wish, say, say_left_out
from study.machine import Machine
from study.planning import replication, tree
from study.planning.draft import Draft
from study.planning.drafting import call, draft
from study.planning.growth import taken_up
from study.planning.stored import Resources
from study.space import Option, Request
from study.store import records


def print_plan(wish: Wish, place: Home, retrain: bool, as_json: bool) -> None:
    """Print what a run would do. Reads the store if there is one; writes nothing."""
    drawn, stored = wish.draft(), set[str]()
    say_left_out(drawn)
    store = place.store_if_any()
    if store is not None:
        stored = store.keys()
        before = records.load_plan(store, drawn.plan.run)
        if before is not None:
            drawn = taken_up(before, drawn, retrain)
    plan, recipes = drawn.plan, list(drawn.recipes.values())
    searches = {space.name: space.search.trials for space in plan.spaces if space.search is not None}
    points = [drawn.work.resolve(config, 0, plan.machine) for config in drawn.bases]
    precisions = {recipe.origin.get("precision", plan.machine.precision) for recipe in (*recipes, *points)}
    record: dict[str, Any] = {
        "study": plan.study,
        "run": plan.run,
        "trials": [
            {
                "trial": trial.name,
                "config": trial.trial.config,
                "axes": trial.trial.axes,
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
    own = [recipe for replicate, recipe in drawn.recipes.items() if drawn.trial(replicate).space == space]
    naive = sum(len(recipe.epochs) for recipe in own)
    return {"trainings": len(own), "epochs_naive": naive, "epochs_needed": len(tree.nodes(own))}


def print_costs(as_json: bool) -> None:
    """Print what each installed space costs, by default and at each scale that its options offer."""
    scales = {"default": Request(), **{each.name: Request({each.name: True}) for each in _scales()}}
    found = []
    for name in catalog.names():
        (_, _, space), *_ = call([name], Request()).spaces
        record: dict[str, Any] = {"space": name, "search": space.search is not None, "title": space.title}
        for scale in ("default", *(option.name for option in space.options if option.scale)):
            plan = draft(call([name], scales[scale]), 1, Machine("cpu", 1), Resources()).plan
            naive = sum(trial.epochs * len(trial.ends) for trial in plan.trials)
            runs = max((len(trial.ends) for trial in plan.trials), default=1)
            record[scale] = {"epochs_needed": plan.epochs_needed, "epochs_naive": naive, "runs": runs}
        found.append(record)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(
        "epochs a replicate (of all runs, where a space needs several), of which shared prefixes leave; "
        + ", ".join(["by default", *(f"with --{each.name}" for each in _scales())])
        + ":"
    )
    for each in found:
        if each["search"]:
            click.echo(f"{each['space']:10} {each['title']}\n{'':10} as many points as --trials says")
            continue
        costs = "; ".join(
            f"{scale} {each[scale]['epochs_naive']} → {each[scale]['epochs_needed']}"
            + (f" ({each[scale]['runs']} runs)" if each[scale]["runs"] > 1 else "")
            for scale in scales
            if scale in each
        )
        click.echo(f"{each['space']:10} {each['title']}\n{'':10} {costs}")
    listed = [each for each in found if not each["search"]]
    if listed:
        least = min(listed, key=lambda each: each["default"]["epochs_needed"])["space"]
        say(f"\nNext: study show {least}, study run {least}")


def _scales() -> list[Option]:
    return [option for option in catalog.options().values() if option.scale]
