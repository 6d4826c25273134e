"""Accuracy by shot: on the classes with many, a medium number of, and few training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from study.report.exhibits import Cell, Table
from study.report.results import Results
from study.space import Printed, Trial

SHOTS = ("many", "medium", "few")


def by_shot(
    results: Results, column: str, figures: Callable[[Trial], Sequence[float]], notes: Sequence[str] = ()
) -> Table:
    """Return a table of the many-, medium-, few-shot and overall accuracy of each row in one column.

    A split without classes is "–".

    Args:
        results: the results of the space.
        column: the name of the column.
        figures: a function that returns the paper's figures of a trial by `SHOTS`, if it has an overall figure.
        notes: see `Table`.
    """
    rows: list[list[str | Cell]] = []
    for result in (result for result in results if result.trial.column == column):
        cells = [result.cell(f"test/{shot}") for shot in SHOTS]
        if result.printed is not None:
            printed = [Printed(figure, of=result.printed.of) for figure in figures(result.trial)]
            cells = [replace(cell, printed=figure) for cell, figure in zip(cells, printed, strict=True)]
        rows.append([result.trial.row, *cells, result.cell()])
    head = ["Method", *(f"{shot.capitalize()}-shot" for shot in SHOTS), "All"]
    return Table(f"{results.space.title}, {column}", head, rows, notes)
