"""A view of a space in a report."""

from dataclasses import replace

import pytest
from helpers import nine, plan, table_of, top1

from study.report.report import Report

VIEW = """
from search_spaces.table9 import space
from study.report.exhibits import Cell, Figure, Table
from study.space import Printed


def view(results):
    {body}
"""

SHOWN = """
    rows = [[row, results.cell(row, "digits", "test/few"), str(len(results["IB⇒IB", "digits"].observed("predictions")))]
            for row in results.rows]
    rows.append(["OLTR", Cell(printed=Printed(37.7, "†")), None])
    figure = Figure("figure1", "A title", "A caption.", lambda canvas: canvas.add_subplot(), ["x"], [[1]])
    return [Table("Few-shot", ["", "few", "runs"], rows), None, figure]
"""


def viewed(tmp_path, body, **options):
    file = tmp_path / "mine.py"
    file.write_text(VIEW.format(body=body.strip()))
    trials = nine(replicates=2)
    states = {end: top1(50.0, few=10.0 + n) for trial in trials for n, end in enumerate(trial.ends)}
    return file, Report(plan(trials, file=str(file), paper_columns=("cifar10",), **options), states.get)


def test_a_space_s_own_view_is_shown_with_its_hypotheses_behind_the_tables(tmp_path):
    _, report = viewed(tmp_path, SHOWN)
    (section,) = report.sections
    assert section.notices == [
        "2 replicates vary split (0, 1), subset (0, 1) and training seed (0, 1).",
        "Not the paper's data or protocol: digits. Evidence: same question.",
    ]
    assert [each.title for each in section.exhibits] == ["Few-shot", "Hypotheses, set down before the run", "A title"]
    head, body = table_of(report.markdown())
    assert head == ["", "few", "paper", "runs"]
    assert body[0] == ["IB⇒IB", "10.5 ± 0.7", "–", "0"]
    assert body[-1] == ["OLTR", "–", "37.7†", "–"]
    assert set(report.files()) >= {"table9-figure1.png"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "return results['no', 'such cell']",
            "the view of 'table9' raised KeyError: ('no', 'such cell') (mine.py, line 8)",
        ),
        ("raise ValueError('no\\nway')", "the view of 'table9' raised ValueError: no way (mine.py, line 8)"),
    ],
)
def test_a_view_that_raises_gives_way_to_the_default_and_says_so(tmp_path, body, said):
    file, report = viewed(tmp_path, body)
    (section,) = report.sections
    assert [each.title for each in section.tables] == ["table9: a title", "Hypotheses, set down before the run"]
    assert section.notices[-1].startswith(f"The view of {file} failed, so this is the default table")
    assert said in section.notices[-1]
    assert "\n" not in section.notices[-1]


def test_a_view_whose_file_is_gone_gives_way_to_the_default(tmp_path):
    file, _ = viewed(tmp_path, SHOWN)
    file.unlink()
    report = Report(plan(nine(), file=str(file)), {}.get)
    assert f"The view of {file} failed" in report.table()
    assert "IB⇒CR" in report.table()


@pytest.mark.parametrize(("source", "missing"), [("raise SystemExit('executed')\n", 0), ("view = 1 / 0\n", 1)])
def test_a_source_that_the_plan_holds_is_never_executed(tmp_path, source, missing):
    """If it has a view, the default table replaces the view, and the report says so."""
    file = tmp_path / "gone.py"
    report = Report(replace(plan(nine(), file=str(file)), held={str(file): source}), {}.get)
    assert report.table().count(f"The view of {file} failed") == missing
    assert [f"There is no file {file}" in problem for problem in report.problems] == [True] * missing
    assert "IB⇒CR" in report.table()
