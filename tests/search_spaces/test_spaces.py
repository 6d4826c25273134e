"""Every file in search_spaces is found, built, costs what its header says, and trains."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import Any

import pytest
from helpers import asked, printed_of

from search_spaces.shared import protocol
from study import catalog
from study.errors import Refusal
from study.machine import Machine
from study.planning import tree
from study.space import Contrast, Integer, Real, Request, Resolved, Space, Trial
from trainables.config import Config
from trainables.networks.resnet32 import ResNet32
from trainables.recipe import Epoch, Origin
from trainables.work import WORK

NAMES = catalog.names()
FIGURES, PAPER_TABLES = [f"figure{n}" for n in range(1, 8)], [f"table{n}" for n in range(1, 15)]
LISTED = ["claims", *FIGURES, *PAPER_TABLES, "theorem1"]
CIFAR_TABLES = ["table1", "table6", "table7", "table9", "table11", "table12", "table13", "table14"]
CPU = Machine("cpu", 1)


def recipes(space: Space, replicates: int = 1) -> list[Resolved]:
    return [
        space.work.resolve(trial.config, r, CPU) for trial in space.trials for r in range(max(replicates, trial.least))
    ]


def made(name: str, **request: Any) -> Space:
    function, _ = catalog.find(name)
    return catalog.call(function, name, asked(**request))


def test_the_spaces_are_found() -> None:
    assert [*LISTED[:8], "sampler_search", *LISTED[8:]] == NAMES


@pytest.mark.parametrize("name", LISTED)
def test_the_header_says_what_it_costs(name: str) -> None:
    function, _ = catalog.find(name)
    header = inspect.getdoc(inspect.getmodule(function)) or ""
    digits, paper = made(name), made(name, paper=True)
    counts = [tuple(map(int, found)) for found in re.findall(r"(\d+)(?: epochs)? of (\d+)", header)]
    assert counts == [
        (len(tree.nodes(recipes(digits, 3))), sum(len(recipe.epochs) for recipe in recipes(digits, 3))),
        (len(tree.nodes(recipes(paper))), sum(len(recipe.epochs) for recipe in recipes(paper))),
    ]


@pytest.mark.parametrize("name", LISTED)
def test_every_space_has_the_short_protocol_and_says_so(name: str) -> None:
    """30 epochs of ResNet-32 on CIFAR; nothing of it stands in a column of the paper's."""
    space = made(name, short=True)
    configs = [Config.from_json(trial.config) for trial in space.trials]
    assert {(config.protocol, config.backbone) for config in configs} == {("short", ResNet32())}
    assert {config.milestones for config in configs} == {(20,)}
    assert {config.dataset for config in configs} <= {"cifar10", "cifar100"}
    assert all("30 of 200 epochs" in trial.column for trial in space.trials)
    assert not {trial.column for trial in space.trials} & set(space.source.columns)


@pytest.mark.parametrize("name", LISTED)
def test_on_the_paper_s_data_replicates_share_the_published_subset(name: str) -> None:
    """But where runs over subsets are what is measured: Table 13 and Theorem 1."""
    varies = {tuple(trial.config["varies"]) for trial in made(name, paper=True).trials}
    own = ("subset_seed", "seed") if name in ("table13", "theorem1") else ("seed",)
    assert varies == {own}
    assert {trial.config["subset_seed"] for trial in made(name, paper=True).trials} == {0}


@pytest.mark.parametrize("name", ["table8", "table10", "figure3", "figure4"])
def test_what_follows_single_images_has_one_split_and_one_subset(name: str) -> None:
    for vary in ((), ("all",), ("seed",)):
        assert {tuple(trial.config["varies"]) for trial in made(name, vary=vary).trials} == {("seed",)}
    for word in ("subset", "split", "crossed"):
        with pytest.raises(Refusal, match="This space compares replicates of one"):
            made(name, vary=(word,))


def _turns(recipe: Resolved) -> list[int]:
    """The first two epochs, the last, and those whose instruction differs in more than the lr from the one before."""
    plain = [{name: value for name, value in epoch.items() if name != "lr"} for epoch in recipe.epochs]
    turns = [number for number in range(1, len(plain)) if plain[number] != plain[number - 1]]
    return sorted({0, 1, *turns[:3], len(plain) - 1})


def test_every_kind_of_epoch_of_every_space_trains() -> None:
    """On digits; an instruction that several trials have, to the same kind of network, is trained once."""
    from trainables import loop
    from trainables.data import loading

    done: set[str] = set()
    for name in LISTED:
        for trial in made(name).trials:
            recipe = WORK.resolve(trial.config, 0, CPU)
            origin = Origin.from_json(recipe.origin)
            learner = loop.Learner(origin)
            for index in _turns(recipe):
                epoch = Epoch.from_json(recipe.epochs[index])
                alike = replace(epoch, lr=0.1, mixture=epoch.mixture and epoch.mixture.step)
                kind = f"{origin.backbone} {origin.head} {alike}"
                if kind not in done or epoch.reinitialise != "nothing":
                    images = loading.load(origin, epoch, None)
                    measures = loop.train_epoch(learner, images, epoch, index)
                    assert measures["lr"] == epoch.lr
                    assert loop.evaluate(learner, images, epoch)["test/top1"] >= 0
                    done.add(kind)
    assert len(done) > 40


def test_the_tables_of_one_data_set_share_their_trunk() -> None:
    """CIFAR-10 at IF 50 under the paper's protocol: 2707 epochs of 6200 (Table 8's ten runs not counted)."""
    names = ["table6", "table7", "table9", "table10", "table11"]
    found = [
        recipe for name in names for recipe in recipes(made(name, data=("cifar10",), imbalance=(50.0,), paper=True))
    ]
    assert (len(tree.nodes(found)), sum(len(recipe.epochs) for recipe in found)) == (2707, 6200)


def last_state(name: str, row: str) -> str:
    """The last state of a row on digits at IF 50, replicate 0."""
    (trial,) = [each for each in made(name).trials if each.row == row and each.axes["imbalance"] == 50.0]
    return WORK.resolve(trial.config, 0, CPU).keys[-1]


@pytest.mark.parametrize(
    "places",
    [
        [("table11", "IB, joint"), ("table9", "IB⇒IB"), ("table1", "Cross Entropy")],
        [("table11", "CR, joint"), ("table9", "IB⇒CR"), ("table6", "S = 1"), ("table7", "CR")],
        [("table10", "cardinality"), ("table9", "IB⇒CR"), ("table1", "Ours (S = 1)"), ("table13", "Ours (S = 1)")],
        [("table12", "Standard, CB"), ("table1", "Decouple-cRT"), ("table13", "Decouple-cRT")],
        [("table13", "Cross Entropy (IB only)"), ("table1", "τ-normalised"), ("table1", "Post-hoc logit adjustment")],
        [("table13", "BBN"), ("table1", "BBN"), ("figure1", "BBN")],
        [("table1", "CE-DRS"), ("table9", "IB⇒CB")],
        [("table1", "Balanced softmax"), ("table1", "Logit adjustment (τ = 1)")],
    ],
)
def test_what_two_tables_share_is_one_stored_state(places: list[tuple[str, str]]) -> None:
    assert len({last_state(name, row) for name, row in places}) == 1


@pytest.mark.parametrize("name", CIFAR_TABLES)
@pytest.mark.parametrize("imbalance", [10.0, 20.0, 50.0])
def test_digits_come_at_their_own_imbalance_factors(name: str, imbalance: float) -> None:
    function, _ = catalog.find(name)
    space = function(asked(imbalance=(imbalance,)))
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
        (trial,) = [t for t in function(asked(paper=True)).trials if (t.column, t.row) == (column, row)]
        assert printed_of(trial) == (figure, column)


@pytest.mark.parametrize("name", LISTED)
def test_every_space_knows_which_columns_are_on_the_paper_s_own_data(name: str) -> None:
    """Those that ``--paper`` gives, and no others: neither digits nor another imbalance factor."""
    paper = {trial.column for trial in made(name, paper=True).trials}
    assert set(made(name).source.columns) >= paper
    others = [made(name), *([made(name, data=("cifar10",), imbalance=(20.0,))] if name not in ("table10",) else [])]
    for space in others:
        assert not {trial.column for trial in space.trials} & set(space.source.columns)


def test_methods_are_compared_under_the_recipe_that_each_column_has() -> None:
    """Of mixed data: where only one has a recipe of its source, the row is called otherwise."""
    trials = [
        Trial(row, column, {}, {"method": row.removesuffix(" (source)")})
        for row, column in (("A", "x"), ("B", "x"), ("A", "y"), ("B (source)", "y"), ("C", "z"), ("A", "z"))
    ]
    assert protocol.against(trials, "A", "B", "C") == (
        Contrast("A", "B"),
        Contrast("A", "B (source)"),
        Contrast("A", "C"),
    )


def test_on_digits_the_paper_s_figure_is_labelled_as_another_data_set() -> None:
    function, _ = catalog.find("table9")
    for trial in function(Request()).trials:
        assert (trial.column, printed_of(trial)[1]) == ("digits-LT IF 50", "cifar10-LT IF 50")
    other = function(asked(data=("cifar10",), imbalance=(20.0,))).trials[0]
    assert other.printed is None


def test_a_space_refuses_a_trial_outside_its_domain() -> None:
    function, _ = catalog.find("table9")
    space = function(Request())
    stray = replace(space.trials[0], axes={**space.trials[0].axes, "first": "XX"})
    with pytest.raises(Refusal, match=r"first .*'XX'"):
        replace(space, trials=(stray,))


# The open search


def search(**request: Any) -> Space:
    function, _ = catalog.find("sampler_search")
    return function(asked(**request))


def test_the_search_runs_over_both_exponents_and_every_switch_epoch_of_its_data() -> None:
    space = search()
    assert space.trials == ()
    assert space.domain == {
        "first_q": Real(-2.0, 2.0, step=0.5),
        "switch_q": Real(-2.0, 2.0),
        "S": Integer(0, 49),
    }
    assert search(data=("cifar10",), paper=True).domain["S"] == Integer(0, 99)
    assert space.search is not None
    assert (space.search.trials, space.search.fresh, space.search.reported) == (50, 3, ("test/top1", "holdout/top1"))
    assert search(trials=7).search.trials == 7  # type: ignore[union-attr]


@pytest.mark.parametrize("S", [0, 1, 49])
def test_a_point_is_its_configuration_with_the_data_that_it_shares_with_all(S: int) -> None:
    space = search()
    assert space.search is not None
    point = space.search.point({"first_q": 0.5, "switch_q": -1.25, "S": S})
    config = Config.from_json(point.config)
    assert (config.first, config.switch, config.S, config.dataset) == (0.5, -1.25, S, "digits")
    assert point.axes["switch_q"] == -1.25
    recipe = space.work.resolve(point.config, 0, CPU)
    assert recipe.joints == (config.last_milestone, config.last_milestone + S)
    exponents = [Epoch.from_json(each).sampler for each in recipe.epochs]
    assert len(set(map(str, exponents))) == 2
    parts = next(number for number, each in enumerate(exponents) if each != exponents[0])
    assert parts == recipe.joints[1], "points with one first sampler are the same up to the switch"


def test_ib_cb_and_cr_are_the_exponents_1_0_and_minus_1() -> None:
    space = search()
    assert space.search is not None
    function, _ = catalog.find("table9")
    (cell,) = [trial for trial in function(Request()).trials if trial.row == "IB⇒CR"]
    point = space.search.point({"first_q": 1.0, "switch_q": -1.0, "S": 1})
    assert [space.work.resolve(each.config, 0, CPU).keys[-1] for each in (cell, point)] == [
        space.work.resolve(cell.config, 0, CPU).keys[-1]
    ] * 2


def test_objectives_are_measured_on_the_half_that_chooses() -> None:
    assert search().objectives == ("val/top1",)
    assert search(objectives=("top1", "few")).objectives == ("val/top1", "val/few")


@pytest.mark.parametrize("name", ["top5", "", "val/top1", "test/top1"])
def test_an_unknown_objective_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(
        Refusal, match=r"^--objectives must be some of top1, many, medium, few, worst, separated by commas \(got "
    ):
        search(objectives=("top1", name))


def test_an_objective_over_no_class_is_refused() -> None:
    """At IF 10, digits-LT has more than 10 images of every class."""
    with pytest.raises(Refusal, match=r"^--objectives must be some of top1, many, medium, worst, .* \(got 'few'\)$"):
        search(objectives=("few",), imbalance=(10.0,))
    assert search(objectives=("medium",), imbalance=(10.0,)).objectives == ("val/medium",)


@pytest.mark.parametrize("request_", [{"data": ("digits", "cifar10")}, {"imbalance": (10.0, 50.0)}])
def test_a_search_is_on_one_data_set_at_one_imbalance_factor(request_: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="one data set at one imbalance factor"):
        search(**request_)


def test_the_measures_that_a_search_speaks_of_are_measured() -> None:
    from trainables import loop
    from trainables.data import loading

    space = search(objectives=("top1", "many", "medium", "few", "worst"))
    assert space.search is not None
    recipe = space.work.resolve(space.search.base, 0, CPU)
    origin, epoch = Origin.from_json(recipe.origin), Epoch.from_json(recipe.epochs[0])
    images = loading.load(origin, epoch, None)
    learner = loop.Learner(origin)
    loop.train_epoch(learner, images, epoch, 0)
    assert loop.evaluate(learner, images, epoch).keys() >= {*space.objectives, *space.search.reported}
