"""The machines of the Ray that is connected, as they come and go, and how many stages they have room for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import study.execution.cluster  # noqa: F401  # isort: skip  # before Ray, whose environment it sets
import ray
import ray.util.client
from ray import tune
from ray._private.state import state as _state

from study.errors import Refusal
from study.execution.job import Job
from study.masking import masked
from study.planning.stored import LEAST_PART

LOOK_SECONDS = 2.0
# After which a node that was left out is asked again, since its fault may be over: twice as long each time.
AGAIN_SECONDS, AGAIN_SECONDS_AT_MOST = 300.0, 3600.0
NODE_LABEL = "ray.io/node-id"  # which Ray gives to every node


class Pool:
    """The machines that train. Machines that join are used, and those that leave are not waited for.

    Args:
        job: the workers' settings, with the resources of a stage and the number of stages at a time.
        left_out: Ray's identifiers of the nodes that train nothing.
        say: prints a line.

    Attributes:
        left_out: the identifiers. A node that turns out to be unfit is added, one that may be fit by now is removed.
        leaving: the nodes that Ray has announced to end soon.
        workers: the number of stages at the same time, at least one. On a cluster, a number that the user asked for
            stays as it is: Ray's autoscaler sees the stages that wait for room.
    """

    def __init__(self, job: Job, left_out: Collection[str] = (), say: Callable[[str], None] = lambda _: None) -> None:
        self._job, self._say = job, say
        self._bundle = job.bundle
        self.left_out, self.leaving = set[str](), set[str]()
        self._pauses: dict[str, float] = {}  # by node that was left out: the seconds until it is asked again
        self._until: dict[str, float] = {}  # and when that is
        for node in left_out:
            self._leave_out(node)
        self._known: dict[str, Mapping[str, Any]] = {}  # every node seen so far, by its identifier
        self._alive: set[str] = set()
        self._next_look = -math.inf
        self.workers = 1

    def look(self, at_once: bool = False) -> None:
        """Ask Ray for its nodes, unless this was done just now. The user is told of changes."""
        if time.monotonic() < self._next_look and not at_once:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        self.left_out -= {node for node in self.left_out if time.monotonic() > self._until[node]}
        before, is_first = {id_: self._known[id_] for id_ in self.usable}, not self._known
        try:
            nodes = {node["NodeID"]: node for node in ray.nodes()}
            leaving = set() if ray.util.client.ray.is_connected() else set(_state.get_draining_nodes())
        except Exception:  # noqa: BLE001  Ray does not answer, which `cluster.connected` notices if it stays so
            return
        self._known |= nodes
        self._alive = {id_ for id_, node in nodes.items() if node["Alive"]}
        self.leaving = leaving
        self._count()
        now = {id_: self._known[id_] for id_ in self.usable}
        changed = [f"{_name(node)} has joined" for id_, node in now.items() if id_ not in before]
        changed += [
            f"{_name(node)} {'is about to leave' if id_ in self._alive else 'has left'}"
            for id_, node in before.items()
            if id_ not in now and id_ not in self.left_out
        ]
        if changed and not is_first:
            self._say(f"{'; '.join(changed)}: room for {self.room()} at a time")

    def leave_out(self, node: str, reason: str) -> None:
        """Note that a node cannot train the run for now, and tell the user why, once."""
        if node not in self.left_out:
            is_first = node not in self._pauses
            self._leave_out(node)
            self._count()
            name = _name(self._known[node]) if node in self._known else node
            if is_first:
                self._say(f"left out: node {name}: {masked(reason)}")

    def _leave_out(self, node: str) -> None:
        self.left_out.add(node)
        self._pauses[node] = min(2 * self._pauses.get(node, AGAIN_SECONDS / 2), AGAIN_SECONDS_AT_MOST)
        self._until[node] = time.monotonic() + self._pauses[node]

    def _count(self) -> None:
        asked, fits = self._job.resources.workers, self.room()
        if asked and self._job.resources.address:
            self.workers = asked
        else:
            self.workers = max(1, min(asked or fits, fits))

    @property
    def usable(self) -> set[str]:
        """The identifiers of the nodes that train."""
        return self._alive - self.left_out - self.leaving

    def room(self) -> int:
        """Return the number of stages for which the machines that train have room at the same time."""
        return sum(room(self._known[id_]["Resources"], self._bundle) for id_ in self.usable) // self._job.ranks

    def is_lost(self, node: str) -> bool:
        """Return whether a node has ended, or will soon."""
        return node in self.leaving or (node in self._known and node not in self._alive)

    def host(self, node: str) -> str:
        """Return the name of a node's machine; "" if it is not known."""
        return str(self._known[node]["NodeManagerHostname"]) if node in self._known else ""

    def avoided(self, lost_on: Collection[str]) -> tuple[str, ...]:
        """Return the nodes on which a stage must not be placed: those left out, and if others are left, `lost_on`.

        Args:
            lost_on: the nodes on which the stage has lost a process.
        """
        more = set(lost_on) if self.usable - set(lost_on) else set()
        return tuple(sorted((self.left_out | self.leaving | more) & self._alive))

    def check(self) -> None:
        """Check that a stage fits on the machines, unless the user has asked a cluster for workers, which may grow.

        Raises:
            Refusal: if it does not.
        """
        resources, ranks = self._job.resources, self._job.ranks
        needs = {"CPU": resources.cpus, "GPU": resources.gpus}
        asks = bool(resources.workers and resources.address)
        grows = ". If Ray adds machines to the cluster, give --workers N, and the run waits for them"
        machines = [self._known[id_]["Resources"] for id_ in self.usable]
        for kind, option in (("CPU", "--cpus-per-trial"), ("GPU", "--gpus-per-trial")):
            available = [machine.get(kind, 0) for machine in machines]
            most = min(sum(available), ranks * max(available, default=0))  # a rank runs on one machine
            if needs[kind] > most and not asks:
                hint = f"The machines have no more{grows if resources.address else ''}"
                raise Refusal(option, needs[kind], f"must be at most {most:g}", hint=hint)
        fits = self.room()
        if not fits and not asks:
            hint = "Choose another number of ranks, or fewer CPUs or GPUs per trial"
            raise Refusal("--ranks-per-trial", ranks, "must be so small that a trial fits on the machines", hint=hint)
        if resources.workers > fits:
            few = f"training {fits} at a time, not {resources.workers} (--workers): the machines have room for no more"
            some = f"room for {fits} at a time: the others of {resources.workers} (--workers) wait for machines"
            self._say(some if asks else few)

    def waiting(self, since: str) -> str:
        """Return a line about the resources that a stage wants and those that are free.

        Args:
            since: the time since which nothing could be trained.
        """
        machines = [self._known[id_]["Resources"] for id_ in self.usable]
        total = {kind: sum(machine.get(kind, 0) for machine in machines) for kind in self._bundle}
        free = {} if self.left_out else ray.available_resources()  # which would count the machines left out
        line = waiting(self._bundle, self._job.ranks, total, free, bool(self.room()), since)
        again = [self._until[node] for node in self.left_out & self._alive]
        if not again or self.room():
            return line
        minutes = math.ceil((min(again) - time.monotonic()) / 60)
        return f"{line}; those left out are asked again in {max(1, minutes)} min"


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def waiting(
    bundle: Mapping[str, float],
    ranks: int,
    total: Mapping[str, float],
    free: Mapping[str, float],
    fits: bool,
    since: str,
) -> str:
    """Return a line about the resources that a stage wants and those that are free.

    Args:
        bundle: what each rank of a stage wants, by kind.
        ranks: the number of ranks.
        total: what the machines that train have.
        free: what is free of it; empty if it is not known.
        fits: whether a stage has room on these machines while nobody else uses them.
        since: the time since which nothing could be trained.
    """
    wanted = [f"{need * ranks:g} {kind}{'' if need * ranks == 1 else 's'}" for kind, need in bundle.items()]
    counts = [f"{total[kind]:g} {kind}s" for kind in bundle]
    if not fits:
        state = f"the machines that train have {' and '.join(counts)}: others must join"
    elif free:
        counts = [f"{free.get(kind, 0):g} of {count}" for kind, count in zip(bundle, counts, strict=True)]
        state = f"{' and '.join(counts)} are free"
    else:
        state = f"others use some of the {' and '.join(counts)}"
    return f"waiting for Ray since {since}: a trial wants {' and '.join(wanted)}, and {state}"


def room(machine: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """Return the number of bundles that a machine has room for.

    A bundle has at most one GPU, and a fraction lies on one GPU: three GPUs have room for three bundles of 0.7.
    """
    bundles = [int(machine.get("CPU", 0) / bundle["CPU"] + 1e-6)] if "CPU" in bundle else []
    if "GPU" in bundle:
        parts = max(1, int(bundle["GPU"] / LEAST_PART + 1e-6))  # Ray rounds down: six times 0.16667 fit
        bundles.append(int(machine.get("GPU", 0)) * (round(1 / LEAST_PART) // parts))
    return min(bundles)


def placement(job: Job, avoided: Collection[str]) -> tune.PlacementGroupFactory:
    """Return the request for the resources of a stage.

    Args:
        job: the workers' settings.
        avoided: Ray's identifiers of the nodes on which it must not be placed.
    """
    bundles = [job.bundle] * job.ranks
    if not avoided:  # then an autoscaler sees a plain request
        return tune.PlacementGroupFactory(bundles)
    selector = {NODE_LABEL: f"!in({','.join(avoided)})"}
    return tune.PlacementGroupFactory(bundles, bundle_label_selector=[selector] * job.ranks)
