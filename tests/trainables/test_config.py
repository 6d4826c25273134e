import json
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.refusal import Refusal
from trainables.config import Config, base, resolve_sampler, sampler_name

WRONG = [
    ("dataset", "cifar11", "digits, cifar10, cifar100"),
    ("dataset", ["cifar10"], "digits, cifar10, cifar100"),
    ("imbalance", 0.5, "≥ 1"),
    ("imbalance", math.nan, "≥ 1"),
    ("imbalance", math.inf, "≥ 1"),
    ("imbalance", "50", "≥ 1"),
    ("imbalance", True, "≥ 1"),
    ("imbalance", 5001.0, "at most 5000"),
    ("backbone", "resnet50", "resnet8, resnet32"),
    ("method", "bbn", "switching"),
    ("first", "IR", "IB, CB, CR"),
    ("first", None, "finite exponent q"),
    ("first", True, "finite exponent q"),
    ("first", math.nan, "finite exponent q"),
    ("switch", -math.inf, "finite exponent q"),
    ("switch", (0.0,) * 10, "≥ 0 that do not all vanish"),
    ("switch", (-1.0,) + (1.0,) * 9, "≥ 0 that do not all vanish"),
    ("switch", (math.nan,) * 10, "≥ 0 that do not all vanish"),
    ("switch", (), "≥ 0 that do not all vanish"),
    ("switch", ("IB", "CR"), "≥ 0 that do not all vanish"),
    ("S", -1, "≥ 0"),
    ("S", 1.0, "≥ 0"),
    ("S", True, "≥ 0"),
    ("S", 100, "at most 99 would do"),
    ("then", "CR", "(epochs, sampler)"),
    ("then", ("CR",), "pairs"),
    ("then", ((0, "CR"),), "≥ 1"),
    ("then", ((True, "CR"),), "≥ 1"),
    ("then", ((5, "CR", 5),), "pairs"),
    ("epochs", 0, "≥ 1"),
    ("epochs", 200.0, "≥ 1"),
    ("epochs", True, "≥ 1"),
    ("batch_size", 0, "≥ 1"),
    ("lr", -0.1, "≥ 0"),
    ("lr", math.inf, "≥ 0"),
    ("lr", "0.1", "≥ 0"),
    ("milestones", 100, "below epochs = 200"),
    ("milestones", (100, 50), "increasing"),
    ("milestones", (50, 50), "increasing"),
    ("milestones", (50, 200), "below epochs = 200"),
    ("milestones", (-1,), "whole numbers"),
    ("milestones", (True,), "whole numbers"),
    ("gamma", math.nan, "≥ 0"),
    ("warmup", -1, "≥ 0"),
    ("momentum", 1.0, "< 1"),
    ("nesterov", 1, "true or false"),
    ("weight_decay", -2e-4, "≥ 0"),
    ("drop_last", "yes", "true or false"),
    ("replacement", None, "true or false"),
    ("precision", "fp16", "fp32, bf16"),
    ("split_seed", -1, "from 0 to"),
    ("subset_seed", 0.5, "from 0 to"),
    ("seed", False, "from 0 to"),
]


@pytest.mark.parametrize(("field", "value", "remedy"), WRONG)
def test_a_wrong_value_is_refused_in_one_line_with_what_would_do(field, value, remedy):
    with pytest.raises(Refusal) as refused:
        Config(**{field: value})
    assert refused.value.field == field
    assert [refused.value.value] == [value]  # in lists, for NaN is itself but does not equal itself
    line = str(refused.value)
    assert field in line
    assert repr(value) in line
    assert remedy in line
    assert "\n" not in line


def test_every_field_has_a_wrong_value_above():
    assert {field for field, _, _ in WRONG} == {field.name for field in fields(Config)}


@pytest.mark.parametrize(
    ("wrong", "field", "remedy"),
    [
        ({"nesterov": True, "momentum": 0.0}, "nesterov", "momentum above 0"),
        ({"drop_last": True, "batch_size": 20000}, "batch_size", "at most 13996"),
        ({"switch": (1.0,) * 9}, "switch", "10, one a class"),
        ({"then": ((5, "RC"),)}, "then", "IB, CB, CR"),
        ({"then": ((5, (1.0,) * 11),)}, "then", "10, one a class"),
        ({"S": 95, "then": ((5, "CR"),)}, "S", "at most 94"),
        ({"then": ((60, "CB"), (60, "CR"))}, "S", "more epochs or an earlier milestone"),
        ({"epochs": 101, "S": 1}, "S", "at most 0"),
        ({"dataset": "digits", "imbalance": 125}, "imbalance", "at most 124"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(wrong, field, remedy):
    with pytest.raises(Refusal, match=remedy) as refused:
        Config(**wrong)
    assert refused.value.field == field


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
    ],
)
def test_the_last_value_inside_each_limit_is_taken(right):
    Config(**right)


samplers = (
    st.sampled_from(["IB", "CB", "CR"])
    | st.integers(-5, 5)
    | st.floats(-5, 5)
    | st.lists(st.floats(0, 9), min_size=10, max_size=10).filter(sum)
)
configs = st.builds(
    Config,
    dataset=st.sampled_from(["digits", "cifar10"]),
    imbalance=st.floats(1, 124) | st.integers(1, 124),
    first=samplers,
    switch=samplers,
    S=st.integers(0, 50),
    then=st.lists(st.tuples(st.integers(1, 9), samplers), max_size=3),
    milestones=st.lists(st.integers(0, 100), unique=True).map(sorted),
    lr=st.floats(0, 10),
    drop_last=st.booleans(),
    precision=st.sampled_from(["fp32", "bf16"]),
    seed=st.integers(0, 2**32 - 1),
)


@given(configs)
def test_a_configuration_survives_json_text(config):
    again = Config.from_json(json.loads(json.dumps(config.to_json(), allow_nan=False)))
    assert again == config
    assert hash(again) == hash(config)


def test_an_unknown_field_is_refused():
    with pytest.raises(Refusal, match="'learning_rate': no such field; one of S, backbone") as refused:
        Config.from_json({"learning_rate": 0.1})
    assert refused.value.field == "config"


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
    ],
)
def test_a_combination_reads_as_in_the_paper(schedule, name):
    assert Config(**schedule).combination == name


def test_minus_zero_is_class_balanced_under_the_same_name():
    assert sampler_name(-0.0) == "CB"
    assert math.copysign(1, resolve_sampler(-0.0)) == 1


def test_a_replicate_sets_the_three_seeds_and_nothing_else():
    config = base("digits")
    changed = {k: v for k, v in config.replicate(7).to_json().items() if v != config.to_json()[k]}
    assert changed == {"split_seed": 7, "subset_seed": 7, "seed": 7}


def test_base_is_the_protocol_of_each_data_set():
    assert base("cifar100", 10) == Config(dataset="cifar100", imbalance=10.0)
    digits = base("digits")
    assert (digits.backbone, digits.epochs, digits.milestones, digits.warmup) == ("resnet8", 100, (50,), 5)
    assert (digits.batch_size, digits.lr, digits.imbalance) == (64, 0.1, 50.0)
