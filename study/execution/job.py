"""What every worker is told of the stages that it trains."""

from __future__ import annotations

from dataclasses import dataclass

from study.plan.stored import Resources


@dataclass(frozen=True)
class Job:
    """What every worker is told, once.

    Attributes:
        run: whose stages it trains.
        store: the URL of the states.
        resources: of each stage.
        ranks: processes that train a stage together, which share them.
    """

    run: str
    store: str
    resources: Resources
    ranks: int = 1
