"""The digest of code changes with the executed code, not with words, files, or unreached code."""

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
    """Return a function that returns the digest of Margin, in a package of these files with replacements in one."""
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


def test_what_names_lead_to_is_told_apart(digest_of):
    """Both are reached before and after the change, only their names are exchanged."""
    two = "def one(): return 1\ndef two(): return 2\n"
    using = "from PACKAGE.two import one as first, two as second\ndef scale(x): return first() - second()\n"
    swapped = using.replace("one as first, two as second", "two as first, one as second")
    same = using.replace("one as first, two as second", "two as second, one as first")
    found = [digest_of(more={"two.py": two, "helpers.py": text}) for text in (using, swapped, same)]
    assert found[0] == found[2] != found[1]


def test_another_module_s_definition_of_the_same_name_is_another(digest_of):
    versions = {"v1.py": "def scale(x): return x\n", "v2.py": "def scale(x): return -x\n"}
    both = "from PACKAGE.v1 import scale\nfrom PACKAGE import v1, v2\ndef common(): return v1.scale(1) + v2.scale(1)\n"
    parts = FILES["parts.py"].replace("from PACKAGE import helpers", "from PACKAGE import v3 as helpers")
    more = {"parts.py": parts, **versions, "other.py": both + "shared = common\n"}
    one, other = (digest_of(more={**more, "v3.py": f"from PACKAGE.{v[:-3]} import scale\n"}) for v in versions)
    assert one != other


def test_the_default_of_a_parameter_counts_where_its_value_is_in_no_name(digest_of):
    """A name includes the value of a part's parameter, but not of another part that its code makes."""
    inner = (
        "from dataclasses import dataclass\nfrom trainables import parameters\n@dataclass(frozen=True)\nclass Inner:\n"
        "    k: float = parameters.number(1.0, 'k', least=0.0)\n"
    )
    using = "from PACKAGE.inner import Inner\ndef scale(x): return Inner().k\n"
    texts = (inner, inner.replace("1.0", "2.0"), inner.replace("'k'", "'another'").replace("least=0.0", "least=-1.0"))
    found = [digest_of(more={"helpers.py": using, "inner.py": text}) for text in texts]
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    "helpers",
    [
        "from PACKAGE.table import TABLE\nfrom PACKAGE import entries\ndef scale(x): return TABLE['entry']()\n",
        "from PACKAGE.table import TABLE\nimport PACKAGE.entries\ndef scale(x): return TABLE['entry']()\n",
    ],
)
def test_what_is_registered_by_a_decorator_is_reached(digest_of, helpers):
    table = "TABLE = {}\ndef register(f):\n    TABLE[f.__name__] = f\n    return f\n"
    entries = "from PACKAGE.table import register\n@register\ndef entry(): return 1\n"
    more = {"helpers.py": helpers, "table.py": table}
    one, other = (digest_of(more={**more, "entries.py": entries.replace("1", n)}) for n in "12")
    assert one != other


def test_what_a_module_does_when_it_is_imported_counts(digest_of):
    using = {"helpers.py": "import PACKAGE.effect\n" + FILES["helpers.py"]}
    found = [digest_of(more={**using, "effect.py": f"import os\nos.environ['x'] = '{n}'\n"}) for n in "12"]
    assert found[0] != found[1]
    found = [digest_of(more={"__init__.py": f"import os\nos.environ['x'] = '{n}'\n"}) for n in "12"]
    assert found[0] != found[1]


def test_a_condition_round_imports_counts_but_not_that_of_types(digest_of):
    text = (
        "import os\nif os.cpu_count() > 4:\n    from PACKAGE.again import shared\n"
        "else:\n    from PACKAGE.late import later as shared\n"
    )
    assert digest_of(more={"other.py": text}) != digest_of(more={"other.py": text.replace("> 4", "<= 4")})
    typed = (
        FILES["again.py"] + "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from PACKAGE.late import Bound\n"
    )
    assert digest_of(more={"again.py": typed}) == digest_of()


def test_the_program_itself_is_not_followed(digest_of):
    assert digest_of(more={"other.py": "import __main__\ndef shared(): return 1\n"})


def test_what_is_said_when_something_is_raised_does_not_count(digest_of):
    failing = "def scale(x):\n    if x < 0:\n        raise ValueError(f'{x} is too small')\n    return x\n"
    said = digest_of(more={"helpers.py": failing})
    assert said == digest_of(more={"helpers.py": failing.replace("too small", "below 0")})
    assert said != digest_of(more={"helpers.py": failing.replace("ValueError", "TypeError")})


def test_a_package_without_an_init_file_is_followed(digest_of, tmp_path):
    found = []
    for n in "12":
        (tmp_path / "loose").mkdir(exist_ok=True)
        (tmp_path / "loose" / "inner.py").write_text(f"def floor(x): return {n}\n")
        found.append(
            digest_of(more={"helpers.py": FILES["helpers.py"].replace("import math", "import loose.inner as math")})
        )
    assert found[0] != found[1]


def test_a_class_without_a_readable_source_is_none(digest_of):
    digest_of()
    assert digests.is_readable("package.parts", "Margin")
    assert not digests.is_readable("package.parts", "Nothing")
    assert not digests.is_readable("math", "floor")
