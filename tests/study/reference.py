"""Writes the reference of the command line, made of its help texts, into study/README.md.

python tests/study/reference.py
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.testing import CliRunner

from study.cli import cli

PAGE = Path(__file__).parents[2] / "study" / "README.md"
BEGIN, END = "<!-- made by tests/study/reference.py -->", "<!-- end of what was made -->"


def help_of(*verb: str) -> str:
    """Return a help text with the defaults of an empty environment; click's runner makes it 80 columns wide."""
    environment = dict.fromkeys(name for name in os.environ if name.startswith(("STUDY_", "MLFLOW_")))
    done = CliRunner().invoke(cli, [*verb, "--help"], prog_name="study", env=environment)
    assert done.exit_code == 0, done.output
    return done.output.rstrip()


def verbs() -> list[tuple[str, ...]]:
    """Return the words of each command, those of groups last."""
    groups = {name: command for name, command in cli.commands.items() if isinstance(command, click.Group)}
    alone = [(name,) for name in cli.commands if name not in groups]
    return alone + [
        words for name, group in groups.items() for words in ((name,), *((name, verb) for verb in group.commands))
    ]


def reference() -> str:
    """Return a section for each command."""
    sections = [f"### study {' '.join(words)}\n\n```text\n{help_of(*words)}\n```\n" for words in verbs()]
    return "\n".join([f"```text\n{help_of()}\n```\n", *sections])


def written(page: str) -> str:
    """Return the page with its reference made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
