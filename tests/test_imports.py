"""Imports run one way: search_spaces → trainables → study; and the platform never imports torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "study": {"study"},
    "trainables": {"study", "trainables"},
    "search_spaces": {"study", "trainables", "search_spaces"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(str(node.module).partition(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) >= 3
    for path in files:
        assert imported(path) & ALLOWED.keys() <= ALLOWED[package], path


def test_the_platform_never_imports_torch() -> None:
    for path in (ROOT / "study").rglob("*.py"):
        reads_observations = {"safetensors"} if path.name == "results.py" else set()  # as NumPy's arrays
        assert not imported(path) & {"torch", "torchvision", "safetensors", "sklearn"} - reads_observations, path


def test_what_plans_and_names_states_is_free_of_torch() -> None:
    pure = ("config", "datasets", "methods", "protocol", "recipe")
    for name in pure:
        assert imported(ROOT / "trainables" / f"{name}.py") <= {
            "__future__",
            "ast",
            "collections",
            "dataclasses",
            "functools",
            "hashlib",
            "importlib",
            "json",
            "math",
            "pathlib",
            "study",
            "trainables",
            "typing",
        }, name
