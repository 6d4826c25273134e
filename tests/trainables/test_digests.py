"""The digest of code changes with what is executed: not with words, places, or what nothing reaches."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainables import digests

FILES = {
    "parts.py": '''"""Parts."""
from dataclasses import dataclass
from typing import ClassVar
from trainables.parameters import number
from PACKAGE import helpers
from PACKAGE.other import shared as common

LIMIT = 3

@dataclass(frozen=True)
class Margin:
    """A margin."""

    margin: float = number(0.5, "the margin", least=0.0)
    kind: ClassVar[str] = "margin"

    def build(self, counts: list[int]) -> int:
        """Builds."""
        from PACKAGE.late import later
        return later(counts) + helpers.scale(self.margin) + common()  # at last

@dataclass(frozen=True)
class Unused:
    pass
''',
    "helpers.py": """import math
def scale(x):
    return math.floor(x) + _inner()
def _inner():
    return 1
def nobody():
    return 2
""",
    "other.py": """from PACKAGE.again import shared
""",
    "again.py": """import os
TABLE = {}
TABLE["x"] = 4
def shared():
    return TABLE["x"]
""",
    "late.py": """def later(counts):
    return [limit for limit in counts if limit < Bound.most]
class Bound:
    most = 7
""",
    "__init__.py": "",
}

numbers = itertools.count()


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """The digest of Margin in a package of these files, with the replacements in one of them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = [each for each in vars(digests).values() if hasattr(each, "cache_clear")]

    def made(file: str = "parts.py", old: str = "", new: str = "", more: dict[str, str] | None = None) -> str:
        package = tmp_path / "package"
        package.mkdir(exist_ok=True)
        assert old in FILES[file]
        for name, text in {**FILES, **(more or {})}.items():
            changed = text.replace(old, new) if name == file and old else text
            (package / name).write_text(changed.replace("PACKAGE", "package"), encoding="utf-8")
        for each in caches:
            each.cache_clear()
        return digests.code_digest("package.parts", "Margin")

    yield made
    for each in caches:
        each.cache_clear()
    sys.modules.pop("package", None)


SAME = [
    ("parts.py", '"""A margin."""', '"""Another story."""'),
    ("parts.py", '        """Builds."""\n', ""),
    ("parts.py", '"""Parts."""\n', ""),
    ("parts.py", "  # at last", ""),
    ("parts.py", "counts: list[int]) -> int", "counts)"),
    ("parts.py", 'number(0.5, "the margin", least=0.0)', 'number(0.7, "a margin", least=0.1)'),
    ("parts.py", "LIMIT = 3", "LIMIT = 4"),
    ("parts.py", "class Unused:", "class Used:"),
    ("helpers.py", "return 2", "return 3"),
    ("helpers.py", "def nobody():", "def somebody():\n    return 5\ndef nobody():"),
    (
        "late.py",
        "[limit for limit in counts if limit < Bound.most]",
        "[limit for limit in counts if limit < (Bound.most)]",
    ),
]


@pytest.mark.parametrize(("file", "old", "new"), SAME)
def test_words_layout_and_what_is_not_reached_change_nothing(digest_of, file, old, new):
    assert digest_of(file, old, new) == digest_of()


OTHER = [
    ("parts.py", "later(counts) + helpers", "later(counts) - helpers"),
    ("parts.py", 'ClassVar[str] = "margin"', 'ClassVar[str] = "other"'),
    ("parts.py", "@dataclass(frozen=True)\nclass Margin", "@dataclass\nclass Margin"),
    ("helpers.py", "_inner()\n", "2 * _inner()\n"),
    ("helpers.py", "return 1", "return 2"),
    ("helpers.py", "math.floor", "math.ceil"),
    ("helpers.py", "import math", "import cmath as math"),
    ("again.py", "= 4", "= 5"),
    ("late.py", "limit <", "limit <="),
    ("late.py", "most = 7", "most = 8"),
]


@pytest.mark.parametrize(("file", "old", "new"), OTHER)
def test_code_that_is_reached_changes_it(digest_of, file, old, new):
    assert digest_of(file, old, new) != digest_of()


def test_a_definition_may_move_to_another_file(digest_of):
    moved = {
        "helpers.py": FILES["helpers.py"].replace("def _inner():\n    return 1\n", "from PACKAGE.new import _inner\n")
    }
    assert digest_of(more={**moved, "new.py": "def _inner():\n    return 1\n"}) == digest_of()
    assert digest_of(more={**moved, "new.py": "def _inner():\n    return 2\n"}) != digest_of()


def test_two_that_reach_each_other_have_different_digests(digest_of):
    both = "class One:\n    def other(self): return Two()\nclass Two:\n    def other(self): return One()\n"
    digest_of(more={"both.py": both})
    assert digests.code_digest("package.both", "One") != digests.code_digest("package.both", "Two")
    assert digests.reached("package.both", "One") == digests.reached("package.both", "Two")


def test_names_that_are_imported_by_a_star_are_reached(digest_of):
    star = {
        "parts.py": FILES["parts.py"].replace(
            "from PACKAGE.other import shared as common", "from PACKAGE.star import *"
        )
    }
    one, other = (
        digest_of(more={**star, "star.py": f"def common(): return {n}\ndef unused(): return 0\n"}) for n in "12"
    )
    assert one != other
    assert one == digest_of(more={**star, "star.py": "def common(): return 1\n"})


def test_own_code_outside_the_package_is_reached(digest_of, tmp_path):
    using = {"helpers.py": FILES["helpers.py"].replace("import math", "import beside as math")}
    found = []
    for text in ("def floor(x): return 1\n", "def floor(x): return 2\n"):
        (tmp_path / "beside.py").write_text(text)
        found.append(digest_of(more=using))
    assert found[0] != found[1]


def test_the_version_of_another_package_counts(digest_of, monkeypatch):
    using = {"helpers.py": FILES["helpers.py"].replace("import math", "import scipy.special as math")}
    before = digest_of(more=using)
    monkeypatch.setattr(digests.metadata, "version", lambda name: "99.0" if name == "scipy" else "1")
    assert digest_of(more=using) != before


def test_versions_that_an_origin_holds_are_not_held_twice(digest_of, monkeypatch):
    using = {"helpers.py": FILES["helpers.py"].replace("import math", "import torch as math")}
    before = digest_of(more=using)
    monkeypatch.setattr(digests.metadata, "version", lambda _: "99.0")
    assert digest_of(more=using) == before


def test_what_is_reached_is_named_by_file_and_definition():
    found = digests.reached("trainables.losses.ldam", "LDAM")
    assert {"losses/ldam.py: LDAM", "networks/cosine.py: Cosine", "layers.py: Cosine", "parts.py: Loss"} <= found.keys()
    assert not {name for name in found if name.startswith(("steps", "loop", "references", "losses/focal"))}
