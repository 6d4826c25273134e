"""The commands `study cluster slurm|kuberay|docker`: they write files that start a run on a cluster.

Imports that other commands do not need stay inside each verb.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.arguments import MACHINE, RECORDS, WHERE, Command, Function, Verbs, Whole, option
from study.errors import Refusal

if TYPE_CHECKING:
    from study.recipes.sweep import Nodes


@click.group(cls=Verbs)
def cluster() -> None:
    """Write the files that start a run on a cluster: for Slurm, KubeRay or Docker.

    \b
    study cluster slurm --out sweep --nodes 4 --gpus 8 SPACE
    """


_NAMES = "[default: study; for Docker a new one]"


class _Written(Command):
    """A command whose own options stand before SPACE; what follows is for `study run`."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]
        self.allow_interspersed_args = False


@dataclass(frozen=True)
class Choices:
    """The options of every recipe.

    Attributes:
        words: the spaces and options of ``study run``.
        out: the folder for the files.
        force: replace files that exist.
        name: the name of the job and its parts.
        nodes: the machines that train.
        store: folder or URL for states; None for one in the home.
        data_dir: the folder of data sets; None for one in the home.
    """

    words: Sequence[str]
    out: str
    force: bool
    name: str
    nodes: Nodes
    store: str | None
    data_dir: str | None

    def write(self, texts: Mapping[str, str]) -> None:
        """Write files into the folder, and say so."""
        from study.recipes.writing import write

        for path in write(self.out, self.force, texts):
            click.echo(f"wrote {path}")


def _shared(function: Callable[..., None]) -> Callable[..., None]:
    """Declare the options of every recipe; the command gets them as first argument."""

    @wraps(function)
    def command(
        words: Sequence[str], nodes: int, gpus: int, cpus: int | None, memory: str | None, **options: Any
    ) -> None:
        from study.recipes.sweep import Nodes

        shared = {name: options.pop(name) for name in ("out", "force", "name", "store", "data_dir")}
        function(Choices(words, nodes=Nodes(nodes, cpus, gpus, memory), **shared), **options)

    declarations: list[Callable[[Function], Function]] = [
        click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="SPACE..."),
        option("--out", required=True, metavar="DIR", help="Folder for the files."),
        option("--force", is_flag=True, help="Replace files that exist, but for the file of passwords."),
        option("--name", default="study", metavar="NAME", help=f"Name of the job and its parts. {_NAMES}"),
        option("--nodes", group=MACHINE, default=1, show_default=True, type=Whole(), help="Machines that train."),
        option("--gpus", group=MACHINE, default=0, show_default=True, type=Whole(), help="GPUs of each machine."),
        option("--cpus", group=MACHINE, type=Whole(), help="CPUs of each machine. [default: all]"),
        option("--memory", group=MACHINE, metavar="SIZE", help="Memory of each machine, such as 64G."),
        option("--store", group=WHERE, metavar="URL", help="Folder or URL for states. [default: in the home]"),
        option("--data-dir", group=WHERE, metavar="DIR", help="Folder of data sets. [default: in the home]"),
    ]
    for declare in reversed(declarations):
        command = declare(command)
    return command


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
@option("--shared", group=MACHINE, is_flag=True, help="Ask for a part of one node, without a cluster of Ray.")
def slurm(
    chosen: Choices,
    home: str | None,
    tracking_uri: str | None,
    storage: str | None,
    time: str,
    drain: int,
    partition: str | None,
    account: str | None,
    requeue: bool,
    shared: bool,
) -> None:
    """Write a batch script for Slurm that starts Ray on its nodes by 'ray symmetric-run' and trains SPACE.

    It asks for whole nodes, of which --cpus and --gpus are the least; --shared asks for so much of one node.

    The options of this command stand before SPACE, those of 'study run' after it. The nodes use the Python environment
    that writes the files: it and the files must be on a file system that all nodes share.
    """
    from study.cluster_checks import check_records, check_words
    from study.home import Home
    from study.recipes import slurm as recipe
    from study.recipes.sweep import Limit, Places, Sweep, is_url, with_paths

    check_words(chosen.words, chosen.nodes.gpus, volume=None)
    store = chosen.store
    if store is not None and not is_url(store):
        store = _path("--store", store)
    checked = Home(home or "studies", store)
    places = Places(
        home=_path("--home", home or "studies"),
        store=store,
        data_dir=_path("--data-dir", chosen.data_dir) if chosen.data_dir else None,
        tracking_uri=tracking_uri,
        storage=storage,
    )
    check_records(tracking_uri, storage, places.home, in_image=False)
    sweep = Sweep(chosen.name, with_paths(chosen.words, str), chosen.nodes, places)
    status = f"study status{checked.options()}"
    allocation = recipe.Allocation(Limit(time, drain), partition, account, requeue, shared)
    programs = str(Path(sys.executable).parent)
    chosen.write(recipe.written(sweep, allocation, _path("--out", chosen.out), os.getcwd(), programs))
    _next(f"sbatch {shlex.quote(f'{chosen.out}/sweep.sbatch')}", "squeue --me", status)


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
    chosen: Choices,
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
    from importlib import metadata

    from study.cluster_checks import check_records, check_words
    from study.recipes import kuberay as recipe
    from study.recipes.sweep import Limit, Places, Sweep, packed

    if (tracking_uri is None) != (storage is None):
        option, value = ("--storage", storage) if storage else ("--tracking-uri", tracking_uri)
        raise Refusal(option, value, "must come with the other one of --storage and --tracking-uri, or be left out")
    generated = {} if storage else {"PGPASSWORD": secrets.token_hex(24)}
    check_words(chosen.words, chosen.nodes.gpus, recipe.HOME)
    words, files = packed(chosen.words)
    tracking_uri, storage = tracking_uri or recipe.TRACKING_URI, storage or recipe.STORAGE
    sweep = Sweep(
        chosen.name,
        words,
        chosen.nodes,
        Places(recipe.HOME, chosen.store, chosen.data_dir, tracking_uri, storage),
    )
    check_records(tracking_uri, storage, recipe.HOME, in_image=True)
    ray = metadata.version("ray")
    asked = recipe.Kubernetes(namespace, image, ray, claim, claim_size, storage_class, Limit(time, drain))
    texts = recipe.written(sweep, asked, files, generated)
    chosen.write(texts)
    kubectl, folder = f"kubectl -n {namespace}", shlex.quote(chosen.out)
    secret = f"{kubectl} create secret generic study-secrets --from-env-file={folder}/secrets.env"
    once = [f"{kubectl} apply -f {folder}/{file}" for file in recipe.ONCE if file in texts]
    click.echo(f"\nOnce in a namespace: {' · '.join([secret, *once])}", err=True)
    _next(f"{kubectl} apply -f {folder}/rayjob.yaml")


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
    chosen: Choices,
    image: str,
    source: str | None,
    port: int,
) -> None:
    """Write a Dockerfile of the project, and a Ray cluster in containers on this machine that trains SPACE.

    The options of this command stand before SPACE, those of 'study run' after it. MLflow and PostgreSQL run in
    containers too; only MLflow's port is reachable, on loopback.
    """
    from study.cluster_checks import check_words
    from study.recipes import docker as recipe
    from study.recipes.image import Image
    from study.recipes.sweep import Places, Sweep, packed

    check_words(chosen.words, chosen.nodes.gpus, recipe.HOME)
    words, files = packed(chosen.words)
    places = Places(recipe.HOME, chosen.store, chosen.data_dir, recipe.TRACKING_URI, recipe.STORAGE)
    sweep = Sweep(chosen.name, words, chosen.nodes, places)
    built = Image.like_here(image, source)
    is_named = click.get_current_context().get_parameter_source("name") == click.core.ParameterSource.COMMANDLINE
    generated = {
        "COMPOSE_PROJECT_NAME": chosen.name if is_named else f"study-{secrets.token_hex(4)}",
        "STUDY_PGPASSWORD": secrets.token_hex(24),
        "STUDY_RAY_TOKEN": secrets.token_hex(32),
    }
    out = chosen.out
    chosen.write(recipe.written(sweep, built, _path("--out", out), port, files, generated))
    _next(f"docker compose --project-directory {shlex.quote(out)} build", shlex.quote(f"{out}/run.sh"))


def _path(option: str, given: str) -> str:
    try:
        return str(Path(given).expanduser().absolute())
    except RuntimeError as error:  # an unknown user in ~USER
        raise Refusal(option, given, "must be a folder", hint=str(error)) from error


def _next(*commands: str) -> None:
    click.echo(f"\nNext: {' · '.join(commands)}", err=True)
