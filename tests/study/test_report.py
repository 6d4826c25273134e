import csv
import io
import json
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from conftest import call_study
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import all_of, cell, crossed, drawn, header, nine, plan, size_of, top1
from safetensors.numpy import save
from scipy.stats import ttest_rel

from study.plan.stored import PlannedSearch, PlannedSpace, PlannedTrial
from study.report.report import FORMATS, Report
from study.report.spread import NOT_INDEPENDENT
from study.space import Contrast, Integer, Real
from study.store import records
from study.store.states import Store

VARY = "3 replicates vary split (0 to 2), subset (0 to 2) and training seed (0 to 2)."
PUBLISHED = tuple({"subset": "0 (published)", "training seed": str(number)} for number in range(3))


def report_of(trials, states=None, *, space=None, **changes):
    return Report(plan(trials, **changes), (all_of(trials) if states is None else states).get, space)


def table_of(markdown):
    """The first Markdown table's head and rows as the cells between its bars."""
    lines = []
    for line in markdown.splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    head, rule, *body = ([part.strip() for part in line.strip("|").split("|")] for line in lines)
    assert set(rule) <= {"---", "---:"}
    assert {len(head), len(rule), *map(len, body)} == {len(head)}
    return head, body


def test_json_is_one_object_with_a_row_a_trial():
    record = json.loads(report_of(trials := nine()).json())
    assert (record["study"], record["run"], record["commit"], record["device"]) == ("table9", "r-0", "c0", "cpu")
    assert record["hardware"] == ["a CPU"]
    assert [row["trial"] for row in record["rows"]] == [trial.label for trial in trials]
    row = record["rows"][2]
    assert (row["dataset"], row["imbalance"], row["first"], row["switch"], row["S"]) == ("digits", 50.0, "IB", "CR", 1)
    assert (row["mean"], row["std"], row["n"], row["values"]) == (51.0, 1.0, 3, [50.0, 51.0, 52.0])
    assert row["measure"] == "test/top1"
    assert row["paper"] is None
    assert [(each["better"], each["worse"], each["mean"]) for each in record["differences"]] == [("IB⇒CR", "IB⇒IB", 0)]
    assert [(table["space"], table["title"]) for table in record["tables"]] == [
        ("table9", "table9: a title"),
        ("table9", "Hypotheses, set down before the run"),
    ]
    (figure,) = record["figures"]
    assert (figure["space"], figure["file"], len(figure["rows"])) == ("table9", "table9-combinations.png", 9)


def test_a_row_is_of_what_its_own_trial_measures_and_of_the_replicates_that_are_there():
    trial = cell("IB", "CR", replicates=3, measure="tau_normalised/top1", paper=80.0, paper_of="digits", provenance="*")
    states = {
        trial.ends[0]: header({"tau_normalised/top1": 60.0, "tau_normalised/few": 3.0, "test/top1": 1.0}),
        trial.ends[2]: header({"tau_normalised/top1": 62.0, "test/few": 9.0}),
    }
    (row,) = json.loads(report_of([trial], states).json())["rows"]
    assert (row["values"], row["few"], row["measure"]) == ([60.0, 62.0], 3.0, "tau_normalised/top1")
    assert (row["paper"], row["paper_of"], row["provenance"]) == (80.0, "digits", "*")
    assert "many" not in row


def test_csv_has_a_line_a_replicate_with_its_trial_s_axes_and_the_paper_s_figure():
    trials = [
        cell("IB", "CR", paper=82.9, paper_of="cifar10", provenance="†"),
        cell("IB", "IB", then="5 CB, then CR"),
        cell("CB", "CR"),
    ]
    states = {trials[0].ends[0]: top1(81.0, 83.5), trials[0].ends[2]: top1(82.0), trials[1].ends[1]: top1(70.0)}
    text = report_of(trials, states, contrasts=()).csv()
    lines = [line for line in csv.DictReader(io.StringIO(text)) if line["column"] == "digits"]
    assert [(line["space"], line["row"], line["replicate"], float(line["value"])) for line in lines] == [
        ("table9", "IB⇒CR", "0", 81.0),
        ("table9", "IB⇒CR", "2", 82.0),
        ("table9", "IB⇒IB", "1", 70.0),
    ]
    assert [(line["first"], line["switch"], line["S"], line["then"]) for line in lines] == [
        ("IB", "CR", "1", ""),
        ("IB", "CR", "1", ""),
        ("IB", "IB", "1", "5 CB, then CR"),
    ]
    figures = [(line["paper"], line["provenance"], line["paper_of"]) for line in lines]
    assert figures == [("82.9", "†", "cifar10")] * 2 + [("", "", "")]
    best = [line for line in csv.DictReader(io.StringIO(text)) if line["column"].startswith("best epoch")]
    assert [(line["first"], float(line["value"])) for line in best] == [("IB", 83.5), ("IB", 82.0), ("IB", 70.0)]


def test_several_columns_stand_side_by_side_with_a_dash_for_what_is_not_there():
    trials = [*nine(dataset="cifar10", paper=82.9, paper_of="cifar10"), cell("IB", "CR", dataset="digits")]
    trials[3] = replace(trials[3], paper=None)
    head, body = table_of(report_of(trials, all_of(trials[:1] + trials[9:])).markdown())
    assert head == ["", "cifar10", "paper", "digits"]
    assert [line[0] for line in body] == [trial.row for trial in trials[:9]]
    assert body[0] == ["IB⇒IB", "51.0 ± 1.0", "82.9", "–"]
    assert body[1] == ["IB⇒CB", "–", "82.9", "–"]
    assert body[2] == ["IB⇒CR", "–", "82.9", "51.0 ± 1.0"]
    assert body[3] == ["CB⇒IB", "–", "–", "–"]


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_other_data_than_the_paper_s_and_what_is_missing_are_said_at_the_top(form):
    other = nine(paper=82.9, paper_of="cifar10")
    text = report_of(other, all_of(other[:2])).render(form)
    for notice in ("Not the paper", "digits. Evidence: same question.", "Incomplete: 6 of 27 replicates have ended."):
        assert 0 < text.index(notice) < text.index("IB⇒IB")
    assert "difference from the paper" not in text
    same = nine(dataset="cifar10", paper=82.9, paper_of="cifar10")
    assert "Not the paper" not in report_of(same).render(form)
    assert "Incomplete" not in report_of(same).render(form)


def test_a_hypothesis_about_a_row_that_is_not_there_is_said_and_does_not_vanish():
    contrasts = (Contrast("IB⇒CR", "IB⇒IB"), Contrast("IB⇒CR", "IB⇒XX"))
    text = report_of(nine(), contrasts=contrasts).render("table")
    assert "Not tested: hypotheses that name rows which this run does not have: IB⇒XX." in text
    assert "Not tested" not in report_of(nine()).render("table")


def test_every_column_that_is_not_the_paper_s_is_said_at_the_top_whether_it_has_figures_or_not():
    trials = [*nine(dataset="cifar10", paper=82.9, paper_of="cifar10"), *nine(dataset="cifar100"), *nine(dataset="own")]
    (section,) = report_of(trials, paper_columns=("cifar10", "cifar100 at another imbalance")).sections
    assert section.notices == [VARY, "Not the paper's data or protocol: cifar100; own. Evidence: same question."]
    (section,) = report_of(trials).sections
    assert section.notices == [VARY], "a space that reproduces nothing of the paper"


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_what_replicates_vary_and_which_subset_they_have_is_said_first(form):
    trials = [replace(trial, seeds=PUBLISHED) for trial in nine(paper=82.9, paper_of="cifar10")]
    text = report_of(trials, all_of(trials[:2])).render(form)
    words = "3 replicates vary training seed (0 to 2); all have subset 0 (published)."
    assert 0 <= text.index("table9: a title") < text.index(words) < text.index("Not the paper")
    assert text.count(words) == 1


def test_columns_that_vary_other_things_are_told_apart():
    trials = [*nine(), *(replace(trial, seeds=PUBLISHED) for trial in nine(dataset="cifar10"))]
    (section,) = report_of(trials).sections
    assert section.notices == [
        f"digits: {VARY}",
        "cifar10: 3 replicates vary training seed (0 to 2); all have subset 0 (published).",
    ]
    assert json.loads(report_of(trials).json())["notices"] == {"table9": section.notices}


def test_a_run_of_an_earlier_version_does_not_say_what_varies():
    (section,) = report_of([replace(trial, seeds=()) for trial in nine()]).sections
    assert section.notices == ["What replicates vary is not known: their plan does not say it."]


def test_on_the_paper_s_own_data_each_difference_from_it_has_its_interval():
    trials = nine(dataset="cifar10", paper=50.0, paper_of="cifar10")
    text = report_of(trials).markdown()
    head, body = table_of(text[text.index("difference from the paper") :])
    assert head == ["", "cifar10"]
    assert body[0] == ["IB⇒IB", "+1.0 [-1.5, +3.5]"]
    assert "Paper: n = 1 or unstated." in text


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_each_hypothesis_has_its_difference_interval_p_and_verdict(form):
    trials = nine(replicates=6)
    better, worse = (52.0, 53.0, 52.5, 53.5, 51.0, 53.0), (50.0, 50.0, 49.0, 51.0, 50.0, 50.0)
    states = dict(zip((*trials[2].ends, *trials[0].ends), map(top1, (*better, *worse)), strict=True))
    test = ttest_rel(better, worse)
    low, high = test.confidence_interval(0.95)
    text = report_of(trials, states).render(form)
    for words in ("IB⇒CR − IB⇒IB", "+2.5", f"{low:+.1f} to {high:+.1f}", f"{test.pvalue:.2g}", "supported"):
        assert words in text


def test_a_hypothesis_of_equivalence_is_decided_by_its_interval():
    trials = nine(replicates=6)
    (found,) = json.loads(report_of(trials, contrasts=(Contrast("IB⇒CR", "IB⇒IB", margin=1.0),)).json())["differences"]
    assert (found["margin"], found["p"], found["verdict"]) == (1.0, None, "supported: equivalent within ± 1")


def own_data(replicates=4, pairs=True):
    """All cells on the paper's own data, and their states; no two rows have the same spread."""
    trials = nine(dataset="cifar10", paper=50.0, paper_of="cifar10", replicates=replicates)
    trials = [crossed(trial) for trial in trials] if pairs else trials
    states = {
        end: top1(50.0 + row + number * (number + row))
        for row, trial in enumerate(trials)
        for number, end in enumerate(trial.ends)
    }
    return trials, states


def test_crossed_replicates_have_their_spread_taken_apart_in_place_of_hypotheses():
    report = report_of(*own_data())
    (section,) = report.sections
    spread = "Where the spread comes from: subset and training seed"
    assert [each.title for each in section.tables] == ["table9: a title", spread]
    assert [each.title for each in section.exhibits][1:3] == [spread, spread], "the table, and its picture"
    words = "4 replicates vary subset (0, 1) and training seed (0, 1), every pair; all have split 0."
    assert section.notices == [words, NOT_INDEPENDENT]
    record = json.loads(report.json())
    assert record["differences"] == []
    assert [table["title"] for table in record["tables"]] == ["table9: a title", spread]
    assert len(record["tables"][1]["rows"]) == 9 + 1
    assert set(report.figures()) >= {"table9-spread.png", "table9-spread.csv"}
    assert size_of(report.files()["table9-spread.png"])[0] == 700

    (section,) = report_of(*own_data(pairs=False)).sections
    assert [each.title for each in section.tables][1:] == [
        "table9: a title: difference from the paper",
        "Hypotheses, set down before the run",
    ]
    assert NOT_INDEPENDENT not in section.notices


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_a_reader_of_crossed_replicates_sees_no_interval(form):
    text = report_of(*own_data()).render(form)
    assert 0 < text.index(NOT_INDEPENDENT) < text.index("Where the spread comes from")
    assert "Hypotheses, set down" not in text
    assert "a title: difference from the paper" not in text


def test_a_crossing_that_is_incomplete_has_neither_spread_nor_hypotheses():
    trials, states = own_data()
    first = {trial.ends[number]: states[trial.ends[number]] for trial in trials for number in range(3)}
    report = report_of(trials, first)
    (section,) = report.sections
    assert [each.title for each in section.tables] == ["table9: a title"]
    later = "Where the spread comes from is shown once all pairs of a row have ended."
    assert section.notices[1:] == ["Incomplete: 27 of 36 replicates have ended.", NOT_INDEPENDENT, later]
    assert json.loads(report.json())["differences"] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_results_is_rendered(form):
    trials = nine(paper=82.9, paper_of="cifar10")
    report = report_of(trials, {})
    text = report.render(form)
    assert all(trial.row in text for trial in trials)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert set(report.files()) == {"report.html", "report.md", "report.csv", "report.json"}


def test_one_space_of_a_run_is_reported_alone():
    trials = nine()
    whole, part = (report_of(trials, names=("table7", "table9"), space=only) for only in ("table7", "table9"))
    assert json.loads(whole.json())["rows"] == []
    assert (json.loads(part.json())["study"], len(json.loads(part.json())["rows"])) == ("table9", 9)
    assert "table7" not in part.markdown()
    assert "table7: a title" in report_of(trials, names=("table7", "table9")).markdown()


def test_figures_are_files_of_the_run_and_inside_the_page():
    report = report_of([*nine(), *nine(dataset="cifar10")])
    names = {"table9-combinations-digits.png", "table9-combinations-cifar10.png"}
    files = report.files()
    assert set(files) - {"report.html", "report.md", "report.csv", "report.json"} == names
    assert {size_of(files[name]) for name in names} == {(700, 480)}
    assert all(f"]({name})" in files["report.md"] for name in names)
    assert "](" not in report.markdown()
    assert files["report.html"].count("data:image/png;base64,") == 2
    figures = report.figures()
    assert set(figures) == names | {name.replace(".png", ".csv") for name in names}
    assert figures["table9-combinations-digits.csv"].startswith("first,switch,n,mean,std\nIB,IB,3,51.0,1.0\n")


# Views

VIEW = """
from dataclasses import replace

from search_spaces import table9
from study.exhibits import Figure, Printed, Cell, Table


def view(results):
    {body}


def space(request):
    return replace(table9.space(request), view=view)
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
        ("return results['no', 'such cell']", "it raised KeyError: ('no', 'such cell') (mine.py, line 9)"),
        ("raise ValueError('no\\nway')", "it raised ValueError: no way (mine.py, line 9)"),
    ],
)
def test_a_view_that_raises_gives_way_to_the_default_and_says_so(tmp_path, body, said):
    file, report = viewed(tmp_path, body)
    (section,) = report.sections
    assert [each.title for each in section.tables] == ["table9: a title", "Hypotheses, set down before the run"]
    assert section.notices[-1].startswith(f"The tables of {file} cannot be made, so here is the default one")
    assert said in section.notices[-1]
    assert "\n" not in section.notices[-1]


def test_a_view_whose_file_is_gone_gives_way_to_the_default(tmp_path):
    file, _ = viewed(tmp_path, SHOWN)
    file.unlink()
    report = Report(plan(nine(), file=str(file)), {}.get)
    assert f"The tables of {file} cannot be made" in report.table()
    assert "IB⇒CR" in report.table()


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
    assert {n: own.tolist() for n, own in first.observed("predictions").items()} == {0: [0, 0, 0]}
    assert second.last() == {0: 52.0, 1: 53.0}  # its header is whole
    assert {n: own.tolist() for n, own in second.observed("predictions").items()} == {0: [2, 2, 2]}
    assert all(result.headers == {} for result in others)


# The command line


@pytest.fixture
def home(tmp_path):
    """A home with two runs' records: `r-0` of nine cells and two spaces, nothing of the other."""
    store, trials = Store(str(tmp_path / "home" / "store")), nine(replicates=1)
    trials = [replace(trial, ends=(f"{number:064x}",)) for number, trial in enumerate(trials)]
    for number, trial in enumerate(trials):
        store.save(trial.ends[0], {"key": trial.ends[0], **top1(50.0 + number)}, b"")
    records.save_plan(store, plan(trials, ("table7", "table9")))
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
    assert "a folder that can be written would do" in str(refused.exception)


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_prints_a_run_or_one_of_its_spaces(home, form):
    whole, part = (call_study("report", called, "--format", form, home=home).stdout for called in ("r-0", "table7"))
    assert "IB⇒CR" in whole
    assert "IB⇒CR" not in part
    assert whole.startswith(
        {"html": "<!doctype html>", "json": "{", "markdown": "# r-0", "csv": "space,"}.get(form, "")
    )


# Open searches

REPORTED = ("test/top1", "holdout/top1")


def search_space(objectives=("val/top1",), trials=8):
    domain = {"q": Real(-2.0, 2.0), "S": Integer(0, 49)}
    search = PlannedSearch(trials, 0, 3, REPORTED, ("base",))
    return PlannedSpace("find", "Find: a title", "exploratory", objectives, (), domain, "find", "", search)


def point(number, q=0.0, S=1, stopped=False, **changes):
    label = f"#{number}"
    trial = PlannedTrial(
        "find",
        label,
        label,
        "digits",
        {"q": q, "S": S},
        {"dataset": "digits", "q": q, "S": S},
        None,
        "",
        200,
        (f"{label} 0",),
        "val/top1",
        stopped=stopped,
        seeds=(drawn(0, 0, 0),),
    )
    return replace(trial, **changes)


def champion_of(trial):
    label = f"champion {trial.label}"
    return replace(
        trial,
        label=label,
        row=label,
        ends=tuple(f"{label} {n}" for n in range(3)),
        measure="test/top1",
        champion_of=trial.label,
        first_replicate=1000,
        seeds=tuple(drawn(0, 0, 1000 + n) for n in range(3)),
    )


def measured(**measures):
    whole = {f"{split}/{name}": value for split, own in measures.items() for name, value in own.items()}
    return {"provenance": [{"device_model": "a CPU"}], "measures": [whole]}


def searched(values, objectives=("val/top1",), champions=(), stopped=(), trials=8):
    """A report of points whose objectives after the last epoch are these, None where a point has not ended."""
    names = [name.partition("/")[2] for name in objectives]
    points = [point(n, q=min(-1.5 + 0.3 * n, 2.0), S=min(7 * n, 49), stopped=n in stopped) for n in range(len(values))]
    states = {
        p.ends[0]: measured(val=dict(zip(names, own, strict=True)) | {"top1": own[0]})
        for p, own in zip(points, values, strict=True)
        if own is not None
    }
    crowned = [champion_of(points[n]) for n in champions]
    for each in crowned:
        for n, end in enumerate(each.ends):
            states[end] = measured(
                test={"top1": 80.0 + n}, holdout={"top1": 60.0 + 2 * n}, val=dict.fromkeys(("top1", *names), 99.0)
            )
    whole = replace(plan([*points, *crowned]), spaces=(search_space(objectives, trials),))
    return Report(whole, states.get)


def test_the_best_points_come_first_with_their_dimensions_and_objectives():
    report = searched([(70.0,), (90.0,), None, (80.0,)])
    head, body = table_of(report.markdown())
    assert head == ["", "q", "S", "val/top1"]
    assert body == [["#1", "-1.2", "7", "90.0"], ["#3", "-0.6", "21", "80.0"], ["#0", "-1.5", "0", "70.0"]]
    assert "The best 3 of 3 points that have ended (of 8)" in report.markdown()
    assert "n = 1; chosen by val/top1." in report.markdown()


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_what_the_points_and_the_champions_of_a_search_vary_is_said_first(form):
    points = "One replicate: split 0, subset 0, training seed 0."
    champions = "3 replicates vary training seed (1000 to 1002); all have split 0, subset 0."
    text = searched([(70.0,), (90.0,)]).render(form)
    assert 0 <= text.index("Find: a title") < text.index(points) < text.index("The best 2 of 2 points")
    (section,) = searched([(70.0,), (90.0,)], champions=(1,)).sections
    assert section.notices == [f"Points: {points}", f"Champions: {champions}"]
    assert searched([]).sections[0].notices == []


def test_of_many_points_ten_are_shown():
    _, body = table_of(searched([(float(n),) for n in range(15)], trials=15).markdown())
    assert [line[0] for line in body] == [f"#{n}" for n in range(14, 4, -1)]


def test_points_that_were_stopped_early_are_counted_and_not_ranked():
    report = searched([(70.0,), (90.0,), (80.0,)], stopped=(1,))
    _, body = table_of(report.markdown())
    assert [line[0] for line in body] == ["#2", "#0"]
    assert "The best 2 of 2 points that have ended (of 8, 1 more stopped early)" in report.markdown()
    (record,) = json.loads(report.json())["searches"]
    assert (record["planned"], record["ended"], record["stopped"], record["best"]) == (3, 2, 1, ["#2"])


def test_the_history_is_the_best_so_far():
    report = searched([(70.0,), (60.0,), (90.0,), (90.0,), (80.0,)])
    assert "best val/top1 so far: 70.0 at #0, 90.0 at #2" in report.markdown()
    (record,) = json.loads(report.json())["searches"]
    assert [each["best"] for each in record["history"]] == [70.0, 70.0, 90.0, 90.0, 90.0]


def test_importances_are_shares_and_a_dimension_that_matters_has_most():
    report = searched([(50.0 + 10 * (n % 2),) for n in range(2)] + [(40.0 + 5 * n,) for n in range(2, 8)])
    (record,) = json.loads(report.json())["searches"]
    assert set(record["importances"]) == {"q", "S"}
    assert sum(record["importances"].values()) == pytest.approx(1.0)
    assert "importance for val/top1 (fANOVA; shares of 1): " in report.markdown()

    points = [point(n, q=q, S=S) for n, (q, S) in enumerate(product((-2.0, -1.0, 0.0, 1.0), (0, 10, 20, 40)))]
    states = {p.ends[0]: measured(val={"top1": 50 + 10 * p.axes["q"] + 0.01 * p.axes["S"]}) for p in points}
    shares = Report(replace(plan(points), spaces=(search_space(),)), states.get).searches["find"].importances
    assert shares["q"] > 0.9


@pytest.mark.parametrize("values", [[], [(50.0,)], [(50.0,), (50.0,)], [None, None]])
def test_of_equal_or_single_points_nothing_is_important(values):
    report = searched(values)
    assert report.searches["find"].importances == {}
    assert all(report.render(form).strip() for form in FORMATS)


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_champion_is_reported_on_what_it_was_not_chosen_by(form):
    text = searched([(70.0,), (90.0,)], champions=(1,)).render(form)
    words = "champion #1 (q -1.2, S 7): test/top1 81.0 ± 1.0, holdout/top1 62.0 ± 2.0, mean ± std over n = 3 fresh"
    assert words in text
    assert "99.0" not in text


def test_a_champion_s_measures_are_in_json_and_its_value_is_that_of_all_test_images():
    record = json.loads(searched([(70.0,), (90.0,)], champions=(1,)).json())
    (search,) = record["searches"]
    (champion,) = search["champions"]
    assert (champion["trial"], champion["champion_of"], champion["n"]) == ("champion #1", "#1", 3)
    assert champion["test/top1"] == {"mean": 81.0, "std": 1.0, "values": [80.0, 81.0, 82.0]}
    assert champion["holdout/top1"]["mean"] == 62.0
    assert [each["trial"] for each in search["points"]] == ["#0", "#1"]
    assert [(row["trial"], row["values"]) for row in record["rows"]] == [
        ("#0", [70.0]),
        ("#1", [90.0]),
        ("champion #1", [80.0, 81.0, 82.0]),
    ]


pairs = st.lists(st.none() | st.tuples(*[st.integers(0, 5).map(float)] * 2), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(values=pairs)
def test_with_two_objectives_the_best_are_the_pareto_front(values):
    report = searched(values, objectives=("val/top1", "val/few"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.report.searched.Searched.importances", {})  # they take a second
        (record,) = json.loads(report.json())["searches"]
    ended = {f"#{n}": own for n, own in enumerate(values) if own is not None}
    best = {
        own
        for own in ended.values()
        if not any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in ended.values())
    }
    assert {ended[label] for label in record["best"]} == best
    assert len(record["best"]) == len(best)
    assert {each["trial"]: tuple(each["values"]) for each in record["points"]} == ended


def test_a_search_has_a_picture_from_two_points_on():
    assert "find.png" not in searched([(70.0,)]).files()
    files = searched([(70.0,), (80.0,), (60.0,)]).files()
    assert "combinations.png" not in files
    assert min(size_of(files["find.png"])) > 100
