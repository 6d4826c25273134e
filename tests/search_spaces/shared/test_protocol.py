"""What a request means for a table: protocols, columns, what replicates vary, and the recipes of the sources."""

import pytest
from helpers import asked, printed_of

from search_spaces.shared.protocol import base, bases, column, shortened, trial, under_recipe, varied
from study.errors import Refusal
from study.space import Request
from trainables.config import SEEDS, Config
from trainables.method import find
from trainables.networks.resnet8 import ResNet8
from trainables.networks.resnet32 import ResNet32
from trainables.networks.resnet50 import ResNet50
from trainables.schedule import epochs

CIFAR_50 = (("cifar100", 100.0), ("cifar10", 50.0))
LARGE = (("inaturalist2018", 500.0),)


def test_base_is_the_protocol_of_each_data_set():
    assert base("cifar100", 10) == Config(dataset="cifar100", imbalance=10.0)
    digits = base("digits")
    assert (digits.backbone, digits.epochs, digits.milestones, digits.warmup) == (ResNet8(), 100, (50,), 5)
    assert (digits.batch_size, digits.lr, digits.imbalance) == (64, 0.1, 50.0)


@pytest.mark.parametrize(
    ("dataset", "imbalance", "lr", "batch_size", "weight_decay"),
    [
        ("imagenet-lt", 256.0, 0.2, 256, 5e-4),
        ("places-lt", 996.0, 0.2, 256, 5e-4),
        ("inaturalist2018", 500.0, 0.05, 512, 1e-4),
    ],
)
def test_data_that_are_long_tailed_by_nature_have_a_protocol_of_90_epochs(
    dataset, imbalance, lr, batch_size, weight_decay
):
    config = base(dataset)
    assert (config.imbalance, config.backbone, config.epochs, config.milestones) == (
        imbalance,
        ResNet50(),
        90,
        (60, 80),
    )
    assert (config.lr, config.batch_size, config.weight_decay, config.warmup) == (lr, batch_size, weight_decay, 0)


# The short protocol


def test_the_short_protocol_is_the_paper_s_in_30_epochs_with_the_milestone_at_20():
    short, whole = shortened(base("cifar10")), base("cifar10")
    changed = {name: value for name, value in short.to_json().items() if value != whole.to_json()[name]}
    assert changed == {"protocol": "short", "epochs": 30, "milestones": [20]}
    made = epochs(find("switching")(short))
    assert [epoch.sampler for epoch in made] == [1.0] * 21 + [-1.0] * 9
    assert [made[index].lr for index in (0, 4, 19, 20, 29)] == pytest.approx([0.02, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("paper", "request_", "places"),
    [
        (CIFAR_50, {}, [("cifar10", 50.0)]),
        (CIFAR_50[:1], {}, [("cifar100", 100.0)]),
        (LARGE, {}, [("cifar10", 50.0)]),
        (CIFAR_50, {"data": ("cifar100",)}, [("cifar100", 50.0)]),
        (LARGE, {"data": ("cifar10", "cifar100"), "imbalance": (10.0,)}, [("cifar10", 10.0), ("cifar100", 10.0)]),
    ],
)
def test_the_short_protocol_is_of_cifar_at_if_50_if_the_table_has_that(paper, request_, places):
    made = bases(asked(short=True, **request_), paper)
    assert [(config.dataset, config.imbalance) for config in made] == places
    assert {(config.protocol, config.backbone, config.epochs) for config in made} == {("short", ResNet32(), 30)}


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"paper": True}, r"--short must be left out with --paper \(got True\)"),
        ({"data": ("digits",)}, r"--data must be cifar10 or cifar100 with --short \(got 'digits'\)"),
        ({"data": ("cifar10", "imagenet-lt")}, r"--data must be .* with --short \(got 'imagenet-lt'\)"),
    ],
)
def test_the_short_protocol_is_refused_for_what_has_none(request_, line):
    with pytest.raises(Refusal, match=line):
        bases(asked(short=True, **request_), CIFAR_50)


def test_a_short_column_says_so_and_the_paper_s_figure_is_of_another():
    whole, short = base("cifar10"), shortened(base("cifar10"))
    assert (column(whole), column(short)) == ("cifar10-LT IF 50", "cifar10-LT IF 50, 30 of 200 epochs")
    made = trial(short, "IB⇒CR", {}, {("cifar10", 50.0): 82.9})
    assert (made.column, printed_of(made)) == (column(short), (82.9, column(whole)))


# What replicates vary


@pytest.mark.parametrize(
    ("dataset", "vary", "varies"),
    [
        ("digits", (), SEEDS),
        ("digits", ("all",), SEEDS),
        ("digits", ("split",), ("split_seed",)),
        ("digits", ("seed", "split"), ("split_seed", "seed")),
        ("cifar10", (), ("seed",)),
        ("cifar10", ("seed",), ("seed",)),
        ("cifar10", ("subset",), ("subset_seed",)),
        ("cifar100", ("all",), ("subset_seed", "seed")),
        ("cifar100", ("crossed",), ("subset_seed", "seed")),
        ("inaturalist2018", (), ("seed",)),
        ("inaturalist2018", ("all",), ("seed",)),
    ],
)
def test_replicates_vary_the_training_seed_on_the_paper_s_data_and_all_on_digits(dataset, vary, varies):
    config = varied(base(dataset), vary)
    assert (config.varies, config.crossed) == (varies, vary == ("crossed",))


@pytest.mark.parametrize(
    ("dataset", "vary", "words"),
    [
        ("cifar10", ("split",), r"must be subset, seed, crossed or all \(got 'split'\)\. cifar10 has no split"),
        ("imagenet-lt", ("subset",), r"must be seed or all \(got 'subset'\)\. imagenet-lt has no subset"),
        ("imagenet-lt", ("crossed",), r"must be seed or all \(got 'crossed'\)\. imagenet-lt has no subset"),
    ],
)
def test_what_the_data_do_not_have_cannot_vary(dataset, vary, words):
    with pytest.raises(Refusal, match=words) as refused:
        varied(base(dataset), vary)
    assert refused.value.field == "--vary"


def test_what_a_table_wants_alike_is_alike():
    alike = ("split", "subset")
    assert varied(base("digits"), (), alike).varies == ("seed",)
    assert varied(base("digits"), ("all",), alike).varies == ("seed",)
    assert varied(base("digits"), (), ("split",)).varies == ("subset_seed", "seed")
    with pytest.raises(Refusal, match=r"must be seed or all \(got 'crossed'\)\. This space compares replicates of one"):
        varied(base("cifar10"), ("crossed",), alike)


# Recipes of the sources


SOURCE = asked(recipe="source")


def test_a_row_says_what_of_it_is_its_source_s():
    large, imagenet = base("inaturalist2018"), base("imagenet-lt")
    named = [
        ("bbn", large, "BBN (source)"),
        ("bbn", imagenet, "BBN (source: iNaturalist's)"),
        ("crt", large, "Decouple-cRT (second stage: source)"),
        ("crt", base("cifar10"), "Decouple-cRT (source)"),
        ("crt", base("digits"), "Decouple-cRT (source: CIFAR's, 200 epochs)"),
        ("ce_drw", large, "CE-DRW (common: no source recipe)"),
        ("balanced_softmax", base("cifar10"), "Balanced softmax (common: no source recipe)"),
        ("switching", large, "Ours (S = 1)"),
    ]
    for reference, made, row in named:
        method = find(reference)
        config, name = under_recipe(SOURCE, method, made)
        assert name == row
        assert config.protocol == ("source" if "source" in row and "no source" not in row else "common")
        assert under_recipe(Request(), method, made) == (method(made), method(made).method)


def test_a_source_s_protocol_is_no_short_one():
    with pytest.raises(Refusal, match=r"-o recipe must be common with --short \(got 'source'\)"):
        under_recipe(asked(recipe="source", short=True), find("bbn"), shortened(base("cifar10")))


def test_an_unknown_recipe_is_refused():
    with pytest.raises(Refusal, match="common"):
        under_recipe(asked(recipe="mine"), find("bbn"), Config())
