"""Spaces of several installed packages: of ours, and of a science that ours knows nothing of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from helpers import Study, asked, parsed

from study import catalog
from study.errors import Refusal
from study.planning import drafting
from study.space import Option


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the package `elsewhere` were installed beside ours."""
    ours = dict(catalog._installed())
    theirs = {
        "iris": EntryPoint("iris", "elsewhere.iris:space", "study.spaces"),
        "iris_search": EntryPoint("iris_search", "elsewhere.iris:search", "study.spaces"),
    }
    monkeypatch.setattr(catalog, "_installed", lambda: {**ours, **theirs})
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    for name in ("elsewhere.iris", "elsewhere"):
        sys.modules.pop(name, None)


def test_each_is_listed_at_the_scales_that_it_has(both: None, study: Study) -> None:
    listed = {each["space"]: each for each in parsed(study("list", "--json"))}
    assert set(listed["iris"]) == {"space", "search", "title", "default"}
    assert listed["iris"]["default"] == {"epochs_needed": 36, "epochs_naive": 48, "runs": 1}
    assert {"default", "short", "paper"} <= set(listed["table9"])
    assert listed["iris_search"]["search"]
    lines = study("list", "-v").stdout.splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.split()[:1] == ["iris"]]
    assert lines[number + 1].strip() == "default 48 → 36"
    assert "48 → 36" not in study("list").stdout


def test_all_is_of_the_first_science_and_says_what_is_left_out(both: None) -> None:
    called = drafting.call(["all"], asked())
    names = [found.name for _, _, found in called.spaces]
    assert "table9" in names
    assert "iris" not in names
    assert "Train it in a run of its own" in called.left_out["iris"]


def test_with_nothing_installed_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_installed", dict)
    with pytest.raises(Refusal, match="no installed package declares spaces, so 'all' stands for no space"):
        drafting.call(["all"], asked())


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ((Option("data", ""),), r"^two installed packages declare --data; one is 'theirs:OPTIONS'\. Uninstall one$"),
        (None, r"^the options 'theirs:OPTIONS' of an installed package cannot be imported: RuntimeError: broken$"),
    ],
)
def test_options_that_are_declared_badly_name_their_package(
    monkeypatch: pytest.MonkeyPatch, declared: tuple[Option, ...] | None, words: str
) -> None:
    class Theirs:
        value = "theirs:OPTIONS"

        def load(self) -> tuple[Option, ...]:
            if declared is None:
                raise RuntimeError("broken")
            return declared

    points = [*catalog.entry_points(group="study.options"), Theirs()]
    monkeypatch.setattr(catalog, "entry_points", lambda **_: points)
    with pytest.raises(Refusal, match=words):
        catalog.options.__wrapped__()


def test_an_option_has_no_name_of_the_platform_s_own(monkeypatch: pytest.MonkeyPatch, study: Study) -> None:
    monkeypatch.setattr(catalog, "options", lambda: {"seeds": Option("seeds", "")})
    message = str(study("run", "table9", code=2).exception)
    assert message == "the option 'seeds' of an installed package is already an option of 'study run'"


def test_a_number_may_be_0(monkeypatch: pytest.MonkeyPatch) -> None:
    from study.api.choices import options_of

    declared = {name: Option(name, "", kind="number") for name in ("low", "high")}
    monkeypatch.setattr(catalog, "options", lambda: declared)
    assert options_of({"low": 0.0, "high": None}) == {"low": 0.0}


def test_an_option_is_shown_as_it_was_typed() -> None:
    assert catalog.typed("data", ("digits", "cifar10")) == ("--data", "digits, cifar10")
    assert catalog.typed("paper", True) == ("--paper", "True")
    assert catalog.typed("recipe", "source") == ("-o recipe", "source")
