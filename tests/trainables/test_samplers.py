import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from trainables import samplers
from trainables.data.datasets import facts
from trainables.samplers import Purpose, class_probabilities, epoch_order, generator

CHANCE = 1e-7  # a right sampler fails a test about once in 1 / CHANCE runs

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)
exponents = st.floats(-3, 3).filter(lambda q: q != 1)


def orders(counts, sampler, replacement=False, epochs=1):
    """Return the orders of `epochs` epochs under a fresh seed: (epochs, N)."""
    seed = int(np.random.default_rng().integers(2**32))
    counts = np.asarray(counts)
    return np.stack(
        [epoch_order(counts, sampler, replacement, generator(seed, e, Purpose.ORDER)) for e in range(epochs)]
    )


def classes_of(order, counts):
    return np.repeat(np.arange(len(counts)), counts)[order]


# The walk of Algorithm 1


@given(counts=sizes, q=exponents, seed=st.integers(0, 2**32 - 1))
def test_each_class_is_walked_through_shuffle_after_shuffle(counts, q, seed):
    order = epoch_order(np.asarray(counts), q, False, np.random.default_rng(seed)).tolist()
    assert len(order) == sum(counts)
    first = 0
    for n in counts:
        images = range(first, first + n)
        draws = [image for image in order if image in images]
        for start in range(0, len(draws), max(n, 1)):
            block = draws[start : start + n]
            assert len(set(block)) == len(block)  # a full block is a permutation, the last one its beginning
        first += n
    assert set(order) <= set(range(first))


def test_every_shuffle_of_a_class_is_equally_likely_and_independent_of_the_one_before():
    # Class 1 has three images, whose first two shuffles are one of 6 × 6 pairs.
    counts = [6, 3]
    pairs = Counter()
    for order in orders(counts, (1.0, 4.0), epochs=6000).tolist():
        draws = [image for image in order if image >= 6]
        if len(draws) >= 6:
            pairs[tuple(draws[:3]), tuple(draws[3:6])] += 1
    assert len(pairs) == 36
    assert chisquare(list(pairs.values())).pvalue > CHANCE


@pytest.mark.parametrize("replacement", [False, True])
def test_the_first_image_of_a_class_is_uniform(replacement):
    counts = [24, 12]
    first = [next(i for i in order if i >= 24) for order in orders(counts, 0.0, replacement, 3000).tolist()]
    assert chisquare(np.bincount(first, minlength=36)[24:]).pvalue > CHANCE


def test_with_replacement_every_draw_is_uniform_and_repeats_come_early():
    counts = [30, 20]
    drawn = orders(counts, 0.0, replacement=True, epochs=1000)
    tally = np.bincount(drawn.ravel(), minlength=50)
    assert chisquare(tally[:30]).pvalue > CHANCE
    assert chisquare(tally[30:]).pvalue > CHANCE
    repeated = sum(len(set(order[:8])) < 8 for order in drawn.tolist())
    assert repeated > 0  # which a walk through 20 or more images never does


@given(counts=sizes, q=exponents, seed=st.integers(0, 2**32 - 1))
def test_with_replacement_every_draw_is_an_image(counts, q, seed):
    order = epoch_order(np.asarray(counts), q, True, np.random.default_rng(seed))
    assert len(order) == sum(counts)
    assert set(order.tolist()) <= set(range(sum(counts)))


# How often each class is drawn


@pytest.mark.parametrize("replacement", [False, True])
def test_classes_are_drawn_in_proportion_to_n_to_the_q(replacement):
    rng = np.random.default_rng()
    for _ in range(8):
        counts = rng.integers(20, 200, size=rng.integers(2, 12))
        q = rng.uniform(-1.5, 1.5)
        drawn = classes_of(orders(counts, q, replacement, epochs=1 + 20000 // counts.sum()), counts).ravel()
        wanted = [n**q for n in counts.tolist()]
        expected = [len(drawn) * w / sum(wanted) for w in wanted]
        assert chisquare(np.bincount(drawn, minlength=len(counts)), expected).pvalue > CHANCE


def test_the_class_of_a_draw_does_not_depend_on_the_draw_before():
    counts = [60, 30, 10]
    drawn = classes_of(orders(counts, -0.5, epochs=200), counts)
    before, after = drawn[:, :-1].ravel(), drawn[:, 1:].ravel()
    table = [[np.sum((before == i) & (after == j)) for j in range(3)] for i in range(3)]
    assert chi2_contingency(table).pvalue > CHANCE


@given(
    weights=st.lists(st.floats(0, 1) | st.just(0.0) | st.floats(1e-12, 1e-9), min_size=1, max_size=3000).filter(any),
    seed=st.integers(0, 2**32 - 1),
)
def test_classes_are_those_that_numpy_would_choose(weights, seed):
    p = np.asarray(weights) / np.sum(weights)
    drawn = samplers._draw(p, 5000, np.random.default_rng(seed))
    np.testing.assert_array_equal(drawn, np.random.default_rng(seed).choice(len(p), 5000, p=p))


@given(counts=sizes, seed=st.integers(0, 2**32 - 1), replacement=st.booleans())
def test_instance_balanced_visits_each_image_once(counts, seed, replacement):
    order = epoch_order(np.asarray(counts), 1.0, replacement, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(sum(counts)))


def test_instance_balanced_is_shuffled():
    places = [order.tolist().index(0) for order in orders([4, 2], 1.0, epochs=3000)]
    assert chisquare(np.bincount(places, minlength=6)).pvalue > CHANCE


def test_weights_of_classes_without_images_alone_are_refused():
    with pytest.raises(ValueError, match="0 for every class that has images"):
        class_probabilities(np.array([5, 3, 0]), (0.0, 0.0, 1.0))


def test_class_weights_are_frequencies_and_a_weight_of_0_is_never():
    counts = [50, 0, 30, 20]
    drawn = classes_of(orders(counts, (1.0, 9.0, 0.0, 3.0), epochs=100), counts).ravel()
    tally = np.bincount(drawn, minlength=4)
    assert tally[1] == tally[2] == 0
    assert chisquare(tally[[0, 3]], [2500, 7500]).pvalue > CHANCE


# Class probabilities


@given(counts=st.lists(st.integers(0, 5000), min_size=1, max_size=12).filter(any), q=st.integers(-200, 200))
def test_probabilities_are_n_to_the_q_in_exact_arithmetic(counts, q):
    powers = [Fraction(n) ** q if n else Fraction(0) for n in counts]
    exact = [float(power / sum(powers)) for power in powers]
    assert class_probabilities(np.asarray(counts), float(q)) == pytest.approx(exact, rel=1e-9, abs=1e-200)


@pytest.mark.parametrize(("q", "only"), [(200.0, 0), (-200.0, 9)])
def test_an_extreme_exponent_draws_from_one_class(q, only):
    counts = np.asarray(facts("cifar10").counts(50))
    assert set(classes_of(epoch_order(counts, q, False, np.random.default_rng()), counts).tolist()) == {only}
    assert np.isfinite(class_probabilities(counts, q)).all()


def test_the_printed_probabilities_on_cifar10_at_50():
    counts = np.asarray(facts("cifar10").counts(50))
    reversed_ = class_probabilities(counts, -1.0)
    assert (round(reversed_[0], 4), round(reversed_[9], 4)) == (0.0071, 0.3567)
    # Table 8's irregularities as Table 10's class weights.
    irregularity = (0.0171, 0.0137, 0.1414, 0.2930, 0.3047, 0.7875, 0.6889, 1.4938, 1.8150, 3.6341)
    weighted = class_probabilities(counts, irregularity)
    assert (round(weighted[0], 4), round(weighted[9], 4)) == (0.0019, 0.3955)
    assert math.isclose(weighted.sum(), 1)


# Streams


def test_seed_epoch_and_purpose_name_a_stream_of_their_own():
    names = [(seed, epoch, purpose) for seed in range(5) for epoch in range(20) for purpose in Purpose]
    first_bytes = {generator(*name).bytes(16) for name in names}
    assert len(first_bytes) == len(names)
    assert first_bytes == {generator(*name).bytes(16) for name in names}


@pytest.mark.parametrize("sampler", [1.0, 0.0, -1.0, (1.0, 2.0, 3.0)])
def test_an_order_follows_from_seed_and_epoch_alone(sampler):
    def order(seed, epoch):
        return epoch_order(np.asarray([40, 20, 10]), sampler, False, generator(seed, epoch, Purpose.ORDER)).tolist()

    assert order(5, 3) == order(5, 3)
    assert order(5, 3) != order(5, 4)
    assert order(5, 3) != order(6, 3)
