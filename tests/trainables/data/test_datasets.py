"""The declared facts of data sets."""

import pytest

from study.errors import Refusal
from trainables.config import Config
from trainables.data.datasets import facts, label, names


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
    counts = facts(dataset).counts(imbalance)
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
    assert facts(dataset).counts(imbalance) == counts


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
    shots = facts(dataset).shots(imbalance)
    assert tuple(map(len, shots.values())) == sizes
    assert [rank for split in shots.values() for rank in split] == list(range(facts(dataset).classes))


def test_a_name_that_no_data_set_has_is_refused_with_those_that_there_are():
    with pytest.raises(
        Refusal, match=r"^dataset must be cifar10, .*, digits, .*, folder:PATH, package.*\(got 'cifar'\)$"
    ):
        facts("cifar")


def test_our_data_sets_have_names_and_are_called_by_them():
    assert names() == ("cifar10", "cifar100", "digits", "imagenet-lt", "inaturalist2018", "places-lt")
    assert [label(name) for name in names()] == list(names())
    assert all(facts(name) is facts(name) for name in names())


# Data sets of the user's own

OWN = """
from trainables.data.kinds import Files, Small


class Mine(Small):
    classes = 3
    largest = 16
    channels = 1
    side = 8
    mean = (0.5,)
    std = (0.25,)
    fingerprint = "mine"

    def read(self, root, split_seed):
        return None


class Unfinished(Small):
    pass


class Bare(Small):
    def read(self, root, split_seed):
        return None


class Asking(Mine):
    def __init__(self, path):
        self.path = path


def function():
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the path of a file of data sets in the current folder."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return path


def test_a_class_of_a_file_is_a_data_set_called_by_its_name(own):
    known = facts("./own.py:Mine")
    assert known is facts(f"{own}:Mine")
    assert known.counts(4.0) == (16, 8, 4)
    assert label(f"{own}:Mine") == "Mine"


def test_a_configuration_names_it_by_its_whole_path(own):
    config = Config(dataset="./own.py:Mine", imbalance=16)
    assert config.dataset == f"{own}:Mine"
    assert Config.from_json(config.to_json()) == config


def test_a_class_of_a_module_is_a_data_set():
    known = facts("trainables.data.cifar10:CIFAR10")
    assert known.counts(50) == facts("cifar10").counts(50)
    assert label("trainables.data.cifar10:CIFAR10") == "CIFAR10"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("", "must be cifar10"),
        ("folder", "must be cifar10"),
        ("Digits", "must be cifar10"),
        ("./own.py", r"^dataset must name a dataset of the file \(got '.*own.py'\)\. Choose .*own.py:Mine or "),
        ("./own.py:Missing", "must be a subclass of trainables.data.facts.Dataset that defines all abstract methods"),
        ("./own.py:function", "must be a subclass of trainables.data.facts.Dataset"),
        ("./own.py:Unfinished", "defines all abstract methods"),
        ("./own.py:Asking", r"^data set '.*own.py:Asking' cannot be constructed without arguments: .*path"),
        ("./own.py:Bare", "must declare the attributes classes, largest, "),
        ("./none.py:Mine", "There is no file"),
        ("no.such_module:Mine", "There is no module no"),
        ("digits:Digits", "must be cifar10"),
    ],
)
def test_a_reference_to_no_data_set_is_refused(own, name, remedy):
    with pytest.raises(Refusal, match=remedy) as refused:
        facts(name)
    assert refused.value.field == "dataset"
    assert "\n" not in str(refused.value)
