"""What is declared of data sets."""

import pytest

from study.errors import Refusal
from trainables.data.datasets import DATASETS, facts


@pytest.mark.parametrize(
    ("dataset", "imbalance", "total", "largest", "smallest"),
    [
        ("cifar10", 10, 20431, 5000, 500),
        ("cifar10", 50, 13996, 5000, 100),
        ("cifar10", 100, 12406, 5000, 50),
        ("cifar100", 10, 19573, 500, 50),
        ("cifar100", 50, 12608, 500, 10),
        ("cifar100", 100, 10847, 500, 5),
        ("digits", 1, 1240, 124, 124),
    ],
)
def test_totals(dataset, imbalance, total, largest, smallest):
    counts = DATASETS[dataset].counts(imbalance)
    assert (sum(counts), counts[0], counts[-1]) == (total, largest, smallest)


@pytest.mark.parametrize(
    ("dataset", "imbalance", "counts"),
    [
        ("cifar10", 10, (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500)),
        ("cifar10", 50, (5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100)),
        ("cifar10", 100, (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)),
        ("digits", 50, (124, 80, 51, 33, 21, 14, 9, 5, 3, 2)),
    ],
)
def test_counts(dataset, imbalance, counts):
    assert DATASETS[dataset].counts(imbalance) == counts


@pytest.mark.parametrize(
    ("dataset", "imbalance", "sizes"),
    [
        ("cifar100", 10, (69, 31, 0)),
        ("cifar100", 50, (41, 41, 18)),
        ("cifar100", 100, (35, 35, 30)),
        ("digits", 50, (3, 3, 4)),
    ],
)
def test_shots(dataset, imbalance, sizes):
    shots = DATASETS[dataset].shots(imbalance)
    assert tuple(map(len, shots.values())) == sizes
    assert [rank for split in shots.values() for rank in split] == list(range(DATASETS[dataset].classes))


def test_a_name_that_no_data_set_has_is_refused_with_those_that_there_are():
    with pytest.raises(Refusal, match=r"^dataset = 'cifar': one of digits, cifar10, .* or folder:PATH would do$"):
        facts("cifar")
