"""Errors in a user's own space: one line with file and line, and the traceback on request."""

import subprocess
import sys
from dataclasses import replace

import pytest
from helpers import MINI_SEARCH, draft

from study.store import records
from study.store.states import Store

TYPO = MINI_SEARCH.replace("made.axes, **values", "made.axez, **values")
LINE = TYPO.splitlines().index(next(line for line in TYPO.splitlines() if "axez" in line)) + 1
WORDS = (
    f"error: the function point of space 'mini' raised AttributeError: 'Trial' object has no attribute 'axez' "
    f"(mini.py, line {LINE}). It was tried with first_q -2.0, switch_q -2.0, S 0"
)


def ended(*arguments):
    """Return the exit code and the lines of stderr of the command `study` in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "study", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()


def test_a_typo_in_point_is_refused_before_anything_is_stored(tmp_path):
    space, home = tmp_path / "mini.py", tmp_path / "home"
    space.write_text(TYPO)
    run = ("run", str(space), "--home", str(home))
    assert ended(*run) == (2, [WORDS])
    assert not home.exists()
    code, lines = ended(*run, "--dry-run", "--traceback")
    assert (code, lines[-1]) == (2, WORDS)
    assert any(f'mini.py", line {LINE}, in point' in line for line in lines)


@pytest.mark.parametrize("options", [(), ("--traceback",)])
def test_a_space_that_raises_when_its_run_is_resumed_is_named_with_its_line(options, tmp_path):
    space, home = tmp_path / "mini.py", tmp_path / "home"
    space.write_text(MINI_SEARCH)
    plan = draft(str(space), replicates=1).plan
    records.save_plan(Store(str(home / "store")), replace(plan, run="mine"))
    space.write_text(MINI_SEARCH.replace("    base = {", "    whole.domains\n    base = {"))
    code, lines = ended("resume", "mine", "--home", str(home), *options)
    assert code == 2
    assert lines[-1].startswith(f"error: the function of space '{space}' raised AttributeError: ")
    assert lines[-1].endswith(f"(mini.py, line {LINE + 2})")
    assert (len(lines) > 1, any("Traceback" in line for line in lines)) == (bool(options), bool(options))
