"""What the training tells the driver, and what it asks of the drivers of other runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from study.planning.tree import Failure, Stage


class Events(Protocol):
    """The receiver of events, which also supplies further stages. It is called in the driver's main thread."""

    def trained(self, stage: Stage, epochs: int) -> None:
        """Note that a number of further epochs of a stage have been trained."""

    def recount(self, stage: Stage, epochs: int) -> None:
        """Correct how many epochs of a stage need no training any more: by those that nobody here has trained, or kept.

        Args:
            stage: the stage.
            epochs: how many more there are, since another run has trained them. Below 0, how many fewer: their process
                was lost before it had saved them.
        """

    def durable(self, key: str) -> bool:
        """Note that a state has been saved; return whether the driver sees it in the store."""

    def remark(self, stage: Stage, heading: str, line: str) -> None:
        """Tell the user about the process of a stage.

        Args:
            stage: the stage.
            heading: what happened, in a word or two.
            line: the details.
        """

    def failed(self, stage: Stage, failure: Failure) -> None:
        """Note that a stage was given up."""

    def cut(self, parts: Sequence[Stage]) -> None:
        """Note that a stage is trained in parts, the last of which ends where the stage does."""

    def waits(self, what_for: str, reason: str) -> None:
        """Note that the training waits.

        Args:
            what_for: "machines", "the store", "workers", "another run", or "a stop".
            reason: a line for the user; "" if it does not wait for this any more.
        """

    def reaches_store(self) -> bool:
        """Return whether the driver's own records reach the store."""

    def can_save(self) -> bool:
        """Try whether the driver can write something as large as a state into the store."""

    def more(self, workers: int, idle: bool) -> Sequence[Stage] | None:
        """Return further stages for idle workers: an empty list if there are none yet, None if none will come.

        Args:
            workers: how many stages may be trained at the same time.
            idle: whether nothing is being trained, so that a short wait for an answer costs nothing.
        """


class Others(Protocol):
    """The drivers of other runs that train on the same store; see `study.execution.sharing`."""

    def cut(self, stage: Stage) -> Sequence[Stage]:
        """Return the parts in which a stage is to be trained, because other drivers need states inside."""

    def begin(self, stage: Stage) -> bool:
        """Claim a stage that is to be trained; return whether it may begin, since no other driver trains it."""

    def holder(self, stage: Stage) -> str:
        """Return the run whose driver trains a stage that could not begin here; "" if it is not known."""

    def arrived(self, stage: Stage) -> bool:
        """Return whether the last state of a stage that another driver trains is in the store."""

    def keep(self, stage: Stage, position: int) -> Collection[str] | None:
        """Return the states, inside a stage that is being trained, that other drivers need.

        None if another driver trains the stage, so that this one must leave it.

        Args:
            stage: the stage.
            position: how many of its epochs have been trained.
        """

    def end(self, stage: Stage) -> None:
        """Release a stage that is no longer being trained."""

    def is_shared(self, stage: Stage) -> bool:
        """Return whether another driver that is alive has planned a stage, too."""

    def was_shared(self, stage: Stage) -> bool:
        """Return whether another driver, which may have ended, may have saved states of a stage since the start."""


class _Alone:
    """No other driver."""

    def cut(self, stage: Stage) -> Sequence[Stage]:
        return [stage]

    def begin(self, stage: Stage) -> bool:  # noqa: ARG002
        return True

    def holder(self, stage: Stage) -> str:  # noqa: ARG002
        return ""

    def arrived(self, stage: Stage) -> bool:  # noqa: ARG002
        return False

    def keep(self, stage: Stage, position: int) -> Collection[str] | None:  # noqa: ARG002
        return ()

    def end(self, stage: Stage) -> None: ...

    def is_shared(self, stage: Stage) -> bool:  # noqa: ARG002
        return False

    def was_shared(self, stage: Stage) -> bool:  # noqa: ARG002
        return False


ALONE: Others = _Alone()
