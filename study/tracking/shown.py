"""A replicate as MLflow shows it: measures under their names, parameters as texts, and the runs that trained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from study.space import Json, Work

if TYPE_CHECKING:
    from mlflow.entities import Metric

ENTRIES = 100  # of a list; a longer one is in the store alone


def values(work: Work, epoch: Json, last: bool) -> dict[str, float]:
    """Return an epoch's measures under MLflow's names: the curves, or all measures for the last epoch.

    Each entry of a list has a separate name, such as ``test/class/0000``.

    Args:
        work: names the curves and the lists.
        epoch: its measures.
        last: whether it is the last one.
    """
    measures = {
        name: value
        for name, value in epoch.items()
        if not isinstance(value, list) and (last or name.startswith(work.curves))
    }
    for name, title in work.lists.items() if last else ():
        entries = epoch.get(name, [])
        if len(entries) <= ENTRIES:
            measures |= {f"{title}/{rank:04d}": value for rank, value in enumerate(entries)}
    return measures


def metrics(work: Work, epoch: Json, at: tuple[int, int], model: str | None) -> list[Metric]:
    """Return an epoch's measures as MLflow's metrics. Each costs a row, and the driver's time; the store holds all.

    Args:
        work: names the curves and the lists.
        epoch: its measures.
        at: step, and time in milliseconds.
        model: the id of the model of the last epoch, whose metrics these are as well; None for other epochs.
    """
    from mlflow.entities import Metric

    step, clock = at
    rows = [
        Metric(name, value, clock, step, model_id=model)
        for name, value in values(work, epoch, last=model is not None).items()
    ]
    # The first curve comes last in an epoch: the last epoch that has it is written whole, as a later start must know.
    return sorted(rows, key=lambda metric: bool(metric.key == work.curves[0]))


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as MLflow takes them: a text as it is, everything else as JSON, 6,000 letters at most."""

    def text(value: Any) -> str:
        plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return plain if len(plain) <= 6000 else plain[:5997] + "..."

    return {name: text(value) for name, value in values.items()}


def provenance(header: Json) -> str:
    """Say which run trained which epochs: a replicate also shows the epochs that it inherits."""
    parts = header["provenance"]
    stops = [part["from_epoch"] for part in parts[1:]] + [header["epochs"]]
    return "; ".join(
        f"epochs {part['from_epoch']}-{stop - 1} by {part['run']} on {part['host']}"
        for part, stop in zip(parts, stops, strict=True)
    )
