"""A name determines a state: no change in `trainables` gives a state of the same name other bits."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "mutation.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def mutants(*words: str) -> dict[str, Any]:
    """Return the result of the script under a random seed."""
    seed = str(random.SystemRandom().randrange(1 << 32))
    command = [sys.executable, str(SCRIPT), seed, *words]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def test_either_the_names_change_or_the_bits_do_not() -> None:
    found = mutants("1")
    assert found["mutants"] > 60
    assert found["states"] > 30
    assert not found["wrong"], found


def test_without_code_in_the_names_this_would_be_seen() -> None:
    assert mutants("2", "--blind", "steps.py", "samplers.py", "losses/ldam.py")["wrong"]
