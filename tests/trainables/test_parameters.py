"""Fields that are declared with default, bounds and help."""

import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Refusal
from trainables.config import Config
from trainables.parameters import check, choice, flag, freeze, is_whole, number, parameter, some, thaw, whole


def even(value):
    if value % 2:
        raise ValueError("an even number")
    return value // 2


@dataclass(frozen=True)
class Some:
    """A parameter of each kind."""

    any_number: float = number(1.0, "without bounds")
    closed: float = number(0.5, "from 0 to 1", least=0.0, most=1.0)
    open: float = number(0.5, "between 0 and 1", above=0.0, below=1.0)
    count: int = whole(3, "from 1 on", least=1)
    byte: int = whole(3, "from 0 to 255", least=0, most=255)
    on: bool = flag(False, "whether")
    word: str = choice("one", "which", ("one", "two"))
    words: tuple[str, ...] = some((), "which of them", ("a", "b", "c"))
    half: int = parameter(8, "kept by its half", even)
    plain_float: float = 2.0
    plain_int: int = 2
    plain_flag: bool = True
    plain_text: str = "text"
    plain_list: tuple[Any, ...] = (1, (2,))


def checked(**given):
    """Return the values as they are kept."""
    instance = Some(**given)
    check(instance)
    return instance


def kept(name, value):
    return getattr(checked(**{name: value}), name)


NUMBER = "must be a finite number"
WRONG = [
    *(("any_number", value, NUMBER) for value in (math.nan, math.inf, -math.inf, 10**400, "1", None, True, [1.0])),
    *(("closed", value, f"{NUMBER} ≥ 0 and ≤ 1") for value in (-1e-9, 1 + 1e-9, math.inf)),
    *(("open", value, f"{NUMBER} > 0 and < 1") for value in (0, 1.0, -0.0, math.nan)),
    *(("count", value, "must be a whole number ≥ 1") for value in (0, 1.0, True, "1", None)),
    *(("byte", value, "must be a whole number ≥ 0 and ≤ 255") for value in (-1, 256, False, 0.5)),
    *(("on", value, "must be true or false") for value in (0, 1, "true", None)),
    *(("word", value, "must be one of one, two") for value in ("three", "", None, ["one"], 1)),
    *(("words", value, "must be some of a, b, c") for value in ("a", ("d",), ["a", "d"], [["a"]], None)),
    ("half", 3, "must be an even number"),
    *(("plain_float", value, NUMBER) for value in (math.nan, "2", True)),
    *(("plain_int", value, "must be a whole number") for value in (2.0, True, "2")),
    *(("plain_text", value, "must be text") for value in (None, 3)),
    *(("plain_flag", value, "must be true or false") for value in (1, None)),
]


@pytest.mark.parametrize(("name", "value", "remedy"), WRONG)
def test_a_wrong_value_is_refused_with_the_bounds(name, value, remedy):
    instance = Some(**{name: value})
    for prefix in ("", "loss."):
        with pytest.raises(Refusal) as refused:
            check(instance, prefix)
        assert refused.value.field == prefix + name
        assert [refused.value.value] == [value]
        assert refused.value.words == remedy


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("any_number", (-1e300, 0.0, 1e300)),
        ("closed", (0.0, 1.0)),
        ("open", (5e-324, 1 - 2**-53)),
        ("count", (1, 10**30)),
        ("byte", (0, 255)),
        ("on", (True, False)),
        ("word", ("one", "two")),
        ("words", ((), ("a",), ("a", "b", "c"))),
        ("plain_int", (-5, 0, 5)),
        ("plain_text", ("other", "")),
    ],
)
def test_values_within_the_bounds_are_kept(name, values):
    for value in values:
        stored = kept(name, value)
        assert (stored, type(stored)) == (value, type(value))


@pytest.mark.parametrize("name", ["any_number", "plain_float"])
@pytest.mark.parametrize("value", [0, -0.0, 3, -7])
def test_equal_numbers_are_kept_alike(name, value):
    stored = kept(name, value)
    assert (stored, type(stored)) == (value, float)
    assert repr(stored) == repr(float(value) + 0.0)
    assert hash(checked(**{name: value})) == hash(checked(**{name: float(value)}))


def test_words_are_kept_in_one_order_once():
    assert kept("words", ["c", "a", "c"]) == ("a", "c")


def test_what_a_check_returns_is_kept():
    assert kept("half", 10) == 5


def test_lists_are_kept_as_tuples():
    assert kept("plain_list", [1, [2, [3]]]) == (1, (2, (3,)))


def test_every_field_has_a_wrong_value_above_or_takes_any():
    assert {field.name for field in fields(Some)} - {name for name, _, _ in WRONG} == {"plain_list"}


def test_the_first_wrong_value_is_refused():
    with pytest.raises(Refusal) as refused:
        check(Some(word="three", closed=2.0))
    assert refused.value.field == "closed"


def test_a_field_says_what_it_means():
    said = {field.name: field.metadata.get("help") for field in fields(Some)}
    assert (said["closed"], said["count"], said["plain_text"]) == ("from 0 to 1", "from 1 on", None)
    assert all(field.metadata["help"] for field in fields(Config))


def test_good_defaults_are_kept_as_they_are():
    assert replace(checked(), half=8) == Some()


trees = st.recursive(st.none() | st.integers() | st.text(), lambda below: st.lists(below))


@given(trees)
def test_lists_of_json_survive_as_tuples_that_can_be_hashed(tree):
    frozen = freeze(tree)
    hash(frozen)
    assert json.loads(json.dumps(thaw(frozen))) == tree


@pytest.mark.parametrize(
    ("value", "least", "good"), [(0, 0, True), (-1, 0, False), (True, 0, False), (1.0, 0, False), (None, 0, False)]
)
def test_what_a_whole_number_is(value, least, good):
    assert is_whole(value, least) is good
