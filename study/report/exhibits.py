"""Tables and figures, of which every report consists, whatever its format. Pure.

`study.report.results` has an example of a view: a space's function that turns recorded results into tables and figures.
"""

from __future__ import annotations

import io
import logging
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from study.report.statistics import mean, std
from study.space import Printed

REASON_WIDTH = 60  # the most characters of the reason for a failure in an entry; a notice has the whole reason
NOTHING = "–"  # a missing value; never a guess, never NaN

# Matplotlib's settings for pictures that are read at the width of a column.
RC: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.titlesize": 8,
    "figure.labelsize": 8,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "font.family": "DejaVu Sans",
}


@dataclass(frozen=True)
class Statistic:
    """One number over n replicates that is not their mean, such as a variance. Single replicates have no value."""

    value: float
    n: int


@dataclass(frozen=True)
class Cell:
    """A measured value, and the printed figure beside it.

    Attributes:
        values: the values by replicate, shown as mean ± std, or as one number if there is one. Values that are not
            finite are left out.
        printed: the source's figure, or None. A cell without values may have one.
        decimals: the number of decimals.
        axes: the axes of its trial, for CSV.
        statistic: shown in place of values; its difference from a printed figure is not given.
        failures: why each failed replicate failed; shown where no replicate has a value.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    printed: Printed | None = None
    decimals: int = 1
    axes: Mapping[str, str | int | float] = field(default_factory=dict)
    statistic: Statistic | None = None
    failures: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        finite = {number: float(value) for number, value in self.values.items() if math.isfinite(value)}
        object.__setattr__(self, "values", finite)

    @property
    def n(self) -> int:
        """The number of replicates."""
        return len(self.values) if self.statistic is None else self.statistic.n

    @property
    def mean(self) -> float | None:
        """The mean over replicates; None without replicates."""
        return mean(list(self.values.values()))

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None with fewer than two replicates."""
        return std(list(self.values.values()))

    def __str__(self) -> str:
        if self.statistic is not None:
            return f"{self.statistic.value:.{self.decimals}f}"
        if self.mean is None:
            return textwrap.shorten(next(iter(self.failures.values()), NOTHING), REASON_WIDTH, placeholder=" …")
        spread = "" if self.std is None else f" ± {self.std:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{spread}"


@dataclass(frozen=True)
class Table:
    """A table.

    A column with printed figures gets a second column for them beside it. Notes on n, on the source's marks and on the
    source's n are added below the table automatically.

    Attributes:
        title: what the table shows, with its unit.
        head: the headings of all columns, including those of the rows' names.
        rows: entries, as many as in `head`; text is shown as it is, None as "–".
        notes: lines below the table.
        labels: the number of first columns that name a row; they are text.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell | None]]
    notes: Sequence[str] = ()
    labels: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"{self.title}: {len(row)} entries under {len(self.head)} columns: {row[0]}")


@dataclass(frozen=True)
class Figure:
    """A figure, and the data that it draws.

    Attributes:
        name: the name of its file, without ending; unique in its space.
        title: the title above the picture.
        caption: what the figure shows: data, n, and the meaning of bands and markers.
        draw: draws it into an empty ``matplotlib.figure.Figure``. It imports late, and may use `study.report.plotting`.
        head, rows: the data as a table, for CSV and JSON.
        size: in inches; the width of a printed column is 3.5.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], None]
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str | float | int | None]] = ()
    size: tuple[float, float] = (3.5, 2.6)

    def png(self) -> bytes:
        """Return the picture as PNG, with 200 pixels per inch and letters of 8 points."""
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if its cache cannot be written to HOME
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        with mpl.rc_context(RC):
            canvas = Canvas(figsize=self.size, dpi=200, layout="constrained")
            self.draw(canvas)
            canvas.suptitle("\n".join(textwrap.wrap(self.title, round(15 * self.size[0]))))
            out = io.BytesIO()
            FigureCanvasAgg(canvas).print_png(out)
        return out.getvalue()
