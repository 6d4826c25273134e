import statistics
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from study.compare import Difference, differences, front, holm, mean, objectives, paired, rows, std
from study.plan import Contrast, Machine, Plan, PlannedSpace, PlannedTrial, Request, Resources

few = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)

CONTRAST = Contrast("IB⇒CR", "IB⇒IB")


# The numbers


@few
@given(values=st.lists(st.floats(-1e3, 1e3), max_size=8))
def test_mean_and_std_are_numpy_s(values):
    assert mean(values) == (pytest.approx(np.mean(values), abs=1e-9) if values else None)
    assert std(values) == (pytest.approx(np.std(values, ddof=1), abs=1e-9) if len(values) > 1 else None)


@few
@given(n=st.integers(2, 12), seed=seeds)
def test_a_paired_difference_is_scipy_s_paired_t_test(n, seed):
    rng = np.random.default_rng(seed)
    better, worse = rng.normal(80, 3, n), rng.normal(78, 3, n)
    found = paired("table9", "digits", CONTRAST, list(better - worse))
    expected = ttest_rel(better, worse)
    interval = expected.confidence_interval(0.95)
    assert (found.n, found.mean) == (n, pytest.approx(statistics.fmean(better) - statistics.fmean(worse)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == (pytest.approx(expected.pvalue) if n >= 5 else None)


def test_one_pair_has_no_interval_and_four_have_no_p():
    one, four, five = (paired("table9", "digits", CONTRAST, [1.0, 2.0, 4.0, 0.5, 3.0][:n]) for n in (1, 4, 5))
    assert (one.mean, one.low, one.high, one.p) == (1.0, None, None, None)
    assert four.low < four.mean < four.high
    assert four.p is None
    assert 0 < five.p < 1


@pytest.mark.parametrize(("gap", "p"), [(0.0, 1.0), (1.5, 0.0)])
def test_equal_differences_have_no_spread(gap, p):
    found = paired("table9", "digits", CONTRAST, [gap] * 5)
    assert (found.mean, found.low, found.high, found.p) == (gap, gap, gap, p)


def closed_testing(p):
    """Holm's procedure as closed testing: every set of hypotheses is tested by Bonferroni, and all must fall."""
    everyone = range(len(p))
    sets = [s for size in range(1, len(p) + 1) for s in combinations(everyone, size)]
    return [max(min(1.0, len(s) * min(p[k] for k in s)) for s in sets if each in s) for each in everyone]


@few
@given(p=st.lists(st.none() | st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.04]), max_size=8))
def test_holm_is_closed_testing_by_bonferroni(p):
    found = [Difference("table9", f"data {i}", CONTRAST, 5, i, -1.0, 1.0, each) for i, each in enumerate(p)]
    adjusted = holm(found)
    assert [(d.column, d.mean) for d in adjusted] == [(d.column, d.mean) for d in found]
    expected = iter(closed_testing([each for each in p if each is not None]))
    assert [d.p for d in adjusted] == [None if each is None else pytest.approx(next(expected)) for each in p]


# A plan and the states that are there


def trial(row, column="digits", replicates=6, space="table9", measure="test/top1"):
    ends = tuple(f"{space} {row} {column} {number}" for number in range(replicates))
    return PlannedTrial(space, f"{row} ({column})", row, column, {}, {"first": row[:2]}, 80.0, column, 2, ends, measure)


def plan(*trials, contrasts=(CONTRAST,), objectives=("test/top1",)):
    spaces = tuple(
        PlannedSpace(name, name, "", objectives, contrasts, {}, name, "")
        for name in dict.fromkeys(trial.space for trial in trials)
    )
    return Plan("r", Request(), Machine("cpu", 1), Resources(), 6, spaces, trials, {}, 0)


def header(*measures):
    return {"provenance": [{"device_model": "a CPU"}], "measures": list(measures)}


def top1(*values):
    return header(*({"test/top1": value} for value in values))


def test_a_row_holds_the_last_epoch_and_apart_from_it_the_best():
    cell = trial("IB⇒CR", replicates=2)
    states = dict(zip(cell.ends, [top1(70.0, 90.0, 80.0), top1(85.0, 60.0)], strict=True))
    (row,) = rows(plan(cell), states.get)
    assert (row.values, row.best) == ({0: 80.0, 1: 60.0}, {0: 90.0, 1: 85.0})
    assert (row.mean, row.std) == (70.0, pytest.approx(200**0.5))


def test_a_row_is_of_the_replicates_that_are_there():
    cell, none = trial("IB⇒CR", replicates=4), trial("IB⇒IB", replicates=4)
    found = rows(plan(cell, none), {cell.ends[1]: top1(50.0), cell.ends[3]: top1(60.0)}.get)
    assert [row.values for row in found] == [{1: 50.0, 3: 60.0}, {}]
    assert [(row.mean, row.std) for row in found] == [(55.0, pytest.approx(50**0.5)), (None, None)]
    assert [row.shots for row in found] == [{}, {}]
    assert found[1].to_json() == {
        "space": "table9", "trial": "IB⇒IB (digits)", "first": "IB", "mean": None, "std": None, "n": 0, "values": [],
        "paper": 80.0, "paper_of": "digits", "best_epoch_mean": None,
    }  # fmt: skip


def test_shots_are_of_the_objective_s_images_and_absent_where_no_class_is():
    cell = trial("IB⇒CR", replicates=2, measure="val/top1")
    one = {"val/top1": 50.0, "val/many": 90.0, "val/few": 10.0, "test/many": 1.0, "test/medium": 1.0}
    other = {"val/top1": 60.0, "val/many": 80.0, "val/few": 20.0}
    (row,) = rows(
        plan(cell, objectives=("val/top1",)), dict(zip(cell.ends, map(header, (one, other)), strict=True)).get
    )
    assert (row.mean, row.shots) == (55.0, {"many": 85.0, "few": 15.0})


def test_rows_of_one_space():
    cells = trial("IB⇒CR"), trial("IB⇒CR", space="table7")
    assert [row.trial for row in rows(plan(*cells), {}.get, "table7")] == [cells[1]]
    assert len(rows(plan(*cells), {}.get)) == 2


@few
@given(seed=seeds, data=st.data())
def test_differences_pair_the_replicates_that_both_rows_have(seed, data):
    rng = np.random.default_rng(seed)
    better, worse = trial("IB⇒CR"), trial("IB⇒IB")
    there = [data.draw(st.sets(st.integers(0, 5)), label=cell.row) for cell in (better, worse)]
    values = {cell.ends[i]: rng.normal(80, 3) for cell, some in zip((better, worse), there, strict=True) for i in some}
    work = plan(better, worse)
    found = differences(work, rows(work, {end: top1(value) for end, value in values.items()}.get))
    both = sorted(there[0] & there[1])
    assert [d.n for d in found] == ([len(both)] if both else [])
    for difference in found:
        gaps = [values[better.ends[i]] - values[worse.ends[i]] for i in both]
        assert difference == paired("table9", "digits", CONTRAST, gaps)


def test_hypotheses_are_adjusted_over_the_columns_of_their_own_space():
    rng = np.random.default_rng()
    cells = [
        trial(row, column, space=space)
        for space, columns in {"table9": ("digits", "cifar10", "cifar100"), "table7": ("digits",)}.items()
        for column in columns
        for row in ("IB⇒CR", "IB⇒IB", "CB⇒IB")
    ]
    work = plan(*cells)
    found = rows(work, {end: top1(rng.normal(80, 1)) for cell in cells for end in cell.ends}.get)
    measured = differences(work, found)
    assert [(d.space, d.column) for d in measured] == [
        ("table9", "digits"), ("table9", "cifar10"), ("table9", "cifar100"), ("table7", "digits"),
    ]  # fmt: skip
    single = []
    for d in measured:
        pair = [row for row in found if (row.trial.space, row.trial.column) == (d.space, d.column)][:2]
        single.append(ttest_rel(*(list(row.values.values()) for row in pair)).pvalue)
    assert [d.p for d in measured] == pytest.approx([*closed_testing(single[:3]), single[3]])


def test_a_hypothesis_about_a_row_that_is_not_planned_is_silent():
    work = plan(trial("IB⇒CR"))
    assert differences(work, rows(work, dict.fromkeys(work.trials[0].ends, top1(50.0)).get)) == []


# Champions and fronts


def test_a_champion_s_row_shows_its_own_measure_under_its_own_replicates():
    point = trial("#3", replicates=1, measure="val/top1")
    champion = replace(trial("champion #3", replicates=2), measure="test/top1", champion_of="#3", first_replicate=1000)
    states = {point.ends[0]: header({"val/top1": 90.0, "test/top1": 80.0})}
    states |= {end: header({"val/top1": 85.0, "test/top1": 70.0 + n}) for n, end in enumerate(champion.ends)}
    found = rows(plan(point, champion, objectives=("val/top1",)), states.get)
    assert [row.values for row in found] == [{0: 90.0}, {1000: 70.0, 1001: 71.0}]


def test_objectives_are_means_over_replicates_after_the_last_epoch():
    cell = trial("#0", replicates=2)
    states = dict(
        zip(
            cell.ends,
            (header({"a": 99.0, "b": 0.0}, {"a": 50.0, "b": 2.0}), header({"a": 70.0, "b": 4.0})),
            strict=True,
        )
    )
    assert objectives(plan(cell, objectives=("a", "b")), cell, states.__getitem__) == [60.0, 3.0]
    with pytest.raises(KeyError):
        objectives(plan(cell, objectives=("a",)), cell, {cell.ends[0]: states[cell.ends[0]]}.__getitem__)


points = st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=9) | st.lists(st.tuples(st.integers(0, 9)), max_size=9)


@few
@given(values=points)
def test_the_front_is_what_no_other_point_beats(values):
    named = [(trial(f"#{number}", replicates=1), own) for number, own in enumerate(values)]
    distinct = list(dict.fromkeys(values))
    unbeaten = [
        own for own in distinct
        if not any(all(a >= b for a, b in zip(other, own, strict=True)) for other in distinct if other != own)
    ]  # fmt: skip
    unbeaten.sort(key=lambda own: -own[0])
    assert [point.row for point in front(named)] == [f"#{values.index(own)}" for own in unbeaten]
    if values and len(values[0]) == 1:
        assert len(unbeaten) == 1
