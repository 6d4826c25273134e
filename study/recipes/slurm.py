"""Files for Slurm: a batch script that starts Ray on the nodes of an allocation and trains a run there."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from study.errors import Refusal
from study.recipes.sweep import Limit, Sweep
from study.recipes.texts import RECORDS, S3, filled, for_shell, secrets

_WORD = re.compile(r"[A-Za-z0-9][\w.,:+-]{0,99}", re.ASCII)
_SAY = 'echo "The time limit was reached. Submitted again, the job continues the run" >&2'
_REQUEUE = 'scontrol requeue "$SLURM_JOB_ID"'
_WHOLE = "# Whole nodes: 'ray symmetric-run' stops every Ray of yours on a node.\n#SBATCH --exclusive"
_ON_ALL = "Ray starts on all nodes of the allocation, the run is trained, and Ray stops."
_SHARED = "The run starts a Ray of its own, on a part of a node."


@dataclass(frozen=True)
class Allocation:
    """What is asked of Slurm, besides nodes.

    Attributes:
        limit: the time limit.
        partition: the partition; None for Slurm's default.
        account: the account; None for Slurm's default.
        requeue: submit the job again when the limit was reached.
        shared: ask for a part of one node instead of whole nodes.
    """

    limit: Limit
    partition: str | None = None
    account: str | None = None
    requeue: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--partition", self.partition), ("--account", self.account)):
            if value is not None and not _WORD.fullmatch(value):
                raise Refusal(option, value, "must be a name of Slurm: letters, digits and any of _ . , : + -")


def written(sweep: Sweep, allocation: Allocation, folder: str, here: str, programs: str) -> dict[str, str]:
    """Return the files' texts by name.

    Args:
        sweep: the run.
        allocation: what is asked of Slurm.
        folder: where the files will be, on a file system that all nodes share.
        here: the folder in which the run's command is given.
        programs: the folder of the programs ``study`` and ``ray``, likewise shared.
    """
    nodes, shared = sweep.nodes, allocation.shared
    if shared and nodes.count > 1:
        raise Refusal("--nodes", nodes.count, "must be 1 with --shared", hint="Several nodes are used as a whole")
    asked = {
        "cpus-per-task" if shared else "mincpus": nodes.cpus,
        "gpus-per-node": nodes.gpus or None,
        "mem": nodes.memory or (None if shared else 0),
        "partition": allocation.partition,
        "account": allocation.account,
    }
    directives = [f"#SBATCH --{name}={value}" for name, value in asked.items() if value is not None]
    return {
        "sweep.sbatch": filled(
            "sweep.sbatch",
            what=_SHARED if shared else _ON_ALL,
            name=sweep.name,
            nodes=nodes.count,
            directives="\n".join([*[_WHOLE] * (not shared), *directives, *["#SBATCH --requeue"] * allocation.requeue]),
            time=allocation.limit.time,
            drain=allocation.limit.drain,
            folder=shlex.quote(folder),
            programs=shlex.quote(programs),
            ray="" if shared else filled("ray.sh"),
            start='"$folder/driver.sh" &' if shared else filled("srun.sh").rstrip("\n"),
            at_limit=_REQUEUE if allocation.requeue else _SAY,
        ),
        **({} if shared else {"node.sh": filled("node.sh")}),
        "driver.sh": filled(
            "driver.sh", here=shlex.quote(here), command=for_shell(sweep.command("local" if shared else "auto"))
        ),
        "secrets.env": secrets("Passwords of the run; only driver.sh reads them, on the first node.", RECORDS | S3, {}),
    }
