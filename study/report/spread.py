"""What a report shows of crossed replicates: how much of each row's spread either of the two things makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from study.planning.replication import Crossing, Parts, parts
from study.planning.stored import PlannedSpace
from study.report.exhibits import Figure, Table
from study.report.plotting import PALETTE
from study.report.results import Result, Results


def not_independent(space: PlannedSpace) -> str:
    """What a report of crossed replicates says instead of hypotheses."""
    instead = f" Without {space.crossed} they are given." if space.crossed else ""
    return (
        "Replicates that share a value are not independent of each other: hypotheses and differences from the "
        f"{space.source.name}, whose intervals want independent replicates, are not given, and ± is smaller than the "
        f"spread of a pair drawn anew.{instead}"
    )


def decomposition(results: Results) -> list[Table | Figure]:
    """How much of each trial's spread either thing makes, as a table and a picture; empty without a whole square."""
    found = [
        (result, crossing, own)
        for result in results
        if (crossing := Crossing.of(result.planned)) and (own := parts(crossing, result.last()))
    ]
    if not found:
        return []
    (first, second), size = found[0][1].names, found[0][1].size
    kept, others = [], []
    for result, crossing, own in found:
        if (crossing.names, crossing.size) == ((first, second), size):
            kept.append((result, own))
        else:
            others.append(result.trial.label)
    body: list[list[str]] = []
    shares: list[str] = []
    for column in dict.fromkeys(result.trial.column for result, _ in kept):
        rows = {result.trial.row: own for result, own in kept if result.trial.column == column}
        body += [[row, column, *_spreads(own)] for row, own in rows.items()]
        pooled, over = Parts.mean(list(rows.values())), ", over all rows" if len(rows) > 1 else ""
        if over:
            body.append([f"all {len(rows)} rows, pooled", column, *_spreads(pooled)])
        between, shared, apart = _shares(pooled)
        shares.append(
            f"Of the variance, {column}{over}: {first} {between:.0f} %, {second} {shared + apart:.0f} %; "
            f"{shared:.0f} % is an effect of {second} that is the same for every {first}."
        )
    measures = ", ".join(dict.fromkeys(result.trial.measure for result, _ in kept))
    notes = [
        f"Standard deviations in points of {measures} after the last epoch: of the effect of {first}, and of {second} "
        f"under one {first}. From every pair of {size} with {size} values, by two-way analysis of variance; an effect "
        f"whose variance is estimated below 0 is shown as 0, after pooling. With {size} values, the standard error of "
        f"the variance between them is about {100 * math.sqrt(2 / (size - 1)):.0f} % of it at least; rows share the "
        "values, so more rows make it hardly smaller.",
        *shares,
        *([f"Rows with another number of pairs are not shown: {'; '.join(others)}."] if others else []),
    ]
    title = f"Where the spread comes from: {first} and {second}"
    head = ["row", "column", first, second, "total"]
    return [Table(title, head, body, notes, labels=2), _figure(kept, (first, second), title, size)]


def _spreads(own: Parts) -> list[str]:
    return [f"{math.sqrt(variance):.2f}" for variance in (own.between, own.within, own.total)]


def _shares(own: Parts) -> list[float]:
    """Of the total's segments, in %; zeros if there is no spread."""
    return [100 * part / own.total if own.total else 0.0 for part in own.segments]


def _figure(kept: Sequence[tuple[Result, Parts]], names: tuple[str, str], title: str, size: int) -> Figure:
    columns = dict.fromkeys(result.trial.column for result, _ in kept)
    labels = [result.trial.row if len(columns) == 1 else result.trial.label for result, _ in kept]
    first, second = names
    segments = [first, f"{second}, same effect for every {first}", f"{second}, other effect for each {first}"]

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        left = [0.0] * len(kept)
        for number, (segment, hatch) in enumerate(zip(segments, ("", "//", ".."), strict=True)):
            widths = [_shares(own)[number] for _, own in kept]
            style = {"color": PALETTE[number], "hatch": hatch, "edgecolor": "white"}
            axis.barh(range(len(kept)), widths, left=left, label=segment, **style)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axis.set_yticks(range(len(kept)), labels)
        axis.invert_yaxis()
        axis.set_xlim(0, 100)
        axis.set_xlabel("share of the variance (%)")
        axis.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center")

    rows: list[list[str | float]] = [
        [result.trial.row, result.trial.column, *own.segments, *_shares(own)] for result, own in kept
    ]
    head = ["row", "column", *(f"variance: {name}" for name in segments), *(f"share in %: {name}" for name in segments)]
    caption = f"Shares of each row's variance, from {size} × {size} pairs of {first} and {second}."
    return Figure("spread", title, caption, draw, head, rows, (3.5, 1.5 + 0.2 * len(kept)))
