"""The user's choices for a run, which are planned with what this machine or a cluster has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from study.errors import Refusal
from study.execution.address import Cluster
from study.machine import Machine, gpus_have_bf16, has_bf16, has_gpu
from study.planning.draft import Draft
from study.planning.drafting import call, draft
from study.planning.stored import LEAST_PART, Resources
from study.space import Request
from study.store import records


@dataclass(frozen=True)
class Wish:
    """The user's choices for a run; see `study.run`.

    Attributes:
        spaces: names, paths or modules.
        request: the choices that the spaces' functions get.
        replicates: the number for each trial; None for the default, see `study.planning.drafting`.
        resources: where the run is executed, and the resources of a stage; `gpus` below replaces its `gpus`.
        gpus: the GPUs of a stage; None for 1 if the machine or the cluster has a GPU and a space trains faster on it.
        ranks: processes that train a replicate together; None for one per GPU.
        name: the name of the run, if the user gave one.
        precision: see `study.machine.Machine`.
    """

    spaces: Sequence[str]
    request: Request
    replicates: int | None
    resources: Resources
    gpus: float | None = None
    ranks: int | None = None
    name: str | None = None
    precision: str = "auto"

    def draft(self, cluster: Cluster, dry: bool = False) -> Draft:
        """Plan the run; nothing is read from a store, and nothing is written.

        Args:
            cluster: the cluster of `resources`. It is asked only if the GPUs of a stage depend on it.
            dry: take a cluster that cannot be asked for one without GPUs; the checks of a start say why it cannot.
        """
        if self.name is not None:
            records.check_name(self.name)
        called = call(self.spaces, self.request)
        gpus = self.gpus
        if gpus is None:
            gpus = float(called.wants_gpu and (_has_gpu(cluster, dry) if cluster.address else has_gpu()))
        elif not (gpus == 0 or LEAST_PART <= gpus < math.inf) or (gpus > 1 and gpus != int(gpus)):
            raise Refusal(
                "--gpus-per-trial", gpus, f"must be 0, between {LEAST_PART:g} and 1, or a whole number from 2 on"
            )
        ranks = self.ranks or max(1, int(gpus))
        if gpus and ranks != max(1, int(gpus)):
            words = f"must be {max(1, int(gpus))}, one process per GPU"
            raise Refusal("--ranks-per-trial", ranks, words, hint="Leave the option out")
        resources = replace(self.resources, gpus=gpus)
        if not math.isfinite(resources.cpus) or round(resources.cpus / LEAST_PART, 6) < ranks:
            least = f"{LEAST_PART * ranks:g}" + (f" for {ranks} ranks" if ranks > 1 else "")
            raise Refusal("--cpus-per-trial", resources.cpus, f"must be finite, and at least {least}")
        here = gpus_have_bf16 if gpus else has_bf16
        bf16 = not resources.address and here()  # the processors of a cluster are not known here
        threads = 1 if gpus else max(1, int(resources.cpus / ranks))
        machine = Machine("cuda" if gpus else "cpu", threads, self.precision, bf16, ranks)
        check_gpu_steps(resources.gpu_steps, machine)
        drafted = draft(called, self.replicates, machine, resources)
        if self.name is not None:
            drafted.plan = drafted.plan.named(self.name)
        return drafted


@dataclass(frozen=True)
class Machines:
    """Resources that may differ from start to start of a run; None for those of its plan."""

    workers: int | None = None
    address: str | None = None
    gpu_steps: str | None = None
    data_dir: str | None = None

    def options(self) -> list[str]:
        """Return them as options of the command line."""
        given = {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items() if value is not None}
        return [word for option, value in given.items() for word in (option, str(value))]


def _has_gpu(cluster: Cluster, dry: bool) -> bool:
    try:
        return cluster.resources.get("GPU", 0) >= 1
    except Refusal:
        if not dry:
            raise
        return False


def check_gpu_steps(gpu_steps: str, machine: Machine) -> None:
    """Check how steps on a GPU are executed.

    Raises:
        Refusal: if steps are to be recorded, and the run is trained on CPUs.
    """
    if gpu_steps == "recorded" and machine.device == "cpu":
        raise Refusal("--gpu-steps", gpu_steps, "must be auto or eager", hint="The run is trained on CPUs")
