"""Ready-made tables for views: a measure in rows by columns, as most of the paper's tables are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.compare import Difference, estimate
from study.exhibits import NOTHING, Cell, Figure, Table
from study.plotting import heat_maps
from study.results import Result, Results

SHOTS = ("many", "medium", "few")
BEST = "best epoch (selected on test)"


def grid(
    results: Results, *, title: str = "", measure: str = "", beside: Mapping[str, str] | None = None,
    corner: str = "", notes: Sequence[str] = (), digits: int = 1,
) -> Table:  # fmt: skip
    """Rows by columns of a measure after the last epoch, beside the paper's figures.

    Args:
        results: of the space.
        title: "" for the space's.
        measure: "" for each trial's own.
        beside: further measures by their heading, such as ``{"adjusted": "adjusted/top1"}``, behind each column.
        corner: the heading of the rows' names.
        notes: see `Table`.
        digits: see `Cell`.
    """
    more = dict(beside or {})
    head = [corner, *(name for column in results.columns for name in (column, *more))]
    rows = [
        [
            row,
            *(
                results.cell(row, column, m, digits=digits)
                for column in results.columns
                for m in (measure, *more.values())
            ),
        ]
        for row in results.rows
    ]
    return Table(title or results.space.title, head, rows, [_measures(results, measure), *notes])


def by_shot(results: Results, column: str, *, title: str = "", part: str = "test", notes: Sequence[str] = ()) -> Table:
    """Many-, medium-, few-shot and overall accuracy of each row in one column; a split without classes is "–"."""
    measures = [f"{part}/{shot}" for shot in (*SHOTS, "top1")]
    rows = [[row, *(results.cell(row, column, measure) for measure in measures)] for row in results.rows]
    return Table(
        title or f"{results.space.title}, {column}",
        ["", *SHOTS, "all"],
        rows,
        [f"In % after the last epoch ({part}).", *notes],
    )


def default(results: Results) -> list[Table | Figure | None]:
    """What a space without a view of its own shows: its grid, in one column also by shot; combinations as heat maps."""
    table = grid(results)
    if len(results.columns) == 1:
        rows = [[*row, *_details(result)] for row, result in zip(table.rows, results, strict=True)]
        table = Table(table.title, [*table.head, *SHOTS, BEST], rows, table.notes)
    return [table, *heat_maps(results)]


def _details(result: Result) -> list[Cell]:
    """Accuracy by shot, on the images of the trial's own measure, and the best of its epochs."""
    part = result.trial.measure.partition("/")[0]
    return [*(result.cell(f"{part}/{shot}") for shot in SHOTS), Cell(result.best(), axes=result.trial.axes)]


def _measures(results: Results, measure: str) -> str:
    """Which measure is shown, where rows differ."""
    shown: dict[str, list[str]] = {}
    for result in results:
        shown.setdefault(measure or result.trial.measure, []).append(result.trial.row)
    if len(shown) < 2:
        return f"In % after the last epoch ({next(iter(shown), measure)})."
    first, *others = sorted(shown.items(), key=lambda each: -len(each[1]))
    apart = "; ".join(f"{', '.join(dict.fromkeys(rows))}: {name}" for name, rows in others)
    return f"In % after the last epoch ({first[0]}; {apart})."


def hypotheses(found: Sequence[Difference]) -> Table | None:
    """A space's hypotheses with what was measured of them; None without any."""
    if not found:
        return None
    claims = any(each.contrast.claim for each in found)
    rows = []
    for each in found:
        contrast, own = each.contrast, each.estimate
        words = f"{contrast.better} − {contrast.worse}" + (f", {contrast.measure}" if contrast.measure else "")
        words += "" if contrast.margin is None else f" within ± {contrast.margin:g}"
        interval = NOTHING if own.low is None or own.high is None else f"{own.low:+.1f} to {own.high:+.1f}"
        p = NOTHING if own.p is None else f"{own.p:.2g}"
        claim = [contrast.claim] if claims else []
        rows.append([*claim, words, each.column, str(own.n), f"{own.mean:+.1f}", interval, p, each.verdict])
    head = [*(["claim"] if claims else []), "hypothesis", "column", "n", "points", "95 % interval", "p", "verdict"]
    notes = [
        "Differences are paired over n replicates, with t-intervals; p is two-sided, adjusted over the hypotheses of "
        "this table (Holm), and not given below n = 5. Equivalence: the interval lies within the margin."
    ]
    return Table("Hypotheses, set down before the run", head, rows, notes)


def from_paper(table: Table) -> Table | None:
    """A table of the same shape with the differences from the paper's figures, where they are on the same data.

    None if none is.
    """
    columns = [number for number in range(len(table.head)) if any(_difference(row[number]) for row in table.rows)]
    if not columns:
        return None
    rows = [
        [str(row[0]), *(_difference(row[number]) for number in columns)]
        for row in table.rows
        if any(_difference(row[number]) for number in columns)
    ]
    notes = ["Mean over replicates minus the paper's figure, with a 95 % t-interval. Paper: n = 1 or unstated."]
    head = [table.head[0], *(table.head[number] for number in columns)]
    return Table(f"{table.title}: difference from the paper", head, rows, notes)


def _difference(cell: str | Cell | None) -> str | None:
    if not isinstance(cell, Cell) or cell.printed is None or cell.printed.of or not cell.printed.comparable:
        return None
    printed = cell.printed.value
    found = estimate([value - printed for value in cell.values.values()])
    return None if found is None else found.words(cell.digits)
