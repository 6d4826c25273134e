import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search_spaces.shared.analysis import (
    bound,
    confidence_factor,
    epochs_to_within,
    kohavi_wolpert,
    pearson,
    regularity,
    spearman,
)
from trainables.data.datasets import facts

# Table 8 as it is printed: class, cardinality, F-norm, irregularity.
TABLE_8 = np.array(
    [
        (5000, 85.7341, 0.0171),
        (3237, 44.3574, 0.0137),
        (2096, 296.3582, 0.1414),
        (1357, 397.6501, 0.2930),
        (878, 267.5524, 0.3047),
        (568, 447.2937, 0.7875),
        (368, 253.5138, 0.6889),
        (238, 355.5270, 1.4938),
        (154, 279.5059, 1.8150),
        (100, 363.4100, 3.6341),
    ]
)
CARDINALITY, F_NORM, IRREGULARITY = TABLE_8.T

seeds = st.integers(0, 2**32 - 1)


# Table 8


def test_the_printed_irregularities_are_the_printed_norms_by_class_size():
    assert (F_NORM / CARDINALITY).round(4).tolist() == pytest.approx(IRREGULARITY.tolist(), abs=1e-4)


def test_the_printed_rows_have_the_printed_correlation():
    assert round(pearson(CARDINALITY, IRREGULARITY), 4) == -0.6112
    # To be seen beside it: the cardinality's own reciprocal nearly has it, and the norm before the division more.
    assert round(pearson(CARDINALITY, 1 / CARDINALITY), 3) == -0.623
    assert round(pearson(CARDINALITY, F_NORM), 3) == -0.764


def slow_regularity(learned, forgotten, counts):
    """Eq. 19 to 21 class by class, E being the mean over the class."""
    found, start = [], 0
    for n in counts:
        l_, f = learned[start : start + n], forgotten[start : start + n]
        mean_l, mean_f = sum(l_) / n, sum(f) / n
        ll = sum((each - mean_l) ** 2 for each in l_) / n
        ff = sum((each - mean_f) ** 2 for each in f) / n
        lf = sum((a - mean_l) * (b - mean_f) for a, b in zip(l_, f, strict=True)) / n
        norm = math.sqrt(ll**2 + 2 * lf**2 + ff**2)
        found.append((mean_l, mean_f, norm, norm / n))
        start += n
    return found


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=seeds)
def test_regularity_agrees_with_its_equations(counts, seed):
    rng = np.random.default_rng(seed)
    learned, forgotten = rng.integers(0, 200, sum(counts)) / 10, rng.integers(0, 30, sum(counts)) / 10
    found = regularity(learned, forgotten, np.asarray(counts))
    columns = np.stack((found.learned, found.forgotten, found.f_norm, found.irregularity), 1)
    np.testing.assert_allclose(
        columns, slow_regularity(learned.tolist(), forgotten.tolist(), counts), rtol=1e-9, atol=1e-9
    )


def test_the_covariance_is_the_population_s():
    rng = np.random.default_rng()
    learned, forgotten = rng.normal(size=(2, 60))
    found = regularity(learned, forgotten, np.asarray([40, 20]))
    for j, at in enumerate((slice(40), slice(40, 60))):
        np.testing.assert_allclose(found.covariance[j], np.cov(learned[at], forgotten[at], ddof=0))
        assert found.f_norm[j] == pytest.approx(np.linalg.norm(found.covariance[j]))


def test_a_class_of_one_image_has_no_irregularity():
    found = regularity(np.array([1.0, 5.0, 7.0]), np.array([0.0, 2.0, 1.0]), np.asarray([2, 1]))
    assert (found.learned[1], found.forgotten[1], found.irregularity[1]) == (7.0, 1.0, 0.0)
    assert found.irregularity[0] > 0


@settings(deadline=None)
@given(seed=seeds, tied=st.booleans())
def test_correlations_are_scipy_s(seed, tied):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 5, (2, 12)) if tied else rng.normal(size=(2, 12))
    if np.ptp(x) and np.ptp(y):
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_column_that_does_not_vary_correlates_with_nothing():
    assert math.isnan(pearson(np.ones(5), np.arange(5)))
    assert math.isnan(spearman(np.arange(5), np.ones(5)))


# Table 13


def slow_kohavi_wolpert(predictions, labels, classes):
    """The formulae image by image, with the unbiased estimate of Σ_k p_k²: the share of pairs of runs that agree."""
    runs, error, bias2, variance = len(predictions), [], [], []
    for i, y in enumerate(labels):
        told = [row[i] for row in predictions]
        share = [told.count(k) / runs for k in range(classes)]
        pairs = [(a, b) for a in range(runs) for b in range(runs) if a != b]
        agree = sum(told[a] == told[b] for a, b in pairs) / len(pairs)
        error.append(1 - share[y])
        bias2.append(0.5 * (1 - 2 * share[y] + agree))  # ½ Σ_k (1[k=y] - p_k)², multiplied out
        variance.append(0.5 * (1 - agree))
    return [sum(column) / len(labels) for column in (error, bias2, variance)]


@settings(deadline=None)
@given(seed=seeds, runs=st.integers(2, 6), classes=st.integers(2, 5))
def test_bias_and_variance_agree_with_their_definitions_and_sum_to_the_error(seed, runs, classes):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(classes, size=30), rng.integers(classes, size=(runs, 30))
    predictions = np.where(rng.random((runs, 30)) < 0.5, labels, predictions)
    found = kohavi_wolpert(predictions, labels, classes)
    expected = slow_kohavi_wolpert(predictions.tolist(), labels.tolist(), classes)
    assert [found.error, found.bias2, found.variance] == pytest.approx(expected)
    assert found.bias2 + found.variance == pytest.approx(found.error, abs=1e-12)
    assert found.error == pytest.approx(np.mean([(row != labels).mean() for row in predictions]))


def test_runs_that_agree_have_no_variance_and_runs_that_are_right_no_error():
    labels = np.array([0, 1, 2, 1])
    alike = kohavi_wolpert(np.tile([0, 2, 2, 0], (10, 1)), labels, 3)
    assert (alike.error, alike.bias2, alike.variance) == pytest.approx((0.5, 0.5, 0.0))
    right = kohavi_wolpert(np.tile(labels, (2, 1)), labels, 3)
    assert (right.error, right.bias2, right.variance) == pytest.approx((0.0, 0.0, 0.0))


# Section 3.3


def slow_bound(standard, general, counts, q):
    """Eq. 3, 4 and Q epoch by epoch."""
    n, total = sum(counts), sum(size**q for size in counts)
    p = [size**q / total for size in counts]
    least, rows = math.inf, []
    for ib, cr in zip(standard, general, strict=True):
        for losses in (ib, cr):
            least = min(least, sum((pj - nj / n) * lj for pj, nj, lj in zip(p, counts, losses, strict=True)))
        l_standard = sum(nj / n * lj for nj, lj in zip(counts, ib, strict=True))
        l_general = sum(pj * lj for pj, lj in zip(p, cr, strict=True))
        rows.append((l_standard, l_general, least, least + l_standard - l_general))
    return rows


@settings(deadline=None)
@given(seed=seeds, q=st.sampled_from([-1.0, 0.0, 0.5]), counts=st.lists(st.integers(1, 500), min_size=2, max_size=6))
def test_the_bound_s_terms_agree_with_their_equations(seed, q, counts):
    counts.sort(reverse=True)
    standard, general = np.random.default_rng(seed).exponential(size=(2, 7, len(counts)))
    found = bound(standard, general, np.asarray(counts), q)
    columns = np.stack((found.standard, found.general, found.q, found.gap), 1)
    np.testing.assert_allclose(columns, slow_bound(standard.tolist(), general.tolist(), counts, q), atol=1e-9)


@settings(deadline=None)
@given(seed=seeds)
def test_at_one_theta_the_gap_is_identically_0(seed):
    # Q + L_S - L is an identity at one θ: the theorem says something only across branches.
    losses = np.random.default_rng(seed).exponential(size=(1, 10))
    found = bound(losses, losses, np.asarray(facts("cifar10").counts(50)))
    np.testing.assert_allclose(found.gap, 0, atol=1e-12)


def test_q_is_the_least_of_either_branch_since_the_switch():
    counts = np.asarray([3, 1])  # p = (¼, ¾): p - n_j/n = (-½, ½), so that Q = (l_1 - l_0) / 2
    standard = np.array([[0.0, 4.0], [0.0, 6.0], [0.0, 5.0]])
    general = np.array([[0.0, 5.0], [0.0, 1.0], [0.0, 2.0]])
    found = bound(standard, general, counts)
    assert found.q.tolist() == [2.0, 0.5, 0.5]
    assert found.standard.tolist() == [1.0, 1.5, 1.25]
    assert found.general.tolist() == [3.75, 0.75, 1.5]
    assert found.gap.tolist() == [-0.75, 1.25, 0.25]


def test_assumption_3_holds_where_smaller_classes_have_larger_losses():
    rising, falling = np.arange(5.0)[None], np.arange(5.0)[None, ::-1]
    found = bound(rising, falling, np.asarray([50, 20, 9, 3, 1]))
    assert (found.ordered_standard.tolist(), found.ordered_general.tolist()) == ([1.0], [-1.0])


@pytest.mark.parametrize(("q", "factor"), [(1.0, 1.0), (-1.0, 4.95)])
def test_the_factor_of_the_confidence_term_on_cifar10_at_50(q, factor):
    counts = np.asarray(facts("cifar10").counts(50))
    assert confidence_factor(counts, q) == pytest.approx(factor, abs=0.005)


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 5000), min_size=1, max_size=10), q=st.floats(-2, 2))
def test_no_sampler_has_a_smaller_factor_than_instance_balanced(counts, q):
    counts = np.asarray(counts)
    assert confidence_factor(counts, 1.0) == pytest.approx(1.0)
    assert confidence_factor(counts, q) >= 1 - 1e-9
    p = counts**q / (counts**q).sum()
    assert confidence_factor(counts, q) == pytest.approx(math.sqrt(sum(counts) * sum(p**2 / counts)))


# Learning speed


@pytest.mark.parametrize(
    ("curve", "switch", "epochs"),
    [
        ([90, 10, 20, 79.5, 80, 70], 1, 3),  # what was before the switch does not count
        ([0, 0, 80, 79, 78], 2, 1),
        ([0, 50, 60, 79.4, 79.6, 80], 1, 4),
        ([30, 30, 30], 0, 1),
        ([0, 0, 1], 2, 1),
    ],
)
def test_epochs_to_within_half_a_point_of_the_best_since_the_switch(curve, switch, epochs):
    assert epochs_to_within(np.array(curve, dtype=float), switch) == epochs


def test_a_wider_margin_is_reached_no_later():
    curve = np.random.default_rng().normal(size=60).cumsum()
    reached = [epochs_to_within(curve, 20, points) for points in (0.0, 0.5, 2.0, 1e9)]
    assert reached == sorted(reached, reverse=True)
    assert (reached[0], reached[-1]) == (int(curve[20:].argmax()) + 1, 1)
