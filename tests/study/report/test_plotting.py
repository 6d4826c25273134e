import numpy as np
import pytest
from helpers import drawn_on
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from study.report import plotting

few = settings(max_examples=20, deadline=None)
curve = st.lists(st.none() | st.floats(0, 100), max_size=6)
runs = st.dictionaries(st.integers(0, 4), curve, max_size=4)


def legend_of(canvas):
    return [text.get_text() for legend in canvas.legends for text in legend.get_texts()]


@few
@given(series=st.dictionaries(st.sampled_from(["IB", "CB", "CR"]), runs, max_size=3))
def test_a_curve_is_the_mean_over_the_replicates_that_measured_an_epoch(series):
    figure = plotting.curves("f", "A title", "A caption.", series, y="top-1 in %")
    expected = []
    for label, by_replicate in series.items():
        for epoch in range(6):
            values = [c[epoch] for c in by_replicate.values() if epoch < len(c) and c[epoch] is not None]
            if values:
                spread = np.std(values, ddof=1) if len(values) > 1 else None
                expected.append(
                    (label, epoch + 1, len(values), pytest.approx(np.mean(values)), spread and pytest.approx(spread))
                )
    if not expected:
        assert figure is None
        return
    assert list(figure.head) == ["series", "epoch", "n", "mean of top-1 in %", "std"]
    assert [tuple(row) for row in figure.rows] == expected
    canvas = drawn_on(figure)
    (axis,) = canvas.axes
    lines = {tuple(line.get_xdata()): line.get_ydata() for line in axis.lines}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "top-1 in %")
    for label in dict.fromkeys(row[0] for row in figure.rows):
        label_rows = [row for row in figure.rows if row[0] == label]
        assert tuple(row[1] for row in label_rows) in lines
    assert legend_of(canvas) == [label for label in series if any(row[0] == label for row in figure.rows)]


def test_panels_share_their_axes_their_legend_and_the_style_of_a_series():
    sets = {
        "(a) lr = 0.1": {"head": {0: [1.0, 2.0]}, "tail": {0: [3.0, 4.0]}},
        "(b) lr = 0.01": {"tail": {0: [5.0, 60.0]}},
        "(c) nothing yet": {"head": {}},
        "(d) lr = 0.001": {"head": {0: [1.0, 2.0]}},
    }
    figure = plotting.panels("figure6", "t", "c", sets, y="accuracy in %", marks={"switch": 1})
    canvas = drawn_on(figure)
    shown = [axis for axis in canvas.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["(a) lr = 0.1", "(b) lr = 0.01", "(d) lr = 0.001"]
    assert len({axis.get_ylim() for axis in shown}) == len({axis.get_xlim() for axis in shown}) == 1
    assert legend_of(canvas) == ["head", "tail", "switch"]
    styles = [[(line.get_color(), line.get_linestyle()) for line in axis.lines] for axis in shown]
    assert styles[0][1] == styles[1][0]
    assert styles[0][0] == styles[2][0] != styles[0][1]
    assert {row[0] for row in figure.rows} == {"(a) lr = 0.1", "(b) lr = 0.01", "(d) lr = 0.001"}
    assert figure.size[0] == 7.0


def test_a_band_is_one_std_wide_and_absent_for_one_replicate():
    def bands(by_replicate):
        (axis,) = drawn_on(plotting.curves("f", "t", "c", {"IB": by_replicate}, y="y")).axes
        return [collection.get_datalim(axis.transData).intervaly for collection in axis.collections]

    assert bands({0: [1.0, 2.0]}) == []
    ((low, high),) = bands({0: [1.0, 2.0], 1: [3.0, 2.0]})
    assert (low, high) == pytest.approx((2 - 2**0.5, 2 + 2**0.5))


def test_what_there_is_fits_in_a_column_with_many_long_names():
    series = {f"a method with a long name, number {n}": {0: [1.0, 2.0]} for n in range(9)}
    figure = plotting.curves("f", "t", "c", series, y="y")
    canvas = drawn_on(figure)
    (legend,) = canvas.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= canvas.bbox.width
    (axis,) = canvas.axes
    assert axis.get_window_extent().height > 0.35 * canvas.bbox.height


def luminance(color):
    return float(np.dot(np.power(to_rgb(color), 2.2), (0.2126, 0.7152, 0.0722)))


def test_no_two_of_fourteen_series_look_the_same_even_without_colour():
    styles = [plotting.style(number) for number in range(14)]
    assert len({(s["marker"], str(s["linestyle"]), s["fillstyle"]) for s in styles}) == 14
    assert len({s["color"] for s in styles}) == 7
    assert all(luminance(s["color"]) < 0.5 for s in styles)  # seen on white


@pytest.mark.parametrize(
    ("words", "slug"), [("cifar10-LT IF 50", "cifar10-LT-IF-50"), ("IB⇒CR, S = 1", "IB-CR-S-1"), ("../x/", "..-x")]
)
def test_a_slug_is_a_file_s_name(words, slug):
    assert plotting.slug(words) == slug
