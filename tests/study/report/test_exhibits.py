import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.report.exhibits import Cell, Figure, Statistic, Table
from study.space import Printed

values = st.dictionaries(st.integers(0, 9), st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=6)


@given(values=values)
def test_a_cell_is_the_mean_and_std_of_what_is_finite(values):
    finite = [value for value in values.values() if math.isfinite(value)]
    cell = Cell(values)
    assert cell.mean == (pytest.approx(np.mean(finite), rel=1e-6) if finite else None)
    assert cell.std == (pytest.approx(np.std(finite, ddof=1), rel=1e-6) if len(finite) > 1 else None)
    assert "nan" not in str(cell)
    assert str(cell) == "–" if not finite else str(cell) != "–"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell({0: 80.0, 3: 81.0, 4: 82.0}), "81.0 ± 1.0"),
        (Cell({7: 80.25}), "80.2"),
        (Cell({0: 0.171, 1: 0.173}, decimals=3), "0.172 ± 0.001"),
        (Cell(), "–"),
        (Cell(statistic=Statistic(0.1716, 10), decimals=3), "0.172"),
        (Cell(printed=Printed(37.7, "†")), "–"),
    ],
)
def test_a_cell_as_text(cell, text):
    assert str(cell) == text


def test_a_row_that_is_not_as_wide_as_the_head_is_a_mistake_of_the_view():
    with pytest.raises(ValueError, match="Table 3: 2 entries under 3 columns: BBN"):
        Table("Table 3", ["", "ResNet-50", "ResNeXt-50"], [["CE", None, None], ["BBN", Cell()]])


def size_of(png):
    """Return a PNG's width and height in pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png[12:16] == b"IHDR"
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("size", [(3.5, 2.6), (7.0, 3.0)])
def test_a_figure_is_drawn_at_its_width_with_its_title_and_letters_of_8_points(size):
    seen = []

    def draw(figure):
        axis = figure.add_subplot()
        axis.plot([0, 1], [0, 1], label="IB⇒CR")
        seen.extend([figure, axis.xaxis.label, axis.legend().get_texts()[0], *axis.get_xticklabels()])

    png = Figure(
        "figure1", "A title that is longer than what stands in one line of a column", "", draw, size=size
    ).png()
    assert size_of(png) == (200 * size[0], 200 * size[1])
    figure, *texts = seen
    assert {text.get_fontsize() for text in texts} == {8.0}
    assert figure.get_suptitle().replace("\n", " ") == "A title that is longer than what stands in one line of a column"
    assert figure._suptitle.get_window_extent().width < 200 * size[0]


def test_a_figure_leaves_matplotlib_s_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    Figure("f", "", "", lambda figure: figure.add_subplot()).png()
    assert dict(mpl.rcParams) == before
