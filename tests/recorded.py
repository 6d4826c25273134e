"""Plans and what was recorded of them, without training: for the tests of reports."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import product
from typing import Any

from study.machine import Machine
from study.plan.stored import Plan, PlannedSpace, PlannedTrial, Resources
from study.report.results import Results
from study.space import Contrast, Request

SAMPLERS = ("IB", "CB", "CR")
PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2))  # of a subset and a seed, in order
CONTRASTS = (Contrast("IB⇒CR", "IB⇒IB"),)


def cell(
    first: str,
    switch: str,
    dataset: str = "digits",
    paper: float | None = None,
    paper_of: str = "",
    replicates: int = 3,
    measure: str = "test/top1",
    provenance: str = "",
    **axes: Any,
) -> PlannedTrial:
    """A cell of Table 9; its states are called after it and the replicate's number."""
    row = f"{first}⇒{switch}"
    axes = {"dataset": dataset, "imbalance": 50.0, "first": first, "switch": switch, "S": 1, **axes}
    ends = tuple(f"{row} {dataset} {number}" for number in range(replicates))
    return PlannedTrial(
        "table9",
        f"{row} ({dataset})",
        row,
        dataset,
        {"dataset": dataset},
        axes,
        paper,
        paper_of,
        200,
        ends,
        measure,
        provenance=provenance,
        seeds=tuple(drawn(number, number, number) for number in range(replicates)),
    )


def drawn(split: int, subset: int, seed: int) -> dict[str, str]:
    """The seeds of a replicate in words, as a plan has them."""
    return {"split": str(split), "subset": str(subset), "training seed": str(seed)}


def crossed(trial: PlannedTrial) -> PlannedTrial:
    """The same with pairs of a subset and a training seed as its replicates, nine at most."""
    return replace(trial, seeds=tuple(drawn(0, *pair) for pair in PAIRS[: len(trial.ends)]))


def nine(**options: Any) -> list[PlannedTrial]:
    """All cells."""
    return [cell(first, switch, **options) for first, switch in product(SAMPLERS, repeat=2)]


def plan(trials: list[PlannedTrial], names: tuple[str, ...] = ("table9",), file: str = "", **changes: Any) -> Plan:
    """A run of spaces with these trials; without a file, they have no view of their own."""
    fields = {"contrasts": CONTRASTS, "evidence": "same question", **changes}
    spaces = tuple(
        PlannedSpace(
            name=name,
            title=f"{name}: a title",
            objectives=("test/top1",),
            domain={},
            file=file,
            file_digest="",
            **fields,
        )
        for name in names
    )
    return Plan(
        run="r-0",
        request=Request(),
        machine=Machine("cpu", 1),
        resources=Resources(),
        replicates=3,
        spaces=spaces,
        trials=tuple(trials),
        sources={},
        epochs_needed=0,
        commit="c0",
        versions={"a": "1"},
    )


def header(*measures: dict[str, Any]) -> dict[str, Any]:
    """The header of a state with the measures of these epochs."""
    return {
        "provenance": [{"device_model": "a CPU"}],
        "measures": list(measures),
        "wall_seconds": [0.5] * len(measures),
    }


def top1(last: float, best: float | None = None, **shots: float) -> dict[str, Any]:
    """The header of a state after two epochs."""
    split = {f"test/{shot}": value for shot, value in shots.items()}
    return header({"test/top1": last if best is None else best}, {"test/top1": last, **split})


def all_of(trials: list[PlannedTrial], value: float = 50.0, step: float = 1.0) -> dict[str, dict[str, Any]]:
    """Every state: a trial's replicates are `value`, `value + step`, …"""
    return {end: top1(value + step * number) for trial in trials for number, end in enumerate(trial.ends)}


def results(trials: list[PlannedTrial], states: dict[str, dict[str, Any]], **changes: Any) -> Results:
    """What a view of their space is given."""
    made = plan(trials, **changes)
    return Results(made, made.spaces[0], states.get)


def size_of(png: bytes) -> tuple[int, int]:
    """A PNG's width and height in pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png[12:16] == b"IHDR"
    width, height = struct.unpack(">II", png[16:24])
    return width, height
