"""The pages of documentation, and how tests run what they show.

A fenced ``bash`` block is run by a test, and so is a ``python`` block. A fenced ``sh`` block is not run and says why in
its first line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("search_spaces", "trainables", "study", "tests/benchmarks")
PAGES = ("README.md", *(f"{folder}/README.md" for folder in FOLDERS), "study/CLUSTERS.md", "CONTRIBUTING.md")
NOT_RUN = "# Not run in the tests: "
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("STUDY_HOME", "MLFLOW_TRACKING_URI")},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, without comments."""
        lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in self.text.splitlines()]
        return [part.strip() for line in lines if line for part in line.split("&&")]


def read(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str = "") -> list[Block]:
    """Return the fenced blocks of a page in their order, of one language or of all."""
    fenced = re.findall(r"^```(.*)\n([\s\S]*?)^```$", read(page), re.MULTILINE)
    return [Block(kind, text) for kind, text in fenced if language in ("", kind)]


def prose(page: str) -> str:
    """Return the text of a page without its fenced blocks."""
    return re.sub(r"^```.*\n[\s\S]*?^```$", "", read(page), flags=re.MULTILINE)


def commands(page: str) -> list[str]:
    """Return the commands of a page's bash blocks, without those that install this project or run these tests."""
    every = [command for block in blocks(page, "bash") for command in block.commands]
    return [command for command in every if not command.startswith("pip install") and command != "pytest"]


def run(command: str, folder: Path) -> str:
    """Run a command in a folder and return what it prints."""
    done = subprocess.run(
        command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    names: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = slug = "".join(each for each in shown if _in_anchors(each)).replace(" ", "-")
        number = 0
        while name in names:
            number += 1
            name = f"{slug}-{number}"
        names.add(name)
    return names


def _in_anchors(character: str) -> bool:
    category = unicodedata.category(character)  # a superscript, which Python takes for a digit, is No
    return character in " -" or category[0] in "LM" or category in ("Nd", "Nl", "Pc")
