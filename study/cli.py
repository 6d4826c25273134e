"""The command line: verbs over the platform. Heavy imports stay inside each verb, for `study --help` is quick."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from study.home import Home, has_gpu
from study.refusal import Damaged, Refusal

if TYPE_CHECKING:
    from study.plan import Plan, Resources
    from study.store import Store

Function = TypeVar("Function", bound=Callable[..., Any])


def _places(function: Function) -> Function:
    store = click.option("--store", metavar="URL", help="Where states lie: a folder or URL. [default: HOME/store]")
    home = click.option(
        "--home", default="./studies", envvar="STUDY_HOME", show_default=True, show_envvar=True,
        help="Folder for states, MLflow, Optuna and artefacts.",
    )  # fmt: skip
    return home(store(function))


def _machines(function: Function) -> Function:
    options = (
        click.option("--workers", type=click.IntRange(min=1), help="Stages at a time. [default: what fits]"),
        click.option("--address", metavar="ADDR", help="A Ray cluster (auto, or HOST:PORT). [default: this machine]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _services(function: Function) -> Function:
    options = (
        click.option(
            "--tracking-uri", metavar="URI", help="MLflow. [default: MLFLOW_TRACKING_URI, else HOME/mlflow.db]"
        ),
        click.option("--storage", metavar="URL", help="Optuna. [default: sqlite:///HOME/optuna.db]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _run_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from study import runs

    try:
        plans = runs.all_plans(Home(os.environ.get("STUDY_HOME", "./studies"), None).existing_store())
    except Refusal:
        return []
    return [plan.run for plan in plans if plan.run.startswith(incomplete)]


def _space_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from study import catalog

    return [name for name in catalog.names() if name.startswith(incomplete)]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="longtail-study", prog_name="study")
def cli() -> None:
    """Which sampler, and when? Launch, compare and resume studies of long-tailed recognition.

    \b
    study run table9      train a table of the paper on the embedded data
    study ui              compare its runs in MLflow
    study resume table9   go on after an interruption
    """


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
def list_spaces(as_json: bool) -> None:
    """List the spaces: what each reproduces and what it costs, with and without shared prefixes."""
    from study import catalog
    from study.plan import Machine, Request, Resources
    from study.planning import draft

    found = []
    for name in catalog.names():
        record: dict[str, Any] = {"space": name}
        for scale in (False, True):
            plan = draft([name], Request(paper=scale), 1, Machine("cpu", 1), Resources()).plan
            naive = sum(trial.epochs for trial in plan.trials)
            record["paper" if scale else "digits"] = {"epochs_needed": plan.epochs_needed, "epochs_naive": naive}
            record["title"] = plan.spaces[0].title
        found.append(record)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo("epochs a replicate, of which shared prefixes leave:")
    for each in found:
        costs = "; ".join(f"{s} {each[s]['epochs_naive']} → {each[s]['epochs_needed']}" for s in ("digits", "paper"))
        click.echo(f"{each['space']:10} {each['title']}\n{'':10} {costs}")
    click.echo("\nNext: study show table9, study run table9", err=True)


@cli.command()
@click.argument("space", shell_complete=_space_names)
def show(space: str) -> None:
    """Show what a SPACE says of itself: its table, commands, cost and trials."""
    import inspect

    from study import catalog
    from study.plan import Request

    function, _ = catalog.find(space)
    made = function(Request())
    click.echo(inspect.getdoc(inspect.getmodule(function)) or made.title)
    click.echo("\nTrials:")
    for trial in made.trials:
        paper = "" if trial.paper is None else f"   paper {trial.paper:.1f} ({trial.paper_of})"
        click.echo(f"  {trial.label}{paper}")
    click.echo(f"\nNext: study run {space} --dry-run", err=True)


@cli.command()
@click.argument("spaces", nargs=-1, required=True, metavar="SPACE...", shell_complete=_space_names)
@click.option(
    "--data", multiple=True, metavar="NAME", help="digits, cifar10 or cifar100; repeatable. [default: digits]"
)
@click.option(
    "--imbalance", multiple=True, type=float, metavar="IF", help="Imbalance factor; repeatable. [default: 50]"
)
@click.option("--seeds", default=3, show_default=True, help="Replicates of each trial.")
@click.option("--paper", is_flag=True, help="The paper's own data, epochs and protocol.")
@click.option("--name", metavar="RUN", help="What to call the run. [default: from its content]")
@_places
@_services
@_machines
@click.option("--cpus-per-trial", type=float, default=1.0, show_default=True, help="CPUs a stage, also its threads.")
@click.option(
    "--gpus-per-trial", type=float, default=None, help="GPUs a stage, or a fraction. [default: 1 if there is one]"
)
@click.option(
    "--data-dir", metavar="DIR", envvar="STUDY_DATA", show_envvar=True, help="CIFAR's files. [default: HOME/data]"
)
@click.option("--download", is_flag=True, help="Download data sets that are missing.")
@click.option("--dry-run", is_flag=True, help="Print the trials and what they cost; train nothing, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run, one JSON object; else the report as one.")
def run(
    spaces: Sequence[str], data: Sequence[str], imbalance: Sequence[float], seeds: int, paper: bool, name: str | None,
    home: str, store: str | None, tracking_uri: str | None, storage: str | None, workers: int | None,
    address: str | None, cpus_per_trial: float, gpus_per_trial: float | None, data_dir: str | None, download: bool,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train one or more SPACEs, planned together: equal prefixes are trained once.

    SPACE is a name from `study list`, or the path of a Python file with a function space(request). Running again
    takes up where the last start ended.
    """
    from study import runs
    from study.plan import Machine, Request, Resources
    from study.planning import draft
    from study.services import without_password

    if seeds < 1:
        raise Refusal("--seeds", seeds, "at least 1 replicate would do")
    if not cpus_per_trial > 0:
        raise Refusal("--cpus-per-trial", cpus_per_trial, "a number above 0 would do")
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if not address and has_gpu() else 0.0
    elif gpus_per_trial < 0 or (gpus_per_trial > 1 and gpus_per_trial != int(gpus_per_trial)):
        raise Refusal("--gpus-per-trial", gpus_per_trial, "a fraction, or a whole number, ≥ 0 would do")
    if name is not None:
        runs.check_name(name)
    place = Home(home, store)
    folder = str(Path(data_dir).expanduser().absolute() if data_dir else place.path / "data")
    resources = Resources(workers or 0, cpus_per_trial, gpus_per_trial, address or "", folder)
    machine = Machine("cuda", 1) if gpus_per_trial else Machine("cpu", max(1, int(cpus_per_trial)))
    request = Request(tuple(dict.fromkeys(data)), tuple(dict.fromkeys(imbalance)), paper)
    drawn = draft(spaces, request, seeds, machine, resources)
    if name is not None:
        drawn = replace(drawn, plan=drawn.plan.named(name))
    if dry_run:
        _print_plan(drawn, place, as_json)
        return

    chosen = place.chosen(tracking_uri, storage)
    place.check_services(*chosen)
    if gpus_per_trial and not address and not has_gpu():
        raise Refusal("--gpus-per-trial", gpus_per_trial, "0 would do: this machine shows no NVIDIA GPU")
    if not address and cpus_per_trial > (os.cpu_count() or 1):
        raise Refusal("--cpus-per-trial", cpus_per_trial, f"at most {os.cpu_count()}, what this machine has, would do")
    drawn.work.prepare([trial.config for trial in drawn.plan.trials], Path(folder), download)
    opened = place.make()
    before = runs.load_plan(opened, drawn.plan.run)
    if before is not None and before.digest != drawn.plan.digest:
        raise Refusal(
            "--name", drawn.plan.run,
            f"a run of this name holds another plan ({before.study}, {len(before.trials)} trials × "
            f"{before.replicates} replicates): another name would do",
        )  # fmt: skip
    if before is not None:
        drawn = replace(drawn, plan=before)
        chosen = _recorded(before, tracking_uri, storage)
    else:
        kept = {"tracking_uri": without_password(chosen[0]), "storage": without_password(chosen[1])}
        drawn = replace(drawn, plan=replace(drawn.plan, **kept))  # type: ignore[arg-type]
        runs.save_plan(opened, drawn.plan)
    _start(drawn, opened, place, *chosen, resources, as_json=as_json)


@cli.command()
@click.argument("run", shell_complete=_run_names)
@_places
@_services
@_machines
@click.option("--retry-failed", is_flag=True, help="Train again what raised; each retry is a new Optuna trial.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def resume(
    run: str, home: str, store: str | None, tracking_uri: str | None, storage: str | None, workers: int | None,
    address: str | None, retry_failed: bool, as_json: bool,
) -> None:  # fmt: skip
    """Go on with a RUN after an interruption: its plan is stored, nothing else need be said."""
    from study import runs, services
    from study.planning import redraft

    place = Home(home, store)
    opened = place.existing_store(run)
    plan, _ = runs.find(opened, run)
    chosen = _recorded(plan, tracking_uri, storage)
    drawn = redraft(plan)
    resources = plan.resources
    if workers:
        resources = replace(resources, workers=workers)
    if address is not None:
        resources = replace(resources, address=address)
    place.check_services("", chosen[1])
    away = services.reachable(place.tracking_uri(chosen[0]))
    if away:
        click.echo(f"MLflow is away ({away}): training goes on, and a later `study resume` catches up", err=True)
    place.make()
    _start(drawn, opened, place, *chosen, resources, retry_failed=retry_failed, as_json=as_json)


@cli.command()
@click.argument("run", required=False, shell_complete=_run_names)
@_places
@click.option("--json", "as_json", is_flag=True, help="One JSON object; without RUN, a list of them.")
def status(run: str | None, home: str, store: str | None, as_json: bool) -> None:
    """Say how far a RUN is, or every run: from the store alone."""
    from dataclasses import asdict

    from study import runs

    place = Home(home, store)
    opened = place.existing_store(run)
    plans = runs.all_plans(opened) if run is None else [runs.find(opened, run)[0]]
    stored = opened.keys()
    found = [runs.Status.of(opened, plan, stored) for plan in plans]
    if as_json:
        records = [asdict(each) for each in found]
        click.echo(json.dumps(records[0] if run is not None else records, indent=2, ensure_ascii=False))
        return
    for each in found:
        counts = ", ".join(f"{getattr(each, kind)} {kind}" for kind in ("complete", "running", "failed", "waiting"))
        click.echo(f"{each.run}  {each.outcome}\n  replicates: {counts}")
        click.echo(f"  epochs: {each.epochs_trained} trained, {each.epochs_needed} needed")
        for name, failure in runs.failures(opened, each.run).items():
            click.echo(f"  failed: {name[0]} r{name[1]}: {failure['reason']}")
    if found:
        last = found[-1]
        verb = "report" if last.outcome == "complete" else "resume"
        click.echo(f"\nNext: study {verb} {last.run}{place.options()}", err=True)


@cli.command()
@click.argument("run", shell_complete=_run_names)
@_places
@click.option(
    "--format", "form", default="table", type=click.Choice(["table", "markdown", "csv", "json"]), show_default=True
)
def report(run: str, home: str, store: str | None, form: str) -> None:
    """Print a RUN's tables, beside the paper's figures: from the store alone."""
    from study import runs
    from study.driver import reader
    from study.report import Report

    opened = Home(home, store).existing_store(run)
    plan, space = runs.find(opened, run)
    click.echo(Report(plan, reader(opened), space).render(form).rstrip("\n"))


@cli.command()
@_places
@click.option("--tracking-uri", metavar="URI", help="MLflow. [default: MLFLOW_TRACKING_URI, else HOME/mlflow.db]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def ui(home: str, store: str | None, tracking_uri: str | None, host: str, port: int) -> None:
    """Open MLflow's own UI on this home, on loopback; Ctrl-C ends it."""
    from study.ui import serve

    place = Home(home, store)
    uri = place.tracking_uri(place.chosen(tracking_uri, None)[0])
    if uri.startswith("sqlite:") and not tracking_uri and not (place.path / "mlflow.db").is_file():
        raise Refusal("--home", str(place.path), "there is nothing to show in it yet; `study run table9` makes a run")
    sys.exit(serve(uri, place.artifacts, host, port))


def _recorded(plan: Plan, tracking_uri: str | None, storage: str | None) -> tuple[str, str]:
    """Where a run's records lie, unless the user says otherwise: MLflow's and Optuna's URL, "" for the home's."""
    found = []
    for option, given, kept in (
        ("--tracking-uri", tracking_uri, plan.tracking_uri),
        ("--storage", storage, plan.storage),
    ):
        if "***" in kept and not given:
            raise Refusal(option, kept, "a password is not stored: the whole URL, given again, would do")
        found.append(given or kept)
    return found[0], found[1]


def _start(
    drawn: Any, opened: Store, place: Home, tracking_uri: str, storage: str, resources: Resources,
    as_json: bool, retry_failed: bool = False,
) -> None:  # fmt: skip
    from study import driver
    from study.report import Report

    plan: Plan = drawn.plan
    click.echo(f"run {plan.run}", err=True)

    def answer() -> None:
        click.echo(Report(plan, driver.reader(opened)).render("json" if as_json else "table").rstrip("\n"))

    code = driver.start(
        drawn, opened, place.tracking_uri(tracking_uri), place.artifacts, place.storage(storage), resources, answer,
        retry_failed,
    )  # fmt: skip
    own = place.options()
    more = f"resume {plan.run}{own}" if code == driver.INTERRUPTED else f"report {plan.run} --format markdown{own}"
    if code == driver.FAILED:
        more = f"status {plan.run}{own}"
    click.echo(f"\nNext: study {more} · study ui{own} (compare in MLflow) · study list", err=True)
    sys.exit(code)


def _print_plan(drawn: Any, place: Home, as_json: bool) -> None:
    """What a run would do. Reads the store if there is one; writes nothing."""
    from study import tree

    plan: Plan = drawn.plan
    recipes = list(drawn.recipes.values())
    exists = "://" in place.store_url or Path(place.store_url).is_dir()
    stored = place.store().keys() if exists else set()
    record = {
        "study": plan.study, "run": plan.run,
        "trials": [
            {
                "trial": trial.name, "config": trial.config, "axes": trial.axes,
                "replicates": list(range(plan.replicates)), "epochs": trial.epochs,
            }
            for trial in plan.trials
        ],
        "trials_total": len(recipes), "trials_distinct": len({recipe.keys[-1] for recipe in recipes}),
        "epochs_naive": sum(len(recipe.epochs) for recipe in recipes), "epochs_needed": plan.epochs_needed,
        "epochs_to_train": len(tree.missing(recipes, stored)),
        "device": plan.machine.device, "threads": plan.machine.threads,
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    for trial in plan.trials:
        there = sum(end in stored for end in trial.ends)
        click.echo(f"{trial.name:50} {plan.replicates} × {trial.epochs} epochs, {there} complete")
    click.echo(
        f"run {plan.run}: {record['trials_total']} trainings ({record['trials_distinct']} distinct), "
        f"{record['epochs_naive']} epochs, {record['epochs_needed']} after sharing prefixes, "
        f"{record['epochs_to_train']} to train"
    )


def main() -> None:
    """The command `study`: users' mistakes are one line and exit code 2."""
    code = 0
    try:
        code = cli(standalone_mode=False) or 0
    except (Refusal, Damaged) as refusal:
        click.echo(f"study: {refusal}", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("study: stopped; `study resume` goes on", err=True)
        code = 130
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is open any more, and torch, Ray and MLflow take 3 s to be torn down object by object
