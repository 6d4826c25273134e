"""Mistakes on the command line: each is one line, and writes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Study


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "table99"], ["space", "table99", "table9"]),
        (["run", "table9", "--data", "mnist"], ["dataset", "mnist", "cifar10"]),
        (["run", "table9", "--data", "digits", "--paper"], ["--data", "digits", "--paper"]),
        (["run", "table9", "--backbone", "resnet9"], ["backbone", "resnet9", "resnet32", "Did you mean 'resnet8'?"]),
        (["run", "table9", "--loss", "ldam(margin=1)"], ["loss ldam", "parameter", "margin", "must be max_margin"]),
        (["run", "table1", "--loss", "ldam"], ["--loss", "ldam", "must be left out", "table1"]),
        (
            ["run", "table1", "--method", "SPACE:no_space"],
            ["method", "SPACE.py:no_space", "return a Config", "returned int"],
        ),
        (["run", "table5", "--method", "crt"], ["--method", "crt", "must be left out", "table5"]),
        (["run", "table9", "--imbalance", "0.5"], ["imbalance", "0.5", "≥ 1"]),
        (["run", "table9", "--imbalance", "1000"], ["imbalance", "1000", "124"]),
        (
            ["run", "table9", "--cpus-per-trial", "0"],
            ["--cpus-per-trial must be finite, and at least 0.0001 (got 0.0)"],
        ),
        (
            ["run", "table9", "--cpus-per-trial", "0.00009"],
            ["--cpus-per-trial must be finite, and at least 0.0001 (got 9e-05)"],
        ),
        (
            ["run", "table9", "--cpus-per-trial", "0.0002", "--ranks-per-trial", "3"],
            ["--cpus-per-trial must be finite, and at least 0.0003 for 3 ranks (got 0.0002)"],
        ),
        (["run", "table9", "--gpus-per-trial", "0.00009"], ["--gpus-per-trial", "9e-05", "between 0.0001 and 1"]),
        (["run", "table9", "--gpus-per-trial", "1.5"], ["--gpus-per-trial", "1.5", "whole number"]),
        (["run", "table9", "--name", "../up"], ["--name", "../up", "letters"]),
        (
            ["run", "table9", "--home", "/proc/home"],
            ["--home must be a writable folder (got '/proc/home'). No such file or directory"],
        ),
        (
            ["run", "table9", "--home", "FILE/home"],
            ["--home must be a writable folder", "FILE/home'). Not a directory"],
        ),
        (["run", "table9", "--store", "nowhere://x/y"], ["--store", "nowhere://x/y", "URL"]),
        (
            ["run", "table9", "--tracking-uri", "http://127.0.0.1:9"],
            ["--tracking-uri: 'http://127.0.0.1:9' does not answer within 2 s (", "Start the server"],
        ),
        (["run", "table9", "--storage", "sqlite//x"], ["--storage", "sqlite//x", "sqlite:///"]),
        (["run", "table9", "--storage", "postgresql://u:secret@127.0.0.1:9/x"], ["--storage", "***"]),
        (["run", "table9", "table9"], ["space", "once"]),
        (["run", "SPACE:nothing"], ["space", "nothing"]),
        (["run", "SPACE:late"], ["S", "60", "at most 49"]),
        (["run", "SPACE:unknown_sampler"], ["first", "XX", "IB, CB, CR"]),
        (["resume", "nothing"], ["nothing", "study run"]),
        (["status", "nothing"], ["nothing", "study run"]),
        (["report", "nothing"], ["nothing", "study run"]),
        (["ui"], ["home", "study run"]),
        (["show", "table99"], ["space", "table99"]),
        (["run", "table9", "--cpus-per-trial", "inf"], ["--cpus-per-trial", "inf", "finite"]),
        (["run", "table9", "--cpus-per-trial", "nan"], ["--cpus-per-trial", "nan", "finite"]),
        (["run", "table9", "--ranks-per-trial", "65"], ["--ranks-per-trial", "65", "at most 64"]),
        (["run", "table9", "--gpus-per-trial", "65"], ["--gpus-per-trial", "65", "at most 64"]),
        (
            ["run", "table9", "--ranks-per-trial", "3", "--gpus-per-trial", "8"],
            ["--ranks-per-trial must be 8, one process per GPU (got 3). Leave the option out"],
        ),
        (
            ["run", "table9", "--ranks-per-trial", "2", "--gpus-per-trial", "0.5"],
            ["--ranks-per-trial must be 1, one process per GPU (got 2). Leave the option out"],
        ),
        (["run", "table9", "--precision", "tf32"], ["--precision", "tf32", "fp32 or bf16", "TF32 needs a GPU"]),
        (["run", "SPACE:tf32"], ["precision", "tf32", "fp32 or bf16"]),
        (["run", "table9", "--gpu-steps", "recorded"], ["--gpu-steps", "recorded", "auto or eager", "on CPUs"]),
        (["run", "table9", "--cpus-per-trial", "1000"], ["--cpus-per-trial", "1000", "at most"]),
        (["run", "table9", "--gpus-per-trial", "inf"], ["--gpus-per-trial", "inf", "whole number"]),
        (
            ["run", "table9", "--gpus-per-trial", "-1"],
            ["must be 0, between 0.0001 and 1, or a whole number from 2 on (got -1.0)"],
        ),
        (["run", "table9", "--trials", "5"], ["--trials", "5", "open search", "table9"]),
        (["run", "table9", "--objectives", "few"], ["--objectives", "few", "open search", "table9"]),
        (["run", "table9", "--early-stop", "5"], ["--early-stop", "5", "open search", "table9"]),
        (["run", "table9", "--trials", "5", "--dry-run"], ["--trials", "5", "open search", "table9"]),
        (["run", "sampler_search", "--objectives", "top5"], ["--objectives", "top5", "top1, many"]),
        (["run", "sampler_search", "--objectives", "top1,few", "--early-stop", "5"], ["--early-stop", "5", "median"]),
        (
            ["run", "sampler_search", "--objectives", "top1,top1"],
            ["--objectives must be different names with commas between them (got 'top1,top1')"],
        ),
        (
            ["run", "sampler_search", "--objectives", ""],
            ["--objectives must be different names with commas between them (got '')"],
        ),
        (["run", "sampler_search", "--early-stop", "50"], ["--early-stop", "50", "at most 49"]),
        (["run", "SPACE:steps"], ["dimension", "step=0", "above 0"]),
        (["clean", "--grace", "nan"], ["--grace", "nan", "finite"]),
        (["run", "sampler_search", "--data", "digits", "--data", "cifar10"], ["--data", "one data set"]),
        (["run", "SPACE:raises"], ["space", "SPACE.py:raises", "ZeroDivisionError", "line"]),
        (
            ["run", "SPACE:no_space"],
            ["the function of space 'SPACE.py:no_space' must return a Space, but returned int"],
        ),
        (["stop", "nothing"], ["nothing", "study run"]),
        (["clean", "nothing"], ["nothing", "study run"]),
        (["clean", "--forget"], ["--forget", "RUN"]),
        (["clean"], ["home", "study run"]),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2_and_writes_nothing(
    study: Study, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "FILE").touch()
    (tmp_path / "SPACE.py").write_text(
        "from dataclasses import replace\n"
        "from search_spaces import table9\nfrom search_spaces.shared.protocol import base\n"
        "def late(request): return replace(base('digits'), S=60)\n"
        "def unknown_sampler(request): return replace(base('digits'), first='XX')\n"
        "def tf32(request):\n"
        "    table = table9.space(request)\n"
        "    cells = tuple(replace(t, config={**t.config, 'precision': 'tf32'}) for t in table.trials)\n"
        "    return replace(table, name='tf32', trials=cells)\n"
        "def raises(request): return 1 / 0\n"
        "def no_space(request): return 1\n"
        "from study.space import Real\n"
        "def steps(request): return Real(0, 1, step=0)\n"
    )
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = study(*(word.replace("SPACE", "SPACE.py") for word in arguments), code=2)
    message = str(result.exception)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert "secret" not in message
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != "__pycache__"}
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "table9", "--seeds", "0"], "--seeds must be between 1 and 999 (got 0)"),
        (["run", "table9", "--seeds", "1000"], "--seeds must be between 1 and 999 (got 1000)"),
        (["run", "table9", "--seeds", "x"], "--seeds must be a whole number (got 'x')"),
        (["run", "sampler_search", "--trials", "0"], "--trials must be at least 1 (got 0)"),
        (["run", "sampler_search", "--early-stop", "0"], "--early-stop must be at least 1 (got 0)"),
        (["run", "table9", "--workers", "0"], "--workers must be at least 1 (got 0)"),
        (["resume", "mine", "--workers", "0"], "--workers must be at least 1 (got 0)"),
        (["run", "table9", "--ranks-per-trial", "0"], "--ranks-per-trial must be at least 1 (got 0)"),
        (["run", "table9", "--cpus-per-trial", "x"], "--cpus-per-trial must be a number (got 'x')"),
        (["run", "table9", "--precision", "fp64"], "--precision must be auto, fp32, tf32 or bf16 (got 'fp64')"),
        (["run", "table9", "--gpu-steps", "fast"], "--gpu-steps must be auto, eager or recorded (got 'fast')"),
        (["run", "table9", "--vary", "x"], "--vary must be seed, subset, split, all or crossed (got 'x')"),
        (
            ["report", "mine", "--format", "pdf"],
            "--format must be table, markdown, csv, json or html (got 'pdf')",
        ),
        (["clean", "--grace", "-1"], "--grace must be a finite number of hours, at least 0 (got -1.0)"),
        (["ui", "--port", "0"], "--port must be between 1 and 65535 (got 0)"),
        (["completion", "tcsh"], "SHELL must be bash, zsh or fish (got 'tcsh')"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_the_range(
    study: Study, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = study(*arguments, code=2)
    assert (str(result.exception), result.output) == (message, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "table99"], "error: unknown space 'table99'. Did you mean 'table9'? 'study list' shows all\n"),
        (["run", "table9", "--seeds", "x"], "error: --seeds must be a whole number (got 'x')\n"),
        (["run", "table9", "--seeds", "0"], "error: --seeds must be between 1 and 999 (got 0)\n"),
        (["run"], "error: missing argument 'SPACE...'. 'study run --help' shows the usage\n"),
        (["report"], "error: missing argument 'RUN'. 'study report --help' shows the usage\n"),
        (["report", "a", "b"], "error: got unexpected extra argument (b). 'study report --help' shows the usage\n"),
        (["list", "--verbos"], "error: unknown option '--verbos'. Did you mean '--verbose'? 'study list --help' shows"),
        (["frob"], "error: unknown command 'frob'. 'study --help' shows all\n"),
        (["reprot"], "error: unknown command 'reprot'. Did you mean 'report'?\n"),
        (["run", "gone.py"], "error: space must be the path of a Python file (got 'gone.py'). There is no file FOLDER"),
    ],
)
def test_the_command_prints_a_mistake_as_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "study", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(words.replace("FOLDER", str(tmp_path / "gone.py\n")))
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["all", "--data", "mnist"], "dataset must be "),  # none is left
        (["all", "-o", "recipe=mine"], "-o recipe must be common (the paper's protocol"),
        (["all", "-o", "irregularity=1"], "-o irregularity must be 10 finite numbers"),
        (["all", "table10", "--data", "cifar100"], "no irregularities are known for cifar100"),  # it was named
        (["figure4", "--imbalance", "1"], "--imbalance must be above 1 (got 1.0)"),
    ],
)
def test_what_is_named_or_refused_by_every_space_is_a_mistake(study: Study, arguments: list[str], words: str) -> None:
    message = str(study("run", *arguments, "--dry-run", code=2).exception)
    assert message.startswith(words)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("recipe", "-o must be NAME=VALUE, with a different NAME in each -o (got 'recipe')"),
        ("lr=3", "recipe (common"),
        ("recipe=mine", "-o recipe must be common (the paper's protocol"),
        (
            "recipe=@nowhere",
            "-o must be NAME=@FILE with a readable text file (got 'recipe=@nowhere'). [Errno 2] No such file",
        ),
        ("data=cifar10", "-o must be given as --data (got 'data=cifar10')"),
    ],
)
def test_an_option_that_no_space_knows_is_refused(study: Study, option: str, words: str) -> None:
    message = str(study("run", "table1", "-o", option, "--dry-run", code=2).exception)
    assert words in message
    assert "\n" not in message
