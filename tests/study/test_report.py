import csv
import io
import json
import struct
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from study.plan import (
    Contrast,
    Integer,
    Machine,
    Plan,
    PlannedSearch,
    PlannedSpace,
    PlannedTrial,
    Real,
    Request,
    Resources,
)
from study.report import FORMATS, Report

SAMPLERS = ("IB", "CB", "CR")
CONTRASTS = (Contrast("IB⇒CR", "IB⇒IB"),)


def cell(first, switch, dataset="digits", paper=None, paper_of="", replicates=3, **axes):
    row = f"{first}⇒{switch}"
    axes = {"dataset": dataset, "imbalance": 50.0, "first": first, "switch": switch, "S": 1, **axes}
    ends = tuple(f"{row} {dataset} {number}" for number in range(replicates))
    config = {"dataset": dataset}
    return PlannedTrial(
        "table9", f"{row} ({dataset})", row, dataset, config, axes, paper, paper_of, 200, ends, "test/top1"
    )


def nine(**options):
    return [cell(first, switch, **options) for first, switch in product(SAMPLERS, repeat=2)]


def plan(trials, names=("table9",)):
    spaces = tuple(
        PlannedSpace(name, f"{name}: a title", "same question", ("test/top1",), CONTRASTS, {}, name, "")
        for name in names
    )
    return Plan(
        "r-0",
        Request(),
        Machine("cpu", 1),
        Resources(),
        3,
        spaces,
        tuple(trials),
        {},
        0,
        commit="c0",
        versions={"a": "1"},
    )


def top1(last, best=None, **shots):
    best = last if best is None else best
    split = {f"test/{shot}": value for shot, value in shots.items()}
    return {"provenance": [{"device_model": "a CPU"}], "measures": [{"test/top1": best}, {"test/top1": last, **split}]}


def all_of(trials, value=50.0, step=1.0):
    """Every state: a trial's replicates are `value`, `value + step`, …"""
    return {end: top1(value + step * number) for trial in trials for number, end in enumerate(trial.ends)}.get


def table_of(markdown):
    """A Markdown table's head and rows as the cells between its bars."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    head, rule, *body = ([part.strip() for part in line.strip("|").split("|")] for line in lines)
    assert set(rule) == {"---"}
    assert {len(head), len(rule), *map(len, body)} == {len(head)}
    return head, body


def test_json_is_one_object_with_a_row_a_trial():
    trials = nine()
    record = json.loads(Report(plan(trials), all_of(trials)).json())
    assert (record["study"], record["run"], record["commit"], record["device"]) == ("table9", "r-0", "c0", "cpu")
    assert [row["trial"] for row in record["rows"]] == [trial.label for trial in trials]
    row = record["rows"][2]
    assert (row["dataset"], row["imbalance"], row["first"], row["switch"], row["S"]) == ("digits", 50.0, "IB", "CR", 1)
    assert (row["mean"], row["std"], row["n"], row["values"]) == (51.0, 1.0, 3, [50.0, 51.0, 52.0])
    assert row["paper"] is None
    assert [(each["better"], each["worse"], each["mean"]) for each in record["differences"]] == [("IB⇒CR", "IB⇒IB", 0)]


def test_csv_has_a_line_a_replicate():
    trials = [
        cell("IB", "CR", paper=82.9, paper_of="cifar10"),
        cell("IB", "IB", then="5 CB, then CR"),
        cell("CB", "CR"),
    ]
    states = {trials[0].ends[0]: top1(81.0, 83.5), trials[0].ends[2]: top1(82.0), trials[1].ends[1]: top1(70.0)}
    lines = list(csv.DictReader(io.StringIO(Report(plan(trials), states.get).csv())))
    assert [(line["trial"], line["replicate"], float(line["value"]), float(line["best_epoch"])) for line in lines] == [
        (trials[0].label, "0", 81.0, 83.5), (trials[0].label, "2", 82.0, 82.0), (trials[1].label, "1", 70.0, 70.0),
    ]  # fmt: skip
    assert [(line["first"], line["switch"], line["S"], line["then"]) for line in lines] == [
        ("IB", "CR", "1", ""), ("IB", "CR", "1", ""), ("IB", "IB", "1", "5 CB, then CR"),
    ]  # fmt: skip
    assert [(line["paper"], line["paper_of"]) for line in lines] == [("82.9", "cifar10")] * 2 + [("", "")]


def test_a_table_has_a_row_a_trial_with_its_shots_and_its_best_epoch_apart():
    trials = nine(replicates=2)
    states = dict(zip(trials[0].ends, (top1(50.0, 60.0, many=90.0), top1(52.0, 70.0, many=80.0)), strict=True))
    states[trials[1].ends[0]] = top1(61.0, few=10.0)
    head, body = table_of(Report(plan(trials), states.get).markdown())
    assert head == ["", "digits", "many", "medium", "few", "best epoch (selected on test)"]
    assert len(body) == 9
    assert body[0] == ["IB⇒IB", "51.0 ± 1.4", "85.0", "–", "–", "65.0"]
    assert body[1] == ["IB⇒CB", "61.0", "–", "–", "10.0", "61.0"]
    assert all(line == [trial.row, "–", "–", "–", "–", "–"] for line, trial in zip(body[2:], trials[2:], strict=True))


def test_a_paper_s_figure_for_other_data_says_so():
    other = nine(paper=82.9, paper_of="cifar10")
    assert table_of(Report(plan(other), all_of(other)).markdown())[0][:3] == [
        "", "digits", "paper: cifar10 (another data set)",
    ]  # fmt: skip
    same = nine(dataset="cifar10", paper=82.9, paper_of="cifar10")
    head, body = table_of(Report(plan(same), all_of(same)).markdown())
    assert head[:3] == ["", "cifar10", "paper"]
    assert body[0][:3] == ["IB⇒IB", "51.0 ± 1.0", "82.9"]


def test_several_columns_stand_side_by_side_with_a_dash_for_what_is_not_there():
    trials = [*nine(dataset="cifar10", paper=82.9, paper_of="cifar10"), cell("IB", "CR", dataset="digits")]
    trials[3] = replace(trials[3], paper=None)
    head, body = table_of(Report(plan(trials), all_of(trials[:1] + trials[9:])).markdown())
    assert head == ["", "cifar10", "paper", "digits"]
    assert [line[0] for line in body] == [trial.row for trial in trials[:9]]
    assert body[0] == ["IB⇒IB", "51.0 ± 1.0", "82.9", "–"]
    assert body[1] == ["IB⇒CB", "–", "82.9", "–"]
    assert body[2] == ["IB⇒CR", "–", "82.9", "51.0 ± 1.0"]
    assert body[3] == ["CB⇒IB", "–", "–", "–"]


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_the_words_under_a_table_say_n_the_evidence_and_each_hypothesis(form):
    trials = nine(paper=82.9, paper_of="cifar10", replicates=6)
    better, worse = (52.0, 53.0, 52.5, 53.5, 51.0, 53.0), (50.0, 50.0, 49.0, 51.0, 50.0, 50.0)
    states = dict(zip((*trials[2].ends, *trials[0].ends), map(top1, (*better, *worse)), strict=True))
    test = ttest_rel(better, worse)
    low, high = test.confidence_interval(0.95)
    text = Report(plan(trials), states.get).render(form)
    assert "over n = 0 to 6 replicates" in text
    assert "Evidence on digits: same question." in text
    assert "Paper: n = 1 or unstated." in text
    words = f"+2.5 points, 95 % interval {low:+.1f} to {high:+.1f} (paired, n = 6, p = {test.pvalue:.2g} by Holm)"
    assert f"IB⇒CR − IB⇒IB on digits: {words}" in text


def test_one_pair_is_reported_without_an_interval():
    trials = nine(replicates=1)
    assert (
        "IB⇒CR − IB⇒IB on digits: +0.0 points (n = 1: no interval)" in Report(plan(trials), all_of(trials)).markdown()
    )


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_results_is_rendered(form):
    trials = nine(paper=82.9, paper_of="cifar10")
    report = Report(plan(trials), {}.get)
    text = report.render(form)
    assert text.strip()
    assert all(trial.row in text for trial in trials) or form == "csv"
    assert report.heat_map() is None
    assert set(report.files()) == {"report.md", "report.csv", "report.json"}


def test_one_space_of_a_run_is_reported_alone():
    trials = nine()
    whole, part = (Report(plan(trials, ("table7", "table9")), all_of(trials), only) for only in ("table7", "table9"))
    assert json.loads(whole.json())["rows"] == []
    assert (json.loads(part.json())["study"], len(json.loads(part.json())["rows"])) == ("table9", 9)
    assert "table7" not in part.markdown()


def size_of(png):
    """A PNG's width and height in pixels."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png[12:16] == b"IHDR"
    return struct.unpack(">II", png[16:24])


def test_the_combinations_are_a_picture_with_a_panel_a_column():
    one = nine()
    two = [*one, *nine(dataset="cifar10")]
    width, height = size_of(Report(plan(one), all_of(one)).heat_map())
    assert size_of(Report(plan(two), all_of(two)).heat_map()) == (2 * width, height)
    assert "combinations.png" in Report(plan(one), all_of(one)).files()


@pytest.mark.parametrize(
    "trials",
    [
        [cell("IB", switch) for switch in SAMPLERS],
        [cell(first, "CR") for first in SAMPLERS],
        nine()[:8],
        [],
    ],
    ids=["one first sampler", "one switch sampler", "a cell is missing", "nothing"],
)
def test_what_is_no_square_has_no_picture(trials):
    assert Report(plan(trials), all_of(trials)).heat_map() is None


# Open searches

REPORTED = ("test/top1", "holdout/top1")


def search_space(objectives=("val/top1",), trials=8):
    domain = {"q": Real(-2.0, 2.0), "S": Integer(0, 49)}
    search = PlannedSearch(trials, 0, 3, REPORTED, ("base",))
    return PlannedSpace("find", "Find: a title", "exploratory", objectives, (), domain, "find", "", search)


def point(number, q=0.0, S=1, stopped=False, **changes):
    label = f"#{number}"
    trial = PlannedTrial(
        "find", label, label, "digits", {"q": q, "S": S}, {"dataset": "digits", "q": q, "S": S}, None, "", 200,
        (f"{label} 0",), "val/top1", stopped=stopped,
    )  # fmt: skip
    return replace(trial, **changes)


def champion_of(trial):
    label = f"champion {trial.label}"
    return replace(
        trial, label=label, row=label, ends=tuple(f"{label} {n}" for n in range(3)), measure="test/top1",
        champion_of=trial.label, first_replicate=1000,
    )  # fmt: skip


def measured(**measures):
    whole = {f"{split}/{name}": value for split, own in measures.items() for name, value in own.items()}
    return {"provenance": [{"device_model": "a CPU"}], "measures": [whole]}


def searched(values, objectives=("val/top1",), champions=(), stopped=(), trials=8):
    """A report of points whose objectives after the last epoch are these, None where a point has not ended."""
    names = [name.partition("/")[2] for name in objectives]
    points = [point(n, q=min(-1.5 + 0.3 * n, 2.0), S=min(7 * n, 49), stopped=n in stopped) for n in range(len(values))]
    states = {
        p.ends[0]: measured(val=dict(zip(names, own, strict=True)) | {"top1": own[0]})
        for p, own in zip(points, values, strict=True) if own is not None
    }  # fmt: skip
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
        ("#0", [70.0]), ("#1", [90.0]), ("champion #1", [80.0, 81.0, 82.0]),
    ]  # fmt: skip


pairs = st.lists(st.none() | st.tuples(*[st.integers(0, 5).map(float)] * 2), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(values=pairs)
def test_with_two_objectives_the_best_are_the_pareto_front(values):
    report = searched(values, objectives=("val/top1", "val/few"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.searched.Searched.importances", {})  # they take a second
        (record,) = json.loads(report.json())["searches"]
    ended = {f"#{n}": own for n, own in enumerate(values) if own is not None}
    best = {
        own for own in ended.values()
        if not any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in ended.values())
    }  # fmt: skip
    assert {ended[label] for label in record["best"]} == best
    assert len(record["best"]) == len(best)
    assert {each["trial"]: tuple(each["values"]) for each in record["points"]} == ended


def test_a_search_has_a_picture_from_two_points_on():
    assert "find.png" not in searched([(70.0,)]).files()
    files = searched([(70.0,), (80.0,), (60.0,)]).files()
    assert "combinations.png" not in files
    assert min(size_of(files["find.png"])) > 100
