"""Table 8: ten runs of their own seeds, and what their events say of each class."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import as_trained, exhibits, nothing, space, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import table8
from study.errors import Refusal
from study.machine import Machine
from study.report.exhibits import Figure
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.work import WORK

COUNTS = facts("digits").counts(50.0)


def observed(rng, runs=10, counts=COUNTS):
    n = sum(counts)
    return {r: {"learned": rng.integers(0, 100, n), "forgotten": rng.integers(0, 20, n)} for r in range(runs)}


def figures(found):
    return [each for each in exhibits(found) if isinstance(each, Figure)]


def test_it_is_cross_entropy_with_events_counted_after_every_epoch_of_ten_runs():
    (trial,) = space("table8", paper=True).trials
    recipe = WORK.resolve(trial.config, 0, Machine("cpu", 1))
    assert {(each["sampler"], each["loss"]["part"], tuple(each["measures"])) for each in recipe.epochs} == {
        (1.0, "cross_entropy", ("events",))
    }
    assert (len(recipe.epochs), trial.least, trial.column) == (200, 10, "cifar10-LT IF 50")


def test_split_and_subset_stay_and_the_seeds_are_of_no_replicate_of_another_table():
    (trial,) = space("table8").trials
    own = [Config.from_json(trial.config).replicate(number) for number in range(10)]
    assert {(each.split_seed, each.subset_seed) for each in own} == {(0, 0)}
    assert [each.seed for each in own] == list(range(2000, 2010))  # --seeds goes up to 999


def test_the_printed_rows_are_consistent():
    """F-norm over cardinality is the printed irregularity, and Pearson's coefficient is as printed."""
    quotient = np.array(table8.F_NORM) / table8.CARDINALITY
    assert quotient == pytest.approx(table8.IRREGULARITY, abs=6e-5)
    assert facts("cifar10").counts(50.0) == table8.CARDINALITY
    shown = tables(as_trained("table8", nothing, paper=True))
    assert shown[0].rows[9] == ["9", "100", *["–"] * 7, "363.4100", "3.6341"]
    assert [row[2] for row in shown[1].rows] == ["-0.6112", "-0.6231", "-0.7638"]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), runs=st.integers(1, 4))
def test_events_are_averaged_image_by_image_before_the_covariance(seed, runs):
    """Against a loop over images, and over pairs of coordinates."""
    recorded = observed(np.random.default_rng(seed), runs)
    (figure,) = figures(as_trained("table8", observed=recorded, replicates=1))
    first = 0
    for rank, n in enumerate(COUNTS):
        points = []
        for image in range(first, first + n):
            learned, forgotten = (
                sum(int(run[name][image]) for run in recorded.values()) / runs for name in ("learned", "forgotten")
            )
            points.append((learned, forgotten))
        first += n
        centre = [sum(point[axis] for point in points) / n for axis in (0, 1)]
        c = [[sum((p[a] - centre[a]) * (p[b] - centre[b]) for p in points) / n for b in (0, 1)] for a in (0, 1)]
        norm = sum(c[a][b] ** 2 for a in (0, 1) for b in (0, 1)) ** 0.5
        row = [rank, n, *centre, c[0][0], c[0][1], c[1][1], norm, norm / n]
        assert figure.rows[rank] == pytest.approx(row, abs=1e-9)


def test_the_table_shows_what_the_figure_draws_beside_the_paper_s_rows():
    found = as_trained("table8", observed=observed(np.random.default_rng(3)))
    classes, correlations = tables(found)
    (figure,) = figures(found)
    assert [row[1] for row in classes.rows] == list(map(str, COUNTS))
    assert [row[8] for row in classes.rows] == [f"{row[-1]:.4f}" for row in figure.rows]
    assert classes.head[9] == "F-norm, paper: cifar10-LT IF 50 (other data or protocol)"
    assert classes.notes == ["Events in 100 epochs, means over 10 runs."]
    columns = np.array(figure.rows, dtype=float).T
    expected = [np.corrcoef(columns[1], other)[0, 1] for other in (columns[-1], 1 / columns[1], columns[-2])]
    assert [row[1] for row in correlations.rows] == [f"{value:.4f}" for value in expected]
    assert figure.png().startswith(b"\x89PNG")


def test_only_the_paper_s_data_and_their_stand_in_have_printed_rows_beside_them():
    for imbalance, printed in ((20.0, False), (50.0, True)):
        found = as_trained("table8", nothing, imbalance=(imbalance,))
        assert any("paper" in name for name in tables(found)[0].head) == printed


def test_without_any_run_there_is_no_figure_and_no_number():
    found = as_trained("table8", nothing)
    assert figures(found) == []
    assert {entry for row in tables(found)[0].rows for entry in row[2:9]} == {"–"}


def test_data_whose_counts_only_their_lists_know_are_refused():
    with pytest.raises(Refusal, match=r"--data must be data whose class counts are declared, .* \(got 'imagenet-lt'\)"):
        space("table8", data=("imagenet-lt",))
