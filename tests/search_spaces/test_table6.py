"""Table 6: the switch offset, and that it makes no difference."""

import pytest
from helpers import by_place, printed_of, space

from study.space import Contrast


@pytest.mark.parametrize(
    ("S", "cifar10", "cifar100"),
    [(0, 82.6, 49.7), (1, 82.9, 49.5), (5, 82.9, 49.3), (10, 82.8, 49.1), (50, 82.6, 49.1)],
)
def test_the_paper_s_figures(S, cifar10, cifar100):
    trials = by_place("table6", paper=True)
    assert printed_of(trials[f"S = {S}", "cifar10-LT IF 50"])[0] == cifar10
    assert printed_of(trials[f"S = {S}", "cifar100-LT IF 50"])[0] == cifar100


def test_the_digits_have_their_own_values_of_s_and_no_figure_where_the_paper_has_none():
    trials = by_place("table6")
    assert {row: printed_of(trial)[0] for (row, _), trial in trials.items()} == {
        "S = 0": 82.6,
        "S = 1": 82.9,
        "S = 5": 82.9,
        "S = 10": 82.8,
        "S = 25": None,
    }


@pytest.mark.parametrize(("paper", "last"), [(False, "S = 25"), (True, "S = 50")])
def test_insensitivity_is_equivalence_with_s_of_1_for_every_other_s(paper, last):
    contrasts = space("table6", paper=paper).contrasts
    assert contrasts[0] == Contrast(better="S = 0", worse="S = 1", margin=1.0)
    assert [each.better for each in contrasts] == ["S = 0", "S = 5", "S = 10", last]


def test_offsets_beyond_the_last_epoch_are_left_out():
    """ImageNet-LT has 90 epochs and its last milestone at 80."""
    assert [row for row, _ in by_place("table6", data=("imagenet-lt",))] == ["S = 0", "S = 1", "S = 5"]
