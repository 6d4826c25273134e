"""The nodes of a Ray cluster. Each is asked before training whether it can train the stages of a run."""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import Damaged, Refusal, StudyError, one_line
from study.execution.address import option_of
from study.execution.job import Job
from study.execution.losses import loss_of
from study.machine import cpus, gpus
from study.masking import masked, without_password
from study.planning.draft import Draft
from study.services import within
from study.store.s3 import set_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from study.store.states import Store

ANSWER_SECONDS = 30.0  # for a process on a node to start, with the code that the driver sends, and to answer
LATE_ANSWER_SECONDS = 300.0  # the same for a node that has joined, which may still be starting; its stage waits
PROBE_SECONDS = 5.0  # for most questions to a node: S3 that does not answer is refused within this time
SLOW_SECONDS = 10.0  # after a boot, the driver of eight GPUs takes seconds, and so do imports that read images


@dataclass(frozen=True)
class Needs:
    """What a node must have to train the stages of a run.

    Attributes:
        job: the settings of its workers: the store, the data folder, the GPUs of a stage.
        versions: the version of each distribution that must be the same on all nodes.
        prepare: raises `Refusal` if data are missing.
    """

    job: Job
    versions: Mapping[str, str]
    prepare: Callable[[], None] | None = None

    @classmethod
    def of(cls, job: Job, draft: Draft) -> Needs:
        """Return what a run needs. The versions are those of this machine."""
        prepare = partial(draft.work.prepare, draft.configs, Path(job.resources.data_dir), False)
        return cls(job, versions(("ray", *draft.work.libraries)), prepare)


@dataclass(frozen=True)
class Node:
    """A node and what it answered.

    Attributes:
        id: Ray's identifier.
        host: the name of the machine.
        address: its address.
        resources: the resources that it declares to Ray.
        problems: by topic, why it cannot train the run.
        seconds: its clock minus the driver's, to within the time of the answer.
        memory: the free bytes of its memory; 0 if it did not answer.
    """

    id: str
    host: str
    address: str
    resources: Mapping[str, float]
    problems: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    memory: int = 0

    def __str__(self) -> str:
        """Return its name and address."""
        return f"{self.host} ({self.address})"


def here(needs: Needs, store: Store) -> Node:
    """Return this machine as a node, with its answer. Ray need not be connected."""
    resources = {"CPU": float(cpus()), "GPU": float(len(gpus()))}
    described = {"NodeID": "here", "NodeManagerHostname": platform.node(), "NodeManagerAddress": "this machine"}
    with _mark(store) as token:
        now = time.time()
        answer = _answer(needs, token, "here", resources["GPU"])
        return _node({**described, "Resources": resources}, lambda: answer, now, time.time())


def ask(needs: Needs, store: Store) -> list[Node]:
    """Return the nodes that are alive, with their answers. All are asked at the same time. Ray must be connected."""
    with _mark(store) as token:
        return _asked(needs, store, token)


def _asked(needs: Needs, store: Store, token: str) -> list[Node]:
    import ray

    nodes = _answers(needs, token, [node for node in ray.nodes() if node["Alive"]], ANSWER_SECONDS)
    return [_seen(node, store, token) for node in sorted(nodes, key=lambda node: (node.host, node.id))]


def _answers(needs: Needs, token: str, described: Sequence[Mapping[str, Any]], seconds: float) -> list[Node]:
    """Return nodes, which Ray has described, with their answers. One that is silent for so many seconds is not fit."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0)(_answer)
    asked, until = time.time(), time.monotonic() + seconds
    pending = {}
    for node in described:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        gpus = node["Resources"].get("GPU", 0)
        pending[probe.options(scheduling_strategy=here).remote(needs, token, node["NodeID"], gpus)] = node
    nodes, late = [], list(pending)
    while late and time.monotonic() < until:
        ready, late = ray.wait(late, timeout=max(0.0, until - time.monotonic()))
        nodes += [_node(pending[answer], partial(ray.get, answer), asked, time.time()) for answer in ready]
    for answer in late:
        ray.cancel(answer, force=True)
        silent = _described(pending[answer])
        nodes.append(replace(silent, problems={"answer": f"it does not answer within {seconds:g} s"}))
    return nodes


def are_several() -> bool:
    """Return whether the Ray that is connected has more than one node."""
    import ray

    return sum(bool(node["Alive"]) for node in ray.nodes()) > 1


@dataclass(frozen=True)
class Checks:
    """What is asked of the nodes of a cluster.

    Attributes:
        needs: what a node must have.
        token: a token in the store, which a node must see.
        asked: the identifiers of the nodes that were asked at the start.
        left_out: those of them that cannot train.
    """

    needs: Needs
    token: str
    asked: frozenset[str]
    left_out: frozenset[str]

    def of_late(self, nodes: Collection[str]) -> dict[str, str]:
        """Return why nodes that were not fit at the start, or not there, cannot train, by identifier.

        Executed on such a node.
        """
        late = set(nodes) - (self.asked - self.left_out)
        if not late:
            return {}
        import ray

        described = [node for node in ray.nodes() if node["NodeID"] in late]
        have_joined = not late <= self.asked
        answers = _answers(self.needs, self.token, described, LATE_ANSWER_SECONDS if have_joined else ANSWER_SECONDS)
        return {node.id: "; ".join(node.problems.values()) for node in answers if node.problems}


@contextmanager
def checked(needs: Needs, store: Store, say: Callable[[str], None]) -> Iterator[Checks]:
    """Ask all nodes before training, and print why some cannot train; yield what later ones are asked.

    Raises:
        Refusal: if no node can.
    """
    with _mark(store) as token:
        nodes = [node for node in _asked(needs, store, token) if may_train(node, needs.job)]
        bad = [node for node in nodes if node.problems]
        lines = [masked(f"node {node}: {'; '.join(node.problems.values())}") for node in bad]
        if bad and len(bad) == len(nodes):
            address = needs.job.resources.address
            words = "must be a cluster with a node that can train the run"
            raise Refusal(option_of(address), address, words, hint=". ".join(lines))
        for line in lines:
            say(f"left out: {line}")
        yield Checks(needs, token, frozenset(node.id for node in nodes), frozenset(node.id for node in bad))


def may_train(node: Node, job: Job) -> bool:
    """Return whether a node has the kinds of resources that a stage wants: a head often has no CPUs."""
    wanted = {"CPU": job.resources.cpus, "GPU": job.resources.gpus}
    return all(node.resources.get(kind, 0) > 0 for kind, need in wanted.items() if need)


def _described(described: Mapping[str, Any]) -> Node:
    names = (described["NodeID"], described["NodeManagerHostname"], described["NodeManagerAddress"])
    return Node(*names, described["Resources"])


def _node(described: Mapping[str, Any], answer: Callable[[], dict[str, Any]], asked: float, now: float) -> Node:
    node = _described(described)
    try:
        given = answer()
    except Exception as error:  # noqa: BLE001  whatever the node's process raised is its answer
        return replace(node, problems={"answer": loss_of(error).reason})
    clock = given.pop("clock")
    skew = clock - now if clock > now else min(0.0, clock - asked)
    return replace(node, seconds=skew, **given)


@contextmanager
def _mark(store: Store) -> Iterator[str]:
    """Put a token into the store, and remove it and the nodes' answers at the end."""
    token = secrets.token_hex(8)
    store.write_record(_path(token), {"token": token}, durable=False)
    try:
        yield token
    finally:
        with suppress(StudyError):  # a store that is away keeps them, and `study clean` removes them
            for name in [name for name in store.records("nodes") if name.startswith(token)]:
                store.delete_record(f"nodes/{name}")


def _path(token: str, node: str = "") -> str:
    return f"nodes/{token}{'-' if node else ''}{node}.json"


def _seen(node: Node, store: Store, token: str) -> Node:
    """Return the node with a problem if the driver does not see what the node wrote into its store."""
    if node.problems:
        return node
    reason = f"it does not write into the same store: its answer is not in {store.shown}"
    with suppress(Damaged):
        if store.read_record(_path(token, node.id)) is not None:
            return node
    return replace(node, problems={"store": reason})


def _answer(needs: Needs, token: str, node: str, gpus: float) -> dict[str, Any]:
    """Return what the node of this process has and lacks; executed on each node."""
    import psutil

    import study.store.states  # noqa: F401  from a network file system, this may take longer than the questions

    set_variables(needs.job.variables)
    quick: dict[str, Callable[[], str]] = {
        "packages": lambda: _differing(needs.versions),
        "store": lambda: _store_problem(needs.job, token, node),
    }
    slow: dict[str, Callable[[], str]] = {"data": lambda: _data_problem(needs.prepare)}
    if needs.job.resources.gpus:
        slow["GPUs"] = lambda: _gpu_problem(gpus)
    reasons = within(list(quick.values()), PROBE_SECONDS) + within(list(slow.values()), SLOW_SECONDS)
    return {
        "problems": {
            topic: f"{topic}: {reason}" if reason.startswith("no answer") else reason
            for topic, reason in zip((*quick, *slow), reasons, strict=True)
            if reason
        },
        "clock": time.time(),
        "memory": psutil.virtual_memory().available,
    }


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of installed distributions; "" for one that is not installed."""
    installed = {"python": platform.python_version().rpartition(".")[0]}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = ""
    return installed


def _differing(wanted: Mapping[str, str]) -> str:
    has = versions([name for name in wanted if name != "python"])
    lines = [
        f"it has {name} {has[name]}, and the driver has {version}" if has[name] else f"it has no {name}"
        for name, version in wanted.items()
        if has[name] != version
    ]
    return "; ".join(lines)


def _store_problem(job: Job, token: str, node: str) -> str:
    from study.store.states import Store

    try:
        store = Store(job.store, create=False)
        if store.read_record(_path(token)) is None:
            return f"it does not see the store {store.shown}: another folder has this path there"
        store.write_record(_path(token, node), {"node": node}, durable=False)
    except Refusal as refusal:
        return f"it does not see the store {without_password(job.store)}: {refusal.hint.removeprefix('Reason: ')}"
    except (StudyError, OSError, ImportError) as error:
        return f"it cannot use the store: {one_line(error, named=True)}"
    return ""


def _data_problem(prepare: Callable[[], None] | None) -> str:
    """Return which data are missing; "" if nothing is missing so far: the check of many files may take minutes."""

    def check() -> str:
        if prepare is not None:
            prepare()
        return ""

    (reason,) = within([check], SLOW_SECONDS - 0.5)
    return "" if reason.startswith("no answer") else reason


def _gpu_problem(declared: float) -> str:
    """Return why the node's GPUs cannot be used. CUDA is asked in another process, since Ray hides GPUs from this one.

    The process also notices a driver that hangs.
    """
    environment = {name: value for name, value in os.environ.items() if (name, value) != ("CUDA_VISIBLE_DEVICES", "")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", "from study.machine import gpus; print(len(gpus()))"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SLOW_SECONDS - 1, check=True
        )
        count = int(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return f"CUDA does not answer there ({one_line(error)})"
    if count >= declared:
        return ""
    return f"it declares {declared:g} GPU{'s' * (declared != 1)} to Ray, and CUDA finds {count}"
