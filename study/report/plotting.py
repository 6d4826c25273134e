"""Pictures that can be read at the width of a column, in print without colours, and by colour-blind readers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from study.report.exhibits import Figure
from study.report.statistics import mean, std

# Seven of the eight colours of Okabe and Ito (2008), the most visible ones first. Yellow lines are hard to see.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


Curves = Mapping[int, Sequence[float | None]]  # by replicate, one value for each epoch


def style(number: int) -> dict[str, Any]:
    """Return the colour, marker and line of a series by its number, as keywords of ``Axes.plot``.

    No two of the first seven series share any of them. The next seven have hollow markers.
    """
    cycle, index = divmod(number, len(PALETTE))
    filled = "full" if cycle % 2 == 0 else "none"
    return {"color": PALETTE[index], "marker": MARKERS[index], "linestyle": LINES[index], "fillstyle": filled}


def curves(
    name: str,
    title: str,
    caption: str,
    series: Mapping[str, Curves],
    *,
    y: str,
    x: str = "epoch",
    marks: Mapping[str, float] | None = None,
) -> Figure | None:
    """Return a figure of curves by epoch: each series' mean over replicates, with a band of ± std if n > 1.

    Args:
        name, title, caption: see `Figure`.
        series: by its name in the legend, the values by replicate and epoch, as `Result.curve` returns them.
        y, x: the axes' labels, with units. Epochs are counted from 1: value n is the one after n epochs.
        marks: the epochs of vertical lines, by their names.

    Returns:
        None if there is nothing to draw.
    """
    return panels(name, title, caption, {"": series}, y=y, x=x, marks=marks)


def panels(
    name: str,
    title: str,
    caption: str,
    sets: Mapping[str, Mapping[str, Curves]],
    *,
    y: str,
    x: str = "epoch",
    marks: Mapping[str, float] | None = None,
) -> Figure | None:
    """Return the same figure with one panel for each of several sets of series, by the panel's title.

    There are two panels in a row. They share their axes and the legend. A series has the same style in all panels, by
    its position among the names of all sets.
    """
    means = {
        (panel, label): points
        for panel, series in sets.items()
        for label, runs in series.items()
        if (points := _by_epoch(runs))
    }
    if not means:
        return None
    titles = list(dict.fromkeys(panel for panel, _ in means))
    labels = list(dict.fromkeys(label for series in sets.values() for label in series))
    columns = min(2, len(titles))
    lines = -(-len(titles) // columns)
    width = 3.5 * columns
    entries = [*labels, *(marks or {})]
    # In the legend, a letter is about 4.6 points wide.
    legend_columns = max(1, min(len(entries), int(width * 72 / (36 + 4.6 * max(map(len, entries))))))

    def draw(figure: Any) -> None:
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        handles = {}
        for number, axis in enumerate(axes.ravel()):
            if number >= len(titles):
                axis.set_visible(False)
                continue
            axis.set_title(titles[number])
            for (panel, label), points in means.items():
                if panel == titles[number]:
                    handles[label] = _line(axis, points, labels.index(label), (0, 100) if "%" in y else None)
            for line, (mark, epoch) in zip(LINES[1:], (marks or {}).items(), strict=False):
                handles[mark] = axis.axvline(epoch, color="0.4", linewidth=0.8, linestyle=line)
        for axis in axes[-1]:
            axis.set_xlabel(x)
        for axis in axes[:, 0]:
            axis.set_ylabel(y)
        legend_labels = [entry for entry in entries if entry in handles]
        if legend_labels != [""]:
            legend_handles = [handles[entry] for entry in legend_labels]
            figure.legend(legend_handles, legend_labels, loc="outside lower center", ncols=legend_columns)

    rows = [
        [*([panel] if len(sets) > 1 else []), label, epoch, n, centre, spread]
        for (panel, label), points in means.items()
        for epoch, n, centre, spread in points
    ]
    head = [*(["panel"] if len(sets) > 1 else []), "series", x, "n", f"mean of {y}", "std"]
    height = 0.6 + 2.0 * lines + 0.18 * -(-len(entries) // legend_columns)
    return Figure(name, title, caption, draw, head, rows, (width, height))


Point = tuple[int, int, float, float | None]  # epoch, n, mean, std


def _by_epoch(runs: Curves) -> list[Point]:
    """Return a point for each epoch that at least one replicate has measured."""
    points = []
    for index in range(max((len(curve) for curve in runs.values()), default=0)):
        values = [v for curve in runs.values() if index < len(curve) and (v := curve[index]) is not None]
        centre = mean(values)
        if centre is not None:
            points.append((index + 1, len(values), centre, std(values)))
    return points


def _line(axis: Any, points: Sequence[Point], number: int, within: tuple[float, float] | None) -> Any:
    """Draw a series, with its band cut off at the range of possible values. Return its handle for the legend."""
    line_style = style(number)
    epochs = [epoch for epoch, _, _, _ in points]
    means = [centre for _, _, centre, _ in points]
    every = max(1, len(points) // 8)
    (line,) = axis.plot(epochs, means, markevery=(number % every, every), **line_style)
    spreads = [spread or 0.0 for _, _, _, spread in points]
    if any(spreads):
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        if within:
            low, high = [max(value, within[0]) for value in low], [min(value, within[1]) for value in high]
        axis.fill_between(epochs, low, high, color=line_style["color"], alpha=0.15, linewidth=0)
    return line


def slug(words: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-")
