"""Functions that are defined in a notebook: their source stands alone, is stored, and trains the same later."""

from __future__ import annotations

import linecache
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import study
from study import modules
from study.api import notebook

SPACE = '''
from dataclasses import replace

from search_spaces import table9
import search_spaces.shared.protocol as protocol

EPOCHS = 3
PAIRS = (("IB", "IB"), ("IB", "CR"))


def mine(request):
    """Two cells of three epochs."""
    def small(config, first, switch):
        settings = {"epochs": EPOCHS, "milestones": (1,), "warmup": 1, "S": 1, "first": first, "switch": switch}
        return replace(config, **settings)

    trials = []
    for config in protocol.bases(request, protocol.CIFAR):
        cells = [small(config, first, switch) for first, switch in PAIRS]
        trials += [protocol.trial(c, c.combination, {"first": c.first, "switch": c.switch, "S": 1}, {}) for c in cells]
    return replace(table9.space(request), name="mine", trials=tuple(trials))
'''


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Callable[..., Any]]:
    """Executes a source as a notebook's cell and returns a function of it, whose module is `__main__`."""

    def execute(source: str, name: str) -> Callable[..., Any]:
        main, file = ModuleType("__main__"), f"<cell {hash(source)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # as IPython does
        exec(compile(source, file, "exec"), vars(main))
        monkeypatch.setitem(sys.modules, "__main__", main)
        found: Callable[..., Any] = vars(main)[name]
        return found

    return execute


def test_a_function_of_a_notebook_becomes_a_file_that_stands_alone(
    cell: Callable[[str, str], Callable[..., Any]],
) -> None:
    text = notebook.source(cell(SPACE, "mine"))
    assert text.splitlines()[:5] == [
        "EPOCHS = 3",
        "PAIRS = (('IB', 'IB'), ('IB', 'CR'))",
        "import search_spaces.shared.protocol as protocol",
        "from dataclasses import replace as replace",
        "import search_spaces.table9 as table9",
    ]
    assert text[text.index("def mine") :] == SPACE[SPACE.index("def mine") :]
    alone: dict[str, Any] = {}
    exec(compile(text, "alone.py", "exec"), alone)
    from study.space import Request

    assert [trial.row for trial in alone["mine"](Request()).trials] == ["IB⇒IB", "IB⇒CR"]


def test_it_is_trained_and_resumed_from_the_plan_in_another_process(
    one_ray: None, cell: Callable[[str, str], Callable[..., Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    run = study.run(cell(SPACE, "mine"), seeds=1, home=home, workers=1, progress=False)
    plan = run._plan()
    name = plan.spaces[0].file.removesuffix(":mine")
    assert modules.hold(plan.held[name]) == name
    assert "IB⇒CR" in run.report()
    assert len(run.frame()) == 2
    program = f"""
import study
run = study.load("mine", home={str(home)!r})
assert run.frame()["combination"].tolist() == ["IB⇒IB", "IB⇒CR"], run.frame()
assert "failed" not in run.report()
run = study.resume("mine", home={str(home)!r}, progress=False)
print(run.status().outcome, run.status().epochs_trained_now)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "complete 0"), done.stderr


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "class Helper:\n    pass\n\n\ndef mine(request):\n    return Helper()\n",
            "it uses 'Helper', which is defined outside of it. Define it inside the function, or write both to a file",
        ),
        (
            "def helper():\n    pass\n\n\ndef mine(request):\n    return [helper() for _ in range(3)]\n",
            "it uses 'helper', which is defined outside of it. Define it inside the function, or write both to a file",
        ),
        ("def mine(request):\n    return lost\n", "it uses 'lost', which is not defined"),
        ("mine = lambda request: None\n", "it is not a function with a name. Write 'def space(request): …'"),
    ],
)
def test_a_function_that_does_not_stand_alone_is_refused(
    cell: Callable[[str, str], Callable[..., Any]], source: str, reason: str
) -> None:
    function = cell(source, "mine")
    with pytest.raises(study.Refusal) as refused:
        study.plan(function)
    name = function.__name__
    assert str(refused.value) == f"the function {name!r} cannot be stored with the plan: {reason}"


def test_a_function_without_a_source_is_refused() -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("def mine(request):\n    return None\n", scope)
    with pytest.raises(study.Refusal, match="its source is not known"):
        study.plan(scope["mine"])


def test_a_closure_takes_plain_values_along() -> None:
    def outer(number: int) -> Callable[..., Any]:
        def mine(request: Any) -> Any:
            return replace, number

        return mine

    assert notebook.source(outer(3)).startswith("from typing import Any as Any\nnumber = 3\nfrom dataclasses import")


def test_a_helper_of_a_space_s_file_is_refused_for_another_process_cannot_import_it(
    cell: Callable[[str, str], Callable[..., Any]], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("def space(request):\n    return None\n")
    module = modules.find(str(tmp_path / "mine.py"), "space", "mine.py")
    function = cell("def mine(request):\n    return base(request)\n", "mine")
    function.__globals__["base"] = module.space
    with pytest.raises(study.Refusal, match="it uses 'base', which is defined outside of it"):
        notebook.source(function)


def test_submodules_and_classes_inside_are_taken_along(cell: Callable[[str, str], Callable[..., Any]]) -> None:
    source = """
import xml.etree.ElementTree


def mine(request):
    class Inner:
        a = 1
        b = a + 1

    return xml.etree.ElementTree.Element("a"), Inner.b
"""
    text = notebook.source(cell(source, "mine"))
    assert "import xml.etree.ElementTree\n" in text
    alone: dict[str, Any] = {}
    exec(compile(text, "alone.py", "exec", dont_inherit=True), alone)
    assert alone["mine"](None)[1] == 2


def test_reports_and_status_never_execute_what_a_plan_holds(tmp_path: Path) -> None:
    from helpers import planned_run, planned_space

    from study.store import records
    from study.store.states import Store

    trap = tmp_path / "executed"
    code = f"open({str(trap)!r}, 'w')\n\n\ndef mine(request):\n    return None\n"
    name = modules.hold(code)
    modules._held.pop(name)  # as in another process
    plan = planned_run([planned_space(file=f"{name}:mine")], held={name: code})
    (tmp_path / "home" / "store").mkdir(parents=True)
    records.save_plan(Store(str(tmp_path / "home" / "store")), plan)
    run = study.load("mine", home=tmp_path / "home")
    assert run.report()
    assert run.status().run == "mine"
    assert run._repr_html_()
    assert run.logs() == ""
    assert not trap.exists()
    with pytest.raises(study.Refusal):
        run.frame()
    assert trap.exists(), "a frame does, and says so"


def test_an_error_in_it_names_its_line(cell: Callable[[str, str], Callable[..., Any]]) -> None:
    function = cell("def mine(request):\n    return 1 / 0\n", "mine")
    with pytest.raises(study.Refusal, match=r"ZeroDivisionError: division by zero"):
        study.plan(function)
