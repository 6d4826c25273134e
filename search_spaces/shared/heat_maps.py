"""Heat maps of first by switch sampler, one figure for each column."""

from __future__ import annotations

from typing import Any

from study.report.exhibits import Cell, Figure
from study.report.plotting import slug
from study.report.results import Result, Results


def heat_maps(results: Results) -> list[Figure]:
    """Return a heat map of first by switch sampler for each column that has every combination exactly once."""
    figures = []
    for column in results.columns:
        square = _square([result for result in results if result.trial.column == column])
        if square is not None:
            name = "combinations" if len(results.columns) == 1 else f"combinations-{slug(column)}"
            title = f"{results.space.title.partition(':')[0]}: combinations, {column}"
            figures.append(_heat_map(name, title, *square))
    return figures


Square = tuple[list[str], list[str], dict[tuple[str, str], Cell]]


def _square(column: list[Result]) -> Square | None:
    """Return the samplers and the cells of a column's heat map; None if the cells are not a complete square."""
    cells: dict[tuple[str, str], Cell] = {}
    for result in column:
        if {"first", "switch"} <= result.trial.axes.keys():
            pair = (str(result.trial.axes["first"]), str(result.trial.axes["switch"]))
            if pair in cells:
                return None  # the space has further dimensions, and a square would hide them
            cells[pair] = result.cell()
    firsts = list(dict.fromkeys(first for first, _ in cells))
    switches = list(dict.fromkeys(switch for _, switch in cells))
    complete = len(cells) == len(firsts) * len(switches) and all(cell.values for cell in cells.values())
    return (firsts, switches, cells) if complete and len(firsts) > 1 and len(switches) > 1 else None


def _heat_map(
    name: str, title: str, firsts: list[str], switches: list[str], cells: dict[tuple[str, str], Cell]
) -> Figure:
    means = [[cells[first, switch].mean or 0.0 for switch in switches] for first in firsts]  # every cell has values

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        axis.grid(visible=False)
        axis.imshow(means, cmap="cividis", aspect="auto")
        low, high = min(map(min, means)), max(map(max, means))
        for y, first in enumerate(firsts):
            for x, switch in enumerate(switches):
                dark = means[y][x] < (low + high) / 2
                axis.text(x, y, str(cells[first, switch]), ha="center", va="center", color="white" if dark else "black")
        axis.set_xticks(range(len(switches)), switches)
        axis.set_yticks(range(len(firsts)), firsts)
        axis.set_xlabel("switch sampler")
        axis.set_ylabel("first sampler")

    counts = sorted({len(cell.values) for cell in cells.values()})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    rows = [[first, switch, len(cell.values), cell.mean, cell.std] for (first, switch), cell in cells.items()]
    spread = f"mean ± std over n = {n} replicates" if counts[-1] > 1 else "n = 1 replicate"
    caption = f"Accuracy in % of each combination after the last epoch, {spread}."
    return Figure(name, title, caption, draw, ["first", "switch", "n", "mean", "std"], rows, (3.5, 2.4))
