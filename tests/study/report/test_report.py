import csv
import io
import json
import re
from dataclasses import replace

import pytest
from helpers import all_of, cell, crossed, header, nine, plan, report_of, size_of, table_of, top1
from scipy.stats import ttest_rel

from study.report.report import FORMATS, Report
from study.report.spread import not_independent
from study.space import Contrast

VARY = "3 replicates vary split (0 to 2), subset (0 to 2) and training seed (0 to 2)."
PUBLISHED = tuple({"subset": "0 (published)", "training seed": str(number)} for number in range(3))


def test_json_is_one_object_with_a_row_a_trial():
    record = json.loads(report_of(trials := nine(), file="table9").json())
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
    trials[3] = replace(trials[3], trial=replace(trials[3].trial, printed=None))
    head, body = table_of(report_of(trials, all_of(trials[:1] + trials[9:])).markdown())
    assert head == ["", "cifar10", "paper", "digits"]
    assert [line[0] for line in body] == [trial.trial.row for trial in trials[:9]]
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


@pytest.mark.parametrize("form", FORMATS)
def test_failed_replicates_have_their_reason_in_place_of_a_value(form):
    trials, reason = nine(), "diverged in epoch 3 (training loss nan at lr 1e+06)"
    states = all_of(trials)
    states = {end: state for end, state in states.items() if end not in (*trials[0].ends, trials[1].ends[2])}
    failures = {(trials[0].name, n): reason for n in range(3)} | {(trials[1].name, 2): reason}
    text = Report(plan(trials), states.get, failures=failures).render(form)
    if form == "json":
        first, second, third, *_ = json.loads(text)["rows"]
        assert (first["n"], first["failed"]) == (0, dict.fromkeys("012", reason))
        assert (second["n"], second["failed"]) == (2, {"2": reason})
        assert "failed" not in third
        assert json.loads(text)["tables"][0]["rows"][0][1]["failed"] == dict.fromkeys("012", reason)
    elif form == "csv":
        lines = [line for line in csv.DictReader(io.StringIO(text)) if line["text"] == reason]
        assert [(line["row"], line["replicate"], line["value"]) for line in lines] == [
            *(("IB⇒IB", str(n), "") for n in range(3)),
            ("IB⇒CB", "2", ""),
        ]
    else:
        assert text.count(reason) == 4 + 1, "each in a notice, and one in the cell that has no value"
        assert "Failed: 4 of 27 replicates." in text
        assert "Incomplete" not in text


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
    assert section.notices == ["The plan does not record in which seeds the replicates differ."]


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
    (record,) = json.loads(report_of(trials, contrasts=(Contrast("IB⇒CR", "IB⇒IB", margin=1.0),)).json())["differences"]
    assert (record["margin"], record["p"], record["verdict"]) == (1.0, None, "supported: equivalent within ± 1")


def own_data(replicates=4, pairs=True):
    """Return all cells on the paper's data, and their states. No two rows have the same spread."""
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
    assert section.notices == [words, not_independent(section.space)]
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
    assert not_independent(section.space) not in section.notices


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_a_reader_of_crossed_replicates_sees_no_interval(form):
    report = report_of(*own_data())
    text = report.render(form)
    assert 0 < text.index(not_independent(report.sections[0].space)) < text.index("Where the spread comes from")
    assert "Hypotheses, set down" not in text
    assert "a title: difference from the paper" not in text


def test_a_crossing_that_is_incomplete_has_neither_spread_nor_hypotheses():
    trials, states = own_data()
    first = {trial.ends[number]: states[trial.ends[number]] for trial in trials for number in range(3)}
    report = report_of(trials, first)
    (section,) = report.sections
    assert [each.title for each in section.tables] == ["table9: a title"]
    later = "The sources of the spread are shown once all pairs of a row have ended."
    assert section.notices[1:] == ["Incomplete: 27 of 36 replicates have ended.", not_independent(section.space), later]
    assert json.loads(report.json())["differences"] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_results_is_rendered(form):
    trials = nine(paper=82.9, paper_of="cifar10")
    report = report_of(trials, {})
    text = report.render(form)
    assert all(trial.trial.row in text for trial in trials)
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
    report = report_of([*nine(), *nine(dataset="cifar10")], file="table9")
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
