"""What replicates vary, in words; and what a spread is made of where they are pairs."""

import math
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from helpers import cell, crossed
from hypothesis import given, settings
from hypothesis import strategies as st

from study.planning.replication import Crossing, Parts, lines, parts
from trainables.config import Config

few = settings(max_examples=100, deadline=None)


def trial(column="digits", **seeds):
    """A trial whose replicates have these seeds: a list a name, or one value that all have."""
    count = max([len(each) for each in seeds.values() if isinstance(each, list)], default=1)
    values = {
        name.replace("_", " "): each if isinstance(each, list) else [each] * count for name, each in seeds.items()
    }
    own = [dict(zip(values, each, strict=True)) for each in zip(*values.values(), strict=True)]
    return replace(cell("IB", "CR", dataset=column, replicates=count), seeds=tuple(own))


def paired(*pairs, first=0):
    """A trial whose replicates, the first of which has that number, are these pairs of a subset and a seed."""
    subsets, seeds = ([str(each) for each in values] for values in zip(*pairs, strict=True))
    return replace(trial(split="0", subset=subsets, training_seed=seeds), first_replicate=first)


# In words

THREE = ["0", "1", "2"]
TEN = ["0 (published)", *map(str, range(1, 10))]


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        ({"split": "0", "subset": "0", "training_seed": "7"}, "One replicate: split 0, subset 0, training seed 7."),
        (
            {"subset": "0 (published)", "training_seed": THREE},
            "3 replicates vary training seed (0 to 2); all have subset 0 (published).",
        ),
        (
            {"split": "0", "subset": ["0", "1"], "training_seed": "0"},
            "2 replicates vary subset (0, 1); all have split 0, training seed 0.",
        ),
        (
            {"split": THREE, "subset": THREE, "training_seed": THREE},
            "3 replicates vary split (0 to 2), subset (0 to 2) and training seed (0 to 2).",
        ),
        (
            {"subset": TEN, "training_seed": "0"},
            "10 replicates vary subset (0 (published) to 9); all have training seed 0.",
        ),
        (
            {"subset": TEN[:2], "training_seed": ["2000", "2001"]},
            "2 replicates vary subset (0 (published), 1) and training seed (2000, 2001).",
        ),
        ({"training_seed": ["0", "1", "3"]}, "3 replicates vary training seed (0, 1, 3)."),
        ({"training_seed": ["2", "1", "0"]}, "3 replicates vary training seed (2, 1, 0)."),
        ({"fold": ["a", "b", "c"]}, "3 replicates vary fold (a, b, c)."),
        ({"split": "0", "training_seed": ["0", "0"]}, "2 replicates vary nothing; all have split 0, training seed 0."),
    ],
)
def test_a_line_says_what_replicates_vary_and_what_all_have(seeds, line):
    assert lines([trial(**seeds)]) == [line]


def test_replicates_that_are_pairs_are_said_to_be_so():
    words = "4 replicates vary subset (0, 1) and training seed (0, 1), every pair; all have split 0."
    assert lines([crossed(cell("IB", "CR", replicates=4))]) == [words]


@few
@given(seeds=st.lists(st.integers(0, 20), min_size=2, max_size=8, unique=True) | st.just(list(range(5, 9))))
def test_the_words_are_exactly_the_values(seeds):
    (line,) = lines([trial(training_seed=[str(seed) for seed in seeds])])
    (said,) = re.findall(r"\((.*)\)", line)
    first, to, last = said.partition(" to ")
    assert (list(range(int(first), int(last) + 1)) if to else list(map(int, said.split(", ")))) == seeds


def test_columns_of_one_answer_share_a_line():
    digits = trial("digits", split=THREE, training_seed=THREE)
    cifar = [trial(name, subset="0 (published)", training_seed=THREE) for name in ("cifar10", "cifar100")]
    assert lines([digits, digits]) == ["3 replicates vary split (0 to 2) and training seed (0 to 2)."]
    assert lines([cifar[0], digits, cifar[1]]) == [
        "cifar10; cifar100: 3 replicates vary training seed (0 to 2); all have subset 0 (published).",
        "digits: 3 replicates vary split (0 to 2) and training seed (0 to 2).",
    ]


def test_champions_of_a_search_have_a_line_of_their_own():
    point = trial(split="0", training_seed="0")
    champion = replace(trial(split="0", training_seed=["1000", "1001", "1002"]), champion_of="#3")
    assert lines([point], searched=True) == ["One replicate: split 0, training seed 0."]
    assert lines([point, champion], searched=True) == [
        "Points: One replicate: split 0, training seed 0.",
        "Champions: 3 replicates vary training seed (1000 to 1002); all have split 0.",
    ]


def test_a_plan_of_an_earlier_version_does_not_say():
    old = replace(cell("IB", "CR"), seeds=())
    assert lines([old, old]) == ["The plan does not record in which seeds the replicates differ."]
    assert lines([replace(old, seeds=({}, {}))]) == lines([old])
    assert Crossing.of(old) is None
    assert lines([]) == []


# Pairs


@few
@given(data=st.data(), size=st.integers(2, 4), first=st.sampled_from([0, 1000]))
def test_a_whole_square_is_found_in_any_order(data, size, first):
    own = paired(*data.draw(st.permutations(list(product(range(size), range(5, 5 + size))))), first=first)
    found = Crossing.of(own)
    assert (found.names, found.size) == (("subset", "training seed"), size)
    assert sorted(found.places.values()) == list(product(range(size), range(size)))
    assert found.places.keys() == own.by_replicate.keys()
    for which, name in enumerate(found.names):
        seeds = {(found.places[first + number][which], each[name]) for number, each in enumerate(own.seeds)}
        assert len(seeds) == size, "a place is a seed"


@pytest.mark.parametrize("start", [{}, {"subset_seed": 7, "seed": 2000}, {"dataset": "digits", "split_seed": 3}])
@pytest.mark.parametrize("count", range(1, 27))
def test_of_any_number_of_crossed_replicates_the_largest_square_is_taken(count, start):
    config = Config(varies=("subset_seed", "seed"), crossed=True, **start)
    seeds = tuple(config.replicate(number).seeds() for number in range(count))
    found = Crossing.of(replace(cell("IB", "CR", replicates=count), seeds=seeds))
    size = math.isqrt(count)
    if size < 2:
        assert found is None
    else:
        assert (found.size, sorted(found.places)) == (size, list(range(size**2)))  # without those beyond it


@pytest.mark.parametrize(
    "seeds",
    [
        {"split": "0", "subset": TEN, "training_seed": list(map(str, range(10)))},
        {"split": "0", "subset": ["0", "0", "1"], "training_seed": ["0", "1", "0"]},
        {"split": "0", "subset": "0", "training_seed": TEN},
        {"split": ["0", "1"] * 2, "subset": ["0", "0", "1", "1"], "training_seed": ["0", "1"] * 2},
        {"split": "0", "subset": "0", "training_seed": "0"},
    ],
    ids=["one to one", "no whole square", "one thing", "three things", "one replicate"],
)
def test_other_replicates_are_no_crossing(seeds):
    assert Crossing.of(trial(**seeds)) is None


# Parts


def crossing(size, order=None):
    """A square of places; `order` is that in which replicates stand in it."""
    square = list(product(range(size), range(size)))
    return Crossing(("a", "b"), size, dict(zip(order or range(size**2), square, strict=True)))


def values_of(own, table):
    return {number: float(table[place]) for number, place in own.places.items()}


def by_least_squares(table):
    """The variances by fitting models with dummy variables, and comparing what these leave."""
    k = len(table)
    rows, columns = np.repeat(np.eye(k), k, axis=0), np.tile(np.eye(k), (k, 1))

    def left(*terms):
        design = np.hstack([np.ones((k * k, 1)), *terms])
        return float(np.sum((table.ravel() - design @ np.linalg.lstsq(design, table.ravel())[0]) ** 2))

    both = left(rows, columns) / (k - 1) ** 2
    first, second = ((left(other) - left(rows, columns)) / (k - 1) for other in (columns, rows))
    return (first - both) / k, (second - both) / k, both


@few
@given(data=st.data(), size=st.integers(2, 5))
def test_the_parts_are_those_of_an_analysis_of_variance(data, size):
    table = np.array(data.draw(st.lists(st.floats(0, 100), min_size=size**2, max_size=size**2))).reshape(size, size)
    own = crossing(size, data.draw(st.permutations(range(size**2))))
    found = parts(own, {**values_of(own, table), 1000: 99.0})
    assert (found.first, found.second, found.both) == pytest.approx(by_least_squares(table), rel=1e-6, abs=1e-6)
    assert found.total == pytest.approx(max(0.0, found.first) + found.second + found.both)
    assert sum(found.segments) == pytest.approx(found.total)
    assert min(found.segments) >= 0


effects = st.integers(2, 6).flatmap(
    lambda size: st.tuples(*[st.lists(st.floats(0, 50), min_size=size, max_size=size)] * 2)
)


@few
@given(effects=effects)
def test_effects_that_only_add_leave_nothing_for_both(effects):
    first, second = map(np.array, effects)
    own = crossing(len(first))
    found = parts(own, values_of(own, first[:, None] + second))
    expected = (first.var(ddof=1), second.var(ddof=1), 0.0)
    assert (found.first, found.second, found.both) == pytest.approx(expected, abs=1e-6)


def test_variances_that_values_were_drawn_with_are_recovered():
    """On average: of 12 × 12 values the first two have a relative error of √(2 / 11), of 600 such squares 1.7 %."""
    random, own, found = np.random.default_rng(), crossing(12), []
    for _ in range(600):
        first, second = random.normal(0, 2.0, (12, 1)), random.normal(0, 1.0, 12)
        each = parts(own, values_of(own, 70 + first + second + random.normal(0, 0.5, (12, 12))))
        found.append((each.first, each.second, each.both))
    assert np.mean(found, axis=0) == pytest.approx([4.0, 1.0, 0.25], rel=0.11)


def test_an_estimate_below_nothing_counts_in_a_mean_and_is_shown_as_nothing():
    own = crossing(2)
    found = parts(own, values_of(own, np.array([[0, 2], [2, 0]])))
    assert found == Parts(-2.0, -2.0, 4.0)
    assert (found.between, found.within, found.total, found.segments) == (0.0, 2.0, 2.0, (0.0, 0.0, 2.0))
    assert Parts.mean([found, Parts(4.0, 4.0, 1.0)]) == Parts(1.0, 1.0, 2.5)
    assert parts(own, values_of(own, np.full((2, 2), 70.0))) == Parts(0.0, 0.0, 0.0)


def test_the_mean_over_trials_finds_no_part_where_there_is_none():
    """Nine rows of 3 × 3 values without an effect of the first: cut at 0 before the mean, it would have 11 %."""
    random, own, found = np.random.default_rng(), crossing(3), []
    for _ in range(500):
        rows = [parts(own, values_of(own, random.normal(0, 1.0, (3, 3)))) for _ in range(9)]
        found.append(Parts.mean(rows))
    assert np.mean([each.first for each in found]) == pytest.approx(0.0, abs=0.03)
    assert np.mean([each.second + each.both for each in found]) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("missing", range(4))
def test_a_square_with_a_gap_has_no_parts(missing):
    own = crossing(2)
    values = values_of(own, np.array([[50.0, 52.0], [54.0, 57.0]]))
    assert parts(own, values) is not None
    assert parts(own, {number: value for number, value in values.items() if number != missing}) is None
