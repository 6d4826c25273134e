"""The rooms: imports run one way between packages, inside `study` and between files; and `study` knows no science."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("study", "trainables", "search_spaces")  # each may import itself and those before it
DOOR = "study"  # the package whose own file has more than a sentence: functions for Python, imported when they are used

# The floors of `study`, the lowest first: a file may import its own room and what is below.
FLOORS = (
    ("masking", "decoding", "machine", "streams", "scratch", "mounts"),
    ("errors",),
    ("process",),
    ("space", "modules", "recipes"),
    ("catalog", "services", "databases"),
    ("planning",),
    ("store",),
    ("search", "tracking"),
    ("report",),
    ("execution",),
    ("home",),
    ("whereabouts", "wish"),
    ("intent",),
    ("detached",),
    ("launch", "listing", "completion", "watching"),
    ("preview",),
    ("api",),
    ("arguments",),
    ("cluster_checks",),
    ("cluster_verbs",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What `study` must not name: it is what its first spaces are about.
SCIENCE = re.compile(
    r"(?i)\bpaper|imbalance|\bshots?\b|cifar|imagenet|long-tailed|\bswitch|\bcombination|class-balanced|\bdigits\b"
    r"|table \d|table\d|\bsamplers?\b"
)
NOT_MEANT = {  # by file, what the expression finds that is something else, or the example of a docstring
    "__init__.py": r'run = study\.run\("table9", seeds=3\)',
    "api/calls.py": r'run = study\.run\("table9", seeds=3\)'
    r'|run = study\.run\("table6", "table7", data="cifar10", short=True, download=True\)'
    r'|``data="cifar10"`` is ``options={"data": "cifar10"}``'
    r'|print\(study\.plan\("table9", paper=True, seeds=1\)\)'
    r'|study\.load\("table9"\)\.frame\(\)',
    "api/doctor.py": r'for finding in study\.doctor\("table9", address="auto", home="/shared/studies"\):',
    "api/results.py": r"``table9/IB⇒CR \(digits-LT IF 50\)``",
    "listing.py": "``Table 9`` for ``table9``",
    "planning/earlier.py": ".*",  # an old format, which had one science
    "recipes/kuberay.py": "letters, digits",
    "recipes/slurm.py": "letters, digits",
    "recipes/sweep.py": "letters, digits",
    "search/studies.py": "sampler",  # Optuna's
    "space.py": "such as a paper",
    "store/records.py": "letters, digits and",
    "catalog.py": "letters, digits, dashes|letters, digits, dots|letter or digit",
}


@cache
def files(package: str) -> dict[str, Path]:
    """The files of a package by the name of their module; a package's own file is called like the package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_at_once(path: Path) -> Iterator[str]:
    """The modules that a file imports when it is imported itself: neither late nor for types only."""
    todo: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            blocks = ("orelse",) if types_only else ("body", "orelse", "handlers", "finalbody")
            todo += (each for block in blocks for each in getattr(node, block, []))


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere: late, for types only, or by a name in a string, too."""
    every = {name for package in PACKAGES for name in files(package)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & every
            yield from inside or {str(node.module)}
        elif isinstance(node, ast.Call):
            # An argument, also the beginning of an f-string such as f"search_spaces.{name}". Elsewhere a name in a
            # string is data: `digests` and `recipe` say by such names whose code they take.
            known = every - set(PACKAGES) | {f"{package}." for package in PACKAGES if package != "study"}
            inside = {own.value for each in node.args for own in ast.walk(each) if isinstance(own, ast.Constant)}
            yield from (name.rstrip(".") for name in inside & known)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    allowed = PACKAGES[: PACKAGES.index(package) + 1]
    assert len(files(package)) >= 20
    for path in files(package).values():
        own = {name.partition(".")[0] for name in imported(path)} & {*PACKAGES, "tests"}
        assert own <= set(allowed), path


def test_the_rooms_of_the_platform_are_floors() -> None:
    for module, path in files("study").items():
        if module == "study":
            continue
        room = module.split(".")[1]
        for name in imported(path):
            below = name.split(".")
            if below[0] == "study" and below[1] != room:
                assert FLOOR[below[1]] < FLOOR[room], f"{module} imports {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    every = {name: path for package in PACKAGES for name, path in files(package).items()}
    arrows = {module: set(imported(path)) & every.keys() - {module} for module, path in every.items()}
    assert sum(map(len, arrows.values())) > 250
    TopologicalSorter(arrows).prepare()  # raises a CycleError that names them


def test_each_room_says_what_belongs_in_it() -> None:
    for package in PACKAGES:
        for module, path in files(package).items():
            if path.name == "__init__.py":
                words = inspect.getdoc(importlib.import_module(module)) or ""
                sentence, *rest = words.split("\n\n", 1)
                assert re.fullmatch(r"[A-Z][^\n]{30,120}\.", sentence), module
                if module != DOOR:
                    assert not rest, f"{module} says more than its sentence"
                    assert len(ast.parse(path.read_text()).body) == 1, f"{module} holds more than its sentence"


def test_the_door_imports_nothing_before_a_name_is_used() -> None:
    assert set(imported_at_once(files("study")[DOOR])) == {"__future__", "importlib", "os", "typing"}
    program = (
        "import sys, study\n"
        "assert set(study.__all__) <= set(dir(study))\n"
        "print(sorted(name for name in sys.modules if name.startswith('study.')))\n"
        "for name in study.__all__: print(name, getattr(study, name).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    first, *names = done.stdout.splitlines()
    assert first == "[]"
    assert names == [f"{name} {name}" for name in importlib.import_module(DOOR).__all__]
    with pytest.raises(AttributeError, match="module 'study' has no attribute 'remedy'"):
        importlib.import_module(DOOR).remedy  # noqa: B018


def test_the_platform_knows_no_science() -> None:
    for module, path in files("study").items():
        allowed = NOT_MEANT.get(path.relative_to(ROOT / "study").as_posix(), r"(?!)")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = SCIENCE.search(re.sub(allowed, "", line))
            assert found is None, f"{module}, line {number}: {line.strip()}"


def test_the_platform_never_imports_torch() -> None:
    for path in files("study").values():
        reads_observations = {"safetensors"} if path.name == "results.py" else set()  # as NumPy's arrays
        heavy = {"torch", "torchvision", "safetensors", "sklearn"} - reads_observations
        assert not {name.partition(".")[0] for name in imported(path)} & heavy, path


def test_constructors_take_few_arguments() -> None:
    for package in PACKAGES:
        for path in files(package).values():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    assert len(taken) - 1 <= 6, f"{path}, line {node.lineno}"


# What trains and reads images needs torch at once; all else of `trainables` is also for planning, which does without.
TRAINS = {
    "trainables.data": {"images", "loading", "resident"},
    "trainables": {
        "classifier",
        "export",
        "layers",
        "learner",
        "loop",
        "metrics",
        "network",
        "ranks",
        "readouts",
        "recording",
    }
    | {"steps", "team"},
}
PURE = [
    module
    for module in files("trainables")
    if module.rpartition(".")[2] not in TRAINS.get(module.rpartition(".")[0], ()) and module != "trainables.trainable"
]


@pytest.mark.parametrize("module", PURE)
def test_what_plans_and_names_states_is_free_of_torch(module: str) -> None:
    """Parts import it inside their methods."""
    roots = {each.partition(".")[0] for each in imported_at_once(files("trainables")[module])}
    assert roots <= {*sys.stdlib_module_names, "numpy", "study", "trainables"}


@pytest.mark.parametrize("package", ["trainables.losses", "trainables.networks", "trainables.methods"])
def test_every_part_and_method_is_free_of_torch(package: str) -> None:
    assert len([module for module in PURE if module.startswith(f"{package}.")]) >= 6
    assert {module for module in files("trainables") if module.startswith(f"{package}.")} <= set(PURE)


def test_every_table_is_planned_without_torch() -> None:
    """All that planning imports, late or through others: in a process that has no such packages."""
    code = f"""
import importlib, sys
for name in ("torch", "torchvision", "safetensors", "ray", "sklearn", "PIL", "mlflow", "optuna"):
    sys.modules[name] = None
for name in {PURE}:
    importlib.import_module(name)
from study.machine import Machine
from study.planning import drafting
from study.planning.stored import Resources
from study.space import Request
for options in ({{}}, {{"paper": True}}):
    called = drafting.call(["all"], Request(options))
    plan = drafting.draft(called, 1, Machine("cpu", 1), Resources()).plan
    print(len(plan.spaces), plan.epochs_needed > 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "23 True\n23 True\n"), done.stderr
