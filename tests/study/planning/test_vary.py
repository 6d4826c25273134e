"""What a user asks replicates to vary, and the short protocol: on the command line, planned and trained."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PAIRS, Study, parsed

# Planned


@pytest.mark.parametrize(
    ("arguments", "moving"),
    [
        (["--vary", "subset"], {"subset"}),
        (["--vary", "seed"], {"training seed"}),
        (["--vary", "split", "--vary", "seed", "--vary", "split"], {"split", "training seed"}),
        (["--vary", "all", "--vary", "all"], {"split", "subset", "training seed"}),
        ([], {"split", "subset", "training seed"}),
    ],
)
def test_replicates_differ_in_what_was_asked_for_alone(study: Study, arguments: list[str], moving: set[str]) -> None:
    plan = parsed(study("run", "table7", *arguments, "--dry-run", "--json"))
    assert len(plan["trials"]) == 3
    for trial in plan["trials"]:
        assert trial["replicates"] == [0, 1, 2]
        assert trial["seeds"] == [
            {name: str(number) if name in moving else "0" for name in ("split", "subset", "training seed")}
            for number in range(3)
        ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--vary", "subset"], "table7: 3 replicates vary subset (0 to 2); all have split 0, training seed 0."),
        (["--seeds", "1"], "table7: One replicate: split 0, subset 0, training seed 0."),
        (
            ["--vary", "crossed"],
            "table7: 9 replicates vary subset (0 to 2) and training seed (0 to 2), every pair; all have split 0.",
        ),
        (
            ["--data", "cifar10"],
            "table7: 3 replicates vary training seed (0 to 2); all have subset 0 (published).",
        ),
        (
            ["--data", "cifar100", "--vary", "all", "--seeds", "2"],
            "table7: 2 replicates vary subset (0 (published), 1) and training seed (0, 1).",
        ),
        (["--data", "imagenet-lt"], "table7: 3 replicates vary training seed (0 to 2)."),
    ],
)
def test_a_dry_run_says_what_replicates_vary(study: Study, tmp_path: Path, arguments: list[str], line: str) -> None:
    said = study("run", "table7", *arguments, "--dry-run").stdout.splitlines()
    assert [each for each in said if "eplicate" in each] == [line]
    assert list(tmp_path.iterdir()) == []


def test_each_space_says_what_its_own_replicates_vary(study: Study) -> None:
    said = study("run", "table7", "table8", "--seeds", "2", "--dry-run").stdout
    assert [each for each in said.splitlines() if "eplicate" in each] == [
        "table7: 2 replicates vary split (0, 1), subset (0, 1) and training seed (0, 1).",
        "table8: 10 replicates vary training seed (2000 to 2009); all have split 0, subset 0.",
    ]


def test_a_dry_run_of_several_columns_has_a_line_for_each_answer(study: Study) -> None:
    said = study("run", "table7", "--data", "digits", "--data", "cifar10", "--seeds", "2", "--dry-run").stdout
    assert [each for each in said.splitlines() if "eplicate" in each] == [
        "table7: digits-LT IF 50: 2 replicates vary split (0, 1), subset (0, 1) and training seed (0, 1).",
        "table7: cifar10-LT IF 50: 2 replicates vary training seed (0, 1); all have subset 0 (published).",
    ]


ON_CIFAR = "--data must be cifar10 or cifar100 with --short"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("table7 --vary all --vary seed", "--vary must be all or crossed alone, or some of seed, subset and"),
        ("table7 --vary subset --vary crossed", "--vary must be all or crossed alone"),
        ("table7 --vary crossed --seeds 3", "--seeds must be a square number with --vary crossed, such as 4"),
        ("table7 --vary crossed --seeds 8", "--seeds must be a square number with --vary crossed"),
        ("sampler_search --vary crossed", "--vary must be left out (got 'crossed'). Space sampler_search is"),
        (
            "table7 --data cifar10 --vary split",
            "--vary must be subset, seed, crossed or all (got 'split'). cifar10 has no split",
        ),
        ("table7 --data imagenet-lt --vary crossed", "--vary must be seed or all (got 'crossed'). imagenet-lt has no"),
        (
            "table8 --vary subset",
            "--vary must be seed or all (got 'subset'). This space compares replicates of one subset",
        ),
        ("table9 --short --paper", "--short must be left out with --paper (got True)"),
        ("table9 --short --data digits", f"{ON_CIFAR} (got 'digits')"),
        ("table9 --short --data imagenet-lt", f"{ON_CIFAR} (got 'imagenet-lt')"),
        ("table9 --short --data cifar10 --data digits", f"{ON_CIFAR} (got 'digits')"),
        ("table1 --short -o recipe=source", "-o recipe must be common with --short (got 'source')"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_cannot_be_varied_or_shortened_is_one_line(
    study: Study, tmp_path: Path, arguments: str, words: str, dry: list[str]
) -> None:
    message = str(study("run", *arguments.split(), *dry, code=2).exception)
    assert message.startswith(words)
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_the_short_protocol_is_cifar_in_thirty_epochs(study: Study) -> None:
    plan = parsed(study("run", "table9", "--short", "--dry-run", "--json"))
    assert (plan["epochs_naive"], plan["epochs_needed"]) == (3 * 9 * 30, 3 * 144)
    assert {trial["epochs"] for trial in plan["trials"]} == {30}
    said = study("run", "table9", "--short", "--dry-run").stdout
    assert "table9/IB⇒CR (cifar10-LT IF 50, 30 of 200 epochs)" in said
    assert "810 epochs, 432 after sharing prefixes" in said
    both = study("run", "table9", "--short", "--data", "cifar100", "--imbalance", "10", "--dry-run").stdout
    assert "table9/IB⇒CR (cifar100-LT IF 10, 30 of 200 epochs)" in both


# Trained


def deviations(values: list[float]) -> list[str]:
    """Between subsets, within one, and in all, by covariances: two values of one subset have in common what it does."""
    size = round(sqrt(len(values)))
    table = np.empty((size, size))
    for pair, value in zip(PAIRS, values, strict=False):
        table[pair] = value
    apart = ~np.eye(size, dtype=bool)
    over_subsets, over_seeds = np.cov(table.T), np.cov(table)
    first, second = over_subsets[apart].mean(), over_seeds[apart].mean()
    both = over_seeds.trace() / size - second
    first = max(0.0, first)
    return [f"{sqrt(each):.2f}" for each in (first, second + both, first + second + both)]


@pytest.mark.slow
def test_a_crossed_run_tells_where_its_spread_comes_from_and_grows(
    study: Study, small_space: Callable[..., str], one_ray: None
) -> None:
    space = small_space()
    crossed = ("run", space, "--vary", "crossed", "--name", "mine", "--json")
    small = parsed(study(*crossed, "--seeds", "4"))
    _check_spread(small, 2)
    message = str(study("run", space, "--vary", "all", "--seeds", "9", "--name", "mine", code=2).exception)
    assert "--vary all instead of --vary crossed" in message
    assert "\n" not in message

    plan = parsed(study(*crossed, "--seeds", "9", "--dry-run"))
    assert plan["epochs_needed"] == 9 * (2 + 1 + 1)
    assert plan["epochs_to_train"] == 5 * (2 + 1 + 1)
    large = parsed(study(*crossed, "--seeds", "9"))
    _check_spread(large, 3)
    assert [row["values"][:4] for row in large["rows"]] == [row["values"] for row in small["rows"]]
    status = parsed(study("status", "mine", "--json"))
    assert (status["complete"], status["outcome"], status["epochs_trained"]) == (18, "complete", 9 * (2 + 1 + 1))

    study("resume", "mine")
    assert parsed(study("status", "mine", "--json"))["epochs_trained_now"] == 0
    shown = study("report", "mine").stdout
    assert "9 replicates vary subset (0 to 2) and training seed (0 to 2), every pair; all have split 0." in shown
    assert "Where the spread comes from: subset and training seed" in shown
    assert "Hypotheses, set down" not in shown


def _check_spread(report: dict[str, Any], size: int) -> None:
    """A report of `size` × `size` pairs: values that differ, and their standard deviations, taken apart."""
    assert report["differences"] == []
    notices = report["notices"]["small"]
    assert notices[0].startswith(f"{size**2} replicates vary subset (0")
    assert notices[-1].startswith("Replicates that share a value are not independent")
    (table,) = [each for each in report["tables"] if each["title"].startswith("Where the spread comes from")]
    body = {row[0]: row[2:] for row in table["rows"]}
    assert list(body) == ["IB⇒IB", "IB⇒CR", "all 2 rows, pooled"]
    for row, name in zip(report["rows"], body, strict=False):
        assert len(set(row["values"])) > 1
        assert body[name] == deviations(row["values"])
        assert [(int(each["subset"]), int(each["training seed"])) for each in row["seeds"]] == list(PAIRS[: size**2])
        assert row["replicates"] == list(range(size**2))
    assert any("spread.png" in figure["file"] for figure in report["figures"])


# Spaces of one's own


OWN = """
from dataclasses import replace

from search_spaces import table7
from study.space import Request


def space(request):
    return replace(table7.space({request}), name="own"{more})
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--vary subset", "--vary must be left out (got 'subset')"),
        ("--vary crossed", "--vary must be left out (got 'crossed')"),
        ("--vary seed --vary split", "--vary must be left out (got 'seed')"),
    ],
)
def test_a_space_that_does_not_apply_it_refuses(study: Study, tmp_path: Path, arguments: str, words: str) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN.format(request='Request({"vary": ("split",)})', more=""))
    message = str(study("run", str(own), *arguments.split(), "--dry-run", code=2).exception)
    assert message == f"{words}. The function of space own does not apply it"
    own.write_text(OWN.format(request="request", more=", options=()"))
    message = str(study("run", str(own), *arguments.split(), "--dry-run", code=2).exception)
    assert message.startswith("--vary must be left out (got '")
    assert message.endswith("'). Space own does not take this option")
    own.write_text(OWN.format(request="request", more=""))
    study("run", str(own), *arguments.split(), "--dry-run")


def test_a_search_says_what_its_points_and_champions_will_vary(study: Study) -> None:
    said = study("run", "sampler_search", "--data", "cifar10", "--seeds", "2", "--dry-run").stdout.splitlines()
    assert [each for each in said if "eplicate" in each] == [
        "sampler_search: Points: 2 replicates vary training seed (0, 1); all have subset 0 (published).",
        "sampler_search: Champions: 3 replicates vary training seed (1000 to 1002); all have subset 0 (published).",
    ]
    assert said[-1].partition("precision ")[2] in ("bf16", "fp32")


def test_searches_that_vary_other_things_are_other_runs(study: Study) -> None:
    """Also with one replicate a point: champions will have other subsets."""
    plans = [
        parsed(study("run", "sampler_search", "--vary", word, "--dry-run", "--json")) for word in ("seed", "subset")
    ]
    assert plans[0]["run"] != plans[1]["run"]
