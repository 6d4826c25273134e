"""A space's results as if it had been trained, and what its view shows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from study import catalog
from study.machine import Machine
from study.plan import drafting
from study.plan.stored import PlannedTrial, Resources
from study.report.exhibits import Cell, Table
from study.report.results import Results
from study.space import Request, Space

Last = Callable[[PlannedTrial, int], Mapping[str, Any] | list[dict[str, Any]] | None]
Observed = Mapping[int, Mapping[str, Any]]
PERCENT = ("test/top1", "test/many", "test/medium", "test/few", "adjusted/top1", "tau_normalised/top1")


def space(name: str, **request: Any) -> Space:
    function, _ = catalog.find(name)
    return function(Request(**request))


def by_place(name: str, **request: Any) -> dict[tuple[str, str], Any]:
    """A space's trials by row and column."""
    return {(trial.row, trial.column): trial for trial in space(name, **request).trials}


def numbered(trial: PlannedTrial, replicate: int) -> dict[str, float]:
    """Measures of the last epoch that tell measure and replicate apart: 10, 20, … percent and the replicate."""
    return {measure: 10.0 * place + replicate for place, measure in enumerate(PERCENT, 1)}


def results(
    name: str,
    last: Last = numbered,
    *,
    replicates: int = 2,
    observed: Observed | Callable[[PlannedTrial], Observed] | None = None,
    **request: Any,
) -> Results:
    """What a view is given of a run in which every trial ended with these measures.

    Args:
        last: of (trial, replicate): the measures of the last epoch, or those of every epoch, or None where it has not
            ended.
        observed: by replicate, what the last states have observed of images; or such a function of a trial.
    """
    plan = drafting.draft([name], Request(**request), replicates, Machine("cpu", 1), Resources()).plan
    states: dict[str, dict[str, Any]] = {}
    payloads: dict[str, bytes] = {}
    for trial in plan.trials:
        seen = observed(trial) if callable(observed) else observed or {}
        for number, end in trial.by_replicate.items():
            measures = last(trial, number)
            if measures is not None:
                epochs = measures if isinstance(measures, list) else [measures]
                header = {"wall_seconds": [0.5] * len(epochs), "provenance": [{"device_model": "a CPU"}]}
                state = states.setdefault(end, {**header, "measures": [{} for _ in epochs]})
                for known, new in zip(state["measures"], epochs, strict=True):
                    known.update(new)
            tensors = {f"observed.{each}": np.asarray(array) for each, array in seen.get(number, {}).items()}
            payloads[end] = save(tensors)
    return Results(plan, plan.spaces[0], states.get, payloads.get)


def nothing(trial: PlannedTrial, replicate: int) -> None:
    """No replicate has ended."""
    return None  # noqa: RET501


def tables(results: Results, **request: Any) -> list[Table]:
    """The tables of the space's own view."""
    view = space(results.space.name, **request).view
    assert view is not None
    return [each for each in view(results) if isinstance(each, Table)]


def entry(table: Table, row: int, column: int) -> Cell:
    """A measured entry."""
    found = table.rows[row][column]
    assert isinstance(found, Cell)
    return found
