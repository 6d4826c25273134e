"""Modules by reference: a file of the user's, found from anywhere and executed anew when it changes, or a package's."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import draft, stored

from study import modules
from study.errors import Refusal
from study.planning import growth

COUNTS = "import sys\nsys.executed = getattr(sys, 'executed', 0) + 1\n\nclass Own:\n    class Inner:\n        pass\n"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing has been named, nor executed by path."""
    monkeypatch.setattr(modules, "_shipped", set())
    monkeypatch.setattr(sys, "executed", 0, raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(modules.BY_PATH) or name.partition(".")[0] == "mylab":
            del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(COUNTS)
    return path


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that Python finds and nobody has installed."""
    package = tmp_path / "mylab"
    (package / "deep").mkdir(parents=True)
    for file in ("__init__.py", "deep/__init__.py"):
        (package / file).touch()
    (package / "deep" / "parts.py").write_text(COUNTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return package


def find(where: object) -> modules.ModuleType:
    return modules.find(str(where), "loss", f"{where}:Own", ships=True)


def refusal(where: object) -> str:
    """Return the message about a reference, one line that names it."""
    with pytest.raises(Refusal) as refused:
        find(where)
    message = str(refused.value)
    assert (refused.value.field, refused.value.value) == ("loss", f"{where}:Own")
    assert message.startswith("loss ")
    assert f"'{where}:Own'" in message
    assert "\n" not in message
    return message


def test_a_file_is_found_by_its_path_from_anywhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    assert Path(str(find("./mine.py").__file__)) == mine
    assert find("mine.py") is find(mine)


def test_a_module_is_found_by_its_dotted_name(mylab: Path) -> None:
    module = find("mylab.deep.parts")
    assert Path(str(module.__file__)) == mylab / "deep" / "parts.py"
    assert module is sys.modules["mylab.deep.parts"]


def test_a_file_is_executed_once_and_again_when_its_content_has_changed(mine: Path) -> None:
    first = find(mine)
    assert find(mine) is first
    assert sys.executed == 1  # type: ignore[attr-defined]
    mine.touch()
    assert find(mine) is first, "its time says nothing"
    mine.write_text(COUNTS + "more = 1\n")
    second = find(mine)
    assert (second.more, sys.executed) == (1, 2)  # type: ignore[attr-defined]
    assert not hasattr(first, "more"), "what was made of the old one stays what it was"
    mine.write_text(COUNTS)
    assert find(mine) is first


def test_two_files_of_one_name_and_content_are_two_modules(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text(COUNTS)
    first, second = find(mine), find(other)
    assert first.Own is not second.Own
    assert [Path(str(each.__file__)) for each in (first, second)] == [mine, other]


@pytest.mark.parametrize("name", ["my-own part.py", "2nd.py", "größe.py"])
def test_a_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(COUNTS)
    assert find(tmp_path / name).Own.__name__ == "Own"


def test_a_class_s_reference_finds_it_again(mine: Path, mylab: Path) -> None:
    by_path, by_name = find(mine).Own, find("mylab.deep.parts").Own.Inner
    assert modules.reference_of(by_path) == f"{mine}:Own"
    assert modules.reference_of(by_name) == "mylab.deep.parts:Own.Inner"
    assert find(modules.reference_of(by_path).partition(":")[0]).Own is by_path


def test_a_reference_is_made_absolute_where_it_has_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for reference, absolute in (
        ("mine.py", f"{tmp_path}/mine.py"),
        ("./sub/mine.py:Own", f"{tmp_path}/sub/mine.py:Own"),
        ("/a/mine.py:Own", "/a/mine.py:Own"),
        ("mylab.parts:Own", "mylab.parts:Own"),
        ("table9", "table9"),
        ("folder:data", "folder:data"),
    ):
        assert modules.absolute(reference) == absolute
        assert modules.absolute(absolute) == absolute


# What Ray's workers are brought


def shipped(folder: Path) -> dict[str, bytes | None]:
    """What is brought, by name; the content of files."""
    paths = [Path(each) for each in modules.to_ship(folder)]
    return {path.name: path.read_bytes() if path.is_file() else None for path in paths}


def test_what_workers_are_brought_is_the_files_and_the_whole_packages_that_were_named(
    mine: Path, mylab: Path, tmp_path: Path
) -> None:
    assert shipped(tmp_path) == {}
    find(mine)
    find("mylab.deep.parts")
    find("mylab.deep")
    before = shipped(tmp_path)
    (name,) = before.keys() - {"mylab"}
    assert before == {name: COUNTS.encode(), "mylab": None}
    mine.write_text("changed = 1\n")
    find(mine)
    assert shipped(tmp_path) == {name: b"changed = 1\n", "mylab": None}


def test_a_file_that_is_called_as_a_module_of_python_is_in_nobody_s_way(mine: Path, tmp_path: Path) -> None:
    find(mine.rename(mine.parent / "queue.py"))
    (name,) = shipped(tmp_path)
    assert name.startswith("study_file_queue_")


def test_two_files_of_one_name_are_both_brought(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mine.py"
    other.parent.mkdir()
    other.write_text("other = 1\n")
    find(mine)
    find(other)
    assert sorted(shipped(tmp_path).values()) == sorted((COUNTS.encode(), b"other = 1\n"))


def test_what_workers_have_is_not_brought(tmp_path: Path, mylab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installed package declares, what is in the folders of installed packages, and parts of ours in a plan."""
    modules.find("mylab.deep.parts", "space", "one", installed=True)
    growth.redraft(stored(draft("table1", replicates=1)))
    for where in ("json.decoder", "numpy.random"):
        find(where)
    assert shipped(tmp_path) == {}
    find("mylab.deep.parts")
    assert shipped(tmp_path) == {"mylab": None}
    installed = sysconfig.get_path
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path) if name == "purelib" else installed(name))
    assert shipped(tmp_path) == {}


@pytest.mark.parametrize("folder", ["/usr/lib/python3/dist-packages", "/other/lib/python3.11/site-packages"])
def test_packages_of_the_system_and_of_another_environment_are_installed(folder: str) -> None:
    assert modules.is_installed(Path(folder, "sklearn"))
    assert not modules.is_installed(Path("/home/me/work/mylab"))


def test_a_file_that_defines_what_nodes_call_is_no_package(tmp_path: Path, mine: Path) -> None:
    assert modules.to_ship(tmp_path, {find(mine).__name__}) == [str(tmp_path / name) for name in shipped(tmp_path)]


def test_a_whole_distribution_is_shipped_with_its_declarations(tmp_path: Path) -> None:
    names = [Path(path).name for path in modules.to_ship(tmp_path, distribution=modules.PROJECT)]
    assert {"study", "search_spaces"} <= set(names)
    assert any(name.startswith("longtail_study-") and name.endswith(".dist-info") for name in names)


def test_a_worker_finds_a_file_where_it_was_brought_to(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the path that it had on the machine that planned, which this one does not have."""
    brought = mine.parent / "py_modules_files" / "_ray_pkg_0"
    brought.mkdir(parents=True)
    find(mine)
    (copied,) = modules.to_ship(brought)
    mine.unlink()
    for each in [each for each in sys.modules if each.startswith(modules.BY_PATH)]:
        del sys.modules[each]  # another process
    assert f"There is no file {mine}" in refusal(mine)
    monkeypatch.syspath_prepend(str(brought))
    found = find(mine)
    assert found.__spec__ is not None
    assert found.__spec__.origin == copied
    assert modules.reference_of(found.Own) == f"{mine}:Own"


# Sources that a plan holds


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(modules, "_held", {})
    monkeypatch.setattr(modules, "_contents", {})
    return modules._held


def test_a_file_that_is_gone_is_executed_from_the_source_that_a_plan_holds(
    held: dict[str, str], mine: Path, tmp_path: Path
) -> None:
    find(mine)
    modules.hold_all(modules.files())
    assert held == {str(mine): COUNTS}
    mine.unlink()
    for each in [each for each in sys.modules if each.startswith(modules.BY_PATH)]:
        del sys.modules[each]  # another process
    found = find(mine)
    assert sys.executed == 2  # type: ignore[attr-defined]
    assert found.__spec__ is not None
    copied = Path(str(found.__spec__.origin))
    assert (copied.name, copied.read_text()) == ("mine.py", COUNTS)
    assert modules.reference_of(found.Own) == f"{mine}:Own"
    assert modules.folder_of(found.Own) == mine.parent
    assert list(shipped(tmp_path).values()) == [COUNTS.encode()]
    assert (modules.is_here(str(mine)), modules.files()) == (False, {str(mine): COUNTS})


def test_a_file_that_is_there_is_preferred_to_the_source_that_a_plan_holds(held: dict[str, str], mine: Path) -> None:
    modules.hold_all({str(mine): "other = 1\n"})
    assert not hasattr(find(mine), "other")


def test_the_copies_are_removed_with_their_process(tmp_path: Path) -> None:
    for end in ("", "; scratch.end(); os._exit(0)"):
        program = (
            "import os; from study import modules, scratch; modules.hold_all({'/gone/mine.py': 'x = 1'});"
            f"print(modules.find('/gone/mine.py', 'loss', '').__spec__.origin){end}"
        )
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert Path(done.stdout.strip()).is_relative_to(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_in_utf_8_is_not_held(held: dict[str, str], mine: Path) -> None:
    mine.write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xfc'\n")
    assert find(mine).x == "ü"
    assert modules.files() == {}


@pytest.mark.parametrize(
    ("text", "defines"),
    [
        ("def view(results):\n    return []\n", True),
        ("view = None\n", True),
        ("from x import y as view\n", True),
        ("from x import *\n", True),
        ("def view(:\n", True),
        ("def space(request):\n    return request.view\n", False),
        ("", False),
    ],
)
def test_a_source_is_searched_for_a_name_without_being_executed(text: str, defines: bool) -> None:
    assert modules.defines(text + "\nimport sys\nsys.executed = 7", "view") is defines
    assert sys.executed == 0  # type: ignore[attr-defined]


# Refusals; those of files with mistakes are in test_catalog.py


@pytest.mark.parametrize("where", ["", "mine", "mine.txt/", "my lab.parts", ".parts", "..", "a/b", "a.b-c"])
def test_what_is_neither_a_path_nor_a_dotted_name_is_refused(where: str) -> None:
    words = "must be the path of a Python file, FILE.py, or the dotted name of a module"
    assert refusal(where) == f"loss {words} (got '{where}:Own')"


def test_a_file_that_is_not_there_is_refused_with_where_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.py").mkdir()
    for where in ("absent.py", "folder.py", "x" * 5000 + ".py"):
        message = f"loss must be the path of a Python file (got '{where}:Own'). There is no file {tmp_path / where}"
        assert refusal(where) == message


def test_a_module_that_is_not_there_is_refused_by_the_name_that_is_missing(mylab: Path) -> None:
    for where, missing in (("no_such_lab.parts", "no_such_lab"), ("mylab.absent", "mylab.absent")):
        words = f"must be the dotted name of a module that Python finds (got '{where}:Own')"
        assert refusal(where) == f"loss {words}. There is no module {missing}"


def test_a_module_that_cannot_be_imported_is_refused_with_its_line_and_not_brought(mylab: Path, mine: Path) -> None:
    """Also where what it imports is missing, which is not the module that was named."""
    for text, why in (
        ("pass\n1 / 0\n", "ZeroDivisionError"),
        ("import no_such_lab\n", "No module named 'no_such_lab'"),
    ):
        for where, file in (("mylab.broken", mylab / "broken.py"), (mine, mine)):
            file.write_text(text)
            assert refusal(where).startswith(f"loss '{where}:Own' cannot be imported: ")
            assert why in refusal(where)
    assert refusal(mine).endswith(" (mine.py, line 1)")
    assert shipped(mine.parent) == {}


def test_what_a_file_refuses_itself_passes(mine: Path) -> None:
    mine.write_text("from study.errors import Refusal\nraise Refusal('S', 60, 'must be less')\n")
    with pytest.raises(Refusal, match=r"^S must be less \(got 60\)$"):
        find(mine)
