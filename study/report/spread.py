"""The exhibits of crossed replicates: how much each of the two factors contributes to the spread of each row."""

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
    """Return the notice that a report of crossed replicates shows instead of hypotheses."""
    alternative = f" A run without {space.crossed} has both." if space.crossed else ""
    return (
        "Replicates that share a value are not independent of each other. Therefore this report has no hypotheses and "
        f"no differences from the {space.source.name}, whose intervals need independent replicates, and ± is smaller "
        f"than the spread of newly drawn pairs.{alternative}"
    )


def decomposition(results: Results) -> list[Table | Figure]:
    """Return a table and a picture of how much each factor contributes to each trial's spread.

    The list is empty if no trial has a complete square of pairs.
    """
    decomposed = [
        (result, crossing, variances)
        for result in results
        if (crossing := Crossing.of(result.planned)) and (variances := parts(crossing, result.last()))
    ]
    if not decomposed:
        return []
    (first, second), size = decomposed[0][1].names, decomposed[0][1].size
    kept, left_out = [], []
    for result, crossing, variances in decomposed:
        if (crossing.names, crossing.size) == ((first, second), size):
            kept.append((result, variances))
        else:
            left_out.append(result.trial.label)
    body: list[list[str]] = []
    shares: list[str] = []
    for column in dict.fromkeys(result.trial.column for result, _ in kept):
        rows = {result.trial.row: variances for result, variances in kept if result.trial.column == column}
        body += [[row, column, *_spreads(variances)] for row, variances in rows.items()]
        pooled, scope = Parts.mean(list(rows.values())), ", over all rows" if len(rows) > 1 else ""
        if scope:
            body.append([f"all {len(rows)} rows, pooled", column, *_spreads(pooled)])
        between, same, different = _shares(pooled)
        shares.append(
            f"Shares of the variance ({column}{scope}): {first} {between:.0f} %, {second} {same + different:.0f} %. "
            f"{same:.0f} % is an effect of {second} that is the same for every {first}."
        )
    measures = ", ".join(dict.fromkeys(result.trial.measure for result, _ in kept))
    error = 100 * math.sqrt(2 / (size - 1))
    notes = [
        f"Standard deviations in points of {measures} after the last epoch: of the effect of {first}, and of the "
        f"effect of {second} within one {first}. They are estimated from all {size} × {size} pairs by two-way analysis "
        "of variance. An effect whose variance is estimated below 0 is shown as 0, after pooling. "
        f"With {size} values, the standard error of the variance between them is at least about {error:.0f} % of it. "
        "Rows share the values, so more rows hardly reduce it.",
        *shares,
        *([f"Rows with another number of pairs are not shown: {'; '.join(left_out)}."] if left_out else []),
    ]
    title = f"Where the spread comes from: {first} and {second}"
    head = ["row", "column", first, second, "total"]
    return [Table(title, head, body, notes, labels=2), _figure(kept, (first, second), title, size)]


def _spreads(variances: Parts) -> list[str]:
    return [f"{math.sqrt(variance):.2f}" for variance in (variances.between, variances.within, variances.total)]


def _shares(variances: Parts) -> list[float]:
    """Return the shares of the total's segments in %; zeros if there is no spread."""
    return [100 * part / variances.total if variances.total else 0.0 for part in variances.segments]


def _figure(kept: Sequence[tuple[Result, Parts]], names: tuple[str, str], title: str, size: int) -> Figure:
    columns = dict.fromkeys(result.trial.column for result, _ in kept)
    labels = [result.trial.row if len(columns) == 1 else result.trial.label for result, _ in kept]
    first, second = names
    segments = [first, f"{second}, same effect for every {first}", f"{second}, other effect for each {first}"]

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        left = [0.0] * len(kept)
        for number, (segment, hatch) in enumerate(zip(segments, ("", "//", ".."), strict=True)):
            widths = [_shares(variances)[number] for _, variances in kept]
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
        [result.trial.row, result.trial.column, *variances.segments, *_shares(variances)] for result, variances in kept
    ]
    head = ["row", "column", *(f"variance: {name}" for name in segments), *(f"share in %: {name}" for name in segments)]
    caption = f"Shares of each row's variance, from {size} × {size} pairs of {first} and {second}."
    return Figure("spread", title, caption, draw, head, rows, (3.5, 1.5 + 0.2 * len(kept)))
