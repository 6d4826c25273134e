"""The command line: verbs over the platform. Heavy imports stay inside each verb, for `study --help` is quick."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from study.errors import Away, Damaged, Refusal, one_line
from study.home import Home
from study.machine import has_gpu
from study.space import CROSSED

Function = TypeVar("Function", bound=Callable[..., Any])


def _places(function: Function) -> Function:
    store = click.option("--store", metavar="URL", help="Where states lie: a folder or URL. [default: HOME/store]")
    home = click.option(
        "--home",
        default="./studies",
        envvar="STUDY_HOME",
        show_default=True,
        show_envvar=True,
        help="Folder for states, MLflow, Optuna and artefacts.",
    )
    return home(store(function))


def _machines(function: Function) -> Function:
    options = (
        click.option("--workers", type=click.IntRange(min=1), help="Stages at a time. [default: what fits]"),
        click.option(
            "--address",
            metavar="ADDR",
            help="A Ray cluster (auto, or HOST:PORT), or local. [default: local; of resume: where the run was begun]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def _gpu_steps(default: str | None, otherwise: str) -> Callable[[Function], Function]:
    return click.option(
        "--gpu-steps",
        type=click.Choice(["auto", "eager", "recorded"]),
        default=default,
        help="For runs on GPUs. recorded: a step is recorded once, as a CUDA graph, and replayed. eager: its "
        "operations are launched one by one, several times slower; to look for a fault. auto: recorded. Steps on image "
        "files or of several ranks are always eager. States have the same names and bits either way. "
        f"[default: {otherwise}]",
    )


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
    from study.store import records

    try:
        plans = records.all_plans(Home(os.environ.get("STUDY_HOME", "./studies"), None).existing_store())
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
    from study.machine import Machine
    from study.plan.drafting import draft
    from study.plan.stored import Resources
    from study.space import Request

    scales = {"digits": Request(), "short": Request(short=True), "paper": Request(paper=True)}
    found = []
    for name in catalog.names():
        record: dict[str, Any] = {"space": name}
        for scale, request in scales.items():
            plan = draft([name], request, 1, Machine("cpu", 1), Resources()).plan
            naive = sum(trial.epochs * len(trial.ends) for trial in plan.trials)
            runs = max((len(trial.ends) for trial in plan.trials), default=1)
            record[scale] = {"epochs_needed": plan.epochs_needed, "epochs_naive": naive, "runs": runs}
            record["search"] = plan.spaces[0].search is not None
            record["title"] = plan.spaces[0].title
        found.append(record)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(
        "epochs a replicate (of all runs, where a space needs several), of which shared prefixes leave; on digits, "
        "with --short, with --paper:"
    )
    for each in found:
        if each["search"]:
            click.echo(f"{each['space']:10} {each['title']}\n{'':10} as many points as --trials says")
            continue
        costs = "; ".join(
            f"{scale} {each[scale]['epochs_naive']} → {each[scale]['epochs_needed']}"
            + (f" ({each[scale]['runs']} runs)" if each[scale]["runs"] > 1 else "")
            for scale in scales
        )
        click.echo(f"{each['space']:10} {each['title']}\n{'':10} {costs}")
    click.echo("\nNext: study show table9, study run table9", err=True)


@cli.command()
@click.argument("space", shell_complete=_space_names)
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
        paper = "" if trial.paper is None else f"   paper {trial.paper:.1f} ({trial.paper_of})"
        click.echo(f"  {trial.label}{paper}")
    for name, meaning in made.options.items():
        click.echo(f"  -o {name}=…: {meaning}")
    click.echo(f"\nNext: study run {space} --dry-run", err=True)


@cli.command()
@click.argument("spaces", nargs=-1, required=True, metavar="SPACE...", shell_complete=_space_names)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME",
    help="digits, cifar10, cifar100, imagenet-lt, inaturalist2018, places-lt or folder:PATH; repeatable. "
    "[default: digits]",
)
@click.option(
    "--imbalance", multiple=True, type=float, metavar="IF", help="Imbalance factor; repeatable. [default: 50]"
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 999),
    help="Replicates of each trial. [default: 3; 9 with --vary crossed; 1 a point of a search]",
)
@click.option("--paper", is_flag=True, help="The paper's own data, epochs and protocol.")
@click.option(
    "--short",
    is_flag=True,
    help="A short protocol: CIFAR (--data cifar10 or cifar100) with the paper's ResNet-32 in 30 epochs instead of 200.",
)
@click.option(
    "--vary",
    multiple=True,
    type=click.Choice(["seed", "subset", "split", "all", CROSSED]),
    help="What a replicate differs from the others in; repeatable. seed: the training seed (initial weights, sampling, "
    "augmentation). subset: which images the long-tailed set keeps. split: which images are for test. all: all that "
    "the data have. crossed: every pair of a subset and a seed, which tells how much of the spread each makes; "
    "--seeds is then a square, by default 9. [default: seed, on the published subset; of digits, all]",
)
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of single spaces, such as recipe=source; @FILE stands for a file's content. `study show` names them.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Points of an open search, in all. [default: the space's]")
@click.option("--objectives", metavar="WORDS", help="Of an open search, such as top1,few. [default: top1]")
@click.option(
    "--early-stop",
    type=click.IntRange(min=1),
    metavar="K",
    help="Of an open search: end a point that is below the median, K epochs after its last switch. [default: never]",
)
@click.option(
    "--name", metavar="RUN", help="What to call the run; with more of the same, one grows. [default: from its content]"
)
@_places
@_services
@_machines
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
    "anything larger than digits is trained; else, and on clusters, 0]",
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
    "and fp32 otherwise. Digits are trained in fp32, and so are all on clusters, whose processors are not known here.",
)
@_gpu_steps("auto", "auto")
@click.option(
    "--data-dir", metavar="DIR", envvar="STUDY_DATA", show_envvar=True, help="Where data sets lie. [default: HOME/data]"
)
@click.option("--download", is_flag=True, help="Download data sets that are missing.")
@click.option("--retrain", is_flag=True, help="Begin the run of this --name anew, if the sources have changed.")
@click.option("--dry-run", is_flag=True, help="Print the trials and what they cost; train nothing, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run, one JSON object; else the report as one.")
def run(
    spaces: Sequence[str],
    data: Sequence[str],
    imbalance: Sequence[float],
    seeds: int | None,
    paper: bool,
    short: bool,
    vary: Sequence[str],
    options: Sequence[str],
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
) -> None:
    """Train one or more SPACEs, planned together: equal prefixes are trained once.

    SPACE is a name from `study list`, `all` for every table and figure that can have these data, or the path of a
    Python file with a function space(request). Running again takes up where the last start ended; under the --name of
    a run, with more replicates, data or points, it trains what is new.
    """
    from study import launch, preview
    from study.plan import drafting
    from study.plan.stored import Resources
    from study.space import Request

    if cpus_per_trial <= 0 or not math.isfinite(cpus_per_trial):
        raise Refusal("--cpus-per-trial", cpus_per_trial, "a finite number above 0 would do")
    words = () if objectives is None else tuple(word.strip() for word in objectives.split(","))
    if "" in words or len(set(words)) < len(words):
        raise Refusal("--objectives", objectives, "each once, with commas between them, would do, such as top1,few")
    kinds = tuple(dict.fromkeys(vary))
    if len(kinds) > 1 and {"all", CROSSED} & set(kinds):
        raise Refusal("--vary", ", ".join(kinds), "must be all or crossed alone, or some of seed, subset and split")
    request = Request(
        tuple(dict.fromkeys(data)),
        tuple(dict.fromkeys(imbalance)),
        paper,
        trials or 0,
        words,
        early_stop or 0,
        _options(options),
        short,
        kinds,
    )
    if gpus_per_trial is None:
        gpus_per_trial = float(not address and has_gpu() and drafting.wants_gpu(spaces, request))
    elif not 0 <= gpus_per_trial < math.inf or (gpus_per_trial > 1 and gpus_per_trial != int(gpus_per_trial)):
        raise Refusal("--gpus-per-trial", gpus_per_trial, "must be 0 to 1, or a whole number from 2 on")
    ranks = ranks_per_trial or max(1, int(gpus_per_trial))
    if gpus_per_trial and ranks != max(1, int(gpus_per_trial)):
        raise Refusal(
            "--ranks-per-trial", ranks, f"must be {max(1, int(gpus_per_trial))}, one a GPU; leave the option out"
        )
    place = Home(home, store)
    folder = str(Path(data_dir).expanduser().absolute() if data_dir else place.path / "data")
    resources = Resources(workers or 0, cpus_per_trial, gpus_per_trial, address or "", folder, gpu_steps)
    wish = launch.Wish(spaces, request, seeds, resources, name, precision, ranks)
    if dry_run:
        preview.print_plan(wish, place, retrain, as_json)
        return
    services = (tracking_uri, storage)
    sys.exit(launch.run(wish, place, services, download=download, retrain=retrain, as_json=as_json))


@cli.command()
@click.argument("run", shell_complete=_run_names)
@_places
@_services
@_machines
@_gpu_steps(None, "as the run was begun")
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
@click.argument("run", shell_complete=_run_names)
@_places
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
@click.argument("run", required=False, shell_complete=_run_names)
@_places
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
    place.existing_store(run)
    opened = place.store()
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
@click.argument("run", required=False, shell_complete=_run_names)
@_places
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
@click.argument("run", shell_complete=_run_names)
@_places
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
    """Print a RUN's tables in the paper's shape, beside its figures: from the store alone.

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
            remedy = f"a folder that can be written would do ({one_line(error)})"
            raise Refusal("--figures", figures, remedy) from error
    click.echo(made.render(form).rstrip("\n"))


@cli.command()
@_places
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
        raise Refusal("--home", str(place.path), "there is nothing to show in it yet; `study run table9` makes a run")
    services.check_tracking("--tracking-uri", uri, place.path)
    if uri.startswith("databricks"):
        raise Refusal("--tracking-uri", uri, "Databricks has a UI of its own")
    sys.exit(serve(uri, place.artifacts, host, port))


def _options(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, by name; a value @FILE is the file's content, which is stored with the plan."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals or name in found:
            raise Refusal("-o", each, "NAME=VALUE would do, each name once")
        if value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise Refusal("-o", each, f"a text file that can be read would do ({one_line(error)})") from error
        found[name] = value
    return found


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def main() -> None:
    """The command `study`: users' mistakes are one line and exit code 2."""
    code = 0
    try:
        code = cli(prog_name="study", standalone_mode=False) or 0
    except (Refusal, Damaged) as refusal:
        click.echo(f"study: {refusal}", err=True)
        code = 2
    except (OSError, Away) as error:  # a disk that is full, a store that went away: no fault of the program
        click.echo(f"study: {one_line(error)}; what was saved stays, and `study resume` goes on", err=True)
        code = 1
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
