"""The list of spaces, a page about each, and the help of every command: what they hold, and how wide they are."""

from __future__ import annotations

import inspect
import re
import resource
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from click.testing import Result
from helpers import Study, call_study, parsed, write_space

from study import catalog, listing
from study.cli import cli
from study.space import Request


def shown(columns: int, *arguments: str) -> Result:
    """Return the answer of a command on a terminal of so many columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        return call_study(*arguments, home=Path("none"))


def by_group(text: str) -> dict[str, list[str]]:
    """Return the names in a list, by its headings."""
    groups: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            groups[line.removesuffix(":")] = []
        else:
            groups[list(groups)[-1]].append(line.split()[0])
    return groups


@pytest.mark.parametrize("columns", [80, 60])
def test_the_list_fits_a_terminal(columns: int) -> None:
    answer = shown(columns, "list")
    assert len(answer.output.splitlines()) <= 40
    assert max(len(line) for line in answer.stdout.splitlines()) <= columns
    assert max(len(line) for line in answer.stderr.splitlines()) <= 80
    assert "  table9          combinations of first and switch sampler, S = 1\n" in shown(80, "list").stdout


def test_a_title_that_is_too_long_ends_in_an_ellipsis() -> None:
    wide, narrow = (shown(columns, "list").stdout.splitlines() for columns in (200, 60))
    assert not any(line.endswith("…") for line in wide)
    for whole, line in zip(wide, narrow, strict=True):
        assert line == whole or (len(whole) > 60 and line.endswith("…") and whole.startswith(line.removesuffix("…")))
    assert any(line.endswith("…") for line in narrow)


def test_the_list_has_every_space_in_a_group_in_the_order_of_their_numbers() -> None:
    groups = by_group(shown(80, "list").stdout)
    assert list(groups) == ["tables", "figures", "others", "open searches"]
    assert groups == {
        "tables": [f"table{number}" for number in range(1, 15)],
        "figures": [f"figure{number}" for number in range(1, 8)],
        "others": ["claims", "theorem1"],
        "open searches": ["sampler_search"],
    }
    assert sorted(name for names in groups.values() for name in names) == sorted(catalog.names())


def test_the_list_names_the_next_commands_on_stderr() -> None:
    next_line = "\nNext: study show SPACE · study run SPACE --dry-run · study list -v (costs)\n"
    assert shown(80, "list").stderr == next_line


def test_the_list_has_costs_in_json_and_if_it_is_verbose(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "spaces", cache(listing.spaces))  # costs take seconds
    answer = study("list", "--json")
    assert answer.stderr == ""
    listed = {entry["space"]: entry for entry in parsed(answer)}
    assert list(listed) == catalog.names()
    assert {name for name, entry in listed.items() if entry["search"]} == {"sampler_search"}
    assert listed["table9"]["title"].startswith("Table 9: ")
    assert listed["table9"]["paper"] == {"epochs_needed": 7164, "epochs_naive": 10800, "runs": 1}
    assert listed["table9"]["short"] == {"epochs_needed": 144, "epochs_naive": 270, "runs": 1}
    assert listed["table8"]["default"] == {"epochs_needed": 1000, "epochs_naive": 1000, "runs": 10}
    assert {name for name, entry in listed.items() if entry["default"]["runs"] > 1} == {
        "table8",
        "table13",
        "figure3",
        "figure4",
    }
    text = study("list", "-v").stdout
    assert text.endswith(
        "\n\nEpochs of one replicate → after sharing prefixes: by default, with --short, with --paper.\n"
    )
    lines = [line for line in text.splitlines()[:-2] if line.startswith(" ")]
    costs = {line.split()[0]: cost.strip() for line, cost in zip(lines[::2], lines[1::2], strict=True)}
    assert list(costs) == [name for names in by_group(shown(80, "list").stdout).values() for name in names]
    assert costs["table9"] == "default 900 → 594; short 270 → 144; paper 10800 → 7164"
    assert costs["table8"] == "default 1000 → 1000 (10 runs); short 300 → 300 (10 runs); paper 2000 → 2000 (10 runs)"
    assert costs["sampler_search"] == "--trials sets the number of points"
    assert study("list", "--verbose").stdout == text
    assert "→" not in study("list").stdout


# Pages


def test_a_page_has_the_file_s_text_trials_and_options(study: Study) -> None:
    page = study("show", "table7")
    assert page.stdout.startswith("Table 7: switching once, or progressively over a third sampler, S = 1.\n\n")
    assert "\nPaper: Table 7" in page.stdout
    trials = page.stdout.partition("\nTrials:\n")[2]
    assert trials.startswith("  CR (digits-LT IF 50)                        paper 82.9 (cifar10-LT IF 50)\n")
    assert "\n  CR for 5 epochs, then CB (digits-LT IF 50)  paper 79.2 (cifar10-LT IF 50)\n" in trials
    options = "--data, --imbalance, --short, --paper, --vary, --backbone, --loss"
    assert page.stdout.endswith(f"\n\nOptions: {options} ('study run --help' describes them)\n")
    assert page.stderr == "\nNext: study run table7 --dry-run\n"


def test_a_search_s_page_has_its_dimensions_in_words(study: Study) -> None:
    page = study("show", "sampler_search").stdout
    dimensions = "  first_q   -2 to 2 in steps of 0.5\n  switch_q  -2 to 2\n  S         0 to 49\n"
    assert f"\n\nDimensions:\n{dimensions}\nOptions: --data, " in page
    assert "Trials:" not in page


def test_a_page_has_the_options_that_only_this_space_has(study: Study) -> None:
    page = study("show", "figure1").stdout
    meaning = "common (the paper's protocol for every method) or source (the constants of a method's own code, if any)"
    assert page.endswith(f"\n\nOptions of this space only:\n  -o recipe=…  {meaning}\n")


@pytest.mark.parametrize("name", catalog.names())
def test_every_page_is_whole(name: str) -> None:
    function, _ = catalog.find(name)
    space, page = function(Request()), listing.page(name)
    assert page.startswith(f"{inspect.getdoc(inspect.getmodule(function))}\n\n")
    assert ("\n\nTrials:\n" in page, "\n\nDimensions:\n" in page) == (space.search is None, space.search is not None)
    labels = [trial.label for trial in space.trials] if space.search is None else list(space.domain)
    assert all(f"\n  {label}" in page for label in labels)
    for option in space.options:
        assert (f"--{option.name}" if option.name in catalog.options() else f"-o {option.name}=…") in page
    assert not re.search(r"Integer\(|Real\(|Choice\(|None|\(got ", page)


def test_a_space_of_the_user_s_own_has_a_page(study: Study, tmp_path: Path) -> None:
    page = study("show", write_space(tmp_path)).stdout
    assert page.startswith("A small space: three epochs of digits-LT, the switch after two.\n\nTrials:\n  IB⇒IB (")
    (tmp_path / "bare.py").write_text(
        "from search_spaces.table9 import space as whole\ndef space(r): return whole(r)\n"
    )
    assert study("show", str(tmp_path / "bare.py")).stdout.startswith("Table 9: combinations")


# Help


def help_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, *verb: str) -> str:
    """Return a help text; click's own runner is always 80 columns wide."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main([*verb, "--help"], prog_name="study", standalone_mode=False) == 0
    return capsys.readouterr().out


def sections(text: str) -> dict[str, str]:
    """Return the parts of a help text that lists options, by heading."""
    parts = re.split(r"^(\w[\w ]*):$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("columns", [60, 100])
def test_the_help_of_run_has_its_options_in_groups(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = sections(help_text(monkeypatch, capsys, columns, "run"))
    assert list(parts) == ["What", "How much", "Where", "Machine", "Records", "Other"]
    options = {
        group: re.findall(r"^  (?:-\w, )?(--?[\w-]+)", part, flags=re.MULTILINE) for group, part in parts.items()
    }
    assert options["What"] == [*(f"--{name}" for name in catalog.options()), "-o"]
    assert options["How much"] == ["--seeds", "--trials", "--objectives", "--early-stop"]
    assert options["Where"] == ["--name", "--home", "--store", "--data-dir", "--download", "--verify-images"]
    assert options["Machine"] == [
        "--workers",
        "--address",
        "--detach",
        "--cpus-per-trial",
        "--gpus-per-trial",
        "--ranks-per-trial",
        "--precision",
        "--gpu-steps",
    ]
    assert options["Records"] == ["--tracking-uri", "--storage"]
    assert options["Other"] == ["--retrain", "--dry-run", "--traceback", "--json", "--help"]


def test_options_of_one_group_have_no_heading_of_their_own() -> None:
    assert list(sections(shown(100, "list", "--help").stdout)) == ["Options"]


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("verb", [[], *([name] for name in cli.commands)], ids=" ".join)
def test_no_line_of_a_help_is_wider_than_the_terminal(
    verb: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_text(monkeypatch, capsys, columns, *verb)
    assert text.startswith(" ".join(["Usage: study", *verb, "[OPTIONS]"]))
    assert max(len(line) for line in text.splitlines()) <= columns


def test_every_command_is_described_in_one_sentence() -> None:
    assert list(cli.commands) == [
        *("cluster", "list", "show", "run", "resume", "doctor", "stop", "logs", "clean", "status", "report", "ui"),
        "completion",
    ]
    for name, command in cli.commands.items():
        assert re.match(r"[A-Z][^\n]+\.(\n|$)", inspect.cleandoc(command.help or "")), name


def test_python_m_study_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(monkeypatch, capsys, 80)
    done = subprocess.run([sys.executable, "-m", "study", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout == text
    assert done.stderr == ""
    done = subprocess.run([sys.executable, "-m", "study", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"study, version \d+\.\d+\.\d+\n", done.stdout)


def test_the_command_without_a_verb_shows_its_help_and_exit_code_2() -> None:
    done = subprocess.run([sys.executable, "-m", "study"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: study [OPTIONS] COMMAND [ARGS]...\n")
    assert "error" not in done.stderr


def test_the_help_is_quick() -> None:
    """In CPU time: a wall clock would also measure what else this machine does, and the help waits for nothing."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "study", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(seconds() for _ in range(5)) < 0.3
