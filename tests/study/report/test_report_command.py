"""Reports from a store, and `study report`."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import call_study, nine, plan, size_of, top1
from safetensors.numpy import save

from study.report.report import FORMATS, Report
from study.store import records
from study.store.states import Store


def test_a_report_is_made_of_what_a_store_holds(tmp_path):
    store, trials = Store(str(tmp_path / "store")), nine(replicates=2)
    keys = [f"{number:064x}" for number in range(18)]
    trials = [replace(trial, ends=tuple(keys[2 * n : 2 * n + 2])) for n, trial in enumerate(trials)]
    for number, key in enumerate(keys[:4]):
        payload = save({"observed.predictions": np.full(3, number, np.int16)})
        store.save(key, {"key": key, **top1(50.0 + number)}, payload)
    store.drop(keys[1])
    damaged = tmp_path / "store" / "states" / keys[3][:2] / keys[3]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    results = Report.of(store, plan(trials)).sections[0].results
    first, second, *others = results
    assert first.last() == {0: 50.0, 1: 51.0}  # what was cleaned up is still measured
    assert {n: observed.tolist() for n, observed in first.observed("predictions").items()} == {0: [0, 0, 0]}
    assert second.last() == {0: 52.0, 1: 53.0}  # its header is whole
    assert {n: observed.tolist() for n, observed in second.observed("predictions").items()} == {0: [2, 2, 2]}
    assert all(result.headers == {} for result in others)


@pytest.fixture
def home(tmp_path):
    """A home with the run `r-0` of nine cells and two spaces, the first of which has no results."""
    store, trials = Store(str(tmp_path / "home" / "store")), nine(replicates=1)
    trials = [replace(trial, ends=(f"{number:064x}",)) for number, trial in enumerate(trials)]
    for number, trial in enumerate(trials):
        store.save(trial.ends[0], {"key": trial.ends[0], **top1(50.0 + number)}, b"")
    records.save_plan(store, plan(trials, ("table7", "table9"), file="table9"))
    return tmp_path / "home"


def test_figures_are_written_where_one_asks_for_them(home, tmp_path):
    shown = call_study("report", "r-0", "--figures", str(tmp_path / "a" / "b"), home=home).stdout
    assert "IB⇒CR" in shown
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {
        "table9-combinations.png",
        "table9-combinations.csv",
    }
    assert size_of((tmp_path / "a" / "b" / "table9-combinations.png").read_bytes()) == (700, 480)
    (tmp_path / "file").touch()
    refused = call_study("report", "r-0", "--figures", str(tmp_path / "file"), home=home, code=2)
    assert "must be a writable folder" in str(refused.exception)


VIEW = """
from search_spaces.table9 import space
from study.report.exhibits import Figure


def view(results):
    {body}
"""


@pytest.fixture
def viewed(home, tmp_path):
    """Return a function that writes the view of the run `r-0` and returns the command that reports it."""

    def write(body):
        (tmp_path / "mine.py").write_text(VIEW.format(body=body))
        store = Store(str(home / "store"))
        stored = records.load_plan(store, "r-0")
        space = replace(stored.spaces[1], file=str(tmp_path / "mine.py"))
        records.save_plan(store, replace(stored, spaces=(space,)))
        return [sys.executable, "-m", "study", "report", "r-0", "--home", str(home)]

    return write


def ended(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("options", [[], ["--traceback"]])
def test_a_view_that_raises_gives_exit_code_1_after_the_platform_s_own_table(viewed, options):
    command = viewed("return results.rows[99]")
    code, shown, errors = ended([*command, *options])
    assert code == 1
    assert "IB⇒CR" in shown
    assert "The view of " in shown
    line = "error: the view of 'table9' raised IndexError: list index out of range (mine.py, line 7)"
    assert errors.splitlines()[-1] == line
    assert ("Traceback" in errors, 'mine.py", line 7, in view' in errors) == (bool(options), bool(options))


def test_a_figure_that_raises_gives_exit_code_1_after_the_rest_of_the_report(viewed, tmp_path):
    command = viewed("return [Figure('wrong', 'A title', 'A caption.', lambda canvas: 1 / 0, ['x'], [[1]])]")
    code, shown, errors = ended([*command, "--figures", str(tmp_path / "figures")])
    words = "figure table9-wrong raised ZeroDivisionError: division by zero (mine.py, line 7)"
    assert (code, errors) == (1, f"error: {words}\n")
    assert f"Figure table9-wrong could not be drawn ({words})." in " ".join(shown.split())
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["table9-wrong.csv"]


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_prints_a_run_or_one_of_its_spaces(home, form):
    whole, part = (call_study("report", called, "--format", form, home=home).stdout for called in ("r-0", "table7"))
    assert "IB⇒CR" in whole
    assert "IB⇒CR" not in part
    assert whole.startswith(
        {"html": "<!doctype html>", "json": "{", "markdown": "# r-0", "csv": "space,"}.get(form, "")
    )
