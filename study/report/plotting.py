"""Pictures that are read at the width of a column, in print without colours, and by the colour-blind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from study.report.exhibits import Figure
from study.report.statistics import mean, std

# Seven of the eight colours of Okabe and Ito (2008), those that stand out most first; lines of their yellow vanish.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


Curves = Mapping[int, Sequence[float | None]]  # by replicate, one value an epoch


def style(number: int) -> dict[str, Any]:
    """Colour, marker and line of the series of this number, as keywords of ``Axes.plot``: no two of seven share one.

    The next seven have hollow markers.
    """
    again, place = divmod(number, len(PALETTE))
    filled = "full" if again % 2 == 0 else "none"
    return {"color": PALETTE[place], "marker": MARKERS[place], "linestyle": LINES[place], "fillstyle": filled}


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
    """Curves by epoch: of each series the mean over replicates, with a band of ± std where there are several.

    Args:
        name, title, caption: see `Figure`.
        series: by its name in the legend, one value an epoch by replicate, as `Result.curve` gives it.
        y, x: of the axes, with units. Epochs are counted from 1: the value after so many.
        marks: vertical lines by their name.

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
    """The same with a panel for each of several sets of series, by its title; two in a row, axes and legend shared.

    A series has one style in all panels, by its place among the names of all sets.
    """
    means = {
        (panel, label): points
        for panel, series in sets.items()
        for label, runs in series.items()
        if (points := _by_epoch(runs))
    }
    if not means:
        return None
    shown = list(dict.fromkeys(panel for panel, _ in means))
    labels = list(dict.fromkeys(label for series in sets.values() for label in series))
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    width = 3.5 * columns
    entries = [*labels, *(marks or {})]
    abreast = max(1, min(len(entries), int(width * 72 / (36 + 4.6 * max(map(len, entries))))))  # 4.6 points a letter

    def draw(figure: Any) -> None:
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        handles = {}
        for number, axis in enumerate(axes.ravel()):
            if number >= len(shown):
                axis.set_visible(False)
                continue
            axis.set_title(shown[number])
            for (panel, label), points in means.items():
                if panel == shown[number]:
                    handles[label] = _line(axis, points, labels.index(label), (0, 100) if "%" in y else None)
            for line, (mark, epoch) in zip(LINES[1:], (marks or {}).items(), strict=False):
                handles[mark] = axis.axvline(epoch, color="0.4", linewidth=0.8, linestyle=line)
        for axis in axes[-1]:
            axis.set_xlabel(x)
        for axis in axes[:, 0]:
            axis.set_ylabel(y)
        known = [entry for entry in entries if entry in handles]
        if known != [""]:
            figure.legend([handles[entry] for entry in known], known, loc="outside lower center", ncols=abreast)

    rows = [
        [*([panel] if len(sets) > 1 else []), label, epoch, n, centre, spread]
        for (panel, label), points in means.items()
        for epoch, n, centre, spread in points
    ]
    head = [*(["panel"] if len(sets) > 1 else []), "series", x, "n", f"mean of {y}", "std"]
    height = 0.6 + 2.0 * lines + 0.18 * -(-len(entries) // abreast)
    return Figure(name, title, caption, draw, head, rows, (width, height))


Point = tuple[int, int, float, float | None]  # epoch, n, mean, std


def _by_epoch(runs: Curves) -> list[Point]:
    """The epochs that any replicate has measured."""
    found = []
    for index in range(max((len(curve) for curve in runs.values()), default=0)):
        values = [v for curve in runs.values() if index < len(curve) and (v := curve[index]) is not None]
        centre = mean(values)
        if centre is not None:
            found.append((index + 1, len(values), centre, std(values)))
    return found


def _line(axis: Any, points: Sequence[Point], number: int, within: tuple[float, float] | None) -> Any:
    """Draws a series, its band inside the values that there can be, and returns what stands for it in the legend."""
    own = style(number)
    epochs = [epoch for epoch, _, _, _ in points]
    means = [centre for _, _, centre, _ in points]
    every = max(1, len(points) // 8)
    (line,) = axis.plot(epochs, means, markevery=(number % every, every), **own)
    spreads = [spread or 0.0 for _, _, _, spread in points]
    if any(spreads):
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        if within:
            low, high = [max(each, within[0]) for each in low], [min(each, within[1]) for each in high]
        axis.fill_between(epochs, low, high, color=own["color"], alpha=0.15, linewidth=0)
    return line


def slug(words: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-")
