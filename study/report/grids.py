"""Ready-made tables for views: a measure in rows by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.report.exhibits import NOTHING, Cell, Table
from study.report.results import Result, Results
from study.report.statistics import LEAST, Difference, estimate
from study.space import Printed, Source


def grid(
    results: Results,
    *,
    rows: Sequence[str] | None = None,
    beside: Mapping[str, str] | None = None,
    corner: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """Rows by columns of each trial's own measure after the last epoch, beside the printed figures.

    Args:
        results: of the space.
        rows: those that are shown; None for all.
        beside: further measures by their heading, such as ``{"adjusted": "adjusted/accuracy"}``, behind each column.
        corner: the heading of the rows' names.
        notes: see `Table`.
    """
    shown, more = results.rows if rows is None else rows, dict(beside or {})
    head = [corner, *(name for column in results.columns for name in (column, *more))]
    body = [
        [row, *(results.cell(row, column, measure) for column in results.columns for measure in ("", *more.values()))]
        for row in shown
    ]
    measured = _measures([result for result in results if result.trial.row in shown])
    return Table(results.space.title, head, body, [measured, *notes])


def at_edges(results: Results, measure: str, ends: tuple[float, float], rows: Sequence[str]) -> list[str]:
    """A note on rows whose chosen value lies at an end of what it was chosen from: a better one may lie beyond.

    Args:
        results: of the space.
        measure: the chosen value, such as a temperature.
        ends: the least and the greatest that could be chosen.
        rows: those that are shown.
    """
    found = []
    for result in results:
        values = list(result.last(measure).values()) if result.trial.row in rows else []
        for end in ends:
            count = values.count(end)
            if count:
                found.append(f"{result.trial.label}: {end:g} (in {count} of {len(values)} replicates)")
    low, high = (f"{end:g}" for end in ends)
    return [f"{measure} was chosen at an end of its range, {low} to {high}. {'; '.join(found)}."] if found else []


def printed_row(results: Results, name: str, figures: Mapping[str, float], provenance: str) -> list[str | Cell | None]:
    """A row that the source prints and we do not train, under this name; its figures by the source's column."""
    row: list[str | Cell | None] = [name]
    for column in results.columns:
        beside = (each.trial.printed for each in results if each.trial.column == column)
        of = next((printed.of for printed in beside if printed is not None), "")
        printed = Printed(figures[of], provenance, "" if of == column else of) if of in figures else None
        row.append(Cell(printed=printed))
    return row


def default(results: Results) -> list[Table]:
    """What a space without a view of its own shows: its grid; in one column also its splits, and the best epoch."""
    table = grid(results)
    if len(results.columns) == 1:
        parts = ", ".join(dict.fromkeys(result.trial.measure.partition("/")[0] for result in results)) or "nothing"
        rows = [[*row, *_details(results, result)] for row, result in zip(table.rows, results, strict=True)]
        table = Table(
            table.title, [*table.head, *results.space.splits, f"best epoch (selected on {parts})"], rows, table.notes
        )
    return [table]


def _details(results: Results, result: Result) -> list[Cell]:
    """Each split of the data that the trial's own measure is of, and the best of its epochs."""
    part = result.trial.measure.partition("/")[0]
    splits = [result.cell(f"{part}/{split}") for split in results.space.splits]
    return [*splits, Cell(result.best(), axes=result.trial.axes)]


def _measures(results: Sequence[Result]) -> str:
    """Which measure is shown, and where rows differ, of which."""
    shown: dict[str, list[str]] = {}
    for result in results:
        shown.setdefault(result.trial.measure, []).append(result.trial.row)
    if len(shown) < 2:
        return f"In % after the last epoch ({next(iter(shown), 'no row')})."
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
        "this table but those of equivalence (Holm). Equivalence: the interval lies within the margin. Below "
        f"n = {LEAST} nothing is tested."
    ]
    return Table("Hypotheses, set down before the run", head, rows, notes)


def from_source(table: Table, source: Source) -> Table | None:
    """A table of the same shape with the differences from the printed figures, where they are on the same data.

    None if none is.
    """
    columns = [number for number in range(len(table.head)) if any(_difference(row[number]) for row in table.rows)]
    if not columns:
        return None
    names = range(table.labels)
    rows = [
        [*(row[number] for number in names), *(_difference(row[number]) for number in columns)]
        for row in table.rows
        if any(_difference(row[number]) for number in columns)
    ]
    name = source.name
    notes = [f"Mean over replicates minus the {name}'s figure, with a 95 % t-interval. {name.title()}: {source.runs}."]
    head = [table.head[number] for number in (*names, *columns)]
    return Table(f"{table.title}: difference from the {name}", head, rows, notes, table.labels)


def _difference(cell: str | Cell | None) -> str | None:
    if not isinstance(cell, Cell) or cell.printed is None or cell.printed.of or not cell.printed.comparable:
        return None
    printed = cell.printed.value
    found = estimate([value - printed for value in cell.values.values()])
    return None if found is None else found.words(cell.decimals)
