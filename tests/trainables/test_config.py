import json
import math
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.shared.protocol import base
from study.errors import Refusal
from trainables.config import SEEDS, Config, crossing
from trainables.exponents import resolve_sampler, sampler_name
from trainables.losses.cross_entropy import CrossEntropy
from trainables.losses.focal import Focal
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.losses.ldam import LDAM
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.networks.cosine import Cosine
from trainables.networks.linear import Linear
from trainables.networks.rare import Rare
from trainables.networks.resnet8 import ResNet8
from trainables.networks.resnet32 import ResNet32
from trainables.networks.two_branches import TwoBranches

WRONG = [
    ("dataset", "cifar11", "cifar10, cifar100, digits"),
    ("dataset", ["cifar10"], "a name"),
    ("dataset", "folder:cats", "an absolute path"),
    ("imbalance", 0.5, "≥ 1"),
    ("imbalance", math.nan, "≥ 1"),
    ("imbalance", math.inf, "≥ 1"),
    ("imbalance", "50", "≥ 1"),
    ("imbalance", True, "≥ 1"),
    ("imbalance", 5001.0, "at most 5000"),
    ("backbone", "vgg16", "resnet32, resnet50, resnet8, resnext11, resnext50"),
    ("backbone", 32, "name a backbone"),
    ("method", "", "a name"),
    ("method", None, "a name"),
    ("first", "IR", "IB, CB, CR"),
    ("first", None, "finite exponent q"),
    ("first", True, "finite exponent q"),
    ("first", math.nan, "finite exponent q"),
    ("switch", -math.inf, "finite exponent q"),
    ("switch", (0.0,) * 10, "≥ 0 with a sum above 0"),
    ("switch", (-1.0,) + (1.0,) * 9, "≥ 0 with a sum above 0"),
    ("switch", (math.nan,) * 10, "≥ 0 with a sum above 0"),
    ("switch", (), "≥ 0 with a sum above 0"),
    ("switch", ("IB", "CR"), "≥ 0 with a sum above 0"),
    ("S", -1, "≥ 0"),
    ("S", 1.0, "≥ 0"),
    ("S", True, "≥ 0"),
    ("S", 100, "must be at most 99"),
    ("switch_epoch", 200, "from 0 to 199"),
    ("switch_epoch", -1, "from 0 to 199"),
    ("switch_epoch", 160.0, "from 0 to 199"),
    ("then", "CR", "pairs"),
    ("then", ("CR",), "pairs"),
    ("then", ((0, "CR"),), "≥ 1"),
    ("then", ((True, "CR"),), "≥ 1"),
    ("then", ((5, "CR", 5),), "pairs"),
    ("joint", 0, "true or false"),
    ("reinitialise", "classifier", "true or false"),
    ("loss", "hinge", "focal"),
    ("loss", ["focal"], "cross_entropy"),
    ("loss", None, "cross_entropy"),
    ("loss", "ldam(0.3)", "NAME(parameter=value"),
    ("loss", "ldam(max_margin=0.3", "NAME(parameter=value"),
    ("loss", Mixup(), "name a loss"),
    ("mixture", "cutmix", "mixup"),
    ("mixture", 0.2, "name a mixture"),
    ("beta", 1.0, "< 1"),
    ("beta", -0.1, "≥ 0"),
    ("switch_beta", 1, "< 1"),
    ("epochs", 0, "≥ 1"),
    ("epochs", 200.0, "≥ 1"),
    ("epochs", True, "≥ 1"),
    ("batch_size", 0, "≥ 1"),
    ("lr", -0.1, "≥ 0"),
    ("lr", math.inf, "≥ 0"),
    ("lr", "0.1", "≥ 0"),
    ("milestones", 100, "whole numbers"),
    ("milestones", (100, 50), "increasing"),
    ("milestones", (50, 50), "increasing"),
    ("milestones", (50, 200), "increasing whole numbers below 200"),
    ("milestones", (-1,), "whole numbers"),
    ("milestones", (True,), "whole numbers"),
    ("gamma", math.nan, "≥ 0"),
    ("warmup", -1, "≥ 0"),
    ("momentum", 1.0, "< 1"),
    ("nesterov", 1, "true or false"),
    ("weight_decay", -2e-4, "≥ 0"),
    ("drop_last", "yes", "true or false"),
    ("replacement", None, "true or false"),
    ("retrain", "RC", "IB, CB, CR"),
    ("retrain", (0.0,) * 10, "with a sum above 0"),
    ("retrains", "backbone", "classifier, scale"),
    ("retrain_epochs", 0, "≥ 1"),
    ("retrain_lr", -0.1, "≥ 0"),
    ("retrain_weight_decay", math.inf, "≥ 0"),
    ("retrain_batch", -1, "≥ 0"),
    ("retrain_schedule", "linear", "step, cosine"),
    ("fixed_batch_norm", True, "train, frozen"),
    ("measures", "fit", "some of fit, events"),
    ("measures", ("train",), "some of fit, events"),
    ("measures", [["fit"]], "some of fit, events"),
    ("precision", "fp16", "fp32, tf32, bf16"),
    ("split_seed", -1, "≥ 0 and ≤ 4294967295"),
    ("subset_seed", 0.5, "≥ 0 and ≤ 4294967295"),
    ("seed", False, "≥ 0 and ≤ 4294967295"),
    ("seed", 2**32, "≥ 0 and ≤ 4294967295"),
    ("varies", "seed", "some of split_seed, subset_seed, seed"),
    ("varies", ("lr",), "some of split_seed, subset_seed, seed"),
    ("crossed", 1, "true or false"),
    ("crossed", True, "must be false unless varies is subset_seed, seed"),
    ("protocol", "paper", "common, source, short"),
    ("warmup_from", 1.5, "from 0 to 1"),
    ("warmup_from", "third", "from 0 to 1"),
]


def refused(field, **given):
    """Return the refusal of a configuration and its message, one line that begins with the field."""
    with pytest.raises(Refusal) as refusal:
        Config(**given)
    assert refusal.value.field == field
    line = str(refusal.value)
    assert line.startswith(f"{field} must ")
    assert "\n" not in line
    return refusal.value, line


@pytest.mark.parametrize(("field", "value", "remedy"), WRONG)
def test_a_wrong_value_is_refused_in_one_line_with_what_would_do(field, value, remedy):
    refusal, line = refused(field, **{field: value})
    assert [refusal.value] == [value]  # in lists, for NaN is itself but does not equal itself
    assert repr(value) in line
    assert remedy in line


def test_every_field_has_a_wrong_value_above():
    assert {field for field, _, _ in WRONG} == {field.name for field in fields(Config)}


@pytest.mark.parametrize(
    ("field", "part", "name", "value", "remedy"),
    [
        ("loss", "focal", "gamma", -0.5, "≥ 0"),
        ("loss", "sigmoid_focal", "gamma", math.inf, "≥ 0"),
        ("loss", "ldam", "max_margin", -0.5, "≥ 0"),
        ("loss", "logit_adjusted", "tau", math.nan, "finite"),
        ("loss", "logit_adjusted", "tau", "1", "finite"),
        ("loss", "label_aware_smoothing", "largest", 1.0, "< 1"),
        ("loss", "label_aware_smoothing", "smallest", math.nan, "≥ 0 and < 1"),
        ("loss", "label_aware_smoothing", "share", "label", "others, all"),
        ("mixture", "mixup", "a", -0.2, "> 0"),
        ("mixture", "mixup", "a", 0.0, "> 0"),
        ("mixture", "mixup", "a", math.inf, "finite"),
        ("mixture", "trainables.methods.bbn:Bilateral", "alpha", 1.5, "a number from 0 to 1"),
        ("mixture", "trainables.methods.bbn:Bilateral", "alpha_epochs", 200.0, "whole number ≥ 1"),
        (
            "mixture",
            "trainables.methods.bbn:Bilateral",
            "alpha_epochs",
            199,
            "must be none or at least 200, the number of epochs",
        ),
        ("backbone", "resnet32", "blocks", 0, "≥ 1"),
        ("backbone", "resnet32", "width", 1, "≥ 2"),
    ],
)
def test_a_wrong_parameter_of_a_part_is_refused_by_its_own_name(field, part, name, value, remedy):
    refusal, line = refused(f"{field}.{name}", switch="IB", **{field: {"part": part, name: value}})
    assert [refusal.value] == [value]
    assert remedy in line


def test_a_parameter_that_a_part_has_not_is_refused_with_those_that_it_has():
    _, line = refused("parameter of loss ldam", loss="ldam(margin=0.3)")
    assert line == "parameter of loss ldam must be max_margin (got 'margin')"
    _, line = refused("parameter of backbone resnet8", backbone={"part": "resnet8", "width": 3})
    assert line == "parameter of backbone resnet8 must be left out (got 'width'). The backbone has no parameters"


@pytest.mark.parametrize(
    ("wrong", "field", "remedy"),
    [
        ({"nesterov": True, "momentum": 0.0}, "nesterov", "must be false unless momentum is above 0"),
        (
            {"drop_last": True, "batch_size": 20000},
            "batch_size",
            "must be at most 13996 with drop_last (got 20000). An epoch has 13996 images",
        ),
        ({"drop_last": True, "retrain_batch": 20000}, "retrain_batch", "must be at most 13996 with drop_last"),
        ({"switch": (1.0,) * 9}, "switch", "must have 10 class weights, one per class (got 9)"),
        ({"retrain": (1.0,) * 9}, "retrain", "must have 10 class weights"),
        ({"then": ((5, "RC"),)}, "then", "IB, CB, CR"),
        ({"then": ((5, (1.0,) * 11),)}, "then", "must have 10 class weights, one per class (got 11)"),
        (
            {"S": 95, "then": ((5, "CR"),)},
            "S",
            "must be at most 94 (got 95). The last sampler would start at epoch 200",
        ),
        ({"then": ((60, "CB"), (60, "CR"))}, "S", "must leave the last sampler at least one epoch (got 1)"),
        (
            {"then": ((60, "CB"), (60, "CR"))},
            "S",
            "but the number of epochs is 200. Use more epochs or an earlier milestone",
        ),
        ({"epochs": 101, "S": 1}, "S", "at most 0"),
        ({"switch_epoch": 195, "then": ((5, "CR"),)}, "switch_epoch", "from 0 to 194"),
        (
            {"dataset": "digits", "imbalance": 125},
            "imbalance",
            "must be at most 124 (got 125.0). digits has 124 training images per class",
        ),
        ({"dataset": "imagenet-lt"}, "imbalance", "must be 256 (got 50.0). imagenet-lt is long-tailed by nature"),
        ({"lr": 1e300, "gamma": 1e300}, "gamma", "must be smaller (got 1e+300). The lr must stay finite"),
        ({"loss": "ldam", "retrain": "CB", "retrains": "scale"}, "retrains", "Only a linear head can be scaled"),
        (
            {"mixture": Bilateral(), "retrain": "CB", "retrains": "scale"},
            "retrains",
            "must be classifier (got 'scale')",
        ),
        (
            {"mixture": Bilateral(), "retrain": "CB"},
            "retrain",
            "must be none (got 'CB'). A mixture of two samplers has",
        ),
        ({"mixture": Bilateral(), "then": ((5, "CR"),)}, "then", "must be empty (got ((5, 'CR'),)). A mixture of two"),
        ({"mixture": Bilateral(), "joint": False}, "joint", "must be true (got False). A mixture of two samplers"),
        ({"mixture": Bilateral(), "reinitialise": True}, "reinitialise", "must be false (got True). A mixture of two"),
        (
            {"mixture": Bilateral(), "switch_beta": 0.99},
            "switch_beta",
            "must be 0 (got 0.99). A mixture of two samplers",
        ),
        ({"mixture": Bilateral()}, "switch", "must be the same sampler as first (got 'CR'). A mixture of two samplers"),
        (
            {"mixture": Bilateral(), "switch": "IB", "loss": "ldam"},
            "loss",
            "must be a loss with a linear head (got 'ldam')",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_refused(wrong, field, remedy):
    _, line = refused(field, **wrong)
    assert remedy in line


@pytest.mark.parametrize(
    "right",
    [
        {"S": 99},
        {"S": 94, "then": ((5, "CR"),)},
        {"epochs": 1, "milestones": (), "S": 0},
        {"imbalance": 1},
        {"imbalance": 5000},
        {"lr": 0, "momentum": 0, "gamma": 1},
        {"switch": [0] * 9 + [1]},
        {"switch_epoch": 0},
        {"switch_epoch": 199, "S": 100},
        {"switch_epoch": 194, "then": ((5, "CR"),)},
        {"drop_last": True, "retrain_batch": 13996},
        {"loss": LabelAwareSmoothing(0, 0.999)},
        {"beta": 0.999999, "loss": LogitAdjusted(tau=-1), "mixture": Mixup(0.2)},
        {"loss": "ldam", "retrain": "CB"},
        {"loss": "sigmoid_focal", "retrain": "CB", "retrains": "scale"},
        {"retrains": "scale", "loss": "ldam"},
        {"measures": [], "varies": []},
        {"varies": ["seed", "subset_seed"], "crossed": True},
        {"warmup_from": 0},
        {"warmup_from": 1},
        {"mixture": Bilateral(alpha_epochs=200), "switch": "IB"},
        {"seed": 2**32 - 1},
    ],
)
def test_the_last_value_inside_each_limit_is_taken(right):
    Config(**right)


# Parts


@pytest.mark.parametrize(
    ("field", "ways", "part"),
    [
        ("loss", ("ldam", "ldam()", {"part": "ldam"}, "trainables.losses.ldam:LDAM"), LDAM(max_margin=0.5)),
        ("loss", ("ldam(max_margin=0.3)", "ldam( max_margin = .3 )", {"part": "ldam", "max_margin": 0.3}), LDAM(0.3)),
        ("loss", ("label-aware-smoothing", "label_aware_smoothing"), LabelAwareSmoothing()),
        ("backbone", ("resnet8", {"part": "resnet8"}), ResNet8()),
        ("backbone", ("resnet32(blocks=3)", {"part": "resnet32", "blocks": 3}), ResNet32(blocks=3)),
        ("mixture", ("mixup(a=0.2)", {"part": "mixup", "a": 0.2}), Mixup(0.2)),
    ],
)
def test_a_part_is_itself_however_it_is_called(field, ways, part):
    for way in (*ways, part):
        assert getattr(Config(**{field: way}), field) == part


def test_the_defaults_are_parts():
    config = Config()
    assert (config.loss, config.backbone, config.mixture) == (CrossEntropy(), ResNet32(), None)


def test_equal_parts_are_one_configuration():
    one, other = Config(loss=LogitAdjusted(tau=1)), Config(loss={"part": "logit_adjusted", "tau": 1.0})
    assert (one, hash(one), repr(one)) == (other, hash(other), repr(other))
    assert math.copysign(1, Config(loss=LogitAdjusted(tau=-0.0)).loss.tau) == 1


def test_a_part_stands_in_json_with_how_it_is_found_again_and_all_its_parameters():
    plain = Config(loss="focal", mixture=Bilateral(alpha_epochs=300), switch="IB").to_json()
    assert plain["loss"] == {"part": "focal", "gamma": 1.0}
    assert plain["backbone"] == {"part": "resnet32", "blocks": 5, "width": 16}
    assert plain["mixture"] == {"part": "trainables.methods.bbn:Bilateral", "alpha": None, "alpha_epochs": 300}


def test_bilateral_is_a_mixture_of_two_samplers():
    assert Config(mixture=Bilateral(), switch="IB").bilateral
    assert not Config(mixture=Mixup()).bilateral
    assert not Config().bilateral


@dataclass(frozen=True)
class Headless(Bilateral):
    """Two batches for a network of one branch."""

    head: ClassVar[None] = None


@dataclass(frozen=True)
class Branching(CrossEntropy):
    """A loss that asks for two branches."""

    head: ClassVar[str] = "two_branches"


def test_two_batches_need_two_branches_and_two_branches_two_batches():
    for wrong in ({"mixture": Headless()}, {"loss": Branching()}, {"loss": Branching(), "mixture": Mixup()}):
        refused("mixture", switch="IB", **wrong)
    assert Config(switch="IB", loss=Branching(), mixture=Headless()).head == TwoBranches()


# JSON


samplers = (
    st.sampled_from(["IB", "CB", "CR"])
    | st.integers(-5, 5)
    | st.floats(-5, 5)
    | st.lists(st.floats(0, 9), min_size=10, max_size=10).filter(sum)
)
shares = st.floats(0, 0.9)
losses = (
    st.sampled_from(["cross_entropy", "focal", "ldam(max_margin=0.3)"])
    | st.builds(SigmoidFocal, gamma=st.floats(0, 9) | st.integers(0, 9))
    | st.builds(LogitAdjusted, tau=st.floats(-2, 2))
    | st.builds(LabelAwareSmoothing, largest=shares, smallest=shares, share=st.sampled_from(["others", "all"]))
)
configs = st.builds(
    Config,
    dataset=st.sampled_from(["digits", "cifar10"]),
    imbalance=st.floats(1, 124) | st.integers(1, 124),
    first=samplers,
    switch=samplers,
    S=st.integers(0, 50),
    switch_epoch=st.none() | st.integers(0, 150),
    backbone=st.just("resnet8") | st.builds(ResNet32, blocks=st.integers(1, 9), width=st.integers(2, 99)),
    loss=losses,
    mixture=st.none() | st.builds(Mixup, a=st.floats(0, 9, exclude_min=True)),
    beta=st.floats(0, 1, exclude_max=True),
    retrain=st.none() | samplers,
    measures=st.lists(st.sampled_from(["events", "fit"])),
    varies=st.lists(st.sampled_from(["seed", "subset_seed"])),
    then=st.lists(st.tuples(st.integers(1, 9), samplers), max_size=3),
    milestones=st.lists(st.integers(0, 100), unique=True).map(sorted),
    lr=st.floats(0, 10),
    drop_last=st.booleans(),
    precision=st.sampled_from(["fp32", "tf32", "bf16"]),
    seed=st.integers(0, 2**32 - 1),
)


@given(configs)
def test_a_configuration_survives_json_text(config):
    again = Config.from_json(json.loads(json.dumps(config.to_json(), allow_nan=False)))
    assert again == config
    assert hash(again) == hash(config)


def test_an_unknown_field_is_refused():
    with pytest.raises(
        Refusal, match=r"^unknown configuration field 'learning_rate'\. Known fields are S, backbone, batch_size"
    ) as refusal:
        Config.from_json({"learning_rate": 0.1})
    assert refusal.value.field == "config"


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        ({}, "IB⇒CR"),
        ({"first": 1, "switch": -1.0}, "IB⇒CR"),
        ({"switch": "CB", "then": ((5, "CR"),)}, "IB⇒CB×5⇒CR"),
        ({"switch": "CB", "then": ((5, "CR"), (7, "IB"))}, "IB⇒CB×5⇒CR×7⇒IB"),
        ({"first": 0.5}, "q=0.5⇒CR"),
        ({"first": -0.0, "switch": 0}, "CB⇒CB"),
        ({"switch": (1.0,) * 10}, "IB⇒weights"),
        ({"mixture": Bilateral(), "switch": "IB"}, "IB+CR"),
        ({"mixture": Mixup()}, "IB⇒CR"),
        ({"switch": "IB", "retrain": "CB"}, "IB⇒IB, classifier CB"),
        ({"switch": "IB", "retrain": "CB", "retrains": "scale"}, "IB⇒IB, scale CB"),
    ],
)
def test_a_combination_reads_as_in_the_paper(schedule, name):
    assert Config(**schedule).combination == name


def test_minus_zero_is_class_balanced_under_the_same_name():
    assert sampler_name(-0.0) == "CB"
    assert math.copysign(1, resolve_sampler(-0.0)) == 1


@pytest.mark.parametrize(
    ("parts", "head"),
    [
        ({}, Linear()),
        ({"loss": "logit_adjusted", "retrain": "CB", "retrains": "scale"}, Linear()),
        ({"loss": "ldam"}, Cosine(scale=30.0)),
        ({"loss": "sigmoid_focal"}, Rare()),
        ({"mixture": Mixup(), "loss": "ldam"}, Cosine()),
        ({"mixture": Bilateral(), "switch": "IB"}, TwoBranches()),
        ({"mixture": Bilateral(), "switch": "IB", "loss": Focal(gamma=2)}, TwoBranches()),
        ({"mixture": Bilateral(), "switch": "IB", "loss": "sigmoid_focal"}, TwoBranches()),
    ],
)
def test_the_loss_and_the_branches_ask_for_a_head(parts, head):
    assert Config(**parts).head == head


def test_equal_measures_are_one_configuration_in_any_order():
    assert Config(measures=["events", "fit", "fit"]) == Config(measures=("fit", "events"))
    assert Config(varies=["seed", "split_seed"]).varies == ("split_seed", "seed")


def test_a_replicate_varies_the_training_seed_and_nothing_else_unless_told_to():
    config = base("cifar10")
    changed = {k: v for k, v in config.replicate(7).to_json().items() if v != config.to_json()[k]}
    assert changed == {"seed": 7}


def test_a_replicate_sets_all_seeds_that_vary_and_nothing_else():
    config = replace(base("digits"), varies=SEEDS)
    changed = {k: v for k, v in config.replicate(7).to_json().items() if v != config.to_json()[k]}
    assert changed == {"split_seed": 7, "subset_seed": 7, "seed": 7}


def test_only_the_seeds_that_vary_are_counted_on_from_their_own_values():
    config = Config(split_seed=3, subset_seed=4, seed=5, varies=("seed",))  # one split and one subset (Table 8)
    made = config.replicate(7)
    assert (made.split_seed, made.subset_seed, made.seed) == (3, 4, 12)
    assert config.replicate(0) == config


@given(st.integers(0, 10**9))
def test_the_first_squares_of_numbers_are_all_pairs(number):
    pairs = [crossing(each) for each in range(100)]
    assert all(set(pairs[: k * k]) == set(product(range(k), repeat=2)) for k in range(1, 11))
    i, j = crossing(number)
    k = max(i, j)
    assert k * k <= number < (k + 1) ** 2


def test_crossed_replicates_are_pairs_of_a_subset_and_a_training_seed():
    config = Config(subset_seed=10, seed=20, varies=("subset_seed", "seed"), crossed=True)
    made = [config.replicate(number) for number in range(4)]
    assert [(each.subset_seed, each.seed) for each in made] == [(10, 20), (10, 21), (11, 20), (11, 21)]
    assert {each.split_seed for each in made} == {0}


@pytest.mark.parametrize(
    ("dataset", "seeds"),
    [
        ("digits", {"split": "0", "subset": "0", "training seed": "0"}),
        ("cifar10", {"subset": "0 (published)", "training seed": "0"}),
        ("cifar100", {"subset": "0 (published)", "training seed": "0"}),
        ("imagenet-lt", {"training seed": "0"}),
        ("inaturalist2018", {"training seed": "0"}),
    ],
)
def test_a_replicate_says_what_it_was_drawn_by(dataset, seeds):
    config = replace(base(dataset), varies=SEEDS)
    assert config.seeds() == seeds
    assert config.replicate(3).seeds() == dict.fromkeys(seeds, "3")
