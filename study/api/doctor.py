"""The check of a set-up: whether this machine, its servers and each node of a cluster can execute a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.api import calls, choices
from study.errors import Refusal, StudyError, one_line
from study.execution.address import Cluster
from study.home import Home
from study.masking import without_password
from study.planning import tree
from study.planning.draft import Draft
from study.planning.stored import Resources

if TYPE_CHECKING:
    from study.execution.job import Job
    from study.execution.nodes import Node
    from study.store.states import Store

CLOCK_SECONDS = 2.0  # between clocks: beyond, times mislead, and 'study status' must watch whether a driver lives
STAGE_BYTES = 1 << 30  # of memory, for each process that trains
_REMEDIES = {
    "answer": "Look at Ray's logs there, or take the node out of the cluster",
    "packages": "Install the driver's versions there",
    "store": "Mount the same folder there under the same path, or use a store on S3 (--store s3://BUCKET/FOLDER)",
    "data": "Put the data there under the same path (--data-dir)",
    "GPUs": "Run 'nvidia-smi' there, and start its Ray with the GPUs that work (ray start --num-gpus N)",
}
_OTHERS = {  # for what is well-formed and cannot be used
    "store": "Give another --store, or mend this one",
    "Ray": "Start the cluster, give the --address of another one, or --address local for this machine alone",
}


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        level: ok; warning (a run starts, and may suffer); or error (a run is refused, leaves this node out, or fails).
        topic: home, store, MLflow, Optuna, Ray, data, disk, or for a node: answer, packages, store, data, GPUs, clock,
            memory.
        where: the machine, server or folder.
        what: what was found.
        do: what to do; "" if nothing.
    """

    level: str
    topic: str
    where: str
    what: str
    do: str = ""

    def __str__(self) -> str:
        """Return the finding in one line."""
        return f"{self.level:7}  {self.topic:8}  {self.where}: {self.what}" + (f". {self.do}" if self.do else "")


def doctor(
    *spaces: calls.SpaceLike,
    home: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    storage: str | None = None,
    address: str | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> list[Finding]:
    """Return what was found about this machine, the servers and the nodes of a cluster. Nothing is trained.

        for finding in study.doctor("table9", address="auto", home="/shared/studies"):
            print(finding)

    Args:
        spaces: the spaces to be trained. Without them, what depends on a run is not checked: its data, its libraries,
            and its needs of GPUs, memory and disk.
        home, store, tracking_uri, storage, address, options: see `study.run`.
        more: the other arguments of `study.run` that say what is trained and where, and options of the spaces.

    Raises:
        Refusal: if an argument is malformed, or no run can be planned with them.
    """
    chosen_home = calls.home_at(home, store)
    choices.check_text("--tracking-uri", tracking_uri)
    choices.check_text("--storage", storage)
    choices.check_text("--address", address)
    cluster = Cluster(calls.address_of(address) or "")
    findings = list(_of_places(chosen_home, Home.chosen(tracking_uri, storage)))
    try:
        cluster.check()
    except Refusal as refusal:
        return [*findings, _refused("Ray", cluster.address, refusal)]
    known = {key: more.pop(key) for key in calls.WISHES if key in more}
    draft = None
    if more and not spaces:
        name = next(iter(more))
        raise Refusal("-o", name, f"unknown option {name!r}", hint="Options of spaces are checked with a space only")
    if spaces:
        given = choices.merged(options, more)
        draft = calls.wish_of(spaces, chosen_home, address=address, options=given, **known).draft(cluster)
        findings.append(_of_data(draft))
    if any(finding.level == "error" and finding.topic in ("home", "store") for finding in findings):
        return findings  # nodes could not be asked
    try:
        findings += _of_nodes(chosen_home, cluster, draft)
    except StudyError as error:
        store_place = ("store", without_password(chosen_home.store_url))
        ray = ("Ray", cluster.address)
        places = {"--home": ("home", str(chosen_home.path)), "--address": ray, "RAY_ADDRESS": ray}
        field = error.field if isinstance(error, Refusal) else ""
        findings.append(_refused(*places.get(field, store_place), error))
    return findings


def _of_places(home: Home, services: tuple[str, str]) -> Iterator[Finding]:
    """Yield what was found about the home, the store, MLflow and Optuna."""
    tracking, storage = home.tracking_uri(services[0]), home.storage(services[1])
    questions: Sequence[tuple[str, str, Callable[[], object]]] = (
        ("home", str(home.path), home.check_writable),
        ("store", without_password(home.store_url), home.store_if_any),
        ("MLflow", without_password(tracking), partial(home.check_tracking, services[0])),
        ("Optuna", without_password(storage), partial(home.check_storage, services[1])),
    )
    for topic, where, check in questions:
        try:
            check()
        except Refusal as refusal:
            yield _refused(topic, where, refusal)
        else:
            yield Finding("ok", topic, where, "can be used")
    for topic, problem, advice in home.shared_databases(*services):
        yield Finding("warning", topic, "this machine", problem, advice)


def _refused(topic: str, where: str, error: StudyError) -> Finding:
    if isinstance(error, Refusal) and error.hint and not error.hint.startswith("Reason: "):
        return Finding("error", topic, where, str(error).removesuffix(f". {error.hint}"), error.hint)
    is_well_formed = isinstance(error, Refusal) and error.hint  # the hint is a reason: it was tried
    return Finding("error", topic, where, one_line(error), _OTHERS.get(topic, "") if is_well_formed else "")


def _of_data(draft: Draft) -> Finding:
    """Return whether this machine has the data of a run, which a driver checks before it starts."""
    folder = draft.plan.resources.data_dir
    try:
        draft.work.prepare(draft.configs, Path(folder), False)
    except Refusal as refusal:
        return _refused("data", folder, refusal)
    return Finding("ok", "data", folder, "the data of the run are whole")


def _of_nodes(home: Home, cluster: Cluster, draft: Draft | None) -> Iterator[Finding]:
    """Yield what was found about each node of the cluster; without one, about this machine."""
    from study.execution import cluster as connection
    from study.execution import nodes
    from study.execution.job import Job

    resources = Resources(address=cluster.address) if draft is None else draft.plan.resources
    ranks = 1 if draft is None else draft.plan.machine.ranks
    with _existing(home) as store:
        job = Job("", store.url, resources, ranks, store.variables())
        needs = nodes.Needs(job, nodes.versions(("ray",))) if draft is None else nodes.Needs.of(job, draft)
        if not cluster.address:
            answers = [nodes.here(replace(needs, prepare=None), store)]  # its data were checked
        else:
            definitions = () if draft is None else (draft.work.trainable(), draft.work.prepare)
            with connection.connected(resources, definitions=definitions):
                answers = nodes.ask(needs, store)
        for node in answers:
            if draft is None or nodes.may_train(node, job):
                yield from _of_node(node, job, draft is not None)
            else:
                yield Finding("ok", "node", str(node), f"trains nothing: {_has(node)}")
        if draft is not None:
            yield from _of_disk(store, draft)


@contextmanager
def _existing(home: Home) -> Iterator[Store]:
    """Yield the store. Folders that do not exist are made, and removed at the end."""
    store = home.store_if_any()
    if store is not None:
        yield store
        return
    path = Path(home.store_url) if "://" not in home.store_url else home.path
    missing = [each for each in (path, *path.parents, home.path, *home.path.parents) if not each.exists()]
    store = home.make()
    try:
        yield store
    finally:
        for folder in (path / "nodes", *missing):
            with suppress(OSError):  # a run has begun in it meanwhile
                folder.rmdir()


def _of_node(node: Node, job: Job, for_run: bool) -> Iterator[Finding]:
    """Yield what was found about a node, and with `for_run` about its memory for the stages of the job."""
    from study.execution.pool import room

    for topic, reason in node.problems.items():
        yield Finding("error", topic, str(node), reason, _REMEDIES[topic])
    clock = abs(node.seconds)
    if clock > CLOCK_SECONDS:
        what = f"its clock differs by {clock:.0f} s from the driver's"
        yield Finding("warning", "clock", str(node), what, "Set the clocks by NTP")
    stages = room(node.resources, job.bundle)
    if job.resources.workers:
        stages = min(stages, job.resources.workers)
    if for_run and node.memory and node.memory < stages * STAGE_BYTES:
        what = f"{node.memory / 2**30:.1f} GiB of memory are free for {stages} stages at a time"
        do = f"Use --workers N or more --cpus-per-trial: each stage needs about {STAGE_BYTES / 2**30:g} GiB"
        yield Finding("warning", "memory", str(node), what, do)
    if not node.problems:
        shown = f"{_has(node)}, {node.memory / 2**30:.1f} GiB of memory free"
        yield Finding("ok", "node", str(node), f"can train: {shown}")


def _has(node: Node) -> str:
    return ", ".join(f"{node.resources.get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))


def _of_disk(store: Store, draft: Draft) -> Iterator[Finding]:
    """Yield whether the store's disk has room for the states that the run keeps."""
    if "://" in store.url or draft.work.state_bytes is None:
        return
    stages = tree.stages(draft.recipes.values(), store.keys(), draft.joints)
    largest = max(map(draft.work.state_bytes, draft.configs), default=0)
    needed, free = len(stages) * largest, shutil.disk_usage(store.url).free
    what = f"the run keeps about {len(stages)} states ({needed / 2**20:.0f} MiB), and {free / 2**20:.0f} MiB are free"
    if needed > free:
        do = "Use another --home or --store, or drop old states with 'study clean'"
        yield Finding("error", "disk", store.url, what, do)
    else:
        yield Finding("ok", "disk", store.url, what)
