"""The command line: verbs over the platform. Heavy imports stay inside each verb, for `study --help` is quick."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from study import arguments
from study.errors import Away, Refusal, StudyError, one_line
from study.home import Home


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="longtail-study", prog_name="study")
def cli() -> None:
    """Launch, compare and resume studies.

    \b
    study list            the spaces that there are
    study run SPACE       train one
    study ui              compare its runs in MLflow
    study resume SPACE    go on after an interruption
    """


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
def list_spaces(as_json: bool) -> None:
    """List the spaces: what each reproduces and what it costs, with and without shared prefixes."""
    from study import preview

    preview.print_costs(as_json)


@cli.command()
@click.argument("space", shell_complete=arguments.space_names)
def show(space: str) -> None:
    """Show what a SPACE says of itself: its table, commands, cost and trials."""
    import inspect

    from study import catalog
    from study.space import Request

    function, _ = catalog.find(space)
    made = catalog.call(function, space, Request())
    click.echo(inspect.getdoc(inspect.getmodule(function)) or made.title)
    click.echo("\nTrials:" if made.trials else "\nDimensions:")
    for name, dimension in made.domain.items() if made.search else ():
        click.echo(f"  {name}: {dimension}")
    for trial in made.trials:
        printed, name = trial.printed, made.source.name
        beside = "" if printed is None else f"   {name} {printed.value:.1f} ({printed.of or trial.column})"
        click.echo(f"  {trial.label}{beside}")
    for option in made.options:
        if option.name not in catalog.options():
            click.echo(f"  -o {option.name}=…: {option.help}")
    click.echo(f"\nNext: study run {space} --dry-run", err=True)


@cli.command(cls=arguments.OfSpaces)
@click.argument("spaces", nargs=-1, required=True, metavar="SPACE...", shell_complete=arguments.space_names)
@click.option(
    "--seeds",
    type=click.IntRange(1, 999),
    help="Replicates of each trial. [default: 3; 9 if they are crossed; 1 a point of a search]",
)
@click.option(
    "-o",
    "named",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of single spaces; @FILE stands for a file's content. `study show` names them.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Points of an open search, in all. [default: the space's]")
@click.option(
    "--objectives",
    metavar="WORDS",
    help="What an open search maximises, with commas between them. [default: the space's]",
)
@click.option(
    "--early-stop",
    type=click.IntRange(min=1),
    metavar="K",
    help="Of an open search: end a point that is below the median, K epochs after the last one in which points part. "
    "[default: never]",
)
@click.option(
    "--name", metavar="RUN", help="What to call the run; with more of the same, one grows. [default: from its content]"
)
@arguments.places
@arguments.services
@arguments.machines
@click.option(
    "--cpus-per-trial",
    type=float,
    default=1.0,
    show_default=True,
    help="CPUs of a stage: threads, and decoders of images; its ranks share them. On a GPU, images are decoded by the "
    "GPU's share of its machine's CPUs, if that is more.",
)
@click.option(
    "--gpus-per-trial",
    type=float,
    default=None,
    help="GPUs of a stage: 0 to 1, or a whole number; from 2 on, one process a GPU trains on its share of every batch. "
    "Stages that share a GPU take turns unless NVIDIA's MPS serves them. [default: 1 if this machine has a GPU and "
    "a space is trained sooner on one; else, and on clusters, 0]",
)
@click.option(
    "--ranks-per-trial",
    type=click.IntRange(min=1),
    default=None,
    help="Processes that train a replicate together, each on its share of every batch. [default: one a GPU]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "tf32", "bf16"]),
    default="auto",
    show_default=True,
    help="What networks calculate in. tf32 is for GPUs: fp32, but for matrix products and convolutions. auto is bf16 "
    "if this machine's CPU, or its GPU if one is used, has arithmetic for it (GPUs: compute capability 8.0 and more), "
    "and fp32 otherwise, as on clusters, whose processors are not known here. A space may say otherwise.",
)
@arguments.gpu_steps("auto", "auto")
@click.option(
    "--data-dir", metavar="DIR", envvar="STUDY_DATA", show_envvar=True, help="Where data sets lie. [default: HOME/data]"
)
@click.option("--download", is_flag=True, help="Download data sets that are missing.")
@click.option("--retrain", is_flag=True, help="Begin the run of this --name anew, if the sources have changed.")
@click.option("--dry-run", is_flag=True, help="Print the trials and what they cost; train nothing, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run, one JSON object; else the report as one.")
def run(
    spaces: Sequence[str],
    seeds: int | None,
    named: Sequence[str],
    trials: int | None,
    objectives: str | None,
    early_stop: int | None,
    name: str | None,
    home: str,
    store: str | None,
    tracking_uri: str | None,
    storage: str | None,
    workers: int | None,
    address: str | None,
    cpus_per_trial: float,
    gpus_per_trial: float | None,
    ranks_per_trial: int | None,
    precision: str,
    gpu_steps: str,
    data_dir: str | None,
    download: bool,
    retrain: bool,
    dry_run: bool,
    as_json: bool,
    **declared: Any,
) -> None:
    """Train one or more SPACEs, planned together: equal prefixes are trained once.

    SPACE is a name from `study list`, `all` for every one that lists its trials and can have these data, the path of a
    Python file with a function space(request), or the name of such a module. Running again takes up where the last
    start ended; under the --name of a run, with more replicates, data or points, it trains what is new.
    """
    from study import launch, preview
    from study.planning.stored import Resources
    from study.space import Request

    if cpus_per_trial <= 0 or not math.isfinite(cpus_per_trial):
        raise Refusal("--cpus-per-trial", cpus_per_trial, "must be a finite number above 0")
    words = () if objectives is None else tuple(word.strip() for word in objectives.split(","))
    if "" in words or len(set(words)) < len(words):
        raise Refusal("--objectives", objectives, "must be each once, with commas between them")
    request = Request(arguments.of_spaces(declared, named), trials or 0, words, early_stop or 0)
    place = Home(home, store)
    folder = str(Path(data_dir).expanduser().absolute() if data_dir else place.path / "data")
    resources = Resources(workers or 0, cpus_per_trial, address=address or "", data_dir=folder, gpu_steps=gpu_steps)
    wish = launch.Wish(
        spaces, request, seeds, resources, gpus=gpus_per_trial, ranks=ranks_per_trial, name=name, precision=precision
    )
    if dry_run:
        preview.print_plan(wish, place, retrain, as_json)
        return
    services = (tracking_uri, storage)
    sys.exit(launch.run(wish, place, services, download=download, retrain=retrain, as_json=as_json))


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@arguments.places
@arguments.services
@arguments.machines
@arguments.gpu_steps(None, "as the run was begun")
@click.option("--retry-failed", is_flag=True, help="Train again what raised; each retry is a new Optuna trial.")
@click.option("--retrain", is_flag=True, help="Begin anew, if the sources have changed; the old records stay.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def resume(
    run: str,
    home: str,
    store: str | None,
    tracking_uri: str | None,
    storage: str | None,
    workers: int | None,
    address: str | None,
    gpu_steps: str | None,
    retry_failed: bool,
    retrain: bool,
    as_json: bool,
) -> None:
    """Go on with a RUN after an interruption: its plan is stored, nothing else need be said.

    A space of your own must still be where it was.
    """
    from study import launch

    services, machines = (tracking_uri, storage), launch.Machines(workers, address, gpu_steps)
    code = launch.resume(
        run, Home(home, store), services, machines, retry_failed=retry_failed, retrain=retrain, as_json=as_json
    )
    sys.exit(code)


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@arguments.places
@click.option("--now", "at_once", is_flag=True, help="Do not let workers end their epoch.")
def stop(run: str, home: str, store: str | None, at_once: bool) -> None:
    """Ask the driver of a RUN to stop, wherever it is: workers end their epoch and save."""
    from study.store import records, starts

    place = Home(home, store)
    opened = place.existing_store(run)
    name = records.find(opened, run)[0].run
    asked = starts.request_stop(opened, name, at_once)
    click.echo(f"asked process {asked.pid} on {asked.host} to stop", err=True)
    click.echo(f"\nNext: study status {name}{place.options()} · study resume {name}{place.options()}", err=True)


@cli.command()
@click.argument("run", required=False, shell_complete=arguments.run_names)
@arguments.places
@click.option(
    "--grace", default=24.0, show_default=True, type=click.FloatRange(min=0), help="Hours; what is younger stays."
)
@click.option("--forget", is_flag=True, help="Let go of RUN's plan first: its tensors go, its results stay.")
@click.option("--dry-run", is_flag=True, help="Say what would go.")
def clean(run: str | None, home: str, store: str | None, grace: float, forget: bool, dry_run: bool) -> None:
    """Drop tensors that no run's plan reaches any more, of all runs or of one RUN; measures stay for reports."""
    from study.store import cleaning, records, starts

    if not math.isfinite(grace):
        raise Refusal("--grace", grace, "a finite number of hours would do")
    if forget and run is None:
        raise Refusal("--forget", "no RUN", "the name of one run would do")
    place = Home(home, store)
    opened = place.existing_store(run)
    opened.require_writable()
    plan = records.find(opened, run)[0] if run is not None else None
    if plan is not None and forget:
        starts.refuse_second(opened, plan.run)
    forgotten = {plan.run} if plan is not None and forget else set()
    gone = cleaning.clean_runs(opened, plan.run if plan else None, forgotten, grace * 3600, dry_run)
    would = "would be " if dry_run else ""
    click.echo(f"{gone.states} states ({_size(gone.bytes)}) {would}dropped, their measures kept")
    click.echo(f"{gone.leftovers} leftovers ({_size(gone.leftover_bytes)}) {would}removed")
    if gone.set_aside:
        click.echo(f"{gone.set_aside} damaged states {would}set aside")
    if gone.kept_by_grace:
        click.echo(f"{gone.kept_by_grace} more are younger than {grace:g} h (--grace)")


@cli.command()
@click.argument("run", required=False, shell_complete=arguments.run_names)
@arguments.places
@click.option("--json", "as_json", is_flag=True, help="One JSON object; without RUN, a list of them.")
def status(run: str | None, home: str, store: str | None, as_json: bool) -> None:
    """Say how far a RUN is, or every run: from the store alone."""
    from dataclasses import asdict

    from study.store import records, status

    place = Home(home, store)
    opened = place.existing_store(run)
    plans = records.all_plans(opened) if run is None else [records.find(opened, run)[0]]
    sizes = opened.sizes()
    found = [status.Status.of(opened, plan, sizes) for plan in plans]
    if as_json:
        plain = [asdict(each) for each in found]
        click.echo(json.dumps(plain[0] if run is not None else plain, indent=2, ensure_ascii=False))
        return
    for each in found:
        counts = ", ".join(f"{getattr(each, kind)} {kind}" for kind in ("complete", "running", "failed", "waiting"))
        click.echo(f"{each.run}  {each.outcome}\n  replicates: {counts}")
        click.echo(f"  epochs: {each.epochs_trained} trained, {each.epochs_needed} needed")
        click.echo(f"  final states: {_size(each.bytes)}")
        for name, failure in records.failures(opened, each.run).items():
            click.echo(f"  failed: {name[0]} r{name[1]}: {failure.reason}")
        if each.behind:
            click.echo(f"  records: {each.behind}")
    for reason in records.damaged_plans(opened) if run is None else ():
        click.echo(f"damaged: {reason}")
    click.echo(f"store: {len(sizes)} states, {_size(sum(sizes.values()))}")
    if found:
        last = found[-1]
        verb = "report" if last.outcome == "complete" and not last.behind else "resume"
        verb = "stop" if last.outcome == "running" else verb
        click.echo(f"\nNext: study {verb} {last.run}{place.options()}", err=True)


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@arguments.places
@click.option(
    "--format",
    "form",
    default="table",
    show_default=True,
    type=click.Choice(["table", "markdown", "csv", "json", "html"]),
    help="html is one page, the figures inside; csv has a line a value.",
)
@click.option("--figures", metavar="DIR", help="Write the figures there (PNG), each beside its data (CSV).")
def report(run: str, home: str, store: str | None, form: str, figures: str | None) -> None:
    """Print a RUN's tables, beside its figures: from the store alone.

    RUN may also name one space of a run. What has not been trained yet is shown as –.
    """
    from study.report.report import Report
    from study.store import records

    opened = Home(home, store).existing_store(run)
    made = Report.of(opened, *records.find(opened, run))
    if figures is not None:
        folder = Path(figures).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in made.figures().items():
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        except OSError as error:
            remedy = f"must be a folder that can be written ({one_line(error)})"
            raise Refusal("--figures", figures, remedy) from error
    click.echo(made.render(form).rstrip("\n"))


@cli.command()
@arguments.places
@click.option("--tracking-uri", metavar="URI", help="MLflow. [default: MLFLOW_TRACKING_URI, else HOME/mlflow.db]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def ui(home: str, store: str | None, tracking_uri: str | None, host: str, port: int) -> None:
    """Open MLflow's own UI on this home, on loopback; Ctrl-C ends it."""
    from study import services
    from study.tracking.ui import serve

    place = Home(home, store)
    uri = place.tracking_uri(place.chosen(tracking_uri, None)[0])
    if uri.startswith("sqlite:") and not tracking_uri and not (place.path / "mlflow.db").is_file():
        raise Refusal("--home", str(place.path), "there is nothing to show in it yet; `study run SPACE` makes a run")
    services.check_tracking("--tracking-uri", uri, place.path)
    if uri.startswith("databricks"):
        raise Refusal("--tracking-uri", uri, "Databricks has a UI of its own")
    sys.exit(serve(uri, place.artifacts, host, port))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def main() -> None:
    """The command `study`: users' mistakes are one line and exit code 2."""
    code = 0
    try:
        code = cli(prog_name="study", standalone_mode=False) or 0
    except (OSError, Away) as error:  # a disk that is full, a store that went away: no fault of the program
        click.echo(f"study: {one_line(error)}; what was saved stays, and `study resume` goes on", err=True)
        code = 1
    except StudyError as error:
        click.echo(f"study: {error}", err=True)
        code = 2
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = error.exit_code
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "study"
        click.echo(f"study: {error.format_message()} `{path} --help` says what would do.", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("study: stopped; `study resume` goes on", err=True)
        code = 130
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is open any more, and torch, Ray and MLflow take 3 s to be torn down object by object
