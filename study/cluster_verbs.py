"""The commands `study cluster slurm|kuberay|docker`: they write files that start a run on a cluster."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import click

from study.arguments import MACHINE, RECORDS, WHERE, Command, Function, Verbs, Whole, option
from study.errors import Refusal, one_line
from study.recipes import docker as docker_files
from study.recipes import kuberay as kuberay_files
from study.recipes import slurm as slurm_files
from study.recipes.sweep import PRIVATE, Nodes, Places, Sweep, packed, seconds, with_paths

PROJECT = "longtail-study"
RUN = "Run"  # the group of options about the run itself


@click.group(cls=Verbs)
def cluster() -> None:
    """Write the files that start a run on a cluster: for Slurm, KubeRay or Docker.

    \b
    study cluster slurm --out sweep --nodes 4 --gpus 8 SPACE
    """


class _Written(Command):
    """A command whose own options stand before SPACE; what follows is for `study run`."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]
        self.allow_interspersed_args = False


def _shared(function: Function) -> Function:
    """Declare the options of every recipe."""
    declarations: list[Callable[[Function], Function]] = [
        click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SPACE..."),
        option("--out", required=True, metavar="DIR", help="Folder for the files."),
        option("--force", is_flag=True, help="Replace files that exist, but for the file of passwords."),
        option("--name", default="study", show_default=True, metavar="NAME", help="Name of the job and its parts."),
        option("--nodes", group=MACHINE, default=1, show_default=True, type=Whole(), help="Machines that train."),
        option("--gpus", group=MACHINE, default=0, show_default=True, type=Whole(), help="GPUs of each machine."),
        option("--cpus", group=MACHINE, type=Whole(), help="CPUs of each machine. [default: all]"),
        option("--memory", group=MACHINE, metavar="SIZE", help="Memory of each machine, such as 64G."),
        option("--store", group=WHERE, metavar="URL", help="Folder or URL for states. [default: in the home]"),
        option("--data-dir", group=WHERE, metavar="DIR", help="Folder of data sets. [default: in the home]"),
    ]
    for declare in reversed(declarations):
        function = declare(function)
    return function


def _timed(default: str | None) -> Callable[[Function], Function]:
    """Declare the options about a time limit."""
    words = "" if default else " [default: none]"
    limit = option(
        "--time",
        group=MACHINE,
        default=default,
        show_default=default is not None,
        metavar="TIME",
        help=f"Time limit, as HH:MM:SS or D-HH:MM:SS.{words}",
    )
    drain = option(
        "--drain",
        group=MACHINE,
        default=600,
        show_default=True,
        type=Whole(),
        help="Seconds before the limit in which the workers finish their epoch and save.",
    )
    return lambda function: limit(drain(function))


def _services(function: Function) -> Function:
    """Declare where records go."""
    tracking = option("--tracking-uri", group=RECORDS, metavar="URI", help="MLflow's server, without a password.")
    storage = option("--storage", group=RECORDS, metavar="URL", help="Optuna's PostgreSQL, without a password.")
    return tracking(storage(function))


@cluster.command(cls=_Written)
@_shared
@option(
    "--home",
    group=WHERE,
    metavar="DIR",
    envvar="STUDY_HOME",
    show_envvar=True,
    show_default="./studies",
    help="Folder for states and other files, on a file system that all nodes share.",
)
@_services
@_timed("24:00:00")
@option("--partition", group=MACHINE, metavar="NAME", help="Slurm's partition. [default: Slurm's]")
@option("--account", group=MACHINE, metavar="NAME", help="Slurm's account. [default: Slurm's]")
@option("--requeue", group=MACHINE, is_flag=True, help="Submit the job again when its time limit has been reached.")
def slurm(
    words: Sequence[str],
    out: str,
    force: bool,
    name: str,
    nodes: int,
    gpus: int,
    cpus: int | None,
    memory: str | None,
    store: str | None,
    data_dir: str | None,
    home: str | None,
    tracking_uri: str | None,
    storage: str | None,
    time: str,
    drain: int,
    partition: str | None,
    account: str | None,
    requeue: bool,
) -> None:
    """Write a batch script for Slurm that starts Ray on its nodes by 'ray symmetric-run' and trains SPACE.

    The options of this command stand before SPACE, those of 'study run' after it. The nodes use the Python environment
    that writes the files: it and the files must be on a file system that all nodes share.
    """
    _check_words(words)
    if store is not None and "://" not in store:
        store = _path(store)
    places = Places(
        home=_path(home or "studies"),
        store=store,
        data_dir=_path(data_dir) if data_dir else None,
        tracking_uri=tracking_uri,
        storage=storage,
    )
    sweep = Sweep(name, with_paths(words, str), Nodes(nodes, cpus, gpus, memory), places)
    allocation = slurm_files.Allocation(time, drain, partition, account, requeue)
    programs = str(Path(sys.executable).parent)
    _write(out, force, slurm_files.written(sweep, allocation, _path(out), os.getcwd(), programs))
    _next(f"sbatch {shlex.quote(f'{out}/sweep.sbatch')}", "squeue --me", "study status")


@cluster.command(cls=_Written)
@_shared
@option("--image", required=True, metavar="IMAGE", help="Image of the project, as 'study cluster docker' builds it.")
@option("--namespace", default="default", show_default=True, metavar="NAME", help="Kubernetes' namespace.")
@option("--claim", group=WHERE, metavar="NAME", help="Volume claim of your own. [default: a new one, if not on S3]")
@option("--claim-size", group=WHERE, default="100Gi", show_default=True, metavar="SIZE", help="Size of a new claim.")
@option("--storage-class", group=WHERE, metavar="NAME", help="Storage class of new claims. [default: the cluster's]")
@_services
@_timed(None)
def kuberay(
    words: Sequence[str],
    out: str,
    force: bool,
    name: str,
    nodes: int,
    gpus: int,
    cpus: int | None,
    memory: str | None,
    store: str | None,
    data_dir: str | None,
    image: str,
    namespace: str,
    claim: str | None,
    claim_size: str,
    storage_class: str | None,
    tracking_uri: str | None,
    storage: str | None,
    time: str | None,
    drain: int,
) -> None:
    """Write a RayJob for Kubernetes with KubeRay that trains SPACE.

    The options of this command stand before SPACE, those of 'study run' after it. --cpus and --memory are required.
    PostgreSQL and an MLflow server are written too, unless --storage and --tracking-uri name your own.
    """
    _check_words(words)
    if (tracking_uri is None) != (storage is None):
        option, value = ("--storage", storage) if storage else ("--tracking-uri", tracking_uri)
        raise Refusal(option, value, "must come with the other one of --storage and --tracking-uri, or be left out")
    generated = {} if storage else {"PGPASSWORD": secrets.token_hex(24)}
    words, files = packed(words)
    tracking_uri, storage = tracking_uri or kuberay_files.TRACKING_URI, storage or kuberay_files.STORAGE
    sweep = Sweep(
        name,
        tuple(words),
        Nodes(nodes, cpus, gpus, memory),
        Places(kuberay_files.HOME, store, data_dir, tracking_uri, storage),
    )
    limit = None if time is None else max(1, seconds("--time", time) - drain)
    ray = metadata.version("ray")
    asked = kuberay_files.Kubernetes(namespace, image, ray, claim, claim_size, storage_class, limit, drain)
    texts = kuberay_files.written(sweep, asked, files, generated)
    _write(out, force, texts)
    folder = shlex.quote(out)
    _next(
        f"kubectl -n {namespace} create secret generic study-secrets --from-env-file={folder}/secrets.env",
        *(f"kubectl apply -f {folder}/{file}" for file in kuberay_files.ORDER if file in texts),
    )


@cluster.command(cls=_Written)
@_shared
@option("--image", default="study", show_default=True, metavar="IMAGE", help="Name of the image that is built.")
@option(
    "--source",
    metavar="PATH",
    help="The project's source, or a wheel of it. [default: this installation's, or this folder]",
)
@option("--port", group=RECORDS, default=5000, show_default=True, type=Whole(), help="MLflow's port on this machine.")
def docker(
    words: Sequence[str],
    out: str,
    force: bool,
    name: str,
    nodes: int,
    gpus: int,
    cpus: int | None,
    memory: str | None,
    store: str | None,
    data_dir: str | None,
    image: str,
    source: str | None,
    port: int,
) -> None:
    """Write a Dockerfile of the project, and a Ray cluster in containers on this machine that trains SPACE.

    The options of this command stand before SPACE, those of 'study run' after it. MLflow and PostgreSQL run in
    containers too; only MLflow's port is reachable, on loopback.
    """
    _check_words(words)
    words, files = packed(words)
    places = Places(docker_files.HOME, store, data_dir, docker_files.TRACKING_URI, docker_files.STORAGE)
    sweep = Sweep(name, tuple(words), Nodes(nodes, cpus, gpus, memory), places)
    context, wheel = _source(source)
    python = ".".join(map(str, sys.version_info[:2]))
    built = docker_files.Image(image, context, wheel, python, _pins())
    generated = {"PGPASSWORD": secrets.token_hex(24), "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    _write(out, force, docker_files.written(sweep, built, _path(out), port, files, generated))
    _next(f"docker compose --project-directory {shlex.quote(out)} build", shlex.quote(f"{out}/run.sh"))


def _check_words(words: Sequence[str]) -> None:
    """Check the spaces and options of `study run`.

    Raises:
        Refusal: if there is no such space, or if an option is one that a recipe gives.
        click.UsageError: if `study run` has no such option.
    """
    from study import catalog

    root = click.get_current_context().find_root()
    assert isinstance(root.command, click.Group)
    context = root.command.commands["run"].make_context("run", list(words), parent=root)
    given = "This command gives it to 'study run' itself; some of its own options stand before SPACE"
    ended = "A job that ends before the run does would stop Ray"
    hints = dict.fromkeys(("address", "home", "store", "data_dir", "tracking_uri", "storage"), given)
    for name, hint in {**hints, "detach": ended, "dry_run": ended}.items():
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise Refusal(f"--{name.replace('_', '-')}", context.params[name], "must not come after SPACE", hint=hint)
    for space in context.params["spaces"]:
        if space != "all":
            catalog.find(space)


def _path(given: str) -> str:
    return str(Path(given).expanduser().absolute())


def _source(given: str | None) -> tuple[str, str | None]:
    """Return the folder of the project's source and None, or the folder of a wheel and the wheel's name."""
    installed = Path(__file__).parents[1]
    is_source = (installed / "pyproject.toml").is_file()  # else it is a copy among other installed packages
    path = Path(given).expanduser().absolute() if given else installed if is_source else Path.cwd()
    if path.suffix == ".whl" and path.is_file():
        return str(path.parent), path.name
    if not (path / "pyproject.toml").is_file():
        words = "must be the folder of the project's source, with pyproject.toml, or a wheel of it"
        raise Refusal("--source", str(path), words)
    return str(path), None


def _pins() -> list[str]:
    """Return the packages that the project needs, in the versions that are installed here."""
    pins = []
    for requirement in metadata.requires(PROJECT) or ():
        if "extra ==" in requirement:
            continue
        name = requirement.partition(">")[0].strip()
        version = metadata.version(name.partition("[")[0]).partition("+")[0]
        pins.append(f"{'ray[default,tune]' if name.startswith('ray') else name}=={version}")
    return pins


def _write(out: str, force: bool, texts: Mapping[str, str]) -> None:
    """Write files into a folder. Passwords are readable by their user only, and stay as they are.

    Raises:
        Refusal: if one exists and may not be replaced, or cannot be written.
    """
    folder = Path(out).expanduser()
    present = [name for name in texts if (folder / name).exists()]
    if present and not force:
        hint = f"--force replaces it; {' and '.join(PRIVATE)} stay as they are"
        raise Refusal("--out", str(folder / present[0]), "must hold no file of that name", hint=hint)
    try:
        for name, text in texts.items():
            path = folder / name
            if name in PRIVATE and path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            mode = 0o600 if name in PRIVATE else 0o755 if path.suffix == ".sh" else 0o644
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
                file.write(text)
            click.echo(f"wrote {path}")
    except OSError as error:
        raise Refusal("--out", out, "must be a writable folder", hint=one_line(error)) from error


def _next(*commands: str) -> None:
    click.echo(f"\nNext: {' · '.join(commands)}", err=True)
