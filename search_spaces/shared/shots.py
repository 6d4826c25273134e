"""Accuracy by shot: of the classes with many, a medium number of, and few training images."""

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
    """Many-, medium-, few-shot and overall accuracy of each row in one column; a split without classes is "–".

    Args:
        results: of the space.
        column: which.
        figures: the paper's by `SHOTS` of a trial that has one for all images.
        notes: see `Table`.
    """
    rows: list[list[str | Cell]] = []
    for result in (each for each in results if each.trial.column == column):
        cells = [result.cell(f"test/{shot}") for shot in SHOTS]
        if result.printed is not None:
            printed = [Printed(figure, of=result.printed.of) for figure in figures(result.trial)]
            cells = [replace(cell, printed=each) for cell, each in zip(cells, printed, strict=True)]
        rows.append([result.trial.row, *cells, result.cell()])
    head = ["Method", *(f"{shot.capitalize()}-shot" for shot in SHOTS), "All"]
    return Table(f"{results.space.title}, {column}", head, rows, notes)
