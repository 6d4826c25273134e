import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import search_spaces
from search_spaces import table9
from study import catalog
from study.errors import Refusal
from study.space import Request, Space

MINE = '''"""A user's own: two cells of Table 9."""

from __future__ import annotations

from dataclasses import dataclass, replace

from search_spaces import table9


@dataclass
class Part:
    size: int


def space(request):
    whole = table9.space(request)
    return replace(whole, name="mine", trials=whole.trials[: Part(2).size])


def first(request):
    return replace(space(request), name="first", trials=space(request).trials[:1])


nothing = None
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_the_shipped_spaces_are_the_files_of_the_package():
    files = Path(search_spaces.__file__).parent.glob("*.py")
    assert sorted(catalog.names()) == sorted(path.stem for path in files if path.stem != "__init__")
    assert catalog.names().index("table2") < catalog.names().index("table10")
    assert {"table6", "table7", "table9"} <= set(catalog.names())


def test_every_shipped_space_is_found_by_its_name():
    for name in catalog.names():
        function, path = catalog.find(name)
        assert path == Path(search_spaces.__file__).parent / f"{name}.py"
        assert isinstance(function(Request()), Space)


def test_a_function_of_a_shipped_space_is_found():
    assert catalog.find("table9:space") == catalog.find("table9") == (table9.space, Path(table9.__file__))


@pytest.mark.parametrize(("suffix", "name", "trials"), [("", "mine", 2), (":space", "mine", 2), (":first", "first", 1)])
def test_a_space_of_one_s_own_is_found_by_its_path(mine, suffix, name, trials):
    function, path = catalog.find(f"{mine}{suffix}")
    found = function(Request())
    assert (path, found.name, len(found.trials)) == (mine, name, trials)


def test_a_space_of_one_s_own_is_found_from_here(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    function, path = catalog.find("./mine.py:first")
    assert (path.resolve(), function(Request()).name) == (mine.resolve(), "first")


def refusal(reference):
    """Return the message about a reference, one line that names it."""
    with pytest.raises(Refusal) as refused:
        catalog.find(reference)
    message = str(refused.value)
    assert (refused.value.field, refused.value.value) == ("space", reference)
    assert repr(reference) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("reference", ["", ":space", "search_spaces", "__init__", "nothing_like_it"])
def test_an_unknown_name_is_refused_with_the_command_that_lists_the_known_ones(reference):
    assert refusal(reference) == (
        f"unknown space {reference!r}. 'study list' shows all; a space is a name, the path of a Python file, or the "
        "dotted name of a module"
    )


def test_a_name_that_is_nearly_right_is_refused_with_the_right_one():
    assert refusal("tabel7") == "unknown space 'tabel7'. Did you mean 'table7'? 'study list' shows all"
    assert "Did you mean" not in refusal("nothing_like_it")


def test_a_missing_module_and_a_folder_are_refused_with_the_reason(tmp_path):
    assert refusal("pkg.nope") == (
        "space must be the dotted name of a module that Python finds (got 'pkg.nope'). There is no module pkg"
    )
    assert refusal(str(tmp_path)) == (
        "space must be the path of a Python file, FILE.py, or the dotted name of a module that Python finds "
        f"(got {str(tmp_path)!r}). It is a folder"
    )


def test_what_is_no_python_file_is_refused(tmp_path, mine):
    (tmp_path / "folder.py").mkdir()
    for path in (tmp_path / "absent.py", tmp_path / "folder.py"):
        assert refusal(str(path)) == (
            f"space must be the path of a Python file (got {str(path)!r}). There is no file {path}"
        )
    text = str(mine.rename(tmp_path / "mine.txt"))
    assert refusal(text) == (
        "space must be the path of a Python file, FILE.py, or the dotted name of a module that Python finds "
        f"(got {text!r})"
    )


@pytest.mark.parametrize("function", ["absent", "nothing"])
def test_a_missing_function_is_refused(mine, function):
    words = "space must be a file or module with a function"
    assert refusal(f"{mine}:{function}") == f"{words} {function}(request) (got {f'{mine}:{function}'!r})"
    assert refusal("table9:absent") == f"{words} absent(request) (got 'table9:absent')"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pass\ndef space(request:\n    pass\n", "SyntaxError: '(' was never closed (broken.py, line 2)"),
        ("pass\nimport sys\nsys.exit()\n", "SystemExit (broken.py, line 3)"),
        ("raise SystemExit('first\\nsecond')\n", "SystemExit: first second (broken.py, line 1)"),
        ("def deep():\n    open('/absent')\n\ndeep()\n", "'/absent' (broken.py, line 2)"),
        ("a = 1\0\n", "null bytes"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise ValueError('first\\nsecond')\n", "ValueError: first second"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_the_reason(tmp_path, text, why):
    path = tmp_path / "broken.py"
    path.write_text(text)
    message = refusal(str(path))
    assert message.startswith(f"space {str(path)!r} cannot be imported: ")
    assert why in message


def test_a_file_that_cannot_be_imported_leaves_no_module(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    refusal(str(path))
    assert "study_file_broken" not in "".join(sys.modules)


def test_a_path_too_long_is_refused():
    assert "the path of a Python file" in refusal("x" * 5000 + ".py")


def test_an_interruption_is_no_mistake_of_the_file(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        catalog.find(str(path))


def called(function, reference="mine.py:space"):
    """What is said about a function, in one line."""
    with pytest.raises(Refusal) as refused:
        catalog.call(function, reference, Request())
    message = str(refused.value)
    assert reference in message
    assert "\n" not in message
    return message


def test_a_function_s_space_is_returned():
    assert catalog.call(table9.space, "table9", Request()) == table9.space(Request())


def test_what_a_function_raises_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import sys\n"
        "def ends(request): sys.exit(0)\n"
        "def fails(request): return inner()\n"
        "def inner(): raise ValueError('first\\nsecond')\n"
        "def none(): pass\n"
    )
    for name, error in (
        ("ends", "SystemExit: 0 (mine.py, line 2)"),
        ("fails", "ValueError: first second (mine.py, line 4)"),
        ("none", "TypeError: none() takes 0 positional arguments"),
    ):
        message = called(catalog.find(f"{path}:{name}")[0], f"{path}:{name}")
        assert message.startswith(f"the function of space {f'{path}:{name}'!r} raised {error}")


def test_a_refusal_of_the_function_passes():
    def refuses(request):
        raise Refusal("S", 60, "must be less")

    with pytest.raises(Refusal, match=r"^S must be less \(got 60\)$"):
        catalog.call(refuses, "mine.py", Request())


@pytest.mark.parametrize("made", [None, "table9", Space, {"name": "mine"}])
def test_what_is_no_space_is_refused(made):
    kind = type(made).__name__
    assert called(lambda _: made) == f"the function of space 'mine.py:space' must return a Space, but returned {kind}"


@pytest.mark.parametrize(
    "name",
    ["", "..", ".hidden", "-x", "../up", "a/b", "/a", "a b", "a\n", "a\0", "ä", "a" * 65, None, 7, "a:b", "a\\b"],
)
def test_a_name_that_is_no_folder_s_is_refused(name):
    message = called(lambda request: replace(table9.space(request), name=name))
    assert message == (
        "the name of space mine.py:space must be 1 to 64 letters, digits, dots, dashes and underscores, "
        f"with a letter or digit first (got {name!r})"
    )


@pytest.mark.parametrize("name", ["a", "7", "table9", "Mine-2.b_c", "a" * 64])
def test_a_folder_s_name_is_taken(name):
    assert catalog.call(lambda request: replace(table9.space(request), name=name), "mine.py", Request()).name == name


def test_the_command_says_that_a_file_ended_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import sys\nsys.exit(0)\n")
    command = [sys.executable, "-m", "study", "run", str(path), "--dry-run", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "SystemExit" in done.stderr
