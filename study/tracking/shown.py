"""What MLflow shows of a replicate: an epoch as metrics, parameters as texts, and who trained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric

from study.space import Json, Work

ENTRIES = 100  # of a list; a longer one is in the store alone


def metrics(work: Work, epoch: Json, at: tuple[int, int], model: str | None) -> list[Metric]:
    """An epoch's scalars: the curves every epoch; what is read at the end, and lists, with the last one only.

    The last epoch is the one that has a model; its metrics are the model's as well. Each metric costs a row, and the
    driver's time; the store holds them all.
    """
    step, clock = at
    found = [
        Metric(name, value, clock, step, model_id=model)
        for name, value in epoch.items()
        if not isinstance(value, list) and (model or name.startswith(work.curves))
    ]
    for name, shown in work.lists.items():
        entries = epoch.get(name, [])
        if model and len(entries) <= ENTRIES:
            found += [
                Metric(f"{shown}/{rank:04d}", value, clock, step, model_id=model) for rank, value in enumerate(entries)
            ]
    # By the last epoch whose first curve is there, a later start knows how far this run is.
    return sorted(found, key=lambda metric: metric.key == work.curves[0])


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow takes them; what is a text already stays as it is."""

    def text(value: Any) -> str:
        plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return plain if len(plain) <= 6000 else plain[:5997] + "..."

    return {name: text(value) for name, value in values.items()}


def provenance(header: Json) -> str:
    """Which run trained which epochs: inherited ones are shown whole, and here is where they come from."""
    parts = header["provenance"]
    stops = [part["from_epoch"] for part in parts[1:]] + [header["epochs"]]
    return "; ".join(
        f"epochs {part['from_epoch']}-{stop - 1} by {part['run']} on {part['host']}"
        for part, stop in zip(parts, stops, strict=True)
    )
