"""Values in files: a shell, a YAML parser and Compose read back what was written."""

from __future__ import annotations

import re
import shlex
import subprocess

import yaml
from hypothesis import given
from hypothesis import strategies as st

from study.recipes.texts import block, filled, for_compose, for_shell, for_yaml, secrets

ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
PLAIN = st.sampled_from(
    ["table9", "--paper", "$HOME", "it's", "`id`", 'a "b"', "", "-o", "x=1; rm -rf /", "IB⇒CR", "a\nb"]
)


@given(st.lists(PLAIN | ANY, min_size=1))
def test_a_shell_sees_the_words_of_a_command(words: list[str]) -> None:
    assert shlex.split(for_shell(words).replace(" \\\n  ", " ")) == words


def test_bash_sees_them_too() -> None:
    words = ["$HOME", "it's", "`id`", 'a "b"', "", "-o", "x=1; echo no", "IB⇒CR", "a\nb", "\\"]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {for_shell(words)}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_options_stand_on_lines_of_their_own() -> None:
    command = ["study", "run", "table9", "--paper", "--seeds", "3"]
    assert for_shell(command) == "study run table9 \\\n  --paper \\\n  --seeds 3"


@given(ANY | st.integers() | st.lists(ANY))
def test_yaml_reads_a_value_back(value: object) -> None:
    assert yaml.safe_load(f"key: {for_yaml(value)}\n") == {"key": value}


@given(ANY | st.lists(ANY | st.just(" x\n"), max_size=4).map("\n".join))
def test_yaml_reads_a_block_back(text: str) -> None:
    document = f"data:\n  first: {block(text, 4)}  second: {block(text, 4)}"
    assert yaml.safe_load(document) == {"data": {"first": text, "second": text}}


@given(ANY | st.just("$HOME ${x} $$"))
def test_compose_reads_a_value_back(text: str) -> None:
    read = yaml.safe_load(f"key: {for_compose(text)}\n")["key"]
    assert re.sub(r"\$\$|\$(.)", lambda match: "$" if match[0] == "$$" else "?", read, flags=re.DOTALL) == text


def test_a_line_without_a_value_is_left_out() -> None:
    claim = {"claim": "c", "namespace": "n", "size": "1Gi"}
    assert "storageClassName" not in filled("claim.yaml", storage_class="", **claim)
    assert "\n  storageClassName: fast\n" in filled("claim.yaml", storage_class="storageClassName: fast", **claim)


def test_a_file_of_passwords_sets_only_what_was_generated() -> None:
    text = secrets("Passwords.", {"AWS_REGION": "its region"}, {"PGPASSWORD": "hunter2"})
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["PGPASSWORD=hunter2"]
    assert "#AWS_REGION=its region\n" in text
