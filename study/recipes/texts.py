"""Templates of files, and how values are written into them: quoted for a shell, for YAML, and for Compose."""

from __future__ import annotations

import json
import shlex
import string
from collections.abc import Mapping, Sequence
from importlib.resources import files

RECORDS = {
    "PGPASSWORD": "the password of Optuna's PostgreSQL (--storage)",
    "MLFLOW_TRACKING_USERNAME": "your name at the MLflow server (--tracking-uri)",
    "MLFLOW_TRACKING_PASSWORD": "your password there",
}
S3 = {
    "AWS_ACCESS_KEY_ID": "for a store on S3 (--store s3://...)",
    "AWS_SECRET_ACCESS_KEY": "its secret",
    "AWS_REGION": "its region, such as eu-central-1",
    "AWS_ENDPOINT_URL": "the URL of an S3 server of your own",
}


class _Template(string.Template):
    """A text in which ``@{name}`` stands for a value: shells and Compose use ``$`` themselves."""

    delimiter = "@"


def filled(template: str, **values: object) -> str:
    """Return a template's text with the values.

    Args:
        template: the name of a file in ``templates/``.
        values: the value of each name. A line that is only a name whose value is "" is left out.
    """
    text = (files("study.recipes") / "templates" / template).read_text(encoding="utf-8")
    empty = {f"@{{{name}}}" for name, value in values.items() if value == ""}
    kept = "".join(line for line in text.splitlines(keepends=True) if line.strip() not in empty)
    return _Template(kept).substitute({name: str(value) for name, value in values.items()})


def for_shell(words: Sequence[str]) -> str:
    """Return a command for a shell, with one option on each line."""
    lines, line = [], ""
    for word in map(shlex.quote, words):
        starts_option = word.startswith("-") and line
        if starts_option:
            lines.append(line)
        line = word if starts_option or not line else f"{line} {word}"
    return " \\\n  ".join([*lines, line])


def for_yaml(value: object) -> str:
    """Return a value for YAML: as JSON, with escapes of YAML for what cannot be printed."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)


def for_compose(value: object) -> str:
    """Return a value for a Compose file, which replaces names after ``$``."""
    return for_yaml(value).replace("$", "$$")


def block(text: str, indent: int) -> str:
    """Return a text as the value of a key in YAML and the end of its line, with its lines indented."""
    if not text.endswith("\n") or not all(each.isprintable() or each == "\n" for each in text):
        return f"{for_yaml(text)}\n"
    lines = (f"{' ' * indent}{line}" if line.strip("\n") else line for line in text.splitlines(keepends=True))
    return "|2+\n" + "".join(lines)


def secrets(purpose: str, wanted: Mapping[str, str], generated: Mapping[str, str]) -> str:
    """Return a file of passwords: those that were generated, and commented lines for those that the user may add.

    Args:
        purpose: what reads the file, as a sentence.
        wanted: what a variable of the user is, by its name.
        generated: the values of other variables.
    """
    lines = [f"# {purpose}", "# One variable on each line, NAME=VALUE, without quotes. Keep this file to yourself."]
    lines += [f"{name}={value}" for name, value in generated.items()]
    lines += [f"#{name}={words}" for name, words in wanted.items()]
    return "\n".join(lines) + "\n"
