"""The share of each of two crossed factors in the spread of each row, as a table and a picture."""

from dataclasses import replace

import pytest
from helpers import all_of, cell, crossed, results, size_of, top1
from matplotlib.figure import Figure as Canvas

from study.report.spread import decomposition

# By (subset, training seed): both add; or nothing but what each subset has with a seed of its own.
ADDED, OWN = (50.0, 52.0, 54.0, 56.0), (60.0, 60.0, 60.0, 64.0)


def cells(*switches, replicates=4, **options):
    return [crossed(cell("IB", switch, replicates=replicates, **options)) for switch in switches]


def states_of(trials, *values):
    """Return the states of trials whose replicates measured these values."""
    return {
        end: top1(value)
        for trial, trial_values in zip(trials, values, strict=True)
        for end, value in zip(trial.ends, trial_values, strict=False)
    }


def shown(*values, **options):
    trials = cells(*("IB", "CR")[: len(values)], **options)
    return decomposition(results(trials, states_of(trials, *values)))


def test_each_row_has_its_standard_deviations_and_the_last_their_root_mean_square():
    table, _ = shown(ADDED, OWN)
    assert table.title == "Where the spread comes from: subset and training seed"
    assert list(table.head) == ["row", "column", "subset", "training seed", "total"]
    assert table.rows == [
        ["IB⇒IB", "digits", "2.83", "1.41", "3.16"],  # √8, √2, √10
        ["IB⇒CR", "digits", "0.00", "2.00", "2.00"],  # 0, √4, √4
        ["all 2 rows, pooled", "digits", "2.00", "1.73", "2.65"],  # √4, √3, √7
    ]
    assert table.labels == 2


def test_notes_say_what_was_estimated_and_whose_the_variance_is():
    table, figure = shown(ADDED, OWN)
    estimated, shares = table.notes
    assert estimated == (
        "Standard deviations in points of test/top1 after the last epoch: of the effect of subset, and of the effect "
        "of training seed within one subset. They are estimated from all 2 × 2 pairs by two-way analysis of variance. "
        "An effect whose variance is estimated below 0 is shown as 0, after pooling. With 2 values, the standard error "
        "of the variance between them is at least about 141 % of it. Rows share the values, so more rows hardly "
        "reduce it."
    )
    assert shares == (  # 4, 1 and 2 of 7
        "Shares of the variance (digits, over all rows): subset 57 %, training seed 43 %. 14 % is an effect of "
        "training seed that is the same for every subset."
    )
    assert figure.caption == "Shares of each row's variance, from 2 × 2 pairs of subset and training seed."


def test_one_row_has_no_row_of_all():
    table, _ = shown(ADDED)
    assert [row[0] for row in table.rows] == ["IB⇒IB"]


def test_replicates_beyond_the_square_change_nothing():
    assert shown(ADDED)[0].rows == shown((*ADDED, 99.0), replicates=5)[0].rows


def test_the_picture_s_data_are_the_variances_and_shares_that_sum_to_all():
    _, figure = shown(ADDED, OWN)
    assert figure.name == "spread"
    assert list(figure.head[:2]) == ["row", "column"]
    segments = ["subset", "training seed, same effect for every subset", "training seed, other effect for each subset"]
    assert list(figure.head[2:]) == [f"{what}: {each}" for what in ("variance", "share in %") for each in segments]
    assert [row[:5] for row in figure.rows] == [["IB⇒IB", "digits", 8.0, 2.0, 0.0], ["IB⇒CR", "digits", 0.0, 0.0, 4.0]]
    assert [row[5:] for row in figure.rows] == [[80.0, 20.0, 0.0], [0.0, 0.0, 100.0]]


def drawn(figure):
    canvas = Canvas(figsize=figure.size, layout="constrained")
    figure.draw(canvas)
    canvas.draw_without_rendering()
    (axis,) = canvas.axes
    return canvas, axis


def test_the_picture_stacks_the_shares_of_each_row():
    _, figure = shown(ADDED, (60.0, 61.0, 60.0, 64.0))
    canvas, axis = drawn(figure)
    for number, row in enumerate(figure.rows):
        bars = [bars.patches[number] for bars in axis.containers]
        assert [bar.get_width() for bar in bars] == pytest.approx(row[5:])
        assert [bar.get_x() for bar in bars] == pytest.approx([0, row[5], row[5] + row[6]])
        assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(100) == sum(row[5:])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["IB⇒IB", "IB⇒CR"]
    (legend,) = canvas.legends
    assert [f"share in %: {text.get_text()}" for text in legend.get_texts()] == list(figure.head[5:])
    assert min(size_of(figure.png())) > 100


def test_rows_of_several_columns_are_told_apart():
    trials = [*cells("CR"), *cells("CR", dataset="cifar10")]
    table, figure = decomposition(results(trials, states_of(trials, ADDED, OWN)))
    assert [row[:2] for row in table.rows[:2]] == [["IB⇒CR", "digits"], ["IB⇒CR", "cifar10"]]
    assert [label.get_text() for label in drawn(figure)[1].get_yticklabels()] == ["IB⇒CR (digits)", "IB⇒CR (cifar10)"]


def test_the_spread_is_that_of_the_row_s_own_measure():
    (trial,) = cells("CR", measure="test/few")
    states = {end: top1(50.0, few=value) for end, value in zip(trial.ends, ADDED, strict=True)}
    table, _ = decomposition(results([trial], states))
    assert table.rows == [["IB⇒CR", "digits", "2.83", "1.41", "3.16"]]
    assert "points of test/few" in table.notes[0]


def test_equal_values_have_no_spread_to_share():
    table, figure = shown((70.0,) * 4)
    assert table.rows == [["IB⇒IB", "digits", "0.00", "0.00", "0.00"]]
    assert figure.rows[0][2:] == [0.0] * 6
    assert min(size_of(figure.png())) > 100


def test_a_row_that_is_incomplete_is_left_out():
    table, figure = shown(ADDED, OWN[:3])
    assert [row[0] for row in table.rows] == [row[0] for row in figure.rows] == ["IB⇒IB"]
    assert shown(ADDED[:3]) == shown(()) == []


def test_replicates_that_are_no_pairs_have_no_parts():
    alone = [cell("IB", "CR", replicates=4)]
    for trials in (alone, [replace(alone[0], seeds=())]):
        assert decomposition(results(trials, all_of(trials))) == []
