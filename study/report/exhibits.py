"""What a report shows: tables and figures. Pure; whatever the format, it is made of these.

`study.report.results` has an example of a view: a space's own function from recorded results to these.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from study.report.statistics import mean, std
from study.space import Printed

NOTHING = "–"  # what is not there: never a guess, never NaN

# Of pictures: read at the width of a column.
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
    """One number over n replicates that is no mean of theirs, such as their variance: no replicate has it by itself."""

    value: float
    n: int


@dataclass(frozen=True)
class Cell:
    """A measured value, and the printed one beside it.

    Attributes:
        values: by replicate; shown as mean ± std, or as it is if there is one. What is not finite is left out.
        printed: the source's figure, or None. A cell without values may still have one.
        decimals: after the point.
        axes: of its trial, for CSV.
        statistic: in place of values; no difference from a printed figure is given of it.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    printed: Printed | None = None
    decimals: int = 1
    axes: Mapping[str, str | int | float] = field(default_factory=dict)
    statistic: Statistic | None = None

    def __post_init__(self) -> None:
        finite = {number: float(value) for number, value in self.values.items() if math.isfinite(value)}
        object.__setattr__(self, "values", finite)

    @property
    def n(self) -> int:
        """Replicates behind it."""
        return len(self.values) if self.statistic is None else self.statistic.n

    @property
    def mean(self) -> float | None:
        """Over replicates; None without any."""
        return mean(list(self.values.values()))

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None with fewer than two replicates."""
        return std(list(self.values.values()))

    def __str__(self) -> str:
        if self.statistic is not None:
            return f"{self.statistic.value:.{self.decimals}f}"
        if self.mean is None:
            return NOTHING
        spread = "" if self.std is None else f" ± {self.std:.{self.decimals}f}"
        return f"{self.mean:.{self.decimals}f}{spread}"


@dataclass(frozen=True)
class Table:
    """A table.

    Where a column has printed figures, a column for them is put beside it; that n varies, what a source's marks mean
    and what its n is, is said below by itself.

    Attributes:
        title: what it is, with its unit.
        head: of each column, the rows' names included.
        rows: as many entries each as `head`; text is shown as it is, None as "–".
        notes: a line each, below.
        labels: so many columns, the first ones, name a row; they are text.
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
        name: of its file, without ending; unique in its space.
        title: above it, in the picture.
        caption: what is seen: data, n, what bands and markers are.
        draw: draws it into an empty ``matplotlib.figure.Figure``. It imports late, and may use `study.report.plotting`.
        head, rows: the data as a table, for CSV and JSON.
        size: inches; the width of a printed column is 3.5.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], None]
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str | float | int | None]] = ()
    size: tuple[float, float] = (3.5, 2.6)

    def png(self) -> bytes:
        """The picture: 200 pixels an inch, letters of 8 points, colours that the colour-blind tell apart."""
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
