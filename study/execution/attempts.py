"""The processes that a stage has lost: whether it is tried again, and where not."""

from __future__ import annotations

from dataclasses import dataclass, field

from study.execution.losses import Loss
from study.execution.pool import Pool
from study.planning.tree import Failure

LOST_ATTEMPTS = 3  # processes that a stage may lose by itself in a row without saving a state
LOST_MACHINES = 10  # machines that it may lose in a row without saving a state: it may be what ends them


@dataclass
class _Losses:
    """The losses of a stage since the last state that it saved, and the nodes of all that were its own."""

    by_itself: list[Loss] = field(default_factory=list)
    machines: int = 0
    saved: str = ""
    nodes: set[str] = field(default_factory=set)


class Attempts:
    """The losses of each stage. A machine that is preempted, or ends with all its workers, is nobody's fault.

    Args:
        pool: knows which machines have ended, by now: Ray may report the loss of a process before that of its machine.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._losses: dict[str, _Losses] = {}

    def lose(self, stage: str, saved: str, loss: Loss) -> Failure | None:
        """Note that a stage has lost a process; return why it is given up, or None if it is tried again.

        Args:
            stage: the name of the stage.
            saved: the last state that it has saved, or "".
            loss: the reason.
        """
        losses = self._losses.setdefault(stage, _Losses())
        if saved != losses.saved:
            losses.saved, losses.machines, losses.by_itself = saved, 0, []
        if self.is_of_machine(loss):
            losses.machines += 1
            if losses.machines < LOST_MACHINES:
                return None
            reason = f"its machine ended {LOST_MACHINES} times before a further state was saved"
            return Failure(f"{reason}. {loss}", loss.text, host=loss.host)
        losses.by_itself = [each for each in losses.by_itself if not self._pool.is_lost(each.node)] + [loss]
        losses.nodes.add(loss.node)
        if len(losses.by_itself) < LOST_ATTEMPTS:
            return None
        hosts = sorted({each.host for each in losses.by_itself if each.host})
        where = f"on {', '.join(hosts)}" if len(hosts) > 1 else f"{LOST_ATTEMPTS} times"
        reason = f"the training process ended unexpectedly {where}"
        return Failure(f"{reason}. {loss}", loss.text, host=loss.host)

    def is_of_machine(self, loss: Loss) -> bool:
        """Return whether a process was lost because its machine has ended, or will soon."""
        return loss.is_of_machine or bool(loss.node and self._pool.is_lost(loss.node))

    def lost_on(self, stage: str) -> set[str]:
        """Return the nodes on which a stage has lost a process by itself."""
        nodes = self._losses.get(stage, _Losses()).nodes
        return {node for node in nodes if node and not self._pool.is_lost(node)}
