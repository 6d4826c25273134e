"""How the project speaks: the rules of its messages, help texts, docstrings and names that a program can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    path for package in ("study", "trainables", "search_spaces") for path in sorted((ROOT / package).rglob("*.py"))
]
BENCHMARKS = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))
PAGES = [path for path in sorted(ROOT.rglob("*.md")) if "results" not in path.parts and "." not in path.parts[-2][:1]]

# Phrases that slow a reader down; each was common here once.
DIALECT = (
    "would do",
    "called so",
    "begins so",
    "begin so",
    "told from",
    "is no news",
    "nobody trains",
    "be it that",
    "as it were",
    "for it is",
    "of it there is none",
)
VAGUE = {"found", "own", "made", "there", "place", "drawn"}  # names that say neither type nor role
NOT_IMPERATIVE = re.compile(
    r"(The|A|An|Its|Their|This|That|Those|Whether|What|Where|When|Why|How|Which|Who|All|Every|Each)\b"
)
THIRD_PERSON = re.compile(r"(?!(?:Pass|Express|Process|Access|Discuss|Focus)\b)[A-Z][a-z]+s\b")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    assert len(SOURCES) > 150
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def refusals() -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    """Every `Refusal(field, value, words, hint)`: where it is, its words, and its hint."""
    for path, tree in trees():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            texts = {
                target.id: node.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
                    given = dict(zip(("field", "value", "words", "hint"), node.args, strict=False))
                    given |= {str(keyword.arg): keyword.value for keyword in node.keywords}
                    words, hint = given["words"], given.get("hint")
                    words = texts.get(words.id, words) if isinstance(words, ast.Name) else words
                    yield f"{path.relative_to(ROOT)}, line {node.lineno}", words, hint


def edges(text: ast.expr) -> tuple[str, str] | None:
    """The literal beginning and end of a text, "" where a value stands; None if it is no text that is written there."""
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return text.value, text.value
    if isinstance(text, ast.JoinedStr):
        first, last = text.values[0], text.values[-1]
        return (
            str(first.value) if isinstance(first, ast.Constant) else "",
            str(last.value) if isinstance(last, ast.Constant) else "",
        )
    return None


def test_messages_say_what_is_allowed_or_name_what_was_given() -> None:
    count = 0
    for place, words, hint in refusals():
        parts = edges(words)
        if parts is not None:
            count += 1
            names_a_value = isinstance(words, ast.JoinedStr)
            assert parts[0].startswith("must ") or names_a_value, f"{place}: {ast.unparse(words)}"
            assert not parts[1].rstrip().endswith("."), f"{place}: {ast.unparse(words)}"
        end = None if hint is None else edges(hint)
        assert end is None or not end[1].endswith("."), f"{place}: {hint and ast.unparse(hint)}"
    assert count > 100


@pytest.mark.parametrize("path", [*SOURCES, *BENCHMARKS, *PAGES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_phrase_of_the_old_dialect_is_left(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert [phrase for phrase in DIALECT if re.search(rf"\b{phrase}\b", text)] == []


def test_names_in_code_say_what_they_hold() -> None:
    vague = []
    for path, tree in trees():
        fields = {
            target
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for statement in node.body
            if isinstance(statement, ast.Assign | ast.AnnAssign)
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
        }
        for node in ast.walk(tree):
            if node in fields:
                continue  # of a class: read as `facts.drawn`
            name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
            if name in VAGUE:
                vague.append(f"{path.relative_to(ROOT)}, line {node.lineno}: {name}")  # type: ignore[attr-defined]
    assert vague == []


def test_docstrings_of_functions_begin_with_a_verb_in_the_imperative() -> None:
    wrong, count = [], 0
    for path, tree in trees():
        for node in ast.walk(tree):
            words = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if words is None:
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))  # type: ignore[attr-defined]
            first = words.splitlines()[0]
            count += 1
            is_noun = re.search(r"\bproperty\b|cached_property", decorators) or node.name == "space"  # type: ignore[attr-defined]
            if not is_noun and (NOT_IMPERATIVE.match(first) or THIRD_PERSON.match(first)):
                wrong.append(f"{path.relative_to(ROOT)}, line {node.lineno}: {first}")  # type: ignore[attr-defined]
    assert count > 800
    assert wrong == []


def commands() -> Iterator[tuple[str, click.Command]]:
    from study.cli import cli

    todo: list[tuple[str, click.Command]] = [("study", cli)]
    for name, command in todo:
        yield name, command
        if isinstance(command, click.Group):
            todo += [(f"{name} {verb}", each) for verb, each in command.commands.items()]


def test_help_texts_are_sentences() -> None:
    for name, command in commands():
        assert command.help is not None
        assert command.help.splitlines()[0].rstrip().endswith("."), name
        for parameter in command.get_params(click.Context(command, help_option_names=["-h", "--help"])):
            if (
                isinstance(parameter, click.Option)
                and "--help" not in parameter.opts
                and "--version" not in parameter.opts
            ):
                words = re.sub(r" \[default: [^]]*\]$", "", parameter.help or "")
                assert words.endswith("."), f"{name} {parameter.opts}: {words}"
                assert words[0].isupper() or words.split()[0].strip(",") in words, f"{name} {parameter.opts}: {words}"
