import statistics
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_rel

from study.errors import Refusal
from study.report.statistics import Difference, Estimate, differences, estimate, holm, mean, paired, std
from study.space import Contrast

few = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)

CONTRAST = Contrast("IB⇒CR", "IB⇒IB")
SAME = replace(CONTRAST, margin=1.0)


# The numbers


@few
@given(values=st.lists(st.floats(-1e3, 1e3), max_size=8))
def test_mean_and_std_are_numpy_s(values):
    assert mean(values) == (pytest.approx(np.mean(values), abs=1e-9) if values else None)
    assert std(values) == (pytest.approx(np.std(values, ddof=1), abs=1e-9) if len(values) > 1 else None)


@few
@given(n=st.integers(2, 12), seed=seeds)
def test_an_estimate_is_scipy_s_t_test_of_a_mean(n, seed):
    values = np.random.default_rng(seed).normal(1, 3, n)
    measured, expected = estimate(list(values)), ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.95)
    assert (measured.n, measured.mean) == (n, pytest.approx(statistics.fmean(values)))
    assert (measured.low, measured.high) == pytest.approx((interval.low, interval.high))
    assert measured.p == (pytest.approx(expected.pvalue) if n >= 5 else None)


@few
@given(seed=seeds, data=st.data())
def test_a_difference_is_paired_over_the_replicates_that_both_have(seed, data):
    rng = np.random.default_rng(seed)
    numbers_of = [data.draw(st.sets(st.integers(0, 7))) for _ in range(2)]
    a, b = ({number: rng.normal(80, 3) for number in numbers} for numbers in numbers_of)
    both = numbers_of[0] & numbers_of[1]
    measured = paired(a, b)
    assert (measured.n if measured else 0) == len(both)
    if len(both) >= 5:
        expected = ttest_rel([a[number] for number in both], [b[number] for number in both])
        interval = expected.confidence_interval(0.95)
        wanted = (interval.low, interval.high, expected.pvalue)
        assert (measured.low, measured.high, measured.p) == pytest.approx(wanted)


def test_one_pair_has_no_interval_and_four_have_no_p():
    assert estimate([]) is None
    one, four, five = (estimate([1.0, 2.0, 4.0, 0.5, 3.0][:n]) for n in (1, 4, 5))
    assert one == Estimate(1, 1.0)
    assert four.low < four.mean < four.high
    assert four.p is None
    assert 0 < five.p < 1


@pytest.mark.parametrize(("gap", "p"), [(0.0, 1.0), (1.5, 0.0)])
def test_equal_differences_have_no_spread(gap, p):
    assert estimate([gap] * 5) == Estimate(5, gap, gap, gap, p)


@pytest.mark.parametrize(
    ("measured", "digits", "words"),
    [
        (Estimate(5, 2.54, 0.61, 4.47), 1, "+2.5 [+0.6, +4.5]"),
        (Estimate(3, -0.0123, -0.02, 0.0), 3, "-0.012 [-0.020, +0.000]"),
        (Estimate(1, 2.54), 1, "+2.5"),
    ],
)
def test_an_estimate_in_words_is_signed(measured, digits, words):
    assert measured.words(digits) == words


def closed_testing(p):
    """Compute Holm's procedure as closed testing: Bonferroni must reject every set with the hypothesis."""
    everyone = range(len(p))
    sets = [s for size in range(1, len(p) + 1) for s in combinations(everyone, size)]
    return [max(min(1.0, len(s) * min(p[k] for k in s)) for s in sets if each in s) for each in everyone]


@few
@given(p=st.lists(st.none() | st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.04]), max_size=8))
def test_holm_is_closed_testing_by_bonferroni(p):
    expected = iter(closed_testing([each for each in p if each is not None]))
    assert holm(p) == [None if each is None else pytest.approx(next(expected)) for each in p]


# Hypotheses


def lasts(values):
    """Return the argument of `differences` for {(row, column): {measure: [a value for each replicate]}}."""
    return {cell: lambda measure, of=of: dict(enumerate(of.get(measure, ()))) for cell, of in values.items()}


def test_hypotheses_are_measured_in_each_column_and_adjusted_over_all_of_them():
    rng = np.random.default_rng()
    columns = ("digits", "cifar10", "cifar100")
    values = {(row, column): {"": rng.normal(80, 1, 6)} for column in columns for row in ("IB⇒CR", "IB⇒IB", "CB⇒IB")}
    measured = differences([CONTRAST], lasts(values))
    assert [each.column for each in measured] == list(columns)
    single = [ttest_rel(values["IB⇒CR", c][""], values["IB⇒IB", c][""]).pvalue for c in columns]
    assert [each.estimate.p for each in measured] == pytest.approx(closed_testing(single))


def test_a_hypothesis_of_equivalence_is_no_test_and_takes_no_part_in_holm():
    rng = np.random.default_rng()
    values = {(row, "digits"): {"": rng.normal(80, 1, 6)} for row in ("IB⇒CR", "IB⇒IB")}
    alone, beside = (differences(contrasts, lasts(values)) for contrasts in ([CONTRAST], [SAME, CONTRAST]))
    assert [each.estimate.p for each in beside] == [None, alone[0].estimate.p]
    assert beside[0].estimate.low == beside[1].estimate.low


def test_a_hypothesis_is_not_about_its_exceptions_which_holm_leaves_out():
    rng = np.random.default_rng()
    values = {(row, c): {"": rng.normal(80, 1, 6)} for c in ("digits", "cifar10") for row in ("IB⇒CR", "IB⇒IB")}
    (measured,) = differences([replace(CONTRAST, except_in=("cifar10",))], lasts(values))
    expected = ttest_rel(values["IB⇒CR", "digits"][""], values["IB⇒IB", "digits"][""]).pvalue
    assert (measured.column, measured.estimate.p) == ("digits", pytest.approx(expected))


def test_a_hypothesis_may_be_of_another_measure_than_the_rows_show():
    values = {
        (row, "digits"): {"": [50.0, 50.0], "test/few": few}
        for row, few in (
            ("IB⇒CR", [30.0, 34.0]),
            ("IB⇒IB", [10.0, 12.0]),
        )
    }
    (measured,) = differences([replace(CONTRAST, measure="test/few")], lasts(values))
    assert measured.estimate.mean == 21.0


@pytest.mark.parametrize("rows", [["IB⇒CR"], ["IB⇒IB"], []])
def test_a_hypothesis_about_a_row_that_is_not_there_is_silent(rows):
    assert differences([CONTRAST], lasts({(row, "digits"): {"": [50.0] * 5} for row in rows})) == []
    values = {(row, "digits"): {"": [50.0] * 5 if row in rows else []} for row in ("IB⇒CR", "IB⇒IB")}
    assert differences([CONTRAST], lasts(values)) == []


@pytest.mark.parametrize(
    ("contrast", "measured", "verdict"),
    [
        (CONTRAST, Estimate(5, 2.0, 1.0, 3.0, 0.01), "supported"),
        (CONTRAST, Estimate(5, -2.0, -3.0, -1.0, 0.01), "contradicted"),
        (CONTRAST, Estimate(5, 2.0, -1.0, 5.0, 0.2), "not decided"),
        (CONTRAST, Estimate(5, 2.0, 0.1, 3.9, 0.08), "not decided"),  # by Holm
        (CONTRAST, Estimate(4, 2.0, 1.0, 3.0), "n < 5: not tested"),
        (SAME, Estimate(5, 0.2, -0.5, 0.9), "supported: equivalent within ± 1"),
        (SAME, Estimate(5, 0.5, 0.1, 0.9), "supported: equivalent within ± 1"),
        (SAME, Estimate(5, 0.0, -1.0, 0.9), "not decided"),
        (SAME, Estimate(5, 0.0, -2.0, 2.0), "not decided"),
        (SAME, Estimate(5, 2.0, 1.0, 3.0), "contradicted: differs by more than 1"),
        (SAME, Estimate(5, -2.0, -3.0, -1.0), "contradicted: differs by more than 1"),
        (SAME, Estimate(4, 0.2, -0.5, 0.9), "n < 5: not tested"),
        (SAME, Estimate(1, 0.0), "n < 5: not tested"),
    ],
)
def test_a_verdict_is_of_the_test_or_with_a_margin_of_the_interval(contrast, measured, verdict):
    assert Difference(contrast, "digits", measured).verdict == verdict


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_is_above_0(margin):
    with pytest.raises(Refusal, match="margin must be None or a number of points above 0"):
        Contrast("a", "b", margin=margin)
