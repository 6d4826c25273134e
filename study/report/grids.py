"""Ready-made tables for views: a measure by rows and columns."""

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
    """Return a table of each trial's measure after the last epoch, by rows and columns, beside the printed figures.

    Args:
        results: the space's results.
        rows: the rows to show; None for all.
        beside: further measures by their heading, such as ``{"adjusted": "adjusted/accuracy"}``, after each column.
        corner: the heading of the rows' names.
        notes: see `Table`.
    """
    row_names, further = results.rows if rows is None else rows, dict(beside or {})
    head = [corner, *(name for column in results.columns for name in (column, *further))]
    measures = ("", *further.values())
    body = [
        [row, *(results.cell(row, column, measure) for column in results.columns for measure in measures)]
        for row in row_names
    ]
    measure_note = _measures([result for result in results if result.trial.row in row_names])
    return Table(results.space.title, head, body, [measure_note, *notes])


def at_edges(results: Results, measure: str, ends: tuple[float, float], rows: Sequence[str]) -> list[str]:
    """Return a note on rows whose chosen value lies at an end of its range, since a better one may lie beyond it.

    Args:
        results: the space's results.
        measure: the chosen value, such as a temperature.
        ends: the least and the greatest value of the range.
        rows: the rows of the table.
    """
    cases = []
    for result in results:
        values = list(result.last(measure).values()) if result.trial.row in rows else []
        for end in ends:
            count = values.count(end)
            if count:
                replicates = "replicate" if len(values) == 1 else "replicates"
                cases.append(f"{result.trial.label}: {end:g} (in {count} of {len(values)} {replicates})")
    low, high = (f"{end:g}" for end in ends)
    return [f"{measure} was chosen at an end of its range, {low} to {high}. {'; '.join(cases)}."] if cases else []


def printed_row(results: Results, name: str, figures: Mapping[str, float], provenance: str) -> list[str | Cell | None]:
    """Return a row of figures that the source prints for something that is not trained.

    Args:
        results: the space's results.
        name: the row's name.
        figures: the printed figures by the source's columns.
        provenance: the source's mark of these figures.
    """
    row: list[str | Cell | None] = [name]
    for column in results.columns:
        in_column = (result.trial.printed for result in results if result.trial.column == column)
        source_column = next((printed.of for printed in in_column if printed is not None), "")
        printed = None
        if source_column in figures:
            printed = Printed(figures[source_column], provenance, "" if source_column == column else source_column)
        row.append(Cell(printed=printed))
    return row


def default(results: Results) -> list[Table]:
    """Return the tables of a space without a view: its grid and, if it has one column, its splits and best epochs."""
    table = grid(results)
    if len(results.columns) == 1:
        parts = ", ".join(dict.fromkeys(result.trial.measure.partition("/")[0] for result in results)) or "nothing"
        rows = [[*row, *_details(results, result)] for row, result in zip(table.rows, results, strict=True)]
        table = Table(
            table.title, [*table.head, *results.space.splits, f"best epoch (selected on {parts})"], rows, table.notes
        )
    return [table]


def _details(results: Results, result: Result) -> list[Cell]:
    """Return the cells of each split of the data that the trial's measure uses, and of the best epoch."""
    part = result.trial.measure.partition("/")[0]
    splits = [result.cell(f"{part}/{split}") for split in results.space.splits]
    return [*splits, Cell(result.best(), axes=result.trial.axes)]


def _measures(results: Sequence[Result]) -> str:
    """Return a note on the measures of a table: the most frequent one, and the rows that show another one."""
    rows_by_measure: dict[str, list[str]] = {}
    for result in results:
        rows_by_measure.setdefault(result.trial.measure, []).append(result.trial.row)
    if len(rows_by_measure) < 2:
        return f"In % after the last epoch ({next(iter(rows_by_measure), 'no row')})."
    first, *others = sorted(rows_by_measure.items(), key=lambda item: -len(item[1]))
    exceptions = "; ".join(f"{', '.join(dict.fromkeys(rows))}: {name}" for name, rows in others)
    return f"In % after the last epoch ({first[0]}; {exceptions})."


def hypotheses(differences: Sequence[Difference]) -> Table | None:
    """Return a table of a space's hypotheses with their measured differences; None without hypotheses."""
    if not differences:
        return None
    claims = any(difference.contrast.claim for difference in differences)
    rows = []
    for difference in differences:
        contrast, measured = difference.contrast, difference.estimate
        words = f"{contrast.better} − {contrast.worse}" + (f", {contrast.measure}" if contrast.measure else "")
        words += "" if contrast.margin is None else f" within ± {contrast.margin:g}"
        has_interval = measured.low is not None and measured.high is not None
        interval = f"{measured.low:+.1f} to {measured.high:+.1f}" if has_interval else NOTHING
        p = NOTHING if measured.p is None else f"{measured.p:.2g}"
        claim = [contrast.claim] if claims else []
        points = f"{measured.mean:+.1f}"
        rows.append([*claim, words, difference.column, str(measured.n), points, interval, p, difference.verdict])
    head = [*(["claim"] if claims else []), "hypothesis", "column", "n", "points", "95 % interval", "p", "verdict"]
    notes = [
        "Differences are paired over n replicates, with t-intervals. p is two-sided, and adjusted (Holm) over all "
        "hypotheses of this table except those of equivalence. Equivalence is supported if the interval lies within "
        f"the margin. With n < {LEAST} nothing is tested."
    ]
    return Table("Hypotheses, set down before the run", head, rows, notes)


def from_source(table: Table, source: Source) -> Table | None:
    """Return a table of the differences from the printed figures that are on the same data; None if there are none.

    It has the rows and columns of the given table that have such differences.
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
    difference = estimate([value - printed for value in cell.values.values()])
    return None if difference is None else difference.words(cell.decimals)
