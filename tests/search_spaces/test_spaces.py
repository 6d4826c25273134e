"""Every file in search_spaces is found, built, costs what its header says, and trains."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from study import catalog, tree
from study.plan import Machine, Request, Resolved, Space
from trainables.config import Config
from trainables.recipe import Epoch, Origin

NAMES = catalog.names()
CPU = Machine("cpu", 1)


def recipes(space: Space, replicates: int = 1) -> list[Resolved]:
    return [space.work.resolve(trial.config, r, CPU) for trial in space.trials for r in range(replicates)]


def test_the_spaces_are_found() -> None:
    assert NAMES == ["table6", "table7", "table9"]


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_what_it_costs(name: str) -> None:
    function, _ = catalog.find(name)
    header = inspect.getdoc(inspect.getmodule(function)) or ""
    digits, paper = function(Request()), function(Request(paper=True))
    counts = [tuple(map(int, found)) for found in re.findall(r"(\d+)(?: epochs)? of (\d+)", header)]
    assert counts == [
        (len(tree.nodes(recipes(digits, 3))), sum(len(recipe.epochs) for recipe in recipes(digits, 3))),
        (len(tree.nodes(recipes(paper))), sum(len(recipe.epochs) for recipe in recipes(paper))),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_two_first_and_last_epochs_of_every_trial_train(name: str) -> None:
    from trainables import data, loop

    function, _ = catalog.find(name)
    for trial in function(Request()).trials:
        recipe = function(Request()).work.resolve(trial.config, 0, CPU)
        origin = Origin.from_json(recipe.origin)
        images = data.load(origin.dataset, origin.imbalance, 0, 0, Epoch.from_json(recipe.epochs[0]).crop, "cpu", None)
        learner = loop.Learner(origin)
        for index in (0, 1, len(recipe.epochs) - 1):
            epoch = Epoch.from_json(recipe.epochs[index])
            measures: Mapping[str, object] = loop.train_epoch(learner, images, epoch, index)
            assert measures["lr"] == recipe.epochs[index]["lr"]
        assert loop.evaluate(learner, images, epoch)["test/top1"] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("imbalance", [10.0, 20.0, 50.0])
def test_digits_come_at_their_own_imbalance_factors(name: str, imbalance: float) -> None:
    function, _ = catalog.find(name)
    space = function(Request(imbalance=(imbalance,)))
    assert {Config.from_json(trial.config).imbalance for trial in space.trials} == {imbalance}


def test_the_paper_s_figures_stand_beside_their_own_columns() -> None:
    """Some of the printed tables, read row by row from the paper."""
    printed = {
        ("table9", "cifar10-LT IF 100", "CR⇒IB"): 63.8,
        ("table9", "cifar10-LT IF 50", "IB⇒CR"): 82.9,
        ("table9", "cifar100-LT IF 100", "CR⇒CR"): 22.9,
        ("table9", "cifar100-LT IF 10", "CB⇒CB"): 56.9,
        ("table6", "cifar10-LT IF 50", "S = 0"): 82.6,
        ("table6", "cifar100-LT IF 50", "S = 50"): 49.1,
        ("table7", "cifar10-LT IF 50", "CR for 5 epochs, then CB"): 79.2,
    }
    for (name, column, row), figure in printed.items():
        function, _ = catalog.find(name)
        (trial,) = [t for t in function(Request(paper=True)).trials if (t.column, t.row) == (column, row)]
        assert (trial.paper, trial.paper_of) == (figure, column)


def test_on_digits_the_paper_s_figure_is_labelled_as_another_data_set() -> None:
    function, _ = catalog.find("table9")
    for trial in function(Request()).trials:
        assert (trial.column, trial.paper_of) == ("digits-LT IF 50", "cifar10-LT IF 50")
    other = function(Request(data=("cifar10",), imbalance=(20.0,))).trials[0]
    assert (other.paper, other.paper_of) == (None, "")


def test_a_space_refuses_a_trial_outside_its_domain() -> None:
    from study.refusal import Refusal

    function, _ = catalog.find("table9")
    space = function(Request())
    stray = replace(space.trials[0], axes={**space.trials[0].axes, "first": "XX"})
    with pytest.raises(Refusal, match="first = 'XX'"):
        replace(space, trials=(stray,))
