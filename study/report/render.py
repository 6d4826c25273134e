"""Tables and figures as text, Markdown, CSV and JSON, for any view."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from study.report.exhibits import NOTHING, Cell, Figure, Table
from study.space import Printed, Source

_HEAD_WIDTH = 14  # of a column's heading in a terminal, in characters


def flat(table: Table, source: Source) -> tuple[list[str], list[list[str]]]:
    """Return a table's head and rows as text, with a column of printed figures beside each column that has some."""
    head: list[str] = []
    body: list[list[str]] = [[] for _ in table.rows]
    for number, name in enumerate(table.head):
        cells = [row[number] for row in table.rows]
        printed = [cell.printed if isinstance(cell, Cell) else None for cell in cells]
        head.append(name)
        for line, cell in zip(body, cells, strict=True):
            line.append(NOTHING if cell is None else str(cell))
        if any(printed):
            head.append(_heading(printed, source.name))
            for line, figure in zip(body, printed, strict=True):
                line.append(NOTHING if figure is None else _figure(figure, cells))
    return head, body


def _heading(printed: Iterable[Printed | None], name: str) -> str:
    other_columns = list(dict.fromkeys(figure.of for figure in printed if figure is not None and figure.of))
    return f"{name}: {', '.join(other_columns)} (other data or protocol)" if other_columns else name


def _figure(printed: Printed, cells: Iterable[object]) -> str:
    decimals = max(cell.decimals for cell in cells if isinstance(cell, Cell))
    return f"{printed.value:.{decimals}f}{printed.provenance}"


def notes(table: Table, source: Source) -> list[str]:
    """Return the notes below a table: its notes, n, and the origin of printed figures."""
    cells = [cell for row in table.rows for cell in row if isinstance(cell, Cell)]
    counts = sorted({cell.n for cell in cells if cell.n})
    lines = list(table.notes)
    if counts:
        n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        lines.append(f"Mean ± std over n = {n} replicates." if counts[-1] > 1 else "n = 1 replicate.")
    printed = [cell.printed for cell in cells if cell.printed is not None]
    if printed:
        used = {mark for figure in printed for mark in figure.provenance}
        legend = [f"{mark} {words}" for mark, words in source.marks.items() if mark in used]
        lines.append(f"{source.name.title()}: {'; '.join([source.runs, *legend])}.")
    return lines


def text(table: Table, source: Source, below: str = "") -> str:
    """Return a table for a terminal, without colours, in its full width.

    The title is left out if it equals `below`, the heading above the table.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=10_000, color_system=None, highlight=False)
    head, body = flat(table, source)
    title = None if table.title == below else Text(table.title)
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="")
    for number, name in enumerate(head):
        heading = Text("\n".join(textwrap.wrap(name, _HEAD_WIDTH)))
        grid.add_column(heading, justify="left" if is_words(line[number] for line in body) else "right")
    for line in body:
        grid.add_row(*map(Text, line))
    console.print(grid)
    for note in notes(table, source):
        console.print(note, soft_wrap=True, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).lstrip("\n") + "\n"


def is_words(column: Iterable[str]) -> bool:
    """Return whether a column contains words, and so is aligned to the left, not only numbers, signs and dashes."""
    return any(entry[:1].isalpha() for entry in column)


def markdown(table: Table, source: Source, below: str = "") -> str:
    """Return a table in Markdown, with its title as a heading unless the title equals `below`, the heading above."""
    head, body = flat(table, source)
    rules = ["---" if is_words(line[number] for line in body) else "---:" for number in range(len(head))]
    title = [] if table.title == below else [f"### {table.title}", ""]
    lines = [*title, _line(head), _line(rules), *map(_line, body), ""]
    return "\n".join([*lines, *(f"{note}  " for note in notes(table, source)), ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table_csv(tables: Sequence[tuple[str, Table]], source: Source) -> str:
    """Return all entries of tables in one long CSV table, with one line for each value, so for each replicate.

    A row's name joins the entries of all columns that name it. n counts the replicates of an entry. Statistics over
    several replicates, text, and printed figures without a measured value have a line without a replicate.

    Args:
        tables: the tables with the names of their spaces.
        source: the source of the printed figures.
    """
    cells = [cell for _, table in tables for row in table.rows for cell in row if isinstance(cell, Cell)]
    axes = list(dict.fromkeys(name for cell in cells for name in cell.axes))
    head = ["space", "table", "row", "column", *axes, "replicate", "n", "value"]
    head += ["text", source.name, "provenance", f"{source.name}_of"]
    lines = []
    for space, table in tables:
        for row in table.rows:
            row_name = ", ".join(str(entry or NOTHING) for entry in row[: table.labels])
            for name, entry in zip(table.head[table.labels :], row[table.labels :], strict=True):
                cell = entry if isinstance(entry, Cell) else Cell()
                names = [space, table.title, row_name, name, *(cell.axes.get(axis, "") for axis in axes)]
                printed = [cell.printed.value, cell.printed.provenance, cell.printed.of] if cell.printed else [""] * 3
                lines += [[*names, number, cell.n, "", reason, *printed] for number, reason in cell.failures.items()]
                if cell.values:
                    lines += [[*names, number, cell.n, value, "", *printed] for number, value in cell.values.items()]
                elif cell.statistic is not None:
                    lines.append([*names, "", cell.n, cell.statistic.value, "", *printed])
                elif (cell.printed and not cell.failures) or isinstance(entry, str):
                    lines.append([*names, "", "", "", entry if isinstance(entry, str) else "", *printed])
    return _csv(head, lines)


def figure_csv(figure: Figure) -> str:
    """Return the data that a figure draws, as CSV."""
    return _csv(figure.head, figure.rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([head, *rows])
    return out.getvalue()


def table_json(table: Table, source: Source) -> dict[str, Any]:
    """Return a table for JSON. Measured entries have their values by replicate and the printed figure."""
    return {
        "title": table.title,
        "head": list(table.head),
        "rows": [[_cell_json(cell, source.name) for cell in row] for row in table.rows],
        "notes": notes(table, source),
    }


def _cell_json(cell: str | Cell | None, name: str) -> str | Mapping[str, Any] | None:
    if not isinstance(cell, Cell):
        return cell
    printed, statistic = cell.printed, cell.statistic
    return {
        **({"mean": cell.mean, "std": cell.std} if statistic is None else {"statistic": statistic.value}),
        "n": cell.n,
        **({"values": dict(cell.values)} if statistic is None else {}),
        **({"failed": dict(cell.failures)} if cell.failures else {}),
        **({name: printed.value, "provenance": printed.provenance, f"{name}_of": printed.of} if printed else {}),
    }


def figure_json(figure: Figure) -> dict[str, Any]:
    """Return a figure for JSON: its title, its caption and its data."""
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "head": list(figure.head),
        "rows": [[_plain(value) for value in row] for row in figure.rows],
    }


def _plain(value: Any) -> str | float | int | None:
    """Return a value that JSON can hold: NumPy's numbers as Python's, and None for a number that is not finite."""
    plain: str | float | int | None = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
