"""What a report shows of crossed replicates: how much of each row's spread either of the two things makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from study.exhibits import NOTHING, Figure, Table
from study.plotting import PALETTE
from study.replication import Crossing, Parts, parts
from study.results import Result, Results

NOT_INDEPENDENT = (
    "Replicates that share a value are not independent of each other: hypotheses and differences from the paper, whose "
    "intervals want independent replicates, are not given. --vary all or --vary seed gives them."
)


def decomposition(results: Results) -> list[Table | Figure]:
    """How much of each trial's spread either thing makes, as a table and a picture; empty without a whole square."""
    found: list[tuple[Result, Crossing, Parts]] = []
    for result in results:
        crossing = Crossing.of(result.trial)
        own = None if crossing is None else parts(crossing, result.last())
        if crossing is not None and own is not None:
            found.append((result, crossing, own))
    if not found:
        return []
    (first, second), size = found[0][1].names, found[0][1].size
    alike = [each for each in found if (each[1].names, each[1].size) == ((first, second), size)]
    kept = [(result, own) for result, _, own in alike]
    pooled = Parts.mean([own for _, own in kept])
    body = [[result.trial.row, result.trial.column, *_spreads(own)] for result, own in kept]
    if len(kept) > 1:
        body.append([f"all {len(kept)} (root mean square)", NOTHING, *_spreads(pooled)])
    measures = ", ".join(dict.fromkeys(result.trial.measure for result, _ in kept))
    between, shared, own_to_each = _shares(pooled)
    notes = [
        f"Standard deviations in points of {measures} after the last epoch: between values of {first}, and of "
        f"{second} within one. From every pair of {size} with {size} values, by a two-way analysis of variance "
        f"(degrees of freedom: {size - 1} each); an estimate below 0 is shown as 0.",
        f"Of the variance{', over all rows' if len(kept) > 1 else ''}: {first} {between:.0f} %, {second} "
        f"{shared + own_to_each:.0f} %; {shared:.0f} % is what {second} does alike with every {first}.",
    ]
    if len(kept) < len(found):
        others = "; ".join(result.trial.label for result, *_ in found if all(result is not each for each, _ in kept))
        notes.append(f"Rows with another number of pairs are not shown: {others}.")
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
    segments = [first, f"{second}, the same with every {first}", f"{second}, with each {first} its own"]

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
