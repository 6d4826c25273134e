"""The command line: a thin layer on `study.api` that prints and ends with an exit code.

Heavy imports stay inside each verb, so that `study --help` is quick.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study import arguments, process
from study.arguments import HOW_MUCH, MACHINE, WHERE, OneOf, Whole, option
from study.cluster_verbs import cluster
from study.errors import Refusal, one_line
from study.machine import PRECISIONS
from study.report.formats import FORMATS

if TYPE_CHECKING:
    from study.api.results import Run


@click.group(cls=arguments.Verbs, commands=[cluster], context_settings=arguments.SETTINGS)
@click.version_option(package_name="longtail-study", prog_name="study")
def cli() -> None:
    """Launch, compare and resume studies.

    \b
    study list            list the spaces
    study run SPACE       train a space
    study ui              compare runs in MLflow
    study resume SPACE    continue after an interruption
    """


@cli.command("list")
@option("-v", "--verbose", is_flag=True, help="Show the cost of each space, with and without shared prefixes.")
@option("--json", "as_json", is_flag=True, help="Print one JSON list, with costs.")
def list_spaces(verbose: bool, as_json: bool) -> None:
    """List the spaces and what each reproduces."""
    from study import listing

    entries = listing.spaces(with_costs=verbose or as_json)
    _show(listing.as_json(entries) if as_json else listing.text(entries, verbose))
    if not as_json:
        _next("study show SPACE", "study run SPACE --dry-run", "study list -v (costs)")


@cli.command()
@click.argument("space", shell_complete=arguments.space_names)
def show(space: str) -> None:
    """Show a page about a SPACE: its table, commands, cost, trials and options."""
    from study import listing

    _show(listing.page(space))
    _next(f"study run {space} --dry-run")


@cli.command(cls=arguments.SpacesCommand)
@click.argument("spaces", nargs=-1, required=True, metavar="SPACE...", shell_complete=arguments.space_names)
@arguments.named
@arguments.seeds
@option(
    "--trials", group=HOW_MUCH, type=Whole(), help="Total number of points of an open search. [default: the space's]"
)
@option(
    "--objectives",
    group=HOW_MUCH,
    metavar="A,B",
    help="Measures that an open search maximises. [default: the space's]",
)
@option(
    "--early-stop",
    group=HOW_MUCH,
    type=Whole(),
    help="For an open search: N epochs after the last epoch in which points branch, end the points below the median. "
    "[default: never]",
)
@option(
    "--name",
    group=WHERE,
    metavar="RUN",
    help="Name of the run. If this run exists, what is new is added to it. [default: made from its content]",
)
@arguments.places
@arguments.data_dir
@option("--download", group=WHERE, is_flag=True, help="Download data sets that are missing.")
@option(
    "--verify-images",
    group=WHERE,
    is_flag=True,
    help="Decode all image files completely before training, not only their headers; files are decoded once.",
)
@arguments.machines
@arguments.detach
@arguments.shares
@option(
    "--ranks-per-trial",
    group=MACHINE,
    type=Whole(),
    help="Processes that train a replicate together, each on its share of every batch. [default: one per GPU]",
)
@option(
    "--precision",
    group=MACHINE,
    type=OneOf(PRECISIONS),
    show_default="auto",
    help="Precision of the networks. tf32 is for GPUs. auto is bf16 if this machine's CPU or GPU has instructions for "
    "it (GPUs: compute capability 8.0 or higher), else fp32. On clusters, auto is fp32. A space may choose another.",
)
@arguments.gpu_steps("auto")
@arguments.services
@option("--retrain", is_flag=True, help="Start the run of this --name anew, if the sources have changed.")
@option(
    "--dry-run",
    is_flag=True,
    help="Print the trials, their cost and what would stop the run (exit code 2); train, write and download nothing.",
)
@arguments.tracebacks
@option("--json", "as_json", is_flag=True, help="Print the report, or with --dry-run the plan, as one JSON object.")
def run(spaces: Sequence[str], named: Sequence[str], dry_run: bool, as_json: bool, **choices: Any) -> None:
    """Train one or more SPACEs, planned together: equal prefixes are trained once.

    SPACE is a name from 'study list', 'all', the path of a Python file with a function space(request), or the name of
    such a module; ':function' may follow. The same command continues a run that was interrupted. With more replicates,
    data or points, the run of the same --name trains what is new.
    """
    from study.api import calls

    options = arguments.declared(named, choices)
    _check_detach(choices["detach"], as_json and not dry_run)
    if dry_run:
        planned = calls.plan(*spaces, options=options, **choices)
        for name, reason in planned.left_out.items():
            click.echo(f"left out: {name}: {reason}", err=True)
        click.echo(_json(planned.to_json()) if as_json else str(planned))
        for reason in planned.obstacles:
            click.echo(f"would be refused: {reason}", err=True)
        sys.exit(2 if planned.obstacles else 0)
    trained = calls.run(*spaces, options=options, trained=lambda run: _print_report(run, as_json), **choices)
    _end(trained, choices["detach"])


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@arguments.places
@option(
    "--data-dir",
    group=WHERE,
    metavar="DIR",
    help="Folder of data sets. [default: as the run began; if there is no such folder here, STUDY_DATA]",
)
@arguments.machines
@arguments.detach
@arguments.gpu_steps("as the run began")
@arguments.services
@option("--retry-failed", is_flag=True, help="Train failed replicates again, also those of refused points.")
@option("--retrain", is_flag=True, help="Start the run anew, if the sources have changed; the old records stay.")
@arguments.tracebacks
@option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def resume(run: str, as_json: bool, **choices: Any) -> None:
    """Continue a RUN after an interruption.

    The plan is stored, so no other option is needed. It holds the sources of your own files, which are used where the
    files are not. A package of your own must be installed.
    """
    from study.api import calls

    _check_detach(choices["detach"], as_json)
    _end(calls.resume(run, trained=lambda run: _print_report(run, as_json), **choices), choices["detach"])


@cli.command(cls=arguments.SpacesCommand)
@click.argument("spaces", nargs=-1, metavar="[SPACE]...", shell_complete=arguments.space_names)
@arguments.named
@arguments.seeds
@arguments.places
@arguments.data_dir
@arguments.machines
@arguments.shares
@arguments.services
@arguments.tracebacks
@option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def doctor(spaces: Sequence[str], named: Sequence[str], as_json: bool, **choices: Any) -> None:
    """Check this machine, the servers and each node of a cluster before a run; train nothing.

    With SPACEs, also check what their run needs: data, libraries, GPUs, memory and disk. Each finding says what was
    found, where, and what to do. The exit code is 2 if there is an error: a run would be refused, would leave a node
    out, or would fail.
    """
    from study.api.doctor import doctor as examine

    findings = examine(*spaces, options=arguments.declared(named, choices), **choices)
    click.echo(_json([asdict(finding) for finding in findings]) if as_json else "\n".join(map(str, findings)))
    sys.exit(2 if any(finding.level == "error" for finding in findings) else 0)


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@arguments.places
@option("--now", "at_once", is_flag=True, help="Stop at once: workers do not finish their epoch.")
def stop(run: str, home: str, store: str | None, at_once: bool) -> None:
    """Stop the process that trains a RUN, on any machine, after its workers finish their epoch and save."""
    from study.api import calls

    loaded = calls.load(run, home=home, store=store)
    click.echo(f"asked {loaded.stop(at_once)} to stop", err=True)
    places = loaded.command_options
    _next(f"study status {loaded.name}{places}", f"study resume {loaded.name}{places}")


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@click.argument("trial", nargs=-1)
@arguments.places
@option("-f", "--follow", is_flag=True, help="Print new lines as they come, until the run's process ends.")
def logs(run: str, trial: Sequence[str], home: str, store: str | None, follow: bool) -> None:
    """Print what the process that trains a RUN printed; only the store is read.

    The lines of all starts are printed, those of the last start at the end. With a TRIAL, print instead why its
    replicates failed, with the tracebacks. TRIAL is a part of its name that no other trial has, and perhaps the number
    of a replicate, such as 'IB⇒CR r1'. The store keeps the last 2000 lines of each start. Times are in UTC.
    """
    from study.api import calls

    if follow and trial:
        raise Refusal("--follow", "--follow", "must be left out with a TRIAL")
    loaded = calls.load(run, home=home, store=store)
    try:
        for line in loaded.follow() if follow else [loaded.logs(" ".join(trial) or None)]:
            click.echo(line)
    except KeyboardInterrupt:
        sys.exit(process.INTERRUPTED)


@cli.command()
@click.argument("run", required=False, shell_complete=arguments.run_names)
@arguments.places
@option("--grace", default=24.0, show_default=True, type=arguments.Number(), help="Age in hours; younger tensors stay.")
@option(
    "--forget", is_flag=True, help="Forget RUN's plan first, so that its tensors are dropped, too; its results stay."
)
@option("--dry-run", is_flag=True, help="Print what would be dropped; drop nothing.")
def clean(run: str | None, home: str, store: str | None, grace: float, forget: bool, dry_run: bool) -> None:
    """Drop tensors of all runs, or of one RUN, that no plan needs any longer; measures stay for reports."""
    from study.api.calls import home_at
    from study.store import cleaning, records, starts
    from study.watching import size

    if not math.isfinite(grace) or grace < 0:
        raise Refusal("--grace", grace, "must be a finite number of hours, at least 0")
    if forget and run is None:
        raise Refusal("--forget", "study clean --forget", "must come with the name of one RUN")
    opened = home_at(home, store).existing_store(run)
    opened.require_writable()
    plan = records.find(opened, run)[0] if run is not None else None
    if plan is not None and forget:
        starts.refuse_second(opened, plan.run, partial(click.echo, err=True))
    forgotten = {plan.run} if plan is not None and forget else set()
    gone = cleaning.clean_runs(opened, plan.run if plan else None, forgotten, grace * 3600, dry_run)
    would = "would be " if dry_run else ""
    click.echo(f"{gone.states} states ({size(gone.bytes)}) {would}dropped, their measures kept")
    click.echo(f"{gone.leftovers} leftovers ({size(gone.leftover_bytes)}) {would}removed")
    if gone.set_aside:
        click.echo(f"{gone.set_aside} damaged states {would}set aside")
    if gone.kept_by_grace:
        click.echo(f"{gone.kept_by_grace} more are younger than {grace:g} h and stay (--grace)")


@cli.command()
@click.argument("run", required=False, shell_complete=arguments.run_names)
@arguments.places
@option("--watch", is_flag=True, help="Show it again every 2 s until no process trains the RUN, or any run.")
@option("--json", "as_json", is_flag=True, help="Print one JSON object; without RUN, a list of them.")
def status(run: str | None, home: str, store: str | None, watch: bool, as_json: bool) -> None:
    """Show the progress of a RUN, or of every run; only the store is read."""
    from study import watching
    from study.api import calls

    if watch and as_json:
        raise Refusal("--json", "--json", "must be left out with --watch")
    chosen = calls.home_at(home, store)
    opened = chosen.existing_store(run)
    try:
        statuses = (watching.watch if watch else watching.Statuses.of)(opened, run)
    except KeyboardInterrupt:
        if not watch:
            raise
        sys.exit(process.INTERRUPTED)
    if as_json:
        plain = [asdict(each) for each in statuses.statuses]
        click.echo(_json(plain[0] if run is not None else plain))
        return
    click.echo(statuses.text)
    if statuses.statuses:
        _next(*watching.next_commands(statuses.statuses[-1], chosen.options()))


@cli.command()
@click.argument("run", shell_complete=arguments.run_names)
@arguments.places
@option(
    "--format",
    "form",
    default="table",
    show_default=True,
    type=OneOf(FORMATS),
    help="html is one page that contains the figures; csv has one line per value.",
)
@arguments.tracebacks
@option("--figures", metavar="DIR", help="Folder for the figures: a PNG of each, and its data as CSV.")
def report(run: str, home: str, store: str | None, form: str, figures: str | None) -> None:
    """Print a RUN's tables; only the store is read.

    RUN may also be the name of one space of a run. A value that is not trained yet is shown as –. The exit code is 1 if
    the space's view or a figure raises; the platform's own table then replaces the view.
    """
    from study.api import calls

    compiled = calls.load(run, home=home, store=store).compiled()
    if figures is not None:
        folder = Path(figures).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in compiled.figures().items():
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        except OSError as error:
            raise Refusal("--figures", figures, "must be a writable folder", hint=one_line(error)) from error
    _show(compiled.render(form).rstrip("\n"))
    for problem in compiled.problems:
        click.echo(f"error: {problem}", err=True)
    if compiled.problems:
        sys.exit(1)


@cli.command()
@arguments.places
@arguments.tracking
@option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("--port", default=5000, show_default=True, type=Whole(), help="Port to listen on.")
def ui(home: str, store: str | None, tracking_uri: str | None, host: str, port: int) -> None:
    """Serve MLflow's UI for this home, by default on this machine only; Ctrl-C ends it."""
    from study import services
    from study.api.calls import home_at
    from study.store.starts import is_trained
    from study.tracking.moving import follow_home
    from study.tracking.ui import serve

    if not 1 <= port <= 65535:
        raise Refusal("--port", port, "must be between 1 and 65535")
    chosen = home_at(home, store)
    uri = chosen.tracking_uri(chosen.chosen(tracking_uri, None)[0])
    if uri.startswith("sqlite:") and not tracking_uri and not (chosen.path / "mlflow.db").is_file():
        words = f"--home {str(chosen.path)!r} has no MLflow records yet. 'study run SPACE' makes a run"
        raise Refusal("--home", str(chosen.path), words)
    services.check_tracking("--tracking-uri", uri, chosen.path)
    if uri.startswith("databricks"):
        raise Refusal("--tracking-uri", uri, f"--tracking-uri {uri!r} has a UI of its own: open it in Databricks")
    opened = chosen.store_if_any()
    if opened is None or not is_trained(opened):  # a driver may see the home under another path
        with suppress(sqlite3.Error):  # locked, or of another version: MLflow says so
            follow_home(uri, chosen.artifacts)
    sys.exit(serve(uri, chosen.artifacts, host, port))


@cli.command()
@click.argument("shell", type=OneOf(["bash", "zsh", "fish"]))
@option("--print", "printed", is_flag=True, help="Print the script instead of installing it.")
def completion(shell: str, printed: bool) -> None:
    """Install the completion of commands, options, spaces and runs for a SHELL: bash, zsh or fish."""
    from study import completion as scripts

    if printed:
        click.echo(scripts.script(cli, shell))
        return
    for path in scripts.install(cli, shell, Path.home()):
        click.echo(f"wrote {path}")
    click.echo("completion works in new shells")


def _check_detach(detach: bool, as_json: bool) -> None:
    if detach and as_json:
        hint = "There is no report yet; 'study report RUN --format json' prints it later"
        raise Refusal("--json", "--json", "must be left out with --detach", hint=hint)


def _print_report(run: Run, as_json: bool) -> None:
    click.echo(run.report("json" if as_json else "table").rstrip("\n"))


def _end(run: Run, detached: bool) -> None:
    """Print what to do next, and exit with the exit code of a run's outcome. Of a detached run, print the name."""
    from study import watching
    from study.execution.driver import EXIT_CODES

    places = run.command_options
    if detached:
        click.echo(run.name)
        commands = ("status {} --watch", "logs {} -f", "stop {}", "report {}")
        _next(*(f"study {command.format(run.name)}{places}" for command in commands))
        return
    outcome, status = run.outcome, run.status()
    if outcome == "complete" and status.behind:
        outcome = "behind"
    first = [f"study report {run.name} --format markdown{places}"]
    if outcome != "complete":
        first = watching.next_commands(status, places)
    if status.outcome == "running":  # another driver has taken it over
        first = [f"study status {run.name}{places}"]
    _next(*first, f"study ui{places} (compare in MLflow)", "study list")
    sys.exit(EXIT_CODES[outcome])


def _next(*commands: str) -> None:
    click.echo(f"\nNext: {' · '.join(commands)}", err=True)


def _show(text: str) -> None:
    """Print a text, through a pager if it is longer than the terminal."""
    if sys.stdout.isatty() and text.count("\n") + 2 > shutil.get_terminal_size().lines:
        os.environ.setdefault("LESS", "FRX")  # end at once if it fits, keep colours, leave the text on the screen
        click.echo_via_pager(text + "\n")
    else:
        click.echo(text)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def main() -> None:
    """Run the command `study`: a user's mistake is one line and exit code 2."""
    process.run(lambda: cli(prog_name="study", standalone_mode=False))
