"""Theorem 1: its terms in the two branches, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import as_trained, entry, exhibits, nothing, space, tables

from search_spaces import theorem1
from trainables.data.datasets import facts

SINCE = 51  # m + S on digits
COLUMN = "digits-LT IF 50"
COUNTS = facts("digits").counts(50.0)


def losses(row, replicate):
    """Made-up mean losses of each class after each epoch: (T, C)."""
    return np.random.default_rng([len(row), replicate]).random((100, 10))


def recorded(trial, replicate):
    return [{"fit/class_loss": list(each)} for each in losses(trial.row, replicate)]


def by_hand(replicate):
    """L_S(θ_IB), L(θ_CR) and Q of each epoch since the switch, a class and an epoch at a time."""
    n, inverse = sum(COUNTS), sum(1 / count for count in COUNTS)
    p = [1 / count / inverse for count in COUNTS]
    rows, least = [], float("inf")
    for epoch in range(SINCE, 100):
        standard, general = losses("standard", replicate)[epoch], losses("ours", replicate)[epoch]
        for branch in (standard, general):
            least = min(least, sum((p[j] - COUNTS[j] / n) * branch[j] for j in range(10)))
        rows.append(
            (sum(COUNTS[j] / n * standard[j] for j in range(10)), sum(p[j] * general[j] for j in range(10)), least)
        )
    return rows


def test_the_terms_are_those_of_the_two_branches_since_the_switch():
    found = theorem1.bounds(as_trained("theorem1", recorded), COLUMN)
    assert list(found) == [0, 1]
    for replicate, bound in found.items():
        rows = np.array(by_hand(replicate))
        assert (bound.standard, bound.general, bound.q) == tuple(
            pytest.approx(rows[:, term], abs=1e-12) for term in range(3)
        )


def test_the_table_shows_them_after_the_first_and_the_last_epoch():
    (table,) = tables(as_trained("theorem1", recorded))
    means = np.mean([by_hand(replicate) for replicate in (0, 1)], axis=0)
    for column, (standard, general, q) in ((1, means[0]), (2, means[-1])):
        shown = [entry(table, row, column).mean for row in range(5)]
        assert shown == pytest.approx([standard, general, q, q + standard - general, standard - general])
    gaps = np.array([[q + s - g for s, g, q in by_hand(replicate)] for replicate in (0, 1)])
    assert list(entry(table, 7, 2).values.values()) == pytest.approx(list(100 * (gaps > 0).mean(1)))


def test_the_gap_of_one_replicate_has_no_interval():
    one, two = (tables(as_trained("theorem1", recorded, replicates=n))[0].notes[-1] for n in (1, 2))
    assert one.startswith("The gap after the last epoch: ")
    assert two.startswith("The gap after the last epoch, with its 95 % t-interval: ")


def test_it_draws_the_terms_and_the_third_assumption():
    _, bound, assumption = exhibits(as_trained("theorem1", recorded))
    rows = {tuple(row[:2]): row[3] for row in bound.rows}
    gaps = [[q + s - g for s, g, q in by_hand(replicate)] for replicate in (0, 1)]
    assert [rows[theorem1.GAP, epoch + 1] for epoch in range(49)] == pytest.approx(np.mean(gaps, axis=0))
    assert {row[0] for row in assumption.rows} == {"θ_IB", "θ_CR"}
    assert all(-1 <= row[3] <= 1 for row in assumption.rows)
    assert bound.png().startswith(assumption.png()[:8])


def test_smaller_classes_with_larger_losses_are_the_third_assumption():
    def ordered(trial, replicate):
        rising = [float(rank) for rank in range(10)]
        return [{"fit/class_loss": rising if trial.row == "standard" else rising[::-1]} for _ in range(100)]

    (table,) = tables(as_trained("theorem1", ordered))
    assert (entry(table, 5, 1).mean, entry(table, 6, 1).mean) == (1.0, -1.0)


def test_at_one_theta_the_gap_is_nothing():
    """The condition says something across the branches alone."""
    same = list(np.random.default_rng(0).random(10))
    found = as_trained("theorem1", lambda trial, replicate: [{"fit/class_loss": same}] * 100)
    (bound, _) = theorem1.bounds(found, COLUMN).values()
    assert bound.gap == pytest.approx(np.zeros(49), abs=1e-12)


def test_losses_that_are_all_equal_have_no_rank_and_no_curve():
    found = as_trained("theorem1", lambda trial, replicate: [{"fit/class_loss": [1.0] * 10}] * 100)
    table, bound, assumption = exhibits(found)
    assert str(entry(table, 5, 1)) == "–"
    assert bound is not None
    assert assumption is None


def test_the_factor_of_the_confidence_term_is_known_without_a_run():
    table, *curves = exhibits(as_trained("theorem1", nothing, paper=True))
    factors = {row[0]: row[1] for row in table.rows if str(row[0]).startswith("factor")}
    assert list(factors.values()) == ["1.00", "4.95"]
    assert curves == [None, None]
    assert {str(entry(table, row, 2)) for row in range(8)} == {"–"}


def test_a_replicate_counts_once_both_of_its_branches_have_ended():
    def but_one(trial, replicate):
        return None if (trial.row, replicate) == ("ours", 1) else recorded(trial, replicate)

    assert list(theorem1.bounds(as_trained("theorem1", but_one), COLUMN)) == [0]


@pytest.mark.parametrize(
    ("request_", "varies"),
    [
        ({}, ["split_seed", "subset_seed", "seed"]),
        ({"paper": True}, ["subset_seed", "seed"]),
        ({"paper": True, "vary": ("seed",)}, ["seed"]),
    ],
)
def test_each_replicate_has_a_subset_of_its_own_unless_told_otherwise(request_, varies):
    assert {tuple(trial.config["varies"]) for trial in space("theorem1", **request_).trials} == {tuple(varies)}


def test_crossed_replicates_have_no_interval():
    table, *_ = tables(as_trained("theorem1", recorded, replicates=4, vary=("crossed",)))
    assert len(table.notes) == 1
    table, *_ = tables(as_trained("theorem1", recorded, replicates=4))
    assert "95 % t-interval" in table.notes[1]
