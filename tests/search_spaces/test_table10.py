"""Table 10: class probabilities from irregularities, and where those are from."""

import json

import numpy as np
import pytest
from helpers import as_trained, by_place, exhibits, nothing, printed_of, space, tables

from search_spaces import table8, table10
from study.errors import Refusal
from study.machine import Machine
from study.report import render
from study.report.exhibits import Figure
from study.space import Contrast
from trainables.config import Config
from trainables.work import WORK

DIGITS = "digits-LT IF 50"


def weights(**request):
    (trial,) = [each for each in space("table10", **request).trials if each.row == "irregularity"]
    return Config.from_json(trial.config).switch


def irregularity(numbers, **request):
    return {"options": {"irregularity": numbers}, **request}


def test_the_paper_s_figures():
    trials = by_place("table10", paper=True)
    figures = {row: printed_of(trial)[0] for (row, _), trial in trials.items()}
    assert figures == {"cardinality": 82.9, "irregularity": 82.8}


def test_the_printed_irregularities_are_the_default_on_the_paper_s_data():
    """Head .0019 and tail .3955, where by cardinality it is .0071 and .3567."""
    p = weights(paper=True)
    assert (round(p[0], 4), round(p[-1], 4)) == (0.0019, 0.3955)
    (_, shown) = tables(as_trained("table10", nothing, paper=True))
    assert shown.rows[0] == ["0", "5000", "0.0071", "0.0019"]
    assert shown.rows[-1] == ["9", "100", "0.3567", "0.3955"]
    assert shown.notes == ["Irregularity: as printed."]


def test_they_are_proportional_to_the_irregularity_to_six_digits():
    p = weights(paper=True)
    exact = np.array(table8.IRREGULARITY) / sum(table8.IRREGULARITY)
    assert p == pytest.approx(exact, rel=5e-6)
    assert all(float(f"{value:.6g}") == value for value in p)


def test_on_digits_they_are_those_that_table_8_measured():
    measured = json.loads(table10.MEASURED.read_text(encoding="utf-8"))["figures"][0]["rows"]
    p = weights()
    assert p == pytest.approx([row[-1] / sum(row[-1] for row in measured) for row in measured], rel=1e-5)
    (_, shown) = tables(as_trained("table10"))
    assert shown.notes == ["Irregularity: results/table8-digits.json."]


def test_numbers_may_be_given_and_zeros_are_floored_and_reported():
    given = irregularity("4,0,2,1,1,1,0,1,1,5", data=("cifar10",))
    assert weights(**given) == (0.222222, 0.0555556, 0.111111, *[0.0555556] * 6, 0.277778)
    (_, shown) = tables(as_trained("table10", nothing, **given))
    assert "It is 0 for 2 classes; the smallest of the others is used for these." in shown.notes


def test_what_table_8_reports_is_taken_as_it_is(tmp_path):
    """Ten runs of made-up events of digits-LT at IF 20, through table 8's own view and JSON."""
    rng = np.random.default_rng(0)
    n = sum(int(124 * 20 ** (-rank / 9)) for rank in range(10))
    runs = {number: {"learned": rng.integers(0, 100, n), "forgotten": rng.integers(0, 9, n)} for number in range(10)}
    of_eight = as_trained("table8", observed=runs, imbalance=(20.0,))
    figures = [each for each in exhibits(of_eight) if isinstance(each, Figure)]
    report = json.dumps({"figures": [render.figure_json(figure) for figure in figures]})
    p = weights(**irregularity(report, imbalance=(20.0,)))
    measured = np.array([row[-1] for row in figures[0].rows])
    assert p == pytest.approx(measured / measured.sum(), rel=1e-5)
    with pytest.raises(
        Refusal, match=r"-o irregularity must hold the irregularities of digits-LT IF 50 \(got .*It takes numbers"
    ):
        space("table10", **irregularity(report))


@pytest.mark.parametrize(
    ("numbers", "remedy"),
    [
        ("1,2,3", "must be 10 finite numbers ≥ 0, not all 0, for digits-LT IF 50"),
        ("1,1,1,1,1,1,1,1,1,-1", "10 finite numbers"),
        ("1,1,1,1,1,1,1,1,1,nan", "10 finite numbers"),
        ("0,0,0,0,0,0,0,0,0,0", "10 finite numbers"),
        ("much", "It takes numbers separated by commas"),
        ("{", "It takes numbers separated by commas"),
        ("{}", "It takes numbers separated by commas"),
        ('{"figures": []}', "It takes numbers separated by commas"),
    ],
)
def test_what_is_no_irregularity_is_refused(numbers, remedy):
    with pytest.raises(Refusal, match=remedy):
        space("table10", **irregularity(numbers))


def test_numbers_are_of_one_data_set():
    both = irregularity("1,1,1,1,1,1,1,1,1,2", imbalance=(50.0, 20.0))
    with pytest.raises(Refusal, match=r"choose one of digits-LT IF 50, digits-LT IF 20$"):
        space("table10", **both)


def test_other_data_need_to_be_measured_first():
    with pytest.raises(
        Refusal, match=r"^no irregularities are known for cifar100-LT IF 50\. .*'study report table8 --format json'"
    ):
        space("table10", data=("cifar100",))


def test_replicates_share_table_8_s_split_and_subset_and_none_of_its_seeds():
    machine = Machine("cpu", 1)
    (eight,) = space("table8").trials
    measured = {WORK.resolve(eight.config, number, machine).keys[0] for number in range(eight.least)}
    for trial in space("table10").trials:
        origins = [WORK.resolve(trial.config, number, machine) for number in range(3)]
        assert {(each.origin["split_seed"], each.origin["subset_seed"]) for each in origins} == {(0, 0)}
        assert not measured & {each.keys[0] for each in origins}


def test_the_two_are_to_differ_by_less_than_a_point():
    assert space("table10").contrasts == (Contrast(better="irregularity", worse="cardinality", margin=1.0),)


def test_before_anything_has_ended_the_weights_are_known_already():
    accuracy, shown = tables(as_trained("table10", nothing))
    assert [str(row[1]) for row in accuracy.rows] == ["–", "–"]
    assert sum(float(row[2]) for row in shown.rows) == pytest.approx(1, abs=1e-3)
