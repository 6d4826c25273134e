"""The pages of documentation: links lead somewhere, commands exist, and blocks run or say why they do not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
from pages import NOT_RUN, PAGES, ROOT, anchors, blocks, commands, prose, read, run

from study.cli import cli

LINK = re.compile(r"(?<!\\)\[(?:[^]`]|`[^`]*`)*\]\(([^)\s]+)\)")
OTHER_PAGES = (
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "search_spaces/results").glob("*.md"))),
)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_relative_link_and_picture_exists(page: str) -> None:
    missing = []
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        inside = path.resolve().is_relative_to(ROOT.resolve())
        if not path.exists() or not inside or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            missing.append(target)
    assert not missing


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall(prose("README.md"))}
    assert {*PAGES, "CHANGELOG.md"} - {"README.md"} <= linked


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    assert not re.search(r"^(    |\t)(study|python|pip|pytest|pre-commit) ", prose(page), re.MULTILINE), "not fenced"
    for block in blocks(page):
        assert block.language in ("bash", "python", "sh", "text")  # text is output
        first = block.text.partition("\n")[0]
        if block.language == "sh":
            assert first.startswith(NOT_RUN)
            assert len(first) > len(NOT_RUN) + 10, "no reason"
        else:
            assert NOT_RUN not in block.text


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_exists_with_its_options(page: str) -> None:
    """The commands of all shell blocks, and those that the text names."""
    shown = [command for block in blocks(page) if block.language in ("bash", "sh") for command in block.commands]
    shown += re.findall(r"`(study [^`]+)`", prose(page))
    for command in shown:
        words = shlex.split(command)
        if words[0] != "study":
            continue
        verb: click.Command | None = cli
        for word in words[1:]:
            if isinstance(verb, click.Group):
                verb = verb.commands.get(word)
        assert verb is not None, command
        verbs = [verb, cli.commands["run"]] if words[1] == "cluster" else [verb]  # which takes the options of both
        known = {
            name
            for each in verbs
            for parameter in each.get_params(click.Context(each, help_option_names=["-h", "--help"]))
            for name in (*parameter.opts, "--help")
        }
        options = {word.partition("=")[0] for word in words[2:] if re.match(r"-{1,2}[a-z]", word)}
        assert options <= known, command


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    _, _, costs = read("README.md").partition("## What it costs")
    figures = re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", costs.partition("\n## ")[0])
    assert len(figures) >= 3
    made = read("tests/benchmarks/README.md")
    assert [figure for figure in figures if figure not in made] == []


def test_anchors_are_those_of_github() -> None:
    text = "# Table 6: the S of IB⇒CR\n## bias², variance\n## `study`'s own\n## A b-c\n## A b-c\n### [Link](x.md) τ\n"
    assert anchors(text) == {
        "table-6-the-s-of-ibcr",
        "bias-variance",
        "studys-own",
        "a-b-c",
        "a-b-c-1",
        "link-τ",
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "/" in page])
def test_the_commands_of_a_folder_s_page_run_in_their_order(page: str, tmp_path: Path) -> None:
    """The README's commands are in test_readme.py, CONTRIBUTING's in test_contributing.py."""
    (tmp_path / "tests").symlink_to(ROOT / "tests", target_is_directory=True)  # for `python tests/benchmarks/…`
    assert not blocks(page, "python"), "nothing runs it"
    assert commands(page)
    for command in commands(page):
        run(command, tmp_path)
